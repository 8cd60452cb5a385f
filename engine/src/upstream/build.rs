//! From a plan to what is set in the working tree: which inodes, which nodes
//! are new here, and whether the result is a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use cairn_protocol::merge::Place;
use cairn_protocol::{Data, NodeId, NodeKind, Register, Ver};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

use super::grow::{At, Growth};
use super::layout::Chunks;
use super::plan::{Plan, Seen, reserve};
use super::replay::Replayed;
use super::spool::Spool;
use super::state::Base as Saw;
use super::turn::Planned;
use crate::assign::{Assignment, set_attributes};
use crate::attr::Ino;
use crate::db::{self, corrupt};
use crate::node::{Base, Body, DirKey, FileBody, Node, Sealed, Xattr};
use crate::refs::Ledger;
use crate::replica::{Inner, new_dir, new_node};
use crate::shared::{Record, Shared};
use crate::{FsError, Result};

/// A name that changes.
struct Change {
    parent: Ino,
    key: DirKey,
    old: Option<(Ino, Ver)>,
    new: Option<Ino>,
}

impl Change {
    /// The entries that it gives to its directory.
    fn gives(&self) -> i64 {
        i64::from(self.new.is_some()) - i64::from(self.old.is_some())
    }
}

/// What is to be done with nodes and names.
#[derive(Default)]
struct Shape {
    made: BTreeMap<NodeId, Ino>,
    made_ids: FxHashMap<u64, NodeId>,
    /// Nodes that lost their last name and are open still.
    revived: BTreeSet<NodeId>,
    changes: Vec<Change>,
    /// How many names each inode loses and gets.
    lost: FxHashMap<u64, u32>,
    got: FxHashMap<u64, u32>,
    /// Inodes that have no name left.
    ended: BTreeSet<u64>,
    /// Where directories come to be.
    put: FxHashMap<u64, Ino>,
    /// Inodes that have to be in memory.
    needed: BTreeSet<u64>,
}

/// What a plan comes to.
pub(super) struct Built {
    pub(super) new: Assignment,
    /// What became rows already.
    pub(super) growth: Option<Box<Growth>>,
}

/// What the plan comes to; `None` when it is no tree, or ends what was edited.
/// `changes` are those of the cut, and `ledger` counts what they name.
pub(super) fn build(
    plan: &mut Plan<'_>,
    seen: Ver,
    changes: &Spool,
    ledger: &mut Ledger,
) -> Result<Option<Built>> {
    let at = At {
        inner: plan.inner,
        db: plan.db,
        side: plan.side,
        changes,
        ignore: plan.ignore,
    };
    let mut growth = plan.grows.then(|| Box::new(Growth::new(plan.turning())));
    if let Some(growth) = &mut growth {
        growth.plan(BTreeSet::new(), BTreeMap::new(), &plan.local);
        growth.turn(at, ledger)?;
    }
    let mut targets = plan.name_targets()?;
    if plan.clash {
        return Ok(None);
    }
    plan.renew(&mut targets)?;
    let mut shape = Shape::default();
    shape.find_nodes(plan, &mut targets)?;
    if plan.keep_ignored(&mut targets)? && plan.grows {
        plan.has_leftover = true;
        return Ok(None);
    }
    if !shape.find_names(plan, &targets)? || !shape.is_tree(plan)? {
        return Ok(None);
    }
    shape.keep_removals(plan, &targets);
    let (mut new, counts) = assignment(plan, &mut shape, seen)?;
    if let Some(growth) = &mut growth {
        let set = plan.names.keys().chain(targets.keys()).cloned().collect();
        growth.plan(set, shape.made, &plan.local);
        let planned = Planned {
            counts: &counts,
            needed: &shape.needed,
        };
        if !growth.write(at, ledger, planned)? {
            return Ok(None);
        }
        new.gained = growth.gained.iter().map(|(i, g)| (Ino(*i), *g)).collect();
        new.rows = growth.rows;
    }
    shape.needed.extend(new.gained.iter().map(|(ino, _)| ino.0));
    shape.needed.retain(|ino| !shape.made_ids.contains_key(ino));
    load(plan, shape.needed, growth.as_deref_mut(), &mut new)?;
    Ok(Some(Built { new, growth }))
}

