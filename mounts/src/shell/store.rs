//! What a worker asks for, done on the replica.
//!
//! The interpreter follows symbolic links by itself, in the names that its
//! scripts see, where the workspace is a directory among others. So no link is
//! followed here: one in the middle of a path is "not a directory", and the
//! interpreter then asks where it leads.

use std::collections::HashMap;

use cairn_engine::{Attr, FsError, Ino, NewNode, RenameMode, Replica, SetAttr, SetTime};
use cairn_protocol::NodeKind;

use super::wire::{Answer, Ask, Change, Node, Opened, PIECE};

/// Entries of a directory in one answer: less than the largest message, with the longest names.
const PAGE: usize = 1 << 10;
/// Files that one worker may have open.
const OPEN_MAX: usize = 1 << 10;
/// Times that a content is put again when somebody else changes the file meanwhile.
const TRIES: u32 = 8;

type Result<T, E = FsError> = std::result::Result<T, E>;

/// The replica as one worker uses it.
#[derive(Debug)]
pub(crate) struct Store {
    replica: Replica,
    /// How often each file is open, and whether to write.
    open: HashMap<u64, Vec<bool>>,
}

/// Where a path leads.
struct Spot {
    parent: Ino,
    name: Vec<u8>,
}

impl Store {
    pub(crate) fn new(replica: Replica) -> Self {
        Self {
            replica,
            open: HashMap::new(),
        }
    }

    /// Does what is asked. Returns the answer and the bytes that go with it.
    pub(crate) fn perform(&mut self, ask: Ask, bytes: &[u8]) -> (Answer, Vec<u8>) {
        let mut content = Vec::new();
        let answer = self.answer(ask, bytes, &mut content);
        answer.map_or_else(
            |error| (failed(&error), Vec::new()),
            |answer| (answer, content),
        )
    }

    fn answer(&mut self, ask: Ask, bytes: &[u8], content: &mut Vec<u8>) -> Result<Answer> {
        Ok(match ask {
            Ask::Stat(path) => Answer::Node((&self.attr(&path)?).into()),
            Ask::List(path, cookie) => self.list(&path, cookie)?,
            Ask::Load(path) => self.load(&path, content)?,
            Ask::LoadSome(paths) => {
                let mut load = |path: &Vec<u8>| self.load_small(path, content);
                Answer::Some(paths.iter().map(&mut load).collect())
            }
            Ask::Open(path) => Answer::Opened(self.open_file(&path)?),
            Ask::Create {
                path,
                perm,
                truncate,
            } => Answer::Opened(self.create(&path, perm, truncate)?),
            Ask::Stage => Answer::Opened(self.stage()?),
            Ask::Close(ino) => self.close(ino),
            Ask::Read { ino, offset, len } => self.read(ino, offset, len, content)?,
            Ask::Write { ino, offset } => {
                self.check_open(ino)?;
                self.replica.write(Ino(ino), offset, bytes)?;
                Answer::Done
            }
            ask => self.change(ask, bytes)?,
        })
    }

    /// What needs no open file.
    fn change(&mut self, ask: Ask, bytes: &[u8]) -> Result<Answer> {
        match ask {
            Ask::Append { path, perm } => return self.append(&path, perm, bytes),
            Ask::Put { path, perm } => self.put(&path, perm, bytes)?,
            Ask::Replace { path, perm, staged } => self.replace(&path, perm, staged)?,
            Ask::MakeDir(path, perm, all) => self.make_dir(&path, perm, all)?,
            Ask::MakeFifo(path, perm) => {
                let spot = self.spot(&path)?;
                let node = new_node(NodeKind::Fifo, perm);
                self.replica.make(spot.parent, &spot.name, &node)?;
            }
            Ask::Remove(path, all) => self.remove(&path, all)?,
            Ask::Rename(from, to) => {
                let (from, to) = (self.spot(&from)?, self.spot(&to)?);
                let mode = RenameMode::Replace;
                self.replica
                    .rename(from.parent, &from.name, to.parent, &to.name, mode)?;
            }
            Ask::Copy(from, to, umask) => self.copy(&from, &to, umask)?,
            Ask::Link(from, to) => {
                let (node, to) = (self.attr(&from)?, self.spot(&to)?);
                self.replica.link(node.ino, to.parent, &to.name)?;
            }
            Ask::Symlink(target, path) => {
                let spot = self.spot(&path)?;
                let (uid, gid) = owner();
                self.replica
                    .symlink(spot.parent, &spot.name, &target, uid, gid)?;
            }
            Ask::ReadLink(path) => {
                let ino = self.attr(&path)?.ino;
                return Ok(Answer::Target(self.replica.read_link(ino)?.to_vec()));
            }
            Ask::Set(path, change) => self.set(&path, change)?,
            Ask::Space => {
                let space = self.replica.stat_fs()?;
                return Ok(Answer::Space(
                    space.total_bytes,
                    space.available_bytes,
                    space.nodes,
                ));
            }
            _ => return Err(FsError::NotSupported("what was asked is not for the store")),
        }
        Ok(Answer::Done)
    }

