//! Sends a directory, or a single file, of this machine.
//!
//! What cannot be read, or goes meanwhile, is left out and said.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cairn::{NodeKind, Timestamp};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek,
    statat,
};
use rustix::io::{self, Errno, pread, retry_on_intr};

use crate::failure::{Failure, Result};
use crate::transfer::error::Shown;
use crate::transfer::node::{self, Unread};
use crate::transfer::{Body, Data, Meta, NoData, Node, Sink, Talk, join};

use super::xattr::At;
use super::{open_below, open_dir};

/// Device and inode number: what tells directories apart.
type Id = (u64, u64);

/// Directories that are not sent: the replica that everything goes to, and its mounts.
#[derive(Debug, Default)]
pub(crate) struct Skip(Vec<Id>);

impl Skip {
    /// These, as far as they exist.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let id = |path| rustix::fs::stat(path).ok().map(|stat| id(&stat));
        Self(paths.into_iter().filter_map(id).collect())
    }
}

fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// Sends what is at `path` to a sink. A directory is the top itself, anything
/// else one node with its own name.
pub(crate) fn read(path: &Path, skip: &Skip, sink: &mut dyn Sink, talk: &Talk<'_>) -> Result<()> {
    let failed = || Failure::io::<Errno>(format!("cannot read {}", path.display()));
    let stat = rustix::fs::stat(path).map_err(failed())?;
    let mut reader = Reader {
        sink,
        talk,
        skip,
        linked: HashMap::new(),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, path, how, Mode::empty()).map_err(failed())?;
        reader.tree(&top)?;
    } else {
        // A link is followed: who names it wants what it shows.
        let real = path
            .canonicalize()
            .map_err(Failure::io(format!("cannot read {}", path.display())))?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Failure::Refused(format!("{} has no name", path.display())));
        };
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, parent, how, Mode::empty()).map_err(failed())?;
        let shown = path.file_name().unwrap_or(name).as_bytes();
        reader.name(&dir, name.as_bytes(), shown.to_vec())?;
    }
    reader.sink.finish()
}

/// Sizes of all files, as a transfer counts them. What cannot be read has none.
pub(crate) fn measure(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        let Ok(found) = path.symlink_metadata() else {
            continue;
        };
        if found.is_file() {
            bytes += found.len();
        } else if found.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            for entry in entries {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        bytes += entry.metadata().map_or(0, |found| found.len());
                    }
                    _ => {}
                }
            }
        }
    }
    bytes
}

struct Reader<'a, 't> {
    sink: &'a mut dyn Sink,
    talk: &'a Talk<'t>,
    skip: &'a Skip,
    /// The first names of nodes that have several.
    linked: HashMap<Id, Vec<u8>>,
}

