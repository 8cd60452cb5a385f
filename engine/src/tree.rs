//! The part of the tree that is in memory: the only place that changes nodes
//! and names, and stamps each change with the next version.
//!
//! Every function here works on memory alone. What is not in memory is
//! reported as [`Need`]; the caller loads it without the lock and tries again.
//! So a function must look before it touches: all its look-ups come first.
//!
//! Invariants:
//! * what is dirty or in flight is in memory; what is absent here is in the
//!   database as it was last committed;
//! * a directory's `pinned` counts its dirty and in-flight entries.

use std::collections::BTreeSet;

use cairn_protocol::{ChunkHash, Name, NodeId, NodeKind, ReplicaTag, Timestamp, Ver};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::attr::Ino;
use crate::direct::DirectUse;
use crate::node::{Body, DirBody, DirKey, Dirent, FileBody, Node, Persist, Staging};
use crate::upstream::Rider;
use crate::{FsError, Result};

/// What a function of the tree needs in memory before it can go on.
#[derive(Debug, Clone)]
pub(crate) enum Need {
    /// A node.
    Node(Ino),
    /// One name in a directory.
    Name(Ino, DirKey),
    /// The entries of a directory from this hash on, and their nodes.
    Page(Ino, u64),
    /// The content of a small file.
    Content(Ino),
    /// A staging file for this file, with what is in memory moved to it.
    Staging(Ino),
    /// This file alone with its staging file, which it shares with others.
    Alone(Ino),
    /// This file taken out of the pack that somebody reads directly.
    Unpacked(Ino),
}

/// Why a function of the tree stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Fs(FsError),
    Need(Need),
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Self {
        Self::Fs(error)
    }
}

pub(crate) type Step<T> = std::result::Result<T, Stop>;

/// A node that is gone: its rows go with the next commit.
#[derive(Debug, Clone)]
pub(crate) struct Gone {
    pub(crate) ino: Ino,
    /// See [`Node::id`].
    pub(crate) id: Option<Box<NodeId>>,
    pub(crate) ver: Ver,
    pub(crate) was_file: bool,
}

/// The nodes in memory, each in a place of its own: the table doubles when
/// what was evicted has left marks in it, and must be small to do so.
#[derive(Debug, Default)]
pub(crate) struct Nodes(FxHashMap<u64, Box<Node>>);

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the methods are those of the map within"
)]
impl Nodes {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
    pub(crate) fn get(&self, ino: &u64) -> Option<&Node> {
        self.0.get(ino).map(|n| &**n)
    }
    pub(crate) fn get_mut(&mut self, ino: &u64) -> Option<&mut Node> {
        self.0.get_mut(ino).map(|n| &mut **n)
    }
    pub(crate) fn insert(&mut self, ino: u64, node: Node) {
        self.0.insert(ino, Box::new(node));
    }
    pub(crate) fn add(&mut self, ino: u64, node: Node) {
        self.0.entry(ino).or_insert_with(|| Box::new(node));
    }
    pub(crate) fn remove(&mut self, ino: &u64) -> Option<Node> {
        self.0.remove(ino).map(|n| *n)
    }
    pub(crate) fn values(&self) -> impl Iterator<Item = &Node> {
        self.0.values().map(|n| &**n)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&u64, &Node)> {
        self.0.iter().map(|(i, n)| (i, &**n))
    }
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&u64, &mut Node) -> bool) {
        self.0.retain(|i, n| keep(i, n));
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Nodes,
    pub(crate) next_ino: u64,
    /// The newest version given.
    pub(crate) seq: Ver,
    pub(crate) dirty_nodes: BTreeSet<u64>,
    pub(crate) dirty_names: BTreeSet<(u64, DirKey)>,
    pub(crate) gone: Vec<Gone>,
    /// Nodes that are gone and whose rows are not: they are not loaded again.
    pub(crate) dying: FxHashSet<u64>,
    /// Staging files that no file uses any more; removed after a commit.
    pub(crate) dropped_staging: Vec<u64>,
    /// Staging files that are content of several files, and those files.
    pub(crate) shared: FxHashMap<u64, BTreeSet<u64>>,
    /// Files in direct use; see [`crate::direct`].
    pub(crate) direct: BTreeSet<u64>,
    /// Number of nodes, stored and not.
    pub(crate) count: u64,
    /// Grows when something leaves memory: a load that ran meanwhile is stale.
    pub(crate) evictions: u64,
    pub(crate) tick: u32,
    /// Chunks that seals since the last commit count on; see [`crate::chunks`].
    pub(crate) leased: Vec<ChunkHash>,
    /// What has to be in the same transaction as the changes up to now.
    pub(crate) rider: Option<Box<Rider>>,
    /// Bytes of file contents in memory.
    pub(crate) memory: usize,
    hash_key: [u8; 32],
}

