//! The host's connections to one daemon: one for calls, which is made when it is
//! needed, and one for sync, which is always there.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::{Text, Token};
use cairn_transports::{Channel, ConnectError, Dialler};
use parking_lot::Mutex as Quick;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinHandle;

use super::caller::Caller;
use super::fault::{Code, Fault};
use super::greeting::{Card, Greeting, Purpose, Role, greet};
use super::lobby::Lobby;
use crate::sync::OwnHub;

/// The first wait between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why there is no connection to a daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody is there, or not who it should be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The daemon does not want us.
    #[error("the daemon {address} refuses it: {why}{}", hint(*code))]
    Refused {
        /// The daemon.
        address: String,
        /// Its code, as in `SPEC.md`.
        code: u16,
        /// Its words.
        why: String,
    },
    /// The daemon is to dial, and has not.
    #[error("no daemon has come to {address}; start one with `cairn daemon --dial URL`")]
    Nobody {
        /// Where the host listens.
        address: String,
    },
    /// The connections were closed.
    #[error("the connection to the daemon is closed")]
    Closed,
}

impl LinkError {
    /// Whether it may be otherwise in a moment.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Refused { code, .. } => Code(*code) == Code::SILENT,
            _ => false,
        }
    }
}

/// What to do about it.
fn hint(code: u16) -> &'static str {
    match Code(code) {
        Code::AUTH => " (give the sandbox the token that the daemon was started with)",
        Code::WORKSPACE => " (a daemon has one workspace: start another daemon for this one)",
        _ => "",
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The host dials.
    Dial {
        dialler: Dialler,
        address: String,
        token: Token,
    },
    /// The daemon does.
    Listen(Arc<Lobby>),
}

impl Source {
    /// Waits until a daemon has come that takes the place of the one before.
    async fn newer(&self, purpose: Purpose) {
        match self {
            Self::Dial { .. } => std::future::pending().await,
            Self::Listen(lobby) => lobby.newer(purpose).await,
        }
    }

    fn has_newer(&self, purpose: Purpose) -> bool {
        match self {
            Self::Dial { .. } => false,
            Self::Listen(lobby) => lobby.has_newer(purpose),
        }
    }

    async fn channel(
        &self,
        purpose: Purpose,
        workspace: u64,
        patience: Duration,
    ) -> Result<(Channel, Card), LinkError> {
        let (dialler, address, token) = match self {
            Self::Dial {
                dialler,
                address,
                token,
            } => (dialler, address, token),
            Self::Listen(lobby) => return lobby.take(purpose, patience).await,
        };
        let mut channel = dialler.dial().await?;
        let card = Card {
            workspace,
            agent: Text::cut(AGENT),
            ..Card::default()
        };
        let greeting = Greeting::new(Role::Host, purpose, token.clone(), card);
        let refused = |fault: Fault| LinkError::Refused {
            address: address.clone(),
            code: fault.code.0,
            why: fault.detail.to_string(),
        };
        let card = greet(&mut channel, &greeting).await.map_err(refused)?;
        Ok((channel, card))
    }
}

/// What this program calls itself.
pub(super) const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));

/// The connections to a daemon. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    /// Until it is closed: who holds an exec does not hold the replica.
    ends: Quick<Option<Ends>>,
    patience: Duration,
    silence: Duration,
    caller: Mutex<Option<Arc<Caller>>>,
    /// The daemon was reached just now.
    there: Arc<Notify>,
    sync: Quick<Option<Syncing>>,
}

/// What is at the ends of connections. Both hold the replica.
#[derive(Clone, Debug)]
struct Ends {
    hub: Arc<OwnHub>,
    source: Arc<Source>,
}

#[derive(Debug)]
struct Syncing {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Link {
    /// Connections that are to be. Sync begins at once. To be called in a task of
    /// the hub's.
    pub(crate) fn start(
        hub: Arc<OwnHub>,
        source: Source,
        patience: Duration,
        silence: Duration,
    ) -> Self {
        let source = Arc::new(source);
        let ends = Ends { hub, source };
        let (stop, stopped) = oneshot::channel();
        let there = Arc::new(Notify::new());
        let keeper = Step {
            ends: ends.clone(),
            there: Arc::clone(&there),
        };
        let task = tokio::spawn(keeper.keep(stopped));
        Self {
            ends: Quick::new(Some(ends)),
            patience,
            silence,
            caller: Mutex::new(None),
            there,
            sync: Quick::new(Some(Syncing { stop, task })),
        }
    }

    /// The connection for calls: the one that there is, or a new one.
    pub(crate) async fn caller(&self) -> Result<Arc<Caller>, LinkError> {
        let mut slot = self.caller.lock().await;
        let Ends { hub, source } = self.ends()?;
        let newer = source.has_newer(Purpose::Exec);
        if let Some(caller) = slot.as_ref().filter(|caller| caller.is_alive() && !newer) {
            return Ok(Arc::clone(caller));
        }
        let made = source.channel(Purpose::Exec, hub.workspace(), self.patience);
        let (channel, card) = made.await?;
        let caller = Caller::start(channel, card, self.silence);
        *slot = Some(Arc::clone(&caller));
        // Where one connection comes about, the other does.
        self.there.notify_one();
        Ok(caller)
    }

    /// The same, tried again for as long as the patience lasts.
    pub(crate) async fn patiently(&self) -> Result<Arc<Caller>, LinkError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let mut pause = PAUSE.0;
        loop {
            let failed = match self.caller().await {
                Ok(caller) => return Ok(caller),
                Err(error) => error,
            };
            if !failed.is_transient() || tokio::time::Instant::now() + pause > deadline {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// How long a connection that is not there is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The hub, which the daemon follows.
    pub(crate) fn hub(&self) -> Result<Arc<OwnHub>, LinkError> {
        Ok(self.ends()?.hub)
    }

    fn ends(&self) -> Result<Ends, LinkError> {
        self.ends.lock().clone().ok_or(LinkError::Closed)
    }

    /// Ends the connections; the daemon is told.
    pub(crate) async fn close(&self) {
        let sync = self.sync.lock().take();
        if let Some(Syncing { stop, task }) = sync {
            let _ = stop.send(());
            let _ = task.await;
        }
        *self.caller.lock().await = None;
        let ends = self.ends.lock().take();
        drop(ends);
    }
}

/// What keeps a daemon in step.
struct Step {
    ends: Ends,
    there: Arc<Notify>,
}

impl Step {
    /// Is the daemon's hub, over one connection after the other.
    async fn keep(self, mut stop: oneshot::Receiver<()>) {
        /// The daemon that dials takes its time.
        const PATIENCE: Duration = Duration::from_hours(1);
        let mut pause = PAUSE.0;
        loop {
            let Ends { hub, source } = &self.ends;
            let made = tokio::select! {
                made = source.channel(Purpose::Sync, hub.workspace(), PATIENCE) => made,
                _ = &mut stop => return,
            };
            match made {
                Ok((channel, _)) => {
                    pause = PAUSE.0;
                    if !self.session(channel, &mut stop).await {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, "no connection to the daemon"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.there.notified() => {}
                _ = &mut stop => return,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One session. `false` when there is to be no other.
    async fn session(&self, channel: Channel, stop: &mut oneshot::Receiver<()>) -> bool {
        let (end, ended) = oneshot::channel();
        let session = self.ends.hub.host(channel, ended);
        tokio::pin!(session);
        tokio::select! {
            () = &mut session => true,
            // The one before is dead, and it is not known yet.
            () = self.ends.source.newer(Purpose::Sync) => true,
            _ = stop => {
                drop(end);
                session.await;
                false
            }
        }
    }
}
