//! Batches that the hub does not take: what that proves, and that it keeps nobody
//! from following.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cairn_protocol::session::{
    ActionId, Command, Event, HubAction, HubConfig, HubDone, HubSession, Input, Offer, Output,
    Session, Store, StoreFailure,
};
use cairn_protocol::testing::{ModelClient, ModelHub, drain, talk};
use cairn_protocol::wire::{
    About, Blob, ChunkData, Chunks, Code, Ext, Frame, Message, Missing, Role, Start, Token,
};
use cairn_protocol::{ChunkHash, Edit, Encoding, NodeId, NodeKind, ReplicaTag};

use crate::session::batches::refused;
use crate::session::frames::{hello, push, subscribe};
use crate::session::{C, H, T0, client_side, connect, connected, create, hub, replica, write};

fn secret() -> Token {
    Token::new(b"secret").unwrap()
}

/// Time passes for both sides of a connection.
fn pass(now: &mut Duration, by: Duration, c: &mut C, h: &mut H) {
    *now += by;
    c.give(*now, Input::Tick);
    h.give(*now, Input::Tick);
    talk(*now, c, h);
}

fn names(replica: &ModelClient) -> Vec<String> {
    let tree = replica.local();
    let names = tree.names().map(|((_, name), _)| name.as_bytes().to_vec());
    let mut names: Vec<_> = names.map(|n| String::from_utf8(n).unwrap()).collect();
    names.sort();
    names
}

/// A replica with edits that its hub does not take saw nothing of what others did:
/// each cut waited for the answer to its batch.
#[test]
fn who_is_refused_follows_and_keeps_what_it_edited() {
    for code in [Code::QUOTA, Code::MALFORMED] {
        let (hub, a, b) = (hub(), replica(1), replica(2));
        let doc = create(&b, "doc", b"base");
        drop(connected(&b, 2, &hub));
        drop(connected(&a, 1, &hub));
        write(&a, doc, b"from a");
        let retry = if code == Code::QUOTA { 5_000 } else { 0 };
        let (mut c, mut h, store) = refused(&a, &hub, code, retry);
        write(&b, doc, b"from b");
        create(&b, "other", b"y");
        drop(connected(&b, 2, &hub));
        talk(T0, &mut c, &mut h);
        assert_eq!(names(&a), ["doc", "file", "other"], "{code}");
        assert_eq!(a.confirmed().0, Some(hub.head()), "{code}");
        assert_eq!(
            a.local().content(doc),
            Some(&a.content(b"from a")),
            "{code}"
        );
        assert!(!a.is_clean());
        // What is removed meanwhile is not pushed at all.
        let place = crate::session::place("file");
        a.edit(|r| r.unlink(&place)).unwrap();
        store.refuses.store(false, Ordering::Relaxed);
        let mut now = T0;
        pass(&mut now, Duration::from_secs(10), &mut c, &mut h);
        assert!(a.is_clean() && a.local() == hub.tree(), "{code}");
        assert_eq!(names(&a).len(), 3, "{:?}", names(&a));
        assert!(names(&a)[1].starts_with("doc.conflict"), "{:?}", names(&a));
    }
}

#[test]
fn who_may_only_read_follows_and_pushes_when_it_may_write() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    hub.set_read_only(&secret());
    create(&a, "mine", b"x");
    let (mut c, mut h) = connected(&a, 1, &hub);
    for n in 0..3 {
        hub.clear_read_only();
        create(&b, &format!("other-{n}"), b"y");
        drop(connected(&b, 2, &hub));
        hub.set_read_only(&secret());
        talk(T0, &mut c, &mut h);
        assert_eq!(names(&a).len(), 2 + n);
        assert_eq!(a.confirmed().0, Some(hub.head()));
        assert!(!a.is_clean());
    }
    hub.clear_read_only();
    drop(connected(&a, 1, &hub));
    assert!(a.is_clean() && a.local() == hub.tree());
    assert_eq!(names(&a).len(), 4);
}

/// A hub that says when to come again is believed some times: the batch stays what
/// it is, and what came waits.
#[test]
fn a_batch_that_is_refused_for_a_moment_is_not_withdrawn() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    drop(connected(&a, 1, &hub));
    let (mut c, mut h, _store) = refused(&a, &hub, Code::BUSY, 500);
    create(&b, "other", b"y");
    drop(connected(&b, 2, &hub));
    talk(T0, &mut c, &mut h);
    let mut now = T0;
    for _ in 0..2 {
        assert_eq!(names(&a), ["file"]);
        pass(&mut now, Duration::from_millis(500), &mut c, &mut h);
    }
    pass(&mut now, Duration::from_millis(500), &mut c, &mut h);
    assert_eq!(names(&a), ["file", "other"]);
    assert!(!a.is_clean());
}

