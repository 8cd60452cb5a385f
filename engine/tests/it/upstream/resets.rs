//! Cursors that lead nowhere: the hub is another, or has forgotten what happened.

use cairn_engine::SetAttr;
use cairn_protocol::Entry;
use cairn_protocol::session::Applied;
use cairn_protocol::wire::Why;

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
/// That one was removed is known as long as the history is the same: a hub that was
/// restored may have it from another.
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
        let removed = a.replica.xattr_path("/f", b"user.y").is_err();
        assert_eq!(removed, why == Why::Horizon);
        assert_equal(&[&a, &b], &side);
    }
}
