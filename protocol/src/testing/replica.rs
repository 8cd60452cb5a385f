//! A replica of the model: what it knows of the hub, what it shows, and what it
//! has not pushed.
//!
//! The *confirmed* tree is the hub's at the cursor. The *local* tree is what the
//! replica's programs see and edit. A register that was edited is *dirty*, with
//! what its editor saw there; what was pushed and not answered is *in flight*.
//! When something comes from the hub, the local tree becomes the confirmed one
//! with the edits over it. If that is no tree, because the hub ended or moved
//! what the edits need, the local tree stays as it is until the hub has answered
//! (R14). If it is no tree then, the edits that are left are *replayed*: resolved
//! on the confirmed tree by the hub's own rules.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::hub::Ack;
use super::tree::ModelTree;
use crate::change::Change;
use crate::cursor::{Seq, Ver};
use crate::data::Data;
use crate::edit::{Edit, MetaFields};
use crate::id::{NodeId, ReplicaTag};
use crate::merge::{Place, resolve};
use crate::name::XattrName;
use crate::outcome::Outcome;
use crate::register::{Meta, NodeKind, Register};
use crate::wire::Why;

/// Safeguards that a test switches off, to see that it would notice.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSafeguards {
    /// The base of an edit is what its editor saw, not what came since (R11).
    pub frozen_base: bool,
    /// The base of an edit of something in flight is of the acknowledgement,
    /// not what came since (R11).
    pub ack_base: bool,
    /// What the hub lacks after a long time was removed there (I8).
    pub absence: bool,
}

impl ReplicaSafeguards {
    /// As it must be.
    pub const ALL: Self = Self {
        frozen_base: true,
        ack_base: true,
        absence: true,
    };
}

/// Why the replica's tree cannot be edited so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tree cannot be edited so")]
pub struct EditError;

/// What the editor of a register saw there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Name(Option<NodeId>),
    Ver(Ver),
    Meta(Ver, MetaFields),
    /// What is in flight; its version comes with the acknowledgement.
    Flight,
    /// What was in flight, with the version that it has in the hub's whole tree.
    Landed(Ver),
}

/// Of a content that somebody else replaced while this edit waited: no version.
pub(super) const NEVER: Ver = Ver::MAX;

#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    pub(super) bases: BTreeMap<Register, Base>,
    pub(super) drops: BTreeMap<NodeId, Base>,
    pub(super) born: BTreeSet<NodeId>,
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) batch: u64,
    pub(super) edits: Vec<Edit>,
    pub(super) dirty: Dirty,
}

/// A replica.
#[derive(Clone, Debug)]
pub struct ModelReplica {
    tag: ReplicaTag,
    pub(super) minted: u64,
    pub(super) batches: u64,
    pub(super) confirmed: ModelTree,
    pub(super) cursor: Seq,
    pub(super) local: ModelTree,
    pub(super) dirty: Dirty,
    pub(super) flight: Option<Flight>,
    /// The next cut is the whole tree of the hub, for this reason.
    pub(super) begins_anew: Option<Why>,
    pub(super) safe: ReplicaSafeguards,
}

impl ModelReplica {
    /// A replica of an empty tree.
    pub fn new(tag: ReplicaTag, safe: ReplicaSafeguards) -> Self {
        Self {
            tag,
            minted: 0,
            batches: 0,
            confirmed: ModelTree::new(),
            cursor: 0,
            local: ModelTree::new(),
            dirty: Dirty::default(),
            flight: None,
            begins_anew: None,
            safe,
        }
    }

    /// What its programs see.
    pub fn local(&self) -> &ModelTree {
        &self.local
    }

    /// Its tag.
    pub fn tag(&self) -> ReplicaTag {
        self.tag
    }

    /// What it knows of the hub.
    pub fn confirmed(&self) -> &ModelTree {
        &self.confirmed
    }

