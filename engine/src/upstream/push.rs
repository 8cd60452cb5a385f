//! Batches: what is pushed, and the bytes that go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_protocol::session::{Batch, BatchOffer, ClientDone, batch_digest};
use cairn_protocol::wire::{Blob, ChunkData};
use cairn_protocol::{
    BATCH_BYTES_MAX, BATCH_CHUNKS_MAX, BATCH_EDITS_MAX, ChunkHash, Edit, NodeId, Ver, encode_chunk,
};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

use super::draft::Aloft;
use super::edits::{Bounds, Edits};
use super::ignore::{Paths, Whose};
use super::layout::{self, Chunks};
use super::local::Local;
use super::outsized::still_outsized;
use super::state::{Flight, Frozen, Rows};
use super::{Upstream, lease};
use crate::db::corrupt;
use crate::replica::Inner;
use crate::shared::{Highest, Shared};
use crate::{FsError, Result};

/// What a batch has at most, about: a fraction of what it may have, for what
/// belongs together comes together.
const BOUNDS: Bounds = Bounds {
    edits: BATCH_EDITS_MAX / 8,
    bytes: BATCH_BYTES_MAX / 2,
    content: 64 << 20,
};

/// What a batch is made of.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) edits: Vec<Edit>,
    /// As in [`Flight`], and so is the next.
    pub(super) chunks: Vec<(ChunkHash, Option<ChunkHash>)>,
    pub(super) scanned: Ver,
    /// The version of the tree that it was made of.
    pub(super) made_of: Ver,
    /// It is full, so there is more to push.
    pub(super) more: bool,
}

/// What was collected.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) ready: Ready,
    /// Something has to be refreshed first.
    pub(super) stale: bool,
    /// What others changed since its editor saw it, without what is settled.
    pub(super) thawed: Frozen,
    pub(super) outsized: BTreeSet<NodeId>,
}

impl Upstream {
    /// The batch in flight, or the next.
    pub(super) fn next_batch(&self, inline: usize) -> Result<Option<Box<BatchOffer>>> {
        self.settle_down()?;
        let mut flight = self.flight.lock().clone();
        if flight.is_none() {
            let (next, stale) = self.take_off()?;
            if stale {
                self.refresh()?;
                return self.next_batch(inline);
            }
            flight = next.map(Arc::new);
            self.flight.lock().clone_from(&flight);
        }
        let Some(flight) = flight else {
            return Ok(None);
        };
        let _gate = self.inner().chunks.reading();
        let offer = BatchOffer {
            batch: Batch {
                number: flight.number,
                seen: flight.seen,
                edits: flight.edits.clone(),
                chunks: flight.chunks.iter().map(|(hash, _)| *hash).collect(),
            },
            inline: self.inline(&flight, inline)?,
            more: self.more.load(Ordering::Relaxed),
        };
        Ok(Some(Box::new(offer)))
    }

    /// Takes the draft or collects a batch, and keeps it, durably: from now on it
    /// is what it is. Also tells whether something has to be refreshed first.
    fn take_off(&self) -> Result<(Option<Flight>, bool)> {
        let inner = self.inner();
        let _gate = inner.chunks.reading();
        let db = self.settled()?;
        if let Some(flight) = self.flight.lock().as_deref() {
            return Ok((Some(flight.clone()), false));
        }
        let rows = Rows {
            db: &db,
            side: self.side,
        };
        let mut state = rows.state()?;
        // A replica that knows nothing of its hub has nothing to say yet; one
        // that begins anew does not know what it has to say.
        let (Some(seen), None) = (state.cursor, *self.reset.lock()) else {
            return Ok((None, false));
        };
        // One transaction: else each of the looks begins and ends one, which is
        // a seventh of the work of a push.
        let tx = db.unchecked_transaction()?;
        let frozen = rows.frozen()?;
        let ready = if let Some(draft) = self.take_draft(&state, &frozen) {
            draft
        } else {
            let found = self.collect(rows, &frozen, state.scanned, None)?;
            if found.stale {
                return Ok((None, true));
            }
            if found.ready.edits.is_empty() && found.ready.scanned == state.scanned {
                return Ok((None, false));
            }
            rows.set_frozen(&frozen, &found.thawed)?;
            rows.set_outsized(&found.outsized)?;
            found.ready
        };
        self.more.store(ready.more, Ordering::Relaxed);
        let flight = if ready.edits.is_empty() {
            state.scanned = ready.scanned;
            None
        } else {
            state.batch += 1;
            state.digest = Some(batch_digest(&ready.edits));
            Some(Flight {
                number: state.batch,
                seen,
                edits: ready.edits,
                chunks: ready.chunks,
                scanned: ready.scanned,
            })
        };
        rows.set_state(&state)?;
        rows.set_flight(flight.as_ref())?;
        inner.note_end(tx.commit())?;
        if let Some(flight) = &flight {
            inner.written.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = inner.make_durable() {
                // The rows have it all the same: it is the batch in flight.
                *self.unsure.lock() = true;
                return Err(error);
            }
            self.lease_flight(flight);
            *self.made_of.lock() = Some(ready.made_of);
        }
        Ok((flight, false))
    }

