//! The replay of edits: where what was edited here and what the hub has make no
//! tree together, the edits are resolved on the hub's tree by the hub's own
//! rules (R14).

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_protocol::merge::{Place, resolve};
use cairn_protocol::{
    Data, Edit, Entry, Meta, MetaFields, NodeId, NodeKind, Outcome, Register, ReplicaTag, Ver,
    XattrName,
};

use super::edits::{Bounds, Edits, Untouched};
use super::ignore::{Paths, Whose};
use super::plan::{Plan, Seen, reserve};
use super::state::{Base, Told};
use crate::Result;
use crate::db::{corrupt, own_id};
use crate::shared::View;

/// Values that the replay of edits came to.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) kinds: BTreeMap<NodeId, NodeKind>,
    pub(super) names: BTreeMap<Place, Option<NodeId>>,
    pub(super) data: BTreeMap<NodeId, Data>,
    pub(super) metas: BTreeMap<NodeId, Meta>,
    pub(super) xattrs: BTreeMap<(NodeId, XattrName), Option<Bytes>>,
}

impl Plan<'_> {
    /// Resolves the edits that are left on the hub's tree (R14).
    pub(super) fn replay(&mut self, scanned: Ver, told: Option<Told>) -> Result<()> {
        self.take_back_renewals();
        let edits = {
            // What comes out of an ignored place is edited where it will be.
            let whose = if self.comes_out {
                Whose::Hub
            } else {
                Whose::Here
            };
            let paths = Paths::new(self.ignore, whose);
            let (local, frozen) = (&self.local, &self.frozen);
            let mut edits = Edits::new(local, self.shared, frozen, &paths, Some(&*self));
            edits.scan(scanned, told, &Bounds::NONE)?;
            edits.scan_unsealed()?;
            edits.list
        };
        let inner = self.inner;
        let tag = ReplicaTag(inner.identity.tag);
        let mut mint = || own_id(tag, reserve(inner));
        let view = View::new(self.shared);
        let resolution = resolve(&view, &edits, tag, &mut mint)
            .map_err(|e| corrupt("the edits of the working tree", format!("{e:?}")))?;
        // Everything that was edited is as the resolution says, or the hub.
        self.frozen.clear();
        for edit in &edits {
            if let Some(register) = edit.register() {
                self.note(&register)?;
            }
        }
        self.forced.clear();
        for (edit, outcome) in &resolution.outcomes {
            match (&edits[*edit], outcome) {
                (Edit::Data { node, .. }, Outcome::Copied { copy, .. }) => {
                    if let Some(here) = self.local.live(*node)? {
                        for place in self.local.places(here.ino)? {
                            self.note_name(place)?;
                        }
                        self.local.bind(here.ino, *copy)?;
                        self.move_notes(*node, *copy)?;
                    }
                }
                (_, Outcome::Alias { from, to }) => self.aliased(*from, *to)?,
                _ => {}
            }
        }
        let outcomes = resolution.outcomes.into_iter();
        self.resolved = outcomes.map(|(_, outcome)| outcome).collect();
        let mut replayed = Replayed::default();
        for entry in resolution.entries {
            if let Some(register) = entry.register() {
                self.note(&register)?;
            }
            match entry {
                Entry::Node { id, kind } => drop(replayed.kinds.insert(id, kind)),
                Entry::Data { node, data } => drop(replayed.data.insert(node, data)),
                Entry::Meta { node, meta } => drop(replayed.metas.insert(node, meta)),
                Entry::Name { parent, name, node } => {
                    replayed.names.insert((parent, name), node);
                }
                Entry::Xattr { node, name, value } => {
                    replayed.xattrs.insert((node, name), value);
                }
                Entry::Gone { .. } => {}
            }
        }
        // What nobody does to the working tree is in no log.
        for (place, node) in &replayed.names {
            let there = self.shared.name(place)?.and_then(|(node, _)| node);
            if there != *node {
                let (parent, name) = place.clone();
                self.frozen
                    .insert(Register::Name { parent, name }, Base::Name(there));
            }
        }
        self.replayed = Some(replayed);
        self.freeze_ignored()?;
        self.clash = false;
        Ok(())
    }
}

impl Untouched for Plan<'_> {
    fn name(&self, place: &Place) -> Result<bool> {
        if self.forced.contains_key(place) {
            return Ok(false);
        }
        match self.names.get(place) {
            Some(seen) => Ok(*seen == Seen::Clean),
            None if self.grows => {
                let node = self.shared.name(place)?.and_then(|(node, _)| node);
                node.map_or(Ok(false), |node| self.was_fresh(node))
            }
            None => Ok(false),
        }
    }

    fn data(&self, node: NodeId) -> bool {
        let noted = self.nodes.get(&node).and_then(|noted| noted.data);
        noted == Some(Seen::Clean)
    }

    fn meta(&self, node: NodeId) -> MetaFields {
        let noted = self.nodes.get(&node).and_then(|noted| noted.meta);
        noted.unwrap_or(MetaFields::ALL)
    }

    fn xattr(&self, node: NodeId, name: &XattrName) -> bool {
        let noted = self
            .nodes
            .get(&node)
            .and_then(|noted| noted.xattrs.get(name));
        noted == Some(&false)
    }
}