    /// The number of the batch that was not answered.
    pub fn in_flight(&self) -> Option<u64> {
        self.flight.as_ref().map(|flight| flight.batch)
    }

    /// What that batch says, as changes of the commit that it became.
    pub fn confirmed_as(&self, ver: Seq) -> Vec<Change> {
        let edits = self.flight.iter().flat_map(|flight| &flight.edits);
        let entries = edits.map(Edit::effect);
        entries.map(|entry| Change { ver, entry }).collect()
    }

    /// Whether everything was pushed and answered.
    pub fn is_clean(&self) -> bool {
        self.flight.is_none() && self.dirty.bases.is_empty() && self.dirty.drops.is_empty()
    }

    // What its programs do.

    /// Makes a node.
    ///
    /// # Errors
    ///
    /// [`EditError`] when the place is taken or in no directory.
    pub fn create(
        &mut self,
        place: &Place,
        kind: NodeKind,
        data: Option<Data>,
        meta: Meta,
    ) -> Result<NodeId, EditError> {
        self.free(place)?;
        self.minted += 1;
        let node = NodeId {
            replica: self.tag,
            counter: self.minted,
        };
        self.local.kinds.insert(node, kind);
        self.dirty.born.insert(node);
        self.set_name(place, Some(node));
        if let Some(data) = data {
            self.write(node, data)?;
        }
        self.local.metas.insert(node, (0, meta));
        let base = Base::Meta(0, MetaFields::ALL);
        self.dirty.bases.insert(Register::Meta(node), base);
        Ok(node)
    }

    /// Gives a node content.
    ///
    /// # Errors
    ///
    /// [`EditError`] when it is dead or of another kind.
    pub fn write(&mut self, node: NodeId, data: Data) -> Result<(), EditError> {
        let kind = self.local.kind(node).filter(|_| self.local.is_live(node));
        if !kind.is_some_and(|kind| data.fits(kind)) {
            return Err(EditError);
        }
        let base = self.data_base(node);
        let ver = self.local.data.get(&node).map_or(0, |(ver, _)| *ver);
        self.dirty.bases.entry(Register::Data(node)).or_insert(base);
        self.local.data.insert(node, (ver, data));
        Ok(())
    }

    /// Gives a node attributes.
    ///
    /// # Errors
    ///
    /// [`EditError`] when it is dead.
    pub fn set_meta(&mut self, node: NodeId, meta: Meta) -> Result<(), EditError> {
        let old = self.local.metas.get(&node).copied();
        let Some((ver, old)) = old.filter(|_| self.local.is_live(node)) else {
            return Err(EditError);
        };
        let new = MetaFields::between(&old, &meta);
        let register = Register::Meta(node);
        let base = self.dirty.bases.entry(register);
        match base.or_insert(Base::Meta(ver, MetaFields::NONE)) {
            Base::Meta(_, fields) => *fields = fields.with(new),
            other => *other = Base::Meta(ver, new),
        }
        self.local.metas.insert(node, (ver, meta));
        Ok(())
    }

    /// Gives a node an extended attribute, or takes it away.
    ///
    /// # Errors
    ///
    /// [`EditError`] when the node is dead, or does not have what is taken away.
    pub fn set_xattr(
        &mut self,
        node: NodeId,
        name: &XattrName,
        value: Option<Bytes>,
    ) -> Result<(), EditError> {
        let has = self.local.xattr_of(node, name).is_some();
        if !self.local.is_live(node) || (value.is_none() && !has) {
            return Err(EditError);
        }
        self.local.set_xattr(node, name, value);
        // Whatever was seen, the last one wins (R10).
        self.dirty.bases.insert(xattr(node, name), Base::Ver(0));
        Ok(())
    }

    /// Gives a node that is no directory another name.
    ///
    /// # Errors
    ///
    /// [`EditError`] when the place is taken, or the node is dead or a directory.
    pub fn link(&mut self, node: NodeId, place: &Place) -> Result<(), EditError> {
        self.free(place)?;
        if !self.local.is_live(node) || self.local.kind(node) == Some(NodeKind::Dir) {
            return Err(EditError);
        }
        self.set_name(place, Some(node));
        Ok(())
    }

