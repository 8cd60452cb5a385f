//! The commit: what is dirty in memory becomes one transaction, whose
//! rows are in [`crate::rows`].
//!
//! The order is what makes a crash harmless: first the bytes of chunks, synced;
//! then the transaction that names them; then, for a durable commit, the sync
//! of the database. Files that became useless are removed last.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_protocol::{Chain, ChunkHash, ChunkerId, Extent, Manifest, NodeId, ReplicaTag, Ver, cut};
use rusqlite::{Connection, params};

use crate::attr::Ino;
use crate::chunks::{self, Keep, Pending};
use crate::db::{self, int};
use crate::home::Home;
use crate::late::roll_back;
use crate::node::{Base, Body, Layout, Node, Overlay, Sealed};
use crate::replica::Inner;
use crate::rows::{Content, NameRow, NodeRow, RowWriter};
use crate::tree::{Gone, Tree};
use crate::upstream::Rider;
use crate::waste::Item;
use crate::{FsError, Result};

/// Everything one transaction writes.
pub(crate) struct Batch {
    upto: Ver,
    next_ino: u64,
    count: u64,
    nodes: Vec<NodeRow>,
    names: Vec<NameRow>,
    gone: Vec<Gone>,
    chunks: Vec<(ChunkHash, Pending)>,
    dropped_staging: Vec<u64>,
    leased: Vec<ChunkHash>,
    rider: Option<Box<Rider>>,
}

/// A small file's content after it was stored.
struct Stored {
    ino: Ino,
    generation: u64,
    base: Base,
}

impl Inner {
    /// Writes everything dirty as one transaction; with `durable`, nothing of
    /// it is lost in a power cut.
    ///
    /// One at a time: who comes second waits, and then often finds its change
    /// committed by the first.
    pub(crate) fn commit(&self, durable: bool) -> Result<()> {
        self.spill_open_files()?;
        let db = self.db.writer();
        let result = self.commit_locked(&db, durable);
        let full = matches!(result, Err(FsError::NoSpace));
        if full {
            self.faults.full.store(true, Ordering::Relaxed);
        }
        self.faults
            .failing
            .store(result.is_err() && !full, Ordering::Relaxed);
        result
    }

    /// The same for who holds the commit lock, and may have begun the transaction.
    pub(crate) fn commit_locked(&self, db: &Connection, durable: bool) -> Result<()> {
        let of_rider = |is: fn(&Rider) -> bool| self.tree.lock().rider.as_deref().is_some_and(is);
        let mut shifting = of_rider(Rider::shifts).then(|| self.shift.begin());
        let done = self.commit_batch(db, durable);
        if let (Err(_), Some(shifting)) = (&done, &mut shifting)
            && of_rider(|rider| rider.turns(None))
        {
            shifting.stick();
        }
        done
    }

    fn commit_batch(&self, db: &Connection, durable: bool) -> Result<()> {
        let Some(mut batch) = self.next_batch(db)? else {
            if !db.is_autocommit() {
                self.end_transaction(db)?;
            }
            return if durable { self.make_durable() } else { Ok(()) };
        };
        match self.write_batch(db, &mut batch) {
            Ok((stored, dead)) => {
                let commit = self.written.fetch_add(1, Ordering::SeqCst) + 1;
                self.committed.store(batch.upto, Ordering::SeqCst);
                self.news.tell(batch.upto);
                self.dead_bytes.fetch_add(dead, Ordering::Relaxed);
                self.settle_batch(&batch, stored);
                if let Some(rider) = &mut batch.rider {
                    rider.committed(self);
                }
                let dropped = batch.dropped_staging.iter().copied();
                self.waste.add(commit, dropped.map(Item::Staging));
                self.waste.add(commit, tails(&batch.chunks));
                if durable { self.make_durable() } else { Ok(()) }
            }
            Err(error) => {
                self.put_back(batch);
                Err(error)
            }
        }
    }

    /// Makes every transaction durable; the caller holds the commit lock.
    pub(crate) fn make_durable(&self) -> Result<()> {
        let written = self.written.load(Ordering::SeqCst);
        if self.synced.load(Ordering::SeqCst) < written {
            self.sync_database()?;
            self.synced.fetch_max(written, Ordering::SeqCst);
        }
        self.waste.give_back(&self.chunks.files, written);
        Ok(())
    }

