//! Extents: the pieces a file's content is made of, and how a list of them is written down.
//!
//! A list has no count and no padding; it is as long as the bytes that hold it. One
//! list has one encoding, so lists can be compared and hashed as bytes.

use serde::{Deserialize, Serialize};

use crate::hash::ChunkHash;
use crate::limits::{CHUNK_MAX, FILE_SIZE_MAX, WHOLE_MAX};
use crate::varint;

/// Longest encoding of one extent, in bytes: a chunk of the largest size. A hole takes at most 10.
pub(crate) const EXTENT_BYTES_MAX: usize = 3 + 32;

/// How a file was cut. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum ChunkerId {
    /// One chunk. For files of at most [`WHOLE_MAX`] bytes.
    Whole = 0,
    /// Content-defined cuts: FastCDC with [`CDC_MIN`](crate::CDC_MIN),
    /// [`CDC_AVG`](crate::CDC_AVG) and [`CDC_MAX`](crate::CDC_MAX).
    FastCdc = 1,
    /// A cut at each multiple of [`CHUNK_MAX`].
    Fixed = 2,
    /// A cut at each multiple of [`FIXED_SMALL`](crate::FIXED_SMALL).
    FixedSmall = 3,
}

/// A number that stands for no [`ChunkerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no chunker has the number {0}")]
pub struct UnknownChunker(pub u8);

impl ChunkerId {
    /// The chunker for a file of `size` bytes when nothing else was chosen for it.
    pub const fn for_size(size: u64) -> Self {
        if size <= WHOLE_MAX as u64 {
            Self::Whole
        } else {
            Self::FastCdc
        }
    }
}

impl TryFrom<u8> for ChunkerId {
    type Error = UnknownChunker;

    fn try_from(number: u8) -> Result<Self, UnknownChunker> {
        Ok(match number {
            0 => Self::Whole,
            1 => Self::FastCdc,
            2 => Self::Fixed,
            3 => Self::FixedSmall,
            _ => return Err(UnknownChunker(number)),
        })
    }
}

impl From<ChunkerId> for u8 {
    fn from(chunker: ChunkerId) -> Self {
        chunker as Self
    }
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Bytes that are stored.
    Chunk {
        /// Their hash.
        hash: ChunkHash,
        /// How many, 1 to [`CHUNK_MAX`].
        len: u32,
    },
    /// Zero bytes that are stored nowhere.
    Hole {
        /// How many, at least 1.
        len: u64,
    },
}

impl Extent {
    /// Length of the piece, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no extent is empty")]
    pub const fn len(&self) -> u64 {
        match self {
            // `u64::from` is not const.
            Self::Chunk { len, .. } => *len as u64,
            Self::Hole { len } => *len,
        }
    }
}

/// Why extents, or bytes that should hold some, are not a file's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The bytes end early or hold a number that is not in its shortest form.
    #[error("the layout is malformed")]
    Malformed,
    /// The first byte names no known form of a manifest.
    #[error("no manifest has the form {form}")]
    Form {
        /// The byte.
        form: u8,
    },
    /// An extent is empty, or a chunk is larger than [`CHUNK_MAX`].
    #[error("an extent has {len} bytes")]
    Length {
        /// Length of the extent, in bytes.
        len: u64,
    },
    /// The extents cover more than [`FILE_SIZE_MAX`].
    #[error("the layout is longer than any file")]
    TooLong,
    /// A list or a page has too many extents for its form, or too few.
    #[error("the layout has {count} extents where its form has fewer or more")]
    Count {
        /// How many extents.
        count: u64,
    },
    /// The extents cover another length than they should.
    #[error("the extents cover {covered} bytes of {expected}")]
    Total {
        /// The length to cover, in bytes.
        expected: u64,
        /// The length covered, in bytes.
        covered: u64,
    },
}

/// Checks that `extents` cover exactly `size` bytes.
///
/// # Errors
///
/// [`LayoutError::Total`] with both lengths; a sum over [`FILE_SIZE_MAX`] is
/// [`LayoutError::TooLong`].
pub fn check_total(extents: &[Extent], size: u64) -> Result<(), LayoutError> {
    let mut covered = 0;
    for extent in extents {
        covered = add(covered, extent.len())?;
    }
    if covered == size {
        Ok(())
    } else {
        Err(LayoutError::Total {
            expected: size,
            covered,
        })
    }
}

