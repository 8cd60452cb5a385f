//! What a large cut adds that nobody here has heard of: new nodes and their
//! names become rows at once, a page of the transfer at a time, so that a clone
//! of any tree has a bound in memory. Only where they are attached, which is
//! known here, is set in memory with the rest of the cut.
//!
//! A node is *fresh* if neither the working tree nor the confirmed tree had it.
//! Nobody can have edited it, so a fresh name (of a fresh node, in a fresh
//! directory or where nothing is) needs no plan. What the plan has to do with
//! all the same, because something that is known moves there or a replay set it,
//! is made in memory, and is left alone here.
//!
//! The rows are written before the working tree is set, in one transaction with
//! everything else; [`crate::shift`] keeps anybody from seeing half of it. If
//! the transaction fails after that, the next commit writes them again.

use std::collections::{BTreeMap, BTreeSet};

use cairn_protocol::merge::Place;
use cairn_protocol::{CommitHasher, Entry, Name, NodeId, NodeKind, PATH_DEPTH_MAX, ReplicaTag};
use rusqlite::{Connection, params};
use rustc_hash::FxHashMap;

use super::build::make;
use super::local::Local;
use super::spool::Spool;
use super::state::Told;
use crate::Result;
use crate::attr::Ino;
use crate::db::{corrupt, int};
use crate::gained::Gained;
use crate::node::{Body, FileBody};
use crate::refs::Ledger;
use crate::replica::Inner;
use crate::rows::{NameRow, NodeRow, RowWriter};
use crate::shared::Shared;

/// A cut of fewer changes is set in memory alone: that costs about 3 KiB a file
/// and needs no shift. Few where things are tested, so that simulations take
/// both ways.
pub(super) const LEAST: u64 = if cfg!(debug_assertions) { 12 } else { 4_096 };
/// Inodes and versions are taken from the tree so many at a time.
const BLOCK: u64 = 1_024;
/// Directories whose inodes and entries are remembered: about 4 MiB.
const DIRS_MAX: usize = if cfg!(debug_assertions) { 4 } else { 32_768 };
/// Chunks whose references are counted before they are written.
const REFS_MAX: usize = if cfg!(debug_assertions) { 8 } else { 16_384 };

/// What was grown, and what is needed to do it again.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Places that are set in memory.
    set: BTreeSet<Place>,
    /// Nodes that are made in memory.
    made: BTreeMap<NodeId, Ino>,
    /// The inodes that are bound to other ids.
    inodes: FxHashMap<NodeId, Option<Ino>>,
    /// What nodes in memory gained.
    pub(super) gained: BTreeMap<u64, Gained>,
    /// How many nodes were made.
    pub(super) rows: u64,
    /// The versions that the rows have, but for those before programs took some
    /// between them, which are few.
    pub(super) told: Option<Told>,
    /// Names in directories that were here.
    pub(super) names: Vec<(Ino, Name)>,
}

impl Growth {
    pub(super) fn new(
        set: BTreeSet<Place>,
        made: BTreeMap<NodeId, Ino>,
        local: &Local<'_>,
    ) -> Self {
        Self {
            set,
            made,
            inodes: local.overrides().clone(),
            ..Self::default()
        }
    }

    /// The directories in memory that have names in rows.
    pub(super) fn dirs(&self) -> impl Iterator<Item = Ino> {
        let gained = self.gained.iter().filter(|(_, gained)| gained.entries > 0);
        gained.map(|(ino, _)| Ino(*ino))
    }

    /// Writes the rows. The confirmed tree is set.
    pub(super) fn write(
        &mut self,
        inner: &Inner,
        db: &Connection,
        side: u8,
        changes: &Spool,
        ledger: &mut Ledger,
    ) -> Result<CommitHasher> {
        self.run(inner, db, side, changes, ledger, None)
    }

    fn run(
        &mut self,
        inner: &Inner,
        db: &Connection,
        side: u8,
        changes: &Spool,
        ledger: &mut Ledger,
        taken: Option<&mut Vec<Place>>,
    ) -> Result<CommitHasher> {
        let mut local = Local::new(inner, db);
        local.set_overrides(self.inodes.clone());
        let mut writer = RowWriter::new(db, ReplicaTag(inner.identity.tag))?;
        writer.ledger = std::mem::take(ledger);
        let mut grower = Grower {
            inner,
            db,
            shared: Shared::new(db, side),
            local,
            taken,
            writer,
            has_xattrs: Shared::new(db, side).has_attributes()?,
            growth: self,
            first: inner.tree.lock().next_ino,
            inos: 0..0,
            vers: 0..0,
            dirs: FxHashMap::default(),
            counts: FxHashMap::default(),
            loose: BTreeMap::new(),
        };
        for page in changes.pages() {
            for change in &*page? {
                if let Entry::Name { parent, name, node } = &change.entry
                    && let Some(node) = node
                {
                    grower.name(&(*parent, name.clone()), *node)?;
                }
            }
            grower.writer.ledger.flush(inner, db, REFS_MAX)?;
        }
        let writer = grower.end()?;
        *ledger = writer.ledger;
        Ok(writer.hasher)
    }

