//! Which registers of a cut are *fresh*: nobody here has heard of the node, so
//! nobody can have edited it, and there is nothing to look at. See
//! [`super::grow`].

use std::collections::BTreeSet;

use cairn_protocol::merge::Place;
use cairn_protocol::wire::PushAck;
use cairn_protocol::{Entry, NodeId, Outcome, Register, ReplicaTag};
use rustc_hash::FxHashMap;

use super::plan::{Plan, outcomes};
use super::state::Flight;
use crate::Result;
use crate::shared::Highest;

/// Nodes that are remembered: about 2 MiB.
const NODES_MAX: usize = 65_536;

/// See the head of the module. It looks at the trees before the cut is applied.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    highest: Highest,
    /// The same of the working tree.
    here: Highest,
    /// Nodes that the answer to a batch speaks of: they stand for others.
    spoken: BTreeSet<NodeId>,
    /// Whether nodes are fresh, and whether they are here and live.
    nodes: FxHashMap<NodeId, (bool, bool)>,
    /// Nodes that were told and that are known, but do not live here.
    pub(super) absent: BTreeSet<NodeId>,
}

impl Fresh {
    pub(super) fn new(flight: Option<&Flight>, ack: Option<&PushAck>) -> Self {
        let mut spoken = BTreeSet::new();
        for (_, outcome) in outcomes(flight, ack) {
            match outcome {
                Outcome::Copied { copy, parent, .. } => spoken.extend([*copy, *parent]),
                Outcome::Alias { from, to } => spoken.extend([*from, *to]),
                Outcome::Renamed { node, parent, .. } => spoken.extend([*node, *parent]),
                Outcome::Revived { node } | Outcome::Kept { node } => drop(spoken.insert(*node)),
                Outcome::Refused { .. } => {}
            }
        }
        Self {
            spoken,
            ..Self::default()
        }
    }

    /// The nodes that the answer to a batch speaks of.
    pub(super) fn spoken(&self) -> impl Iterator<Item = NodeId> {
        self.spoken.iter().copied()
    }

    /// Whether a node is among them.
    pub(super) fn is_spoken(&self, node: NodeId) -> bool {
        self.spoken.contains(&node)
    }

    /// Whether an entry is of one of them.
    pub(super) fn speaks_of(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Node { id: node, .. }
            | Entry::Data { node, .. }
            | Entry::Meta { node, .. }
            | Entry::Xattr { node, .. }
            | Entry::Gone { node } => self.is_spoken(*node),
            Entry::Name { parent, node, .. } => {
                self.is_spoken(*parent) || node.is_some_and(|node| self.is_spoken(node))
            }
        }
    }

    /// Whether an entry needs no look.
    pub(super) fn is(&mut self, plan: &Plan<'_>, entry: &Entry) -> Result<bool> {
        match entry {
            Entry::Node { id: node, .. }
            | Entry::Data { node, .. }
            | Entry::Meta { node, .. }
            | Entry::Xattr { node, .. }
            | Entry::Gone { node } => Ok(self.look(plan, *node)?.0),
            Entry::Name { parent, name, node } => {
                let (fresh, lives) = self.look(plan, *parent)?;
                let node = node.map(|node| self.look(plan, node)).transpose()?;
                // A node that is known came here, or something went from here.
                if node.is_some_and(|(fresh, _)| !fresh) {
                    return Ok(false);
                }
                if fresh {
                    return Ok(true);
                }
                let place = (*parent, name.clone());
                Ok(lives && node.is_some() && Self::is_free(plan, &place)?)
            }
        }
    }

    /// Whether a node is fresh, and else whether it is here and lives.
    pub(super) fn look(&mut self, plan: &Plan<'_>, node: NodeId) -> Result<(bool, bool)> {
        if let Some(known) = self.nodes.get(&node) {
            return Ok(*known);
        }
        let here = &mut self.here;
        let ino = plan
            .local
            .ino_unless(node, |db| here.is_new_here(db, node))?;
        let lives = ino.map(|ino| plan.local.has_name(ino)).transpose()?;
        let lives = lives.unwrap_or(false);
        let own = node.replica == ReplicaTag(plan.inner.identity.tag);
        let known = own
            || node == NodeId::ROOT
            || self.spoken.contains(&node)
            || plan.ended.contains(&node);
        let fresh = ino.is_none()
            && !known
            && (self.highest.is_new(plan.shared, "shared_node", node)?
                || plan.shared.record(node)?.is_none());
        if !fresh && !lives {
            self.absent.insert(node);
        }
        if self.nodes.len() >= NODES_MAX {
            self.nodes.clear();
        }
        self.nodes.insert(node, (fresh, lives));
        Ok((fresh, lives))
    }

    /// Whether nothing is at a place, for anybody.
    pub(super) fn is_free(plan: &Plan<'_>, place: &Place) -> Result<bool> {
        let register = Register::Name {
            parent: place.0,
            name: place.1.clone(),
        };
        let free = !plan.flight.names(place)
            && !plan.names.contains_key(place)
            && !plan.frozen.contains_key(&register)
            && plan
                .shared
                .name(place)?
                .is_none_or(|(node, _)| node.is_none());
        Ok(free && plan.local.at(place)?.is_none())
    }
}
