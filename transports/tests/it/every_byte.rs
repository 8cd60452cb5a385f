//! A short session that is cut after each of its bytes in turn, or loses packets
//! after each of its packets, and goes on: nothing is lost, and nothing comes
//! twice (I5).
//!
//! `CAIRN_EVERY_BYTE=1` cuts after every byte, which takes a few minutes; otherwise
//! after some, not always the same ones of a frame.

use std::sync::Arc;
use std::time::Duration;

use cairn_transports::Client;
use cairn_transports::testing::{TcpLink, UdpLink};
use tokio::task::JoinSet;

use super::carriers::content;
use super::faults::client_over;
use super::shelf::ShelfReplica;
use super::world::{Carrier, World, until, within};

/// Sessions beside each other: most of the time they wait to connect again.
const BESIDE: usize = 32;
/// Between two cuts, if not all are made: a prime, so that they are everywhere.
const STRIDE: usize = 29;
/// Packets that are lost in a row.
const LOST: u64 = 3;

/// What both sides have, and what is to come of it.
struct Script {
    world: World,
    replica: Arc<ShelfReplica>,
}

impl Script {
    /// The hub has a file, and so has the replica.
    async fn begin() -> Self {
        let world = World::new().await;
        world.hub.add(0, &[content(1, 1, 100)]);
        let replica = ShelfReplica::new(10);
        replica.write(&[content(2, 1, 100)]);
        Self { world, replica }
    }

    /// The replica pushes and pulls one; then the hub has another.
    async fn run(&self, client: &Client, case: &str) {
        let fence = || async {
            within(case, client.handle().fence())
                .await
                .unwrap()
                .unwrap()
        };
        fence().await;
        self.world.hub.add(1, &[content(3, 1, 100)]);
        until(case, || self.replica.tree() == self.world.hub.tree()).await;
        fence().await;
        let nodes = 2 * 3;
        assert_eq!(self.world.hub.tree().len(), nodes, "{case}: not twice");
        assert_eq!(self.replica.tree(), self.world.hub.tree(), "{case}");
        assert_eq!(self.replica.chunk_count(), 3, "{case}");
    }
}

/// Runs the script over a connection that breaks after so many bytes. Returns how
/// many there were.
async fn cut_after(carrier: Carrier, bytes: Option<u64>) -> u64 {
    let script = Script::begin().await;
    let address = script.world.address;
    let link = TcpLink::start(address, Duration::ZERO).await.unwrap();
    link.cut_after(bytes);
    let port = link.address().port();
    let client = client_over(&script.world, carrier, port, &script.replica);
    let case = format!("{carrier:?}, cut after {bytes:?}");
    script.run(&client, &case).await;
    client.shutdown().await;
    link.carried()
}

/// Runs the script over a link that loses packets after so many.
async fn lose_after(packets: Option<u64>) -> u64 {
    let script = Script::begin().await;
    let address = script.world.address;
    let link = UdpLink::start(address, Duration::ZERO).await.unwrap();
    if let Some(packets) = packets {
        link.lose_after(packets, LOST);
    }
    let port = link.address().port();
    let client = client_over(&script.world, Carrier::Quic, port, &script.replica);
    let case = format!("packets lost after {packets:?}");
    script.run(&client, &case).await;
    let packets = link.came();
    client.shutdown().await;
    packets
}

/// Runs these, some beside each other.
async fn all<F: Future<Output = u64> + Send + 'static>(runs: impl Iterator<Item = F>) {
    let mut under_way = JoinSet::new();
    for run in runs {
        if under_way.len() >= BESIDE {
            under_way.join_next().await.unwrap().unwrap();
        }
        under_way.spawn(run);
    }
    while let Some(done) = under_way.join_next().await {
        done.unwrap();
    }
}

fn stride() -> usize {
    match std::env::var_os("CAIRN_EVERY_BYTE") {
        Some(_) => 1,
        None => STRIDE,
    }
}

async fn cut_everywhere(carrier: Carrier) {
    let length = cut_after(carrier, None).await;
    let cuts = (0..=length).step_by(stride());
    all(cuts.map(|bytes| cut_after(carrier, Some(bytes)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_websocket_is_cut_after_every_byte() {
    cut_everywhere(Carrier::Ws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_secure_websocket_is_cut_after_every_byte() {
    cut_everywhere(Carrier::Wss).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_packets_are_lost_after_every_packet() {
    let length = lose_after(None).await;
    all((0..=length).map(|packets| lose_after(Some(packets)))).await;
}
