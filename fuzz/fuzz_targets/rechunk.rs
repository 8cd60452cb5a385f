//! Whatever is edited, cutting again gives what cutting in full gives (I10).

#![no_main]

use std::convert::Infallible;
use std::ops::Range;

use arbitrary::Arbitrary;
use cairn_protocol::{ChunkerId, Extent, HOLE_BLOCK, ReadAt, check_total, cut, recut};
use libfuzzer_sys::fuzz_target;

/// Contents stay below this, so that a run takes milliseconds.
const SIZE_MAX: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Input {
    chunker: u8,
    // Arrays, for vectors of arbitrary length are mostly empty.
    pieces: [Piece; 5],
    steps: [[Edit; 2]; 4],
}

#[derive(Arbitrary, Debug)]
struct Piece {
    fill: Fill,
    len: Offset,
}

#[derive(Arbitrary, Debug)]
enum Fill {
    Byte(u8),
    Zero,
    Random(u8),
}

/// A length or an offset: blocks and a little more or less.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Offset {
    Near { blocks: u8, delta: i8 },
    Any(u32),
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Write { at: Offset, len: Offset, fill: Fill },
    Poke { at: Offset, byte: u8 },
    Resize { size: Offset },
    Append { len: Offset, fill: Fill },
    Remove { at: Offset, len: Offset },
}

impl Offset {
    fn resolve(self, max: usize) -> usize {
        let offset = match self {
            Self::Near { blocks, delta } => {
                (usize::from(blocks % 17) * HOLE_BLOCK).saturating_add_signed(delta.into())
            }
            Self::Any(offset) => offset as usize,
        };
        offset % (max + 1)
    }
}

impl Fill {
    fn fill(&self, bytes: &mut [u8]) {
        match *self {
            Self::Byte(byte) => bytes.fill(byte),
            Self::Zero => bytes.fill(0),
            Self::Random(seed) => {
                // Xorshift: fast, and without pattern enough to be cut by content.
                let mut state = u64::from(seed) << 32 | 0x9e37_79b9;
                for part in bytes.chunks_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    part.copy_from_slice(&state.to_le_bytes()[..part.len()]);
                }
            }
        }
    }
}

struct Memory(Vec<u8>);

impl ReadAt for Memory {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).expect("an offset of the content");
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>, dirty: &mut Vec<Range<u64>>) {
    let size = bytes.len();
    let mut mark = |range: Range<usize>| dirty.push(range.start as u64..range.end as u64);
    match edit {
        Edit::Write { at, len, fill } => {
            let at = at.resolve(size);
            let end = at + len.resolve(size - at);
            fill.fill(&mut bytes[at..end]);
            mark(at..end);
        }
        Edit::Poke { at, byte } => {
            let at = at.resolve(size);
            if let Some(old) = bytes.get_mut(at) {
                *old = *byte;
                mark(at..at + 1);
            }
        }
        Edit::Resize { size: new } => {
            let new = new.resolve(SIZE_MAX);
            bytes.resize(new, 0);
            mark(new.min(size)..size);
        }
        Edit::Append { len, fill } => {
            bytes.resize(size + len.resolve(SIZE_MAX - size), 0);
            fill.fill(&mut bytes[size..]);
        }
        Edit::Remove { at, len } => {
            let at = at.resolve(size);
            bytes.drain(at..at + len.resolve(size - at));
            mark(at..size);
        }
    }
}

fn full(chunker: ChunkerId, content: &Memory) -> Vec<Extent> {
    let size = content.0.len() as u64;
    let Ok(extents) = cut(chunker, content, size, &mut |_, _, _| Ok(()));
    assert_eq!(check_total(&extents, size), Ok(()));
    extents
}

fuzz_target!(|input: Input| {
    let chunker = ChunkerId::try_from(input.chunker % 4).expect("there are four");
    let mut content = Memory(Vec::new());
    for piece in &input.pieces {
        let start = content.0.len();
        content
            .0
            .resize(start + piece.len.resolve(SIZE_MAX - start), 0);
        piece.fill.fill(&mut content.0[start..]);
    }
    let mut old = full(chunker, &content);
    for step in &input.steps {
        let old_size = content.0.len() as u64;
        let mut dirty = Vec::new();
        for edit in step {
            apply(edit, &mut content.0, &mut dirty);
        }
        let size = content.0.len() as u64;
        let Ok(new) = recut(
            chunker,
            &content,
            size,
            &old,
            old_size,
            &dirty,
            &mut |_, _, _| Ok(()),
        );
        assert_eq!(new, full(chunker, &content));
        old = new;
    }
});
