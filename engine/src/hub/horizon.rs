//! The horizon: what ended, and what became of edits, is forgotten when every
//! replica that was seen lately knows of it and it is some time ago.

use std::sync::atomic::Ordering;

use cairn_protocol::{Data, Seq};
use rusqlite::{Connection, params};

use super::Hub;
use super::feed::Keys;
use super::state::State;
use crate::Result;
use crate::db::{corrupt, int, uint};
use crate::refs::{LayoutFault, Refs};
use crate::replica::Inner;
use crate::shared::{HUB, Shared};

/// Commits looked through in one transaction.
const STEP: u64 = 1_024;

impl Hub {
    /// Forgets what may be forgotten. Runs by itself now and then. Returns the
    /// horizon: replicas can follow from there on.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn prune(&self) -> Result<Seq> {
        let inner = &self.replica.inner;
        let (old, new) = {
            let db = inner.db.writer();
            let state = State::load(&db)?;
            let new = self.horizon(&db, &state)?;
            if new <= state.horizon {
                return Ok(state.horizon);
            }
            let tx = db.unchecked_transaction()?;
            forget(inner, &tx, new)?;
            State {
                horizon: new,
                ..state
            }
            .save(&tx)?;
            tx.commit()?;
            inner.written.fetch_add(1, Ordering::SeqCst);
            (state.horizon, new)
        };
        inner.compact_hub(old, new)?;
        Ok(new)
    }

    fn horizon(&self, db: &Connection, state: &State) -> Result<Seq> {
        let retain = i64::try_from(self.options.retain.as_secs()).unwrap_or(i64::MAX);
        let now = (self.options.clock)();
        let since = now.saturating_sub(retain);
        // The clock was ahead: who was seen then is as if seen now.
        db.execute("UPDATE hub_replica SET seen = ?1 WHERE seen > ?1", [now])?;
        let known: Option<i64> = db.query_row(
            "SELECT min(applied) FROM hub_replica WHERE seen >= ?",
            [since],
            |r| r.get(0),
        )?;
        let old = state.head.saturating_sub(self.options.keep_commits);
        let old = known.map_or(old, |known| uint(known).min(old));
        // Who is connected is told everything, whatever the clock says.
        let told = self.telling().values().min().copied();
        Ok(told.map_or(old, |told| told.min(old)))
    }
}

/// Forgets what ended up to a commit, and lets its chunks go.
fn forget(inner: &Inner, db: &Connection, upto: Seq) -> Result<()> {
    let mut refs = Refs::default();
    Shared::new(db, HUB).forget(upto, &mut |data: &Data| {
        refs.count(inner, db, data, -1)
            .map_err(LayoutFault::into_error)
    })?;
    let written = refs.write(db, &[], false)?;
    inner.dead_bytes.fetch_add(written.dead, Ordering::Relaxed);
    db.execute(
        "UPDATE hub_commit SET outcomes = NULL WHERE seq <= ? AND outcomes IS NOT NULL",
        [int(upto)],
    )?;
    db.execute(
        "UPDATE hub_commit SET chain = NULL WHERE seq < ? AND chain IS NOT NULL",
        [int(upto)],
    )?;
    Ok(())
}

impl Inner {
    /// Takes from commits in `(after, upto]`, which are below the horizon, the
    /// keys of registers that others set since. Some commits at a time, so that
    /// nobody waits long.
    pub(crate) fn compact_hub(&self, after: Seq, upto: Seq) -> Result<()> {
        let mut after = after;
        while after < upto {
            let db = self.db.writer();
            let tx = db.unchecked_transaction()?;
            let end = compact_step(&tx, after, upto)?;
            tx.commit()?;
            self.written.fetch_add(1, Ordering::SeqCst);
            after = end;
        }
        Ok(())
    }

    /// The same for all commits below the horizon.
    pub(crate) fn compact_hub_log(&self) -> Result<()> {
        let state = State::find(&self.db.reader())?;
        match state {
            Some(state) => self.compact_hub(0, state.horizon),
            None => Ok(()),
        }
    }
}

/// Returns the last commit that was looked at, or `upto`.
fn compact_step(db: &Connection, after: Seq, upto: Seq) -> Result<Seq> {
    let tree = Shared::new(db, HUB);
    let mut kept = Vec::new();
    let mut end = upto;
    {
        let mut find = db.prepare_cached(
            "SELECT seq, keys FROM hub_commit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        )?;
        let mut rows = find.query(params![int(after), int(upto), int(STEP)])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let seq = uint(row.get(0)?);
            let keys = row
                .get_ref(1)?
                .as_blob()
                .map_err(|e| corrupt("commit", e))?;
            let mut keys = Keys::decode(keys)?;
            if keys.retain_current(tree, seq)? {
                kept.push((seq, keys));
            }
            seen += 1;
            if seen == STEP {
                end = seq;
            }
        }
    }
    for (seq, keys) in kept {
        // The chain at the horizon stays.
        if keys.is_empty() && seq < upto {
            db.prepare_cached("DELETE FROM hub_commit WHERE seq = ?")?
                .execute([int(seq)])?;
        } else {
            db.prepare_cached("UPDATE hub_commit SET keys = ? WHERE seq = ?")?
                .execute(params![keys.encode()?, int(seq)])?;
        }
    }
    Ok(end)
}
