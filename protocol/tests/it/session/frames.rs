//! Messages as they are sent, and sides that have heard some.

use std::sync::Arc;

use cairn_protocol::session::{ClientConfig, ClientSession, Command, Input, Offer};
use cairn_protocol::testing::{ModelHub, Side};
use cairn_protocol::wire::{
    Blob, ChunkData, Chunks, Cut, Ext, Frame, Hello, Hydrate, Limits, List, Message, Ping, Push,
    Role, Start, Subscribe, Text, Token, Want, Welcome,
};
use cairn_protocol::{Chain, ChunkHash, Cursor, Encoding, Epoch, ReplicaTag, Scope};

use super::{
    C, H, T0, client_side, config, connected, create, hub, hub_side, noise, replica, write,
};

// What is not taken.

pub(crate) fn hello(role: Role) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        workspace: [7; 16],
        replica: ReplicaTag(3),
        token: Token::default(),
        capabilities: Offer::OURS.capabilities,
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    }
}

pub(crate) fn subscribe(from: Start) -> Message {
    Message::from(Subscribe {
        from,
        scope: Scope::ALL,
        hydrate: Hydrate::Full,
        ext: Ext::default(),
    })
}

pub(crate) fn cursor() -> Cursor {
    Cursor {
        epoch: Epoch([1; 16]),
        seq: 0,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    }
}

pub(crate) fn push(batch: u64, last: bool) -> Push {
    Push {
        batch,
        part: 0,
        last,
        seen: cursor(),
        edits: List::default(),
        chunks: List::default(),
        inline: List::default(),
        digest: [0; 32],
        ext: Ext::default(),
    }
}

pub(crate) fn ping(nonce: u64) -> Message {
    let ext = Ext::default();
    Ping { nonce, ext }.into()
}

/// A hub that has heard what is said in a greeting.
pub(crate) fn greeted_hub() -> H {
    let mut h = hub_side(&hub());
    h.hear(T0, &hello(Role::Client).into());
    h.hear(T0, &subscribe(Start::Nothing));
    assert_eq!(h.ended, None);
    h
}

/// A client that a hub has taken.
pub(crate) fn greeted_client() -> C {
    let mut c = client_side(&replica(3), 3);
    c.hear(T0, &hello(Role::Hub).into());
    c.hear(T0, &welcome().into());
    assert_eq!(c.ended, None);
    c
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        epoch: Epoch([1; 16]),
        head: cursor(),
        capabilities: Offer::OURS.capabilities,
        limits: Limits::OURS,
        last_batch: 0,
        last_batch_digest: [0; 32],
        session: 1,
        ext: Ext::default(),
    }
}

pub(crate) fn want(request: u64, chunks: usize) -> Message {
    let hash = |n: usize| ChunkHash::of(&n.to_le_bytes());
    let chunks: Vec<_> = (0..chunks).map(|n| (hash(n), None)).collect();
    Message::from(Want {
        request,
        priority: 0,
        chunks: chunks.try_into().unwrap(),
        ext: Ext::default(),
    })
}

pub(crate) fn chunks(request: u64, len: usize) -> Message {
    let data = ChunkData {
        hash: ChunkHash::of(b"x"),
        len: 1,
        encoding: Encoding::Raw,
        bytes: Blob::try_from(bytes::Bytes::from(vec![0; len])).unwrap(),
    };
    Message::from(Chunks {
        request,
        chunks: vec![data].try_into().unwrap(),
        ext: Ext::default(),
    })
}

pub(crate) fn cut() -> Message {
    Message::from(Cut {
        transfer: 1,
        cursor: cursor(),
        entries: 0,
        digest: [0; 32],
        ext: Ext::default(),
    })
}

pub(crate) fn kinds(frames: &[Frame]) -> Vec<u16> {
    frames.iter().map(|frame| frame.kind).collect()
}

/// What a client and a hub say in a session with a bit of everything, as inputs
/// of the fuzz target `session_frames`.
pub(crate) fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let hub = ModelHub::new(Epoch([0xe0; 16]));
    let (a, b) = (replica(9), replica(2));
    let node = create(&b, "file", b"x");
    create(&b, "large", &noise(2, 9_000));
    drop(connected(&b, 2, &hub));
    let mut offer = Offer::OURS;
    offer.limits.inline = 2_000;
    let session = ClientSession::new(
        T0,
        ClientConfig {
            offer,
            ..config(&a, 9)
        },
    );
    let (mut c, mut h) = (Side::new(session, Arc::new(a.clone())), hub_side(&hub));
    let (mut up, mut down) = (vec![2], vec![3]);
    for round in 0..3 {
        loop {
            let any = c.settle(T0) | h.settle(T0);
            let (said, answered) = (c.out.pop_front(), h.out.pop_front());
            if said.is_none() && answered.is_none() && !any {
                break;
            }
            if let Some(frame) = said {
                up.extend(frame.encode());
                h.give(T0, Input::Frame(frame));
            }
            if let Some(frame) = answered {
                down.extend(frame.encode());
                c.give(T0, Input::Frame(frame));
            }
        }
        match round {
            0 => {
                create(&a, "other", &noise(3, 9_000));
                write(&a, node, b"y");
            }
            _ => c.command(T0, Command::Fence { id: 1 }),
        }
    }
    // The lane has another meaning there.
    vec![("client", flat(up)), ("hub", flat(down))]
}

/// A stream whose frames are all of lane 0.
pub(crate) fn flat(mut stream: Vec<u8>) -> Vec<u8> {
    let mut at = 1;
    while at + 8 <= stream.len() {
        let len = u32::from_le_bytes(stream[at..at + 4].try_into().unwrap());
        stream[at + 7] = 0;
        at += 8 + usize::try_from(len).unwrap();
    }
    stream
}