/// What is set in memory, and the entries that directories get by it.
fn assignment(
    plan: &mut Plan<'_>,
    shape: &mut Shape,
    seen: Ver,
) -> Result<(Assignment, FxHashMap<u64, i64>)> {
    // From now on they can be seen. Not before it is known that this is a tree:
    // the replay of edits has to know what their editors did not see.
    for id in shape.made.keys().chain(&shape.revived) {
        plan.frozen.remove(&Register::Data(*id));
    }
    let mut new = Assignment {
        seen,
        ..Assignment::default()
    };
    for (id, ino) in &shape.made {
        let replayed = plan.replayed.as_ref();
        let record = record_of(plan.shared, replayed, *id)?;
        let mut node = make(plan.inner, plan.db, *id, record)?;
        set_xattrs(&mut node, plan.shared, *id)?;
        plan.keep_attributes(*id, &mut node)?;
        new.made.push((*ino, node));
    }
    registers(plan, shape, &mut new)?;
    new.bound = plan.local.bound().collect();
    shape.needed.extend(new.bound.iter().map(|(ino, _)| ino.0));
    let mut counts: FxHashMap<u64, i64> = FxHashMap::default();
    for change in std::mem::take(&mut shape.changes) {
        *counts.entry(change.parent.0).or_default() += change.gives();
        let Change {
            parent,
            key,
            old,
            new: target,
        } = change;
        if !shape.made_ids.contains_key(&parent.0) {
            new.found.push((parent, key.clone(), old));
        }
        new.names.push((parent, key, target));
    }
    Ok((new, counts))
}

impl Shape {
    /// Finds the nodes that have to be made, and what is in them.
    fn find_nodes(
        &mut self,
        plan: &mut Plan<'_>,
        targets: &mut BTreeMap<Place, Option<NodeId>>,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut queue: Vec<NodeId> = targets.values().flatten().copied().collect();
        if plan.grows {
            // Where something that is known goes, and what somebody set, has to
            // be in memory.
            let dirs = targets.iter().filter(|(_, node)| node.is_some());
            let dirs: BTreeSet<NodeId> = dirs.map(|(place, _)| place.0).collect();
            let absent = plan.nodes.iter().filter(|(_, noted)| noted.here.is_none());
            let absent = absent.map(|(id, _)| *id).chain(dirs);
            for id in absent.collect::<Vec<_>>() {
                pull(plan, id, targets, &mut queue)?;
            }
        }
        while let Some(id) = queue.pop() {
            if !seen.insert(id) || plan.local.is_live(id)? {
                continue;
            }
            if plan.local.ino(id)?.is_some() {
                self.revived.insert(id);
            } else {
                let ino = reserve(plan.inner);
                self.made.insert(id, ino);
                self.made_ids.insert(ino.0, id);
            }
            let record = plan.shared.record(id)?;
            if plan.grows {
                pull(plan, id, targets, &mut queue)?;
            }
            let old = record.filter(|r| r.kind == NodeKind::Dir && r.born <= plan.before);
            if old.is_some() {
                for place in plan.note_children(id)? {
                    let target = plan.shared.name(&place)?.and_then(|(node, _)| node);
                    queue.extend(target);
                    targets.entry(place).or_insert(target);
                }
            }
        }
        Ok(())
    }

    /// What was removed here of a directory that was removed, too, and comes again,
    /// is still to be pushed. The log has it under an inode that is not the
    /// directory's any more.
    fn keep_removals(&self, plan: &mut Plan<'_>, targets: &BTreeMap<Place, Option<NodeId>>) {
        for (place, seen) in &plan.names {
            if let Seen::Edited(Some(was)) = seen
                && self.made.contains_key(&place.0)
                && !targets.contains_key(place)
            {
                let (parent, name) = place.clone();
                let register = Register::Name { parent, name };
                plan.frozen.insert(register, Saw::Name(Some(*was)));
            }
        }
    }

