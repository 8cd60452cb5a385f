//! The inode table of the ceiling filesystem: plain data, no FUSE replies.
//!
//! Owns inodes and their contents, all in memory. Invariant: an inode lives as
//! long as it has a name or the kernel holds a reference to it (`lookups`).

use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

use super::buffers::{Buffers, overlay};
use super::directory::Directory;

/// The answer to an operation: a value or the error for the caller.
pub(super) type Answer<T> = Result<T, Errno>;

/// Bytes of a block, as `st_blksize` reports them.
const BLOCK_BYTES: u32 = 4096;

/// What an inode holds.
#[derive(Debug)]
pub(super) enum Body {
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A directory.
    Directory(Directory),
    /// A symbolic link and its target.
    Symlink(OsString),
    /// A FIFO, socket or device: attributes only.
    Special,
}

/// One inode.
#[derive(Debug)]
pub(super) struct Node {
    /// Its attributes, as the kernel gets them.
    pub(super) attr: FileAttr,
    /// Its content.
    pub(super) body: Body,
    lookups: u64,
}

/// Who creates an inode, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creation {
    /// Type of the new inode.
    pub(super) kind: FileType,
    /// Permission bits.
    pub(super) perm: u16,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Device number of a device.
    pub(super) rdev: u32,
}

/// All inodes. Index 0 stays empty, 1 is the root.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<u64>,
    buffers: Buffers,
}

impl Tree {
    /// A tree with an empty root that belongs to `uid` and `gid`.
    pub(super) fn new(uid: u32, gid: u32) -> Self {
        let mut tree = Self {
            nodes: vec![None],
            free: Vec::new(),
            buffers: Buffers::default(),
        };
        let root = Creation {
            kind: FileType::Directory,
            perm: 0o755,
            uid,
            gid,
            rdev: 0,
        };
        tree.allocate(root, Body::Directory(Directory::new(INodeNo::ROOT.0)));
        tree
    }