    /// Removes a name. Returns the node if that was its last.
    ///
    /// # Errors
    ///
    /// [`EditError`] when there is none, or a directory that is not empty.
    pub fn unlink(&mut self, place: &Place) -> Result<Option<NodeId>, EditError> {
        let node = self.local.at(place).ok_or(EditError)?;
        if !self.local.is_empty(node) {
            return Err(EditError);
        }
        self.set_name(place, None);
        Ok(self.drop_if_last(node))
    }

    /// Moves what is at a place to another, in the place of what is there.
    /// Returns what ended by that.
    ///
    /// # Errors
    ///
    /// [`EditError`] when that cannot be.
    pub fn rename(&mut self, from: &Place, to: &Place) -> Result<Option<NodeId>, EditError> {
        let node = self.local.at(from).ok_or(EditError)?;
        let there = self.local.at(to);
        let is_dir = |node| self.local.kind(node) == Some(NodeKind::Dir);
        if self.local.kind(to.0) != Some(NodeKind::Dir) || !self.local.is_live(to.0) {
            return Err(EditError);
        }
        if there == Some(node) || (is_dir(node) && self.local.is_below(to.0, node)) {
            return Err(EditError);
        }
        if there.is_some_and(|there| is_dir(there) != is_dir(node) || !self.local.is_empty(there)) {
            return Err(EditError);
        }
        self.set_name(from, None);
        self.set_name(to, Some(node));
        Ok(there.and_then(|there| self.drop_if_last(there)))
    }

    /// Lets the nodes at two places change places.
    ///
    /// # Errors
    ///
    /// [`EditError`] when that cannot be.
    pub fn exchange(&mut self, a: &Place, b: &Place) -> Result<(), EditError> {
        let (x, y) = (self.local.at(a), self.local.at(b));
        let (x, y) = (x.ok_or(EditError)?, y.ok_or(EditError)?);
        if self.local.is_below(b.0, x) || self.local.is_below(a.0, y) || x == y {
            return Err(EditError);
        }
        self.set_name(a, None);
        self.set_name(b, Some(x));
        self.set_name(a, Some(y));
        Ok(())
    }

    fn free(&self, place: &Place) -> Result<(), EditError> {
        let in_dir = self.local.kind(place.0) == Some(NodeKind::Dir);
        let is_free = self.local.at(place).is_none() && self.local.is_live(place.0);
        (in_dir && is_free).then_some(()).ok_or(EditError)
    }

    fn set_name(&mut self, place: &Place, node: Option<NodeId>) {
        let was = self.local.at(place);
        let base = self.dirty.bases.entry(name(place));
        base.or_insert(Base::Name(was));
        self.local.set_name(place, node);
    }

    /// What who edits the content of a node now has seen.
    fn data_base(&self, node: NodeId) -> Base {
        let register = Register::Data(node);
        if let Some(base) = self.dirty.bases.get(&register) {
            return *base;
        }
        let flight = self.flight.as_ref();
        if flight.is_some_and(|flight| flight.dirty.bases.contains_key(&register)) {
            return Base::Flight;
        }
        Base::Ver(self.local.data.get(&node).map_or(0, |(ver, _)| *ver))
    }

    fn drop_if_last(&mut self, node: NodeId) -> Option<NodeId> {
        if self.local.is_live(node) {
            return None;
        }
        let base = self.data_base(node);
        forget_values(&mut self.dirty.bases, node);
        if !self.dirty.born.remove(&node) {
            self.dirty.drops.insert(node, base);
        }
        Some(node)
    }

    // What it does with the hub.

