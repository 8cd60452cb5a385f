//! What sessions do not take from a peer, and from their own store.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::session::{
    BACKLOG_MAX, By, ClientDone, ClientSession, Command, HubAction, HubConfig, HubDone, HubSession,
    Input, Offer, Session, Store,
};
use cairn_protocol::testing::{BrokenClient, Side, talk};
use cairn_protocol::wire::{
    Blob, Capabilities, Code, Credit, Ext, Fence, Hello, IS_CUT, List, Message, Missing, Push,
    PushAck, Role, Start, Want, Welcome,
};
use cairn_protocol::{
    Chain, ChunkHash, Cursor, Encoding, Epoch, NodeId, Outcome, ReplicaTag, WINDOW_BULK,
    WINDOW_CONTROL,
};

use super::frames::{
    chunks, cursor, cut, greeted_client, greeted_hub, hello, ping, push, subscribe, want, welcome,
};
use super::{
    T0, bytes, client_side, config, connect, connected, create, hub, hub_side, noise, replica,
};

/// A hub that gives other bytes for a chunk than those of its hash.
struct Liar(Arc<dyn Store<HubAction, HubDone>>);

impl Store<HubAction, HubDone> for Liar {
    fn perform(&self, action: HubAction) -> HubDone {
        match self.0.perform(action) {
            HubDone::Chunks {
                mut chunks,
                taken,
                missing,
            } => {
                for chunk in &mut chunks {
                    let other = vec![7; chunk.bytes.len()];
                    chunk.encoding = Encoding::Raw;
                    chunk.bytes = Blob::try_from(bytes::Bytes::from(other)).unwrap();
                }
                HubDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
            done => done,
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.0.on_news(wake)
    }
}

#[test]
fn wrong_bytes_under_a_hash_are_asked_for_again_and_never_kept() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    create(&a, "file", &noise(1, 4_000));
    drop(connected(&a, 1, &hub));
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: String::new(),
        offer: Offer::OURS,
    };
    let mut h = Side::new(HubSession::new(T0, config), Arc::new(Liar(hub.connect())));
    let mut c = client_side(&b, 2);
    let frames = talk(T0, &mut c, &mut h);
    let wants = frames.iter().filter(|frame| frame.kind == Want::KIND);
    assert_eq!(wants.count(), 3);
    assert_eq!(c.ended.unwrap().code, Code::CHUNK_CORRUPT);
    assert_eq!(h.ended.unwrap().by, By::Peer);
    assert_eq!(b.local().names().count(), 0, "nothing of it is shown");
}

#[test]
fn a_store_that_fails_ends_the_session_and_the_peer_is_told_why() {
    let (hub, a) = (hub(), replica(1));
    create(&a, "file", b"x");
    drop(connected(&a, 1, &hub));
    let session = ClientSession::new(T0, config(&replica(2), 2));
    let mut c = Side::new(session, Arc::new(BrokenClient(Code::QUOTA)));
    let mut h = hub_side(&hub);
    talk(T0, &mut c, &mut h);
    assert_eq!(c.ended.unwrap().code, Code::QUOTA);
    let ended = h.ended.unwrap();
    assert_eq!((ended.code, ended.by), (Code::QUOTA, By::Peer));
}

#[test]
fn a_message_that_is_not_legal_now_ends_the_session_and_says_what_was_expected() {
    let fence = Message::from(Fence {
        nonce: 1,
        ext: Ext::default(),
    });
    let missing = Message::from(Missing {
        request: 5,
        chunks: List::default(),
        ext: Ext::default(),
    });
    for message in [&subscribe(Start::Nothing), &fence, &want(1, 1), &cut()] {
        let mut h = hub_side(&hub());
        h.hear(T0, message);
        let ended = h.ended.unwrap();
        assert_eq!(ended.code, Code::STATE);
        assert!(ended.detail.contains("expected Hello"), "{ended}");
    }
    for message in [cut(), hello(Role::Client).into(), subscribe(Start::Nothing)] {
        let mut h = greeted_hub();
        h.hear(T0, &message);
        assert_eq!(h.ended.unwrap().code, Code::STATE, "{message:?}");
    }
    for message in [cut(), welcome().into(), missing.clone()] {
        let mut c = client_side(&replica(3), 3);
        c.hear(T0, &message);
        assert_eq!(c.ended.unwrap().code, Code::STATE, "{message:?}");
    }
    for message in [
        hello(Role::Hub).into(),
        welcome().into(),
        missing,
        subscribe(Start::Nothing),
    ] {
        let mut c = greeted_client();
        c.hear(T0, &message);
        assert_eq!(c.ended.unwrap().code, Code::STATE, "{message:?}");
    }
}

