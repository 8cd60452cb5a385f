//! The working tree as the hub would name it: nodes by their ids, places by the
//! ids of their directories. As of the last commit; the caller holds the
//! commit lock.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_protocol::merge::Place;
use cairn_protocol::{Data, Meta, Name, NodeId, NodeKind, ReplicaTag, XattrName};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashMap;

use crate::Result;
use crate::attr::Ino;
use crate::db::{self, corrupt, int, uint};
use crate::node::{Body, DirKey, Node};
use crate::replica::Inner;
use crate::rows::meta_of;
use crate::tree::key_of;

/// A node of the working tree.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) ino: Ino,
    pub(super) id: NodeId,
    pub(super) kind: NodeKind,
    pub(super) nlink: u32,
    /// Entries of a directory.
    pub(super) entries: u64,
    pub(super) meta: Meta,
    pub(super) data: Option<Data>,
    /// Its content is elsewhere still; `data` is what it was before.
    pub(super) unsealed: bool,
    pub(super) xattrs: BTreeMap<XattrName, Bytes>,
}

/// The working tree, with the ids as they are about to be.
#[derive(Debug)]
pub(super) struct Local<'a> {
    pub(super) inner: &'a Inner,
    pub(super) db: &'a Connection,
    tag: ReplicaTag,
    hash_key: &'a [u8; 32],
    bound: FxHashMap<u64, NodeId>,
    inodes: FxHashMap<NodeId, Option<Ino>>,
}

impl<'a> Local<'a> {
    pub(super) fn new(inner: &'a Inner, db: &'a Connection) -> Self {
        Self {
            inner,
            db,
            tag: ReplicaTag(inner.identity.tag),
            hash_key: &inner.identity.hash_key,
            bound: FxHashMap::default(),
            inodes: FxHashMap::default(),
        }
    }

    /// The replica's.
    pub(super) fn tag(&self) -> ReplicaTag {
        self.tag
    }

    /// Gives an inode another id; nothing has its old one any more.
    pub(super) fn bind(&mut self, ino: Ino, id: NodeId) -> Result<()> {
        let old = self.id(ino)?;
        self.inodes.insert(old, None);
        self.inodes.insert(id, Some(ino));
        self.bound.insert(ino.0, id);
        Ok(())
    }

    /// Takes back that an inode got a new id that only it has.
    pub(super) fn unbind(&mut self, ino: Ino, id: NodeId) {
        if let Some(new) = self.bound.remove(&ino.0) {
            self.inodes.remove(&new);
        }
        self.inodes.insert(id, Some(ino));
    }

    /// The inodes of ids that changed hands.
    pub(super) fn overrides(&self) -> &FxHashMap<NodeId, Option<Ino>> {
        &self.inodes
    }

    pub(super) fn set_overrides(&mut self, inodes: FxHashMap<NodeId, Option<Ino>>) {
        self.inodes = inodes;
    }

    /// The inodes that got other ids.
    pub(super) fn bound(&self) -> impl Iterator<Item = (Ino, NodeId)> {
        self.bound.iter().map(|(ino, id)| (Ino(*ino), *id))
    }

    pub(super) fn id(&self, ino: Ino) -> Result<NodeId> {
        match self.bound.get(&ino.0) {
            Some(id) => Ok(*id),
            None => db::id_of(self.db, self.tag, ino),
        }
    }

    /// The inode of a node, which may have lost its last name and be open.
    pub(super) fn ino(&self, id: NodeId) -> Result<Option<Ino>> {
        match self.inodes.get(&id) {
            Some(ino) => Ok(*ino),
            None => db::ino_of(self.db, self.tag, id),
        }
    }

    /// The same for who asks of many nodes that mostly have none, and may know
    /// that of one by the ids that have rows.
    pub(super) fn ino_unless(
        &self,
        id: NodeId,
        is_new: impl FnOnce(&Connection) -> Result<bool>,
    ) -> Result<Option<Ino>> {
        // What inodes tell is in no row, and what changed hands is not yet.
        let is_apart =
            id.replica == self.tag || id == NodeId::ROOT || self.inodes.contains_key(&id);
        if !is_apart && is_new(self.db)? {
            return Ok(None);
        }
        self.ino(id)
    }

    pub(super) fn key(&self, name: &Name) -> DirKey {
        key_of(self.hash_key, name)
    }

    /// A name in a directory: what it points at, and the version of that.
    pub(super) fn name(&self, parent: Ino, key: &DirKey) -> Result<Option<(Ino, u64)>> {
        db::load_name(self.db, parent, key.0, &key.1)
    }

