//! The next batch, collected while the hub commits the one in flight: a large
//! push would else wait for one side or the other all the time.
//!
//! A *draft* is made as if the batch in flight had taken effect as it is. If it
//! did, and the hub's next commit was just that, nothing that the draft says was
//! seen has changed, and it is the next batch; otherwise it is dropped, and
//! nobody has heard of it. It has only what is new and what was edited in place,
//! up to the first change that takes a name away or touches what is in flight:
//! what such a change means depends on what the hub makes of the batch.

use std::sync::atomic::Ordering;

use cairn_protocol::merge::Place;
use cairn_protocol::{ChunkHash, Cursor, Edit, Entry, NodeId, Ver};
use rustc_hash::{FxHashMap, FxHashSet};

use super::edits::Edits;
use super::local::Here;
use super::look::InFlight;
use super::push::{Collected, Ready};
use super::state::{Flight, Frozen, Rows, State};
use super::{Upstream, lease};
use crate::Result;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Draft {
    /// It comes after the batch of this number,
    after: u64,
    /// which was made at this cursor,
    seen: Cursor,
    /// and up to which the log was looked at.
    from: Ver,
    /// The chunks are leased.
    ready: Ready,
}

impl Draft {
    /// Whether the batch before it took effect, and nothing else has happened.
    fn is_next(&self, state: &State, frozen: &Frozen) -> bool {
        let seen = state.cursor.is_some_and(|cursor| {
            cursor.epoch == self.seen.epoch && cursor.seq == self.seen.seq + 1
        });
        seen && state.batch == self.after && state.scanned == self.from && frozen.is_empty()
    }

    fn hashes(&self) -> Vec<ChunkHash> {
        self.ready.chunks.iter().map(|(hash, _)| *hash).collect()
    }
}

/// What is in flight, for who looks whether it is touched.
#[derive(Debug)]
pub(super) struct Aloft<'a> {
    flight: InFlight<'a>,
    /// All nodes that it says something of.
    nodes: FxHashSet<NodeId>,
    /// How many extended attributes it gives to a node.
    xattrs: FxHashMap<NodeId, usize>,
}

impl<'a> Aloft<'a> {
    fn new(flight: &'a Flight) -> Self {
        let (mut nodes, mut xattrs) = (FxHashSet::default(), FxHashMap::default());
        for edit in &flight.edits {
            match edit {
                Edit::Xattr { node, value, .. } => {
                    nodes.insert(*node);
                    *xattrs.entry(*node).or_default() += usize::from(value.is_some());
                }
                Edit::New { node, .. }
                | Edit::Data { node, .. }
                | Edit::Meta { node, .. }
                | Edit::Drop { node, .. } => drop(nodes.insert(*node)),
                Edit::Name { was, node, .. } => nodes.extend(was.iter().chain(node)),
            }
        }
        Self {
            flight: InFlight::new(Some(flight), None),
            nodes,
            xattrs,
        }
    }

    /// Whether the batch makes a node.
    pub(super) fn makes(&self, node: NodeId) -> bool {
        self.flight.makes(node)
    }

    /// Whether a node that the batch makes is as it was then.
    fn made(&self, here: &Here) -> bool {
        let node = here.id;
        let has = |entry: Entry| self.flight.has(&entry);
        let xattrs = here.xattrs.iter().all(|(name, value)| {
            let (name, value) = (name.clone(), Some(value.clone()));
            has(Entry::Xattr { node, name, value })
        });
        let data = |data| has(Entry::Data { node, data });
        let meta = here.meta;
        self.makes(node)
            && !here.unsealed
            && here.data.clone().is_none_or(data)
            && has(Entry::Meta { node, meta })
            && xattrs
            && self.xattrs.get(&node).copied().unwrap_or(0) == here.xattrs.len()
    }
}

impl Edits<'_> {
    /// Whether a node is in flight. If it was edited since, the draft ends.
    pub(super) fn is_aloft(&mut self, here: &Here) -> bool {
        let Some(aloft) = self.aloft.filter(|aloft| aloft.nodes.contains(&here.id)) else {
            return false;
        };
        self.blocked |= !aloft.made(here);
        true
    }

    /// Whether a place is in flight. If it is not what it was then, the draft
    /// ends.
    pub(super) fn is_place_aloft(&mut self, place: &Place, here: Option<NodeId>) -> Result<bool> {
        let Some(aloft) = self.aloft.filter(|aloft| aloft.flight.names(place)) else {
            return Ok(false);
        };
        let node = match here {
            Some(node) => Some(node),
            None => self.at(place)?,
        };
        self.blocked |= !aloft.flight.puts(place, node);
        Ok(true)
    }

    /// Whether a change of a place may not be in a draft, which then ends.
    pub(super) fn ends_draft(&mut self, was: Option<NodeId>, node: Option<NodeId>) -> bool {
        let adds = |aloft: &Aloft<'_>| {
            was.is_none() && node.is_some_and(|node| !aloft.nodes.contains(&node))
        };
        let ends = self.aloft.is_some_and(|aloft| !adds(aloft));
        self.blocked |= ends;
        ends
    }
}

