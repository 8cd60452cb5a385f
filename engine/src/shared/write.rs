//! Setting registers of a shared tree, a commit or a transfer at a time.

use std::collections::BTreeMap;

use cairn_protocol::merge::Place;
use cairn_protocol::{Change, Data, Entry, Meta, Name, NodeId, NodeKind, Ver};
use rusqlite::{CachedStatement, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::view::Highest;
use super::{Record, Shared, key};
use crate::Result;
use crate::db::{corrupt, int};

const SET_NAME: &str =
    "INSERT OR REPLACE INTO shared_name(side, tag, counter, name, node_tag, node_counter, ver)
     VALUES(?, ?, ?, ?, ?, ?, ?)";
const SET_RECORD: &str =
    "INSERT OR REPLACE INTO shared_node(side, tag, counter, kind, born, data_ver, data, meta_ver, meta, gone, last)
     VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// What [`Shared::apply`] did besides what the changes say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Nodes that were dead and live again.
    pub(crate) revived: Vec<NodeId>,
}

/// Where nodes were whose names changed: one that ends was last there.
#[derive(Debug, Default)]
pub(crate) struct Lasts {
    /// Some node ends, so it is worth to know.
    pub(crate) ends: bool,
    places: FxHashMap<NodeId, Place>,
    /// Nodes that have ended by now: their places are of no use any more.
    ended: FxHashSet<NodeId>,
    /// What was known before the first page.
    before: Option<Highest>,
}

