//! A cursor that leads nowhere, and replicas that are copies.

use cairn_protocol::Epoch;
use cairn_protocol::session::Event;
use cairn_protocol::testing::{HubBackup, ModelClient, ModelHub, talk};
use cairn_protocol::wire::Code;

use super::{T0, connect, connected, create, hub, noise, replica, write};

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