    /// A file over 64 KiB that is open for writing is not stored again at
    /// every commit: its changes go to a staging file.
    fn spill_open_files(&self) -> Result<()> {
        let open: Vec<u64> = {
            let tree = self.tree.lock();
            tree.dirty_nodes
                .iter()
                .filter(|ino| {
                    tree.nodes.get(ino).is_some_and(|n| {
                        n.writers > 0
                            && matches!(&n.body, Body::File(f) if f.data_dirty && f.memory() > cairn_protocol::WHOLE_MAX)
                    })
                })
                .copied()
                .collect()
        };
        for ino in open {
            match self.make_staging(Ino(ino)) {
                Ok(()) | Err(FsError::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Takes everything dirty.
    pub(crate) fn take_batch(&self, tree: &mut Tree) -> Option<Batch> {
        tree.refresh_all();
        if tree.is_clean() && !self.chunks.has_pending() {
            return None;
        }
        let dirty = std::mem::take(&mut tree.dirty_nodes);
        let mut nodes = Vec::with_capacity(dirty.len());
        for ino in dirty {
            if let Some(node) = tree.nodes.get_mut(&ino) {
                nodes.push(NodeRow::take(Ino(ino), node));
                node.state.dirty = false;
                node.state.in_flight = true;
            }
        }
        let tag = ReplicaTag(self.identity.tag);
        let mut names = Vec::new();
        for (parent, key) in std::mem::take(&mut tree.dirty_names) {
            if let Some(Node {
                body: Body::Dir(dir),
                ..
            }) = tree.nodes.get_mut(&parent)
                && let Some(dirent) = dir.children.get_mut(&key)
            {
                dirent.state.dirty = false;
                dirent.state.in_flight = true;
                names.push(NameRow {
                    parent: Ino(parent),
                    key,
                    target: dirent.target,
                    ver: dirent.ver,
                    ids: (NodeId::ROOT, None),
                });
            }
        }
        for row in &mut names {
            let target = row.target.map(|ino| tree.id_of(tag, ino));
            row.ids = (tree.id_of(tag, row.parent), target);
        }
        Some(Batch {
            upto: tree.seq,
            next_ino: tree.next_ino,
            count: tree.count,
            nodes,
            names,
            gone: std::mem::take(&mut tree.gone),
            chunks: self.chunks.pending(),
            dropped_staging: std::mem::take(&mut tree.dropped_staging),
            leased: std::mem::take(&mut tree.leased),
            rider: tree.rider.take(),
        })
    }

    /// Undoes [`Self::take_batch`]: what is newer in memory stays newer.
    fn put_back(&self, batch: Batch) {
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        for row in batch.nodes {
            if let Some(node) = tree.nodes.get_mut(&row.ino.0) {
                node.state.in_flight = false;
                node.state.dirty = true;
                tree.dirty_nodes.insert(row.ino.0);
                if !matches!(row.content, Content::Keep)
                    && let Body::File(file) = &mut node.body
                {
                    match file.over {
                        Overlay::Memory(_) => file.data_dirty = true,
                        _ => file.base_dirty = true,
                    }
                }
                for (name, _, _) in row.xattrs {
                    if let Some(xattr) = node.xattrs.as_mut().and_then(|x| x.get_mut(&name)) {
                        xattr.dirty = true;
                    }
                }
            }
        }
        for row in batch.names {
            if let Some(Node {
                body: Body::Dir(dir),
                ..
            }) = tree.nodes.get_mut(&row.parent.0)
                && let Some(dirent) = dir.children.get_mut(&row.key)
            {
                // `pinned` counts an entry once, dirty or in flight or both.
                dirent.state.in_flight = false;
                dirent.state.dirty = true;
                tree.dirty_names.insert((row.parent.0, row.key));
            }
        }
        tree.gone.splice(0..0, batch.gone);
        tree.dropped_staging.splice(0..0, batch.dropped_staging);
        tree.leased.extend(batch.leased);
        if let Some(mut rider) = batch.rider {
            rider.rolled_back();
            tree.rider = Some(rider);
        }
    }

    fn settle_batch(&self, batch: &Batch, stored: Vec<Stored>) {
        self.chunks.settled(&batch.chunks);
        self.chunks.end_leases(&batch.leased);
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        tree.buried(&batch.gone);
        for row in &batch.nodes {
            if let Some(node) = tree.nodes.get_mut(&row.ino.0) {
                node.state.in_flight = false;
                node.state.stored = true;
                if let Some(xattrs) = &mut node.xattrs {
                    xattrs.retain(|_, x| x.dirty || x.value.is_some());
                }
            }
        }
        for row in &batch.names {
            if let Some(Node {
                body: Body::Dir(dir),
                ..
            }) = tree.nodes.get_mut(&row.parent.0)
                && let Some(dirent) = dir.children.get_mut(&row.key)
            {
                dirent.state.in_flight = false;
                dirent.state.stored = row.target.is_some();
                if !dirent.state.dirty {
                    dir.pinned = dir.pinned.saturating_sub(1);
                    if dirent.target.is_none() && dir.complete {
                        dir.children.remove(&row.key);
                    }
                }
            }
        }
        for done in stored {
            if let Some(Node {
                body: Body::File(file),
                ..
            }) = tree.nodes.get_mut(&done.ino.0)
                && file.generation == done.generation
            {
                file.base = done.base;
            }
        }
    }

    fn write_batch(&self, db: &Connection, batch: &mut Batch) -> Result<(Vec<Stored>, u64)> {
        let written = self.try_write(db, batch);
        match written {
            Ok((stored, rows)) => {
                *self.chain.lock() = rows.chain;
                for (hash, pending) in &batch.chunks {
                    self.chunks.remember(*hash, pending.place);
                }
                for hash in &rows.twice {
                    self.chunks.forget(hash);
                }
                Ok((stored, rows.dead))
            }
            Err(error) => {
                roll_back(db)?;
                Err(error)
            }
        }
    }

    fn try_write(&self, db: &Connection, batch: &mut Batch) -> Result<(Vec<Stored>, Written)> {
        let stored = self.store_contents(db, batch)?;
        // Chunks stored since the batch was taken may be the ones it names.
        batch.chunks = self.chunks.pending();
        self.sync_pending(&batch.chunks)?;
        if db.is_autocommit() {
            db.execute_batch("BEGIN IMMEDIATE")?;
        }
        let rows = self.write_rows(db, batch)?;
        if let Some(rider) = &mut batch.rider {
            rider.write(db)?;
        }
        self.end_transaction(db)?;
        Ok((stored, rows))
    }

    /// Stores the contents of small files as chunks.
    fn store_contents(&self, db: &Connection, batch: &mut Batch) -> Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for row in &mut batch.nodes {
            let Content::Store { bytes, generation } = &row.content else {
                continue;
            };
            let base = self.store_content(db, bytes)?;
            row.allocated = match &base {
                Base::Empty => 0,
                Base::Inline(b) => b.len() as u64,
                Base::Sealed(s) => s.allocated,
            };
            stored.push(Stored {
                ino: row.ino,
                generation: *generation,
                base: base.clone(),
            });
            row.content = Content::Set(base.to_data());
        }
        Ok(stored)
    }

    fn store_content(&self, db: &Connection, bytes: &[u8]) -> Result<Base> {
        if bytes.is_empty() {
            return Ok(Base::Empty);
        }
        if bytes.len() <= self.options.inline_max {
            return Ok(Base::Inline(Bytes::copy_from_slice(bytes)));
        }
        let size = bytes.len() as u64;
        let chunker = ChunkerId::for_size(size);
        let mut sink = |_: u64, extent: &Extent, bytes: &[u8]| -> Result<()> {
            if let Extent::Chunk { hash, .. } = extent {
                let known = match self.chunks.known(hash) {
                    Some(place) => Some(place),
                    None => chunks::place_in(db, hash)?,
                };
                if known.is_none() {
                    self.chunks.append(*hash, bytes)?;
                }
            }
            Ok(())
        };
        let extents = cut(chunker, &Buffer(bytes), size, &mut sink)?;
        let manifest = Manifest::build(&extents, |_, _| {
            Err(FsError::TooLarge("a small file has few extents"))
        })?;
        let allocated = Layout::allocated(&extents);
        let layout = std::sync::OnceLock::new();
        let _ = layout.set(Layout::new(extents));
        Ok(Base::Sealed(
            Sealed {
                size,
                chunker,
                manifest,
                allocated,
                pack: std::sync::OnceLock::new(),
                layout,
            }
            .into(),
        ))
    }

    /// Makes the bytes of new chunks durable, and staging files into packs.
    fn sync_pending(&self, chunks: &[(ChunkHash, Pending)]) -> Result<()> {
        for pending in self.sync_packs(chunks)? {
            if pending.keep == Keep::Adopt {
                self.chunks.files.adopt(&pending.file)?;
            }
        }
        Ok(())
    }

    /// Makes the bytes of new chunks durable. Returns one of each file.
    pub(crate) fn sync_packs<'a>(
        &self,
        chunks: &'a [(ChunkHash, Pending)],
    ) -> Result<Vec<&'a Pending>> {
        let mut files = BTreeMap::new();
        for (_, pending) in chunks {
            files.insert(pending.file.id, pending);
        }
        // Of a memory file there is nothing to sync; a copy is in the transaction.
        if matches!(self.chunks.files.home(), Home::Dir(_)) {
            files.values().try_for_each(|pending| pending.file.sync())?;
        }
        Ok(files.into_values().collect())
    }

    /// Makes every committed transaction durable, after the names of the files
    /// that its rows name. Their bytes are durable since before the rows.
    ///
    /// The caller holds the commit lock: a commit between the two syncs would
    /// be durable before the names it needs.
    pub(crate) fn sync_database(&self) -> Result<()> {
        self.chunks.files.sync_names()?;
        self.db.sync()
    }

    fn write_rows(&self, db: &Connection, batch: &mut Batch) -> Result<Written> {
        let mut writer = RowWriter::new(db, ReplicaTag(self.identity.tag))?;
        if let Some(rider) = &mut batch.rider {
            let ledger = rider.ledger.as_mut().map(std::mem::take);
            writer.ledger = ledger.unwrap_or_default();
            // It has the changes of this commit whose rows are written.
            if let Some(hasher) = rider.hasher.take() {
                writer.hasher = hasher;
            }
        }
        // First what ends: another inode may have its id by now.
        for gone in &batch.gone {
            writer.gone(self, gone)?;
        }
        for row in &batch.nodes {
            writer.node(self, row)?;
        }
        for row in &batch.names {
            writer.name(row)?;
        }
        writer.chunks(&batch.chunks)?;
        let mut chain = *self.chain.lock();
        // What has no version, as an access time, leaves cursors as they are.
        if batch.upto > self.committed.load(Ordering::SeqCst) {
            chain = chain.next(&writer.hasher.finish());
            db.prepare_cached("INSERT INTO commits(seq, chain) VALUES(?, ?)")?
                .execute(params![int(batch.upto), chain.0.as_slice()])?;
        }
        db::meta_set(db, "seq", int(batch.upto))?;
        db::meta_set(db, "next_ino", int(batch.next_ino))?;
        db::meta_set(db, "count", int(batch.count))?;
        Ok(Written {
            dead: writer.ledger.dead,
            twice: writer.ledger.twice,
            chain,
        })
    }
}

/// The ends of staging files that became packs: a file that was cut shorter is
/// shorter than its staging file.
fn tails(chunks: &[(ChunkHash, Pending)]) -> Vec<Item> {
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, pending) in chunks.iter().filter(|(_, p)| p.keep == Keep::Adopt) {
        let end = ends.entry(pending.place.pack).or_default();
        *end = (*end).max(pending.place.offset + u64::from(pending.place.len));
    }
    ends.into_iter()
        .map(|(pack, len)| Item::Tail { pack, len })
        .collect()
}

/// What a transaction wrote besides the rows of the batch.
struct Written {
    /// Bytes of chunks that lost their last reference.
    dead: u64,
    /// See [`crate::refs::Written::twice`].
    twice: Vec<ChunkHash>,
    chain: Chain,
}

/// Content in memory, as the chunker reads it.
struct Buffer<'a>(&'a [u8]);

impl cairn_protocol::ReadAt for Buffer<'_> {
    type Error = FsError;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let start = crate::ranges::index(offset);
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }
}
