//! The names of a tree, as far as a batch has changed them, over the tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, ResolveError, TreeView};
use crate::id::{NodeId, ReplicaTag};
use crate::limits::NAME_MAX;
use crate::name::Name;

pub(super) struct Names<'a, T> {
    pub(super) tree: &'a T,
    by: ReplicaTag,
    changed: BTreeMap<NodeId, BTreeMap<Name, Option<NodeId>>>,
    /// All places of the nodes that were looked at.
    places: BTreeMap<NodeId, BTreeSet<Place>>,
}

type Result<R, T> = std::result::Result<R, ResolveError<<T as TreeView>::Error>>;

impl<'a, T: TreeView> Names<'a, T> {
    pub(super) fn new(tree: &'a T, by: ReplicaTag) -> Self {
        Self {
            tree,
            by,
            changed: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// What a name stands for now.
    pub(super) fn at(&self, place: &Place) -> Result<Option<NodeId>, T> {
        match self.changed.get(&place.0).and_then(|dir| dir.get(&place.1)) {
            Some(node) => Ok(*node),
            None => self.tree.child(place).map_err(ResolveError::Tree),
        }
    }

    /// All places of a node now.
    pub(super) fn places(&mut self, node: NodeId) -> Result<&mut BTreeSet<Place>, T> {
        use std::collections::btree_map::Entry;
        match self.places.entry(node) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(slot) => {
                let places = self.tree.places(node).map_err(ResolveError::Tree)?;
                Ok(slot.insert(places.into_iter().collect()))
            }
        }
    }

    /// Whether something leads to a node, be it from nowhere.
    pub(super) fn has_place(&mut self, node: NodeId) -> Result<bool, T> {
        Ok(node == NodeId::ROOT || !self.places(node)?.is_empty())
    }

    /// The directory that a directory is in.
    pub(super) fn parent(&mut self, dir: NodeId) -> Result<Option<NodeId>, T> {
        Ok(self.places(dir)?.first().map(|place| place.0))
    }

    /// Makes a name stand for a node, or for none.
    pub(super) fn set(&mut self, place: &Place, node: Option<NodeId>) -> Result<(), T> {
        if let Some(old) = self.at(place)? {
            self.places(old)?.remove(place);
        }
        if let Some(new) = node {
            self.places(new)?.insert(place.clone());
        }
        let dir = self.changed.entry(place.0).or_default();
        dir.insert(place.1.clone(), node);
        Ok(())
    }

    /// Whether a directory has entries now.
    pub(super) fn has_child(&self, dir: NodeId) -> Result<bool, T> {
        let changed = self.changed.get(&dir);
        if changed.is_some_and(|names| names.values().any(Option::is_some)) {
            return Ok(true);
        }
        let mut unchanged = |name: &Name| changed.is_none_or(|names| !names.contains_key(name));
        self.tree
            .has_child(dir, &mut unchanged)
            .map_err(ResolveError::Tree)
    }

    /// A free name beside a place, which says whose edit it was: `NAME.conflict-TAG`,
    /// and a number behind it when that is taken, too.
    pub(super) fn free(&self, place: &Place) -> Result<Place, T> {
        let (parent, name) = place;
        let mut number = 1_u64;
        loop {
            let end = if number == 1 {
                format!(".conflict-{}", self.by)
            } else {
                format!(".conflict-{}-{number}", self.by)
            };
            let kept = cut(name.as_bytes(), NAME_MAX - end.len());
            let bytes = [kept, end.as_bytes()].concat();
            // Neither too long nor `.`: it is never refused.
            let free = (*parent, Name::new(&bytes).unwrap_or_else(|_| name.clone()));
            if self.at(&free)?.is_none() {
                return Ok(free);
            }
            number += 1;
        }
    }

    /// The names that stand for something else than in the tree.
    pub(super) fn changed(self) -> Result<Vec<(Place, Option<NodeId>)>, T> {
        let mut changed = Vec::new();
        let names = self.changed.into_iter().flat_map(|(dir, names)| {
            names
                .into_iter()
                .map(move |(name, node)| ((dir, name), node))
        });
        for (place, node) in names {
            if self.tree.child(&place).map_err(ResolveError::Tree)? != node {
                changed.push((place, node));
            }
        }
        Ok(changed)
    }
}

/// The first `max` bytes of a name, or some fewer so as not to end in the middle
/// of a character.
fn cut(name: &[u8], max: usize) -> &[u8] {
    if name.len() <= max {
        return name;
    }
    let begins = |at: &usize| name[*at] & 0xc0 != 0x80;
    let end = (max.saturating_sub(3)..=max).rfind(begins).unwrap_or(max);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_a_long_name_is_cut_between_characters() {
        assert_eq!(cut("abc".as_bytes(), 3), b"abc");
        assert_eq!(cut("abcd".as_bytes(), 3), b"abc");
        assert_eq!(cut("abé".as_bytes(), 3), b"ab");
        assert_eq!(cut("😀😀".as_bytes(), 7), "😀".as_bytes());
        // Bytes that are no text are cut anywhere.
        assert_eq!(cut(&[0x80; 9], 7), &[0x80; 7]);
    }
}
