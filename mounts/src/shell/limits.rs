//! What a script may take, and how it is told that it took more.

use serde::{Deserialize, Serialize};

/// Limits of one script. Each ends the script with an exit status and a
/// message of its own: see [`Limit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of the process that runs it, in bytes, without its stack.
    /// Default: 1 GiB.
    pub memory_bytes: u64,
    /// Bytes that it may write to its standard output, and as many to its
    /// standard error. Default: 256 MiB.
    pub output_bytes: u64,
    /// Commands that it may run, and turns that its loops may take in all.
    /// Default: 100 million.
    pub commands: u64,
    /// Depth of functions that call each other; the interpreter allows 16 at
    /// most. Default: 16.
    pub function_depth: u32,
    /// Largest file that is read as a whole, in bytes, and most bytes of
    /// standard input. Tools that read in order (`cat`, `dd`, `grep`, `head`,
    /// `sed`, `tail`, `tee`, `wc` and such) take files of any size. Default: 256 MiB.
    pub whole_file_bytes: u64,
    /// Memory for what the script keeps outside of the workspace, as in
    /// `/tmp`, in bytes. Default: 64 MiB.
    pub scratch_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            output_bytes: 256 << 20,
            commands: 100_000_000,
            function_depth: 16,
            whole_file_bytes: 256 << 20,
            scratch_bytes: 64 << 20,
        }
    }
}

/// A limit that ended a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Limit {
    /// Its time: exit status 124, as that of `timeout`.
    Time,
    /// Commands and turns of loops: 152, as a process that used up its
    /// processor time.
    Commands,
    /// Output: 153, as a process whose file is too large.
    Output,
    /// Memory: 137, as a process that was killed for want of it.
    Memory,
    /// Functions, substitutions or the stack: 134, as a process that aborts.
    Recursion,
    /// The script itself is too long or too deep: 126.
    Script,
}

impl Limit {
    /// The exit status of a script that it ended.
    pub fn code(self) -> i32 {
        match self {
            Self::Time => 124,
            Self::Commands => 152,
            Self::Output => 153,
            Self::Memory => 137,
            Self::Recursion => 134,
            Self::Script => 126,
        }
    }

    /// What it says on the standard error.
    pub fn message(self) -> &'static str {
        match self {
            Self::Time => "the time of the script is over",
            Self::Commands => "the script ran more commands than it may",
            Self::Output => "the script wrote more output than it may",
            Self::Memory => "the script needs more memory than it may have",
            Self::Recursion => "the script calls itself more deeply than it may",
            Self::Script => "the script is longer or more deeply nested than it may be",
        }
    }
}
