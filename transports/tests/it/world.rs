//! A server with its workspaces, and clients of it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::Token;
use cairn_transports::tls::{Fingerprint, Identity, KnownHubs, Trust};
use cairn_transports::{
    Access, Address, Client, ClientOptions, Hub, Server, Upstream, WorkspaceName, Workspaces,
};
use parking_lot::Mutex;

use super::shelf::{OfHub, OfShelf, ShelfHub, ShelfReplica};

/// What carries the frames of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Quic,
    Ws,
    Wss,
    Memory,
}

pub(crate) const ALL: [Carrier; 4] = [Carrier::Quic, Carrier::Ws, Carrier::Wss, Carrier::Memory];

/// Those with sockets.
pub(crate) const REMOTE: [Carrier; 3] = [Carrier::Quic, Carrier::Ws, Carrier::Wss];

impl Carrier {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Ws => "ws",
            Self::Wss | Self::Memory => "wss",
        }
    }
}

pub(crate) struct Shelves(HashMap<[u8; 16], Arc<ShelfHub>>);

impl Workspaces for Shelves {
    fn find(&self, id: [u8; 16]) -> Option<Arc<dyn Hub>> {
        let hub = Arc::clone(self.0.get(&id)?);
        Some(Arc::new(OfHub(hub)))
    }

    fn all(&self) -> Vec<Arc<dyn Hub>> {
        let hub = |hub: &Arc<ShelfHub>| Arc::new(OfHub(Arc::clone(hub))) as Arc<dyn Hub>;
        self.0.values().map(hub).collect()
    }
}

pub(crate) fn token(text: &str) -> Token {
    Token::new(text.as_bytes()).unwrap()
}

/// A hub with the workspaces `w` (tokens `reads` and `writes`) and `open`.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) hub: Arc<ShelfHub>,
    pub(crate) open: Arc<ShelfHub>,
    pub(crate) server: Option<Server>,
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: Fingerprint,
}

impl World {
    pub(crate) async fn new() -> Self {
        let access = Access {
            read_only: Some(token("reads")),
            read_write: Some(token("writes")),
        };
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            hub: ShelfHub::new("w", access),
            open: ShelfHub::new("open", Access::default()),
            server: None,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            fingerprint: Fingerprint::of(b""),
        };
        world.start().await;
        world
    }

    pub(crate) fn workspaces(&self) -> Arc<Shelves> {
        let id = |name: &str| name.parse::<WorkspaceName>().unwrap().id();
        let hubs = [&self.hub, &self.open].map(|hub| (id(&hub.name), Arc::clone(hub)));
        Arc::new(Shelves(hubs.into()))
    }

    /// Those of them that need a token.
    pub(crate) fn closed_workspaces(&self) -> Arc<Shelves> {
        let id = self.url(Carrier::Ws, "w").workspace().id();
        Arc::new(Shelves([(id, Arc::clone(&self.hub))].into()))
    }

    /// Starts the server, where it was if it was somewhere.
    pub(crate) async fn start(&mut self) {
        let identity = Identity::open_or_create(self.folder.path()).unwrap();
        self.fingerprint = identity.fingerprint();
        let server = Server::builder().listen(self.address).identity(identity);
        let server = server.start(self.workspaces()).await.unwrap();
        self.address = server.address();
        self.server = Some(server);
    }

    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    pub(crate) fn url(&self, carrier: Carrier, workspace: &str) -> Address {
        let url = format!("{}://{}/{workspace}", carrier.scheme(), self.address);
        url.parse().unwrap()
    }

    pub(crate) fn upstream(&self, carrier: Carrier, workspace: &str) -> Upstream {
        if carrier == Carrier::Memory {
            return Upstream::Here {
                hub: Arc::new(OfHub(Arc::clone(&self.hub))),
                replica: cairn_protocol::ReplicaTag(0xb),
            };
        }
        Upstream::At {
            address: self.url(carrier, workspace),
            trust: Trust::Pinned(self.fingerprint),
        }
    }

    /// A client of the workspace `w` that may write.
    pub(crate) fn client(&self, carrier: Carrier, replica: &Arc<ShelfReplica>) -> Client {
        self.client_with(carrier, replica, "w", "writes")
    }

    pub(crate) fn client_with(
        &self,
        carrier: Carrier,
        replica: &Arc<ShelfReplica>,
        workspace: &str,
        secret: &str,
    ) -> Client {
        let options = ClientOptions {
            token: token(secret),
            ..ClientOptions::default()
        };
        let replica = Arc::new(OfShelf(Arc::clone(replica)));
        Client::start(self.upstream(carrier, workspace), options, replica)
    }
}

/// Waits until something is so; a test that waits in vain fails.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}

/// Waits for something; a test that waits in vain fails.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(30), future).await;
    done.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Fingerprints in memory.
#[derive(Default)]
pub(crate) struct Known(pub(crate) Mutex<HashMap<String, Fingerprint>>);

impl KnownHubs for Known {
    fn known(&self, address: &str) -> Option<Fingerprint> {
        self.0.lock().get(address).copied()
    }

    fn remember(&self, address: &str, fingerprint: Fingerprint) -> io::Result<()> {
        self.0.lock().insert(address.to_owned(), fingerprint);
        Ok(())
    }
}
