//! What a session does, over each carrier.

use bytes::Bytes;

use super::shelf::ShelfReplica;
use super::world::{ALL, World, until, within};

/// A file of some chunks that no other has.
pub(crate) fn content(seed: u32, chunks: u32, len: usize) -> Vec<Bytes> {
    let chunk = |i: u32| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&i.to_le_bytes());
        let mut bytes = vec![0; len];
        hasher.finalize_xof().fill(&mut bytes);
        Bytes::from(bytes)
    };
    (0..chunks).map(chunk).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_the_tree_and_its_chunks() {
    let world = World::new().await;
    let files: Vec<_> = (0..50)
        .map(|seed| content(seed, seed % 5, 60_000))
        .collect();
    world.hub.add(0, &files);
    for carrier in ALL {
        let replica = ShelfReplica::new(carrier as u64 + 10);
        let client = world.client(carrier, &replica);
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(replica.tree(), world.hub.tree(), "{carrier:?}");
        assert_eq!(replica.chunk_count(), 100, "{carrier:?}");
        within("shutdown", client.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_pushes_another_has() {
    let world = World::new().await;
    for carrier in ALL {
        let (one, other) = (carrier as u64 + 10, carrier as u64 + 20);
        let (one, other) = (ShelfReplica::new(one), ShelfReplica::new(other));
        let (writer, reader) = (world.client(carrier, &one), world.client(carrier, &other));
        within("connected", reader.connected()).await.unwrap();
        for round in 0..5 {
            // Some chunks travel with the batch, some after it.
            one.write(&[
                content(1_000 + round, 1, 100),
                content(round, round, 300_000),
            ]);
            within("fence", writer.handle().fence())
                .await
                .unwrap()
                .unwrap();
            until("the other has it", || other.tree() == world.hub.tree()).await;
        }
        assert_eq!(one.tree(), world.hub.tree(), "{carrier:?}");
        within("shutdown", writer.shutdown()).await;
        within("shutdown", reader.shutdown()).await;
    }
}
