//! Where the nodes of a batch go, and which stay or live again (R2 to R9).
//!
//! First all removals that find what their author saw, then all additions. Then
//! what that broke is mended, again and again until nothing is broken: a node
//! that must not end is put back, a directory that something is in lives, and a
//! move that would close a circle is undone. Each of these happens at most once
//! to a node, so this ends.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{Batch, BatchError, NameEdit};
use super::names::Names;
use super::{NodeInfo, Place, ResolveError, Safeguards, TreeView, refused};
use crate::id::NodeId;
use crate::outcome::{Outcome, Refusal};
use crate::register::NodeKind;

/// What became of the nodes of a batch.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// New nodes that came to be.
    pub(super) born: BTreeMap<NodeId, NodeKind>,
    /// New nodes that another stands for.
    pub(super) aliases: BTreeMap<NodeId, NodeId>,
    /// New nodes that could not be put anywhere.
    pub(super) lost: BTreeSet<NodeId>,
    /// Nodes that end, and where they were last.
    pub(super) deaths: Vec<(NodeId, Place)>,
}

type Outcomes = Vec<(usize, Outcome)>;
type Result<R, T> = std::result::Result<R, ResolveError<<T as TreeView>::Error>>;

struct Placer<'a, 'b, T> {
    safe: Safeguards,
    batch: &'a Batch,
    names: &'b mut Names<'a, T>,
    outcomes: &'b mut Outcomes,
    /// The nodes that the batch means to take from somewhere.
    leaving: BTreeSet<NodeId>,
    /// The places that the batch took nodes from, and by which edits.
    removed: BTreeMap<NodeId, Vec<(usize, Place)>>,
    /// Directories that were there before and that the batch put elsewhere.
    moved: BTreeMap<NodeId, usize>,
    /// The edit for whose sake a node is where it is.
    cause: BTreeMap<NodeId, usize>,
    aliases: BTreeMap<NodeId, NodeId>,
    lost: BTreeSet<NodeId>,
}

pub(super) fn place<'a, T: TreeView>(
    safe: Safeguards,
    batch: &'a Batch,
    names: &mut Names<'a, T>,
    outcomes: &mut Outcomes,
) -> Result<Placed, T> {
    let mut placer = Placer {
        safe,
        batch,
        names,
        outcomes,
        leaving: batch.names.iter().filter_map(NameEdit::removes).collect(),
        removed: BTreeMap::new(),
        moved: BTreeMap::new(),
        cause: BTreeMap::new(),
        aliases: BTreeMap::new(),
        lost: BTreeSet::new(),
    };
    placer.remove()?;
    placer.add()?;
    placer.revive_written()?;
    while placer.keep()? | placer.reach()? | placer.open_circles()? {}
    placer.finish()
}

