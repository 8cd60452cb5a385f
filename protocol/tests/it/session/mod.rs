//! What sessions say to each other, what it costs, and what they do not take from
//! a peer.
//!
//! Here are the two sides of a connection; the modules have what is said over it.

pub(crate) mod batches;
mod following;
pub(crate) mod frames;
mod illegal;
mod resets;

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::merge::Place;
use cairn_protocol::session::{ClientConfig, ClientSession, HubConfig, HubSession, Offer};
use cairn_protocol::testing::{ModelClient, ModelHub, ReplicaSafeguards, Rng, Side, talk};
use cairn_protocol::wire::{Frame, Hydrate, Token};
use cairn_protocol::{Epoch, Meta, Name, NodeId, NodeKind, ReplicaTag, Timestamp};

pub(crate) const T0: Duration = Duration::ZERO;

const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Timestamp::EPOCH,
    btime: Timestamp::EPOCH,
};

pub(crate) type C = Side<ClientSession>;
pub(crate) type H = Side<HubSession>;

pub(crate) fn replica(tag: u64) -> ModelClient {
    ModelClient::new(ReplicaTag(tag), ReplicaSafeguards::ALL)
}

pub(crate) fn hub() -> ModelHub {
    ModelHub::new(Epoch([1; 16]))
}

pub(crate) fn place(name: &str) -> Place {
    (NodeId::ROOT, Name::new(name.as_bytes()).unwrap())
}

pub(crate) fn create(replica: &ModelClient, name: &str, content: &[u8]) -> NodeId {
    let data = replica.content(content);
    let made = replica.edit(|r| r.create(&place(name), NodeKind::File, Some(data), META));
    made.unwrap()
}

pub(crate) fn write(replica: &ModelClient, node: NodeId, content: &[u8]) {
    let data = replica.content(content);
    replica.edit(|r| r.write(node, data)).unwrap();
}

pub(crate) fn config(replica: &ModelClient, tag: u64) -> ClientConfig {
    let (start, last_batch, last_batch_digest) = replica.start();
    ClientConfig {
        workspace: [7; 16],
        replica: ReplicaTag(tag),
        token: Token::new(b"secret").unwrap(),
        agent: "test".to_owned(),
        offer: Offer::OURS,
        start,
        last_batch,
        last_batch_digest,
        hydrate: Hydrate::Full,
    }
}

pub(crate) fn hub_side(hub: &ModelHub) -> H {
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: "test".to_owned(),
        offer: Offer::OURS,
    };
    Side::new(HubSession::new(T0, config), hub.connect())
}

pub(crate) fn client_side(replica: &ModelClient, tag: u64) -> C {
    let session = ClientSession::new(T0, config(replica, tag));
    Side::new(session, Arc::new(replica.clone()))
}

/// Both sides of a connection, before anything was heard.
pub(crate) fn connect(replica: &ModelClient, tag: u64, hub: &ModelHub) -> (C, H) {
    (client_side(replica, tag), hub_side(hub))
}

/// Both sides, when everything is said.
pub(crate) fn connected(replica: &ModelClient, tag: u64, hub: &ModelHub) -> (C, H) {
    let (mut c, mut h) = connect(replica, tag, hub);
    talk(T0, &mut c, &mut h);
    assert_eq!((&c.ended, &h.ended), (&None, &None));
    (c, h)
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut bytes: Vec<u8> = (0..=len / 8)
        .flat_map(|_| rng.next().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

fn bytes(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.payload.len() + 8).sum()
}
