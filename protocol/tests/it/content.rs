//! File contents for tests: bytes in memory, and files too large for it.

use std::cell::Cell;
use std::convert::Infallible;

use cairn_protocol::{ChunkHash, ChunkerId, Extent, ReadAt, cut};

/// Bytes in memory that count how many of them are read.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    read: Cell<u64>,
}

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            read: Cell::new(0),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes read since the last call.
    pub(crate) fn take_read(&self) -> u64 {
        self.read.take()
    }
}

impl ReadAt for Memory {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
        self.read.set(self.read.get() + buf.len() as u64);
        Ok(())
    }
}

/// Reproducible bytes without pattern.
pub(crate) fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Cuts all of `content` and checks what the sink is told on the way.
pub(crate) fn cut_all(chunker: ChunkerId, content: &Memory) -> Vec<Extent> {
    let mut next = 0;
    let extents = cut(
        chunker,
        content,
        content.size(),
        &mut |offset, extent, bytes| {
            assert_eq!(offset, next);
            check_bytes(extent, bytes);
            next += extent.len();
            Ok(())
        },
    );
    assert_eq!(next, content.size());
    extents.unwrap()
}

/// Checks that the bytes a sink gets are those of its extent.
pub(crate) fn check_bytes(extent: &Extent, bytes: &[u8]) {
    match extent {
        Extent::Chunk { hash, len } => {
            assert_eq!(bytes.len() as u64, u64::from(*len));
            assert_eq!(*hash, ChunkHash::of(bytes));
        }
        Extent::Hole { .. } => assert!(bytes.is_empty()),
    }
}
