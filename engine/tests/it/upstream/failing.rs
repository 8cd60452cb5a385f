//! Transactions that fail, and what comes after them.

use cairn_engine::{Options, Replica};
use cairn_protocol::Epoch;
use cairn_protocol::session::{ClientAction, ClientDone, Store};
use cairn_protocol::wire::{Code, Why};

use super::{Client, Side, assert_equal};
use crate::large_cut::{Fault, applies};
use crate::support::{noise, place};

/// The commit of a whole tree failed, and the next made up for it. What came after
/// that was taken for a whole tree, too, and all that it did not name for removed.
#[test]
fn i1_what_follows_a_whole_tree_whose_commit_failed_is_no_whole_tree() {
    for why in [Why::Horizon, Why::Epoch] {
        let (mut side, a) = (Side::default(), Client::new());
        let (_dir, path) = place();
        let b = Client::of(Replica::open(&path, Options::default()).unwrap());
        a.replica.mkdir("/d").unwrap();
        a.replica.write_file("/d/f", b"f").unwrap();
        a.replica.write_file("/removed", b"removed").unwrap();
        a.sync(&mut side);
        b.sync(&mut side);
        a.replica.remove("/removed").unwrap();
        a.replica.write_file("/more", b"more").unwrap();
        a.sync(&mut side);
        side.hub.forget();
        let last_batch = side.hub.last(b.upstream.tag()).map_or(0, |(last, _)| last);
        b.perform(ClientAction::Reset {
            why,
            epoch: Epoch([7; 16]),
            last_batch,
        });
        b.stage(&side, side.hub.whole());
        let fault = Fault::new(&path, "INSERT ON commits", 0);
        assert!(!applies(&b, &side), "the fault was not met");
        fault.end();
        b.upstream.start().unwrap();
        assert_eq!(b.seq(), side.hub.head());
        a.replica.write_file("/later", b"later").unwrap();
        a.sync(&mut side);
        b.replica.write_file("/mine", b"mine").unwrap();
        b.sync(&mut side);
        a.sync(&mut side);
        for name in ["d", "later", "mine", "more"] {
            assert!(b.names("/").iter().any(|n| n == name), "{why:?}: {name}");
        }
        assert_equal(&[&a, &b], &side);
    }
}

/// A batch was kept, but not durably, so it was not sent. The next was another, of
/// the next number, and the hub seemed to have lost one.
#[test]
fn a_batch_that_could_not_be_made_durable_is_the_next_all_the_same() {
    let mut side = Side::default();
    let (_dir, path) = place();
    let client = Client::of(Replica::open(&path, Options::default()).unwrap());
    client.sync(&mut side);
    client.replica.write_file("/f", &noise(100_000, 1)).unwrap();
    client.replica.flush().unwrap();
    // The names of packs cannot be made durable where there is no folder.
    let (packs, away) = (path.join("chunks"), path.join("away"));
    std::fs::rename(&packs, &away).unwrap();
    let last = side.hub.last(client.upstream.tag()).map_or(0, |(n, _)| n);
    let next = ClientAction::NextBatch { inline: 64 << 10 };
    match client.upstream.perform(next.clone()) {
        ClientDone::Failed(why) => assert_eq!(why.code, Code::INTERNAL, "{why}"),
        done => panic!("{done:?}"),
    }
    std::fs::rename(&away, &packs).unwrap();
    client.replica.write_file("/g", b"g").unwrap();
    match client.upstream.perform(next) {
        ClientDone::Batch(Some(offer)) => assert_eq!(offer.batch.number, last + 1),
        done => panic!("{done:?}"),
    }
    client.sync(&mut side);
    assert_eq!(client.read("/g"), b"g");
    assert_equal(&[&client], &side);
}
