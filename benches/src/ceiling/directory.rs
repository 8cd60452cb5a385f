//! One directory of the ceiling filesystem: names, and the order of a listing.
//!
//! An offset belongs to one entry for its whole life, so a listing goes on
//! correctly while entries come and go.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Bound;

/// One name in a directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The name.
    pub(super) name: OsString,
    /// What it names.
    pub(super) ino: u64,
}

/// A directory, by name for lookups and by offset for listings.
#[derive(Debug)]
pub(super) struct Directory {
    /// The directory above.
    pub(super) parent: u64,
    offsets: HashMap<OsString, u64>,
    entries: BTreeMap<u64, Entry>,
    next_offset: u64,
}

impl Directory {
    /// An empty directory below `parent`.
    pub(super) fn new(parent: u64) -> Self {
        Self {
            parent,
            offsets: HashMap::new(),
            entries: BTreeMap::new(),
            // 1 and 2 are the offsets of "." and "..".
            next_offset: 3,
        }
    }

    /// What a name names.
    pub(super) fn get(&self, name: &OsStr) -> Option<u64> {
        let offset = self.offsets.get(name)?;
        self.entries.get(offset).map(|entry| entry.ino)
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: &OsStr, ino: u64) {
        self.offsets.insert(name.to_owned(), self.next_offset);
        let name = name.to_owned();
        self.entries.insert(self.next_offset, Entry { name, ino });
        self.next_offset += 1;
    }

    /// Removes a name and returns what it named.
    pub(super) fn remove(&mut self, name: &OsStr) -> Option<u64> {
        let offset = self.offsets.remove(name)?;
        self.entries.remove(&offset).map(|entry| entry.ino)
    }

    /// Whether it has no entries beside the dots.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries behind `offset`, in the order of their offsets.
    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .range((Bound::Excluded(offset), Bound::Unbounded))
            .map(|(offset, entry)| (*offset, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_behind_a_removed_entry() {
        let mut directory = Directory::new(1);
        for (name, ino) in [("a", 2), ("b", 3), ("c", 4)] {
            directory.insert(OsStr::new(name), ino);
        }
        let first = directory.after(2).next().unwrap().0;
        assert_eq!(directory.remove(OsStr::new("a")), Some(2));
        let rest: Vec<_> = directory.after(first).map(|(_, entry)| entry.ino).collect();
        assert_eq!(rest, [3, 4]);
    }
}
