//! A transfer while it comes in, and the chunks that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::session::{Report, Wanted};
use cairn_protocol::wire::{ChunkData, Code};
use cairn_protocol::{
    Change, ChunkError, ChunkHash, Data, ENTRIES_MAX, Edit, Encoded, Entry, NodeId, Seq,
    decode_chunk,
};
use rusqlite::Connection;
use rustc_hash::FxHashSet;

use super::Upstream;
use super::layout::{self, Chunks};
use super::spool::Spool;
use crate::chunks;
use crate::files::Files;
use crate::shared::{Highest, Shared};
use crate::{FsError, Result};

/// So many chunks of a transfer are leased one by one; when there are more, gc
/// waits for its cut: 16 384 leases take about 2 MiB.
const LEASES_MAX: usize = if cfg!(debug_assertions) { 24 } else { 16_384 };

/// The changes of a transfer so far.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) changes: Arc<Spool>,
    pub(super) reports: Vec<Report>,
    /// The chunks that its contents name stay until the cut.
    pub(super) leased: Held,
    /// Contents whose pages are not all here.
    partial: Vec<(NodeId, Data)>,
    /// New nodes that take the places of others, whose contents are much alike.
    replaced: BTreeMap<NodeId, NodeId>,
}

impl Staged {
    /// What was staged, after a cut of it that came to nothing.
    pub(super) fn again(changes: Arc<Spool>, reports: Vec<Report>, leased: Held) -> Self {
        Self {
            changes,
            reports,
            leased,
            ..Self::default()
        }
    }

    fn push(&mut self, files: &Files, changes: Vec<Change>) -> Result<()> {
        Arc::get_mut(&mut self.changes)
            .ok_or_else(|| FsError::Corrupt("a cut is applied while it is staged".into()))?
            .push(files, changes)
    }
}

/// Chunks that stay, whatever names them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    chunks: FxHashSet<ChunkHash>,
    /// There are more than are listed: all chunks stay.
    all: bool,
}

impl Held {
    /// Keeps a chunk. `false` if it was kept already.
    fn take(&mut self, store: &chunks::Chunks, hash: ChunkHash) -> bool {
        if self.chunks.contains(&hash) {
            return false;
        }
        if self.chunks.len() < LEASES_MAX {
            store.lease(hash);
            self.chunks.insert(hash);
        } else if !std::mem::replace(&mut self.all, true) {
            store.lease_all();
        }
        true
    }

    /// Lets go of all.
    pub(crate) fn end(&mut self, store: &chunks::Chunks) {
        let listed: Vec<ChunkHash> = std::mem::take(&mut self.chunks).into_iter().collect();
        store.end_leases(&listed);
        if std::mem::take(&mut self.all) {
            store.end_lease_of_all();
        }
    }
}

impl Upstream {
    /// Keeps changes, and says which chunks they need.
    pub(super) fn stage(
        &self,
        first: u64,
        changes: Vec<Change>,
        reports: Vec<Report>,
    ) -> Result<Vec<Wanted>> {
        if first == 0 {
            self.forget_staged();
        }
        let mut staged = self.staged.lock();
        let mut wanted = Vec::new();
        {
            let _gate = self.inner().chunks.reading();
            let reader = self.inner().db.reader();
            // One transaction: else each look begins and ends one.
            let db = reader.unchecked_transaction()?;
            staged.replaced.extend(self.replaced(&db, &changes)?);
            for change in &changes {
                if let Entry::Data { node, data } = &change.entry {
                    self.want(&db, &mut staged, *node, data, &mut wanted)?;
                }
            }
        }
        staged.push(&self.inner().chunks.files, changes)?;
        staged.reports.extend(reports);
        Ok(wanted)
    }

    /// Keeps what the batch in flight says as changes of this commit. Its chunks
    /// are here and stay until it is applied.
    pub(super) fn confirm(&self, first: u64, ver: Seq) -> Result<()> {
        let flight = self.flight.lock().clone();
        let Some(flight) = flight else {
            return Err(FsError::Corrupt("no batch is in flight".into()));
        };
        if first == 0 {
            self.forget_staged();
        }
        let files = &self.inner().chunks.files;
        let mut staged = self.staged.lock();
        for page in flight.edits.chunks(ENTRIES_MAX) {
            let entries = page.iter().map(Edit::effect);
            let changes = entries.map(|entry| Change { ver, entry }).collect();
            staged.push(files, changes)?;
        }
        Ok(())
    }

    /// The nodes that the confirmed tree has where others come to be.
    fn replaced(&self, db: &Connection, changes: &[Change]) -> Result<Vec<(NodeId, NodeId)>> {
        let shared = Shared::new(db, self.side);
        let mut replaced = Vec::new();
        let mut highest = Highest::default();
        for change in changes {
            let Entry::Name { parent, name, node } = &change.entry else {
                continue;
            };
            if let Some(node) = node
                && (*parent == NodeId::ROOT || !highest.is_new(shared, "shared_node", *parent)?)
                && let Some((Some(before), _)) = shared.name(&(*parent, name.clone()))?
                && before != *node
            {
                replaced.push((*node, before));
            }
        }
        Ok(replaced)
    }

