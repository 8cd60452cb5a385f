//! What a replica of the model does when its cursor leads nowhere.
//!
//! The hub was restored from a backup, or is another. That it lacks something
//! does not mean that somebody removed it, and that it has something else does
//! not mean that somebody wrote it later. So what it lacks is made again, what
//! differs is kept twice, and what was edited here is edited again: all as edits
//! of the hub's tree, resolved by the hub's own rules.
//!
//! Or the hub has forgotten what happened after the cursor. Then what it lacks
//! was removed, and what it has was written later: only what was edited here is
//! edited again.

use std::collections::{BTreeMap, BTreeSet};

use super::hub::Ack;
use super::replica::{Base, Dirty, ModelReplica, NEVER, forget_values};
use super::tree::ModelTree;
use crate::change::Change;
use crate::cursor::{Seq, Ver};
use crate::edit::{Edit, MetaFields};
use crate::id::NodeId;
use crate::merge::{Place, TreeView, resolve};
use crate::name::Name;
use crate::outcome::{Outcome, Refusal};
use crate::register::{NodeKind, Register};
use crate::wire::Why;

impl ModelReplica {
    /// The cursor leads nowhere. The hub knows batches up to `last_batch`.
    pub fn reset(&mut self, why: Why, last_batch: u64) {
        let worse = self.begins_anew.filter(|before| *before != Why::Horizon);
        let why = worse.unwrap_or(why);
        self.begins_anew = Some(why);
        if why == Why::Horizon {
            // It is the same hub, and answers what is in flight.
            return;
        }
        if let Some(flight) = self.flight.take() {
            let later = std::mem::replace(&mut self.dirty, flight.dirty);
            self.dirty.join(later);
            // What was dropped and lives is there by the name that others gave it.
            let local = &self.local;
            let drops = &mut self.dirty.drops;
            drops.retain(|node, _| !local.is_live(*node));
            for node in drops.keys() {
                forget_values(&mut self.dirty.bases, *node);
            }
        }
        self.batches = last_batch;
    }

    /// Why the next cut is the whole tree of the hub, if it is.
    pub fn begins_anew(&self) -> Option<Why> {
        self.begins_anew
    }

    /// The whole tree of the hub came, and the answer to what was in flight.
    pub(super) fn begin_anew(
        &mut self,
        why: Why,
        head: Seq,
        changes: &[Change],
        ack: Option<&Ack>,
    ) {
        let mut tree = ModelTree::new();
        for Change { ver, entry } in changes {
            tree.apply(*ver, entry);
        }
        if let Some(ack) = ack {
            self.land(&mut tree, ack);
        }
        let same_history = why == Why::Horizon && self.safe.absence;
        let edits = self.edits_of(&tree, same_history);
        let (replica, minted) = (self.tag(), &mut self.minted);
        let mut mint = || {
            *minted += 1;
            let counter = *minted;
            NodeId { replica, counter }
        };
        let resolution = match resolve(&tree, &edits, replica, &mut mint) {
            Ok(resolution) => resolution,
            Err(error) => {
                debug_assert!(
                    false,
                    "a replica's own edits make sense: {error:?}: {edits:?}"
                );
                return;
            }
        };
        self.local = tree.clone();
        self.local.commit(0, &resolution);
        (self.confirmed, self.cursor) = (tree, head);
        self.dirty = self.difference();
    }

    /// Takes the answer to the batch in flight: what it did is in the tree, as far
    /// as nobody has changed it since. Later edits of what was in it are based on
    /// the answer (R11), but those of a content that went to a copy on nothing.
    fn land(&mut self, tree: &mut ModelTree, ack: &Ack) {
        let Some(flight) = self.flight.take_if(|flight| flight.batch == ack.batch) else {
            return;
        };
        let mut copied = BTreeSet::new();
        for (edit, outcome) in &ack.outcomes {
            match (&flight.edits[*edit], outcome) {
                (Edit::Data { node, .. }, Outcome::Copied { .. }) => drop(copied.insert(*node)),
                // What it was an alias of may be forgotten: then it is made again.
                (_, Outcome::Alias { from, to }) if tree.kind(*to).is_some() => {
                    tree.aliases.insert(*from, *to);
                }
                (
                    edit,
                    Outcome::Refused {
                        why: Refusal::Unknown,
                    },
                ) => self.edit_again(edit),
                _ => {}
            }
        }
        let landed = |node: &NodeId| {
            let unseen = copied.contains(node) || version(tree, *node) > ack.seq;
            Base::Landed(if unseen { NEVER } else { version(tree, *node) })
        };
        for (register, base) in &mut self.dirty.bases {
            if let (Register::Data(node), Base::Flight) = (register, &base) {
                *base = landed(node);
            }
        }
        for (node, base) in &mut self.dirty.drops {
            if *base == Base::Flight {
                *base = landed(node);
            }
        }
    }

