//! Shared trees: trees of registers with versions, in tables of the database.
//!
//! The hub's tree is one, and what a replica knows of the tree of its hub is
//! another; `side` tells them apart. A shared tree has no inodes, nothing of it
//! is kept in memory, and nobody mounts it: the working tree of the replica is
//! apart, in the tables `node`, `name` and `xattr`.
//!
//! Dead nodes stay, with their content and their last place, until
//! [`Shared::forget`]: who edits them brings them back (R2, R6, R9). Every
//! content in a shared tree counts as a reference to its chunks; who writes
//! counts them ([`Shared::apply`] says which come and go).
//!
//! | module | owns |
//! | --- | --- |
//! | `ahead` | many registers, one after another |
//! | `read` | registers with their versions, pages of directories and of trees |
//! | `write` | setting registers, a commit or a transfer at a time |
//! | `view` | the tree as the merge rules look at it |
//! | `verify` | what [`crate::Replica::check`] looks for |

mod ahead;
mod read;
mod verify;
mod view;
mod write;

use cairn_protocol::merge::Place;
use cairn_protocol::{Data, Meta, Name, NodeId, NodeKind, ReplicaTag, Ver};
use rusqlite::{Connection, Row, params};

use crate::Result;
use crate::db::{corrupt, int, uint};

pub(crate) use ahead::Ahead;
pub(crate) use verify::sides;
pub(crate) use view::{Growing, Highest, View};
pub(crate) use write::{Effects, Lasts};

/// The tree of the hub in this replica.
pub(crate) const HUB: u8 = 0;
/// The tree of the hub elsewhere that this replica follows.
#[allow(dead_code, reason = "for the replica's side")]
pub(crate) const UPSTREAM: u8 = 1;
/// The tree of the hub in this replica, as its working tree follows it.
#[allow(dead_code, reason = "for the replica's side")]
pub(crate) const OWN_HUB: u8 = 2;

/// The tables. Ids are stored bit for bit as signed numbers; all orders here
/// are of those. A name or an attribute without a value is a tombstone.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS shared_node(
    side INTEGER NOT NULL, tag INTEGER NOT NULL, counter INTEGER NOT NULL,
    kind INTEGER NOT NULL, born INTEGER NOT NULL,
    data_ver INTEGER NOT NULL, data BLOB, meta_ver INTEGER NOT NULL, meta BLOB,
    gone INTEGER NOT NULL, last BLOB,
    PRIMARY KEY(side, tag, counter)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shared_dead ON shared_node(side, gone) WHERE gone > 0;
