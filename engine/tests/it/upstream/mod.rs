//! A replica of the engine follows a hub of the model: the laws hold whatever
//! several replicas do, and what the peers of this system get wrong is right.
//!
//! Here are the hub and the replicas; the modules have what is done with them.

mod failing;
mod following;
mod halting;
mod lazy;
mod merging;
mod resets;
mod schedules;

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_engine::{Ino, Replica, Upstream};
use cairn_protocol::session::{Applied, Batch, BatchOffer, ClientAction, ClientDone, Store};
use cairn_protocol::testing::{Hub, ModelTree};
use cairn_protocol::wire::{Blob, ChunkData, Ext, PushAck, Why};
use cairn_protocol::{
    Chain, Change, ChunkHash, Cursor, Data, Edit, Encoded, Encoding, Epoch, NodeId, Scope, Seq,
    decode_chunk,
};

use crate::support;

pub(crate) use schedules::Worker;

/// A hub, and the chunks that it has.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) hub: Hub,
    chunks: BTreeMap<ChunkHash, Bytes>,
    /// Bytes of chunks that came, encoded.
    received: usize,
}

impl Side {
    pub(crate) fn cursor(&self) -> Cursor {
        cursor(self.hub.head())
    }

    fn take(&mut self, chunk: ChunkData) {
        let encoded = Encoded {
            encoding: chunk.encoding,
            bytes: chunk.bytes.into_bytes(),
        };
        self.received += encoded.bytes.len();
        let chunks = &self.chunks;
        let base = |hash: &ChunkHash| chunks.get(hash).cloned();
        let bytes = decode_chunk(chunk.hash, chunk.len as usize, &encoded, base).unwrap();
        self.chunks.insert(chunk.hash, bytes);
    }
}

fn cursor(seq: Seq) -> Cursor {
    Cursor {
        epoch: Epoch([7; 16]),
        seq,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    }
}

/// A replica with its store.
pub(crate) struct Client {
    pub(crate) replica: Replica,
    pub(crate) upstream: Upstream,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::of(Replica::in_memory().unwrap())
    }

    pub(crate) fn of(replica: Replica) -> Self {
        let upstream = replica.upstream().unwrap();
        Self { replica, upstream }
    }

    pub(crate) fn perform(&self, action: ClientAction) -> ClientDone {
        match self.upstream.perform(action) {
            ClientDone::Failed(failure) => panic!("{failure}"),
            done => done,
        }
    }

    pub(crate) fn seq(&self) -> Seq {
        self.upstream
            .cursor()
            .unwrap()
            .map_or(0, |cursor| cursor.seq)
    }

    /// Gets what the hub has, with the answer to a batch.
    pub(crate) fn pull(&self, side: &Side, ack: Option<PushAck>) -> Applied {
        self.stage(side, side.hub.changes_since(self.seq()));
        self.apply(side.cursor(), ack)
    }

    pub(crate) fn stage(&self, side: &Side, changes: Vec<Change>) {
        let staged = self.perform(ClientAction::Stage {
            first: 0,
            changes,
            reports: Vec::new(),
        });
        let ClientDone::Staged { wanted } = staged else {
            panic!("{staged:?}");
        };
        let chunks = wanted.iter().map(|(hash, _)| {
            let bytes = side
                .chunks
                .get(hash)
                .expect("the hub has what it names")
                .clone();
            ChunkData {
                hash: *hash,
                len: bytes.len() as u32,
                encoding: Encoding::Raw,
                bytes: Blob::try_from(bytes).unwrap(),
            }
        });
        let chunks = chunks.collect();
        let done = self.perform(ClientAction::Store { chunks });
        assert!(matches!(done, ClientDone::Stored { refused, .. } if refused.is_empty()));
    }

    fn apply(&self, cursor: Cursor, ack: Option<PushAck>) -> Applied {
        let confirmed = false;
        match self.perform(ClientAction::Apply {
            cursor,
            ack,
            confirmed,
        }) {
            ClientDone::Applied(applied) => applied,
            done => panic!("{done:?}"),
        }
    }

    /// The cursor leads nowhere, and the hub tells this as its whole tree.
    pub(crate) fn begin_anew(
        &self,
        side: &Side,
        why: Why,
        whole: Vec<Change>,
        ack: Option<PushAck>,
    ) -> Applied {
        let last_batch = side.hub.last(self.upstream.tag());
        let (epoch, last_batch) = (Epoch([7; 16]), last_batch.map_or(0, |(last, _)| last));
        self.perform(ClientAction::Reset {
            why,
            epoch,
            last_batch,
        });
        self.stage(side, whole);
        self.apply(side.cursor(), ack)
    }

    fn batch(&self) -> Option<Box<BatchOffer>> {
        match self.perform(ClientAction::NextBatch { inline: 64 << 10 }) {
            ClientDone::Batch(batch) => batch,
            done => panic!("{done:?}"),
        }
    }

    /// The hub refuses what there is to push, and a cut waits for that, unless it has
    /// committed it before. Returns the edits.
    pub(crate) fn refused(&self, side: &Side) -> Option<Vec<Edit>> {
        let Batch { number, edits, .. } = self.batch()?.batch;
        let last = side.hub.last(self.upstream.tag());
        if last.is_some_and(|(last, _)| number <= last) {
            return None;
        }
        let done = self.perform(ClientAction::Withdraw { batch: number });
        assert_eq!(done, ClientDone::Withdrawn);
        Some(edits)
    }

    /// Pushes what there is. Returns the edits, and the answer, which is not
    /// taken yet.
    pub(crate) fn push(&self, side: &mut Side) -> Option<(Vec<Edit>, PushAck)> {
        let offer = self.batch()?;
        for chunk in offer.inline {
            side.take(chunk);
        }
        let missing = offer
            .batch
            .chunks
            .iter()
            .filter(|hash| !side.chunks.contains_key(*hash));
        let chunks: Vec<_> = missing.map(|hash| (*hash, false)).collect();
        if !chunks.is_empty() {
            let asked = chunks.len();
            let budget = usize::MAX;
            let done = self.perform(ClientAction::Supply { chunks, budget });
            let ClientDone::Chunks {
                chunks,
                taken,
                missing,
            } = done
            else {
                panic!("{done:?}");
            };
            assert_eq!((taken, missing), (asked, vec![]));
            for chunk in chunks {
                side.take(chunk);
            }
        }
        let batch = offer.batch;
        let ack = side
            .hub
            .push(self.upstream.tag(), batch.number, &batch.edits)
            .unwrap();
        let outcomes: Vec<_> = ack
            .outcomes
            .into_iter()
            .map(|(i, o)| (i as u32, o))
            .collect();
        let ack = PushAck {
            batch: ack.batch,
            seq: ack.seq,
            chain: Chain::GENESIS,
            outcomes: outcomes.try_into().unwrap(),
            ext: Ext::default(),
        };
        Some((batch.edits, ack))
    }

    /// Gets and pushes until nothing is left. Returns all edits.
    pub(crate) fn sync(&self, side: &mut Side) -> Vec<Edit> {
        let mut all = Vec::new();
        let mut last = self.batch().is_none();
        for _ in 0..100 {
            if last && self.seq() < side.hub.head() || self.seq() == 0 {
                self.pull(side, None);
            }
            match self.push(side) {
                Some((edits, ack)) => {
                    let shown: Vec<_> = edits.iter().map(short).collect();
                    println!(
                        "{:x}: pushes {shown:?} {:?}",
                        self.upstream.tag().0 & 0xfff,
                        ack.outcomes
                    );
                    all.extend(edits);
                    assert_eq!(self.pull(side, Some(ack)), Applied::Done);
                    last = true;
                }
                None if self.seq() == side.hub.head() => return all,
                None => last = true,
            }
        }
        panic!("it goes on and on: {all:?}");
    }

    /// What the replica shows.
    pub(crate) fn tree(&self) -> ModelTree {
        self.replica.flush().unwrap();
        let mut tree = ModelTree::new();
        for change in self.replica.changes_since(None).unwrap().changes {
            tree.apply(change.ver, &change.entry);
        }
        tree
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.replica.read_file(path).unwrap()
    }

    fn ino(&self, path: &str) -> Ino {
        self.replica.stat(path).unwrap().ino
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let mut names = Vec::new();
        let ino = self.ino(dir);
        let each = &mut |e: cairn_engine::Entry<'_>| {
            names.push(String::from_utf8_lossy(e.name).into_owned());
            true
        };
        self.replica.read_dir(ino, 0, each).unwrap();
        names.sort();
        names
    }
}

