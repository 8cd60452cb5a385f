//! What a replica keeps of a hub besides its tree: how far it has followed it,
//! the batch that was not answered, and what the editors of registers saw that
//! others changed since (R11).

use std::collections::{BTreeMap, BTreeSet};

use cairn_protocol::{ChunkHash, Cursor, Edit, NodeId, Register, Ver};
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::db::corrupt;
use crate::{FsError, Result};

/// Keyed by the side of the shared tree.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS upstream(
    side INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY(side, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frozen(
    side INTEGER NOT NULL, register BLOB NOT NULL, base BLOB NOT NULL,
    PRIMARY KEY(side, register)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS conflict(
    id INTEGER PRIMARY KEY, side INTEGER NOT NULL, seq INTEGER NOT NULL, author INTEGER NOT NULL,
    outcome BLOB NOT NULL, at INTEGER NOT NULL, resolved INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS conflict_open ON conflict(id) WHERE resolved = 0;
";

/// A content that was never seen by who replaces or removes it.
pub(super) const NEVER: Ver = Ver::MAX;

/// Where a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The hub's commit that is the confirmed tree; none before the first.
    pub(super) cursor: Option<Cursor>,
    /// Number of the last batch.
    pub(super) batch: u64,
    /// Its digest, if it is known.
    pub(super) digest: Option<[u8; 32]>,
    /// The version up to which the replica's own log was looked at for edits.
    pub(super) scanned: Ver,
}

/// Versions of the replica's own log that a cut gave to what nobody here had
/// heard of: whoever edits that gives it another one, so a register that still
/// has one of these is as the hub told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// They are those after this one,
    pub(super) after: Ver,
    /// and up to this one.
    pub(super) upto: Ver,
}

/// The batch that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) seen: Cursor,
    pub(super) edits: Vec<Edit>,
    /// The chunks that may be new to the hub, each with one that it has.
    pub(super) chunks: Vec<(ChunkHash, Option<ChunkHash>)>,
    /// What [`State::scanned`] is after it.
    pub(super) scanned: Ver,
}

/// What an editor saw in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Base {
    Name(Option<NodeId>),
    Data(Ver),
}

/// What editors saw in registers that others changed since.
pub(super) type Frozen = BTreeMap<Register, Base>;

/// The rows of one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) db: &'a Connection,
    pub(super) side: u8,
}

impl Rows<'_> {
    pub(super) fn state(self) -> Result<State> {
        Ok(self.get("state")?.unwrap_or_default())
    }

    pub(super) fn set_state(self, state: &State) -> Result<()> {
        self.set("state", state)
    }

    pub(super) fn flight(self) -> Result<Option<Flight>> {
        self.get("flight")
    }

    pub(super) fn set_flight(self, flight: Option<&Flight>) -> Result<()> {
        if let Some(flight) = flight {
            self.set("flight", flight)
        } else {
            self.remove("flight")
        }
    }

    /// What needs no look for edits, whatever [`State::scanned`] says.
    pub(super) fn told(self) -> Result<Option<Told>> {
        self.get("told")
    }

    pub(super) fn set_told(self, told: Option<Told>) -> Result<()> {
        match told {
            Some(told) => self.set("told", &told),
            None => self.remove("told"),
        }
    }

    /// Files that wait, for they are too large to be pushed.
    pub(super) fn outsized(self) -> Result<BTreeSet<NodeId>> {
        Ok(self.get("outsized")?.unwrap_or_default())
    }

    pub(super) fn set_outsized(self, outsized: &BTreeSet<NodeId>) -> Result<()> {
        if *outsized == self.outsized()? {
            return Ok(());
        }
        self.set("outsized", outsized)
    }

    pub(super) fn get<T: DeserializeOwned>(self, key: &str) -> Result<Option<T>> {
        let bytes: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT value FROM upstream WHERE side = ? AND key = ?")?
            .query_row(params![self.side, key], |r| r.get(0))
            .optional()?;
        bytes.map(|bytes| decode(key, &bytes)).transpose()
    }

    pub(super) fn set<T: Serialize>(self, key: &str, value: &T) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO upstream(side, key, value) VALUES(?, ?, ?)")?
            .execute(params![self.side, key, encode(value)?])?;
        Ok(())
    }

    fn remove(self, key: &str) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM upstream WHERE side = ? AND key = ?")?
            .execute(params![self.side, key])?;
        Ok(())
    }

    pub(super) fn frozen(self) -> Result<Frozen> {
        let mut find = self
            .db
            .prepare_cached("SELECT register, base FROM frozen WHERE side = ?")?;
        let mut rows = find.query([self.side])?;
        let mut frozen = Frozen::new();
        while let Some(row) = rows.next()? {
            let (register, base): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            frozen.insert(decode("register", &register)?, decode("base", &base)?);
        }
        Ok(frozen)
    }

    /// Writes what differs from `old`, which is what the rows have.
    pub(super) fn set_frozen(self, old: &Frozen, new: &Frozen) -> Result<()> {
        for register in old.keys().filter(|register| !new.contains_key(register)) {
            self.db
                .prepare_cached("DELETE FROM frozen WHERE side = ? AND register = ?")?
                .execute(params![self.side, encode(register)?])?;
        }
        for (register, base) in new.iter().filter(|(key, base)| old.get(key) != Some(base)) {
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO frozen(side, register, base) VALUES(?, ?, ?)",
                )?
                .execute(params![self.side, encode(register)?, encode(base)?])?;
        }
        Ok(())
    }
}

/// The version up to which the log was looked at for every hub that this replica
/// follows.
pub(crate) fn scanned_by_all(db: &Connection) -> Result<Option<Ver>> {
    let mut find = db.prepare("SELECT value FROM upstream WHERE key = 'state'")?;
    let mut rows = find.query([])?;
    let mut oldest = None;
    while let Some(row) = rows.next()? {
        let state: State = decode("state", &row.get::<_, Vec<u8>>(0)?)?;
        oldest = Some(oldest.unwrap_or(Ver::MAX).min(state.scanned));
    }
    Ok(oldest)
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value)
        .map_err(|e| FsError::Corrupt(format!("a row cannot be encoded: {e}")))
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|e| corrupt(format!("what is known of the hub ({what})"), e))
}
