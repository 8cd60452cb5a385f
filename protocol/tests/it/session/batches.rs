//! Batches, from the first message to the answer: lost, late and refused.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::session::{
    By, ClientSession, Command, Event, HubAction, HubConfig, HubDone, HubSession, Input, Offer,
    Output, Session, Store, StoreFailure,
};
use cairn_protocol::testing::{ModelClient, ModelHub, Side, talk};
use cairn_protocol::wire::{Capabilities, Chunks, Code, Frame, Message};
use cairn_protocol::{NodeId, ReplicaTag};

use super::frames::kinds;
use super::{
    C, H, T0, client_side, config, connected, create, hub, hub_side, noise, replica, write,
};

#[test]
fn i3_a_batch_whose_answer_was_lost_takes_effect_once() {
    let (hub, a) = (hub(), replica(1));
    let (mut c, mut h) = connected(&a, 1, &hub);
    create(&a, "file", b"x");
    c.settle(T0);
    while let Some(frame) = c.out.pop_front() {
        h.give(T0, Input::Frame(frame));
    }
    assert_eq!(hub.head().seq, 1, "the batch is committed, the answer lost");
    drop((c, h));
    drop(connected(&a, 1, &hub));
    assert_eq!(hub.head().seq, 1);
    assert!(a.is_clean() && a.local() == hub.tree());
}

#[test]
fn outcomes_that_have_no_room_come_before_the_answer() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let nodes: Vec<NodeId> = (0..1_500)
        .map(|n| create(&a, &format!("file {n}"), b"x"))
        .collect();
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    for node in nodes {
        write(&a, node, format!("a {node}").as_bytes());
        write(&b, node, format!("b {node}").as_bytes());
    }
    talk(T0, &mut ca, &mut ha);
    let frames = talk(T0, &mut cb, &mut hb);
    let kinds: Vec<u16> = frames.iter().map(|frame| frame.kind).collect();
    let before = kinds.iter().position(|kind| *kind == 24).unwrap();
    assert!(before < kinds.iter().position(|kind| *kind == 9).unwrap());
    let copied = cb.events.iter().find_map(|event| match event {
        Event::Pushed { outcomes, .. } => Some(outcomes.len()),
        _ => None,
    });
    assert_eq!(copied, Some(1_500));
    assert!(b.local() == hub.tree());
}

/// A page may be read while a batch is committed, and have its commit.
#[test]
fn i4_the_answer_comes_before_the_cut_that_has_its_commit() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    // One that cannot be told by the answer alone.
    let mut config = config(&a, 1);
    config.offer.capabilities = Capabilities::default();
    let session = ClientSession::new(T0, config);
    let (mut ca, mut ha) = (Side::new(session, Arc::new(a.clone())), hub_side(&hub));
    talk(T0, &mut ca, &mut ha);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    create(&b, "b", b"x");
    talk(T0, &mut cb, &mut hb);
    create(&a, "a", b"x");
    let frames = talk(T0, &mut ca, &mut ha);
    let acks = frames.iter().position(|frame| frame.kind == 9).unwrap();
    let cut = |frame: &Frame| match Message::from_frame(frame) {
        Ok(Some(Message::Cut(cut))) => cut.cursor.seq >= 2,
        _ => false,
    };
    assert!(frames.iter().position(cut).unwrap() > acks);
}

#[test]
fn who_knows_all_of_a_commit_is_told_by_the_answer() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    let node = create(&a, "file", b"x");
    let frames = talk(T0, &mut ca, &mut ha);
    // Push, PushAck and Applied.
    assert_eq!(kinds(&frames), [7, 9, 6]);
    assert!(a.is_clean() && a.confirmed() == (Some(hub.head()), hub.tree()));
    // The other is told of it as ever, and so is the author of what is not its.
    hb.give(T0, Input::News);
    assert_eq!(kinds(&talk(T0, &mut cb, &mut hb)), [4, 5, 6]);
    write(&b, node, b"y");
    talk(T0, &mut cb, &mut hb);
    create(&a, "other", b"x");
    let frames = kinds(&talk(T0, &mut ca, &mut ha));
    assert!(frames.contains(&4) && frames.contains(&5), "{frames:?}");
    hb.give(T0, Input::News);
    talk(T0, &mut cb, &mut hb);
    for replica in [&a, &b] {
        assert_eq!(replica.confirmed(), (Some(hub.head()), hub.tree()));
    }
}

