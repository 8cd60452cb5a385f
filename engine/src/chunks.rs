//! Chunks: where their bytes are, how new ones are stored, how they are read.
//!
//! A chunk is written once, at the end of the current pack or inside a staging
//! file that becomes a pack. In a replica of one file it is a row; until the
//! commit that writes it, it is in a *spill file*. A chunk is *pending* until a
//! commit has its row. Reads hold the gate, so that no space is given back under
//! them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::ChunkHash;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashMap;

use crate::attr::Ino;
use crate::db::{Db, int, meta_get, meta_set, uint};
use crate::files::{DataFile, Files};
use crate::{FsError, Result};

/// A pack is closed to appends at this size.
const PACK_MAX: u64 = 64 << 20;
/// Chunks that come together are written so many bytes at a time: what is more
/// gains little, and has to be copied.
const TOGETHER_MAX: usize = 128 << 10;
/// When this much waits for a commit to make it rows, a seal commits first.
const SPILL_MAX: u64 = PACK_MAX / 2;
/// Space is reserved in steps of this size, so that a sync seldom has to write
/// the file's metadata.
const RESERVE_STEP: u64 = 4 << 20;
/// Places of chunks kept in memory: 3.75 MiB. One more would double the table.
const CACHED_PLACES: usize = 57_344;

/// The leases of one seal. They end with it, unless the seal took effect: then
/// the commit that writes its references ends them.
#[derive(Debug)]
pub(crate) struct Leases<'a> {
    chunks: &'a Chunks,
    hashes: Vec<ChunkHash>,
}

impl<'a> Leases<'a> {
    pub(crate) fn new(chunks: &'a Chunks) -> Self {
        Self {
            chunks,
            hashes: Vec::new(),
        }
    }

    /// Keeps a chunk from gc, whether it is stored already or will be. Comes
    /// before the look whether it is.
    pub(crate) fn take(&mut self, hash: ChunkHash) {
        self.chunks.lease(hash);
        self.hashes.push(hash);
    }

    /// Gives the leases to who commits the references.
    pub(crate) fn hand_over(&mut self) -> Vec<ChunkHash> {
        std::mem::take(&mut self.hashes)
    }
}

impl Drop for Leases<'_> {
    fn drop(&mut self) {
        self.chunks.end_leases(&self.hashes);
    }
}

/// Where a chunk's bytes are: in a pack, or in the row of `content` whose id is
/// `pack`, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// The pack of chunks that are not here, but at the hub.
pub(crate) const ELSEWHERE: u64 = 0;
/// What a database says in which there are such chunks, or were.
const ELSEWHERE_NOTE: &str = "elsewhere";

impl Place {
    /// Whether a chunk can be there: what a damaged row says is not allocated.
    pub(crate) fn is_sound(self) -> bool {
        (1..=cairn_protocol::CHUNK_MAX as u64).contains(&u64::from(self.len))
    }
}

/// A chunk that is stored but has no row yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) place: Place,
    /// The file that has its bytes.
    pub(crate) file: Arc<DataFile>,
    pub(crate) keep: Keep,
}

/// What a commit does with the bytes of a chunk that is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They are in a pack.
    InPack,
    /// Their staging file becomes a pack.
    Adopt,
    /// They are at this offset of a spill file, and are copied to a row.
    Copy(u64),
}

impl Pending {
    fn offset(&self) -> u64 {
        match self.keep {
            Keep::InPack | Keep::Adopt => self.place.offset,
            Keep::Copy(offset) => offset,
        }
    }

    /// The bytes that become a row, if they do.
    pub(crate) fn to_copy(&self) -> Result<Option<Vec<u8>>> {
        let Keep::Copy(offset) = self.keep else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.place.len as usize];
        self.file.read(&mut bytes, offset)?;
        Ok(Some(bytes))
    }
}

#[derive(Debug)]
struct Tail {
    file: Arc<DataFile>,
    len: u64,
    reserved: u64,
}

