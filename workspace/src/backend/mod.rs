//! What runs commands for a workspace: the traits, and the backends of this crate.
//!
//! A [`Backend`] is a description, registered under an id before anything
//! happens. It is connected at its first use; what comes of it is a
//! [`Connection`], through which commands run. A backend that shares the store
//! of the workspace has nothing to push or pull; one with a store of its own
//! brings the changes there before a command starts and back when it has ended,
//! inside of [`Connection::exec`] and of the [`Execution`] it returns.

mod local;
mod sandbox;
mod scratch;
#[cfg(feature = "shell")]
pub mod shell;

pub use local::Local;
pub use sandbox::{AtClose, LinkError, NotEnded, Sandbox};
#[cfg(feature = "shell")]
pub use shell::Shell;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::Replica;
use parking_lot::Mutex;

use crate::exec::{
    Boxed, Command, Confinement, ExecError, ExecId, ExecOptions, Execution, RuntimeId,
};
use crate::sync::{OwnHub, SyncError};

/// Why a backend could not be connected, in its own words.
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// What a backend gets of its workspace.
#[derive(Clone, Debug)]
pub struct Host {
    /// The store.
    pub replica: Replica,
    /// Where the backend may keep what has to survive a restart, such as the
    /// logs of its execs. `None` for a workspace in memory.
    pub directory: Option<PathBuf>,
    /// The store as a hub, for backends with a replica of their own.
    pub(crate) hub: Arc<HostHub>,
}

/// The hub of a workspace, which is there from when a backend needs it on.
#[derive(Debug)]
pub(crate) struct HostHub {
    replica: Mutex<Option<Replica>>,
    hub: Mutex<Option<Arc<OwnHub>>>,
}

impl HostHub {
    pub(crate) fn new(replica: Replica) -> Self {
        Self {
            replica: Mutex::new(Some(replica)),
            hub: Mutex::new(None),
        }
    }

    /// The hub. It blocks.
    pub(crate) fn get(&self) -> Result<Arc<OwnHub>, SyncError> {
        let mut slot = self.hub.lock();
        if let Some(hub) = &*slot {
            return Ok(Arc::clone(hub));
        }
        let replica = self.replica.lock().clone();
        let replica = replica.ok_or(SyncError::NoUpstream)?;
        Ok(Arc::clone(slot.insert(Arc::new(OwnHub::start(&replica)?))))
    }

    /// Ends it, and lets go of the replica. It blocks.
    pub(crate) fn end(&self) {
        self.replica.lock().take();
        if let Some(hub) = self.hub.lock().take() {
            hub.end();
        }
    }
}

/// Something that can run commands.
pub trait Backend: Debug + Send + Sync {
    /// What kind it is, as in `local`.
    fn kind(&self) -> &'static str;

    /// Makes it ready. It is called again when it failed, or when the
    /// connection was lost, but never twice at a time.
    fn connect(&self, host: Host) -> Boxed<'_, Result<Arc<dyn Connection>, BackendError>>;
}

/// A backend that is ready.
pub trait Connection: Debug + Send + Sync {
    /// The identity of what runs the execs. It changes when they are lost.
    fn runtime(&self) -> &RuntimeId;

    /// How processes are confined, where there are processes.
    fn confinement(&self) -> Option<&Confinement> {
        None
    }

    /// Runs a command, and returns when it has begun.
    fn exec(
        &self,
        command: Command,
        options: ExecOptions,
    ) -> Boxed<'_, Result<Arc<dyn Execution>, ExecError>>;

    /// An exec that was started before.
    fn get<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<Arc<dyn Execution>, ExecError>>;

    /// Forgets an exec that has ended.
    fn dispose<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<(), ExecError>>;

    /// Brings the changes of the workspace there. Nothing to do for a backend
    /// that shares the store.
    fn push(&self) -> Boxed<'_, Result<(), BackendError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Brings the changes made there back. Nothing to do for a backend that
    /// shares the store.
    fn pull(&self) -> Boxed<'_, Result<(), BackendError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Execs whose changes may not be in the workspace yet. None for a backend that
    /// shares the store.
    fn pending(&self) -> Vec<ExecId> {
        Vec::new()
    }

    /// Whether it can be used no more, so that the next use connects again.
    fn is_lost(&self) -> bool {
        false
    }

    /// Ends it, and what runs there. Gives the execs that run on all the same, which
    /// only a backend may have where they are found again by their ids.
    fn close(&self) -> Boxed<'_, Result<Vec<ExecId>, BackendError>>;
}
