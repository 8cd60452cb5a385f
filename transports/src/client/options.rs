//! What a client is and wants.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::ReplicaTag;
use cairn_protocol::wire::{Hydrate, Token};

use crate::address::Address;
use crate::server::Hub;
use crate::tls::Trust;

/// Where the hub is.
#[derive(Clone)]
pub enum Upstream {
    /// Somewhere else, or in another process.
    At {
        /// Where.
        address: Address,
        /// Which hub there is the right one; `ws://` does not ask.
        trust: Trust,
    },
    /// In this process: the hub of which the replica is the working tree.
    Here(Arc<dyn Hub>),
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { address, .. } => write!(f, "At({address})"),
            Self::Here(hub) => write!(f, "Here({})", hub.name()),
        }
    }
}

/// What a client is and wants.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The replica.
    pub replica: ReplicaTag,
    /// What allows it to be there. By default it is empty.
    pub token: Token,
    /// Which chunks come by themselves. By default all.
    pub hydrate: Hydrate,
    /// The program and its version, for the hub's logs.
    pub agent: String,
    /// How long requests wait for a connection before they fail. By default 30 s.
    pub patience: Duration,
    /// Whether to try again when there is no connection, or it breaks. By default
    /// so; otherwise the client is over then.
    pub retry: bool,
}

impl ClientOptions {
    /// The defaults, for this replica.
    pub fn new(replica: ReplicaTag) -> Self {
        Self {
            replica,
            token: Token::default(),
            hydrate: Hydrate::Full,
            agent: concat!("cairn/", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: Duration::from_secs(30),
            retry: true,
        }
    }
}
