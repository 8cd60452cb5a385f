//! The rows of the hub itself, and of the replicas that it knows.

use cairn_protocol::{Chain, Cursor, Epoch, ReplicaTag, Scope, Seq};
use rusqlite::{Connection, OptionalExtension, params};

use super::HubStatus;
use crate::db::{corrupt, int, uint};
use crate::shared::{HUB, Shared};
use crate::{FsError, Result};

/// Where the hub stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// The life of its store.
    pub(super) epoch: Epoch,
    /// The tag of the nodes that it makes, until the replica is opened again.
    pub(super) tag: ReplicaTag,
    /// Nodes that it made.
    pub(super) minted: u64,
    pub(super) head: Seq,
    pub(super) chain: Chain,
    /// What ended up to this commit is forgotten.
    pub(super) horizon: Seq,
}

/// What a hub knows of a replica.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The last batch of it.
    pub(super) batch: u64,
    pub(super) digest: [u8; 32],
    /// The answer to that, encoded.
    pub(super) ack: Option<Vec<u8>>,
}

/// Makes the replica a hub, if it is none, and gives the hub a tag that no hub
/// had: after a backup was restored, it must not mint again what it has
/// forgotten (RST-4).
pub(super) fn begin(db: &Connection) -> Result<()> {
    let random = crate::recover::random()?;
    let mut tag = [0; 8];
    tag.copy_from_slice(&random[16..24]);
    let tag = (u64::from_le_bytes(tag) >> 1).max(1);
    db.execute(
        "INSERT INTO hub(id, epoch, tag, minted, head, chain, horizon)
         VALUES(0, ?1, ?2, 0, 0, ?3, 0) ON CONFLICT(id) DO UPDATE SET tag = ?2",
        params![&random[..16], int(tag), Chain::GENESIS.0.as_slice()],
    )?;
    Ok(())
}

impl State {
    pub(super) fn find(db: &Connection) -> Result<Option<Self>> {
        let mut find = db.prepare_cached(
            "SELECT epoch, tag, minted, head, chain, horizon FROM hub WHERE id = 0",
        )?;
        let state = find.query_row([], |row| {
            Ok(Self {
                epoch: Epoch(row.get(0)?),
                tag: ReplicaTag(uint(row.get(1)?)),
                minted: uint(row.get(2)?),
                head: uint(row.get(3)?),
                chain: Chain(row.get(4)?),
                horizon: uint(row.get(5)?),
            })
        });
        Ok(state.optional()?)
    }

    pub(super) fn load(db: &Connection) -> Result<Self> {
        Self::find(db)?.ok_or_else(|| corrupt("hub", "its row is missing"))
    }

    pub(super) fn save(&self, db: &Connection) -> Result<()> {
        let (minted, head) = (int(self.minted), int(self.head));
        db.prepare_cached("UPDATE hub SET minted = ?, head = ?, chain = ?, horizon = ?")?
            .execute(params![
                minted,
                head,
                self.chain.0.as_slice(),
                int(self.horizon)
            ])?;
        Ok(())
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: self.head,
            chain: self.chain,
            scope: Scope::ALL,
        }
    }
}

pub(super) fn replica(db: &Connection, tag: ReplicaTag) -> Result<Option<Known>> {
    let mut find = db.prepare_cached("SELECT batch, digest, ack FROM hub_replica WHERE tag = ?")?;
    let row: Option<(i64, Vec<u8>, Option<Vec<u8>>)> = find
        .query_row([tag.0.cast_signed()], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .optional()?;
    let Some((batch, digest, ack)) = row else {
        return Ok(None);
    };
    let wrong = |_| FsError::Corrupt(format!("the digest of the last batch of replica {tag}"));
    Ok(Some(Known {
        batch: uint(batch),
        digest: digest.try_into().map_err(wrong)?,
        ack,
    }))
}

/// Notes the last batch of a replica, and its answer.
pub(super) fn note_batch(
    db: &Connection,
    tag: ReplicaTag,
    batch: u64,
    digest: &[u8; 32],
    ack: &[u8],
    now: i64,
) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO hub_replica(tag, batch, digest, ack, applied, seen)
         VALUES(?1, ?2, ?3, ?4, 0, ?5) ON CONFLICT(tag) DO UPDATE
         SET batch = ?2, digest = ?3, ack = ?4, seen = ?5",
    )?
    .execute(params![
        tag.0.cast_signed(),
        int(batch),
        digest.as_slice(),
        ack,
        now
    ])?;
    Ok(())
}

/// Notes which cut a replica has.
pub(super) fn note_applied(db: &Connection, tag: ReplicaTag, seq: Seq, now: i64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO hub_replica(tag, batch, digest, applied, seen)
         VALUES(?1, 0, zeroblob(32), ?2, ?3) ON CONFLICT(tag) DO UPDATE
         SET applied = ?2, seen = ?3",
    )?
    .execute(params![tag.0.cast_signed(), int(seq), now])?;
    Ok(())
}

pub(super) fn status(db: &Connection) -> Result<HubStatus> {
    let state = State::load(db)?;
    let count = |sql: &str| -> Result<u64> {
        Ok(uint(db.prepare_cached(sql)?.query_row([], |r| r.get(0))?))
    };
    Ok(HubStatus {
        head: state.cursor(),
        replicas: count("SELECT count(*) FROM hub_replica")?,
        conflicts: count("SELECT count(*) FROM hub_commit WHERE outcomes IS NOT NULL")?,
        horizon: state.horizon,
        nodes: Shared::new(db, HUB).count()?,
    })
}
