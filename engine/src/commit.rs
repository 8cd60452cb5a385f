//! The commit: what is dirty in memory becomes one transaction.
//!
//! The order is what makes a crash harmless: first the bytes of chunks, synced;
//! then the transaction that names them; then, for a durable commit, the sync
//! of the database. Files that became useless are removed last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_protocol::{
    Chain, Change, ChunkHash, ChunkerId, CommitHasher, Data, Entry, Extent, Manifest, Meta, NodeId,
    NodeKind, ReplicaTag, Ver, XattrName, cut,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::attr::Ino;
use crate::chunks::{self, Pending};
use crate::db::{self, int, times_to, uint};
use crate::node::{Base, Body, DirKey, Layout, Node, Overlay, Sealed, Staging, Times};
use crate::replica::Inner;
use crate::tree::Gone;
use crate::waste::Item;
use crate::{FsError, Result};

/// Everything one transaction writes.
struct Batch {
    upto: Ver,
    next_ino: u64,
    count: u64,
    nodes: Vec<NodeRow>,
    names: Vec<NameRow>,
    gone: Vec<Gone>,
    chunks: Vec<(ChunkHash, Pending)>,
    dropped_staging: Vec<u64>,
    leased: Vec<ChunkHash>,
}

struct NodeRow {
    ino: Ino,
    kind: NodeKind,
    perm: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    nlink: u32,
    size: u64,
    allocated: u64,
    times: Times,
    parent: u64,
    entries: u64,
    xattr_count: usize,
    born: Ver,
    meta_ver: Ver,
    data_ver: Ver,
    ver: Ver,
    stored: bool,
    content: Content,
    staging: Option<Staging>,
    xattrs: Vec<(XattrName, Option<Bytes>, Ver)>,
}

/// What happens to the data register.
enum Content {
    Keep,
    Set(Data),
    /// The content of a small file, to be stored first.
    Store {
        bytes: Arc<Vec<u8>>,
        generation: u64,
    },
}

struct NameRow {
    parent: Ino,
    key: DirKey,
    target: Option<Ino>,
    ver: Ver,
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

