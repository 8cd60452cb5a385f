//! Frames over QUIC (ALPN `cairn/1`).
//!
//! Control is one bidirectional stream that the client opens; every bulk frame
//! is a unidirectional stream of its own, so a lost packet of one holds up no
//! other. Until a client is admitted it has a window of [`STRANGER_WINDOW`] bytes
//! and no bulk streams.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::FRAME_MAX;
use cairn_protocol::wire::{Code, FrameReader};
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig, VarInt,
};
use ring::hmac;
use rustix::net::sockopt;
use tokio::task::JoinSet;

use crate::driver::goodbye;
use crate::error::CarrierError;
use crate::link::{Incoming, Lanes, Outgoing, Wire};
use crate::silence::{bounded, question};

/// The protocol's name in the TLS handshake.
pub(crate) const ALPN: &[u8] = b"cairn/1";

/// The same of what a host and a daemon speak.
pub(crate) const EXEC_ALPN: &[u8] = b"cairn-exec/1";

/// Whether a connection is one of a host and a daemon.
pub(crate) fn speaks_exec(connection: &Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(EXEC_ALPN))
}

/// What a client may send before it is admitted, in bytes: a greeting.
pub(crate) const STRANGER_WINDOW: u32 = 16 << 10;

/// What a peer may have under way, in bytes: 10 Gbit/s at 6 ms, or 1 Gbit/s at
/// 64 ms. What was not taken costs memory.
const WINDOW: u32 = 8 << 20;

/// The same on the loopback interface: less than a socket keeps, so that nothing
/// is lost and sent again. There is no distance to make up for.
const NEAR_WINDOW: u32 = 2 << 20;

/// What may be under way on the loopback interface before anything was acknowledged,
/// in bytes: what a socket keeps without being asked to. Elsewhere a connection has to
/// find out what its way can carry, beginning with a dozen packets, and here that
/// would hold up the first 600 kB by 27 ms, for what paces it counts in milliseconds.
/// What is lost all the same makes it less, as anywhere.
const NEAR_BEGINNING: u64 = 256 << 10;

/// Bulk frames that a peer may have under way.
const BULK_STREAMS: u32 = 16;

/// Longest datagram, in bytes, that is tried on the loopback interface, where
/// most of the cost is by datagram. quinn gives the system ten at a time, which
/// takes no more than 64 KiB together, and drops all of them otherwise.
const LOOPBACK_DATAGRAM: u16 = 6 << 10;

/// How long after many losses longer datagrams are tried again there, where what
/// is lost was too much at once, and not too long.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(1);

/// Datagrams that the system keeps until they are taken, in bytes. Senders are
/// not held up by a socket, so what does not fit is lost, and sent again.
const SOCKET_BUFFER: usize = 4 << 20;

/// How long a closed connection may take to get its last bytes to the peer.
const LINGER: Duration = Duration::from_secs(2);

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This side.
    Client,
    /// The peer.
    Server,
}

/// A socket for an endpoint.
pub(crate) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // Systems that do not allow that much have less of it; it is slower then.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    Ok(socket)
}

/// How endpoints receive. With `reset`, the key of a server that was there before:
/// clients of that one learn at their next word that it has ended, and do not wait
/// for a silence.
pub(crate) fn endpoint_config(reset: Option<hmac::Key>) -> EndpointConfig {
    let mut config = match reset {
        Some(key) => EndpointConfig::new(Arc::new(key)),
        None => EndpointConfig::default(),
    };
    // It is within the bounds that quinn asks for.
    let _ = config.max_udp_payload_size(LOOPBACK_DATAGRAM);
    config
}

/// What `peer` may have under way, in bytes.
fn window(peer: SocketAddr) -> u32 {
    if peer.ip().is_loopback() {
        NEAR_WINDOW
    } else {
        WINDOW
    }
}

