//! A shared tree as the merge rules look at it.
//!
//! They ask for the same names again and again, and for much about nodes that
//! the batch itself makes. [`View`] remembers the one and knows the other
//! without asking: a node whose counter is above all that are known of its
//! replica is new.

use std::cell::RefCell;

use bytes::Bytes;
use cairn_protocol::merge::{NodeInfo, Place, TreeView};
use cairn_protocol::{Data, Meta, Name, NodeId, NodeKind, ReplicaTag, Ver, XattrName};
use rusqlite::{Connection, params};
use rustc_hash::FxHashMap;

use super::{Shared, key, name_of};
use crate::{FsError, Result};

/// The highest counters of replicas that are known.
#[derive(Debug, Default)]
pub(crate) struct Highest(FxHashMap<ReplicaTag, Option<i64>>);

impl Highest {
    /// Whether a node is above all in a table.
    pub(crate) fn is_new(&mut self, tree: Shared<'_>, table: &str, node: NodeId) -> Result<bool> {
        self.is_above(node, |tag| {
            let sql = format!("SELECT max(counter) FROM {table} WHERE side = ? AND tag = ?");
            let mut find = tree.db.prepare_cached(&sql)?;
            Ok(find.query_row(params![tree.side, tag], |r| r.get(0))?)
        })
    }

    /// Whether a node is above all in the working tree whose inodes do not tell
    /// their ids. The caller knows that it is none of this replica's own.
    pub(crate) fn is_new_here(&mut self, db: &Connection, node: NodeId) -> Result<bool> {
        self.is_above(node, |tag| {
            let mut find = db.prepare_cached("SELECT max(counter) FROM node WHERE tag = ?")?;
            Ok(find.query_row([tag], |r| r.get(0))?)
        })
    }

    fn is_above(
        &mut self,
        node: NodeId,
        find: impl FnOnce(i64) -> Result<Option<i64>>,
    ) -> Result<bool> {
        let (tag, counter) = key(node);
        let highest = if let Some(highest) = self.0.get(&node.replica) {
            *highest
        } else {
            *self.0.entry(node.replica).or_insert(find(tag)?)
        };
        Ok(highest.is_none_or(|highest| counter > highest))
    }

    fn add(&mut self, node: NodeId) {
        if let Some(highest) = self.0.get_mut(&node.replica) {
            *highest = (*highest).max(Some(key(node).1));
        }
    }
}

/// The highest counters in a working tree that grows. Directories are apart: a
/// batch makes them before what is in them, whose counters may be lower.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    dirs: Highest,
    others: Highest,
}

impl Growing {
    /// See [`Highest::is_new_here`].
    pub(crate) fn is_new(&mut self, db: &Connection, node: NodeId, kind: NodeKind) -> Result<bool> {
        // Both are asked, for what they know is from when they were asked first.
        let of_dirs = self.dirs.is_new_here(db, node)?;
        let of_others = self.others.is_new_here(db, node)?;
        Ok(match kind {
            NodeKind::Dir => of_dirs,
            _ => of_others,
        })
    }

    /// Notes that a node has come.
    pub(crate) fn add(&mut self, node: NodeId, kind: NodeKind) {
        match kind {
            NodeKind::Dir => self.dirs.add(node),
            _ => self.others.add(node),
        }
    }
}

/// A tree that nobody changes while it is looked at.
#[derive(Debug)]
pub(crate) struct View<'a> {
    tree: Shared<'a>,
    nodes: RefCell<Highest>,
    aliases: RefCell<Highest>,
    children: RefCell<FxHashMap<Place, Option<NodeId>>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(tree: Shared<'a>) -> Self {
        Self {
            tree,
            nodes: RefCell::default(),
            aliases: RefCell::default(),
            children: RefCell::default(),
        }
    }

    fn is_new(&self, node: NodeId) -> Result<bool> {
        let root = node == NodeId::ROOT;
        Ok(!root
            && self
                .nodes
                .borrow_mut()
                .is_new(self.tree, "shared_node", node)?)
    }
}

