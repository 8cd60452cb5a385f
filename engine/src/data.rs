//! The content of files: reading, writing, truncating, holes and copies.
//!
//! A small file that changes is held in memory whole; a large one keeps its
//! changes in a staging file, at the same offsets, over the sealed content.
//! Either way a write is visible to every reader when it returns.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::{Extent, FILE_SIZE_MAX};

use crate::attr::{Allocate, Ino, SeekTo, SetAttr};
use crate::db::Db;
use crate::files::DataFile;
use crate::node::{Base, Body, FileBody, Layout, Node, Overlay, Sealed, Staging};
use crate::observe::Invalidation;
use crate::ranges::{RangeSet, index};
use crate::replica::{Inner, Replica, now};
use crate::tree::{Need, Step, Stop, Tree};
use crate::{FsError, Result};

/// Files up to this size are changed in memory; larger ones in a staging file.
pub(crate) const MEMORY_MAX: u64 = 1 << 20;

/// One piece of what a read gives.
#[derive(Debug)]
enum Piece {
    Zeros,
    Shared(Arc<Vec<u8>>, usize),
    Bytes(Bytes, usize),
    Staged(Arc<DataFile>, u64),
    Sealed(Arc<Sealed>, u64),
}

impl Replica {
    /// Reads from `offset` on. Returns fewer bytes than `buf` holds only at
    /// the end of the file.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] when stored data is missing; what the disk says.
    pub fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let _gate = self.inner.chunks.reading();
        let mut plan = Vec::new();
        let total = self.with(|t| {
            plan.clear();
            let node = t.node(ino)?;
            note_access(node);
            let file = t.file(ino)?;
            if offset >= file.size {
                return Ok(0);
            }
            let end = file.size.min(offset.saturating_add(buf.len() as u64));
            plan_read(file, offset, end, &mut plan);
            Ok(index(end - offset))
        })?;
        let mut rest = &mut buf[..total];
        for (len, piece) in plan {
            let (part, more) = rest.split_at_mut(len);
            self.inner.fill(&piece, part)?;
            rest = more;
        }
        Ok(total)
    }

    /// Writes `data` at `offset`; a gap before it becomes a hole.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSpace`], [`FsError::TooLarge`]; what the disk says.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.write_at(ino, At::Offset(offset), data).map(drop)
    }

    /// Writes as much of `data` as lies before the end of the file.
    ///
    /// For a cache above that writes pages back: they were inside the file when
    /// they were changed, and one that was cut off since must not come back.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn write_inside(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.write_at(ino, At::Inside(offset), data).map(drop)
    }

    /// Writes `data` at the end, whatever else writes at the same time.
    /// Returns where it went.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn append(&self, ino: Ino, data: &[u8]) -> Result<u64> {
        self.write_at(ino, At::End, data)
    }

    fn write_at(&self, ino: Ino, at: At, data: &[u8]) -> Result<u64> {
        self.inner.admit(true)?;
        let now = now();
        let notes = self.notes();
        let written = loop {
            let target = self.with(|t| {
                let file = t.file(ino)?;
                let (offset, data) = at.place(file.size, data);
                let end = offset
                    .checked_add(data.len() as u64)
                    .filter(|end| *end <= FILE_SIZE_MAX)
                    .ok_or(FsError::TooLarge("a file ends before 2^63 bytes"))?;
                if data.is_empty() {
                    return Ok(Target::Done(offset));
                }
                if let Some(staging) = t.staging_to_change(ino)? {
                    return Ok(Target::Staging(staging, offset));
                }
                let file = t.file(ino)?;
                let grown = end.max(file.size);
                let bytes = memory_for(t, ino, grown)?;
                let buffer = Arc::make_mut(bytes);
                let before = buffer.len();
                if buffer.len() < index(end) {
                    buffer.resize(index(end), 0);
                }
                buffer[index(offset)..index(end)].copy_from_slice(data);
                let added = buffer.len() - before;
                let file = t.file(ino)?;
                file.size = grown;
                t.memory += added;
                t.touch_content(ino, now);
                notes.tell(|| Invalidation::Content {
                    ino,
                    offset,
                    len: Some(data.len() as u64),
                });
                Ok(Target::Done(offset))
            })?;
            match target {
                Target::Done(offset) => break offset,
                Target::Staging(staging, offset) => {
                    let frozen = staging.frozen.read();
                    if *frozen {
                        // Sealed or shared since: its content is elsewhere now.
                        continue;
                    }
                    let data = match at {
                        // It may have been cut off before the lock was taken.
                        At::Inside(_) => at.place(self.with(|t| Ok(t.file(ino)?.size))?, data).1,
                        _ => data,
                    };
                    if data.is_empty() {
                        break offset;
                    }
                    let offset = match at {
                        At::End => self.append_staged(ino, &staging.file, data, offset)?,
                        _ => staging.file.write(data, offset).map(|()| offset)?,
                    };
                    let range = offset..offset + data.len() as u64;
                    let recorded = self.with(|t| {
                        let file = t.file(ino)?;
                        let Overlay::Staging(s) = &mut file.over else {
                            return Ok(false);
                        };
                        // Sealed or moved meanwhile: write again, to where it is now.
                        if s.file.id != staging.file.id
                            || (at == At::End && file.direct.is_none() && file.size != offset)
                        {
                            return Ok(false);
                        }
                        s.ranges.insert(range.clone());
                        file.size = file.size.max(range.end);
                        let many = s.ranges.len() > crate::seal::RANGES_MAX;
                        t.touch_content(ino, now);
                        notes.tell(|| Invalidation::Content {
                            ino,
                            offset,
                            len: Some(data.len() as u64),
                        });
                        if many {
                            self.inner.seals.push(ino);
                        }
                        Ok(true)
                    })?;
                    if recorded {
                        break offset;
                    }
                }
            }
        };
        self.settle();
        Ok(written)
    }

    /// Writes at the end of a staging file. Others append to one in direct use
    /// without our knowledge: there the kernel says where the end is.
    fn append_staged(&self, ino: Ino, file: &DataFile, data: &[u8], end: u64) -> Result<u64> {
        if self.with(|t| Ok(t.file(ino)?.direct.is_some()))? {
            file.append(data)
        } else {
            file.write(data, end).map(|()| end)
        }
    }

    /// Sets the size of a file.
    pub(crate) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        if size > FILE_SIZE_MAX {
            return Err(FsError::TooLarge("a file ends before 2^63 bytes"));
        }
        // A staging file may appear between the look and the change; then its
        // lock must be taken first.
        while !self.truncate_once(ino, size)? {}
        self.settle();
        Ok(())
    }

    fn truncate_once(&self, ino: Ino, size: u64) -> Result<bool> {
        let (staging, direct) = self.with(|t| {
            let direct = t.file(ino)?.direct.is_some();
            if size == 0 && !direct {
                // What becomes empty starts anew; the staging file stays as it
                // is, for others may share it.
                return Ok((None, false));
            }
            Ok((t.staging_to_change(ino)?, direct))
        })?;
        let frozen = staging.as_ref().map(|s| s.frozen.write());
        if frozen.as_deref() == Some(&true) {
            return Ok(false);
        }
        if let Some(s) = &staging
            && direct
        {
            // Its length is the size. Otherwise the bytes stay until the next
            // commit no longer names them: a crash before it needs them.
            s.file.set_len(size)?;
        }
        let now = now();
        self.change_unsettled(false, |t, notes| {
            let file = t.file(ino)?;
            let old = file.size;
            if file.direct.is_some() != direct {
                return Ok(false);
            }
            if size == 0 && staging.is_none() {
                t.drop_overlay(ino);
                let file = t.file(ino)?;
                file.base = Base::Empty;
                file.base_dirty = true;
                file.size = 0;
            } else if let Overlay::Staging(s) = &mut file.over {
                if !s.is(staging.as_ref()) {
                    return Ok(false);
                }
                if file.direct.is_none() && !s.is_loose() {
                    s.ranges.remove(size..u64::MAX);
                }
                s.base_len = s.base_len.min(size);
                file.size = size;
            } else if size != old {
                if size.max(old) > MEMORY_MAX {
                    return Err(Stop::Need(Need::Staging(ino)));
                }
                let bytes = Arc::make_mut(memory_for(t, ino, size)?);
                let before = bytes.len();
                bytes.resize(index(size), 0);
                t.memory = t.memory + index(size) - before;
                t.file(ino)?.size = size;
            }
            t.touch_content(ino, now);
            notes.tell(|| Invalidation::Content {
                ino,
                offset: size.min(old),
                len: None,
            });
            Ok(true)
        })
    }

    /// Reserves, punches or zeroes a range.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSpace`], [`FsError::TooLarge`], [`FsError::Invalid`] for an empty range.
    pub fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<()> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= FILE_SIZE_MAX)
            .ok_or(FsError::TooLarge("a file ends before 2^63 bytes"))?;
        if len == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        let size = self.with(|t| Ok(t.file(ino)?.size))?;
        let grow = !matches!(
            how,
            Allocate::PunchHole
                | Allocate::Reserve { keep_size: true }
                | Allocate::Zero { keep_size: true }
        );
        if matches!(how, Allocate::Reserve { .. }) {
            let stat = self.stat_fs()?;
            if self.path().is_some() && len > stat.available_bytes {
                return Err(FsError::NoSpace);
            }
        } else if offset < size {
            while !self.zero_once(ino, &(offset..end.min(size)))? {}
            self.settle();
        }
        if grow && end > size {
            self.truncate(ino, end)?;
        }
        Ok(())
    }

    fn zero_once(&self, ino: Ino, range: &Range<u64>) -> Result<bool> {
        let staging = self.with(|t| {
            let file = t.file(ino)?;
            if file.size > MEMORY_MAX && staging_of(file).is_none() {
                return Err(Stop::Need(Need::Staging(ino)));
            }
            t.staging_to_change(ino)
        })?;
        let frozen = staging.as_ref().map(|s| s.frozen.write());
        if frozen.as_deref() == Some(&true) {
            return Ok(false);
        }
        if let Some(s) = &staging {
            s.file.punch(range.start, range.end - range.start)?;
        }
        let now = now();
        self.change_unsettled(false, |t, notes| {
            let file = t.file(ino)?;
            let range = range.start..range.end.min(file.size);
            if range.is_empty() {
                return Ok(true);
            }
            let size = file.size;
            if let Overlay::Staging(s) = &mut file.over {
                if !s.is(staging.as_ref()) {
                    return Ok(false);
                }
                s.ranges.insert(range.clone());
            } else {
                let bytes = Arc::make_mut(memory_for(t, ino, size)?);
                bytes[index(range.start)..index(range.end)].fill(0);
            }
            t.touch_content(ino, now);
            notes.tell(|| Invalidation::Content {
                ino,
                offset: range.start,
                len: Some(range.end - range.start),
            });
            Ok(true)
        })
    }

    /// The next data or hole at or after `offset`.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSuchOffset`] beyond the end, or when no data follows.
    pub fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64> {
        let _gate = self.inner.chunks.reading();
        let mut plan = Vec::new();
        let size = self.with(|t| {
            plan.clear();
            let file = t.file(ino)?;
            if offset >= file.size {
                return Err(FsError::NoSuchOffset.into());
            }
            plan_read(file, offset, file.size, &mut plan);
            Ok(file.size)
        })?;
        let mut at = offset;
        for (len, piece) in plan {
            let end = at + len as u64;
            let found = match (&piece, to) {
                (Piece::Zeros, _) => (to == SeekTo::Hole).then_some(at),
                (Piece::Sealed(sealed, from), _) => {
                    seek_sealed(self.inner.layout(sealed)?, *from, *from + len as u64, to)
                        .map(|o| at + (o - from))
                }
                (Piece::Staged(file, from), _) => {
                    seek_staged(file, *from, end - at, to)?.map(|o| at + (o - from))
                }
                (_, SeekTo::Data) => Some(at),
                (_, SeekTo::Hole) => None,
            };
            if let Some(found) = found {
                return Ok(found);
            }
            at = end;
        }
        match to {
            SeekTo::Hole => Ok(size),
            SeekTo::Data => Err(FsError::NoSuchOffset),
        }
    }

    /// Copies a range from one file to another, or within one. Sealed content
    /// is shared where whole files or whole chunks line up: no bytes move.
    /// Returns the number of bytes copied, which ends at the source's end.
    ///
    /// # Errors
    ///
    /// As [`Self::read`] and [`Self::write`].
    pub fn copy_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        let source = self.with(|t| Ok(t.file(from)?.size))?;
        let len = len.min(source.saturating_sub(from_offset));
        if len == 0 {
            return Ok(0);
        }
        let to_end = to_offset
            .checked_add(len)
            .filter(|end| *end <= FILE_SIZE_MAX)
            .ok_or(FsError::TooLarge("a file ends before 2^63 bytes"))?;
        if from == to && from_offset < to_end && to_offset < from_offset + len {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        if from != to
            && from_offset == 0
            && to_offset == 0
            && len == source
            && self.share(from, to, source)?
        {
            return Ok(len);
        }
        let mut buf = vec![0; index(len.min(1 << 20))];
        let mut done = 0;
        while done < len {
            let want = index((buf.len() as u64).min(len - done));
            let got = self.read(from, from_offset + done, &mut buf[..want])?;
            if got == 0 {
                break;
            }
            self.write(to, to_offset + done, &buf[..got])?;
            done += got as u64;
        }
        Ok(done)
    }

    /// Makes an empty file share all of another's content. What is not sealed
    /// yet is shared as a staging file, which does not change from now on.
    /// Returns whether it did.
    fn share(&self, from: Ino, to: Ino, size: u64) -> Result<bool> {
        loop {
            let staging = self.with(|t| Ok(staging_of(t.file(from)?).cloned()))?;
            // Nobody is in the middle of a write to it.
            let mut frozen = staging.as_ref().map(|s| s.frozen.write());
            let shared = self.share_once(from, to, size, staging.as_ref())?;
            if shared == Some(true)
                && let Some(frozen) = &mut frozen
            {
                **frozen = true;
            }
            drop(frozen);
            if let Some(shared) = shared {
                self.settle();
                return Ok(shared);
            }
        }
    }

    /// `None` when the source has another staging file by now.
    fn share_once(
        &self,
        from: Ino,
        to: Ino,
        size: u64,
        staging: Option<&Staging>,
    ) -> Result<Option<bool>> {
        let now = now();
        self.change_unsettled(true, |t, notes| {
            let node = t.node(from)?;
            let still = node.writers == 0;
            let file = t.file(from)?;
            // What somebody else may write holds not still for a copy.
            let live = file.direct.as_ref().is_some_and(|d| !d.is_packed());
            if file.size != size || live && !(still && size > MEMORY_MAX) {
                return Ok(Some(false));
            }
            let (base, over) = match &file.over {
                Overlay::None => (file.base.clone(), Overlay::None),
                Overlay::Memory(bytes) => (Base::Empty, Overlay::Memory(bytes.clone())),
                Overlay::Staging(s) if s.is(staging) => {
                    let mut s = s.clone();
                    s.ranges.remove(size..u64::MAX);
                    (file.base.clone(), Overlay::Staging(s))
                }
                Overlay::Staging(_) => return Ok(None),
            };
            let target = t.file(to)?;
            if target.size != 0 || !matches!(target.over, Overlay::None) {
                return Ok(Some(false));
            }
            let staged = staging.filter(|_| matches!(over, Overlay::Staging(_)));
            target.base = base;
            target.base_dirty = true;
            target.over = over;
            target.size = size;
            let added = target.memory();
            t.memory += added;
            t.touch_content(to, now);
            if let Some(staging) = staged {
                let files = t.shared.entry(staging.file.id).or_default();
                files.extend([from.0, to.0]);
                self.inner.seals.push(to);
            }
            notes.tell(|| Invalidation::Content {
                ino: to,
                offset: 0,
                len: None,
            });
            Ok(Some(true))
        })
    }

    /// Clears set-id bits, as a write by an unprivileged user does.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`].
    pub fn kill_privileges(&self, ino: Ino) -> Result<()> {
        let dangerous = self.with(|t| Ok(t.node(ino)?.perm & 0o6000 != 0))?;
        if dangerous {
            self.set_attr(
                ino,
                &SetAttr {
                    kill_suid_gid: true,
                    ..SetAttr::default()
                },
            )?;
        }
        Ok(())
    }
}

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Offset(u64),
    /// As far as the file goes.
    Inside(u64),
    End,
}

