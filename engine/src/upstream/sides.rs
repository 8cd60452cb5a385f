//! What a cut of one hub means for the other that this replica follows, when it
//! is a hub in the middle.
//!
//! What a cut changes in the working tree is in its log, where the other side
//! finds it, but for one thing: an inode that gets another id, because another
//! node turned out to stand for it, changes no register. The other hub has the
//! old node at its places, so these are noted as edited there, and what is in it
//! if it is a directory: who did it saw what that hub has (R11).

use cairn_protocol::Register;
use cairn_protocol::merge::Place;
use rusqlite::Connection;

use super::plan::Plan;
use super::state::{Base, Frozen, Rows};
use crate::Result;
use crate::db;
use crate::shared::Shared;

/// What is frozen of another side, and what is to be.
pub(super) type Other = (u8, Frozen, Frozen);

impl Plan<'_> {
    /// What other sides have to look at again.
    pub(super) fn others(&self, side: u8) -> Result<Vec<Other>> {
        let (mut renamed, mut below) = (Vec::new(), Vec::new());
        let tag = self.local.tag();
        for (ino, id) in self.local.bound() {
            let old = db::id_of(self.db, tag, ino)?;
            if old != id {
                renamed.push(old);
                let names = self.local.children(ino)?.into_iter();
                below.extend(names.map(|name| (id, name)));
            }
        }
        let mut others = Vec::new();
        if renamed.is_empty() {
            return Ok(others);
        }
        for other in followed(self.db, side)? {
            let (db, shared) = (self.db, Shared::new(self.db, other));
            let rows = Rows { db, side: other };
            let (frozen, flight) = (rows.frozen()?, rows.flight()?);
            let flown = super::look::InFlight::new(flight.as_ref(), None);
            let mut new = frozen.clone();
            for old in &renamed {
                let mut places: Vec<Place> = shared.places_of(*old)?;
                places.extend(flown.places_of(*old).cloned());
                for (parent, name) in places {
                    let register = Register::Name { parent, name };
                    new.entry(register).or_insert(Base::Name(Some(*old)));
                }
            }
            for place in &below {
                let there = shared.name(place)?.and_then(|(node, _)| node);
                let (parent, name) = place.clone();
                let register = Register::Name { parent, name };
                new.entry(register).or_insert(Base::Name(there));
            }
            if new != frozen {
                others.push((other, frozen, new));
            }
        }
        Ok(others)
    }
}

/// The other sides that this replica follows.
pub(super) fn followed(db: &Connection, side: u8) -> Result<Vec<u8>> {
    let mut find =
        db.prepare_cached("SELECT side FROM upstream WHERE key = 'state' AND side <> ?")?;
    let rows = find.query_map([side], |r| r.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