/// What the hub has committed it answers again, whatever the token permits: else
/// who lost the answer would wait for ever.
#[test]
fn a_batch_whose_answer_was_lost_is_answered_to_who_may_only_read() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let (mut c, mut h) = connected(&a, 1, &hub);
    create(&a, "file", b"x");
    c.settle(T0);
    for frame in c.out.drain(..) {
        h.give(T0, Input::Frame(frame));
    }
    assert_eq!((hub.head().seq, a.is_clean()), (1, false));
    drop((c, h));
    create(&b, "other", b"y");
    drop(connected(&b, 2, &hub));
    hub.set_read_only(&secret());
    let (mut c, mut h) = connected(&a, 1, &hub);
    assert!(a.is_clean() && a.local() == hub.tree());
    create(&a, "later", b"z");
    talk(T0, &mut c, &mut h);
    let refused = |event: &Event| matches!(event, Event::NotPushed { code, batch: 2, .. } if *code == Code::READ_ONLY);
    assert!(c.events.iter().any(refused), "{:?}", c.events);
    assert_eq!((hub.head().seq, a.is_clean()), (2, false));
}

/// A connection broke after a batch was sent. While it was being committed, the
/// replica came again, was refused, and withdrew it; then it was committed. The
/// replica numbered other edits the same, and was taken for two.
#[test]
fn a_commit_of_an_older_session_is_not_done_after_a_newer_one_is_welcome() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    let (mut c, mut old) = connected(&a, 1, &hub);
    create(&a, "file", b"x");
    c.settle(T0);
    // All is heard, and nothing done.
    old.is_stuck = true;
    for frame in c.out.drain(..) {
        old.give(T0, Input::Frame(frame));
    }
    assert!(old.waiting() > 0);
    drop(c);
    create(&b, "other", b"y");
    drop(connected(&b, 2, &hub));
    hub.set_read_only(&secret());
    drop(connected(&a, 1, &hub));
    assert_eq!(names(&a), ["file", "other"]);
    old.is_stuck = false;
    while old.settle(T0) {}
    assert_eq!(hub.head().seq, 1);
    hub.clear_read_only();
    let (mut c, mut h) = connect(&a, 1, &hub);
    talk(T0, &mut c, &mut h);
    assert_eq!(c.ended, None);
    assert!(a.is_clean() && a.local() == hub.tree());
}

#[test]
fn a_fence_that_is_not_passed_is_answered_when_what_the_hub_has_is_here() {
    let (hub, a, b) = (hub(), replica(1), replica(2));
    create(&b, "other", b"y");
    drop(connected(&b, 2, &hub));
    hub.set_read_only(&secret());
    create(&a, "mine", b"x");
    let mut c = client_side(&a, 1);
    c.command(T0, Command::Fence { id: 5 });
    let (_, mut h) = connect(&b, 2, &hub);
    talk(T0, &mut c, &mut h);
    let at = |is: &dyn Fn(&Event) -> bool| c.events.iter().position(is).unwrap();
    let cursor = Err(Code::READ_ONLY);
    let fenced = at(&|event| *event == Event::Fenced { id: 5, cursor });
    assert!(at(&|event| matches!(event, Event::CutApplied { .. })) < fenced);
    assert_eq!(names(&a), ["mine", "other"]);
}

/// A hub's session whose actions are done one by one.
struct ByHand {
    session: HubSession,
    store: Arc<dyn Store<HubAction, HubDone>>,
    todo: Vec<(ActionId, HubAction)>,
    said: Vec<Message>,
}

impl ByHand {
    fn new(hub: &ModelHub) -> Self {
        let config = HubConfig {
            replica: ReplicaTag(0xb),
            agent: String::new(),
            offer: Offer::OURS,
        };
        let mut new = Self {
            session: HubSession::new(T0, config),
            store: hub.connect(),
            todo: Vec::new(),
            said: Vec::new(),
        };
        new.hear(hello(Role::Client));
        new.hear(subscribe(Start::Nothing));
        new.work();
        new
    }