    fn ino(&self, plan: &Plan<'_>, id: NodeId) -> Result<Option<Ino>> {
        match self.made.get(&id) {
            Some(ino) => Ok(Some(*ino)),
            None => plan.local.ino(id),
        }
    }

    /// Finds the names that change. `false` when one would be nowhere.
    fn find_names(
        &mut self,
        plan: &Plan<'_>,
        targets: &BTreeMap<Place, Option<NodeId>>,
    ) -> Result<bool> {
        for (place, target) in targets {
            let new = match target {
                Some(id) => self.ino(plan, *id)?,
                None => None,
            };
            let Some(parent) = self.ino(plan, place.0)? else {
                if new.is_some() {
                    return Ok(false);
                }
                continue;
            };
            let key = plan.local.key(&place.1);
            let old = plan.local.name(parent, &key)?;
            if old.map(|(ino, _)| ino) == new {
                continue;
            }
            if let Some((old, _)) = old {
                *self.lost.entry(old.0).or_default() += 1;
                self.needed.insert(old.0);
            }
            if let Some(new) = new {
                *self.got.entry(new.0).or_default() += 1;
                self.needed.insert(new.0);
                if self.is_dir(plan, new)? {
                    self.put.insert(new.0, parent);
                }
            }
            self.needed.insert(parent.0);
            self.changes.push(Change {
                parent,
                key,
                old,
                new,
            });
        }
        let made = &self.made_ids;
        self.needed.retain(|ino| !made.contains_key(ino));
        Ok(true)
    }

    fn is_dir(&self, plan: &Plan<'_>, ino: Ino) -> Result<bool> {
        if let Some(id) = self.made_ids.get(&ino.0) {
            return Ok(kind_of(plan, *id)? == Some(NodeKind::Dir));
        }
        Ok(plan
            .local
            .node(ino)?
            .is_some_and(|here| here.kind == NodeKind::Dir))
    }

