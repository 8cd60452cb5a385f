//! Shifts: while one is under way, rows that are not in memory are about to
//! become others, in a transaction that is not committed yet.
//!
//! A large cut writes rows of nodes and names that nobody has in memory, and
//! sets in memory only where they are attached. From the moment when that is
//! seen until the transaction is committed, nobody may bring rows to memory:
//! they would be those from before. Who needs some waits here; who has what it
//! needs goes on. So everybody sees either all of the cut or nothing.
//!
//! If the transaction fails when memory has some of the cut already, the shift is
//! *stuck*: rows from before would be a part of another tree. Who needs one then
//! tries to commit, as who changes something does while commits fail.

use parking_lot::{Condvar, Mutex};

/// Whether one is under way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Over,
    On,
    Stuck,
}

/// See the head of the module. There is one shift at a time: who makes it holds
/// the commit lock.
#[derive(Debug, Default)]
pub(crate) struct Shift {
    state: Mutex<State>,
    over: Condvar,
}

/// A shift that is under way; it ends with this.
#[derive(Debug)]
pub(crate) struct Shifting<'a> {
    shift: &'a Shift,
    then: State,
}

impl Shift {
    pub(crate) fn begin(&self) -> Shifting<'_> {
        *self.state.lock() = State::On;
        Shifting {
            shift: self,
            then: State::Over,
        }
    }

    /// Waits for the shift that is under way, with no lock held. Whether one is
    /// stuck. Whether one began or ended between this and the use of what was
    /// read is told by [`crate::tree::Tree::evictions`].
    #[must_use]
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while *state == State::On {
            self.over.wait(&mut state);
        }
        *state == State::Stuck
    }
}

impl Shifting<'_> {
    /// It does not end, but is stuck until another is over.
    pub(crate) fn stick(&mut self) {
        self.then = State::Stuck;
    }
}

impl Drop for Shifting<'_> {
    fn drop(&mut self) {
        *self.shift.state.lock() = self.then;
        self.shift.over.notify_all();
    }
}
