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
        let mut notes = Vec::new();
        for (hash, count) in self.counts.iter().filter(|(_, count)| count.by != 0) {
            let len = match (places.get(hash), count.len) {
                (Some(len), _) => Some(u64::from(*len)),
                (None, Some(len)) if elsewhere && count.by > 0 => {
                    notes.push((hash, count.by, len));
                    if notes.len() == TOGETHER {
                        rows.note(&notes, &mut written.unlike)?;
                        notes.clear();
                    }
                    continue;
                }
                (None, _) => rows.add(hash, count, &mut written.dead)?,
            };
            match (len, count.len) {
                (None, _) => written.missing.push(*hash),
                (Some(has), Some(says)) if has != says => written.unlike.push(*hash),
                _ => {}
            }
        }
        rows.note(&notes, &mut written.unlike)?;
        Ok(written)
    }
}

/// So many chunks that are elsewhere are noted by one statement: one for each
/// takes half as long again.
const TOGETHER: usize = 16;

/// What is done to the rows of chunks. To look a statement up takes a tenth of
/// what it does; `RETURNING` makes a table for each, which takes half of it.
struct Rows<'a> {
    gain: CachedStatement<'a>,
    note: CachedStatement<'a>,
    note_many: CachedStatement<'a>,
    find: CachedStatement<'a>,
    lose: CachedStatement<'a>,
}

impl<'a> Rows<'a> {
    fn new(db: &'a Connection) -> Result<Self> {
        Ok(Self {
            gain: db.prepare_cached(
                "UPDATE chunk SET refs = refs + ?1 WHERE hash = ?2 AND (len = ?3 OR ?3 IS NULL)",
            )?,
            note: db.prepare_cached(&note(1))?,
            note_many: db.prepare_cached(&note(TOGETHER))?,
            find: db.prepare_cached("SELECT refs, len FROM chunk WHERE hash = ?")?,
            lose: db.prepare_cached("UPDATE chunk SET refs = refs + ?1 WHERE hash = ?2")?,
        })
    }

    /// Adds references of chunks with these lengths, which are elsewhere if they
    /// have no rows. Tells which are of other lengths, and get none.
    fn note(
        &mut self,
        notes: &[(&ChunkHash, i64, u64)],
        unlike: &mut Vec<ChunkHash>,
    ) -> Result<()> {
        let (set, count) = match notes.len() {
            TOGETHER => (&mut self.note_many, TOGETHER),
            _ => (&mut self.note, 1),
        };
        for some in notes.chunks(count) {
            for (at, (hash, by, len)) in some.iter().enumerate() {
                set.raw_bind_parameter(3 * at + 1, hash.as_bytes().as_slice())?;
                set.raw_bind_parameter(3 * at + 2, int(*len))?;
                set.raw_bind_parameter(3 * at + 3, *by)?;
            }
            if set.raw_execute()? == some.len() {
                continue;
            }
            for (hash, _, len) in some {
                let find = &mut self.find;
                let has: i64 =
                    find.query_row([hash.as_bytes().as_slice()], |row| row.get("len"))?;
                if has != int(*len) {
                    unlike.push(**hash);
                }
            }
        }
        Ok(())
    }

    /// Changes the references of a chunk. Returns its length, if it has a row.
    fn add(&mut self, hash: &ChunkHash, count: &Count, dead: &mut u64) -> Result<Option<u64>> {
        let key = hash.as_bytes().as_slice();
        if count.by > 0 {
            let says = count.len.map(int);
            if self.gain.execute(params![count.by, key, says])? > 0 {
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

/// The statement that notes so many chunks.
fn note(count: usize) -> String {
    let rows = vec!["(?, 0, 0, ?, 0, ?)"; count].join(", ");
    format!(
        "INSERT INTO chunk(hash, pack, off, len, encoding, refs) VALUES {rows}
         ON CONFLICT(hash) DO UPDATE SET refs = refs + excluded.refs WHERE len = excluded.len"
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;

    #[test]
    fn chunks_that_are_elsewhere_are_noted_whether_few_or_many() {
        let db = Db::in_memory().unwrap();
        let db = db.writer();
        let hash = |at: u64| ChunkHash::of(&at.to_le_bytes());
        let many = 2 * TOGETHER as u64 + 3;
        let noted = |chunks: std::ops::Range<u64>, by, len| {
            let count = |_| Count { by, len: Some(len) };
            let counts = chunks.map(|at| (hash(at), count(at))).collect();
            Refs { counts }.write(&db, &[], true).unwrap()
        };
        let refs = |at| -> (i64, i64, i64) {
            let find = "SELECT pack, len, refs FROM chunk WHERE hash = ?";
            let key = hash(at);
            let get = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?));
            db.query_row(find, [key.as_bytes().as_slice()], get)
                .unwrap()
        };
        assert_eq!(noted(5..6, 1, 200).unlike, []);
        // One is of another length, in the middle of others.
        assert_eq!(noted(0..many, 2, 100).unlike, [hash(5)]);
        assert_eq!(noted(7..9, 1, 100).unlike, []);
        for at in 0..many {
            let wanted = match at {
                5 => (0, 200, 1),
                7 | 8 => (0, 100, 3),
                _ => (0, 100, 2),
            };
            assert_eq!(refs(at), wanted, "{at}");
        }
    }
}
