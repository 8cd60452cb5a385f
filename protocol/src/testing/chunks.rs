//! The chunks of a model store.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::data::Data;
use crate::encoding::{ChunkError, Encoded, decode_chunk, encode_chunk};
use crate::extent::{ChunkerId, Extent};
use crate::hash::ChunkHash;
use crate::manifest::Manifest;
use crate::session::Wanted;
use crate::wire::{Blob, ChunkData, Code};

/// Chunks by their hash. None is taken away but by [`Self::lose`].
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkMap(BTreeMap<ChunkHash, Bytes>);

/// What is sent of what was asked for.
pub(super) struct Given {
    pub(super) chunks: Vec<ChunkData>,
    pub(super) taken: usize,
    pub(super) missing: Vec<ChunkHash>,
}

impl ChunkMap {
    pub(super) fn has(&self, hash: &ChunkHash) -> bool {
        self.0.contains_key(hash)
    }

    /// Takes a chunk away.
    pub(super) fn lose(&mut self, hash: &ChunkHash) {
        self.0.remove(hash);
    }

    /// Keeps a content of a file, and gives the value of its register. What is
    /// larger than `piece` bytes is cut into pieces of that.
    pub(super) fn cut(&mut self, content: &[u8], piece: usize) -> Data {
        if content.len() <= piece / 4 {
            let bytes = Bytes::copy_from_slice(content);
            return Data::Inline { bytes };
        }
        let mut extents = Vec::new();
        for part in content.chunks(piece) {
            let hash = ChunkHash::of(part);
            self.0.insert(hash, Bytes::copy_from_slice(part));
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            extents.push(Extent::Chunk { hash, len });
        }
        let mut page = |hash, bytes: Vec<u8>| {
            self.0.insert(hash, bytes.into());
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(manifest) = Manifest::build(&extents, &mut page);
        Data::File {
            size: content.len() as u64,
            chunker: ChunkerId::FastCdc,
            manifest,
        }
    }

    /// The chunks that a content is made of, as far as they can be known: pages
    /// first, and what they tell of when they are here.
    pub(super) fn of(&self, data: &Data) -> Vec<ChunkHash> {
        let Data::File { manifest, .. } = data else {
            return Vec::new();
        };
        let pages: Vec<ChunkHash> = manifest.pages().collect();
        let page = |hash: &ChunkHash| self.0.get(hash).cloned().ok_or(());
        let extents = manifest.extents(page).unwrap_or_default();
        let chunks = extents.iter().filter_map(|extent| match extent {
            Extent::Chunk { hash, .. } => Some(*hash),
            Extent::Hole { .. } => None,
        });
        pages.into_iter().chain(chunks).collect()
    }

    /// What is missing of a content, each with a chunk of an older content that
    /// is at the same place.
    pub(super) fn missing(&self, data: &Data, older: Option<&Data>) -> Vec<Wanted> {
        let older = older.map(|data| self.of(data)).unwrap_or_default();
        let chunks = self.of(data).into_iter().enumerate();
        let missing = chunks.filter(|(_, hash)| !self.has(hash));
        let base = |at: usize| older.get(at).copied().filter(|hash| self.has(hash));
        missing.map(|(at, hash)| (hash, base(at))).collect()
    }

    /// Keeps what comes. Returns what is of no use.
    pub(super) fn keep(&mut self, chunks: Vec<ChunkData>) -> Vec<(ChunkHash, Code)> {
        let mut refused = Vec::new();
        for chunk in chunks {
            let encoded = Encoded {
                encoding: chunk.encoding,
                bytes: chunk.bytes.into_bytes(),
            };
            let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
            let known = |hash: &ChunkHash| self.0.get(hash).cloned();
            match decode_chunk(chunk.hash, len, &encoded, known) {
                Ok(bytes) => {
                    self.0.insert(chunk.hash, bytes);
                }
                Err(ChunkError::NoBase { .. }) => {
                    refused.push((chunk.hash, Code::CHUNK_MISSING));
                }
                Err(_) => refused.push((chunk.hash, Code::CHUNK_CORRUPT)),
            }
        }
        refused
    }

    /// Gives the first of some chunks.
    pub(super) fn give(&self, wanted: &[Wanted], budget: usize) -> Given {
        let mut given = Given {
            chunks: Vec::new(),
            taken: 0,
            missing: Vec::new(),
        };
        let mut bytes = 0;
        for (hash, base) in wanted {
            let Some(chunk) = self.encoded(*hash, *base) else {
                given.missing.push(*hash);
                given.taken += 1;
                continue;
            };
            bytes += chunk.bytes.len();
            if bytes > budget && !given.chunks.is_empty() {
                break;
            }
            given.chunks.push(chunk);
            given.taken += 1;
        }
        given
    }

    pub(super) fn encoded(&self, hash: ChunkHash, base: Option<ChunkHash>) -> Option<ChunkData> {
        let bytes = self.0.get(&hash)?;
        let base = base.and_then(|base| Some((base, self.0.get(&base)?)));
        let base = base.map(|(hash, bytes)| (hash, &bytes[..]));
        let encoded = encode_chunk(bytes, base);
        Some(ChunkData {
            hash,
            len: u32::try_from(bytes.len()).ok()?,
            encoding: encoded.encoding,
            bytes: Blob::try_from(encoded.bytes).ok()?,
        })
    }
}