    /// Where a path leads; its last part need not exist.
    fn spot(&self, path: &[u8]) -> Result<Spot> {
        let mut parts = path.split(|byte| *byte == b'/').filter(|p| !p.is_empty());
        let mut next = parts.next();
        let mut parent = Ino::ROOT;
        while let Some(part) = next {
            next = parts.next();
            if part.contains(&0) || part == b"." || part == b".." {
                return Err(FsError::Invalid("a path has no NUL and no dots"));
            }
            if next.is_none() {
                let name = part.to_vec();
                return Ok(Spot { parent, name });
            }
            let attr = self.replica.lookup(parent, part)?;
            if attr.kind != NodeKind::Dir {
                return Err(FsError::NotDir(show(path)));
            }
            parent = attr.ino;
        }
        Err(FsError::Exists(show(path)))
    }

    fn attr(&self, path: &[u8]) -> Result<Attr> {
        match self.spot(path) {
            Ok(spot) => self.replica.lookup(spot.parent, &spot.name),
            Err(FsError::Exists(_)) => self.replica.attr(Ino::ROOT),
            Err(error) => Err(error),
        }
    }

    /// A regular file to read.
    fn file(&self, path: &[u8]) -> Result<Attr> {
        let attr = self.attr(path)?;
        match attr.kind {
            NodeKind::File => Ok(attr),
            NodeKind::Dir => Err(FsError::IsDir(show(path))),
            NodeKind::Symlink => Err(FsError::NotDir(show(path))),
            _ => Err(FsError::Invalid("not a regular file")),
        }
    }

    /// The file at a path, which is made if it is not there.
    fn file_or_new(&self, path: &[u8], perm: u16) -> Result<Attr> {
        let spot = self.spot(path).map_err(|error| match error {
            FsError::Exists(root) => FsError::IsDir(root),
            error => error,
        })?;
        match self.file(path) {
            Err(FsError::NotFound(_)) => {}
            found => return found,
        }
        let node = new_node(NodeKind::File, perm);
        match self.replica.make(spot.parent, &spot.name, &node) {
            // Somebody else was first.
            Err(FsError::Exists(_)) => self.file(path),
            made => made,
        }
    }

    fn list(&self, path: &[u8], cookie: u64) -> Result<Answer> {
        let dir = self.attr(path)?;
        let (mut entries, mut last, mut more) = (Vec::new(), cookie, false);
        self.replica.read_dir(dir.ino, cookie, &mut |entry| {
            if entries.len() == PAGE {
                more = true;
                return false;
            }
            entries.push((entry.name.to_vec(), Node::from(entry.attr)));
            last = entry.cookie;
            true
        })?;
        Ok(Answer::Entries(entries, more.then_some(last)))
    }

    fn load(&mut self, path: &[u8], content: &mut Vec<u8>) -> Result<Answer> {
        let attr = self.file(path)?;
        match usize::try_from(attr.size) {
            Ok(size) if size <= PIECE => {
                content.resize(size, 0);
                let got = self.replica.read(attr.ino, 0, content)?;
                content.truncate(got);
                Ok(Answer::Bytes)
            }
            _ => Ok(Answer::Opened(self.hold(attr.ino, false)?)),
        }
    }

