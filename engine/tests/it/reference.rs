//! The reference: what a filesystem does, in memory and as simply as can be.
//!
//! Each operation says what the engine must answer, and what is so afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_engine::{Allocate, Ino, NewNode, NodeKind, RenameMode, Replica, Timestamp, XattrMode};
use rustix::io::Errno;

use crate::support::{difference, read_all};

pub(crate) type Answer<T = ()> = Result<T, Errno>;

/// A node and, for a file, its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) nlink: u32,
    pub(crate) content: Arc<Vec<u8>>,
    pub(crate) target: Vec<u8>,
    pub(crate) entries: BTreeMap<Vec<u8>, u64>,
    pub(crate) parent: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Known only while nothing changed it but a request to set it.
    pub(crate) mtime: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<u64, Arc<Node>>,
}

pub(crate) const ROOT: u64 = 1;

impl Tree {
    pub(crate) fn new(root: &cairn_engine::Attr) -> Self {
        let node = Node {
            perm: root.perm,
            uid: root.uid,
            gid: root.gid,
            parent: ROOT,
            ..Node::new(NodeKind::Dir)
        };
        Self {
            nodes: BTreeMap::from([(ROOT, Arc::new(node))]),
        }
    }

    pub(crate) fn get(&self, ino: u64) -> Answer<&Node> {
        self.nodes.get(&ino).map(|n| &**n).ok_or(Errno::NOENT)
    }