/// What the changes say of one node.
#[derive(Default)]
struct NodeSet<'c> {
    kind: Option<(Ver, NodeKind)>,
    data: Option<(Ver, &'c Data)>,
    meta: Option<(Ver, &'c Meta)>,
    /// A name came to stand for it.
    put: Option<Ver>,
    gone: Option<Ver>,
}

impl<'c> NodeSet<'c> {
    /// Whether it ends, after all. What is told of a dead node may be as late as
    /// its end (HUB-3).
    fn ends(&self) -> Option<Ver> {
        let lives = self.put.max(self.kind.map(|(ver, _)| ver));
        self.gone
            .filter(|gone| lives.is_none_or(|lives| lives <= *gone))
    }

    /// Whether a name is all that was said of it.
    fn is_named_only(&self) -> bool {
        let said = (self.kind, self.data, self.meta, self.gone);
        matches!(said, (None, None, None, None))
    }

    fn say(&mut self, ver: Ver, entry: &'c Entry) {
        match entry {
            Entry::Node { kind, .. } => self.kind = Some((ver, *kind)),
            Entry::Data { data, .. } => self.data = Some((ver, data)),
            Entry::Meta { meta, .. } => self.meta = Some((ver, meta)),
            Entry::Gone { .. } => self.gone = Some(ver),
            Entry::Name { .. } => self.put = Some(ver),
            Entry::Xattr { .. } => {}
        }
    }
}

impl Shared<'_> {
    /// Sets registers, as one: the order counts only between changes of the
    /// same register, of which the last holds. Whatever a node needs has to be
    /// there already or come along: its `Node` with its registers, and its
    /// `Gone` with the names that it loses.
    ///
    /// `last` says where nodes that end were last; what it does not say is
    /// taken from the names. `count` is told of each content that comes, with
    /// `1`, or goes, with `-1`.
    ///
    /// # Errors
    ///
    /// [`crate::FsError::Corrupt`] for a register of a node that is unknown, and
    /// what the database or `count` says. The transaction has to be rolled back then.
    pub(crate) fn apply(
        &self,
        changes: &[Change],
        last: &[(NodeId, Place)],
        count: &mut dyn FnMut(&Data, i64) -> Result<()>,
    ) -> Result<Effects> {
        let mut lasts = Lasts {
            ends: changes
                .iter()
                .any(|c| matches!(c.entry, Entry::Gone { .. })),
            ..Lasts::default()
        };
        let nodes = self.set_registers(changes, &mut lasts)?;
        lasts.places.extend(last.iter().cloned());
        self.set_nodes(nodes, &mut lasts, count)
    }

    /// The same for one page after another of a transfer, which tells registers
    /// in the order of their versions. `lasts` is that of all pages.
    pub(crate) fn apply_page(
        &self,
        changes: &[Change],
        lasts: &mut Lasts,
        count: &mut dyn FnMut(&Data, i64) -> Result<()>,
    ) -> Result<()> {
        self.begin_again(changes, lasts)?;
        let mut nodes = self.set_registers(changes, lasts)?;
        if !lasts.ends {
            // A name matters to a node that was dead. One that came with this
            // transfer is not: its other registers are of another page, and
            // need not be read again.
            let before = lasts.before.get_or_insert_default();
            let mut plain = Vec::new();
            for (id, said) in &nodes {
                // Asked of all, so that it is what was before any of them.
                if before.is_new(*self, "shared_node", *id)? && said.is_named_only() {
                    plain.push(*id);
                }
            }
            for id in &plain {
                nodes.remove(id);
            }
        }
        self.set_nodes(nodes, lasts, count)?;
        Ok(())
    }

    /// A node that was dead and is told again is told with all that it has (HUB-3):
    /// attributes of before that do not come are not there. A hub that had
    /// forgotten it has no tombstones of them.
    fn begin_again(&self, changes: &[Change], lasts: &mut Lasts) -> Result<()> {
        let before = lasts.before.get_or_insert_default();
        for change in changes {
            let Entry::Node { id, .. } = &change.entry else {
                continue;
            };
            if !before.is_new(*self, "shared_node", *id)? {
                let (tag, counter) = key(*id);
                let forget = "DELETE FROM shared_xattr WHERE side = ? AND tag = ? AND counter = ?";
                let mut forget = self.db.prepare_cached(forget)?;
                forget.execute(params![self.side, tag, counter])?;
            }
        }
        Ok(())
    }

    /// Sets names and attributes, and says what is to be set of nodes.
    fn set_registers<'c>(
        &self,
        changes: &'c [Change],
        lasts: &mut Lasts,
    ) -> Result<BTreeMap<NodeId, NodeSet<'c>>> {
        let mut nodes: BTreeMap<NodeId, NodeSet<'_>> = BTreeMap::new();
        let mut set_name = self.db.prepare_cached(SET_NAME)?;
        for Change { ver, entry } in changes {
            match entry {
                Entry::Name { parent, name, node } => {
                    if lasts.ends {
                        self.note_place(*parent, name, lasts)?;
                    }
                    self.set_name(&mut set_name, (*parent, name), *node, *ver)?;
                    if let Some(node) = node {
                        nodes.entry(*node).or_default().say(*ver, entry);
                    }
                }
                Entry::Xattr { node, name, value } => {
                    let (tag, counter) = key(*node);
                    if *node == NodeId::ROOT {
                        self.write_root()?;
                    }
                    let mut set = self.db.prepare_cached(
                        "INSERT OR REPLACE INTO shared_xattr(side, tag, counter, name, value, ver)
                         VALUES(?, ?, ?, ?, ?, ?)",
                    )?;
                    let (name, value) = (name.as_bytes(), value.as_deref());
                    set.execute(params![self.side, tag, counter, name, value, int(*ver)])?;
                }
                Entry::Node { id: node, .. }
                | Entry::Data { node, .. }
                | Entry::Meta { node, .. }
                | Entry::Gone { node } => nodes.entry(*node).or_default().say(*ver, entry),
            }
        }
        Ok(nodes)
    }

    /// Gives the root its row, which it lacks while nothing is said of it: who looks
    /// through the nodes finds its attributes then.
    fn write_root(&self) -> Result<()> {
        let (tag, counter) = key(NodeId::ROOT);
        let mut find = self.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM shared_node WHERE side = ? AND tag = ? AND counter = ?)",
        )?;
        if !find.query_row(params![self.side, tag, counter], |r| r.get(0))? {
            let mut set = self.db.prepare_cached(SET_RECORD)?;
            let root = Record::new(NodeKind::Dir, 0);
            self.set_record(&mut set, NodeId::ROOT, &root)?;
        }
        Ok(())
    }

    /// Notes that a replica's node never came to be, for another stands for it.
    pub(crate) fn set_alias(&self, from: NodeId, to: NodeId, ver: Ver) -> Result<()> {
        let ((tag, counter), (to_tag, to_counter)) = (key(from), key(to));
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO shared_alias(side, tag, counter, to_tag, to_counter, ver)
                 VALUES(?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.side,
                tag,
                counter,
                to_tag,
                to_counter,
                int(ver)
            ])?;
        Ok(())
    }

    /// Notes which node is at a place that is about to change.
    fn note_place(&self, parent: NodeId, name: &Name, lasts: &mut Lasts) -> Result<()> {
        let place = (parent, name.clone());
        if let Some((Some(node), _)) = self.name(&place)?
            && !lasts.ended.contains(&node)
        {
            lasts.places.entry(node).or_insert(place);
        }
        Ok(())
    }

    fn set_name(
        &self,
        set: &mut CachedStatement<'_>,
        (parent, name): (NodeId, &Name),
        node: Option<NodeId>,
        ver: Ver,
    ) -> Result<()> {
        let (tag, counter) = key(parent);
        let node = node.map(key);
        set.execute(params![
            self.side,
            tag,
            counter,
            name.as_bytes(),
            node.map(|node| node.0),
            node.map(|node| node.1),
            int(ver)
        ])?;
        Ok(())
    }

    fn set_nodes(
        &self,
        nodes: BTreeMap<NodeId, NodeSet<'_>>,
        lasts: &mut Lasts,
        count: &mut dyn FnMut(&Data, i64) -> Result<()>,
    ) -> Result<Effects> {
        let mut effects = Effects::default();
        let mut highest = Highest::default();
        let mut set = self.db.prepare_cached(SET_RECORD)?;
        for (id, said) in nodes {
            let new = highest.is_new(*self, "shared_node", id)?;
            let old = if new { None } else { self.record(id)? };
            let mut record = match (&old, said.kind) {
                (Some(old), _) => old.clone(),
                (None, Some((born, kind))) => Record::new(kind, born),
                (None, None) if id == NodeId::ROOT => Record::new(NodeKind::Dir, 0),
                (None, None) if said.data.is_none() && said.meta.is_none() => continue,
                (None, None) => return Err(corrupt(id, "it has registers and is unknown")),
            };
            if let Some((ver, data)) = said.data {
                count(data, 1)?;
                if let Some((_, old)) = record.data.replace((ver, data.clone())) {
                    count(&old, -1)?;
                }
            }
            if let Some((born, _)) = said.kind {
                record.born = born;
            }
            record.meta = said.meta.map(|(ver, meta)| (ver, *meta)).or(record.meta);
            if let Some(gone) = said.ends() {
                let last = lasts.places.remove(&id);
                lasts.ended.insert(id);
                let before = record.gone.take().map(|(_, last)| last);
                let last = last.or(before).or_else(lost);
                record.gone = last.map(|last| (gone, last));
            } else if let Some(ver) = said.put.filter(|_| record.gone.is_some()) {
                (record.gone, record.born) = (None, ver);
                lasts.ended.remove(&id);
                effects.revived.push(id);
            }
            if old.as_ref() != Some(&record) {
                self.set_record(&mut set, id, &record)?;
            }
        }
        Ok(effects)
    }

    /// Notes a dead node of which nothing but its kind and last place is known.
    pub(crate) fn bury(&self, node: NodeId, kind: NodeKind, ver: Ver, last: Place) -> Result<()> {
        let mut record = Record::new(kind, ver);
        record.gone = Some((ver, last));
        let mut set = self.db.prepare_cached(SET_RECORD)?;
        self.set_record(&mut set, node, &record)
    }

    fn set_record(&self, set: &mut CachedStatement<'_>, id: NodeId, record: &Record) -> Result<()> {
        let (tag, counter) = key(id);
        let fail = |e| corrupt(id, format!("it cannot be encoded: {e}"));
        let data = record
            .data
            .as_ref()
            .map(|(_, data)| postcard::to_stdvec(data));
        let meta = record
            .meta
            .as_ref()
            .map(|(_, meta)| postcard::to_stdvec(meta));
        let last = record
            .gone
            .as_ref()
            .map(|(_, last)| postcard::to_stdvec(last));
        set.execute(params![
            self.side,
            tag,
            counter,
            u8::from(record.kind),
            int(record.born),
            int(record.data.as_ref().map_or(0, |(ver, _)| *ver)),
            data.transpose().map_err(fail)?,
            int(record.meta.as_ref().map_or(0, |(ver, _)| *ver)),
            meta.transpose().map_err(fail)?,
            int(record.gone.as_ref().map_or(0, |(ver, _)| *ver)),
            last.transpose().map_err(fail)?,
        ])?;
        Ok(())
    }
}

/// Where a node was last of which nobody knows a place.
fn lost() -> Option<Place> {
    Some((NodeId::ROOT, Name::new(b"lost").ok()?))
}
