//! Reading many registers of a shared tree that nobody changes meanwhile.
//!
//! Who goes through a commit or a transfer asks for thousands of nodes, mostly
//! one after another as they are stored. To step from one to the next takes a
//! third of what it takes to find it, so neighbours are read ahead, as parts of
//! a file are: more of them while they are what is asked for next, and none when
//! they are not.

use std::collections::VecDeque;

use cairn_protocol::merge::Place;
use cairn_protocol::{NodeId, NodeKind, Ver};
use rusqlite::{CachedStatement, params};

use super::read::{NAME, name_by};
use super::{Record, Shared, id_of, key, record_of};
use crate::Result;
use crate::db::int;

/// So many nodes are read at once at most: some 20 KiB.
const AHEAD_MAX: u64 = 64;
/// Of nodes that are asked for one after another, so many may be left out.
const GAP_MAX: i64 = 4;

const RECORDS: &str = "SELECT tag, counter, kind, born, data_ver, data, meta_ver, meta, gone, last
    FROM shared_node WHERE side = ? AND tag = ? AND counter >= ? ORDER BY counter LIMIT ?";

/// See the head of the module. Its statements are not looked up for each
/// register, which takes a tenth of the time.
pub(crate) struct Ahead<'a> {
    pub(crate) tree: Shared<'a>,
    find_records: CachedStatement<'a>,
    find_name: CachedStatement<'a>,
    /// What was read and not asked for yet.
    next: VecDeque<(NodeId, Record)>,
    /// What was asked for last.
    last: NodeId,
    /// How many were read at once.
    count: u64,
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(tree: Shared<'a>) -> Result<Self> {
        Ok(Self {
            tree,
            find_records: tree.db.prepare_cached(RECORDS)?,
            find_name: tree.db.prepare_cached(NAME)?,
            next: VecDeque::new(),
            last: NodeId::ROOT,
            count: 1,
        })
    }

    /// See [`Shared::name`].
    pub(crate) fn name(&mut self, place: &Place) -> Result<Option<(Option<NodeId>, Ver)>> {
        name_by(&mut self.find_name, self.tree.side, place)
    }

    /// See [`Shared::record`].
    pub(crate) fn record(&mut self, node: NodeId) -> Result<Option<Record>> {
        let (tag, counter) = key(node);
        let is_before = |id| {
            let (its_tag, its_counter) = key(id);
            its_tag == tag && its_counter < counter
        };
        while self.next.front().is_some_and(|(id, _)| is_before(*id)) {
            self.next.pop_front();
        }
        if self.next.front().is_none_or(|(id, _)| *id != node) {
            self.read(node)?;
        }
        self.last = node;
        match self.next.front() {
            Some((id, _)) if *id == node => Ok(self.next.pop_front().map(|(_, record)| record)),
            _ if node == NodeId::ROOT => Ok(Some(Record::new(NodeKind::Dir, 0))),
            _ => Ok(None),
        }
    }

    /// Reads a node, and those after it.
    fn read(&mut self, node: NodeId) -> Result<()> {
        let ((tag, counter), (last_tag, last)) = (key(node), key(self.last));
        let step = counter.checked_sub(last).filter(|_| tag == last_tag);
        let follows = step.is_some_and(|step| (1..=GAP_MAX).contains(&step));
        self.count = if follows {
            AHEAD_MAX.min(2 * self.count)
        } else {
            1
        };
        self.next.clear();
        let most = int(self.count);
        let mut rows = self
            .find_records
            .query(params![self.tree.side, tag, counter, most])?;
        while let Some(row) = rows.next()? {
            self.next.push_back((id_of(row, 0)?, record_of(row, 2)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cairn_protocol::{Change, Entry, ReplicaTag};
    use rusqlite::Connection;

    use super::super::{HUB, TABLES};
    use super::*;

    fn node(tag: u64, counter: u64) -> NodeId {
        let replica = ReplicaTag(tag);
        NodeId { replica, counter }
    }

    /// A tree of the nodes of two replicas, where some counters are not used.
    fn tree(db: &Connection) -> Shared<'_> {
        db.execute_batch(TABLES).unwrap();
        let tree = Shared::new(db, HUB);
        let counters = (1..300).filter(|c| c % 7 != 0 && !(100..150).contains(c));
        let counters = counters.chain([u64::MAX - 1, u64::MAX]);
        let nodes = counters.flat_map(|c| [node(3, c), node(u64::MAX, c)]);
        let changes: Vec<Change> = nodes
            .map(|id| Change {
                ver: id.counter % 50 + 1,
                entry: Entry::Node {
                    id,
                    kind: NodeKind::File,
                },
            })
            .collect();
        tree.apply(&changes, &[], &mut |_, _| Ok(())).unwrap();
        tree
    }

    #[test]
    fn nodes_in_any_order_are_what_they_are_one_by_one() {
        let db = Connection::open_in_memory().unwrap();
        let tree = tree(&db);
        let mut ahead = Ahead::new(tree).unwrap();
        let up = (0..310).map(|c| node(3, c));
        let leaps = (0..310).step_by(3).map(|c| node(u64::MAX, c));
        let down = (0..310).rev().map(|c| node(3, c));
        let turns = (0..310).flat_map(|c| [node(3, c), node(u64::MAX, c), node(5, c)]);
        let twice = (90..160).flat_map(|c| [node(3, c), node(3, c), node(3, c + 9)]);
        let ends = [u64::MAX, u64::MAX - 1, u64::MAX, 0, 1].map(|c| node(3, c));
        let all = up.chain(leaps).chain(down).chain(turns).chain(twice);
        for id in all.chain(ends).chain([NodeId::ROOT]) {
            let (there, one) = (ahead.record(id).unwrap(), tree.record(id).unwrap());
            assert_eq!(there, one, "{id:?}");
        }
    }

    #[test]
    fn neighbours_are_read_ahead_only_while_they_are_asked_for() {
        let db = Connection::open_in_memory().unwrap();
        let mut ahead = Ahead::new(tree(&db)).unwrap();
        for counter in 1..90 {
            ahead.record(node(3, counter)).unwrap();
        }
        assert_eq!(ahead.count, AHEAD_MAX);
        for counter in [250, 20, 200, 60] {
            ahead.record(node(3, counter)).unwrap();
            assert_eq!((ahead.count, ahead.next.len()), (1, 0));
        }
    }
}