impl Tail {
    /// Whether somebody has its file: of a spill file, what is pending.
    fn is_read(&self) -> bool {
        Arc::strong_count(&self.file) > 1
    }
}

/// Where stored chunks are, as far as it was asked lately.
#[derive(Debug, Default)]
struct Places {
    known: FxHashMap<ChunkHash, Place>,
    /// Grows when a chunk moves or goes: a look-up that ran meanwhile is stale.
    moves: u64,
}

impl Places {
    fn insert(&mut self, hash: ChunkHash, place: Place) {
        if self.known.len() >= CACHED_PLACES {
            self.known.clear();
        }
        self.known.insert(hash, place);
    }
}

/// What gc has to leave alone although no row names it.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    /// Chunks that somebody counts on, with how many do.
    chunks: FxHashMap<ChunkHash, u32>,
    /// How many count on more chunks than they can name.
    all: u32,
}

impl Leased {
    /// Whether somebody counts on a chunk.
    pub(crate) fn holds(&self, hash: &ChunkHash) -> bool {
        self.all > 0 || self.chunks.contains_key(hash)
    }

    /// Somebody more counts on a chunk.
    pub(crate) fn take(&mut self, hash: ChunkHash) {
        *self.chunks.entry(hash).or_default() += 1;
    }
}

#[derive(Debug)]
pub(crate) struct Chunks {
    pub(crate) files: Files,
    pending: Mutex<FxHashMap<ChunkHash, Pending>>,
    places: Mutex<Places>,
    leases: Mutex<Leased>,
    tail: Mutex<Option<Tail>>,
    gate: RwLock<()>,
    /// Packs that somebody reads past this replica, each as one file; gc
    /// leaves them alone.
    pins: Mutex<FxHashMap<u64, Ino>>,
}

impl Chunks {
    pub(crate) fn new(files: Files) -> Self {
        Self {
            files,
            pending: Mutex::default(),
            places: Mutex::default(),
            leases: Mutex::default(),
            tail: Mutex::new(None),
            gate: RwLock::new(()),
            pins: Mutex::default(),
        }
    }