impl TreeView for View<'_> {
    type Error = FsError;

    fn node(&self, node: NodeId) -> Result<Option<NodeInfo>> {
        if self.is_new(node)? {
            return Ok(None);
        }
        self.tree.node(node)
    }

    fn child(&self, place: &Place) -> Result<Option<NodeId>> {
        if let Some(known) = self.children.borrow().get(place) {
            return Ok(*known);
        }
        let node = if self.is_new(place.0)? {
            None
        } else {
            self.tree.child(place)?
        };
        self.children.borrow_mut().insert(place.clone(), node);
        Ok(node)
    }

    fn places(&self, node: NodeId) -> Result<Vec<Place>> {
        if self.is_new(node)? {
            return Ok(Vec::new());
        }
        self.tree.places(node)
    }

    fn has_child(&self, dir: NodeId, counts: &mut dyn FnMut(&Name) -> bool) -> Result<bool> {
        Ok(!self.is_new(dir)? && self.tree.has_child(dir, counts)?)
    }

    fn data(&self, node: NodeId) -> Result<Option<(Ver, Data)>> {
        if self.is_new(node)? {
            return Ok(None);
        }
        self.tree.data(node)
    }

    fn meta(&self, node: NodeId) -> Result<Option<(Ver, Meta)>> {
        if self.is_new(node)? {
            return Ok(None);
        }
        self.tree.meta(node)
    }

    fn xattr(&self, node: NodeId, name: &XattrName) -> Result<Option<Bytes>> {
        if self.is_new(node)? {
            return Ok(None);
        }
        self.tree.xattr(node, name)
    }

    fn alias(&self, node: NodeId) -> Result<Option<NodeId>> {
        let mut aliases = self.aliases.borrow_mut();
        if aliases.is_new(self.tree, "shared_alias", node)? {
            return Ok(None);
        }
        self.tree.alias(node)
    }
}

impl TreeView for Shared<'_> {
    type Error = FsError;

    fn node(&self, node: NodeId) -> Result<Option<NodeInfo>> {
        Ok(self.record(node)?.map(|record| NodeInfo {
            kind: record.kind,
            last: record.gone.map(|(_, last)| last),
        }))
    }

    fn child(&self, place: &Place) -> Result<Option<NodeId>> {
        Ok(self.name(place)?.and_then(|(node, _)| node))
    }

    fn places(&self, node: NodeId) -> Result<Vec<Place>> {
        self.places_of(node)
    }

    fn has_child(&self, dir: NodeId, counts: &mut dyn FnMut(&Name) -> bool) -> Result<bool> {
        let (tag, counter) = key(dir);
        let mut find = self.db.prepare_cached(
            "SELECT name FROM shared_name
             WHERE side = ? AND tag = ? AND counter = ? AND node_tag IS NOT NULL",
        )?;
        let mut rows = find.query(params![self.side, tag, counter])?;
        while let Some(row) = rows.next()? {
            if counts(&name_of(row, 0)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn data(&self, node: NodeId) -> Result<Option<(Ver, Data)>> {
        Ok(self.record(node)?.and_then(|record| record.data))
    }

    fn meta(&self, node: NodeId) -> Result<Option<(Ver, Meta)>> {
        Ok(self.record(node)?.and_then(|record| record.meta))
    }

    fn xattr(&self, node: NodeId, name: &XattrName) -> Result<Option<Bytes>> {
        Ok(self.attribute(node, name)?.and_then(|(value, _)| value))
    }

    fn alias(&self, node: NodeId) -> Result<Option<NodeId>> {
        self.alias_of(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_here_is_never_new_whatever_came_before_it() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE node(ino INTEGER PRIMARY KEY, tag INTEGER, counter INTEGER);
             CREATE UNIQUE INDEX node_global ON node(tag, counter) WHERE tag IS NOT NULL;
             INSERT INTO node VALUES(1, NULL, NULL), (2, 7, 40);",
        )
        .unwrap();
        let node = |tag, counter| NodeId {
            replica: ReplicaTag(tag),
            counter,
        };
        let mut growing = Growing::default();
        let is_new = |growing: &mut Growing, tag, counter, kind| {
            growing.is_new(&db, node(tag, counter), kind).unwrap()
        };
        let (dir, file) = (NodeKind::Dir, NodeKind::File);
        assert!(!is_new(&mut growing, 7, 40, file) && is_new(&mut growing, 7, 41, file));
        // A directory comes first, then what is in it, which is older.
        growing.add(node(7, 90), dir);
        assert!(!is_new(&mut growing, 7, 90, dir) && is_new(&mut growing, 7, 91, dir));
        assert!(is_new(&mut growing, 7, 60, file));
        growing.add(node(7, 60), file);
        assert!(!is_new(&mut growing, 7, 60, file) && is_new(&mut growing, 7, 61, file));
        // What came of a replica before that was asked for is in the table.
        growing.add(node(8, 5), file);
        db.execute("INSERT INTO node VALUES(4, 8, 5)", []).unwrap();
        assert!(!is_new(&mut growing, 8, 5, file) && is_new(&mut growing, 8, 6, file));
    }
}
