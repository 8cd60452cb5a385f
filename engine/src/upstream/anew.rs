//! What was removed here, and not pushed, when the hub turned out to be another or
//! of another history (RST-3).
//!
//! The confirmed tree begins anew then. What the hub has and the working tree has
//! not would be new from there, and live again, if nobody had looked before what
//! programs had taken away: a name, a node with its last name, an extended
//! attribute. All of it is edited again, with what was seen of it.

use std::collections::{BTreeMap, BTreeSet};

use cairn_protocol::merge::Place;
use cairn_protocol::{Data, Edit, MetaFields, NodeId, Register, XattrName};

use super::Upstream;
use super::edits::{Bounds, Edits, Untouched};
use super::ignore::{Paths, Whose};
use super::local::Local;
use super::plan::{DataSeen, Plan, Seen};
use super::state::{Base, Flight, Frozen, NEVER, Rows, State};
use super::withdraw::unsaid;
use crate::Result;
use crate::shared::Shared;

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Names, and the nodes that were seen there: what the hub had, and what a batch
    /// in flight had made of it.
    names: BTreeMap<Place, Vec<NodeId>>,
    /// Nodes that are to end, and the contents of each that were seen.
    drops: BTreeMap<NodeId, Vec<Option<Data>>>,
    xattrs: BTreeSet<(NodeId, XattrName)>,
}

/// Whatever differs was edited.
struct Everything;

impl Untouched for Everything {
    fn name(&self, _: &Place) -> Result<bool> {
        Ok(false)
    }

    fn data(&self, _: NodeId) -> bool {
        false
    }

    fn meta(&self, _: NodeId) -> MetaFields {
        MetaFields::ALL
    }

    fn xattr(&self, _: NodeId, _: &XattrName) -> bool {
        false
    }
}

impl Upstream {
    /// Finds what was removed, while the confirmed tree is what it was.
    pub(super) fn removed(
        &self,
        rows: Rows<'_>,
        state: &State,
        frozen: &Frozen,
    ) -> Result<Removed> {
        let mut removed = Removed::default();
        if state.cursor.is_none() {
            return Ok(removed);
        }
        let flight = self.flight.lock().clone();
        let flight = flight.as_deref();
        let local = Local::new(self.inner(), rows.db);
        let shared = Shared::new(rows.db, rows.side);
        let ignore = self.ignore.lock().clone();
        let paths = Paths::new(&ignore, Whose::Here);
        let frozen = match flight {
            Some(flight) => unsaid(flight, frozen.clone()),
            None => frozen.clone(),
        };
        let mut edits = Edits::new(&local, shared, &frozen, &paths, Some(&Everything));
        edits.scan_frozen(&Bounds::NONE)?;
        edits.scan(state.scanned, rows.told()?, &Bounds::NONE)?;
        for edit in edits.list {
            removed.add(edit, shared)?;
        }
        removed.fly(flight, &local)?;
        Ok(removed)
    }
}

impl Removed {
    /// The nodes that are known here although they have no name.
    pub(super) fn ended(&self) -> impl Iterator<Item = NodeId> {
        self.drops.keys().copied()
    }

    fn add(&mut self, edit: Edit, shared: Shared<'_>) -> Result<()> {
        match edit {
            Edit::Name {
                parent,
                name,
                was: Some(was),
                ..
            } => self.names.entry((parent, name)).or_default().push(was),
            Edit::Drop { node, data_base } => {
                let data = shared.record(node)?.and_then(|record| record.data);
                let (ver, data) = data.map_or((0, None), |(ver, data)| (ver, Some(data)));
                let seen = (ver == data_base).then_some(data);
                self.drops.entry(node).or_default().extend(seen);
            }
            Edit::Xattr {
                node,
                name,
                value: None,
                ..
            } => drop(self.xattrs.insert((node, name))),
            _ => {}
        }
        Ok(())
    }

    /// The hub may have what was in flight, from this replica or from another: what
    /// was removed of that is removed, too.
    fn fly(&mut self, flight: Option<&Flight>, local: &Local<'_>) -> Result<()> {
        let edits = || flight.iter().flat_map(|flight| &flight.edits);
        for edit in edits() {
            match edit {
                Edit::New { node, .. } if !local.is_live(*node)? => {
                    self.drops.entry(*node).or_default();
                }
                Edit::Name {
                    parent,
                    name,
                    node: Some(node),
                    ..
                } => {
                    let place = (*parent, name.clone());
                    if local.at(&place)? != Some(*node) {
                        self.names.entry(place).or_default().push(*node);
                    }
                }
                _ => {}
            }
        }
        for edit in edits() {
            if let Edit::Data { node, data, .. } = edit
                && let Some(seen) = self.drops.get_mut(node)
            {
                seen.push(Some(data.clone()));
            }
        }
        Ok(())
    }
}

impl Plan<'_> {
    /// Removes it again, now that the confirmed tree is the hub's. What somebody
    /// else has written to a node meanwhile was not seen, so the hub keeps that.
    pub(super) fn remove_again(&mut self, removed: &Removed) -> Result<()> {
        for (place, seen) in &removed.names {
            let there = self.shared.name(place)?.and_then(|(node, _)| node);
            let was = seen.iter().find(|node| Some(**node) == there);
            let (Some(was), Some(_)) = (was.or(seen.first()), there) else {
                continue;
            };
            let (parent, name) = place.clone();
            let register = Register::Name { parent, name };
            // Not each of them is in the log, where it would be found.
            self.frozen.insert(register, Base::Name(Some(*was)));
            self.names.insert(place.clone(), Seen::Edited(Some(*was)));
        }
        for (node, seen) in &removed.drops {
            let Some(record) = self.shared.record(*node)?.filter(|r| r.gone.is_none()) else {
                continue;
            };
            let now = record.data.map(|(_, data)| data);
            if !seen.contains(&now) {
                self.noted(*node)?.data = Some(Seen::Edited(DataSeen::Version(NEVER)));
            }
        }
        for (node, name) in &removed.xattrs {
            self.noted(*node)?.xattrs.insert(name.clone(), true);
        }
        Ok(())
    }
}
