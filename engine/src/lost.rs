//! Chunks that are damaged, or gone, as was found when they were read.
//!
//! Such a chunk is as one that is elsewhere: its row says that it is not here. So
//! whoever brings it is let, a hub asks those who may have it, and a replica that
//! reads it fetches it. Where it was is kept, and so are its bytes, until it has
//! come again; if they turn out to be sound, as after a disk that was away, they
//! count again. Where nobody else can have the bytes, nothing is noted.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_protocol::ChunkHash;
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::chunks::{self, Place};
use crate::db::{Db, int, uint};
use crate::replica::{Inner, Replica};
use crate::rows::each_chunk;
use crate::shared::Shared;
use crate::{FsError, Result};

pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS lost(
    hash BLOB PRIMARY KEY, pack INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL) WITHOUT ROWID;
";

/// The chunks that are lost, as the rows say.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    chunks: Mutex<BTreeSet<ChunkHash>>,
    /// How often some were found.
    times: AtomicU64,
}

impl Lost {
    pub(crate) fn load(db: &Db) -> Result<Self> {
        let reader = db.reader();
        let mut find = reader.prepare("SELECT hash FROM lost")?;
        let rows = find.query_map([], |r| Ok(ChunkHash::from_bytes(r.get(0)?)))?;
        let chunks: BTreeSet<_> = rows.collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            times: AtomicU64::new(u64::from(!chunks.is_empty())),
            chunks: Mutex::new(chunks),
        })
    }

    pub(crate) fn has(&self, hash: &ChunkHash) -> bool {
        self.chunks.lock().contains(hash)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.lock().is_empty()
    }

    /// Another whenever more are lost; 0 if none are.
    pub(crate) fn number(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        self.times.load(Ordering::SeqCst)
    }

    /// Those after a chunk.
    pub(crate) fn after(&self, after: Option<ChunkHash>) -> Vec<ChunkHash> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let chunks = self.chunks.lock();
        chunks.range((from, Bound::Unbounded)).copied().collect()
    }
}

/// Whether that a chunk could not be read means that its bytes are not to be had:
/// they are other bytes, or are gone, or the disk cannot read them.
pub(crate) fn is_damage(error: &FsError) -> bool {
    match error {
        FsError::Corrupt(_) => true,
        FsError::Io { source, .. } => {
            source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        }
        _ => false,
    }
}

impl Replica {
    /// The chunks that were found to be damaged, and have not come again.
    pub fn lost_chunks(&self) -> Vec<ChunkHash> {
        self.inner.lost.after(None)
    }
}

impl Inner {
    /// A chunk could not be read. If that is so, and somebody may have it, it is
    /// noted, and hubs and replicas are told.
    pub(crate) fn lose(&self, hash: &ChunkHash) -> Result<()> {
        let is_lost = self.note_lost(&self.db.writer(), hash)?;
        if is_lost {
            self.watchers.wake();
        }
        Ok(())
    }

