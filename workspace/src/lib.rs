//! Cairn is a workspace filesystem for agents and the programs they run: one
//! durable, content-addressed filesystem that can be embedded as a library and
//! mounted as a real filesystem.
//!
//! A [`Replica`] is the filesystem: a directory `NAME.cairn/`, or memory.
//!
//! ```
//! use cairn::Replica;
//!
//! let replica = Replica::in_memory()?;
//! replica.mkdir_all("/src")?;
//! replica.write_file("/src/main.rs", b"fn main() {}")?;
//! replica.copy_file("/src/main.rs", "/src/copy.rs")?; // shares its bytes
//! assert_eq!(replica.read_file("/src/copy.rs")?, b"fn main() {}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`fuse::Mount`] shows a replica to every program on the machine, while the
//! process that mounted it goes on using it. Either side sees what the other
//! does at once.
//!
//! ```no_run
//! use cairn::{Options, Replica, fuse::{Mount, MountOptions}};
//!
//! let replica = Replica::open("demo.cairn", Options::default())?;
//! let mount = Mount::new(replica.clone(), "demo".as_ref(), MountOptions::default())?;
//! std::fs::write("demo/from-outside", "hello")?;
//! assert_eq!(replica.read_file("/from-outside")?, b"hello");
//! mount.unmount()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A `Workspace` adds backends that run commands on it, and `tools` what an
//! agent needs.
//!
//! [`Replica::changes_since`] tells what changed since a [`log::Cursor`].
//!
//! The program `cairn` offers the same on a command line: see `cairn --help`.

// `unsafe` is in one leaf module only, `exec::sys`; without execs there is none.
#![cfg_attr(not(feature = "exec"), forbid(unsafe_code))]

pub mod sync;

pub use cairn_engine::{
    Allocate, Attr, Changes, CheckReport, CursorError, DirEntry, Entry, File, FileOptions, Found,
    FsError, GcReport, GrepOptions, Ino, Invalidation, Line, NewNode, NodeKind, Observer,
    OpenError, Options, Pin, Problem, RenameMode, Replica, Result, SeekTo, SetAttr, SetTime,
    StatFs, Timestamp, Usage, Walk, Watch, XattrMode,
};
#[cfg(feature = "async")]
pub use cairn_engine::{AsyncReplica, ChangePages, ReadDir};

/// Mounting a replica as a filesystem of the kernel.
pub mod fuse {
    pub use cairn_mounts::fuse::{Mount, MountError, MountOptions, unmount};
}

/// What the change log is made of.
pub mod log {
    pub use cairn_protocol::{Change, Cursor, Data, Entry, Meta, NodeId, ParseError, Ver};
}

/// A replica of a workspace where its commands run, for a `backend::Sandbox`.
#[cfg(feature = "exec")]
pub mod daemon {
    pub use crate::outpost::{Daemon, DaemonBuilder, DaemonError};
}

#[cfg(feature = "exec")]
pub mod backend;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "exec")]
mod outpost;
#[cfg(feature = "exec")]
mod remote;
#[cfg(feature = "exec")]
pub mod tools;
#[cfg(feature = "exec")]
mod waiting;
#[cfg(feature = "exec")]
mod workspace;

#[cfg(feature = "exec")]
pub use waiting::block_on;
#[cfg(feature = "exec")]
pub use workspace::{Builder, RunsOn, Workspace, WorkspaceError};
