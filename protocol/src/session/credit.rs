//! Credit: how much one side may send before the other has dealt with it.
//!
//! Each side begins with a window for each lane. What is received is taken from
//! it, and comes back when it needs no memory any more. So what a receiver has
//! to hold is bounded, whatever the peer does (I13).

use crate::limits::FRAME_MAX;

/// What this side may send.
#[derive(Debug)]
pub(super) struct Spend {
    left: u64,
    window: u64,
}

/// What the peer may send.
#[derive(Debug)]
pub(super) struct Grant {
    left: u64,
    window: u64,
    /// Dealt with, and not returned yet.
    consumed: u64,
}

impl Spend {
    pub(super) fn new(window: u64) -> Self {
        Self {
            left: window,
            window,
        }
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Whether there was enough.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Whether that makes sense: a peer gives back what was spent. The same
    /// bytes cannot come back twice, so the window is never exceeded.
    pub(super) fn add(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_add(bytes);
        let left = left.filter(|left| *left <= self.window);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

impl Grant {
    pub(super) fn new(window: u64) -> Self {
        Self {
            left: window,
            window,
            consumed: 0,
        }
    }

    /// Whether there was enough.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// What to give back now. A quarter of the window is worth a message, and
    /// leaves room for the longest frame.
    pub(super) fn consumed(&mut self, bytes: u64) -> Option<u64> {
        self.consumed += bytes;
        if self.consumed < self.window / 4 {
            return None;
        }
        self.left += self.consumed;
        Some(std::mem::take(&mut self.consumed))
    }
}

// What is held back and one frame leave room for another.
const _: () = assert!(crate::limits::WINDOW_CONTROL / 4 * 3 > 2 * FRAME_MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i13_no_more_is_sent_than_was_granted() {
        let (mut spend, mut grant) = (Spend::new(1_000), Grant::new(1_000));
        let mut held = 0;
        for step in 1..500_u64 {
            let bytes = step * 37 % 200;
            if spend.take(bytes) {
                assert!(grant.take(bytes), "the sender keeps to the window");
                held += bytes;
            } else {
                // The receiver is slow, and deals with everything now.
                let back = grant.consumed(held);
                assert!(spend.add(back.unwrap()));
                held = 0;
            }
            assert!(held <= 1_000);
        }
        assert!(!grant.take(1_001));
        assert!(!spend.add(1_001), "what was not spent does not come back");
        assert!(!spend.add(u64::MAX));
    }
}
