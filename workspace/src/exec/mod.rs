//! Running real processes, and keeping what they say.
//!
//! A [`Runtime`] owns a number of execs. An exec is one command: a shell
//! script or an argument list, in a session and process group of its own. What
//! it writes becomes [`Event`]s with a strictly increasing sequence; they are
//! in a log of bounded size, on disk if the runtime has a directory, and any
//! number of readers read them, from any number on. The log, not a reader, is
//! what takes the output: a slow reader slows nobody.
//!
//! An exec ends once: when its first process has ended, and those that it left
//! behind have gone or were killed (see [`ExecOptions::linger`]). Its last event
//! says how. Nothing it wrote comes after that.
//!
//! | module | owns |
//! | --- | --- |
//! | `runtime` | the execs of one runtime, their ids, what a restart finds |
//! | `process`, `supervise`, `pump` | one exec: its state, its course, its bytes |
//! | `log`, `record`, `journal` | events, in memory and on disk |
//! | `orphans` | what an earlier runtime left running |
//! | `launch`, `sys` | from options to a process; what happens between fork and exec |
//! | `confine` | what a process must not do |
//! | `handle` | what a caller holds |

mod confine;
mod environment;
mod error;
mod event;
mod handle;
mod id;
mod journal;
mod launch;
mod log;
mod options;
mod orphans;
mod process;
mod pump;
mod record;
mod runtime;
mod signal;
mod supervise;
mod sys;

/// What the shell shares with the runtime of processes.
#[cfg(feature = "shell")]
pub(crate) mod shared {
    pub(crate) use super::confine::confined_worker;
    pub(crate) use super::journal::{Journal, Start};
    pub(crate) use super::log::Log;
    pub(crate) use super::process::{Process, now_ms};
}

pub use confine::{Confine, Confinement, Enforced, Network, Want};
pub use error::{ExecError, RemoteFault};
pub use event::{Ended, Event, EventKind, Exit, Leftovers, Seq};
pub use handle::{Bounds, Events, Exec, Execution, Output, ReadFrom, Synced};
pub use id::{ExecId, RuntimeId};
pub use options::{Command, ExecOptions, Keep, Limits, Stdin, Terminal};
pub use runtime::{Runtime, RuntimeOptions};
pub use signal::Signal;

use std::future::Future;
use std::pin::Pin;

/// A future behind a pointer, as the traits of backends return them.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What operations on execs return.
pub type Result<T, E = ExecError> = std::result::Result<T, E>;
