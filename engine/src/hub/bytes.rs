//! Chunks that come and go over a connection, and those that it holds.
//!
//! A chunk that a session was told of, or has brought, is leased until a commit
//! of the session names it or the session ends: gc does not take it between
//! the offer and the commit.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_protocol::session::{HubDone, Wanted};
use cairn_protocol::wire::{ChunkData, Code};
use cairn_protocol::{ChunkError, ChunkHash, Encoded, decode_chunk, encode_chunk};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::Hub;
use crate::lost::is_damage;
use crate::replica::{Inner, Replica};
use crate::shared::HUB;
use crate::{FsError, Result};

/// Chunks that a session may hold: about 80 MiB of memory at most, and far
/// more than one batch can name.
const HELD_MAX: usize = 1 << 20;

/// Chunks are looked up together as if they had this many bytes.
const LOOKED_UP_FOR: usize = 2_048;

/// The chunks that a session holds.
#[derive(Debug)]
pub(super) struct Held {
    replica: Replica,
    chunks: Mutex<FxHashSet<ChunkHash>>,
    /// What was asked for and found missing: it need not be looked for again.
    /// That another session brings it meanwhile costs its bytes, and nothing else.
    missing: Mutex<FxHashSet<ChunkHash>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let held: Vec<ChunkHash> = self.chunks.get_mut().drain().collect();
        let inner = &self.replica.inner;
        inner.chunks.end_leases(&held);
        // What of it nothing names is dead: nobody has counted how much.
        let least = held.len() as u64;
        inner.dead_bytes.fetch_add(least, Ordering::Relaxed);
    }
}

