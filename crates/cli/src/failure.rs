//! How the program fails: an exit code that scripts can rely on, and a message that names the remedy.

use std::{fmt, io, path::Path};

/// What went wrong, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A bug of the program's own.
    Bug = 1,
    /// The command line or the configuration.
    Usage = 2,
    /// The data cannot be used.
    Data = 3,
    /// Reading or writing failed; a run can be resumed.
    Io = 4,
    /// A loss or gradient stopped being finite.
    NonFinite = 5,
    /// The run directory is held by another process, or does not fit the request.
    Run = 7,
    /// A model file is corrupt or is not one.
    Model = 8,
    /// Interrupted from the terminal; the run can be resumed.
    Interrupted = 130,
    /// Terminated; the run can be resumed.
    Terminated = 143,
}

/// An error on its way out of the program.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// The message, with its causes.
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }
}

/// Gives an error its exit code where the cause is known best: at the call that failed.
pub(crate) trait OrExit<T> {
    /// Turns the error into a [`Failure`] with this exit code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

/// Names the file in an error of the operating system, which does not.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let error = anyhow::Error::from(error).context(format!("cannot use {}", path.display()));
        Failure { exit: Exit::Io, error }
    }
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}
