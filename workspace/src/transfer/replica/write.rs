//! Puts a tree into a replica.
//!
//! Directories that are there already are merged with those that come. What
//! else was there before is left as it is and refused, or, if that is wanted,
//! replaced at once when what replaces it is complete. A name that comes twice
//! has the later content, as with tar.

use cairn::{
    Attr, FsError, Ino, NewNode, NodeKind, RenameMode, Replica, SetAttr, SetTime, Timestamp,
    XattrMode,
};

use crate::failure::{Failure, Result};
use crate::locate;
use crate::transfer::error::Shown;
use crate::transfer::{
    Body, Data, Meta, Node, Sink, TransferError, join, keeps_xattr, names, pieces, split,
};

/// Permissions of directories that are made because something is in them.
const IMPLICIT_PERM: u16 = 0o755;

/// How a tree is put into a replica.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// What was there before may be replaced.
    pub(crate) replace: bool,
    /// Who owns everything; without, those who own it where it comes from.
    pub(crate) owner: Option<(u32, u32)>,
    /// Only one node comes, and this is its name there. It gets the name of the
    /// place, unless that is a directory.
    pub(crate) single: Option<Vec<u8>>,
}

/// A sink that is a directory of a replica.
pub(crate) struct Writer<'a> {
    replica: &'a Replica,
    how: How,
    /// Path of the top in the replica; its directories are made when something comes.
    place: Vec<u8>,
    /// The name of the one node, if there is only one.
    rename: Option<Vec<u8>>,
    /// The directories from the top to the one that was used last.
    open: Vec<(Vec<u8>, Ino)>,
    /// Nodes from this number on did not exist when the transfer began.
    first_new: Option<u64>,
    /// Times of directories, which wait until nothing more is put into them.
    times: Vec<(Ino, Timestamp)>,
    /// Temporary names used.
    temporary: u64,
    buf: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A sink at a path of the replica.
    pub(crate) fn new(replica: &'a Replica, path: &[u8], how: How) -> Result<Self> {
        let there = match replica.stat(path) {
            Ok(attr) => Some(attr.kind == NodeKind::Dir),
            Err(FsError::NotFound(_)) => None,
            Err(error) => return Err(Failure::fs(Shown::new(path).to_string())(error)),
        };
        let (place, rename) = match (&how.single, there) {
            (Some(single), Some(true)) => (path.to_vec(), Some(single.clone())),
            (Some(_), _) => {
                let (dir, name) = split(path);
                (dir.to_vec(), Some(name.to_vec()))
            }
            (None, Some(false)) => {
                return Err(Failure::Refused(format!(
                    "{} is not a directory; name one, or a new name, to import a tree into",
                    locate::shown(path),
                )));
            }
            (None, _) => (path.to_vec(), None),
        };
        Ok(Self {
            replica,
            how,
            place,
            rename,
            open: Vec::new(),
            first_new: None,
            times: Vec::new(),
            temporary: 0,
            buf: Vec::new(),
        })
    }

    /// The path in the replica of what is at a path below the top.
    fn shown(&self, path: &[u8]) -> Shown {
        Shown::new(
            &[
                self.place.strip_suffix(b"/").unwrap_or(&self.place),
                b"/",
                path,
            ]
            .concat(),
        )
    }

    fn owner(&self, meta: Option<&Meta>) -> (u32, u32) {
        self.how
            .owner
            .unwrap_or_else(|| meta.map_or((0, 0), |meta| (meta.uid, meta.gid)))
    }

    /// The top; it is made, with those above it, if it is not there.
    fn top(&mut self) -> Result<Ino> {
        if let Some((_, top)) = self.open.first() {
            return Ok(*top);
        }
        let place = if self.place.is_empty() {
            b"/"
        } else {
            self.place.as_slice()
        };
        let top = self
            .replica
            .mkdir_all(place)
            .map_err(Failure::fs(locate::shown(place)))?
            .ino;
        self.open.push((Vec::new(), top));
        Ok(top)
    }

    /// The directory at a path below the top; it is made if it is not there.
    fn dir(&mut self, entry: &[u8], path: &[u8]) -> Result<Ino> {
        let mut at = self.top()?;
        for (depth, name) in (1..).zip(names(path)) {
            if self.open.get(depth).is_none_or(|(known, _)| known != name) {
                self.open.truncate(depth);
                let next = self.enter(at, name, entry)?;
                self.open.push((name.to_vec(), next));
            }
            at = self.open[depth].1;
        }
        Ok(at)
    }

    fn enter(&mut self, dir: Ino, name: &[u8], entry: &[u8]) -> Result<Ino> {
        let here = || {
            let above: Vec<&[u8]> = self.open[1..]
                .iter()
                .map(|(name, _)| name.as_slice())
                .collect();
            Shown::new(&join(&above.join(&b'/'), name))
        };
        match self.replica.lookup(dir, name) {
            Ok(attr) => match attr.kind {
                NodeKind::Dir => Ok(attr.ino),
                NodeKind::Symlink => Err(TransferError::ThroughLink {
                    entry: Shown::new(entry),
                    link: here(),
                }
                .into()),
                _ => Err(TransferError::ThroughFile {
                    entry: Shown::new(entry),
                    file: here(),
                }
                .into()),
            },
            Err(FsError::NotFound(_)) => {
                let (uid, gid) = self.owner(None);
                let new = NewNode {
                    kind: NodeKind::Dir,
                    perm: IMPLICIT_PERM,
                    uid,
                    gid,
                    rdev: 0,
                };
                self.make_node(dir, name, &Body::Dir, &new)
                    .map(|attr| attr.ino)
                    .map_err(failed(entry))
            }
            Err(error) => Err(failed(entry)(error)),
        }
    }

    fn make_node(
        &mut self,
        dir: Ino,
        name: &[u8],
        body: &Body,
        new: &NewNode,
    ) -> Result<Attr, FsError> {
        let made = match body {
            Body::Symlink(target) => self.replica.symlink(dir, name, target, new.uid, new.gid)?,
            _ => self.replica.make(dir, name, new)?,
        };
        self.first_new.get_or_insert(made.ino.0);
        Ok(made)
    }

    /// Whether something with the name of what comes has to make room for it.
    fn gives_way(&self, old: &Attr) -> bool {
        self.how.replace || self.first_new.is_some_and(|first| old.ino.0 >= first)
    }

    fn put_dir(&mut self, node: &Node) -> Result<()> {
        let (parent, name) = split(&node.path);
        let ino = if node.path.is_empty() {
            self.top()?
        } else {
            let dir = self.dir(&node.path, parent)?;
            match self.replica.lookup(dir, name) {
                Ok(old) if old.kind == NodeKind::Dir => {}
                Ok(old) if self.gives_way(&old) => {
                    self.replica.unlink(dir, name).map_err(failed(&node.path))?;
                }
                Ok(_) => return Err(TransferError::Exists(self.shown(&node.path)).into()),
                Err(FsError::NotFound(_)) => {}
                Err(error) => return Err(failed(&node.path)(error)),
            }
            self.dir(&node.path, &node.path)?
        };
        self.describe(ino, node)?;
        self.times.push((ino, node.meta.mtime));
        Ok(())
    }

    /// Puts a node that is no directory: under its name, or under another until
    /// it can replace what has the name.
    fn put_other(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        let (parent, name) = split(&node.path);
        let dir = self.dir(&node.path, parent)?;
        match self.replica.lookup(dir, name) {
            Err(FsError::NotFound(_)) => return self.put_at(dir, name, node, data),
            Err(error) => return Err(failed(&node.path)(error)),
            Ok(old) if !self.gives_way(&old) => {
                return Err(TransferError::Exists(self.shown(&node.path)).into());
            }
            Ok(old) if old.kind == NodeKind::Dir => self.remove_empty(dir, name, node)?,
            Ok(_) => {}
        }
        let temporary = self.temporary_name(dir).map_err(failed(&node.path))?;
        self.put_at(dir, &temporary, node, data)?;
        let moved = self
            .replica
            .rename(dir, &temporary, dir, name, RenameMode::Replace);
        // Two names of one node stay both when one is moved to the other.
        if moved.is_err() || matches!(node.body, Body::Link(_)) {
            match self.replica.unlink(dir, &temporary) {
                Ok(()) | Err(FsError::NotFound(_)) => {}
                Err(error) => return Err(failed(&node.path)(error)),
            }
        }
        moved.map_err(failed(&node.path))
    }

    fn remove_empty(&mut self, dir: Ino, name: &[u8], node: &Node) -> Result<()> {
        // It may be one of those that are open.
        self.open.truncate(1);
        match self.replica.rmdir(dir, name) {
            Err(FsError::NotEmpty(_)) => {
                Err(TransferError::NotEmpty(self.shown(&node.path)).into())
            }
            done => done.map_err(failed(&node.path)),
        }
    }

    fn temporary_name(&mut self, dir: Ino) -> Result<Vec<u8>, FsError> {
        loop {
            self.temporary += 1;
            let name =
                format!(".cairn-import-{}-{}", std::process::id(), self.temporary).into_bytes();
            match self.replica.lookup(dir, &name) {
                Ok(_) => {}
                Err(FsError::NotFound(_)) => return Ok(name),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a node at a name that is free. What is not complete is removed.
    fn put_at(&mut self, dir: Ino, name: &[u8], node: &Node, data: &mut dyn Data) -> Result<()> {
        if let Body::Link(target) = &node.body {
            let target = self.target(node, target)?;
            return self
                .replica
                .link(target, dir, name)
                .map(drop)
                .map_err(failed(&node.path));
        }
        let (kind, rdev) = match &node.body {
            Body::Special { kind, rdev } => (*kind, *rdev),
            _ => (NodeKind::File, 0),
        };
        let (uid, gid) = self.owner(Some(&node.meta));
        let new = NewNode {
            kind,
            perm: node.meta.perm,
            uid,
            gid,
            rdev,
        };
        let ino = self
            .make_node(dir, name, &node.body, &new)
            .map_err(failed(&node.path))?
            .ino;
        let complete = match &node.body {
            Body::File { size, .. } => self.fill(ino, *size, node, data),
            _ => self.describe(ino, node),
        };
        if complete.is_err() {
            // The first failure is the one to tell.
            let _ = self.replica.unlink(dir, name);
        }
        complete
    }

    /// The node at a path below the top, for one more name of it.
    fn target(&mut self, node: &Node, path: &[u8]) -> Result<Ino> {
        let missing = || TransferError::NoTarget {
            entry: Shown::new(&node.path),
            target: Shown::new(path),
        };
        let mut at = self.top()?;
        for name in names(path) {
            at = match self.replica.lookup(at, name) {
                Ok(attr) => attr.ino,
                // What is on the way may also be a link, which is not followed.
                Err(FsError::NotFound(_) | FsError::NotDir(_)) => return Err(missing().into()),
                Err(error) => return Err(failed(&node.path)(error)),
            };
        }
        Ok(at)
    }

    fn fill(&mut self, ino: Ino, size: u64, node: &Node, data: &mut dyn Data) -> Result<()> {
        let Body::File { extents, .. } = &node.body else {
            return Ok(());
        };
        self.replica.retain(ino, true).map_err(failed(&node.path))?;
        let mut buf = std::mem::take(&mut self.buf);
        let written = pieces(extents, data, &mut buf, &mut |at, piece| {
            self.replica
                .write(ino, at, piece)
                .map_err(failed(&node.path))
        });
        self.buf = buf;
        let end = extents.last().map_or(0, |last| last.end);
        let complete = written.and_then(|()| {
            if end < size {
                let set = SetAttr {
                    size: Some(size),
                    ..SetAttr::default()
                };
                self.replica
                    .set_attr(ino, &set)
                    .map_err(failed(&node.path))?;
            }
            self.describe(ino, node)
        });
        self.replica.release(ino, true);
        complete
    }

    /// Sets all attributes.
    fn describe(&self, ino: Ino, node: &Node) -> Result<()> {
        for (name, value) in node.xattrs.iter().filter(|(name, _)| keeps_xattr(name)) {
            self.replica
                .set_xattr(ino, name, value, XattrMode::Set)
                .map_err(|error| {
                    let what = format!(
                        "cannot keep the attribute {} of {}",
                        Shown::new(name),
                        Shown::new(&node.path)
                    );
                    Failure::fs(what)(error)
                })?;
        }
        let (uid, gid) = self.owner(Some(&node.meta));
        let set = SetAttr {
            perm: (!matches!(node.body, Body::Symlink(_))).then_some(node.meta.perm),
            uid: Some(uid),
            gid: Some(gid),
            mtime: Some(SetTime::At(node.meta.mtime)),
            ..SetAttr::default()
        };
        self.replica
            .set_attr(ino, &set)
            .map(drop)
            .map_err(failed(&node.path))
    }
}

impl Sink for Writer<'_> {
    fn put(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        let node = &*node.moved(self.rename.as_deref());
        match node.body {
            Body::Dir => self.put_dir(node),
            _ => self.put_other(node, data),
        }
    }

    fn finish(&mut self) -> Result<()> {
        for (ino, mtime) in std::mem::take(&mut self.times) {
            let set = SetAttr {
                mtime: Some(SetTime::At(mtime)),
                ..SetAttr::default()
            };
            match self.replica.set_attr(ino, &set) {
                // Removed or replaced meanwhile.
                Ok(_) | Err(FsError::NotFound(_)) => {}
                Err(error) => {
                    return Err(Failure::fs("cannot set the times of directories")(error));
                }
            }
        }
        Ok(())
    }
}

fn failed(entry: &[u8]) -> impl FnOnce(FsError) -> Failure {
    Failure::fs(format!("cannot put {} into the replica", Shown::new(entry)))
}
