//! The errors of the benchmark program.
//!
//! One enum for everything: each variant ends either as the text of a FAILED
//! row or as the last line of the program.

use std::io;
use std::path::PathBuf;

/// What can go wrong while a target is set up or a scenario runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// An operation on the filesystem, with what it was for.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its object.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A child process ended with a failure.
    #[error("{command}: {status}: {stderr}")]
    Command {
        /// The command line, or the first words of it.
        command: String,
        /// How the process ended.
        status: String,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
    /// A child process was still running at its deadline and was killed.
    #[error("{command}: killed after {seconds} s")]
    TimedOut {
        /// The command line, or the first words of it.
        command: String,
        /// The limit that it passed.
        seconds: u64,
    },
    /// The mount command returned, but nothing is mounted there.
    #[error("nothing is mounted on {}", .0.display())]
    NotMounted(PathBuf),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A signal asked the program to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A result with the program's own error.
pub(crate) type Result<T> = std::result::Result<T, BenchError>;

/// Adds what was being done to a system error.
pub(crate) trait Context<T> {
    /// Wraps the error with `what`, which is only evaluated on failure.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| BenchError::Io {
            what: what().into(),
            source: source.into(),
        })
    }
}
