//! What rows that were written past memory mean for the nodes that are there:
//! a large cut makes nodes and names as rows, see [`crate::shift`].

use crate::attr::Ino;
use crate::node::{Body, Dirent, Node};
use crate::tree::Tree;

/// What rows that are not in memory mean for a node that is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gained {
    /// Entries of a directory, and those of them that are directories.
    pub(crate) entries: u64,
    pub(crate) dirs: u32,
    /// Names of something else.
    pub(crate) links: u32,
}

/// Counts the rows that name a node or are named in it.
pub(crate) fn gain(tree: &mut Tree, ino: Ino, gained: Gained) {
    if let Some(node) = tree.nodes.get_mut(&ino.0) {
        node.nlink += gained.dirs + gained.links;
        if let Body::Dir(dir) = &mut node.body {
            dir.entries += gained.entries;
        }
    }
    tree.touch_private(ino);
}

/// Forgets which names directories do not have: there may be rows of them. What
/// somebody has just read of them is of no use any more.
pub(crate) fn forget_absence(tree: &mut Tree, dirs: impl Iterator<Item = Ino>) {
    for ino in dirs {
        if let Some(Node {
            body: Body::Dir(dir),
            ..
        }) = tree.nodes.get_mut(&ino.0)
        {
            dir.complete = false;
            dir.window = None;
            let known = |dirent: &Dirent| dirent.target.is_some() || dirent.state.pinned();
            dir.children.retain(|_, dirent| known(dirent));
        }
    }
    tree.evictions += 1;
}
