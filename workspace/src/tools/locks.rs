//! No two tools change one file at a time.
//!
//! A lock is for a path, or for all below it. Processes and other users of the
//! replica do not know these locks: an edit that they come in between is
//! refused by the version of the file.

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Locks {
    held: Mutex<Vec<Span>>,
    changed: Condvar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    path: String,
    below: bool,
}

impl Span {
    fn covers(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || (self.below && rest.starts_with('/')))
            || self.path == path
    }

    fn meets(&self, other: &Self) -> bool {
        self.covers(&other.path) || other.covers(&self.path)
    }
}

impl Locks {
    /// Waits until nobody else has this path, or with `below` anything below it.
    pub(super) fn lock(&self, path: &str, below: bool) -> Held<'_> {
        let span = Span {
            path: path.into(),
            below,
        };
        let mut held = self.held.lock();
        while held.iter().any(|other| other.meets(&span)) {
            self.changed.wait(&mut held);
        }
        held.push(span.clone());
        Held { locks: self, span }
    }
}

/// A lock, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    locks: &'a Locks,
    span: Span,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock();
        if let Some(at) = held.iter().position(|other| *other == self.span) {
            held.swap_remove(at);
        }
        self.locks.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_meets_what_is_in_it() {
        let span = |path: &str, below| Span {
            path: path.into(),
            below,
        };
        for (one, other, meet) in [
            (span("/a", false), span("/a", false), true),
            (span("/a", false), span("/a/b", false), false),
            (span("/a", true), span("/a/b", false), true),
            (span("/a/b/c", false), span("/a", true), true),
            (span("/a", true), span("/ab", false), false),
            (span("/", true), span("/ab", false), true),
        ] {
            assert_eq!(one.meets(&other), meet, "{one:?} {other:?}");
            assert_eq!(other.meets(&one), meet, "{one:?} {other:?}");
        }
    }
}
