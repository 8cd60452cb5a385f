//! How the bytes of a chunk travel: as they are, compressed, or as the difference
//! to a chunk that the receiver has.
//!
//! A difference is zstd with the other chunk as prefix (`ZSTD_CCtx_refPrefix`):
//! what an edit leaves of a chunk costs next to nothing. Whatever the sender did,
//! the receiver's memory stays within the chunk's length, which is checked first,
//! and what comes out has to match the chunk's hash.

use std::cell::RefCell;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

use crate::hash::ChunkHash;
use crate::limits::{CHUNK_MAX, WHOLE_MAX};

/// The level of compression: zstd's own default, about 200 MB/s on one core.
const LEVEL: i32 = 3;

/// How a chunk's bytes are encoded. The order of the variants is part of the
/// format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// The bytes themselves.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame with another chunk as prefix.
    ZstdPrefix {
        /// The other chunk.
        base: ChunkHash,
    },
}

/// A chunk as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How the bytes are to be read.
    pub encoding: Encoding,
    /// The bytes.
    pub bytes: Bytes,
}

/// Why a chunk could not be had from what travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// No chunk has this length.
    #[error("chunk {hash} cannot have {len} bytes")]
    Length {
        /// The chunk.
        hash: ChunkHash,
        /// The length that it is said to have, in bytes.
        len: usize,
    },
    /// It is a difference to a chunk that is not here.
    #[error("chunk {hash} is a difference to chunk {base}, which is not here")]
    NoBase {
        /// The chunk.
        hash: ChunkHash,
        /// The other chunk.
        base: ChunkHash,
    },
    /// The bytes are not what the encoding says, or more than the chunk has.
    #[error("chunk {hash} cannot be decoded")]
    Malformed {
        /// The chunk.
        hash: ChunkHash,
    },
    /// The bytes are those of another chunk.
    #[error("the bytes of chunk {hash} do not match it")]
    Corrupt {
        /// The chunk.
        hash: ChunkHash,
    },
}

/// Encodes a chunk, as a difference to `base` if there is one. What is not at
/// least a tenth smaller than its bytes travels as it is.
pub fn encode_chunk(bytes: &Bytes, base: Option<(ChunkHash, &[u8])>) -> Encoded {
    let prefix = base.as_ref().map(|(_, bytes)| *bytes);
    match compress(bytes, prefix) {
        Some(smaller) => Encoded {
            encoding: match base {
                Some((base, _)) => Encoding::ZstdPrefix { base },
                None => Encoding::Zstd,
            },
            bytes: smaller.into(),
        },
        None => Encoded {
            encoding: Encoding::Raw,
            bytes: bytes.clone(),
        },
    }
}

/// Gives a chunk of `len` bytes back. `base` gives the bytes of a chunk that is
/// here.
///
/// # Errors
///
/// [`ChunkError`] when the result is not the chunk.
pub fn decode_chunk(
    hash: ChunkHash,
    len: usize,
    encoded: &Encoded,
    base: impl FnOnce(&ChunkHash) -> Option<Bytes>,
) -> Result<Bytes, ChunkError> {
    if !(1..=CHUNK_MAX).contains(&len) {
        return Err(ChunkError::Length { hash, len });
    }
    let bytes = match &encoded.encoding {
        Encoding::Raw => encoded.bytes.clone(),
        Encoding::Zstd => decompress(hash, &encoded.bytes, len, None)?,
        Encoding::ZstdPrefix { base: other } => {
            let prefix = base(other).ok_or(ChunkError::NoBase { hash, base: *other })?;
            decompress(hash, &encoded.bytes, len, Some(&prefix))?
        }
    };
    if bytes.len() != len || ChunkHash::of(&bytes) != hash {
        return Err(ChunkError::Corrupt { hash });
    }
    Ok(bytes)
}

thread_local! {
    // Making a context asks what the processor can do, which in a virtual
    // machine takes longer than to compress a small file; so each thread keeps
    // one of each kind, of some MiB.
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = RefCell::new(CCtx::try_create());
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = RefCell::new(DCtx::try_create());
}

