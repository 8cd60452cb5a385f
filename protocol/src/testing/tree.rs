//! A tree of registers with versions, in ordered maps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;

use crate::change::Entry;
use crate::cursor::Ver;
use crate::data::Data;
use crate::id::NodeId;
use crate::merge::{NodeInfo, Place, Resolution, TreeView};
use crate::name::{Name, XattrName};
use crate::register::{Meta, NodeKind};

/// A tree. Two are equal when nobody can tell them apart by looking at nodes,
/// names, contents and attributes; versions do not count.
#[derive(Clone, Debug, Default)]
pub struct ModelTree {
    pub(super) kinds: BTreeMap<NodeId, NodeKind>,
    pub(super) names: BTreeMap<Place, NodeId>,
    pub(super) places: BTreeMap<NodeId, BTreeSet<Place>>,
    pub(super) data: BTreeMap<NodeId, (Ver, Data)>,
    pub(super) metas: BTreeMap<NodeId, (Ver, Meta)>,
    pub(super) xattrs: BTreeMap<(NodeId, XattrName), Bytes>,
    /// Where dead nodes were last.
    pub(super) dead: BTreeMap<NodeId, Place>,
    pub(super) aliases: BTreeMap<NodeId, NodeId>,
}

/// What is wrong with a tree (I11).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A directory has several names.
    #[error("directory {0} has several names")]
    SeveralNames(NodeId),
    /// A name is in something that is no directory, or leads nowhere.
    #[error("the name {1} in {0} is in no directory or leads nowhere")]
    Dangling(NodeId, Name),
    /// The root does not lead to a node.
    #[error("node {0} is not reachable from the root")]
    Unreachable(NodeId),
}

impl PartialEq for ModelTree {
    fn eq(&self, other: &Self) -> bool {
        self.contents() == other.contents()
    }
}

impl Eq for ModelTree {}

type NodeContent<'a> = (NodeKind, Option<&'a Data>, Option<&'a Meta>);

impl ModelTree {
    /// A tree with nothing but its root.
    pub fn new() -> Self {
        let mut tree = Self::default();
        tree.kinds.insert(NodeId::ROOT, NodeKind::Dir);
        tree
    }