/// The sum of two lengths, as long as a file can have it.
pub(crate) fn add(total: u64, len: u64) -> Result<u64, LayoutError> {
    match total.checked_add(len) {
        Some(sum) if sum <= FILE_SIZE_MAX => Ok(sum),
        _ => Err(LayoutError::TooLong),
    }
}

/// Appends the encoding of `extent`: twice its length, plus one for a hole; then a chunk's hash.
pub(crate) fn encode(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Chunk { hash, len } => {
            varint::put(out, u64::from(*len) << 1);
            out.extend_from_slice(hash.as_bytes());
        }
        Extent::Hole { len } => varint::put(out, len << 1 | 1),
    }
}

/// The extents that fill `input`.
pub(crate) fn decode_all(mut input: &[u8]) -> impl Iterator<Item = Result<Extent, LayoutError>> {
    std::iter::from_fn(move || {
        if input.is_empty() {
            return None;
        }
        let extent = decode(&mut input);
        if extent.is_err() {
            input = &[];
        }
        Some(extent)
    })
}

fn decode(input: &mut &[u8]) -> Result<Extent, LayoutError> {
    let head = varint::take(input).ok_or(LayoutError::Malformed)?;
    let len = head >> 1;
    if head & 1 == 1 {
        return if len == 0 {
            Err(LayoutError::Length { len })
        } else {
            Ok(Extent::Hole { len })
        };
    }
    if len == 0 || len > CHUNK_MAX as u64 {
        return Err(LayoutError::Length { len });
    }
    let len = u32::try_from(len).map_err(|_| LayoutError::Length { len })?;
    Ok(Extent::Chunk {
        hash: take_hash(input).ok_or(LayoutError::Malformed)?,
        len,
    })
}

/// Takes a hash from the front of `input`.
pub(crate) fn take_hash(input: &mut &[u8]) -> Option<ChunkHash> {
    let (hash, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(ChunkHash::from_bytes(*hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_chunker_depends_on_the_size() {
        assert_eq!(ChunkerId::for_size(0), ChunkerId::Whole);
        assert_eq!(ChunkerId::for_size(65536), ChunkerId::Whole);
        assert_eq!(ChunkerId::for_size(65537), ChunkerId::FastCdc);
    }

    #[test]
    fn the_numbers_of_chunkers_are_stable() {
        for number in 0..=3 {
            assert_eq!(u8::from(ChunkerId::try_from(number).unwrap()), number);
        }
        assert_eq!(ChunkerId::try_from(4), Err(UnknownChunker(4)));
        assert_eq!(ChunkerId::FastCdc as u8, 1);
    }

    #[test]
    fn the_total_is_checked_without_overflow() {
        let holes = [Extent::Hole { len: 3 }, Extent::Hole { len: 4 }];
        assert_eq!(check_total(&holes, 7), Ok(()));
        assert_eq!(
            check_total(&holes, 8),
            Err(LayoutError::Total {
                expected: 8,
                covered: 7
            })
        );
        let long = [Extent::Hole { len: u64::MAX }, Extent::Hole { len: 1 }];
        assert_eq!(check_total(&long, 0), Err(LayoutError::TooLong));
    }

    #[test]
    fn extents_are_encoded_within_the_bound() {
        let extents = [
            Extent::Chunk {
                hash: ChunkHash::of(b"a"),
                len: 524_288,
            },
            Extent::Hole { len: FILE_SIZE_MAX },
        ];
        for extent in extents {
            let mut out = Vec::new();
            encode(&mut out, &extent);
            assert!(out.len() <= EXTENT_BYTES_MAX);
            assert_eq!(decode_all(&out).collect::<Vec<_>>(), vec![Ok(extent)]);
        }
    }

    #[test]
    fn i12_lengths_out_of_bounds_are_refused() {
        for head in [0, 1, (CHUNK_MAX as u64 + 1) << 1] {
            let mut out = Vec::new();
            varint::put(&mut out, head);
            out.extend_from_slice(&[0; 32]);
            let first = decode_all(&out).next();
            assert_eq!(first, Some(Err(LayoutError::Length { len: head >> 1 })));
        }
    }
}