/// `None` when that is not worth it.
fn compress(bytes: &[u8], prefix: Option<&[u8]>) -> Option<Vec<u8>> {
    if let Some(prefix) = prefix {
        // Borrows the prefix for as long as it lives, so it is no longer kept.
        let mut context = CCtx::try_create()?;
        context.ref_prefix(prefix).ok()?;
        return compress_with(&mut context, bytes);
    }
    if looks_random(bytes) {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|context| {
        let context = context.as_mut()?;
        context.reset(ResetDirective::SessionOnly).ok()?;
        compress_with(context, bytes)
    })
}

/// Whether all values are about as frequent in a sample of a small chunk: then
/// coding them saves less than a twentieth, and to look for what repeats in
/// contents that are compressed or encrypted already, which these are, was a
/// tenth of what a clone of small files took. Of larger chunks zstd itself skips
/// what does not compress.
fn looks_random(bytes: &[u8]) -> bool {
    const PIECE: usize = 256;
    const PIECES: usize = 4;
    /// Their product.
    const SAMPLE: u32 = 1_024;
    if !(PIECE * PIECES..=WHOLE_MAX).contains(&bytes.len()) {
        return false;
    }
    let mut counts = [0_u32; 256];
    for piece in bytes.chunks(bytes.len() / PIECES).take(PIECES) {
        for byte in &piece[..PIECE] {
            counts[usize::from(*byte)] += 1;
        }
    }
    // Of random bytes the sum of squares is 5116, give or take 90.
    let squares: u32 = counts.iter().map(|count| count * count).sum();
    squares * 512 <= 3 * SAMPLE * SAMPLE
}

fn compress_with(context: &mut CCtx<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let level = CParameter::CompressionLevel(LEVEL);
    context.set_parameter(level).ok()?;
    // What does not fit is not worth it, either.
    let mut smaller = Vec::with_capacity(bytes.len() - bytes.len() / 10);
    context.compress2(&mut smaller, bytes).ok()?;
    Some(smaller)
}