    /// Writes the rows again, after a transaction that failed. Also gives the
    /// places that programs have taken since, where they saw nothing.
    pub(super) fn again(
        &mut self,
        inner: &Inner,
        db: &Connection,
        side: u8,
        changes: &Spool,
        ledger: &mut Ledger,
    ) -> Result<(CommitHasher, Vec<Place>)> {
        let mut taken = Vec::new();
        // What was gained is in memory already.
        let gained = std::mem::take(&mut self.gained);
        let hasher = self.run(inner, db, side, changes, ledger, Some(&mut taken));
        self.gained = gained;
        Ok((hasher?, taken))
    }
}

/// Where a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// It is in memory, or will be.
    Memory,
    /// It is a row that was written just now.
    Row,
}

struct Grower<'a> {
    inner: &'a Inner,
    db: &'a Connection,
    shared: Shared<'a>,
    local: Local<'a>,
    /// When this is not the first time: places that programs have taken since.
    taken: Option<&'a mut Vec<Place>>,
    writer: RowWriter<'a>,
    /// Something in the confirmed tree has extended attributes.
    has_xattrs: bool,
    growth: &'a mut Growth,
    /// Inodes from here on are rows of this transaction.
    first: u64,
    inos: std::ops::Range<u64>,
    vers: std::ops::Range<u64>,
    /// Directories, as far as they are remembered.
    dirs: FxHashMap<NodeId, (Ino, At)>,
    /// Entries of directories that are rows, and directories among them, that
    /// were not written yet.
    counts: FxHashMap<u64, (u64, u32)>,
    /// Directories that came before the one that they are in, with that.
    loose: BTreeMap<u64, Option<u64>>,
}

impl<'a> Grower<'a> {
    /// Makes a name, and its node and directory where they are not here.
    fn name(&mut self, place: &Place, id: NodeId) -> Result<()> {
        if self.growth.set.contains(place)
            || self.shared.name(place)?.is_none_or(|n| n.0 != Some(id))
        {
            return Ok(());
        }
        let (parent, in_parent) = self.dir(place.0)?;
        let key = self.local.key(&place.1);
        // A transfer may tell a name twice, and then its node is here.
        let found = self.find(id)?;
        if (found.is_some() || in_parent == At::Memory) && self.local.name(parent, &key)?.is_some()
        {
            return Ok(());
        }
        if let Some(taken) = &mut self.taken
            && in_parent == At::Memory
            && let dirty = (parent.0, key.clone())
            && self.inner.tree.lock().dirty_names.contains(&dirty)
        {
            taken.push(place.clone());
            return Ok(());
        }
        let (ino, kind) = self.target(id, found, parent)?;
        let is_dir = kind == NodeKind::Dir;
        if in_parent == At::Memory {
            let gained = self.growth.gained.entry(parent.0).or_default();
            gained.entries += 1;
            gained.dirs += u32::from(is_dir);
            if !self.growth.made.contains_key(&place.0) && !self.inner.observers.read().is_empty() {
                self.growth.names.push((parent, place.1.clone()));
            }
        } else {
            let (entries, dirs) = self.counts.entry(parent.0).or_default();
            *entries += 1;
            *dirs += u32::from(is_dir);
            if self.counts.len() > DIRS_MAX {
                self.write_counts()?;
            }
        }
        let ver = self.next_ver();
        self.writer.name(&NameRow {
            parent,
            key,
            target: Some(ino),
            ver,
            ids: (place.0, Some(id)),
        })
    }

    /// The directory of a name.
    fn dir(&mut self, id: NodeId) -> Result<(Ino, At)> {
        if let Some(found) = self.dirs.get(&id) {
            return Ok(*found);
        }
        let found = if let Some(found) = self.find(id)? {
            found
        } else {
            let ino = self.make(id, Ino::ROOT)?.0;
            self.loose.insert(ino.0, None);
            (ino, At::Row)
        };
        self.remember(id, found);
        Ok(found)
    }

    fn remember(&mut self, id: NodeId, found: (Ino, At)) {
        if self.dirs.len() >= DIRS_MAX {
            self.dirs.clear();
        }
        self.dirs.insert(id, found);
    }

