//! What is looked at before the confirmed tree moves: whether each register that
//! a cut touches was edited here, and what its editor saw.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_protocol::merge::Place;
use cairn_protocol::wire::PushAck;
use cairn_protocol::{
    Change, Data, Edit, Entry, Meta, MetaFields, NodeId, Outcome, Refusal, Register, Ver, XattrName,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::echo::Echo;
use super::fresh::Fresh;
use super::ignore::Paths;
use super::plan::{DataSeen, Noted, Plan, Seen, outcomes};
use super::spool::Spool;
use super::state::{Base, Flight};
use crate::Result;
use crate::shared::Record;

/// What is in flight, by register.
#[derive(Debug, Default)]
pub(super) struct InFlight<'a> {
    names: BTreeMap<Place, Option<NodeId>>,
    data: FxHashMap<NodeId, &'a Data>,
    metas: FxHashMap<NodeId, &'a Meta>,
    xattrs: BTreeMap<(NodeId, &'a XattrName), Option<&'a Bytes>>,
    drops: BTreeSet<NodeId>,
    new: FxHashSet<NodeId>,
}

impl<'a> InFlight<'a> {
    /// Without what was refused because the hub has forgotten the node: that is
    /// as if it had not been pushed (RST-2).
    pub(super) fn new(flight: Option<&'a Flight>, ack: Option<&PushAck>) -> Self {
        let mut all = Self::default();
        let forgotten = forgotten(ack);
        let edits = flight.iter().flat_map(|flight| &flight.edits);
        for (at, edit) in edits.enumerate() {
            if forgotten.contains(&at) {
                continue;
            }
            match edit {
                Edit::New { node, .. } => drop(all.new.insert(*node)),
                Edit::Data { node, data, .. } => drop(all.data.insert(*node, data)),
                Edit::Meta { node, meta, .. } => drop(all.metas.insert(*node, meta)),
                Edit::Xattr {
                    node, name, value, ..
                } => drop(all.xattrs.insert((*node, name), value.as_ref())),
                Edit::Name {
                    parent, name, node, ..
                } => drop(all.names.insert((*parent, name.clone()), *node)),
                Edit::Drop { node, .. } => drop(all.drops.insert(*node)),
            }
        }
        all
    }

    /// Where it puts a node.
    pub(super) fn places_of(&self, node: NodeId) -> impl Iterator<Item = &Place> {
        let names = self.names.iter();
        names.filter_map(move |(place, there)| (*there == Some(node)).then_some(place))
    }

    /// Whether the batch makes a node.
    pub(super) fn makes(&self, node: NodeId) -> bool {
        self.new.contains(&node)
    }

    /// Whether the batch says anything of a place.
    pub(super) fn names(&self, place: &Place) -> bool {
        self.names.contains_key(place)
    }

    /// Whether the batch says anything of a content, or that it may end.
    pub(super) fn sets_data(&self, node: NodeId) -> bool {
        self.data.contains_key(&node) || self.drops.contains(&node) || self.makes(node)
    }

    /// Whether it says anything of attributes.
    pub(super) fn sets_meta(&self, node: NodeId) -> bool {
        self.metas.contains_key(&node)
    }

    /// Whether it says anything of an extended attribute.
    pub(super) fn sets_xattr(&self, node: NodeId, name: &XattrName) -> bool {
        self.xattrs.contains_key(&(node, name))
    }

    /// Whether the batch has a place stand for just that.
    pub(super) fn puts(&self, place: &Place, node: Option<NodeId>) -> bool {
        self.names.get(place) == Some(&node)
    }

    /// Whether the batch sets a register of a node to just that.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Data { node, data } => self.data.get(node).copied() == Some(data),
            Entry::Meta { node, meta } => self.metas.get(node).copied() == Some(meta),
            Entry::Xattr { node, name, value } => {
                self.xattrs.get(&(*node, name)) == Some(&value.as_ref())
            }
            _ => false,
        }
    }
}

