//! Sealing: turning a staging file into chunks, off the write path.
//!
//! A seal reads the file as it is, cuts only what changed, and then takes
//! effect if nobody wrote meanwhile; otherwise it is dropped and tried again
//! after the next close. A large staging file of new content is not copied: it
//! becomes a pack as it is.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_protocol::{ChunkHash, ChunkerId, Extent, Manifest, ReadAt, cut, recut};
use parking_lot::{Condvar, Mutex};

use crate::attr::Ino;
use crate::chunks::{Leases, Place};
use crate::node::{Base, Body, FileBody, Layout, Node, Overlay, Sealed, Staging};
use crate::ranges::index;
use crate::replica::Inner;
use crate::tree::Tree;
use crate::{FsError, Result};

/// A staging file with this much new data becomes a pack; less is copied to
/// the end of the current pack, so that packs stay few.
const ADOPT_MIN: u64 = 2 << 20;
/// More separate ranges than this are sealed even while the file is open.
pub(crate) const RANGES_MAX: usize = 8_192;
/// How long a closed file rests before it is sealed: what is written again or
/// removed at once is not worth hashing.
const REST: Duration = Duration::from_millis(150);

/// Files to seal, in the order of their last close.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    files: VecDeque<(Instant, Ino)>,
    stopped: bool,
}

impl Queue {
    pub(crate) fn push(&self, ino: Ino) {
        let mut state = self.state.lock();
        if !state.files.iter().any(|(_, queued)| *queued == ino) {
            state.files.push_back((Instant::now() + REST, ino));
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }

    fn next(&self) -> Option<Ino> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            match state.files.front() {
                None => self.wake.wait(&mut state),
                Some((due, _)) if *due <= Instant::now() => {
                    return state.files.pop_front().map(|(_, ino)| ino);
                }
                Some((due, _)) => {
                    let due = *due;
                    self.wake.wait_until(&mut state, due);
                }
            }
        }
    }
}

/// The thread that seals.
pub(crate) fn sealer(inner: &Inner) {
    while let Some(ino) = inner.seals.next() {
        match inner.seal(ino) {
            Ok(_) | Err(FsError::NotFound(_)) => {}
            Err(error) => {
                // The content stays in its staging file, which is as durable.
                tracing::warn!(%ino, %error, "cannot seal a file; it is tried again");
                std::thread::sleep(REST);
                inner.seals.push(ino);
            }
        }
    }
}

/// What a seal works on: the file as it was when it began.
struct Source<'a> {
    inner: &'a Inner,
    staging: Staging,
    base: Base,
}

impl ReadAt for Source<'_> {
    type Error = FsError;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let start = offset;
        let mut result = Ok(());
        let end = offset + buf.len() as u64;
        self.staging.ranges.split(offset..end, |range, staged| {
            if result.is_ok() {
                let part = &mut buf[index(range.start - start)..index(range.end - start)];
                result = if staged {
                    self.staging.file.read_sparse(part, range.start)
                } else {
                    self.read_base(part, range.start)
                };
            }
        });
        result
    }

    fn next_data(&self, offset: u64) -> Result<u64> {
        let mut next = u64::MAX;
        for range in self.staging.ranges.as_slice() {
            if range.end <= offset {
                continue;
            }
            let from = range.start.max(offset);
            match rustix::fs::seek(&self.staging.file.file, rustix::fs::SeekFrom::Data(from)) {
                Ok(found) if found < range.end => {
                    next = found;
                    break;
                }
                Ok(_) | Err(rustix::io::Errno::NXIO) => {}
                Err(e) => return Err(FsError::io("seeking in a staging file", e.into())),
            }
        }
        if offset < self.staging.base_len {
            next = next.min(self.next_base(offset)?);
        }
        Ok(next)
    }
}