    /// While this is held, no chunk's space is given back.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read_recursive()
    }

    /// Waits for every read that is under way.
    pub(crate) fn reclaiming(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write()
    }

    /// Where a chunk is, if it is stored.
    pub(crate) fn place(&self, db: &Db, hash: &ChunkHash) -> Result<Option<Place>> {
        if let Some(place) = self.known(hash) {
            return Ok(Some(place));
        }
        let before = self.places.lock().moves;
        let found = place_in(&db.reader(), hash)?;
        if let Some(place) = found {
            let mut places = self.places.lock();
            if places.moves == before {
                places.insert(*hash, place);
            }
        }
        Ok(found)
    }

    /// The same of many at once, as one transaction: to begin and end one for
    /// each look is half of what it costs (10 us each).
    pub(crate) fn places<'h>(
        &self,
        db: &Db,
        hashes: impl Iterator<Item = &'h ChunkHash>,
    ) -> Result<Vec<Option<Place>>> {
        let mut found: Vec<_> = hashes.map(|hash| (hash, self.known(hash))).collect();
        if found.iter().any(|(_, place)| place.is_none()) {
            let before = self.places.lock().moves;
            let reader = db.reader();
            let look = reader.unchecked_transaction()?;
            for (hash, place) in found.iter_mut().filter(|(_, place)| place.is_none()) {
                *place = place_in(&look, hash)?;
                let mut places = self.places.lock();
                if let Some(place) = place
                    && places.moves == before
                {
                    places.insert(**hash, *place);
                }
            }
        }
        Ok(found.into_iter().map(|(_, place)| place).collect())
    }

    pub(crate) fn known(&self, hash: &ChunkHash) -> Option<Place> {
        if let Some(place) = self.places.lock().known.get(hash) {
            return Some(*place);
        }
        self.pending.lock().get(hash).map(|p| p.place)
    }

    pub(crate) fn remember(&self, hash: ChunkHash, place: Place) {
        self.places.lock().insert(hash, place);
    }

    /// Notes that a chunk is elsewhere now.
    pub(crate) fn moved(&self, hash: ChunkHash, place: Place) {
        let mut places = self.places.lock();
        places.moves += 1;
        places.insert(hash, place);
    }

    /// Forgets where a chunk is.
    pub(crate) fn forget(&self, hash: &ChunkHash) {
        let mut places = self.places.lock();
        places.moves += 1;
        places.known.remove(hash);
    }

    /// Reads part of a chunk. The caller holds [`Self::reading`].
    pub(crate) fn read(
        &self,
        db: &Db,
        hash: &ChunkHash,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let place = self
            .place(db, hash)?
            .ok_or_else(|| FsError::Corrupt(format!("chunk {hash} is missing")))?;
        if offset + buf.len() as u64 > u64::from(place.len) {
            return Err(FsError::Corrupt(format!(
                "chunk {hash} is shorter than the file says"
            )));
        }
        self.read_at(|| db.reader(), hash, place, offset, buf)
    }

    /// Reads part of a chunk that is at `place`. Asks for the database only
    /// where chunks are rows.
    pub(crate) fn read_at<C: Deref<Target = Connection>>(
        &self,
        db: impl FnOnce() -> C,
        hash: &ChunkHash,
        place: Place,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let pending = self.pending.lock().get(hash).cloned();
        if let Some(pending) = pending.filter(|p| p.place == place) {
            return pending.file.read(buf, pending.offset() + offset);
        }
        if self.files.home().has_chunk_rows() {
            return read_row(&db(), hash, place.pack, offset, buf);
        }
        self.files
            .pack(place.pack)?
            .read(buf, place.offset + offset)
    }

    /// Reads a whole chunk and checks that it is what its name says.
    pub(crate) fn read_verified(&self, db: &Db, hash: &ChunkHash) -> Result<Vec<u8>> {
        let place = self
            .place(db, hash)?
            .ok_or_else(|| FsError::Corrupt(format!("chunk {hash} is missing")))?;
        let mut bytes = vec![0; place.len as usize];
        self.read_at(|| db.reader(), hash, place, 0, &mut bytes)?;
        if ChunkHash::of(&bytes) != *hash {
            return Err(FsError::Corrupt(format!(
                "chunk {hash} does not match its hash"
            )));
        }
        Ok(bytes)
    }

    /// Stores a chunk at the end of the current pack, unless it is stored already.
    pub(crate) fn store(&self, db: &Db, hash: ChunkHash, bytes: &[u8]) -> Result<Place> {
        match self.place(db, &hash)? {
            Some(place) => Ok(place),
            None => self.append(hash, bytes),
        }
    }

    /// Stores chunks that are known to be new, which come together. Small ones
    /// are written as one: a write for each is a tenth of what a clone of small
    /// files takes.
    pub(crate) fn append_all(&self, chunks: &[(ChunkHash, Bytes)]) -> Result<()> {
        let mut together = Vec::new();
        let mut from = 0;
        while from < chunks.len() {
            let (mut end, mut len) = (from, 0);
            while end < chunks.len() && len + chunks[end].1.len() <= TOGETHER_MAX {
                len += chunks[end].1.len();
                end += 1;
            }
            if end <= from + 1 || self.files.home().has_chunk_rows() {
                self.append(chunks[from].0, &chunks[from].1)?;
                from += 1;
                continue;
            }
            together.clear();
            for (_, bytes) in &chunks[from..end] {
                together.extend_from_slice(bytes);
            }
            self.append_as_one(&chunks[from..end], &together)?;
            from = end;
        }
        Ok(())
    }

    /// Stores chunks whose bytes follow each other, in a pack.
    fn append_as_one(&self, chunks: &[(ChunkHash, Bytes)], together: &[u8]) -> Result<()> {
        let (file, pack, mut offset) = self.write_tail(together)?;
        let mut pending = self.pending.lock();
        for (hash, bytes) in chunks {
            let len = u32::try_from(bytes.len()).map_err(|_| FsError::TooLarge("a chunk"))?;
            let place = Place { pack, offset, len };
            offset += u64::from(len);
            let (file, keep) = (file.clone(), Keep::InPack);
            pending.insert(*hash, Pending { place, file, keep });
        }
        Ok(())
    }

    /// Stores a chunk that is known to be new.
    pub(crate) fn append(&self, hash: ChunkHash, bytes: &[u8]) -> Result<Place> {
        let (file, pack, offset) = self.write_tail(bytes)?;
        let (pack, offset, keep) = if self.files.home().has_chunk_rows() {
            (self.files.new_id(), 0, Keep::Copy(offset))
        } else {
            (pack, offset, Keep::InPack)
        };
        let place = Place {
            pack,
            offset,
            len: u32::try_from(bytes.len()).map_err(|_| FsError::TooLarge("a chunk"))?,
        };
        let pending = Pending { place, file, keep };
        self.pending.lock().insert(hash, pending);
        Ok(place)
    }

    /// Writes bytes at the end of the current pack or spill file. Says which
    /// file that is, its number, and where they are.
    fn write_tail(&self, bytes: &[u8]) -> Result<(Arc<DataFile>, u64, u64)> {
        let len = bytes.len() as u64;
        let rows = self.files.home().has_chunk_rows();
        let mut tail = self.tail.lock();
        if let Some(open) = tail.as_mut().filter(|t| rows && !t.is_read()) {
            open.len = 0;
        }
        if tail.as_ref().is_none_or(|t| t.len + len > PACK_MAX) {
            let file = if rows {
                self.files.create_spill()?
            } else {
                self.files.create_pack()?
            };
            let new = Tail {
                file,
                len: 0,
                reserved: 0,
            };
            if let Some(full) = tail.replace(new) {
                self.files.cut_pack(full.file.id, full.len);
            }
        }
        let Some(open) = tail.as_mut() else {
            return Err(FsError::Closed);
        };
        if open.len + len > open.reserved {
            open.reserved += match open.file.reserve(open.reserved, RESERVE_STEP) {
                Ok(()) => RESERVE_STEP,
                // The last of a disk's space comes in smaller pieces.
                Err(FsError::NoSpace) => {
                    let least = open.len + len - open.reserved;
                    open.file.reserve(open.reserved, least)?;
                    least
                }
                Err(error) => return Err(error),
            };
        }
        // The length moves only after the write: a failed one is written over.
        let at = open.len;
        open.file.write(bytes, at)?;
        open.len += len;
        Ok((open.file.clone(), open.file.id, at))
    }

    /// Ends the current pack: the next chunk begins another.
    pub(crate) fn close_tail(&self) {
        if let Some(tail) = self.tail.lock().take() {
            self.files.cut_pack(tail.file.id, tail.len);
        }
    }

    /// Whether so much waits to be copied to rows that a commit should come first.
    pub(crate) fn is_spill_full(&self) -> bool {
        let tail = self.tail.lock();
        tail.as_ref()
            .is_some_and(|t| t.len > SPILL_MAX && t.is_read() && self.files.home().has_chunk_rows())
    }

    /// Notes a chunk that lies in a staging file. `false` when it is stored
    /// elsewhere meanwhile.
    pub(crate) fn note(&self, hash: ChunkHash, place: Place, file: Arc<DataFile>) -> bool {
        use std::collections::hash_map::Entry;
        match self.pending.lock().entry(hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(Pending {
                    place,
                    file,
                    keep: Keep::Adopt,
                });
                true
            }
        }
    }

    /// Whether a pack may still grow or has chunks without rows: gc leaves it alone.
    pub(crate) fn in_use(&self, pack: u64) -> bool {
        self.tail.lock().as_ref().is_some_and(|t| t.file.id == pack)
            || self.has_pending_in(pack)
            || self.is_pinned(pack)
    }

    pub(crate) fn has_pending_in(&self, pack: u64) -> bool {
        self.pending.lock().values().any(|p| p.place.pack == pack)
    }

    /// Pins a pack for a file that is all of it. `false` when it is pinned for
    /// another.
    pub(crate) fn pin(&self, pack: u64, ino: Ino) -> bool {
        *self.pins.lock().entry(pack).or_insert(ino) == ino
    }

    pub(crate) fn unpin(&self, pack: u64) {
        self.pins.lock().remove(&pack);
    }

    pub(crate) fn is_pinned(&self, pack: u64) -> bool {
        self.pins.lock().contains_key(&pack)
    }

    /// Keeps a chunk from gc until [`Self::end_leases`]. Comes before the look
    /// whether it is stored.
    pub(crate) fn lease(&self, hash: ChunkHash) {
        self.leases.lock().take(hash);
    }

    /// Keeps every chunk from gc until [`Self::end_lease_of_all`]: for who counts
    /// on more than memory should name.
    pub(crate) fn lease_all(&self) {
        self.leases.lock().all += 1;
    }

    /// Ends what [`Self::lease_all`] began.
    pub(crate) fn end_lease_of_all(&self) {
        let mut leases = self.leases.lock();
        leases.all = leases.all.saturating_sub(1);
    }

    /// Ends leases whose references are committed.
    pub(crate) fn end_leases(&self, hashes: &[ChunkHash]) {
        let mut leases = self.leases.lock();
        for hash in hashes {
            if let Some(count) = leases.chunks.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    leases.chunks.remove(hash);
                }
            }
        }
    }

    /// The leases, held still: while this is held none begins, and gc may
    /// decide what is dead.
    pub(crate) fn leases(&self) -> MutexGuard<'_, Leased> {
        self.leases.lock()
    }

    /// Everything that waits for a row, in the order of the rows.
    pub(crate) fn pending(&self) -> Vec<(ChunkHash, Pending)> {
        let mut pending: Vec<_> = self
            .pending
            .lock()
            .iter()
            .map(|(h, p)| (*h, p.clone()))
            .collect();
        pending.sort_unstable_by_key(|(hash, _)| *hash);
        pending
    }

    /// Those of some chunks that wait for a row, in the order of the rows.
    pub(crate) fn pending_of(
        &self,
        chunks: impl Iterator<Item = ChunkHash>,
    ) -> Vec<(ChunkHash, Pending)> {
        let mut found: Vec<(ChunkHash, Pending)> = {
            let pending = self.pending.lock();
            let of = |hash| Some((hash, pending.get(&hash)?.clone()));
            chunks.filter_map(of).collect()
        };
        found.sort_unstable_by_key(|(hash, _)| *hash);
        found.dedup_by_key(|(hash, _)| *hash);
        found
    }

    /// These have rows now.
    pub(crate) fn settled(&self, chunks: &[(ChunkHash, Pending)]) {
        let mut pending = self.pending.lock();
        for (hash, _) in chunks {
            pending.remove(hash);
        }
    }

    /// Whether a chunk waits for its row.
    pub(crate) fn is_pending(&self, hash: &ChunkHash) -> bool {
        self.pending.lock().contains_key(hash)
    }

    /// How many chunks wait for a row.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.lock().len()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.lock().is_empty()
    }
}

