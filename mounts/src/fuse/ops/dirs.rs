//! Listing directories.
//!
//! An open directory has no state here: the kernel passes the position in, and the engine's
//! positions stay valid while entries come and go. Positions 1 and 2 are "." and "..".

use cairn_engine::{Attr, Ino};

use super::{Found, Ops, Result, stale};

/// Position after ".".
const AFTER_DOT: u64 = 1;
/// Position after "..".
const AFTER_DOTS: u64 = 2;

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ListEntry {
    /// "." or "..": the kernel is told of the name only.
    Dots(Ino),
    /// Any other.
    Node(Found),
}

/// What takes the entries of a listing.
pub(crate) trait Listing {
    /// Whether the kernel takes up the inode with the name, so that it has to be counted.
    const COUNTED: bool;

    /// Takes one entry; false when there is no room for it.
    fn take(&mut self, entry: ListEntry, name: &[u8], position: u64) -> bool;
}

impl Ops {
    /// Lists the entries after `position`, until `listing` is full.
    pub(crate) fn readdir<L: Listing>(
        &self,
        dir: Ino,
        position: u64,
        listing: &mut L,
    ) -> Result<()> {
        if position < AFTER_DOT && !listing.take(ListEntry::Dots(dir), b".", AFTER_DOT) {
            return Ok(());
        }
        if position < AFTER_DOTS {
            // A directory that is open but removed has no parent.
            let parent = self.replica.parent(dir).unwrap_or(dir);
            if !listing.take(ListEntry::Dots(parent), b"..", AFTER_DOTS) {
                return Ok(());
            }
        }
        let start = if position <= AFTER_DOTS { 0 } else { position };
        let changes = self.kernel.changes();
        let mut refused = None;
        let mut any = false;
        let read = self.replica.read_dir(dir, start, &mut |entry| {
            let attr: Attr = *entry.attr;
            if L::COUNTED {
                self.kernel.lookups.add(attr.ino);
            }
            let found = Found {
                attr,
                lasting: self.kernel.changes() == changes && !self.kernel.opens.is_direct(attr.ino),
            };
            let taken = listing.take(ListEntry::Node(found), entry.name, entry.cookie);
            if taken {
                any = true;
            } else {
                refused = Some(attr.ino);
            }
            taken
        });
        if let (true, Some(ino)) = (L::COUNTED, refused) {
            self.forget(ino, 1);
        }
        match read {
            // What was taken is counted and must reach the kernel; the next call fails again.
            Err(_) if any => Ok(()),
            other => other.map_err(stale),
        }
    }
}
