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

use super::build::{make, set_xattrs, unknown};
use super::ignore::{Ignore, Paths, Whose};
use super::local::Local;
use super::spool::Spool;
use super::state::Told;
use super::turn::{Planned, Turner, Turning, count, set_links};
use crate::Result;
use crate::attr::Ino;
use crate::db::{corrupt, int};
use crate::gained::Gained;
use crate::node::{Body, FileBody};
use crate::refs::Ledger;
use crate::replica::{Inner, now};
use crate::rows::{NameRow, NodeRow, RowWriter};
use crate::shared::{Ahead, Growing, Record, Shared};
use crate::turned::Turned;

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
    /// What becomes another in rows, too, if that is done.
    pub(super) turning: Option<Turning>,
    /// Something in the confirmed tree has extended attributes.
    pub(super) has_xattrs: bool,
    /// Versions that were taken from the tree.
    vers: std::ops::Range<u64>,
    /// What the rows so far say of the commit.
    hasher: Option<CommitHasher>,
}

impl Growth {
    pub(super) fn new(turning: Option<Turning>) -> Self {
        Self {
            turning,
            ..Self::default()
        }
    }

    /// Notes what is planned: the places that are set in memory, and the nodes
    /// that are made there.
    pub(super) fn plan(
        &mut self,
        set: BTreeSet<Place>,
        made: BTreeMap<NodeId, Ino>,
        local: &Local<'_>,
    ) {
        (self.set, self.made) = (set, made);
        self.inodes.clone_from(local.overrides());
    }

    /// The directories in memory that have names in rows.
    pub(super) fn dirs(&self) -> impl Iterator<Item = Ino> {
        let gained = self.gained.iter().filter(|(_, gained)| gained.entries > 0);
        gained.map(|(ino, _)| Ino(*ino))
    }

    /// Sets the rows of what is plain, if that is to be done. The confirmed tree
    /// is set.
    pub(super) fn turn(&mut self, at: At<'_>, ledger: &mut Ledger) -> Result<()> {
        self.has_xattrs = at.shared().has_attributes()?;
        let Some(mut turning) = self.turning.take() else {
            return Ok(());
        };
        turning.begin();
        let mut local = Local::new(at.inner, at.db);
        local.set_overrides(self.inodes.clone());
        let mut writer = self.writer(at, ledger)?;
        let both = (&mut *self, &mut turning);
        let mut turner = Turner::new(at, &local, &mut writer, both);
        let done = turner.run(at.changes, REFS_MAX);
        self.turning = Some(turning);
        done?;
        (*ledger, self.hasher) = (writer.ledger, Some(writer.hasher));
        Ok(())
    }

    /// The nodes of which rows became others.
    pub(super) fn turned(&self) -> Option<&Turned> {
        self.turning.as_ref().map(|turning| &turning.turned)
    }

    /// Writes the rows of what is fresh, and ends what came to an end.
    /// `false` when the result is no tree.
    pub(super) fn write(
        &mut self,
        at: At<'_>,
        ledger: &mut Ledger,
        planned: Planned<'_>,
    ) -> Result<bool> {
        self.run(at, ledger, Some(planned), None)
    }

    /// What the rows say of the commit.
    pub(super) fn hasher(&mut self) -> CommitHasher {
        self.hasher.take().unwrap_or_default()
    }

    fn writer<'a>(&mut self, at: At<'a>, ledger: &mut Ledger) -> Result<RowWriter<'a>> {
        let mut writer = RowWriter::new(at.db, ReplicaTag(at.inner.identity.tag))?;
        writer.ledger = std::mem::take(ledger);
        writer.hasher = self.hasher();
        Ok(writer)
    }

    fn run(
        &mut self,
        at: At<'_>,
        ledger: &mut Ledger,
        planned: Option<Planned<'_>>,
        taken: Option<&mut Vec<Place>>,
    ) -> Result<bool> {
        let At { inner, db, .. } = at;
        let mut local = Local::new(inner, db);
        local.set_overrides(self.inodes.clone());
        let mut grower = Grower {
            inner,
            db,
            paths: at.paths(),
            local,
            taken,
            writer: self.writer(at, ledger)?,
            growth: self,
            first: inner.tree.lock().next_ino,
            inos: 0..0,
            dirs: FxHashMap::default(),
            counts: FxHashMap::default(),
            loose: BTreeMap::new(),
            growing: Growing::default(),
            ahead: Ahead::new(at.shared())?,
        };
        for page in at.changes.pages() {
            for change in &*page? {
                if let Entry::Name { parent, name, node } = &change.entry
                    && let Some(node) = node
                {
                    grower.name(&(*parent, name.clone()), *node)?;
                }
            }
            grower.writer.ledger.flush(inner, db, REFS_MAX)?;
        }
        let mut writer = grower.end()?;
        let is_tree = self.end(at, &mut writer, planned)?;
        (*ledger, self.hasher) = (writer.ledger, Some(writer.hasher));
        Ok(is_tree)
    }

    fn end<'a>(
        &mut self,
        at: At<'a>,
        writer: &mut RowWriter<'a>,
        planned: Option<Planned<'_>>,
    ) -> Result<bool> {
        let Some(mut turning) = self.turning.take() else {
            return Ok(true);
        };
        turning.turned.count += self.rows.cast_signed();
        let local = Local::new(at.inner, at.db);
        let both = (&mut *self, &mut turning);
        let is_tree = Turner::new(at, &local, writer, both).end(planned);
        self.turning = Some(turning);
        is_tree
    }

    pub(super) fn next_ver(&mut self, inner: &Inner) -> u64 {
        if self.vers.is_empty() {
            let mut tree = inner.tree.lock();
            let (after, upto) = (tree.seq, tree.seq + BLOCK);
            self.vers = after + 1..upto + 1;
            tree.seq = upto;
            let told = self.told.filter(|told| told.upto == after);
            let after = told.map_or(after, |told| told.after);
            self.told = Some(Told { after, upto });
        }
        self.vers.next().unwrap_or_default()
    }

    /// Writes the rows again, after a transaction that failed. Also gives the
    /// places that programs have taken since, where they saw nothing.
    pub(super) fn again(&mut self, at: At<'_>, ledger: &mut Ledger) -> Result<Vec<Place>> {
        let mut taken = Vec::new();
        (self.rows, self.vers, self.hasher) = (0, 0..0, None);
        // What was gained is in memory already.
        let gained = std::mem::take(&mut self.gained);
        let run = self
            .turn(at, ledger)
            .and_then(|()| self.run(at, ledger, None, Some(&mut taken)));
        self.gained = gained;
        run?;
        Ok(taken)
    }
}

