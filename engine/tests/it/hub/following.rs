//! What a hub tells, to whom, and which cursors lead somewhere.

use cairn_engine::{Hub, HubOptions, Replica};
use cairn_protocol::merge::TreeView;
use cairn_protocol::session::Report;
use cairn_protocol::wire::{Start, Why};
use cairn_protocol::{Cursor, Edit, Entry, Outcome, ReplicaTag, Scope, XattrName};

use super::{Client, hub_at, new_file, node, remove, root, text, tree_of};
use crate::support::{crash_copy, place};

#[test]
fn a_register_that_changes_often_is_told_once() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let f = node(1, 1);
    client.commit(1, &new_file(f, "f", text("0"))).unwrap();
    for n in 2..100 {
        let data = text(&n.to_string());
        let base = n - 1;
        client
            .commit(
                n,
                &[Edit::Data {
                    node: f,
                    base,
                    data,
                }],
            )
            .unwrap();
    }
    let (changes, _, cut) = client.follow(0);
    assert_eq!((changes.len(), cut.seq), (4, 99));
    let (changes, _, _) = client.follow(50);
    assert_eq!(changes.len(), 1);
    assert_eq!(client.follow(99).0, []);
}

#[test]
fn who_clones_is_not_told_what_is_dead() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    for n in 0..10 {
        let (id, name) = (node(1, n + 1), n.to_string());
        client
            .commit(2 * n + 1, &new_file(id, &name, text("x")))
            .unwrap();
        client
            .commit(2 * n + 2, &remove(id, &name, 2 * n + 1))
            .unwrap();
    }
    let other = Client::new(&hub, 2);
    assert_eq!(other.subscribe(Start::Nothing), Ok(0));
    assert_eq!(other.follow(0).0, []);
    // Who had something is told what ended.
    let told = client.follow(1).0;
    let gone = told
        .iter()
        .filter(|c| matches!(c.entry, Entry::Gone { .. }));
    assert_eq!(gone.count(), 10);
}

/// Seed 277 of the simulation: a replica pushed a file, and had no answer.
/// Somebody else wrote to the file and removed it. The replica was told of its
/// end and of nothing else, did not know it therefore, and forgot what it had
/// written to it meanwhile.
#[test]
fn who_made_a_node_is_told_what_it_was_when_it_ended() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let f = node(1, 1);
    a.commit(1, &new_file(f, "f", text("x"))).unwrap();
    let (base, data) = (1, text("y"));
    b.commit(
        1,
        &[Edit::Data {
            node: f,
            base,
            data,
        }],
    )
    .unwrap();
    b.commit(2, &remove(f, "f", 2)).unwrap();
    let tree = tree_of(&a.follow(0).0);
    assert_eq!(tree.names().count(), 0);
    assert_eq!(tree.data(f), Ok(Some((2, text("y")))));
    let known = tree.node(f).unwrap().unwrap();
    assert_eq!(known.last, Some(root("f")));
    // Others have never heard of it.
    assert_eq!(tree_of(&b.follow(0).0).node(f), Ok(None));
}

/// Found by a simulation (1698): two made one directory, the first removed it,
/// and the second, which did not know of the first, put a file into it.
#[test]
fn who_made_an_alias_is_told_what_it_was_when_it_ended() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let (mine, other) = (node(1, 1), node(2, 1));
    let before = hub.head().unwrap();
    b.commit(1, &new_file(other, "f", text("x"))).unwrap();
    a.commit(1, &new_file(mine, "f", text("x"))).unwrap();
    b.commit(2, &remove(other, "f", 1)).unwrap();
    let again = Client::new(&hub, 1);
    assert_eq!(again.subscribe(Start::At(before)), Ok(0));
    let tree = tree_of(&again.follow(0).0);
    assert_eq!(tree.names().count(), 0);
    assert_eq!(tree.data(other), Ok(Some((1, text("x")))));
    let known = tree.node(other).unwrap().unwrap();
    assert_eq!(known.last, Some(root("f")));
}

/// Found on the way: a replica pushed a file before it had a cut, and came back
/// with nothing.
#[test]
fn who_pushed_before_it_had_anything_is_told_what_ended() {
    let ended = |client: &Client, after: u64| {
        let told = client.follow(after).0;
        told.iter().any(|c| matches!(c.entry, Entry::Gone { .. }))
    };
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let before = hub.head().unwrap();
    a.commit(1, &new_file(node(1, 1), "f", text("x"))).unwrap();
    b.commit(1, &remove(node(1, 1), "f", 1)).unwrap();
    for from in [Start::Nothing, Start::At(before)] {
        let again = Client::new(&hub, 1);
        assert_eq!(again.subscribe(from), Ok(0));
        assert!(ended(&again, 0));
    }
    // It pushes while it is told.
    let late = Client::new(&hub, 3);
    assert_eq!(late.subscribe(Start::Nothing), Ok(0));
    late.commit(1, &new_file(node(3, 1), "g", text("x")))
        .unwrap();
    b.commit(2, &remove(node(3, 1), "g", 3)).unwrap();
    assert!(ended(&late, 0));
}

