//! Direct use: who keeps a cache above, such as the kernel behind a mount, may
//! read and write a new file's staging file itself, at the speed of the disk.
//!
//! While it does, the staging file is the content, whatever its length; what
//! else this replica does to the file, it does there too. Size and times are
//! read from the staging file before each use of the node ([`Tree::node`]) and
//! at each commit. Sealing and sharing wait until the last handle is closed.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use cairn_protocol::{FILE_SIZE_MAX, Timestamp};

use crate::attr::Ino;
use crate::data::MEMORY_MAX;
use crate::files::DataFile;
use crate::node::{Base, Body, FileBody, Node, Overlay, Staging};
use crate::ranges::RangeSet;
use crate::replica::{Inner, Replica};
use crate::tree::{Stop, Tree};
use crate::{FsError, Result};

/// The file under a file that is used directly.
#[derive(Debug)]
pub struct Direct(Arc<DataFile>);

impl Direct {
    /// Number of the file underneath. One that was given back unused may come
    /// again with the same number.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

impl AsFd for Direct {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// That a file is used directly.
#[derive(Debug)]
pub(crate) struct DirectUse {
    handles: u32,
    /// Length and time of the staging file when it was last looked at.
    seen: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Timestamp,
}

impl Stamp {
    /// `None` when the file cannot be asked: then it is as it was.
    fn of(file: &DataFile) -> Option<Self> {
        let stat = rustix::fs::fstat(&file.file).ok()?;
        Some(Self {
            len: u64::try_from(stat.st_size).ok()?,
            modified: Timestamp::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).ok()?)
                .ok()?,
        })
    }
}

/// What the staging file of a file in direct use holds: everything, as far as
/// it goes.
pub(crate) fn everything() -> RangeSet {
    RangeSet::of(0..FILE_SIZE_MAX)
}

/// After a crash: size and time of a file that was in direct use.
pub(crate) fn revive(node: &mut Node, staging: &mut Staging) {
    let Body::File(file) = &mut node.body else {
        return;
    };
    if !staging.ranges.covers(0..FILE_SIZE_MAX) {
        return;
    }
    if let Some(stamp) = Stamp::of(&staging.file) {
        file.size = stamp.len;
        node.times.mtime = node.times.mtime.max(stamp.modified);
    }
    staging.ranges = RangeSet::of(0..file.size);
}

fn staging(file: &FileBody) -> Option<&Staging> {
    match &file.over {
        Overlay::Staging(staging) => Some(staging),
        _ => None,
    }
}

impl Tree {
    /// Takes over size and time of a file in direct use.
    pub(crate) fn refresh(&mut self, ino: Ino) {
        let Some(Node {
            body: Body::File(file),
            ..
        }) = self.nodes.get_mut(&ino.0)
        else {
            return;
        };
        let now = staging(file).and_then(|s| Stamp::of(&s.file));
        let (Some(direct), Some(now)) = (&mut file.direct, now) else {
            return;
        };
        if direct.seen != now {
            direct.seen = now;
            file.size = now.len;
            self.touch_content(ino, now.modified);
        }
    }

    /// The same for all such files, before a commit.
    pub(crate) fn refresh_all(&mut self) {
        let files: Vec<u64> = self.direct.iter().copied().collect();
        for ino in files {
            self.refresh(Ino(ino));
        }
    }
}

impl Replica {
    /// Begins the direct use of an empty file: from now on all reads and
    /// writes of the caller's handles go to the file underneath. `None` when
    /// this file must be used through the replica.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NoSpace`]; what the disk says.
    pub fn start_direct(&self, ino: Ino) -> Result<Option<Direct>> {
        self.inner.admit(true)?;
        let staging = self.inner.chunks.files.spare_staging()?;
        let started = self.with(|t| begin(t, ino, &staging));
        match started {
            Ok(true) => Ok(Some(Direct(staging))),
            other => {
                self.inner.give_back(staging);
                other.map(|_| None)
            }
        }
    }

    /// Joins the direct use of a file, for another handle. `None` when it is
    /// in none.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`].
    pub fn join_direct(&self, ino: Ino) -> Result<Option<Direct>> {
        self.with(|t| {
            let file = t.file(ino)?;
            let Some(direct) = &mut file.direct else {
                return Ok(None);
            };
            direct.handles += 1;
            Ok(staging(file).map(|s| Direct(s.file.clone())))
        })
    }

