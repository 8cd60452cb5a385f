//! What a replica of the model does when its cursor leads nowhere.
//!
//! The hub was restored from a backup, or is another. That it lacks something
//! does not mean that somebody removed it, and that it has something else does
//! not mean that somebody wrote it later. So what it lacks is made again, what
//! differs is kept twice, and what was edited here is edited again: all as edits
//! of the hub's tree, resolved by the hub's own rules.
//!
//! Or the hub has forgotten what happened after the cursor. Then what it lacks
//! was removed, and what it has was written later: only what was edited here is
//! edited again.

use std::collections::BTreeSet;

use super::replica::{Base, Dirty, ModelReplica, NEVER};
use super::tree::ModelTree;
use crate::change::Change;
use crate::cursor::{Seq, Ver};
use crate::edit::{Edit, MetaFields};
use crate::id::NodeId;
use crate::merge::{TreeView, resolve};
use crate::register::NodeKind;
use crate::wire::Why;

impl ModelReplica {
    /// The cursor leads nowhere. The hub knows batches up to `last_batch`.
    pub fn reset(&mut self, why: Why, last_batch: u64) {
        if let Some(flight) = self.flight.take() {
            let later = std::mem::replace(&mut self.dirty, flight.dirty);
            self.dirty.join(later);
        }
        self.batches = last_batch;
        let worse = self.begins_anew.filter(|before| *before != Why::Horizon);
        self.begins_anew = Some(worse.unwrap_or(why));
    }

    /// The whole tree of the hub came.
    pub(super) fn begin_anew(&mut self, why: Why, head: Seq, changes: &[Change]) {
        let mut tree = ModelTree::new();
        for Change { ver, entry } in changes {
            tree.apply(*ver, entry);
        }
        let edits = self.edits_of(&tree, why == Why::Horizon);
        let (replica, minted) = (self.tag(), &mut self.minted);
        let mut mint = || {
            *minted += 1;
            let counter = *minted;
            NodeId { replica, counter }
        };
        let Ok(resolution) = resolve(&tree, &edits, replica, &mut mint) else {
            debug_assert!(false, "a replica's own edits make sense");
            return;
        };
        self.local = tree.clone();
        self.local.commit(0, &resolution);
        (self.confirmed, self.cursor) = (tree, head);
        self.dirty = self.difference();
    }

    /// The edits of the hub's tree that bring back what was here.
    fn edits_of(&self, hub: &ModelTree, same_history: bool) -> Vec<Edit> {
        let mut edits = Vec::new();
        let edited = self.edited();
        for (node, kind) in self.local.live() {
            let counts = !same_history || edited.contains(&node);
            if node == NodeId::ROOT || hub.is_live(node) {
                self.edit_again(hub, node, same_history, &mut edits);
            } else if counts {
                self.make_again(hub, node, kind, &mut edits);
            }
        }
        let removed = |place: &_| self.local.at(place).is_none();
        for (place, node) in self.confirmed.names() {
            if removed(place) && hub.at(place) == Some(node) && !self.is_made_again(hub, node) {
                edits.push(name(place, Some(node), None));
            }
        }
        for (node, _) in self.confirmed.live() {
            if !self.local.is_live(node) && hub.is_live(node) {
                let same = hub.content(node) == self.confirmed.content(node);
                edits.push(Edit::Drop {
                    node,
                    data_base: if same { version(hub, node) } else { NEVER },
                });
            }
        }
        edits
    }

    /// The nodes that were edited or moved here, and the directories that they
    /// need.
    fn edited(&self) -> BTreeSet<NodeId> {
        let (old, new) = (&self.confirmed, &self.local);
        let mut edited = BTreeSet::new();
        for (node, _) in new.live() {
            let moved = |place: &_| old.at(place) != Some(node);
            let wrote = old.content(node) != new.content(node);
            if !old.is_live(node) || wrote || self.places_of(node).iter().any(moved) {
                edited.insert(node);
            }
        }
        let mut above: Vec<NodeId> = edited.iter().copied().collect();
        while let Some(node) = above.pop() {
            for (parent, _) in self.places_of(node) {
                if edited.insert(parent) {
                    above.push(parent);
                }
            }
        }
        edited
    }

    fn is_made_again(&self, hub: &ModelTree, node: NodeId) -> bool {
        self.local.is_live(node) && !hub.is_live(node)
    }

    /// The hub lacks a node.
    fn make_again(&self, hub: &ModelTree, node: NodeId, kind: NodeKind, edits: &mut Vec<Edit>) {
        if hub.kind(node).is_none() {
            edits.push(Edit::New { node, kind });
        }
        for place in self.places_of(node) {
            edits.push(name(&place, self.seen(hub, &place), Some(node)));
        }
        if let Some(data) = self.local.content(node) {
            edits.push(Edit::Data {
                node,
                base: version(hub, node),
                data: data.clone(),
            });
        }
        if let Some(meta) = self.local.attributes(node) {
            edits.push(Edit::Meta {
                node,
                base: 0,
                fields: MetaFields::ALL,
                meta: *meta,
            });
        }
    }

    /// The hub has a node, perhaps as it was before, or as somebody else made it.
    fn edit_again(&self, hub: &ModelTree, node: NodeId, same_history: bool, edits: &mut Vec<Edit>) {
        let (here, there) = (self.local.content(node), hub.content(node));
        let before = self.confirmed.content(node);
        let counts = here != there && (!same_history || here != before);
        if let Some(data) = here.filter(|_| counts) {
            let untouched = there == before;
            edits.push(Edit::Data {
                node,
                base: if untouched { version(hub, node) } else { NEVER },
                data: data.clone(),
            });
        }
        let was = self.confirmed.attributes(node);
        if let (Some(was), Some(meta)) = (was, self.local.attributes(node)) {
            let fields = MetaFields::between(was, meta);
            if fields != MetaFields::NONE {
                edits.push(Edit::Meta {
                    node,
                    base: 0,
                    fields,
                    meta: *meta,
                });
            }
        }
        // Names that the node got here and the hub does not know of.
        for place in self.places_of(node) {
            let is_new = self.confirmed.at(&place) != Some(node);
            if is_new && hub.at(&place) != Some(node) {
                edits.push(name(&place, self.seen(hub, &place), Some(node)));
            }
        }
    }

    /// What was seen at a place that something is put at: what is there, if it
    /// was there before and is to go.
    fn seen(&self, hub: &ModelTree, place: &crate::merge::Place) -> Option<NodeId> {
        let there = hub.at(place)?;
        (self.confirmed.at(place) == Some(there)).then_some(there)
    }

    fn places_of(&self, node: NodeId) -> BTreeSet<crate::merge::Place> {
        let Ok(places) = self.local.places(node);
        places.into_iter().collect()
    }
}

impl Dirty {
    /// Adds what was edited later. What was seen first counts.
    fn join(&mut self, later: Self) {
        for (register, base) in later.bases {
            self.bases.entry(register).or_insert(base);
        }
        for (node, base) in later.drops {
            let base = if base == Base::Flight {
                Base::Ver(NEVER)
            } else {
                base
            };
            self.drops.entry(node).or_insert(base);
        }
        self.born.extend(later.born);
    }
}

fn version(tree: &ModelTree, node: NodeId) -> Ver {
    tree.data.get(&node).map_or(0, |(ver, _)| *ver)
}

fn name(place: &crate::merge::Place, was: Option<NodeId>, node: Option<NodeId>) -> Edit {
    Edit::Name {
        parent: place.0,
        name: place.1.clone(),
        was,
        node,
    }
}
