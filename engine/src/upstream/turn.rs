//! How what is plain in a large cut is set: in rows, a page of the transfer at a
//! time, so that a cut has a bound in memory whatever it changes. What is
//! remembered of a node that becomes another is some 20 bytes, with which memory
//! follows the rows; see [`crate::turned`].
//!
//! A register is plain if nobody edited it, and nothing that is planned touches
//! its node; see [`super::plain`]. So it is set without a look at anything else,
//! before the rest is planned on what it leaves. What comes to nothing (a
//! directory that ends and has something in it) is found out at the end, and the
//! cut is planned as a whole then.

use std::collections::BTreeSet;

use cairn_protocol::merge::Place;
use cairn_protocol::{Data, Entry, Meta, NodeId, NodeKind, Timestamp, XattrName};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::build::base;
use super::grow::{At, Growth};
use super::ignore::Paths;
use super::local::{Local, data_of};
use super::spool::Spool;
use crate::Result;
use crate::attr::Ino;
use crate::db::{self, foreign_id, int};
use crate::node::{Body, Node, Xattr};
use crate::replica::{Inner, now};
use crate::rows::{NameRow, NodeRow, RowWriter, meta_of};
use crate::shared::Shared;
use crate::tree::Gone;
use crate::turned::{Turned, TurnedName};

/// Directories whose entries are counted before that is written: about 1 MiB.
const COUNTS_MAX: usize = if cfg!(debug_assertions) { 4 } else { 16_384 };

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Turning {
    /// What is planned.
    places: BTreeSet<Place>,
    nodes: FxHashSet<NodeId>,
    /// Nodes that lost a name.
    lost: Vec<u64>,
    pub(super) turned: Turned,
}

/// What is to be set in memory besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned<'p> {
    /// Entries that directories get, less those that they lose.
    pub(super) counts: &'p FxHashMap<u64, i64>,
    /// What has to be in memory.
    pub(super) needed: &'p BTreeSet<u64>,
}

impl Turning {
    pub(super) fn new(places: BTreeSet<Place>, nodes: FxHashSet<NodeId>) -> Self {
        Self {
            places,
            nodes,
            ..Self::default()
        }
    }

    /// Forgets what it did, to do it again.
    pub(super) fn begin(&mut self) {
        self.lost.clear();
        self.turned = Turned::default();
    }
}

/// Sets rows.
pub(super) struct Turner<'t, 'a> {
    inner: &'a Inner,
    db: &'a Connection,
    shared: Shared<'a>,
    paths: Paths<'a>,
    local: &'t Local<'a>,
    writer: &'t mut RowWriter<'a>,
    growth: &'t mut Growth,
    turning: &'t mut Turning,
    /// There are caches above.
    observed: bool,
    counts: FxHashMap<u64, (i64, i64)>,
    now: Timestamp,
}

impl<'t, 'a> Turner<'t, 'a> {
    pub(super) fn new(
        at: At<'a>,
        local: &'t Local<'a>,
        writer: &'t mut RowWriter<'a>,
        (growth, turning): (&'t mut Growth, &'t mut Turning),
    ) -> Self {
        Self {
            inner: at.inner,
            db: at.db,
            shared: at.shared(),
            paths: at.paths(),
            local,
            writer,
            growth,
            turning,
            observed: !at.inner.observers.read().is_empty(),
            counts: FxHashMap::default(),
            now: now(),
        }
    }