impl Held {
    pub(super) fn new(replica: Replica) -> Self {
        Self {
            replica,
            chunks: Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// Tells which chunks are missing, and holds the others.
    pub(super) fn offer(&self, chunks: &[ChunkHash]) -> Result<Vec<bool>> {
        for hash in chunks {
            self.hold(*hash)?;
        }
        let inner = &self.replica.inner;
        let places = inner.chunks.places(&inner.db, chunks.iter())?;
        let missing = chunks.iter().zip(places).map(|(hash, place)| {
            if place.is_none() {
                self.let_go(&[*hash]);
                self.note_missing(*hash);
            }
            place.is_none()
        });
        Ok(missing.collect())
    }

    /// Keeps chunks. Returns those that it refuses, and why.
    pub(super) fn store(&self, chunks: Vec<ChunkData>) -> Result<Vec<(ChunkHash, Code)>> {
        let inner = &self.replica.inner;
        // What claims to be longer is refused below.
        let most = cairn_protocol::CHUNK_MAX as u64;
        let bytes = chunks
            .iter()
            .map(|chunk| u64::from(chunk.len).min(most))
            .sum();
        inner.take_space(bytes)?;
        if inner.chunks.is_spill_full() {
            inner.commit(false)?;
        }
        let came: Vec<ChunkHash> = chunks.iter().map(|chunk| chunk.hash).collect();
        let (mut refused, mut new) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let hash = chunk.hash;
            match decode(inner, chunk) {
                Ok(bytes) => {
                    self.hold(hash)?;
                    let missing = self.missing.lock().remove(&hash);
                    if missing && inner.chunks.known(&hash).is_none() {
                        new.push((hash, bytes));
                    } else {
                        inner.chunks.store(&inner.db, hash, &bytes)?;
                    }
                }
                Err(ChunkError::NoBase { .. }) => refused.push((hash, Code::CHUNK_MISSING)),
                Err(_) => refused.push((hash, Code::CHUNK_CORRUPT)),
            }
        }
        inner.chunks.append_all(&new)?;
        inner.mend(&came)?;
        Ok(refused)
    }

    fn note_missing(&self, hash: ChunkHash) {
        let mut missing = self.missing.lock();
        if missing.len() >= HELD_MAX {
            missing.clear();
        }
        missing.insert(hash);
    }

    /// Ends the hold of chunks that something else keeps now.
    pub(super) fn let_go(&self, chunks: &[ChunkHash]) {
        let mut held = self.chunks.lock();
        let gone: Vec<ChunkHash> = chunks.iter().filter(|h| held.remove(h)).copied().collect();
        self.replica.inner.chunks.end_leases(&gone);
    }

    /// Comes before the look whether a chunk is there.
    fn hold(&self, hash: ChunkHash) -> Result<()> {
        let mut held = self.chunks.lock();
        if held.len() >= HELD_MAX {
            return Err(FsError::TooLarge("the chunks that one connection holds"));
        }
        if held.insert(hash) {
            self.replica.inner.chunks.lease(hash);
        }
        Ok(())
    }
}

fn decode(inner: &Inner, chunk: ChunkData) -> Result<Bytes, ChunkError> {
    let encoded = Encoded {
        encoding: chunk.encoding,
        bytes: chunk.bytes.into_bytes(),
    };
    let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
    decode_chunk(chunk.hash, len, &encoded, |base| {
        read(inner, base).ok().flatten()
    })
}

/// The bytes of a chunk, if it is here and whole. One that is damaged is noted.
fn read(inner: &Inner, hash: &ChunkHash) -> Result<Option<Bytes>> {
    let read = {
        let _reading = inner.chunks.reading();
        if inner.chunks.place(&inner.db, hash)?.is_none() {
            return Ok(None);
        }
        inner.chunks.read_verified(&inner.db, hash)
    };
    match read {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if is_damage(&error) => {
            tracing::error!(%hash, %error, "a chunk that a replica wants is damaged");
            inner.lose(hash)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Hub {
    /// Which chunks of the hub's tree are lost.
    pub(super) fn lost(&self, after: Option<ChunkHash>, max: usize) -> Result<Vec<ChunkHash>> {
        let inner = &self.replica.inner;
        let mut known = inner.watchers.lost.lock();
        let number = inner.lost.number();
        if known.0 != number {
            inner.settle_lost(&inner.db.writer())?;
            let lost = inner.lost.after(None).into_iter().collect();
            *known = (number, inner.named_by(HUB, &lost)?);
        }
        let of_hub = |hash: &ChunkHash| known.1.contains(hash);
        let lost = inner.lost.after(after).into_iter().filter(of_hub);
        Ok(lost.take(max).collect())
    }

    /// Reads chunks for a client, encoded, until they are as many bytes as it
    /// takes now.
    pub(super) fn read(&self, wanted: &[Wanted], budget: usize) -> Result<HubDone> {
        let inner = &self.replica.inner;
        let (mut chunks, mut missing) = (Vec::new(), Vec::new());
        let (mut taken, mut total) = (0, 0);
        // About as many as fit, so that they need not be looked up one by one.
        let some = wanted.iter().take(budget / LOOKED_UP_FOR + 1);
        inner.chunks.places(&inner.db, some.map(|(hash, _)| hash))?;
        for (hash, base) in wanted {
            let Some(bytes) = read(inner, hash)? else {
                missing.push(*hash);
                taken += 1;
                continue;
            };
            // As if it did not compress: else the last one would be encoded twice.
            if total + bytes.len() > budget && !chunks.is_empty() {
                break;
            }
            let prefix = base.map(|base| read(inner, &base)).transpose()?.flatten();
            let base = base.zip(prefix.as_deref());
            let encoded = encode_chunk(&bytes, base);
            total += encoded.bytes.len();
            taken += 1;
            chunks.push(ChunkData {
                hash: *hash,
                len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                encoding: encoded.encoding,
                bytes: encoded
                    .bytes
                    .try_into()
                    .map_err(|_| FsError::TooLarge("a chunk"))?,
            });
        }
        Ok(HubDone::Chunks {
            chunks,
            taken,
            missing,
        })
    }
}
