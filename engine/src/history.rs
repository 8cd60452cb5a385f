//! Old versions that something still needs: a pin keeps every register as it
//! was at the pin, at the cost of what changes afterwards.

use cairn_protocol::{Data, Ver};
use rusqlite::params;

use crate::Result;
use crate::attr::Ino;
use crate::db::{corrupt, int, uint};
use crate::replica::{Inner, Replica};
use crate::rows::each_chunk;
use crate::{FsError, chunks};

/// Kinds of rows in `history`.
pub(crate) const HISTORY_DATA: u8 = 0;
pub(crate) const HISTORY_META: u8 = 1;
pub(crate) const HISTORY_NAME: u8 = 2;

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its number.
    pub id: u64,
    /// The version it keeps.
    pub seq: Ver,
    /// Why it is kept, in the words of who made it.
    pub why: String,
}

impl Replica {
    /// Keeps the present state of every register until [`Self::unpin`].
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn pin(&self, why: &str) -> Result<Pin> {
        let cursor = self.cursor()?;
        let db = self.inner.db.writer();
        db.execute(
            "INSERT INTO pin(seq, why) VALUES(?, ?)",
            params![int(cursor.seq), why],
        )?;
        let id = uint(db.last_insert_rowid());
        Ok(Pin {
            id,
            seq: cursor.seq,
            why: why.into(),
        })
    }

    /// All pins, oldest first.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        let db = self.inner.db.reader();
        let mut find = db.prepare_cached("SELECT id, seq, why FROM pin ORDER BY seq, id")?;
        let rows = find.query_map([], |r| {
            Ok(Pin {
                id: uint(r.get(0)?),
                seq: uint(r.get(1)?),
                why: r.get(2)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Lets a pinned state go; the next gc gives its space back.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`] when there is no such pin.
    pub fn unpin(&self, id: u64) -> Result<()> {
        let db = self.inner.db.writer();
        if db.execute("DELETE FROM pin WHERE id = ?", [int(id)])? == 0 {
            return Err(FsError::NotFound(format!("pin {id}")));
        }
        Ok(())
    }

    /// The content of a file as it was at a pinned version; `None` when the
    /// file had none then or the version is not kept.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn data_at(&self, ino: Ino, seq: Ver) -> Result<Option<Data>> {
        let db = self.inner.db.reader();
        let kept: rusqlite::Result<Vec<u8>> = db
            .prepare_cached("SELECT value FROM history WHERE ino = ? AND kind = ? AND first <= ?3 AND until > ?3")?
            .query_row(params![int(ino.0), HISTORY_DATA, int(seq)], |r| r.get(0));
        let bytes = match kept {
            Ok(bytes) => Some(bytes),
            Err(rusqlite::Error::QueryReturnedNoRows) => {
                let row: rusqlite::Result<Option<Vec<u8>>> = db
                    .prepare_cached("SELECT data FROM node WHERE ino = ? AND data_ver <= ?")?
                    .query_row(params![int(ino.0), int(seq)], |r| r.get(0));
                match row {
                    Ok(bytes) => bytes,
                    Err(rusqlite::Error::QueryReturnedNoRows) => None,
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        };
        bytes
            .map(|b| postcard::from_bytes(&b).map_err(|e| corrupt(ino, e)))
            .transpose()
    }
}

impl Inner {
    /// Drops the old versions that no pin needs any more.
    pub(crate) fn prune_history(&self) -> Result<()> {
        let db = self.db.writer();
        let tx = db.unchecked_transaction()?;
        {
            let unneeded =
                "NOT EXISTS (SELECT 1 FROM pin WHERE pin.seq >= first AND pin.seq < until)";
            let mut find = tx.prepare(&format!(
                "SELECT ino, value FROM history WHERE kind = {HISTORY_DATA} AND {unneeded}"
            ))?;
            let mut rows = find.query([])?;
            while let Some(row) = rows.next()? {
                let ino = Ino(uint(row.get(0)?));
                let bytes: Vec<u8> = row.get(1)?;
                let data: Data = postcard::from_bytes(&bytes).map_err(|e| corrupt(ino, e))?;
                each_chunk(self, &tx, &data, &mut |hash| {
                    chunks::add_refs(&tx, &hash, -1).map(drop)
                })?;
            }
            tx.execute(&format!("DELETE FROM history WHERE {unneeded}"), [])?;
        }
        tx.commit()?;
        Ok(())
    }
}