impl<'a, T: TreeView> Placer<'a, '_, T> {
    fn say(&mut self, edit: usize, outcome: Outcome) {
        self.outcomes.push((edit, outcome));
    }

    fn node(&self, node: NodeId) -> Result<Option<NodeInfo>, T> {
        self.names.tree.node(node).map_err(ResolveError::Tree)
    }

    fn alias(&self, node: NodeId) -> NodeId {
        self.aliases.get(&node).copied().unwrap_or(node)
    }

    fn is_born(&self, node: NodeId) -> bool {
        self.batch.births.contains_key(&node)
    }

    /// Takes nodes from where their remover saw them. One that is no longer
    /// there has been taken already.
    fn remove(&mut self) -> Result<(), T> {
        for edit in &self.batch.names {
            let Some(node) = edit.removes() else { continue };
            if self.names.at(&edit.place)? == Some(node) {
                self.names.set(&edit.place, None)?;
                let places = self.removed.entry(node).or_default();
                places.push((edit.edit, edit.place.clone()));
            }
        }
        Ok(())
    }

    /// Puts nodes where the batch says, new directories before what is in them.
    fn add(&mut self) -> Result<(), T> {
        let mut left: Vec<&'a NameEdit> = self.batch.names.iter().collect();
        left.retain(|edit| edit.adds().is_some());
        while !left.is_empty() {
            let before = left.len();
            let mut later = Vec::new();
            for edit in left {
                let parent = self.alias(edit.place.0);
                let waits = self.is_born(parent) && !self.lost.contains(&parent);
                if waits && !self.names.has_place(parent)? {
                    later.push(edit);
                } else {
                    self.put(edit)?;
                }
            }
            if later.len() == before {
                let parent = later[0].place.0;
                return Err(ResolveError::Batch(BatchError::Unplaced(parent)));
            }
            left = later;
        }
        Ok(())
    }

    fn put(&mut self, edit: &NameEdit) -> Result<(), T> {
        let Some(node) = edit.adds() else {
            return Ok(());
        };
        let place = (self.alias(edit.place.0), edit.place.1.clone());
        if self.names.at(&place)? == Some(node) {
            return Ok(());
        }
        if let Some(why) = self.obstacle(node, place.0)? {
            self.say(edit.edit, refused(why));
            let nowhere = !self.names.has_place(node)? && !self.aliases.contains_key(&node);
            if self.is_born(node) && nowhere {
                self.lost.insert(node);
            }
            return Ok(());
        }
        if let Some(there) = self.aliases.get(&node).copied() {
            return self.put_alias((node, there), &place, edit.edit);
        }
        if !self.is_born(node) {
            if !self.names.has_place(node)? && !self.removed.contains_key(&node) {
                self.say(edit.edit, Outcome::Revived { node });
            }
            if self.batch.kind(self.names.tree, node)? == Some(NodeKind::Dir) {
                self.moved.insert(node, edit.edit);
            }
        }
        if let Some(there) = self.names.at(&place)?
            && self.is_same(node, there)?
        {
            return self.become_alias(node, there, edit.edit);
        }
        self.settle(node, &place, edit.edit)?;
        Ok(())
    }

    /// A new node is one that is there, and so it is at the names that it got before.
    fn become_alias(&mut self, from: NodeId, to: NodeId, edit: usize) -> Result<(), T> {
        self.aliases.insert(from, to);
        self.lost.remove(&from);
        self.say(edit, Outcome::Alias { from, to });
        let others: Vec<Place> = self.names.places(from)?.iter().cloned().collect();
        for other in others {
            self.names.set(&other, Some(to))?;
            self.cause.insert(to, edit);
        }
        Ok(())
    }

    /// Another name of a new node that is one that was there. Where the same content
    /// is already, nothing is missing.
    fn put_alias(
        &mut self,
        (node, there): (NodeId, NodeId),
        place: &Place,
        edit: usize,
    ) -> Result<(), T> {
        let taken = self.names.at(place)?;
        let is_there = match taken {
            Some(taken) => taken == there || self.is_same(node, taken)?,
            None => false,
        };
        if !is_there {
            self.settle(there, place, edit)?;
        }
        Ok(())
    }

    /// Why a node cannot be put into a directory (R6).
    fn obstacle(&mut self, node: NodeId, parent: NodeId) -> Result<Option<Refusal>, T> {
        let tree = self.names.tree;
        let known = self.batch.kind(tree, parent)?.is_some() && !self.lost.contains(&parent);
        let Some(kind) = self.batch.kind(tree, node)?.filter(|_| known) else {
            return Ok(Some(Refusal::Unknown));
        };
        if self.is_born(node) || !self.names.has_place(node)? {
            return Ok(None);
        }
        let raced = self.leaving.contains(&node) && !self.removed.contains_key(&node);
        Ok((raced || kind == NodeKind::Dir).then_some(Refusal::Moved))
    }

    /// Whether a new node is the same as one that is there (R4).
    fn is_same(&self, node: NodeId, there: NodeId) -> Result<bool, T> {
        let tree = self.names.tree;
        let kind = self.batch.kind(tree, there)?;
        let new = self.batch.births.get(&node).copied();
        if new.is_none() || kind != new || self.is_born(there) {
            return Ok(false);
        }
        if kind == Some(NodeKind::Dir) {
            return Ok(true);
        }
        let mine = self.batch.data.get(&node).map(|edit| &edit.data);
        let theirs = tree.data(there).map_err(ResolveError::Tree)?;
        let theirs = theirs.map(|(_, data)| data);
        Ok(mine == theirs.as_ref() && !self.batch.data.contains_key(&there))
    }

    /// Puts a node at a place, or beside it if that is taken (R4, R8). Returns
    /// whether it got the place.
    fn settle(&mut self, node: NodeId, place: &Place, edit: usize) -> Result<bool, T> {
        self.cause.insert(node, edit);
        if self.names.at(place)?.is_none() {
            self.names.set(place, Some(node))?;
            return Ok(true);
        }
        let free = self.names.free(place)?;
        self.names.set(&free, Some(node))?;
        let (parent, name) = free;
        self.say(edit, Outcome::Renamed { node, parent, name });
        Ok(false)
    }

    /// Who wrote to a dead node did not know (R2).
    fn revive_written(&mut self) -> Result<(), T> {
        let batch = self.batch;
        for (node, data) in &batch.data {
            let known = self.is_born(*node) || self.removed.contains_key(node);
            if !known && !self.names.has_place(*node)? {
                self.revive(*node, data.edit)?;
            }
        }
        Ok(())
    }

    /// Puts a dead node back to where it was last.
    fn revive(&mut self, node: NodeId, edit: usize) -> Result<bool, T> {
        let Some(NodeInfo {
            last: Some(last), ..
        }) = self.node(node)?
        else {
            return Ok(false);
        };
        let known = self.batch.kind(self.names.tree, last.0)?.is_some();
        // A replica may have been told of a node, and not of what it was in.
        let parent = if known { last.0 } else { NodeId::ROOT };
        self.say(edit, Outcome::Revived { node });
        self.settle(node, &(parent, last.1), edit)?;
        Ok(true)
    }

    /// Puts back what the batch removed, but what must not end (R3, R5).
    fn keep(&mut self) -> Result<bool, T> {
        let mut changed = false;
        let removed: Vec<NodeId> = self.removed.keys().copied().collect();
        for node in removed {
            if !self.names.has_place(node)? && !self.may_end(node)? {
                self.put_back(node)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn may_end(&self, node: NodeId) -> Result<bool, T> {
        let tree = self.names.tree;
        if self.batch.kind(tree, node)? == Some(NodeKind::Dir) {
            let meant = self.batch.drops.contains_key(&node) || !self.safe.was_last;
            return Ok(meant && !self.names.has_child(node)?);
        }
        let Some(seen) = self.batch.drops.get(&node) else {
            return Ok(!self.safe.was_last);
        };
        let now = tree.data(node).map_err(ResolveError::Tree)?;
        let unseen = now.map_or(0, |(ver, _)| ver) != *seen;
        Ok(!(unseen && self.safe.data_base || self.batch.data.contains_key(&node)))
    }

    /// Puts a node back to where the batch took it from.
    fn put_back(&mut self, node: NodeId) -> Result<(), T> {
        let Some((edit, place)) = self.removed.get(&node).and_then(|p| p.first()).cloned() else {
            return Ok(());
        };
        if self.settle(node, &place, edit)? {
            self.say(edit, Outcome::Kept { node });
        }
        Ok(())
    }

    /// Brings the directories to life that something is in now (R9).
    fn reach(&mut self) -> Result<bool, T> {
        let mut changed = false;
        let placed: Vec<(NodeId, usize)> = self.cause.iter().map(|(n, e)| (*n, *e)).collect();
        for (node, edit) in placed {
            let parents: Vec<NodeId> = self.names.places(node)?.iter().map(|p| p.0).collect();
            for parent in parents {
                changed |= self.ensure_living(parent, edit)?;
            }
        }
        Ok(changed)
    }

    /// Makes a directory and those above it live.
    fn ensure_living(&mut self, mut dir: NodeId, edit: usize) -> Result<bool, T> {
        let mut changed = false;
        let mut seen = BTreeSet::new();
        while dir != NodeId::ROOT && seen.insert(dir) {
            if !self.names.has_place(dir)? {
                changed = true;
                if self.removed.contains_key(&dir) {
                    self.put_back(dir)?;
                } else if !self.revive(dir, edit)? {
                    self.put_below_root(dir, edit)?;
                }
            }
            let Some(parent) = self.names.parent(dir)? else {
                break;
            };
            dir = parent;
        }
        Ok(changed)
    }

    /// The last resort: a directory of which no place is known, or whose place
    /// is inside of itself.
    fn put_below_root(&mut self, dir: NodeId, edit: usize) -> Result<(), T> {
        let places: Vec<Place> = self.names.places(dir)?.iter().cloned().collect();
        let name = match places.first() {
            Some((_, name)) => name.clone(),
            None => crate::name::Name::lost(),
        };
        for place in places {
            self.names.set(&place, None)?;
        }
        self.settle(dir, &(NodeId::ROOT, name), edit)?;
        Ok(())
    }

    /// Undoes moves of directories into themselves (R7).
    fn open_circles(&mut self) -> Result<bool, T> {
        let mut changed = false;
        let moved: Vec<(NodeId, usize)> = self.moved.iter().map(|(n, e)| (*n, *e)).collect();
        for (dir, edit) in moved {
            if self.safe.cycle && self.is_in_itself(dir)? {
                self.moved.remove(&dir);
                self.undo(dir, edit)?;
                changed = true;
            }
        }
        if changed || !self.safe.cycle {
            return Ok(changed);
        }
        let placed: Vec<(NodeId, usize)> = self.cause.iter().map(|(n, e)| (*n, *e)).collect();
        for (dir, edit) in placed {
            if self.is_in_itself(dir)? {
                self.put_below_root(dir, edit)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn undo(&mut self, dir: NodeId, edit: usize) -> Result<(), T> {
        let places: Vec<Place> = self.names.places(dir)?.iter().cloned().collect();
        for place in places {
            self.names.set(&place, None)?;
        }
        self.say(edit, refused(Refusal::Cycle));
        let before = self.removed.get(&dir).and_then(|p| p.first()).cloned();
        match before {
            Some((_, place)) => self.settle(dir, &place, edit).map(drop),
            None => self.put_below_root(dir, edit),
        }
    }

    fn is_in_itself(&mut self, dir: NodeId) -> Result<bool, T> {
        let mut seen = BTreeSet::new();
        let mut above = self.names.parent(dir)?;
        while let Some(next) = above {
            if next == dir {
                return Ok(true);
            }
            if next == NodeId::ROOT || !seen.insert(next) {
                return Ok(false);
            }
            above = self.names.parent(next)?;
        }
        Ok(false)
    }

    fn finish(mut self) -> Result<Placed, T> {
        let mut placed = Placed::default();
        for (node, kind) in &self.batch.births {
            if self.names.has_place(*node)? {
                placed.born.insert(*node, *kind);
            } else if !self.aliases.contains_key(node) && !self.lost.contains(node) {
                return Err(ResolveError::Batch(BatchError::Unplaced(*node)));
            }
        }
        for (node, places) in &self.removed {
            if !self.names.has_place(*node)? {
                let last = places.first().map(|(_, place)| place.clone());
                placed.deaths.extend(last.map(|last| (*node, last)));
            }
        }
        placed.aliases = std::mem::take(&mut self.aliases);
        placed.lost = self.lost;
        Ok(placed)
    }
}