    /// Collects what was edited, from a version of the log on; with what is in
    /// flight, for a draft. The caller has the commit lock.
    pub(super) fn collect(
        &self,
        rows: Rows<'_>,
        frozen: &Frozen,
        from: Ver,
        aloft: Option<&Aloft<'_>>,
    ) -> Result<Collected> {
        let inner = self.inner();
        let local = Local::new(inner, rows.db);
        let shared = Shared::new(rows.db, rows.side);
        let ignore = self.ignore.lock().clone();
        let paths = Paths::new(&ignore, Whose::Here);
        let mut edits = Edits::new(&local, shared, frozen, &paths, None)
            .with_chunks_max(self.chunks_max.load(Ordering::Relaxed));
        edits.aloft = aloft;
        edits.scan_frozen(&BOUNDS)?;
        let scanned = edits.scan(from, rows.told()?, &BOUNDS)?;
        let mut thawed = frozen.clone();
        for register in &edits.settled {
            thawed.remove(register);
        }
        Ok(Collected {
            stale: edits.stale,
            outsized: still_outsized(rows.outsized()?, &local, &edits)?,
            thawed,
            ready: Ready {
                // In tests there always may be, for their trees are small.
                more: cfg!(debug_assertions) || edits.is_full(&BOUNDS),
                chunks: new_chunks(inner, rows.db, shared, &edits.list)?,
                edits: edits.list,
                scanned,
                made_of: inner.committed.load(Ordering::SeqCst),
            },
        })
    }

    /// Chunks of the batch in flight stay, whatever becomes of the files.
    pub(super) fn lease_flight(&self, flight: &Flight) {
        let hashes: Vec<ChunkHash> = flight.chunks.iter().map(|(hash, _)| *hash).collect();
        lease(self.inner(), &hashes);
        let old = std::mem::replace(&mut *self.aloft.lock(), hashes);
        self.inner().chunks.end_leases(&old);
    }

    fn inline(&self, flight: &Flight, budget: usize) -> Result<Vec<ChunkData>> {
        let mut inline = Vec::new();
        let mut left = budget;
        let db = self.inner().db.reader();
        for (hash, base) in &flight.chunks {
            // A chunk without a base is tried only while there is room for it.
            let Some(place) = layout::place(self.inner(), &db, hash)? else {
                continue;
            };
            if base.is_none() && place.len as usize > left {
                continue;
            }
            let chunk = encode(self.inner(), &db, *hash, *base)?;
            let len = chunk.bytes.len();
            if len <= left {
                left -= len;
                inline.push(chunk);
            }
            if left < 64 || inline.len() >= cairn_protocol::HASHES_MAX {
                break;
            }
        }
        Ok(inline)
    }