impl Plan<'_> {
    /// Looks at everything that will be touched.
    pub(super) fn look(
        &mut self,
        changes: &Spool,
        more: &[Change],
        flight: Option<&Flight>,
        ack: Option<&PushAck>,
        mut echo: Option<Echo>,
    ) -> Result<()> {
        let mut fresh = self.grows.then(|| Fresh::new(flight, ack));
        let paths = self.paths_before();
        for page in changes.pages() {
            self.look_at(&page?, &mut fresh, &mut echo, &paths)?;
        }
        self.look_at(more, &mut None, &mut None, &paths)?;
        for edit in flight.iter().flat_map(|flight| &flight.edits) {
            if echo.as_ref().is_some_and(|echo| echo.was_told(edit)) {
                continue;
            }
            match (edit, edit.register()) {
                (_, Some(register)) => self.note(&register)?,
                (Edit::Drop { node, .. }, None) => self.note_data(*node)?,
                _ => {}
            }
        }
        for register in self.frozen.keys().cloned().collect::<Vec<_>>() {
            self.note(&register)?;
        }
        for (edit, outcome) in outcomes(flight, ack) {
            if let (Edit::Data { node, .. }, Outcome::Copied { .. }) = (edit, outcome)
                && let Some(ino) = self.local.ino(*node)?
            {
                for place in self.local.places(ino)? {
                    self.note_name(place)?;
                }
            }
        }
        if let Some(fresh) = &mut fresh
            && self.turns
        {
            self.draw_in(changes, fresh)?;
        }
        self.absent = fresh.map(|fresh| fresh.absent).unwrap_or_default();
        Ok(())
    }

    /// Whether a node was fresh, now that the confirmed tree has it.
    pub(super) fn was_fresh(&self, node: NodeId) -> Result<bool> {
        if !self.grows || self.absent.contains(&node) {
            return Ok(false);
        }
        let new = |record: Record| record.gone.is_none() && record.born > self.before;
        Ok(self.shared.record(node)?.is_some_and(new) && self.local.ino(node)?.is_none())
    }

    fn look_at(
        &mut self,
        page: &[Change],
        fresh: &mut Option<Fresh>,
        echo: &mut Option<Echo>,
        paths: &Paths<'_>,
    ) -> Result<()> {
        for change in page {
            if let Some(echo) = echo
                && echo.is(&self.flight, &change.entry)
            {
                continue;
            }
            if let Some(fresh) = fresh
                && (fresh.is(self, &change.entry)?
                    || (self.turns && self.is_plain(fresh, &change.entry)?)
                    || self.is_hidden(paths, fresh, &change.entry)?
                    || (self.is_whole && self.is_same(fresh, &change.entry)?))
            {
                continue;
            }
            match (&change.entry, change.entry.register()) {
                (_, Some(register)) => self.note(&register)?,
                (Entry::Gone { node }, None) => self.note_data(*node)?,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, register: &Register) -> Result<()> {
        match register {
            Register::Name { parent, name } => self.note_name((*parent, name.clone())),
            Register::Data(node) => self.note_data(*node),
            Register::Meta(node) => self.note_meta(*node),
            Register::Xattr { node, name } => self.note_xattr(*node, name),
        }
    }

    pub(super) fn note_name(&mut self, place: Place) -> Result<()> {
        if self.names.contains_key(&place) {
            return Ok(());
        }
        let register = Register::Name {
            parent: place.0,
            name: place.1.clone(),
        };
        let was = match (self.flight.names.get(&place), self.frozen.get(&register)) {
            (Some(node), _) => *node,
            (None, Some(Base::Name(was))) => *was,
            _ => self.shared.name(&place)?.and_then(|(node, _)| node),
        };
        let seen = if self.local.at(&place)? == was {
            Seen::Clean
        } else {
            Seen::Edited(was)
        };
        self.names.insert(place, seen);
        Ok(())
    }

    pub(super) fn noted(&mut self, node: NodeId) -> Result<&mut Noted> {
        use std::collections::btree_map::Entry as Slot;
        match self.nodes.entry(node) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => Ok(slot.insert(Noted {
                here: self.local.live(node)?,
                data: None,
                meta: None,
                xattrs: BTreeMap::new(),
            })),
        }
    }

    pub(super) fn note_data(&mut self, node: NodeId) -> Result<()> {
        if self.noted(node)?.data.is_some() {
            return Ok(());
        }
        let record = self.shared.record(node)?;
        let version = match self.frozen.get(&Register::Data(node)) {
            Some(Base::Data(ver)) => *ver,
            _ => version(record.as_ref()),
        };
        let flown = self.flight.data.get(&node).copied();
        let there = flown.or(record
            .as_ref()
            .and_then(|r| r.data.as_ref())
            .map(|(_, d)| d));
        let drops = self.flight.drops.contains(&node);
        let noted = self.noted(node)?;
        let edited = if let Some(here) = &noted.here {
            here.unsealed || here.data.as_ref() != there
        } else {
            // What was removed here counts as seen as it was (R3).
            let lives = record.is_some_and(|record| record.gone.is_none());
            (lives || flown.is_some()) && !drops
        };
        noted.data = Some(match edited {
            false => Seen::Clean,
            true if flown.is_some() => Seen::Edited(DataSeen::Flight),
            true => Seen::Edited(DataSeen::Version(version)),
        });
        Ok(())
    }

    pub(super) fn note_meta(&mut self, node: NodeId) -> Result<()> {
        if self.noted(node)?.meta.is_some() {
            return Ok(());
        }
        let there = match self.flight.metas.get(&node) {
            Some(meta) => Some(**meta),
            None => self
                .shared
                .record(node)?
                .and_then(|r| r.meta)
                .map(|(_, meta)| meta),
        };
        let noted = self.noted(node)?;
        noted.meta = Some(match (&noted.here, there) {
            (Some(here), Some(there)) => MetaFields::between(&there, &here.meta),
            // The root is there before anybody says what it is like.
            (Some(_), None) if node != NodeId::ROOT => MetaFields::ALL,
            _ => MetaFields::NONE,
        });
        Ok(())
    }

    pub(super) fn note_xattr(&mut self, node: NodeId, name: &XattrName) -> Result<()> {
        if self.noted(node)?.xattrs.contains_key(name) {
            return Ok(());
        }
        let there = match self.flight.xattrs.get(&(node, name)) {
            Some(value) => value.cloned(),
            None => self
                .shared
                .attribute(node, name)?
                .and_then(|(value, _)| value),
        };
        let noted = self.noted(node)?;
        let edited = match &noted.here {
            Some(here) => here.xattrs.get(name) != there.as_ref(),
            None => false,
        };
        noted.xattrs.insert(name.clone(), edited);
        Ok(())
    }
}

/// The edits that had no effect because the hub has forgotten the node.
pub(super) fn forgotten(ack: Option<&PushAck>) -> BTreeSet<usize> {
    let outcomes = ack.into_iter().flat_map(|ack| ack.outcomes.iter());
    let unknown = outcomes.filter(|(_, outcome)| {
        let why = Refusal::Unknown;
        *outcome == Outcome::Refused { why }
    });
    unknown.map(|(edit, _)| *edit as usize).collect()
}

/// The version of a node's content.
pub(super) fn version(record: Option<&Record>) -> Ver {
    record
        .and_then(|r| r.data.as_ref())
        .map_or(0, |(ver, _)| *ver)
}
