//! Interrupts: the first one ends the run after its step, the second one ends the program.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::failure::Exit;

/// Remembers the first interrupt for as long as it lives. After that, and at a second one, an interrupt ends the program.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Set by the first interrupt of either kind.
    pub(crate) stop: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Starts listening for SIGINT (Ctrl-C) and SIGTERM.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub(crate) fn listen() -> io::Result<Self> {
        let (stop, terminated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated)] {
            // In this order, the first signal only sets the flag, and the second one finds it set and leaves at once.
            flag::register_conditional_shutdown(signal, exit as i32, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        flag::register(SIGTERM, Arc::clone(&terminated))?;
        Ok(Self { stop, terminated })
    }

    /// The exit code that tells which signal it was.
    pub(crate) fn exit(&self) -> Exit {
        if self.terminated.load(Ordering::Relaxed) { Exit::Terminated } else { Exit::Interrupted }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The handlers stay; with the flag set they take the next signal for a second one.
        self.stop.store(true, Ordering::Relaxed);
    }
}