#[test]
fn a_batch_before_the_cursor_is_taken_is_not_legal() {
    let mut h = hub_side(&hub());
    h.hear(T0, &hello(Role::Client).into());
    h.hear(T0, &push(1, true).into());
    assert_eq!(h.ended.unwrap().code, Code::STATE);
    let mut h = greeted_hub();
    let other = Push {
        seen: Cursor {
            epoch: Epoch([9; 16]),
            ..cursor()
        },
        ..push(1, true)
    };
    h.said();
    h.hear(T0, &other.into());
    let said = h.said();
    assert!(
        matches!(&said[..], [Message::Error(e)] if e.code == Code::EPOCH),
        "{said:?}"
    );
    assert_eq!(h.ended, None, "the batch is refused, not the client");
}

#[test]
fn an_answer_that_is_a_cut_out_of_order_is_refused() {
    for (capabilities, seq) in [(Capabilities::CONFIRM, 3), (Capabilities::default(), 2)] {
        let (hub, a) = (hub(), replica(1));
        let mut config = config(&a, 1);
        config.offer.capabilities = capabilities;
        let session = ClientSession::new(T0, config);
        let (mut c, mut h) = (Side::new(session, Arc::new(a.clone())), hub_side(&hub));
        create(&a, "first", b"x");
        talk(T0, &mut c, &mut h);
        create(&a, "second", b"x");
        c.settle(T0);
        let ext = vec![(IS_CUT, Blob::default())].try_into().unwrap();
        let (batch, chain, outcomes) = (2, Chain::GENESIS, List::default());
        let ack = Message::from(PushAck {
            batch,
            seq,
            chain,
            outcomes,
            ext,
        });
        c.give(T0, Input::Frame(ack.to_frame(0)));
        c.settle(T0);
        assert_eq!(c.ended.as_ref().map(|end| end.code), Some(Code::STATE));
        assert!(!a.is_clean());
    }
}

#[test]
fn greetings_that_do_not_agree_end_the_session() {
    let other = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello(Role::Client);
        change(&mut hello);
        let mut h = hub_side(&hub());
        h.hear(T0, &hello.into());
        h.ended.map(|ended| ended.code)
    };
    assert_eq!(other(&|_| {}), None);
    let newer = |h: &mut Hello| (h.version_min, h.version_max) = (2, 3);
    assert_eq!(other(&newer), Some(Code::VERSION));
    assert_eq!(other(&|h| h.role = Role::Hub), Some(Code::STATE));
    assert_eq!(other(&|h| h.limits.frame = 5), Some(Code::LIMIT));
    let mut c = client_side(&replica(3), 3);
    c.hear(T0, &hello(Role::Hub).into());
    let version = 2;
    c.hear(
        T0,
        &Welcome {
            version,
            ..welcome()
        }
        .into(),
    );
    assert_eq!(c.ended.unwrap().code, Code::MALFORMED);
}

#[test]
fn a_stranger_may_send_little() {
    let mut h = hub_side(&hub());
    assert_eq!(h.session.frame_max(), 4_096);
    h.hear(T0, &want(1, 1_000));
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
    assert_eq!(greeted_hub().session.frame_max(), 1 << 20);
    assert_eq!(client_side(&replica(3), 3).session.frame_max(), 4_096);
}

#[test]
fn who_says_nothing_is_asked_and_then_left() {
    let seconds = Duration::from_secs;
    // One that does not say who it is.
    let mut h = hub_side(&hub());
    h.give(seconds(9), Input::Tick);
    assert_eq!(h.ended, None);
    h.give(seconds(10), Input::Tick);
    assert_eq!(h.ended.unwrap().code, Code::STATE);
    // One that was there.
    let mut h = greeted_hub();
    h.said();
    h.give(seconds(15), Input::Tick);
    assert!(matches!(&h.said()[..], [Message::Ping(_)]));
    h.give(seconds(20), Input::Tick);
    assert_eq!(h.said(), []);
    // A clock that goes back stands still.
    h.give(seconds(3), Input::Tick);
    assert_eq!((h.said(), &h.ended), (vec![], &None));
    h.give(seconds(45), Input::Tick);
    assert_eq!(h.ended.unwrap().code, Code::STATE);
    // One that answers.
    let (mut c, mut h) = connected(&replica(1), 1, &hub());
    for now in (0..600).step_by(5).map(seconds) {
        c.give(now, Input::Tick);
        h.give(now, Input::Tick);
        talk(now, &mut c, &mut h);
    }
    assert_eq!((&c.ended, &h.ended), (&None, &None));
}

/// How many bytes of a message a session takes before it ends.
fn taken<S: Session>(side: &mut Side<S>, mut next: impl FnMut(u64) -> Message) -> u64 {
    side.is_stuck = true;
    let mut bytes = 0;
    for n in 1..1_000_000 {
        let frame = next(n).to_frame(0);
        bytes += frame.payload.len() as u64 + 8;
        side.give(T0, Input::Frame(frame));
        if side.ended.is_some() {
            return bytes;
        }
    }
    panic!("it never ends");
}

