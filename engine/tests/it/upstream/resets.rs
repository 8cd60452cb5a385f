//! Cursors that lead nowhere: the hub is another, or has forgotten what happened.

use cairn_engine::SetAttr;
use cairn_protocol::session::{Applied, ClientAction};
use cairn_protocol::wire::Why;
use cairn_protocol::{Entry, Epoch};

use super::{Side, assert_equal, two};

#[test]
fn a_hub_of_another_life_gets_what_it_lacks() {
    let (mut side, a, b) = two();
    a.replica.write_file("/kept", b"kept").unwrap();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let mut fresh = Side::default();
    for client in [&a, &b] {
        assert_eq!(
            client.begin_anew(&fresh, Why::Epoch, fresh.hub.changes_since(0), None),
            Applied::Done
        );
        client.sync(&mut fresh);
    }
    a.sync(&mut fresh);
    assert_eq!(b.read("/d/f"), b"f");
    assert_eq!(fresh.hub.tree().names().count(), 3);
    assert_equal(&[&a, &b], &fresh);
}

#[test]
fn i8_what_is_absent_after_a_long_time_was_removed() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"f").unwrap();
    a.replica.write_file("/g", b"g").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    b.replica.write_file("/new", b"new").unwrap();
    // What lives, and nothing of what ended.
    let tree = side.hub.tree();
    let changes = side
        .hub
        .changes_since(0)
        .into_iter()
        .filter(|change| match &change.entry {
            Entry::Node { id: node, .. } | Entry::Data { node, .. } | Entry::Meta { node, .. } => {
                tree.is_live(*node)
            }
            Entry::Name { parent, name, node } => {
                node.is_some() && tree.at(&(*parent, name.clone())) == *node
            }
            _ => false,
        });
    let whole = changes.collect();
    let applied = b.begin_anew(&side, Why::Horizon, whole, None);
    assert_eq!(applied, Applied::Done);
    assert_eq!(b.names("/"), ["g", "new"]);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_equal(&[&a, &b], &side);
}

/// The connection broke after the hub had said that it does not remember so far; when
/// it was there again, the hub was the one of before. What it told from the cursor on
/// was taken for its whole tree, and everything else for removed.
#[test]
fn i8_a_reset_ends_with_its_session() {
    for why in [Why::Horizon, Why::Forked] {
        let (mut side, a, b) = two();
        a.replica.write_file("/kept", b"kept").unwrap();
        a.sync(&mut side);
        b.sync(&mut side);
        let (start, _, _) = b.upstream.start().unwrap();
        b.perform(ClientAction::Reset {
            why,
            epoch: Epoch([7; 16]),
            last_batch: 0,
        });
        a.replica.write_file("/more", b"more").unwrap();
        a.sync(&mut side);
        b.upstream.begin_session();
        assert_eq!(b.upstream.start().unwrap().0, start);
        assert_eq!(b.sync(&mut side), [], "{why:?}");
        assert_eq!(b.names("/"), ["kept", "more"], "{why:?}");
        assert_equal(&[&a, &b], &side);
    }
}

/// The hub answers the batch in flight although it has forgotten the cursor, and
/// refuses what it does to nodes that it has forgotten: that was not pushed.
#[test]
fn what_is_in_flight_for_a_node_that_was_forgotten_is_made_again() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.replica.write_file("/moved", b"moved").unwrap();
    a.replica.write_file("/kept", b"kept").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write_file("/f", b"of b").unwrap();
    b.replica.rename_path("/moved", "/there").unwrap();
    a.replica.remove("/f").unwrap();
    a.replica.remove("/moved").unwrap();
    a.sync(&mut side);
    side.hub.forget();
    let (_, ack) = b.push(&mut side).unwrap();
    assert_eq!(
        b.begin_anew(&side, Why::Horizon, side.hub.whole(), Some(ack)),
        Applied::Done
    );
    assert_eq!(b.read("/f"), b"of b");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"of b");
    assert_eq!(a.read("/there"), b"moved");
    assert_equal(&[&a, &b], &side);
}

