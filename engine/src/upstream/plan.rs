//! What a cut means for the working tree.
//!
//! Before the confirmed tree moves, each register that the cut or the answer to
//! a batch touches is looked at: does the working tree have what the hub had
//! (or was given), or was it edited since? Afterwards what was not edited
//! becomes what the hub has, and what was edited stays, with what its editor saw
//! (R11). If that is no tree, or ends something that was edited, all edits are
//! *replayed*: resolved on the hub's tree by the hub's own rules (R14).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_protocol::merge::Place;
use cairn_protocol::wire::PushAck;
use cairn_protocol::{
    Data, Edit, Meta, MetaFields, NodeId, NodeKind, Outcome, Register, Seq, Ver, XattrName,
};
use rusqlite::Connection;

use super::ignore::{Ignore, Paths, Whose};
use super::local::{Here, Local};
use super::look::{InFlight, version};
use super::replay::Replayed;
use super::state::{Base, Flight, Frozen, NEVER, Told};
use crate::Result;
use crate::attr::Ino;
use crate::replica::Inner;
use crate::shared::Shared;

/// Whether a register was edited, and what the editor saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// It has what the hub had.
    Clean,
    /// It was edited since.
    Edited(T),
}

/// What the editor of a content saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataSeen {
    Version(Ver),
    /// What is in flight.
    Flight,
}

/// What was found out of a node.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) here: Option<Here>,
    pub(super) data: Option<Seen<DataSeen>>,
    /// The attributes that were edited.
    pub(super) meta: Option<MetaFields>,
    /// Whether each was edited.
    pub(super) xattrs: BTreeMap<XattrName, bool>,
}