    /// Lets go of what was staged.
    pub(super) fn forget_staged(&self) {
        let mut old = std::mem::take(&mut *self.staged.lock());
        old.leased.end(&self.inner().chunks);
    }

    /// Adds the chunks of a content that are not here, as far as its pages are.
    fn want(
        &self,
        db: &Connection,
        staged: &mut Staged,
        node: NodeId,
        data: &Data,
        wanted: &mut Vec<Wanted>,
    ) -> Result<()> {
        let chunks = Chunks::of(self.inner(), db, data)?;
        if chunks.partial {
            staged.partial.push((node, data.clone()));
        }
        let mut old = None;
        for (at, hash) in chunks.all() {
            if !staged.leased.take(&self.inner().chunks, hash) {
                continue;
            }
            let fetched_later = at.is_some() && self.is_lazy();
            if fetched_later || layout::place(self.inner(), db, &hash)?.is_some() {
                continue;
            }
            if old.is_none() {
                let shared = Shared::new(db, self.side);
                let record = match (shared.record(node)?, staged.replaced.get(&node)) {
                    (None, Some(before)) => shared.record(*before)?,
                    (known, _) => known,
                };
                let data = record.and_then(|record| record.data);
                let data = data.map(|(_, data)| Chunks::of(self.inner(), db, &data));
                old = Some(data.transpose()?.unwrap_or_default());
            }
            let base = match (&old, at) {
                (Some(old), Some((at, len))) => old.like(at, len),
                (Some(old), None) => old.pages.first().copied(),
                (None, _) => None,
            };
            let base = match base {
                Some(base) if layout::place(self.inner(), db, &base)?.is_some() => Some(base),
                _ => None,
            };
            wanted.push((hash, base));
        }
        Ok(())
    }

    /// What contents need whose pages have come since they were staged.
    pub(super) fn want_more(&self) -> Result<Vec<Wanted>> {
        let mut staged = self.staged.lock();
        let mut wanted = Vec::new();
        let _gate = self.inner().chunks.reading();
        let db = self.inner().db.reader();
        let partial = std::mem::take(&mut staged.partial);
        if partial.is_empty() {
            return Ok(wanted);
        }
        let mut last = std::collections::BTreeMap::new();
        let waiting: BTreeSet<NodeId> = partial.iter().map(|(node, _)| *node).collect();
        let changes = staged.changes.clone();
        for page in changes.pages() {
            for change in &*page? {
                if let Entry::Data { node, data } = &change.entry
                    && waiting.contains(node)
                {
                    last.insert(*node, data.clone());
                }
            }
        }
        drop(changes);
        for (node, data) in partial {
            if last.get(&node) != Some(&data) {
                continue;
            }
            self.want(&db, &mut staged, node, &data, &mut wanted)?;
        }
        Ok(wanted)
    }

    /// Checks and keeps chunks that came.
    pub(super) fn store(&self, chunks: Vec<ChunkData>) -> Result<Vec<(ChunkHash, Code)>> {
        let mut refused = Vec::new();
        // What claims to be longer is refused below.
        let most = cairn_protocol::CHUNK_MAX as u64;
        let bytes = chunks
            .iter()
            .map(|chunk| u64::from(chunk.len).min(most))
            .sum();
        self.inner().take_space(bytes)?;
        let store = &self.inner().chunks;
        {
            // Before the look whether they are there.
            let mut staged = self.staged.lock();
            for chunk in &chunks {
                staged.leased.take(store, chunk.hash);
            }
        }
        let hashes = chunks.iter().map(|chunk| &chunk.hash);
        let places = store.places(&self.inner().db, hashes)?;
        let came: Vec<ChunkHash> = chunks.iter().map(|chunk| chunk.hash).collect();
        let mut new = Vec::new();
        for (chunk, place) in chunks.into_iter().zip(places) {
            let hash = chunk.hash;
            match self.decode(chunk) {
                Ok(_) if place.is_some() || store.known(&hash).is_some() => {}
                Ok(bytes) => new.push((hash, bytes)),
                Err(ChunkError::NoBase { .. }) => refused.push((hash, Code::CHUNK_MISSING)),
                Err(_) => refused.push((hash, Code::CHUNK_CORRUPT)),
            }
        }
        store.append_all(&new)?;
        if self.inner().chunks.is_spill_full() {
            self.inner().commit(false)?;
        }
        self.inner().mend(&came)?;
        Ok(refused)
    }

    fn decode(&self, chunk: ChunkData) -> Result<Bytes, ChunkError> {
        let encoded = Encoded {
            encoding: chunk.encoding,
            bytes: chunk.bytes.into_bytes(),
        };
        decode_chunk(chunk.hash, chunk.len as usize, &encoded, |base| {
            let _gate = self.inner().chunks.reading();
            let db = self.inner().db.reader();
            layout::read(self.inner(), &db, base).ok().map(Bytes::from)
        })
    }
}