impl Tree {
    pub(crate) fn new(hash_key: [u8; 32], next_ino: u64, seq: Ver, count: u64) -> Self {
        Self {
            nodes: Nodes::default(),
            next_ino,
            seq,
            dirty_nodes: BTreeSet::new(),
            dirty_names: BTreeSet::new(),
            gone: Vec::new(),
            dying: FxHashSet::default(),
            dropped_staging: Vec::new(),
            shared: FxHashMap::default(),
            direct: BTreeSet::new(),
            count,
            evictions: 0,
            tick: 0,
            leased: Vec::new(),
            rider: None,
            memory: 0,
            hash_key,
        }
    }

    /// The place of a name in its directory. Keyed, so that nobody can make
    /// names that collide; 62 bits, and above the cookies of "." and "..".
    pub(crate) fn key(&self, name: &[u8]) -> Result<DirKey> {
        Ok(key_of(&self.hash_key, &valid_name(name)?))
    }

    pub(crate) fn node(&mut self, ino: Ino) -> Step<&mut Node> {
        self.tick = self.tick.wrapping_add(1);
        let tick = self.tick;
        if !self.direct.is_empty() && self.direct.contains(&ino.0) {
            self.refresh(ino);
        }
        match self.nodes.get_mut(&ino.0) {
            Some(node) => {
                node.used = tick;
                Ok(node)
            }
            None => Err(Stop::Need(Need::Node(ino))),
        }
    }

    pub(crate) fn dir(&mut self, ino: Ino) -> Step<&mut DirBody> {
        match &mut self.node(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(FsError::NotDir(ino.to_string()).into()),
        }
    }

