//! Connections that break, hubs that end, replicas that come twice.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::{Code, Ext, Hydrate, Start, Subscribe, Want};
use cairn_protocol::{ChunkHash, Scope};
use cairn_transports::testing::{TcpLink, UdpLink};
use cairn_transports::tls::Trust;
use cairn_transports::{Client, ClientOptions, State, Upstream};

use super::carriers::content;
use super::raw::{Raw, hello};
use super::shelf::{OfShelf, ShelfReplica};
use super::world::{ALL, Carrier, REMOTE, World, token, until, within};

/// A client that comes over a link.
pub(crate) fn client_over(
    world: &World,
    carrier: Carrier,
    port: u16,
    replica: &Arc<ShelfReplica>,
) -> Client {
    let url = format!("{}://127.0.0.1:{port}/w", carrier.scheme());
    let upstream = Upstream::At {
        address: url.parse().unwrap(),
        trust: Trust::Pinned(world.fingerprint),
    };
    let options = ClientOptions {
        token: token("writes"),
        ..ClientOptions::default()
    };
    Client::start(upstream, options, Arc::new(OfShelf(Arc::clone(replica))))
}

/// A connection that breaks at any byte is no loss: the next one goes on.
async fn cut_anywhere(carrier: Carrier) {
    let world = World::new().await;
    let files: Vec<_> = (0..20).map(|seed| content(seed, 2, 10_000)).collect();
    world.hub.add(0, &files);
    let link = TcpLink::start(world.address, Duration::ZERO).await.unwrap();
    let replica = ShelfReplica::new(10);
    // Within the greetings, the changes, the chunks, and the push.
    link.cut_after([1, 150, 400, 700, 2_000, 50_000, 3_000]);
    replica.write(&[content(100, 3, 20_000)]);
    let client = client_over(&world, carrier, link.address().port(), &replica);
    until("all cuts", || link.is_whole()).await;
    within("fence", client.handle().fence())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(replica.tree(), world.hub.tree(), "{carrier:?}");
    assert_eq!(replica.chunk_count(), 43, "{carrier:?}");
    assert_eq!(world.hub.tree().len(), 2 * 21, "once, not twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_websocket_may_break_after_any_byte() {
    cut_anywhere(Carrier::Ws).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_secure_websocket_may_break_after_any_byte() {
    cut_anywhere(Carrier::Wss).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_packets_may_be_lost() {
    let world = World::new().await;
    let files: Vec<_> = (0..20).map(|seed| content(seed, 2, 50_000)).collect();
    world.hub.add(0, &files);
    let link = UdpLink::start(world.address, Duration::ZERO).await.unwrap();
    link.lose(20);
    let replica = ShelfReplica::new(10);
    let client = client_over(&world, Carrier::Quic, link.address().port(), &replica);
    replica.write(&[content(100, 3, 20_000)]);
    within("fence", client.handle().fence())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(replica.tree(), world.hub.tree());
    assert_eq!(replica.chunk_count(), 43);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_falls_silent_is_given_up_and_found_again() {
    let world = World::new().await;
    let link = UdpLink::start(world.address, Duration::ZERO).await.unwrap();
    let replica = ShelfReplica::new(10);
    let upstream = Upstream::At {
        address: format!("quic://{}/w", link.address()).parse().unwrap(),
        trust: Trust::Pinned(world.fingerprint),
    };
    let options = ClientOptions {
        token: token("writes"),
        silence: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    let client = Client::start(upstream, options, Arc::new(OfShelf(Arc::clone(&replica))));
    within("connected", client.connected()).await.unwrap();
    for round in 0..3 {
        link.cut_now();
        replica.write(&[content(100 + round, 1, 1_000)]);
        until("pushed", || replica.tree() == world.hub.tree()).await;
    }
    within("shutdown", client.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_ends_and_comes_again_is_found_again() {
    for carrier in REMOTE {
        let mut world = World::new().await;
        let replica = ShelfReplica::new(10);
        let client = world.client(carrier, &replica);
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
        // In the middle of a push, or near it.
        let files: Vec<_> = (0..40).map(|seed| content(seed, 4, 100_000)).collect();
        replica.write(&files);
        within("stop", world.stop()).await;
        until("it waits", || !matches!(client.state(), State::Connected)).await;
        replica.write(&[content(1_000, 1, 10)]);
        world.start().await;
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(replica.tree(), world.hub.tree(), "{carrier:?}");
        assert_eq!(world.hub.tree().len(), 2 * 41, "once, not twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_of_one_replica_the_newer_stays() {
    let world = World::new().await;
    for carrier in REMOTE {
        let (one, other) = (ShelfReplica::new(10), ShelfReplica::new(10));
        let first = world.client(carrier, &one);
        within("connected", first.connected()).await.unwrap();
        let second = world.client(carrier, &other);
        let why = within("replaced", first.over()).await;
        assert_eq!(why.code(), Some(Code::TAG_TAKEN), "{carrier:?}");
        within("fence", second.handle().fence())
            .await
            .unwrap()
            .unwrap();
        within("shutdown", second.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_tells_the_hub_that_it_ends() {
    let world = World::new().await;
    for carrier in REMOTE {
        let replica = ShelfReplica::new(10);
        let client = world.client(carrier, &replica);
        within("connected", client.connected()).await.unwrap();
        within("shutdown", client.shutdown()).await;
        let metrics = || world.server.as_ref().unwrap().metrics();
        let gone = || metrics().contains("cairn_connections{carrier=\"quic\"} 0");
        let ended = || metrics().contains("cairn_sessions_ended_total{code=\"E_SHUTDOWN\"}");
        until("the hub knows", || gone() && ended()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_fail_when_the_client_ends() {
    let world = World::new().await;
    for carrier in ALL {
        let replica = ShelfReplica::new(10);
        let client = world.client(carrier, &replica);
        let handle = client.handle();
        within("shutdown", client.shutdown()).await;
        assert!(within("fence", handle.fence()).await.is_err());
        let hash = ChunkHash::of(b"x");
        let fetch = std::thread::spawn(move || handle.fetch_blocking(vec![(hash, None)], 0));
        assert!(fetch.join().unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_fetched_on_request() {
    let world = World::new().await;
    let chunks = content(5, 2, 1_000);
    world.hub.add(0, std::slice::from_ref(&chunks));
    for carrier in ALL {
        let replica = ShelfReplica::new(10 + carrier as u64);
        let client = world.client(carrier, &replica);
        let wanted = vec![
            (ChunkHash::of(&chunks[0]), None),
            (ChunkHash::of(b"nobody has it"), None),
        ];
        let missing = within("fetch", client.handle().fetch(wanted, 0))
            .await
            .unwrap();
        let expected = [(ChunkHash::of(b"nobody has it"), Code::CHUNK_MISSING)];
        assert_eq!(missing, expected, "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_who_does_not_read_is_not_sent_more() {
    let world = World::new().await;
    let files: Vec<_> = (0..100).map(|seed| content(seed, 1, 400_000)).collect();
    world.hub.add(0, &files);
    for carrier in [Carrier::Quic, Carrier::Ws] {
        let mut raw = Raw::connect(&world, carrier).await;
        raw.say(hello(&world)).await;
        raw.say(Subscribe {
            from: Start::Nothing,
            scope: Scope::ALL,
            hydrate: Hydrate::Full,
            ext: Ext::default(),
        })
        .await;
        let wanted: Vec<_> = files
            .iter()
            .map(|file| (ChunkHash::of(&file[0]), None))
            .collect();
        raw.say(Want {
            request: 1,
            priority: 0,
            chunks: wanted.try_into().unwrap(),
            ext: Ext::default(),
        })
        .await;
        // Meanwhile others are served.
        let replica = ShelfReplica::new(10 + carrier as u64);
        let client = world.client(carrier, &replica);
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(replica.chunk_count(), 100, "{carrier:?}");
        let sent = client.counters().bytes_received;
        let metrics = world.server.as_ref().unwrap().metrics();
        let total = metrics
            .lines()
            .find_map(|line| line.strip_prefix("cairn_sent_bytes_total "));
        let rounds = 1 + u64::from(carrier == Carrier::Ws);
        let others = total.unwrap().parse::<u64>().unwrap() - rounds * sent;
        assert!(
            others < rounds * (10 << 20),
            "{others} bytes for who does not read"
        );
        within("shutdown", client.shutdown()).await;
    }
}
