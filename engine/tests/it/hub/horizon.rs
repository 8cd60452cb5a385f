//! What is forgotten, and what must not be yet.

use std::sync::atomic::{AtomicI64, Ordering};

use cairn_engine::{Hub, HubOptions, Replica};
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

/// What the clock of the hub below shows.
static CLOCK: AtomicI64 = AtomicI64::new(2_000_000_000);
const YEAR: i64 = 365 * 24 * 60 * 60;

/// The clock goes ahead by a year and back again. Nothing is forgotten that somebody
/// who is connected was not told, and who was away begins anew at worst. Who was
/// seen while the clock was ahead is not waited for longer than others.
#[test]
fn a_clock_that_jumps_makes_who_was_away_begin_anew_at_worst() {
    let options = HubOptions {
        clock: || CLOCK.load(Ordering::SeqCst),
        ..FORGETFUL
    };
    let tick = |seconds: i64| CLOCK.fetch_add(seconds, Ordering::SeqCst);
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open_with(&replica, options).unwrap();
    let (a, connected, away) = (
        Client::new(&hub, 1),
        Client::new(&hub, 2),
        Client::new(&hub, 3),
    );
    let push = |batch, edits: Vec<Edit>| drop(a.commit(batch, &edits).unwrap());
    push(1, new_file(node(1, 1), "f", text("x")));
    push(2, new_file(node(1, 2), "g", text("y")));
    let seen = hub.head().unwrap();
    for client in [&connected, &away] {
        assert_eq!(client.subscribe(Start::At(seen)), Ok(2));
        client.applied(seen);
    }
    drop(away);
    // A year passes at once, and a file goes.
    tick(YEAR);
    push(3, remove(node(1, 1), "f", 1));
    a.applied(hub.head().unwrap());
    assert_eq!(hub.prune().unwrap(), 2, "one is connected and was not told");
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(connected.follow(2).0.iter().any(ended));
    assert_eq!(hub.prune().unwrap(), 3);
    let away = Client::new(&hub, 3);
    let from = Start::At(seen);
    assert_eq!(away.subscribe(from), Err((Why::Horizon, 3)));
    drop(away);
    let ahead = Client::new(&hub, 4);
    ahead.subscribe(Start::Nothing).unwrap();
    ahead.applied(hub.head().unwrap());
    drop(ahead);
    // The clock goes back: everybody who was seen is waited for.
    tick(-YEAR);
    push(4, remove(node(1, 2), "g", 2));
    push(5, new_file(node(1, 3), "h", text("z")));
    a.applied(hub.head().unwrap());
    connected.applied(connected.follow(3).2);
    assert_eq!(hub.prune().unwrap(), 3);
    // But for who was seen while it was ahead no longer than for others.
    tick(2 * 60 * 60);
    for client in [&a, &connected] {
        client.applied(hub.head().unwrap());
    }
    assert_eq!(hub.prune().unwrap(), 5);
    assert_clean(&replica);
}

/// Somebody is connected for longer than the hub waits for who is away, and nothing
/// happens; then much happens before it is told.
#[test]
fn regression_who_is_connected_is_told_what_ended_however_long_nothing_happened() {
    static NOW: AtomicI64 = AtomicI64::new(2_000_000_000);
    let options = HubOptions {
        clock: || NOW.load(Ordering::SeqCst),
        ..FORGETFUL
    };
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open_with(&replica, options).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    a.commit(1, &new_file(node(1, 1), "f", text("x"))).unwrap();
    let seen = hub.head().unwrap();
    assert_eq!(b.subscribe(Start::At(seen)), Ok(1));
    NOW.fetch_add(YEAR, Ordering::SeqCst);
    a.commit(2, &remove(node(1, 1), "f", 1)).unwrap();
    a.applied(hub.head().unwrap());
    hub.prune().unwrap();
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(b.follow(1).0.iter().any(ended));
}
