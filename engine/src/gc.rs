//! Giving space back: chunks nobody names, the packs they were in, and log
//! rows that newer ones replaced.

use std::sync::atomic::Ordering;

use rusqlite::params;

use crate::Result;
use crate::chunks::Place;
use crate::db::{Db, int, uint};
use crate::replica::{Inner, Replica};
use cairn_protocol::ChunkHash;

/// Log entries and tombstones younger than this are kept for readers of the log.
const LOG_KEEP: u64 = 10_000;
/// A pack with less than this part in use is moved together.
const COMPACT_BELOW: u64 = 2;
/// Chunks handled in one transaction.
const STEP: usize = 2_000;

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Chunks removed.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub bytes: u64,
    /// Packs removed.
    pub packs: u64,
    /// Bytes moved out of packs that were mostly empty.
    pub moved_bytes: u64,
    /// Log entries removed.
    pub log_entries: u64,
}

/// How much a replica holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes.
    pub nodes: u64,
    /// Sum of the sizes of all files, in bytes.
    pub logical_bytes: u64,
    /// Bytes of all stored chunks that something names.
    pub stored_bytes: u64,
    /// Bytes that would be stored besides, were no chunk shared.
    pub shared_bytes: u64,
    /// Chunks that something names.
    pub chunks: u64,
    /// Bytes of chunks that wait for collection.
    pub dead_bytes: u64,
    /// Bytes in files that are not sealed yet.
    pub unsealed_bytes: u64,
    /// Bytes of the database and the packs on disk, as allocated.
    pub disk_bytes: u64,
}

impl Replica {
    /// Gives back what nothing needs. Runs by itself when there is much of it.
    ///
    /// # Errors
    ///
    /// What the disk says; what was done until then stays done.
    pub fn gc(&self) -> Result<GcReport> {
        self.inner.seal_all()?;
        self.inner.commit(false)?;
        self.inner.collect_garbage()
    }

    /// How much the replica holds.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn usage(&self) -> Result<Usage> {
        self.inner.commit(false)?;
        let mut usage = Usage {
            nodes: self.inner.tree.lock().count,
            ..Usage::default()
        };
        let db = self.inner.db.reader();
        let number = |sql: &str| -> Result<u64> {
            Ok(uint(
                db.query_row(sql, [], |r| r.get::<_, Option<i64>>(0))?
                    .unwrap_or(0),
            ))
        };
        usage.logical_bytes = number("SELECT sum(size) FROM node WHERE kind = 0")?;
        usage.stored_bytes = number("SELECT sum(len) FROM chunk WHERE refs > 0")?;
        usage.shared_bytes = number("SELECT sum(len * (refs - 1)) FROM chunk WHERE refs > 1")?;
        usage.chunks = number("SELECT count(*) FROM chunk WHERE refs > 0")?;
        usage.dead_bytes = number("SELECT sum(len) FROM chunk WHERE refs = 0")?;
        usage.unsealed_bytes = number("SELECT sum(size) FROM staging")?;
        drop(db);
        usage.disk_bytes = self.inner.db.disk_len() + self.inner.data_disk_len()?;
        Ok(usage)
    }
}

/// How many bytes wait for collection, when the replica is opened.
pub(crate) fn dead_bytes(db: &Db) -> Result<u64> {
    let sum = "SELECT sum(len) FROM chunk WHERE refs = 0";
    let bytes: Option<i64> = db.reader().query_row(sum, [], |r| r.get(0))?;
    Ok(uint(bytes.unwrap_or(0)))
}

impl Inner {
    /// Bytes the data files take on the disk.
    fn data_disk_len(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let files = &self.chunks.files;
        let (packs, staged) = files
            .on_disk()
            .map_err(|e| crate::FsError::io("listing the data files", e))?;
        let paths = packs
            .iter()
            .filter_map(|id| files.pack_path(*id))
            .chain(staged.iter().filter_map(|id| files.staging_path(*id)));
        Ok(paths
            .filter_map(|p| p.metadata().ok())
            .map(|m| m.blocks() * 512)
            .sum())
    }

    pub(crate) fn collect_garbage(&self) -> Result<GcReport> {
        self.dead_bytes.store(0, Ordering::Relaxed);
        self.settle_lost(&self.db.writer())?;
        let mut report = GcReport::default();
        self.prune_history()?;
        while self.drop_dead(&mut report)? {}
        self.compact(&mut report)?;
        self.prune_log(&mut report)?;
        self.compact_hub_log()?;
        if self.chunks.files.home().has_chunk_rows() {
            self.shorten_database()?;
        }
        Ok(report)
    }

