//! Who is not admitted, and what it costs.

use cairn_protocol::session::Offer;
use cairn_protocol::wire::{Capabilities, Code, Ext, Frame, IGNORABLE, Message, Ping};
use cairn_transports::STRANGERS;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::raw::{Raw, hello, http, told};
use super::shelf::ShelfReplica;
use super::world::{Carrier, REMOTE, World, token, until, within};

/// Those that a stranger of these tests speaks.
const RAW: [Carrier; 2] = [Carrier::Quic, Carrier::Ws];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_not_tried_again() {
    let world = World::new().await;
    for carrier in REMOTE {
        for secret in ["", "write", "writess"] {
            let replica = ShelfReplica::new(10);
            let client = world.client_with(carrier, &replica, "w", secret);
            let why = within("refused", client.over()).await;
            assert_eq!(why.code(), Some(Code::AUTH), "{carrier:?}");
            let shown = format!("{why:?} {why} {:?}", world.url(carrier, "w"));
            assert!(secret.is_empty() || !shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_workspace_is_refused_and_not_tried_again() {
    let world = World::new().await;
    for carrier in REMOTE {
        let replica = ShelfReplica::new(10);
        let client = world.client_with(carrier, &replica, "nobody", "writes");
        let why = within("refused", client.over()).await;
        assert_eq!(why.code(), Some(Code::WORKSPACE), "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_reads_does_not_push() {
    let world = World::new().await;
    world.hub.add(0, &[vec![]]);
    for carrier in REMOTE {
        let replica = ShelfReplica::new(10 + carrier as u64);
        let client = world.client_with(carrier, &replica, "w", "reads");
        until("it follows", || replica.tree() == world.hub.tree()).await;
        let before = world.hub.tree();
        replica.write(&[vec![]]);
        let fenced = within("fence", client.handle().fence()).await.unwrap();
        assert_eq!(fenced, Err(Code::READ_ONLY), "{carrier:?}");
        let refusal = client.refusal().map(|refusal| refusal.code);
        assert_eq!(refusal, Some(Code::READ_ONLY), "{carrier:?}");
        assert_eq!(world.hub.tree(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_without_tokens_takes_everybody() {
    let world = World::new().await;
    for carrier in REMOTE {
        let replica = ShelfReplica::new(10 + carrier as u64);
        let client = world.client_with(carrier, &replica, "open", "");
        replica.write(&[vec![]]);
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(replica.tree(), world.open.tree());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_nobody_speaks_is_refused() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        let mut greeting = hello(&world);
        (greeting.version_min, greeting.version_max) = (9, 12);
        raw.say(greeting).await;
        assert_eq!(told(&mut raw).await, Some(Code::VERSION), "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_a_greeting_is_refused_by_its_header() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        let long = Frame {
            kind: 1,
            lane: 0,
            payload: vec![0; 4_097].into(),
        };
        raw.send(&long.encode()[..8]).await;
        assert_eq!(told(&mut raw).await, Some(Code::LIMIT), "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admitted_client_is_held_to_its_limits() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        raw.say(hello(&world)).await;
        while raw.frame().await.unwrap().kind != 2 {}
        let mut header = [0; 8];
        header[..4].copy_from_slice(&(1_u32 << 20 | 1).to_le_bytes());
        raw.send(&header).await;
        assert_eq!(told(&mut raw).await, Some(Code::LIMIT), "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_garbage_ends_the_connection_and_nothing_else() {
    let world = World::new().await;
    world.hub.add(0, &[vec![]]);
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    for carrier in RAW {
        for round in 0..20 {
            let mut raw = Raw::connect(&world, carrier).await;
            if round % 2 == 0 {
                raw.say(hello(&world)).await;
            }
            let mut bytes = vec![0; 50 * round];
            noise.fill(&mut bytes);
            // A length that is allowed, so that what follows is looked at.
            if let Some(length) = bytes.get_mut(..4) {
                length.copy_from_slice(&(round as u32).to_le_bytes());
                raw.send(&bytes).await;
                let code = told(&mut raw).await;
                let codes = [Code::MALFORMED, Code::LIMIT, Code::UNSUPPORTED, Code::STATE];
                assert!(codes.map(Some).contains(&code), "{carrier:?}: {code:?}");
            }
        }
    }
    let replica = ShelfReplica::new(10);
    let client = world.client(Carrier::Quic, &replica);
    within("fence", client.handle().fence())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_does_not_greet_first_is_refused() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        let ext = Ext::default();
        raw.say(Ping { nonce: 1, ext }).await;
        let code = told(&mut raw).await;
        assert_eq!(code, Some(Code::STATE), "{carrier:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_strangers_have_places_and_those_beyond_are_turned_away() {
    let world = World::new().await;
    let replica = ShelfReplica::new(10);
    let client = world.client(Carrier::Ws, &replica);
    within("connected", client.connected()).await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS + 10 {
        strangers.push(TcpStream::connect(world.address).await.unwrap());
    }
    let mut last = strangers.pop().unwrap();
    let read = within("turned away", last.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // Who was there before goes on; who comes when they have gone is served.
    replica.write(&[vec![]]);
    within("fence", client.handle().fence())
        .await
        .unwrap()
        .unwrap();
    drop(strangers);
    let other = ShelfReplica::new(11);
    let client = world.client(Carrier::Quic, &other);
    within("fence", client.handle().fence())
        .await
        .unwrap()
        .unwrap();
    let metrics = world.server.as_ref().unwrap().metrics();
    assert!(
        !metrics.contains("cairn_turned_away_total 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_stranger_who_never_stops_is_not_read_to_the_end() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        // One frame of the right length after the other, of a kind that is passed
        // over: none of them is a greeting.
        let frame = Frame {
            kind: IGNORABLE + 77,
            lane: 0,
            payload: vec![0; 4_000].into(),
        };
        let bytes = frame.encode();
        let sending = async { while raw.send(&bytes).await {} };
        // Within the time that a greeting may take.
        within("it is cut off", sending).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_answers_requests_beside() {
    let world = World::new().await;
    let ask = async |request: &str| {
        let (mut stream, head, mut body) = http(world.address, request).await;
        while stream.read_buf(&mut body).await.unwrap_or(0) > 0 {}
        (head, String::from_utf8(body.to_vec()).unwrap())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = ask(&get("/health")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(body.starts_with("{\"status\":\"ok\""), "{body}");
    let (head, body) = ask(&get("/metrics")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        body.contains("cairn_workspace_head{workspace=\"w\"} 0\n"),
        "{body}"
    );
    for (request, status) in [
        (get("/"), "404"),
        (get("/sync"), "426"),
        (get("/health").replace("GET", "POST"), "405"),
        (super::raw::UPGRADE.replace("cairn.v1", "chat"), "400"),
        (
            super::raw::UPGRADE.replace("Version: 13", "Version: 8"),
            "426",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let (head, _) = ask(&request).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_agreed_on_is_agreed_on() {
    let world = World::new().await;
    for carrier in RAW {
        let mut raw = Raw::connect(&world, carrier).await;
        let mut greeting = hello(&world);
        greeting.capabilities = Capabilities(u64::MAX);
        greeting.token = token("reads");
        raw.say(greeting).await;
        let welcome = loop {
            let frame = raw.frame().await.unwrap();
            if let Some(Message::Welcome(welcome)) = Message::from_frame(&frame).unwrap() {
                break welcome;
            }
        };
        assert_eq!(welcome.version, 1);
        assert_eq!(welcome.capabilities, Offer::OURS.capabilities);
    }
}
