//! A shared tree as the merge rules look at it.
//!
//! They ask for the same names again and again, and for much about nodes that
//! the batch itself makes. [`View`] remembers the one and knows the other
//! without asking: a node whose counter is above all that are known of its
//! replica is new.

use std::cell::RefCell;

use bytes::Bytes;
use cairn_protocol::merge::{NodeInfo, Place, TreeView};
use cairn_protocol::{Data, Meta, Name, NodeId, ReplicaTag, Ver, XattrName};
use rusqlite::params;
use rustc_hash::FxHashMap;

use super::{Shared, key, name_of};
use crate::{FsError, Result};

/// The highest counters of replicas that are known.
#[derive(Debug, Default)]
pub(crate) struct Highest(FxHashMap<ReplicaTag, Option<i64>>);

impl Highest {
    /// Whether a node is above all in a table.
    pub(crate) fn is_new(&mut self, tree: Shared<'_>, table: &str, node: NodeId) -> Result<bool> {
        let (tag, counter) = key(node);
        let highest = if let Some(highest) = self.0.get(&node.replica) {
            *highest
        } else {
            let sql = format!("SELECT max(counter) FROM {table} WHERE side = ? AND tag = ?");
            let mut find = tree.db.prepare_cached(&sql)?;
            let highest = find.query_row(params![tree.side, tag], |r| r.get(0))?;
            self.0.insert(node.replica, highest);
            highest
        };
        Ok(highest.is_none_or(|highest| counter > highest))
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