/// See the head of the module.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each says of one thing whether it is done, or was found"
)]
pub(super) struct Plan<'a> {
    pub(super) inner: &'a Inner,
    pub(super) db: &'a Connection,
    pub(super) shared: Shared<'a>,
    pub(super) local: Local<'a>,
    /// The commit that the confirmed tree was at.
    pub(super) before: Seq,
    pub(super) frozen: Frozen,
    pub(super) ignore: &'a Ignore,
    /// Which places of the hub are not shown.
    paths: Paths<'a>,
    pub(super) flight: InFlight<'a>,
    pub(super) names: BTreeMap<Place, Seen<Option<NodeId>>>,
    pub(super) nodes: BTreeMap<NodeId, Noted>,
    /// Places that are set whatever the hub has there.
    pub(super) forced: BTreeMap<Place, Option<NodeId>>,
    pub(super) replayed: Option<Replayed>,
    /// What became of edits by that.
    pub(super) resolved: Vec<Outcome>,
    /// Nodes that get other inodes, with what was noted of the old ones.
    pub(super) renewed: BTreeMap<NodeId, Noted>,
    /// Something makes a replay necessary.
    pub(super) clash: bool,
    /// Which tree of a hub.
    pub(super) side: u8,
    /// What is fresh is not looked at, and becomes rows; see [`super::grow`].
    pub(super) grows: bool,
    /// What is plain is not noted, and is set in rows; see [`super::turn`].
    pub(super) turns: bool,
    /// What goes leaves something ignored behind, which cannot be planned while some of
    /// it is in rows; see [`super::leftover`].
    pub(super) has_leftover: bool,
    /// Something ignored comes to be shown, for its directory moves.
    pub(super) comes_out: bool,
    /// The cut is the whole tree of the hub; see [`super::same`].
    pub(super) is_whole: bool,
    /// What the log has up to this version, and with these, needs no look.
    pub(super) looked_at: (Ver, Option<Told>),
    /// Nodes that the cut tells of, that do not live here, and are not fresh.
    pub(super) absent: BTreeSet<NodeId>,
    /// Nodes that were removed here before the confirmed tree began anew.
    pub(super) ended: BTreeSet<NodeId>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        db: &'a Connection,
        side: u8,
        before: Seq,
        frozen: Frozen,
        flight: InFlight<'a>,
        ignore: &'a Ignore,
    ) -> Self {
        Self {
            ignore,
            paths: Paths::new(ignore, Whose::Hub),
            inner,
            db,
            shared: Shared::new(db, side),
            local: Local::new(inner, db),
            before,
            frozen,
            flight,
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
            forced: BTreeMap::new(),
            replayed: None,
            resolved: Vec::new(),
            renewed: BTreeMap::new(),
            clash: false,
            side,
            grows: false,
            turns: false,
            has_leftover: false,
            comes_out: false,
            is_whole: false,
            looked_at: (0, None),
            absent: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Takes what the answer to the batch says of nodes that are others now.
    pub(super) fn land(&mut self, flight: Option<&Flight>, ack: Option<&PushAck>) -> Result<()> {
        for (edit, outcome) in outcomes(flight, ack) {
            match (edit, outcome) {
                (Edit::Data { node, .. }, Outcome::Copied { copy, .. }) => {
                    self.copied(*node, *copy)?;
                }
                (_, Outcome::Alias { from, to }) => self.aliased(*from, *to)?,
                _ => {}
            }
        }
        let seq = ack.map_or(NEVER, |ack| ack.seq);
        self.freeze(seq)
    }

    /// What the replica wrote is in a copy: the inode becomes the copy's, with
    /// its open handles, and the node gets another (R12).
    fn copied(&mut self, node: NodeId, copy: NodeId) -> Result<()> {
        let Some(here) = self.local.live(node)? else {
            // What was removed is the copy; the other content was never seen.
            if self.shared.record(node)?.is_some_and(|r| r.gone.is_none()) {
                self.frozen.insert(Register::Data(node), Base::Data(NEVER));
                self.nodes.remove(&node);
            }
            return Ok(());
        };
        for place in self.local.places(here.ino)? {
            // Edits of names are of the node, not of the copy.
            if matches!(self.names.get(&place), Some(Seen::Edited(_))) {
                self.forced.insert(place, Some(node));
            }
        }
        self.local.bind(here.ino, copy)?;
        self.move_notes(node, copy)?;
        // Whoever removed other names of it has not seen what it holds now.
        self.frozen.insert(Register::Data(node), Base::Data(NEVER));
        Ok(())
    }

    pub(super) fn move_notes(&mut self, from: NodeId, to: NodeId) -> Result<()> {
        let moved = self.nodes.remove(&from);
        self.nodes.remove(&to);
        self.frozen.remove(&Register::Data(from));
        if let Some(mut moved) = moved {
            if let Some(here) = &mut moved.here {
                here.id = to;
            }
            moved.meta.get_or_insert(MetaFields::NONE);
            let names = moved.here.iter().flat_map(|here| here.xattrs.keys());
            for name in names.cloned().collect::<Vec<_>>() {
                moved.xattrs.entry(name).or_insert(false);
            }
            for (name, _, _) in self.shared.attributes(to)? {
                moved.xattrs.entry(name).or_insert(false);
            }
            self.nodes.insert(to, moved);
        }
        Ok(())
    }

    /// Another node stands for one that was made here: it gets the inode, if it
    /// has none (R4).
    pub(super) fn aliased(&mut self, from: NodeId, to: NodeId) -> Result<()> {
        let Some(here) = self.local.live(from)? else {
            return Ok(());
        };
        if self.local.ino(to)?.is_some() {
            self.clash = true;
            return Ok(());
        }
        self.local.bind(here.ino, to)?;
        self.move_notes(from, to)?;
        // What was looked at when nothing stood for the node here.
        for (place, seen) in self.names.iter_mut().filter(|(place, _)| place.0 == to) {
            if self.local.at(place)?.is_some() {
                *seen = Seen::Edited(None);
            }
        }
        let below = self.names.keys().filter(|place| place.0 == from).cloned();
        for place in below.collect::<Vec<_>>() {
            if let Some(seen) = self.names.remove(&place) {
                self.names.insert((to, place.1), seen);
            }
        }
        let frozen = self
            .frozen
            .keys()
            .filter(|key| matches!(key, Register::Name { parent, .. } if *parent == from));
        for register in frozen.cloned().collect::<Vec<_>>() {
            self.frozen.remove(&register);
        }
        if here.kind == NodeKind::Dir {
            self.note_children(to)?;
        }
        Ok(())
    }

    /// Notes what the hub has in a directory that is new here.
    pub(super) fn note_children(&mut self, dir: NodeId) -> Result<Vec<Place>> {
        const PAGE: usize = 1_000;
        let mut after = None;
        let mut new = Vec::new();
        loop {
            let page = self.shared.children(dir, after.as_ref(), PAGE)?;
            for (name, _, _) in &page {
                let place = (dir, name.clone());
                if !self.names.contains_key(&place) && !self.is_ignored(&place)? {
                    let seen = match self.local.at(&place)? {
                        None => Seen::Clean,
                        Some(_) => Seen::Edited(None),
                    };
                    self.names.insert(place.clone(), seen);
                    new.push(place);
                }
            }
            match page.last() {
                Some((name, _, _)) if page.len() == PAGE => after = Some(name.clone()),
                _ => return Ok(new),
            }
        }
    }

    /// Keeps what the editors of registers saw that others changed (R11).
    fn freeze(&mut self, seq: Seq) -> Result<()> {
        for (place, seen) in &self.names {
            let register = Register::Name {
                parent: place.0,
                name: place.1.clone(),
            };
            let now = self.shared.name(place)?.and_then(|(node, _)| node);
            match seen {
                Seen::Edited(was) if !self.is_here(place, now)? => {
                    if *was != now || self.frozen.contains_key(&register) {
                        self.frozen.insert(register, Base::Name(*was));
                    }
                }
                _ => drop(self.frozen.remove(&register)),
            }
        }
        for (node, noted) in &self.nodes {
            let Some(seen) = noted.data else { continue };
            let now = version(self.shared.record(*node)?.as_ref());
            let base = match seen {
                Seen::Clean => now,
                Seen::Edited(DataSeen::Version(ver)) => ver,
                Seen::Edited(DataSeen::Flight) => now.min(seq),
            };
            if base == now {
                self.frozen.remove(&Register::Data(*node));
            } else {
                self.frozen.insert(Register::Data(*node), Base::Data(base));
            }
        }
        Ok(())
    }

    pub(super) fn is_ignored(&self, place: &Place) -> Result<bool> {
        self.paths.is_ignored(&self.local, self.shared, place)
    }

    /// Places that were ignored and are not any more: what the hub has there
    /// is new here, unless something of the same name is.
    pub(super) fn uncover(&mut self, places: &[Place]) -> Result<()> {
        for place in places {
            let there = self.shared.name(place)?.and_then(|(node, _)| node);
            let here = self.local.at(place)?;
            let seen = match here {
                Some(_) if here != there => Seen::Edited(None),
                _ => Seen::Clean,
            };
            self.names.insert(place.clone(), seen);
            if let Some(dir) = there.filter(|_| here != there) {
                self.leave_others(dir, place)?;
            }
            if let Some(node) = here.filter(|_| here == there) {
                // It was followed no longer: what is here was based on nothing known.
                self.note_data(node)?;
                let noted = self.nodes.get_mut(&node);
                if let Some(Noted {
                    data: Some(seen), ..
                }) = noted
                    && *seen != Seen::Clean
                {
                    *seen = Seen::Edited(DataSeen::Version(NEVER));
                }
            }
        }
        Ok(())
    }

    /// A directory comes to a place: it has stayed where it was while that was
    /// ignored, and goes from there.
    fn leave_others(&mut self, dir: NodeId, place: &Place) -> Result<()> {
        let Some(here) = self.local.live(dir)?.filter(|h| h.kind == NodeKind::Dir) else {
            return Ok(());
        };
        for other in self.local.places(here.ino)? {
            if other != *place {
                self.names.insert(other, Seen::Clean);
            }
        }
        Ok(())
    }

    fn is_here(&self, place: &Place, node: Option<NodeId>) -> Result<bool> {
        Ok(self.local.at(place)? == node)
    }

    /// What each place that is touched stands for from now on. Sets
    /// [`Self::clash`] where two meet.
    pub(super) fn name_targets(&mut self) -> Result<BTreeMap<Place, Option<NodeId>>> {
        let mut targets = BTreeMap::new();
        for (place, seen) in &self.names {
            if self.is_ignored(place)? {
                continue;
            }
            if let Some(replayed) = &self.replayed {
                let target = match replayed.names.get(place) {
                    Some(node) => *node,
                    None => self.shared.name(place)?.and_then(|(node, _)| node),
                };
                targets.insert(place.clone(), target);
                continue;
            }
            if let Some(node) = self.forced.get(place) {
                targets.insert(place.clone(), *node);
                continue;
            }
            let now = self.shared.name(place)?.and_then(|(node, _)| node);
            match seen {
                Seen::Clean => drop(targets.insert(place.clone(), now)),
                Seen::Edited(was) => {
                    self.clash |= *was != now && !self.is_here(place, now)?;
                }
            }
        }
        Ok(targets)
    }

    /// Whether what is here of a node's content is lost if the node ends.
    pub(super) fn is_edited(&self, node: NodeId) -> bool {
        let noted = self.nodes.get(&node).and_then(|noted| noted.data);
        matches!(noted, Some(Seen::Edited(_)))
    }

    /// The content that a node that is here gets, if it gets another.
    pub(super) fn data_target(&self, node: NodeId, noted: &Noted) -> Result<Option<Data>> {
        let (Some(here), Some(seen)) = (&noted.here, noted.data) else {
            return Ok(None);
        };
        let target = match (&self.replayed, seen) {
            (Some(replayed), _) if replayed.data.contains_key(&node) => {
                replayed.data.get(&node).cloned()
            }
            (None, Seen::Edited(_)) => return Ok(None),
            // The replay knows nothing of what is not pushed.
            (Some(_), Seen::Edited(_)) if self.is_ignored_here(here.ino)? => return Ok(None),
            _ => self
                .shared
                .record(node)?
                .and_then(|r| r.data)
                .map(|(_, data)| data),
        };
        Ok(target.filter(|data| Some(data) != here.data.as_ref()))
    }

    /// The attributes that a node that is here gets, if they are others.
    pub(super) fn meta_target(&self, node: NodeId, noted: &Noted) -> Result<Option<Meta>> {
        let (Some(here), Some(edited)) = (&noted.here, noted.meta) else {
            return Ok(None);
        };
        let there = self
            .shared
            .record(node)?
            .and_then(|r| r.meta)
            .map(|(_, meta)| meta);
        let target = match &self.replayed {
            Some(replayed) => replayed.metas.get(&node).copied().or(there),
            None => there.map(|there| edited.take(&there, &here.meta)),
        };
        Ok(target.filter(|meta| *meta != here.meta))
    }

    /// The extended attributes of it that become others.
    pub(super) fn xattr_targets(
        &self,
        node: NodeId,
        noted: &Noted,
    ) -> Result<Vec<(XattrName, Option<Bytes>)>> {
        let mut targets = Vec::new();
        let Some(here) = &noted.here else {
            return Ok(targets);
        };
        for (name, edited) in &noted.xattrs {
            let replayed = self.replayed.as_ref();
            let target = match replayed.map(|all| all.xattrs.get(&(node, name.clone()))) {
                Some(Some(value)) => value.clone(),
                None if *edited => continue,
                _ => self
                    .shared
                    .attribute(node, name)?
                    .and_then(|(value, _)| value),
            };
            if target.as_ref() != here.xattrs.get(name) {
                targets.push((name.clone(), target));
            }
        }
        Ok(targets)
    }
}

/// An inode that nobody has.
pub(super) fn reserve(inner: &Inner) -> Ino {
    let mut tree = inner.tree.lock();
    let ino = Ino(tree.next_ino);
    tree.next_ino += 1;
    ino
}

pub(super) fn outcomes<'f>(
    flight: Option<&'f Flight>,
    ack: Option<&'f PushAck>,
) -> impl Iterator<Item = (&'f Edit, &'f Outcome)> {
    let outcomes = ack.into_iter().flat_map(|ack| ack.outcomes.iter());
    outcomes.filter_map(move |(edit, outcome)| Some((flight?.edits.get(*edit as usize)?, outcome)))
}
