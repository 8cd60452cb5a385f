//! Cuts: the confirmed tree moves, and the working tree with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_protocol::session::{Applied, Report, Wanted};
use cairn_protocol::wire::PushAck;
use cairn_protocol::{Change, ChunkHash, Cursor, Outcome, Refusal, ReplicaTag, Ver};
use rusqlite::Connection;

use super::anew::Removed;
use super::build::{Built, build};
use super::echo::Echo;
use super::grow::LEAST;
use super::layout;
use super::local::Local;
use super::look::{InFlight, forgotten};
use super::plan::Plan;
use super::rider::{Alias, Rider, was};
use super::sides::followed;
use super::spool::Spool;
use super::stage::Held;
use super::state::{Flight, Rows, State, Told};
use super::whole::{bury_absent, end_unplaced, halts};
use super::{Failure, Reset, Upstream};
use crate::refs::{Ledger, Refs};
use crate::shared::Shared;
use crate::{FsError, Result};

/// How often a cut is planned anew because programs changed what it touches.
const TRIES: usize = 100;

/// What is applied.
struct Cut {
    cursor: Cursor,
    ack: Option<PushAck>,
    flight: Option<Arc<Flight>>,
    changes: Arc<Spool>,
    reports: Vec<Report>,
    reset: Option<Reset>,
    confirmed: bool,
}

impl Cut {
    /// Whether what was confirmed is of another history.
    fn is_anew(&self) -> bool {
        self.reset.is_some_and(Reset::is_anew)
    }

    /// What follows from the whole tree of a hub, beside what it says.
    fn follows(&self, key: &[u8; 32], shared: Shared<'_>) -> Result<Vec<Change>> {
        let mut more = Vec::new();
        if self.reset.is_some() {
            end_unplaced(key, self.cursor.seq, &self.changes, &mut more)?;
        }
        if self.reset.is_some() && !self.is_anew() {
            bury_absent(key, shared, self.cursor.seq, &self.changes, &mut more)?;
        }
        Ok(more)
    }

    /// Whether it is of one commit, and that just the batch that was in flight, as
    /// it was.
    fn is_only(&self) -> bool {
        let (Some(flight), Some(ack)) = (&self.flight, &self.ack) else {
            return false;
        };
        let next = flight.seen.seq + 1 == ack.seq && ack.seq == self.cursor.seq;
        next && ack.outcomes.is_empty() && self.reset.is_none()
    }
}

/// What came of a try to apply a cut.
enum Tried {
    Applied(Applied),
    /// Something moved meanwhile.
    Moved,
    /// What is plain cannot be set by itself, or nothing can be in rows.
    Entangled(Way),
}

/// What of a large cut becomes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing: all of it is planned.
    Planned,
    /// What is fresh.
    Grown,
    /// What is plain, too.
    Turned,
}

/// Ends a transaction that was not committed.
struct Undo<'a>(&'a Connection);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction cannot be rolled back");
        }
    }
}

impl Upstream {
    /// Makes what was staged the confirmed tree, and shows it.
    pub(super) fn apply(
        &self,
        cursor: Cursor,
        ack: Option<PushAck>,
        confirmed: bool,
    ) -> Result<Applied, Failure> {
        self.settle_down()?;
        let reset = *self.reset.lock();
        let anew = reset.is_some_and(Reset::is_anew);
        let flight = self.flight.lock().clone().filter(|_| !anew);
        let number = flight.as_ref().map(|flight| flight.number);
        let ack = ack.filter(|ack| Some(ack.batch) == number);
        if flight.is_some() && ack.is_none() {
            return Ok(Applied::Held);
        }
        let wanted = self.want_more()?;
        if !wanted.is_empty() {
            return Ok(Applied::Wants(wanted));
        }
        let (changes, reports) = {
            let staged = self.staged.lock();
            (staged.changes.clone(), staged.reports.clone())
        };
        self.run(&Cut {
            cursor,
            ack,
            flight,
            changes,
            reports,
            reset,
            confirmed,
        })
    }

