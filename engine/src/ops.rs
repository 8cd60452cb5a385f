//! Operations on nodes and names by inode: what a mount calls.

use bytes::Bytes;
use cairn_protocol::{NodeKind, SYMLINK_MAX, Timestamp};

use crate::attr::{Attr, Entry, Ino, NewNode, RenameMode, SetAttr, SetTime, StatFs};
use crate::node::{Body, DirKey, FileBody, Node};
use crate::observe::Invalidation;
use crate::replica::{Notes, Replica, new_dir, new_node, now};
use crate::tree::{Need, Step, Stop, Tree};
use crate::{FsError, Result};

/// Links a node can have, as ext4 with `dir_nlink` off would count them for files.
const LINK_MAX: u32 = 1 << 20;
/// Set-group-ID and set-user-ID.
const S_ISGID: u16 = 0o2000;
const S_ISUID: u16 = 0o4000;
const S_IXGRP: u16 = 0o0010;

impl Replica {
    /// The node a name points at.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotDir`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.with(|t| {
            let key = t.key(name)?;
            let ino = t.lookup(parent, &key)?;
            Ok(t.node(ino)?.attr(ino))
        })
    }

    /// The attributes of a node.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`] when there is no such node.
    pub fn attr(&self, ino: Ino) -> Result<Attr> {
        self.with(|t| Ok(t.node(ino)?.attr(ino)))
    }

    /// The directory that holds a directory; the root holds itself.
    ///
    /// # Errors
    ///
    /// [`FsError::NotDir`].
    pub fn parent(&self, dir: Ino) -> Result<Ino> {
        self.with(|t| Ok(Ino(t.dir(dir)?.parent)))
    }

    /// Changes attributes.
    ///
    /// # Errors
    ///
    /// [`FsError::IsDir`] for the size of a directory, [`FsError::TooLarge`],
    /// [`FsError::NoSpace`], and what the disk says.
    pub fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr> {
        if let Some(size) = set.size {
            self.truncate(ino, size)?;
        }
        let now = now();
        self.change(false, |t, notes| {
            let node = t.node(ino)?;
            apply(node, set, now);
            let attr = node.attr(ino);
            let only_atime = SetAttr {
                atime: set.atime,
                ..SetAttr::default()
            } == *set
                && set.atime.is_some();
            if only_atime && set.atime == Some(SetTime::Now) {
                t.touch_private(ino);
            } else {
                t.touch_meta(ino);
            }
            notes.tell(|| Invalidation::Attr { ino });
            Ok(attr)
        })
    }

    /// Makes a file, directory, fifo, socket or device.
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`], [`FsError::NotDir`], [`FsError::NotFound`] when
    /// the parent is gone, [`FsError::NoSpace`].
    pub fn make(&self, parent: Ino, name: &[u8], new: &NewNode) -> Result<Attr> {
        let body = || match new.kind {
            NodeKind::File => Ok(Body::File(FileBody::default())),
            NodeKind::Dir => Ok(new_dir(parent)),
            NodeKind::Symlink => Err(FsError::Invalid("a symbolic link needs a target")),
            _ => Ok(Body::Special),
        };
        self.add(parent, name, || {
            Ok(new_node(
                new.kind,
                new.perm,
                new.uid,
                new.gid,
                new.rdev,
                body()?,
            ))
        })
    }

    /// Makes a symbolic link. The target is kept as it is.
    ///
    /// # Errors
    ///
    /// As [`Self::make`]; [`FsError::NameTooLong`] for a target over 4 095 bytes.
    pub fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Attr> {
        if target.len() > SYMLINK_MAX {
            return Err(FsError::NameTooLong);
        }
        if target.is_empty() || target.contains(&0) {
            return Err(FsError::Invalid(
                "the target of a symbolic link is not empty and has no NUL",
            ));
        }
        let target = Bytes::copy_from_slice(target);
        self.add(parent, name, || {
            Ok(new_node(
                NodeKind::Symlink,
                0o777,
                uid,
                gid,
                0,
                Body::Symlink(target.clone()),
            ))
        })
    }

    fn add(&self, parent: Ino, name: &[u8], make: impl Fn() -> Result<Node>) -> Result<Attr> {
        self.change(true, |t, notes| {
            let key = t.key(name)?;
            if t.find(parent, &key)?.is_some() {
                return Err(FsError::Exists(key.1.to_string()).into());
            }
            let dir = t.node(parent)?;
            if dir.nlink == 0 {
                return Err(FsError::NotFound("the directory was removed".into()).into());
            }
            let mut node = make()?;
            if dir.perm & S_ISGID != 0 {
                node.gid = dir.gid;
                if node.kind == NodeKind::Dir {
                    node.perm |= S_ISGID;
                }
            }
            let is_dir = node.is_dir();
            let time = node.times.mtime;
            let ino = t.add(node);
            t.set_name(parent, key, Some(ino));
            changed_dir(t, parent, time, i64::from(is_dir));
            notes.tell(|| Invalidation::Entry {
                parent,
                name: name.to_vec(),
            });
            Ok(t.node(ino)?.attr(ino))
        })
    }

    /// Gives a node another name.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`] for a directory, [`FsError::Exists`],
    /// [`FsError::TooManyLinks`].
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let now = now();
        self.change(true, |t, notes| {
            let key = t.key(name)?;
            if t.find(parent, &key)?.is_some() {
                return Err(FsError::Exists(key.1.to_string()).into());
            }
            if t.node(parent)?.nlink == 0 {
                return Err(FsError::NotFound("the directory was removed".into()).into());
            }
            let node = t.node(ino)?;
            if node.is_dir() {
                return Err(FsError::NotPermitted("a directory has one name").into());
            }
            if node.nlink == 0 {
                return Err(FsError::NotFound("the node was removed".into()).into());
            }
            if node.nlink >= LINK_MAX {
                return Err(FsError::TooManyLinks.into());
            }
            node.nlink += 1;
            node.times.ctime = now;
            let attr = node.attr(ino);
            t.touch_meta(ino);
            t.set_name(parent, key, Some(ino));
            changed_dir(t, parent, now, 0);
            notes.tell(|| Invalidation::Entry {
                parent,
                name: name.to_vec(),
            });
            notes.tell(|| Invalidation::Attr { ino });
            Ok(attr)
        })
    }

    /// Removes a name that is not a directory's. An open node lives on until
    /// its last handle is released.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::IsDir`].
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let now = now();
        self.change(false, |t, notes| {
            let key = t.key(name)?;
            let ino = t.lookup(parent, &key)?;
            if t.node(ino)?.is_dir() {
                return Err(FsError::IsDir(key.1.to_string()).into());
            }
            t.node(parent)?;
            t.set_name(parent, key, None);
            changed_dir(t, parent, now, 0);
            drop_link(t, notes, ino, now);
            notes.tell(|| Invalidation::Deleted {
                parent,
                name: name.to_vec(),
                child: ino,
            });
            Ok(())
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`FsError::NotEmpty`], [`FsError::NotDir`], [`FsError::NotFound`].
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let now = now();
        self.change(false, |t, notes| {
            let key = t.key(name)?;
            let ino = t.lookup(parent, &key)?;
            require_empty(t, ino, &key)?;
            t.node(parent)?;
            t.set_name(parent, key, None);
            changed_dir(t, parent, now, -1);
            remove_dir(t, notes, ino, now);
            notes.tell(|| Invalidation::Deleted {
                parent,
                name: name.to_vec(),
                child: ino,
            });
            Ok(())
        })
    }

    /// Moves a name. Replacing is atomic: the target name always points at
    /// either the old node or the new one.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::Exists`] with
    /// [`RenameMode::NoReplace`], [`FsError::Invalid`] for a directory into
    /// itself, [`FsError::NotEmpty`], [`FsError::IsDir`], [`FsError::NotDir`].
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let now = now();
        self.change(false, |t, notes| {
            let from = t.key(name)?;
            let to = t.key(new_name)?;
            let ino = t.lookup(parent, &from)?;
            let target = t.find(new_parent, &to)?;
            let is_dir = t.node(ino)?.is_dir();
            t.node(parent)?;
            if t.node(new_parent)?.nlink == 0 {
                return Err(FsError::NotFound("the directory was removed".into()).into());
            }
            if is_dir && t.is_ancestor(ino, new_parent)? {
                return Err(FsError::Invalid("a directory cannot move into itself").into());
            }
            match (mode, target) {
                (RenameMode::NoReplace, Some(_)) => {
                    return Err(FsError::Exists(to.1.to_string()).into());
                }
                (RenameMode::Exchange, None) => {
                    return Err(FsError::NotFound(to.1.to_string()).into());
                }
                (RenameMode::Exchange, Some(other)) => {
                    return exchange(t, notes, (parent, from, ino), (new_parent, to, other), now);
                }
                (_, Some(other)) if other == ino => return Ok(()),
                (_, Some(other)) => replaceable(t, is_dir, other, &to)?,
                (_, None) => {}
            }
            t.set_name(parent, from, None);
            t.set_name(new_parent, to, Some(ino));
            let links = i64::from(is_dir);
            changed_dir(t, parent, now, -links);
            changed_dir(t, new_parent, now, links);
            moved(t, ino, new_parent, now);
            if let Some(other) = target {
                if is_dir {
                    changed_dir(t, new_parent, now, -1);
                    remove_dir(t, notes, other, now);
                } else {
                    drop_link(t, notes, other, now);
                }
                notes.tell(|| Invalidation::Attr { ino: other });
            }
            notes.tell(|| Invalidation::Deleted {
                parent,
                name: name.to_vec(),
                child: ino,
            });
            notes.tell(|| Invalidation::Entry {
                parent: new_parent,
                name: new_name.to_vec(),
            });
            notes.tell(|| Invalidation::Attr { ino });
            Ok(())
        })
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`FsError::Invalid`] when it is not one.
    pub fn read_link(&self, ino: Ino) -> Result<Bytes> {
        self.with(|t| match &t.node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid("not a symbolic link").into()),
        })
    }

    /// Notes an open handle: the node outlives its last name as long as one is open.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`].
    pub fn retain(&self, ino: Ino, write: bool) -> Result<Attr> {
        self.with(|t| {
            let node = t.node(ino)?;
            node.holds += 1;
            node.writers += u32::from(write);
            Ok(node.attr(ino))
        })
    }

    /// Ends an open handle. The last one that could write starts the seal of
    /// the file; the last one of an unlinked node removes it.
    pub fn release(&self, ino: Ino, write: bool) {
        let mut tree = self.inner.tree.lock();
        let notes = self.notes();
        let Some(node) = tree.nodes.get_mut(&ino.0) else {
            return;
        };
        node.holds = node.holds.saturating_sub(1);
        node.writers = node.writers.saturating_sub(u32::from(write));
        if node.nlink == 0 {
            if node.holds == 0 && !notes.known(ino) {
                tree.reap(ino);
            }
            return;
        }
        let closed = write && node.writers == 0;
        let staged = matches!(&node.body, Body::File(f) if matches!(f.over, crate::node::Overlay::Staging(_)));
        drop(tree);
        if closed && staged {
            self.inner.seals.push(ino);
        }
    }

    /// A cache above forgot a node: if nothing else holds it and it has no
    /// name left, it goes.
    pub fn forgotten(&self, ino: Ino) {
        let mut tree = self.inner.tree.lock();
        let Some(node) = tree.nodes.get(&ino.0) else {
            return;
        };
        if node.nlink == 0 && node.holds == 0 && !self.notes().known(ino) {
            tree.reap(ino);
        }
    }

    /// Lists a directory after `cookie` (0 for the start), until `each`
    /// returns `false`. The order is stable; `.` and `..` are not listed.
    ///
    /// # Errors
    ///
    /// [`FsError::NotDir`], and what the disk says.
    pub fn read_dir(
        &self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<()> {
        let mut after = cookie;
        loop {
            // A page at a time: the tree is not locked while `each` runs.
            let page = self.with(|t| list(t, dir, after))?;
            for (key, attr) in &page.entries {
                if !each(Entry {
                    name: key.1.as_bytes(),
                    attr,
                    cookie: key.0,
                }) {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// Space and counts.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn stat_fs(&self) -> Result<StatFs> {
        let nodes = self.inner.tree.lock().count;
        let here = self
            .path()
            .unwrap_or_else(|| std::path::Path::new("/dev/shm"));
        let stat =
            rustix::fs::statvfs(here).map_err(|e| FsError::io("examining the disk", e.into()))?;
        Ok(StatFs {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            nodes,
        })
    }
}

struct Listing {
    entries: Vec<(DirKey, Attr)>,
    /// Go on after this cookie.
    next: Option<u64>,
}

/// Entries returned by one call of [`list`].
const LIST_MAX: usize = 256;

fn list(t: &mut Tree, dir: Ino, after: u64) -> Step<Listing> {
    let from = after.saturating_add(1);
    let body = t.dir(dir)?;
    let end = if body.complete {
        u64::MAX
    } else {
        match body.window {
            Some((start, end)) if (start..=end).contains(&from) => end,
            _ => {
                return Err(Stop::Need(Need::Page(
                    dir,
                    if after == 0 { 0 } else { from },
                )));
            }
        }
    };
    let mut found: Vec<(DirKey, Ino)> = Vec::new();
    let mut more = end != u64::MAX;
    let mut next = end;
    let first = (from, crate::tree::lowest_name()?);
    for (key, dirent) in body.children.range(first..) {
        if key.0 > end {
            break;
        }
        let Some(ino) = dirent.target else { continue };
        if found.len() >= LIST_MAX && found.last().is_some_and(|(last, _)| last.0 != key.0) {
            more = true;
            next = found.last().map_or(end, |(last, _)| last.0);
            break;
        }
        found.push((key.clone(), ino));
    }
    let mut entries = Vec::with_capacity(found.len());
    for (key, ino) in found {
        match t.node(ino) {
            Ok(node) => {
                let attr = node.attr(ino);
                entries.push((key, attr));
            }
            // Load the nodes of the whole stretch at once.
            Err(Stop::Need(_)) => {
                let missing = entries.is_empty();
                if missing {
                    return Err(Stop::Need(Need::Page(dir, key.0)));
                }
                more = true;
                next = entries
                    .last()
                    .map_or(after, |(last, _): &(DirKey, Attr)| last.0);
                break;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Listing {
        entries,
        next: more.then_some(next),
    })
}

impl Replica {
    pub(crate) fn notes(&self) -> Notes<'_> {
        Notes::new(&self.inner, self.origin)
    }
}

/// A directory's entries changed; `links` is by how many subdirectories.
fn changed_dir(t: &mut Tree, dir: Ino, now: Timestamp, links: i64) {
    if let Some(node) = t.nodes.get_mut(&dir.0) {
        node.times.mtime = now;
        node.times.ctime = now;
        node.nlink = node
            .nlink
            .saturating_add_signed(i32::try_from(links).unwrap_or(0));
    }
    t.touch_meta(dir);
}

fn moved(t: &mut Tree, ino: Ino, parent: Ino, now: Timestamp) {
    if let Some(node) = t.nodes.get_mut(&ino.0) {
        node.times.ctime = now;
        if let Body::Dir(dir) = &mut node.body {
            dir.parent = parent.0;
        }
    }
    t.touch_meta(ino);
}

fn drop_link(t: &mut Tree, notes: &Notes<'_>, ino: Ino, now: Timestamp) {
    let Some(node) = t.nodes.get_mut(&ino.0) else {
        return;
    };
    node.nlink = node.nlink.saturating_sub(1);
    node.times.ctime = now;
    let unused = node.nlink == 0 && node.holds == 0 && !notes.known(ino);
    t.touch_meta(ino);
    if unused {
        t.reap(ino);
    } else {
        notes.tell(|| Invalidation::Attr { ino });
    }
}

fn remove_dir(t: &mut Tree, notes: &Notes<'_>, ino: Ino, now: Timestamp) {
    if let Some(node) = t.nodes.get_mut(&ino.0) {
        node.nlink = 1;
    }
    drop_link(t, notes, ino, now);
}

fn require_empty(t: &mut Tree, ino: Ino, key: &DirKey) -> Step<()> {
    let node = t.node(ino)?;
    let Body::Dir(dir) = &node.body else {
        return Err(FsError::NotDir(key.1.to_string()).into());
    };
    if dir.entries > 0 {
        return Err(FsError::NotEmpty(key.1.to_string()).into());
    }
    Ok(())
}

fn replaceable(t: &mut Tree, is_dir: bool, other: Ino, key: &DirKey) -> Step<()> {
    match (is_dir, t.node(other)?.is_dir()) {
        (true, true) => require_empty(t, other, key),
        (true, false) => Err(FsError::NotDir(key.1.to_string()).into()),
        (false, true) => Err(FsError::IsDir(key.1.to_string()).into()),
        (false, false) => Ok(()),
    }
}

type Place = (Ino, DirKey, Ino);

fn exchange(t: &mut Tree, notes: &Notes<'_>, a: Place, b: Place, now: Timestamp) -> Step<()> {
    if a.2 == b.2 {
        return Ok(());
    }
    let (a_dir, b_dir) = (t.node(a.2)?.is_dir(), t.node(b.2)?.is_dir());
    if b_dir && t.is_ancestor(b.2, a.0)? {
        return Err(FsError::Invalid("a directory cannot move into itself").into());
    }
    t.set_name(a.0, a.1.clone(), Some(b.2));
    t.set_name(b.0, b.1.clone(), Some(a.2));
    let links = i64::from(b_dir) - i64::from(a_dir);
    changed_dir(t, a.0, now, links);
    changed_dir(t, b.0, now, -links);
    moved(t, a.2, b.0, now);
    moved(t, b.2, a.0, now);
    for (parent, key, ino) in [a, b] {
        notes.tell(|| Invalidation::Entry {
            parent,
            name: key.1.as_bytes().to_vec(),
        });
        notes.tell(|| Invalidation::Attr { ino });
    }
    Ok(())
}

fn apply(node: &mut Node, set: &SetAttr, now: Timestamp) {
    let time = |t: SetTime| match t {
        SetTime::Now => now,
        SetTime::At(t) => t,
    };
    if let Some(perm) = set.perm {
        node.perm = perm & 0o7777;
    }
    if let Some(uid) = set.uid {
        node.uid = uid;
    }
    if let Some(gid) = set.gid {
        node.gid = gid;
    }
    if set.kill_suid_gid {
        kill_privileges(node);
    }
    if let Some(t) = set.atime {
        node.times.atime = time(t);
    }
    if let Some(t) = set.mtime {
        node.times.mtime = time(t);
    }
    node.times.ctime = set.ctime.unwrap_or(now);
}

/// What writing to a program does to its set-id bits.
pub(crate) fn kill_privileges(node: &mut Node) {
    node.perm &= !S_ISUID;
    if node.perm & S_IXGRP != 0 {
        node.perm &= !S_ISGID;
    }
}
