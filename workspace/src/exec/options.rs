//! What to run, and how.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::id::ExecId;

/// What an exec runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A script for the shell of the backend: `/bin/sh -c` where processes run.
    Shell(OsString),
    /// A program and its arguments. A name without `/` is looked for in `PATH`.
    Argv(Vec<OsString>),
}

impl Command {
    /// A program and its arguments.
    pub fn argv<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::Argv(words.into_iter().map(Into::into).collect())
    }

    /// For people: one line, cut where it is long.
    pub(crate) fn summary(&self) -> String {
        let text = match self {
            Self::Shell(source) => source.to_string_lossy().into_owned(),
            Self::Argv(words) => words.join(" ".as_ref()).to_string_lossy().into_owned(),
        };
        text.chars().take(SUMMARY_CHARS).collect()
    }
}

/// What is kept of a command to show it.
const SUMMARY_CHARS: usize = 1_000;

impl From<&str> for Command {
    fn from(source: &str) -> Self {
        Self::Shell(source.into())
    }
}

impl From<String> for Command {
    fn from(source: String) -> Self {
        Self::Shell(source.into())
    }
}

/// How a command is run.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Its id. Default: a random one. An id that was used before is refused.
    pub id: Option<ExecId>,
    /// The backend that runs it. Default: the workspace's first.
    pub backend: Option<String>,
    /// The working directory: relative to the root of the workspace, or
    /// absolute on the machine that runs it. Default: the root of the workspace.
    pub cwd: Option<PathBuf>,
    /// Variables beside those of the allow-list, which they replace.
    pub env: Vec<(OsString, OsString)>,
    /// The standard input. Default: empty.
    pub stdin: Stdin,
    /// A terminal for the standard input, output and error, which then all are
    /// `Stdout` events. Default: none.
    pub terminal: Option<Terminal>,
    /// Time until its process group gets TERM. Default: 320 s. `None`: any.
    pub timeout: Option<Duration>,
    /// Time from TERM to KILL. Default: 5 s.
    pub kill_after: Duration,
    /// Time that processes of the group have to end, and to finish their
    /// output, when the first one has ended. Then they are killed, unless they
    /// may go on. Default: 2 s. Nothing is waited for when there are none.
    pub linger: Duration,
    /// Processes that are left after `linger` run on. Default: `false`.
    pub detach: bool,
    /// What the processes may take of the machine.
    pub limits: Limits,
    /// What of its events is kept when there are more than the log takes. Default:
    /// the newest.
    pub keep: Keep,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self {
            id: None,
            backend: None,
            cwd: None,
            env: Vec::new(),
            stdin: Stdin::Empty,
            terminal: None,
            timeout: Some(Duration::from_secs(320)),
            kill_after: Duration::from_secs(5),
            linger: Duration::from_secs(2),
            detach: false,
            limits: Limits::default(),
            keep: Keep::default(),
        }
    }
}

/// What of an exec's events is kept when there are more than its log takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// The newest. Nobody slows the process, and a slow reader misses some.
    #[default]
    Newest,
    /// All that no reader has had yet: the process waits, as it does for a pipe,
    /// until somebody reads on. What one reader has had may go before another
    /// reads it. Nothing is waited for once the exec was killed or its time is over.
    Unread,
}

/// The standard input of an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// At its end from the beginning.
    #[default]
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// What is written through the handle, until it is closed there.
    Stream,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

/// Limits of a process, which those that it starts inherit; see `getrlimit(2)`.
/// `None` leaves the limit of this process. Core files are never written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, in seconds.
    pub cpu_seconds: Option<u64>,
    /// Address space, in bytes. Programs that reserve much, such as Node and
    /// Go, need far more than they use.
    pub address_space_bytes: Option<u64>,
    /// Size of a file that is written, in bytes.
    pub file_bytes: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Processes and threads of the user, counted over the whole machine.
    /// Root is not limited.
    pub processes: Option<u64>,
}