    pub(super) fn at(&self, place: &Place) -> Result<Option<NodeId>> {
        let Some(parent) = self.ino(place.0)? else {
            return Ok(None);
        };
        let found = self.name(parent, &self.key(&place.1))?;
        found.map(|(ino, _)| self.id(ino)).transpose()
    }

    /// The places of a node.
    pub(super) fn places(&self, ino: Ino) -> Result<Vec<Place>> {
        self.places_with(ino, &mut FxHashMap::default())
    }

    /// The same, with ids of directories that are known, and are remembered.
    pub(super) fn places_with(
        &self,
        ino: Ino,
        dirs: &mut FxHashMap<u64, NodeId>,
    ) -> Result<Vec<Place>> {
        let mut find = self
            .db
            .prepare_cached("SELECT parent, name FROM name WHERE child = ?")?;
        let mut rows = find.query([int(ino.0)])?;
        let mut places = Vec::new();
        while let Some(row) = rows.next()? {
            let name: Vec<u8> = row.get(1)?;
            let name = Name::new(&name).map_err(|e| corrupt(ino, e))?;
            let dir = uint(row.get(0)?);
            let id = match dirs.get(&dir) {
                Some(id) => *id,
                None => self.id(Ino(dir))?,
            };
            dirs.insert(dir, id);
            places.push((id, name));
        }
        Ok(places)
    }

    /// The names in a directory.
    pub(super) fn children(&self, dir: Ino) -> Result<Vec<Name>> {
        let mut find = self
            .db
            .prepare_cached("SELECT name FROM name WHERE parent = ?")?;
        let rows = find.query_map([int(dir.0)], |r| r.get::<_, Vec<u8>>(0))?;
        rows.map(|name| Name::new(&name?).map_err(|e| corrupt(dir, e)))
            .collect()
    }

    /// The directory that a directory is in.
    pub(super) fn parent(&self, dir: Ino) -> Result<Option<Ino>> {
        let parent: Option<i64> = self
            .db
            .prepare_cached("SELECT parent FROM name WHERE child = ?")?
            .query_row([int(dir.0)], |r| r.get(0))
            .optional()?;
        Ok(parent.map(|ino| Ino(uint(ino))))
    }

    /// A node with its registers.
    pub(super) fn node(&self, ino: Ino) -> Result<Option<Here>> {
        let Some(node) = db::load_node(self.db, ino)? else {
            return Ok(None);
        };
        let unsealed = node.kind == NodeKind::File && self.is_unsealed(ino)?;
        let entries = match &node.body {
            Body::Dir(dir) => dir.entries,
            _ => 0,
        };
        let xattrs = node.xattrs.iter().flat_map(|all| all.iter());
        let xattrs = xattrs.filter_map(|(name, x)| Some((name.clone(), x.value.clone()?)));
        let own = || {
            node.id
                .as_deref()
                .copied()
                .unwrap_or_else(|| db::own_id(self.tag, ino))
        };
        Ok(Some(Here {
            ino,
            id: self.bound.get(&ino.0).copied().unwrap_or_else(own),
            kind: node.kind,
            nlink: node.nlink,
            entries,
            meta: meta_of(node.perm, node.uid, node.gid, &node.times),
            data: data_of(&node),
            unsealed,
            xattrs: xattrs.collect(),
        }))
    }

    /// The node with an id, if it has a name.
    pub(super) fn live(&self, id: NodeId) -> Result<Option<Here>> {
        let Some(ino) = self.ino(id)? else {
            return Ok(None);
        };
        Ok(self.node(ino)?.filter(|here| here.nlink > 0))
    }

    /// Whether a node has a name.
    pub(super) fn is_live(&self, id: NodeId) -> Result<bool> {
        let ino = self.ino(id)?;
        ino.map_or(Ok(false), |ino| self.has_name(ino))
    }

    /// The same of an inode.
    pub(super) fn has_name(&self, ino: Ino) -> Result<bool> {
        let nlink: Option<u32> = self
            .db
            .prepare_cached("SELECT nlink FROM node WHERE ino = ?")?
            .query_row([int(ino.0)], |r| r.get(0))
            .optional()?;
        Ok(nlink.is_some_and(|nlink| nlink > 0))
    }

    fn is_unsealed(&self, ino: Ino) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM staging WHERE ino = ?)")?
            .query_row(params![int(ino.0)], |r| r.get(0))?)
    }
}

/// The value of a node's data register.
pub(super) fn data_of(node: &Node) -> Option<Data> {
    match &node.body {
        Body::File(file) => Some(file.base.to_data()),
        Body::Symlink(target) => Some(Data::Symlink {
            target: target.clone(),
        }),
        Body::Special if matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice) => {
            Some(Data::Special {
                rdev: u64::from(node.rdev),
            })
        }
        Body::Dir(_) | Body::Special => None,
    }
}
