//! Chunks that are damaged: noted where others may have them, asked for, and given.

use cairn_engine::{Hub, Options, Replica};
use cairn_protocol::ChunkHash;
use cairn_protocol::session::{ClientAction, ClientDone, HubAction, HubDone, Store};

use crate::hub::simulation::spoil;
use crate::hub::{Client as OfHub, chunked, new_file, node};
use crate::support::{assert_clean, noise, open, place, quiet};
use crate::upstream::{Client, Side};

fn lost(client: &OfHub) -> Vec<ChunkHash> {
    let (after, max) = (None, 100);
    match client.0.perform(HubAction::Lost { after, max }) {
        HubDone::Lost(chunks) => chunks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replica_gives_what_the_hub_knows_and_nothing_else() {
    let (dir, path) = place();
    let mut side = Side::default();
    let client = Client::of(open(&path));
    client
        .upstream
        .set_ignore_rules(&["/own".to_owned()])
        .unwrap();
    let contents = [noise(20_000, 1), noise(20_000, 2), noise(20_000, 3)];
    let names = ["/shared", "/own", "/later"];
    for (name, content) in names.iter().zip(&contents).take(2) {
        client.replica.write_file(name, content).unwrap();
    }
    client.sync(&mut side);
    client.replica.write_file(names[2], &contents[2]).unwrap();
    client.replica.flush().unwrap();
    let hashes = contents.each_ref().map(|content| ChunkHash::of(content));
    let give = |chunks: &[ChunkHash]| {
        let (chunks, budget) = (chunks.to_vec(), usize::MAX);
        match client.perform(ClientAction::Give { chunks, budget }) {
            ClientDone::Chunks {
                chunks,
                taken,
                missing,
            } => {
                let given: Vec<_> = chunks.iter().map(|chunk| chunk.hash).collect();
                assert_eq!(taken, given.len() + missing.len());
                given
            }
            other => panic!("{other:?}"),
        }
    };
    // Neither what is ignored, nor what was not pushed.
    assert_eq!(give(&hashes), [hashes[0]]);
    // What is aloft it may have: perhaps it has lost it since.
    assert!(client.push(&mut side).is_some());
    assert_eq!(give(&hashes), [hashes[0], hashes[2]]);
    // One that is damaged here, too, is not given, and is asked for.
    spoil(&path, &hashes[0]);
    assert_eq!(give(&hashes), [hashes[2]]);
    assert_eq!(client.replica.lost_chunks(), [hashes[0]]);
    assert_eq!(client.upstream.lost().unwrap(), [(hashes[0], None)]);
    drop(dir);
}

#[test]
fn a_damaged_chunk_at_a_hub_is_missing_until_it_comes_again() {
    for single_file in [false, true] {
        let (_dir, path) = place();
        let options = Options {
            single_file,
            ..quiet(Options::default())
        };
        let replica = Replica::open(&path, options).unwrap();
        let hub = Hub::open(&replica).unwrap();
        let client = OfHub::new(&hub, 1);
        let (a, b) = (noise(70_000, 1), noise(9_000, 2));
        let hashes = [client.store(&a), client.store(&b)];
        let edits = new_file(node(1, 1), "f", chunked(&[&a, &b]));
        client.commit(1, &edits).unwrap();
        drop(client);
        assert_eq!(replica.lost_chunks(), []);
        if single_file {
            let db = rusqlite::Connection::open(&path).unwrap();
            let spoil = "UPDATE content SET bytes = zeroblob(70000)
                WHERE id = (SELECT pack FROM chunk WHERE hash = ?)";
            db.execute(spoil, [hashes[0].as_bytes().as_slice()])
                .unwrap();
        } else {
            spoil(&path, &hashes[0]);
        }
        // Who reads it finds it out, and it is known when the hub starts again.
        let client = OfHub::new(&hub, 1);
        let read = HubAction::Read {
            chunks: vec![(hashes[0], None)],
            budget: 1 << 20,
        };
        match client.0.perform(read) {
            HubDone::Chunks { missing, .. } => assert_eq!(missing, [hashes[0]]),
            other => panic!("{other:?}"),
        }
        drop((client, hub, replica));
        let replica = Replica::open(&path, quiet(Options::default())).unwrap();
        let hub = Hub::open(&replica).unwrap();
        let client = OfHub::new(&hub, 1);
        assert_eq!(lost(&client), [hashes[0]]);
        assert_eq!(client.missing(&hashes), [true, false]);
        assert_eq!(replica.check(&mut |_, _| {}).unwrap().problems.len(), 2);
        // Collecting garbage takes nothing of it away.
        replica.gc().unwrap();
        assert_eq!(lost(&client), [hashes[0]]);
        client.store(&a);
        assert_eq!(lost(&client), []);
        assert_eq!(client.missing(&hashes), [false, false]);
        drop(client);
        replica.gc().unwrap();
        assert_clean(&replica);
        drop((hub, replica));
        let replica = Replica::open(&path, quiet(Options::default())).unwrap();
        assert_eq!(replica.lost_chunks(), []);
        assert_clean(&replica);
    }
}

#[test]
fn what_is_sound_after_all_counts_again() {
    let (_dir, path) = place();
    let replica = open(&path);
    let hub = Hub::open(&replica).unwrap();
    let client = OfHub::new(&hub, 1);
    let bytes = noise(70_000, 1);
    let hash = client.store(&bytes);
    let edits = new_file(node(1, 1), "f", chunked(&[&bytes]));
    client.commit(1, &edits).unwrap();
    spoil(&path, &hash);
    assert_eq!(replica.check(&mut |_, _| {}).unwrap().problems.len(), 2);
    assert_eq!(lost(&client), [hash]);
    let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    let back = "UPDATE chunk SET pack = lost.pack, off = lost.off FROM lost
        WHERE lost.hash = chunk.hash";
    // The bytes are put right where they were.
    db.execute(back, []).unwrap();
    spoil(&path, &hash);
    db.execute("UPDATE chunk SET pack = 0, off = 0", [])
        .unwrap();
    assert_clean(&replica);
    assert_eq!(lost(&client), []);
    assert_eq!(client.missing(&[hash]), [false]);
}

#[test]
fn where_there_is_no_hub_nothing_is_noted() {
    let (_dir, path) = place();
    let replica = open(&path);
    let bytes = noise(70_000, 1);
    replica.write_file("/f", &bytes).unwrap();
    replica.flush().unwrap();
    spoil(&path, &ChunkHash::of(&bytes));
    replica.check(&mut |_, _| {}).unwrap();
    assert_eq!(replica.lost_chunks(), []);
    // What can be read of it is read.
    assert_eq!(replica.read_file("/f").unwrap().len(), 70_000);
}
