//! Puts a tree into a directory of this machine.
//!
//! Directories that are there already are merged with those that come. What
//! else was there before is left as it is and refused, or, if that is wanted,
//! replaced at once when what replaces it is complete. Permissions, owners and
//! times of directories wait until everything is in them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cairn::{NodeKind, Timestamp};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat,
    chownat, fchmod, fchown, ftruncate, futimens, linkat, mkdirat, mknodat, openat, renameat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{self, Errno};

use crate::failure::{Failure, Result};
use crate::transfer::error::Shown;
use crate::transfer::{Body, Data, Meta, Node, Sink, Talk, TransferError, pieces, split};

use super::open_below;
use super::xattr::At;

/// Permissions of a directory until it is complete.
const PRIVATE: Mode = Mode::RWXU;

/// A sink that is a directory of this machine.
pub(crate) struct Writer<'a, 't> {
    target: PathBuf,
    talk: &'a Talk<'t>,
    replace: bool,
    root: bool,
    top: Option<OwnedFd>,
    /// The name of the one node, if there is only one and the target is to have its name.
    rename: Option<Vec<u8>>,
    /// The directory used last.
    dir: Option<(Vec<u8>, OwnedFd)>,
    /// Directories that were made, or met, with what they are to become.
    dirs: Vec<Node>,
    /// Whether it was said that the target does not take extended attributes.
    said: bool,
    temporary: u64,
    buf: Vec<u8>,
}

impl<'a, 't> Writer<'a, 't> {
    /// A sink at a path, which need not exist.
    pub(crate) fn new(target: &Path, replace: bool, talk: &'a Talk<'t>) -> Self {
        Self {
            target: target.into(),
            talk,
            replace,
            root: rustix::process::geteuid().is_root(),
            top: None,
            rename: None,
            dir: None,
            dirs: Vec::new(),
            said: false,
            temporary: 0,
            buf: Vec::new(),
        }
    }

