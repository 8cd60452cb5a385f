//! A replica's end: one session after the other with the same hub, for as long as
//! the program wants.
//!
//! | module | owns |
//! | --- | --- |
//! | `options` | what a client is and wants |
//! | `connect` | a connection to the hub, and why there is none |
//! | `backoff` | how long to wait before the next |
//! | `requests` | what the program waits for, over all sessions |
//! | `run` | the loop: connect, drive, wait |

mod backoff;
pub(crate) mod connect;
mod options;
mod requests;
mod run;

use std::sync::Arc;

use cairn_protocol::session::{Counters, Ended, Event, StoreFailure, Wanted};
use cairn_protocol::wire::Code;
use cairn_protocol::{ChunkHash, Cursor};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::driver::Stop;
use crate::error::ConnectError;

pub use options::{Beginning, ClientOptions, Replica, Upstream};

use requests::{Answer, Requests};

/// Events that are kept for a listener who is slow; then he misses the oldest.
const EVENTS: usize = 1024;

/// Why a client has no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The replica cannot be used.
    #[error("the replica cannot be used")]
    Replica(#[from] StoreFailure),
    /// The program has ended the client.
    #[error("the client was shut down")]
    ShutDown,
}

impl ClientError {
    /// Whether it would be the same if it were tried again.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Connect(error) => !error.is_transient(),
            Self::Ended(ended) => ended.is_final(),
            Self::Replica(_) => false,
            Self::ShutDown => true,
        }
    }

    /// The code that the hub gave, or that it was given.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Ended(ended) => Some(ended.code),
            Self::Replica(failure) => Some(failure.code),
            Self::Connect(_) | Self::ShutDown => None,
        }
    }
}

/// What a client is doing.
#[derive(Clone, Debug)]
pub enum State {
    /// It looks for its hub.
    Connecting,
    /// It has a session.
    Connected,
    /// It tries again in a while.
    Waiting {
        /// Why there is no session.
        why: Arc<ClientError>,
    },
    /// It has given up, or was told to.
    Over {
        /// Why.
        why: Arc<ClientError>,
    },
}

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// Something in a session.
    Session(Event),
    /// The client's state is another.
    State(State),
}

/// Why a hub does not take what is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code that it gave.
    pub code: Code,
    /// Why, for people.
    pub detail: String,
}

/// A cut that is not applied before somebody says that it may be, as it would remove
/// most of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Nodes that would go.
    pub removed: u64,
    /// Nodes that there are.
    pub of: u64,
}

/// A client of a hub. Dropping it ends it: the session says goodbye by itself.
#[derive(Debug)]
pub struct Client {
    requests: Arc<Requests>,
    events: broadcast::Sender<ClientEvent>,
    state: watch::Receiver<State>,
    refusal: watch::Receiver<Option<Refusal>>,
    stop: watch::Sender<Option<Stop>>,
    task: Option<JoinHandle<()>>,
}

/// Asks things of a client, from anywhere.
#[derive(Clone, Debug)]
pub struct ClientHandle(Arc<Requests>);

impl Client {
    /// A client that connects, and connects again, until it is shut down or there
    /// is no use in it. Needs a Tokio runtime with time and IO.
    pub fn start(upstream: Upstream, options: ClientOptions, replica: Arc<dyn Replica>) -> Self {
        let requests = Arc::new(Requests::new(options.patience));
        let (events, _) = broadcast::channel(EVENTS);
        let (set_state, state) = watch::channel(State::Connecting);
        let (set_refusal, refusal) = watch::channel(None);
        let (stop, stopped) = watch::channel(None);
        let run = run::Run {
            upstream,
            options,
            replica,
            requests: Arc::clone(&requests),
            events: events.clone(),
            state: set_state,
            refusal: set_refusal,
            stop: stopped,
        };
        Self {
            requests,
            events,
            state,
            refusal,
            stop,
            task: Some(tokio::spawn(run.run())),
        }
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<ClientEvent> {
        self.events.subscribe()
    }

    /// What the client is doing.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Why the hub did not take the last batch that was pushed; `None` when it
    /// did, or nothing was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.borrow().clone()
    }

