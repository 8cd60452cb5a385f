//! What a transfer as a whole says beyond its changes: what a whole tree leaves
//! out has ended, and what takes most of the tree away has to be asked for.
//!
//! Of a transfer after a reset, everything that it names is in memory here:
//! about 100 bytes a node.

use std::collections::{BTreeMap, BTreeSet};

use cairn_protocol::merge::Place;
use cairn_protocol::session::Applied;
use cairn_protocol::{Change, Entry, NodeId, XattrName};

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

/// Adds the ends of nodes of a whole transfer that have no name in it: they are
/// told for those who may know them.
pub(super) fn end_unplaced(ver: u64, changes: &Spool, more: &mut Vec<Change>) -> Result<()> {
    let mut places: BTreeMap<Place, Option<NodeId>> = BTreeMap::new();
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    for page in changes.pages() {
        for Change { entry, .. } in &*page? {
            match entry {
                Entry::Node { id, .. } => drop(nodes.insert(*id)),
                Entry::Name { parent, name, node } => {
                    places.insert((*parent, name.clone()), *node);
                }
                _ => {}
            }
        }
    }
    for node in places.values().flatten() {
        nodes.remove(node);
    }
    nodes.remove(&NodeId::ROOT);
    let ver = ver.saturating_add(1);
    let ends = nodes.into_iter().map(|node| Change {
        ver,
        entry: Entry::Gone { node },
    });
    more.extend(ends);
    Ok(())
}

/// Adds the ends of what a whole transfer does not have: it is of the same
/// life of the hub, so what is absent was removed.
pub(super) fn bury_absent(
    shared: Shared<'_>,
    ver: u64,
    changes: &Spool,
    more: &mut Vec<Change>,
) -> Result<()> {
    const PAGE: usize = 1_000;
    let mut names: BTreeSet<Place> = BTreeSet::new();
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    let mut xattrs: BTreeSet<(NodeId, XattrName)> = BTreeSet::new();
    for page in changes.pages() {
        for Change { entry, .. } in &*page? {
            match entry {
                Entry::Name { parent, name, node } => {
                    names.insert((*parent, name.clone()));
                    // What has no name has ended, whatever else is told of it.
                    nodes.extend(node);
                }
                Entry::Xattr { node, name, .. } => drop(xattrs.insert((*node, name.clone()))),
                _ => {}
            }
        }
    }
    let mut after: Option<Place> = None;
    loop {
        let page = shared.names(after.as_ref(), PAGE)?;
        for (place, node, _) in &page {
            if node.is_some() && !names.contains(place) {
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
                if value.is_some() && !xattrs.contains(&(node, name.clone())) {
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
