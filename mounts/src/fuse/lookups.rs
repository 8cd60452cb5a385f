//! How often the kernel was told about each inode, minus how often it forgot it.
//!
//! While the count of an inode is positive the kernel may send requests for it, so the engine
//! keeps the node even when its last name is gone. The root is always known.
//!
//! Memory: 17 bytes per slot and at most 16 slots for 7 entries, so a million known inodes take
//! at most 40 MB. A shard gives memory back when it has become eight times too large.

use cairn_engine::Ino;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

const SHARDS: u64 = 64;

/// A shard has a cache line of its own, so that threads on different shards do not share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<FxHashMap<u64, u64>>);

/// The counts of one mount.
#[derive(Debug)]
pub(crate) struct Lookups {
    shards: Box<[Shard]>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

impl Lookups {
    fn shard(&self, ino: Ino) -> &Mutex<FxHashMap<u64, u64>> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the remainder is less than SHARDS"
        )]
        let index = (ino.0 % SHARDS) as usize;
        &self.shards[index].0
    }

    /// The kernel is about to be told of the inode once more.
    pub(crate) fn add(&self, ino: Ino) {
        if ino != Ino::ROOT {
            *self.shard(ino).lock().entry(ino.0).or_default() += 1;
        }
    }

    /// The kernel forgot `count` times that it was told. True when it knows the inode no longer.
    pub(crate) fn sub(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(held) = shard.get_mut(&ino.0) else {
            return false;
        };
        if *held > count {
            *held -= count;
            return false;
        }
        shard.remove(&ino.0);
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
        true
    }

    /// Whether the kernel may know the inode.
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.shard(ino).lock().contains_key(&ino.0)
    }

    /// Forgets everything, as the kernel does at the end, and returns what it knew.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Ino> + '_ {
        self.shards.iter().flat_map(|shard| {
            let known = std::mem::take(&mut *shard.0.lock());
            known.into_keys().map(Ino)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_up_and_down() {
        let lookups = Lookups::default();
        let ino = Ino(7);
        assert!(!lookups.knows(ino));
        lookups.add(ino);
        lookups.add(ino);
        assert!(!lookups.sub(ino, 1));
        assert!(lookups.knows(ino));
        assert!(lookups.sub(ino, 1));
        assert!(!lookups.knows(ino));
        assert!(!lookups.sub(ino, 1), "an inode is forgotten once");
    }

    #[test]
    fn the_root_is_always_known() {
        let lookups = Lookups::default();
        lookups.add(Ino::ROOT);
        assert!(!lookups.sub(Ino::ROOT, 1));
        assert!(lookups.knows(Ino::ROOT));
        assert_eq!(lookups.drain().count(), 0);
    }

    #[test]
    fn a_million_inodes_take_less_than_50_mb() {
        let lookups = Lookups::default();
        for ino in 2..1_000_002 {
            lookups.add(Ino(ino));
        }
        let slots: usize = lookups
            .shards
            .iter()
            .map(|shard| (shard.0.lock().capacity() * 8).div_ceil(7))
            .sum();
        assert!(slots * 17 < 50_000_000, "{slots} slots");
        for ino in 2..1_000_002 {
            assert!(lookups.sub(Ino(ino), 1));
        }
        let slots: usize = lookups
            .shards
            .iter()
            .map(|shard| shard.0.lock().capacity())
            .sum();
        assert!(slots < 10_000, "{slots} slots left");
    }
}
