//! Reading: a bounded part of the content, held in memory.

use super::ReadAt;

/// Most bytes held, and most bytes of one read. Large enough that a read costs little
/// per byte, small enough that the bytes are still in the processor's cache when they
/// are hashed.
const CAPACITY: usize = 2 * 1024 * 1024;

/// A part of the content that moves forward.
pub(super) struct Window<'a, R> {
    src: &'a R,
    size: u64,
    /// Reads may go this far even when less is asked for.
    ahead: u64,
    /// Offset of the first byte held.
    base: u64,
    /// How many bytes of `buf` are held.
    len: usize,
    buf: Vec<u8>,
}

impl<'a, R: ReadAt> Window<'a, R> {
    /// A window on the first `size` bytes of `src` that holds nothing yet.
    pub(super) fn new(src: &'a R, size: u64) -> Self {
        let buf = vec![0; small(size).min(CAPACITY)];
        Self {
            src,
            size,
            ahead: 0,
            base: 0,
            len: 0,
            buf,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Lets reads go on to `offset`: all before it will be asked for.
    pub(super) fn read_ahead(&mut self, offset: u64) {
        self.ahead = offset.min(self.size);
    }

    /// The bytes from `from` to `to`, of which there may be at most [`CAPACITY`], within
    /// the content. Forgets what is before `from`.
    pub(super) fn get(&mut self, from: u64, to: u64) -> Result<&[u8], R::Error> {
        if from < self.base || to > self.end() {
            self.fill(from, to)?;
        }
        let start = small(from - self.base);
        Ok(&self.buf[start..start + small(to - from)])
    }

    fn end(&self) -> u64 {
        self.base + self.len as u64
    }

    fn fill(&mut self, from: u64, to: u64) -> Result<(), R::Error> {
        if from >= self.base && from < self.end() {
            self.buf.copy_within(small(from - self.base)..self.len, 0);
            self.len = small(self.end() - from);
        } else {
            self.len = 0;
        }
        self.base = from;
        let end = small(to.max(self.ahead) - from).min(self.buf.len());
        self.src.read_at(self.end(), &mut self.buf[self.len..end])?;
        self.len = end;
        Ok(())
    }
}

/// A length of something that fits in the window. Saturates on machines of 32 bits.
fn small(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