    /// What all its sessions have sent and received.
    pub fn counters(&self) -> Counters {
        self.requests.counters()
    }

    /// To ask things of it from anywhere.
    pub fn handle(&self) -> ClientHandle {
        ClientHandle(Arc::clone(&self.requests))
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    ///
    /// Why there will be none.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn connected(&self) -> Result<(), Arc<ClientError>> {
        let mut state = self.state.clone();
        let decided = |state: &State| matches!(state, State::Connected | State::Over { .. });
        let found = state.wait_for(decided).await.map(|state| state.clone());
        match found {
            Ok(State::Over { why }) => Err(why),
            Ok(_) => Ok(()),
            Err(_) => Err(Arc::new(ClientError::ShutDown)),
        }
    }

    /// Waits until there is a session, or the first try to have one has failed.
    ///
    /// # Errors
    ///
    /// Why it has failed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn first_try(&self) -> Result<(), Arc<ClientError>> {
        let mut state = self.state.clone();
        let decided = |state: &State| !matches!(state, State::Connecting);
        let found = state.wait_for(decided).await.map(|state| state.clone());
        match found {
            Ok(State::Connected | State::Connecting) => Ok(()),
            Ok(State::Waiting { why } | State::Over { why }) => Err(why),
            Err(_) => Err(Arc::new(ClientError::ShutDown)),
        }
    }

    /// Waits until the client is over, and says why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn over(&self) -> Arc<ClientError> {
        let mut state = self.state.clone();
        let found = state
            .wait_for(|state| matches!(state, State::Over { .. }))
            .await
            .map(|state| state.clone());
        match found {
            Ok(State::Over { why }) => why,
            _ => Arc::new(ClientError::ShutDown),
        }
    }

    /// Ends the client: what is under way in its store is done to its end, and the
    /// hub is told.
    ///
    /// # Cancel safety
    ///
    /// Dropping it lets the client end by itself.
    pub async fn shutdown(mut self) {
        self.tell_to_stop();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    fn tell_to_stop(&self) {
        self.stop.send_replace(Some(Stop {
            code: Code::SHUTDOWN,
            detail: "the client ends",
        }));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

impl ClientHandle {
    /// Gets chunks, each with one that is here and may be like it; 0 is served
    /// first. Gives those that could not be had, and why. It goes on over broken
    /// connections, but not longer than the client's patience.
    ///
    /// # Errors
    ///
    /// Why there is no session.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses the answer; the chunks come all the same.
    pub async fn fetch(
        &self,
        chunks: Vec<Wanted>,
        priority: u8,
    ) -> Result<Vec<(ChunkHash, Code)>, Arc<ClientError>> {
        match self.0.fetch(chunks, priority).await? {
            Answer::Fetched(missing) => Ok(missing),
            Answer::Fenced(_) => Ok(Vec::new()),
        }
    }

    /// As [`Self::fetch`], for a thread that may block and is none of the
    /// runtime's.
    ///
    /// # Errors
    ///
    /// Why there is no session.
    pub fn fetch_blocking(
        &self,
        chunks: Vec<Wanted>,
        priority: u8,
    ) -> Result<Vec<(ChunkHash, Code)>, Arc<ClientError>> {
        match self.0.fetch(chunks, priority).wait()? {
            Answer::Fetched(missing) => Ok(missing),
            Answer::Fenced(_) => Ok(Vec::new()),
        }
    }

    /// Waits until everything edited before is pushed, and the hub followed to a
    /// commit after it; gives that commit, or why it cannot be.
    ///
    /// # Errors
    ///
    /// Why there is no session.
    ///
    /// # Cancel safety
    ///
    /// Safe: what is pushed is pushed.
    pub async fn fence(&self) -> Result<Result<Cursor, Code>, Arc<ClientError>> {
        match self.0.fence().await? {
            Answer::Fenced(cursor) => Ok(cursor),
            Answer::Fetched(_) => Ok(Err(Code::INTERNAL)),
        }
    }

    /// Waits until a cut is halted; no fence is answered then before it may proceed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn halted(&self) -> Halt {
        self.0.halted().await
    }

    /// Applies a cut that is halted since it would remove most of the tree.
    pub fn proceed(&self) {
        self.0.proceed();
    }
}