#[test]
fn a_hub_that_shuts_down_in_the_middle_of_a_push_loses_nothing() {
    let (hub, a) = (hub(), replica(1));
    let (mut c, mut h) = connected(&a, 1, &hub);
    h.is_stuck = true;
    create(&a, "large", &noise(1, 900_000));
    talk(T0, &mut c, &mut h);
    h.command(T0, Command::Shutdown);
    talk(T0, &mut c, &mut h);
    let ended = c.ended.unwrap();
    assert_eq!((ended.code, ended.by), (Code::SHUTDOWN, By::Peer));
    assert!(!a.is_clean());
    drop(connected(&a, 1, &hub));
    assert!(a.is_clean() && a.local() == hub.tree());
}

/// It came under another hash than it was sent under: the hub did not know it, the
/// client had sent it, and both waited for as long as the connection lasted.
#[test]
fn regression_a_batch_whose_chunk_does_not_come_is_pushed_again() {
    let (hub, a) = (hub(), replica(1));
    let (mut c, mut h) = connected(&a, 1, &hub);
    create(&a, "file", &noise(1, 300_000));
    let mut sent = 0;
    c.settle(T0);
    while sent == 0 {
        while let Some(frame) = h.out.pop_front() {
            c.give(T0, Input::Frame(frame));
        }
        c.settle(T0);
        while let Some(frame) = c.out.pop_front() {
            let is_chunks = frame.kind == Chunks::KIND;
            sent += usize::from(is_chunks);
            if !is_chunks {
                h.give(T0, Input::Frame(frame));
            }
        }
        h.settle(T0);
    }
    for seconds in (0..130).step_by(10) {
        assert!(!a.is_clean() || seconds > 110, "{seconds} s");
        let now = Duration::from_secs(seconds);
        c.give(now, Input::Tick);
        h.give(now, Input::Tick);
        talk(now, &mut c, &mut h);
    }
    assert_eq!((&c.ended, &h.ended), (&None, &None));
    assert!(a.is_clean() && a.local() == hub.tree());
}

/// A hub that is busy at first.
struct Busy(
    Arc<dyn Store<HubAction, HubDone>>,
    std::sync::atomic::AtomicBool,
);

impl Store<HubAction, HubDone> for Busy {
    fn perform(&self, action: HubAction) -> HubDone {
        let first = self.1.swap(false, std::sync::atomic::Ordering::Relaxed);
        match action {
            HubAction::Commit { .. } if first => HubDone::Failed(StoreFailure {
                code: Code::BUSY,
                detail: "later".to_owned(),
                retry_after_ms: 2_000,
            }),
            HubAction::Commit { .. } => self.0.perform(action),
            action => {
                self.1.store(first, std::sync::atomic::Ordering::Relaxed);
                self.0.perform(action)
            }
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.0.on_news(wake)
    }
}

#[test]
fn a_batch_that_is_refused_for_now_is_pushed_again() {
    let (hub, a) = (hub(), replica(1));
    create(&a, "file", &noise(1, 9_000));
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: String::new(),
        offer: Offer::OURS,
    };
    let store = Busy(hub.connect(), true.into());
    let mut h = Side::new(HubSession::new(T0, config), Arc::new(store));
    let mut c = client_side(&a, 1);
    talk(T0, &mut c, &mut h);
    assert!(!a.is_clean());
    let refused = c.events.iter().find_map(|event| match event {
        Event::NotPushed { retry_after, .. } => *retry_after,
        _ => None,
    });
    let later = Duration::from_secs(2);
    assert_eq!(refused, Some(later));
    assert!(matches!(c.session.poll(), Output::Wait(Some(until)) if until == later));
    c.give(later, Input::Tick);
    talk(later, &mut c, &mut h);
    assert!(a.is_clean() && a.local() == hub.tree());
}

