//! Setting registers of the working tree to what they are elsewhere: nodes,
//! names, contents and attributes of a whole tree at once, under one hold of
//! its lock. What they were is of no concern here, nor are the times of
//! directories, which have registers of their own.
//!
//! Who asks has looked at the committed tree, and holds the commit lock. What
//! was changed in memory since must not be touched: everything is looked at
//! first, and where something moved nothing is done ([`Moved`]).

use bytes::Bytes;
use cairn_protocol::{Meta, NodeId, Timestamp, Ver, XattrName};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::attr::Ino;
use crate::gained::{Gained, forget_absence, gain};
use crate::node::{Base, Body, DirKey, Dirent, Node, Overlay, Persist, Xattr};
use crate::observe::Invalidation;
use crate::replica::Notes;
use crate::sight::Sight;
use crate::tree::Tree;
use crate::turned::Turned;

/// Something was changed that was to be set: look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved;

/// A name as it was committed: what it points at, and the version of that.
pub(crate) type FoundName = (Ino, DirKey, Option<(Ino, Ver)>);

/// What is to be set. Inodes are known or reserved for new nodes.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    /// The commit that was looked at.
    pub(crate) seen: Ver,
    /// Nodes as that commit has them, of which something is set here: those
    /// that are not in memory are brought there.
    pub(crate) loaded: Vec<(Ino, Node)>,
    /// Names likewise.
    pub(crate) found: Vec<FoundName>,
    /// Nodes whose id changes.
    pub(crate) bound: Vec<(Ino, NodeId)>,
    /// New nodes, without names.
    pub(crate) made: Vec<(Ino, Node)>,
    pub(crate) names: Vec<(Ino, DirKey, Option<Ino>)>,
    /// Contents of files, with their sizes.
    pub(crate) contents: Vec<(Ino, Base)>,
    /// Targets of symbolic links.
    pub(crate) targets: Vec<(Ino, Bytes)>,
    pub(crate) metas: Vec<(Ino, Meta)>,
    pub(crate) xattrs: Vec<(Ino, XattrName, Option<Bytes>)>,
    /// What nodes in memory gained by rows that were written in the transaction
    /// that is open; see [`crate::shift`].
    pub(crate) gained: Vec<(Ino, Gained)>,
    /// How many nodes these rows made.
    pub(crate) rows: u64,
}

impl Assignment {
    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.bound.is_empty()
            && self.made.is_empty()
            && self.names.is_empty()
            && self.contents.is_empty()
            && self.targets.is_empty()
            && self.metas.is_empty()
            && self.xattrs.is_empty()
            && self.gained.is_empty()
    }
}

/// Sets everything. The caller has looked whether it may, by [`look`], and
/// the tree is locked since.
pub(crate) fn assign(tree: &mut Tree, notes: &Notes<'_>, mut new: Assignment, now: Timestamp) {
    bring(tree, &mut new);
    for (ino, id) in &new.bound {
        if let Some(node) = tree.nodes.get_mut(&ino.0) {
            node.id = Some(Box::new(*id));
        }
        tree.touch_private(*ino);
    }
    for (ino, node) in std::mem::take(&mut new.made) {
        make(tree, ino, node);
    }
    set_names(tree, notes, &new.names, now);
    for (ino, gained) in &new.gained {
        gain(tree, *ino, *gained);
    }
    if !new.gained.is_empty() {
        tree.count += new.rows;
        forget_absence(tree, new.gained.iter().map(|(ino, _)| *ino));
    }
    for (ino, base) in new.contents {
        set_content(tree, notes, ino, base, now);
    }
    for (ino, target) in new.targets {
        let ver = tree.next_ver();
        if let Some(node) = tree.nodes.get_mut(&ino.0) {
            node.body = Body::Symlink(target);
            node.data_ver = ver;
        }
        tree.touch_private(ino);
        notes.tell(|| Invalidation::Content {
            ino,
            offset: 0,
            len: None,
        });
    }
    for (ino, meta) in new.metas {
        set_meta(tree, notes, ino, &meta, now);
    }
    for (ino, name, value) in new.xattrs {
        set_xattr(tree, notes, ino, name, value, now);
    }
}

/// Brings to memory what is needed there and is not. The commit lock is held:
/// what is not in memory is as it was committed.
fn bring(tree: &mut Tree, new: &mut Assignment) {
    let tick = tree.tick;
    for (ino, mut node) in new.loaded.drain(..) {
        if !tree.dying.contains(&ino.0) {
            node.used = tick;
            tree.nodes.add(ino.0, node);
        }
    }
    for (dir, key, found) in new.found.drain(..) {
        let Some(Node {
            body: Body::Dir(body),
            ..
        }) = tree.nodes.get_mut(&dir.0)
        else {
            continue;
        };
        let (target, ver) = found.map_or((None, 0), |(ino, ver)| (Some(ino), ver));
        let state = Persist {
            stored: target.is_some(),
            ..Persist::default()
        };
        if !body.complete || target.is_some() {
            body.children
                .entry(key)
                .or_insert(Dirent { target, ver, state });
        }
    }
}