impl At {
    /// The offset in a file of a size, and what is written there.
    fn place(self, size: u64, data: &[u8]) -> (u64, &[u8]) {
        match self {
            Self::Offset(offset) => (offset, data),
            Self::Inside(offset) => {
                let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
                (offset, &data[..room.min(data.len())])
            }
            Self::End => (size, data),
        }
    }
}

enum Target {
    Done(u64),
    Staging(Staging, u64),
}

/// `relatime`: the access time moves when it is older than the last change, or
/// older than a day. It is written along with the next change of the node.
fn note_access(node: &mut Node) {
    let t = &mut node.times;
    if t.atime <= t.mtime || t.atime <= t.ctime {
        t.atime = now();
    }
}

fn staging_of(file: &FileBody) -> Option<&Staging> {
    match &file.over {
        Overlay::Staging(s) => Some(s),
        _ => None,
    }
}

/// The buffer of a file that is small enough to be changed in memory.
fn memory_for(t: &mut Tree, ino: Ino, grown: u64) -> Step<&mut Arc<Vec<u8>>> {
    let file = t.file(ino)?;
    let fits = grown <= MEMORY_MAX && file.size <= MEMORY_MAX;
    match &file.over {
        Overlay::Staging(_) => return Err(Stop::Need(Need::Staging(ino))),
        _ if !fits => return Err(Stop::Need(Need::Staging(ino))),
        Overlay::Memory(_) => {}
        Overlay::None if file.size == 0 => {
            file.over = Overlay::Memory(Arc::default());
        }
        Overlay::None => match &file.base {
            Base::Inline(bytes) => {
                let bytes = bytes.to_vec();
                let added = bytes.len();
                file.over = Overlay::Memory(Arc::new(bytes));
                t.memory += added;
            }
            _ => return Err(Stop::Need(Need::Content(ino))),
        },
    }
    match &mut t.file(ino)?.over {
        Overlay::Memory(bytes) => Ok(bytes),
        _ => Err(FsError::Closed.into()),
    }
}