CREATE TABLE IF NOT EXISTS shared_name(
    side INTEGER NOT NULL, tag INTEGER NOT NULL, counter INTEGER NOT NULL, name BLOB NOT NULL,
    node_tag INTEGER, node_counter INTEGER, ver INTEGER NOT NULL,
    PRIMARY KEY(side, tag, counter, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shared_place ON shared_name(side, node_tag, node_counter) WHERE node_tag IS NOT NULL;
CREATE INDEX IF NOT EXISTS shared_tombstone ON shared_name(side, ver) WHERE node_tag IS NULL;
CREATE TABLE IF NOT EXISTS shared_xattr(
    side INTEGER NOT NULL, tag INTEGER NOT NULL, counter INTEGER NOT NULL, name BLOB NOT NULL,
    value BLOB, ver INTEGER NOT NULL,
    PRIMARY KEY(side, tag, counter, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shared_removed ON shared_xattr(side, ver) WHERE value IS NULL;
CREATE TABLE IF NOT EXISTS shared_alias(
    side INTEGER NOT NULL, tag INTEGER NOT NULL, counter INTEGER NOT NULL,
    to_tag INTEGER NOT NULL, to_counter INTEGER NOT NULL, ver INTEGER NOT NULL,
    PRIMARY KEY(side, tag, counter)) WITHOUT ROWID;
";

/// A shared tree. Reading needs any connection; writing one in a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    db: &'a Connection,
    side: u8,
}

/// What a shared tree knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// What it is, for ever.
    pub(crate) kind: NodeKind,
    /// Since which commit it lives, for the first time or again.
    pub(crate) born: Ver,
    /// Its content.
    pub(crate) data: Option<(Ver, Data)>,
    /// Its attributes.
    pub(crate) meta: Option<(Ver, Meta)>,
    /// Which commit ended it, and where it was last.
    pub(crate) gone: Option<(Ver, Place)>,
}

impl Record {
    /// A node that has nothing yet.
    pub(crate) fn new(kind: NodeKind, born: Ver) -> Self {
        Self {
            kind,
            born,
            data: None,
            meta: None,
            gone: None,
        }
    }
}

impl<'a> Shared<'a> {
    /// The tree of a side.
    pub(crate) fn new(db: &'a Connection, side: u8) -> Self {
        Self { db, side }
    }

    /// Removes everything. Tells of each content that goes.
    #[allow(dead_code, reason = "for the replica's side")]
    pub(crate) fn clear(&self, lost: &mut dyn FnMut(&Data) -> Result<()>) -> Result<()> {
        let mut find = self
            .db
            .prepare_cached("SELECT data FROM shared_node WHERE side = ? AND data IS NOT NULL")?;
        let mut rows = find.query([self.side])?;
        while let Some(row) = rows.next()? {
            lost(&data_of(row, 0)?)?;
        }
        for table in ["shared_node", "shared_name", "shared_xattr", "shared_alias"] {
            let sql = format!("DELETE FROM {table} WHERE side = ?");
            self.db.prepare_cached(&sql)?.execute([self.side])?;
        }
        Ok(())
    }

    /// Makes this the tree of another side, which has to be clear.
    #[allow(dead_code, reason = "for the replica's side")]
    pub(crate) fn become_side(&self, side: u8) -> Result<()> {
        for table in ["shared_node", "shared_name", "shared_xattr", "shared_alias"] {
            let sql = format!("UPDATE {table} SET side = ? WHERE side = ?");
            let mut update = self.db.prepare_cached(&sql)?;
            update.execute(params![side, self.side])?;
        }
        Ok(())
    }

    /// Forgets what ended in commits up to `ver`: dead nodes, tombstones and
    /// aliases. Tells of each content that goes.
    pub(crate) fn forget(&self, ver: Ver, lost: &mut dyn FnMut(&Data) -> Result<()>) -> Result<()> {
        let upto = params![self.side, int(ver)];
        let mut dead = Vec::new();
        {
            let mut find = self.db.prepare_cached(
                "SELECT tag, counter, data FROM shared_node WHERE side = ? AND gone > 0 AND gone <= ?",
            )?;
            let mut rows = find.query(upto)?;
            while let Some(row) = rows.next()? {
                dead.push(id_of(row, 0)?);
                if row.get_ref(2)? != rusqlite::types::ValueRef::Null {
                    lost(&data_of(row, 2)?)?;
                }
            }
        }
        for node in dead {
            let (tag, counter) = key(node);
            for table in ["shared_node", "shared_xattr"] {
                let sql = format!("DELETE FROM {table} WHERE side = ? AND tag = ? AND counter = ?");
                let mut delete = self.db.prepare_cached(&sql)?;
                delete.execute(params![self.side, tag, counter])?;
            }
        }
        for old in [
            "DELETE FROM shared_name WHERE side = ? AND node_tag IS NULL AND ver <= ?",
            "DELETE FROM shared_xattr WHERE side = ? AND value IS NULL AND ver <= ?",
            "DELETE FROM shared_alias WHERE side = ? AND ver <= ?",
        ] {
            self.db.prepare_cached(old)?.execute(upto)?;
        }
        Ok(())
    }
}

/// An id as it is stored.
fn key(node: NodeId) -> (i64, i64) {
    (node.replica.0.cast_signed(), node.counter.cast_signed())
}

/// The id in two columns of a row.
fn id_of(row: &Row<'_>, at: usize) -> Result<NodeId> {
    Ok(NodeId {
        replica: ReplicaTag(row.get::<_, i64>(at)?.cast_unsigned()),
        counter: row.get::<_, i64>(at + 1)?.cast_unsigned(),
    })
}

fn name_of(row: &Row<'_>, at: usize) -> Result<Name> {
    let bytes = row.get_ref(at)?.as_blob().map_err(|e| corrupt("name", e))?;
    Name::new(bytes).map_err(|e| corrupt("a name of a shared tree", e))
}

fn data_of(row: &Row<'_>, at: usize) -> Result<Data> {
    let bytes = row
        .get_ref(at)?
        .as_blob()
        .map_err(|e| corrupt("content", e))?;
    postcard::from_bytes(bytes).map_err(|e| corrupt("a content of a shared tree", e))
}

/// A record from `kind, born, data_ver, data, meta_ver, meta, gone, last`.
fn record_of(row: &Row<'_>, at: usize) -> Result<Record> {
    let what = "a node of a shared tree";
    let null = |column: usize| -> Result<bool> {
        Ok(row.get_ref(at + column)? == rusqlite::types::ValueRef::Null)
    };
    let kind = NodeKind::try_from(row.get::<_, u8>(at)?).map_err(|e| corrupt(what, e))?;
    let mut record = Record::new(kind, uint(row.get(at + 1)?));
    if !null(3)? {
        record.data = Some((uint(row.get(at + 2)?), data_of(row, at + 3)?));
    }
    if !null(5)? {
        let bytes = row
            .get_ref(at + 5)?
            .as_blob()
            .map_err(|e| corrupt(what, e))?;
        let meta = postcard::from_bytes(bytes).map_err(|e| corrupt(what, e))?;
        record.meta = Some((uint(row.get(at + 4)?), meta));
    }
    let gone = uint(row.get(at + 6)?);
    if gone > 0 {
        let bytes = row
            .get_ref(at + 7)?
            .as_blob()
            .map_err(|e| corrupt(what, e))?;
        let last = postcard::from_bytes(bytes).map_err(|e| corrupt(what, e))?;
        record.gone = Some((gone, last));
    }
    Ok(record)
}
