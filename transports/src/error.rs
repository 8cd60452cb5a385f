//! What goes wrong between two machines.

use std::io;

use cairn_protocol::wire::{Code, WireError};

use crate::tls::TlsError;

/// A connection ended, and not because one of its sides wanted it to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The stream of bytes broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The peer's bytes are no frames.
    #[error("the peer does not speak the protocol")]
    Wire(#[from] WireError),
    /// The peer does not keep to WebSocket.
    #[error("the peer breaks the WebSocket protocol: {0}")]
    WebSocket(&'static str),
    /// The QUIC connection broke.
    #[error("the QUIC connection broke")]
    Quic(#[from] quinn::ConnectionError),
    /// The peer does not keep to the way that streams are used.
    #[error("the peer misuses QUIC streams: {0}")]
    Streams(&'static str),
}

impl CarrierError {
    /// What the peer is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Wire(error) => error.code(),
            Self::WebSocket(_) | Self::Streams(_) => Code::MALFORMED,
            Self::Io(_) | Self::Quic(_) => Code::INTERNAL,
        }
    }
}

impl From<quinn::ReadError> for CarrierError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(lost) => Self::Quic(lost),
            error => Self::Io(error.into()),
        }
    }
}

impl From<quinn::WriteError> for CarrierError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(lost) => Self::Quic(lost),
            error => Self::Io(error.into()),
        }
    }
}

/// There is no connection to a hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host's name leads nowhere.
    #[error("cannot find the host {host}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers, or nobody listens.
    #[error("cannot reach {address}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("{address} does not answer")]
    Timeout {
        /// Where.
        address: String,
    },
    /// The hub is to come by itself, and has not.
    #[error("no hub has come")]
    Nobody,
    /// Something else listens there.
    #[error("there is no Cairn hub at {address}: {why}")]
    NotAHub {
        /// Where.
        address: String,
        /// What it answered.
        why: String,
    },
    /// The hub is not who it should be, or does not say so right.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection broke before anything was said.
    #[error("the connection to {address} broke")]
    Broken {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: CarrierError,
    },
}

impl ConnectError {
    /// Whether it may be otherwise in a while without anybody doing something.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }
}