    /// Opens the top when it is known what comes: a tree goes to the target
    /// itself, a single node to its name or, if it is a directory, into it.
    fn open_top(&mut self, is_tree: bool) -> Result<()> {
        let mut dir = self.target.clone();
        if !is_tree && !dir.is_dir() {
            self.rename = Some(dir.file_name().unwrap_or_default().as_bytes().to_vec());
            dir.pop();
        }
        if dir.as_os_str().is_empty() {
            dir.push(".");
        }
        if is_tree && !dir.exists() {
            std::fs::create_dir_all(&dir)
                .map_err(Failure::io(format!("cannot make {}", dir.display())))?;
        }
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, &dir, how, Mode::empty());
        self.top = Some(top.map_err(Failure::io::<Errno>(format!(
            "cannot export to {}",
            dir.display()
        )))?);
        Ok(())
    }

    /// The path of what is at a path below the top.
    fn shown(&self, path: &[u8]) -> Shown {
        let mut target = self.target.as_os_str().as_bytes().to_vec();
        if !path.is_empty() && self.rename.is_none() {
            target.push(b'/');
            target.extend_from_slice(path);
        }
        Shown::new(&target)
    }

    fn failed(&self, path: &[u8]) -> impl FnOnce(Errno) -> Failure + use<> {
        Failure::io(format!("cannot make {}", self.shown(path)))
    }

    /// The directory at a path below the top, which was sent before.
    fn dir(&mut self, entry: &[u8], path: &[u8]) -> Result<OwnedFd> {
        if self.dir.as_ref().is_none_or(|(open, _)| open != path) {
            let top = self
                .top
                .as_ref()
                .ok_or_else(|| TransferError::NoName(Shown::new(entry)))?;
            let dir = match open_below(top, path) {
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let (entry, link) = (Shown::new(entry), Shown::new(path));
                    return Err(TransferError::ThroughLink { entry, link }.into());
                }
                dir => dir.map_err(self.failed(path))?,
            };
            self.dir = Some((path.to_vec(), dir));
        }
        let dir = self.dir.as_ref().map(|(_, dir)| dir.try_clone());
        let dir = dir.transpose().map_err(Failure::io("cannot go on"))?;
        dir.ok_or_else(|| TransferError::NoName(Shown::new(entry)).into())
    }

    fn put_dir(&mut self, node: &Node) -> Result<()> {
        if !node.path.is_empty() {
            let (parent, name) = split(&node.path);
            let dir = self.dir(&node.path, parent)?;
            match mkdirat(&dir, name, PRIVATE) {
                Err(Errno::EXIST) => self.merge_dir(&dir, name, node)?,
                made => made.map_err(self.failed(&node.path))?,
            }
        }
        self.dirs.push(Node {
            path: node.path.clone(),
            body: Body::Dir,
            meta: node.meta,
            xattrs: node.xattrs.clone(),
        });
        Ok(())
    }

    /// Something has the name of a directory that comes.
    fn merge_dir(&mut self, dir: &OwnedFd, name: &[u8], node: &Node) -> Result<()> {
        let old = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed(&node.path))?;
        if FileType::from_raw_mode(old.st_mode) == FileType::Directory {
            return Ok(());
        }
        if !self.replace {
            return Err(TransferError::Exists(self.shown(&node.path)).into());
        }
        unlinkat(dir, name, AtFlags::empty()).map_err(self.failed(&node.path))?;
        mkdirat(dir, name, PRIVATE).map_err(self.failed(&node.path))
    }

    /// Puts a node that is no directory: under its name, or under another until
    /// it can replace what has the name.
    fn put_other(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        let (parent, name) = split(&node.path);
        let dir = self.dir(&node.path, parent)?;
        let old = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return self.put_at(&dir, name, node, data).map(drop),
            old => old.map_err(self.failed(&node.path))?,
        };
        if !self.replace {
            return Err(TransferError::Exists(self.shown(&node.path)).into());
        }
        if FileType::from_raw_mode(old.st_mode) == FileType::Directory {
            match unlinkat(&dir, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    return Err(TransferError::NotEmpty(self.shown(&node.path)).into());
                }
                done => done.map_err(self.failed(&node.path))?,
            }
        }
        self.temporary += 1;
        let temporary =
            format!(".cairn-export-{}-{}", std::process::id(), self.temporary).into_bytes();
        if self.put_at(&dir, &temporary, node, data)? {
            let moved = renameat(&dir, &temporary, &dir, name);
            // Two names of one node stay both when one is moved to the other.
            if moved.is_err() || matches!(node.body, Body::Link(_)) {
                let _ = unlinkat(&dir, &temporary, AtFlags::empty());
            }
            moved.map_err(self.failed(&node.path))?;
        }
        Ok(())
    }

    /// Puts a node at a name that is free. What is not complete is removed.
    /// Returns `false` if it was left out.
    fn put_at(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        node: &Node,
        data: &mut dyn Data,
    ) -> Result<bool> {
        let made = match &node.body {
            Body::File { size, .. } => {
                return self.file(dir, name, *size, node, data).map(|()| true);
            }
            Body::Link(target) => return self.link(dir, name, node, target).map(|()| true),
            Body::Symlink(target) => symlinkat(target.as_slice(), dir, name),
            Body::Special { kind, rdev } => mknodat(
                dir,
                name,
                file_type(*kind),
                Mode::RUSR | Mode::WUSR,
                u64::from(*rdev),
            ),
            Body::Dir => Ok(()),
        };
        match made {
            Err(error @ (Errno::PERM | Errno::NOTSUP))
                if matches!(node.body, Body::Special { .. }) =>
            {
                let why = format_args!("left out: cannot make it: {}", std::io::Error::from(error));
                self.talk.leave_out(&node.path, why)?;
                return Ok(false);
            }
            made => made.map_err(self.failed(&node.path))?,
        }
        self.describe(&At::Name(dir, name), node)?;
        Ok(true)
    }

    fn link(&mut self, dir: &OwnedFd, name: &[u8], node: &Node, target: &[u8]) -> Result<()> {
        let (parent, last) = split(target);
        let top = self
            .top
            .as_ref()
            .ok_or_else(|| TransferError::NoName(Shown::new(&node.path)))?;
        let linked = open_below(top, parent)
            .and_then(|from| linkat(&from, last, dir, name, AtFlags::empty()));
        linked.map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => TransferError::NoTarget {
                entry: Shown::new(&node.path),
                target: Shown::new(target),
            }
            .into(),
            error => self.failed(&node.path)(error),
        })
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        size: u64,
        node: &Node,
        data: &mut dyn Data,
    ) -> Result<()> {
        let how =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            openat(dir, name, how, Mode::RUSR | Mode::WUSR).map_err(self.failed(&node.path))?;
        let complete = self.fill(&file, size, node, data);
        if complete.is_err() {
            // The first failure is the one to tell.
            let _ = unlinkat(dir, name, AtFlags::empty());
        }
        complete
    }

    fn fill(&mut self, file: &OwnedFd, size: u64, node: &Node, data: &mut dyn Data) -> Result<()> {
        let Body::File { extents, .. } = &node.body else {
            return Ok(());
        };
        let mut buf = std::mem::take(&mut self.buf);
        let written = pieces(extents, data, &mut buf, &mut |at, piece| {
            write_all(file, at, piece).map_err(self.failed(&node.path))
        });
        self.buf = buf;
        written?;
        if extents.last().map_or(0, |last| last.end) < size {
            ftruncate(file, size).map_err(self.failed(&node.path))?;
        }
        self.describe(&At::Open(file), node)
    }

    /// Sets all attributes: the owner first, for that takes set-id bits away,
    /// and the time last.
    fn describe(&mut self, at: &At<'_>, node: &Node) -> Result<()> {
        if self.root {
            own(at, &node.meta).map_err(self.failed(&node.path))?;
        }
        for (name, value) in &node.xattrs {
            // As with tar and rsync, only root can keep more than those of users.
            if self.root || name.starts_with(b"user.") {
                self.set_xattr(at, node, name, value)?;
            }
        }
        let mode = Mode::from_raw_mode(u32::from(node.meta.perm));
        let set = match at {
            At::Open(file) => {
                fchmod(file, mode).and_then(|()| futimens(file, &times(node.meta.mtime)))
            }
            At::Name(dir, name) => {
                let mode = match node.body {
                    Body::Symlink(_) => Ok(()),
                    _ => chmodat(dir, *name, mode, AtFlags::empty()),
                };
                mode.and_then(|()| {
                    utimensat(
                        dir,
                        *name,
                        &times(node.meta.mtime),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )
                })
            }
        };
        set.map_err(self.failed(&node.path))
    }

    fn set_xattr(&mut self, at: &At<'_>, node: &Node, name: &[u8], value: &[u8]) -> Result<()> {
        match at.set(name, value) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP) if self.said => Ok(()),
            Err(Errno::NOTSUP) => {
                self.said = true;
                let why = format_args!(
                    "the filesystem does not take the attribute {}; this is said once",
                    Shown::new(name)
                );
                self.talk.leave_out(&node.path, why)
            }
            Err(error) => {
                let why = format_args!(
                    "without the attribute {}: {}",
                    Shown::new(name),
                    std::io::Error::from(error)
                );
                self.talk.leave_out(&node.path, why)
            }
        }
    }
}

impl Sink for Writer<'_, '_> {
    fn put(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        if self.top.is_none() {
            self.open_top(node.path.is_empty())?;
        }
        let node = &*node.moved(self.rename.as_deref());
        match node.body {
            Body::Dir => self.put_dir(node),
            _ => self.put_other(node, data),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let Some(top) = self.top.take() else {
            return Ok(());
        };
        // From below, as a directory may become one that cannot be entered.
        while let Some(node) = self.dirs.pop() {
            let dir = match open_below(&top, &node.path) {
                // Replaced by what came later.
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => continue,
                dir => dir.map_err(self.failed(&node.path))?,
            };
            self.describe(&At::Open(&dir), &node)?;
        }
        Ok(())
    }
}

fn own(at: &At<'_>, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    match at {
        At::Open(file) => fchown(file, uid, gid),
        At::Name(dir, name) => chownat(dir, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    }
}

fn write_all(file: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match io::pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                at += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharacterDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds(),
            tv_nsec: mtime.nanos().into(),
        },
    }
}
