//! What a cut changes besides the working tree, in the same transaction: the
//! confirmed tree with the references of its contents, and the rows of
//! [`super::state`].
//!
//! The confirmed tree is set early, for the cut is planned on it. If the
//! transaction fails after the working tree was set in memory, the next commit
//! does both again.

use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::Arc;

use cairn_protocol::merge::Place;
use cairn_protocol::session::Report;
use cairn_protocol::{Change, CommitHasher, Edit, Entry, NodeId, NodeKind, Register, Ver};
use rusqlite::{Connection, params};

use super::grow::{At, Growth};
use super::ignore::Ignore;
use super::show::is_taken;
use super::sides::Other;
use super::spool::Spool;
use super::stage::Held;
use super::state::{Base, Flight, Frozen, Rows, State, Told, encode};
use crate::attr::Ino;
use crate::chunks;
use crate::db::{corrupt, int};
use crate::refs::{LayoutFault, Ledger};
use crate::replica::Inner;
use crate::shared::{Lasts, Shared};
use crate::tree::Tree;
use crate::{FsError, Result};

/// So many chunks have their references counted in memory, of a cut that has
/// more: about 2 MiB.
const REFS_MAX: usize = if cfg!(debug_assertions) { 8 } else { 16_384 };

/// Another node that stands for one of the batch that was answered.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    /// The commit of the answer.
    pub(super) ver: Ver,
    /// What `from` was, and where the batch put it: for a cut that is the whole
    /// tree of the hub, which may have forgotten `to`.
    pub(super) was: Option<(NodeKind, Place)>,
}