    /// The batch that is to be pushed now: the same until it is answered.
    pub fn push(&mut self) -> Option<(u64, &[Edit])> {
        if self.flight.is_none() {
            let edits = self.edits();
            let dirty = std::mem::take(&mut self.dirty);
            if edits.is_empty() {
                // What was edited is as it was; what came meanwhile shows now.
                self.rebase();
                return None;
            }
            self.batches += 1;
            let batch = self.batches;
            self.flight = Some(Flight {
                batch,
                edits,
                dirty,
            });
        }
        let flight = self.flight.as_ref();
        flight.map(|flight| (flight.batch, flight.edits.as_slice()))
    }

    fn edits(&self) -> Vec<Edit> {
        let born = self.dirty.born.iter().filter_map(|node| {
            let kind = self.local.kind(*node)?;
            Some(Edit::New { node: *node, kind })
        });
        let values = self.dirty.bases.iter();
        let values = values.filter_map(|(register, base)| self.edit(register, *base));
        let drops = self.dirty.drops.iter().map(|(node, base)| Edit::Drop {
            node: *node,
            data_base: self.ver(*base, *node),
        });
        born.chain(values).chain(drops).collect()
    }

    fn edit(&self, register: &Register, base: Base) -> Option<Edit> {
        match register {
            Register::Name { parent, name } => {
                let place = (*parent, name.clone());
                let seen = match base {
                    Base::Name(was) if self.safe.frozen_base => was,
                    _ => self.confirmed.at(&place),
                };
                let node = self.local.at(&place);
                (seen != node).then(|| Edit::Name {
                    parent: *parent,
                    name: name.clone(),
                    was: seen,
                    node,
                })
            }
            Register::Data(node) => Some(Edit::Data {
                node: *node,
                base: self.ver(base, *node),
                data: self.local.content(*node)?.clone(),
            }),
            Register::Meta(node) => {
                let meta = *self.local.attributes(*node)?;
                let Base::Meta(base, fields) = base else {
                    return None;
                };
                let node = *node;
                Some(Edit::Meta {
                    node,
                    base,
                    fields,
                    meta,
                })
            }
            Register::Xattr { node, name } => Some(Edit::Xattr {
                node: *node,
                name: name.clone(),
                base: 0,
                value: self.local.xattr_of(*node, name).cloned(),
            }),
        }
    }

    fn ver(&self, base: Base, node: NodeId) -> Ver {
        match base {
            Base::Ver(ver) if self.safe.frozen_base => ver,
            _ => self.confirmed.data.get(&node).map_or(0, |(ver, _)| *ver),
        }
    }

    /// The hub's commit that it knows.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Takes a cut at `head`, and the answer to the batch in flight if it has
    /// that commit. The first one after a reset is the whole tree.
    pub fn arrive(&mut self, head: Seq, changes: &[Change], ack: Option<&Ack>) {
        if let Some(why) = self.begins_anew.take() {
            return self.begin_anew(why, head, changes, ack);
        }
        match ack {
            Some(ack) => self.acknowledge(head, changes, ack),
            None => self.follow(head, changes),
        }
    }

    /// Takes what the hub has committed since, up to `head`.
    pub fn follow(&mut self, head: Seq, changes: &[Change]) {
        self.catch_up(head, changes);
        self.rebase();
    }

    /// Takes the answer to the batch in flight, and what the hub has committed
    /// since, up to `head`.
    pub fn acknowledge(&mut self, head: Seq, changes: &[Change], ack: &Ack) {
        self.catch_up(head, changes);
        let Some(flight) = self.flight.take_if(|flight| flight.batch == ack.batch) else {
            return;
        };
        let mut copied = BTreeMap::new();
        let mut aliased = false;
        for (edit, outcome) in &ack.outcomes {
            match (&flight.edits[*edit], outcome) {
                (Edit::Data { node, .. }, Outcome::Copied { copy, parent, name }) => {
                    copied.insert(*node, (*copy, (*parent, name.clone())));
                }
                (_, Outcome::Alias { from, to }) => {
                    self.confirmed.aliases.insert(*from, *to);
                    aliased = true;
                }
                _ => {}
            }
        }
        self.resolve_bases(ack.seq, &copied);
        for (node, (copy, place)) in copied {
            self.redirect(node, copy, &place, ack.seq);
        }
        if aliased {
            self.replay();
        } else {
            self.rebase();
        }
    }

