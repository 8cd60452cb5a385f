//! What a client is and wants.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::ReplicaTag;
use cairn_protocol::session::{ClientAction, ClientDone, Store, StoreFailure};
use cairn_protocol::wire::{Hydrate, Start, Token};

use crate::address::Address;
use crate::channel::Arrivals;
use crate::server::Hub;
use crate::tls::Trust;
use crate::{AGENT, SILENCE};

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
    Here {
        /// The hub.
        hub: Arc<dyn Hub>,
        /// Its own tag.
        replica: ReplicaTag,
    },
    /// Somewhere from where it comes to the replica.
    Comes(Arc<Arrivals>),
}

impl Upstream {
    /// The workspace's id; one that was not asked for by name has none and needs
    /// none.
    pub(super) fn workspace(&self) -> [u8; 16] {
        match self {
            Self::At { address, .. } => address.workspace().id(),
            Self::Here { .. } | Self::Comes(_) => [0; 16],
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { address, .. } => write!(f, "At({address})"),
            Self::Here { hub, .. } => write!(f, "Here({})", hub.name()),
            Self::Comes(_) => f.write_str("Comes"),
        }
    }
}

/// What a session begins with: what the replica's store has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The replica.
    pub replica: ReplicaTag,
    /// What it has of the hub's tree.
    pub start: Start,
    /// The last batch that it numbered, answered or not; 0 for none.
    pub last_batch: u64,
    /// The digest of that batch, if it has made it.
    pub last_batch_digest: Option<[u8; 32]>,
}

/// A replica that follows a hub.
pub trait Replica: Send + Sync {
    /// What a session that starts now begins with. It may block.
    ///
    /// # Errors
    ///
    /// [`StoreFailure`]: it is tried again later.
    fn beginning(&self) -> Result<Beginning, StoreFailure>;

    /// The store of its sessions.
    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>>;
}

/// What a client is and wants.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What allows it to be there. By default it is empty.
    pub token: Token,
    /// Which chunks come by themselves. By default all.
    pub hydrate: Hydrate,
    /// The program and its version, for the hub's logs.
    pub agent: String,
    /// How long requests wait for a connection before they fail. By default 30 s.
    pub patience: Duration,
    /// How long the hub may be silent before the connection is given up. By default
    /// [`SILENCE`].
    pub silence: Duration,
    /// Whether to try again when there is no connection, or it breaks. By default
    /// so; otherwise the client is over then.
    pub retry: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            token: Token::default(),
            hydrate: Hydrate::Full,
            agent: AGENT.to_owned(),
            patience: Duration::from_secs(30),
            silence: SILENCE,
            retry: true,
        }
    }
}