/// Where rows are written, and of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) inner: &'a Inner,
    pub(super) db: &'a Connection,
    pub(super) side: u8,
    pub(super) changes: &'a Spool,
    pub(super) ignore: &'a Ignore,
}

impl<'a> At<'a> {
    pub(super) fn shared(self) -> Shared<'a> {
        Shared::new(self.db, self.side)
    }

    /// Which places are not shown, once the confirmed tree is set.
    pub(super) fn paths(self) -> Paths<'a> {
        Paths::new(self.ignore, Whose::Hub)
    }
}

/// Where a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    /// It is in memory, or will be.
    Memory,
    /// It is a row that was written just now.
    Row,
}

struct Grower<'g, 'a> {
    inner: &'a Inner,
    db: &'a Connection,
    paths: Paths<'a>,
    local: Local<'a>,
    /// When this is not the first time: places that programs have taken since.
    taken: Option<&'g mut Vec<Place>>,
    writer: RowWriter<'a>,
    growth: &'g mut Growth,
    /// Inodes from here on are rows of this transaction.
    first: u64,
    inos: std::ops::Range<u64>,
    /// Directories, as far as they are remembered.
    dirs: FxHashMap<NodeId, (Ino, Is)>,
    /// Entries of directories that are rows, and directories among them, that
    /// were not written yet.
    counts: FxHashMap<u64, (u64, u32)>,
    /// Directories that came before the one that they are in, with that.
    loose: BTreeMap<u64, Option<u64>>,
    /// Nodes above these have no inodes.
    growing: Growing,
    /// The confirmed tree.
    ahead: Ahead<'a>,
}

