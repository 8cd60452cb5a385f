//! What the edits of a batch say together, and whether that makes sense.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{NodeInfo, Place, ResolveError, TreeView};
use crate::cursor::Ver;
use crate::data::Data;
use crate::edit::{Edit, MetaFields};
use crate::id::NodeId;
use crate::name::XattrName;
use crate::register::{Meta, NodeKind};

/// Why the edits of a batch contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Two edits are of one register, or of the existence of one node.
    #[error("the edits {first} and {second} are of the same thing")]
    Twice {
        /// Index of one edit.
        first: usize,
        /// Index of the other.
        second: usize,
    },
    /// The content does not fit the kind of node.
    #[error("the edit {edit} gives node {node} content of another kind")]
    Kind {
        /// Index of the edit.
        edit: usize,
        /// The node.
        node: NodeId,
    },
    /// A node is new, and there is one of that id that is something else.
    #[error("node {0} is said to be new, but is known as something else")]
    NotNew(NodeId),
    /// A node is new, and no directory that is or comes to be leads to it.
    #[error("the new node {0} has no place")]
    Unplaced(NodeId),
    /// A directory would have two names.
    #[error("directory {0} is put at two places")]
    TwoParents(NodeId),
    /// The name is put into something that is no directory.
    #[error("the edit {edit} puts a name into node {node}, which is no directory")]
    NotDir {
        /// Index of the edit.
        edit: usize,
        /// The node.
        node: NodeId,
    },
    /// The root directory has no name, and always lives.
    #[error("the edit {edit} is of the root directory, which stays what and where it is")]
    Root {
        /// Index of the edit.
        edit: usize,
    },
}

/// A name that a batch changes.
#[derive(Clone, Debug)]
pub(super) struct NameEdit {
    pub(super) edit: usize,
    pub(super) place: Place,
    pub(super) was: Option<NodeId>,
    pub(super) node: Option<NodeId>,
}

impl NameEdit {
    /// The node that it takes from the place.
    pub(super) fn removes(&self) -> Option<NodeId> {
        self.was.filter(|_| self.was != self.node)
    }

    /// The node that it puts there.
    pub(super) fn adds(&self) -> Option<NodeId> {
        self.node.filter(|_| self.was != self.node)
    }
}

#[derive(Clone, Debug)]
pub(super) struct DataEdit {
    pub(super) edit: usize,
    pub(super) base: Ver,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) struct MetaEdit {
    pub(super) edit: usize,
    pub(super) fields: MetaFields,
    pub(super) meta: Meta,
}

/// The edits of a batch, by what they are of. Ids of nodes that never came to
/// be are those of the nodes that stand for them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) births: BTreeMap<NodeId, NodeKind>,
    /// Nodes that are said to be new, and that another stands for already.
    pub(super) aliases: Vec<(usize, NodeId, NodeId)>,
    pub(super) names: Vec<NameEdit>,
    pub(super) data: BTreeMap<NodeId, DataEdit>,
    /// Second contents of nodes, which were two nodes for who wrote them.
    pub(super) more_data: Vec<(NodeId, DataEdit)>,
    pub(super) metas: BTreeMap<NodeId, MetaEdit>,
    pub(super) xattrs: BTreeMap<(NodeId, XattrName), (usize, Option<Bytes>)>,
    /// The version of the content that who dropped a node saw.
    pub(super) drops: BTreeMap<NodeId, Ver>,
}

