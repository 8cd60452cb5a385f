//! Transactions that failed: what is done again of them, and what may come back.
//!
//! A cut of which the commit failed has its rows written again by the next one
//! (see [`crate::upstream::Rider`]).
//!
//! A transaction whose end fails is rolled back, and yet all of it may be in the
//! write-ahead log, as when there is no space for the index of that, which is the
//! last that grows. Nobody sees it. But who opens the database after a crash makes
//! the index anew from the log, and then it was committed: unless another one was
//! written in its place before.

use std::sync::atomic::Ordering;

use cairn_protocol::Ver;
use rusqlite::Connection;

use crate::commit::Batch;
use crate::db::{meta_get, meta_set};
use crate::replica::Inner;
use crate::{FsError, Result};

/// Counts the transactions that were written for nothing else.
const LAID: &str = "laid";

impl Inner {
    /// What is to be written. What a cut has in rows alone, if its transaction
    /// failed before, is written first: the versions and inodes that it takes are
    /// among those that the commit says are used.
    pub(crate) fn next_batch(&self, db: &Connection) -> Result<Option<Batch>> {
        loop {
            let seen = self.prepare_rider(db)?;
            let mut tree = self.tree.lock();
            let rider = tree.rider.as_deref().zip(seen);
            let taken = rider.map(|(rider, seen)| rider.is_taken(&tree, seen, db));
            match taken.unwrap_or(Ok(false)) {
                Ok(false) => return Ok(self.take_batch(&mut tree)),
                // Programs took a place meanwhile: it is written again.
                done => {
                    tree.rider
                        .as_mut()
                        .into_iter()
                        .for_each(|r| r.rolled_back());
                    drop(tree);
                    roll_back(db)?;
                    done?;
                }
            }
        }
    }

    /// Writes what of a cut is in rows alone, if its transaction failed and that was
    /// not done in this one. Returns the version before.
    fn prepare_rider(&self, db: &Connection) -> Result<Option<Ver>> {
        let (seen, late) = {
            let mut tree = self.tree.lock();
            (tree.seq, tree.rider.take_if(|rider| rider.is_late()))
        };
        let Some(mut rider) = late else {
            return Ok(None);
        };
        let begun = if db.is_autocommit() {
            db.execute_batch("BEGIN IMMEDIATE").map_err(FsError::from)
        } else {
            Ok(())
        };
        let done = begun.and_then(|()| rider.prepare(self, db));
        if done.is_err() {
            rider.rolled_back();
        }
        self.tree.lock().rider = Some(rider);
        if done.is_err() {
            roll_back(db)?;
        }
        done.map(|()| Some(seen))
    }

    /// Ends the transaction that is open.
    pub(crate) fn end_transaction(&self, db: &Connection) -> rusqlite::Result<()> {
        self.note_end(db.execute_batch("COMMIT"))
    }

    /// Notes whether the transaction that has just ended may come back.
    pub(crate) fn note_end(&self, done: rusqlite::Result<()>) -> rusqlite::Result<()> {
        let may_return = match &done {
            Ok(()) => Some(false),
            // Without its last page it is none.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => None,
            Err(_) => Some(true),
        };
        if let Some(may_return) = may_return {
            self.may_return.store(may_return, Ordering::SeqCst);
        }
        done
    }

    /// Writes something in the place of a transaction that may come back, if there is
    /// one. The caller has the commit lock, and no transaction is open.
    ///
    /// To be done before anybody relies on it that it was not committed.
    pub(crate) fn lay(&self, db: &Connection) -> Result<()> {
        if !self.may_return.load(Ordering::SeqCst) {
            return Ok(());
        }
        let laid = meta_get::<i64>(db, LAID)?.unwrap_or(0);
        db.execute_batch("BEGIN IMMEDIATE")?;
        let done = meta_set(db, LAID, laid.wrapping_add(1));
        let done = done.and_then(|()| Ok(self.end_transaction(db)?));
        if done.is_err() {
            roll_back(db)?;
        }
        done
    }
}

/// A failed transaction may have rolled back by itself.
pub(crate) fn roll_back(db: &Connection) -> Result<()> {
    if !db.is_autocommit() {
        db.execute_batch("ROLLBACK")?;
    }
    Ok(())
}