    fn give(&mut self, input: Input<HubDone>) {
        self.session.handle(T0, input);
        let (todo, said) = (&mut self.todo, &mut self.said);
        drain(&mut self.session, |output| match output {
            Output::Action(id, action) => todo.push((id, action)),
            Output::Transmit(frame) => said.extend(Message::from_frame(&frame).unwrap()),
            Output::Close(ended) => panic!("{ended}"),
            _ => {}
        });
    }

    fn hear(&mut self, message: impl Into<Message>) {
        let frame: Frame = message.into().to_frame(0);
        self.give(Input::Frame(frame));
    }

    /// Does what there is to do, but for keeping chunks.
    fn work(&mut self) {
        let keeps = |action: &HubAction| matches!(action, HubAction::Store { .. });
        while let Some(at) = self.todo.iter().position(|(_, action)| !keeps(action)) {
            let (id, action) = self.todo.remove(at);
            let done = self.store.perform(action);
            self.give(Input::Done(id, done));
        }
    }

    /// Fails to keep chunks.
    fn fail_to_store(&mut self) {
        let keeps = |(_, action): &(ActionId, HubAction)| matches!(action, HubAction::Store { .. });
        let at = self.todo.iter().position(keeps).unwrap();
        let (id, _) = self.todo.remove(at);
        let code = Code::QUOTA;
        let failure = StoreFailure {
            code,
            detail: String::new(),
            retry_after_ms: 0,
        };
        self.give(Input::Done(id, HubDone::Failed(failure)));
    }

    fn refusals(&self) -> usize {
        let errors = self.said.iter().filter(|message| match message {
            Message::Error(error) => error.about == About::Batch(1),
            _ => false,
        });
        errors.count()
    }
}

fn made(hub: &ModelHub, name: &str) -> (Vec<Edit>, cairn_protocol::Cursor) {
    let node = NodeId {
        replica: ReplicaTag(1),
        counter: 1,
    };
    let (parent, name) = crate::session::place(name);
    let edits = vec![
        Edit::New {
            node,
            kind: NodeKind::Dir,
        },
        Edit::Name {
            parent,
            name,
            was: None,
            node: Some(node),
        },
    ];
    (edits, hub.head())
}

/// The chunks of a batch were being kept when it was refused for another reason, and
/// that failed when the next try of it was being committed. The client was told that
/// it was refused, and it was committed.
#[test]
fn a_refusal_is_not_of_what_is_being_committed() {
    let hub = hub();
    let mut h = ByHand::new(&hub);
    let chunks = [ChunkHash::of(b"here"), ChunkHash::of(b"not")];
    let (edits, seen) = made(&hub, "dir");
    let mut first = push(1, true);
    (first.seen, first.chunks) = (seen, chunks.to_vec().try_into().unwrap());
    first.digest = cairn_protocol::session::batch_digest(&[]);
    h.hear(first);
    h.work();
    let data = ChunkData {
        hash: chunks[0],
        len: 4,
        encoding: Encoding::Raw,
        bytes: Blob::try_from(bytes::Bytes::from_static(b"here")).unwrap(),
    };
    h.hear(Chunks {
        request: 1,
        chunks: vec![data].try_into().unwrap(),
        ext: Ext::default(),
    });
    h.hear(Missing {
        request: 1,
        chunks: vec![chunks[1]].try_into().unwrap(),
        ext: Ext::default(),
    });
    assert_eq!(h.refusals(), 1);
    let mut again = push(1, true);
    again.seen = seen;
    again.digest = cairn_protocol::session::batch_digest(&edits);
    again.edits = edits.try_into().unwrap();
    h.hear(again);
    h.fail_to_store();
    h.work();
    assert_eq!(h.refusals(), 1);
    let acked = |message: &Message| matches!(message, Message::PushAck(ack) if ack.batch == 1);
    assert!(h.said.iter().any(acked), "{:?}", h.said);
    assert_eq!(hub.head().seq, 1);
}

/// Each part of a batch of another history was refused, and the second refusal was
/// of nothing that the client knew of.
#[test]
fn a_batch_of_many_parts_is_refused_once() {
    let hub = hub();
    let mut h = ByHand::new(&hub);
    for part in 0..3 {
        let mut message = push(1, part == 2);
        message.part = part;
        message.seen.epoch = cairn_protocol::Epoch([9; 16]);
        h.hear(message);
    }
    assert_eq!(h.refusals(), 1);
}