/// Reads part of a chunk that is a row.
fn read_row(db: &Connection, hash: &ChunkHash, id: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
    let lost = |why: &dyn std::fmt::Display| {
        FsError::Corrupt(format!("the bytes of chunk {hash} cannot be read: {why}"))
    };
    let blob = match db.blob_open(rusqlite::MAIN_DB, "content", "bytes", int(id), true) {
        Ok(blob) => blob,
        Err(e) if e.sqlite_error_code().is_none() || is_missing(&e) => return Err(lost(&e)),
        Err(e) => return Err(e.into()),
    };
    blob.read_at_exact(buf, offset as usize)
        .map_err(|e| match e {
            rusqlite::Error::BlobSizeError => lost(&e),
            e => e.into(),
        })
}

/// SQLite has no error code of its own for a blob of a row that is not there.
fn is_missing(error: &rusqlite::Error) -> bool {
    error.sqlite_error().map(|e| e.extended_code) == Some(rusqlite::ffi::SQLITE_ERROR)
}

/// Whether some chunks are not here. Only a replica that had such chunks once is
/// looked through.
pub(crate) fn are_elsewhere(db: &Db) -> Result<bool> {
    let db = db.reader();
    if meta_get::<i64>(&db, ELSEWHERE_NOTE)?.is_none() {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM chunk WHERE pack = 0)";
    Ok(db.query_row(sql, [], |r| r.get(0))?)
}

