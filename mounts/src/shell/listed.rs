//! Attributes that a listing brought, for the questions about each entry that
//! mostly follow it: `find`, `grep -r` and `ls` ask twice for everything.
//!
//! They serve while the replica is known not to have changed: each answer of
//! the host says the number of its last change, and another number ends them
//! all. So a script that hears of a change, by whatever it reads, sees it. What
//! it cannot have heard of it may miss for [`FRESH`] at most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::wire::Node;

/// How long nothing need be heard of the host.
const FRESH: Duration = Duration::from_millis(2);
/// Entries that are kept, some 200 bytes each.
const NODES_MAX: usize = 16 << 10;

/// Nodes by their paths.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    nodes: HashMap<Vec<u8>, Node>,
    /// The last change that was heard of.
    change: u64,
    heard: Option<Instant>,
}

impl Listed {
    /// An answer came, after this change.
    pub(crate) fn heard(&mut self, change: u64) {
        if change != self.change {
            self.forget();
        }
        self.change = change;
        if !self.nodes.is_empty() {
            self.heard = Some(Instant::now());
        }
    }

    /// A directory was listed; its answer was heard before.
    pub(crate) fn add(&mut self, dir: &[u8], entries: &[(Vec<u8>, Node)]) {
        if self.nodes.len() + entries.len() > NODES_MAX {
            self.forget();
        }
        let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
        for (name, node) in entries.iter().take(NODES_MAX) {
            self.nodes.insert([dir, slash, name].concat(), *node);
        }
        self.heard = Some(Instant::now());
    }

    /// The attributes of a file, which no later change than this one made.
    pub(crate) fn keep(&mut self, path: &[u8], node: Node, change: u64) {
        if change == self.change && self.nodes.len() < NODES_MAX {
            self.nodes.insert(path.to_vec(), node);
            self.heard = Some(Instant::now());
        }
    }

    /// The attributes of a path, if they are known to hold.
    pub(crate) fn get(&self, path: &[u8]) -> Option<Node> {
        let node = self.nodes.get(path)?;
        let fresh = self.heard.is_some_and(|at| at.elapsed() < FRESH);
        fresh.then_some(*node)
    }

    /// Nothing holds any more.
    pub(crate) fn forget(&mut self) {
        self.nodes.clear();
        self.heard = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(replica: &cairn_engine::Replica, path: &str) -> Node {
        (&replica.lstat(path).unwrap()).into()
    }

    #[test]
    fn what_was_listed_holds_until_a_change_is_heard_of() {
        let replica = cairn_engine::Replica::in_memory().unwrap();
        replica.write_file("/f", b"x").unwrap();
        let entry = (b"f".to_vec(), node(&replica, "/f"));
        let mut listed = Listed::default();
        listed.heard(7);
        listed.add(b"/d", std::slice::from_ref(&entry));
        listed.add(b"/", std::slice::from_ref(&entry));
        // Heard again, as much time may have passed here.
        listed.heard(7);
        assert_eq!(listed.get(b"/d/f"), Some(entry.1));
        assert_eq!(listed.get(b"/f"), Some(entry.1));
        assert_eq!(listed.get(b"/g"), None);
        listed.heard(8);
        assert_eq!(listed.get(b"/f"), None);
    }

    #[test]
    fn what_a_change_left_holds_until_the_next() {
        let replica = cairn_engine::Replica::in_memory().unwrap();
        let root = node(&replica, "/");
        let mut listed = Listed::default();
        listed.heard(7);
        listed.keep(b"/late", root, 6);
        assert_eq!(listed.get(b"/late"), None);
        listed.keep(b"/f", root, 7);
        assert_eq!(listed.get(b"/f"), Some(root));
        listed.heard(8);
        assert_eq!(listed.get(b"/f"), None);
    }

    #[test]
    fn it_is_bounded() {
        let replica = cairn_engine::Replica::in_memory().unwrap();
        let root = node(&replica, "/");
        let entries: Vec<_> = (0..NODES_MAX)
            .map(|n| (n.to_string().into_bytes(), root))
            .collect();
        let mut listed = Listed::default();
        listed.add(b"/a", &entries);
        listed.add(b"/b", &entries);
        assert_eq!(listed.nodes.len(), NODES_MAX);
    }
}
