//! What sessions say to each other, what it costs, and what they do not take from
//! a peer.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::merge::Place;
use cairn_protocol::session::{
    BACKLOG_MAX, By, ClientAction, ClientConfig, ClientDone, ClientSession, Command, Event,
    HubAction, HubConfig, HubDone, HubSession, Input, Offer, Output, Session, Store, StoreFailure,
};
use cairn_protocol::testing::{
    BrokenClient, HubBackup, ModelClient, ModelHub, ReplicaSafeguards, Rng, Side, talk,
};
use cairn_protocol::wire::{
    Blob, Capabilities, ChunkData, Chunks, Code, Credit, Cut, Ext, Fence, Frame, Hello, Hydrate,
    IS_CUT, Limits, List, Message, Missing, Ping, Push, PushAck, Role, Start, Subscribe, Text,
    Token, Want, Welcome,
};
use cairn_protocol::{
    Chain, ChunkHash, Cursor, Encoding, Epoch, Meta, Name, NodeId, NodeKind, Outcome, ReplicaTag,
    Scope, Timestamp, WINDOW_BULK, WINDOW_CONTROL,
};

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
fn a_copy_of_a_replica_is_found_out() {
    let (hub, a) = (hub(), replica(1));
    create(&a, "file", b"x");
    let copy = a.copy();
    drop(connected(&a, 1, &hub));
    create(&copy, "other", b"y");
    let (mut c, mut h) = connect(&copy, 1, &hub);
    talk(T0, &mut c, &mut h);
    let ended = c.ended.unwrap();
    assert_eq!(ended.code, Code::REPLICA_FORKED);
    assert!(ended.is_final());
    assert_eq!(hub.head().seq, 1);
}

#[test]
fn two_replicas_with_one_identity_are_found_out() {
    let (hub, a) = (hub(), replica(1));
    let b = a.copy();
    let (mut ca, mut ha) = connected(&a, 1, &hub);
    let (mut cb, mut hb) = connected(&b, 1, &hub);
    create(&a, "from a", b"x");
    create(&b, "from b", b"x");
    // Of two sessions only the newer pushes (SES-21).
    talk(T0, &mut ca, &mut ha);
    assert_eq!(ca.ended.unwrap().code, Code::SHUTDOWN);
    talk(T0, &mut cb, &mut hb);
    assert!(b.is_clean());
    let (mut ca, mut ha) = connect(&a, 1, &hub);
    talk(T0, &mut ca, &mut ha);
    assert_eq!(ca.ended.unwrap().code, Code::REPLICA_FORKED);
    assert_eq!(hub.head().seq, 1);
}

/// Runs a replica against a hub that was replaced by what `replace` makes of it.
fn after_a_reset(replace: impl FnOnce(&ModelHub, HubBackup)) -> (ModelHub, ModelClient) {
    let (hub, a) = (hub(), replica(1));
    create(&a, "first", b"x");
    drop(connected(&a, 1, &hub));
    let backup = hub.backup();
    create(&a, "second", &noise(1, 20_000));
    drop(connected(&a, 1, &hub));
    create(&a, "third", b"not pushed yet");
    replace(&hub, backup);
    let (c, _h) = connected(&a, 1, &hub);
    let reset = |event: &Event| matches!(event, Event::Reset { .. });
    assert!(c.events.iter().any(reset), "{:?}", c.events);
    assert!(a.is_clean() && a.local() == hub.tree());
    (hub, a)
}

#[test]
fn a_hub_that_was_rolled_back_gets_back_what_it_lost() {
    let (hub, _) = after_a_reset(ModelHub::restore);
    assert_eq!(hub.tree().names().count(), 3);
}

#[test]
fn a_hub_that_was_rolled_back_and_went_on_is_found_out_and_merged() {
    let (hub, _) = after_a_reset(|hub, backup| {
        hub.restore(backup);
        let other = replica(2);
        for n in 0..5 {
            create(&other, &format!("other {n}"), b"y");
            drop(connected(&other, 2, hub));
        }
    });
    assert_eq!(hub.tree().names().count(), 8);
}

/// Seed 564 found that a restored hub gave the id of a copy that it had forgotten
/// to another, whose content then took its place.
#[test]
fn a_hub_that_was_rolled_back_does_not_mint_an_id_again() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let node = create(&a, "file", b"x");
    drop(connected(&a, 1, &hub));
    drop(connected(&b, 2, &hub));
    let backup = hub.backup();
    let conflict = |content: &str| {
        write(&a, node, format!("a {content}").as_bytes());
        write(&b, node, format!("b {content}").as_bytes());
        drop(connected(&a, 1, &hub));
        drop(connected(&b, 2, &hub));
    };
    conflict("1");
    hub.restore(backup);
    conflict("2");
    drop(connected(&a, 1, &hub));
    let tree = hub.tree();
    let contents: Vec<_> = tree.live().filter_map(|(n, _)| tree.content(n)).collect();
    for content in ["a 2", "b 2"] {
        let bytes = bytes::Bytes::from(content.as_bytes());
        let data = cairn_protocol::Data::Inline { bytes };
        assert!(contents.contains(&&data), "{content}: {contents:?}");
    }
    assert!(a.local() == tree);
}

#[test]
fn a_hub_that_was_replaced_gets_everything() {
    let (hub, _) = after_a_reset(|hub, _| {
        hub.restore(ModelHub::new(Epoch([2; 16])).backup());
    });
    assert_eq!(hub.tree().names().count(), 3);
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

fn cursor() -> Cursor {
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

fn ping(nonce: u64) -> Message {
    let ext = Ext::default();
    Ping { nonce, ext }.into()
}

/// A hub that has heard what is said in a greeting.
fn greeted_hub() -> H {
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

fn welcome() -> Welcome {
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

fn want(request: u64, chunks: usize) -> Message {
    let hash = |n: usize| ChunkHash::of(&n.to_le_bytes());
    let chunks: Vec<_> = (0..chunks).map(|n| (hash(n), None)).collect();
    Message::from(Want {
        request,
        priority: 0,
        chunks: chunks.try_into().unwrap(),
        ext: Ext::default(),
    })
}

fn chunks(request: u64, len: usize) -> Message {
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

fn cut() -> Message {
    Message::from(Cut {
        transfer: 1,
        cursor: cursor(),
        entries: 0,
        digest: [0; 32],
        ext: Ext::default(),
    })
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

fn kinds(frames: &[Frame]) -> Vec<u16> {
    frames.iter().map(|frame| frame.kind).collect()
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
fn flat(mut stream: Vec<u8>) -> Vec<u8> {
    let mut at = 1;
    while at + 8 <= stream.len() {
        let len = u32::from_le_bytes(stream[at..at + 4].try_into().unwrap());
        stream[at + 7] = 0;
        at += 8 + usize::try_from(len).unwrap();
    }
    stream
}
