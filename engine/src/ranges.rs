//! A set of byte ranges: which parts of a file an overlay holds.

use std::ops::Range;

// A length of what is in memory fits in a pointer's width, and so does any
// length that is only counted with.
const _: () = assert!(usize::BITS == 64, "cairn needs pointers of 64 bits");

/// A length or an offset, as one in memory.
#[allow(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, as is asserted above"
)]
pub(crate) const fn index(n: u64) -> usize {
    n as usize
}

/// Sorted, disjoint, non-adjacent byte ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    pub(crate) fn of(range: Range<u64>) -> Self {
        let mut set = Self::default();
        set.insert(range);
        set
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Appending to the last range is the common case of a sequential write.
        if let Some(last) = self.0.last_mut()
            && range.start >= last.start
            && range.start <= last.end
        {
            last.end = last.end.max(range.end);
            return;
        }
        let from = self.0.partition_point(|r| r.end < range.start);
        let to = self.0.partition_point(|r| r.start <= range.end);
        let merged = self.0[from..to]
            .iter()
            .fold(range, |all, r| all.start.min(r.start)..all.end.max(r.end));
        self.0.splice(from..to, [merged]);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|r| r.end <= range.start);
        let to = self.0.partition_point(|r| r.start < range.end);
        let mut kept = Vec::with_capacity(2);
        for r in &self.0[from..to] {
            if r.start < range.start {
                kept.push(r.start..range.start);
            }
            if r.end > range.end {
                kept.push(range.end..r.end);
            }
        }
        self.0.splice(from..to, kept);
    }

    /// Cuts `range` into pieces, in order: `true` for those in the set.
    pub(crate) fn split(&self, range: Range<u64>, mut each: impl FnMut(Range<u64>, bool)) {
        let mut at = range.start;
        let from = self.0.partition_point(|r| r.end <= range.start);
        for r in &self.0[from..] {
            if r.start >= range.end {
                break;
            }
            if at < r.start {
                each(at..r.start, false);
                at = r.start;
            }
            let end = r.end.min(range.end);
            each(at..end, true);
            at = end;
        }
        if at < range.end {
            each(at..range.end, false);
        }
    }

    pub(crate) fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether the set holds every byte of `range`.
    pub(crate) fn covers(&self, range: Range<u64>) -> bool {
        let mut all = true;
        self.split(range, |_, inside| all &= inside);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(ops in prop::collection::vec((any::<bool>(), 0_u64..64, 0_u64..16), 0..40)) {
            let mut set = RangeSet::default();
            let mut bits = [false; 96];
            for (insert, start, len) in ops {
                if insert { set.insert(start..start + len) } else { set.remove(start..start + len) }
                for bit in &mut bits[index(start)..index(start + len)] { *bit = insert }
            }
            let mut seen = [false; 96];
            set.split(0..96, |r, inside| for i in r { seen[index(i)] = inside });
            prop_assert_eq!(seen, bits);
            for pair in set.as_slice().windows(2) { prop_assert!(pair[0].end < pair[1].start) }
        }
    }
}