fn plan_read(file: &FileBody, start: u64, end: u64, plan: &mut Vec<(usize, Piece)>) {
    match &file.over {
        Overlay::Memory(bytes) => plan.push((
            index(end - start),
            Piece::Shared(bytes.clone(), index(start)),
        )),
        Overlay::None => plan_base(&file.base, start, end, file.base.size(), plan),
        Overlay::Staging(s) => s.ranges.split(start..end, |range, staged| {
            if staged {
                plan.push((
                    index(range.end - range.start),
                    Piece::Staged(s.file.clone(), range.start),
                ));
            } else {
                plan_base(&file.base, range.start, range.end, s.base_len, plan);
            }
        }),
    }
}

fn plan_base(base: &Base, start: u64, end: u64, visible: u64, plan: &mut Vec<(usize, Piece)>) {
    let cut = end.min(visible.min(base.size())).max(start);
    if cut > start {
        let len = index(cut - start);
        match base {
            Base::Empty => {}
            Base::Inline(bytes) => plan.push((len, Piece::Bytes(bytes.clone(), index(start)))),
            Base::Sealed(sealed) => plan.push((len, Piece::Sealed(sealed.clone(), start))),
        }
    }
    if end > cut {
        plan.push((index(end - cut), Piece::Zeros));
    }
}

