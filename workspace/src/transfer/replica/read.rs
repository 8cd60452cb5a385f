//! Sends a tree of a replica, as it is while it is read: it is no snapshot.

use std::collections::HashMap;
use std::ops::Range;

use cairn::{Attr, FsError, Ino, NodeKind, Replica, SeekTo};

use crate::failure::{Failure, Result};
use crate::transfer::error::Shown;
use crate::transfer::node::{self, Unread};
use crate::transfer::{
    Body, Data, Meta, NoData, Node, Sink, Talk, Xattrs, join, keeps_xattr, split,
};

/// Sends what is at `path` to a sink. A directory is the top itself, anything
/// else one node with its own name.
pub(crate) fn read(
    replica: &Replica,
    path: &[u8],
    sink: &mut dyn Sink,
    talk: &Talk<'_>,
) -> Result<()> {
    let attr = found(replica, path)?;
    let mut reader = Reader {
        replica,
        sink,
        talk,
        linked: HashMap::new(),
    };
    if attr.kind == NodeKind::Dir {
        reader.tree(&attr)?;
    } else {
        reader.node(split(path).1.to_vec(), &attr)?;
    }
    reader.sink.finish()
}

/// Sizes of all files, as a transfer counts them.
pub(crate) fn measure(replica: &Replica, path: &[u8]) -> Result<u64> {
    let attr = found(replica, path)?;
    let mut bytes = if attr.kind == NodeKind::File {
        attr.size
    } else {
        0
    };
    let mut todo = if attr.kind == NodeKind::Dir {
        vec![attr.ino]
    } else {
        Vec::new()
    };
    while let Some(dir) = todo.pop() {
        let listed = replica.read_dir(dir, 0, &mut |entry| {
            match entry.attr.kind {
                NodeKind::Dir => todo.push(entry.attr.ino),
                NodeKind::File => bytes += entry.attr.size,
                _ => {}
            }
            true
        });
        // One that was removed meanwhile has nothing to add.
        if !matches!(listed, Err(FsError::NotFound(_))) {
            listed.map_err(Failure::fs("cannot measure the tree"))?;
        }
    }
    Ok(bytes)
}

/// A link is followed: who names it wants what it shows.
fn found(replica: &Replica, path: &[u8]) -> Result<Attr> {
    replica
        .stat(path)
        .map_err(Failure::fs(Shown::new(path).to_string()))
}

struct Reader<'a, 't> {
    replica: &'a Replica,
    sink: &'a mut dyn Sink,
    talk: &'a Talk<'t>,
    /// The first names of nodes that have several.
    linked: HashMap<Ino, Vec<u8>>,
}

impl Reader<'_, '_> {
    fn tree(&mut self, top: &Attr) -> Result<()> {
        let mut todo = vec![(Vec::new(), *top)];
        while let Some((path, attr)) = todo.pop() {
            self.node(path.clone(), &attr)?;
            let mut entries = Vec::new();
            let listed = self.replica.read_dir(attr.ino, 0, &mut |entry| {
                entries.push((entry.name.to_vec(), *entry.attr));
                true
            });
            if !self.there(&path, listed)? {
                continue;
            }
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let (dirs, others): (Vec<_>, Vec<_>) = entries
                .into_iter()
                .partition(|(_, attr)| attr.kind == NodeKind::Dir);
            for (name, attr) in others {
                self.node(join(&path, &name), &attr)?;
            }
            todo.extend(
                dirs.into_iter()
                    .rev()
                    .map(|(name, attr)| (join(&path, &name), attr)),
            );
        }
        Ok(())
    }

    /// Whether something was there. If it went meanwhile, that is no failure.
    fn there<T>(&self, path: &[u8], got: Result<T, FsError>) -> Result<bool> {
        match got {
            Ok(_) => Ok(true),
            Err(FsError::NotFound(_)) => {
                self.talk
                    .leave_out(path, "left out: it was removed meanwhile")?;
                Ok(false)
            }
            Err(error) => Err(Failure::fs(format!("cannot read {}", Shown::new(path)))(
                error,
            )),
        }
    }

