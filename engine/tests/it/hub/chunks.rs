//! Chunks: what a commit needs, what stays, what is refused, what is sent.

use cairn_engine::{Hub, HubOptions, Options, Replica};
use cairn_protocol::session::{HubAction, HubDone, Store};
use cairn_protocol::wire::{ChunkData, Code};
use cairn_protocol::{ChunkHash, ChunkerId, Data, Encoding, Extent, Manifest};

use super::{Client, FORGETFUL, chunked, hub_at, new_file, node, raw, remove};
use crate::support::{assert_clean, noise, place, quiet};

#[test]
fn a_commit_needs_its_chunks_and_keeps_them() {
    for single in [false, true] {
        let (_dir, path) = place();
        let options = Options {
            single_file: single,
            ..quiet(Options::default())
        };
        let replica = Replica::open(&path, options).unwrap();
        let hub = Hub::open(&replica).unwrap();
        let client = Client::new(&hub, 1);
        let (a, b) = (noise(70_000, 1), noise(9_000, 2));
        let edits = new_file(node(1, 1), "f", chunked(&[&a, &b, &a]));
        let hashes = [ChunkHash::of(&a), ChunkHash::of(&b)];
        assert_eq!(client.missing(&hashes), [true, true]);
        client.store(&a);
        assert_eq!(
            client.commit(1, &edits).unwrap_err().code,
            Code::CHUNK_MISSING
        );
        client.store(&b);
        client.commit(1, &edits).unwrap();
        drop(client);
        replica.gc().unwrap();
        let client = Client::new(&hub, 1);
        assert_eq!(client.missing(&hashes), [false, false]);
        assert_clean(&replica);
        // Removed, they are kept for who did not know, until everybody does.
        client.commit(2, &remove(node(1, 1), "f", 1)).unwrap();
        drop((client, hub));
        replica.gc().unwrap();
        let hub = Hub::open_with(&replica, FORGETFUL).unwrap();
        let client = Client::new(&hub, 1);
        client.applied(hub.head().unwrap());
        assert_eq!(client.missing(&hashes), [false, false]);
        drop(client);
        assert_eq!(hub.prune().unwrap(), 2);
        let report = replica.gc().unwrap();
        assert_eq!(report.chunks, 2);
        let client = Client::new(&hub, 1);
        assert_eq!(client.missing(&hashes), [true, true]);
        assert_clean(&replica);
    }
}

#[test]
fn gc_leaves_what_a_connection_holds() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let bytes = noise(70_000, 1);
    let hash = client.store(&bytes);
    replica.gc().unwrap();
    assert_eq!(client.missing(&[hash]), [false]);
    client
        .commit(1, &new_file(node(1, 1), "f", chunked(&[&bytes])))
        .unwrap();
    // What nobody committed goes with its connection.
    let other = Client::new(&hub, 2);
    let lost = other.store(&noise(70_000, 2));
    drop(other);
    replica.gc().unwrap();
    assert_eq!(client.missing(&[hash, lost]), [false, true]);
    assert_clean(&replica);
}

#[test]
fn a_hub_and_the_files_of_its_replica_share_chunks() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    // Large enough for a staging file that becomes a pack.
    let bytes = noise(3 << 20, 7);
    replica.write_file("/large", &bytes).unwrap();
    replica.cursor().unwrap();
    let mut extents = Vec::new();
    let mut chunks = Vec::new();
    for (n, part) in bytes.chunks(400_000).enumerate() {
        if n == 3 {
            replica.write_file("/same", part).unwrap();
            replica.cursor().unwrap();
        }
        client.store(part);
        extents.push(part);
        chunks.push(ChunkHash::of(part));
    }
    client
        .commit(1, &new_file(node(1, 1), "f", chunked(&extents)))
        .unwrap();
    replica.remove("/large").unwrap();
    replica.gc().unwrap();
    assert_eq!(client.missing(&chunks), vec![false; chunks.len()]);
    assert_clean(&replica);
}

#[test]
fn chunks_that_are_not_what_they_say_are_refused() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let (bytes, other) = (noise(5_000, 1), ChunkHash::of(b"other"));
    let wrong = client.put(vec![raw(other, &bytes)]);
    assert_eq!(wrong, [(other, Code::CHUNK_CORRUPT)]);
    let hash = ChunkHash::of(&bytes);
    let encoding = Encoding::ZstdPrefix { base: other };
    let without = ChunkData {
        encoding,
        ..raw(hash, &bytes)
    };
    assert_eq!(client.put(vec![without]), [(hash, Code::CHUNK_MISSING)]);
    assert_eq!(client.missing(&[hash, other]), [true, true]);
    // A content that says another length than its chunk has.
    client.store(&bytes);
    let extents = [Extent::Chunk { hash, len: 4_999 }];
    let manifest = Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap();
    let (size, chunker) = (4_999, ChunkerId::Whole);
    let data = Data::File {
        size,
        chunker,
        manifest,
    };
    let refused = client
        .commit(1, &new_file(node(1, 1), "f", data))
        .unwrap_err();
    assert_eq!(refused.code, Code::MALFORMED);
    assert_clean(&replica);
}

#[test]
fn pages_of_manifests_are_chunks_that_come_first() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let bytes = noise(100, 1);
    let hash = client.store(&bytes);
    let extents = vec![Extent::Chunk { hash, len: 100 }; 10_000];
    let mut pages = Vec::new();
    let manifest = Manifest::build(&extents, |_, page| {
        pages.push(page);
        Ok::<_, ()>(())
    });
    let data = Data::File {
        size: 1_000_000,
        chunker: ChunkerId::FastCdc,
        manifest: manifest.unwrap(),
    };
    let edits = new_file(node(1, 1), "f", data);
    assert_eq!(
        client.commit(1, &edits).unwrap_err().code,
        Code::CHUNK_MISSING
    );
    for page in &pages {
        client.store(page);
    }
    client.commit(1, &edits).unwrap();
    drop(client);
    replica.gc().unwrap();
    assert_clean(&replica);
}

#[test]
fn chunks_are_read_as_differences_and_within_a_budget() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let old = noise(200_000, 1);
    let mut new = old.clone();
    new[100_000] ^= 1;
    let (base, hash) = (client.store(&old), client.store(&new));
    let read = |chunks: Vec<_>, budget| match client.0.perform(HubAction::Read { chunks, budget }) {
        HubDone::Chunks {
            chunks,
            taken,
            missing,
        } => (chunks, taken, missing),
        other => panic!("{other:?}"),
    };
    let (chunks, _, _) = read(vec![(hash, Some(base))], 1 << 20);
    assert_eq!(chunks[0].encoding, Encoding::ZstdPrefix { base });
    assert!(chunks[0].bytes.len() < 1_000);
    let unknown = ChunkHash::of(b"unknown");
    let wanted = vec![(unknown, None), (hash, None), (base, None), (hash, None)];
    let (chunks, taken, missing) = read(wanted, 450_000);
    assert_eq!((chunks.len(), taken, missing), (2, 3, vec![unknown]));
    let (chunks, taken, _) = read(vec![(hash, Some(unknown)), (base, None)], 1);
    assert_eq!((chunks.len(), taken), (1, 1));
    assert_eq!(chunks[0].encoding, Encoding::Raw);
}
