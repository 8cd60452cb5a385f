//! A replica in step with a hub.

use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{Replica, SyncStatus, Upstream as Store};
use cairn_protocol::Cursor;
use cairn_protocol::session::{ClientAction, ClientDone, Counters, StoreFailure, Wanted};
use cairn_protocol::wire::Code;
use cairn_transports::{
    Beginning, Client, ClientEvent, ClientHandle, ClientOptions, Refusal, State, Upstream as Where,
};
use tokio::runtime::Runtime;
use tokio::sync::broadcast::error::RecvError;

use super::{SyncError, Upstream, runtime};

/// How often who waits is told how far it is.
const TOLD: Duration = Duration::from_millis(100);
/// When to try again after the replica has failed.
const RETRY_MS: u32 = 5_000;
/// What somebody reads comes before what a transfer needs.
const URGENT: u8 = 0;
/// What is damaged here comes after that.
const MEND: u8 = 100;

/// Keeps a replica in step with a hub, from a thread of its own, until it is
/// dropped. Connections that break are made again.
#[derive(Debug)]
pub struct Follow {
    store: Arc<Store>,
    client: Option<Client>,
    address: String,
    replica: Replica,
    runtime: Runtime,
}

impl Follow {
    /// Begins to follow a hub.
    ///
    /// # Errors
    ///
    /// [`SyncError`]. That the hub does not answer is none: see [`Self::connected`].
    pub fn start(replica: &Replica, upstream: &Upstream) -> Result<Self, SyncError> {
        let options = ClientOptions {
            token: upstream.secret()?,
            hydrate: upstream.hydrate(),
            ..ClientOptions::default()
        };
        let place = Where::At {
            address: upstream.parsed()?,
            trust: upstream.trust(replica)?,
        };
        let store = Arc::new(replica.upstream()?);
        store.set_lazy(upstream.is_lazy())?;
        let runtime = runtime().map_err(SyncError::Start)?;
        let client = {
            let _inside = runtime.enter();
            Client::start(place, options, Arc::new(Attached(Arc::clone(&store))))
        };
        store.set_fetcher(Some(Arc::new(Fetch(client.handle()))));
        Ok(Self {
            store,
            client: Some(client),
            address: upstream.address().to_owned(),
            replica: replica.clone(),
            runtime,
        })
    }

    /// Where the hub is.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn client(&self) -> Result<&Client, SyncError> {
        self.client.as_ref().ok_or(SyncError::NoUpstream)
    }

    /// What it is doing.
    pub fn state(&self) -> Option<State> {
        self.client.as_ref().map(Client::state)
    }

    /// Why the hub did not take what was pushed last, if it did not.
    pub fn refusal(&self) -> Option<Refusal> {
        self.client.as_ref().and_then(Client::refusal)
    }

    /// How far the replica is.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn status(&self) -> Result<SyncStatus, SyncError> {
        Ok(self.store.status()?)
    }

    /// The rules of what is neither pushed nor shown.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn ignore_rules(&self) -> Result<Vec<String>, SyncError> {
        Ok(self.store.ignore_rules()?)
    }

    /// Sets these rules, in the manner of `.gitignore`. What none ignores any more
    /// is shown and pushed; nothing is lost by a rule that comes or goes.
    ///
    /// # Errors
    ///
    /// For a rule that is none, and what the database says.
    pub fn set_ignore_rules(&self, rules: &[String]) -> Result<(), SyncError> {
        Ok(self.store.set_ignore_rules(rules)?)
    }

    /// Gives up the bytes of contents that the hub holds, too; who reads them
    /// fetches them again. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// What the database or the disk says.
    pub fn evict(&self) -> Result<u64, SyncError> {
        Ok(self.store.evict()?)
    }

    /// What was sent and received so far.
    pub fn counters(&self) -> Counters {
        self.client
            .as_ref()
            .map_or_else(Counters::default, Client::counters)
    }

    /// Waits until the hub has let us in.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub fn connected(&self) -> Result<(), SyncError> {
        let client = self.client()?;
        self.runtime
            .block_on(client.connected())
            .map_err(|source| self.failed(source))
    }

    /// Waits until the hub has let us in, or the first try to get in has failed.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub fn connected_once(&self) -> Result<(), SyncError> {
        let client = self.client()?;
        self.runtime
            .block_on(client.first_try())
            .map_err(|source| self.failed(source))
    }

    /// Waits until everything that was edited before is pushed, and what the hub
    /// has is here.
    ///
    /// # Errors
    ///
    /// Why that cannot be.
    pub fn fence(&self) -> Result<Cursor, SyncError> {
        self.fence_with(&mut |_| true)
    }

    /// The same, and tells ten times a second how far it is. Ends early when it is
    /// answered `false`.
    ///
    /// # Errors
    ///
    /// As [`Self::fence`].
    pub fn fence_with(&self, told: &mut dyn FnMut(&Counters) -> bool) -> Result<Cursor, SyncError> {
        let client = self.client()?;
        let handle = client.handle();
        // What is not sealed yet is edited, too.
        self.replica.cursor()?;
        let cursor = self.runtime.block_on(async {
            let (fence, in_vain) = (handle.fence(), in_vain(client, &self.address));
            tokio::pin!(fence, in_vain);
            let mut tick = tokio::time::interval(TOLD);
            loop {
                tokio::select! {
                    fenced = &mut fence => {
                        return match fenced {
                            Ok(Ok(cursor)) => Ok(cursor),
                            Ok(Err(code)) => Err(self.refused(code)),
                            Err(source) => Err(self.failed(source)),
                        };
                    }
                    why = &mut in_vain => return Err(why),
                    _ = tick.tick() => {
                        if !told(&client.counters()) {
                            return Err(self.refused(Code::SHUTDOWN));
                        }
                    }
                }
            }
        })?;
        self.mend()?;
        Ok(cursor)
    }

    /// Gets what was found to be damaged here, and the hub has. What it does not
    /// have either stays damaged; a check names it.
    ///
    /// # Errors
    ///
    /// What the database says, and why the hub could not be asked.
    pub fn mend(&self) -> Result<(), SyncError> {
        let lost = self.store.lost()?;
        if lost.is_empty() {
            return Ok(());
        }
        let handle = self.client()?.handle();
        let missing = handle.fetch_blocking(lost, MEND);
        let missing = missing.map_err(|source| self.failed(source))?;
        if let Some((hash, code)) = missing.first() {
            tracing::warn!(%hash, %code, "the hub does not have what is damaged here");
        }
        Ok(())
    }

    /// Waits for what happens next, until `patience` is over.
    pub fn next_event(&self, events: &mut Events, patience: Duration) -> Option<ClientEvent> {
        self.runtime.block_on(async {
            let next = async {
                loop {
                    match events.0.recv().await {
                        Ok(event) => return Some(event),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return None,
                    }
                }
            };
            tokio::time::timeout(patience, next).await.ok().flatten()
        })
    }

    /// What happens from now on.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn events(&self) -> Result<Events, SyncError> {
        Ok(Events(self.client()?.events()))
    }

    /// Applies what was halted, since it removes most of the tree.
    pub fn proceed(&self) {
        if let Some(client) = &self.client {
            client.handle().proceed();
        }
    }

    fn failed(&self, source: Arc<cairn_transports::ClientError>) -> SyncError {
        SyncError::Client {
            address: self.address.clone(),
            source,
        }
    }

    fn refused(&self, code: Code) -> SyncError {
        SyncError::Refused {
            address: self.address.clone(),
            code,
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.store.set_fetcher(None);
        if let Some(client) = self.client.take() {
            self.runtime.block_on(client.shutdown());
        }
    }
}