    /// The hub has forgotten what was edited, so nothing came of the edit: it is
    /// one that was not pushed (RST-2).
    fn edit_again(&mut self, edit: &Edit) {
        let (register, base) = match edit {
            Edit::Data { node, .. } if self.local.is_live(*node) => {
                (Register::Data(*node), Base::Ver(NEVER))
            }
            Edit::Name {
                parent,
                name,
                was,
                node: node @ Some(_),
            } if self.local.at(&(*parent, name.clone())) == *node => {
                let (parent, name) = (*parent, name.clone());
                (Register::Name { parent, name }, Base::Name(*was))
            }
            _ => return,
        };
        self.dirty.bases.entry(register).or_insert(base);
    }

    /// The edits of the hub's tree that bring back what was here. What was not
    /// edited here is as it was at the cursor, which the local tree may not show
    /// yet (R14).
    fn edits_of(&self, hub: &ModelTree, same_history: bool) -> Vec<Edit> {
        let mut names = self.dirty_names();
        let mut needed: Vec<NodeId> = names
            .iter()
            .flat_map(|(place, (_, node))| node.iter().map(|node| (place.0, *node)))
            .flat_map(|(parent, node)| [parent, node])
            .collect();
        needed.extend(
            self.dirty
                .bases
                .keys()
                .filter_map(|register| match register {
                    Register::Data(node) => Some(*node),
                    _ => None,
                }),
        );
        if !same_history {
            let dropped = |node: &NodeId| self.dirty.drops.contains_key(node);
            let live = self.confirmed.live().map(|(node, _)| node);
            needed.extend(live.filter(|node| !dropped(node)));
        }
        let mut known = BTreeSet::new();
        while let Some(node) = needed.pop() {
            if known.insert(node) && !hub.is_live(node) {
                needed.extend(self.place_again(node, &mut names));
            }
        }
        let mut edits = Vec::new();
        for node in known {
            self.values_of(hub, node, same_history, &mut edits);
        }
        for (place, (was, node)) in names {
            if hub.at(&place) != node {
                let (parent, name) = place;
                edits.push(Edit::Name {
                    parent,
                    name,
                    // It was there before, and is to be there again.
                    was: was.filter(|was| Some(*was) != node),
                    node,
                });
            }
        }
        let known = self.dirty.drops.iter();
        for (node, base) in known.filter(|(node, _)| hub.is_live(**node)) {
            edits.push(Edit::Drop {
                node: *node,
                data_base: self.base(hub, *node, *base),
            });
        }
        edits
    }

    fn dirty_names(&self) -> BTreeMap<Place, Renaming> {
        let mut names = BTreeMap::new();
        for (register, base) in &self.dirty.bases {
            if let (Register::Name { parent, name }, Base::Name(was)) = (register, base) {
                let place = (*parent, name.clone());
                let node = self.local.at(&place);
                names.insert(place, (*was, node));
            }
        }
        names
    }

    /// Gives a node that the hub lacks its names again. Returns the directories
    /// that they are in.
    fn place_again(&self, node: NodeId, names: &mut BTreeMap<Place, Renaming>) -> Vec<NodeId> {
        let added = |names: &BTreeMap<Place, Renaming>| {
            let mine = names.iter().filter(|(_, (_, n))| *n == Some(node));
            mine.map(|(place, _)| place.0).collect::<Vec<_>>()
        };
        let is_dir = self.local.kind(node) == Some(NodeKind::Dir);
        for tree in [&self.confirmed, &self.local] {
            let Ok(places) = tree.places(node);
            for place in places {
                // A directory has one name, and is not below itself.
                let ends =
                    is_dir && (!added(names).is_empty() || self.leads_to(names, place.0, node));
                if !ends {
                    names.entry(place).or_insert((None, Some(node)));
                }
            }
        }
        if added(names).is_empty() {
            // Its names are gone or are those of others, and still it is needed.
            let name = Name::new(format!("recovered-{node}").as_bytes());
            names.extend(name.map(|name| ((NodeId::ROOT, name), (None, Some(node)))));
        }
        added(names)
    }

