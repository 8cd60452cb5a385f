//! Conflicts: what edits of several replicas came to, for people to look at.

use cairn_protocol::{Outcome, ReplicaTag, Seq};
use rusqlite::params;

use super::state::decode;
use crate::db::{int, uint};
use crate::replica::Replica;
use crate::{FsError, Result};

/// Something that edits of several replicas came to, and that people may want
/// to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Number of the conflict.
    pub id: u64,
    /// The commit of the hub.
    pub seq: Seq,
    /// Whose edit it was.
    pub by: ReplicaTag,
    /// What became of it.
    pub outcome: Outcome,
    /// When this replica heard of it, in milliseconds since 1970.
    pub at_ms: i64,
}

impl Replica {
    /// Conflicts that nobody has resolved yet, the oldest first.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let db = self.inner.db.reader();
        let mut find = db.prepare_cached(
            "SELECT id, seq, author, outcome, at FROM conflict WHERE resolved = 0 ORDER BY id",
        )?;
        let mut rows = find.query([])?;
        let mut conflicts = Vec::new();
        while let Some(row) = rows.next()? {
            let outcome: Vec<u8> = row.get(3)?;
            conflicts.push(Conflict {
                id: uint(row.get(0)?),
                seq: uint(row.get(1)?),
                by: ReplicaTag(row.get::<_, i64>(2)?.cast_unsigned()),
                outcome: decode("conflict", &outcome)?,
                at_ms: row.get(4)?,
            });
        }
        Ok(conflicts)
    }

    /// Notes that a conflict needs no attention any more.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`] when there is no such conflict.
    pub fn resolve_conflict(&self, id: u64) -> Result<()> {
        let db = self.inner.db.writer();
        let resolved = db.execute(
            "UPDATE conflict SET resolved = 1 WHERE id = ? AND resolved = 0",
            params![int(id)],
        )?;
        if resolved == 0 {
            return Err(FsError::NotFound(format!("conflict {id}")));
        }
        Ok(())
    }
}
