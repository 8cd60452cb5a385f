//! Canonical layouts: `cut` against a plain reading of the rules, `recut` against `cut` (I10).

use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Range;

use cairn_protocol::{
    CDC_AVG, CDC_MAX, CDC_MIN, CHUNK_MAX, ChunkHash, ChunkerId, Extent, FIXED_SMALL, HOLE_BLOCK,
    Manifest, ReadAt, check_total, cut, recut,
};
use fastcdc::v2020::{FastCDC, Normalization};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::content::{Memory, check_bytes, cut_all, random};

const CHUNKERS: [ChunkerId; 4] = [
    ChunkerId::Whole,
    ChunkerId::FastCdc,
    ChunkerId::Fixed,
    ChunkerId::FixedSmall,
];
/// Contents of the random tests stay below this.
const SIZE_MAX: usize = 4 << 20;

/// The layout of `bytes` by the words of SPEC.md, all in memory.
fn plain_layout(chunker: ChunkerId, bytes: &[u8]) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut at = 0;
    let blocks: Vec<_> = bytes.chunks(HOLE_BLOCK).collect();
    for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|block| block.len()).sum();
        let segment = &bytes[at..at + len];
        if is_zero(segment) {
            extents.push(Extent::Hole { len: len as u64 });
        } else {
            extents.extend(plain_chunks(chunker, at, segment));
        }
        at += len;
    }
    extents
}

fn plain_chunks(chunker: ChunkerId, offset: usize, segment: &[u8]) -> Vec<Extent> {
    let lengths: Vec<usize> = match chunker {
        ChunkerId::Whole | ChunkerId::FastCdc => FastCDC::with_level_and_seed(
            segment,
            CDC_MIN,
            CDC_AVG,
            CDC_MAX,
            Normalization::Level1,
            0,
        )
        .map(|chunk| chunk.length)
        .collect(),
        ChunkerId::Fixed => fixed_lengths(CHUNK_MAX, offset, segment.len()),
        ChunkerId::FixedSmall => fixed_lengths(FIXED_SMALL, offset, segment.len()),
    };
    let mut rest = segment;
    let chunk = |len: usize| {
        let (bytes, after) = rest.split_at(len);
        rest = after;
        Extent::Chunk {
            hash: ChunkHash::of(bytes),
            len: u32::try_from(len).unwrap(),
        }
    };
    lengths.into_iter().map(chunk).collect()
}

fn fixed_lengths(piece: usize, offset: usize, len: usize) -> Vec<usize> {
    let end = offset + len;
    let cuts = (offset..end).filter(|at| *at == offset || at % piece == 0);
    cuts.map(|at| (at / piece * piece + piece).min(end) - at)
        .collect()
}

fn is_zero(bytes: &[u8]) -> bool {
    // The comparison of slices is fast in an unoptimised test; a loop is not.
    bytes == vec![0; bytes.len()]
}

/// A place in a content that may matter.
#[derive(Clone, Debug)]
enum Place {
    Anywhere(Index),
    /// Near a block boundary.
    Block(Index, i64),
    /// Near a cut of the layout before the edit.
    Cut(Index, i64),
}

impl Place {
    /// An offset from 0 to the size of the content.
    fn resolve(&self, size: usize, cuts: &[usize]) -> usize {
        let near = |offset: usize, delta: i64| {
            let offset = i64::try_from(offset).unwrap() + delta;
            usize::try_from(offset.max(0)).unwrap().min(size)
        };
        match self {
            Self::Anywhere(index) => index.index(size + 1),
            Self::Block(index, delta) => {
                near(index.index(size / HOLE_BLOCK + 1) * HOLE_BLOCK, *delta)
            }
            Self::Cut(index, delta) => near(cuts[index.index(cuts.len())], *delta),
        }
    }
}

#[derive(Clone, Debug)]
enum Edit {
    /// Random bytes over what is between two places.
    Overwrite(Place, Place, u64),
    /// One byte, which may make or unmake a hole.
    Poke(Place, u8),
    /// Zeros over what is between two places.
    Zero(Place, Place),
    /// The end of the content is moved here.
    Truncate(Place),
    /// Random bytes are added.
    Append(usize, u64),
    /// Zeros are added.
    Extend(usize),
    /// The bytes between two places are taken out, which moves all that follow.
    Cut(Place, Place),
    /// Marked as differing, and not changed.
    Touch(Place, Place),
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        any::<Index>().prop_map(Place::Anywhere),
        (any::<Index>(), -3_i64..=3).prop_map(|(index, delta)| Place::Block(index, delta)),
        (any::<Index>(), -3_i64..=3).prop_map(|(index, delta)| Place::Cut(index, delta)),
    ]
}

