//! The edits that lead from the confirmed tree to the working tree.
//!
//! Nothing is noted when a program changes something: the replica's own log
//! says which registers may differ, and a look at both trees says how. What is
//! equal by now is no edit, so nothing that came from the hub goes back.
//!
//! A batch has to make sense alone. So what a register leads to comes along:
//! a new node with its registers and all of its places, the directories that a
//! place needs, all places of a node that moves, what is in a directory that
//! ends.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cairn_protocol::merge::Place;
use cairn_protocol::{Data, Edit, MetaFields, Name, NodeId, NodeKind, Register, XattrName};
use rustc_hash::FxHashMap;

use super::draft::Aloft;
use super::ignore::Paths;
use super::local::{Here, Local};
use super::outsized::CHUNKS_MAX;
use super::state::{Base, Frozen};
use crate::Result;
use crate::attr::Ino;
use crate::shared::{Highest, Record, Shared};

/// How much a batch takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) edits: usize,
    /// Of the encodings of the edits.
    pub(super) bytes: usize,
    /// Of the contents.
    pub(super) content: u64,
}

impl Bounds {
    pub(super) const NONE: Self = Self {
        edits: usize::MAX,
        bytes: usize::MAX,
        content: u64::MAX,
    };
}

#[derive(Debug)]
pub(super) enum Work {
    Place(Place),
    /// A place, and what is there here.
    At(Place, NodeId),
    Node(Ino),
}

/// What is known not to be edited, although it is not what the hub has: it will
/// be, for the hub has just changed it.
pub(super) trait Untouched {
    fn name(&self, place: &Place) -> Result<bool>;
    fn data(&self, node: NodeId) -> bool;
    /// The attributes that may be edited.
    fn meta(&self, node: NodeId) -> MetaFields;
    fn xattr(&self, node: NodeId, name: &XattrName) -> bool;
}

/// Collects edits.
pub(super) struct Edits<'a> {
    pub(super) local: &'a Local<'a>,
    pub(super) shared: Shared<'a>,
    pub(super) frozen: &'a Frozen,
    paths: &'a Paths<'a>,
    /// For a replay: what is not sealed counts, too, with what it was before.
    pub(super) replay: Option<&'a dyn Untouched>,
    /// For a draft: what is in flight, and whether the draft ends before this.
    pub(super) aloft: Option<&'a Aloft<'a>>,
    pub(super) blocked: bool,
    pub(super) list: Vec<Edit>,
    /// Frozen registers that do not differ any more.
    pub(super) settled: Vec<Register>,
    /// Something is as its editor saw it again, and others changed it since.
    pub(super) stale: bool,
    pub(super) seen_places: BTreeSet<Place>,
    pub(super) seen_nodes: BTreeSet<u64>,
    spread: BTreeSet<NodeId>,
    dropped: BTreeSet<NodeId>,
    known: BTreeMap<NodeId, bool>,
    /// Files whose contents have more new chunks than a batch may: they wait
    /// until they have fewer, and everything else goes on.
    pub(super) outsized: BTreeSet<NodeId>,
    pub(super) chunks_max: usize,
    /// Most of what is pushed is new, and of that the hub's tree need not be
    /// asked: it says nothing of a node above all that it knows of a replica.
    highest: Highest,
    /// The ids of directories.
    dirs: FxHashMap<u64, NodeId>,
    /// The inodes of nodes, and the node that was looked at last: each is asked
    /// for several times in a row.
    inodes: FxHashMap<NodeId, Option<Ino>>,
    last: Option<Rc<Here>>,
    pub(super) work: Vec<Work>,
    bytes: usize,
    content: u64,
}

