//! Cutting a file's content into extents, the same way in every replica (I10).
//!
//! The layout of a file is a function of its bytes and its [`ChunkerId`] alone:
//!
//! 1. The file is divided into blocks of [`HOLE_BLOCK`](crate::HOLE_BLOCK) bytes;
//!    the last may be shorter. Each longest run of blocks that are all zero is one hole.
//! 2. What lies between holes is a data segment. Each is cut by the chunker, from
//!    its start, knowing nothing of what is before it or after it.
//!
//! A chunker keeps no state over a cut, so [`recut`] can take over every extent that
//! no edit reached and still give what [`cut`] gives. This module owns the two entry
//! points; `cutter` walks the content, `rule` finds the next cut, `window` reads,
//! `recut` decides what is taken over.

mod cutter;
mod recut;
mod rule;
mod window;

use crate::extent::{ChunkerId, Extent};
use crate::limits::HOLE_BLOCK;
use cutter::Cutter;

pub use recut::recut;

/// [`HOLE_BLOCK`] as a file offset.
const BLOCK: u64 = HOLE_BLOCK as u64;

/// Content that can be read at any offset.
pub trait ReadAt {
    /// Why reading failed.
    type Error;

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// The caller asks only for bytes before the size it gave to [`cut`] or [`recut`].
    ///
    /// # Errors
    ///
    /// When the bytes cannot be read, or are fewer than asked for.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;

    /// The smallest offset, from `offset` on, whose byte may be other than zero.
    ///
    /// A hint that saves reading holes: every byte before the returned offset is
    /// zero. An answer past the end says that all the rest is zero. The default
    /// knows of no holes.
    ///
    /// # Errors
    ///
    /// When the source cannot tell.
    fn next_data(&self, offset: u64) -> Result<u64, Self::Error> {
        Ok(offset)
    }
}

/// Takes extents as they are cut: the offset in the file, the extent, and its bytes
/// (none for a hole).
pub type Sink<'a, E> = dyn FnMut(u64, &Extent, &[u8]) -> Result<(), E> + 'a;

/// Cuts the first `size` bytes of `src`, and gives each extent to `sink` as it is cut.
///
/// Returns all extents, in the order of the file, which is also the order of `sink`.
/// Reads each byte at most once, into a buffer of at most 2 MiB.
///
/// # Errors
///
/// The first error of `src` or `sink`.
pub fn cut<R: ReadAt>(
    chunker: ChunkerId,
    src: &R,
    size: u64,
    sink: &mut Sink<'_, R::Error>,
) -> Result<Vec<Extent>, R::Error> {
    let mut cutter = Cutter::new(chunker, src, size);
    cutter.read_ahead(size);
    let mut extents = Vec::new();
    while let Some(piece) = cutter.next()? {
        sink(piece.offset, &piece.extent, piece.bytes)?;
        extents.push(piece.extent);
    }
    Ok(extents)
}

/// The start of the block that has `offset` in it.
const fn block_start(offset: u64) -> u64 {
    offset - offset % BLOCK
}

/// The smallest multiple of the block size from `offset` on, or `u64::MAX` past the last.
const fn block_end(offset: u64) -> u64 {
    match offset.checked_next_multiple_of(BLOCK) {
        Some(end) => end,
        None => u64::MAX,
    }
}
