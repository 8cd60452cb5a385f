//! References that chunks gain and lose in one transaction.
//!
//! Both trees name the chunks of what comes, and so does what programs wrote: one
//! [`Ledger`] counts all of it, so that the row of a chunk is written once.

use std::collections::BTreeMap;

use cairn_protocol::{ChunkHash, Data, Extent, ManifestError};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use rustc_hash::FxHashSet;

use crate::chunks::{self, Pending};
use crate::db::int;
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
    /// With `elsewhere`, chunks that are missing get rows that say so.
    pub(crate) fn write(
        &self,
        db: &Connection,
        new: &[(ChunkHash, Pending)],
        elsewhere: bool,
    ) -> Result<Written> {
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
        let mut rows = Rows::new(db)?;
        for (hash, count) in self.counts.iter().filter(|(_, count)| count.by != 0) {
            let len = match places.get(hash) {
                Some(len) => Some(u64::from(*len)),
                None => rows.add(hash, count, elsewhere, &mut written.dead)?,
            };
            match (len, count.len) {
                (None, _) => written.missing.push(*hash),
                (Some(has), Some(says)) if has != says => written.unlike.push(*hash),
                _ => {}
            }
        }
        Ok(written)
    }
}

/// What is done to the rows of chunks. To look a statement up takes a tenth of
/// what it does; `RETURNING` makes a table for each, which takes half of it.
struct Rows<'a> {
    gain: CachedStatement<'a>,
    note: CachedStatement<'a>,
    find: CachedStatement<'a>,
    lose: CachedStatement<'a>,
}

impl<'a> Rows<'a> {
    fn new(db: &'a Connection) -> Result<Self> {
        Ok(Self {
            gain: db.prepare_cached(
                "UPDATE chunk SET refs = refs + ?1 WHERE hash = ?2 AND (len = ?3 OR ?3 IS NULL)",
            )?,
            note: db.prepare_cached(
                "INSERT INTO chunk(hash, pack, off, len, encoding, refs)
                 VALUES(?2, 0, 0, ?3, 0, ?1)
                 ON CONFLICT(hash) DO UPDATE SET refs = refs + ?1 WHERE len = ?3",
            )?,
            find: db.prepare_cached("SELECT refs, len FROM chunk WHERE hash = ?")?,
            lose: db.prepare_cached("UPDATE chunk SET refs = refs + ?1 WHERE hash = ?2")?,
        })
    }

    /// Changes the references of a chunk. Returns its length, if it has a row.
    fn add(
        &mut self,
        hash: &ChunkHash,
        count: &Count,
        elsewhere: bool,
        dead: &mut u64,
    ) -> Result<Option<u64>> {
        let key = hash.as_bytes().as_slice();
        if count.by > 0 {
            let says = count.len.map(int);
            let set = match count.len {
                Some(_) if elsewhere => &mut self.note,
                _ => &mut self.gain,
            };
            if set.execute(params![count.by, key, says])? > 0 {
                return Ok(count.len.or(Some(0)));
            }
        }
        let find = self.find.query_row([key], |r| Ok((r.get(0)?, r.get(1)?)));
        let Some((refs, len)) = find.optional()?.map(|(refs, len): (i64, u32)| (refs, len)) else {
            return Ok(None);
        };
        if count.by < 0 {
            self.lose.execute(params![count.by, key])?;
            if refs + count.by == 0 {
                *dead += u64::from(len);
            }
        }
        Ok(Some(u64::from(len)))
    }
}

/// The references of one transaction, written a part at a time where there are
/// many.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    refs: Refs,
    /// Chunks may be at the hub only.
    elsewhere: bool,
    /// Chunks that waited for rows and have them now.
    rowed: FxHashSet<ChunkHash>,
    /// Bytes of chunks that lost their last reference.
    pub(crate) dead: u64,
    /// See [`Written::twice`].
    pub(crate) twice: Vec<ChunkHash>,
    /// See [`Written::missing`].
    pub(crate) missing: Vec<ChunkHash>,
}

impl Ledger {
    /// With `elsewhere`, chunks may be at the hub only.
    pub(crate) fn new(elsewhere: bool) -> Self {
        Self {
            elsewhere,
            ..Self::default()
        }
    }

    /// See [`Refs::count`].
    pub(crate) fn count(
        &mut self,
        inner: &Inner,
        db: &Connection,
        data: &Data,
        by: i64,
    ) -> Result<(), LayoutFault> {
        self.refs.count(inner, db, data, by)
    }

    /// What is not written yet.
    pub(crate) fn refs(&self) -> &Refs {
        &self.refs
    }

    /// Writes what there is if it is of more than `most` chunks.
    pub(crate) fn flush(&mut self, inner: &Inner, db: &Connection, most: usize) -> Result<()> {
        if self.refs.len() <= most {
            return Ok(());
        }
        let new = inner.chunks.pending_of(self.refs.counts.keys().copied());
        self.write(db, &new)
    }

    /// Writes the rows of new chunks, and all that is left.
    pub(crate) fn write(&mut self, db: &Connection, new: &[(ChunkHash, Pending)]) -> Result<()> {
        let refs = std::mem::take(&mut self.refs);
        let is_left = |(hash, _): &&(ChunkHash, Pending)| !self.rowed.contains(hash);
        let written = if self.rowed.is_empty() {
            refs.write(db, new, self.elsewhere)?
        } else {
            let left: Vec<_> = new.iter().filter(is_left).cloned().collect();
            refs.write(db, &left, self.elsewhere)?
        };
        self.rowed.extend(new.iter().map(|(hash, _)| *hash));
        self.dead += written.dead;
        self.twice.extend(written.twice);
        self.missing.extend(written.missing);
        Ok(())
    }
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
