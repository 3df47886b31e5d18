//! Interrupts: the first one ends the run after its step, the second one ends the program.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
#[cfg(unix)]
use std::{sync::mpsc, thread, time::Duration};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::failure::Exit;
#[cfg(feature = "live")]
use crate::live;
#[cfg(unix)]
use crate::terminal::note;

/// Without the live view there is nothing to give back.
#[cfg(all(unix, not(feature = "live")))]
mod live {
    pub(super) fn leave() {}
    pub(super) fn suspend() {}
    pub(super) fn go_on() {}
}

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
        flag::register(SIGTERM, Arc::clone(&terminated))?;
        end_at_the_second(&stop)?;
        Ok(Self { stop, terminated })
    }

    /// The exit code that tells which signal it was.
    pub(crate) fn exit(&self) -> Exit {
        if self.terminated.load(Ordering::Relaxed) { Exit::Terminated } else { Exit::Interrupted }
    }
}

const ENDINGS: [(i32, Exit); 2] = [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated)];

/// The first signal sets `stop`; one that finds it set ends the program, after the live view has given the terminal back.
/// That is more than a signal handler may do, so a thread does it.
#[cfg(unix)]
fn end_at_the_second(stop: &Arc<AtomicBool>) -> io::Result<()> {
    use signal_hook::{
        consts::{SIGCONT, SIGTSTP},
        iterator::Signals as Incoming,
        low_level,
    };

    let mut incoming = Incoming::new([SIGINT, SIGTERM, SIGTSTP, SIGCONT])?;
    let stop = Arc::clone(stop);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in incoming.forever() {
            match ENDINGS.into_iter().find(|(ending, _)| *ending == signal) {
                Some((_, exit)) if stop.swap(true, Ordering::Relaxed) => {
                    take_leave();
                    low_level::exit(exit as i32);
                }
                Some(_) => {}
                None if signal == SIGTSTP => {
                    live::suspend();
                    // Stops the program here, until it is continued. A system that refuses leaves it running.
                    let _ = low_level::emulate_default_handler(SIGTSTP);
                }
                None => live::go_on(),
            }
        }
    })?;
    Ok(())
}

/// Gives the terminal back and says a word, unless the terminal takes nothing any more: it must not hold the end up.
#[cfg(unix)]
fn take_leave() {
    let (said, waiting) = mpsc::channel();
    let leaving = thread::Builder::new().spawn(move || {
        live::leave();
        note("ended at once; a run goes on from its last checkpoint with `resume`");
        // Nobody may be waiting any more.
        let _ = said.send(());
    });
    if leaving.is_ok() {
        let _ = waiting.recv_timeout(Duration::from_millis(500));
    }
}

#[cfg(not(unix))]
fn end_at_the_second(stop: &Arc<AtomicBool>) -> io::Result<()> {
    for (signal, exit) in ENDINGS {
        // In this order, the first signal only sets the flag, and the second one finds it set and leaves at once.
        flag::register_conditional_shutdown(signal, exit as i32, Arc::clone(stop))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The handlers stay; with the flag set they take the next signal for a second one.
        self.stop.store(true, Ordering::Relaxed);
    }
}
