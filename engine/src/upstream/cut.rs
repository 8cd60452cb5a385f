//! Cuts: the confirmed tree moves, and the working tree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_protocol::merge::Place;
use cairn_protocol::session::{Applied, Report, Wanted};
use cairn_protocol::wire::PushAck;
use cairn_protocol::{
    Change, ChunkHash, Cursor, Entry, NodeId, Outcome, Refusal, ReplicaTag, XattrName,
};
use rusqlite::Connection;

use super::build::build;
use super::layout;
use super::local::Local;
use super::look::{InFlight, forgotten};
use super::plan::Plan;
use super::rider::Rider;
use super::state::{Flight, Rows, State};
use super::{Failure, Reset, Upstream};
use crate::assign::{Assignment, assign};
use crate::refs::Refs;
use crate::replica::{Notes, now};
use crate::shared::Shared;
use crate::{FsError, Result};

/// How often a cut is planned anew because programs changed what it touches.
const TRIES: usize = 100;
/// A tree of fewer nodes may lose most of them without a question.
const HALT_MIN: u64 = 100;
/// A tree of fewer nodes, its root not counted, may lose all of them.
const HALT_ALL_MIN: u64 = 10;

/// What is applied.
struct Cut {
    cursor: Cursor,
    ack: Option<PushAck>,
    flight: Option<Arc<Flight>>,
    changes: Vec<Change>,
    reports: Vec<Report>,
    reset: Option<Reset>,
    confirmed: bool,
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
            changes: Vec::new(),
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
        for _ in 0..TRIES {
            if let Some(applied) = self.try_cut(cut)? {
                if applied == Applied::Done {
                    self.replica.settle();
                }
                return Ok(applied);
            }
        }
        Err(Failure::Busy)
    }

    /// `None` when something moved meanwhile.
    fn try_cut(&self, cut: &Cut) -> Result<Option<Applied>, Failure> {
        let inner = self.inner();
        inner.commit(false)?;
        let _gate = inner.chunks.reading();
        let db = inner.db.writer();
        let side = self.side;
        let rows = Rows { db: &db, side };
        let (state, frozen) = (rows.state()?, rows.frozen()?);
        let shared = Shared::new(&db, side);
        let anew = cut.reset.is_some_and(Reset::is_anew);
        let mut changes = cut.changes.clone();
        if cut.reset.is_some() {
            end_unplaced(cut.cursor.seq, &mut changes);
        }
        if cut.reset.is_some() && !anew {
            bury_absent(shared, cut.cursor.seq, &mut changes)?;
        }
        let local = Local::new(inner, &db);
        if !cut.confirmed
            && !anew
            && let Some(halted) = halts(shared, &local, &changes, cut.reset.is_some())?
        {
            return Ok(Some(halted));
        }
        db.execute_batch("BEGIN IMMEDIATE").map_err(FsError::from)?;
        let _undo = Undo(&db);
        let flight = cut.flight.as_deref();
        let mut rider = self.rider(cut, changes, &state, anew);
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
        let ignore = self.ignore.lock().clone();
        let flown = InFlight::new(flight, cut.ack.as_ref());
        let mut plan = Plan::new(inner, &db, side, before, kept, flown, &ignore);
        plan.look(&rider.changes, flight, cut.ack.as_ref())?;
        let uncovered = self.uncovered.lock().clone();
        plan.uncover(&uncovered)?;
        rider.set_tree(inner, &db)?;
        let missing = self.missing(&rider, &db)?;
        if !missing.is_empty() {
            return Ok(Some(Applied::Wants(missing)));
        }
        plan.land(flight, cut.ack.as_ref())?;
        let seen = inner.committed.load(std::sync::atomic::Ordering::SeqCst);
        let new = if let Some(new) = build(&mut plan, seen)? {
            new
        } else {
            plan.replay(rider.state.scanned)?;
            let new = build(&mut plan, seen)?;
            new.ok_or_else(|| FsError::Corrupt("the edits make no tree".into()))?
        };
        rider.others = plan.others(side)?;
        rider.frozen = (frozen, plan.frozen);
        if !self.set(rider, new) {
            return Ok(None);
        }
        if let Err(error) = inner.commit_locked(&db, true) {
            // The next commit does it; until then nothing here is certain.
            *self.unsure.lock() = true;
            return Err(error.into());
        }
        if cut.ack.is_some() || anew {
            *self.flight.lock() = None;
            inner
                .chunks
                .end_leases(&std::mem::take(&mut *self.aloft.lock()));
        }
        *self.reset.lock() = None;
        self.uncovered.lock().clear();
        Ok(Some(Applied::Done))
    }

    /// Sets the working tree. `false` when something moved meanwhile.
    fn set(&self, rider: Rider, new: Assignment) -> bool {
        let inner = self.inner();
        let notes = Notes::new(inner, 0);
        let mut tree = inner.tree.lock();
        if !new.is_empty() && assign(&mut tree, &notes, new, now()).is_err() {
            return false;
        }
        let mut rider = Box::new(rider);
        let staged = std::mem::take(&mut *self.staged.lock());
        rider.leased = staged.leased.into_iter().collect();
        tree.rider = Some(rider);
        true
    }

    fn rider(&self, cut: &Cut, changes: Vec<Change>, state: &State, anew: bool) -> Rider {
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
                    aliases.push((from, to, ack.seq));
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
        Rider {
            side: self.side,
            lazy: self.is_lazy(),
            anew,
            changes,
            aliases,
            refs: None,
            state,
            landed: cut.ack.is_some() || anew,
            frozen: Default::default(),
            others: Vec::new(),
            conflicts,
            at_ms: since.map_or(0, |t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
            leased: Vec::new(),
            dead: 0,
        }
    }

    /// The chunks that the tree would name and that are not here.
    fn missing(&self, rider: &Rider, db: &Connection) -> Result<Vec<Wanted>> {
        let mut missing = Vec::new();
        // What the transaction just noted as being elsewhere is not missing.
        let lazy = rider.refs.iter().filter(|_| rider.lazy);
        let lazy: BTreeSet<ChunkHash> = lazy.flat_map(Refs::lengths).map(|(h, _)| h).collect();
        let gained = rider.refs.iter().flat_map(Refs::gained);
        for hash in gained.filter(|hash| !lazy.contains(hash)) {
            if layout::place(self.inner(), db, hash)?.is_none() {
                missing.push((*hash, None));
            }
        }
        Ok(missing)
    }
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

/// Whether a cut takes so much away that somebody has to say that it may: more
/// than half of a large tree, or all of one. What was removed here does not count.
/// After `absence`, what goes was not said to have been removed: it is not there.
fn halts(
    shared: Shared<'_>,
    local: &Local<'_>,
    changes: &[Change],
    absence: bool,
) -> Result<Option<Applied>> {
    let gone = changes.iter().filter_map(|change| match &change.entry {
        Entry::Gone { node } => Some(*node),
        _ => None,
    });
    let gone: BTreeSet<NodeId> = gone.collect();
    let enough = if absence { 1 } else { HALT_ALL_MIN };
    if (gone.len() as u64) < enough {
        return Ok(None);
    }
    let (mut removed, mut ended) = (0, 0);
    for node in &gone {
        removed += u64::from(local.is_live(*node)?);
        let record = shared.record(*node)?;
        ended += u64::from(record.is_some_and(|record| record.gone.is_none()));
    }
    let comes = |change: &Change| matches!(&change.entry, Entry::Node { id, .. } if *id != NodeId::ROOT && !gone.contains(id));
    let of = shared.count()?;
    let most = of >= HALT_MIN && removed * 2 > of;
    let all = removed >= enough && ended + 1 == of && !changes.iter().any(comes);
    Ok((most || all).then_some(Applied::Halted { removed, of }))
}

/// Adds the ends of nodes of a whole transfer that have no name in it: they are
/// told for those who may know them.
fn end_unplaced(ver: u64, changes: &mut Vec<Change>) {
    let mut places: BTreeMap<Place, Option<NodeId>> = BTreeMap::new();
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    for Change { entry, .. } in changes.iter() {
        match entry {
            Entry::Node { id, .. } => drop(nodes.insert(*id)),
            Entry::Name { parent, name, node } => {
                places.insert((*parent, name.clone()), *node);
            }
            _ => {}
        }
    }
    for node in places.values().flatten() {
        nodes.remove(node);
    }
    nodes.remove(&NodeId::ROOT);
    let ver = ver.saturating_add(1);
    let ends = nodes.into_iter().map(|node| Change {
        ver,
        entry: Entry::Gone { node },
    });
    changes.extend(ends);
}

/// Adds the ends of what a whole transfer does not have: it is of the same
/// life of the hub, so what is absent was removed.
fn bury_absent(shared: Shared<'_>, ver: u64, changes: &mut Vec<Change>) -> Result<()> {
    const PAGE: usize = 1_000;
    let mut names: BTreeSet<Place> = BTreeSet::new();
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    let mut xattrs: BTreeSet<(NodeId, XattrName)> = BTreeSet::new();
    for Change { entry, .. } in changes.iter() {
        match entry {
            Entry::Name { parent, name, node } => {
                names.insert((*parent, name.clone()));
                // What has no name has ended, whatever else is told of it.
                nodes.extend(node);
            }
            Entry::Xattr { node, name, .. } => drop(xattrs.insert((*node, name.clone()))),
            _ => {}
        }
    }
    let mut after: Option<Place> = None;
    loop {
        let page = shared.names(after.as_ref(), PAGE)?;
        for (place, node, _) in &page {
            if node.is_some() && !names.contains(place) {
                let (parent, name) = place.clone();
                let node = None;
                let entry = Entry::Name { parent, name, node };
                changes.push(Change { ver, entry });
            }
        }
        match page.last() {
            Some((place, _, _)) if page.len() == PAGE => after = Some(place.clone()),
            _ => break,
        }
    }
    let mut after = None;
    loop {
        let page = shared.nodes(after, PAGE)?;
        for (node, record) in &page {
            let node = *node;
            if !nodes.contains(&node) && record.gone.is_none() && node != NodeId::ROOT {
                let entry = Entry::Gone { node };
                // Later than whatever else is told of it.
                let ver = ver.saturating_add(1);
                changes.push(Change { ver, entry });
                continue;
            }
            for (name, value, _) in shared.attributes(node)? {
                if value.is_some() && !xattrs.contains(&(node, name.clone())) {
                    let value = None;
                    let entry = Entry::Xattr { node, name, value };
                    changes.push(Change { ver, entry });
                }
            }
        }
        match page.last() {
            Some((node, _)) if page.len() == PAGE => after = Some(*node),
            _ => return Ok(()),
        }
    }
}
