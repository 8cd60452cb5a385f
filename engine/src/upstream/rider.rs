//! What a cut changes besides the working tree, in the same transaction: the
//! confirmed tree with the references of its contents, and the rows of
//! [`super::state`].
//!
//! The confirmed tree is set early, for the cut is planned on it. If the
//! transaction fails after the working tree was set in memory, the next commit
//! does both again.

use std::sync::atomic::Ordering;

use cairn_protocol::session::Report;
use cairn_protocol::{Change, ChunkHash, NodeId, Ver};
use rusqlite::{Connection, params};

use super::sides::Other;
use super::state::{Frozen, Rows, State, encode};
use crate::chunks;
use crate::db::{corrupt, int};
use crate::refs::{LayoutFault, Refs};
use crate::replica::Inner;
use crate::shared::Shared;
use crate::{FsError, Result};

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Rider {
    pub(super) side: u8,
    /// Chunks may be elsewhere.
    pub(super) lazy: bool,
    /// The confirmed tree begins anew.
    pub(super) anew: bool,
    pub(super) changes: Vec<Change>,
    pub(super) aliases: Vec<(NodeId, NodeId, Ver)>,
    /// References that the confirmed tree gains and loses, once it is set in
    /// the transaction that is open.
    pub(super) refs: Option<Refs>,
    pub(super) state: State,
    /// Whether the batch in flight is answered.
    pub(super) landed: bool,
    /// What was frozen, and what is.
    pub(super) frozen: (Frozen, Frozen),
    /// The same of other sides.
    pub(super) others: Vec<Other>,
    pub(super) conflicts: Vec<Report>,
    /// Unix time in milliseconds, for the conflicts.
    pub(super) at_ms: i64,
    /// Chunks that stay until the references are committed.
    pub(crate) leased: Vec<ChunkHash>,
    /// Bytes of chunks that lost their last reference.
    pub(crate) dead: u64,
}

impl Rider {
    /// Makes the confirmed tree ready, in a transaction.
    pub(super) fn begin(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        let mut refs = Refs::default();
        if self.anew {
            let shared = Shared::new(db, self.side);
            shared.clear(&mut |data| refs.count(inner, db, data, -1).map_err(unreadable))?;
        }
        self.refs = Some(refs);
        Ok(())
    }

    /// Sets the confirmed tree, after [`Self::begin`].
    pub(super) fn set_tree(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        let shared = Shared::new(db, self.side);
        let mut refs = self.refs.take().unwrap_or_default();
        for (from, to, ver) in &self.aliases {
            shared.set_alias(*from, *to, *ver)?;
        }
        shared.apply(&self.changes, &[], &mut |data, by| {
            refs.count(inner, db, data, by).map_err(unreadable)
        })?;
        if self.lazy && chunks::insert_elsewhere(db, refs.lengths())? {
            inner.elsewhere.store(true, Ordering::SeqCst);
        }
        self.refs = Some(refs);
        Ok(())
    }

    /// Sets the confirmed tree if it is not set in this transaction: before the
    /// rows of nodes, which may name chunks that are not here.
    pub(crate) fn prepare(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        if self.refs.is_none() {
            self.begin(inner, db)?;
            self.set_tree(inner, db)?;
        }
        Ok(())
    }

    /// Writes everything that is left. The last of a transaction: rows of new
    /// chunks are there.
    pub(crate) fn write(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        self.prepare(inner, db)?;
        if let Some(refs) = &self.refs {
            let written = refs.write(db, &[])?;
            if let Some(hash) = written.missing.first() {
                return Err(FsError::Corrupt(format!("chunk {hash} is missing")));
            }
            self.dead = written.dead;
        }
        let rows = Rows {
            db,
            side: self.side,
        };
        rows.set_state(&self.state)?;
        if self.landed {
            rows.set_flight(None)?;
        }
        rows.set_frozen(&self.frozen.0, &self.frozen.1)?;
        for (side, old, new) in &self.others {
            Rows { db, side: *side }.set_frozen(old, new)?;
        }
        for report in &self.conflicts {
            for outcome in &report.outcomes {
                db.prepare_cached(
                    "INSERT INTO conflict(side, seq, author, outcome, at, resolved)
                     VALUES(?, ?, ?, ?, ?, 0)",
                )?
                .execute(params![
                    self.side,
                    int(report.seq),
                    report.by.0.cast_signed(),
                    encode(outcome)?,
                    self.at_ms,
                ])?;
            }
        }
        Ok(())
    }

    /// Nothing of it was committed.
    pub(crate) fn rolled_back(&mut self) {
        self.refs = None;
    }
}

fn unreadable(fault: LayoutFault) -> FsError {
    match fault {
        LayoutFault::Fs(error) => error,
        other => corrupt("a content of the hub", other),
    }
}