/// How a connection with `peer` behaves, which is over when nothing was heard of it
/// for as long as `silence`.
pub(crate) fn transport_config(
    side: Side,
    peer: SocketAddr,
    silence: Duration,
) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let (bidirectional, bulk, window) = match side {
        // The hub may send at once: the client has asked for it.
        Side::Client => (0, BULK_STREAMS, window(peer)),
        Side::Server => (1, 0, STRANGER_WINDOW),
    };
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(bulk))
        .receive_window(VarInt::from_u32(window))
        .stream_receive_window(VarInt::from_u32(self::window(peer)))
        .send_window(WINDOW.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(bounded(silence)).ok());
    if side == Side::Client {
        // So it is noticed, too, that the hub has ended without a word and is back.
        config.keep_alive_interval(Some(question(silence)));
    }
    if peer.ip().is_loopback() {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery
            .upper_bound(LOOPBACK_DATAGRAM)
            .black_hole_cooldown(BLACK_HOLE_COOLDOWN);
        config.mtu_discovery_config(Some(discovery));
        config.ack_frequency_config(Some(AckFrequencyConfig::default()));
        let mut congestion = CubicConfig::default();
        congestion.initial_window(NEAR_BEGINNING);
        config.congestion_controller_factory(Arc::new(congestion));
    }
    Arc::new(config)
}

/// Carries frames until the session or the peer ends the connection, or it breaks.
///
/// # Errors
///
/// [`CarrierError`] when it breaks.
///
/// # Cancel safety
///
/// Dropping it ends the connection at once; frames under way are lost.
pub(crate) async fn run(
    connection: Connection,
    side: Side,
    wire: Wire,
) -> Result<(), CarrierError> {
    let closer = Closer(connection.clone());
    let incoming = wire.incoming.clone();
    match carry(&connection, side, wire).await {
        Ok(Some(code)) => {
            closer.0.close(VarInt::from_u32(code.0.into()), b"");
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => ended(error, &incoming).await,
    }
}

/// Carries frames until both sides are done. With the code to end the connection
/// with, where there was a session.
async fn carry(
    connection: &Connection,
    side: Side,
    wire: Wire,
) -> Result<Option<Code>, CarrierError> {
    let Wire { outgoing, incoming } = wire;
    let (send, receive) = tokio::select! {
        streams = control_stream(connection, side) => streams?,
        () = incoming.closed() => return Ok(None),
    };
    let sending = send_all(connection, send, &outgoing);
    let receiving = receive_all(connection, receive, incoming);
    tokio::pin!(sending, receiving);
    let code = tokio::select! {
        end = &mut sending => {
            if end.is_err() {
                // The peer may have said why, before it stopped to read.
                let _ = tokio::time::timeout(LINGER, receiving).await;
            }
            end?
        }
        received = &mut receiving => {
            received?;
            // The peer says no more; this side may.
            sending.await?
        }
    };
    Ok(Some(code))
}

/// A peer that closes the connection is no error. It has said why; where that was
/// lost, the code with which it closed is the reason.
async fn ended(error: CarrierError, incoming: &Incoming) -> Result<(), CarrierError> {
    let close = match error {
        CarrierError::Quic(ConnectionError::ApplicationClosed(close)) => close,
        CarrierError::Quic(ConnectionError::LocallyClosed) => return Ok(()),
        error => return Err(error),
    };
    let code = u16::try_from(close.error_code.into_inner()).map(Code);
    // With that one ends, too, who has nothing to say.
    if let Ok(code) = code
        && code != Code::SHUTDOWN
    {
        let detail = "the connection was closed with this code, and its reason lost";
        // Who has heard the reason takes nothing more.
        let told = incoming.deliver(goodbye(code, detail));
        let _ = tokio::time::timeout(LINGER, told).await;
    }
    Ok(())
}

/// Closes the connection when it is dropped.
struct Closer(Connection);

impl Drop for Closer {
    fn drop(&mut self) {
        // Without effect if it is closed.
        let code = VarInt::from_u32(Code::SHUTDOWN.0.into());
        self.0.close(code, b"");
    }
}

async fn control_stream(
    connection: &Connection,
    side: Side,
) -> Result<(SendStream, RecvStream), ConnectionError> {
    match side {
        Side::Client => connection.open_bi().await,
        Side::Server => connection.accept_bi().await,
    }
}

/// Sends until there is nothing more to send and the peer has all control frames.
async fn send_all(
    connection: &Connection,
    mut control: SendStream,
    outgoing: &Outgoing,
) -> Result<Code, CarrierError> {
    let _ = control.set_priority(1);
    let controls = async {
        loop {
            match outgoing.next(Lanes::Control).await {
                Ok(frame) => {
                    let header = Bytes::copy_from_slice(&frame.header());
                    control
                        .write_all_chunks(&mut [header, frame.payload])
                        .await?;
                }
                Err(code) => break Ok::<_, CarrierError>(code),
            }
        }
    };
    let (code, ()) = tokio::try_join!(controls, send_bulk(connection, outgoing))?;
    let _ = control.finish();
    let _ = tokio::time::timeout(LINGER, control.stopped()).await;
    Ok(code)
}

async fn send_bulk(connection: &Connection, outgoing: &Outgoing) -> Result<(), CarrierError> {
    while let Ok(frame) = outgoing.next(Lanes::Bulk).await {
        let mut stream = connection.open_uni().await?;
        let header = Bytes::copy_from_slice(&frame.header());
        stream
            .write_all_chunks(&mut [header, frame.payload])
            .await?;
        let _ = stream.finish();
    }
    Ok(())
}

/// Receives until the peer finishes its control stream or nobody takes frames.
async fn receive_all(
    connection: &Connection,
    control: RecvStream,
    mut incoming: Incoming,
) -> Result<(), CarrierError> {
    let bulk = receive_bulk(connection, incoming.clone());
    let control = receive_stream(control, incoming.clone());
    tokio::pin!(control, bulk);
    let admitted = async {
        incoming.admitted().await;
        connection.set_receive_window(VarInt::from_u32(window(connection.remote_address())));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(BULK_STREAMS));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        received = &mut control => received,
        received = &mut bulk => match received {
            // What came before, such as why the connection was closed, is to be read.
            Err(CarrierError::Quic(_)) => control.await,
            received => received,
        },
        () = admitted => Ok(()),
    }
}

