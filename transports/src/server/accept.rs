//! Connections, until they have a session.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cairn_protocol::ReplicaTag;
use cairn_protocol::session::{HubConfig, HubSession, Offer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::doorman::Doorman;
use super::guests::Guests;
use super::registry::{Carrier, Registry};
use super::{GREETING, STRANGERS, http};
use crate::AGENT;
use crate::channel::Channel;
use crate::driver::{Drive, drive, together};
use crate::error::CarrierError;
use crate::link::{Wire, link};
use crate::{quic, silence};

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) strangers: Arc<Semaphore>,
    /// What TLS over TCP is done with, if there is a certificate.
    pub(super) tls: Option<TlsAcceptor>,
    /// Whether TCP without TLS is taken.
    pub(super) plain: bool,
    /// How long a client may be silent.
    pub(super) silence: Duration,
    pub(super) guests: Option<Arc<dyn Guests>>,
}

impl Shared {
    fn stranger(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.strangers).try_acquire_owned().ok();
        if place.is_none() {
            self.registry.turned_away.fetch_add(1, Relaxed);
        }
        place
    }

    /// Hands a connection to who knows what a host and a daemon speak.
    pub(super) fn guest<F>(&self, stranger: OwnedSemaphorePermit, carry: impl FnOnce(Wire) -> F)
    where
        F: Future<Output = Result<(), CarrierError>> + Send + 'static,
    {
        if let Some(guests) = &self.guests {
            guests.came(Channel::start(carry, Some(stranger)));
        }
    }
}

/// Serves one client, from its greeting to its end.
pub(super) async fn serve<F>(
    shared: &Shared,
    carrier: Carrier,
    stranger: OwnedSemaphorePermit,
    carry: impl FnOnce(Wire) -> F,
) where
    F: Future<Output = Result<(), CarrierError>>,
{
    let registry = &shared.registry;
    let (outbox, inbox, wire) = link(Arc::clone(&registry.traffic));
    let place = registry.enter(carrier);
    let doorman = Doorman::new(
        Arc::clone(&registry.workspaces),
        Arc::clone(registry),
        Arc::clone(&place),
        stranger,
    );
    let with = Drive {
        store: Arc::new(doorman),
        outbox,
        inbox,
        commands: mpsc::unbounded_channel().1,
        frame_max: 0,
        stop: place.stop.subscribe(),
        counters: Arc::clone(&place.counters),
    };
    let session = HubSession::new(Duration::ZERO, hub_config(registry.tag));
    let driving = drive(session, with, |event| tracing::debug!(?event, "session"));
    let (ended, broken) = together(driving, carry(wire)).await;
    tracing::debug!(%ended, ?broken, ?carrier, "connection over");
    registry.leave(&place, &ended);
}

/// What a hub's session begins with.
pub(crate) fn hub_config(replica: ReplicaTag) -> HubConfig {
    HubConfig {
        replica,
        agent: AGENT.to_owned(),
        offer: Offer::OURS,
    }
}

/// Takes QUIC connections until the endpoint is closed.
pub(super) async fn accept_quic(
    endpoint: quinn::Endpoint,
    near: Arc<quinn::ServerConfig>,
    shared: Arc<Shared>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let Some(stranger) = shared.stranger() else {
            incoming.refuse();
            continue;
        };
        // Under load, who comes has to show that the address is his.
        let crowded = shared.strangers.available_permits() < STRANGERS / 2;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let peer = incoming.remote_address();
        let config = peer.ip().is_loopback().then(|| Arc::clone(&near));
        let connecting = match config {
            Some(config) => incoming.accept_with(config),
            None => incoming.accept(),
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(connecting) = connecting else { return };
            match tokio::time::timeout(GREETING, connecting).await {
                Ok(Ok(connection)) => {
                    if quic::speaks_exec(&connection) {
                        let carry = |wire| quic::run(connection, quic::Side::Server, wire);
                        shared.guest(stranger, carry);
                        return;
                    }
                    let carry = |wire| quic::run(connection, quic::Side::Server, wire);
                    serve(&shared, Carrier::Quic, stranger, carry).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, %peer, "no QUIC connection"),
                Err(_) => tracing::debug!(%peer, "no QUIC connection in time"),
            }
        });
    }
}

/// Takes TCP connections for ever.
pub(super) async fn accept_tcp(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, most likely: it passes.
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(stranger) = shared.stranger() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = greet(stream, stranger, shared).await {
                tracing::debug!(%error, %peer, "no connection");
            }
        });
    }
}

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Finds out whether a connection is to be secure, and lets it ask for something.
async fn greet(
    stream: TcpStream,
    stranger: OwnedSemaphorePermit,
    shared: Arc<Shared>,
) -> Result<(), CarrierError> {
    stream.set_nodelay(true)?;
    silence::watch(&stream, shared.silence)?;
    let mut first = [0];
    let late = || CarrierError::Io(std::io::ErrorKind::TimedOut.into());
    let peeked = tokio::time::timeout(GREETING, stream.peek(&mut first));
    if peeked.await.map_err(|_| late())?? == 0 {
        return Ok(());
    }
    match &shared.tls {
        Some(tls) if first == [TLS_HANDSHAKE] => {
            let handshake = tls.accept(stream);
            let secure = tokio::time::timeout(GREETING, handshake);
            let secure = secure.await.map_err(|_| late())??;
            http::serve(secure, true, stranger, shared).await;
        }
        _ => {
            let allowed = shared.plain;
            http::serve(stream, allowed, stranger, shared).await;
        }
    }
    Ok(())
}
