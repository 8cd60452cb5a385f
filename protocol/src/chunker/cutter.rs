//! Walking the content from extent to extent.

use super::rule::Rule;
use super::window::Window;
use super::{BLOCK, ReadAt, block_end, block_start};
use crate::extent::{ChunkerId, Extent};
use crate::hash::ChunkHash;
use crate::limits::HOLE_BLOCK;

static ZEROS: [u8; HOLE_BLOCK] = [0; HOLE_BLOCK];

/// A position in the content and what is known of what follows.
pub(super) struct Cutter<'a, R> {
    rule: Rule,
    src: &'a R,
    window: Window<'a, R>,
    /// Where the next extent starts.
    at: u64,
    /// The blocks between `at` and here are data. A block boundary or the end of the
    /// content, unless it is `at` itself.
    data_end: u64,
}

/// An extent just cut.
pub(super) struct Piece<'a> {
    pub(super) offset: u64,
    pub(super) extent: Extent,
    /// The bytes of a chunk; none for a hole.
    pub(super) bytes: &'a [u8],
}

impl<'a, R: ReadAt> Cutter<'a, R> {
    /// A cutter of the first `size` bytes of `src`, at their start.
    pub(super) fn new(chunker: ChunkerId, src: &'a R, size: u64) -> Self {
        let window = Window::new(src, size);
        Self {
            rule: Rule::of(chunker),
            src,
            window,
            at: 0,
            data_end: 0,
        }
    }

    /// Goes to `at`, where an extent must start. Inside a block that must be a chunk.
    pub(super) fn jump(&mut self, at: u64) {
        self.at = at;
        self.data_end = block_end(at).min(self.window.size());
    }

    /// Lets reads go on to `offset`: all before it will be cut.
    pub(super) fn read_ahead(&mut self, offset: u64) {
        self.window.read_ahead(offset);
    }

    /// Where the next extent starts.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Cuts the next extent. `None` at the end of the content.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, R::Error> {
        let offset = self.at;
        if offset == self.window.size() {
            return Ok(None);
        }
        if self.data_end == offset {
            self.at = self.skip_zeros(offset)?;
            self.data_end = (self.at + BLOCK).min(self.window.size());
            if self.at > offset {
                let extent = Extent::Hole {
                    len: self.at - offset,
                };
                return Ok(Some(Piece {
                    offset,
                    extent,
                    bytes: &[],
                }));
            }
        }
        let seen = self.find_data_end()?;
        let bytes = self.window.get(offset, seen)?;
        let bytes = &bytes[..self.rule.cut(offset, bytes)];
        self.at += bytes.len() as u64;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let extent = Extent::Chunk {
            hash: ChunkHash::of(bytes),
            len,
        };
        Ok(Some(Piece {
            offset,
            extent,
            bytes,
        }))
    }

    /// The end of the run of zero blocks that starts at `from`; `from` itself if its
    /// block is data.
    fn skip_zeros(&mut self, from: u64) -> Result<u64, R::Error> {
        let size = self.window.size();
        let mut at = from;
        while at < size {
            let data = self.src.next_data(at)?;
            if data >= size {
                return Ok(size);
            }
            at = at.max(block_start(data));
            let end = (at + BLOCK).min(size);
            if !is_zero(self.window.get(at, end)?) {
                return Ok(at);
            }
            at = end;
        }
        Ok(size)
    }

    /// Follows the data segment as far as the rule must see it. Returns where the bytes
    /// for the rule end: at the end of the segment, or at the rule's reach.
    fn find_data_end(&mut self) -> Result<u64, R::Error> {
        let reach = (self.at + self.rule.reach() as u64).min(self.window.size());
        // The block in which the reach ends counts as a whole: zero bytes up to the
        // reach do not make it a hole.
        let last = block_end(reach).min(self.window.size());
        let bytes = self.window.get(self.at, last)?;
        while self.data_end < reach {
            let end = (self.data_end + BLOCK).min(last);
            if is_zero(part(bytes, self.at, self.data_end, end)) {
                return Ok(self.data_end);
            }
            self.data_end = end;
        }
        Ok(reach)
    }
}

/// The bytes from `from` to `to` of a slice that starts at `base`.
fn part(bytes: &[u8], base: u64, from: u64, to: u64) -> &[u8] {
    let index = |offset: u64| usize::try_from(offset - base).unwrap_or(usize::MAX);
    &bytes[index(from)..index(to)]
}

/// Whether a block, or the short last one, has only zero bytes.
fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}