    /// Ends what [`Self::start_direct`] or [`Self::join_direct`] began. Returns
    /// the number of the file underneath when the last handle ended and that
    /// file will not be given out again.
    pub fn end_direct(&self, ino: Ino) -> Option<u64> {
        let ended = {
            let mut tree = self.inner.tree.lock();
            end(&mut tree, ino)
        };
        let staging = ended?;
        let id = staging.file.id;
        let size = staging.ranges.bytes();
        if size > MEMORY_MAX {
            return Some(id);
        }
        let kept = self.inner.to_memory(ino, staging);
        kept.unwrap_or_else(|error| {
            tracing::warn!(%ino, %error, "a small file stays in its staging file");
            Some(id)
        })
    }
}

fn begin(t: &mut Tree, ino: Ino, spare: &Arc<DataFile>) -> Result<bool, Stop> {
    let file = t.file(ino)?;
    if file.size != 0 || file.direct.is_some() {
        return Ok(false);
    }
    let Some(seen) = Stamp::of(spare) else {
        return Ok(false);
    };
    t.drop_overlay(ino);
    let file = t.file(ino)?;
    file.base = Base::Empty;
    file.base_dirty = true;
    file.over = Overlay::Staging(Staging::new(spare.clone(), everything(), 0));
    file.direct = Some(DirectUse { handles: 1, seen });
    file.recorded = false;
    t.direct.insert(ino.0);
    t.touch_private(ino);
    Ok(true)
}

/// One handle less. Returns the staging file when it was the last.
fn end(t: &mut Tree, ino: Ino) -> Option<Staging> {
    t.refresh(ino);
    let Body::File(file) = &mut t.nodes.get_mut(&ino.0)?.body else {
        return None;
    };
    let direct = file.direct.as_mut()?;
    direct.handles = direct.handles.saturating_sub(1);
    if direct.handles > 0 {
        return None;
    }
    file.direct = None;
    t.direct.remove(&ino.0);
    let size = file.size;
    // Late writes, of pages that were mapped, came under the time last seen.
    file.generation += 1;
    let Overlay::Staging(staging) = &mut file.over else {
        return None;
    };
    staging.ranges = RangeSet::of(0..size);
    let staging = staging.clone();
    t.touch_private(ino);
    Some(staging)
}

impl Inner {
    /// Moves a small file's content to memory, where small files are, and puts
    /// its staging file by for another. Returns the number of one that is of
    /// no use any more.
    fn to_memory(&self, ino: Ino, staging: Staging) -> Result<Option<u64>> {
        let size = staging.ranges.bytes();
        let id = staging.file.id;
        let Staging { file, frozen, .. } = staging;
        let mut frozen = frozen.write();
        let len = usize::try_from(size).map_err(|_| FsError::TooLarge("a small file"))?;
        let mut bytes = vec![0; len];
        file.read_sparse(&mut bytes, 0)?;
        let recorded = {
            let mut guard = self.tree.lock();
            let tree = &mut *guard;
            let Some(Node {
                body: Body::File(body),
                nlink: 1..,
                ..
            }) = tree.nodes.get_mut(&ino.0)
            else {
                return Ok(Some(id));
            };
            let same = matches!(&body.over, Overlay::Staging(now) if now.file.id == id);
            // Written, used directly or copied again since.
            if !same || body.size != size || body.direct.is_some() || tree.shared.contains_key(&id)
            {
                return Ok(Some(id));
            }
            body.over = if bytes.is_empty() {
                Overlay::None
            } else {
                Overlay::Memory(Arc::new(bytes))
            };
            body.data_dirty = true;
            body.base_dirty = true;
            body.generation += 1;
            tree.memory += len;
            let recorded = body.recorded;
            if recorded {
                tree.dropped_staging.push(id);
            }
            tree.touch_private(ino);
            recorded
        };
        *frozen = true;
        drop(frozen);
        if recorded {
            return Ok(Some(id));
        }
        Ok((!self.give_back(file)).then_some(id))
    }

    /// Puts a staging file by that no commit has named, if nobody reads it any
    /// more. Returns whether it will be used again.
    fn give_back(&self, file: Arc<DataFile>) -> bool {
        let id = file.id;
        let kept = Arc::into_inner(file).is_some_and(|file| self.chunks.files.put_by(file));
        if !kept {
            self.chunks.files.remove_staging(id);
        }
        kept
    }
}
