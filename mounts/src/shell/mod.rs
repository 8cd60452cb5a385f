//! A shell on a replica: bash scripts without a mount, a second store, or any
//! process of the host.
//!
//! The interpreter is `bashkit`, behind its public interfaces. A script can
//! overflow its stack, take all memory, or run a tool that heeds no
//! cancellation; so it runs in a process of its own, the *worker*, which has no
//! files, no network, and a limit on its memory. The worker reaches the store
//! through a connection to the *host*, which performs each operation on the
//! [`cairn_engine::Replica`]. A worker that dies is an exit status and a
//! message, and the next script gets another one.
//!
//! | module | owns |
//! | --- | --- |
//! | `host`, `incoming` | starting a worker, running a script on it, waiting for it, ending it |
//! | `calls` | commands that the host performs for scripts |
//! | `store` | what a worker asks for, on the replica |
//! | `wire` | the messages between them, and their bounds |
//! | `worker` | the process: its confinement, its threads |
//! | `client`, `ahead`, `behind`, `listed` | the worker's end of the connection, what it reads before and writes after its time, and what it remembers of a listing |
//! | `interpreter` | setting up the interpreter, and what its result means |
//! | `adapter` | the store as the interpreter's filesystem |
//! | `commands` | tools of our own, where the interpreter's change bytes or lack options |
//! | `names` | names that are not text |
//!
//! What scripts can do, and where they differ from bash, is in `docs/shell.md`.

mod adapter;
mod ahead;
mod behind;
mod calls;
mod client;
mod commands;
mod complete;
mod host;
mod incoming;
mod interpreter;
mod limits;
mod listed;
mod names;
mod store;
mod wire;
mod worker;

pub use calls::{HostCall, HostCommand, HostCommands, HostResult};
pub use complete::{Completeness, completeness};
pub use host::{Ended, Job, Program, Stop, Why, Worker};
pub use limits::{Limit, Limits};
pub use worker::serve;