/// Looks whether everything is as it was, but for what became of rows.
pub(crate) fn look(tree: &Tree, new: &Assignment, turned: Option<&Turned>) -> Result<(), Moved> {
    let sight = Sight::new(tree, new, turned);
    let seen = |ver: Ver| (ver <= new.seen).then_some(()).ok_or(Moved);
    let node = |ino: &Ino| sight.node(*ino).ok_or(Moved);
    for (ino, _) in &new.bound {
        node(ino)?;
    }
    for (ino, _) in &new.contents {
        let node = node(ino)?;
        seen(node.data_ver)?;
        match &node.body {
            // Who reads it directly could not be told: the node needs another inode.
            Body::File(file)
                if !file.data_dirty
                    && file.direct.is_none()
                    && !matches!(file.over, Overlay::Staging(_)) => {}
            _ => return Err(Moved),
        }
    }
    for (ino, _) in &new.targets {
        node(ino)?;
    }
    for (ino, _) in &new.metas {
        seen(node(ino)?.meta_ver)?;
    }
    for (ino, name, _) in &new.xattrs {
        let xattrs = node(ino)?.xattrs.as_ref();
        seen(xattrs.and_then(|all| all.get(name)).map_or(0, |x| x.ver))?;
    }
    for ino in new.gained.iter().map(|(ino, _)| *ino) {
        // One that is made here is not in memory yet. Others may have been
        // removed since they were looked at.
        let lives = |node: &Node| node.nlink > 0;
        if sight.made(ino).is_none() && !sight.node(ino).is_some_and(lives) {
            return Err(Moved);
        }
    }
    look_at_names(&sight, new)
}

/// The same for names, and whether the result is a tree.
fn look_at_names(sight: &Sight<'_>, new: &Assignment) -> Result<(), Moved> {
    let kind = |ino: Ino| {
        let node = sight.made(ino);
        node.or_else(|| sight.node(ino)).map(Node::is_dir)
    };
    let (mut taken, mut put) = (FxHashSet::default(), FxHashMap::default());
    let mut entries: FxHashMap<u64, i64> = FxHashMap::default();
    for (parent, key, target) in &new.names {
        let old = match sight.made(*parent) {
            Some(_) => None,
            None => sight.target(*parent, key, new.seen)?,
        };
        if let Some(old) = old.filter(|old| Some(*old) != *target) {
            *entries.entry(parent.0).or_default() -= 1;
            if kind(old).ok_or(Moved)? {
                taken.insert(old.0);
            }
        }
        if let Some(target) = target.filter(|target| Some(*target) != old) {
            *entries.entry(parent.0).or_default() += 1;
            if kind(target).ok_or(Moved)? {
                put.insert(target.0, parent.0);
            }
        }
    }
    for ino in taken.iter().filter(|ino| !put.contains_key(ino)) {
        // What goes must be empty by then.
        let has = sight.entries(Ino(*ino)).ok_or(Moved)?;
        if has + entries.get(ino).copied().unwrap_or(0) != 0 {
            return Err(Moved);
        }
    }
    for (parent, _, _) in new.names.iter().filter(|(_, _, target)| target.is_some()) {
        let gone = taken.contains(&parent.0) && !put.contains_key(&parent.0);
        let dead = sight.node(*parent).is_some_and(|n| n.nlink == 0);
        if gone || (dead && !put.contains_key(&parent.0)) {
            return Err(Moved);
        }
    }
    put.keys().try_for_each(|ino| rooted(sight, &put, *ino))
}

/// Whether a directory that gets a place leads to the root from there.
fn rooted(sight: &Sight<'_>, put: &FxHashMap<u64, u64>, ino: u64) -> Result<(), Moved> {
    let mut at = ino;
    for _ in 0..=cairn_protocol::PATH_DEPTH_MAX {
        if at == Ino::ROOT.0 {
            return Ok(());
        }
        at = match (put.get(&at), sight.made(Ino(at)), sight.node(Ino(at))) {
            (Some(parent), _, _) => *parent,
            (
                None,
                None,
                Some(Node {
                    body: Body::Dir(dir),
                    ..
                }),
            ) => dir.parent,
            _ => return Err(Moved),
        };
    }
    Err(Moved)
}

fn make(tree: &mut Tree, ino: Ino, mut node: Node) {
    let ver = tree.next_ver();
    (node.born, node.meta_ver, node.data_ver) = (ver, ver, ver);
    node.nlink = if node.is_dir() { 2 } else { 0 };
    node.state = Persist {
        dirty: true,
        ..Persist::default()
    };
    for xattr in node.xattrs.iter_mut().flat_map(|all| all.values_mut()) {
        xattr.ver = ver;
    }
    if let Body::File(file) = &mut node.body {
        file.base_dirty = true;
    }
    node.used = tree.tick;
    tree.count += 1;
    tree.nodes.insert(ino.0, node);
    tree.dirty_nodes.insert(ino.0);
}

