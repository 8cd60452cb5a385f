//! A replica as programs see it: a mounted filesystem, or a shell.
//!
//! [`fuse`] serves the kernel. Every operation of the kernel becomes a call of
//! [`cairn_engine::Replica`]; this crate adds no store and no cache of its own, and keeps the
//! kernel's caches right when the replica changes by another way.
//!
//! With the feature `shell`, the module of that name runs bash scripts on a replica without
//! mounting it.

pub mod fuse;
#[cfg(feature = "shell")]
pub mod shell;