    /// Adds the content of a file that still fits.
    fn load_small(&self, path: &[u8], content: &mut Vec<u8>) -> Option<u32> {
        let attr = self.file(path).ok()?;
        let from = content.len();
        let size = usize::try_from(attr.size).ok()?;
        if size > PIECE.saturating_sub(from) {
            return None;
        }
        content.resize(from + size, 0);
        let got = self.replica.read(attr.ino, 0, &mut content[from..]);
        content.truncate(from + got.as_ref().map_or(0, |got| *got));
        got.ok().and_then(|got| u32::try_from(got).ok())
    }

    fn open_file(&mut self, path: &[u8]) -> Result<Opened> {
        let attr = self.file(path)?;
        self.hold(attr.ino, false)
    }

    fn create(&mut self, path: &[u8], perm: u16, truncate: bool) -> Result<Opened> {
        let attr = self.file_or_new(path, perm)?;
        let opened = self.hold(attr.ino, true)?;
        if !truncate || opened.size == 0 {
            return Ok(opened);
        }
        self.set_size(attr.ino, 0)?;
        Ok(Opened { size: 0, ..opened })
    }

    /// Makes a file without a name, which goes when it is closed.
    fn stage(&mut self) -> Result<Opened> {
        let (parent, name) = (Ino::ROOT, format!(".cairn-shell-{:x}", token()));
        let node = new_node(NodeKind::File, 0o600);
        let made = self.replica.make(parent, name.as_bytes(), &node)?;
        let opened = self.hold(made.ino, true);
        self.replica.unlink(parent, name.as_bytes())?;
        opened
    }

    fn hold(&mut self, ino: Ino, write: bool) -> Result<Opened> {
        if self.open.values().map(Vec::len).sum::<usize>() >= OPEN_MAX {
            return Err(FsError::NotSupported("more than 1024 open files"));
        }
        let attr = self.replica.retain(ino, write)?;
        self.open.entry(ino.0).or_default().push(write);
        Ok(Opened {
            ino: ino.0,
            size: attr.size,
        })
    }

    fn check_open(&self, ino: u64) -> Result<()> {
        let open = self.open.contains_key(&ino);
        open.then_some(())
            .ok_or(FsError::Invalid("the file is not open"))
    }

    fn close(&mut self, ino: u64) -> Answer {
        if let Some(holds) = self.open.get_mut(&ino) {
            if let Some(write) = holds.pop() {
                self.replica.release(Ino(ino), write);
            }
            if holds.is_empty() {
                self.open.remove(&ino);
            }
        }
        Answer::Done
    }

    /// Closes what a run left open.
    pub(crate) fn close_all(&mut self) {
        for (ino, holds) in self.open.drain() {
            for write in holds {
                self.replica.release(Ino(ino), write);
            }
        }
    }

    fn read(&self, ino: u64, offset: u64, len: u32, content: &mut Vec<u8>) -> Result<Answer> {
        self.check_open(ino)?;
        content.resize((len as usize).min(PIECE), 0);
        let got = self.replica.read(Ino(ino), offset, content)?;
        content.truncate(got);
        Ok(Answer::Bytes)
    }

    fn append(&mut self, path: &[u8], perm: u16, bytes: &[u8]) -> Result<Answer> {
        let ino = self.file_or_new(path, perm)?.ino;
        self.held(ino, |replica| replica.append(ino, bytes).map(drop))?;
        let change = self.replica.last_change();
        Ok(Answer::Appended((&self.replica.attr(ino)?).into(), change))
    }

    /// Gives a file another content at once: a reader sees either, and its
    /// other names and open handles stay with it.
    fn put(&mut self, path: &[u8], perm: u16, bytes: &[u8]) -> Result<()> {
        let attr = self.file_or_new(path, perm)?;
        let ino = attr.ino;
        if attr.size == 0 || bytes.is_empty() {
            return self.held(ino, |replica| {
                if attr.size > 0 {
                    let empty = SetAttr {
                        size: Some(0),
                        ..SetAttr::default()
                    };
                    replica.set_attr(ino, &empty)?;
                }
                replica.write(ino, 0, bytes)
            });
        }
        let full = [b"/".as_slice(), path].concat();
        for _ in 0..TRIES {
            let version = self.replica.version(&full)?;
            match self.replica.write_if(&full, version, bytes) {
                Err(FsError::VersionMismatch { .. }) => {}
                // It is open on a mount, where the kernel writes it.
                Err(FsError::NotSupported(_)) => break,
                done => return done.map(drop),
            }
        }
        self.replica.write_file(&full, bytes).map(drop)
    }

