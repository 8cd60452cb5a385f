//! Why an exec could not be started, read or reached.

use std::io;
use std::path::PathBuf;

use super::event::Seq;
use super::id::{ExecId, RuntimeId};

/// A failure on another machine: its code in `SPEC.md`, and its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({name})")]
pub struct RemoteFault {
    /// The code.
    pub code: u16,
    /// What it is called.
    pub name: String,
    /// For people.
    pub detail: String,
}

/// Why an operation on an exec failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// An id that cannot be one.
    #[error("{id:?} is no exec id: {why}")]
    BadId {
        /// What was given.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The id is in use, or was. An exec is never run twice.
    #[error("there is an exec {0} already, and an exec is never run twice; choose another id")]
    Duplicate(ExecId),
    /// The runtime knows no such exec.
    #[error("runtime {runtime} knows no exec {id}: it never ran here, or it was disposed of")]
    Unknown {
        /// The exec that was asked for.
        id: ExecId,
        /// The runtime that was asked.
        runtime: RuntimeId,
    },
    /// The working directory cannot be entered.
    #[error("the working directory {} cannot be used", .path.display())]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("the program {program:?} cannot be executed")]
    Program {
        /// Its name, as it was given.
        program: String,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// An argument that no process can be started with.
    #[error("the command cannot be run: {0}")]
    BadCommand(&'static str),
    /// No signal has this name or number.
    #[error(
        "no signal is called {0:?}; use a name such as TERM, KILL, INT or HUP, or a number from 1 to 31"
    )]
    BadSignal(String),
    /// The events asked for are not kept any more.
    #[error("the events of exec {id} from {wanted} to {} were evicted; read on from {oldest}", .oldest - 1)]
    Evicted {
        /// The exec.
        id: ExecId,
        /// The first event that was asked for.
        wanted: Seq,
        /// The oldest event that is kept.
        oldest: Seq,
    },
    /// The exec has ended, so it cannot be signalled or written to.
    #[error("exec {0} has ended")]
    Ended(ExecId),
    /// The exec runs, so it cannot be disposed of.
    #[error("exec {0} is running; kill it before it is disposed of")]
    Running(ExecId),
    /// The exec was started without a standard input to write to, or it was closed.
    #[error("the standard input of exec {0} is closed; start it with a stream to write to it")]
    InputClosed(ExecId),
    /// The exec was started without a terminal.
    #[error("exec {0} has no terminal")]
    NoTerminal(ExecId),
    /// The process cannot be confined as was asked, so it was not started.
    #[error("the process cannot be confined as asked: {what}")]
    Confine {
        /// What is not to be had, and what to do about it.
        what: String,
        /// The failure, if the system gave one.
        #[source]
        source: Option<io::Error>,
    },
    /// The system did not start the process.
    #[error("a process cannot be started: {what}")]
    Start {
        /// What was being done.
        what: &'static str,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The log of an exec cannot be written or read.
    #[error("the log of exec {id} failed")]
    Log {
        /// The exec.
        id: ExecId,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The directory of the logs cannot be used.
    #[error("the directory of exec logs {} cannot be used", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// What runs the exec cannot do this.
    #[error("not supported by this backend: {0}")]
    NotSupported(&'static str),
    /// What runs the exec on another machine has failed in its own words.
    #[error("the sandbox reports: {0}")]
    Remote(#[source] Box<RemoteFault>),
    /// The changes of the workspace could not be brought to the sandbox, so the
    /// command was not started.
    #[error("the command was not started: the changes of the workspace are not in the sandbox")]
    Push(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The sandbox cannot be reached. Nothing was started by this call.
    #[error("the sandbox cannot be reached; nothing was started by this")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke when the command was being started, and did not come
    /// back in time.
    #[error(
        "the connection to the sandbox broke while exec {id} was being started: it may run; ask \
         for it by its id when the sandbox is there again, and do not start it anew before"
    )]
    MayRun {
        /// The exec.
        id: ExecId,
    },
    /// The runtime that ran the exec is no more, and left no log.
    #[error(
        "exec {id} is lost: it was run by runtime {runtime}, which is no more; whether it did its \
         work is not known"
    )]
    Lost {
        /// The exec.
        id: ExecId,
        /// The runtime it was started in.
        runtime: RuntimeId,
    },
    /// The runtime was closed.
    #[error("the runtime of execs is closed")]
    Closed,
}

impl ExecError {
    pub(crate) fn start(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Start {
            what,
            source: errno.into(),
        }
    }
}