/// A hub that refuses every batch while it is told to: why, and when to come again.
pub(crate) struct Refusing {
    hub: Arc<dyn Store<HubAction, HubDone>>,
    pub(crate) refuses: std::sync::atomic::AtomicBool,
    code: Code,
    retry_after_ms: u32,
}

impl Store<HubAction, HubDone> for Refusing {
    fn perform(&self, action: HubAction) -> HubDone {
        let refuses = self.refuses.load(std::sync::atomic::Ordering::Relaxed);
        if matches!(action, HubAction::Commit { .. }) && refuses {
            return HubDone::Failed(StoreFailure {
                code: self.code,
                detail: "not of this kind".to_owned(),
                retry_after_ms: self.retry_after_ms,
            });
        }
        self.hub.perform(action)
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.hub.on_news(wake)
    }
}

/// A session of a replica with something to push with a hub that refuses it.
pub(crate) fn refused(
    a: &ModelClient,
    hub: &ModelHub,
    code: Code,
    retry_after_ms: u32,
) -> (C, H, Arc<Refusing>) {
    create(a, "file", b"x");
    let config = HubConfig {
        replica: ReplicaTag(0xb),
        agent: String::new(),
        offer: Offer::OURS,
    };
    let store = Arc::new(Refusing {
        hub: hub.connect(),
        refuses: true.into(),
        code,
        retry_after_ms,
    });
    let mut h = Side::new(HubSession::new(T0, config), store.clone());
    let mut c = client_side(a, 1);
    talk(T0, &mut c, &mut h);
    (c, h, store)
}

/// Who waits for a batch that the hub has no space for is told so, and so is who
/// waits for one that it could not take several times; both are pushed again.
#[test]
fn who_waits_is_told_of_a_batch_that_is_refused_again_and_again() {
    for (code, refusals) in [(Code::QUOTA, 1), (Code::BUSY, 4)] {
        let (hub, a) = (hub(), replica(1));
        let (mut c, mut h, store) = refused(&a, &hub, code, 5_000);
        c.command(T0, Command::Fence { id: 5 });
        talk(T0, &mut c, &mut h);
        let cursor = Err(code);
        let fenced = Event::Fenced { id: 5, cursor };
        let mut now = T0;
        for _ in 1..refusals {
            assert!(!c.events.contains(&fenced), "{code}");
            now += Duration::from_secs(5);
            c.give(now, Input::Tick);
            h.give(now, Input::Tick);
            talk(now, &mut c, &mut h);
        }
        assert!(c.events.contains(&fenced), "{code}: {c:?}");
        store
            .refuses
            .store(false, std::sync::atomic::Ordering::Relaxed);
        now += Duration::from_secs(5);
        c.give(now, Input::Tick);
        h.give(now, Input::Tick);
        talk(now, &mut c, &mut h);
        assert!(a.is_clean() && a.local() == hub.tree());
    }
}

#[test]
fn a_batch_that_is_refused_for_good_is_pushed_again_ever_later() {
    let (hub, a) = (hub(), replica(1));
    let (mut c, mut h, store) = refused(&a, &hub, Code::MALFORMED, 0);
    // Who waits is told.
    c.command(T0, Command::Fence { id: 5 });
    talk(T0, &mut c, &mut h);
    let fenced = Event::Fenced {
        id: 5,
        cursor: Err(Code::MALFORMED),
    };
    assert!(c.events.contains(&fenced));
    let mut now = T0;
    let mut waits = Vec::new();
    for _ in 0..9 {
        let refused = c.events.iter().rev().find_map(|event| match event {
            Event::NotPushed { retry_after, .. } => *retry_after,
            _ => None,
        });
        waits.push(refused.unwrap().as_secs());
        store
            .refuses
            .store(waits.len() < 9, std::sync::atomic::Ordering::Relaxed);
        // The peers are not silent meanwhile.
        for _ in 0..refused.unwrap().as_secs() / 5 {
            now += Duration::from_secs(5);
            c.give(now, Input::Tick);
            h.give(now, Input::Tick);
            talk(now, &mut c, &mut h);
        }
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    assert!(a.is_clean() && a.local() == hub.tree());
}
