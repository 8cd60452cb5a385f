//! Replicas as hubs, on one address.
//!
//! A hub's tree is beside the replica's working tree, which follows it like any
//! other replica, within this process. So what is edited here goes to everybody,
//! and `cairn ls` on a hub shows what the hub has.

use std::net::SocketAddr;
use std::sync::Arc;

use cairn_engine::{Hub as Store, Replica, Upstream};
use cairn_protocol::Seq;
use cairn_protocol::session::{HubAction, HubDone};
use cairn_transports::tls::{Fingerprint, Identity};
use cairn_transports::{Access, Client, ClientOptions, Server, ServerBuilder, Workspaces};
use tokio::runtime::Runtime;

use super::follow::{Attached, in_vain};
use super::{SyncError, runtime, tokens};

/// A workspace that is served.
#[derive(Clone, Debug)]
pub struct Hub {
    name: cairn_transports::WorkspaceName,
    replica: Replica,
    store: Store,
}

impl Hub {
    /// A replica as the hub of a workspace of this name.
    ///
    /// # Errors
    ///
    /// [`SyncError::Name`] for what cannot be the name of a workspace, and what
    /// the database says.
    pub fn new(name: &str, replica: &Replica) -> Result<Self, SyncError> {
        Ok(Self {
            name: name.parse().map_err(|_| SyncError::Name(name.into()))?,
            replica: replica.clone(),
            store: Store::open(replica)?,
        })
    }

    /// What it is called in addresses.
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// What its own ids have in them.
    #[cfg(feature = "exec")]
    pub(super) fn tag(&self) -> Result<cairn_protocol::ReplicaTag, SyncError> {
        Ok(self.store.tag()?)
    }

    /// What tells its workspace from others.
    #[cfg(feature = "exec")]
    pub(super) fn workspace(&self) -> Result<u64, SyncError> {
        let epoch = self.store.head()?.epoch;
        let (first, _) = epoch.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Ok(u64::from_be_bytes(*first))
    }

    /// Somebody waits for the working tree.
    pub(super) fn hurry(&self) {
        self.store.hurry();
    }

    /// The working tree as a client of its own hub.
    fn follow(&self) -> Result<Client, SyncError> {
        self.follow_with(Arc::new(self.replica.own_upstream()?))
    }

    /// The same, with this store of the working tree.
    pub(super) fn follow_with(&self, tree: Arc<Upstream>) -> Result<Client, SyncError> {
        let here = cairn_transports::Upstream::Here {
            hub: Arc::new(self.clone()),
            replica: self.store.tag()?,
        };
        let options = ClientOptions::default();
        Ok(Client::start(here, options, Arc::new(Attached(tree))))
    }
}

impl cairn_transports::Hub for Hub {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn access(&self) -> Access {
        // Nobody comes while it cannot be read who may.
        tokens::access(&self.replica).unwrap_or_else(|error| {
            tracing::error!(%error, "the tokens cannot be read");
            Access::nobody()
        })
    }

    fn session(&self) -> Arc<dyn cairn_protocol::session::Store<HubAction, HubDone>> {
        Arc::new(
            self.store
                .session(Arc::new(|_| Ok(cairn_engine::Access::Write))),
        )
    }

    fn head(&self) -> Seq {
        self.store.head().map_or(0, |cursor| cursor.seq)
    }
}

/// The workspaces of one server.
struct Hubs(Vec<Arc<Hub>>);

impl Workspaces for Hubs {
    fn find(&self, id: [u8; 16]) -> Option<Arc<dyn cairn_transports::Hub>> {
        let found = self.0.iter().find(|hub| hub.name.id() == id)?;
        Some(Arc::clone(found) as Arc<dyn cairn_transports::Hub>)
    }

    fn all(&self) -> Vec<Arc<dyn cairn_transports::Hub>> {
        let all = self.0.iter();
        all.map(|hub| Arc::clone(hub) as Arc<dyn cairn_transports::Hub>)
            .collect()
    }
}

/// What is to be served, and where.
#[derive(Debug, Default)]
pub struct ServeBuilder {
    server: ServerBuilder,
    hubs: Vec<Hub>,
}

