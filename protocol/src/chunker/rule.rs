//! Where a data segment is cut next.

use crate::extent::ChunkerId;
use crate::limits::{CDC_AVG, CDC_MAX, CDC_MIN, CHUNK_MAX, FIXED_SMALL};
use fastcdc::v2020::MASKS;

/// FastCDC's mask before the average size and after it. The average is 2^18;
/// normalisation 1 takes the mask one step stricter and one step looser.
const MASK_STRICT: u64 = MASKS[19];
const MASK_LOOSE: u64 = MASKS[17];

/// The way a chunker finds the end of a chunk.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// By content. A segment of at most [`CDC_MIN`] bytes is one chunk, so this also
    /// cuts the files of [`ChunkerId::Whole`].
    Content,
    /// At each multiple of this many bytes, counted from the start of the file.
    Fixed(usize),
}

impl Rule {
    pub(super) const fn of(chunker: ChunkerId) -> Self {
        match chunker {
            ChunkerId::Whole | ChunkerId::FastCdc => Self::Content,
            ChunkerId::Fixed => Self::Fixed(CHUNK_MAX),
            ChunkerId::FixedSmall => Self::Fixed(FIXED_SMALL),
        }
    }

    /// The longest chunk, in bytes: how far ahead the rule has to see.
    pub(super) const fn reach(self) -> usize {
        match self {
            Self::Content => CDC_MAX,
            Self::Fixed(len) => len,
        }
    }

    /// Length of the chunk that starts at `offset`, given the bytes from there to the
    /// end of the segment, or the first [`reach`](Self::reach) of them.
    pub(super) fn cut(self, offset: u64, bytes: &[u8]) -> usize {
        match self {
            Self::Content => {
                let (_, len) = fastcdc::v2020::cut(
                    bytes,
                    CDC_MIN,
                    CDC_AVG,
                    CDC_MAX,
                    MASK_STRICT,
                    MASK_LOOSE,
                    MASK_STRICT << 1,
                    MASK_LOOSE << 1,
                );
                len
            }
            Self::Fixed(len) => {
                let past = usize::try_from(offset % len as u64).unwrap_or(0);
                bytes.len().min(len - past)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::{Normalization, select_masks};

    #[test]
    fn the_masks_are_those_of_the_crate() {
        assert_eq!(
            select_masks(CDC_AVG, Normalization::Level1),
            (MASK_STRICT, MASK_LOOSE)
        );
        assert_eq!(
            (MASK_STRICT, MASK_LOOSE),
            (0x0000_d917_0753_7000, 0x0000_d907_0353_7000)
        );
    }

    /// The loop of SPEC.md, rule CUT-5, byte by byte.
    fn written_loop(bytes: &[u8], gear: &[u64]) -> usize {
        if bytes.len() <= CDC_MIN {
            return bytes.len();
        }
        let most = bytes.len().min(CDC_MAX);
        let center = CDC_AVG.min(most);
        let mut hash = 0_u64;
        for at in CDC_MIN..most / 2 * 2 {
            hash = (hash << 1).wrapping_add(gear[usize::from(bytes[at])]);
            let mask = if at < center / 2 * 2 {
                MASK_STRICT
            } else {
                MASK_LOOSE
            };
            if hash & mask == 0 {
                return at;
            }
        }
        most
    }

    #[test]
    fn the_cut_is_the_written_loop() {
        let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
        let mut bytes = vec![0; 2 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for len in [65_536, 65_537, 100_001, 262_145, 524_287, 524_288, 2 << 20] {
            let mut rest = &bytes[..len];
            while !rest.is_empty() {
                let cut = Rule::Content.cut(0, rest);
                assert_eq!(
                    cut,
                    written_loop(rest, &gear),
                    "{} of {len} left",
                    rest.len()
                );
                // The byte after the cut, alone and with one more, is where odd lengths tell.
                for end in [cut + 1, cut + 2] {
                    let short = &rest[..end.min(rest.len())];
                    assert_eq!(Rule::Content.cut(0, short), written_loop(short, &gear));
                }
                rest = &rest[cut..];
            }
        }
    }
}
