//! What is said of a tree: clones, edits and cuts, and what that costs.

use std::sync::Arc;

use cairn_protocol::session::{
    ClientAction, ClientDone, ClientSession, Command, Event, Input, Session, Store,
};
use cairn_protocol::testing::{ModelClient, Side, talk};
use cairn_protocol::wire::{Code, Token};
use cairn_protocol::{ChunkHash, Outcome, ReplicaTag};

use super::{
    C, T0, bytes, config, connect, connected, create, hub, hub_side, noise, place, replica, write,
};

#[test]
fn a_clone_has_what_was_pushed_and_follows_live() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let node = create(&a, "small", b"x");
    create(&a, "large", &noise(1, 50_000));
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    assert!(b.local() == a.local() && b.local() == hub.tree());
    assert_eq!(b.missing(), []);
    write(&a, node, b"y");
    talk(T0, &mut ca, &mut ha);
    talk(T0, &mut cb, &mut hb);
    assert!(b.local() == a.local() && a.is_clean());
    let live = |event: &&Event| matches!(event, Event::Live { .. });
    assert!(cb.events.iter().filter(live).count() >= 2);
}

#[test]
fn reconnecting_with_nothing_to_do_is_one_round_trip_and_small() {
    let (hub, a) = (hub(), replica(1));
    for n in 0..2_000 {
        create(&a, &format!("file {n}"), b"x");
    }
    drop(connected(&a, 1, &hub));
    let (mut c, mut h) = connect(&a, 1, &hub);
    let frames = talk(T0, &mut c, &mut h);
    let counters = c.session.counters();
    assert_eq!(counters.round_trips, 1);
    assert!(bytes(&frames) < 1_024, "{} bytes", bytes(&frames));
    let both = counters.bytes_sent + counters.bytes_received;
    assert_eq!(both, bytes(&frames) as u64);
    assert!(matches!(c.events.last(), Some(Event::Live { .. })));
}

#[test]
fn a_clone_is_two_round_trips_and_the_transfer() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    for n in 0..20 {
        create(&a, &format!("file {n}"), &noise(n, 5_000));
    }
    drop(connected(&a, 1, &hub));
    let (c, _h) = connected(&b, 2, &hub);
    assert_eq!(c.session.counters().round_trips, 2);
    assert!(b.local() == hub.tree());
}

#[test]
fn a_small_edit_of_a_large_file_is_one_round_trip_and_small() {
    let (hub, a) = (hub(), replica(1));
    let mut content = noise(1, 1_000_000);
    let node = create(&a, "large", &content);
    let (mut c, mut h) = connected(&a, 1, &hub);
    let before = c.session.counters();
    content[500_000] ^= 1;
    write(&a, node, &content);
    talk(T0, &mut c, &mut h);
    let after = c.session.counters();
    assert_eq!(after.round_trips - before.round_trips, 1);
    assert!(a.is_clean() && hub.tree() == a.local());
    let sent = after.bytes_sent - before.bytes_sent;
    assert!(sent < 64 << 10, "{sent} bytes");
}

#[test]
fn what_has_no_room_beside_a_batch_is_asked_for() {
    let (hub, a) = (hub(), replica(1));
    create(&a, "large", &noise(1, 3_000_000));
    let (mut c, mut h) = connect(&a, 1, &hub);
    let frames = talk(T0, &mut c, &mut h);
    let kinds: Vec<u16> = frames.iter().map(|frame| frame.kind).collect();
    assert!(kinds.contains(&8), "there is a Need");
    assert!(a.is_clean() && hub.tree() == a.local());
    // Hello, Push and Need: what a batch needs does not cost a trip each.
    assert_eq!(c.session.counters().round_trips, 3);
}

/// The store of a client, which counts what it is asked.
#[derive(Clone)]
struct Counting(ModelClient, Arc<std::sync::Mutex<Vec<usize>>>);

impl Store<ClientAction, ClientDone> for Counting {
    fn perform(&self, action: ClientAction) -> ClientDone {
        if let ClientAction::Store { chunks } = &action {
            self.1.lock().unwrap().push(chunks.len());
        }
        self.0.perform(action)
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.0.on_news(wake)
    }
}

#[test]
fn many_small_chunks_come_in_few_messages() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    for n in 0..1_000 {
        create(&a, &format!("file {n}"), &noise(n, 1_200));
    }
    drop(connected(&a, 1, &hub));
    let store = Counting(b.clone(), Arc::default());
    let counts = Arc::clone(&store.1);
    let session = ClientSession::new(T0, config(&b, 2));
    let (mut c, mut h) = (Side::new(session, Arc::new(store)), hub_side(&hub));
    talk(T0, &mut c, &mut h);
    assert!(b.local() == hub.tree());
    let counts = counts.lock().unwrap();
    assert_eq!(counts.iter().sum::<usize>(), 1_000);
    assert!(counts.len() <= 4, "{counts:?}");
}

#[test]
fn chunks_are_fetched_for_who_reads_and_what_is_not_there_is_said() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    create(&a, "file", &noise(1, 4_000));
    drop(connected(&a, 1, &hub));
    let (mut c, mut h) = connected(&b, 2, &hub);
    let nowhere = ChunkHash::of(b"nowhere");
    let here = ChunkHash::of(&noise(1, 4_000));
    c.command(
        T0,
        Command::Fetch {
            id: 9,
            chunks: vec![(here, None), (nowhere, None)],
            priority: 0,
        },
    );
    talk(T0, &mut c, &mut h);
    let missing = vec![(nowhere, Code::CHUNK_MISSING)];
    assert_eq!(c.events.last(), Some(&Event::Fetched { id: 9, missing }));
    assert_eq!(c.ended, None);
}