impl<'a> Edits<'a> {
    pub(super) fn new(
        local: &'a Local<'a>,
        shared: Shared<'a>,
        frozen: &'a Frozen,
        paths: &'a Paths<'a>,
        replay: Option<&'a dyn Untouched>,
    ) -> Self {
        Self {
            local,
            shared,
            frozen,
            paths,
            replay,
            aloft: None,
            blocked: false,
            list: Vec::new(),
            settled: Vec::new(),
            stale: false,
            seen_places: BTreeSet::new(),
            seen_nodes: BTreeSet::new(),
            spread: BTreeSet::new(),
            dropped: BTreeSet::new(),
            known: BTreeMap::new(),
            outsized: BTreeSet::new(),
            chunks_max: CHUNKS_MAX,
            highest: Highest::default(),
            dirs: FxHashMap::default(),
            inodes: FxHashMap::default(),
            last: None,
            work: Vec::new(),
            bytes: 0,
            content: 0,
        }
    }

    /// The same with another bound for the new chunks of a file.
    pub(super) fn with_chunks_max(self, chunks_max: usize) -> Self {
        Self { chunks_max, ..self }
    }

    /// Bytes of the contents.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    pub(super) fn is_full(&self, bounds: &Bounds) -> bool {
        self.list.len() >= bounds.edits
            || self.bytes >= bounds.bytes
            || self.content >= bounds.content
    }

    /// Does what is to be done. `false` when a directory that ends has more in
    /// it than there is room for: then the same has to be looked at again.
    pub(super) fn follow(&mut self, bounds: &Bounds) -> Result<bool> {
        while let Some(work) = self.work.pop() {
            let done = match work {
                Work::Place(place) => self.place(place, None, bounds)?,
                Work::At(place, node) => self.place(place, Some(node), bounds)?,
                Work::Node(ino) => self.node(ino).map(|()| true)?,
            };
            if !done {
                self.work.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The id of a directory.
    pub(super) fn dir(&mut self, ino: Ino) -> Result<NodeId> {
        if let Some(id) = self.dirs.get(&ino.0) {
            return Ok(*id);
        }
        let id = self.local.id(ino)?;
        self.dirs.insert(ino.0, id);
        Ok(id)
    }

    /// The inode of a node.
    pub(super) fn ino(&mut self, id: NodeId) -> Result<Option<Ino>> {
        if let Some(ino) = self.inodes.get(&id) {
            return Ok(*ino);
        }
        let ino = self.local.ino(id)?;
        self.inodes.insert(id, ino);
        Ok(ino)
    }

    /// A node that is here.
    fn here(&mut self, ino: Ino) -> Result<Option<Rc<Here>>> {
        if let Some(last) = self.last.as_ref().filter(|last| last.ino == ino) {
            return Ok(Some(Rc::clone(last)));
        }
        let here = self.local.node(ino)?.map(Rc::new);
        if let Some(here) = &here {
            self.inodes.insert(here.id, Some(ino));
            self.last = Some(Rc::clone(here));
        }
        Ok(here)
    }

    /// A node that is here and has a name.
    fn live(&mut self, id: NodeId) -> Result<Option<Rc<Here>>> {
        let Some(ino) = self.ino(id)? else {
            return Ok(None);
        };
        Ok(self.here(ino)?.filter(|here| here.nlink > 0))
    }

    /// Which node is at a place here.
    pub(super) fn at(&mut self, place: &Place) -> Result<Option<NodeId>> {
        let Some(parent) = self.ino(place.0)? else {
            return Ok(None);
        };
        let found = self.local.name(parent, &self.local.key(&place.1))?;
        let Some((ino, _)) = found else {
            return Ok(None);
        };
        match self.here(ino)? {
            Some(here) => Ok(Some(here.id)),
            None => self.local.id(ino).map(Some),
        }
    }

    /// What the hub has of a node.
    pub(super) fn record(&mut self, node: NodeId) -> Result<Option<Record>> {
        if self.is_above(node)? {
            return Ok(None);
        }
        self.shared.record(node)
    }

    /// Whether the hub has never heard of a node, nor of any after it.
    pub(super) fn is_above(&mut self, node: NodeId) -> Result<bool> {
        let root = node == NodeId::ROOT;
        Ok(!root && self.highest.is_new(self.shared, "shared_node", node)?)
    }

    fn is_known(&mut self, node: NodeId) -> Result<bool> {
        if let Some(known) = self.known.get(&node) {
            return Ok(*known);
        }
        // One that has ended there may be forgotten (RST-4).
        let record = self.record(node)?;
        let known = record.is_some_and(|record| record.gone.is_none())
            || self.aloft.is_some_and(|aloft| aloft.makes(node));
        self.known.insert(node, known);
        Ok(known)
    }

    pub(super) fn push(&mut self, edit: Edit) {
        self.bytes += 96
            + match &edit {
                Edit::Name { name, .. } => name.as_bytes().len(),
                Edit::Xattr { name, value, .. } => {
                    name.as_bytes().len() + value.as_ref().map_or(0, bytes::Bytes::len)
                }
                Edit::Data { data, .. } => match data {
                    Data::File { manifest, .. } => manifest.as_bytes().len(),
                    Data::Inline { bytes } | Data::Symlink { target: bytes } => bytes.len(),
                    Data::Dir | Data::Special { .. } => 0,
                },
                _ => 0,
            };
        if let Edit::Data { data, .. } = &edit {
            self.content += data.size();
        }
        self.list.push(edit);
    }

    pub(super) fn settle(&mut self, register: Register) {
        if !self.stale && self.frozen.contains_key(&register) {
            self.settled.push(register);
        }
    }

    /// Looks at a place, and which node is `here`, if that is known.
    fn place(&mut self, place: Place, here: Option<NodeId>, bounds: &Bounds) -> Result<bool> {
        let untouched = self.replay.map(|replay| replay.name(&place)).transpose()?;
        if untouched == Some(true)
            || self.seen_places.contains(&place)
            || self.is_ignored(&place)?
        {
            return Ok(true);
        }
        if self.is_place_aloft(&place, here)? {
            return Ok(true);
        }
        let register = Register::Name {
            parent: place.0,
            name: place.1.clone(),
        };
        let there = if self.is_above(place.0)? {
            None
        } else {
            self.shared.name(&place)?.and_then(|(node, _)| node)
        };
        let was = match self.frozen.get(&register) {
            Some(Base::Name(was)) => *was,
            _ => there,
        };
        let node = match here {
            Some(node) => Some(node),
            None => self.at(&place)?,
        };
        if was == node {
            self.stale |= there != node;
            self.settle(register);
            return Ok(true);
        }
        if self.ends_draft(was, node) {
            return Ok(true);
        }
        if let Some(node) = node
            && self.waits(node)?
        {
            return Ok(true);
        }
        if let Some(was) = was
            && !self.make_way(was, bounds)?
        {
            return Ok(false);
        }
        self.seen_places.insert(place.clone());
        if !self.is_known(place.0)?
            && let Some(ino) = self.ino(place.0)?
        {
            self.work.push(Work::Node(ino));
        }
        for node in [was, node].into_iter().flatten() {
            if !self.spread.contains(&node) {
                let ino = self.ino(node)?;
                self.all_places(node, ino)?;
            }
        }
        let (parent, name) = place;
        self.push(Edit::Name {
            parent,
            name,
            was,
            node,
        });
        Ok(true)
    }

    fn is_ignored(&self, place: &Place) -> Result<bool> {
        self.paths.is_ignored(self.local, self.shared, place)
    }

    /// Whether no place of a node here counts.
    fn is_hidden(&self, ino: Ino) -> Result<bool> {
        if ino == Ino::ROOT {
            return Ok(false);
        }
        for place in self.local.places(ino)? {
            if !self.is_ignored(&place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node is new and its content is not sealed: nothing is said of
    /// it before.
    fn waits(&mut self, node: NodeId) -> Result<bool> {
        if self.replay.is_some() || self.is_known(node)? {
            return Ok(false);
        }
        let Some(here) = self.live(node)? else {
            return Ok(true);
        };
        Ok(here.unsealed || self.is_outsized(&here)?)
    }

    /// A node and all of its places, here and at the hub.
    fn all_places(&mut self, node: NodeId, ino: Option<Ino>) -> Result<()> {
        if !self.spread.insert(node) {
            return Ok(());
        }
        let mut there = if self.is_above(node)? {
            Vec::new()
        } else {
            self.shared.places_of(node)?
        };
        if let Some(ino) = ino {
            let mut dirs = std::mem::take(&mut self.dirs);
            let here = self.local.places_with(ino, &mut dirs);
            self.dirs = dirs;
            let here = here?;
            there.retain(|place| !here.contains(place));
            let new = here.into_iter().filter(|p| !self.seen_places.contains(p));
            self.work.extend(new.map(|place| Work::At(place, node)));
            if !self.is_known(node)? {
                self.work.push(Work::Node(ino));
            }
        }
        let new = there.into_iter().filter(|p| !self.seen_places.contains(p));
        self.work.extend(new.map(Work::Place));
        Ok(())
    }

    /// A name is taken from a node: if it has none left, it ends, after what is
    /// in it. `false` when there is no room for that.
    fn make_way(&mut self, node: NodeId, bounds: &Bounds) -> Result<bool> {
        if self.dropped.contains(&node) {
            return Ok(true);
        }
        if let Some(ino) = self.ino(node)?
            && !self.is_hidden(ino)?
        {
            return Ok(true);
        }
        let record = self.shared.record(node)?;
        if record.as_ref().is_some_and(|r| r.kind == NodeKind::Dir) && !self.empty(node, bounds)? {
            return Ok(false);
        }
        self.dropped.insert(node);
        let data_base = match self.frozen.get(&Register::Data(node)) {
            Some(Base::Data(ver)) => *ver,
            _ => record.and_then(|r| r.data).map_or(0, |(ver, _)| ver),
        };
        self.push(Edit::Drop { node, data_base });
        Ok(true)
    }

    /// Takes away what the hub has in a directory.
    fn empty(&mut self, dir: NodeId, bounds: &Bounds) -> Result<bool> {
        const PAGE: usize = 1_000;
        let mut after: Option<Name> = None;
        loop {
            let page = self.shared.children(dir, after.as_ref(), PAGE)?;
            for (name, _, _) in &page {
                if self.is_full(bounds) {
                    return Ok(false);
                }
                if !self.place((dir, name.clone()), None, bounds)? {
                    return Ok(false);
                }
            }
            match page.last() {
                Some((name, _, _)) if page.len() == PAGE => after = Some(name.clone()),
                _ => return Ok(true),
            }
        }
    }

    fn node(&mut self, ino: Ino) -> Result<()> {
        if !self.seen_nodes.insert(ino.0) {
            return Ok(());
        }
        let Some(here) = self.here(ino)?.filter(|here| here.nlink > 0) else {
            return Ok(());
        };
        if self.paths.may_ignore() && self.is_hidden(ino)? {
            return Ok(());
        }
        if self.is_aloft(&here) {
            return Ok(());
        }
        let record = self.record(here.id)?;
        let lives = record.as_ref().is_some_and(|record| record.gone.is_none());
        let waits = here.unsealed || (!lives && self.is_outsized(&here)?);
        if !lives && waits && self.replay.is_none() {
            self.seen_nodes.remove(&ino.0);
            return Ok(());
        }
        if !lives && record.is_some() && self.is_left_alone(&here)? {
            return Ok(());
        }
        let record = record.unwrap_or_else(|| Record::new(here.kind, 0));
        if !lives {
            let (node, kind) = (here.id, here.kind);
            self.push(Edit::New { node, kind });
        }
        self.registers(&here, &record, !lives)?;
        if !lives {
            self.all_places(here.id, Some(here.ino))?;
        }
        Ok(())
    }

    /// Whether a node that the hub has just ended has its content and its names as
    /// the hub had them: edits of its attributes alone do not bring it back (R10).
    fn is_left_alone(&self, here: &Here) -> Result<bool> {
        let Some(replay) = self.replay.filter(|replay| replay.data(here.id)) else {
            return Ok(false);
        };
        for place in self.local.places(here.ino)? {
            if !replay.name(&place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
