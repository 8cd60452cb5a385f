//! Who is in a world: replicas, hubs in the middle, and the clients that they
//! are.
//!
//! Programs work at *places*: the replicas, and after them the middles. *Clients*
//! are the replicas, and after them two for each middle: of the hub above it, and
//! of its own. Hub 0 is the first of all, and after it come those of the middles.

use std::sync::Arc;

use super::World;
use crate::cursor::Epoch;
use crate::cursor::{Cursor, Seq};
use crate::id::{NodeId, ReplicaTag};
use crate::session::{ClientAction, ClientDone, HubAction, HubDone, Store};
use crate::testing::replica::EditError;
use crate::testing::subject::{Above, HubSubject, MiddleSubject, ReplicaSubject};
use crate::testing::tree::ModelTree;
use crate::testing::workload::Do;
use crate::wire::Start;

/// Hubs in the middle, after so many replicas.
pub(super) fn middles<M: MiddleSubject>(replicas: usize, count: usize) -> Vec<M> {
    let numbers = (replicas as u64 + 1..).zip(2..).take(count);
    numbers
        .map(|(tag, epoch)| M::create(ReplicaTag(tag), Epoch([epoch; 16])))
        .collect()
}

/// A client: a replica, or a middle that looks up or at its own hub.
enum Client<'a, R, M> {
    Replica(&'a R),
    Middle(&'a M, Above),
}

impl<H: HubSubject, R: ReplicaSubject, M: MiddleSubject> World<H, R, M> {
    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.replicas.len() + self.middles.len()
    }

    /// How many clients there are.
    pub(super) fn clients(&self) -> usize {
        self.replicas.len() + 2 * self.middles.len()
    }

    /// The middle that a client is, and what it looks at.
    fn middle_of(&self, client: usize) -> Option<(usize, Above)> {
        let at = client.checked_sub(self.replicas.len())?;
        let above = [Above::Upstream, Above::Own][at % 2];
        Some((at / 2, above))
    }

    fn client(&self, who: usize) -> Client<'_, R, M> {
        match self.middle_of(who) {
            None => Client::Replica(&self.replicas[who]),
            Some((at, above)) => Client::Middle(&self.middles[at], above),
        }
    }

    /// The place that a client is at.
    pub(super) fn place_of(&self, client: usize) -> usize {
        match self.middle_of(client) {
            None => client,
            Some((at, _)) => self.replicas.len() + at,
        }
    }

    /// Whose edits a client pushes.
    pub(super) fn tag(&self, client: usize) -> ReplicaTag {
        ReplicaTag(self.place_of(client) as u64 + 1)
    }

    /// The hub that a client follows.
    pub(super) fn hub_of(&self, client: usize) -> usize {
        match self.middle_of(client) {
            None => self.homes[client],
            // The second middle is below the first.
            Some((at, Above::Upstream)) => at,
            Some((at, Above::Own)) => at + 1,
        }
    }

    pub(super) fn hub_store(&self, hub: usize) -> Arc<dyn Store<HubAction, HubDone>> {
        match hub.checked_sub(1) {
            None => self.hub.connect(),
            Some(at) => self.middles[at].connect(),
        }
    }

    pub(super) fn hub_view(&self, hub: usize) -> ModelTree {
        match hub.checked_sub(1) {
            None => self.hub.view(),
            Some(at) => self.middles[at].hub_view(),
        }
    }

    pub(super) fn hub_view_at(&self, hub: usize, seq: Seq) -> Option<ModelTree> {
        match hub.checked_sub(1) {
            None => self.hub.view_at(seq),
            Some(at) => self.middles[at].hub_view_at(seq),
        }
    }

    pub(super) fn start(&self, client: usize) -> (Start, u64, Option<[u8; 32]>) {
        match self.client(client) {
            Client::Replica(replica) => replica.start(),
            Client::Middle(middle, above) => middle.start(above),
        }
    }

    pub(super) fn store(&self, client: usize) -> Arc<dyn Store<ClientAction, ClientDone>> {
        match self.client(client) {
            Client::Replica(replica) => replica.store(),
            Client::Middle(middle, above) => middle.store(above),
        }
    }

    pub(super) fn confirmed(&self, client: usize) -> Option<(Cursor, ModelTree)> {
        match self.client(client) {
            Client::Replica(replica) => replica.confirmed(),
            Client::Middle(middle, above) => middle.confirmed(above),
        }
    }

    pub(super) fn is_clean(&self, client: usize) -> bool {
        match self.client(client) {
            Client::Replica(replica) => replica.is_clean(),
            Client::Middle(middle, above) => middle.is_clean(above),
        }
    }

    fn middle_at(&self, place: usize) -> Option<&M> {
        self.middles.get(place.checked_sub(self.replicas.len())?)
    }

    pub(super) fn view(&self, place: usize) -> ModelTree {
        match self.middle_at(place) {
            None => self.replicas[place].view(),
            Some(middle) => middle.view(),
        }
    }

    pub(super) fn check_at(&self, place: usize) -> Result<(), String> {
        match self.middle_at(place) {
            None => self.replicas[place].check(),
            Some(middle) => middle.check(),
        }
    }

    pub(super) fn edit_at(&mut self, place: usize, what: &Do) -> Result<Option<NodeId>, EditError> {
        match place.checked_sub(self.replicas.len()) {
            None => self.replicas[place].edit(what),
            Some(at) => self.middles[at].edit(what),
        }
    }

    /// The process at a place ends and begins again. A hub that is there ends
    /// with it.
    pub(super) fn crash_at(&mut self, place: usize) {
        let middle = place.checked_sub(self.replicas.len());
        let clients: Vec<usize> = (0..self.clients())
            .filter(|client| self.place_of(*client) == place)
            .collect();
        for c in &mut self.connections {
            if clients.contains(&c.who) && c.client.take().is_some() {
                c.up.cut(&mut self.rng);
            }
            let hub_ends = middle.is_some_and(|at| c.of == at + 1);
            if hub_ends && c.hub.take().is_some() {
                c.down.cut(&mut self.rng);
            }
        }
        match middle {
            None => self.replicas[place].crash(),
            Some(at) => self.middles[at].crash(),
        }
    }
}
