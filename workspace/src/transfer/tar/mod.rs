//! Trees as tar archives.
//!
//! Written in the pax format of POSIX.1-2001, with what GNU tar, libarchive and
//! star add to it: extended attributes as `SCHILY.xattr.NAME`, sparse files as
//! `GNU.sparse` 1.0. A name is shown by its owner's number only. Read is also
//! what GNU tar and older programs write: long names, all four kinds of sparse
//! files, numbers in binary.

mod name;
mod number;
mod pax;
mod read;
mod sparse;
mod write;

pub(crate) use read::read;
pub(crate) use write::Writer;

/// Bytes of a block.
const BLOCK: usize = 512;

/// Bytes that fill the last block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// A socket has no type in an archive: this record makes it of a fifo. Only an
/// archive that goes from one of our processes to another has it.
const SOCKET_RECORD: &str = "CAIRN.socket";