    fn find(&self, id: NodeId) -> Result<Option<(Ino, At)>> {
        if let Some(ino) = self.growth.made.get(&id) {
            return Ok(Some((*ino, At::Memory)));
        }
        let ino = self.local.ino(id)?;
        let at = |ino: Ino| {
            if ino.0 < self.first {
                At::Memory
            } else {
                At::Row
            }
        };
        Ok(ino.map(|ino| (ino, at(ino))))
    }

    /// The node of a name that comes, in a directory.
    fn target(
        &mut self,
        id: NodeId,
        found: Option<(Ino, At)>,
        parent: Ino,
    ) -> Result<(Ino, NodeKind)> {
        let Some((ino, at)) = found else {
            let (ino, kind) = self.make(id, parent)?;
            if kind == NodeKind::Dir {
                self.remember(id, (ino, At::Row));
                if self.loose.contains_key(&parent.0) {
                    self.loose.insert(ino.0, Some(parent.0));
                }
            }
            return Ok((ino, kind));
        };
        let kind = self.shared.record(id)?.map(|record| record.kind);
        let kind = kind.ok_or_else(|| corrupt(id, "nobody knows what it is"))?;
        if kind == NodeKind::Dir {
            match self.loose.get_mut(&ino.0) {
                Some(place @ None) => *place = Some(parent.0),
                _ => return Err(corrupt(id, "the hub has a directory with two names")),
            }
            let set = "UPDATE node SET parent = ? WHERE ino = ?";
            let mut set = self.db.prepare_cached(set)?;
            set.execute(params![int(parent.0), int(ino.0)])?;
        } else if at == At::Memory {
            self.growth.gained.entry(ino.0).or_default().links += 1;
        } else {
            let set = "UPDATE node SET nlink = nlink + 1 WHERE ino = ?";
            self.db.prepare_cached(set)?.execute([int(ino.0)])?;
        }
        Ok((ino, kind))
    }

    /// Makes a node as the confirmed tree has it, a directory without entries.
    fn make(&mut self, id: NodeId, parent: Ino) -> Result<(Ino, NodeKind)> {
        let (inner, has_xattrs) = (self.inner, self.has_xattrs);
        let mut node = make(inner, self.db, self.shared, None, id, has_xattrs)?;
        let ino = self.next_ino();
        let ver = self.next_ver();
        (node.born, node.meta_ver, node.data_ver) = (ver, ver, ver);
        for xattr in node.xattrs.iter_mut().flat_map(|all| all.values_mut()) {
            xattr.ver = ver;
        }
        match &mut node.body {
            Body::File(FileBody { base_dirty, .. }) => *base_dirty = true,
            Body::Dir(dir) => dir.parent = parent.0,
            Body::Symlink(_) | Body::Special => {}
        }
        let kind = node.kind;
        self.writer
            .node(self.inner, &NodeRow::take(ino, &mut node))?;
        self.growth.rows += 1;
        Ok((ino, kind))
    }

    fn next_ino(&mut self) -> Ino {
        if self.inos.is_empty() {
            let mut tree = self.inner.tree.lock();
            self.inos = tree.next_ino..tree.next_ino + BLOCK;
            tree.next_ino += BLOCK;
        }
        Ino(self.inos.next().unwrap_or_default())
    }

    fn next_ver(&mut self) -> u64 {
        if self.vers.is_empty() {
            let mut tree = self.inner.tree.lock();
            let (after, upto) = (tree.seq, tree.seq + BLOCK);
            self.vers = after + 1..upto + 1;
            tree.seq = upto;
            let told = self.growth.told.filter(|told| told.upto == after);
            let after = told.map_or(after, |told| told.after);
            self.growth.told = Some(Told { after, upto });
        }
        self.vers.next().unwrap_or_default()
    }

    fn write_counts(&mut self) -> Result<()> {
        let set = "UPDATE node SET entries = entries + ?, nlink = nlink + ? WHERE ino = ?";
        let mut set = self.db.prepare_cached(set)?;
        for (ino, (entries, dirs)) in self.counts.drain() {
            set.execute(params![int(entries), dirs, int(ino)])?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<RowWriter<'a>> {
        self.write_counts()?;
        self.check_loose()?;
        Ok(self.writer)
    }

    /// Directories that came before those that they are in lead to one that was
    /// known when it came.
    fn check_loose(&self) -> Result<()> {
        for ino in self.loose.keys() {
            let mut at = *ino;
            let mut steps = 0;
            while let Some(parent) = self.loose.get(&at) {
                at = parent.ok_or_else(|| corrupt(Ino(at), "the hub has it nowhere"))?;
                steps += 1;
                if steps > PATH_DEPTH_MAX {
                    return Err(corrupt(Ino(at), "the hub has it in itself"));
                }
            }
        }
        Ok(())
    }
}
