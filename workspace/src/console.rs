//! What a command talks to while it runs: a terminal, or the connection to the
//! process that asked for it. So a command prints the same wherever it runs.

use serde::{Deserialize, Serialize};

use crate::failure::Result;
use crate::text;

/// The other side of a running command.
pub(crate) trait Console {
    /// Writes to the standard output.
    fn out(&mut self, bytes: &[u8]) -> Result<()>;

    /// Has what was written be seen now: for who reads it as it comes.
    fn flush(&mut self) -> Result<()>;

    /// Writes to the standard error.
    fn error(&mut self, bytes: &[u8]) -> Result<()>;

    /// Says something beside the output, in one line.
    fn note(&mut self, line: &str) -> Result<()>;

    /// Shows how far the work is. May be called often.
    fn progress(&mut self, at: &Progress) -> Result<()>;

    /// Reads from the standard input. Returns 0 at its end only.
    fn input(&mut self, buf: &mut [u8]) -> Result<usize>;
}

/// How far some work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Files done, and whatever else has a name.
    pub(crate) files: u64,
    /// Bytes done.
    pub(crate) bytes: u64,
    /// Bytes to do, when known.
    pub(crate) total_bytes: Option<u64>,
}

impl Progress {
    /// What was done, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}, {}",
            text::count(self.files, "entry", "entries"),
            text::bytes(self.bytes)
        )
    }
}