    pub(super) fn catch_up(&mut self, head: Seq, changes: &[Change]) {
        for Change { ver, entry } in changes {
            self.confirmed.receive(*ver, entry);
        }
        self.cursor = head;
    }

    /// The version that an edit of something in flight was based on (R11): that
    /// of the acknowledged commit, or an older one that the commit left alone.
    fn resolve_bases(&mut self, seq: Seq, copied: &BTreeMap<NodeId, (NodeId, Place)>) {
        let confirmed = &self.confirmed;
        let newest = !self.safe.ack_base;
        let known = |node: &NodeId| {
            let ver = confirmed.data.get(node).map_or(0, |(ver, _)| *ver);
            Base::Ver(if newest { ver } else { ver.min(seq) })
        };
        for (register, base) in &mut self.dirty.bases {
            if let (Register::Data(node), Base::Flight) = (register, &base) {
                *base = known(node);
            }
        }
        for (node, base) in &mut self.dirty.drops {
            if *base == Base::Flight {
                // What was dropped is the copy; the other content was never seen.
                let unseen = copied.contains_key(node) && !newest;
                *base = if unseen {
                    Base::Ver(NEVER)
                } else {
                    known(node)
                };
            }
        }
    }

    /// Edits of a content that went to a copy are of the copy (R12).
    fn redirect(&mut self, node: NodeId, copy: NodeId, place: &Place, seq: Seq) {
        let queued = Register::Data(node);
        if !self.dirty.bases.contains_key(&queued) {
            return;
        }
        if self.dirty.bases.contains_key(&Register::Data(copy)) {
            // The copy came before the answer, and was edited, too: both stay.
            self.dirty.bases.insert(queued, Base::Ver(NEVER));
            return;
        }
        self.dirty.bases.remove(&queued);
        let base = Base::Ver(seq);
        self.dirty.bases.insert(Register::Data(copy), base);
        if let Some(kind) = self.confirmed.kind(copy) {
            self.local.kinds.insert(copy, kind);
        }
        if let Some(data) = self.local.data.get(&node).cloned() {
            self.local.data.insert(copy, data);
        }
        if let Some(meta) = self.confirmed.metas.get(&copy) {
            self.local.metas.insert(copy, *meta);
        }
        if let Some(data) = self.confirmed.data.get(&node).cloned() {
            self.local.data.insert(node, data);
        }
        if self.local.at(place).is_none() {
            self.local.set_name(place, Some(copy));
        }
    }

    /// Puts the edits over what the hub has, if that makes a tree (R14).
    pub(super) fn rebase(&mut self) {
        let mut tree = self.confirmed.clone();
        for (node, kind) in &self.local.kinds {
            tree.kinds.entry(*node).or_insert(*kind);
        }
        let flight = self.flight.iter().map(|flight| &flight.dirty);
        let all: Vec<&Dirty> = flight.chain([&self.dirty]).collect();
        for register in all.iter().flat_map(|dirty| dirty.bases.keys()) {
            match register {
                Register::Name { parent, name } => {
                    let place = (*parent, name.clone());
                    tree.set_name(&place, self.local.at(&place));
                }
                Register::Data(node) => {
                    let data = self.local.data.get(node).cloned();
                    tree.data.extend(data.map(|data| (*node, data)));
                }
                Register::Meta(node) => {
                    let meta = self.local.metas.get(node).copied();
                    tree.metas.extend(meta.map(|meta| (*node, meta)));
                }
                Register::Xattr { node, name } => {
                    let value = self.local.xattr_of(*node, name).cloned();
                    tree.set_xattr(*node, name, value);
                }
            }
        }
        let born = |node: &NodeId| all.iter().any(|dirty| dirty.born.contains(node));
        let holds = |register: &Register| match register {
            Register::Data(node) => !self.local.is_live(*node) || tree.is_live(*node),
            Register::Name { parent, name } => {
                let node = self.local.at(&(*parent, name.clone()));
                node.is_none_or(|node| born(&node) || self.confirmed.is_live(node))
            }
            _ => true,
        };
        let mut registers = all.iter().flat_map(|dirty| dirty.bases.keys());
        if registers.all(holds) && tree.check().is_ok() {
            self.local = tree;
        } else if self.flight.is_none() {
            self.replay();
        }
    }