    pub(crate) fn file(&mut self, ino: Ino) -> Step<&mut FileBody> {
        let node = self.node(ino)?;
        match &mut node.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(FsError::IsDir(ino.to_string()).into()),
            _ => Err(FsError::Invalid("not a regular file").into()),
        }
    }

    /// The target of a name, if it has one.
    pub(crate) fn find(&mut self, parent: Ino, key: &DirKey) -> Step<Option<Ino>> {
        let dir = self.dir(parent)?;
        match dir.children.get(key) {
            Some(dirent) => Ok(dirent.target),
            None if dir.complete => Ok(None),
            None => Err(Stop::Need(Need::Name(parent, key.clone()))),
        }
    }

    /// The target of a name that must exist.
    pub(crate) fn lookup(&mut self, parent: Ino, key: &DirKey) -> Step<Ino> {
        self.find(parent, key)?
            .ok_or_else(|| FsError::NotFound(key.1.to_string()).into())
    }

    /// The id of a node in memory, and of one that has none of its own.
    pub(crate) fn id_of(&self, tag: ReplicaTag, ino: Ino) -> NodeId {
        let id = self.nodes.get(&ino.0).and_then(|node| node.id.as_deref());
        id.copied().unwrap_or_else(|| crate::db::own_id(tag, ino))
    }

    pub(crate) fn next_ver(&mut self) -> Ver {
        self.seq += 1;
        self.seq
    }

    /// Marks a node's attributes as changed.
    pub(crate) fn touch_meta(&mut self, ino: Ino) {
        let ver = self.next_ver();
        if let Some(node) = self.nodes.get_mut(&ino.0) {
            node.meta_ver = ver;
            node.state.dirty = true;
            self.dirty_nodes.insert(ino.0);
        }
    }

    /// Marks a node as one to write, without a new version: access times, and
    /// staging files that are private to this replica.
    pub(crate) fn touch_private(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino.0) {
            node.state.dirty = true;
            self.dirty_nodes.insert(ino.0);
        }
    }

    /// Marks a file's content as changed. The version of its data register
    /// moves when the content is sealed; see [`crate::commit`].
    pub(crate) fn touch_content(&mut self, ino: Ino, now: Timestamp) {
        let ver = self.next_ver();
        if let Some(node) = self.nodes.get_mut(&ino.0) {
            node.times.mtime = now;
            node.times.ctime = now;
            node.meta_ver = ver;
            node.data_ver = ver;
            node.state.dirty = true;
            if let Body::File(file) = &mut node.body {
                file.data_dirty = true;
                file.generation += 1;
            }
            self.dirty_nodes.insert(ino.0);
        }
    }

    /// Points a name at a node, or at nothing.
    pub(crate) fn set_name(&mut self, parent: Ino, key: DirKey, target: Option<Ino>) {
        let ver = self.next_ver();
        let Some(Node {
            body: Body::Dir(dir),
            ..
        }) = self.nodes.get_mut(&parent.0)
        else {
            debug_assert!(false, "set_name on a directory that is not in memory");
            return;
        };
        let old = dir.children.get(&key).copied();
        let had = old.is_some_and(|d| d.target.is_some());
        dir.entries = dir.entries + u64::from(target.is_some()) - u64::from(had);
        let mut state = old.map_or(Persist::default(), |d| d.state);
        if target.is_none() && !state.stored && !state.in_flight {
            // Made and removed within one commit: nobody ever saw it.
            if state.dirty {
                dir.pinned -= 1;
                self.dirty_names.remove(&(parent.0, key.clone()));
            }
            if dir.complete {
                dir.children.remove(&key);
            } else {
                dir.children.insert(
                    key,
                    Dirent {
                        target: None,
                        ver,
                        state: Persist::default(),
                    },
                );
            }
            return;
        }
        if !state.pinned() {
            dir.pinned += 1;
        }
        state.dirty = true;
        dir.children
            .insert(key.clone(), Dirent { target, ver, state });
        self.dirty_names.insert((parent.0, key));
    }

    /// Whether rows that are needed are about to become others.
    pub(crate) fn is_turning(&self, need: &Need) -> bool {
        let Some(rider) = &self.rider else {
            return false;
        };
        match need {
            Need::Node(ino) | Need::Name(ino, _) => rider.turns(Some(*ino)),
            // Any node in it may be one of them.
            _ => rider.turns(None),
        }
    }

    /// Whether nothing of the tree waits for a commit.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty_nodes.is_empty()
            && self.dirty_names.is_empty()
            && self.gone.is_empty()
            && self.dropped_staging.is_empty()
            && self.rider.is_none()
    }

    /// Adds a node that exists nowhere else yet.
    pub(crate) fn add(&mut self, mut node: Node) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        self.count += 1;
        let ver = self.next_ver();
        node.born = ver;
        node.meta_ver = ver;
        node.data_ver = ver;
        node.state = Persist {
            dirty: true,
            ..Persist::default()
        };
        node.used = self.tick;
        self.nodes.insert(ino.0, node);
        self.dirty_nodes.insert(ino.0);
        ino
    }

    /// Forgets a node without names and handles.
    pub(crate) fn reap(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino.0) else {
            return;
        };
        let state = node.state;
        self.drop_overlay(ino);
        self.dirty_nodes.remove(&ino.0);
        self.count -= 1;
        self.evictions += 1;
        let Some(node) = self.nodes.remove(&ino.0) else {
            return;
        };
        if state.stored || state.in_flight {
            let ver = self.next_ver();
            self.bury(Gone {
                ino,
                id: node.id,
                ver,
                was_file: node.kind == NodeKind::File,
            });
        }
    }

    /// Notes that a node's rows must go.
    pub(crate) fn bury(&mut self, gone: Gone) {
        self.dying.insert(gone.ino.0);
        self.gone.push(gone);
    }

    /// The rows of these nodes went. A load that saw them before is stale.
    pub(crate) fn buried(&mut self, gone: &[Gone]) {
        if !gone.is_empty() {
            self.evictions += 1;
        }
        for gone in gone {
            self.dying.remove(&gone.ino.0);
        }
    }

    /// Lets go of a file's unsealed content.
    pub(crate) fn drop_overlay(&mut self, ino: Ino) {
        use crate::node::Overlay;
        let Some(Node {
            body: Body::File(file),
            ..
        }) = self.nodes.get_mut(&ino.0)
        else {
            return;
        };
        if file.direct.take().is_some() {
            self.direct.remove(&ino.0);
        }
        match std::mem::take(&mut file.over) {
            Overlay::None => {}
            Overlay::Memory(bytes) => self.memory -= bytes.len(),
            Overlay::Staging(s) => {
                let id = s.file.id;
                let left = self.shared.get_mut(&id).map(|files| {
                    files.remove(&ino.0);
                    files.len()
                });
                if left.unwrap_or(0) == 0 {
                    self.shared.remove(&id);
                    self.dropped_staging.push(id);
                }
            }
        }
    }

    /// The staging file of a file that is about to change, if it has one. One
    /// that is shared does not change, nor does a pack.
    pub(crate) fn staging_to_change(&mut self, ino: Ino) -> Step<Option<Staging>> {
        use crate::node::Overlay;
        let file = self.file(ino)?;
        if file.direct.as_ref().is_some_and(DirectUse::is_packed) {
            return Err(Stop::Need(Need::Unpacked(ino)));
        }
        let Overlay::Staging(staging) = &file.over else {
            return Ok(None);
        };
        let staging = staging.clone();
        if self.shared.contains_key(&staging.file.id) {
            return Err(Stop::Need(Need::Alone(ino)));
        }
        Ok(Some(staging))
    }

    /// Whether `ino` is `dir` or lies above it.
    pub(crate) fn is_ancestor(&mut self, ino: Ino, mut dir: Ino) -> Step<bool> {
        loop {
            if dir == ino {
                return Ok(true);
            }
            if dir == Ino::ROOT {
                return Ok(false);
            }
            dir = Ino(self.dir(dir)?.parent);
        }
    }

    /// Drops what has not been used for long, until about `target` nodes and
    /// `target_memory` bytes of contents are left.
    pub(crate) fn evict(&mut self, target: usize, target_memory: usize) {
        if self.nodes.len() > target {
            let mut ages: Vec<u32> = self
                .nodes
                .values()
                .map(|n| self.tick.wrapping_sub(n.used))
                .collect();
            let index = target.min(ages.len() - 1);
            let (_, limit, _) = ages.select_nth_unstable(index);
            let limit = *limit;
            let tick = self.tick;
            let mut dropped = 0;
            let mut memory = 0;
            self.nodes.retain(|ino, node| {
                let keep =
                    *ino == Ino::ROOT.0 || tick.wrapping_sub(node.used) < limit || !evictable(node);
                if !keep {
                    dropped += 1;
                    if let Body::File(file) = &node.body {
                        memory += file.memory();
                    }
                }
                keep
            });
            self.memory -= memory;
            if dropped > 0 {
                self.evictions += 1;
            }
        }
        self.drop_clean_names(target);
        if self.memory > target_memory {
            self.drop_clean_contents(target_memory);
        }
    }

    /// Forgets what the database has of directories with more than `target`
    /// names in memory: one that is in use is not evicted, and may grow without
    /// end.
    fn drop_clean_names(&mut self, target: usize) {
        let mut dropped = false;
        self.nodes.retain(|_, node| {
            if let Body::Dir(dir) = &mut node.body
                && dir.children.len().saturating_sub(dir.pinned as usize) > target
            {
                dir.children.retain(|_, dirent| dirent.state.pinned());
                dir.complete = false;
                dir.window = None;
                dropped = true;
            }
            true
        });
        if dropped {
            self.evictions += 1;
        }
    }

    fn drop_clean_contents(&mut self, target: usize) {
        use crate::node::Overlay;
        let mut clean: Vec<(u32, u64)> = self
            .nodes
            .iter()
            .filter(|(_, n)| {
                matches!(&n.body, Body::File(f) if !f.data_dirty && f.memory() > 0)
                    && !n.state.pinned()
            })
            .map(|(ino, n)| (self.tick.wrapping_sub(n.used), *ino))
            .collect();
        clean.sort_unstable_by(|a, b| b.cmp(a));
        for (_, ino) in clean {
            if self.memory <= target {
                break;
            }
            if let Some(Node {
                body: Body::File(file),
                ..
            }) = self.nodes.get_mut(&ino)
                && let Overlay::Memory(bytes) = std::mem::take(&mut file.over)
            {
                self.memory -= bytes.len();
            }
        }
    }
}

/// Whether a node may leave memory.
pub(crate) fn evictable(node: &Node) -> bool {
    if node.state.pinned() || node.holds > 0 || node.nlink == 0 {
        return false;
    }
    match &node.body {
        Body::File(file) => {
            !file.data_dirty
                && !file.sealing
                && !matches!(file.over, crate::node::Overlay::Staging(_))
        }
        Body::Dir(dir) => dir.pinned == 0,
        Body::Symlink(_) | Body::Special => true,
    }
}

/// See [`Tree::key`].
pub(crate) fn key_of(hash_key: &[u8; 32], name: &Name) -> DirKey {
    let hash = blake3::keyed_hash(hash_key, name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    ((u64::from_le_bytes(first) >> 2) | 4, name.clone())
}

/// Checks a name against the rules of [`Name`].
pub(crate) fn valid_name(name: &[u8]) -> Result<Name> {
    if name.len() > cairn_protocol::NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    Name::new(name).map_err(|_| {
        FsError::Invalid("a name is 1 to 255 bytes without '/' and NUL, and not '.' or '..'")
    })
}

/// The name that sorts before every other.
pub(crate) fn lowest_name() -> Result<Name> {
    valid_name(&[1])
}