    /// The same for who holds the commit lock, and tells them later.
    pub(crate) fn note_lost(&self, db: &Connection, hash: &ChunkHash) -> Result<bool> {
        let shares = "SELECT EXISTS (SELECT 1 FROM shared_node)";
        let shares: bool = db.query_row(shares, [], |r| r.get(0))?;
        if !shares || self.chunks.is_pending(hash) {
            return Ok(false);
        }
        let Some(place) = chunks::place_in(db, hash)? else {
            return Ok(false);
        };
        if !self.is_damaged(db, hash, place) {
            return Ok(false);
        }
        let key = hash.as_bytes().as_slice();
        let tx = db.unchecked_transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO lost(hash, pack, off, len) VALUES(?, ?, ?, ?)",
            params![key, int(place.pack), int(place.offset), place.len],
        )?;
        tx.execute("UPDATE chunk SET pack = 0, off = 0 WHERE hash = ?", [key])?;
        chunks::note_elsewhere(&tx)?;
        tx.commit()?;
        self.written.fetch_add(1, Ordering::SeqCst);
        self.chunks.forget(hash);
        self.elsewhere.store(true, Ordering::SeqCst);
        self.lost.chunks.lock().insert(*hash);
        self.lost.times.fetch_add(1, Ordering::SeqCst);
        tracing::error!(%hash, "a chunk is damaged; who has it is asked for it");
        Ok(true)
    }

    /// Reads a chunk once more. That a file cannot be opened now is no damage.
    fn is_damaged(&self, db: &Connection, hash: &ChunkHash, place: Place) -> bool {
        let mut bytes = vec![0; place.len as usize];
        match self.chunks.read_at(|| db, hash, place, 0, &mut bytes) {
            Ok(()) => ChunkHash::of(&bytes) != *hash,
            Err(error) => is_damage(&error),
        }
    }

    /// Chunks came. Those that were lost are kept, durably.
    pub(crate) fn mend(&self, came: &[ChunkHash]) -> Result<()> {
        if self.lost.is_empty() || !came.iter().any(|hash| self.lost.has(hash)) {
            return Ok(());
        }
        self.commit(true)?;
        self.settle_lost(&self.db.writer())
    }

    /// Forgets what has come again, or what nothing names any more, with the
    /// place where it was. The caller holds the commit lock.
    pub(crate) fn settle_lost(&self, db: &Connection) -> Result<()> {
        if self.lost.is_empty() {
            return Ok(());
        }
        let settled = lost_rows(
            db,
            "SELECT lost.hash, lost.pack, lost.off, lost.len FROM lost
             LEFT JOIN chunk ON chunk.hash = lost.hash
             WHERE chunk.hash IS NULL OR chunk.pack <> 0",
        )?;
        let tx = db.unchecked_transaction()?;
        for (hash, place) in &settled {
            tx.execute("DELETE FROM lost WHERE hash = ?", [hash.as_bytes()])?;
            if self.chunks.files.home().has_chunk_rows() {
                tx.execute("DELETE FROM content WHERE id = ?", [int(place.pack)])?;
            } else {
                tx.execute(
                    "UPDATE pack SET live = live - ? WHERE id = ?",
                    params![place.len, int(place.pack)],
                )?;
            }
        }
        tx.commit()?;
        self.no_longer_lost(settled.iter().map(|(hash, _)| *hash));
        Ok(())
    }

    /// Takes back what is sound where it was. The caller holds the commit lock.
    /// Returns what is lost, and where it was.
    pub(crate) fn look_again(&self, db: &Connection) -> Result<Vec<(ChunkHash, Place)>> {
        self.settle_lost(db)?;
        if self.lost.is_empty() {
            return Ok(Vec::new());
        }
        let all = lost_rows(db, "SELECT hash, pack, off, len FROM lost")?;
        let is_sound = |(hash, place): &(ChunkHash, Place)| {
            let mut bytes = vec![0; place.len as usize];
            let read = self.chunks.read_at(|| db, hash, *place, 0, &mut bytes);
            read.is_ok() && ChunkHash::of(&bytes) == *hash
        };
        let (sound, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(is_sound);
        let tx = db.unchecked_transaction()?;
        for (hash, place) in &sound {
            tx.execute("DELETE FROM lost WHERE hash = ?", [hash.as_bytes()])?;
            tx.execute(
                "UPDATE chunk SET pack = ?, off = ? WHERE hash = ? AND pack = 0",
                params![int(place.pack), int(place.offset), hash.as_bytes()],
            )?;
        }
        tx.commit()?;
        self.no_longer_lost(sound.iter().map(|(hash, _)| *hash));
        Ok(lost)
    }

    fn no_longer_lost(&self, chunks: impl Iterator<Item = ChunkHash>) {
        let mut lost = self.lost.chunks.lock();
        for hash in chunks {
            lost.remove(&hash);
            self.written.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Which of some chunks the tree of a side names, dead nodes too: no other
    /// chunk is the business of who shares that tree. It looks through all of it, a
    /// page at a time, so that nobody waits long for the database.
    pub(crate) fn named_by(
        &self,
        side: u8,
        among: &BTreeSet<ChunkHash>,
    ) -> Result<BTreeSet<ChunkHash>> {
        const PAGE: usize = 1_000;
        let (mut named, mut after) = (BTreeSet::new(), None);
        while named.len() < among.len() {
            let _gate = self.chunks.reading();
            let db = self.db.reader();
            let page = Shared::new(&db, side).nodes(after, PAGE)?;
            for (_, record) in &page {
                let Some((_, data)) = &record.data else {
                    continue;
                };
                // Of a content whose pages are not all here, the pages.
                let _ = each_chunk(self, &db, data, &mut |hash| {
                    if among.contains(&hash) {
                        named.insert(hash);
                    }
                    Ok(())
                });
            }
            match page.last() {
                Some((node, _)) if page.len() == PAGE => after = Some(*node),
                _ => break,
            }
        }
        Ok(named)
    }
}

fn lost_rows(db: &Connection, sql: &str) -> Result<Vec<(ChunkHash, Place)>> {
    let mut find = db.prepare(sql)?;
    let rows = find.query_map([], |r| {
        let place = Place {
            pack: uint(r.get(1)?),
            offset: uint(r.get(2)?),
            len: r.get(3)?,
        };
        Ok((ChunkHash::from_bytes(r.get(0)?), place))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