impl Source<'_> {
    fn read_base(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let visible = self.staging.base_len.min(self.base.size());
        let len = index(visible.saturating_sub(offset)).min(buf.len());
        let (part, rest) = buf.split_at_mut(len);
        rest.fill(0);
        match &self.base {
            Base::Empty => part.fill(0),
            // Beyond the end of it there is no place to copy nothing from.
            Base::Inline(bytes) if len > 0 => {
                part.copy_from_slice(&bytes[index(offset)..index(offset) + len]);
            }
            Base::Sealed(sealed) if len > 0 => self.inner.read_sealed(sealed, offset, part)?,
            Base::Inline(_) | Base::Sealed(_) => {}
        }
        Ok(())
    }

    fn next_base(&self, offset: u64) -> Result<u64> {
        let Base::Sealed(sealed) = &self.base else {
            return Ok(offset);
        };
        let layout = self.inner.layout(sealed)?;
        let mut index = layout.find(offset);
        while let Some(Extent::Hole { len }) = layout.extents.get(index) {
            let end = layout.starts[index] + len;
            index += 1;
            if index == layout.extents.len() || end >= self.staging.base_len {
                return Ok(u64::MAX);
            }
        }
        Ok(offset.max(layout.starts.get(index).copied().unwrap_or(offset)))
    }

    /// Bytes that may differ from the base.
    fn dirty(&self) -> Vec<Range<u64>> {
        let mut ranges = self.staging.ranges.clone();
        let base = self.base.size();
        if self.staging.base_len < base {
            ranges.insert(self.staging.base_len..base);
        }
        ranges.as_slice().to_vec()
    }
}

/// A chunk that a seal cut anew.
struct Fresh {
    hash: ChunkHash,
    offset: u64,
    len: u32,
}

impl Inner {
    /// Seals a file now. Returns whether it is sealed afterwards; `false` when
    /// somebody wrote meanwhile.
    pub(crate) fn seal(&self, ino: Ino) -> Result<bool> {
        self.seal_file(ino, true)
    }

    /// Gives a file its staging file for itself: seals those it shares it
    /// with, and the file too unless it is used directly.
    pub(crate) fn unshare(&self, ino: Ino) -> Result<()> {
        let (other, staging) = {
            let mut tree = self.tree.lock();
            let tree = &mut *tree;
            let Some(Node {
                body: Body::File(file),
                ..
            }) = tree.nodes.get(&ino.0)
            else {
                return Ok(());
            };
            let Overlay::Staging(staging) = &file.over else {
                return Ok(());
            };
            let Some(sharing) = tree.shared.get(&staging.file.id) else {
                return Ok(());
            };
            let other = match file.direct {
                Some(_) => sharing.iter().copied().find(|other| *other != ino.0),
                None => Some(ino.0),
            };
            (other, staging.clone())
        };
        if let Some(other) = other {
            return self.seal_file(Ino(other), other == ino.0).map(drop);
        }
        let mut frozen = staging.frozen.write();
        let mut tree = self.tree.lock();
        let id = staging.file.id;
        let sharing = tree.shared.get(&id);
        if sharing.is_some_and(|sharing| sharing.len() == 1) {
            tree.shared.remove(&id);
            *frozen = false;
        }
        Ok(())
    }

    fn seal_file(&self, ino: Ino, may_adopt: bool) -> Result<bool> {
        // Before the look at the file: what it names now must not go meanwhile.
        let _gate = self.chunks.reading();
        let (source, size, generation) = {
            let mut tree = self.tree.lock();
            let Some(node) = tree.nodes.get_mut(&ino.0) else {
                return Ok(true);
            };
            let Body::File(file) = &mut node.body else {
                return Ok(true);
            };
            let Overlay::Staging(staging) = &file.over else {
                return Ok(true);
            };
            if file.direct.is_some() {
                return Ok(false);
            }
            let source = Source {
                inner: self,
                staging: staging.clone(),
                base: file.base.clone(),
            };
            file.sealing = true;
            (source, file.size, file.generation)
        };
        let result = self.seal_source(ino, &source, size, generation, may_adopt);
        if let Some(Node {
            body: Body::File(file),
            ..
        }) = self.tree.lock().nodes.get_mut(&ino.0)
        {
            file.sealing = false;
        }
        result
    }

