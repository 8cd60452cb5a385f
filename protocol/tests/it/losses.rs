//! Chunks that a hub has lost come again from who follows it.

use std::time::Duration;

use cairn_protocol::session::{ClientSession, HubConfig, HubSession, Offer};
use cairn_protocol::testing::{ModelHub, Side, talk};
use cairn_protocol::wire::{Capabilities, Code, Ext, Frame, List, Message, Missing, Want};
use cairn_protocol::{ChunkHash, ReplicaTag};

use crate::session::frames::greeted_client;
use crate::session::{client_side, config, connected, create, hub, noise, replica};

const T0: Duration = Duration::ZERO;

fn wants(frames: &[Frame]) -> Vec<Want> {
    let messages = frames.iter().map(Message::from_frame);
    let wants = messages.filter_map(|message| match message {
        Ok(Some(Message::Want(want))) => Some(want),
        _ => None,
    });
    wants.collect()
}

#[test]
fn a_hub_asks_who_follows_for_what_it_has_lost() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let node = create(&a, "file", &noise(1, 400_000));
    let (mut c, mut h) = connected(&a, 1, &hub);
    // One that is there hears of it at once.
    hub.lose(node);
    assert_eq!(hub.missing().len(), 98);
    let frames = talk(T0, &mut c, &mut h);
    assert_eq!(hub.missing(), []);
    // 32 at a time.
    assert_eq!(wants(&frames).len(), 4);
    assert_eq!((&c.ended, &h.ended), (&None, &None));
    // One that comes later is asked when it has the hub's tree; until then nobody
    // can clone.
    drop((c, h));
    hub.lose(node);
    let mut new = client_side(&b, 2);
    let mut h = crate::session::hub_side(&hub);
    talk(T0, &mut new, &mut h);
    assert_eq!(new.ended.unwrap().code, Code::CHUNK_MISSING);
    drop(connected(&a, 1, &hub));
    assert_eq!(hub.missing(), []);
    drop(connected(&b, 2, &hub));
    assert_eq!(b.missing(), []);
}

fn with(capabilities: u64, hub: &ModelHub) -> Side<HubSession> {
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: String::new(),
        offer: Offer {
            capabilities: Capabilities(capabilities),
            ..Offer::OURS
        },
    };
    Side::new(HubSession::new(T0, config), hub.connect())
}

#[test]
fn a_client_is_asked_for_lost_chunks_if_it_can_give_and_once() {
    let (hub, a) = (hub(), replica(1));
    let node = create(&a, "file", &noise(1, 8_000));
    drop(connected(&a, 1, &hub));
    hub.lose(node);
    // A version of before is not asked, and waits for nothing.
    let mut old = Side::new(
        ClientSession::new(T0, config(&a, 1)),
        std::sync::Arc::new(a.clone()),
    );
    let mut h = with(0, &hub);
    old.command(T0, cairn_protocol::session::Command::Fence { id: 1 });
    assert_eq!(wants(&talk(T0, &mut old, &mut h)), []);
    assert!(format!("{:?}", old.events).contains("Fenced"));
    // Who does not have them is asked once.
    let b = replica(2);
    let small = create(&b, "small", b"small");
    drop((old, h));
    hub.lose(small);
    let (mut c, mut h) = (client_side(&a, 1), with(Capabilities::GIVES.0, &hub));
    h.is_stuck = false;
    let frames = talk(T0, &mut c, &mut h);
    assert_eq!(wants(&frames).len(), 1);
    assert_eq!(hub.missing(), []);
    // A hub that did not agree on it may not ask, and nobody may for too much.
    let chunks: Vec<_> = vec![(ChunkHash::of(b"?"), None)];
    let want = |request: u64| {
        Message::from(Want {
            request: 1 << 63 | request,
            priority: 0,
            chunks: chunks.clone().try_into().unwrap(),
            ext: Ext::default(),
        })
    };
    let mut c = greeted_client();
    c.said();
    c.hear(T0, &want(1));
    let missing = Message::from(Missing {
        request: 1 << 63 | 1,
        chunks: List::try_from(vec![ChunkHash::of(b"?")]).unwrap(),
        ext: Ext::default(),
    });
    assert_eq!(c.said(), [missing]);
    c.is_stuck = true;
    c.hear(T0, &want(2));
    c.hear(T0, &want(3));
    assert_eq!(c.ended.unwrap().code, Code::LIMIT);
}