    /// Gives the free pages of the database back, some at a time.
    fn shorten_database(&self) -> Result<()> {
        const PAGES: u64 = 4_096;
        loop {
            let db = self.db.writer();
            let free: i64 = db.query_row("PRAGMA freelist_count", [], |r| r.get(0))?;
            if free == 0 {
                return Ok(());
            }
            {
                let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
            }
            self.written.fetch_add(1, Ordering::SeqCst);
            self.make_durable()?;
            self.db.checkpoint(&db)?;
            let left: i64 = db.query_row("PRAGMA freelist_count", [], |r| r.get(0))?;
            if left >= free {
                return Ok(());
            }
        }
    }

    /// Removes the rows of some dead chunks, then gives their space back.
    /// Returns whether there may be more.
    fn drop_dead(&self, report: &mut GcReport) -> Result<bool> {
        let mut dead: Vec<Place> = Vec::new();
        let mut empty = Vec::new();
        let mut gone = Vec::new();
        {
            // No reader is between its look at a file and its look for the
            // chunks that the file named then.
            let alone = self.chunks.reclaiming();
            let db = self.db.writer();
            // Held to the end of the transaction: no seal begins to count on a
            // chunk that goes, nor sees one that has gone.
            let leases = self.chunks.leases();
            let tx = db.unchecked_transaction()?;
            {
                let mut find = tx.prepare_cached(
                    "SELECT hash, pack, off, len FROM chunk WHERE refs = 0 LIMIT ?",
                )?;
                let mut rows = find.query([int(STEP as u64)])?;
                while let Some(row) = rows.next()? {
                    let hash: [u8; 32] = row.get(0)?;
                    let hash = ChunkHash::from_bytes(hash);
                    let place = Place {
                        pack: uint(row.get(1)?),
                        offset: uint(row.get(2)?),
                        len: row.get(3)?,
                    };
                    if leases.holds(&hash) || self.chunks.is_pinned(place.pack) {
                        continue;
                    }
                    gone.push(hash);
                    tx.prepare_cached("DELETE FROM chunk WHERE hash = ?")?
                        .execute([hash.as_bytes().as_slice()])?;
                    if self.chunks.files.home().has_chunk_rows() {
                        tx.prepare_cached("DELETE FROM content WHERE id = ?")?
                            .execute([int(place.pack)])?;
                    } else {
                        tx.prepare_cached("UPDATE pack SET live = live - ? WHERE id = ?")?
                            .execute(params![place.len, int(place.pack)])?;
                    }
                    dead.push(place);
                }
            }
            {
                let mut find = tx.prepare_cached("SELECT id FROM pack WHERE live <= 0")?;
                let mut rows = find.query([])?;
                while let Some(row) = rows.next()? {
                    let id = uint(row.get(0)?);
                    if !self.chunks.in_use(id) {
                        empty.push(id);
                    }
                }
            }
            for id in &empty {
                tx.prepare_cached("DELETE FROM pack WHERE id = ?")?
                    .execute([int(*id)])?;
            }
            tx.commit()?;
            for hash in &gone {
                self.chunks.forget(hash);
            }
            drop(leases);
            drop(alone);
            // Rows first, durably, then the space: a crash between leaves waste,
            // never a row without bytes.
            if !(dead.is_empty() && empty.is_empty()) {
                self.written.fetch_add(1, Ordering::SeqCst);
                self.make_durable()?;
            }
        }
        report.chunks += dead.len() as u64;
        report.bytes += dead.iter().map(|p| u64::from(p.len)).sum::<u64>();
        report.packs += empty.len() as u64;
        let more = dead.len() == STEP;
        if self.chunks.files.home().has_chunk_rows() {
            return Ok(more);
        }
        let _alone = self.chunks.reclaiming();
        for id in &empty {
            self.chunks.files.remove_pack(*id);
        }
        dead.retain(|p| p.pack != crate::chunks::ELSEWHERE && !empty.contains(&p.pack));
        dead.sort_unstable_by_key(|p| (p.pack, p.offset));
        let mut at = 0;
        while at < dead.len() {
            let first = dead[at];
            let mut end = first.offset + u64::from(first.len);
            at += 1;
            while at < dead.len() && dead[at].pack == first.pack && dead[at].offset == end {
                end += u64::from(dead[at].len);
                at += 1;
            }
            self.chunks
                .files
                .pack(first.pack)?
                .punch(first.offset, end - first.offset)?;
        }
        Ok(more)
    }