    fn seal_source(
        &self,
        ino: Ino,
        source: &Source<'_>,
        size: u64,
        generation: u64,
        may_adopt: bool,
    ) -> Result<bool> {
        let chunker = ChunkerId::for_size(size);
        let staged = &source.staging;
        let mut fresh: Vec<Fresh> = Vec::new();
        let leases = std::cell::RefCell::new(Leases::new(&self.chunks));
        let rows = self.chunks.files.home().has_chunk_rows();
        let may_adopt =
            may_adopt && !rows && !staged.is_loose() && staged.ranges.bytes() >= ADOPT_MIN;
        let (mut unique, mut seen) = (0_u64, 0_u64);
        let mut sink = |offset: u64, extent: &Extent, bytes: &[u8]| -> Result<()> {
            let Extent::Chunk { hash, len } = extent else {
                return Ok(());
            };
            seen += u64::from(*len);
            leases.borrow_mut().take(*hash);
            if self.chunks.place(&self.db, hash)?.is_some() {
                return Ok(());
            }
            let range = offset..offset + u64::from(*len);
            if may_adopt && staged.ranges.covers(range) {
                unique += u64::from(*len);
                fresh.push(Fresh {
                    hash: *hash,
                    offset,
                    len: *len,
                });
            } else {
                self.chunks.append(*hash, bytes)?;
                if self.chunks.is_spill_full() {
                    self.commit(false)?;
                }
            }
            Ok(())
        };
        let extents = match &source.base {
            Base::Sealed(old) if old.chunker == chunker => {
                let layout = self.layout(old)?;
                recut(
                    chunker,
                    source,
                    size,
                    &layout.extents,
                    old.size,
                    &source.dirty(),
                    &mut sink,
                )?
            }
            _ => cut(chunker, source, size, &mut sink)?,
        };
        // A pack is cut behind its last chunk: who uses the file directly would
        // miss the hole that follows.
        let cut_short =
            matches!(extents.last(), Some(Extent::Hole { .. })) && self.is_used_directly(staged);
        let adopt = unique >= ADOPT_MIN && unique >= seen - seen / 4 && !cut_short;
        let adopt = adopt && {
            // Zeros at the end need not be in a staging file; in a pack they must.
            let end = fresh.iter().map(|c| c.offset + u64::from(c.len)).max();
            staged.file.ensure_len(end.unwrap_or(0))?
        };
        if adopt {
            staged.file.sync()?;
        } else {
            for chunk in &fresh {
                let mut bytes = vec![0; chunk.len as usize];
                staged.file.read_sparse(&mut bytes, chunk.offset)?;
                // Written to since it was cut: the seal is late, and ends below.
                if ChunkHash::of(&bytes) == chunk.hash {
                    self.chunks.store(&self.db, chunk.hash, &bytes)?;
                }
            }
        }
        let manifest = Manifest::build(&extents, |hash, page| {
            leases.borrow_mut().take(hash);
            self.chunks.store(&self.db, hash, &page).map(drop)
        })?;
        let allocated = Layout::allocated(&extents);
        let layout = std::sync::OnceLock::new();
        let _ = layout.set(Layout::new(extents));
        let pack = std::sync::OnceLock::new();
        if adopt && unique == seen {
            let _ = pack.set(Some(staged.file.id));
        }
        let sealed = Arc::new(Sealed {
            size,
            chunker,
            manifest,
            allocated,
            pack,
            layout,
        });
        let leases = leases.into_inner();
        Ok(self.take_effect(
            ino,
            source,
            generation,
            &sealed,
            adopt.then_some(fresh),
            leases,
        ))
    }