impl Batch {
    pub(super) fn read<T: TreeView>(
        tree: &T,
        edits: &[Edit],
    ) -> Result<Self, ResolveError<T::Error>> {
        refuse_twice(edits).map_err(ResolveError::Batch)?;
        let mut batch = Self::default();
        let id = |node: NodeId| {
            let alias = tree.alias(node).map_err(ResolveError::Tree)?;
            Ok::<_, ResolveError<T::Error>>(alias.unwrap_or(node))
        };
        let maybe = |node: Option<NodeId>| node.map(&id).transpose();
        for (edit, said) in edits.iter().enumerate() {
            match said {
                Edit::New { node, kind } => batch.birth(tree, edit, *node, *kind)?,
                Edit::Data { node, base, data } => {
                    let (base, data) = (*base, data.clone());
                    let new = DataEdit { edit, base, data };
                    match batch.data.entry(id(*node)?) {
                        Entry::Vacant(slot) => drop(slot.insert(new)),
                        Entry::Occupied(slot) => batch.more_data.push((*slot.key(), new)),
                    }
                }
                Edit::Meta {
                    node, fields, meta, ..
                } => {
                    let (fields, meta) = (*fields, *meta);
                    batch
                        .metas
                        .insert(id(*node)?, MetaEdit { edit, fields, meta });
                }
                Edit::Xattr {
                    node, name, value, ..
                } => {
                    let key = (id(*node)?, name.clone());
                    batch.xattrs.insert(key, (edit, value.clone()));
                }
                Edit::Name {
                    parent,
                    name,
                    was,
                    node,
                } => batch.names.push(NameEdit {
                    edit,
                    place: (id(*parent)?, name.clone()),
                    was: maybe(*was)?,
                    node: maybe(*node)?,
                }),
                Edit::Drop { node, data_base } => {
                    batch.drops.insert(id(*node)?, *data_base);
                }
            }
        }
        batch.check(tree)?;
        for node in added_twice(edits) {
            if batch.kind(tree, id(node)?)? == Some(NodeKind::Dir) {
                return Err(ResolveError::Batch(BatchError::TwoParents(node)));
            }
        }
        Ok(batch)
    }

    fn birth<T: TreeView>(
        &mut self,
        tree: &T,
        edit: usize,
        node: NodeId,
        kind: NodeKind,
    ) -> Result<(), ResolveError<T::Error>> {
        if let Some(to) = tree.alias(node).map_err(ResolveError::Tree)? {
            self.aliases.push((edit, node, to));
            return Ok(());
        }
        match tree.node(node).map_err(ResolveError::Tree)? {
            Some(NodeInfo { kind: known, .. }) if known == kind => {}
            Some(_) => return Err(ResolveError::Batch(BatchError::NotNew(node))),
            None => {
                self.births.insert(node, kind);
            }
        }
        Ok(())
    }

    /// What a node is, if anybody knows it.
    pub(super) fn kind<T: TreeView>(
        &self,
        tree: &T,
        node: NodeId,
    ) -> Result<Option<NodeKind>, ResolveError<T::Error>> {
        if let Some(kind) = self.births.get(&node) {
            return Ok(Some(*kind));
        }
        let info = tree.node(node).map_err(ResolveError::Tree)?;
        Ok(info.map(|info| info.kind))
    }

    fn check<T: TreeView>(&self, tree: &T) -> Result<(), ResolveError<T::Error>> {
        let wrong = |error| Err(ResolveError::Batch(error));
        let more = self.more_data.iter().map(|(node, data)| (node, data));
        for (node, DataEdit { edit, data, .. }) in self.data.iter().chain(more) {
            match self.kind(tree, *node)? {
                Some(kind) if !data.fits(kind) => {
                    let (edit, node) = (*edit, *node);
                    return wrong(BatchError::Kind { edit, node });
                }
                _ => {}
            }
        }
        for name in &self.names {
            let (edit, node) = (name.edit, name.place.0);
            if !matches!(self.kind(tree, node)?, None | Some(NodeKind::Dir)) {
                return wrong(BatchError::NotDir { edit, node });
            }
            if name.was == Some(NodeId::ROOT) || name.node == Some(NodeId::ROOT) {
                return wrong(BatchError::Root { edit });
            }
        }
        Ok(())
    }
}

/// The nodes that are put at several places. By the ids of who put them there:
/// two directories that are one at the hub may well be at two places.
fn added_twice(edits: &[Edit]) -> Vec<NodeId> {
    let mut once = BTreeSet::new();
    let added = edits.iter().filter_map(|edit| match edit {
        Edit::Name { was, node, .. } if was != node => *node,
        _ => None,
    });
    added.filter(|node| !once.insert(*node)).collect()
}

/// Refuses two edits of one register, or of one node's beginning or end.
fn refuse_twice(edits: &[Edit]) -> Result<(), BatchError> {
    let mut registers = BTreeMap::new();
    let (mut births, mut drops) = (BTreeMap::new(), BTreeMap::new());
    for (second, edit) in edits.iter().enumerate() {
        let first = match edit {
            Edit::New { node, .. } => births.insert(*node, second),
            Edit::Drop { node, .. } => drops.insert(*node, second),
            other => other
                .register()
                .and_then(|key| registers.insert(key, second)),
        };
        if let Some(first) = first {
            return Err(BatchError::Twice { first, second });
        }
    }
    Ok(())
}