    fn commit_locked(&self, db: &Connection, durable: bool) -> Result<()> {
        let Some(mut batch) = self.take_batch() else {
            return if durable { self.make_durable() } else { Ok(()) };
        };
        match self.write_batch(db, &mut batch) {
            Ok((stored, dead)) => {
                let commit = self.written.fetch_add(1, Ordering::SeqCst) + 1;
                self.committed.store(batch.upto, Ordering::SeqCst);
                self.news.tell(batch.upto);
                self.dead_bytes.fetch_add(dead, Ordering::Relaxed);
                self.settle_batch(&batch, stored);
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

    fn take_batch(&self) -> Option<Batch> {
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        tree.refresh_all();
        if tree.dirty_nodes.is_empty()
            && tree.dirty_names.is_empty()
            && tree.gone.is_empty()
            && tree.dropped_staging.is_empty()
            && !self.chunks.has_pending()
        {
            return None;
        }
        let dirty = std::mem::take(&mut tree.dirty_nodes);
        let mut nodes = Vec::with_capacity(dirty.len());
        for ino in dirty {
            if let Some(node) = tree.nodes.get_mut(&ino) {
                nodes.push(row_of(Ino(ino), node));
                node.state.dirty = false;
                node.state.in_flight = true;
            }
        }
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
                });
            }
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
        let stored = self.store_contents(db, batch)?;
        // Chunks stored since the batch was taken may be the ones it names.
        batch.chunks = self.chunks.pending();
        self.sync_pending(&batch.chunks)?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        let written = self.write_rows(db, batch).and_then(|rows| {
            db.execute_batch("COMMIT")?;
            Ok(rows)
        });
        match written {
            Ok(rows) => {
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
                // A failed transaction may have rolled back by itself.
                if !db.is_autocommit() {
                    db.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
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
        let mut files = BTreeMap::new();
        for (_, pending) in chunks {
            files.insert(pending.file.id, pending);
        }
        if self.chunks.files.dir().is_none() {
            for pending in files.values().filter(|p| p.adopt) {
                self.chunks.files.adopt(&pending.file)?;
            }
            return Ok(());
        }
        for pending in files.values() {
            pending.file.sync()?;
            if pending.adopt {
                self.chunks.files.adopt(&pending.file)?;
            }
        }
        Ok(())
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

    fn write_rows(&self, db: &Connection, batch: &Batch) -> Result<Written> {
        let pin: Option<Ver> = db
            .prepare_cached("SELECT max(seq) FROM pin")?
            .query_row([], |r| r.get::<_, Option<i64>>(0))?
            .map(uint);
        let mut writer = RowWriter {
            db,
            pin,
            tag: ReplicaTag(self.identity.tag),
            hasher: CommitHasher::new(),
            dead: 0,
            twice: Vec::new(),
        };
        for (hash, pending) in &batch.chunks {
            if !chunks::insert_row(db, hash, pending.place)? {
                writer.twice.push(*hash);
            }
        }
        for row in &batch.nodes {
            writer.node(self, row)?;
        }
        for row in &batch.names {
            writer.name(row)?;
        }
        for gone in &batch.gone {
            writer.gone(self, *gone)?;
        }
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
            dead: writer.dead,
            twice: writer.twice,
            chain,
        })
    }
}

/// The ends of staging files that became packs: a file that was cut shorter is
/// shorter than its staging file.
fn tails(chunks: &[(ChunkHash, Pending)]) -> Vec<Item> {
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, pending) in chunks.iter().filter(|(_, p)| p.adopt) {
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
    /// See [`RowWriter::twice`].
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

fn row_of(ino: Ino, node: &mut Node) -> NodeRow {
    let attr = node.attr(ino);
    let mut xattrs = Vec::new();
    let mut xattr_count = 0;
    for (name, xattr) in node.xattrs.iter_mut().flat_map(|x| x.iter_mut()) {
        xattr_count += usize::from(xattr.value.is_some());
        if std::mem::take(&mut xattr.dirty) {
            xattrs.push((name.clone(), xattr.value.clone(), xattr.ver));
        }
    }
    let ver = node.ver();
    let mut row = NodeRow {
        ino,
        kind: node.kind,
        perm: node.perm,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        nlink: node.nlink,
        size: 0,
        allocated: attr.blocks * 512,
        times: node.times,
        parent: 0,
        entries: 0,
        xattr_count,
        born: node.born,
        meta_ver: node.meta_ver,
        data_ver: node.data_ver,
        ver,
        stored: node.state.stored || node.state.in_flight,
        content: Content::Keep,
        staging: None,
        xattrs,
    };
    match &mut node.body {
        Body::File(file) => {
            row.size = file.size;
            row.allocated = file.allocated();
            match &file.over {
                Overlay::Memory(bytes) if file.data_dirty => {
                    row.content = Content::Store {
                        bytes: bytes.clone(),
                        generation: file.generation,
                    };
                }
                over => {
                    if file.base_dirty {
                        row.content = Content::Set(file.base.to_data());
                    }
                    if let Overlay::Staging(staging) = over {
                        row.staging = Some(staging.clone());
                        file.recorded = true;
                    }
                }
            }
            file.data_dirty = false;
            file.base_dirty = false;
        }
        Body::Dir(dir) => {
            row.parent = dir.parent;
            row.entries = dir.entries;
        }
        Body::Symlink(target) => {
            row.content = Content::Set(Data::Symlink {
                target: target.clone(),
            });
        }
        Body::Special => {}
    }
    row
}

struct RowWriter<'a> {
    db: &'a Connection,
    /// Values at or below this version must be kept when they change.
    pin: Option<Ver>,
    tag: ReplicaTag,
    hasher: CommitHasher,
    dead: u64,
    /// Chunks that were stored a second time, by two who did not see each
    /// other: the row names the first place.
    twice: Vec<ChunkHash>,
}

impl RowWriter<'_> {
    fn id(&self, ino: Ino) -> NodeId {
        node_id(self.tag, ino)
    }

    fn node(&mut self, inner: &Inner, row: &NodeRow) -> Result<()> {
        if row.stored {
            self.keep_meta(row)?;
        }
        let data = match &row.content {
            Content::Set(data) => Some(data),
            _ => None,
        };
        if let Some(data) = data {
            if row.stored && row.kind == NodeKind::File {
                self.release_data(inner, row.ino, row.data_ver)?;
            }
            each_chunk(inner, self.db, data, &mut |hash| {
                chunks::count_refs(self.db, &hash, 1)
            })?;
        }
        let encoded = data
            .map(postcard::to_stdvec)
            .transpose()
            .map_err(|e| FsError::Corrupt(format!("a data register cannot be encoded: {e}")))?;
        self.db
            .prepare_cached(
                "INSERT INTO node(ino, kind, perm, uid, gid, rdev, nlink, size, allocated, times, parent, entries,
                     xattrs, born, meta_ver, data_ver, ver, data)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
                 ON CONFLICT(ino) DO UPDATE SET perm = ?3, uid = ?4, gid = ?5, nlink = ?7, size = ?8, allocated = ?9,
                     times = ?10, parent = ?11, entries = ?12, xattrs = ?13, meta_ver = ?15,
                     data_ver = CASE WHEN ?19 THEN ?16 ELSE data_ver END, ver = max(ver, ?17),
                     data = CASE WHEN ?19 THEN ?18 ELSE data END",
            )?
            .execute(params![
                int(row.ino.0),
                u8::from(row.kind),
                row.perm,
                row.uid,
                row.gid,
                row.rdev,
                row.nlink,
                int(row.size),
                int(row.allocated),
                times_to(&row.times).as_slice(),
                int(row.parent),
                int(row.entries),
                int(row.xattr_count as u64),
                int(row.born),
                int(row.meta_ver),
                int(row.data_ver),
                int(row.ver),
                encoded,
                encoded.is_some(),
            ])?;
        self.staging(row)?;
        for (name, value, ver) in &row.xattrs {
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO xattr(ino, name, value, ver) VALUES(?, ?, ?, ?)",
                )?
                .execute(params![
                    int(row.ino.0),
                    name.as_bytes(),
                    value.as_deref(),
                    int(*ver)
                ])?;
            let entry = Entry::Xattr {
                node: self.id(row.ino),
                name: name.clone(),
                value: value.clone(),
            };
            self.hasher.push(&Change { ver: *ver, entry });
        }
        self.log(row.ver, 0, row.ino, None)?;
        let id = self.id(row.ino);
        if !row.stored {
            self.hasher.push(&Change {
                ver: row.born,
                entry: Entry::Node { id, kind: row.kind },
            });
        }
        self.hasher.push(&Change {
            ver: row.meta_ver,
            entry: Entry::Meta {
                node: id,
                meta: meta_of(row.perm, row.uid, row.gid, &row.times),
            },
        });
        if let Some(data) = data {
            self.hasher.push(&Change {
                ver: row.data_ver,
                entry: Entry::Data {
                    node: id,
                    data: data.clone(),
                },
            });
        }
        Ok(())
    }

    fn staging(&self, row: &NodeRow) -> Result<()> {
        if row.kind != NodeKind::File {
            return Ok(());
        }
        match &row.staging {
            Some(staging) => {
                let ranges = postcard::to_stdvec(&staging.ranges)
                    .map_err(|e| FsError::Corrupt(format!("ranges cannot be encoded: {e}")))?;
                self.db
                    .prepare_cached(
                        "INSERT OR REPLACE INTO staging(ino, file, size, base_len, ranges) VALUES(?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        int(row.ino.0),
                        int(staging.file.id),
                        int(row.size),
                        int(staging.base_len),
                        ranges,
                    ])?;
            }
            None if row.stored => {
                self.db
                    .prepare_cached("DELETE FROM staging WHERE ino = ?")?
                    .execute([int(row.ino.0)])?;
            }
            None => {}
        }
        Ok(())
    }

    fn name(&mut self, row: &NameRow) -> Result<()> {
        self.keep_name(row)?;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO name(parent, hash, name, child, ver) VALUES(?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(row.parent.0),
                int(row.key.0),
                row.key.1.as_bytes(),
                row.target.map(|t| int(t.0)),
                int(row.ver),
            ])?;
        self.log(row.ver, 1, row.parent, Some(&row.key))?;
        let entry = Entry::Name {
            parent: self.id(row.parent),
            name: row.key.1.clone(),
            node: row.target.map(|t| self.id(t)),
        };
        self.hasher.push(&Change {
            ver: row.ver,
            entry,
        });
        Ok(())
    }

    fn gone(&mut self, inner: &Inner, gone: Gone) -> Result<()> {
        let ino = int(gone.ino.0);
        if gone.was_file {
            self.release_data(inner, gone.ino, gone.ver)?;
            self.db
                .prepare_cached("DELETE FROM staging WHERE ino = ?")?
                .execute([ino])?;
        }
        if self.pin.is_some() {
            self.keep_node(gone)?;
        }
        self.db
            .prepare_cached("DELETE FROM node WHERE ino = ?")?
            .execute([ino])?;
        self.db
            .prepare_cached("DELETE FROM xattr WHERE ino = ?")?
            .execute([ino])?;
        self.db
            .prepare_cached("DELETE FROM name WHERE parent = ?")?
            .execute([ino])?;
        self.log(gone.ver, 2, gone.ino, None)?;
        self.hasher.push(&Change {
            ver: gone.ver,
            entry: Entry::Gone {
                node: self.id(gone.ino),
            },
        });
        Ok(())
    }

    fn log(&self, ver: Ver, kind: u8, ino: Ino, key: Option<&DirKey>) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO log(ver, kind, ino, hash, name) VALUES(?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(ver),
                kind,
                int(ino.0),
                key.map(|k| int(k.0)),
                key.map(|k| k.1.as_bytes()),
            ])?;
        Ok(())
    }

    /// The stored data register of a file stops being current: its chunks lose
    /// a reference, unless a pin keeps the value.
    fn release_data(&mut self, inner: &Inner, ino: Ino, until: Ver) -> Result<()> {
        let old: Option<(Option<Vec<u8>>, i64)> = self
            .db
            .prepare_cached("SELECT data, data_ver FROM node WHERE ino = ?")?
            .query_row([int(ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((Some(bytes), first)) = old else {
            return Ok(());
        };
        if self.pin.is_some_and(|pin| uint(first) <= pin) {
            return self.keep(ino, HISTORY_DATA, None, uint(first), until, &bytes);
        }
        let data: Data = postcard::from_bytes(&bytes).map_err(|e| db::corrupt(ino, e))?;
        let dead = &mut self.dead;
        let db = self.db;
        each_chunk(inner, db, &data, &mut |hash| {
            *dead += chunks::drop_ref(db, &hash)?;
            Ok(())
        })
    }

    fn keep_meta(&self, row: &NodeRow) -> Result<()> {
        let Some(pin) = self.pin else { return Ok(()) };
        let old: Option<(i64, i64)> = self
            .db
            .prepare_cached("SELECT meta_ver, ino FROM node WHERE ino = ?")?
            .query_row([int(row.ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        match old {
            Some((first, _)) if uint(first) <= pin && uint(first) != row.meta_ver => {
                self.keep_meta_value(row.ino, uint(first), row.meta_ver)
            }
            _ => Ok(()),
        }
    }

    fn keep_meta_value(&self, ino: Ino, first: Ver, until: Ver) -> Result<()> {
        let Some(node) = db::load_node(self.db, ino)? else {
            return Ok(());
        };
        let meta = meta_of(node.perm, node.uid, node.gid, &node.times);
        let bytes = postcard::to_stdvec(&meta).map_err(|e| db::corrupt(ino, e))?;
        self.keep(ino, HISTORY_META, None, first, until, &bytes)
    }

    fn keep_node(&self, gone: Gone) -> Result<()> {
        if let (Some(node), Some(pin)) = (db::load_node(self.db, gone.ino)?, self.pin)
            && node.meta_ver <= pin
        {
            self.keep_meta_value(gone.ino, node.meta_ver, gone.ver)?;
        }
        Ok(())
    }

    fn keep_name(&self, row: &NameRow) -> Result<()> {
        let Some(pin) = self.pin else { return Ok(()) };
        let old: Option<(Option<i64>, i64)> = self
            .db
            .prepare_cached(
                "SELECT child, ver FROM name WHERE parent = ? AND hash = ? AND name = ?",
            )?
            .query_row(
                params![int(row.parent.0), int(row.key.0), row.key.1.as_bytes()],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .optional()?;
        match old {
            Some((Some(child), first)) if uint(first) <= pin => self.keep(
                row.parent,
                HISTORY_NAME,
                Some(&row.key),
                uint(first),
                row.ver,
                &child.to_le_bytes(),
            ),
            _ => Ok(()),
        }
    }

    fn keep(
        &self,
        ino: Ino,
        kind: u8,
        key: Option<&DirKey>,
        first: Ver,
        until: Ver,
        value: &[u8],
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR IGNORE INTO history(ino, kind, hash, name, first, until, value) VALUES(?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(ino.0),
                kind,
                key.map_or(0, |k| int(k.0)),
                key.map_or(&[][..], |k| k.1.as_bytes()),
                int(first),
                int(until),
                value,
            ])?;
        Ok(())
    }
}

/// Kinds of rows in `history`.
pub(crate) const HISTORY_DATA: u8 = 0;
pub(crate) const HISTORY_META: u8 = 1;
pub(crate) const HISTORY_NAME: u8 = 2;

/// The global id of a node that was made here.
pub(crate) fn node_id(tag: ReplicaTag, ino: Ino) -> NodeId {
    if ino == Ino::ROOT {
        NodeId::ROOT
    } else {
        NodeId {
            replica: tag,
            counter: ino.0,
        }
    }
}

pub(crate) fn meta_of(perm: u16, uid: u32, gid: u32, times: &Times) -> Meta {
    Meta {
        mode: u32::from(perm),
        uid,
        gid,
        mtime: times.mtime,
        btime: times.btime,
    }
}

/// Every chunk a data register names: pages of its manifest and its content.
pub(crate) fn each_chunk(
    inner: &Inner,
    db: &Connection,
    data: &Data,
    each: &mut dyn FnMut(ChunkHash) -> Result<()>,
) -> Result<()> {
    let Data::File { manifest, .. } = data else {
        return Ok(());
    };
    for page in manifest.pages() {
        each(page)?;
    }
    let extents = manifest
        .extents(|page| {
            let place = match inner.chunks.known(page) {
                Some(place) => Some(place),
                None => chunks::place_in(db, page)?,
            };
            let place =
                place.ok_or_else(|| FsError::Corrupt(format!("chunk {page} is missing")))?;
            let mut bytes = vec![0; place.len as usize];
            inner
                .chunks
                .file_of(page, place)?
                .read(&mut bytes, place.offset)?;
            Ok::<_, FsError>(bytes)
        })
        .map_err(|e| FsError::Corrupt(format!("a manifest cannot be read: {e}")))?;
    for extent in extents {
        if let Extent::Chunk { hash, .. } = extent {
            each(hash)?;
        }
    }
    Ok(())
}
