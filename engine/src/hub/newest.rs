//! The newest session of each replica, which alone may push (SES-21).
//!
//! A client may come again while its last connection is not over yet, and what it
//! sent by that is still being looked at. What the new session is told of the last
//! batch has to stay true until it pushes itself: a batch that it is refused then
//! was certainly not committed.

use std::collections::BTreeMap;

use cairn_protocol::ReplicaTag;
use parking_lot::Mutex;

/// The sessions that there are.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// The newest of each replica, and how many there are.
    newest: BTreeMap<ReplicaTag, (u64, usize)>,
}

/// The place of a session, until it is over and nothing of it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tag: ReplicaTag,
    pub(super) number: u64,
}

impl Sessions {
    /// Begins a session of a replica. Returns whether there are older ones, of which
    /// a commit may be under way; they begin none any more.
    pub(super) fn begin(&self, tag: ReplicaTag) -> (Place, bool) {
        let mut state = self.0.lock();
        state.last += 1;
        let number = state.last;
        let (newest, count) = state.newest.entry(tag).or_default();
        *newest = number;
        *count += 1;
        (Place { tag, number }, *count > 1)
    }

    /// Whether the replica has a newer session.
    pub(super) fn is_older(&self, place: Place) -> bool {
        let state = self.0.lock();
        let newest = state.newest.get(&place.tag);
        newest.is_some_and(|(newest, _)| *newest != place.number)
    }

    pub(super) fn end(&self, place: Place) {
        let mut state = self.0.lock();
        if let Some((_, count)) = state.newest.get_mut(&place.tag) {
            *count -= 1;
            if *count == 0 {
                state.newest.remove(&place.tag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_sessions_of_a_replica_the_last_is_the_newest() {
        let sessions = Sessions::default();
        let (a, b) = (ReplicaTag(1), ReplicaTag(2));
        let (first, others) = sessions.begin(a);
        assert!(!others && !sessions.is_older(first));
        let (second, others) = sessions.begin(a);
        assert!(others && sessions.is_older(first) && !sessions.is_older(second));
        assert!(!sessions.begin(b).1);
        // The older is not the newest again.
        sessions.end(second);
        assert!(sessions.is_older(first));
        assert!(sessions.begin(a).1);
    }
}
