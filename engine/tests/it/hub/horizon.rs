//! What is forgotten, and what must not be yet.

use cairn_engine::{Hub, Replica};
use cairn_protocol::wire::{Start, Why};
use cairn_protocol::{Change, Edit, Entry, Outcome, Refusal};

use super::model::World;
use super::{Client, FORGETFUL, hub_at, new_file, node, remove, text, tree_of};
use crate::support::{assert_clean, open, place, seeds};

#[test]
fn what_everybody_knows_is_forgotten() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, FORGETFUL);
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let mut batch = 0;
    let mut push = |edits: Vec<Edit>| {
        batch += 1;
        a.commit(batch, &edits).unwrap()
    };
    push(new_file(node(1, 1), "f", text("x")));
    push(new_file(node(1, 2), "g", text("y")));
    let slow = hub.head().unwrap();
    b.applied(slow);
    push(remove(node(1, 1), "f", 1));
    a.applied(hub.head().unwrap());
    assert_eq!(hub.prune().unwrap(), 2);
    // The slow one can still go on from where it was.
    assert_eq!(b.subscribe(Start::At(slow)), Ok(2));
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(b.follow(2).0.iter().any(ended));
    let head = hub.head().unwrap();
    b.applied(head);
    assert_eq!(hub.prune().unwrap(), 3);
    assert_eq!(b.subscribe(Start::At(slow)), Err((Why::Horizon, 3)));
    assert_eq!(b.subscribe(Start::At(head)), Ok(3));
    assert_eq!(b.subscribe(Start::Nothing), Ok(0));
    // Another knows nothing of the dead, and an edit of it cannot revive it.
    let late = Edit::Data {
        node: node(1, 1),
        base: 1,
        data: text("late"),
    };
    let ack = b.commit(1, &[late]).unwrap();
    let why = Refusal::Unknown;
    assert_eq!(ack.outcomes[0].1, Outcome::Refused { why });
    assert_eq!(tree_of(&b.follow(0).0).names().count(), 1);
    assert_clean(&replica);
    drop((a, b, hub, replica));
    assert_clean(&open(&path));
}

/// A replica that was away for long begins to follow: nothing is forgotten
/// between the pages that it is told.
#[test]
fn what_somebody_is_being_told_is_not_forgotten() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open_with(&replica, FORGETFUL).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    a.commit(1, &new_file(node(1, 1), "f", text("x"))).unwrap();
    let seen = hub.head().unwrap();
    a.commit(2, &new_file(node(1, 2), "g", text("y"))).unwrap();
    assert_eq!(b.subscribe(Start::At(seen)), Ok(1));
    let (first, _, next, cut) = b.page(1, 1);
    assert_eq!((first.len(), next), (4, 2));
    assert!(cut.is_some());
    a.commit(3, &remove(node(1, 1), "f", 1)).unwrap();
    a.applied(hub.head().unwrap());
    assert_eq!(hub.prune().unwrap(), 1);
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(b.page(next, 1).0.iter().any(ended));
}

#[test]
fn forgetting_changes_nothing_for_who_clones() {
    for seed in seeds(10) {
        let (_dir, path) = place();
        let mut world = World::new(seed, path.clone());
        for _ in 0..80 {
            let who = world.rng.index(3);
            match world.rng.below(3) {
                0 => world.push(who, false),
                _ => drop(world.edit(who)),
            }
        }
        let hub = Hub::open_with(&world.hub.as_ref().unwrap().0, FORGETFUL).unwrap();
        for who in 0..3 {
            world.client(who).applied(hub.head().unwrap());
        }
        assert_eq!(hub.prune().unwrap(), hub.head().unwrap().seq);
        let (replica, _) = world.hub.as_ref().unwrap();
        replica.gc().unwrap();
        world.compare();
        assert_clean(replica);
    }
}