impl Upstream {
    /// Makes a draft, if there is a batch in flight and more to push.
    pub(super) fn prepare(&self) -> Result<()> {
        if !self.more.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.settle_down()?;
        let inner = self.inner();
        let _gate = inner.chunks.reading();
        let db = self.settled()?;
        // A cut that ends the flight holds the writer while it does so.
        let flight = self.flight.lock().clone();
        let Some(flight) = flight.filter(|_| self.reset.lock().is_none()) else {
            return Ok(());
        };
        let rows = Rows {
            db: &db,
            side: self.side,
        };
        let tx = db.unchecked_transaction()?;
        let frozen = rows.frozen()?;
        if !frozen.is_empty() {
            return Ok(());
        }
        let aloft = Aloft::new(&flight);
        let Collected {
            ready, outsized, ..
        } = self.collect(rows, &frozen, flight.scanned, Some(&aloft))?;
        tx.commit()?;
        if ready.edits.is_empty() || !outsized.is_empty() {
            return Ok(());
        }
        let draft = Draft {
            after: flight.number,
            seen: flight.seen,
            from: flight.scanned,
            ready,
        };
        lease(inner, &draft.hashes());
        let old = self.draft.lock().replace(draft);
        self.end_draft(old);
        Ok(())
    }

    /// The draft, if it is the next batch. Its leases are then those of the
    /// batch in flight.
    pub(super) fn take_draft(&self, state: &State, frozen: &Frozen) -> Option<Ready> {
        let draft = self.draft.lock().take()?;
        if !draft.is_next(state, frozen) {
            self.end_draft(Some(draft));
            return None;
        }
        let old = std::mem::replace(&mut *self.aloft.lock(), draft.hashes());
        self.inner().chunks.end_leases(&old);
        Some(draft.ready)
    }

    /// What happened makes the draft of no use.
    pub(super) fn drop_draft(&self) {
        let draft = self.draft.lock().take();
        self.end_draft(draft);
    }

