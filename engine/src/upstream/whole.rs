//! What a transfer as a whole says beyond its changes: what a whole tree leaves
//! out has ended, and what takes most of the tree away has to be asked for.
//!
//! Of a transfer after a reset, a hash of everything that it names is in memory
//! here: some 20 to 40 bytes a name and a node each.

use std::collections::BTreeSet;

use cairn_protocol::merge::Place;
use cairn_protocol::session::Applied;
use cairn_protocol::{Change, Entry, NodeId};
use rustc_hash::FxHashSet;

use super::local::Local;
use super::spool::Spool;
use crate::Result;
use crate::shared::Shared;

/// A tree of fewer nodes may lose most of them without a question.
const HALT_MIN: u64 = 100;

/// A tree of fewer nodes, its root not counted, may lose all of them.
const HALT_ALL_MIN: u64 = 10;

/// Whether a cut takes so much away that somebody has to say that it may: more
/// than half of a large tree, or all of one. What was removed here does not count.
/// After `absence`, what goes was not said to have been removed: it is not there.
pub(super) fn halts(
    shared: Shared<'_>,
    local: &Local<'_>,
    changes: &Spool,
    more: &[Change],
    absence: bool,
) -> Result<Option<Applied>> {
    let mut gone = BTreeSet::new();
    let mut note = |changes: &[Change]| {
        for Change { entry, .. } in changes {
            if let Entry::Gone { node } = entry {
                gone.insert(*node);
            }
        }
    };
    if changes.ends() {
        for page in changes.pages() {
            note(&page?);
        }
    }
    note(more);
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
    let of = shared.count()?;
    let most = of >= HALT_MIN && removed * 2 > of;
    let all = removed >= enough && ended + 1 == of && !comes(changes, &gone)?;
    Ok((most || all).then_some(Applied::Halted { removed, of }))
}

/// Whether a node comes that does not go at once.
fn comes(changes: &Spool, gone: &BTreeSet<NodeId>) -> Result<bool> {
    for page in changes.pages() {
        let new = |change: &Change| match &change.entry {
            Entry::Node { id, .. } => *id != NodeId::ROOT && !gone.contains(id),
            _ => false,
        };
        if page?.iter().any(new) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a transfer names, each as 16 bytes of a hash that nobody outside can make
/// two of: names are long, and there may be many.
struct Named<'a> {
    key: &'a [u8; 32],
    seen: FxHashSet<[u8; 16]>,
}

impl<'a> Named<'a> {
    fn new(key: &'a [u8; 32]) -> Self {
        let seen = FxHashSet::default();
        Self { key, seen }
    }

    fn hash(&self, node: NodeId, name: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(self.key);
        hasher.update(&node.replica.0.to_le_bytes());
        hasher.update(&node.counter.to_le_bytes());
        hasher.update(name);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        hash
    }

    /// Whether it was not there.
    fn add(&mut self, node: NodeId, name: &[u8]) -> bool {
        self.seen.insert(self.hash(node, name))
    }

    fn has(&self, node: NodeId, name: &[u8]) -> bool {
        self.seen.contains(&self.hash(node, name))
    }
}

/// Adds the ends of nodes of a whole transfer that have no name in it: they are
/// told for those who may know them. `key` is a secret one.
pub(super) fn end_unplaced(
    key: &[u8; 32],
    ver: u64,
    changes: &Spool,
    more: &mut Vec<Change>,
) -> Result<()> {
    let mut nodes: FxHashSet<NodeId> = FxHashSet::default();
    for page in changes.pages() {
        let told = |change: &Change| match &change.entry {
            Entry::Node { id, .. } => Some(*id),
            _ => None,
        };
        nodes.extend(page?.iter().filter_map(told));
    }
    // Of a name that is told twice the last counts, so they are looked at backwards.
    let mut names = Named::new(key);
    for page in changes.pages_back() {
        for Change { entry, .. } in page?.iter().rev() {
            if let Entry::Name { parent, name, node } = entry
                && names.add(*parent, name.as_bytes())
                && let Some(node) = node
            {
                nodes.remove(node);
            }
        }
    }
    nodes.remove(&NodeId::ROOT);
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    nodes.sort_unstable();
    let ver = ver.saturating_add(1);
    let ends = nodes.into_iter().map(|node| Change {
        ver,
        entry: Entry::Gone { node },
    });
    more.extend(ends);
    Ok(())
}

/// Adds the ends of what a whole transfer does not have: it is of the same
/// life of the hub, so what is absent was removed. `key` is a secret one.
pub(super) fn bury_absent(
    key: &[u8; 32],
    shared: Shared<'_>,
    ver: u64,
    changes: &Spool,
    more: &mut Vec<Change>,
) -> Result<()> {
    const PAGE: usize = 1_000;
    let (mut names, mut xattrs) = (Named::new(key), Named::new(key));
    let mut nodes: FxHashSet<NodeId> = FxHashSet::default();
    for page in changes.pages() {
        for Change { entry, .. } in &*page? {
            match entry {
                Entry::Name { parent, name, node } => {
                    names.add(*parent, name.as_bytes());
                    // What has no name has ended, whatever else is told of it.
                    nodes.extend(node);
                }
                Entry::Xattr { node, name, .. } => drop(xattrs.add(*node, name.as_bytes())),
                _ => {}
            }
        }
    }
    let mut after: Option<Place> = None;
    loop {
        let page = shared.names(after.as_ref(), PAGE)?;
        for (place, node, _) in &page {
            if node.is_some() && !names.has(place.0, place.1.as_bytes()) {
                let (parent, name) = place.clone();
                let node = None;
                let entry = Entry::Name { parent, name, node };
                more.push(Change { ver, entry });
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
                more.push(Change { ver, entry });
                continue;
            }
            for (name, value, _) in shared.attributes(node)? {
                if value.is_some() && !xattrs.has(node, name.as_bytes()) {
                    let value = None;
                    let entry = Entry::Xattr { node, name, value };
                    more.push(Change { ver, entry });
                }
            }
        }
        match page.last() {
            Some((node, _)) if page.len() == PAGE => after = Some(*node),
            _ => return Ok(()),
        }
    }
}