#[test]
fn both_sides_of_a_conflict_are_told() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let node = create(&a, "file", b"x");
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    write(&a, node, b"from a");
    write(&b, node, b"from b");
    talk(T0, &mut ca, &mut ha);
    talk(T0, &mut cb, &mut hb);
    talk(T0, &mut ca, &mut ha);
    let copied = |outcome: &Outcome| matches!(outcome, Outcome::Copied { .. });
    let told = cb.events.iter().any(|event| match event {
        Event::Pushed { outcomes, .. } => outcomes.iter().any(|(_, o)| copied(o)),
        _ => false,
    });
    assert!(told, "{:?}", cb.events);
    let reports = a.reports();
    let [report] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(report.by, ReplicaTag(2));
    assert!(report.outcomes.iter().all(copied));
    assert!(a.local() == hub.tree() && b.local() == hub.tree());
    assert_eq!(hub.tree().names().count(), 2);
}

/// A client that applied the cut first laid its own file beside the other, pushed
/// that as if its author had known of both, and nobody was told.
#[test]
fn regression_what_is_edited_is_pushed_before_what_others_did_is_applied() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    create(&a, "first", b"x");
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    drop(connected(&b, 2, &hub));
    create(&a, "file", b"from a");
    talk(T0, &mut ca, &mut ha);
    create(&b, "file", b"from b");
    let (mut cb, mut hb) = connect(&b, 2, &hub);
    // The cut is here, and what is edited was not looked at yet.
    let frames = talk(T0, &mut cb, &mut hb);
    let at = |kind| frames.iter().position(|frame| frame.kind == kind).unwrap();
    assert!(at(5) < at(9) && at(9) < at(6), "Cut, PushAck, Applied");
    ha.give(T0, Input::News);
    talk(T0, &mut ca, &mut ha);
    let renamed = |outcome: &Outcome| matches!(outcome, Outcome::Renamed { .. });
    let reports = a.reports();
    assert!(reports.len() == 1 && reports[0].outcomes.iter().any(renamed));
    assert!(a.local() == hub.tree() && b.local() == hub.tree());
}

#[test]
fn who_may_only_read_is_told_and_stays_connected() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    hub.set_read_only(&Token::new(b"secret").unwrap());
    create(&a, "file", b"x");
    let (mut c, mut h) = connected(&a, 1, &hub);
    let refused = |event: &Event| matches!(event, Event::NotPushed { code, retry_after: None, .. } if *code == Code::READ_ONLY);
    assert!(c.events.iter().any(refused), "{:?}", c.events);
    assert_eq!(hub.head().seq, 0);
    c.command(T0, Command::Fence { id: 5 });
    talk(T0, &mut c, &mut h);
    let cursor = Err(Code::READ_ONLY);
    assert!(c.events.contains(&Event::Fenced { id: 5, cursor }));
    assert_eq!(c.ended, None);
    drop(b);
}

#[test]
fn a_fence_is_passed_when_all_before_it_is_pushed_and_here() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    create(&a, "large", &noise(1, 700_000));
    ca.command(T0, Command::Fence { id: 1 });
    create(&b, "other", b"x");
    cb.command(T0, Command::Fence { id: 2 });
    let passed = |side: &C| {
        side.events
            .iter()
            .any(|e| matches!(e, Event::Fenced { .. }))
    };
    assert!(!passed(&ca) && !passed(&cb));
    talk(T0, &mut cb, &mut hb);
    assert!(passed(&cb) && b.is_clean(), "{cb:?} {hb:?}");
    talk(T0, &mut ca, &mut ha);
    assert!(passed(&ca) && a.is_clean());
    assert!(a.local() == hub.tree());
}

#[test]
fn most_of_a_tree_does_not_go_before_somebody_says_so() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    b.set_halts();
    for n in 0..150 {
        create(&a, &format!("file {n}"), b"x");
    }
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    for n in 0..100 {
        a.edit(|r| r.unlink(&place(&format!("file {n}")))).unwrap();
    }
    talk(T0, &mut ca, &mut ha);
    talk(T0, &mut cb, &mut hb);
    let halted = Event::Halted {
        removed: 100,
        of: 151,
    };
    assert_eq!(cb.events.last(), Some(&halted));
    assert_eq!(b.local().names().count(), 150);
    cb.command(T0, Command::Proceed);
    talk(T0, &mut cb, &mut hb);
    assert!(b.local() == hub.tree());
}

#[test]
fn all_of_a_tree_does_not_go_before_somebody_says_so() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    b.set_halts();
    for n in 0..10 {
        create(&a, &format!("file {n}"), b"x");
    }
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 2, &hub);
    for n in 0..10 {
        a.edit(|r| r.unlink(&place(&format!("file {n}")))).unwrap();
    }
    talk(T0, &mut ca, &mut ha);
    talk(T0, &mut cb, &mut hb);
    let halted = Event::Halted {
        removed: 10,
        of: 11,
    };
    assert_eq!(cb.events.last(), Some(&halted));
    assert_eq!(b.local().names().count(), 10);
    cb.command(T0, Command::Proceed);
    talk(T0, &mut cb, &mut hb);
    assert!(b.local() == hub.tree());
}