    fn take_effect(
        &self,
        ino: Ino,
        source: &Source<'_>,
        generation: u64,
        sealed: &Arc<Sealed>,
        adopted: Option<Vec<Fresh>>,
        mut leases: Leases<'_>,
    ) -> bool {
        // A write that is under way has changed bytes that were read here, and
        // not said so yet: wait for it, so that the generation tells.
        let mut frozen = source.staging.frozen.write();
        let mut tree = self.tree.lock();
        let Some(node) = tree.nodes.get(&ino.0) else {
            return true;
        };
        let Body::File(file) = &node.body else {
            return true;
        };
        if !is_staged_in(file, &source.staging) {
            return matches!(file.over, Overlay::None);
        }
        if file.generation != generation || file.direct.is_some() {
            if node.writers == 0 {
                self.seals.push(ino);
            }
            return false;
        }
        let staging = &source.staging.file;
        let mut files = tree.shared.remove(&staging.id).unwrap_or_default();
        files.insert(ino.0);
        // One of them at most: a shared staging file is not given out.
        let direct = files.iter().find(|f| tree.direct.contains(f)).copied();
        tree.leased.extend(leases.hand_over());
        match (adopted, direct) {
            (Some(chunks), direct) => {
                // No write comes to it any more, not even one that has looked
                // already.
                *frozen = true;
                let mut adopted = false;
                for chunk in chunks {
                    let place = Place {
                        pack: staging.id,
                        offset: chunk.offset,
                        len: chunk.len,
                    };
                    adopted |= self.chunks.note(chunk.hash, place, staging.clone());
                }
                if !adopted && direct.is_none() {
                    // Somebody else has stored all of it meanwhile.
                    tree.dropped_staging.push(staging.id);
                }
                if let Some(direct) = direct {
                    self.chunks.pin(staging.id, Ino(direct));
                    tree.set_packed(Ino(direct), staging);
                }
            }
            (None, None) => {
                *frozen = true;
                tree.dropped_staging.push(staging.id);
            }
            (None, Some(direct)) => {
                // It stays, for the one that is used directly.
                files.remove(&direct);
                *frozen = false;
            }
        }
        for file in files {
            set_sealed(&mut tree, Ino(file), &source.staging, sealed);
        }
        true
    }

    /// Whether a file that shares this staging file is in direct use.
    fn is_used_directly(&self, staging: &Staging) -> bool {
        let tree = self.tree.lock();
        let files = tree.shared.get(&staging.file.id);
        files.is_some_and(|files| !files.is_disjoint(&tree.direct))
    }

    /// Seals every file.
    pub(crate) fn seal_all(&self) -> Result<()> {
        let staged: Vec<u64> = {
            let tree = self.tree.lock();
            tree.nodes
                .iter()
                .filter(|(_, n)| matches!(&n.body, Body::File(f) if matches!(f.over, Overlay::Staging(_))))
                .map(|(ino, _)| *ino)
                .collect()
        };
        for ino in staged {
            for _ in 0..8 {
                if self.seal(Ino(ino))? {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn is_staged_in(file: &FileBody, staging: &Staging) -> bool {
    matches!(&file.over, Overlay::Staging(now) if now.is(Some(staging)))
}

/// Replaces a file's staging file by what it was sealed to.
fn set_sealed(tree: &mut Tree, ino: Ino, staging: &Staging, sealed: &Arc<Sealed>) {
    let ver = tree.next_ver();
    let Some(node) = tree.nodes.get_mut(&ino.0) else {
        return;
    };
    let Body::File(file) = &mut node.body else {
        return;
    };
    if !is_staged_in(file, staging) {
        return;
    }
    file.base = if sealed.size == 0 {
        Base::Empty
    } else {
        Base::Sealed(sealed.clone())
    };
    file.over = Overlay::None;
    file.data_dirty = false;
    file.base_dirty = true;
    node.data_ver = ver;
    tree.touch_private(ino);
}