fn seek_sealed(layout: &Layout, start: u64, end: u64, to: SeekTo) -> Option<u64> {
    let first = layout.find(start);
    for (extent, at) in layout.extents[first..].iter().zip(&layout.starts[first..]) {
        if *at >= end {
            return None;
        }
        let hole = matches!(extent, Extent::Hole { .. });
        if hole == (to == SeekTo::Hole) {
            return Some(start.max(*at));
        }
    }
    None
}

fn seek_staged(file: &DataFile, start: u64, len: u64, to: SeekTo) -> Result<Option<u64>> {
    use rustix::fs::SeekFrom;
    let at = match to {
        SeekTo::Data => SeekFrom::Data(start),
        SeekTo::Hole => SeekFrom::Hole(start),
    };
    match rustix::fs::seek(&file.file, at) {
        Ok(found) if found < start + len => Ok(Some(found)),
        Ok(_) => Ok(None),
        // Beyond the staging file's end all is hole.
        Err(rustix::io::Errno::NXIO) => Ok((to == SeekTo::Hole).then_some(start)),
        Err(e) => Err(FsError::io("seeking in a staging file", e.into())),
    }
}

impl Inner {
    fn fill(&self, piece: &Piece, buf: &mut [u8]) -> Result<()> {
        match piece {
            Piece::Zeros => buf.fill(0),
            Piece::Shared(bytes, at) => buf.copy_from_slice(&bytes[*at..*at + buf.len()]),
            Piece::Bytes(bytes, at) => buf.copy_from_slice(&bytes[*at..*at + buf.len()]),
            Piece::Staged(file, at) => file.read_sparse(buf, *at)?,
            Piece::Sealed(sealed, at) => self.read_sealed(sealed, *at, buf)?,
        }
        Ok(())
    }

