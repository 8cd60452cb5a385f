//! How a cut comes to be seen: memory is set under one hold of its lock, where
//! nothing moved since the cut was planned, and follows what became of rows.

use std::sync::Arc;

use cairn_protocol::Ver;
use cairn_protocol::session::Report;
use parking_lot::MutexGuard;
use rusqlite::Connection;
use rustc_hash::FxHashMap;

use super::Upstream;
use super::build::Built;
use super::grow::Growth;
use super::rider::Rider;
use super::spool::Spool;
use super::stage::Staged;
use crate::Result;
use crate::assign::{assign, look};
use crate::db;
use crate::node::{DirKey, Node};
use crate::observe::Invalidation;
use crate::replica::{Notes, now};
use crate::shift::Shifting;
use crate::tree::{Tree, lowest_name};
use crate::turned::Turned;

/// Where a cut was set before its transaction is committed.
#[derive(Clone, Copy)]
pub(super) enum Set {
    /// In memory, where it holds even if that fails.
    Memory,
    /// In rows alone, with so many nodes more.
    Rows { count: i64 },
    /// In rows that memory has a part of.
    Both,
}

impl Upstream {
    /// Sets the working tree. `None` when something moved meanwhile. With
    /// `as_told`, it becomes what the hub told, where it changes.
    pub(super) fn set(
        &self,
        mut rider: Box<Rider>,
        built: Built,
        as_told: bool,
        db: &Connection,
    ) -> Result<Option<Set>> {
        let Built { new, growth } = built;
        let inner = self.inner();
        let notes = Notes::new(inner, 0);
        let mut tree = inner.tree.lock();
        let seen = new.seen;
        let mut set = Set::Memory;
        let turned = growth.as_ref().and_then(|growth| growth.turned());
        let Some(rows) = follow(&mut tree, &notes, turned, seen, db)? else {
            return Ok(None);
        };
        let taken = growth.as_ref().map(|g| is_taken(&tree, g, seen, db));
        if taken.transpose()? == Some(true) || look(&tree, &new, turned).is_err() {
            return Ok(None);
        }
        let alone = as_told && tree.is_clean() && rider.state.scanned == seen;
        let is_empty = new.is_empty();
        let applied = turned.map(|turned| turned.apply(&mut tree, &notes, rows));
        if !is_empty {
            assign(&mut tree, &notes, new, now());
        }
        if let (Some(turned), Some(applied)) = (turned, applied) {
            let both = turned.reap(&mut tree, &notes) || applied || !is_empty;
            let count = turned.count;
            set = if both { Set::Both } else { Set::Rows { count } };
        }
        if let Some(mut growth) = growth {
            rider.hasher = Some(growth.hasher());
            rider.growth = Some(growth);
        }
        if let Some(growth) = &mut rider.growth {
            for (parent, name) in std::mem::take(&mut growth.names) {
                if notes.known(parent) {
                    let name = name.as_bytes();
                    notes.tell(|| Invalidation::Entry {
                        parent,
                        name: name.to_vec(),
                    });
                }
            }
            for ino in growth.dirs() {
                notes.tell(|| Invalidation::Attr { ino });
            }
        }
        if alone {
            // What the log has of this commit came from the hub: it is not to be
            // looked at for edits, which takes 20 us a file.
            rider.state.scanned = tree.seq;
        }
        let staged = std::mem::take(&mut *self.staged.lock());
        rider.leased = staged.leased;
        tree.rider = Some(rider);
        Ok(Some(set))
    }

    /// The transaction failed of a cut of which rows became others.
    pub(super) fn failed(
        &self,
        (changes, reports): (&Arc<Spool>, &[Report]),
        shifting: &mut Shifting<'_>,
        set: Set,
    ) {
        let mut tree = self.inner().tree.lock();
        match set {
            Set::Rows { count } => {
                // Memory has nothing of it, so it is as if it had not been tried.
                if let Some(rider) = tree.rider.take() {
                    let (changes, reports) = (changes.clone(), reports.to_vec());
                    *self.staged.lock() = Staged::again(changes, reports, rider.leased);
                }
                tree.count = tree.count.saturating_add_signed(-count);
            }
            Set::Both => shifting.stick(),
            Set::Memory => {}
        }
    }
}

/// Looks whether memory can follow the rows that became others, and reads those
/// that it needs for that. `None` when something moved meanwhile.
fn follow(
    tree: &mut MutexGuard<'_, Tree>,
    notes: &Notes<'_>,
    turned: Option<&Turned>,
    seen: Ver,
    db: &Connection,
) -> Result<Option<FxHashMap<u64, Node>>> {
    let mut rows = FxHashMap::default();
    let Some(turned) = turned else {
        return Ok(Some(rows));
    };
    loop {
        let Ok(missing) = turned.look(tree, notes, seen, &rows, db)? else {
            return Ok(None);
        };
        if missing.is_empty() {
            return Ok(Some(rows));
        }
        MutexGuard::unlocked(tree, || -> Result<()> {
            for ino in missing {
                let node = db::load_node(db, ino)?;
                let node = node.ok_or_else(|| db::corrupt(ino, "its row is gone"))?;
                rows.insert(ino.0, node);
            }
            Ok(())
        })?;
    }
}

/// Whether a program changed a name since it was looked at that is a row now.
pub(super) fn is_taken(tree: &Tree, growth: &Growth, seen: Ver, db: &Connection) -> Result<bool> {
    for dir in growth.dirs() {
        let names = (dir.0, lowest_key()?)..(dir.0 + 1, lowest_key()?);
        for (_, key) in tree.dirty_names.range(names) {
            let row = db::load_name(db, dir, key.0, &key.1)?;
            if row.is_some_and(|(_, ver)| ver > seen) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The key before all of a directory.
fn lowest_key() -> Result<DirKey> {
    Ok((0, lowest_name()?))
}
