//! Cutting again after an edit, without reading what the edit did not reach.
//!
//! What makes this equal to a full cut (I10), with `d` the first byte of the first
//! block that may differ:
//!
//! - An old extent that ends at or before `d - 2` stands. Where a chunk ends depends on
//!   its bytes, on the byte after them, and on the end of its segment if that is at most
//!   one byte further (FastCDC looks at pairs). All of this is before `d`.
//! - Past the differing blocks, a new extent that ends where an old one ended is followed
//!   by what followed the old one: no state crosses a cut, the bytes are the same, and
//!   the blocks around are holes or data as before. A hole that now joins an old one ends
//!   where the old one ended, never where it began.
//! - When the size changed, everything from the smaller size on counts as differing.

use std::ops::Range;

use super::cutter::Cutter;
use super::{BLOCK, ReadAt, Sink, block_end, block_start};
use crate::extent::{ChunkerId, Extent};

/// Cuts the first `size` bytes of `src`, which differ from content that was cut before
/// only in the byte ranges `dirty`. Gives what [`cut`](super::cut) gives.
///
/// `old` is the layout of the earlier content, of `old_size` bytes, under the same
/// `chunker`; [`ChunkerId::Whole`] and [`ChunkerId::FastCdc`] count as the same. A list
/// that cannot be one (holes that touch or are not on block boundaries, a wrong total)
/// is not used, and the content is cut in full. Bytes from the smaller of the sizes on
/// need not be in `dirty`; those of a file that was made shorter and then grew again
/// must be. `sink` sees only extents cut anew, some of which may equal old ones.
///
/// Reads from the start of the extent before a dirty range to the first cut after it
/// that was a cut before: with FastCDC less than 2 MiB around a range, as a rule.
///
/// # Errors
///
/// The first error of `src` or `sink`.
pub fn recut<R: ReadAt>(
    chunker: ChunkerId,
    src: &R,
    size: u64,
    old: &[Extent],
    old_size: u64,
    dirty: &[Range<u64>],
    sink: &mut Sink<'_, R::Error>,
) -> Result<Vec<Extent>, R::Error> {
    let Some(old) = Layout::new(old, old_size) else {
        return super::cut(chunker, src, size, sink);
    };
    let dirty = Dirty::new(dirty, old_size, size);
    let src = Hinted {
        src,
        old: &old,
        dirty: &dirty,
    };
    let mut cutter = Cutter::new(chunker, &src, size);
    let mut extents = Vec::with_capacity(old.extents.len());
    // The new layout is known up to the start of this old extent, and has a cut there.
    let mut next = 0;
    while let Some(range) = dirty.after(old.starts[next]) {
        let kept = old.ending_by(range.start.saturating_sub(2)).max(next);
        extents.extend_from_slice(&old.extents[next..kept]);
        cutter.jump(old.starts[kept]);
        next = loop {
            cutter.read_ahead(dirty.end_around(cutter.at()));
            let Some(piece) = cutter.next()? else {
                return Ok(extents);
            };
            sink(piece.offset, &piece.extent, piece.bytes)?;
            extents.push(piece.extent);
            if let Some(same) = old.starting_at(cutter.at()) {
                break same;
            }
        };
    }
    extents.extend_from_slice(&old.extents[next..]);
    Ok(extents)
}

/// The old extents, with the offset of each.
struct Layout<'a> {
    extents: &'a [Extent],
    /// The start of each extent, and at last the size of the file.
    starts: Vec<u64>,
}

impl<'a> Layout<'a> {
    /// The layout of a file of `size` bytes, if `extents` have the shape of one.
    fn new(extents: &'a [Extent], size: u64) -> Option<Self> {
        let mut starts = Vec::with_capacity(extents.len() + 1);
        let (mut at, mut after_hole) = (0_u64, false);
        for extent in extents {
            let end = at.checked_add(extent.len())?;
            let is_hole = matches!(extent, Extent::Hole { .. });
            let on_blocks = at.is_multiple_of(BLOCK) && (end.is_multiple_of(BLOCK) || end == size);
            if end == at || is_hole && (after_hole || !on_blocks) {
                return None;
            }
            starts.push(at);
            (at, after_hole) = (end, is_hole);
        }
        starts.push(at);
        (at == size).then_some(Self { extents, starts })
    }

    /// How many extents end at or before `offset`.
    fn ending_by(&self, offset: u64) -> usize {
        self.starts[1..].partition_point(|end| *end <= offset)
    }

    /// The old extent that starts at `at`.
    fn starting_at(&self, at: u64) -> Option<usize> {
        self.starts[..self.extents.len()].binary_search(&at).ok()
    }

    /// The end of the hole that has `offset` in it.
    fn hole_end(&self, offset: u64) -> Option<u64> {
        let index = self.ending_by(offset);
        match self.extents.get(index)? {
            Extent::Hole { .. } => self.starts.get(index + 1).copied(),
            Extent::Chunk { .. } => None,
        }
    }
}

/// The bytes that may differ: ranges on block boundaries, in order, that do not touch.
struct Dirty(Vec<Range<u64>>);

impl Dirty {
    fn new(ranges: &[Range<u64>], old_size: u64, size: u64) -> Self {
        let resized = (old_size != size).then_some(old_size.min(size)..u64::MAX);
        let mut blocks: Vec<_> = ranges
            .iter()
            .filter(|range| range.start < range.end.min(size))
            .chain(&resized)
            .map(|range| block_start(range.start)..block_end(range.end))
            .collect();
        blocks.sort_unstable_by_key(|range| range.start);
        blocks.dedup_by(|later, earlier| {
            let touch = later.start <= earlier.end;
            if touch {
                earlier.end = earlier.end.max(later.end);
            }
            touch
        });
        Self(blocks)
    }

    /// The end of the range that has `offset` in it, else `offset`.
    fn end_around(&self, offset: u64) -> u64 {
        self.after(offset)
            .filter(|range| range.start <= offset)
            .map_or(offset, |range| range.end)
    }

    /// The first range that ends after `offset`.
    fn after(&self, offset: u64) -> Option<&Range<u64>> {
        self.0
            .get(self.0.partition_point(|range| range.end <= offset))
    }
}

/// A source that knows the holes of the old content where nothing differs.
struct Hinted<'a, R> {
    src: &'a R,
    old: &'a Layout<'a>,
    dirty: &'a Dirty,
}

impl<R: ReadAt> ReadAt for Hinted<'_, R> {
    type Error = R::Error;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), R::Error> {
        self.src.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<u64, R::Error> {
        let Some(hole_end) = self.old.hole_end(offset) else {
            return self.src.next_data(offset);
        };
        // Past the clean part of the hole the cutter reads a block and asks again.
        let clean_end = self
            .dirty
            .after(offset)
            .map_or(u64::MAX, |range| range.start);
        Ok(self.src.next_data(offset)?.max(hole_end.min(clean_end)))
    }
}