/// Takes away all names that go, then puts those that come.
fn set_names(
    tree: &mut Tree,
    notes: &Notes<'_>,
    names: &[(Ino, DirKey, Option<Ino>)],
    now: Timestamp,
) {
    let mut changes = Vec::new();
    for (parent, key, target) in names {
        let old = current(tree, *parent, key);
        if old != *target {
            changes.push((*parent, key, old, *target));
        }
    }
    let mut put = FxHashSet::default();
    for (parent, _, old, _) in &changes {
        if let Some(old) = old {
            unlink(tree, *parent, *old);
        }
    }
    for (parent, key, old, target) in &changes {
        if let Some(target) = target {
            link(tree, *parent, *target);
            put.insert(target.0);
        }
        tree.set_name(*parent, (*key).clone(), *target);
        tell_name(notes, *parent, key, *old, *target);
    }
    for (parent, _, old, target) in &changes {
        tree.touch_private(*parent);
        for ino in [*old, *target].into_iter().flatten() {
            finish(tree, notes, ino, put.contains(&ino.0), now);
        }
    }
}

fn current(tree: &Tree, parent: Ino, key: &DirKey) -> Option<Ino> {
    match &tree.nodes.get(&parent.0)?.body {
        Body::Dir(dir) => dir.children.get(key)?.target,
        _ => None,
    }
}

fn unlink(tree: &mut Tree, parent: Ino, ino: Ino) {
    let is_dir = tree.nodes.get(&ino.0).is_some_and(Node::is_dir);
    let counted = if is_dir { parent } else { ino };
    if let Some(node) = tree.nodes.get_mut(&counted.0) {
        node.nlink = node.nlink.saturating_sub(1);
    }
}

fn link(tree: &mut Tree, parent: Ino, ino: Ino) {
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    if let Body::Dir(dir) = &mut node.body {
        dir.parent = parent.0;
        // One that was removed and is open lives again, empty.
        node.nlink = node.nlink.max(2);
    } else {
        node.nlink += 1;
        return;
    }
    if let Some(parent) = tree.nodes.get_mut(&parent.0) {
        parent.nlink += 1;
    }
}

/// What is left to do for a node that lost or got a name.
fn finish(tree: &mut Tree, notes: &Notes<'_>, ino: Ino, put: bool, now: Timestamp) {
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    if node.is_dir() && !put {
        node.nlink = 0;
    }
    node.times.ctime = now;
    let unused = node.nlink == 0 && node.holds == 0 && !notes.known(ino);
    tree.touch_private(ino);
    if unused {
        tree.reap(ino);
    } else {
        notes.tell(|| Invalidation::Attr { ino });
    }
}

fn tell_name(notes: &Notes<'_>, parent: Ino, key: &DirKey, old: Option<Ino>, new: Option<Ino>) {
    let name = key.1.as_bytes();
    if let (Some(child), None) = (old, new) {
        notes.tell(|| Invalidation::Deleted {
            parent,
            name: name.to_vec(),
            child,
        });
    } else {
        notes.tell(|| Invalidation::Entry {
            parent,
            name: name.to_vec(),
        });
    }
    notes.tell(|| Invalidation::Attr { ino: parent });
}

fn set_content(tree: &mut Tree, notes: &Notes<'_>, ino: Ino, base: Base, now: Timestamp) {
    tree.drop_overlay(ino);
    let ver = tree.next_ver();
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    if let Body::File(file) = &mut node.body {
        file.size = base.size();
        file.base = base;
        file.base_dirty = true;
        file.data_dirty = false;
        file.generation += 1;
    }
    node.data_ver = ver;
    node.times.ctime = now;
    tree.touch_private(ino);
    notes.tell(|| Invalidation::Content {
        ino,
        offset: 0,
        len: None,
    });
}

fn set_meta(tree: &mut Tree, notes: &Notes<'_>, ino: Ino, meta: &Meta, now: Timestamp) {
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    set_attributes(node, meta);
    node.times.ctime = now;
    tree.touch_meta(ino);
    notes.tell(|| Invalidation::Attr { ino });
}

/// Sets what an attribute register has.
pub(crate) fn set_attributes(node: &mut Node, meta: &Meta) {
    node.perm = (meta.mode & Meta::MODE_MASK) as u16;
    node.uid = meta.uid;
    node.gid = meta.gid;
    node.times.mtime = meta.mtime;
    node.times.btime = meta.btime;
}

fn set_xattr(
    tree: &mut Tree,
    notes: &Notes<'_>,
    ino: Ino,
    name: XattrName,
    value: Option<Bytes>,
    now: Timestamp,
) {
    let ver = tree.next_ver();
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    let cell = Xattr {
        value,
        ver,
        dirty: true,
    };
    node.xattrs.get_or_insert_default().insert(name, cell);
    node.times.ctime = now;
    tree.touch_private(ino);
    notes.tell(|| Invalidation::Attr { ino });
}