fn decompress(
    hash: ChunkHash,
    encoded: &[u8],
    len: usize,
    prefix: Option<&[u8]>,
) -> Result<Bytes, ChunkError> {
    let malformed = ChunkError::Malformed { hash };
    // Its capacity bounds what comes out.
    let mut bytes = Vec::with_capacity(len);
    let decoded = if let Some(prefix) = prefix {
        let mut context = DCtx::try_create().ok_or(malformed)?;
        context.ref_prefix(prefix).map_err(|_| malformed)?;
        context.decompress(&mut bytes, encoded)
    } else {
        DECOMPRESSOR.with_borrow_mut(|context| {
            let context = context.as_mut().ok_or(malformed)?;
            let reset = context.reset(ResetDirective::SessionOnly);
            reset.map_err(|_| malformed)?;
            Ok(context.decompress(&mut bytes, encoded))
        })?
    };
    decoded.map_err(|_| malformed)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().finalize_xof();
        let mut bytes = vec![0; len];
        reader.fill(&mut bytes);
        bytes
    }

    fn round_trip(bytes: &Bytes, base: Option<&[u8]>) -> Encoded {
        let (hash, key) = (ChunkHash::of(bytes), base.map(ChunkHash::of));
        let encoded = encode_chunk(bytes, key.zip(base));
        let known = |asked: &ChunkHash| {
            let base = base.filter(|_| key == Some(*asked));
            base.map(Bytes::copy_from_slice)
        };
        let decoded = decode_chunk(hash, bytes.len(), &encoded, known);
        assert_eq!(decoded.as_ref(), Ok(bytes));
        encoded
    }

    #[test]
    fn what_looks_random_is_not_compressed_and_text_is_at_any_size() {
        for len in [1_023, 1_024, 4_096, 4_097, WHOLE_MAX] {
            let random = noise(len);
            assert_eq!(
                round_trip(&random.clone().into(), None).encoding,
                Encoding::Raw
            );
            assert_eq!(looks_random(&random), len >= 1_024, "{len}");
            let text: Vec<u8> = random.iter().map(|byte| b'a' + byte % 26).collect();
            assert!(!looks_random(&text));
            assert_eq!(round_trip(&text.into(), None).encoding, Encoding::Zstd);
        }
    }

    #[test]
    fn a_chunk_travels_as_it_pays() {
        let random = Bytes::from(noise(CHUNK_MAX));
        assert_eq!(round_trip(&random, None).encoding, Encoding::Raw);
        let text = Bytes::from(b"all work and no play ".repeat(20_000));
        let encoded = round_trip(&text, None);
        assert_eq!(encoded.encoding, Encoding::Zstd);
        assert!(encoded.bytes.len() < text.len() / 100);
        for tiny in [&b"x"[..], b"", b"abc"] {
            let encoded = encode_chunk(&Bytes::copy_from_slice(tiny), None);
            assert_eq!(
                (encoded.encoding, &encoded.bytes[..]),
                (Encoding::Raw, tiny)
            );
        }
    }

    /// Contexts are used again: what failed leaves nothing in them.
    #[test]
    fn what_cannot_be_encoded_or_decoded_does_no_harm_to_the_next() {
        let text = Bytes::from(b"all work and no play ".repeat(2_000));
        let hash = ChunkHash::of(&text);
        let want = round_trip(&text, None);
        for len in [1, 1_000, CHUNK_MAX] {
            let random = Bytes::from(noise(len));
            assert_eq!(round_trip(&random, None).encoding, Encoding::Raw);
            let mut cut = want.clone();
            cut.bytes.truncate(cut.bytes.len() / 2);
            assert!(decode_chunk(hash, text.len(), &cut, |_| None).is_err());
            assert_eq!(round_trip(&text, None), want);
        }
    }

    #[test]
    fn a_small_edit_of_a_large_chunk_travels_as_the_edit() {
        let old = noise(CHUNK_MAX - 1);
        let mut new = old.clone();
        new.insert(CHUNK_MAX / 2, b'!');
        let encoded = round_trip(&new.into(), Some(&old));
        assert!(matches!(encoded.encoding, Encoding::ZstdPrefix { .. }));
        assert!(encoded.bytes.len() < 1_000, "{} bytes", encoded.bytes.len());
    }

    #[test]
    fn bytes_that_do_not_match_their_hash_are_refused() {
        let (bytes, other) = (Bytes::from(noise(1_000)), ChunkHash::of(b"other"));
        let encoded = encode_chunk(&bytes, None);
        let decoded = decode_chunk(other, 1_000, &encoded, |_| None);
        assert_eq!(decoded, Err(ChunkError::Corrupt { hash: other }));
    }

    #[test]
    fn i12_what_unpacks_to_more_than_it_says_is_refused() {
        let bytes = Bytes::from(vec![7; CHUNK_MAX]);
        let hash = ChunkHash::of(&bytes);
        let encoded = encode_chunk(&bytes, None);
        assert!(encoded.bytes.len() < 100);
        for len in [1, 1_000, CHUNK_MAX - 1] {
            let decoded = decode_chunk(hash, len, &encoded, |_| None);
            assert_eq!(decoded, Err(ChunkError::Malformed { hash }));
        }
        for len in [0, CHUNK_MAX + 1, usize::MAX] {
            let decoded = decode_chunk(hash, len, &encoded, |_| None);
            assert_eq!(decoded, Err(ChunkError::Length { hash, len }));
        }
    }

    #[test]
    fn a_difference_needs_its_base() {
        let (old, new) = (
            noise(10_000),
            Bytes::from([noise(10_000), vec![1]].concat()),
        );
        let (base, hash) = (ChunkHash::of(&old), ChunkHash::of(&new));
        let encoded = encode_chunk(&new, Some((base, &old)));
        assert_eq!(encoded.encoding, Encoding::ZstdPrefix { base });
        let without = decode_chunk(hash, new.len(), &encoded, |_| None);
        assert_eq!(without, Err(ChunkError::NoBase { hash, base }));
        let wrong = |_: &ChunkHash| Some(Bytes::from(vec![3; 10_000]));
        assert!(decode_chunk(hash, new.len(), &encoded, wrong).is_err());
    }
}