    fn node(&mut self, path: Vec<u8>, attr: &Attr) -> Result<()> {
        if attr.nlink > 1 && attr.kind != NodeKind::Dir {
            if let Some(first) = self.linked.get(&attr.ino) {
                let body = Body::Link(first.clone());
                return self.sink.put(
                    &Node {
                        path,
                        body,
                        meta: meta(attr),
                        xattrs: Vec::new(),
                    },
                    &mut NoData,
                );
            }
            self.linked.insert(attr.ino, path.clone());
        }
        let held = self.replica.retain(attr.ino, false);
        if !self.there(&path, held)? {
            self.linked.remove(&attr.ino);
            return Ok(());
        }
        let sent = self.send(path, attr.ino);
        self.replica.release(attr.ino, false);
        sent
    }

    /// Sends a node that cannot go meanwhile.
    fn send(&mut self, path: Vec<u8>, ino: Ino) -> Result<()> {
        let failed = || format!("cannot read {}", Shown::new(&path));
        let attr = self.replica.attr(ino).map_err(Failure::fs(failed()))?;
        let body = match attr.kind {
            NodeKind::Dir => Body::Dir,
            NodeKind::File => {
                let extents = extents(self.replica, &attr).map_err(Failure::fs(failed()))?;
                Body::File {
                    size: attr.size,
                    extents,
                }
            }
            NodeKind::Symlink => Body::Symlink(
                self.replica
                    .read_link(ino)
                    .map_err(Failure::fs(failed()))?
                    .to_vec(),
            ),
            kind => Body::Special {
                kind,
                rdev: attr.rdev,
            },
        };
        let xattrs = xattrs(self.replica, ino).map_err(Failure::fs(failed()))?;
        let node = Node {
            path,
            body,
            meta: meta(&attr),
            xattrs,
        };
        let Body::File { extents, .. } = &node.body else {
            return self.sink.put(&node, &mut NoData);
        };
        let mut data = FileData {
            reader: self.replica,
            ino,
            unread: Unread::new(extents),
            path: &node.path,
        };
        self.sink.put(&node, &mut data)?;
        if data.unread.short {
            self.talk.leave_out(
                &node.path,
                "became shorter while it was read; its end is zeros",
            )?;
        }
        Ok(())
    }
}

fn meta(attr: &Attr) -> Meta {
    Meta {
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
    }
}

fn xattrs(replica: &Replica, ino: Ino) -> Result<Xattrs, FsError> {
    let mut xattrs = Vec::new();
    for name in replica.list_xattrs(ino)? {
        match replica.xattr(ino, name.as_bytes()) {
            Ok(value) if keeps_xattr(name.as_bytes()) => {
                xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
            }
            Ok(_) | Err(FsError::NoXattr) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

/// Where a file has data.
fn extents(replica: &Replica, attr: &Attr) -> Result<Vec<Range<u64>>, FsError> {
    if attr.size == 0 {
        return Ok(Vec::new());
    }
    if attr.blocks.saturating_mul(512) >= attr.size {
        return Ok(std::iter::once(0..attr.size).collect());
    }
    node::extents(attr.size, |at, data| {
        let to = if data { SeekTo::Data } else { SeekTo::Hole };
        match replica.seek(attr.ino, at, to) {
            Ok(found) => Ok(Some(found)),
            Err(FsError::NoSuchOffset) => Ok(None),
            Err(error) => Err(error),
        }
    })
}

/// The data of a file in the replica.
struct FileData<'a> {
    reader: &'a Replica,
    ino: Ino,
    unread: Unread,
    path: &'a [u8],
}

impl Data for FileData<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.unread.fill(buf, |offset, part| {
            let read = self.reader.read(self.ino, offset, part);
            read.map_err(Failure::fs(format!(
                "cannot read {}",
                Shown::new(self.path)
            )))
        })
    }
}