    /// Resolves the edits that are left on the confirmed tree, and makes what
    /// comes of it the local tree.
    fn replay(&mut self) {
        let edits = self.edits();
        let minted = &mut self.minted;
        let replica = self.tag;
        let mut mint = || {
            *minted += 1;
            let counter = *minted;
            NodeId { replica, counter }
        };
        let Ok(resolution) = resolve(&self.confirmed, &edits, replica, &mut mint) else {
            debug_assert!(false, "a replica's own edits make sense");
            return;
        };
        self.local = self.confirmed.clone();
        self.local.commit(0, &resolution);
        self.dirty = self.difference();
    }

    /// The edits that lead from the confirmed tree to the local one.
    pub(super) fn difference(&self) -> Dirty {
        let (old, new) = (&self.confirmed, &self.local);
        let mut dirty = Dirty::default();
        let places = old.names.keys().chain(new.names.keys());
        for place in places.filter(|place| old.at(place) != new.at(place)) {
            let base = Base::Name(old.at(place));
            dirty.bases.insert(name(place), base);
        }
        for (node, _) in new.live() {
            // The hub may have forgotten what is dead, so that is made again.
            let was_live = old.is_live(node);
            if !was_live {
                dirty.born.insert(node);
            }
            let ver = old.data.get(&node).map_or(0, |(ver, _)| *ver);
            if old.content(node).filter(|_| was_live) != new.content(node) {
                let base = Base::Ver(ver);
                dirty.bases.insert(Register::Data(node), base);
            }
            let before = old.metas.get(&node);
            let fields = match (before.filter(|_| was_live), new.attributes(node)) {
                (Some((_, old)), Some(new)) => MetaFields::between(old, new),
                (None, Some(_)) => MetaFields::ALL,
                (_, None) => MetaFields::NONE,
            };
            if fields != MetaFields::NONE {
                let base = Base::Meta(before.map_or(0, |(ver, _)| *ver), fields);
                dirty.bases.insert(Register::Meta(node), base);
            }
            for (_, name) in old
                .xattrs_of(node)
                .chain(new.xattrs_of(node))
                .map(|(k, _)| k)
            {
                if !was_live || old.xattr_of(node, name) != new.xattr_of(node, name) {
                    dirty.bases.insert(xattr(node, name), Base::Ver(0));
                }
            }
        }
        for (node, _) in old.live().filter(|(node, _)| !new.is_live(*node)) {
            let ver = old.data.get(&node).map_or(0, |(ver, _)| *ver);
            dirty.drops.insert(node, Base::Ver(ver));
        }
        dirty
    }
}

/// What is edited of a node's values does not count, as the node is dropped.
pub(super) fn forget_values(bases: &mut BTreeMap<Register, Base>, node: NodeId) {
    bases.retain(|register, _| match register {
        Register::Data(of) | Register::Meta(of) | Register::Xattr { node: of, .. } => *of != node,
        Register::Name { .. } => true,
    });
}

fn xattr(node: NodeId, name: &XattrName) -> Register {
    let name = name.clone();
    Register::Xattr { node, name }
}

fn name(place: &Place) -> Register {
    Register::Name {
        parent: place.0,
        name: place.1.clone(),
    }
}
