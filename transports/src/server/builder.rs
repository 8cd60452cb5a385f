//! What is refused before anything listens, and the sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::accept::{Shared, accept_quic, accept_tcp};
use super::guests::Guests;
use super::registry::Registry;
use super::workspaces::Workspaces;
use super::{STRANGERS, Server};
use crate::address::DEFAULT_PORT;
use crate::quic;
use crate::silence::SILENCE;
use crate::tls::{Identity, TlsError};

/// How often a port is tried that is taken.
const BIND_TRIES: usize = 20;

/// How long to wait before it is tried again.
const BIND_WAIT: Duration = Duration::from_millis(50);

/// Connections whose first packet waits to be looked at, and its bytes.
const INCOMING_BYTES: u64 = 1 << 20;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Others could listen, or be the hub.
    #[error(
        "{address} is not a loopback address, and there is no certificate: others could read \
         everything; give or make one, or insist on an insecure server"
    )]
    NoCertificate {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Everybody could come.
    #[error(
        "{address} is not a loopback address, and the workspace {workspace} has no token: \
         everybody could change it; set one, or insist on an insecure server"
    )]
    NoToken {
        /// Where it was to listen.
        address: SocketAddr,
        /// The workspace.
        workspace: String,
    },
    /// The address is taken, or not one of this machine.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a server is to be.
pub struct ServerBuilder {
    address: SocketAddr,
    identity: Option<Identity>,
    insecure: bool,
    silence: Duration,
    guests: Option<Arc<dyn Guests>>,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("address", &self.address)
            .field("identity", &self.identity)
            .field("insecure", &self.insecure)
            .field("silence", &self.silence)
            .finish_non_exhaustive()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            identity: None,
            insecure: false,
            silence: SILENCE,
            guests: None,
        }
    }
}

impl ServerBuilder {
    /// Listens there, on UDP and TCP. Port 0 is any that is free on both. By
    /// default it is [`DEFAULT_PORT`] of the loopback address.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Has a certificate: there is QUIC, and `wss://`. By default there is only
    /// `ws://`.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Starts on any address without certificate or tokens, and takes `ws://`
    /// there. By default these are needed but on a loopback address.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// How long a client may be silent before its connection is given up. By default
    /// [`SILENCE`].
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Serves these on the same address.
    #[must_use]
    pub fn guests(mut self, guests: Arc<dyn Guests>) -> Self {
        self.guests = Some(guests);
        self
    }

    /// Starts the server, in the runtime of the caller.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it is done leaves nothing behind.
    pub async fn start(self, workspaces: Arc<dyn Workspaces>) -> Result<Server, ServeError> {
        self.check(&*workspaces)?;
        let near = self.address.ip().is_loopback();
        let tls = self.identity.as_ref();
        let tls = tls.map(|identity| identity.server_config(&[b"http/1.1"]));
        let registry = Arc::new(Registry::new(workspaces));
        let shared = Arc::new(Shared {
            registry: Arc::clone(&registry),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            tls: tls.transpose()?.map(TlsAcceptor::from),
            plain: near || self.insecure,
            silence: self.silence,
            guests: self.guests.clone(),
        });
        let (tcp, udp, address) = self.bind().await?;
        let mut listeners = vec![tokio::spawn(accept_tcp(tcp, Arc::clone(&shared)))];
        let mut endpoint = None;
        if let Some(identity) = &self.identity {
            let opened = open(udp, identity, address, self.silence)?;
            let near = Arc::new(quic_config(
                identity,
                Ipv4Addr::LOCALHOST.into(),
                self.silence,
            )?);
            listeners.push(tokio::spawn(accept_quic(opened.clone(), near, shared)));
            endpoint = Some(opened);
        }
        Ok(Server {
            address,
            fingerprint: self.identity.as_ref().map(Identity::fingerprint),
            registry,
            listeners,
            endpoint,
        })
    }

    fn check(&self, workspaces: &dyn Workspaces) -> Result<(), ServeError> {
        let address = self.address;
        if self.insecure || address.ip().is_loopback() {
            return Ok(());
        }
        if self.identity.is_none() {
            return Err(ServeError::NoCertificate { address });
        }
        let hubs = workspaces.all();
        let open = hubs.iter().find(|hub| hub.access().is_open());
        let open = open.map(|hub| hub.name());
        let guests = self.guests.as_ref();
        let open = open.or_else(|| guests.and_then(|guests| guests.open_to_all()));
        match open {
            Some(workspace) => Err(ServeError::NoToken { address, workspace }),
            None => Ok(()),
        }
    }

    /// Sockets of both kinds with one port. A server that has just ended may not
    /// have let go of it, and a port that is free on one may be taken on the other.
    async fn bind(&self) -> Result<(TcpListener, UdpSocket, SocketAddr), ServeError> {
        let mut tries = BIND_TRIES;
        loop {
            tries -= 1;
            match self.try_bind().await {
                Err(error) if tries == 0 || error.kind() != io::ErrorKind::AddrInUse => {
                    let address = self.address;
                    return Err(ServeError::Listen {
                        address,
                        source: error,
                    });
                }
                Err(_) => tokio::time::sleep(BIND_WAIT).await,
                Ok(bound) => return Ok(bound),
            }
        }
    }

    async fn try_bind(&self) -> io::Result<(TcpListener, UdpSocket, SocketAddr)> {
        let tcp = TcpListener::bind(self.address).await?;
        let bound = tcp.local_addr()?;
        let udp = quic::socket(bound)?;
        Ok((tcp, udp, bound))
    }
}

fn open(
    socket: UdpSocket,
    identity: &Identity,
    address: SocketAddr,
    silence: Duration,
) -> Result<quinn::Endpoint, ServeError> {
    // Peers that are not on this machine; for others there is another.
    let far = quic_config(identity, Ipv4Addr::UNSPECIFIED.into(), silence)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let config = quic::endpoint_config(Some(identity.reset_key()));
    quinn::Endpoint::new(config, Some(far), socket, runtime)
        .map_err(|source| ServeError::Listen { address, source })
}

fn quic_config(
    identity: &Identity,
    peer: std::net::IpAddr,
    silence: Duration,
) -> Result<quinn::ServerConfig, TlsError> {
    let tls = identity.server_config(&[quic::ALPN, quic::EXEC_ALPN])?;
    let tls =
        QuicServerConfig::try_from(tls).map_err(|error| TlsError::Setup(error.to_string()))?;
    let transport = quic::transport_config(quic::Side::Server, (peer, 0).into(), silence);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport)
        .max_incoming(STRANGERS)
        .incoming_buffer_size_total(INCOMING_BYTES);
    Ok(config)
}