    /// Whether the result is a tree, and nothing ends that was edited.
    fn is_tree(&mut self, plan: &Plan<'_>) -> Result<bool> {
        let mut counts: FxHashMap<u64, i64> = FxHashMap::default();
        for change in &self.changes {
            *counts.entry(change.parent.0).or_default() += change.gives();
        }
        for (ino, lost) in &self.lost {
            let got = self.got.get(ino).copied().unwrap_or(0);
            let Some(here) = plan.local.node(Ino(*ino))? else {
                return Ok(false);
            };
            let is_dir = here.kind == NodeKind::Dir;
            let left = if is_dir { 1 } else { here.nlink } + got;
            if left > *lost {
                continue;
            }
            let entries = here.entries.cast_signed() + counts.get(ino).copied().unwrap_or(0);
            let mut hidden = false;
            for place in plan.shared.places_of(here.id)? {
                // A replay may take it from there: what was removed here turned out
                // to be another node, which is elsewhere here.
                let names = plan.replayed.as_ref().map(|replayed| &replayed.names);
                let taken = names.and_then(|names| names.get(&place));
                let is_there = taken.is_none_or(|node| *node == Some(here.id));
                hidden |= is_there && !plan.is_ignored(&place)?;
            }
            if hidden || entries != 0 || (plan.replayed.is_none() && plan.is_edited(here.id)) {
                return Ok(false);
            }
            self.ended.insert(*ino);
        }
        for change in self.changes.iter().filter(|change| change.new.is_some()) {
            let parent = change.parent.0;
            let made = self.made_ids.contains_key(&parent);
            let is_live = || plan.local.is_live(plan.local.id(change.parent)?);
            let placed = self.put.contains_key(&parent) || (!made && is_live()?);
            if self.ended.contains(&parent) || !placed {
                return Ok(false);
            }
        }
        let put: Vec<u64> = self.put.keys().copied().collect();
        for dir in put {
            let lost = self.lost.get(&dir).copied().unwrap_or(0);
            let had = u32::from(plan.local.parent(Ino(dir))?.is_some());
            let got = self.got.get(&dir).copied().unwrap_or(0);
            if had + got != lost + 1 || !self.is_rooted(plan, dir)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a directory that is put somewhere leads to the root from there.
    fn is_rooted(&mut self, plan: &Plan<'_>, dir: u64) -> Result<bool> {
        let mut at = Ino(dir);
        for _ in 0..=cairn_protocol::PATH_DEPTH_MAX {
            if at == Ino::ROOT {
                return Ok(true);
            }
            if !self.made_ids.contains_key(&at.0) {
                self.needed.insert(at.0);
            }
            let up = match self.put.get(&at.0) {
                Some(parent) => Some(*parent),
                None => plan.local.parent(at)?,
            };
            match up {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(false)
    }
}

/// Has a node that is fresh made in memory, where nobody looked at its places.
fn pull(
    plan: &Plan<'_>,
    id: NodeId,
    targets: &mut BTreeMap<Place, Option<NodeId>>,
    queue: &mut Vec<NodeId>,
) -> Result<()> {
    if !plan.was_fresh(id)? {
        return Ok(());
    }
    for place in plan.shared.places_of(id)? {
        let is_planned = plan.names.contains_key(&place) || targets.contains_key(&place);
        if !is_planned && !plan.is_ignored(&place)? {
            queue.extend([place.0, id]);
            targets.insert(place, Some(id));
        }
    }
    Ok(())
}

pub(super) fn kind_of(plan: &Plan<'_>, id: NodeId) -> Result<Option<NodeKind>> {
    kind_in(plan.shared, plan.replayed.as_ref(), id)
}

fn kind_in(
    shared: Shared<'_>,
    replayed: Option<&Replayed>,
    id: NodeId,
) -> Result<Option<NodeKind>> {
    match replayed.and_then(|all| all.kinds.get(&id)) {
        Some(kind) => Ok(Some(*kind)),
        None => Ok(shared.record(id)?.map(|record| record.kind)),
    }
}

/// What contents and attributes become others.
fn registers(plan: &Plan<'_>, shape: &Shape, new: &mut Assignment) -> Result<()> {
    for (id, noted) in &plan.nodes {
        let Some(here) = &noted.here else { continue };
        if shape.ended.contains(&here.ino.0) {
            continue;
        }
        if let Some(data) = plan.data_target(*id, noted)? {
            set_data(plan, here.ino, data, new)?;
        }
        if let Some(meta) = plan.meta_target(*id, noted)? {
            new.metas.push((here.ino, meta));
        }
        for (name, value) in plan.xattr_targets(*id, noted)? {
            new.xattrs.push((here.ino, name, value));
        }
    }
    for id in &shape.revived {
        let (Some(ino), Some(record)) = (plan.local.ino(*id)?, plan.shared.record(*id)?) else {
            continue;
        };
        if let Some((_, data)) = record.data {
            set_data(plan, ino, data, new)?;
        }
        new.metas.extend(record.meta.map(|(_, meta)| (ino, meta)));
    }
    Ok(())
}

fn set_data(plan: &Plan<'_>, ino: Ino, data: Data, new: &mut Assignment) -> Result<()> {
    match data {
        Data::Symlink { target } => new.targets.push((ino, target)),
        Data::File { .. } | Data::Inline { .. } => {
            new.contents.push((ino, base(plan.inner, plan.db, &data)?));
        }
        Data::Dir | Data::Special { .. } => {}
    }
    Ok(())
}

/// The content of a file, as its node holds it.
pub(super) fn base(inner: &Inner, db: &Connection, data: &Data) -> Result<Base> {
    Ok(match data {
        Data::Inline { bytes } if !bytes.is_empty() => Base::Inline(bytes.clone()),
        Data::File {
            size,
            chunker,
            manifest,
        } if *size > 0 => {
            let chunks = Chunks::of(inner, db, data)?;
            let allocated = chunks
                .extents
                .iter()
                .map(|(_, len, _)| u64::from(*len))
                .sum();
            Base::Sealed(Arc::new(Sealed {
                size: *size,
                chunker: *chunker,
                manifest: manifest.clone(),
                allocated,
                pack: OnceLock::new(),
                layout: OnceLock::new(),
            }))
        }
        _ => Base::Empty,
    })
}

/// What a node that is new here is like: as the hub has it, or as a replay left it.
fn record_of(shared: Shared<'_>, replayed: Option<&Replayed>, id: NodeId) -> Result<Record> {
    let record = shared.record(id)?;
    let kind = replayed.and_then(|all| all.kinds.get(&id).copied());
    let kind = kind.or(record.as_ref().map(|record| record.kind));
    let kind = kind.ok_or_else(|| unknown(id))?;
    let mut record = record.unwrap_or_else(|| Record::new(kind, 0));
    record.kind = kind;
    if let Some(data) = replayed.and_then(|all| all.data.get(&id)) {
        record.data = Some((0, data.clone()));
    }
    if let Some(meta) = replayed.and_then(|all| all.metas.get(&id)) {
        record.meta = Some((0, *meta));
    }
    Ok(record)
}

/// A tree names a node that it does not have.
pub(super) fn unknown(id: NodeId) -> FsError {
    corrupt(id, "nobody knows what it is")
}

/// A node that is new here, without its extended attributes.
pub(super) fn make(inner: &Inner, db: &Connection, id: NodeId, record: Record) -> Result<Node> {
    let kind = record.kind;
    let data = record.data.map(|(_, data)| data);
    let mut rdev = 0;
    let body = match (kind, data) {
        (NodeKind::Dir, _) => new_dir(Ino::ROOT),
        (NodeKind::File, data) => {
            let base = match data {
                Some(data) => base(inner, db, &data)?,
                None => Base::Empty,
            };
            Body::File(FileBody {
                size: base.size(),
                base,
                ..FileBody::default()
            })
        }
        (NodeKind::Symlink, Some(Data::Symlink { target })) => Body::Symlink(target),
        (NodeKind::Symlink, _) => return Err(corrupt(id, "a link without a target")),
        (_, data) => {
            if let Some(Data::Special { rdev: number }) = data {
                rdev = u32::try_from(number).unwrap_or(0);
            }
            Body::Special
        }
    };
    let perm = if kind == NodeKind::Dir { 0o755 } else { 0o644 };
    let mut node = new_node(kind, perm, 0, 0, rdev, body);
    node.id = Some(Box::new(id));
    if let Some((_, meta)) = record.meta {
        set_attributes(&mut node, &meta);
    }
    Ok(node)
}

/// Gives a node that is new here its extended attributes.
pub(super) fn set_xattrs(node: &mut Node, shared: Shared<'_>, id: NodeId) -> Result<()> {
    let mut xattrs = BTreeMap::new();
    for (name, value, _) in shared.attributes(id)? {
        if value.is_some() {
            let xattr = Xattr {
                value,
                ver: 0,
                dirty: true,
            };
            xattrs.insert(name, xattr);
        }
    }
    node.xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
    Ok(())
}

/// Reads what has to be in memory and is not.
fn load(
    plan: &Plan<'_>,
    mut needed: BTreeSet<u64>,
    growth: Option<&mut Growth>,
    new: &mut Assignment,
) -> Result<()> {
    needed.extend(new.contents.iter().map(|(ino, _)| ino.0));
    needed.extend(new.targets.iter().map(|(ino, _)| ino.0));
    needed.extend(new.metas.iter().map(|(ino, _)| ino.0));
    needed.extend(new.xattrs.iter().map(|(ino, _, _)| ino.0));
    if let Some(turning) = growth.and_then(|growth| growth.turning.as_mut()) {
        let turned = |ino: &&u64| turning.turned.nodes.contains_key(ino);
        let stay = needed.iter().filter(turned).copied().collect();
        turning.turned.needed = stay;
    }
    {
        let tree = plan.inner.tree.lock();
        needed.retain(|ino| tree.nodes.get(ino).is_none());
    }
    for ino in needed {
        if let Some(node) = db::load_node(plan.db, Ino(ino))? {
            new.loaded.push((Ino(ino), node));
        }
    }
    Ok(())
}