    /// Moves the live chunks out of small packs that are mostly waste.
    fn compact(&self, report: &mut GcReport) -> Result<()> {
        let sparse: Vec<u64> = {
            let db = self.db.reader();
            let mut find = db.prepare_cached(
                "SELECT id FROM pack WHERE live > 0 AND live * ? < size AND live < 16777216",
            )?;
            let rows = find.query_map([int(COMPACT_BELOW)], |r| Ok(uint(r.get(0)?)))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        for pack in sparse.into_iter().filter(|p| !self.chunks.in_use(*p)) {
            let Some(moved) = self.move_chunks(pack)? else {
                continue;
            };
            report.moved_bytes += moved;
            let _alone = self.chunks.reclaiming();
            if !self.chunks.is_pinned(pack) {
                self.chunks.files.remove_pack(pack);
            }
        }
        Ok(())
    }

    /// Moves the chunks of a pack to other packs, durably; the file stays.
    /// Returns their bytes, or `None` when one is damaged: then all stay.
    pub(crate) fn move_chunks(&self, pack: u64) -> Result<Option<u64>> {
        let db = self.db.writer();
        let lost = "SELECT EXISTS (SELECT 1 FROM lost WHERE pack = ?)";
        if db.query_row(lost, [int(pack)], |r| r.get(0))? {
            return Ok(None);
        }
        let mut live = Vec::new();
        {
            let mut find = db.prepare_cached(
                "SELECT hash, off, len FROM chunk WHERE pack = ? AND pack > 0 ORDER BY off",
            )?;
            let mut rows = find.query([int(pack)])?;
            while let Some(row) = rows.next()? {
                let place = Place {
                    pack,
                    offset: uint(row.get(1)?),
                    len: row.get(2)?,
                };
                live.push((ChunkHash::from_bytes(row.get(0)?), place));
            }
        }
        let from = self.chunks.files.pack(pack)?;
        let mut moved = 0;
        let mut rows = Vec::with_capacity(live.len());
        for (hash, place) in live {
            let mut bytes = vec![0; place.len as usize];
            from.read(&mut bytes, place.offset)?;
            if ChunkHash::of(&bytes) != hash {
                tracing::error!(%hash, pack, "a chunk is damaged; its pack is left as it is");
                return Ok(None);
            }
            rows.push((hash, self.chunks.append(hash, &bytes)?));
            moved += u64::from(place.len);
        }
        let pending = self.chunks.pending();
        for (_, p) in &pending {
            p.file.sync()?;
        }
        let tx = db.unchecked_transaction()?;
        for (hash, place) in &rows {
            tx.prepare_cached("UPDATE chunk SET pack = ?, off = ? WHERE hash = ?")?
                .execute(params![
                    int(place.pack),
                    int(place.offset),
                    hash.as_bytes().as_slice()
                ])?;
            tx.prepare_cached(
                "INSERT INTO pack(id, size, live) VALUES(?1, ?2, ?3)
                 ON CONFLICT(id) DO UPDATE SET size = max(size, ?2), live = live + ?3",
            )?
            .execute(params![
                int(place.pack),
                int(place.offset + u64::from(place.len)),
                place.len
            ])?;
        }
        tx.prepare_cached("DELETE FROM pack WHERE id = ?")?
            .execute([int(pack)])?;
        tx.commit()?;
        for (hash, place) in &rows {
            self.chunks.moved(*hash, *place);
        }
        let done: Vec<_> = pending
            .into_iter()
            .filter(|(h, _)| rows.iter().any(|(r, _)| r == h))
            .collect();
        self.chunks.settled(&done);
        self.written.fetch_add(1, Ordering::SeqCst);
        self.make_durable()?;
        Ok(Some(moved))
    }

    /// Removes old log rows that a newer row replaced, and old tombstones.
    fn prune_log(&self, report: &mut GcReport) -> Result<()> {
        let db = self.db.writer();
        let head: i64 = db.query_row("SELECT max(seq) FROM commits", [], |r| r.get(0))?;
        let horizon = uint(head).saturating_sub(LOG_KEEP);
        // A removal that no hub was told of is known by its tombstone only.
        let told = crate::upstream::scanned_by_all(&db)?;
        let horizon = told.map_or(horizon, |told| horizon.min(told));
        if horizon == 0 {
            return Ok(());
        }
        let tx = db.unchecked_transaction()?;
        let pruned = tx.execute(
            "DELETE FROM log WHERE ver <= ?1 AND (
                 kind = 2
                 OR (kind = 0 AND NOT EXISTS (SELECT 1 FROM node WHERE node.ino = log.ino AND node.ver = log.ver))
                 OR (kind = 1 AND NOT EXISTS (SELECT 1 FROM name WHERE name.parent = log.ino AND name.hash = log.hash
                         AND name.name = log.name AND name.ver = log.ver AND name.child IS NOT NULL)))",
            [int(horizon)],
        )?;
        tx.execute(
            "DELETE FROM name WHERE child IS NULL AND ver <= ?",
            [int(horizon)],
        )?;
        tx.execute(
            "DELETE FROM xattr WHERE value IS NULL AND ver <= ?",
            [int(horizon)],
        )?;
        tx.execute(
            "DELETE FROM commits WHERE seq <= ? AND seq < (SELECT max(seq) FROM commits)",
            [int(horizon)],
        )?;
        tx.commit()?;
        report.log_entries += pruned as u64;
        Ok(())
    }
}