/// What ends a wait for a fence: the hub does not want us, or wants to remove too
/// much, or the store of one of the two fails.
pub(super) async fn in_vain(client: &Client, address: &str) -> SyncError {
    let (mut events, handle) = (client.events(), client.handle());
    let address = address.to_owned();
    let over = async {
        loop {
            match events.recv().await {
                Ok(ClientEvent::State(State::Over { why })) => return why,
                // It is tried again, but helps only when somebody has looked after a store.
                Ok(ClientEvent::State(State::Waiting { why }))
                    if why.code().is_some_and(|code| STORES.contains(&code)) =>
                {
                    return why;
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                // The fence fails then.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        halt = handle.halted() => SyncError::Halted {
            address,
            removed: halt.removed,
            of: halt.of,
        },
        source = over => SyncError::Client { address, source },
    }
}

/// Codes of a store that is full or damaged.
const STORES: [Code; 4] = [
    Code::QUOTA,
    Code::INTERNAL,
    Code::CHUNK_MISSING,
    Code::CHUNK_CORRUPT,
];

/// What happens to a [`Follow`].
#[derive(Debug)]
pub struct Events(tokio::sync::broadcast::Receiver<ClientEvent>);

/// Gets the contents of a lazy replica when they are read.
#[derive(Debug)]
struct Fetch(ClientHandle);

impl cairn_engine::Fetcher for Fetch {
    fn fetch(&self, wanted: &[Wanted]) -> Result<(), String> {
        match self.0.fetch_blocking(wanted.to_vec(), URGENT) {
            Ok(missing) => missing.first().map_or(Ok(()), |(hash, code)| {
                Err(format!("the hub does not give chunk {hash}: {code}"))
            }),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The engine's end, as a client wants it.
pub(crate) struct Attached(pub(crate) Arc<Store>);

impl cairn_transports::Replica for Attached {
    fn beginning(&self) -> Result<Beginning, StoreFailure> {
        self.0.begin_session();
        let begin = || {
            let (start, last_batch, last_batch_digest) = self.0.start()?;
            Ok::<_, cairn_engine::FsError>(Beginning {
                replica: self.0.tag(),
                start,
                last_batch,
                last_batch_digest,
            })
        };
        begin().map_err(|error| StoreFailure {
            code: Code::INTERNAL,
            detail: error.to_string(),
            retry_after_ms: RETRY_MS,
        })
    }

    fn store(&self) -> Arc<dyn cairn_protocol::session::Store<ClientAction, ClientDone>> {
        Arc::clone(&self.0) as Arc<_>
    }
}
