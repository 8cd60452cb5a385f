//! Whom a client trusts, and what a server refuses to be.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cairn_transports::tls::{Fingerprint, Identity, TlsError, Trust};
use cairn_transports::{
    Client, ClientError, ClientOptions, ConnectError, ServeError, Server, Upstream,
};

use super::raw::http;
use super::shelf::{OfShelf, ShelfReplica};
use super::world::{Carrier, Known, World, token, within};

const SECURE: [Carrier; 2] = [Carrier::Quic, Carrier::Wss];

fn client(world: &World, carrier: Carrier, trust: Trust) -> Client {
    let upstream = Upstream::At {
        address: world.url(carrier, "w"),
        trust,
    };
    let options = ClientOptions {
        token: token("writes"),
        ..ClientOptions::default()
    };
    let replica = Arc::new(OfShelf(ShelfReplica::new(10)));
    Client::start(upstream, options, replica)
}

async fn tls_error(client: &Client) -> String {
    let why = within("refused", client.over()).await;
    match &*why {
        ClientError::Connect(ConnectError::Tls(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_trusted_on_first_use_and_then_known() {
    let mut world = World::new().await;
    let known = Arc::new(Known::default());
    for carrier in SECURE {
        known.0.lock().clear();
        let trust = || Trust::OnFirstUse(Arc::clone(&known) as _);
        for _ in 0..2 {
            let client = client(&world, carrier, trust());
            within("connected", client.connected()).await.unwrap();
            within("shutdown", client.shutdown()).await;
            let expected = [(world.address.to_string(), world.fingerprint)];
            assert_eq!(*known.0.lock(), expected.into(), "{carrier:?}");
        }
        // The hub is set up anew, or is another.
        let before = world.fingerprint;
        world.stop().await;
        std::fs::remove_file(world.folder.path().join("hub-cert.pem")).unwrap();
        world.start().await;
        assert_ne!(world.fingerprint, before);
        let client = client(&world, carrier, trust());
        let error = tls_error(&client).await;
        for part in [before, world.fingerprint].map(|part| part.to_string()) {
            assert!(error.contains(&part), "{error}");
        }
        assert!(error.contains("give the new fingerprint"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_hub_is_the_only_one() {
    let world = World::new().await;
    for carrier in SECURE {
        let right = client(&world, carrier, Trust::Pinned(world.fingerprint));
        within("connected", right.connected()).await.unwrap();
        within("shutdown", right.shutdown()).await;
        let wrong = client(&world, carrier, Trust::Pinned(Fingerprint::of(b"other")));
        assert!(
            tls_error(&wrong)
                .await
                .contains("is not the one that is known")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_no_authoritys() {
    let world = World::new().await;
    for carrier in SECURE {
        let client = client(&world, carrier, Trust::Authorities);
        let error = tls_error(&client).await;
        assert!(error.contains("no authority vouches"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_hub_is_named_and_tried_again() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let mut world = World::new().await;
    world.stop().await;
    for (address, what) in [
        (world.address, "cannot reach"),
        (listener.local_addr().unwrap(), "there is no Cairn hub at"),
    ] {
        let accepting = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let upstream = Upstream::At {
            address: format!("ws://{address}/w").parse().unwrap(),
            trust: Trust::Authorities,
        };
        let options = ClientOptions {
            retry: false,
            ..ClientOptions::default()
        };
        let replica = Arc::new(OfShelf(ShelfReplica::new(10)));
        let client = Client::start(upstream, options, replica);
        let why = tokio::select! {
            why = within("refused", client.over()) => why,
            () = accepting => return,
        };
        assert!(why.to_string().starts_with(what), "{why}");
        assert!(!why.is_final());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_others_reach_needs_a_certificate_and_tokens() {
    let world = World::new().await;
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let identity = || Identity::open_or_create(world.folder.path()).unwrap();
    let refused = Server::builder().listen(everywhere);
    let refused = refused.start(world.workspaces()).await.unwrap_err();
    assert!(
        matches!(refused, ServeError::NoCertificate { .. }),
        "{refused}"
    );
    let refused = Server::builder().listen(everywhere).identity(identity());
    let refused = refused.start(world.workspaces()).await.unwrap_err();
    assert!(
        matches!(&refused, ServeError::NoToken { workspace, .. } if workspace == "open"),
        "{refused}"
    );
    let taken = Server::builder().listen(world.address);
    let taken = taken.start(world.workspaces()).await.unwrap_err();
    assert!(matches!(taken, ServeError::Listen { .. }), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_others_reach_takes_secure_connections_only() {
    let mut world = World::new().await;
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let identity = Identity::open_or_create(world.folder.path()).unwrap();
    let workspaces = world.closed_workspaces();
    let server = Server::builder().listen(everywhere).identity(identity);
    let server = server.start(workspaces).await.unwrap();
    world.address.set_port(server.address().port());
    let (_, head, _) = http(world.address, super::raw::UPGRADE).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    for carrier in SECURE {
        let client = client(&world, carrier, Trust::Pinned(world.fingerprint));
        within("connected", client.connected()).await.unwrap();
        within("shutdown", client.shutdown()).await;
    }
    server.shutdown().await;
}

#[test]
fn a_certificate_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cert.pem");
    let error = Identity::load(&path, &path).unwrap_err();
    assert!(matches!(error, TlsError::File { .. }));
    assert!(error.to_string().contains("cert.pem"), "{error}");
}