/// Notes that there are, in the transaction that makes them.
pub(crate) fn note_elsewhere(db: &Connection) -> Result<()> {
    meta_set(db, ELSEWHERE_NOTE, 1)
}

pub(crate) fn place_in(db: &Connection, hash: &ChunkHash) -> Result<Option<Place>> {
    let found = db
        .prepare_cached("SELECT pack, off, len FROM chunk WHERE hash = ?")?
        .query_row(params![hash.as_bytes().as_slice()], |r| {
            Ok(Place {
                pack: uint(r.get(0)?),
                offset: uint(r.get(1)?),
                len: r.get(2)?,
            })
        })
        .optional()?;
    match found {
        Some(place) if !place.is_sound() => Err(FsError::Corrupt(format!(
            "the row of chunk {hash} is wrong: {place:?}"
        ))),
        found => Ok(found.filter(|place| place.pack != ELSEWHERE)),
    }
}

/// Adds the rows of chunks with their first references, and counts those that
/// are in packs there. Gives the chunks that had a row already, which stays as
/// it is.
pub(crate) fn insert_rows<'a>(
    db: &Connection,
    chunks: impl Iterator<Item = (&'a ChunkHash, &'a Pending, i64)>,
) -> Result<Vec<ChunkHash>> {
    let mut twice = Vec::new();
    let mut packs: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut insert = db.prepare_cached(
        "INSERT INTO chunk(hash, pack, off, len, encoding, refs) VALUES(?1, ?2, ?3, ?4, 0, ?5)
         ON CONFLICT(hash) DO UPDATE SET pack = ?2, off = ?3, len = ?4, refs = refs + ?5
             WHERE pack = 0",
    )?;
    let mut copy = db.prepare_cached("INSERT INTO content(id, bytes) VALUES(?, ?)")?;
    for (hash, pending, refs) in chunks {
        let place = pending.place;
        let added = insert.execute(params![
            hash.as_bytes().as_slice(),
            int(place.pack),
            int(place.offset),
            place.len,
            refs
        ])?;
        if added == 0 {
            twice.push(*hash);
        } else if let Some(bytes) = pending.to_copy()? {
            copy.execute(params![int(place.pack), bytes])?;
        } else {
            let len = u64::from(place.len);
            let (size, live) = packs.entry(place.pack).or_default();
            *size = (*size).max(place.offset + len);
            *live += len;
        }
    }
    let mut count = db.prepare_cached(
        "INSERT INTO pack(id, size, live) VALUES(?1, ?2, ?3)
         ON CONFLICT(id) DO UPDATE SET size = max(size, ?2), live = live + ?3",
    )?;
    for (pack, (size, live)) in packs {
        count.execute(params![int(pack), int(size), int(live)])?;
    }
    Ok(twice)
}

/// Changes the number of references of a chunk. Returns the bytes that this
/// made dead.
pub(crate) fn add_refs(db: &Connection, hash: &ChunkHash, by: i64) -> Result<u64> {
    let now: Option<(i64, u32)> = db
        .prepare_cached("UPDATE chunk SET refs = refs + ? WHERE hash = ? RETURNING refs, len")?
        .query_row(params![by, hash.as_bytes().as_slice()], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .optional()?;
    match now {
        Some((0, len)) if by < 0 => Ok(u64::from(len)),
        Some(_) => Ok(0),
        None => Err(FsError::Corrupt(format!("chunk {hash} has no row"))),
    }
}