/// An edit in a few words.
fn short(edit: &Edit) -> String {
    let id = |id: &NodeId| format!("{:x}:{}", id.replica.0 & 0xfff, id.counter);
    let maybe = |node: &Option<NodeId>| node.as_ref().map_or("-".into(), id);
    match edit {
        Edit::New { node, kind } => format!("new {} {kind:?}", id(node)),
        Edit::Data { node, base, data } => match data {
            Data::Inline { bytes } => format!("data {} on {base}: {bytes:?}", id(node)),
            _ => format!("data {} on {base}", id(node)),
        },
        Edit::Meta {
            node, fields, meta, ..
        } => {
            format!("meta {} {fields:?} {:o}", id(node), meta.mode)
        }
        Edit::Xattr { node, value, .. } => format!("xattr {} {value:?}", id(node)),
        Edit::Name {
            parent,
            name,
            was,
            node,
        } => {
            format!(
                "name {}/{name} {} -> {}",
                id(parent),
                maybe(was),
                maybe(node)
            )
        }
        Edit::Drop { node, data_base } => format!("drop {} of {data_base}", id(node)),
    }
}

/// A tree in a few lines.
fn lines(tree: &ModelTree) -> Vec<String> {
    let id = |id: NodeId| format!("{:x}:{}", id.replica.0 & 0xfff, id.counter);
    let names = tree
        .names()
        .map(|(place, node)| format!("{}/{} {}", id(place.0), place.1, id(node)));
    let nodes = tree.live().map(|(node, kind)| {
        let content = match tree.content(node) {
            Some(Data::Inline { bytes }) => format!("{bytes:?}"),
            other => format!("{other:?}"),
        };
        format!(
            "{} {kind:?} {content} {:?}",
            id(node),
            tree.attributes(node)
        )
    });
    names.chain(nodes).collect()
}

#[track_caller]
pub(crate) fn assert_equal(clients: &[&Client], side: &Side) {
    for client in clients {
        let (here, there) = (client.tree(), side.hub.tree());
        if here != *there {
            let (here, there) = (lines(&here), lines(there));
            let only_here: Vec<_> = here.iter().filter(|line| !there.contains(line)).collect();
            let missing: Vec<_> = there.iter().filter(|line| !here.contains(line)).collect();
            let tag = client.upstream.tag().0 & 0xfff;
            panic!("{tag:x}: only here {only_here:#?}, only at the hub {missing:#?}");
        }
        support::assert_clean(&client.replica);
    }
}

fn two() -> (Side, Client, Client) {
    (Side::default(), Client::new(), Client::new())
}
