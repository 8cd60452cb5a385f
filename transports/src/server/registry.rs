//! The connections that there are, and what they have done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cairn_protocol::ReplicaTag;
use cairn_protocol::session::{Counters, Ended};
use cairn_protocol::wire::Code;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::workspaces::Workspaces;
use crate::counters::add;
use crate::driver::Stop;
use crate::link::Traffic;
use crate::random;

/// A replica of a workspace.
type Client = ([u8; 16], ReplicaTag);

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carrier {
    Quic,
    WebSocket,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    pub(super) carrier: Carrier,
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) counters: Arc<Mutex<Counters>>,
}

/// All connections of a server.
pub(super) struct Registry {
    pub(super) workspaces: Arc<dyn Workspaces>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) turned_away: AtomicU64,
    /// What the server is called in greetings.
    pub(super) tag: ReplicaTag,
    next: AtomicU64,
    state: Mutex<State>,
    gone: Notify,
}

#[derive(Default)]
struct State {
    places: BTreeMap<u64, Arc<Place>>,
    newest: BTreeMap<Client, u64>,
    past: Past,
    /// What those are told that come too late.
    stopping: Option<Stop>,
}

/// What connections did that are over.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) counters: Counters,
    pub(super) connections: BTreeMap<Carrier, u64>,
    pub(super) ended: BTreeMap<Code, u64>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    pub(super) fn new(workspaces: Arc<dyn Workspaces>) -> Self {
        Self {
            workspaces,
            traffic: Arc::default(),
            turned_away: AtomicU64::new(0),
            // No replica has the tag 0.
            tag: ReplicaTag(random::number() | 1),
            next: AtomicU64::new(0),
            state: Mutex::default(),
            gone: Notify::new(),
        }
    }

    /// A place for a connection that is there now.
    pub(super) fn enter(&self, carrier: Carrier) -> Arc<Place> {
        let mut state = self.state.lock();
        let place = Arc::new(Place {
            number: self.next.fetch_add(1, Relaxed),
            carrier,
            stop: watch::channel(state.stopping.clone()).0,
            counters: Arc::default(),
        });
        state.places.insert(place.number, Arc::clone(&place));
        *state.past.connections.entry(carrier).or_default() += 1;
        place
    }

    /// The connection is that of a replica from now on. An older one of the replica is
    /// ended: either it is dead, or somebody has copied the replica. It may be this,
    /// whose greeting was looked at late.
    pub(super) fn admit(&self, place: &Place, workspace: [u8; 16], replica: ReplicaTag) {
        let mut state = self.state.lock();
        let newest = state.newest.entry((workspace, replica));
        let newest = newest.or_insert(place.number);
        let older = place.number.min(*newest);
        *newest = place.number.max(*newest);
        let is_another = older != *newest;
        if let Some(older) = state.places.get(&older).filter(|_| is_another) {
            older.stop.send_replace(Some(Stop {
                code: Code::TAG_TAKEN,
                detail: "this replica has another connection, which is newer; if it was copied, \
                         one of the two has to be cloned anew",
            }));
        }
    }

    /// The connection is over.
    pub(super) fn leave(&self, place: &Place, ended: &Ended) {
        let counters = *place.counters.lock();
        let mut state = self.state.lock();
        state.places.remove(&place.number);
        state.newest.retain(|_, number| *number != place.number);
        add(&mut state.past.counters, &counters);
        *state.past.ended.entry(ended.code).or_default() += 1;
        drop(state);
        self.gone.notify_waiters();
    }

    /// Tells all connections to end, those that come later, too.
    pub(super) fn stop_all(&self, stop: &Stop) {
        let mut state = self.state.lock();
        state.stopping = Some(stop.clone());
        for place in state.places.values() {
            place.stop.send_replace(Some(stop.clone()));
        }
    }

    /// Waits until there is no connection any more.
    pub(super) async fn all_gone(&self) {
        loop {
            let gone = self.gone.notified();
            if self.state.lock().places.is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// The connections of each kind, and what all have done, those that are over
    /// included.
    pub(super) fn sums(&self) -> (BTreeMap<Carrier, u64>, Past) {
        let state = self.state.lock();
        let (mut open, mut past) = (BTreeMap::new(), state.past.clone());
        for place in state.places.values() {
            *open.entry(place.carrier).or_default() += 1;
            add(&mut past.counters, &place.counters.lock());
        }
        (open, past)
    }
}

#[cfg(test)]
mod tests {
    use super::super::workspaces::Hub;
    use super::*;

    struct Nothing;

    impl Workspaces for Nothing {
        fn find(&self, _: [u8; 16]) -> Option<Arc<dyn Hub>> {
            None
        }

        fn all(&self) -> Vec<Arc<dyn Hub>> {
            Vec::new()
        }
    }

    /// The greeting of a connection that the replica had given up was looked at after
    /// that of the next one, which was ended for it, and the replica with it.
    #[test]
    fn a_connection_whose_greeting_is_late_does_not_end_a_newer_one() {
        for late in [false, true] {
            let registry = Registry::new(Arc::new(Nothing));
            let [old, new] = [(); 2].map(|()| registry.enter(Carrier::Quic));
            for place in if late { [&new, &old] } else { [&old, &new] } {
                registry.admit(place, [1; 16], ReplicaTag(1));
            }
            assert!(old.stop.borrow().is_some() && new.stop.borrow().is_none());
        }
    }
}
