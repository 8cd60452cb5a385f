//! The working tree as it will be when what is to be set was brought to memory:
//! what is there, and what was read for an assignment. So it can be looked at
//! before anything is touched.

use rustc_hash::FxHashMap;

use crate::assign::{Assignment, Moved};
use crate::attr::Ino;
use crate::node::{Body, DirKey, Node};
use crate::tree::Tree;
use crate::turned::Turned;
use cairn_protocol::Ver;

/// See the head of the module.
pub(crate) struct Sight<'a> {
    tree: &'a Tree,
    loaded: FxHashMap<u64, &'a Node>,
    found: FxHashMap<(u64, &'a DirKey), Option<(Ino, Ver)>>,
    made: FxHashMap<u64, &'a Node>,
    turned: Option<&'a Turned>,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(tree: &'a Tree, new: &'a Assignment, turned: Option<&'a Turned>) -> Self {
        let loaded = new.loaded.iter().map(|(ino, node)| (ino.0, node));
        let found = new.found.iter();
        Self {
            tree,
            loaded: loaded.collect(),
            found: found.map(|(dir, key, to)| ((dir.0, key), *to)).collect(),
            made: new.made.iter().map(|(ino, n)| (ino.0, n)).collect(),
            turned,
        }
    }

    /// A node that is there, or is brought there.
    pub(crate) fn node(&self, ino: Ino) -> Option<&Node> {
        let there = self.tree.nodes.get(&ino.0);
        let brought = || {
            let node = self.loaded.get(&ino.0).copied();
            node.filter(|_| !self.tree.dying.contains(&ino.0))
        };
        there.or_else(brought)
    }

    /// A node that is to be made.
    pub(crate) fn made(&self, ino: Ino) -> Option<&Node> {
        self.made.get(&ino.0).copied()
    }

    /// How many entries a directory has, with those that became rows.
    pub(crate) fn entries(&self, ino: Ino) -> Option<i64> {
        let Body::Dir(dir) = &self.node(ino)?.body else {
            return None;
        };
        let there = self.tree.nodes.get(&ino.0).is_some();
        let turn = self.turned.and_then(|turned| turned.nodes.get(&ino.0));
        let turned = turn.filter(|_| there).map_or(0, |turn| turn.entries.into());
        Some(dir.entries.cast_signed() + turned)
    }

    /// What a name points at, if that is what was looked at.
    pub(crate) fn target(
        &self,
        parent: Ino,
        key: &DirKey,
        seen: Ver,
    ) -> Result<Option<Ino>, Moved> {
        let Some(Node {
            body: Body::Dir(dir),
            ..
        }) = self.node(parent)
        else {
            return Err(Moved);
        };
        let found = self.found.get(&(parent.0, key));
        if let Some(dirent) = dir.children.get(key) {
            // What a row became since is what will be brought there.
            let turn = self.turned.and_then(|turned| turned.nodes.get(&parent.0));
            let target = match (turn, found) {
                (Some(turn), Some(found)) if turn.named => found.map(|(ino, _)| ino),
                _ => dirent.target,
            };
            return (dirent.ver <= seen).then_some(target).ok_or(Moved);
        }
        match found {
            Some(Some((ino, ver))) => (*ver <= seen).then_some(Some(*ino)).ok_or(Moved),
            Some(None) => Ok(None),
            None if dir.complete => Ok(None),
            None => Err(Moved),
        }
    }
}