#[test]
fn i13_a_peer_that_never_stops_sending_is_left() {
    // Nothing is granted while the store is busy.
    let mut c = greeted_client();
    let report = |n| {
        Message::from(cairn_protocol::wire::Report {
            seq: n,
            by: ReplicaTag(1),
            outcomes: vec![Outcome::Kept { node: NodeId::ROOT }; 5_000]
                .try_into()
                .unwrap(),
            ext: Ext::default(),
        })
    };
    assert!(taken(&mut c, report) <= WINDOW_CONTROL + (1 << 20));
    assert_eq!(c.ended.unwrap().code, Code::LIMIT);
    let mut c = greeted_client();
    c.session.handle(T0, fetch(1));
    c.is_stuck = true;
    let all = taken(&mut c, |_| chunks(1, 500_000));
    assert!(all <= WINDOW_BULK + (1 << 20));
    // A hub that is asked without an end.
    let mut h = greeted_hub();
    taken(&mut h, |n| want(n, 10_000));
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
    let mut h = greeted_hub();
    taken(&mut h, |n| want(n, 1));
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
    let mut h = greeted_hub();
    taken(&mut h, ping);
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
    let mut h = greeted_hub();
    taken(&mut h, |nonce| {
        Fence {
            nonce,
            ext: Ext::default(),
        }
        .into()
    });
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
    let mut h = greeted_hub();
    taken(&mut h, |n| {
        let part = u32::try_from(n - 1).unwrap();
        let chunks = vec![ChunkHash::of(b""); 16_000].try_into().unwrap();
        Push {
            part,
            chunks,
            ..push(1, false)
        }
        .into()
    });
    assert_eq!(h.ended.unwrap().code, Code::LIMIT);
}

fn fetch(id: u64) -> Input<ClientDone> {
    Input::Command(Command::Fetch {
        id,
        chunks: vec![(ChunkHash::of(b"x"), None)],
        priority: 0,
    })
}

#[test]
fn i13_credit_that_was_not_spent_is_refused() {
    for (lane, code) in [(0, Code::LIMIT), (1, Code::LIMIT), (2, Code::MALFORMED)] {
        let mut h = greeted_hub();
        let message = Credit {
            lane,
            bytes: WINDOW_BULK + 1,
            entries: 0,
            ext: Ext::default(),
        };
        h.hear(T0, &message.into());
        assert_eq!(h.ended.unwrap().code, code);
    }
}

/// Whatever a peer reads, or does not, little waits to be sent.
#[test]
fn i13_to_a_peer_that_reads_nothing_little_is_said() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    for n in 0..40 {
        create(&a, &format!("file {n}"), &noise(n, 1_000_000));
    }
    drop(connected(&a, 1, &hub));
    // A client that stages and stores nothing, so gives no credit back.
    let (mut c, mut h) = connect(&b, 2, &hub);
    c.is_stuck = true;
    let frames = talk(T0, &mut c, &mut h);
    assert!(bytes(&frames) < BACKLOG_MAX);
    c.is_stuck = false;
    talk(T0, &mut c, &mut h);
    assert!(b.local() == hub.tree());
}

#[test]
fn i5_a_connection_may_be_cut_after_any_byte() {
    let scenario = |cut: usize| {
        let (hub, a) = (hub(), replica(1));
        create(&a, "small", b"x");
        create(&a, "large", &noise(1, 20_000));
        let other = replica(2);
        create(&other, "other", &noise(2, 9_000));
        drop(connected(&other, 2, &hub));
        let (mut c, mut h) = connect(&a, 1, &hub);
        let mut sent = 0;
        loop {
            let any = c.settle(T0) | h.settle(T0);
            let (up, down) = (c.out.pop_front(), h.out.pop_front());
            if up.is_none() && down.is_none() && !any {
                break;
            }
            for (frame, is_up) in [(up, true), (down, false)] {
                let Some(frame) = frame else { continue };
                sent += frame.payload.len() + 8;
                if sent > cut {
                    c.give(T0, Input::Closed);
                    h.give(T0, Input::Closed);
                    drop((c, h));
                    drop(connected(&a, 1, &hub));
                    assert!(a.is_clean() && a.local() == hub.tree());
                    assert_eq!(a.missing(), []);
                    return sent;
                }
                if is_up {
                    h.give(T0, Input::Frame(frame));
                } else {
                    c.give(T0, Input::Frame(frame));
                }
            }
        }
        sent
    };
    let mut cut = 0;
    while cut < usize::MAX {
        // A frame that is cut anywhere did not come.
        let sent = scenario(cut);
        if sent <= cut {
            break;
        }
        cut = sent;
    }
    assert!(cut > 20_000);
}
