//! The loop of a client: connect, drive a session, wait, and again.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::session::{ClientConfig, ClientSession, Event, HubSession, Offer};
use cairn_protocol::{FRAME_MAX, ReplicaTag};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::backoff::Backoff;
use super::connect::{Carry, Carrying, Connector, Speaks};
use super::options::{ClientOptions, Replica, Upstream};
use super::requests::Requests;
use super::{ClientError, ClientEvent, Refusal, State};
use crate::channel::{Arrivals, Channel};
use crate::driver::{Drive, Stop, drive, together};
use crate::error::{CarrierError, ConnectError};
use crate::link::{Inbox, Outbox, Wire, link};
use crate::server::{Hub, hub_config};
use crate::{memory, random};

/// Everything that a client's loop has.
pub(super) struct Run {
    pub(super) upstream: Upstream,
    pub(super) options: ClientOptions,
    pub(super) replica: Arc<dyn Replica>,
    pub(super) requests: Arc<Requests>,
    pub(super) events: broadcast::Sender<ClientEvent>,
    pub(super) state: watch::Sender<State>,
    pub(super) refusal: watch::Sender<Option<Refusal>>,
    pub(super) stop: watch::Receiver<Option<Stop>>,
}

impl Run {
    /// Runs until the client is over.
    pub(super) async fn run(mut self) {
        let why = Arc::new(self.until_over().await);
        self.requests.over(&why);
        self.set(State::Over { why });
    }

    async fn until_over(&mut self) -> ClientError {
        let connector = match Source::new(&self.upstream, self.options.silence) {
            Ok(connector) => connector,
            Err(error) => return ConnectError::from(error).into(),
        };
        let mut backoff = Backoff::default();
        loop {
            self.set(State::Connecting);
            let why = tokio::select! {
                () = told(&mut self.stop) => return ClientError::ShutDown,
                connected = connector.connect(self.options.patience) => match connected {
                    Ok(carried) => self.session(carried, &mut backoff).await,
                    Err(error) => error.into(),
                },
            };
            if self.stop.borrow().is_some() {
                return ClientError::ShutDown;
            }
            if why.is_final() || !self.options.retry {
                return why;
            }
            if matches!(connector, Source::Comes(_)) {
                // Who brings connections about waits between two of them.
                let why = Arc::new(why);
                self.requests.alone(&why);
                self.set(State::Waiting { why });
                continue;
            }
            let asked = match &why {
                ClientError::Ended(ended) => ended.retry_after,
                _ => None,
            };
            let wait = backoff.failed(asked, random::number());
            if !self.wait(Arc::new(why), wait).await {
                return ClientError::ShutDown;
            }
        }
    }

    /// Drives a session to its end.
    async fn session(&self, carried: Carried, backoff: &mut Backoff) -> ClientError {
        let config = match self.config().await {
            Ok(config) => config,
            Err(error) => return error,
        };
        let (outbox, inbox, carrying) = carried.into_link();
        let counters = Arc::default();
        let with = Drive {
            store: self.replica.store(),
            outbox,
            inbox,
            commands: self.requests.session(Arc::clone(&counters)),
            frame_max: FRAME_MAX,
            stop: self.stop.clone(),
            counters,
        };
        let session = ClientSession::new(Duration::ZERO, config);
        let driving = drive(session, with, |event| {
            if matches!(event, Event::Connected { .. }) {
                backoff.succeeded();
                self.requests.connected();
                self.set(State::Connected);
            }
            self.note_refusal(&event);
            self.requests.note_halt(&event);
            self.requests.answered(&event);
            let _ = self.events.send(ClientEvent::Session(event));
        });
        let (ended, carried) = together(driving, carrying).await;
        tracing::debug!(%ended, ?carried, "session over");
        ended.into()
    }

    /// Keeps why the hub takes no batch until it takes one.
    fn note_refusal(&self, event: &Event) {
        let refusal = match event {
            Event::NotPushed { code, detail, .. } => Some(Refusal {
                code: *code,
                detail: detail.clone(),
            }),
            Event::Pushed { .. } => None,
            _ => return,
        };
        self.refusal.send_replace(refusal);
    }