    /// Sets what is plain of what was here. The confirmed tree is set.
    pub(super) fn run(&mut self, changes: &Spool, refs_max: usize) -> Result<()> {
        for page in changes.pages() {
            for change in &*page? {
                self.entry(&change.entry)?;
            }
            self.writer.ledger.flush(self.inner, self.db, refs_max)?;
        }
        self.write_counts()
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Name { parent, name, .. } => self.name(&(*parent, name.clone())),
            Entry::Data { node, .. } | Entry::Meta { node, .. } | Entry::Xattr { node, .. }
                if !self.turning.nodes.contains(node) =>
            {
                self.node(*node, entry)
            }
            _ => Ok(()),
        }
    }

    /// Has a name stand for what it should, if that is here already.
    fn name(&mut self, place: &Place) -> Result<()> {
        if self.turning.places.contains(place) || self.is_ignored(place)? {
            return Ok(());
        }
        let Some(parent) = self.local.ino(place.0)? else {
            return Ok(());
        };
        let key = self.local.key(&place.1);
        let old = self.local.name(parent, &key)?.map(|(ino, _)| ino);
        let there = self.shared.name(place)?.and_then(|(node, _)| node);
        let new = there.map(|id| self.local.ino(id)).transpose()?.flatten();
        if old == new {
            return Ok(());
        }
        let (mut entries, mut dirs) = (0, 0);
        if let Some(old) = old {
            entries -= 1;
            dirs -= i64::from(self.unlink(old)?);
        }
        if let Some(new) = new {
            entries += 1;
            self.link(new)?;
        }
        self.count(parent, entries, dirs)?;
        if self.observed {
            self.turning.turned.names.push(TurnedName {
                parent,
                name: place.1.clone(),
                removed: old.filter(|_| there.is_none()),
            });
        }
        let ver = self.growth.next_ver(self.inner);
        self.writer.name(&NameRow {
            parent,
            key,
            target: new,
            ver,
            ids: (place.0, there.filter(|_| new.is_some())),
        })
    }

    fn is_ignored(&self, place: &Place) -> Result<bool> {
        self.paths.is_ignored(self.local, self.shared, place)
    }

    fn count(&mut self, dir: Ino, entries: i64, dirs: i64) -> Result<()> {
        count(&mut self.turning.turned, dir, entries, dirs);
        let (all, among) = self.counts.entry(dir.0).or_default();
        *all += entries;
        *among += dirs;
        if self.counts.len() > COUNTS_MAX {
            self.write_counts()?;
        }
        Ok(())
    }

    fn write_counts(&mut self) -> Result<()> {
        let set = "UPDATE node SET entries = entries + ?, nlink = max(nlink + ?, 0) WHERE ino = ?";
        let mut set = self.db.prepare_cached(set)?;
        for (ino, (entries, dirs)) in self.counts.drain() {
            set.execute(params![entries, dirs, int(ino)])?;
        }
        Ok(())
    }

    /// Takes a name from a node. Whether it is a directory.
    fn unlink(&mut self, ino: Ino) -> Result<bool> {
        let kind: u8 = self
            .db
            .prepare_cached("SELECT kind FROM node WHERE ino = ?")?
            .query_row([int(ino.0)], |r| r.get(0))?;
        let is_dir = kind == u8::from(NodeKind::Dir);
        self.turning.lost.push(ino.0);
        if is_dir {
            self.turning.turned.node(ino).ended = true;
            set_links(self.db, ino, self.now, "0")?;
        } else {
            self.turning.turned.node(ino).links -= 1;
            set_links(self.db, ino, self.now, "max(nlink - 1, 0)")?;
        }
        Ok(is_dir)
    }

    fn link(&mut self, ino: Ino) -> Result<()> {
        self.turning.turned.node(ino).links += 1;
        set_links(self.db, ino, self.now, "nlink + 1")
    }

    /// Gives a node the value that a register should have. Others may be edited.
    fn node(&mut self, id: NodeId, entry: &Entry) -> Result<()> {
        let Some(ino) = self.local.ino(id)? else {
            return Ok(());
        };
        let (node, record) = (db::load_node(self.db, ino)?, self.shared.record(id)?);
        let (Some(mut node), Some(record)) = (node, record) else {
            return Ok(());
        };
        // That it has no name yet says nothing: one may come.
        if record.gone.is_some() {
            return Ok(());
        }
        let set = match (entry, record.data, record.meta) {
            (Entry::Data { .. }, Some((_, data)), _) => self.set_data(ino, &mut node, &data)?,
            (Entry::Meta { .. }, _, Some((_, meta))) => self.set_meta(&mut node, &meta),
            (Entry::Xattr { name, .. }, ..) => self.set_xattr(id, &mut node, name)?,
            _ => false,
        };
        if set {
            node.times.ctime = self.now;
            self.turning.turned.node(ino);
            self.writer
                .node(self.inner, &NodeRow::take(ino, &mut node))?;
        }
        Ok(())
    }

    fn set_meta(&mut self, node: &mut Node, meta: &Meta) -> bool {
        if *meta == meta_of(node.perm, node.uid, node.gid, &node.times) {
            return false;
        }
        crate::assign::set_attributes(node, meta);
        node.meta_ver = self.growth.next_ver(self.inner);
        true
    }

    fn set_data(&mut self, ino: Ino, node: &mut Node, data: &Data) -> Result<bool> {
        if data_of(node).as_ref() == Some(data) {
            return Ok(false);
        }
        match (&mut node.body, data) {
            (Body::File(file), Data::File { .. } | Data::Inline { .. }) => {
                file.base = base(self.inner, self.db, data)?;
                file.size = file.base.size();
                file.base_dirty = true;
            }
            (Body::Symlink(target), Data::Symlink { target: new }) => *target = new.clone(),
            _ => return Ok(false),
        }
        node.data_ver = self.growth.next_ver(self.inner);
        if self.observed {
            self.turning.turned.contents.push(ino);
        }
        Ok(true)
    }

    fn set_xattr(&mut self, id: NodeId, node: &mut Node, name: &XattrName) -> Result<bool> {
        let value = self.shared.attribute(id, name)?;
        let value = value.and_then(|(value, _)| value);
        let here = node.xattrs.as_ref().and_then(|all| all.get(name));
        if here.and_then(|xattr| xattr.value.as_ref()) == value.as_ref() {
            return Ok(false);
        }
        let ver = self.growth.next_ver(self.inner);
        let dirty = true;
        let xattr = Xattr { value, ver, dirty };
        let xattrs = node.xattrs.get_or_insert_default();
        xattrs.insert(name.clone(), xattr);
        Ok(true)
    }

    /// Ends what has no name any more, when everything has come to its place.
    /// `planned` is what else is to come, unless that was looked at before.
    /// `false` when the result is no tree.
    pub(super) fn end(&mut self, planned: Option<Planned<'_>>) -> Result<bool> {
        let mut lost = std::mem::take(&mut self.turning.lost);
        lost.sort_unstable();
        lost.dedup();
        for ino in lost {
            if !self.end_node(Ino(ino), planned)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the hub has a node at a place that is shown.
    fn is_shown(&self, node: NodeId) -> Result<bool> {
        for place in self.shared.places_of(node)? {
            if !self.is_ignored(&place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn end_node(&mut self, ino: Ino, planned: Option<Planned<'_>>) -> Result<bool> {
        let found = self
            .db
            .prepare_cached("SELECT nlink, kind, entries, tag, counter FROM node WHERE ino = ?")?
            .query_row([int(ino.0)], |r| {
                let counts = (r.get::<_, u32>(0)?, r.get::<_, u8>(1)?, r.get::<_, i64>(2)?);
                Ok((counts, (r.get(3)?, r.get(4)?)))
            })
            .optional()?;
        let Some(((nlink, kind, entries), (tag, counter))) = found else {
            return Ok(false);
        };
        if nlink > 0 && !self.turning.turned.node(ino).ended {
            return Ok(true);
        }
        if let Some(planned) = planned {
            let left = entries + planned.counts.get(&ino.0).copied().unwrap_or(0);
            if left != 0 || self.is_shown(self.local.id(ino)?)? {
                return Ok(false);
            }
        }
        let known = {
            let tree = self.inner.tree.lock();
            let known = crate::replica::Notes::new(self.inner, 0).known(ino);
            let needed = planned.is_some_and(|planned| planned.needed.contains(&ino.0));
            known || needed || tree.nodes.get(&ino.0).is_some()
        };
        let turn = self.turning.turned.node(ino);
        turn.ended = true;
        // Whoever has it may be done with it by then.
        turn.gone = !known;
        if turn.gone {
            let ver = self.growth.next_ver(self.inner);
            let was_file = kind == u8::from(NodeKind::File);
            let id = foreign_id(tag, counter).map(Box::new);
            let gone = Gone {
                ino,
                id,
                ver,
                was_file,
            };
            self.writer.gone(self.inner, &gone)?;
            self.turning.turned.count -= 1;
        }
        Ok(true)
    }
}

/// Counts entries of a directory that was here.
pub(super) fn count(turned: &mut Turned, dir: Ino, entries: i64, dirs: i64) {
    let turn = turned.node(dir);
    turn.named = true;
    turn.entries = turn
        .entries
        .saturating_add(i32::try_from(entries).unwrap_or(0));
    turn.links = turn.links.saturating_add(i32::try_from(dirs).unwrap_or(0));
}

/// Sets the number of names of a node, and when its inode changed.
pub(super) fn set_links(db: &Connection, ino: Ino, now: Timestamp, to: &str) -> Result<()> {
    let sql = format!(
        "UPDATE node SET nlink = {to},
             times = CAST(substr(times, 1, 24) || ?2 || substr(times, 37) AS BLOB)
         WHERE ino = ?1"
    );
    let mut ctime = [0; 12];
    ctime[..8].copy_from_slice(&now.seconds().to_le_bytes());
    ctime[8..].copy_from_slice(&now.nanos().to_le_bytes());
    db.prepare_cached(&sql)?
        .execute(params![int(ino.0), ctime.as_slice()])?;
    Ok(())
}