    /// Whether a directory is, or would come to be, below another: what was
    /// moved here and what others moved may make a circle.
    fn leads_to(&self, names: &BTreeMap<Place, Renaming>, mut dir: NodeId, above: NodeId) -> bool {
        for _ in 0..=self.local.kinds.len() + self.confirmed.kinds.len() {
            if dir == above {
                return true;
            }
            let added = names.iter().find(|(_, (_, node))| *node == Some(dir));
            let Ok(places) = self.confirmed.places(dir);
            let Some(place) = added.map(|(place, _)| place).or(places.first()) else {
                return false;
            };
            dir = place.0;
        }
        true
    }

    /// The edits of a node's own registers.
    fn values_of(&self, hub: &ModelTree, node: NodeId, same_history: bool, edits: &mut Vec<Edit>) {
        let is_there = hub.is_live(node);
        let dirty = |register| self.dirty.bases.get(&register).copied();
        let source = |is_dirty: bool| {
            let old = self.confirmed.is_live(node) && !is_dirty;
            if old { &self.confirmed } else { &self.local }
        };
        let kind = self.local.kind(node).or_else(|| self.confirmed.kind(node));
        if let Some(kind) = kind.filter(|_| hub.kind(node).is_none()) {
            edits.push(Edit::New { node, kind });
        }
        let base = dirty(Register::Data(node));
        let counts = base.is_some() || !is_there || !same_history;
        let data = source(base.is_some()).content(node);
        if let Some(data) = data.filter(|data| counts && hub.content(node) != Some(*data)) {
            edits.push(Edit::Data {
                node,
                base: base.map_or(NEVER, |base| self.base(hub, node, base)),
                data: data.clone(),
            });
        }
        self.xattrs_of(is_there, node, edits);
        let base = dirty(Register::Meta(node));
        let fields = match base {
            _ if !is_there => MetaFields::ALL,
            Some(Base::Meta(_, fields)) => fields,
            _ => return,
        };
        if let Some(meta) = source(base.is_some()).attributes(node) {
            edits.push(Edit::Meta {
                node,
                base: 0,
                fields,
                meta: *meta,
            });
        }
    }

    /// The edits of a node's extended attributes: those that were edited here, and
    /// of a node that the hub lacks the others, too.
    fn xattrs_of(&self, is_there: bool, node: NodeId, edits: &mut Vec<Edit>) {
        let edited = self
            .dirty
            .bases
            .keys()
            .filter_map(|register| match register {
                Register::Xattr { node: of, name } if *of == node => Some(name),
                _ => None,
            });
        let mut values: BTreeMap<_, _> = edited
            .map(|name| (name, self.local.xattr_of(node, name)))
            .collect();
        if !is_there {
            let live = self.confirmed.is_live(node);
            let tree = if live { &self.confirmed } else { &self.local };
            for ((_, name), value) in tree.xattrs_of(node) {
                values.entry(name).or_insert(Some(value));
            }
        }
        edits.extend(values.into_iter().map(|(name, value)| Edit::Xattr {
            node,
            name: name.clone(),
            base: 0,
            value: value.cloned(),
        }));
    }

    /// The version at the hub of the content that an editor saw, if it is still
    /// that.
    fn base(&self, hub: &ModelTree, node: NodeId, base: Base) -> Ver {
        if let Base::Landed(ver) = base {
            return ver;
        }
        let saw = base == Base::Ver(version(&self.confirmed, node));
        if saw && hub.content(node) == self.confirmed.content(node) {
            version(hub, node)
        } else {
            NEVER
        }
    }
}

/// What was seen at a name, and what is there now.
type Renaming = (Option<NodeId>, Option<NodeId>);

impl Dirty {
    /// Adds what was edited later. What was seen first counts.
    fn join(&mut self, later: Self) {
        for (register, base) in later.bases {
            self.bases.entry(register).or_insert(base);
        }
        for (node, base) in later.drops {
            let base = if base == Base::Flight {
                Base::Ver(NEVER)
            } else {
                base
            };
            self.drops.entry(node).or_insert(base);
        }
        self.born.extend(later.born);
    }
}

fn version(tree: &ModelTree, node: NodeId) -> Ver {
    tree.data.get(&node).map_or(0, |(ver, _)| *ver)
}