    /// Chunks of the batch in flight, as the hub asked for them.
    pub(super) fn supply(&self, asked: &[(ChunkHash, bool)], budget: usize) -> Result<ClientDone> {
        let _gate = self.inner().chunks.reading();
        let flight = self.flight.lock().clone();
        // Few have one, and this is done for every frame of a batch.
        let bases = flight.iter().flat_map(|flight| &flight.chunks);
        let bases = bases.filter_map(|(hash, base)| Some((*hash, (*base)?)));
        let bases: FxHashMap<ChunkHash, ChunkHash> = bases.collect();
        let (mut chunks, mut missing) = (Vec::new(), Vec::new());
        let (mut taken, mut bytes) = (0, 0);
        let store = &self.inner().chunks;
        let places = store.places(&self.inner().db, asked.iter().map(|(hash, _)| hash))?;
        for ((hash, again), place) in asked.iter().zip(places) {
            let db = self.inner().db.reader();
            if place.is_none() {
                missing.push(*hash);
                taken += 1;
                continue;
            }
            let base = bases.get(hash).copied().filter(|_| !again);
            let chunk = encode(self.inner(), &db, *hash, base)?;
            if !chunks.is_empty() && bytes + chunk.bytes.len() > budget {
                break;
            }
            bytes += chunk.bytes.len();
            chunks.push(chunk);
            taken += 1;
        }
        Ok(ClientDone::Chunks {
            chunks,
            taken,
            missing,
        })
    }
}

/// The chunks that may be new to the hub, each with one that it has.
fn new_chunks(
    inner: &Inner,
    db: &Connection,
    shared: Shared<'_>,
    edits: &[Edit],
) -> Result<Vec<(ChunkHash, Option<ChunkHash>)>> {
    let mut listed = BTreeSet::new();
    let mut new = Vec::new();
    let replaced = replaced(edits);
    let mut highest = Highest::default();
    for edit in edits {
        let Edit::Data { node, data, .. } = edit else {
            continue;
        };
        let chunks = Chunks::of(inner, db, data)?;
        if chunks.partial {
            return Err(corrupt(node, "a page of its manifest is missing"));
        }
        let known = if highest.is_new(shared, "shared_node", *node)? {
            None
        } else {
            shared.record(*node)?
        };
        let before = match known {
            None => match replaced.get(node) {
                Some(before) => shared.record(*before)?,
                None => None,
            },
            known => known,
        };
        let there = before.and_then(|record| record.data);
        let old = match &there {
            Some((_, data)) => Chunks::of(inner, db, data)?,
            None => Chunks::default(),
        };
        let has: BTreeSet<ChunkHash> = old.all().map(|(_, hash)| hash).collect();
        for (at, hash) in chunks.all() {
            if !has.contains(&hash) && listed.insert(hash) {
                let base = match at {
                    Some((at, len)) => old.like(at, len),
                    None => old.pages.first().copied(),
                };
                new.push((hash, base));
            }
        }
    }
    if new.len() > BATCH_CHUNKS_MAX {
        return Err(FsError::TooLarge("a file of more than 524 288 new chunks"));
    }
    Ok(new)
}

/// The nodes whose places new ones take. An editor that saves by renaming makes a
/// file of its own, which is much like the one that it replaces.
fn replaced(edits: &[Edit]) -> BTreeMap<NodeId, NodeId> {
    let taken = edits.iter().filter_map(|edit| match edit {
        Edit::Name {
            was: Some(was),
            node: Some(node),
            ..
        } => Some((*node, *was)),
        _ => None,
    });
    taken.collect()
}

/// A chunk as it travels.
pub(super) fn encode(
    inner: &Inner,
    db: &Connection,
    hash: ChunkHash,
    base: Option<ChunkHash>,
) -> Result<ChunkData> {
    let bytes = Bytes::from(layout::read(inner, db, &hash)?);
    // A base that is damaged or gone here is none.
    let prefix = base.and_then(|base| Some((base, layout::read(inner, db, &base).ok()?)));
    let prefix = prefix
        .as_ref()
        .map(|(base, bytes)| (*base, bytes.as_slice()));
    let encoded = encode_chunk(&bytes, prefix);
    Ok(ChunkData {
        hash,
        len: bytes.len() as u32,
        encoding: encoded.encoding,
        bytes: Blob::try_from(encoded.bytes).map_err(|_| FsError::TooLarge("an encoded chunk"))?,
    })
}
