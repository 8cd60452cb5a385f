//! Direct use: who keeps a cache above, such as the kernel behind a mount, may
//! read and write the file under a file itself, at the speed of the disk.
//!
//! A new file, or a large one that is not sealed yet: the file underneath is
//! its staging file. While it is used directly it is the content, whatever its
//! length; what else this replica does to the file, it does there too. Size and
//! times are read from it before each use of the node ([`Tree::node`]) and at
//! each commit. Sealing and sharing wait until the last handle is closed.
//!
//! A large sealed file that is one pack byte for byte: the pack, to be read.
//! When somebody is about to change the file all the same, its chunks move to
//! other packs, durably, and the pack becomes its staging file, so that who
//! reads it sees the change. That costs a copy of the file, but is rare.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_protocol::{Extent, FILE_SIZE_MAX, Timestamp};

use crate::attr::Ino;
use crate::data::MEMORY_MAX;
use crate::files::DataFile;
use crate::node::{Base, Body, FileBody, Node, Overlay, Sealed, Staging};
use crate::ranges::RangeSet;
use crate::replica::{Inner, Replica};
use crate::tree::{Stop, Tree};
use crate::{FsError, Result};

/// A larger file is not read from its pack directly: taking it out again would
/// hold up for too long who wants to change it.
const PACKED_MAX: u64 = 1 << 30;

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
    under: Under,
}

#[derive(Debug)]
enum Under {
    /// The staging file: its length and time when it was last looked at.
    Staging(Stamp),
    /// A pack, which is pinned.
    Pack(Arc<DataFile>),
}

impl DirectUse {
    /// Bytes that take space, unless the content is a pack.
    pub(crate) fn allocated(&self) -> Option<u64> {
        match &self.under {
            Under::Staging(seen) => Some(seen.allocated),
            Under::Pack(_) => None,
        }
    }

    /// Whether what is used is a pack, which does not change.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.under, Under::Pack(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Timestamp,
    /// Bytes that take space.
    allocated: u64,
}

