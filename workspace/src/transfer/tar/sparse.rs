//! The maps of sparse files: where an archived file has data.

use std::fmt::Write as _;
use std::ops::Range;

use super::{BLOCK, number, padding};

/// Most extents a map may have: 16 MiB of memory.
pub(super) const EXTENTS_MAX: usize = 1 << 20;

/// Makes extents of offsets and lengths. `None` unless they ascend, stay within
/// the size and have together the length of the data.
pub(super) fn extents(map: &[(u64, u64)], size: u64, stored: u64) -> Option<Vec<Range<u64>>> {
    let mut extents: Vec<Range<u64>> = Vec::new();
    let (mut end, mut sum) = (0, 0_u64);
    for (offset, len) in map {
        let stop = offset
            .checked_add(*len)
            .filter(|stop| *offset >= end && *stop <= size)?;
        sum = sum.checked_add(*len)?;
        end = stop;
        if *len > 0 {
            extents.push(*offset..stop);
        }
    }
    (sum == stored).then_some(extents)
}

/// The text of a map as version 1.0 has it before the data, in whole blocks.
pub(super) fn map_text(extents: &[Range<u64>], size: u64) -> Vec<u8> {
    // An empty extent at the end lets readers know of the last hole.
    let tail = extents
        .last()
        .is_none_or(|last| last.end < size)
        .then_some(size..size);
    let mut text = format!("{}\n", extents.len() + tail.iter().len());
    for extent in extents.iter().chain(tail.iter()) {
        // Writing to memory does not fail.
        let _ = write!(text, "{}\n{}\n", extent.start, extent.end - extent.start);
    }
    let mut bytes = text.into_bytes();
    let blocks = bytes.len() as u64 + padding(bytes.len() as u64);
    bytes.resize(usize::try_from(blocks).unwrap_or(bytes.len()), 0);
    bytes
}

/// A map of version 1.0 that is read block by block.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    digits: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl TextMap {
    /// Adds a block. `Some` with whether more has to follow, `None` if it makes no sense.
    pub(super) fn add(&mut self, block: &[u8; BLOCK]) -> Option<bool> {
        for byte in block {
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(*byte),
                b'\n' => self.end_number()?,
                _ => return None,
            }
            if self.is_complete() {
                return Some(false);
            }
        }
        Some(true)
    }

    fn end_number(&mut self) -> Option<()> {
        let number: u64 = number::decimal(&self.digits)?;
        self.digits.clear();
        match self.count {
            None => {
                self.count = Some(
                    usize::try_from(number)
                        .ok()
                        .filter(|count| *count <= EXTENTS_MAX)?,
                );
            }
            Some(_) => self.numbers.push(number),
        }
        Some(())
    }

    fn is_complete(&self) -> bool {
        self.count
            .is_some_and(|count| self.numbers.len() == count * 2)
    }

    /// Offsets and lengths.
    pub(super) fn map(&self) -> Vec<(u64, u64)> {
        pairs(&self.numbers)
    }
}

/// Offsets and lengths of numbers that alternate.
pub(super) fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_its_text() {
        for (list, size) in [
            (vec![], 0),
            (vec![], 4_096),
            (std::iter::once(0..512).collect(), 9_000),
            (vec![4_096..8_192, 16_384..16_385], 16_385),
        ] {
            let text = map_text(&list, size);
            let mut map = TextMap::default();
            let mut blocks = text.chunks_exact(BLOCK);
            while map.add(blocks.next().unwrap().try_into().unwrap()).unwrap() {}
            assert!(blocks.next().is_none());
            let stored = list.iter().map(|e: &Range<u64>| e.end - e.start).sum();
            assert_eq!(extents(&map.map(), size, stored), Some(list));
        }
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        assert_eq!(extents(&[(0, 10), (5, 10)], 100, 20), None);
        assert_eq!(extents(&[(0, 10)], 5, 10), None);
        assert_eq!(extents(&[(u64::MAX, 2)], u64::MAX, 2), None);
        assert_eq!(extents(&[(0, 10)], 100, 11), None);
        let mut block = [b'9'; BLOCK];
        assert_eq!(TextMap::default().add(&block), None);
        block[7] = b'\n';
        assert_eq!(TextMap::default().add(&block), None);
    }
}
