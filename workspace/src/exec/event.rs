//! What an exec reports while it runs and when it ends.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The number of an event: 1 for the first of an exec, and one more for each.
pub type Seq = u64;

/// Something that an exec did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in the exec.
    pub seq: Seq,
    /// When it was read, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What it is.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// Bytes of the standard output, or of the terminal: at most 64 KiB.
    Stdout(Bytes),
    /// Bytes of the standard error: at most 64 KiB.
    Stderr(Bytes),
    /// It ended. This is the last event, and there is one in any case.
    Exit(Exit),
}

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code as a shell has it: 128 and the number of the signal for a
    /// process that a signal ended, -1 when nobody knows.
    pub code: i32,
    /// Why it ended.
    pub ended: Ended,
    /// What became of processes that outlived the first one.
    pub leftovers: Leftovers,
}

impl Exit {
    /// It ended by itself, with exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == 0 && self.ended == Ended::Exited
    }
}

/// Why an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ended {
    /// It exited.
    Exited,
    /// A signal ended it that was not sent through its handle.
    Signalled(i32),
    /// It was ended through its handle.
    Killed,
    /// Its time was over.
    TimedOut,
    /// The runtime ended first. Whether the command did its work is not known.
    Lost,
}

/// What became of the processes that were left when the first one had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Leftovers {
    /// There were none, or they ended in time.
    None,
    /// They were killed.
    Killed,
    /// They run on, as was asked for. What they write is read and dropped while
    /// the runtime lives.
    Detached,
    /// Some had left the process group and keep an end of the output; what
    /// they write from now on is not read.
    Escaped,
}
