//! Copying trees into and out of a replica.
//!
//! A source sends [`Node`]s one after another, a [`Sink`] puts them where they
//! belong. There are three of each: a directory of this machine, a replica, and
//! a tar archive, so a transfer is any source with any sink. The archive is also
//! what a tree travels as when another process owns the replica: a process opens
//! outside files only for itself, never for another, and never those of a mount
//! that it serves.
//!
//! 1. No file is ever in memory as a whole; holes stay holes.
//! 2. A directory comes before what is in it, a node before its other names.
//! 3. A sink goes from name to name by itself and follows no symbolic link, so
//!    nothing can be put outside of the top, whatever the source says.

pub(crate) mod directory;
mod error;
mod node;
pub(crate) mod remote;
pub(crate) mod replica;
mod stop;
mod talk;
pub(crate) mod tar;

pub(crate) use error::TransferError;
pub(crate) use node::{Body, Counted, Data, Meta, NoData, Node, Sink, Xattrs, pieces, stored};
pub(crate) use stop::{EXIT_NOW, Stop};
pub(crate) use talk::Talk;

/// Bytes moved at a time.
pub(crate) const PIECE: usize = 1 << 20;

/// Namespaces of extended attributes that are kept: those that a mount offers,
/// too. What `system.` holds are access control lists, which nothing would apply.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Whether an extended attribute is kept.
pub(crate) fn keeps_xattr(name: &[u8]) -> bool {
    NAMESPACES
        .iter()
        .any(|namespace| name.starts_with(namespace))
}

/// The directory and the last name of a path below the top.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The path of a name in a directory below the top.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

/// The names a path below the top is made of.
pub(crate) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}