async fn receive_bulk(connection: &Connection, incoming: Incoming) -> Result<(), CarrierError> {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                streams.spawn(receive_stream(stream?, incoming.clone()));
            }
            Some(received) = streams.join_next() => match received {
                Ok(received) => received?,
                Err(_) => return Err(CarrierError::Streams("one could not be read")),
            },
        }
    }
}

/// Receives what is on one stream.
async fn receive_stream(mut stream: RecvStream, incoming: Incoming) -> Result<(), CarrierError> {
    let mut reader = FrameReader::new(incoming.frame_max());
    // Some chunks at once are fewer wake-ups; the window bounds them.
    while let Some(chunk) = stream.read_chunk(FRAME_MAX, true).await? {
        reader.push(&chunk.bytes);
        if !incoming.deliver_all(&mut reader).await {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use quinn::Endpoint;
    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

    use super::*;
    use crate::silence::SILENCE;
    use crate::tls::{Identity, Trust, client_config};

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn endpoint(server: Option<quinn::ServerConfig>) -> Endpoint {
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = socket(HERE).unwrap();
        Endpoint::new(endpoint_config(None), server, socket, runtime).unwrap()
    }

    /// What both ends of a new connection may have under way, where each takes the
    /// other for `peer`.
    async fn beginnings(peer: SocketAddr) -> [u64; 2] {
        let identity = Identity::passing().unwrap();
        let tls = QuicServerConfig::try_from(identity.server_config(&[ALPN]).unwrap()).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(transport_config(Side::Server, peer, SILENCE));
        let server = endpoint(Some(config));
        let trust = Trust::Pinned(identity.fingerprint());
        let (tls, _checked) = client_config(&trust, "localhost", &[ALPN]).unwrap();
        let tls = QuicClientConfig::try_from(Arc::new(tls)).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(transport_config(Side::Client, peer, SILENCE));
        let client = endpoint(None);
        let to = server.local_addr().unwrap();
        let connecting = client.connect_with(config, to, "localhost").unwrap();
        let came = async { server.accept().await.unwrap().await.unwrap() };
        let (there, here) = tokio::join!(connecting, came);
        [there.unwrap(), here].map(|connection| connection.stats().path.cwnd)
    }

    #[tokio::test]
    async fn only_a_connection_within_the_machine_begins_with_much() {
        assert!(beginnings(HERE).await.iter().all(|b| *b >= NEAR_BEGINNING));
        let far = (Ipv4Addr::new(192, 0, 2, 1), 0).into();
        assert!(beginnings(far).await.iter().all(|b| *b < 32 << 10));
    }
}