impl<'a> Grower<'_, 'a> {
    /// Makes a name, and its node and directory where they are not here.
    fn name(&mut self, place: &Place, id: NodeId) -> Result<()> {
        if self.growth.set.contains(place)
            || self.ahead.name(place)?.is_none_or(|n| n.0 != Some(id))
            || self.paths.is_ignored(&self.local, self.ahead.tree, place)?
        {
            return Ok(());
        }
        let (parent, in_parent) = self.dir(place.0)?;
        let key = self.local.key(&place.1);
        let record = self.record(id)?;
        // A transfer may tell a name twice, and then its node is here.
        let found = self.find(id, record.kind)?;
        if (found.is_some() || in_parent == Is::Memory) && self.local.name(parent, &key)?.is_some()
        {
            return Ok(());
        }
        if let Some(taken) = &mut self.taken
            && in_parent == Is::Memory
            && let dirty = (parent.0, key.clone())
            && self.inner.tree.lock().dirty_names.contains(&dirty)
        {
            taken.push(place.clone());
            return Ok(());
        }
        let (ino, kind) = self.target((id, record), found, parent)?;
        let is_dir = kind == NodeKind::Dir;
        let is_made = self.growth.made.contains_key(&place.0);
        if in_parent == Is::Memory {
            if !is_made && !self.inner.observers.read().is_empty() {
                self.growth.names.push((parent, place.1.clone()));
            }
            match &mut self.growth.turning {
                Some(turning) if !is_made => {
                    count(&mut turning.turned, parent, 1, is_dir.into());
                    self.count(parent, is_dir)?;
                }
                _ => {
                    let gained = self.growth.gained.entry(parent.0).or_default();
                    gained.entries += 1;
                    gained.dirs += u32::from(is_dir);
                }
            }
        } else {
            self.count(parent, is_dir)?;
        }
        let ver = self.growth.next_ver(self.inner);
        self.writer.name(&NameRow {
            parent,
            key,
            target: Some(ino),
            ver,
            ids: (place.0, Some(id)),
        })
    }

    /// Counts an entry of a directory that is a row.
    fn count(&mut self, dir: Ino, is_dir: bool) -> Result<()> {
        let (entries, dirs) = self.counts.entry(dir.0).or_default();
        *entries += 1;
        *dirs += u32::from(is_dir);
        if self.counts.len() > DIRS_MAX {
            self.write_counts()?;
        }
        Ok(())
    }

    /// The directory of a name.
    fn dir(&mut self, id: NodeId) -> Result<(Ino, Is)> {
        if let Some(found) = self.dirs.get(&id) {
            return Ok(*found);
        }
        let found = if let Some(found) = self.find(id, NodeKind::Dir)? {
            found
        } else {
            let record = self.record(id)?;
            let ino = self.make(id, record, Ino::ROOT)?;
            self.loose.insert(ino.0, None);
            (ino, Is::Row)
        };
        self.remember(id, found);
        Ok(found)
    }

    fn record(&mut self, id: NodeId) -> Result<Record> {
        self.ahead.record(id)?.ok_or_else(|| unknown(id))
    }

    fn remember(&mut self, id: NodeId, found: (Ino, Is)) {
        if self.dirs.len() >= DIRS_MAX {
            self.dirs.clear();
        }
        self.dirs.insert(id, found);
    }

    fn find(&mut self, id: NodeId, kind: NodeKind) -> Result<Option<(Ino, Is)>> {
        if let Some(ino) = self.growth.made.get(&id) {
            return Ok(Some((*ino, Is::Memory)));
        }
        let is_new = |db: &_| self.growing.is_new(db, id, kind);
        let ino = self.local.ino_unless(id, is_new)?;
        let first = self.first;
        let at = |ino: Ino| if ino.0 < first { Is::Memory } else { Is::Row };
        Ok(ino.map(|ino| (ino, at(ino))))
    }

    /// The node of a name that comes, in a directory.
    fn target(
        &mut self,
        (id, record): (NodeId, Record),
        found: Option<(Ino, Is)>,
        parent: Ino,
    ) -> Result<(Ino, NodeKind)> {
        let kind = record.kind;
        let Some((ino, at)) = found else {
            let ino = self.make(id, record, parent)?;
            if kind == NodeKind::Dir {
                self.remember(id, (ino, Is::Row));
                if self.loose.contains_key(&parent.0) {
                    self.loose.insert(ino.0, Some(parent.0));
                }
            }
            return Ok((ino, kind));
        };
        if kind == NodeKind::Dir {
            match self.loose.get_mut(&ino.0) {
                Some(place @ None) => *place = Some(parent.0),
                _ => return Err(corrupt(id, "the hub has a directory with two names")),
            }
            let set = "UPDATE node SET parent = ? WHERE ino = ?";
            let mut set = self.db.prepare_cached(set)?;
            set.execute(params![int(parent.0), int(ino.0)])?;
        } else if let (Is::Memory, Some(turning)) = (at, &mut self.growth.turning)
            && !self.growth.made.contains_key(&id)
        {
            turning.turned.node(ino).links += 1;
            set_links(self.db, ino, now(), "nlink + 1")?;
        } else if at == Is::Memory {
            self.growth.gained.entry(ino.0).or_default().links += 1;
        } else {
            let set = "UPDATE node SET nlink = nlink + 1 WHERE ino = ?";
            self.db.prepare_cached(set)?.execute([int(ino.0)])?;
        }
        Ok((ino, kind))
    }

    /// Makes a node as the confirmed tree has it, a directory without entries.
    fn make(&mut self, id: NodeId, record: Record, parent: Ino) -> Result<Ino> {
        let mut node = make(self.inner, self.db, id, record)?;
        if self.growth.has_xattrs {
            set_xattrs(&mut node, self.ahead.tree, id)?;
        }
        let ino = self.next_ino();
        let ver = self.growth.next_ver(self.inner);
        (node.born, node.meta_ver, node.data_ver) = (ver, ver, ver);
        for xattr in node.xattrs.iter_mut().flat_map(|all| all.values_mut()) {
            xattr.ver = ver;
        }
        match &mut node.body {
            Body::File(FileBody { base_dirty, .. }) => *base_dirty = true,
            Body::Dir(dir) => dir.parent = parent.0,
            Body::Symlink(_) | Body::Special => {}
        }
        self.writer
            .node(self.inner, &NodeRow::take(ino, &mut node))?;
        self.growing.add(id, node.kind);
        self.growth.rows += 1;
        Ok(ino)
    }

    fn next_ino(&mut self) -> Ino {
        if self.inos.is_empty() {
            let mut tree = self.inner.tree.lock();
            self.inos = tree.next_ino..tree.next_ino + BLOCK;
            tree.next_ino += BLOCK;
        }
        Ino(self.inos.next().unwrap_or_default())
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