fn growth() -> impl Strategy<Value = usize> {
    prop_oneof![
        1_usize..200_000,
        1_usize..4,
        (1_usize..5).prop_map(|blocks| blocks * HOLE_BLOCK)
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (place(), place(), any::<u64>()).prop_map(|(a, b, seed)| Edit::Overwrite(a, b, seed)),
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Poke(at, byte)),
        4 => (place(), place()).prop_map(|(a, b)| Edit::Zero(a, b)),
        2 => place().prop_map(Edit::Truncate),
        2 => (growth(), any::<u64>()).prop_map(|(len, seed)| Edit::Append(len, seed)),
        2 => growth().prop_map(Edit::Extend),
        1 => (place(), place()).prop_map(|(a, b)| Edit::Cut(a, b)),
        1 => (place(), place()).prop_map(|(a, b)| Edit::Touch(a, b)),
    ]
}

/// A part of a content.
#[derive(Clone, Debug)]
enum Piece {
    /// Without pattern, from this seed.
    Random(u64, usize),
    /// One byte repeated; 0 makes holes.
    Byte(u8, usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    let len = prop_oneof![
        1_usize..600_000,
        (1_usize..12).prop_map(|blocks| blocks * HOLE_BLOCK)
    ];
    prop_oneof![
        3 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| Piece::Random(seed, len)),
        2 => len.clone().prop_map(|len| Piece::Byte(0, len)),
        1 => len.prop_map(|len| Piece::Byte(7, len)),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    proptest::collection::vec(piece(), 0..12)
}

/// The content of these pieces, at most [`SIZE_MAX`] bytes of it.
fn content(pieces: &[Piece]) -> Memory {
    let bytes = |piece: &Piece| match *piece {
        Piece::Random(seed, len) => random(seed, len),
        Piece::Byte(byte, len) => vec![byte; len],
    };
    let mut all = pieces.iter().map(bytes).collect::<Vec<_>>().concat();
    all.truncate(SIZE_MAX);
    Memory::new(all)
}

/// Does the edit and marks what it changed.
fn apply(edit: &Edit, cuts: &[usize], bytes: &mut Vec<u8>, dirty: &mut Vec<Range<u64>>) {
    let size = bytes.len();
    let span = |a: &Place, b: &Place| {
        let (a, b) = (a.resolve(size, cuts), b.resolve(size, cuts));
        // Short spans are the usual case, and leave something to keep.
        a.min(b)..a.max(b).min(a.min(b) + 300_000)
    };
    let mut mark = |range: Range<usize>| dirty.push(range.start as u64..range.end as u64);
    match edit {
        Edit::Overwrite(a, b, seed) => {
            let span = span(a, b);
            bytes[span.clone()].copy_from_slice(&random(*seed, span.len()));
            mark(span);
        }
        Edit::Poke(at, byte) => {
            let at = at.resolve(size, cuts);
            if let Some(old) = bytes.get_mut(at) {
                *old = *byte;
                mark(at..at + 1);
            }
        }
        Edit::Zero(a, b) => {
            let span = span(a, b);
            bytes[span.clone()].fill(0);
            mark(span);
        }
        Edit::Truncate(at) => {
            let at = at.resolve(size, cuts);
            bytes.truncate(at);
            // A later edit of the same step may let the content grow again.
            mark(at..size);
        }
        Edit::Append(len, seed) => bytes.extend(random(*seed, *len)),
        Edit::Extend(len) => bytes.resize(size + len, 0),
        Edit::Cut(a, b) => {
            let span = span(a, b);
            bytes.drain(span.clone());
            mark(span.start..size);
        }
        Edit::Touch(a, b) => mark(span(a, b)),
    }
}

/// The offsets of all cuts, the start and the end among them.
fn cuts_of(extents: &[Extent]) -> Vec<usize> {
    let ends = extents.iter().scan(0, |at, extent| {
        *at += usize::try_from(extent.len()).unwrap();
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

/// `recut`, with a check of what the sink is told.
fn recut_all(
    chunker: ChunkerId,
    content: &Memory,
    old: &[Extent],
    old_size: u64,
    dirty: &[Range<u64>],
) -> Vec<Extent> {
    let mut sunk = Vec::new();
    let extents = recut(
        chunker,
        content,
        content.size(),
        old,
        old_size,
        dirty,
        &mut |at, extent, bytes| {
            check_bytes(extent, bytes);
            sunk.push((at, *extent));
            Ok(())
        },
    )
    .unwrap();
    let cuts = cuts_of(&extents);
    let placed: Vec<_> = cuts
        .iter()
        .zip(&extents)
        .map(|(at, extent)| (*at as u64, *extent))
        .collect();
    // What was sunk is part of the result, in its order, and the rest is old.
    let mut next = sunk.iter().peekable();
    for piece in &placed {
        if next.next_if_eq(&piece).is_none() {
            assert!(old.contains(&piece.1), "{piece:?} is neither new nor old");
        }
    }
    assert_eq!(next.next(), None, "sunk, and not part of the result");
    extents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn i10_cut_follows_the_written_rule(pieces in pieces()) {
        let content = content(&pieces);
        for chunker in CHUNKERS {
            let extents = cut_all(chunker, &content);
            check_total(&extents, content.size()).unwrap();
            prop_assert_eq!(extents, plain_layout(chunker, &content.bytes));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn i10_recut_equals_cut(
        pieces in pieces(),
        chunker in proptest::sample::select(&CHUNKERS[1..]),
        steps in proptest::collection::vec(proptest::collection::vec(edit(), 1..4), 3..8),
    ) {
        let mut content = content(&pieces);
        let mut old = cut_all(chunker, &content);
        for step in steps {
            let (old_size, cuts) = (content.size(), cuts_of(&old));
            let mut dirty = Vec::new();
            for edit in &step {
                apply(edit, &cuts, &mut content.bytes, &mut dirty);
            }
            let new = recut_all(chunker, &content, &old, old_size, &dirty);
            prop_assert_eq!(&new, &cut_all(chunker, &content));
            old = new;
        }
    }
}

/// Every edit of one byte near every boundary of a small content, and every size near it.
#[test]
fn i10_recut_equals_cut_at_every_boundary() {
    let bytes = [
        random(1, 150_001),
        vec![0; 200_000],
        random(2, 300_000),
        vec![0; 65_536],
    ]
    .concat();
    let content = Memory::new(bytes);
    let old = cut_all(ChunkerId::FastCdc, &content);
    let size = content.bytes.len();
    let blocks = (0..=size / HOLE_BLOCK).map(|block| block * HOLE_BLOCK);
    for boundary in cuts_of(&old).into_iter().chain(blocks) {
        for at in boundary.saturating_sub(2)..boundary + 3 {
            let mut resized = Memory::new(content.bytes.clone());
            resized.bytes.resize(at, 0);
            let new = recut_all(ChunkerId::FastCdc, &resized, &old, size as u64, &[]);
            assert_eq!(new, cut_all(ChunkerId::FastCdc, &resized), "size {at}");

            let mut poked = Memory::new(content.bytes.clone());
            let Some(byte) = poked.bytes.get_mut(at) else {
                continue;
            };
            *byte ^= 0x55;
            let dirty = at as u64..at as u64 + 1;
            let new = recut_all(ChunkerId::FastCdc, &poked, &old, size as u64, &[dirty]);
            assert_eq!(new, cut_all(ChunkerId::FastCdc, &poked), "byte {at}");
        }
    }
}

/// FastCDC tests pairs of bytes and never tests the last of an odd number. A content
/// that ends one byte after a cut loses that cut, though no byte before it changed.
#[test]
fn i10_a_cut_just_before_the_end_is_looked_at_again() {
    let whole = Memory::new(random(3, SIZE_MAX));
    let old = cut_all(ChunkerId::FastCdc, &whole);
    for cut in cuts_of(&old) {
        for size in cut..(cut + 3).min(whole.bytes.len()) {
            // So placed, the end of the content is on a block boundary and the cut before it.
            let shift = size.next_multiple_of(HOLE_BLOCK) - size;
            let shifted = Memory::new([&random(4, shift)[..], &whole.bytes].concat());
            let old = cut_all(ChunkerId::FastCdc, &shifted);
            let short = Memory::new(shifted.bytes[..size + shift].to_vec());
            let new = recut_all(ChunkerId::FastCdc, &short, &old, shifted.size(), &[]);
            assert_eq!(new, cut_all(ChunkerId::FastCdc, &short));
        }
    }
}

#[test]
fn i10_whole_and_content_defined_layouts_pass_into_each_other() {
    let large = Memory::new(random(5, 400_000));
    for small in [0, 1, 65_535, 65_536] {
        let small = Memory::new(large.bytes[..small].to_vec());
        let whole = cut_all(ChunkerId::Whole, &small);
        let grown = recut_all(ChunkerId::FastCdc, &large, &whole, small.size(), &[]);
        assert_eq!(grown, cut_all(ChunkerId::FastCdc, &large));
        let shrunk = recut_all(ChunkerId::Whole, &small, &grown, large.size(), &[]);
        assert_eq!(shrunk, whole);
    }
}

#[test]
fn i10_an_old_list_that_is_no_layout_is_not_used() {
    let content = Memory::new([random(6, 131_072), vec![0; 131_072]].concat());
    let want = cut_all(ChunkerId::FastCdc, &content);
    let half = Extent::Hole { len: 65_536 };
    let lists = [
        vec![],
        vec![want[0], half, half],
        vec![want[0], Extent::Hole { len: 131_071 }],
        vec![
            Extent::Hole { len: 1 },
            want[0],
            Extent::Hole { len: 131_071 },
        ],
        vec![want[0], want[1], Extent::Hole { len: 0 }],
        vec![
            Extent::Hole { len: u64::MAX },
            Extent::Hole { len: u64::MAX },
        ],
    ];
    for list in lists {
        assert_eq!(
            recut_all(ChunkerId::FastCdc, &content, &list, content.size(), &[]),
            want
        );
    }
}

#[test]
fn i10_an_unchanged_content_is_not_read() {
    let content = Memory::new(random(7, 1 << 20));
    let old = cut_all(ChunkerId::FastCdc, &content);
    content.take_read();
    let empty = 9..9;
    let same = recut_all(ChunkerId::FastCdc, &content, &old, content.size(), &[empty]);
    assert_eq!((same, content.take_read()), (old, 0));
}

#[test]
fn i10_an_edit_is_cut_again_by_reading_around_it() {
    let mut content = Memory::new(random(8, 32 << 20));
    let old = cut_all(ChunkerId::FastCdc, &content);
    assert_eq!(
        content.take_read(),
        32 << 20,
        "a full cut reads each byte once"
    );
    let (mut most, mut sum) = (0, 0);
    for edit in 0..16 {
        let start = 1_000_000 + edit * 1_900_000;
        let saved = content.bytes[start..start + 4096].to_vec();
        content.bytes[start..start + 4096].copy_from_slice(&random(edit as u64, 4096));
        let dirty = start as u64..start as u64 + 4096;
        let new = recut_all(ChunkerId::FastCdc, &content, &old, content.size(), &[dirty]);
        let read = content.take_read();
        (most, sum) = (read.max(most), sum + read);
        assert_eq!(new, plain_layout(ChunkerId::FastCdc, &content.bytes));
        content.bytes[start..start + 4096].copy_from_slice(&saved);
    }
    assert!(most < 4 << 20, "{most} bytes read for an edit of 4 KiB");
    assert!(
        sum / 16 < 1_500_000,
        "{} bytes read for an edit of 4 KiB, on average",
        sum / 16
    );
}

/// A file of zeros but for some places, which it can tell.
struct Sparse {
    data: Vec<u64>,
    read: Cell<u64>,
}

impl ReadAt for Sparse {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        buf.fill(0);
        for at in self.data.iter().filter_map(|at| at.checked_sub(offset)) {
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| buf.get_mut(at)) {
                *byte = 1;
            }
        }
        self.read.set(self.read.get() + buf.len() as u64);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<u64, Infallible> {
        Ok(self
            .data
            .iter()
            .copied()
            .find(|at| *at >= offset)
            .unwrap_or(u64::MAX))
    }
}

#[test]
fn i10_a_sparse_file_is_cut_without_reading_its_holes() {
    let size = (1 << 40) + 5;
    let far = 600_000_000_000;
    let mut file = Sparse {
        data: vec![far],
        read: Cell::new(0),
    };
    let extents = cut(ChunkerId::FastCdc, &file, size, &mut |_, _, _| Ok(())).unwrap();
    let lengths: Vec<_> = extents.iter().map(Extent::len).collect();
    let before = far / 65_536 * 65_536;
    assert_eq!(lengths, [before, 65_536, size - before - 65_536]);
    assert!(file.read.take() <= 4 << 20);

    // The old holes are known without asking: this source no longer tells.
    file.data.push(far + 1_000_000_000);
    let silent = Silent(&file);
    let dirty = far + 1_000_000_000..far + 1_000_000_001;
    let new = recut(
        ChunkerId::FastCdc,
        &silent,
        size,
        &extents,
        size,
        &[dirty],
        &mut |_, _, _| Ok(()),
    )
    .unwrap();
    assert_eq!(
        new,
        cut(ChunkerId::FastCdc, &file, size, &mut |_, _, _| Ok(())).unwrap()
    );
    assert!(file.read.take() <= 8 << 20);
}

/// A source without hints.
struct Silent<'a>(&'a Sparse);

impl ReadAt for Silent<'_> {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        self.0.read_at(offset, buf)
    }
}

#[test]
fn i10_the_largest_file_is_one_hole() {
    let size = cairn_protocol::FILE_SIZE_MAX;
    let file = Sparse {
        data: vec![],
        read: Cell::new(0),
    };
    let extents = cut(ChunkerId::FastCdc, &file, size, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(extents, [Extent::Hole { len: size }]);
    let end = Sparse {
        data: vec![size - 1],
        read: Cell::new(0),
    };
    let last = size - 1..size;
    let new = recut(
        ChunkerId::FastCdc,
        &end,
        size,
        &extents,
        size,
        &[last],
        &mut |_, _, _| Ok(()),
    );
    assert_eq!(
        new.unwrap(),
        cut(ChunkerId::FastCdc, &end, size, &mut |_, _, _| Ok(())).unwrap()
    );
}

/// A failure to read or to store ends the cut.
#[test]
fn an_error_of_the_source_or_the_sink_is_passed_on() {
    struct Broken;
    impl ReadAt for Broken {
        type Error = &'static str;

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
            buf.fill(3);
            if offset == 0 {
                Ok(())
            } else {
                Err("unreadable")
            }
        }
    }
    let all = cut(ChunkerId::FastCdc, &Broken, 8 << 20, &mut |_, _, _| Ok(()));
    assert_eq!(all, Err("unreadable"));
    let first = cut(ChunkerId::FastCdc, &Broken, 8 << 20, &mut |_, _, _| {
        Err("full")
    });
    assert_eq!(first, Err("full"));
}

/// The layout of a fixed content, for ever. A change here changes the format.
#[test]
fn i10_the_layout_is_pinned() {
    let bytes = [random(0, 1_000_000), vec![0; 300_000], vec![7; 700_001]].concat();
    let content = Memory::new(bytes);
    let manifest = |chunker| {
        let extents = cut_all(chunker, &content);
        let lengths: Vec<_> = extents.iter().map(Extent::len).collect();
        let manifest = Manifest::build(&extents, |_, _| Ok::<_, ()>(()));
        (lengths, manifest.unwrap().digest().to_string())
    };
    let (lengths, digest) = manifest(ChunkerId::FastCdc);
    assert_eq!(
        lengths,
        [524_288, 74_079, 450_209, 196_608, 524_288, 230_529]
    );
    assert_eq!(
        digest,
        "b0f792d9f7531739df1f8e19eff699b21a7f75e529af64e0b1b98f99d6528eb5"
    );
    let (lengths, digest) = manifest(ChunkerId::Fixed);
    assert_eq!(lengths, [524_288, 524_288, 196_608, 327_680, 427_137]);
    assert_eq!(
        digest,
        "130073248ecd92ab5d1fb09d6855a8f4f647f2f3e7643a0bdc33ed5827eb98c6"
    );
    let (lengths, digest) = manifest(ChunkerId::FixedSmall);
    assert_eq!(lengths.len(), 29);
    assert_eq!(
        digest,
        "2f6e73dfe663b5b6f183147dc3fb3d500ce7736cc1a5f511922e2338ce977eb2"
    );
}
