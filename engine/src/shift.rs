//! Shifts: while one is under way, rows that are not in memory are about to
//! become others, in a transaction that is not committed yet.
//!
//! A large cut writes rows of nodes and names that nobody has in memory, and
//! sets in memory only where they are attached. From the moment when that is
//! seen until the transaction is committed, nobody may bring rows to memory:
//! they would be those from before. Who needs some waits here; who has what it
//! needs goes on. So everybody sees either all of the cut or nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

/// See the head of the module. There is one shift at a time: who makes it holds
/// the commit lock.
#[derive(Debug, Default)]
pub(crate) struct Shift {
    on: AtomicBool,
    lock: Mutex<()>,
    over: Condvar,
}

/// A shift that is under way; it ends with this.
#[derive(Debug)]
pub(crate) struct Shifting<'a>(&'a Shift);

impl Shift {
    pub(crate) fn begin(&self) -> Shifting<'_> {
        self.on.store(true, Ordering::SeqCst);
        Shifting(self)
    }

    /// Waits for the shift that is under way, with no lock held. Whether one
    /// began or ended between this and the use of what was read is told by
    /// [`crate::tree::Tree::evictions`].
    pub(crate) fn wait(&self) {
        if !self.on.load(Ordering::SeqCst) {
            return;
        }
        let mut lock = self.lock.lock();
        while self.on.load(Ordering::SeqCst) {
            self.over.wait(&mut lock);
        }
    }
}

impl Drop for Shifting<'_> {
    fn drop(&mut self) {
        let _lock = self.0.lock.lock();
        self.0.on.store(false, Ordering::SeqCst);
        self.0.over.notify_all();
    }
}