impl Reader<'_, '_> {
    fn tree(&mut self, top: &OwnedFd) -> Result<()> {
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            self.talk.go_on()?;
            let Some(dir) = self.try_to(&path, open_below(top, &path))? else {
                continue;
            };
            let mut below = self.directory(&dir, &path)?;
            todo.append(&mut below);
        }
        Ok(())
    }

    /// Sends a directory and all in it but directories, of which it returns the
    /// paths, the last one first.
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(stat) = self.try_to(path, fstat(dir))? else {
            return Ok(Vec::new());
        };
        if self.skips(path, &stat)? {
            return Ok(Vec::new());
        }
        let Some(mut names) = self.try_to(path, list(dir))? else {
            return Ok(Vec::new());
        };
        let Some(xattrs) = self.try_to(path, At::Open(dir).all())? else {
            return Ok(Vec::new());
        };
        let node = Node {
            path: path.to_vec(),
            body: Body::Dir,
            meta: meta(&stat),
            xattrs,
        };
        self.sink.put(&node, &mut NoData)?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut dirs = Vec::new();
        for (name, kind) in names {
            let path = join(path, &name);
            let is_dir = match kind {
                FileType::Unknown => open_dir(dir, &name).is_ok(),
                kind => kind == FileType::Directory,
            };
            if is_dir {
                dirs.push(path);
            } else {
                self.name(dir, &name, path)?;
            }
        }
        dirs.reverse();
        Ok(dirs)
    }

    /// Whether this belongs to where it would go, which is said.
    fn skips(&self, path: &[u8], stat: &Stat) -> Result<bool> {
        let skips = self.skip.0.contains(&id(stat));
        if skips {
            self.talk.leave_out(
                path,
                "left out: it is the replica that the import goes to, or a mount of it",
            )?;
        }
        Ok(skips)
    }

    /// What was to be had, or `None` if that could not be done, which is said.
    fn try_to<T>(&self, path: &[u8], got: io::Result<T>) -> Result<Option<T>> {
        match got {
            Ok(got) => Ok(Some(got)),
            Err(Errno::NOENT) if !path.is_empty() => {
                self.talk
                    .leave_out(path, "left out: it was removed meanwhile")?;
                Ok(None)
            }
            // Of the process, and everything that follows would be left out, too.
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(Failure::io::<Errno>(
                format!("cannot read {}", Shown::new(path)),
            )(error)),
            Err(error) => {
                self.talk.leave_out(
                    path,
                    format_args!("left out: {}", std::io::Error::from(error)),
                )?;
                Ok(None)
            }
        }
    }

    /// Sends what is no directory.
    fn name(&mut self, dir: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<()> {
        let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = self.try_to(&path, found)? else {
            return Ok(());
        };
        if self.skips(&path, &stat)? {
            return Ok(());
        }
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&id(&stat))
        {
            let body = Body::Link(first.clone());
            return self.sink.put(
                &Node {
                    path,
                    body,
                    meta: meta(&stat),
                    xattrs: Vec::new(),
                },
                &mut NoData,
            );
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(dir, name, path),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new());
                let Some(target) = self.try_to(&path, target)? else {
                    return Ok(());
                };
                return self.send(dir, name, path, &stat, Body::Symlink(target.into_bytes()));
            }
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            FileType::CharacterDevice => NodeKind::CharDevice,
            FileType::BlockDevice => NodeKind::BlockDevice,
            _ => {
                return self
                    .talk
                    .leave_out(&path, "left out: it became something else meanwhile");
            }
        };
        let is_device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        let Ok(rdev) = u32::try_from(if is_device { stat.st_rdev } else { 0 }) else {
            return self
                .talk
                .leave_out(&path, "left out: the number of the device is too large");
        };
        self.send(dir, name, path, &stat, Body::Special { kind, rdev })
    }

    fn send(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        stat: &Stat,
        body: Body,
    ) -> Result<()> {
        let xattrs = At::Name(dir, name).all();
        let Some(xattrs) = self.try_to(&path, xattrs)? else {
            return Ok(());
        };
        let node = Node {
            path,
            body,
            meta: meta(stat),
            xattrs,
        };
        self.sink.put(&node, &mut NoData)?;
        self.remember(stat, &node.path);
        Ok(())
    }

    /// After a node was sent: only then can it get more names.
    fn remember(&mut self, stat: &Stat, path: &[u8]) {
        if stat.st_nlink > 1 {
            self.linked.insert(id(stat), path.to_vec());
        }
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<()> {
        // Should it be a fifo by now, opening it must not wait for a writer.
        let how =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some(file) = self.try_to(&path, openat(dir, name, how, Mode::empty()))? else {
            return Ok(());
        };
        let Some(stat) = self.try_to(&path, fstat(&file))? else {
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self
                .talk
                .leave_out(&path, "left out: it became something else meanwhile");
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let Some(extents) = self.try_to(&path, extents(&file, &stat, size))? else {
            return Ok(());
        };
        let Some(xattrs) = self.try_to(&path, At::Open(&file).all())? else {
            return Ok(());
        };
        let node = Node {
            path,
            body: Body::File {
                size,
                extents: extents.clone(),
            },
            meta: meta(&stat),
            xattrs,
        };
        let mut data = FileData {
            file: &file,
            unread: Unread::new(&extents),
            path: &node.path,
        };
        self.sink.put(&node, &mut data)?;
        if data.unread.short {
            self.talk.leave_out(
                &node.path,
                "became shorter while it was read; its end is zeros",
            )?;
        }
        self.remember(&stat, &node.path);
        Ok(())
    }
}

/// Names in a directory, as far as it says with their kinds.
fn list(dir: &OwnedFd) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

fn meta(stat: &Stat) -> Meta {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Meta {
        perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp::new(stat.st_mtime, nanos).unwrap_or(Timestamp::EPOCH),
    }
}

/// Where a file has data.
fn extents(file: &OwnedFd, found: &Stat, size: u64) -> io::Result<Vec<Range<u64>>> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let allocated = u64::try_from(found.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    if allocated >= size {
        return Ok(std::iter::once(0..size).collect());
    }
    let mut knows_holes = true;
    let found = node::extents(size, |at, data| {
        let whence = if data {
            SeekFrom::Data(at)
        } else {
            SeekFrom::Hole(at)
        };
        match seek(file, whence) {
            Ok(found) => Ok(Some(found)),
            // No data follows.
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => {
                knows_holes = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    })?;
    if knows_holes {
        Ok(found)
    } else {
        Ok(std::iter::once(0..size).collect())
    }
}

/// The data of an open file.
struct FileData<'a> {
    file: &'a OwnedFd,
    unread: Unread,
    path: &'a [u8],
}

impl Data for FileData<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.unread.fill(buf, |offset, part| {
            retry_on_intr(|| pread(self.file, &mut *part, offset)).map_err(Failure::io::<Errno>(
                format!("cannot read {}", Shown::new(self.path)),
            ))
        })
    }
}