    /// Gives a file the content of a staged one: no bytes move.
    fn replace(&mut self, path: &[u8], perm: u16, staged: u64) -> Result<()> {
        self.check_open(staged)?;
        let size = self.replica.attr(Ino(staged))?.size;
        let ino = self.file_or_new(path, perm)?.ino;
        self.set_size(ino, 0)?;
        self.held(ino, |replica| {
            replica.copy_range(Ino(staged), 0, ino, 0, size).map(drop)
        })
    }

    fn held<T>(&self, ino: Ino, f: impl FnOnce(&Replica) -> Result<T>) -> Result<T> {
        self.replica.retain(ino, true)?;
        let done = f(&self.replica);
        self.replica.release(ino, true);
        done
    }

    fn set_size(&self, ino: Ino, size: u64) -> Result<()> {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.replica.set_attr(ino, &set).map(drop)
    }

    fn make_dir(&self, path: &[u8], perm: u16, all: bool) -> Result<()> {
        let made = self.spot(path).and_then(|spot| {
            let node = new_node(NodeKind::Dir, perm);
            self.replica.make(spot.parent, &spot.name, &node)
        });
        match made {
            Err(FsError::Exists(_)) if all && self.attr(path)?.kind == NodeKind::Dir => Ok(()),
            Err(FsError::NotFound(_)) if all => {
                let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                if cut == 0 {
                    return made.map(drop);
                }
                self.make_dir(&path[..cut], perm, true)?;
                self.make_dir(path, perm, true)
            }
            made => made.map(drop),
        }
    }

    fn remove(&self, path: &[u8], all: bool) -> Result<()> {
        let attr = self.attr(path)?;
        if attr.ino == Ino::ROOT {
            return Err(FsError::NotPermitted("the root stays"));
        }
        let spot = self.spot(path)?;
        if attr.kind != NodeKind::Dir {
            return self.replica.unlink(spot.parent, &spot.name);
        }
        if all {
            // The path has no links in it, or it would not have been found.
            return self.replica.remove_all([b"/".as_slice(), path].concat());
        }
        self.replica.rmdir(spot.parent, &spot.name)
    }

    /// Copies a file; the content is shared.
    fn copy(&self, from: &[u8], to: &[u8], umask: u16) -> Result<()> {
        let source = self.file(from)?;
        let target = self.file_or_new(to, source.perm & 0o777 & !umask)?;
        if source.ino == target.ino {
            return Ok(());
        }
        self.set_size(target.ino, 0)?;
        self.held(target.ino, |replica| {
            replica
                .copy_range(source.ino, 0, target.ino, 0, source.size)
                .map(drop)
        })
    }

    fn set(&self, path: &[u8], change: Change) -> Result<()> {
        let ino = self.attr(path)?.ino;
        let set = SetAttr {
            perm: change.perm,
            size: change.size,
            atime: change.atime.map(SetTime::At),
            mtime: change.mtime.map(SetTime::At),
            ..SetAttr::default()
        };
        if change.size.is_some() {
            return self.held(ino, |replica| replica.set_attr(ino, &set).map(drop));
        }
        self.replica.set_attr(ino, &set).map(drop)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close_all();
    }
}

/// An error as it travels.
pub(crate) fn failed(error: &FsError) -> Answer {
    let reason = match error {
        FsError::Elsewhere(_) | FsError::Corrupt(_) | FsError::Io { .. } | FsError::NoSpace => {
            Some(error.to_string())
        }
        _ => None,
    };
    Answer::Failed(error.errno().raw_os_error(), reason)
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

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

/// A number that no other store of this process has.
fn token() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let own = u64::from(std::process::id());
    own << 32 | NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff
}

#[cfg(test)]
mod tests;
