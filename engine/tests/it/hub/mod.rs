//! The hub: against the model hub, over crashes, and what it holds and forgets.

mod chunks;
mod following;
mod horizon;
mod model;
mod pushing;
pub(crate) mod simulation;
mod trouble;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{Access, Hub, HubOptions, HubSession, Replica};
use cairn_protocol::merge::Place;
use cairn_protocol::session::{Admission, HubAction, HubDone, Report, Store, StoreFailure};
use cairn_protocol::testing::ModelTree;
use cairn_protocol::wire::{
    Capabilities, ChunkData, Code, Ext, Hello, Limits, PushAck, Role, Start, Text, Token, Why,
};
use cairn_protocol::{
    Change, ChunkHash, ChunkerId, Cursor, Data, Edit, Encoding, Extent, Manifest, Meta, MetaFields,
    Name, NodeId, NodeKind, ReplicaTag, Timestamp,
};

/// The tag of the model's hub. The hubs here get it, too, so that both mint the same ids.
pub(crate) const HUB_TAG: u64 = 0xb;

pub(crate) const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Timestamp::EPOCH,
    btime: Timestamp::EPOCH,
};

pub(crate) fn hello(tag: u64) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Client,
        workspace: [0; 16],
        replica: ReplicaTag(tag),
        token: Token::default(),
        capabilities: Capabilities::default(),
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    }
}

/// A session, and what it is asked in tests.
pub(crate) struct Client(pub(crate) HubSession);

impl Client {
    pub(crate) fn new(hub: &Hub, tag: u64) -> Self {
        let client = Self(hub.session(Arc::new(|_| Ok(Access::Write))));
        client.admit(tag).unwrap();
        client
    }

    pub(crate) fn admit(&self, tag: u64) -> Result<Admission, StoreFailure> {
        match self.0.perform(HubAction::Admit(Box::new(hello(tag)))) {
            HubDone::Admitted(admission) => Ok(*admission),
            HubDone::Failed(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn commit(&self, batch: u64, edits: &[Edit]) -> Result<PushAck, StoreFailure> {
        let edits = edits.to_vec();
        match self.0.perform(HubAction::Commit { batch, edits }) {
            HubDone::Committed { ack, .. } => Ok(*ack),
            HubDone::Failed(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn subscribe(&self, from: Start) -> Result<u64, (Why, u64)> {
        match self.0.perform(HubAction::Subscribe { from }) {
            HubDone::Subscribed(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn page(
        &self,
        after: u64,
        max: usize,
    ) -> (Vec<Change>, Vec<Report>, u64, Option<Cursor>) {
        match self.0.perform(HubAction::Feed { after, max }) {
            HubDone::Page {
                changes,
                reports,
                next,
                cut,
                ..
            } => (changes, reports, next, cut),
            other => panic!("{other:?}"),
        }
    }

    /// Everything after a commit, in pages of a few changes.
    pub(crate) fn follow(&self, after: u64) -> (Vec<Change>, Vec<Report>, Cursor) {
        let (mut changes, mut reports, mut at) = (Vec::new(), Vec::new(), after);
        loop {
            let (page, told, next, cut) = self.page(at, 3);
            assert!(next >= at);
            changes.extend(page);
            reports.extend(told);
            at = next;
            if let Some(cut) = cut {
                assert_eq!(cut.seq, next);
                return (changes, reports, cut);
            }
        }
    }

    pub(crate) fn store(&self, bytes: &[u8]) -> ChunkHash {
        let hash = ChunkHash::of(bytes);
        assert_eq!(self.put(vec![raw(hash, bytes)]), []);
        hash
    }

    pub(crate) fn put(&self, chunks: Vec<ChunkData>) -> Vec<(ChunkHash, Code)> {
        match self.0.perform(HubAction::Store { chunks }) {
            HubDone::Stored { refused } => refused,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn missing(&self, chunks: &[ChunkHash]) -> Vec<bool> {
        let chunks = chunks.to_vec();
        match self.0.perform(HubAction::Offer { chunks }) {
            HubDone::Offered(missing) => missing,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn applied(&self, cursor: Cursor) {
        let done = self.0.perform(HubAction::Applied { cursor });
        assert_eq!(done, HubDone::Noted);
    }
}

pub(crate) fn raw(hash: ChunkHash, bytes: &[u8]) -> ChunkData {
    ChunkData {
        hash,
        len: bytes.len() as u32,
        encoding: Encoding::Raw,
        bytes: bytes::Bytes::copy_from_slice(bytes).try_into().unwrap(),
    }
}

/// A hub in a new directory, with the tag of the model's.
pub(crate) fn hub_at(path: &Path, options: HubOptions) -> (Replica, Hub) {
    let replica = Replica::open(path, crate::space::options()).unwrap();
    let hub = Hub::open_with(&replica, options).unwrap();
    let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    db.execute("UPDATE hub SET tag = ?", [HUB_TAG as i64])
        .unwrap();
    (replica, hub)
}

/// Remembers nothing that everybody knows.
pub(crate) const FORGETFUL: HubOptions = HubOptions {
    keep_commits: 0,
    retain: Duration::from_hours(1),
    clock: || rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec,
};

pub(crate) fn node(tag: u64, counter: u64) -> NodeId {
    NodeId {
        replica: ReplicaTag(tag),
        counter,
    }
}

pub(crate) fn root(name: &str) -> Place {
    (NodeId::ROOT, Name::new(name.as_bytes()).unwrap())
}

pub(crate) fn text(text: &str) -> Data {
    let bytes = text.as_bytes().to_vec().into();
    Data::Inline { bytes }
}

/// The edits that make a file.
pub(crate) fn new_file(id: NodeId, name: &str, data: Data) -> Vec<Edit> {
    let (parent, name) = root(name);
    vec![
        Edit::New {
            node: id,
            kind: NodeKind::File,
        },
        Edit::Name {
            parent,
            name,
            was: None,
            node: Some(id),
        },
        Edit::Data {
            node: id,
            base: 0,
            data,
        },
        Edit::Meta {
            node: id,
            base: 0,
            fields: MetaFields::ALL,
            meta: META,
        },
    ]
}

/// The edits that remove a file.
pub(crate) fn remove(id: NodeId, name: &str, data_base: u64) -> Vec<Edit> {
    let (parent, name) = root(name);
    let (was, node) = (Some(id), None);
    vec![
        Edit::Name {
            parent,
            name,
            was,
            node,
        },
        Edit::Drop {
            node: id,
            data_base,
        },
    ]
}

/// The content of a file that is these chunks.
pub(crate) fn chunked(chunks: &[&[u8]]) -> Data {
    let extents: Vec<Extent> = (chunks.iter())
        .map(|bytes| Extent::Chunk {
            hash: ChunkHash::of(bytes),
            len: bytes.len() as u32,
        })
        .collect();
    Data::File {
        size: chunks.iter().map(|c| c.len() as u64).sum(),
        chunker: ChunkerId::FastCdc,
        manifest: Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap(),
    }
}

/// The tree that the changes of a feed make.
pub(crate) fn tree_of(changes: &[Change]) -> ModelTree {
    let mut tree = ModelTree::new();
    for change in changes {
        tree.apply(change.ver, &change.entry);
    }
    tree
}
