//! Why a command failed, and the exit code that says so to a script.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use cairn::fuse::MountError;
use cairn::sync::SyncError;
use cairn::{CursorError, FsError, OpenError};

use crate::transfer::TransferError;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was done, or found in order.
    Done,
    /// Something was found wrong, or left out; it has been said.
    Partial,
    /// A script ended with this exit status.
    Status(u8),
}

impl Outcome {
    /// The outcome with an exit code.
    pub(crate) fn of(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Partial,
            code => Self::Status(code),
        }
    }

    /// The exit code of the program.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Partial => 1,
            Self::Status(code) => code,
        }
    }

    /// Of two parts of a command: done if both are.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Done { other } else { self }
    }

    /// [`Self::Partial`] if something was left out.
    pub(crate) fn unless(left_out: bool) -> Self {
        if left_out { Self::Partial } else { Self::Done }
    }
}

/// The result of a command or a part of one.
pub(crate) type Result<T = Outcome, E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The replica cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The replica is mounted already.
    #[error("the replica {} is mounted at {} already; use it there, or `cairn umount {}` first", .replica.display(), .at.display(), .at.display())]
    Mounted {
        /// The replica.
        replica: PathBuf,
        /// Where it is mounted.
        at: PathBuf,
    },
    /// Mounting or unmounting failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// An operation in the replica failed.
    #[error("{what}")]
    Fs {
        /// What was being done, or to what.
        what: String,
        /// The failure.
        #[source]
        source: FsError,
    },
    /// An operation outside of the replica failed.
    #[error("{what}")]
    Io {
        /// What was being done, or to what.
        what: String,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The log cannot be read from a cursor.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The replica cannot be brought in step with a hub, or be one.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A transfer was refused, or broke off.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Something is in the way; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// The process that owns the replica reported a failure.
    #[error("{message}")]
    Owner {
        /// Its message.
        message: String,
        /// The exit code for it.
        code: u8,
    },
    /// A process that was started has said why it failed.
    #[error("the process that was started failed")]
    Said(u8),
    /// Whoever read the output has stopped.
    #[error("the output was closed")]
    OutputClosed,
}

impl Failure {
    /// The exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Open(_) | Self::Mounted { .. } => 3,
            Self::Mount(_) => 4,
            Self::Owner { code, .. } | Self::Said(code) => *code,
            _ => 5,
        }
    }

    /// Whether there is nothing to tell: somebody knows already.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Self::Said(_) | Self::OutputClosed)
    }

    /// The message with all of its causes, in one line.
    pub(crate) fn report(&self) -> String {
        report(self)
    }

    /// For `map_err` on operations in the replica.
    pub(crate) fn fs(what: impl Into<String>) -> impl FnOnce(FsError) -> Self {
        let what = what.into();
        move |source| Self::Fs { what, source }
    }

    /// For `map_err` on operations outside of the replica.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}

/// The message of an error with all of its causes, in one line.
pub(crate) fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if more.contains(&text) {
            // It names what failed by itself.
            text = more;
        } else if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_once() {
        let failure = Failure::fs("/a")(FsError::NotFound("/a".into()));
        assert_eq!(failure.report(), "no such file or directory: /a");
    }

    #[test]
    fn causes_are_told() {
        let failure = Failure::io("cannot read /a")(io::Error::other("it broke"));
        assert_eq!(failure.report(), "cannot read /a: it broke");
        assert_eq!(failure.code(), 5);
    }
}
