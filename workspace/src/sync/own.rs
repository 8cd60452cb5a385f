//! A replica of this process as a hub for replicas that it reaches itself, with
//! its working tree in step.
//!
//! It listens nowhere. What it is for are the sandboxes of a workspace: each
//! follows this hub, over a connection that this process or the sandbox has made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::{Replica, Upstream};
use cairn_protocol::{Cursor, ReplicaTag};
use cairn_transports::{Channel, Client, ClientEvent};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use super::serve::Hub;
use super::{SyncError, runtime};
use cairn_protocol::session::Event;

/// How long a session with the working tree has to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a file that is being written may take to be closed, and between two
/// looks whether it is.
const CLOSING: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(2);

/// What the hub is called in logs.
const NAME: &str = "workspace";

/// The hub of a replica, until it is ended or dropped. There is one of a replica at
/// a time, and none beside a [`Serve`](super::Serve) of it.
#[derive(Debug)]
pub(crate) struct OwnHub {
    workspace: u64,
    handle: Handle,
    parts: Mutex<Option<Parts>>,
}

/// What there is until it is ended: all that holds the replica.
#[derive(Debug)]
struct Parts {
    hub: Arc<Hub>,
    tag: ReplicaTag,
    store: Arc<Upstream>,
    replica: Replica,
    tree: Client,
    runtime: Runtime,
}

impl OwnHub {
    /// Makes the replica a hub, if it is none yet, and its working tree follows it.
    pub(crate) fn start(replica: &Replica) -> Result<Self, SyncError> {
        let hub = Arc::new(Hub::new(NAME, replica)?);
        let runtime = runtime().map_err(SyncError::Start)?;
        let store = Arc::new(replica.own_upstream()?);
        let tree = {
            let _inside = runtime.enter();
            let tree = hub.follow_with(Arc::clone(&store))?;
            proceed(&tree);
            tree
        };
        Ok(Self {
            workspace: hub.workspace()?,
            handle: runtime.handle().clone(),
            parts: Mutex::new(Some(Parts {
                tag: hub.tag()?,
                hub,
                store,
                replica: replica.clone(),
                tree,
                runtime,
            })),
        })
    }

    /// What tells this workspace from others: the beginning of the hub's epoch. The
    /// hub's tag is another each time it is opened.
    pub(crate) fn workspace(&self) -> u64 {
        self.workspace
    }

    /// Where tasks with sockets run.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until what was edited in the working tree is with the hub, and what
    /// the hub has is in the working tree. Gives the hub's commit. To be awaited in
    /// a task of [`Self::handle`].
    pub(crate) async fn fence(&self) -> Result<Cursor, SyncError> {
        let parts = self.parts.lock().as_ref().map(|parts| {
            let asked = parts.tree.handle();
            parts.hub.hurry();
            (parts.replica.clone(), Arc::clone(&parts.store), asked)
        });
        let (replica, store, asked) = parts.ok_or(SyncError::NoUpstream)?;
        let sealed = tokio::task::spawn_blocking(move || seal(&replica, &store)).await;
        sealed.map_err(|error| SyncError::Start(error.into()))??;
        let address = NAME.to_owned();
        match asked.fence().await {
            Ok(Ok(cursor)) => Ok(cursor),
            Ok(Err(code)) => Err(SyncError::Refused { address, code }),
            Err(source) => Err(SyncError::Client { address, source }),
        }
    }

    /// Is the hub of the replica at the other end of a channel, until either ends.
    pub(crate) async fn host(&self, channel: Channel, stop: oneshot::Receiver<()>) {
        let parts = self.parts.lock().as_ref().map(|parts| {
            let hub = Arc::clone(&parts.hub) as Arc<dyn cairn_transports::Hub>;
            (hub, parts.tag)
        });
        let Some((hub, tag)) = parts else { return };
        let ended = cairn_transports::host(hub, tag, channel, stop).await;
        tracing::debug!(%ended, "the session with a sandbox is over");
    }

    /// Ends it, with all tasks of its runtime, and lets go of the replica. It blocks,
    /// so it is called by none of these tasks.
    pub(crate) fn end(&self) {
        let Some(parts) = self.parts.lock().take() else {
            return;
        };
        let ended = parts.tree.shutdown();
        let patient = async { tokio::time::timeout(FAREWELL, ended).await };
        let _ = parts.runtime.block_on(patient);
        parts.runtime.shutdown_timeout(FAREWELL);
    }
}

impl Drop for OwnHub {
    fn drop(&mut self) {
        let parts = self.parts.lock().take();
        // It may be dropped in a task, where nothing may block on a runtime.
        if let Some(parts) = parts {
            drop(parts.tree);
            parts.runtime.shutdown_background();
        }
    }
}

/// Seals what is edited, which is pushed only then. A file that the kernel writes by
/// itself is sealed when it is closed, and a mount is told of that only after the
/// process that had it may have ended; so there is a moment for it.
fn seal(replica: &Replica, store: &Upstream) -> Result<(), SyncError> {
    let begun = Instant::now();
    replica.cursor()?;
    while store.writing()? > 0 && begun.elapsed() < CLOSING {
        std::thread::sleep(LOOK);
        replica.cursor()?;
    }
    Ok(())
}

/// What the programs of a sandbox remove, they mean to remove.
pub(crate) fn proceed(client: &Client) {
    let (mut events, handle) = (client.events(), client.handle());
    tokio::spawn(async move {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match events.recv().await {
                Ok(ClientEvent::Session(Event::Halted { .. })) => handle.proceed(),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}