    /// What a session begins with, as the replica is now.
    async fn config(&self) -> Result<ClientConfig, ClientError> {
        let replica = Arc::clone(&self.replica);
        let beginning = tokio::task::spawn_blocking(move || replica.beginning()).await;
        let beginning = beginning.map_err(|_| ClientError::ShutDown)??;
        let options = &self.options;
        Ok(ClientConfig {
            workspace: self.upstream.workspace(),
            replica: beginning.replica,
            token: options.token.clone(),
            agent: options.agent.clone(),
            offer: Offer::OURS,
            start: beginning.start,
            last_batch: beginning.last_batch,
            last_batch_digest: beginning.last_batch_digest,
            hydrate: options.hydrate,
        })
    }

    /// Waits for the next attempt; `false` if there is to be none.
    async fn wait(&mut self, why: Arc<ClientError>, wait: Duration) -> bool {
        self.requests.alone(&why);
        self.set(State::Waiting { why });
        tokio::select! {
            () = told(&mut self.stop) => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn set(&self, state: State) {
        let _ = self.events.send(ClientEvent::State(state.clone()));
        self.state.send_replace(state);
    }
}

/// Waits until the client is to end.
async fn told(stop: &mut watch::Receiver<Option<Stop>>) {
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where connections come from.
enum Source {
    There(Box<Connector>),
    Here(Arc<dyn Hub>, ReplicaTag),
    Comes(Arc<Arrivals>),
}

/// A connection that was just made.
enum Carried {
    New(Carry),
    /// One that came, and what tells of a newer one.
    Came((Channel, oneshot::Sender<()>), watch::Receiver<u64>),
}

impl Carried {
    fn into_link(self) -> (Outbox, Inbox, Carrying) {
        match self {
            Self::New(carry) => {
                let (outbox, inbox, wire) = link(Arc::default());
                (outbox, inbox, carry(wire))
            }
            Self::Came((channel, over), mut newer) => {
                let (outbox, inbox, carried) = channel.into_link();
                let carrying = Box::pin(async move {
                    let _over = over;
                    tokio::select! {
                        carried = carried => carried,
                        _ = newer.changed() => Ok(()),
                    }
                });
                (outbox, inbox, carrying)
            }
        }
    }
}

impl Source {
    fn new(upstream: &Upstream, silence: Duration) -> Result<Self, crate::tls::TlsError> {
        Ok(match upstream {
            Upstream::At { address, trust } => {
                let (address, trust) = (address.clone(), trust.clone());
                let connector = Connector::new(address, trust, Speaks::Sync, silence)?;
                Self::There(Box::new(connector))
            }
            Upstream::Here { hub, replica } => Self::Here(Arc::clone(hub), *replica),
            Upstream::Comes(arrivals) => Self::Comes(Arc::clone(arrivals)),
        })
    }

    async fn connect(&self, patience: Duration) -> Result<Carried, ConnectError> {
        match self {
            Self::There(connector) => connector.connect().await.map(Carried::New),
            Self::Here(hub, tag) => {
                let (hub, tag) = (Arc::clone(hub), *tag);
                let carry = move |wire| -> Carrying { Box::pin(here(hub, tag, wire)) };
                Ok(Carried::New(Box::new(carry)))
            }
            Self::Comes(arrivals) => {
                let arrived = tokio::time::timeout(patience, arrivals.next()).await;
                let (channel, newer) = arrived.map_err(|_| ConnectError::Nobody)?;
                Ok(Carried::Came(channel, newer))
            }
        }
    }
}

/// Carries frames to a session of a hub in this process.
async fn here(hub: Arc<dyn Hub>, tag: ReplicaTag, client: Wire) -> Result<(), CarrierError> {
    let (outbox, inbox, wire) = link(Arc::default());
    let (_never, stop) = watch::channel(None);
    let with = Drive {
        store: hub.session(),
        outbox,
        inbox,
        commands: mpsc::unbounded_channel().1,
        frame_max: FRAME_MAX,
        stop,
        counters: Arc::default(),
    };
    let session = HubSession::new(Duration::ZERO, hub_config(tag));
    let driving = drive(session, with, |_| {});
    together(driving, memory::run(client, wire)).await.1
}
