//! Batches: exactly once, by whom, and who hears of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_engine::{Access, Hub, HubOptions, Replica};
use cairn_protocol::session::{Store, StoreFailure};
use cairn_protocol::wire::{Code, Hello, PushAck, Start};
use cairn_protocol::{Chain, Change, CommitHasher, Edit, Entry, NodeKind};

use super::{Client, HUB_TAG, META, hub_at, new_file, node, root, text};
use crate::support::{assert_clean, place};

#[test]
fn a_batch_is_answered_once_whatever_comes() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let edits = new_file(node(1, 1), "f", text("one"));
    let code = |answer: Result<PushAck, StoreFailure>| answer.unwrap_err().code;
    assert_eq!(code(client.commit(2, &edits)), Code::BATCH_GAP);
    assert_eq!(code(client.commit(0, &edits)), Code::BATCH_GAP);
    let ack = client.commit(1, &edits).unwrap();
    assert_eq!(client.commit(1, &edits), Ok(ack.clone()));
    let other = new_file(node(1, 2), "g", text("two"));
    assert_eq!(code(client.commit(1, &other)), Code::REPLICA_FORKED);
    assert_eq!(code(client.commit(3, &other)), Code::BATCH_GAP);
    assert_eq!(hub.head().unwrap().seq, 1);
    let known = client.admit(1).unwrap();
    assert_eq!((known.last_batch, known.head.seq), (1, 1));
    assert_eq!(known.head.chain, ack.chain);
}

/// Who may only read is answered again what was committed, and nothing else is taken.
#[test]
fn what_was_committed_is_answered_again_to_who_may_only_read() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let edits = new_file(node(1, 1), "f", text("one"));
    let ack = Client::new(&hub, 1).commit(1, &edits).unwrap();
    let reader = Client(hub.session(Arc::new(|_| Ok(Access::Read))));
    assert_eq!(reader.admit(1).unwrap().last_batch, 1);
    assert_eq!(reader.commit(1, &edits), Ok(ack));
    let refused = reader.commit(2, &edits).unwrap_err();
    assert_eq!(refused.code, Code::READ_ONLY);
    assert_eq!(hub.head().unwrap().seq, 1);
}

/// What a session is told of the last batch stays true until it pushes: what an older
/// one of the replica brought late is not committed, and ends that.
#[test]
fn an_older_session_of_a_replica_commits_nothing() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let (old, another) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let edits = new_file(node(1, 1), "f", text("one"));
    let new = Client::new(&hub, 1);
    let code = |answer: Result<PushAck, StoreFailure>| answer.unwrap_err().code;
    assert_eq!(code(old.commit(1, &edits)), Code::SHUTDOWN);
    assert_eq!(hub.head().unwrap().seq, 0);
    new.commit(1, &edits).unwrap();
    assert_eq!(code(old.commit(1, &edits)), Code::SHUTDOWN);
    drop(new);
    assert_eq!(code(old.commit(2, &[])), Code::SHUTDOWN);
    another
        .commit(1, &new_file(node(2, 1), "g", text("two")))
        .unwrap();
    assert_eq!(Client::new(&hub, 1).admit(1).unwrap().last_batch, 1);
}

/// A newer session may be welcome while a commit of an older one is under way: it is
/// told of that, or it does not happen.
#[test]
fn a_session_is_told_of_what_an_older_one_is_committing() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    for number in 1..=100 {
        let old = Client::new(&hub, 1);
        let edits = new_file(node(1, number), &format!("f{number}"), text("one"));
        let newer = std::thread::scope(|scope| {
            let committed = scope.spawn(|| old.commit(number, &edits));
            let newer = Client(hub.session(Arc::new(|_| Ok(Access::Write))));
            let told = newer.admit(1).unwrap().last_batch;
            let committed = committed.join().unwrap().is_ok();
            assert_eq!(told == number, committed);
            newer
        });
        newer.commit(number, &edits).unwrap();
    }
}

#[test]
fn a_batch_that_makes_no_sense_leaves_nothing_behind() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let before = hub.head().unwrap();
    let unplaced = vec![Edit::New {
        node: node(1, 1),
        kind: NodeKind::File,
    }];
    assert_eq!(
        client.commit(1, &unplaced).unwrap_err().code,
        Code::MALFORMED
    );
    assert_eq!(hub.head().unwrap(), before);
    client
        .commit(1, &new_file(node(1, 1), "f", text("x")))
        .unwrap();
    assert_clean(&replica);
}

#[test]
fn who_may_only_read_cannot_push() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let code = |answer: Result<PushAck, StoreFailure>| answer.unwrap_err().code;
    let client = Client(hub.session(Arc::new(|_| Ok(Access::Read))));
    assert_eq!(code(client.commit(1, &[])), Code::STATE);
    assert!(!client.admit(1).unwrap().may_push);
    assert_eq!(code(client.commit(1, &[])), Code::READ_ONLY);
    assert_eq!(client.subscribe(Start::Nothing), Ok(0));
    assert_eq!(client.admit(0).unwrap_err().code, Code::TAG_TAKEN);
    let refusal = |_: &Hello| {
        Err(StoreFailure {
            code: Code::AUTH,
            detail: "the token is wrong".into(),
            retry_after_ms: 0,
        })
    };
    let stranger = Client(hub.session(Arc::new(refusal)));
    assert_eq!(stranger.admit(1).unwrap_err().code, Code::AUTH);
}

#[test]
fn a_replica_with_the_tag_of_the_hub_is_refused() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client(hub.session(Arc::new(|_| Ok(Access::Write))));
    assert_eq!(client.admit(HUB_TAG).unwrap_err().code, Code::TAG_TAKEN);
    assert_eq!(client.commit(1, &[]).unwrap_err().code, Code::STATE);
}

#[test]
fn commits_are_news_until_nobody_listens() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let listening = client.0.on_news(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let other = Client::new(&Hub::open(&replica).unwrap(), 2);
    other
        .commit(1, &new_file(node(2, 1), "f", text("x")))
        .unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    drop(listening);
    other
        .commit(2, &new_file(node(2, 2), "g", text("x")))
        .unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[test]
fn the_chain_is_of_the_changes_of_each_commit() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let mut chain = Chain::GENESIS;
    for n in 1..5 {
        let name = n.to_string();
        let ack = client
            .commit(n, &new_file(node(1, n), &name, text(&name)))
            .unwrap();
        let mut hasher = CommitHasher::new();
        let entries = {
            let (parent, name) = root(&name);
            let id = node(1, n);
            [
                Entry::Node {
                    id,
                    kind: NodeKind::File,
                },
                Entry::Name {
                    parent,
                    name,
                    node: Some(id),
                },
                Entry::Data {
                    node: id,
                    data: text(&n.to_string()),
                },
                Entry::Meta {
                    node: id,
                    meta: META,
                },
            ]
        };
        for entry in entries {
            hasher.push(&Change { ver: n, entry });
        }
        chain = chain.next(&hasher.finish());
        assert_eq!(ack.chain, chain);
    }
}