/// The answer says that a directory is an alias of another, and the hub has
/// forgotten that one meanwhile: what was made in it is not lost.
#[test]
fn an_alias_of_what_was_forgotten_is_made_again() {
    let (mut side, a, b) = two();
    b.sync(&mut side);
    a.replica.mkdir("/d").unwrap();
    a.sync(&mut side);
    b.replica.mkdir("/d").unwrap();
    let (_, ack) = b.push(&mut side).unwrap();
    b.replica.write_file("/d/f", b"of b").unwrap();
    a.replica.remove("/d").unwrap();
    a.sync(&mut side);
    side.hub.forget();
    assert_eq!(
        b.begin_anew(&side, Why::Horizon, side.hub.whole(), Some(ack)),
        Applied::Done
    );
    assert_eq!(b.read("/d/f"), b"of b");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/d/f"), b"of b");
    assert_equal(&[&a, &b], &side);
}

/// Attributes that were edited while a replica was away are edits as contents are.
#[test]
fn attributes_that_were_edited_by_who_was_away_are_pushed_later() {
    for why in [Why::Horizon, Why::Forked] {
        let (mut side, a, b) = two();
        a.replica.write_file("/f", b"f").unwrap();
        a.replica.set_xattr_path("/f", b"user.x", b"old").unwrap();
        a.replica.set_xattr_path("/f", b"user.y", b"y").unwrap();
        a.sync(&mut side);
        b.sync(&mut side);
        let set = SetAttr {
            perm: Some(0o600),
            ..SetAttr::default()
        };
        b.replica.set_attr(b.ino("/f"), &set).unwrap();
        b.replica.set_xattr_path("/f", b"user.x", b"new").unwrap();
        b.replica.remove_xattr_path("/f", b"user.y").unwrap();
        a.replica.write_file("/g", b"g").unwrap();
        a.sync(&mut side);
        side.hub.forget();
        let whole = side.hub.whole();
        assert_eq!(b.begin_anew(&side, why, whole, None), Applied::Done);
        b.sync(&mut side);
        a.sync(&mut side);
        assert_eq!(a.replica.stat("/f").unwrap().perm, 0o600);
        assert_eq!(a.replica.xattr_path("/f", b"user.x").unwrap(), &b"new"[..]);
        assert!(a.replica.xattr_path("/f", b"user.y").is_err(), "{why:?}");
        assert_equal(&[&a, &b], &side);
    }
}

/// What was removed here and not pushed when the hub is rolled back or replaced does
/// not live again, in whatever way it was removed: it is an edit of the hub's tree.
#[test]
fn what_was_removed_and_not_pushed_does_not_live_again_after_a_reset() {
    for why in [Why::Forked, Why::Epoch] {
        let (mut side, a, b) = two();
        a.replica.mkdir("/d").unwrap();
        a.replica.mkdir("/d/e").unwrap();
        for name in ["/f", "/d/g", "/d/e/h", "/moved", "/over", "/linked"] {
            a.replica.write_file(name, name.as_bytes()).unwrap();
        }
        a.replica.hard_link("/linked", "/link").unwrap();
        a.replica.mkdir("/dir").unwrap();
        a.replica.write_file("/dir/in", b"in").unwrap();
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.remove("/f").unwrap();
        b.replica.remove_all("/d").unwrap();
        b.replica.remove("/link").unwrap();
        b.replica.rename_path("/moved", "/there").unwrap();
        b.replica.rename_path("/dir", "/elsewhere").unwrap();
        b.replica.write_file("/temporary", b"new").unwrap();
        b.replica.rename_path("/temporary", "/over").unwrap();
        a.replica.write_file("/of a", b"a").unwrap();
        a.sync(&mut side);
        let whole = side.hub.whole();
        assert_eq!(b.begin_anew(&side, why, whole, None), Applied::Done);
        let names = ["elsewhere", "linked", "of a", "over", "there"];
        assert_eq!(b.names("/"), names, "{why:?}");
        b.sync(&mut side);
        a.sync(&mut side);
        assert_eq!(a.names("/"), names, "{why:?}");
        assert_eq!(a.read("/over"), b"new");
        assert_eq!(a.replica.stat("/linked").unwrap().nlink, 1);
        assert_equal(&[&a, &b], &side);
    }
}