/// What a node of a batch was, and where that put it.
pub(super) fn was(flight: &Flight, of: NodeId) -> Option<(NodeKind, Place)> {
    let mut edits = flight.edits.iter();
    let kind = edits.clone().find_map(|edit| match edit {
        Edit::New { node, kind } if *node == of => Some(*kind),
        _ => None,
    })?;
    edits.find_map(|edit| match edit {
        Edit::Name {
            parent, name, node, ..
        } if *node == Some(of) => Some((kind, (*parent, name.clone()))),
        _ => None,
    })
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Rider {
    pub(super) side: u8,
    /// Chunks may be elsewhere.
    pub(super) lazy: bool,
    /// The confirmed tree begins anew.
    pub(super) anew: bool,
    pub(super) changes: Arc<Spool>,
    /// Changes that follow from these.
    pub(super) more: Vec<Change>,
    pub(super) aliases: Vec<Alias>,
    /// References that chunks gain and lose, once the confirmed tree is set in
    /// the transaction that is open.
    pub(crate) ledger: Option<Ledger>,
    /// The nodes that are rows only, if there are any.
    pub(super) growth: Option<Box<Growth>>,
    /// What is not shown.
    pub(super) ignore: Arc<Ignore>,
    /// What the rows that are written say of the commit.
    pub(crate) hasher: Option<CommitHasher>,
    pub(super) state: State,
    /// What needed no look, and does not.
    pub(super) told: Option<Told>,
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
    pub(crate) leased: Held,
    /// Whether it was committed, for who was told that this failed.
    pub(super) committed: Arc<AtomicBool>,
}

impl Rider {
    /// Makes the confirmed tree ready, in a transaction.
    pub(super) fn begin(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        let mut ledger = Ledger::new(self.lazy);
        if self.anew {
            let shared = Shared::new(db, self.side);
            shared.clear(&mut |data| {
                ledger.count(inner, db, data, -1).map_err(unreadable)?;
                ledger.flush(inner, db, REFS_MAX)
            })?;
        }
        if self.lazy {
            chunks::note_elsewhere(db)?;
            inner.elsewhere.store(true, Ordering::SeqCst);
        }
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Sets the confirmed tree, after [`Self::begin`].
    pub(super) fn set_tree(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        let shared = Shared::new(db, self.side);
        for alias in &self.aliases {
            shared.set_alias(alias.from, alias.to, alias.ver)?;
        }
        let ends = |change: &Change| matches!(change.entry, Entry::Gone { .. });
        let mut lasts = Lasts::default();
        lasts.ends = self.changes.ends() || self.more.iter().any(ends);
        let changes = self.changes.clone();
        for page in changes.pages() {
            self.set_page(inner, db, &page?, &mut lasts)?;
        }
        let more = std::mem::take(&mut self.more);
        self.set_page(inner, db, &more, &mut lasts)?;
        self.more = more;
        self.bury_forgotten(shared)
    }

    /// A hub that has forgotten what happened after the cursor may have forgotten
    /// the node of an alias, too. It is dead, then, as the others that the whole
    /// tree does not have (RST-2).
    fn bury_forgotten(&self, shared: Shared<'_>) -> Result<()> {
        for alias in &self.aliases {
            if let Some((kind, (parent, name))) = &alias.was
                && shared.record(alias.to)?.is_none()
            {
                let parent = shared.alias_of(*parent)?.unwrap_or(*parent);
                shared.bury(alias.to, *kind, alias.ver, (parent, name.clone()))?;
            }
        }
        Ok(())
    }

    fn set_page(
        &mut self,
        inner: &Inner,
        db: &Connection,
        page: &[Change],
        lasts: &mut Lasts,
    ) -> Result<()> {
        let mut ledger = self.ledger.take().unwrap_or_default();
        Shared::new(db, self.side).apply_page(page, lasts, &mut |data, by| {
            ledger.count(inner, db, data, by).map_err(unreadable)
        })?;
        ledger.flush(inner, db, REFS_MAX)?;
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Sets the confirmed tree if it is not set in this transaction: before the
    /// rows of nodes, which may name chunks that are not here.
    pub(crate) fn prepare(&mut self, inner: &Inner, db: &Connection) -> Result<()> {
        if self.ledger.is_some() {
            return Ok(());
        }
        self.begin(inner, db)?;
        self.set_tree(inner, db)?;
        if let Some(mut growth) = self.growth.take() {
            let mut ledger = self.ledger.take().unwrap_or_default();
            let changes = self.changes.clone();
            let side = self.side;
            let at = At {
                inner,
                db,
                side,
                changes: &changes,
                ignore: &self.ignore,
            };
            let again = growth.again(at, &mut ledger);
            let hasher = growth.hasher();
            (self.growth, self.ledger) = (Some(growth), Some(ledger));
            let taken = again?;
            self.hasher = Some(hasher);
            for (parent, name) in taken {
                let register = Register::Name { parent, name };
                self.frozen.1.insert(register, Base::Name(None));
            }
        }
        Ok(())
    }

    /// Whether its transaction failed, and it has to be prepared again.
    pub(crate) fn is_late(&self) -> bool {
        self.ledger.is_none()
    }

    /// Whether programs have taken a place, since this version, that became a row.
    pub(crate) fn is_taken(&self, tree: &Tree, seen: Ver, db: &Connection) -> Result<bool> {
        let growth = self.growth.as_deref();
        growth.map_or(Ok(false), |growth| is_taken(tree, growth, seen, db))
    }

    /// Whether rows are written that memory knew without having them, so that
    /// nobody may load any meanwhile.
    pub(crate) fn shifts(&self) -> bool {
        self.ledger.is_none() && self.growth.is_some()
    }

    /// Whether rows became others that memory follows: those of a node, or any.
    /// Until that is committed, nobody may load them.
    pub(crate) fn turns(&self, node: Option<Ino>) -> bool {
        let turned = self.growth.as_ref().and_then(|growth| growth.turned());
        turned.is_some_and(|turned| node.is_none_or(|ino| turned.nodes.contains_key(&ino.0)))
    }

    /// Writes everything that is left. The last of a transaction: the references
    /// are written.
    pub(crate) fn write(&mut self, db: &Connection) -> Result<()> {
        let rows = Rows {
            db,
            side: self.side,
        };
        rows.set_state(&self.state)?;
        match self.growth.as_ref().and_then(|growth| growth.told) {
            Some(told) => rows.set_told(Some(told))?,
            None if self.anew => rows.set_told(None)?,
            None => {}
        }
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
        (self.ledger, self.hasher) = (None, None);
    }

    /// It was committed. What was read of directories meanwhile, if rows of what
    /// is in them were written late, is of no use.
    pub(crate) fn committed(&mut self, inner: &Inner) {
        self.committed.store(true, Ordering::SeqCst);
        self.leased.end(&inner.chunks);
        if let Some(growth) = &self.growth {
            let mut tree = inner.tree.lock();
            crate::gained::forget_absence(&mut tree, growth.dirs());
        }
    }
}

fn unreadable(fault: LayoutFault) -> FsError {
    match fault {
        LayoutFault::Fs(error) => error,
        other => corrupt("a content of the hub", other),
    }
}