    /// Everything that can be seen from the root.
    #[allow(
        clippy::type_complexity,
        reason = "the names, the nodes, the attributes: compared as they are"
    )]
    fn contents(
        &self,
    ) -> (
        &BTreeMap<Place, NodeId>,
        BTreeMap<NodeId, NodeContent<'_>>,
        BTreeMap<&(NodeId, XattrName), &Bytes>,
    ) {
        let live = |node: &NodeId| self.is_live(*node);
        let nodes = self.kinds.iter().filter(|(node, _)| live(node));
        let nodes = nodes.map(|(node, kind)| {
            let data = self.data.get(node).map(|(_, data)| data);
            let meta = self.metas.get(node).map(|(_, meta)| meta);
            (*node, (*kind, data, meta))
        });
        let xattrs = self.xattrs.iter().filter(|((node, _), _)| live(node));
        (&self.names, nodes.collect(), xattrs.collect())
    }

    /// A few things in which another tree differs, for who has to find out why.
    pub(super) fn unlike(&self, other: &Self) -> String {
        let mut unlike = Vec::new();
        for place in self.names.keys().chain(other.names.keys()) {
            let (here, there) = (self.at(place), other.at(place));
            if here != there {
                unlike.push(format!("{} in {}: {here:?}, {there:?}", place.1, place.0));
            }
        }
        for (node, _) in self.live().filter(|(node, _)| other.is_live(*node)) {
            let values = |tree: &Self| {
                let values = (tree.content(node).cloned(), tree.attributes(node).copied());
                let xattrs = tree.xattrs_of(node);
                let xattrs = xattrs.map(|(key, value)| (key.1.clone(), value.clone()));
                (tree.kind(node), values, xattrs.collect::<Vec<_>>())
            };
            let (here, there) = (values(self), values(other));
            if here != there {
                unlike.push(format!("{node}: {here:?}, {there:?}"));
            }
        }
        unlike.dedup();
        unlike.truncate(3);
        unlike.join("; ")
    }

    /// Whether a node has a name, or is the root.
    pub fn is_live(&self, node: NodeId) -> bool {
        node == NodeId::ROOT || self.places.get(&node).is_some_and(|p| !p.is_empty())
    }

    /// What a name stands for.
    pub fn at(&self, place: &Place) -> Option<NodeId> {
        self.names.get(place).copied()
    }

    /// What a node is.
    pub fn kind(&self, node: NodeId) -> Option<NodeKind> {
        self.kinds.get(&node).copied()
    }

    /// All nodes that live, the root first.
    pub fn live(&self) -> impl Iterator<Item = (NodeId, NodeKind)> {
        let nodes = self.kinds.iter().map(|(node, kind)| (*node, *kind));
        nodes.filter(|(node, _)| self.is_live(*node))
    }

    /// All names, and what they stand for.
    pub fn names(&self) -> impl Iterator<Item = (&Place, NodeId)> {
        self.names.iter().map(|(place, node)| (place, *node))
    }

    /// The content of a node.
    pub fn content(&self, node: NodeId) -> Option<&Data> {
        self.data.get(&node).map(|(_, data)| data)
    }

    /// The attributes of a node.
    pub fn attributes(&self, node: NodeId) -> Option<&Meta> {
        self.metas.get(&node).map(|(_, meta)| meta)
    }

    /// The extended attributes of a node.
    pub(super) fn xattrs_of(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (&(NodeId, XattrName), &Bytes)> {
        self.xattrs.iter().filter(move |((of, _), _)| *of == node)
    }

    /// An extended attribute of a node.
    pub fn xattr_of(&self, node: NodeId, name: &XattrName) -> Option<&Bytes> {
        self.xattrs.get(&(node, name.clone()))
    }

    pub(super) fn set_xattr(&mut self, node: NodeId, name: &XattrName, value: Option<Bytes>) {
        let key = (node, name.clone());
        match value {
            Some(value) => self.xattrs.insert(key, value),
            None => self.xattrs.remove(&key),
        };
    }

    /// Whether a directory is empty.
    pub fn is_empty(&self, dir: NodeId) -> bool {
        !self.names.keys().any(|(parent, _)| *parent == dir)
    }

    /// Whether `dir` is `above` or somewhere below it.
    pub fn is_below(&self, mut dir: NodeId, above: NodeId) -> bool {
        for _ in 0..=self.kinds.len() {
            if dir == above {
                return true;
            }
            let Some(place) = self.places.get(&dir).and_then(BTreeSet::first) else {
                return false;
            };
            dir = place.0;
        }
        true
    }

    pub(super) fn set_name(&mut self, place: &Place, node: Option<NodeId>) {
        let old = match node {
            Some(new) => {
                let places = self.places.entry(new).or_default();
                places.insert(place.clone());
                self.names.insert(place.clone(), new)
            }
            None => self.names.remove(place),
        };
        if let Some(old) = old.filter(|old| Some(*old) != node)
            && let Some(places) = self.places.get_mut(&old)
        {
            places.remove(place);
        }
    }

    /// Makes what a batch came to part of the tree, as commit `ver`.
    pub fn commit(&mut self, ver: Ver, resolution: &Resolution) {
        for entry in &resolution.entries {
            self.apply(ver, entry);
        }
        self.dead.extend(resolution.deaths.iter().cloned());
    }

    /// Sets one register, as a hub tells it: of a node that it tells of anew, it
    /// tells all attributes (HUB-3).
    pub fn receive(&mut self, ver: Ver, entry: &Entry) {
        if let Entry::Node { id, .. } = entry {
            self.xattrs.retain(|(node, _), _| node != id);
        }
        self.apply(ver, entry);
    }

    /// Sets one register.
    pub fn apply(&mut self, ver: Ver, entry: &Entry) {
        match entry {
            Entry::Node { id, kind } => {
                self.kinds.insert(*id, *kind);
            }
            Entry::Data { node, data } => {
                self.data.insert(*node, (ver, data.clone()));
            }
            Entry::Meta { node, meta } => {
                self.metas.insert(*node, (ver, *meta));
            }
            Entry::Name { parent, name, node } => {
                let place = (*parent, name.clone());
                let old = self.at(&place);
                self.set_name(&place, *node);
                if let Some(node) = node {
                    self.dead.remove(node);
                }
                if let Some(old) = old.filter(|old| !self.is_live(*old)) {
                    self.dead.insert(old, place);
                }
            }
            Entry::Xattr { node, name, value } => {
                self.set_xattr(*node, name, value.clone());
            }
            Entry::Gone { .. } => {}
        }
    }

    /// Forgets what is dead.
    pub(super) fn forget(&mut self) {
        let places = std::mem::take(&mut self.places);
        let names = places.into_iter().filter(|(_, places)| !places.is_empty());
        self.places = names.collect();
        let live: BTreeSet<NodeId> = self.live().map(|(node, _)| node).collect();
        self.kinds.retain(|node, _| live.contains(node));
        self.data.retain(|node, _| live.contains(node));
        self.metas.retain(|node, _| live.contains(node));
        self.xattrs.retain(|(node, _), _| live.contains(node));
        self.dead.clear();
        self.aliases.clear();
    }

    /// The entries that make it, with the versions of contents and attributes.
    /// What is dead and not forgotten is among them, for it may live again: with
    /// its last name, and with its end after all else that is said of it, without
    /// which it would live and have no name. That is of commit `head`.
    pub(super) fn entries(&self, head: Ver) -> Vec<(Ver, Entry)> {
        let mut entries = Vec::new();
        for (id, kind) in self.kinds.iter().map(|(id, kind)| (*id, *kind)) {
            entries.push((0, Entry::Node { id, kind }));
            if let Some((ver, data)) = self.data.get(&id) {
                let data = data.clone();
                entries.push((*ver, Entry::Data { node: id, data }));
            }
            if let Some((ver, meta)) = self.metas.get(&id) {
                let meta = *meta;
                entries.push((*ver, Entry::Meta { node: id, meta }));
            }
            for ((node, name), value) in self.xattrs_of(id) {
                let (node, name, value) = (*node, name.clone(), Some(value.clone()));
                entries.push((0, Entry::Xattr { node, name, value }));
            }
        }
        let name = |(parent, name): &Place, node| {
            let (parent, name) = (*parent, name.clone());
            Entry::Name { parent, name, node }
        };
        let dead = || self.dead.iter().filter(|(node, _)| !self.is_live(**node));
        entries.extend(dead().map(|(node, place)| (0, name(place, Some(*node)))));
        let free = dead().filter(|(_, place)| self.at(place).is_none());
        entries.extend(free.map(|(_, place)| (head, name(place, None))));
        let names = self.names.iter();
        entries.extend(names.map(|(place, node)| (0, name(place, Some(*node)))));
        let nodes = self.kinds.keys().copied();
        let ended = nodes.filter(|node| !self.is_live(*node));
        entries.extend(ended.map(|node| (head, Entry::Gone { node })));
        entries
    }

    /// Checks that it is a tree (I11).
    ///
    /// # Errors
    ///
    /// [`Broken`]: what is wrong with it.
    pub fn check(&self) -> Result<(), Broken> {
        for ((parent, name), node) in &self.names {
            let in_dir = self.kind(*parent) == Some(NodeKind::Dir);
            if !in_dir || self.kind(*node).is_none() {
                return Err(Broken::Dangling(*parent, name.clone()));
            }
        }
        for (node, kind) in self.live() {
            let places = self.places.get(&node).map_or(0, BTreeSet::len);
            if kind == NodeKind::Dir && places > 1 {
                return Err(Broken::SeveralNames(node));
            }
            for (parent, _) in self.places.get(&node).into_iter().flatten() {
                if !self.is_rooted(*parent) {
                    return Err(Broken::Unreachable(node));
                }
            }
        }
        Ok(())
    }

    fn is_rooted(&self, mut dir: NodeId) -> bool {
        for _ in 0..=self.kinds.len() {
            if dir == NodeId::ROOT {
                return true;
            }
            match self.places.get(&dir).and_then(BTreeSet::first) {
                Some(place) => dir = place.0,
                None => return false,
            }
        }
        false
    }
}

