//! References that chunks gain and lose in one transaction.

use std::collections::BTreeMap;

use cairn_protocol::{ChunkHash, Data, Extent, ManifestError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::chunks::{self, Pending};
use crate::replica::Inner;
use crate::{FsError, Result};

/// Counts what contents name, then writes it.
#[derive(Debug, Default)]
pub(crate) struct Refs {
    counts: BTreeMap<ChunkHash, Count>,
}

#[derive(Debug, Default)]
struct Count {
    by: i64,
    /// How long a content says that the chunk is.
    len: Option<u64>,
}

/// What [`Refs::write`] did.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Bytes of chunks that lost their last reference.
    pub(crate) dead: u64,
    /// Chunks that had a row already: theirs is the place that counts.
    pub(crate) twice: Vec<ChunkHash>,
    /// Chunks that are named and not stored.
    pub(crate) missing: Vec<ChunkHash>,
    /// Chunks that are of another length than a content says.
    pub(crate) unlike: Vec<ChunkHash>,
}

/// Why the chunks of a content cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutFault {
    /// A page of its manifest is not stored.
    #[error("page {0} of a manifest is missing")]
    Missing(ChunkHash),
    /// Its pages are no layout.
    #[error("a layout makes no sense: {0}")]
    Malformed(String),
    /// The store failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl LayoutFault {
    /// The same, of a content that is stored already.
    pub(crate) fn into_error(self) -> FsError {
        match self {
            Self::Fs(error) => error,
            fault => FsError::Corrupt(fault.to_string()),
        }
    }
}

impl Refs {
    /// How many chunks were counted.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Counts the chunks of a content, `by` times, which must all be there
    /// before they can be read: pages of manifests are.
    pub(crate) fn count(
        &mut self,
        inner: &Inner,
        db: &Connection,
        data: &Data,
        by: i64,
    ) -> Result<(), LayoutFault> {
        let Data::File { manifest, .. } = data else {
            return Ok(());
        };
        for page in manifest.pages() {
            self.counts.entry(page).or_default().by += by;
        }
        let extents = manifest.extents(|page| read_page(inner, db, page));
        let extents = extents.map_err(|error| match error {
            ManifestError::Fetch { source, .. } => source,
            other => LayoutFault::Malformed(other.to_string()),
        })?;
        for extent in extents {
            if let Extent::Chunk { hash, len } = extent {
                let count = self.counts.entry(hash).or_default();
                count.by += by;
                if by > 0 {
                    count.len = Some(u64::from(len));
                }
            }
        }
        Ok(())
    }

    /// The chunks of contents that gain references, with their lengths: all of
    /// these but pages of manifests.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (ChunkHash, u64)> {
        let gained = self.counts.iter().filter(|(_, count)| count.by > 0);
        gained.filter_map(|(hash, count)| Some((*hash, count.len?)))
    }

    /// The chunks that gain references.
    pub(crate) fn gained(&self) -> impl Iterator<Item = &ChunkHash> {
        let gained = self.counts.iter().filter(|(_, count)| count.by > 0);
        gained.map(|(hash, _)| hash)
    }

    /// Writes the rows of the chunks in `new`, and all references. What is
    /// missing or unlike is told, and the transaction is to be rolled back then.
    pub(crate) fn write(&self, db: &Connection, new: &[(ChunkHash, Pending)]) -> Result<Written> {
        let by = |hash: &ChunkHash| self.counts.get(hash).map_or(0, |count| count.by);
        let rows = new.iter().map(|(hash, pending)| (hash, pending, by(hash)));
        let mut written = Written {
            twice: chunks::insert_rows(db, rows)?,
            ..Written::default()
        };
        let mut places: BTreeMap<_, _> = new.iter().map(|(h, p)| (h, p.place.len)).collect();
        for hash in &written.twice {
            places.remove(hash);
        }
        for (hash, count) in self.counts.iter().filter(|(_, count)| count.by != 0) {
            let len = match places.get(hash) {
                Some(len) => Some(*len),
                None => add(db, hash, count.by, &mut written.dead)?,
            };
            match (len, count.len) {
                (None, _) => written.missing.push(*hash),
                (Some(has), Some(says)) if u64::from(has) != says => written.unlike.push(*hash),
                _ => {}
            }
        }
        Ok(written)
    }
}

/// Changes the references of a chunk. Returns its length, if it has a row.
fn add(db: &Connection, hash: &ChunkHash, by: i64, dead: &mut u64) -> Result<Option<u32>> {
    let now: Option<(i64, u32)> = db
        .prepare_cached("UPDATE chunk SET refs = refs + ? WHERE hash = ? RETURNING refs, len")?
        .query_row(params![by, hash.as_bytes().as_slice()], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .optional()?;
    if let Some((0, len)) = now.filter(|_| by < 0) {
        *dead += u64::from(len);
    }
    Ok(now.map(|(_, len)| len))
}

fn read_page(inner: &Inner, db: &Connection, page: &ChunkHash) -> Result<Vec<u8>, LayoutFault> {
    let place = match inner.chunks.known(page) {
        Some(place) => Some(place),
        None => chunks::place_in(db, page)?,
    };
    let place = place.ok_or(LayoutFault::Missing(*page))?;
    let mut bytes = vec![0; place.len as usize];
    inner.chunks.read_at(|| db, page, place, 0, &mut bytes)?;
    Ok(bytes)
}