/// The same of what is in a batch whose answer never came, and of what that batch made
/// and was removed after it: the hub may have it from another replica.
#[test]
fn what_was_removed_after_it_was_pushed_does_not_live_again_after_a_reset() {
    for answered in [false, true] {
        let (mut side, a, b) = two();
        a.replica.write_file("/f", b"f").unwrap();
        a.replica.write_file("/g", b"g").unwrap();
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.remove("/f").unwrap();
        b.replica.write_file("/g", b"of b").unwrap();
        b.replica.write_file("/new", b"new").unwrap();
        if answered {
            b.push(&mut side).unwrap();
        } else {
            b.batch().unwrap();
        }
        b.replica.remove("/g").unwrap();
        b.replica.remove("/new").unwrap();
        a.sync(&mut side);
        let whole = side.hub.whole();
        assert_eq!(b.begin_anew(&side, Why::Forked, whole, None), Applied::Done);
        assert_eq!(b.names("/"), [] as [&str; 0]);
        b.sync(&mut side);
        a.sync(&mut side);
        assert_eq!(a.names("/"), [] as [&str; 0]);
        assert_equal(&[&a, &b], &side);
    }
}

/// But what somebody else has written, or put into a directory, was never seen by who
/// removed it: that stays.
#[test]
fn what_others_edited_is_kept_after_a_reset_although_it_was_removed() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/f", b"f").unwrap();
    a.replica.write_file("/d/g", b"g").unwrap();
    a.replica.write_file("/name", b"name").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.remove("/f").unwrap();
    b.replica.remove("/name").unwrap();
    b.replica.remove_all("/d").unwrap();
    a.replica.write_file("/f", b"of a").unwrap();
    a.replica.write_file("/d/h", b"h").unwrap();
    a.replica.remove("/name").unwrap();
    a.replica.write_file("/name", b"another").unwrap();
    a.sync(&mut side);
    let whole = side.hub.whole();
    assert_eq!(b.begin_anew(&side, Why::Forked, whole, None), Applied::Done);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.names("/"), ["d", "f", "name"]);
    assert_eq!(a.names("/d"), ["h"]);
    assert_eq!(a.read("/f"), b"of a");
    assert_eq!(a.read("/name"), b"another");
    assert_equal(&[&a, &b], &side);
}

/// A cut of so many nodes that those that are new become rows at once: what was removed
/// is none of these.
#[test]
fn what_was_removed_does_not_live_again_after_the_reset_of_a_large_tree() {
    let (mut side, a, b) = two();
    for dir in 0..4 {
        a.replica.mkdir(format!("/{dir}")).unwrap();
        for n in 0..100 {
            let name = format!("/{dir}/{n}");
            a.replica.write_file(&name, name.as_bytes()).unwrap();
        }
    }
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.remove_all("/0").unwrap();
    b.replica.remove("/1/1").unwrap();
    for n in 100..400 {
        a.replica.write_file(format!("/2/{n}"), b"more").unwrap();
    }
    a.replica.write_file("/0/more", b"more").unwrap();
    a.sync(&mut side);
    let whole = side.hub.whole();
    assert_eq!(b.begin_anew(&side, Why::Forked, whole, None), Applied::Done);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.names("/0"), ["more"]);
    assert_eq!(a.names("/1").len(), 99);
    assert_eq!(a.names("/2").len(), 400);
    assert_equal(&[&a, &b], &side);
}
