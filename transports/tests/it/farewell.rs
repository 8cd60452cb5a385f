//! A hub over QUIC that ends a connection at once: its reason is heard.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::{Code, Ext, Goodbye, Message, Text};
use quinn::VarInt;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::faults::client_over;
use super::shelf::ShelfReplica;
use super::world::{Carrier, World, within};

/// What a hub does when it does not want a client.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// It says why, and closes the connection when that is there.
    SaidAndClosed,
    /// The packet with the reason is lost, and that of the close is not.
    Closed,
    /// It ends without a word, as a process that is killed in order.
    Silent,
}

/// A hub with the certificate of `world`, which greets nobody. Returns its port.
fn hub(world: &World, farewell: Farewell) -> (quinn::Endpoint, u16) {
    let read = |name| std::fs::read(world.folder.path().join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("hub-cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("hub-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tls.alpn_protocols = vec![b"cairn/1".to_vec()];
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let connection = incoming.await.unwrap();
            let (mut send, _receive) = connection.accept_bi().await.unwrap();
            if let Farewell::SaidAndClosed = farewell {
                let goodbye = Message::from(Goodbye {
                    code: Code::AUTH,
                    detail: Text::cut("said"),
                    ext: Ext::default(),
                });
                let frame = goodbye.to_frame(0).encode();
                send.write_all(&frame).await.unwrap();
                send.finish().unwrap();
                // The other side has the bytes soon, and may not have looked at them.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let code = match farewell {
                Farewell::Silent => Code::SHUTDOWN,
                _ => Code::AUTH,
            };
            connection.close(VarInt::from_u32(code.0.into()), b"");
        }
    });
    (endpoint, port)
}

/// Under load the end of the connection was looked at before what had come over it,
/// and a wrong token was "the connection was lost", which is tried again for ever.
#[tokio::test]
async fn regression_a_reason_is_heard_though_the_connection_is_closed_after_it() {
    let world = World::new().await;
    let apart = tokio::runtime::Runtime::new().unwrap();
    // What comes waits here until this thread has time for it, and comes all at once.
    let busy = tokio::spawn(async {
        loop {
            std::thread::sleep(Duration::from_millis(5));
            tokio::task::yield_now().await;
        }
    });
    for farewell in [Farewell::SaidAndClosed, Farewell::Closed] {
        let (endpoint, port) = {
            let _there = apart.enter();
            hub(&world, farewell)
        };
        for _ in 0..20 {
            let client = client_over(&world, Carrier::Quic, port, &ShelfReplica::new(10));
            let tried = within("refused", client.first_try()).await;
            let why = tried.unwrap_err();
            assert_eq!(why.code(), Some(Code::AUTH), "{farewell:?}: {why}");
            if let Farewell::SaidAndClosed = farewell {
                assert!(why.to_string().contains("said"), "{why}");
            }
        }
        endpoint.close(VarInt::from_u32(0), b"");
    }
    busy.abort();
    apart.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_without_a_reason_was_lost() {
    let world = World::new().await;
    let (endpoint, port) = hub(&world, Farewell::Silent);
    let client = client_over(&world, Carrier::Quic, port, &ShelfReplica::new(10));
    let why = within("tried", client.first_try()).await.unwrap_err();
    assert!(!why.is_final(), "{why}");
    within("shutdown", client.shutdown()).await;
    endpoint.close(VarInt::from_u32(0), b"");
}