    fn end_draft(&self, draft: Option<Draft>) {
        if let Some(draft) = draft {
            self.inner().chunks.end_leases(&draft.hashes());
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_protocol::session::{Applied, Batch, ClientAction, ClientDone, Store};
    use cairn_protocol::wire::{Ext, PushAck};
    use cairn_protocol::{Chain, Change, Epoch, Outcome, Scope, Seq};

    use super::*;
    use crate::Replica;

    /// A replica, and what the hub would say to it.
    struct Client {
        replica: Replica,
        upstream: Upstream,
    }

    impl Client {
        fn new() -> Self {
            let replica = Replica::in_memory().unwrap();
            let upstream = replica.upstream().unwrap();
            let client = Self { replica, upstream };
            client.cut(1, Vec::new(), None);
            client
        }

        fn write(&self, path: &str, content: &str) {
            self.replica.write_file(path, content.as_bytes()).unwrap();
            self.replica.flush().unwrap();
        }

        fn batch(&self) -> Option<Batch> {
            match self.upstream.perform(ClientAction::NextBatch { inline: 0 }) {
                ClientDone::Batch(offer) => offer.map(|offer| offer.batch),
                done => panic!("{done:?}"),
            }
        }

        /// Prepares, and says whether there is a draft.
        fn prepare(&self) -> bool {
            let done = self.upstream.perform(ClientAction::Prepare);
            assert_eq!(done, ClientDone::Prepared);
            self.upstream.draft.lock().is_some()
        }

        fn cut(&self, seq: Seq, changes: Vec<Change>, ack: Option<PushAck>) {
            let (first, reports) = (0, Vec::new());
            self.upstream.perform(ClientAction::Stage {
                first,
                changes,
                reports,
            });
            let cursor = Cursor {
                epoch: Epoch([1; 16]),
                seq,
                chain: Chain::GENESIS,
                scope: Scope::ALL,
            };
            let done = self.upstream.perform(ClientAction::Apply {
                cursor,
                ack,
                confirmed: true,
            });
            assert_eq!(done, ClientDone::Applied(Applied::Done));
        }

        /// The batch takes effect as it is, as this commit.
        fn take(&self, batch: &Batch, seq: Seq, cut: Seq, outcomes: Vec<(u32, Outcome)>) {
            let ack = PushAck {
                batch: batch.number,
                seq,
                chain: Chain::GENESIS,
                outcomes: outcomes.try_into().unwrap(),
                ext: Ext::default(),
            };
            self.cut(cut, told(&batch.edits, seq), Some(ack));
        }
    }

    /// What the hub tells of edits that took effect as they are.
    fn told(edits: &[Edit], ver: Seq) -> Vec<Change> {
        let entry = |edit: &Edit| match edit.clone() {
            Edit::New { node: id, kind } => Some(Entry::Node { id, kind }),
            Edit::Data { node, data, .. } => Some(Entry::Data { node, data }),
            Edit::Meta { node, meta, .. } => Some(Entry::Meta { node, meta }),
            Edit::Xattr {
                node, name, value, ..
            } => Some(Entry::Xattr { node, name, value }),
            Edit::Name {
                parent, name, node, ..
            } => Some(Entry::Name { parent, name, node }),
            Edit::Drop { .. } => None,
        };
        let entries = edits.iter().filter_map(entry);
        entries.map(|entry| Change { ver, entry }).collect()
    }

    /// The names that a batch gives and takes.
    fn names(batch: Option<&Batch>) -> Vec<String> {
        let edits = batch.iter().flat_map(|batch| &batch.edits);
        let mut names: Vec<_> = edits
            .filter_map(|edit| match edit {
                Edit::Name { name, .. } => Some(name.to_string()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_was_collected_while_the_hub_committed_is_pushed_next() {
        let client = Client::new();
        assert!(!client.prepare(), "nothing is in flight");
        client.replica.mkdir_all("/d").unwrap();
        client.write("/d/a", "a");
        let first = client.batch().unwrap();
        client.write("/d/b", "b");
        assert!(client.prepare());
        client.write("/c", "c");
        client.take(&first, 2, 2, Vec::new());
        let second = client.batch().unwrap();
        assert_eq!((second.number, second.seen.seq), (2, 2));
        assert_eq!(names(Some(&second)), ["b"]);
        assert!(client.upstream.draft.lock().is_none());
        client.take(&second, 3, 3, Vec::new());
        let third = client.batch().unwrap();
        assert_eq!(names(Some(&third)), ["c"]);
        client.take(&third, 4, 4, Vec::new());
        assert_eq!(names(client.batch().as_ref()), [""; 0]);
        assert!(client.upstream.status().unwrap().is_clean());
    }

    #[test]
    fn a_draft_is_dropped_when_something_else_has_happened() {
        let refused = |batch: &Batch| {
            let refused = Outcome::Refused {
                why: cairn_protocol::Refusal::Dead,
            };
            let meta = |edit: &Edit| matches!(edit, Edit::Meta { .. });
            let at = batch.edits.iter().position(meta).unwrap();
            vec![(u32::try_from(at).unwrap(), refused)]
        };
        for case in 0..3 {
            let client = Client::new();
            client.write("/a", "a");
            let first = client.batch().unwrap();
            client.write("/b", "b");
            assert!(client.prepare());
            client.write("/c", "c");
            match case {
                // Somebody else's commit came before or after.
                0 => client.take(&first, 3, 3, Vec::new()),
                1 => client.take(&first, 2, 3, Vec::new()),
                _ => client.take(&first, 2, 2, refused(&first)),
            }
            assert_eq!(names(client.batch().as_ref()), ["b", "c"], "case {case}");
        }
    }

    #[test]
    fn a_draft_ends_before_what_touches_what_is_in_flight() {
        type Touch = fn(&Client);
        let touches: [Touch; 4] = [
            |client| client.write("/a", "again"),
            |client| client.replica.rename_path("/a", "/z").unwrap(),
            |client| client.replica.remove("/a").unwrap(),
            |client| {
                client.replica.hard_link("/a", "/z").unwrap();
            },
        ];
        for touch in touches {
            let client = Client::new();
            client.write("/a", "a");
            let first = client.batch().unwrap();
            client.write("/b", "b");
            touch(&client);
            client.write("/c", "c");
            assert!(client.prepare());
            client.take(&first, 2, 2, Vec::new());
            let second = client.batch().unwrap();
            assert_eq!(names(Some(&second)), ["b"]);
            client.take(&second, 3, 3, Vec::new());
            let third = client.batch().unwrap();
            assert!(names(Some(&third)).contains(&"c".to_owned()));
            let based = third.edits.iter().all(|edit| match edit {
                Edit::Data { base, .. } => [0, 2].contains(base),
                Edit::Drop { data_base, .. } => *data_base == 2,
                _ => true,
            });
            assert!(based, "{third:?}");
        }
    }

    #[test]
    fn chunks_of_a_draft_stay_until_it_is_of_no_use() {
        let client = Client::new();
        client.write("/a", "a");
        let first = client.batch().unwrap();
        client.write("/b", &"b".repeat(10_000));
        assert!(client.prepare());
        let draft = client.upstream.draft.lock();
        let hash = draft.as_ref().unwrap().ready.chunks[0].0;
        drop(draft);
        let is_leased = || client.upstream.inner().chunks.leases().holds(&hash);
        assert!(is_leased());
        client.take(&first, 3, 3, Vec::new());
        assert!(!is_leased());
    }
}
