//! Evicting: the bytes of chunks that the hub is known to hold are given up. The
//! rows stay, and say that the chunks are elsewhere.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use cairn_protocol::{ChunkHash, Data};
use rusqlite::{Connection, OptionalExtension, params};

use super::Upstream;
use super::layout::Chunks;
use super::local::Local;
use crate::Result;
use crate::attr::Ino;
use crate::chunks::{self, ELSEWHERE, Place};
use crate::db::{corrupt, int, uint};
use crate::shared::Shared;

/// How many references each chunk has that the hub answers for.
type Held = HashMap<ChunkHash, i64>;

impl Upstream {
    /// Gives up the bytes of contents that are at the hub, as the confirmed tree
    /// says, and that nothing else here names. Whoever reads them later fetches
    /// them. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// What the database or the disk says.
    pub fn evict(&self) -> Result<u64> {
        self.settle_down()?;
        let inner = self.inner();
        let mut given = Vec::new();
        {
            // No reader is between its look for a chunk and its read of it.
            let _alone = inner.chunks.reclaiming();
            let db = inner.db.writer();
            let held = self.held(&db)?;
            let leases = inner.chunks.leases();
            let tx = db.unchecked_transaction()?;
            for (hash, refs) in held {
                let is_used = leases.holds(&hash);
                if is_used || inner.chunks.is_pending(&hash) {
                    continue;
                }
                if let Some(place) = self.give_up(&tx, &hash, refs)? {
                    given.push((hash, place));
                }
            }
            chunks::note_elsewhere(&tx)?;
            tx.commit()?;
            for (hash, _) in &given {
                inner.chunks.forget(hash);
            }
            inner.elsewhere.store(true, Ordering::SeqCst);
            drop(leases);
            // Rows first, durably, then the space.
            inner.written.fetch_add(1, Ordering::SeqCst);
            inner.make_durable()?;
        }
        if !inner.chunks.files.home().has_chunk_rows() {
            let _alone = inner.chunks.reclaiming();
            for (_, place) in &given {
                let pack = inner.chunks.files.pack(place.pack)?;
                pack.punch(place.offset, u64::from(place.len))?;
            }
        }
        Ok(given.iter().map(|(_, place)| u64::from(place.len)).sum())
    }

    /// Counts what the confirmed tree names, and what the working tree names
    /// that is the same.
    fn held(&self, db: &Connection) -> Result<Held> {
        let inner = self.inner();
        let shared = Shared::new(db, self.side);
        let mut held = Held::new();
        let mut count = |data: &Data| -> Result<()> {
            let chunks = Chunks::of(inner, db, data)?;
            for (_, _, hash) in chunks.extents {
                *held.entry(hash).or_default() += 1;
            }
            Ok(())
        };
        let mut failed = None;
        shared.each_data(&mut |_, data| {
            if let Err(error) = data.and_then(|data| count(&data)) {
                failed = Some(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let local = Local::new(inner, db);
        let mut find = db.prepare("SELECT ino, data FROM node WHERE data IS NOT NULL")?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let (ino, data): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let ino = Ino(uint(ino));
            let data: Data = postcard::from_bytes(&data).map_err(|e| corrupt(ino, e))?;
            let record = shared.record(local.id(ino)?)?;
            if record
                .and_then(|record| record.data)
                .map(|(_, data)| data)
                .as_ref()
                == Some(&data)
            {
                count(&data)?;
            }
        }
        Ok(held)
    }

    /// Takes a chunk from its place, if only `refs` references name it.
    fn give_up(&self, db: &Connection, hash: &ChunkHash, refs: i64) -> Result<Option<Place>> {
        let found = db
            .prepare_cached("SELECT pack, off, len FROM chunk WHERE hash = ? AND refs = ?")?
            .query_row(params![hash.as_bytes().as_slice(), refs], |r| {
                Ok(Place {
                    pack: uint(r.get(0)?),
                    offset: uint(r.get(1)?),
                    len: r.get(2)?,
                })
            })
            .optional()?;
        let chunks = &self.inner().chunks;
        let movable = |place: &Place| place.pack != ELSEWHERE && !chunks.in_use(place.pack);
        let Some(place) = found.filter(movable) else {
            return Ok(None);
        };
        db.prepare_cached("UPDATE chunk SET pack = 0, off = 0 WHERE hash = ?")?
            .execute([hash.as_bytes().as_slice()])?;
        if chunks.files.home().has_chunk_rows() {
            db.prepare_cached("DELETE FROM content WHERE id = ?")?
                .execute([int(place.pack)])?;
        } else {
            db.prepare_cached("UPDATE pack SET live = live - ? WHERE id = ?")?
                .execute(params![place.len, int(place.pack)])?;
        }
        Ok(Some(place))
    }
}