impl Stamp {
    /// `None` when the file cannot be asked: then it is as it was.
    fn of(file: &DataFile) -> Option<Self> {
        let stat = rustix::fs::fstat(&file.file).ok()?;
        Some(Self {
            len: u64::try_from(stat.st_size).ok()?,
            allocated: u64::try_from(stat.st_blocks).ok()?.saturating_mul(512),
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

/// After a crash: size and time of a file that was in direct use. Who had it
/// open then may have it still, and write to what was under it.
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
    staging.loose.store(true, Ordering::Relaxed);
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
        let (
            Some(DirectUse {
                under: Under::Staging(seen),
                ..
            }),
            Some(now),
        ) = (&mut file.direct, now)
        else {
            return;
        };
        let changed = (seen.len, seen.modified) != (now.len, now.modified);
        *seen = now;
        if changed {
            file.size = now.len;
            self.touch_content(ino, now.modified);
        }
    }

    /// The staging file of a file in direct use became a pack.
    pub(crate) fn set_packed(&mut self, ino: Ino, pack: &Arc<DataFile>) {
        self.direct.remove(&ino.0);
        if let Some(Node {
            body:
                Body::File(FileBody {
                    direct: Some(direct),
                    ..
                }),
            ..
        }) = self.nodes.get_mut(&ino.0)
        {
            direct.under = Under::Pack(pack.clone());
        }
    }

    /// Does what [`Self::refresh`] does for all such files, before a commit.
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

    /// Begins the direct use of a large file with content: of one that is
    /// sealed by a handle that only reads, of another by any. `None` when this
    /// file must be used through the replica.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`]; what the disk says.
    pub fn resume_direct(&self, ino: Ino, write: bool) -> Result<Option<Direct>> {
        let sealed = match self.with(|t| begin_read(t, ino))? {
            Read::Staging(file) => return Ok(Some(Direct(file))),
            Read::Sealed(sealed) if !write => sealed,
            _ => return Ok(None),
        };
        // No pack goes away between the look and the pin.
        let _gate = self.inner.chunks.reading();
        let Some(pack) = self.inner.whole_pack(&sealed)? else {
            return Ok(None);
        };
        if !self.inner.chunks.pin(pack, ino) {
            return Ok(None);
        }
        let begun = self.inner.begin_packed(ino, &sealed, pack);
        if !matches!(begun, Ok(Some(_))) {
            self.inner.chunks.unpin(pack);
        }
        begun
    }

    /// Joins the direct use of a file, for another handle. `None` when it is
    /// in none.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`]; for a handle that writes, what [`Self::write`]
    /// may answer.
    pub fn join_direct(&self, ino: Ino, write: bool) -> Result<Option<Direct>> {
        self.with(|t| {
            if t.file(ino)?.direct.is_none() {
                return Ok(None);
            }
            if write {
                t.staging_to_change(ino)?;
            }
            let file = t.file(ino)?;
            let Some(direct) = &mut file.direct else {
                return Ok(None);
            };
            direct.handles += 1;
            Ok(match &direct.under {
                Under::Pack(pack) => Some(Direct(pack.clone())),
                Under::Staging(_) => staging(file).map(|s| Direct(s.file.clone())),
            })
        })
    }

    /// Makes ready what [`Self::resume_direct`] and, for a handle that
    /// writes, [`Self::join_direct`] would otherwise take their time for.
    ///
    /// # Errors
    ///
    /// As these.
    pub fn prepare_direct(&self, ino: Ino, write: bool) -> Result<()> {
        if write {
            return self.with(|t| t.staging_to_change(ino)).map(drop);
        }
        if let Read::Sealed(sealed) = self.with(|t| look(t, ino))? {
            let _gate = self.inner.chunks.reading();
            self.inner.whole_pack(&sealed)?;
        }
        Ok(())
    }

    /// Ends what [`Self::start_direct`] or [`Self::join_direct`] began. Returns
    /// the number of the file underneath when the last handle ended and that
    /// file will not be given out again.
    pub fn end_direct(&self, ino: Ino) -> Option<u64> {
        self.end(ino, true)
    }

    /// The same for a handle that nobody will hear of any more, although it may
    /// still be written through: the file keeps what was written so far.
    pub fn abandon_direct(&self, ino: Ino) {
        self.end(ino, false);
    }

    fn end(&self, ino: Ino, closed: bool) -> Option<u64> {
        let ended = {
            let mut tree = self.inner.tree.lock();
            end(&mut tree, ino, closed)
        };
        let staging = match ended? {
            Ended::Pack(id) => {
                self.inner.chunks.unpin(id);
                return Some(id);
            }
            Ended::Staging(staging) => staging,
        };
        let id = staging.file.id;
        let size = staging.ranges.bytes();
        if size > MEMORY_MAX || staging.is_loose() {
            self.inner.seals.push(ino);
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
    file.direct = Some(DirectUse {
        handles: 1,
        under: Under::Staging(seen),
    });
    file.recorded = false;
    t.direct.insert(ino.0);
    t.touch_private(ino);
    Ok(true)
}

/// How a file can be read directly.
enum Read {
    Staging(Arc<DataFile>),
    /// If a pack is all of it.
    Sealed(Arc<Sealed>),
    No,
}

fn look(t: &mut Tree, ino: Ino) -> Result<Read, Stop> {
    let file = t.file(ino)?;
    if file.size <= MEMORY_MAX || file.direct.is_some() {
        return Ok(Read::No);
    }
    Ok(match (&file.over, &file.base) {
        (Overlay::Staging(s), _) if s.base_len == 0 && s.ranges.covers(0..file.size) => {
            Read::Staging(s.file.clone())
        }
        (Overlay::None, Base::Sealed(sealed)) if file.size <= PACKED_MAX => {
            Read::Sealed(sealed.clone())
        }
        _ => Read::No,
    })
}

fn begin_read(t: &mut Tree, ino: Ino) -> Result<Read, Stop> {
    let found = look(t, ino)?;
    let Read::Staging(under) = &found else {
        return Ok(found);
    };
    let (false, Some(seen)) = (t.shared.contains_key(&under.id), Stamp::of(under)) else {
        return Ok(Read::No);
    };
    let file = t.file(ino)?;
    // The staging file of a file that ends in a hole is shorter.
    if seen.len != file.size {
        return Ok(Read::No);
    }
    if let Overlay::Staging(staging) = &mut file.over {
        staging.ranges = everything();
    }
    file.direct = Some(DirectUse {
        handles: 1,
        under: Under::Staging(seen),
    });
    t.direct.insert(ino.0);
    Ok(found)
}

/// What was used when the last handle ended.
enum Ended {
    Staging(Staging),
    Pack(u64),
}

/// One handle less. Returns what was used when it was the last.
fn end(t: &mut Tree, ino: Ino, closed: bool) -> Option<Ended> {
    t.refresh(ino);
    let Body::File(file) = &mut t.nodes.get_mut(&ino.0)?.body else {
        return None;
    };
    let direct = file.direct.as_mut()?;
    direct.handles = direct.handles.saturating_sub(1);
    if !closed && let Overlay::Staging(staging) = &file.over {
        staging.loose.store(true, Ordering::Relaxed);
    }
    if direct.handles > 0 {
        return None;
    }
    if let Under::Pack(pack) = &direct.under {
        let id = pack.id;
        file.direct = None;
        return Some(Ended::Pack(id));
    }
    file.direct = None;
    t.direct.remove(&ino.0);
    let size = file.size;
    // Late writes, of pages that were mapped, came under the time last seen.
    file.generation += 1;
    let Overlay::Staging(staging) = &mut file.over else {
        return None;
    };
    if !staging.is_loose() {
        // The row of a loose one goes on to say so, for the next start.
        staging.ranges = RangeSet::of(0..size);
    }
    let staging = staging.clone();
    t.touch_private(ino);
    Some(Ended::Staging(staging))
}

impl Inner {
    /// The pack that is this content byte for byte. The caller holds the
    /// chunks' gate.
    fn whole_pack(&self, sealed: &Sealed) -> Result<Option<u64>> {
        if self.chunks.files.home().has_chunk_rows() {
            return Ok(None);
        }
        let layout = self.layout(sealed)?;
        let mut chunks = layout.extents.iter().zip(&layout.starts);
        let place = |extent: &Extent| match extent {
            Extent::Hole { .. } => Ok(None),
            Extent::Chunk { hash, .. } => self.chunks.place(&self.db, hash),
        };
        let known = sealed.pack.get().copied();
        if known == Some(None) {
            return Ok(None);
        }
        let mut pack = known.flatten();
        for (extent, start) in &mut chunks {
            let Extent::Chunk { .. } = extent else {
                continue;
            };
            match place(extent)? {
                Some(at) if at.offset == *start && *pack.get_or_insert(at.pack) == at.pack => {}
                _ => {
                    let _ = sealed.pack.set(None);
                    return Ok(None);
                }
            }
            if known.is_some() {
                // The chunks of a pack move all at once, or not at all.
                break;
            }
        }
        let _ = sealed.pack.set(pack);
        Ok(pack.filter(|id| !self.chunks.has_pending_in(*id)))
    }

    fn begin_packed(&self, ino: Ino, sealed: &Arc<Sealed>, pack: u64) -> Result<Option<Direct>> {
        // A hole at the end is not in it, or not for long.
        if matches!(
            self.layout(sealed)?.extents.last(),
            Some(Extent::Hole { .. })
        ) {
            return Ok(None);
        }
        let under = self.chunks.files.pack(pack)?;
        // It may be a pack of many files.
        if Stamp::of(&under).is_none_or(|stamp| stamp.len != sealed.size) {
            return Ok(None);
        }
        self.with(|t| {
            let file = t.file(ino)?;
            let same = matches!(&file.base, Base::Sealed(now) if Arc::ptr_eq(now, sealed));
            if !same || !matches!(file.over, Overlay::None) || file.direct.is_some() {
                return Ok(None);
            }
            file.direct = Some(DirectUse {
                handles: 1,
                under: Under::Pack(under.clone()),
            });
            Ok(Some(Direct(under.clone())))
        })
    }

    /// Takes a file out of the pack that is used directly: afterwards it can
    /// be changed there.
    pub(crate) fn unpack_direct(&self, ino: Ino) -> Result<()> {
        let _one = self.unpacking.lock();
        let pack = self.with(|t| {
            Ok(match &t.file(ino)?.direct {
                Some(DirectUse {
                    under: Under::Pack(pack),
                    ..
                }) => Some(pack.clone()),
                _ => None,
            })
        })?;
        let Some(pack) = pack else {
            return Ok(());
        };
        while self.chunks.has_pending_in(pack.id) {
            // It is just about to become a pack.
            self.commit(false)?;
        }
        self.move_chunks(pack.id)?
            .ok_or_else(|| FsError::Corrupt(format!("pack {}", pack.id)))?;
        {
            // Who is about to read a chunk where it was reads it first.
            let _alone = self.chunks.reclaiming();
            self.chunks.files.take_back(pack.id)?;
        }
        let stamp = Stamp::of(&pack);
        let unpacked = self.with(|t| {
            let file = t.file(ino)?;
            let (Some(direct), Some(stamp)) = (&mut file.direct, stamp) else {
                return Ok(false);
            };
            direct.under = Under::Staging(stamp);
            file.over = Overlay::Staging(Staging::new(pack.clone(), everything(), 0));
            file.recorded = false;
            t.direct.insert(ino.0);
            t.touch_private(ino);
            Ok(true)
        })?;
        if !unpacked {
            // The last handle was closed meanwhile.
            self.chunks.files.remove_staging(pack.id);
        }
        self.chunks.unpin(pack.id);
        Ok(())
    }

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
                // Committed under its version without this content, as a file
                // that is sealed only now.
                let ver = tree.next_ver();
                if let Some(node) = tree.nodes.get_mut(&ino.0) {
                    node.data_ver = ver;
                }
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
