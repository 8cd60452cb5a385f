//! Which chunks a content names, and which of another content are like them.

use std::collections::BTreeSet;

use cairn_protocol::{ChunkHash, Data, Extent, ManifestError};
use rusqlite::Connection;

use crate::chunks::{self, Place};
use crate::db::corrupt;
use crate::replica::Inner;
use crate::{FsError, Result};

/// The chunks of a content, as far as its pages are here.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    pub(super) pages: Vec<ChunkHash>,
    /// Where each chunk is in the file, and how long.
    pub(super) extents: Vec<(u64, u32, ChunkHash)>,
    /// Some page is missing, so some chunks are not told.
    pub(super) partial: bool,
}

impl Chunks {
    pub(super) fn of(inner: &Inner, db: &Connection, data: &Data) -> Result<Self> {
        let Data::File { manifest, .. } = data else {
            return Ok(Self::default());
        };
        let mut all = Self {
            pages: manifest.pages().collect(),
            ..Self::default()
        };
        for page in &all.pages {
            if place(inner, db, page)?.is_none() {
                all.partial = true;
                return Ok(all);
            }
        }
        let extents = manifest.extents(|page| read(inner, db, page));
        let extents = extents.map_err(|error| match error {
            ManifestError::Fetch { source, .. } => source,
            other => corrupt("a content", other),
        })?;
        let mut at = 0;
        for extent in extents {
            if let Extent::Chunk { hash, len } = extent {
                all.extents.push((at, len, hash));
            }
            at += extent.len();
        }
        Ok(all)
    }

    /// All chunks, pages first, each once.
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<(u64, u32)>, ChunkHash)> {
        let mut seen = BTreeSet::new();
        let pages = self.pages.iter().map(|hash| (None, *hash));
        let chunks = self.extents.iter();
        let chunks = chunks.map(|(at, len, hash)| (Some((*at, *len)), *hash));
        pages
            .chain(chunks)
            .filter(move |(_, hash)| seen.insert(*hash))
    }

    /// The chunk that covers most of these bytes, or what is nearest: what an
    /// edit left of it is there.
    pub(super) fn like(&self, at: u64, len: u32) -> Option<ChunkHash> {
        let middle = at + u64::from(len / 2);
        let index = self
            .extents
            .partition_point(|(start, _, _)| *start <= middle);
        let chunk = self.extents.get(index.saturating_sub(1))?;
        Some(chunk.2)
    }
}

pub(super) fn place(inner: &Inner, db: &Connection, hash: &ChunkHash) -> Result<Option<Place>> {
    match inner.chunks.known(hash) {
        Some(place) => Ok(Some(place)),
        None => chunks::place_in(db, hash),
    }
}

/// Reads a chunk, and checks it.
pub(super) fn read(inner: &Inner, db: &Connection, hash: &ChunkHash) -> Result<Vec<u8>> {
    let place = place(inner, db, hash)?;
    let place = place.ok_or_else(|| FsError::Corrupt(format!("chunk {hash} is missing")))?;
    let mut bytes = vec![0; place.len as usize];
    inner.chunks.read_at(|| db, hash, place, 0, &mut bytes)?;
    if ChunkHash::of(&bytes) != *hash {
        return Err(corrupt(
            format!("chunk {hash}"),
            "it does not match its hash",
        ));
    }
    Ok(bytes)
}