impl TreeView for ModelTree {
    type Error = Infallible;

    fn node(&self, node: NodeId) -> Result<Option<NodeInfo>, Infallible> {
        let last = self.dead.get(&node).filter(|_| !self.is_live(node));
        Ok(self.kind(node).map(|kind| NodeInfo {
            kind,
            last: last.cloned(),
        }))
    }

    fn child(&self, place: &Place) -> Result<Option<NodeId>, Infallible> {
        Ok(self.at(place))
    }

    fn places(&self, node: NodeId) -> Result<Vec<Place>, Infallible> {
        let places = self.places.get(&node);
        Ok(places.into_iter().flatten().cloned().collect())
    }

    fn has_child(
        &self,
        dir: NodeId,
        counts: &mut dyn FnMut(&Name) -> bool,
    ) -> Result<bool, Infallible> {
        let mut names = self.names.keys().filter(|(parent, _)| *parent == dir);
        Ok(names.any(|(_, name)| counts(name)))
    }

    fn data(&self, node: NodeId) -> Result<Option<(Ver, Data)>, Infallible> {
        Ok(self.data.get(&node).cloned())
    }

    fn meta(&self, node: NodeId) -> Result<Option<(Ver, Meta)>, Infallible> {
        Ok(self.metas.get(&node).copied())
    }

    fn xattr(&self, node: NodeId, name: &XattrName) -> Result<Option<Bytes>, Infallible> {
        Ok(self.xattrs.get(&(node, name.clone())).cloned())
    }

    fn alias(&self, node: NodeId) -> Result<Option<NodeId>, Infallible> {
        Ok(self.aliases.get(&node).copied())
    }
}
