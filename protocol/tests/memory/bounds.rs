//! What a session holds of a peer that sends all that it may, to a store that is stuck.

use std::time::Duration;

use cairn_protocol::session::{
    HubAction, HubConfig, HubDone, HubSession, Input, Offer, Output, Session,
};
use cairn_protocol::testing::ModelHub;
use cairn_protocol::wire::{
    Blob, ChunkData, Chunks, Ext, Hello, Hydrate, Limits, List, Message, Push, Role, Start,
    Subscribe, Text, Token, Want,
};
use cairn_protocol::{
    Chain, ChunkHash, Cursor, Edit, Encoding, Epoch, NodeId, ReplicaTag, Scope, XattrName,
};

const T0: Duration = Duration::ZERO;

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

fn cursor() -> Cursor {
    Cursor {
        epoch: Epoch([1; 16]),
        seq: 0,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    }
}

/// What a client says to be taken.
fn greeting() -> [Message; 2] {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Client,
        workspace: [7; 16],
        replica: ReplicaTag(3),
        token: Token::default(),
        capabilities: Offer::OURS.capabilities,
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    };
    let subscribe = Subscribe {
        from: Start::Nothing,
        scope: Scope::ALL,
        hydrate: Hydrate::Full,
        ext: Ext::default(),
    };
    [hello.into(), subscribe.into()]
}

/// A part of a batch that is as large in memory, for its bytes, as any.
fn push(part: u32) -> Message {
    let edit = |counter| Edit::Xattr {
        node: NodeId {
            replica: ReplicaTag(1),
            counter,
        },
        name: XattrName::new(b"user.x").unwrap(),
        base: 0,
        value: Some(vec![7; 200].into()),
    };
    let edits: Vec<Edit> = (0..4_000).map(edit).collect();
    let chunks = vec![ChunkHash::of(b""); 4_000];
    Message::from(Push {
        batch: 1,
        part,
        last: false,
        seen: cursor(),
        edits: edits.try_into().unwrap(),
        chunks: chunks.try_into().unwrap(),
        inline: List::default(),
        digest: [0; 32],
        ext: Ext::default(),
    })
}

fn want(request: u64) -> Message {
    let chunks: Vec<_> = (0..1_000_u64)
        .map(|n| (ChunkHash::of(&(request * 1_000 + n).to_le_bytes()), None))
        .collect();
    Message::from(Want {
        request,
        priority: 0,
        chunks: chunks.try_into().unwrap(),
        ext: Ext::default(),
    })
}

fn chunks() -> Message {
    let data = ChunkData {
        hash: ChunkHash::of(b"x"),
        len: 1,
        encoding: Encoding::Raw,
        bytes: Blob::try_from(bytes::Bytes::from(vec![0; 500_000])).unwrap(),
    };
    Message::from(Chunks {
        request: 1,
        chunks: vec![data].try_into().unwrap(),
        ext: Ext::default(),
    })
}

/// A hub's session, and what its store is asked and does not answer any more.
struct Hub {
    session: HubSession,
    waits: Vec<HubAction>,
    ended: bool,
}

impl Hub {
    fn give(
        &mut self,
        input: Input<HubDone>,
    ) -> Vec<(cairn_protocol::session::ActionId, HubAction)> {
        self.session.handle(T0, input);
        let mut actions = Vec::new();
        loop {
            match self.session.poll() {
                Output::Wait(_) => return actions,
                Output::Close(_) => self.ended = true,
                Output::Action(id, action) => actions.push((id, action)),
                Output::Transmit(_) | Output::Event(_) => {}
            }
        }
    }
}

#[test]
fn i13_the_memory_of_a_session_is_bounded() {
    let store = ModelHub::new(Epoch([1; 16])).connect();
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: String::new(),
        offer: Offer::OURS,
    };
    let session = HubSession::new(T0, config);
    let mut hub = Hub {
        session,
        waits: Vec::new(),
        ended: false,
    };
    let mut todo = Vec::new();
    for message in greeting() {
        todo.extend(hub.give(Input::Frame(message.to_frame(0))));
    }
    while let Some((id, action)) = todo.pop() {
        let done = store.perform(action);
        todo.extend(hub.give(Input::Done(id, done)));
    }
    let before = resident();
    let mut most = before;
    // Everything at once, and the store is stuck. Each stops just before it would
    // end the session.
    for n in 0..64 {
        let mut messages = Vec::new();
        messages.extend((n < 15).then(|| push(n)));
        messages.extend((n < 60).then(|| want(n.into())));
        messages.extend((n < 16).then(chunks));
        for message in messages {
            let frame = message.to_frame(0);
            drop(message);
            let actions = hub.give(Input::Frame(frame));
            hub.waits
                .extend(actions.into_iter().map(|(_, action)| action));
            most = most.max(resident());
        }
    }
    assert!(!hub.ended, "all of that is legal");
    let held = most - before;
    println!("{} KiB", held >> 10);
    assert!(held < 64 << 20, "{} KiB", held >> 10);
}
