//! A connection to the hub, and why there is none.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::{Address, Scheme};
use crate::error::{CarrierError, ConnectError};
use crate::link::Wire;
use crate::tls::{Checked, TlsError, Trust, client_config};
use crate::{quic, silence, websocket};

/// How long a connection may take to come about.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Sync, with the hub that was dialled.
    Sync,
    /// What a host and a daemon speak.
    Exec,
}

/// What carries frames, once it is given a wire.
pub(crate) type Carry = Box<dyn FnOnce(Wire) -> Carrying + Send>;

/// What carries frames.
pub(crate) type Carrying = Pin<Box<dyn Future<Output = Result<(), CarrierError>> + Send>>;

/// Makes the connections of a client.
pub(crate) struct Connector {
    address: Address,
    trust: Trust,
    speaks: Speaks,
    /// How long the other end may be silent.
    silence: Duration,
    tls: Arc<rustls::ClientConfig>,
    checked: Checked,
}

impl Connector {
    pub(crate) fn new(
        address: Address,
        trust: Trust,
        speaks: Speaks,
        silence: Duration,
    ) -> Result<Self, TlsError> {
        let alpn: &[u8] = match (address.scheme(), speaks) {
            (Scheme::Quic, Speaks::Sync) => quic::ALPN,
            (Scheme::Quic, Speaks::Exec) => quic::EXEC_ALPN,
            (Scheme::Ws | Scheme::Wss, _) => b"http/1.1",
        };
        let (tls, checked) = client_config(&trust, &address.authority(), &[alpn])?;
        Ok(Self {
            address,
            trust,
            speaks,
            silence,
            tls: Arc::new(tls),
            checked,
        })
    }

    /// How long the other end may be silent from the next connection on.
    pub(crate) fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// A connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives the connection up.
    pub(crate) async fn connect(&self) -> Result<Carry, ConnectError> {
        let connected = tokio::time::timeout(TIMEOUT, self.try_all()).await;
        connected.unwrap_or_else(|_| {
            Err(ConnectError::Timeout {
                address: self.address.to_string(),
            })
        })
    }

    /// Tries the addresses of the host in their order.
    async fn try_all(&self) -> Result<Carry, ConnectError> {
        let target = (self.address.host(), self.address.port());
        let resolve = |source| ConnectError::Resolve {
            host: self.address.host().to_owned(),
            source,
        };
        let found = tokio::net::lookup_host(target).await.map_err(resolve)?;
        let nothing = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let mut failure = resolve(nothing);
        for address in found {
            let connected = match self.address.scheme() {
                Scheme::Quic => self.quic(address).await,
                Scheme::Ws | Scheme::Wss => self.websocket(address).await,
            };
            match connected {
                Err(error) if error.is_transient() => failure = error,
                done => return done,
            }
        }
        Err(failure)
    }

    fn refused(&self, source: io::Error) -> ConnectError {
        ConnectError::Refused {
            address: self.address.to_string(),
            source,
        }
    }

    fn server_name(&self) -> Result<ServerName<'static>, ConnectError> {
        let name = ServerName::try_from(self.address.host().to_owned());
        name.map_err(|error| {
            self.checked
                .failed(&self.address.authority(), &error)
                .into()
        })
    }

    async fn quic(&self, peer: SocketAddr) -> Result<Carry, ConnectError> {
        let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
        let tls = QuicClientConfig::try_from(Arc::clone(&self.tls)).map_err(|e| setup(&e))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let silence = self.silence;
        config.transport_config(quic::transport_config(quic::Side::Client, peer, silence));
        let endpoint = endpoint(peer).map_err(|source| self.refused(source))?;
        let connection = endpoint
            .connect_with(config, peer, self.address.host())
            .map_err(|error| setup(&error))?
            .await
            .map_err(|error| self.no_quic(error))?;
        self.remember()?;
        Ok(Box::new(move |wire| {
            Box::pin(async move {
                let carried = quic::run(connection, quic::Side::Client, wire).await;
                // The last packet tells the hub that this is the end.
                let _ = tokio::time::timeout(TIMEOUT, endpoint.wait_idle()).await;
                carried
            })
        }))
    }

    fn no_quic(&self, error: ConnectionError) -> ConnectError {
        match error {
            // Codes of TLS alerts, by RFC 9001.
            ConnectionError::TransportError(error)
                if (0x100..0x200).contains(&u64::from(error.code)) =>
            {
                let address = self.address.authority();
                self.checked.failed(&address, &error.reason).into()
            }
            ConnectionError::TimedOut => ConnectError::Timeout {
                address: self.address.to_string(),
            },
            error => self.refused(error.into()),
        }
    }

    async fn websocket(&self, peer: SocketAddr) -> Result<Carry, ConnectError> {
        let stream = TcpStream::connect(peer).await;
        let stream = stream.map_err(|source| self.refused(source))?;
        let nodelay = stream.set_nodelay(true);
        nodelay.map_err(|source| self.refused(source))?;
        let watched = silence::watch(&stream, self.silence);
        watched.map_err(|source| self.refused(source))?;
        if self.address.scheme() == Scheme::Ws {
            return self.upgrade(stream).await;
        }
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let secure = connector.connect(self.server_name()?, stream).await;
        let secure = secure.map_err(|error| self.no_tls(error))?;
        self.remember()?;
        self.upgrade(secure).await
    }

    /// Whether the connection broke, or the two sides did not come to terms.
    fn no_tls(&self, error: io::Error) -> ConnectError {
        match error.kind() {
            // So tokio-rustls gives errors of TLS.
            io::ErrorKind::InvalidData => {
                let address = self.address.authority();
                self.checked.failed(&address, &error).into()
            }
            _ => self.refused(error),
        }
    }

    async fn upgrade<S>(&self, stream: S) -> Result<Carry, ConnectError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = websocket::connect(stream, &self.address.authority(), self.path()).await;
        let upgraded = upgraded.map_err(|error| ConnectError::NotAHub {
            address: self.address.to_string(),
            why: error.to_string(),
        })?;
        Ok(Box::new(move |wire| {
            let stream = TokioIo::new(upgraded);
            Box::pin(websocket::run(stream, websocket::Side::Client, wire))
        }))
    }

    fn path(&self) -> &'static websocket::Path {
        match self.speaks {
            Speaks::Sync => &websocket::SYNC,
            Speaks::Exec => &websocket::EXEC,
        }
    }

    fn remember(&self) -> Result<(), TlsError> {
        let address = self.address.authority();
        self.checked.succeeded(&self.trust, &address)
    }
}

/// An endpoint from which `peer` can be reached.
fn endpoint(peer: SocketAddr) -> io::Result<quinn::Endpoint> {
    let any: SocketAddr = if peer.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = quic::socket(any)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quic::endpoint_config(None), None, socket, runtime)
}