    pub(crate) fn edit(&mut self, ino: u64) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&ino).unwrap())
    }

    fn dir(&self, ino: u64) -> Answer<&Node> {
        match self.get(ino)? {
            node if node.kind == NodeKind::Dir => Ok(node),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn file(&self, ino: u64) -> Answer<&Node> {
        match self.get(ino)? {
            node if node.kind == NodeKind::File => Ok(node),
            node if node.kind == NodeKind::Dir => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Answer<u64> {
        let found = self.dir(dir)?.entries.get(name);
        found.copied().ok_or(Errno::NOENT)
    }

    /// Whether a name may be made.
    pub(crate) fn may_add(&self, dir: u64, name: &[u8]) -> Answer {
        let dir = self.dir(dir)?;
        if dir.entries.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if dir.nlink == 0 {
            return Err(Errno::NOENT);
        }
        Ok(())
    }

    fn put(&mut self, dir: u64, name: &[u8], ino: u64) {
        let dir = self.edit(dir);
        dir.entries.insert(name.to_vec(), ino);
        dir.mtime = None;
    }

    fn take(&mut self, dir: u64, name: &[u8]) {
        let dir = self.edit(dir);
        dir.entries.remove(name);
        dir.mtime = None;
    }

    /// Adds the node that the engine made, after [`Self::may_add`].
    pub(crate) fn add(&mut self, dir: u64, name: &[u8], ino: u64, new: &NewNode, target: &[u8]) {
        let mut node = Node {
            perm: new.perm,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            target: target.to_vec(),
            parent: dir,
            ..Node::new(new.kind)
        };
        let parent = self.edit(dir);
        if parent.perm & 0o2000 != 0 {
            node.gid = parent.gid;
            if new.kind == NodeKind::Dir {
                node.perm |= 0o2000;
            }
        }
        if new.kind == NodeKind::Dir {
            parent.nlink += 1;
        }
        self.put(dir, name, ino);
        let old = self.nodes.insert(ino, Arc::new(node));
        assert!(old.is_none(), "inode {ino} was given twice");
    }

    pub(crate) fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Answer {
        self.may_add(dir, name)?;
        let node = self.get(ino)?;
        if node.kind == NodeKind::Dir {
            return Err(Errno::PERM);
        }
        if node.nlink == 0 {
            return Err(Errno::NOENT);
        }
        self.edit(ino).nlink += 1;
        self.put(dir, name, ino);
        Ok(())
    }

    /// Takes a link away; without links and holders the node goes.
    fn drop_link(&mut self, ino: u64, held: &BTreeSet<u64>) {
        let node = self.edit(ino);
        node.nlink = if node.kind == NodeKind::Dir {
            0
        } else {
            node.nlink - 1
        };
        if node.nlink == 0 && !held.contains(&ino) {
            self.nodes.remove(&ino);
        }
    }

    pub(crate) fn unlink(&mut self, dir: u64, name: &[u8], held: &BTreeSet<u64>) -> Answer {
        let ino = self.lookup(dir, name)?;
        if self.get(ino)?.kind == NodeKind::Dir {
            return Err(Errno::ISDIR);
        }
        self.take(dir, name);
        self.drop_link(ino, held);
        Ok(())
    }

    fn must_be_empty(&self, ino: u64) -> Answer {
        if self.dir(ino)?.entries.is_empty() {
            Ok(())
        } else {
            Err(Errno::NOTEMPTY)
        }
    }

    pub(crate) fn rmdir(&mut self, dir: u64, name: &[u8], held: &BTreeSet<u64>) -> Answer {
        let ino = self.lookup(dir, name)?;
        self.must_be_empty(ino)?;
        self.take(dir, name);
        self.edit(dir).nlink -= 1;
        self.drop_link(ino, held);
        Ok(())
    }

    fn is_above(&self, ino: u64, mut dir: u64) -> bool {
        loop {
            if dir == ino {
                return true;
            }
            if dir == ROOT {
                return false;
            }
            dir = self.nodes[&dir].parent;
        }
    }

    pub(crate) fn rename(
        &mut self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
        held: &BTreeSet<u64>,
    ) -> Answer {
        let ino = self.lookup(from.0, from.1)?;
        let target = self.dir(to.0)?.entries.get(to.1).copied();
        let is_dir = self.get(ino)?.kind == NodeKind::Dir;
        if self.get(to.0)?.nlink == 0 {
            return Err(Errno::NOENT);
        }
        if is_dir && self.is_above(ino, to.0) {
            return Err(Errno::INVAL);
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameMode::Exchange, None) => return Err(Errno::NOENT),
            (RenameMode::Exchange, Some(other)) => return self.exchange(from, ino, to, other),
            (_, Some(other)) if other == ino => return Ok(()),
            (_, Some(other)) => match (is_dir, self.get(other)?.kind == NodeKind::Dir) {
                (true, true) => self.must_be_empty(other)?,
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (false, false) => {}
            },
            (_, None) => {}
        }
        self.take(from.0, from.1);
        self.put(to.0, to.1, ino);
        if is_dir {
            self.edit(from.0).nlink -= 1;
            self.edit(to.0).nlink += 1;
            self.edit(ino).parent = to.0;
        }
        if let Some(other) = target {
            if is_dir {
                self.edit(to.0).nlink -= 1;
            }
            self.drop_link(other, held);
        }
        Ok(())
    }

    fn exchange(&mut self, a: (u64, &[u8]), x: u64, b: (u64, &[u8]), y: u64) -> Answer {
        if x == y {
            return Ok(());
        }
        let is_dir = |t: &Self, ino: u64| t.nodes[&ino].kind == NodeKind::Dir;
        if is_dir(self, y) && self.is_above(y, a.0) {
            return Err(Errno::INVAL);
        }
        self.put(a.0, a.1, y);
        self.put(b.0, b.1, x);
        for (ino, old, new) in [(x, a.0, b.0), (y, b.0, a.0)] {
            if is_dir(self, ino) {
                self.edit(old).nlink -= 1;
                self.edit(new).nlink += 1;
                self.edit(ino).parent = new;
            }
        }
        Ok(())
    }

    /// The content of a file, to change it.
    fn content(&mut self, ino: u64) -> &mut Vec<u8> {
        let node = self.edit(ino);
        node.mtime = None;
        Arc::make_mut(&mut node.content)
    }

    pub(crate) fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Answer {
        self.file(ino)?;
        if data.is_empty() {
            return Ok(());
        }
        let content = self.content(ino);
        let end = offset as usize + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, ino: u64, size: u64) -> Answer {
        self.file(ino)?;
        self.content(ino).resize(size as usize, 0);
        Ok(())
    }

    pub(crate) fn allocate(&mut self, ino: u64, offset: u64, len: u64, how: Allocate) -> Answer {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let size = self.file(ino)?.content.len() as u64;
        let end = offset + len;
        let (zeroes, grows) = match how {
            Allocate::PunchHole => (true, false),
            Allocate::Zero { keep_size } => (true, !keep_size),
            Allocate::Reserve { keep_size } => (false, !keep_size),
        };
        if zeroes && offset < size {
            self.content(ino)[offset as usize..end.min(size) as usize].fill(0);
        }
        if grows && end > size {
            self.content(ino).resize(end as usize, 0);
        }
        Ok(())
    }

    pub(crate) fn copy(&mut self, from: (u64, u64), to: (u64, u64), len: u64) -> Answer<u64> {
        let source = self.file(from.0)?.content.clone();
        let len = len.min((source.len() as u64).saturating_sub(from.1));
        if len == 0 {
            return Ok(0);
        }
        if from.0 == to.0 && from.1 < to.1 + len && to.1 < from.1 + len {
            return Err(Errno::INVAL);
        }
        self.write(
            to.0,
            to.1,
            &source[from.1 as usize..(from.1 + len) as usize],
        )?;
        Ok(len)
    }

    pub(crate) fn set_xattr(
        &mut self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Answer {
        let all = &self.get(ino)?.xattrs;
        match mode {
            XattrMode::Create if all.contains_key(name) => return Err(Errno::EXIST),
            XattrMode::Replace if !all.contains_key(name) => return Err(Errno::NODATA),
            _ => {}
        }
        self.edit(ino).xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    pub(crate) fn remove_xattr(&mut self, ino: u64, name: &[u8]) -> Answer {
        if !self.get(ino)?.xattrs.contains_key(name) {
            return Err(Errno::NODATA);
        }
        self.edit(ino).xattrs.remove(name);
        Ok(())
    }

    /// What is left when every handle is gone.
    pub(crate) fn without_orphans(&self) -> Self {
        let mut tree = self.clone();
        tree.nodes.retain(|_, n| n.nlink > 0);
        tree
    }

    pub(crate) fn bytes(&self) -> usize {
        self.nodes.values().map(|n| n.content.len()).sum()
    }

    /// The tree of a replica, through every way of looking at it.
    pub(crate) fn of(replica: &Replica) -> Self {
        let mut nodes = BTreeMap::new();
        let mut todo = vec![(ROOT, ROOT)];
        while let Some((ino, parent)) = todo.pop() {
            let node = Node::of(replica, ino, parent);
            for child in node.entries.values() {
                if !nodes.contains_key(child) {
                    todo.push((*child, ino));
                }
            }
            nodes.insert(ino, Arc::new(node));
        }
        Self { nodes }
    }

    /// The first thing in which `self`, what was found, is not as expected.
    /// `later` are contents that a crash may have let through: those of writes
    /// after the last commit, in place.
    pub(crate) fn differs(&self, expected: &Self, later: &[&Self]) -> Option<String> {
        for (ino, want) in &expected.nodes {
            let Some(got) = self.nodes.get(ino) else {
                return Some(format!("inode {ino} is missing: {}", want.show()));
            };
            if let Some(why) = got.differs(want) {
                return Some(format!("inode {ino}: {why}"));
            }
            if let Some(why) = difference(&got.content, &want.content)
                && !explained(*ino, &got.content, &want.content, later)
            {
                return Some(format!("inode {ino}: {why}"));
            }
        }
        let extra = self
            .nodes
            .keys()
            .find(|i| !expected.nodes.contains_key(*i))?;
        Some(format!("inode {extra} should not be there"))
    }
}

/// Whether each byte is as expected or as something wrote it later.
fn explained(ino: u64, got: &[u8], want: &[u8], later: &[&Tree]) -> bool {
    let others: Vec<&Vec<u8>> = later
        .iter()
        .filter_map(|t| t.nodes.get(&ino).map(|n| &*n.content))
        .collect();
    got.len() == want.len()
        && (0..got.len())
            .all(|i| got[i] == want[i] || others.iter().any(|o| o.get(i) == Some(&got[i])))
}

impl Node {
    fn new(kind: NodeKind) -> Self {
        Self {
            kind,
            perm: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: if kind == NodeKind::Dir { 2 } else { 1 },
            content: Arc::default(),
            target: Vec::new(),
            entries: BTreeMap::new(),
            parent: ROOT,
            xattrs: BTreeMap::new(),
            mtime: None,
        }
    }

    /// A node as the engine shows it.
    pub(crate) fn of(replica: &Replica, ino: u64, parent: u64) -> Self {
        let at = Ino(ino);
        let attr = replica.attr(at).unwrap();
        let mut node = Self {
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            nlink: attr.nlink,
            mtime: Some(attr.mtime),
            parent,
            ..Self::new(attr.kind)
        };
        match attr.kind {
            NodeKind::File => {
                node.content = Arc::new(read_all(replica, at));
                assert_eq!(
                    node.content.len() as u64,
                    attr.size,
                    "inode {ino} is cut off"
                );
            }
            NodeKind::Symlink => {
                node.target = replica.read_link(at).unwrap().to_vec();
                assert_eq!(node.target.len() as u64, attr.size);
            }
            NodeKind::Dir => {
                assert_eq!(replica.parent(at).unwrap(), Ino(parent));
                let mut cookies = BTreeSet::new();
                replica
                    .read_dir(at, 0, &mut |e| {
                        assert!(cookies.insert(e.cookie), "a cookie came twice");
                        let twice = node.entries.insert(e.name.to_vec(), e.attr.ino.0);
                        assert_eq!(twice, None, "a name was listed twice");
                        true
                    })
                    .unwrap();
            }
            _ => {}
        }
        for name in replica.list_xattrs(at).unwrap() {
            let value = replica.xattr(at, name.as_bytes()).unwrap();
            node.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
        }
        node
    }

    fn show(&self) -> String {
        format!(
            "{:?} of {} bytes, {} links",
            self.kind,
            self.content.len(),
            self.nlink
        )
    }

    /// In what a node that was found differs, but for its content.
    fn differs(&self, want: &Self) -> Option<String> {
        if self.entries != want.entries {
            let name = self
                .entries
                .iter()
                .find(|(n, i)| want.entries.get(*n) != Some(i));
            let lost = want
                .entries
                .iter()
                .find(|(n, i)| self.entries.get(*n) != Some(i));
            let show = |found: Option<(&Vec<u8>, &u64)>| {
                found.map(|(name, ino)| (String::from_utf8_lossy(name).into_owned(), *ino))
            };
            return Some(format!(
                "has {:?}, should have {:?}",
                show(name),
                show(lost)
            ));
        }
        let plain = |n: &Self| {
            let keep_parent = if n.kind == NodeKind::Dir { n.parent } else { 0 };
            (n.kind, n.perm, n.uid, n.gid, n.rdev, n.nlink, keep_parent)
        };
        if plain(self) != plain(want) {
            return Some(format!("is {:?}, should be {:?}", plain(self), plain(want)));
        }
        if self.target != want.target {
            return Some("another target".into());
        }
        if self.xattrs != want.xattrs {
            let names = |n: &Self| {
                n.xattrs
                    .iter()
                    .map(|(k, v)| (k.clone(), v.len()))
                    .collect::<Vec<_>>()
            };
            return Some(format!(
                "xattrs {:?}, should be {:?}",
                names(self),
                names(want)
            ));
        }
        if want.mtime.is_some() && self.mtime != want.mtime {
            return Some(format!(
                "mtime {:?}, should be {:?}",
                self.mtime, want.mtime
            ));
        }
        None
    }
}
