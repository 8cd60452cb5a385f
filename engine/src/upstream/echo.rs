//! The echo of a batch: what the hub tells its author of his own edits. Where
//! they took effect as they were and nobody has edited the register since, the
//! working tree has what it should have, and need not be looked at: that is
//! nearly all of a cut that answers a batch, and was half of what it cost.

use std::collections::BTreeSet;

use cairn_protocol::merge::Place;
use cairn_protocol::{Edit, Entry, Name, NodeId, Register, Ver};
use rusqlite::Connection;
use rustc_hash::FxHashSet;

use super::local::Local;
use super::look::InFlight;
use crate::Result;
use crate::attr::Ino;
use crate::db::{corrupt, int, uint};

/// With more changes than this since the batch was made, every register is
/// looked at.
const TOUCHED_MAX: usize = 1_024;

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// Registers that were edited since, and nodes of which some were.
    names: BTreeSet<Place>,
    nodes: BTreeSet<NodeId>,
    /// What was told as it was pushed.
    told_names: FxHashSet<Place>,
    told: FxHashSet<Register>,
}

impl Echo {
    /// `made` is the version of the tree that the batch was made of. `None` when
    /// so much was edited since that it does not pay.
    pub(super) fn new(db: &Connection, local: &Local<'_>, made: Ver) -> Result<Option<Self>> {
        let mut echo = Self::default();
        let mut log = db
            .prepare_cached("SELECT kind, ino, name FROM log WHERE ver > ? ORDER BY ver LIMIT ?")?;
        let mut rows = log.query([int(made), int(TOUCHED_MAX as u64 + 1)])?;
        let mut touched = 0;
        while let Some(row) = rows.next()? {
            touched += 1;
            let ino = Ino(uint(row.get(1)?));
            match row.get::<_, u8>(0)? {
                0 => drop(echo.nodes.insert(local.id(ino)?)),
                1 => {
                    let name: Vec<u8> = row.get(2)?;
                    let name = Name::new(&name).map_err(|e| corrupt(ino, e))?;
                    echo.names.insert((local.id(ino)?, name));
                }
                // Of what ended the inode does not tell the id any more.
                _ => return Ok(None),
            }
        }
        Ok((touched <= TOUCHED_MAX).then_some(echo))
    }

    /// Whether an entry is what was pushed and is here still.
    pub(super) fn is(&mut self, flight: &InFlight<'_>, entry: &Entry) -> bool {
        match entry {
            Entry::Name { parent, name, node } => {
                let place = (*parent, name.clone());
                let is = flight.puts(&place, *node) && !self.names.contains(&place);
                if is {
                    self.told_names.insert(place);
                }
                is
            }
            Entry::Data { node, .. } | Entry::Meta { node, .. } | Entry::Xattr { node, .. } => {
                let is = flight.has(entry) && !self.nodes.contains(node);
                if is {
                    self.told.extend(entry.register());
                }
                is
            }
            // It lived when the batch was made, and nothing has ended since.
            Entry::Node { id, .. } => flight.makes(*id),
            Entry::Gone { .. } => false,
        }
    }

    /// Whether an edit of the batch was told, and needs no look.
    pub(super) fn was_told(&self, edit: &Edit) -> bool {
        match edit {
            Edit::Name { parent, name, .. } => self.told_names.contains(&(*parent, name.clone())),
            edit => edit.register().is_some_and(|r| self.told.contains(&r)),
        }
    }
}
