//! What a replica of the model does when the hub has refused its batch in flight
//! and a cut waits for it: what is in the batch was not pushed (SES-22).

use super::replica::{Base, Dirty, ModelReplica, NEVER};
use super::tree::ModelTree;
use crate::id::NodeId;
use crate::register::Register;

impl ModelReplica {
    /// Takes the batch in flight back. The hub must not have committed it.
    pub fn withdraw(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        self.batches = flight.batch - 1;
        let later = std::mem::replace(&mut self.dirty, flight.dirty);
        self.dirty.go_on(later, &self.local);
    }
}

impl Dirty {
    /// Adds what was edited later, as if nothing had been pushed between.
    fn go_on(&mut self, later: Self, local: &ModelTree) {
        for (node, base) in later.drops {
            let saw = match base {
                Base::Flight => self.bases.get(&Register::Data(node)).copied(),
                base => Some(base),
            };
            self.drops.insert(node, saw.unwrap_or(Base::Ver(NEVER)));
        }
        for (register, base) in later.bases {
            let first = self.bases.entry(register).or_insert(base);
            if let (Base::Meta(_, fields), Base::Meta(_, more)) = (first, base) {
                *fields = fields.with(more);
            }
        }
        self.born.extend(later.born);
        // The hub has never heard of what was made and removed meanwhile.
        let is_gone = |node: &NodeId| !local.is_live(*node);
        let unborn: Vec<NodeId> = self.born.iter().copied().filter(is_gone).collect();
        let ended: Vec<NodeId> = self.drops.keys().copied().filter(is_gone).collect();
        for node in &unborn {
            self.born.remove(node);
            self.drops.remove(node);
        }
        for node in unborn.into_iter().chain(ended) {
            self.bases.remove(&Register::Data(node));
            self.bases.remove(&Register::Meta(node));
        }
    }
}