    /// Shows what was held back: registers that are again what their editors
    /// saw, while others changed them.
    pub(super) fn refresh(&self) -> Result<()> {
        let state = self.state()?;
        let Some(cursor) = state.cursor else {
            return Ok(());
        };
        let done = self.run(&Cut {
            cursor,
            ack: None,
            flight: None,
            changes: Arc::default(),
            reports: Vec::new(),
            reset: None,
            confirmed: true,
        });
        match done {
            Err(Failure::Fs(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn run(&self, cut: &Cut) -> Result<Applied, Failure> {
        let mut way = cut.way();
        for _ in 0..TRIES {
            match self.try_cut(cut, way)? {
                Tried::Applied(applied) => {
                    if applied == Applied::Done {
                        self.replica.settle();
                    }
                    return Ok(applied);
                }
                Tried::Moved => {}
                Tried::Entangled(other) => {
                    tracing::debug!("what is plain of a cut is entangled with what is not");
                    way = other;
                }
            }
        }
        Err(Failure::Busy)
    }

    fn try_cut(&self, cut: &Cut, way: Way) -> Result<Tried, Failure> {
        let inner = self.inner();
        inner.commit_changes()?;
        let _gate = inner.chunks.reading();
        let db = self.settled()?;
        let side = self.side;
        let rows = Rows { db: &db, side };
        let (state, frozen) = (rows.state()?, rows.frozen()?);
        let shared = Shared::new(&db, side);
        let anew = cut.is_anew();
        let more = cut.follows(&inner.identity.hash_key, shared)?;
        let local = Local::new(inner, &db);
        if !cut.confirmed
            && !anew
            && let Some(halted) = halts(shared, &local, &cut.changes, &more, cut.reset.is_some())?
        {
            return Ok(Tried::Applied(halted));
        }
        db.execute_batch("BEGIN IMMEDIATE").map_err(FsError::from)?;
        let _undo = Undo(&db);
        let flight = cut.flight.as_deref();
        let removed = if anew {
            self.removed(rows, &state, &frozen)?
        } else {
            Removed::default()
        };
        let mut rider = self.rider(cut, more, (&state, rows.told()?), anew);
        rider.begin(inner, &db)?;
        let before = if anew {
            0
        } else {
            state.cursor.map_or(0, |c| c.seq)
        };
        let kept = if anew {
            super::state::Frozen::new()
        } else {
            frozen.clone()
        };
        let ignore = rider.ignore.clone();
        let flown = InFlight::new(flight, cut.ack.as_ref());
        let mut plan = Plan::new(inner, &db, side, before, kept, flown, &ignore);
        let uncovered = self.uncovered.lock().clone();
        // What another hub has told would have to be told from what is fresh. In the
        // answer to a batch nothing is fresh: to look for it was a quarter of what
        // that takes.
        plan.grows = way != Way::Planned
            && cut.changes.len() >= LEAST
            && !cut.is_only()
            && uncovered.is_empty()
            && followed(&db, side)?.is_empty()
            && (ignore.is_empty() || !plan.moves_a_directory(&cut.changes)?);
        plan.is_whole = cut.reset.is_some();
        // Who has nothing yet has nothing that could become other rows.
        plan.turns = plan.grows && way == Way::Turned && state.cursor.is_some();
        plan.looked_at = (state.scanned, rows.told()?);
        plan.ended = removed.ended().collect();
        let echo = self.echo(cut, &db, &plan.local)?;
        plan.look(&rider.changes, &rider.more, flight, cut.ack.as_ref(), echo)?;
        plan.uncover(&uncovered)?;
        rider.set_tree(inner, &db)?;
        let missing = self.missing(&rider, &db)?;
        if !missing.is_empty() {
            return Ok(Tried::Applied(Applied::Wants(missing)));
        }
        plan.remove_again(&removed)?;
        if plan.uncover_moved()? {
            (rider.state.scanned, rider.told) = (0, None);
        }
        plan.land(flight, cut.ack.as_ref())?;
        let seen = inner.committed.load(Ordering::SeqCst);
        let mut ledger = rider.ledger.take().unwrap_or_default();
        let scan = (rider.state.scanned, rider.told);
        let built = match come_to(&mut plan, (seen, scan), &cut.changes, &mut ledger)? {
            Ok(built) => built,
            Err(way) => return Ok(Tried::Entangled(way)),
        };
        rider.ledger = Some(ledger);
        let planned = plan.names.len() + plan.nodes.len();
        self.planned.fetch_max(planned, Ordering::Relaxed);
        rider.others = plan.others(side)?;
        rider.conflicts.push(Report {
            seq: cut.cursor.seq,
            by: self.tag(),
            outcomes: plan.resolved.drain(..).filter(is_told).collect(),
        });
        let as_told =
            plan.replayed.is_none() && plan.forced.is_empty() && built.new.bound.is_empty();
        rider.frozen = (frozen, plan.frozen);
        let landed = rider.committed.clone();
        // Nobody brings rows to memory until those of this transaction are there.
        let mut shifting = built.growth.is_some().then(|| inner.shift.begin());
        let Some(set) = self.set(rider, built, as_told, &db)? else {
            return Ok(Tried::Moved);
        };
        if let Err(error) = inner.commit_locked(&db, true) {
            // The next commit does it; until then nothing here is certain.
            *self.unsure.lock() = true;
            *self.late.lock() = Some(landed);
            if let Some(shifting) = &mut shifting {
                self.failed((&cut.changes, &cut.reports), shifting, set);
            }
            return Err(error.into());
        }
        self.landed(cut);
        Ok(Tried::Applied(Applied::Done))
    }

    /// The cut is the confirmed tree.
    fn landed(&self, cut: &Cut) {
        if !cut.is_only() {
            self.drop_draft();
        }
        if cut.ack.is_some() || cut.is_anew() {
            *self.flight.lock() = None;
            let aloft = std::mem::take(&mut *self.aloft.lock());
            self.inner().chunks.end_leases(&aloft);
        }
        *self.reset.lock() = None;
        self.uncovered.lock().clear();
    }

    /// What of a cut needs no look, if everything in the batch took effect.
    fn echo(&self, cut: &Cut, db: &Connection, local: &Local<'_>) -> Result<Option<Echo>> {
        let plain = cut.ack.as_ref().is_some_and(|ack| ack.outcomes.is_empty());
        match *self.made_of.lock() {
            Some(made) if plain => Echo::new(db, local, made),
            _ => Ok(None),
        }
    }

    fn rider(
        &self,
        cut: &Cut,
        more: Vec<Change>,
        (state, told): (&State, Option<Told>),
        anew: bool,
    ) -> Box<Rider> {
        let tag = ReplicaTag(self.inner().identity.tag);
        let mut state = State {
            cursor: Some(cut.cursor),
            ..state.clone()
        };
        let (mut aliases, mut conflicts) = (Vec::new(), cut.reports.clone());
        conflicts.retain(|report| report.by != tag);
        if let (Some(flight), Some(ack)) = (&cut.flight, &cut.ack) {
            // After Horizon, what the hub did not know any more is pushed again.
            if cut.reset.is_none() || forgotten(Some(ack)).is_empty() {
                state.scanned = flight.scanned;
            }
            let outcomes = ack.outcomes.iter().map(|(_, outcome)| outcome.clone());
            for outcome in outcomes.clone() {
                if let Outcome::Alias { from, to } = outcome {
                    let told_whole = cut.reset.is_some();
                    let was = told_whole.then(|| was(flight, from)).flatten();
                    let ver = ack.seq;
                    aliases.push(Alias { from, to, ver, was });
                }
            }
            conflicts.push(Report {
                seq: ack.seq,
                by: tag,
                outcomes: outcomes.collect(),
            });
        }
        for report in &mut conflicts {
            report.outcomes.retain(is_told);
        }
        if let Some(reset) = cut.reset.filter(|_| anew) {
            // What the hub has of what it was told before, its tree says.
            (state.scanned, state.batch, state.digest) = (0, reset.last_batch, None);
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Box::new(Rider {
            side: self.side,
            lazy: self.is_lazy(),
            anew,
            changes: cut.changes.clone(),
            more,
            aliases,
            ledger: None,
            growth: None,
            ignore: self.ignore.lock().clone(),
            hasher: None,
            told: told.filter(|_| !anew),
            state,
            landed: cut.ack.is_some() || anew,
            frozen: Default::default(),
            others: Vec::new(),
            conflicts,
            at_ms: since.map_or(0, |t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
            leased: Held::default(),
            committed: Arc::default(),
        })
    }

    /// The chunks that the tree would name and that are not here.
    fn missing(&self, rider: &Rider, db: &Connection) -> Result<Vec<Wanted>> {
        let ledger = rider.ledger.iter();
        let missing = ledger.clone().flat_map(|ledger| &ledger.missing);
        let mut missing: Vec<Wanted> = missing.map(|hash| (*hash, None)).collect();
        let refs = ledger.map(Ledger::refs);
        // What the transaction notes as being elsewhere is not missing.
        let lazy = refs.clone().filter(|_| rider.lazy);
        let lazy: BTreeSet<ChunkHash> = lazy.flat_map(Refs::lengths).map(|(h, _)| h).collect();
        let gained = refs.flat_map(Refs::gained);
        for hash in gained.filter(|hash| !lazy.contains(hash)) {
            if layout::place(self.inner(), db, hash)?.is_none() {
                missing.push((*hash, None));
            }
        }
        Ok(missing)
    }
}

impl Cut {
    /// Whether what is plain of it is set in rows at once. Not of the whole tree
    /// of the hub, which says by its silence what ended; nor of what is mostly the
    /// answer to a batch, which is little and needs no look.
    fn way(&self) -> Way {
        const OF_OTHERS: u64 = 2;
        let own = self.flight.as_ref().map_or(0, |f| f.edits.len() as u64);
        match self.reset {
            None if self.changes.len() > own * OF_OTHERS => Way::Turned,
            _ => Way::Grown,
        }
    }
}

/// What a plan comes to, or how else the cut is to be tried. `scan` says what of the
/// log has edits.
fn come_to(
    plan: &mut Plan<'_>,
    (seen, scan): (Ver, (Ver, Option<Told>)),
    changes: &Spool,
    ledger: &mut Ledger,
) -> Result<Result<Built, Way>> {
    if let Some(built) = build(plan, seen, changes, ledger)? {
        return Ok(Ok(built));
    }
    if plan.turns && !plan.has_leftover {
        return Ok(Err(Way::Grown));
    }
    if !plan.has_leftover {
        plan.replay(scan.0, scan.1)?;
        if let Some(built) = build(plan, seen, changes, ledger)? {
            return Ok(Ok(built));
        }
    }
    if plan.has_leftover {
        return Ok(Err(Way::Planned));
    }
    Err(FsError::Corrupt("the edits make no tree".into()))
}

/// Whether people want to hear of an outcome.
fn is_told(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Alias { .. }
            | Outcome::Refused {
                why: Refusal::Dead | Refusal::Unknown
            }
    )
}
