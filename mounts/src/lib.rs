//! A replica as programs see it: a mounted filesystem.
//!
//! [`fuse`] serves the kernel. Every operation of the kernel becomes a call of
//! [`cairn_engine::Replica`]; this crate adds no store and no cache of its own, and keeps the
//! kernel's caches right when the replica changes by another way.

pub mod fuse;