impl ServeBuilder {
    /// Listens there, on UDP and TCP. Port 0 is any that is free on both. By
    /// default it is [`DEFAULT_PORT`](super::DEFAULT_PORT) of the loopback address.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.server = self.server.listen(address);
        self
    }

    /// Has a certificate: there is QUIC, and `wss://`.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.server = self.server.identity(identity);
        self
    }

    /// Starts on any address without certificate or tokens.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.server = self.server.insecure(insecure);
        self
    }

    /// Serves this workspace, too.
    #[must_use]
    pub fn hub(mut self, hub: Hub) -> Self {
        self.hubs.push(hub);
        self
    }

    /// Starts.
    ///
    /// # Errors
    ///
    /// [`SyncError`]; then nothing listens.
    pub fn start(self) -> Result<Serve, SyncError> {
        let mut names = std::collections::BTreeSet::new();
        if let Some(hub) = self.hubs.iter().find(|hub| !names.insert(&hub.name)) {
            return Err(SyncError::Twice(hub.name()));
        }
        let runtime = runtime().map_err(SyncError::Start)?;
        let hubs: Vec<Arc<Hub>> = self.hubs.into_iter().map(Arc::new).collect();
        let trees = {
            let _inside = runtime.enter();
            let trees = hubs.iter().map(|hub| hub.follow());
            trees.collect::<Result<Vec<Client>, SyncError>>()?
        };
        let workspaces = Arc::new(Hubs(hubs.clone()));
        let server = runtime.block_on(self.server.start(workspaces))?;
        Ok(Serve {
            server: Some(server),
            trees,
            hubs,
            runtime,
        })
    }
}

/// Hubs that are served until this is dropped. Clients are told that it ends.
#[derive(Debug)]
pub struct Serve {
    server: Option<Server>,
    trees: Vec<Client>,
    hubs: Vec<Arc<Hub>>,
    runtime: Runtime,
}

impl Serve {
    /// What is to be served.
    pub fn builder() -> ServeBuilder {
        ServeBuilder::default()
    }

    /// Where it listens, on UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        let server = self.server.as_ref();
        server.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), Server::address)
    }

    /// What clients know it by, if it has a certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.server.as_ref().and_then(Server::fingerprint)
    }

    /// The addresses of a workspace, the best first.
    pub fn urls(&self) -> Vec<String> {
        let (address, secure) = (self.address(), self.fingerprint().is_some());
        let hubs = self.hubs.iter();
        hubs.flat_map(|hub| {
            let schemes: &[&str] = if secure { &["quic", "wss"] } else { &["ws"] };
            let name = hub.name();
            schemes
                .iter()
                .map(move |scheme| format!("{scheme}://{address}/{name}"))
        })
        .collect()
    }

    /// Waits until what was edited in the working trees is with the hubs, and what
    /// the hubs have is in the working trees.
    ///
    /// # Errors
    ///
    /// Why that cannot be for one of them; it is tried for all.
    pub fn settle(&self) -> Result<(), SyncError> {
        let mut settled = Ok(());
        for (tree, hub) in self.trees.iter().zip(&self.hubs) {
            settled = settled.and(self.settle_one(tree, hub));
        }
        settled
    }

    fn settle_one(&self, tree: &Client, hub: &Hub) -> Result<(), SyncError> {
        // What is not sealed yet is edited, too.
        hub.replica.cursor()?;
        hub.hurry();
        let (address, handle) = (hub.name(), tree.handle());
        let fenced = self.runtime.block_on(async {
            tokio::select! {
                fenced = handle.fence() => Ok(fenced),
                why = in_vain(tree, &address) => Err(why),
            }
        });
        match fenced? {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(code)) => Err(SyncError::Refused { address, code }),
            Err(source) => Err(SyncError::Client { address, source }),
        }
    }

    /// Has the working tree of a replica that is served lose what its hub has lost, if
    /// that is most of it and so waits for somebody to say so. Replicas in memory are
    /// not told apart.
    pub fn proceed(&self, replica: &Replica) {
        for (tree, hub) in self.trees.iter().zip(&self.hubs) {
            if hub.replica.path() == replica.path() {
                tree.handle().proceed();
            }
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // What was edited here is pushed before the hub ends.
        let _ = self.settle();
        for tree in self.trees.drain(..) {
            self.runtime.block_on(tree.shutdown());
        }
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}
