//! Laws that are looked at with what programs did at hand: that what was removed
//! does not come again (I8), and that a rename changes a name and nothing else
//! (I9).

use std::collections::{BTreeMap, BTreeSet};

use super::tree::ModelTree;
use crate::cursor::Seq;
use crate::id::NodeId;
use crate::merge::Place;
use crate::register::NodeKind;

/// What brings a file back that was removed: somebody wrote to it, moved or linked
/// it, who did not know of that. Says when the hub can have heard of it.
#[derive(Clone, Copy, Debug)]
struct Touch {
    who: usize,
    /// The hub's last commit when everything of this replica was committed.
    /// `None` while it was not.
    until: Option<Seq>,
}

/// Remembers who touched which files.
#[derive(Clone, Debug, Default)]
pub struct Touches(BTreeMap<NodeId, Vec<Touch>>);

impl Touches {
    /// A replica wrote to a file or gave it a name.
    pub fn touched(&mut self, who: usize, node: NodeId) {
        let touches = self.0.entry(node).or_default();
        let is_open = |touch: &Touch| touch.who == who && touch.until.is_none();
        if !touches.iter().any(is_open) {
            touches.push(Touch { who, until: None });
        }
    }

    /// Whether a replica did something that the hub may not have heard of.
    pub fn is_open(&self, who: usize) -> bool {
        let mut all = self.0.values().flatten();
        all.any(|touch| touch.who == who && touch.until.is_none())
    }

    /// Everything that a replica did was committed up to `head`.
    pub fn settled(&mut self, who: usize, head: Seq) {
        for touch in self.0.values_mut().flatten() {
            if touch.who == who {
                touch.until.get_or_insert(head);
            }
        }
    }

    /// The files that were in the hub's tree, were removed, and came again without
    /// anybody who had touched them meanwhile (I8). `history` has the tree after
    /// each commit, from the first on. `counts` says which files are looked at: not
    /// copies, which who touched the first file brings back (R12). Directories come
    /// again for the sake of what is in them.
    pub fn returned(&self, history: &[ModelTree], counts: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let (mut before, mut ended) = (BTreeSet::new(), BTreeSet::<NodeId>::new());
        let mut returned = BTreeSet::new();
        for (seq, tree) in (1..).zip(history) {
            let live = tree
                .live()
                .filter(|(node, kind)| *kind != NodeKind::Dir && counts(*node));
            let now: BTreeSet<NodeId> = live.map(|(node, _)| node).collect();
            let again = now.difference(&before).filter(|c| ended.contains(*c));
            returned.extend(again.filter(|node| !self.explains(**node, seq)));
            ended.extend(before.difference(&now));
            before = now;
        }
        returned.into_iter().collect()
    }

    fn explains(&self, node: NodeId, seq: Seq) -> bool {
        let mut touches = self.0.get(&node).into_iter().flatten();
        touches.any(|touch| touch.until.is_none_or(|until| until >= seq))
    }
}

/// What a move of `from` to `to` did, but for giving what was there another name,
/// in the place of what was at `to` (I9): the node is the same, with its content
/// and its other names, and what is in it if it is a directory.
///
/// # Errors
///
/// A text that says what.
pub fn renamed(
    before: &ModelTree,
    after: &ModelTree,
    from: &Place,
    to: &Place,
) -> Result<(), String> {
    let Some(node) = before.at(from) else {
        return Err(format!("there was nothing to rename at {from:?} (I9)"));
    };
    if after.at(to) != Some(node) || after.at(from).is_some() {
        return Err(format!("{node} is not what is at {to:?} (I9)"));
    }
    if before.content(node) != after.content(node) || before.kind(node) != after.kind(node) {
        return Err(format!("{node} became another by a rename (I9)"));
    }
    let others = |tree: &ModelTree| {
        let names = tree
            .names()
            .filter(|(place, _)| ![from, to].contains(place));
        names
            .map(|(place, node)| (place.clone(), node))
            .collect::<BTreeMap<_, _>>()
    };
    if others(before) == others(after) {
        Ok(())
    } else {
        Err(format!("a rename of {node} changed other names (I9)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Entry;
    use crate::id::ReplicaTag;
    use crate::name::Name;

    fn place(name: &[u8]) -> Place {
        (NodeId::ROOT, Name::new(name).unwrap())
    }

    fn node(counter: u64) -> NodeId {
        let replica = ReplicaTag(1);
        NodeId { replica, counter }
    }

    /// A tree with one file under these names.
    fn tree(names: &[&[u8]]) -> ModelTree {
        let mut tree = ModelTree::new();
        let (id, kind) = (node(1), NodeKind::File);
        tree.apply(1, &Entry::Node { id, kind });
        for name in names {
            tree.set_name(&place(name), Some(id));
        }
        tree
    }

    #[test]
    fn i8_what_comes_again_needs_somebody_who_touched_it() {
        let history = [tree(&[b"a"]), tree(&[]), tree(&[b"a"])];
        let returned =
            |touches: &Touches, history: &[ModelTree]| touches.returned(history, |_| true);
        let mut touches = Touches::default();
        assert_eq!(returned(&touches, &history[..2]), []);
        assert_eq!(returned(&touches, &history), [node(1)]);
        touches.touched(0, node(1));
        assert!(touches.is_open(0) && !touches.is_open(1));
        assert_eq!(returned(&touches, &history), []);
        // The hub knew of that before.
        touches.settled(0, 2);
        assert_eq!(returned(&touches, &history), [node(1)]);
        touches.touched(1, node(1));
        touches.settled(1, 3);
        assert_eq!(returned(&touches, &history), []);
        let touches = Touches::default();
        assert_eq!(touches.returned(&history, |_| false), []);
    }

    #[test]
    fn i9_a_rename_changes_one_name_and_nothing_else() {
        let (a, b) = (place(b"a"), place(b"b"));
        let before = tree(&[b"a", b"c"]);
        assert_eq!(renamed(&before, &tree(&[b"b", b"c"]), &a, &b), Ok(()));
        for wrong in [tree(&[b"b"]), tree(&[b"a", b"b", b"c"]), before.clone()] {
            assert!(renamed(&before, &wrong, &a, &b).is_err());
        }
        let mut other = tree(&[b"b", b"c"]);
        other.set_name(&b, Some(node(2)));
        assert!(renamed(&before, &other, &a, &b).is_err());
    }
}