    fn allocate(&mut self, new: Creation, body: Body) -> u64 {
        let ino = self.free.pop().unwrap_or(self.nodes.len() as u64);
        let now = SystemTime::now();
        let size = if let Body::Symlink(target) = &body {
            target.len() as u64
        } else {
            0
        };
        let attr = FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: new.kind,
            perm: new.perm,
            nlink: if new.kind == FileType::Directory {
                2
            } else {
                1
            },
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            blksize: BLOCK_BYTES,
            flags: 0,
        };
        let node = Some(Node {
            attr,
            body,
            lookups: 0,
        });
        let index = index(ino);
        if index == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[index] = node;
        }
        ino
    }

    /// The inode of that number.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub(super) fn node(&self, ino: u64) -> Answer<&Node> {
        self.nodes
            .get(index(ino))
            .and_then(Option::as_ref)
            .ok_or(Errno::ENOENT)
    }

    /// The inode of that number, to be changed.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub(super) fn node_mut(&mut self, ino: u64) -> Answer<&mut Node> {
        self.nodes
            .get_mut(index(ino))
            .and_then(Option::as_mut)
            .ok_or(Errno::ENOENT)
    }

    /// The directory of that number.
    ///
    /// # Errors
    /// `ENOENT` or `ENOTDIR`.
    pub(super) fn directory(&self, ino: u64) -> Answer<&Directory> {
        match &self.node(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory of that number, to be changed, with its times moved on.
    fn touch(&mut self, ino: u64) -> Answer<&mut Directory> {
        let node = self.node_mut(ino)?;
        let Body::Directory(directory) = &mut node.body else {
            return Err(Errno::ENOTDIR);
        };
        node.attr.mtime = SystemTime::now();
        node.attr.ctime = node.attr.mtime;
        Ok(directory)
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// `ENOENT`, or `EINVAL` for anything but a regular file.
    pub(super) fn file(&self, ino: u64) -> Answer<&[u8]> {
        match &self.node(ino)?.body {
            Body::File(bytes) => Ok(bytes),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Finds a name and counts the reference that the kernel now holds.
    ///
    /// # Errors
    /// `ENOENT` or `ENOTDIR`.
    pub(super) fn lookup(&mut self, parent: u64, name: &OsStr) -> Answer<FileAttr> {
        let ino = self.directory(parent)?.get(name).ok_or(Errno::ENOENT)?;
        self.refer(ino)
    }

    /// Counts one more reference of the kernel.
    ///
    /// # Errors
    /// `ENOENT`.
    pub(super) fn refer(&mut self, ino: u64) -> Answer<FileAttr> {
        let node = self.node_mut(ino)?;
        node.lookups += 1;
        Ok(node.attr)
    }

    /// Takes back `count` references of the kernel.
    pub(super) fn forget(&mut self, ino: u64, count: u64) {
        if let Ok(node) = self.node_mut(ino) {
            node.lookups = node.lookups.saturating_sub(count);
            self.reclaim(ino);
        }
    }

    /// Frees an inode that has neither a name nor a reference.
    fn reclaim(&mut self, ino: u64) {
        let dead = self
            .node(ino)
            .is_ok_and(|node| node.attr.nlink == 0 && node.lookups == 0);
        if dead {
            let node = self.nodes[index(ino)].take();
            self.free.push(ino);
            if let Some(Body::File(bytes)) = node.map(|node| node.body) {
                self.buffers.recycle(bytes);
            }
        }
    }

    /// Makes an inode under a new name, and counts the kernel's reference.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` or `ENOTDIR`.
    pub(super) fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        new: Creation,
        body: Body,
    ) -> Answer<FileAttr> {
        if self.directory(parent)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = self.allocate(new, body);
        self.touch(parent)?.insert(name, ino);
        if new.kind == FileType::Directory {
            self.node_mut(parent)?.attr.nlink += 1;
        }
        self.refer(ino)
    }

    /// Makes an empty directory.
    ///
    /// # Errors
    /// As [`Tree::create`].
    pub(super) fn mkdir(&mut self, parent: u64, name: &OsStr, new: Creation) -> Answer<FileAttr> {
        let body = Body::Directory(Directory::new(parent));
        self.create(parent, name, new, body)
    }

    /// Gives a file one more name, and counts the kernel's reference.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `ENOTDIR`, or `EPERM` for a directory.
    pub(super) fn link(&mut self, ino: u64, parent: u64, name: &OsStr) -> Answer<FileAttr> {
        if self.node(ino)?.attr.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        let directory = self.touch(parent)?;
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        directory.insert(name, ino);
        let node = self.node_mut(ino)?;
        node.attr.nlink += 1;
        node.attr.ctime = SystemTime::now();
        self.refer(ino)
    }

    /// Removes the name of anything but a directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` or `EISDIR`.
    pub(super) fn unlink(&mut self, parent: u64, name: &OsStr) -> Answer<()> {
        let ino = self.directory(parent)?.get(name).ok_or(Errno::ENOENT)?;
        if self.node(ino)?.attr.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.touch(parent)?.remove(name);
        let node = self.node_mut(ino)?;
        node.attr.nlink -= 1;
        node.attr.ctime = SystemTime::now();
        self.reclaim(ino);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` or `ENOTEMPTY`.
    pub(super) fn rmdir(&mut self, parent: u64, name: &OsStr) -> Answer<()> {
        let ino = self.directory(parent)?.get(name).ok_or(Errno::ENOENT)?;
        if !self.directory(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.touch(parent)?.remove(name);
        self.node_mut(parent)?.attr.nlink -= 1;
        self.node_mut(ino)?.attr.nlink = 0;
        self.reclaim(ino);
        Ok(())
    }

    /// Moves a name, and replaces what the new name named.
    ///
    /// # Errors
    /// `EEXIST` when `keep` forbids the replacement, otherwise those of
    /// [`Tree::unlink`] and [`Tree::rmdir`].
    pub(super) fn rename(
        &mut self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        keep: bool,
    ) -> Answer<()> {
        let ino = self.directory(parent)?.get(name).ok_or(Errno::ENOENT)?;
        let is_directory = self.node(ino)?.attr.kind == FileType::Directory;
        match self.directory(new_parent)?.get(new_name) {
            Some(_) if keep => return Err(Errno::EEXIST),
            Some(old) if old == ino => return Ok(()),
            Some(_) if is_directory => self.rmdir(new_parent, new_name)?,
            Some(_) => self.unlink(new_parent, new_name)?,
            None => {}
        }
        self.touch(parent)?.remove(name);
        self.touch(new_parent)?.insert(new_name, ino);
        if is_directory && parent != new_parent {
            self.node_mut(parent)?.attr.nlink -= 1;
            self.node_mut(new_parent)?.attr.nlink += 1;
            self.touch(ino)?.parent = new_parent;
        }
        self.node_mut(ino)?.attr.ctime = SystemTime::now();
        Ok(())
    }

    /// Takes the content of a file out of the table, for [`Tree::put`].
    fn take(&mut self, ino: u64) -> Answer<Vec<u8>> {
        match &mut self.node_mut(ino)?.body {
            Body::File(bytes) => Ok(std::mem::take(bytes)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Puts changed content back, with its size and times.
    fn put(&mut self, ino: u64, bytes: Vec<u8>) -> Answer<()> {
        let node = self.node_mut(ino)?;
        node.attr.size = bytes.len() as u64;
        node.attr.blocks = node.attr.size.div_ceil(512);
        node.attr.mtime = SystemTime::now();
        node.attr.ctime = node.attr.mtime;
        node.body = Body::File(bytes);
        Ok(())
    }

    /// Cuts a file off, or fills it up with zeros.
    ///
    /// # Errors
    /// `ENOENT`, or `EINVAL` for anything but a regular file.
    pub(super) fn truncate(&mut self, ino: u64, len: usize) -> Answer<()> {
        let mut bytes = self.take(ino)?;
        self.buffers.grow(&mut bytes, len);
        bytes.resize(len, 0);
        self.put(ino, bytes)
    }

    /// Puts `data` at `offset`, with zeros in a gap before it.
    ///
    /// # Errors
    /// As [`Tree::truncate`].
    pub(super) fn write(&mut self, ino: u64, offset: usize, data: &[u8]) -> Answer<()> {
        let mut bytes = self.take(ino)?;
        self.buffers.grow(&mut bytes, offset + data.len());
        overlay(&mut bytes, offset, data);
        self.put(ino, bytes)
    }

    /// Copies at most `len` bytes from one file to another, or within one file
    /// when the ranges do not overlap, and returns how many there were.
    ///
    /// # Errors
    /// As [`Tree::truncate`].
    pub(super) fn copy(
        &mut self,
        (source, from): (u64, usize),
        (target, to): (u64, usize),
        len: usize,
    ) -> Answer<usize> {
        let available = self.file(source)?.len();
        let from = from.min(available);
        let end = available.min(from.saturating_add(len));
        let len = end - from;
        if source == target {
            let piece = self.file(source)?[from..end].to_vec();
            self.write(target, to, &piece)?;
            return Ok(len);
        }
        let mut bytes = self.take(target)?;
        self.buffers.grow(&mut bytes, to + len);
        overlay(&mut bytes, to, &self.file(source)?[from..end]);
        self.put(target, bytes)?;
        Ok(len)
    }
}

/// Inode numbers are indices into the table.
fn index(ino: u64) -> usize {
    usize::try_from(ino).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::buffers::SPARE_MIN_BYTES;
    use super::*;

    const ROOT: u64 = 1;

    fn new(kind: FileType) -> Creation {
        Creation {
            kind,
            perm: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
        }
    }

    fn file(tree: &mut Tree, name: &str) -> u64 {
        let new = new(FileType::RegularFile);
        let body = Body::File(Vec::new());
        let attr = tree.create(ROOT, OsStr::new(name), new, body).unwrap();
        attr.ino.0
    }

    #[test]
    fn an_unlinked_inode_lives_until_it_is_forgotten() {
        let mut tree = Tree::new(0, 0);
        let ino = file(&mut tree, "a");
        tree.unlink(ROOT, OsStr::new("a")).unwrap();
        assert_eq!(tree.node(ino).unwrap().attr.nlink, 0);
        tree.forget(ino, 1);
        assert!(tree.node(ino).is_err());
        assert_eq!(file(&mut tree, "b"), ino);
    }

    #[test]
    fn a_moved_directory_moves_a_link_of_its_parents() {
        let mut tree = Tree::new(0, 0);
        let kind = new(FileType::Directory);
        let a = tree.mkdir(ROOT, OsStr::new("a"), kind).unwrap().ino.0;
        let b = tree.mkdir(ROOT, OsStr::new("b"), kind).unwrap().ino.0;
        tree.rename((ROOT, OsStr::new("b")), (a, OsStr::new("b")), false)
            .unwrap();
        assert_eq!(tree.node(ROOT).unwrap().attr.nlink, 3);
        assert_eq!(tree.node(a).unwrap().attr.nlink, 3);
        assert_eq!(tree.directory(b).unwrap().parent, a);
    }

    #[test]
    fn a_file_in_a_used_buffer_has_only_its_own_bytes() {
        let mut tree = Tree::new(0, 0);
        let old = file(&mut tree, "old");
        tree.write(old, 0, &vec![1; 4 * SPARE_MIN_BYTES]).unwrap();
        tree.unlink(ROOT, OsStr::new("old")).unwrap();
        tree.forget(old, 1);
        let new = file(&mut tree, "new");
        tree.write(new, 0, &[2; 10]).unwrap();
        tree.truncate(new, 2 * SPARE_MIN_BYTES).unwrap();
        let bytes = tree.file(new).unwrap();
        assert_eq!(bytes.len(), 2 * SPARE_MIN_BYTES);
        assert!(bytes[..10].iter().all(|byte| *byte == 2));
        assert!(bytes[10..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_copy_stops_at_the_end_of_its_source() {
        let mut tree = Tree::new(0, 0);
        let (a, b) = (file(&mut tree, "a"), file(&mut tree, "b"));
        tree.write(a, 0, b"0123456789").unwrap();
        assert_eq!(tree.copy((a, 6), (b, 1), 100).unwrap(), 4);
        assert_eq!(tree.file(b).unwrap(), b"\x006789");
        assert_eq!(tree.copy((a, 0), (a, 10), 2).unwrap(), 2);
        assert_eq!(tree.file(a).unwrap(), b"012345678901");
        assert_eq!(tree.node(a).unwrap().attr.size, 12);
    }
}
