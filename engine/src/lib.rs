//! The replica: one durable, content-addressed filesystem in a directory, in a
//! single file, or in memory.
//!
//! SQLite holds the tree, pack files hold the content in chunks of at most
//! 512 KiB named by their BLAKE3 hash. Everything that can change is a register
//! with a version, and every change is in one log that can be read from a cursor.
//!
//! | module | owns |
//! | --- | --- |
//! | `replica` | opening, closing, loading into memory, background threads |
//! | `ops`, `data`, `xattr`, `sync` | operations by inode |
//! | `path`, `handle`, `search`, `watch` | operations by path: at once, as streams, over a tree, over time |
//! | `tree`, `node`, `ranges` | the state in memory, and versions |
//! | `commit`, `db`, `recover`, `waste` | the state in the database |
//! | `home`, `chunks`, `files`, `seal` | the bytes, and where they are |
//! | `property` | what a program keeps beside the tree |
//! | `changes`, `history`, `gc`, `check` | the log, old versions, care |
//! | `upstream`, `assign` | following a hub, and setting the working tree to what it has |
//! | `shared`, `hub`, `refs` | trees that replicas share, the hub that sequences one, and the chunks they name |
#![allow(
    clippy::cast_possible_truncation,
    reason = "u64 fits usize, which is asserted here; lengths of chunks and pages fit u32 by their limits"
)]

#[cfg(feature = "async")]
mod asynchronous;

const _: () = assert!(usize::BITS == 64, "offsets are used as indices");

mod assign;
mod attr;
mod changes;
mod check;
mod chunks;
mod commit;
mod data;
mod db;
mod direct;
mod error;
mod files;
mod gained;
mod gc;
mod handle;
mod history;
mod home;
mod hub;
mod late;
mod lock;
mod lost;
mod node;
mod observe;
mod ops;
mod options;
mod path;
mod property;
mod ranges;
mod recover;
mod refs;
mod replica;
mod rows;
mod seal;
mod search;
mod shared;
mod shift;
mod sight;
mod sync;
mod tree;
mod turned;
mod upstream;
mod waste;
mod watch;
mod xattr;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncReplica, ChangePages, ReadDir};
pub use attr::{
    Allocate, Attr, Entry, Ino, NewNode, RenameMode, SeekTo, SetAttr, SetTime, StatFs, XattrMode,
};
pub use cairn_protocol::{NodeKind, Timestamp};
pub use changes::{Changes, CursorError};
pub use check::{CheckReport, Problem};
pub use direct::Direct;
pub use error::{FsError, OpenError, Result};
pub use gc::{GcReport, Usage};
pub use handle::{File, FileOptions};
pub use history::Pin;
pub use hub::{Access, Door, Hub, HubOptions, HubSession, HubStatus};
pub use observe::{Invalidation, Observer};
pub use options::Options;
pub use path::DirEntry;
pub use replica::Replica;
pub use search::{Found, GrepOptions, Line, Walk};
pub use upstream::{Conflict, Fetcher, SyncStatus, Upstream};
pub use watch::Watch;
