//! Operations by path: what embedders and shells call.
//!
//! Paths are absolute, as bytes; empty and `.` components are dropped, `..`
//! goes up and stays at the root, and symbolic links are followed up to 40 times.

use std::sync::Arc;

use cairn_protocol::NodeKind;

use crate::attr::{Attr, Ino, NewNode, RenameMode, SetAttr, SetTime};
use crate::data::MEMORY_MAX;
use crate::node::{Base, Overlay};
use crate::observe::Invalidation;
use crate::replica::{Replica, now};
use crate::{FsError, Result};

/// Symbolic links followed in one path, as Linux does.
const LINKS_MAX: u32 = 40;

/// One entry of a directory, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name.
    pub name: Vec<u8>,
    /// Attributes of the node itself, not of what a link points at.
    pub attr: Attr,
    /// Where the next page starts.
    pub cookie: u64,
}

/// Where a path leads: a directory, and a name in it.
struct Spot {
    parent: Ino,
    /// `None` for the root itself.
    name: Option<Vec<u8>>,
}

impl Replica {
    /// Follows a path up to its last component.
    fn walk(&self, path: &[u8], follow_last: bool) -> Result<Spot> {
        if path.first() != Some(&b'/') || path.contains(&0) {
            return Err(FsError::Invalid("a path is absolute and has no NUL"));
        }
        let mut todo: Vec<Vec<u8>> = path
            .split(|b| *b == b'/')
            .rev()
            .map(<[u8]>::to_vec)
            .collect();
        let mut links = 0;
        let mut at = Ino::ROOT;
        // Name of `at` in its parent, when it was reached by name.
        loop {
            let Some(part) = todo.pop() else {
                return Ok(Spot {
                    parent: at,
                    name: None,
                });
            };
            if todo.len() > cairn_protocol::PATH_DEPTH_MAX {
                return Err(FsError::NameTooLong);
            }
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = self.parent(at)?;
                    continue;
                }
                _ => {}
            }
            let last = todo.iter().all(|p| p.is_empty() || p == b".");
            let found = match self.lookup(at, &part) {
                Ok(attr) => Some(attr),
                Err(FsError::NotFound(_)) if last => None,
                Err(FsError::NotFound(_)) => return Err(FsError::NotFound(show(path))),
                Err(FsError::NotDir(_)) => return Err(FsError::NotDir(show(path))),
                Err(e) => return Err(e),
            };
            match found {
                Some(attr) if attr.kind == NodeKind::Symlink && (!last || follow_last) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FsError::Loop(show(path)));
                    }
                    let target = self.read_link(attr.ino)?;
                    if target.first() == Some(&b'/') {
                        at = Ino::ROOT;
                    }
                    todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                _ if last => {
                    return Ok(Spot {
                        parent: at,
                        name: Some(part),
                    });
                }
                Some(attr) => at = attr.ino,
                None => return Err(FsError::NotFound(show(path))),
            }
        }
    }

    fn resolve(&self, path: &[u8], follow: bool) -> Result<Attr> {
        let spot = self.walk(path, follow)?;
        match spot.name {
            None => self.attr(spot.parent),
            Some(name) => self.lookup(spot.parent, &name).map_err(|e| named(e, path)),
        }
    }

    /// The place a new name is to be made at.
    fn place(&self, path: &[u8], follow: bool) -> Result<(Ino, Vec<u8>)> {
        let spot = self.walk(path, follow)?;
        let name = spot.name.ok_or_else(|| FsError::Exists(show(path)))?;
        Ok((spot.parent, name))
    }

    /// Attributes of what the path points at.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotDir`], [`FsError::Loop`].
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        self.resolve(path.as_ref(), true)
    }

    /// Attributes of the path itself, even if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn lstat(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        self.resolve(path.as_ref(), false)
    }

    /// Whether the path leads to something.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`], but for [`FsError::NotFound`].
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(FsError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The whole content of a file.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::IsDir`].
    pub fn read_file(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let found = || Ok(self.stat(path)?.ino);
        on_found(found, |ino| {
            let size = usize::try_from(self.attr(ino)?.size)
                .map_err(|_| FsError::TooLarge("the file does not fit in memory"))?;
            let mut bytes = vec![0; size];
            let got = self.read(ino, 0, &mut bytes)?;
            bytes.truncate(got);
            Ok(bytes)
        })
    }

    /// Part of a file, at most `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Self::read_file`].
    pub fn read_range(&self, path: impl AsRef<[u8]>, offset: u64, len: usize) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let found = || Ok(self.stat(path)?.ino);
        on_found(found, |ino| {
            let len = usize::try_from(self.attr(ino)?.size.saturating_sub(offset))
                .unwrap_or(usize::MAX)
                .min(len);
            let mut bytes = vec![0; len];
            let got = self.read(ino, offset, &mut bytes)?;
            bytes.truncate(got);
            Ok(bytes)
        })
    }

    /// Replaces the content of a file, or makes it with mode 0644. The mode of
    /// a file that exists stays.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`] when the directory is missing, [`FsError::IsDir`],
    /// [`FsError::NoSpace`].
    pub fn write_file(&self, path: impl AsRef<[u8]>, data: &[u8]) -> Result<Attr> {
        let path = path.as_ref();
        let found = || self.make_file(path, false);
        on_found(found, |ino| {
            self.held(ino, || {
                self.truncate(ino, 0)?;
                self.write(ino, 0, data)?;
                self.attr(ino)
            })
        })
    }

    /// Adds to the end of a file, or makes it.
    ///
    /// # Errors
    ///
    /// As [`Self::write_file`].
    pub fn append_file(&self, path: impl AsRef<[u8]>, data: &[u8]) -> Result<u64> {
        let path = path.as_ref();
        let found = || self.make_file(path, false);
        on_found(found, |ino| self.held(ino, || self.append(ino, data)))
    }

    /// Writes a new file beside the old one and puts it in its place at once:
    /// a reader sees either. Mode and owner of the old one are kept.
    ///
    /// # Errors
    ///
    /// As [`Self::write_file`].
    pub fn replace_file(&self, path: impl AsRef<[u8]>, data: &[u8]) -> Result<Attr> {
        let path = path.as_ref();
        let (parent, name) = self.place(path, true)?;
        let mut new = new_node(NodeKind::File, 0o644);
        match self.lookup(parent, &name) {
            Ok(old) if old.kind == NodeKind::Dir => return Err(FsError::IsDir(show(path))),
            Ok(old) => (new.perm, new.uid, new.gid) = (old.perm, old.uid, old.gid),
            Err(FsError::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        let temporary = self.temporary_name();
        let ino = self.make(parent, &temporary, &new)?.ino;
        let done = self
            .held(ino, || self.write(ino, 0, data))
            .and_then(|()| self.rename(parent, &temporary, parent, &name, RenameMode::Replace));
        if let Err(error) = done {
            self.unlink(parent, &temporary)?;
            return Err(error);
        }
        self.attr(ino)
    }

    /// Writes into a file from `offset` on, as [`Self::write`] does, or makes it.
    ///
    /// # Errors
    ///
    /// As [`Self::write_file`].
    pub fn write_range(&self, path: impl AsRef<[u8]>, offset: u64, data: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let found = || self.make_file(path, false);
        on_found(found, |ino| {
            self.held(ino, || self.write(ino, offset, data))
        })
    }

    /// The version of a file's content: pass it to [`Self::write_if`].
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn version(&self, path: impl AsRef<[u8]>) -> Result<u64> {
        let ino = self.stat(path)?.ino;
        // A seal sets the register anew: after this one there is none to come.
        self.inner.seal(ino)?;
        self.with(|t| Ok(t.node(ino)?.data_ver))
    }

    /// Replaces a file's content only if its version is still `expected`.
    /// Returns the new version.
    ///
    /// # Errors
    ///
    /// [`FsError::VersionMismatch`], and as [`Self::replace_file`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::{FsError, Replica};
    /// let replica = Replica::in_memory()?;
    /// replica.write_file("/counter", b"1")?;
    /// let version = replica.version("/counter")?;
    /// replica.write_if("/counter", version, b"2")?;
    /// let late = replica.write_if("/counter", version, b"3");
    /// assert!(matches!(late, Err(FsError::VersionMismatch { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_if(&self, path: impl AsRef<[u8]>, expected: u64, data: &[u8]) -> Result<u64> {
        let path = path.as_ref();
        let ino = self.stat(path)?.ino;
        if data.len() as u64 <= MEMORY_MAX {
            let content = Overlay::Memory(Arc::new(data.to_vec()));
            return self.swap_content(ino, expected, data.len() as u64, &Base::Empty, &content);
        }
        // Larger content is sealed in a file without a name, whose extents the
        // file then takes over.
        let (parent, _) = self.place(path, true)?;
        let temporary = self.temporary_name();
        let copy = self
            .make(parent, &temporary, &new_node(NodeKind::File, 0o644))?
            .ino;
        self.held(copy, || {
            self.unlink(parent, &temporary)?;
            self.write(copy, 0, data)?;
            self.inner.seal(copy)?;
            let base = self.with(|t| Ok(t.file(copy)?.base.clone()))?;
            self.swap_content(ino, expected, data.len() as u64, &base, &Overlay::None)
        })
    }

    /// Gives a file another content, unless its version is another.
    fn swap_content(
        &self,
        ino: Ino,
        expected: u64,
        size: u64,
        base: &Base,
        over: &Overlay,
    ) -> Result<u64> {
        let now = now();
        self.change(true, |t, notes| {
            let actual = t.node(ino)?.data_ver;
            if t.file(ino)?.direct.is_some() {
                return Err(FsError::NotSupported(
                    "the file is open on a mount; try again when it is closed",
                )
                .into());
            }
            if actual != expected {
                return Err(FsError::VersionMismatch { expected, actual }.into());
            }
            t.drop_overlay(ino);
            let file = t.file(ino)?;
            file.base = base.clone();
            file.base_dirty = true;
            file.over = over.clone();
            file.size = size;
            let added = file.memory();
            t.memory += added;
            t.touch_content(ino, now);
            notes.tell(|| Invalidation::Content {
                ino,
                offset: 0,
                len: None,
            });
            Ok(t.node(ino)?.data_ver)
        })
    }

    /// Runs `f` with the file held open for writing: it is sealed afterwards.
    fn held<T>(&self, ino: Ino, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.retain(ino, true)?;
        let done = f();
        self.release(ino, true);
        done
    }

    fn temporary_name(&self) -> Vec<u8> {
        format!(".cairn-{:x}", self.inner.tree.lock().next_ver()).into_bytes()
    }

    /// The file at a path; it is made if it is not there. One that is there is
    /// refused when the file must be `new`: so is a link to nowhere.
    pub(crate) fn make_file(&self, path: &[u8], new: bool) -> Result<Ino> {
        let spot = self.walk(path, !new)?;
        let Some(name) = spot.name else {
            return Err(FsError::IsDir(show(path)));
        };
        match self.lookup(spot.parent, &name) {
            Ok(_) if new => Err(FsError::Exists(show(path))),
            Ok(attr) if attr.kind == NodeKind::Dir => Err(FsError::IsDir(show(path))),
            Ok(attr) => Ok(attr.ino),
            Err(FsError::NotFound(_)) => {
                let node = new_node(NodeKind::File, 0o644);
                match self.make(spot.parent, &name, &node) {
                    // Somebody else was first.
                    Err(FsError::Exists(_)) if !new => Ok(self.lookup(spot.parent, &name)?.ino),
                    made => Ok(made?.ino),
                }
            }
            Err(e) => Err(e),
        }
    }

    /// Makes a directory with mode 0755.
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`], [`FsError::NotFound`] when its parent is missing.
    pub fn mkdir(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let (parent, name) = self.place(path.as_ref(), false)?;
        self.make(parent, &name, &new_node(NodeKind::Dir, 0o755))
    }

    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    ///
    /// [`FsError::NotDir`] when a component is something else.
    pub fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let path = path.as_ref();
        match self.stat(path) {
            Ok(attr) if attr.kind == NodeKind::Dir => return Ok(attr),
            Ok(_) => return Err(FsError::NotDir(show(path))),
            Err(FsError::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        if cut > 0 {
            self.mkdir_all(&path[..cut])?;
        }
        if path[cut + 1..].is_empty() {
            return self.stat(path);
        }
        self.mkdir(path)
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotEmpty`], [`FsError::NotPermitted`] for the root.
    pub fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let spot = self.walk(path, false)?;
        let name = spot.name.ok_or(FsError::NotPermitted("the root stays"))?;
        let attr = self
            .lookup(spot.parent, &name)
            .map_err(|e| named(e, path))?;
        if attr.kind == NodeKind::Dir {
            self.rmdir(spot.parent, &name)
        } else {
            self.unlink(spot.parent, &name)
        }
    }

    /// Removes a path and everything below it. Links are removed, not followed.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let spot = self.walk(path, false)?;
        let name = spot.name.ok_or(FsError::NotPermitted("the root stays"))?;
        let attr = self
            .lookup(spot.parent, &name)
            .map_err(|e| named(e, path))?;
        if attr.kind != NodeKind::Dir {
            return self.unlink(spot.parent, &name);
        }
        // A stack of directories that are being emptied.
        let mut stack = vec![(spot.parent, name, attr.ino)];
        while let Some((_, _, dir)) = stack.last() {
            let dir = *dir;
            let mut below = Vec::new();
            self.read_dir(dir, 0, &mut |e| {
                below.push((e.name.to_vec(), e.attr.ino, e.attr.kind));
                below.len() < 1_024
            })?;
            let mut deeper = None;
            for (name, ino, kind) in &below {
                if *kind == NodeKind::Dir {
                    deeper = Some((dir, name.clone(), *ino));
                } else {
                    self.unlink(dir, name)?;
                }
            }
            match deeper {
                Some(next) => stack.push(next),
                None if below.len() < 1_024 => {
                    if let Some((parent, name, _)) = stack.pop() {
                        self.rmdir(parent, &name)?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Moves a path, replacing what is there.
    ///
    /// # Errors
    ///
    /// As [`Replica::rename`].
    pub fn rename_path(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.place(from.as_ref(), false)?;
        let (new_parent, new_name) = self.place(to.as_ref(), false)?;
        self.rename(parent, &name, new_parent, &new_name, RenameMode::Replace)
    }

    /// Copies a file with its mode. No bytes move: the content is shared.
    ///
    /// # Errors
    ///
    /// As [`Self::write_file`].
    pub fn copy_file(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<u64> {
        let source = self.stat(from)?;
        let ino = self.make_file(to.as_ref(), false)?;
        if ino == source.ino {
            return Ok(source.size);
        }
        self.truncate(ino, 0)?;
        let copied = self.copy_range(source.ino, 0, ino, 0, source.size)?;
        self.set_attr(
            ino,
            &SetAttr {
                perm: Some(source.perm),
                ..SetAttr::default()
            },
        )?;
        Ok(copied)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// As [`Replica::link`].
    pub fn hard_link(&self, existing: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> Result<Attr> {
        let node = self.lstat(existing)?;
        let (parent, name) = self.place(new.as_ref(), false)?;
        self.link(node.ino, parent, &name)
    }

    /// Makes a symbolic link that says `target`.
    ///
    /// # Errors
    ///
    /// As [`Replica::symlink`].
    pub fn symlink_path(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<Attr> {
        let (parent, name) = self.place(path.as_ref(), false)?;
        let (uid, gid) = owner();
        self.symlink(parent, &name, target.as_ref(), uid, gid)
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    ///
    /// [`FsError::Invalid`] when it is not one.
    pub fn read_link_path(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        Ok(self.read_link(self.lstat(path)?.ino)?.to_vec())
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn chmod(&self, path: impl AsRef<[u8]>, perm: u16) -> Result<Attr> {
        let ino = self.stat(path)?.ino;
        self.set_attr(
            ino,
            &SetAttr {
                perm: Some(perm),
                ..SetAttr::default()
            },
        )
    }

    /// Sets owner and group.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn chown(
        &self,
        path: impl AsRef<[u8]>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Attr> {
        let ino = self.stat(path)?.ino;
        self.set_attr(
            ino,
            &SetAttr {
                uid,
                gid,
                kill_suid_gid: true,
                ..SetAttr::default()
            },
        )
    }

    /// Sets the times of last read and last change.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
    ) -> Result<Attr> {
        let ino = self.stat(path)?.ino;
        self.set_attr(
            ino,
            &SetAttr {
                atime,
                mtime,
                ..SetAttr::default()
            },
        )
    }

    /// Sets the size of a file.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`]; [`FsError::TooLarge`].
    pub fn truncate_path(&self, path: impl AsRef<[u8]>, size: u64) -> Result<()> {
        let ino = self.stat(path)?.ino;
        self.held(ino, || self.truncate(ino, size))
    }

    /// Up to `limit` entries of a directory after `cookie` (0 for the start).
    ///
    /// # Errors
    ///
    /// [`FsError::NotDir`].
    pub fn list(&self, path: impl AsRef<[u8]>, cookie: u64, limit: usize) -> Result<Vec<DirEntry>> {
        let dir = self.stat(path)?.ino;
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok(entries);
        }
        self.read_dir(dir, cookie, &mut |e| {
            entries.push(DirEntry {
                name: e.name.to_vec(),
                attr: *e.attr,
                cookie: e.cookie,
            });
            entries.len() < limit
        })?;
        Ok(entries)
    }
}

/// Runs `f` on the node that `find` finds. One that was replaced and is
/// gone before `f` gets to it is looked for again: the path leads to the
/// other, and never to nothing.
pub(crate) fn on_found<T>(
    find: impl Fn() -> Result<Ino>,
    f: impl Fn(Ino) -> Result<T>,
) -> Result<T> {
    let mut ino = find()?;
    loop {
        match f(ino) {
            Err(error @ FsError::NotFound(_)) => match find()? {
                again if again == ino => return Err(error),
                other => ino = other,
            },
            done => return done,
        }
    }
}

/// User and group of this process, who own what it makes by path.
fn owner() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

fn new_node(kind: NodeKind, perm: u16) -> NewNode {
    let (uid, gid) = owner();
    NewNode {
        kind,
        perm,
        uid,
        gid,
        rdev: 0,
    }
}

pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The same error, with the whole path.
fn named(error: FsError, path: &[u8]) -> FsError {
    match error {
        FsError::NotFound(_) => FsError::NotFound(show(path)),
        FsError::NotDir(_) => FsError::NotDir(show(path)),
        other => other,
    }
}