#[test]
fn who_does_not_know_a_node_that_lives_again_is_told_all_of_it() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let (f, name) = (node(1, 1), XattrName::new(b"user.x").unwrap());
    client.commit(1, &new_file(f, "f", text("kept"))).unwrap();
    let (base, value) = (0, Some(bytes::Bytes::from_static(b"y")));
    let attribute = Edit::Xattr {
        node: f,
        name: name.clone(),
        base,
        value,
    };
    client.commit(2, &[attribute]).unwrap();
    client.commit(3, &remove(f, "f", 1)).unwrap();
    // Clones while the file is dead.
    let other = Client::new(&hub, 2);
    assert_eq!(other.subscribe(Start::Nothing), Ok(0));
    let (mut told, _, cut) = other.follow(0);
    assert_eq!(told, []);
    // A rename by somebody who did not know that it was removed (R6).
    let (parent, to) = root("g");
    let rename = Edit::Name {
        parent,
        name: to,
        was: None,
        node: Some(f),
    };
    let ack = client.commit(4, &[rename]).unwrap();
    assert_eq!(ack.outcomes[0].1, Outcome::Revived { node: f });
    told.extend(other.follow(cut.seq).0);
    let tree = tree_of(&told);
    assert_eq!(tree.at(&root("g")), Some(f));
    assert_eq!(tree.data(f), Ok(Some((1, text("kept")))));
    assert_eq!(
        tree.xattr(f, &name),
        Ok(Some(bytes::Bytes::from_static(b"y")))
    );
    assert!(tree == tree_of(&client.follow(0).0));
}

#[test]
fn conflicts_are_reported_to_those_who_follow() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let f = node(1, 1);
    a.commit(1, &new_file(f, "f", text("old"))).unwrap();
    let write = |text_of: &str| Edit::Data {
        node: f,
        base: 1,
        data: text(text_of),
    };
    a.commit(2, &[write("of a")]).unwrap();
    let ack = b.commit(1, &[write("of b")]).unwrap();
    let (_, reports, _) = a.follow(2);
    let outcomes: Vec<Outcome> = ack.outcomes.iter().map(|(_, o)| o.clone()).collect();
    assert!(matches!(&outcomes[..], [Outcome::Copied { .. }]));
    let (seq, by) = (3, ReplicaTag(2));
    assert_eq!(reports, [Report { seq, by, outcomes }]);
    assert_eq!(hub.status().unwrap().conflicts, 1);
}

#[test]
fn a_cursor_that_leads_nowhere_is_found_out() {
    let (_dir, path) = place();
    let copy = path.with_extension("backup");
    let lead = |client: &Client, cursor: Cursor| client.subscribe(Start::At(cursor));
    let (seen, epoch) = {
        let (replica, hub) = hub_at(&path, HubOptions::default());
        let client = Client::new(&hub, 1);
        client
            .commit(1, &new_file(node(1, 1), "f", text("x")))
            .unwrap();
        let seen = hub.head().unwrap();
        assert_eq!(lead(&client, seen), Ok(1));
        replica.flush().unwrap();
        crash_copy(&path, &copy);
        client
            .commit(2, &new_file(node(1, 2), "g", text("y")))
            .unwrap();
        let ahead = Cursor { seq: 9, ..seen };
        assert_eq!(lead(&client, ahead), Err((Why::Forked, 0)));
        let scope = Scope([1; 8]);
        assert_eq!(
            lead(&client, Cursor { scope, ..seen }),
            Err((Why::Scope, 0))
        );
        (hub.head().unwrap(), seen.epoch)
    };
    // The hub is back from a backup, and goes on otherwise: it is found out
    // before it has overtaken the cursor, and after.
    let (_replica, hub) = hub_at(&copy, HubOptions::default());
    let client = Client::new(&hub, 2);
    assert_eq!(hub.head().unwrap().epoch, epoch);
    for n in 1..4 {
        assert_eq!(lead(&client, seen), Err((Why::Forked, 0)), "at {n}");
        let name = format!("h{n}");
        client
            .commit(n, &new_file(node(2, n), &name, text("z")))
            .unwrap();
    }
    assert_eq!(lead(&client, seen), Err((Why::Forked, 0)));
    assert_ne!(hub.head().unwrap(), seen);
    // Another hub.
    let other = Replica::in_memory().unwrap();
    let other = Hub::open(&other).unwrap();
    assert_eq!(lead(&Client::new(&other, 1), seen), Err((Why::Epoch, 0)));
}
