//! Many at once, and a disk without space.

use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::{Hub, HubOptions, Options, Replica};
use cairn_protocol::session::{HubAction, HubDone, Store};
use cairn_protocol::wire::Code;
use cairn_protocol::{Change, ChunkHash, Entry};

use super::{Client, chunked, hub_at, new_file, node, raw, remove, text, tree_of};
use crate::full_disk::Disk;
use crate::support::{assert_clean, eventually, noise, open, place};

/// Sessions push while others follow, files of the replica come and go, and
/// gc runs: each batch is one commit, and all that is named is there.
#[test]
fn many_push_at_once_while_the_replica_works() {
    const WHO: u64 = 3;
    const BATCHES: u64 = 25;
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let pushing: Vec<_> = (1..=WHO)
            .map(|tag| {
                let hub = &hub;
                threads.spawn(move || push_many(hub, tag, BATCHES))
            })
            .collect();
        threads.spawn(|| {
            let mut seed = 0;
            while !stop.load(Ordering::SeqCst) {
                // Contents that are pushed, too: chunks are shared both ways.
                seed += 1;
                let bytes = noise(70_000, seed % 100);
                replica.write_file("/same", &bytes).unwrap();
                replica.write_file("/large", &noise(3 << 20, seed)).unwrap();
                replica.cursor().unwrap();
                replica.gc().unwrap();
            }
        });
        threads.spawn(|| {
            let client = Client::new(&hub, 99);
            let mut told = Vec::new();
            let mut at = 0;
            while !stop.load(Ordering::SeqCst) {
                let (changes, _, cut) = client.follow(at);
                told.extend(changes);
                at = cut.seq;
                tree_of(&told).check().unwrap();
            }
        });
        let mut seqs: Vec<u64> = (pushing.into_iter())
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        stop.store(true, Ordering::SeqCst);
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=2 * WHO * BATCHES).collect::<Vec<_>>());
    });
    assert_clean(&replica);
    let (changes, _, _) = Client::new(&hub, 50).follow(0);
    let names = |c: &&Change| matches!(c.entry, Entry::Name { node: Some(_), .. });
    assert_eq!(changes.iter().filter(names).count(), 3 * 5);
    drop((hub, replica));
    assert_clean(&open(&path));
}

/// Makes files and removes all but each fifth. Returns the commits.
fn push_many(hub: &Hub, tag: u64, batches: u64) -> Vec<u64> {
    let client = Client::new(hub, tag);
    let mut seqs = Vec::new();
    for n in 0..batches {
        let bytes = noise(70_000, n);
        client.missing(&[ChunkHash::of(&bytes)]);
        client.store(&bytes);
        let (id, name) = (node(tag, n + 1), format!("{tag}-{n}"));
        let edits = new_file(id, &name, chunked(&[&bytes]));
        let made = client.commit(2 * n + 1, &edits).unwrap().seq;
        let last = if n.is_multiple_of(5) {
            client.commit(2 * n + 2, &[]).unwrap()
        } else {
            client.commit(2 * n + 2, &remove(id, &name, made)).unwrap()
        };
        seqs.extend([made, last.seq]);
    }
    seqs
}

#[test]
fn a_hub_without_space_says_so_and_loses_nothing() {
    let Some(disk) = Disk::tmpfs(48) else { return };
    let path = disk.replica();
    let replica = Replica::open(&path, Options::default()).unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let kept = noise(100_000, 1);
    client.store(&kept);
    let first = client.commit(1, &new_file(node(1, 1), "f", chunked(&[&kept])));
    let first = first.unwrap();
    disk.fill();
    let store = |seed| {
        let bytes = noise(500_000, seed);
        let chunks = vec![raw(ChunkHash::of(&bytes), &bytes)];
        client.0.perform(HubAction::Store { chunks })
    };
    let refused = |done: HubDone| match done {
        HubDone::Failed(why) => {
            assert_eq!(why.code, Code::QUOTA, "{why}");
            assert!(why.retry_after_ms > 0);
            true
        }
        _ => false,
    };
    eventually("chunks are refused", || refused(store(2)));
    assert_eq!(
        client.commit(1, &new_file(node(1, 1), "f", chunked(&[&kept]))),
        Ok(first)
    );
    disk.relieve();
    eventually("chunks are taken again", || !refused(store(3)));
    let edits = new_file(node(1, 2), "g", text("later"));
    let seq = client.commit(2, &edits).unwrap().seq;
    assert_eq!(seq, 2);
    assert_clean(&replica);
}