    /// Reads sealed content. The caller holds the chunks' gate.
    pub(crate) fn read_sealed(
        &self,
        sealed: &Sealed,
        mut at: u64,
        mut buf: &mut [u8],
    ) -> Result<()> {
        let layout = self.layout(sealed)?;
        self.fetch(layout, at, buf.len() as u64)?;
        let mut index = layout.find(at);
        while !buf.is_empty() {
            let Some(extent) = layout.extents.get(index) else {
                return Err(FsError::Corrupt(
                    "a file's extents end before its size".into(),
                ));
            };
            let skip = at - layout.starts[index];
            let len = crate::ranges::index((extent.len() - skip).min(buf.len() as u64));
            let (part, rest) = buf.split_at_mut(len);
            match extent {
                Extent::Hole { .. } => part.fill(0),
                Extent::Chunk { hash, .. } => self.chunks.read(&self.db, hash, skip, part)?,
            }
            buf = rest;
            at += len as u64;
            index += 1;
        }
        Ok(())
    }

    /// The extents of sealed content.
    pub(crate) fn layout<'a>(&self, sealed: &'a Sealed) -> Result<&'a Layout> {
        if let Some(layout) = sealed.layout.get() {
            return Ok(layout);
        }
        let extents = self.unpack(&self.db, sealed)?;
        Ok(sealed.layout.get_or_init(|| Layout::new(extents)))
    }

    fn unpack(&self, db: &Db, sealed: &Sealed) -> Result<Vec<Extent>> {
        let extents = sealed
            .manifest
            .extents(|page| self.chunks.read_verified(db, page))
            .map_err(|e| FsError::Corrupt(format!("a manifest cannot be read: {e}")))?;
        cairn_protocol::check_total(&extents, sealed.size)
            .map_err(|e| FsError::Corrupt(format!("a manifest is wrong: {e}")))?;
        Ok(extents)
    }

    /// Brings the content of a small file into memory.
    pub(crate) fn load_content(&self, ino: Ino) -> Result<()> {
        // Before the look at the file: what it names now must not go meanwhile.
        let gate = self.chunks.reading();
        let (sealed, generation) = {
            let mut tree = self.tree.lock();
            let Some(Node {
                body: Body::File(file),
                ..
            }) = tree.nodes.get_mut(&ino.0)
            else {
                return Ok(());
            };
            match (&file.base, &file.over) {
                (Base::Sealed(sealed), Overlay::None) => (sealed.clone(), file.generation),
                _ => return Ok(()),
            }
        };
        let mut bytes = vec![0; index(sealed.size)];
        self.read_sealed(&sealed, 0, &mut bytes)?;
        drop(gate);
        let mut tree = self.tree.lock();
        let added = bytes.len();
        if let Some(Node {
            body: Body::File(file),
            ..
        }) = tree.nodes.get_mut(&ino.0)
            && file.generation == generation
            && matches!(file.over, Overlay::None)
            && file.size == sealed.size
        {
            file.over = Overlay::Memory(Arc::new(bytes));
            tree.memory += added;
        }
        Ok(())
    }

    /// Gives a file a staging file, and moves there what is in memory.
    pub(crate) fn make_staging(&self, ino: Ino) -> Result<()> {
        let staging = self.chunks.files.create_staging()?;
        let drop_it = |error| {
            self.chunks.files.remove_staging(staging.id);
            Err(error)
        };
        loop {
            let (content, generation) = {
                let mut tree = self.tree.lock();
                let Some(Node {
                    body: Body::File(file),
                    ..
                }) = tree.nodes.get_mut(&ino.0)
                else {
                    drop(tree);
                    return drop_it(FsError::NotFound(ino.to_string()));
                };
                match &file.over {
                    Overlay::Staging(_) => {
                        drop(tree);
                        self.chunks.files.remove_staging(staging.id);
                        return Ok(());
                    }
                    Overlay::Memory(bytes) => (Some(bytes.clone()), file.generation),
                    Overlay::None => (None, file.generation),
                }
            };
            if let Some(bytes) = &content
                && let Err(error) = staging.write(bytes, 0)
            {
                return drop_it(error);
            }
            let mut tree = self.tree.lock();
            let Some(Node {
                body: Body::File(file),
                ..
            }) = tree.nodes.get_mut(&ino.0)
            else {
                continue;
            };
            // Somebody else may have given it one, too.
            if file.generation != generation || matches!(file.over, Overlay::Staging(_)) {
                continue;
            }
            let (ranges, base_len) = match &content {
                Some(bytes) => (RangeSet::of(0..bytes.len() as u64), 0),
                None => (RangeSet::default(), file.size),
            };
            let freed = file.memory();
            file.over = Overlay::Staging(Staging::new(staging, ranges, base_len));
            tree.memory -= freed;
            tree.touch_private(ino);
            return Ok(());
        }
    }
}
