//! The facade: one store, and what runs commands on it.
//!
//! `builder` owns opening, `error` the errors; this file what can be done then.

mod builder;
mod error;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::{AsyncReplica, Watch};
use cairn_protocol::Cursor;
use tokio::sync::Mutex;

pub use builder::Builder;
use error::Result;
pub use error::WorkspaceError;

use crate::backend::{Backend, Connection, Host, HostHub};
use crate::exec::{
    Command, Confinement, Exec, ExecError, ExecId, ExecOptions, Output, RuntimeId, Signal,
};
use crate::waiting::elsewhere;

#[derive(Debug)]
struct Inner {
    /// Before the replica, which they may have mounted.
    backends: Vec<Slot>,
    /// After them.
    hub: Arc<HostHub>,
    fs: AsyncReplica,
    closed: AtomicBool,
}

/// A backend, and its connection while there is one.
#[derive(Debug)]
struct Slot {
    id: Arc<str>,
    backend: Arc<dyn Backend>,
    host: Host,
    connection: Mutex<Option<Arc<dyn Connection>>>,
}

impl Slot {
    async fn connection(&self, closed: &AtomicBool) -> Result<Arc<dyn Connection>> {
        let mut slot = self.connection.lock().await;
        if closed.load(Ordering::SeqCst) {
            return Err(WorkspaceError::Closed);
        }
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        let connected = self.backend.connect(self.host.clone()).await;
        let connection = connected.map_err(|source| WorkspaceError::Connect {
            id: self.id.to_string(),
            source,
        })?;
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn close(&self) -> Result<Vec<RunsOn>> {
        let connection = self.connection.lock().await.take();
        let Some(connection) = connection else {
            return Ok(Vec::new());
        };
        let closed = connection.close().await;
        let running = closed.map_err(|source| WorkspaceError::Close {
            id: self.id.to_string(),
            source,
        })?;
        let on = |id| RunsOn {
            backend: self.id.to_string(),
            id,
        };
        Ok(running.into_iter().map(on).collect())
    }
}

/// An exec that was running when its workspace was closed, and was left to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunsOn {
    /// The id of its backend.
    pub backend: String,
    /// Its id, by which [`Workspace::get_exec`] finds it in a workspace that is
    /// opened again.
    pub id: ExecId,
}

/// An agent's working place: a filesystem, and backends that run commands on
/// it. Cheap to clone; all clones are the same.
///
/// Its methods are futures that any runtime can wait for, and
/// [`block_on`](crate::block_on) without one.
#[derive(Clone, Debug)]
pub struct Workspace {
    inner: Arc<Inner>,
}

/// Opening, the filesystem, closing.
impl Workspace {
    /// Registers backends, then opens.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens a workspace that is there, without a backend.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path).await
    }

    /// Opens a workspace without a backend, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Builder::create`].
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path).await
    }

    /// A workspace in memory, without a backend.
    ///
    /// # Errors
    ///
    /// As [`Builder::in_memory`].
    pub async fn in_memory() -> Result<Self> {
        Self::builder().in_memory().await
    }

    /// The filesystem, for tasks of tokio; [`AsyncReplica::blocking`] is the
    /// same for code that may block.
    pub fn fs(&self) -> &AsyncReplica {
        &self.inner.fs
    }

    /// Watches for changes, from a cursor on or from now on, whoever makes them.
    ///
    /// # Errors
    ///
    /// [`cairn_engine::CursorError`] when the cursor is none of this workspace's.
    pub fn watch(&self, since: Option<Cursor>) -> Result<Watch> {
        Ok(self.fs().blocking().watch(since)?)
    }

    /// Ends the backends and what runs there, and makes everything durable.
    /// Commands are refused from now on; the filesystem can be used still.
    ///
    /// What runs in a sandbox runs on, unless
    /// [`Sandbox::at_close`](crate::backend::Sandbox::at_close) says otherwise: the
    /// execs of whose end this workspace has not heard are returned, and found again
    /// by their ids when the workspace is opened again. What they change comes then.
    ///
    /// # Errors
    ///
    /// The first that occurs; the rest is closed all the same.
    pub async fn close(&self) -> Result<Vec<RunsOn>> {
        self.inner.closed.store(true, Ordering::SeqCst);
        let (mut first, mut running) = (Ok(()), Vec::new());
        for slot in &self.inner.backends {
            match slot.close().await {
                Ok(on) => running.extend(on),
                Err(error) => first = first.and(Err(error)),
            }
        }
        let hub = Arc::clone(&self.inner.hub);
        elsewhere(move || hub.end()).await?;
        let replica = self.fs().blocking().clone();
        let synced = elsewhere(move || replica.sync()).await?;
        first.and(synced.map_err(WorkspaceError::from))?;
        Ok(running)
    }
}

/// Backends and their execs.
impl Workspace {
    /// The ids of the backends, in order. The first is the default.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.inner.backends.iter().map(|slot| &*slot.id)
    }

    fn slot(&self, id: Option<&str>) -> Result<&Slot> {
        let backends = &self.inner.backends;
        let Some(id) = id else {
            return backends.first().ok_or(WorkspaceError::NoBackend);
        };
        let found = backends.iter().find(|slot| &*slot.id == id);
        found.ok_or_else(|| WorkspaceError::UnknownBackend {
            id: id.into(),
            known: self.backends().map(String::from).collect(),
        })
    }

    async fn connected(&self, id: Option<&str>) -> Result<(Arc<dyn Connection>, Arc<str>)> {
        let slot = self.slot(id)?;
        let connection = slot.connection(&self.inner.closed).await?;
        Ok((connection, Arc::clone(&slot.id)))
    }

    /// Connects a backend, or the default one, which its first use does anyway.
    /// Returns the identity of what runs its execs.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::UnknownBackend`], [`WorkspaceError::Connect`].
    pub async fn ready(&self, backend: Option<&str>) -> Result<RuntimeId> {
        Ok(self.connected(backend).await?.0.runtime().clone())
    }

    /// How the processes of a backend, or of the default one, are confined.
    /// `None` where there are no processes.
    ///
    /// # Errors
    ///
    /// As [`Self::ready`].
    pub async fn confinement(&self, backend: Option<&str>) -> Result<Option<Confinement>> {
        Ok(self.connected(backend).await?.0.confinement().cloned())
    }

    /// Runs a command, and returns when it has begun.
    ///
    /// # Errors
    ///
    /// [`crate::exec::ExecError`] says why it was not started; [`WorkspaceError::UnknownBackend`],
    /// [`WorkspaceError::NoBackend`], [`WorkspaceError::Connect`].
    ///
    /// # Cancel safety
    ///
    /// It may have been started. With an id of your own, [`Self::get_exec`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// use cairn::{Workspace, backend::Local};
    /// use cairn::exec::{Command, EventKind, ExecOptions, ReadFrom};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if !std::path::Path::new("/dev/fuse").exists() { return Ok(()) }
    /// # cairn::block_on(async {
    /// let workspace = Workspace::builder().backend("local", Local::new()).in_memory().await?;
    /// let exec = workspace
    ///     .exec(Command::argv(["sh", "-c", "echo one; echo two >&2"]), ExecOptions::default())
    ///     .await?;
    /// let mut events = exec.events(ReadFrom::Start);
    /// while let Some(event) = events.next().await? {
    ///     match event.kind {
    ///         EventKind::Stdout(bytes) => assert_eq!(bytes, "one\n"),
    ///         EventKind::Stderr(bytes) => assert_eq!(bytes, "two\n"),
    ///         EventKind::Exit(exit) => assert!(exit.is_success()),
    ///         _ => {}
    ///     }
    /// }
    /// # workspace.close().await?;
    /// # Ok(()) })
    /// # }
    /// ```
    pub async fn exec(&self, command: impl Into<Command>, options: ExecOptions) -> Result<Exec> {
        let command = command.into();
        let (connection, id) = self.connected(options.backend.as_deref()).await?;
        let execution = match connection.exec(command.clone(), options.clone()).await {
            // Nothing was started, and there is something else by now.
            Err(ExecError::Unreachable(_)) if connection.is_lost() => {
                let (connection, _) = self.connected(options.backend.as_deref()).await?;
                connection.exec(command, options).await
            }
            started => started,
        };
        Ok(Exec::new(execution?, id))
    }

    /// Runs a command on the default backend, and returns what it wrote.
    ///
    /// # Errors
    ///
    /// As [`Self::exec`]. A command that fails is no error.
    pub async fn run(&self, command: impl Into<Command>) -> Result<Output> {
        let exec = self.exec(command, ExecOptions::default()).await?;
        Ok(exec.result().await?)
    }

    /// An exec that was started before, by this workspace or, if its log was
    /// kept, before the last restart: it is then known whether it ended or was lost.
    ///
    /// # Errors
    ///
    /// [`crate::exec::ExecError::Unknown`], and as [`Self::ready`].
    pub async fn get_exec(&self, id: &ExecId, backend: Option<&str>) -> Result<Exec> {
        let (connection, name) = self.connected(backend).await?;
        Ok(Exec::new(connection.get(id).await?, name))
    }

    /// Signals an exec's processes.
    ///
    /// # Errors
    ///
    /// [`crate::exec::ExecError::Ended`], and as [`Self::get_exec`].
    pub async fn kill_exec(
        &self,
        id: &ExecId,
        backend: Option<&str>,
        signal: Signal,
    ) -> Result<()> {
        let exec = self.get_exec(id, backend).await?;
        Ok(exec.kill(signal).await?)
    }

    /// Forgets an exec that has ended, and its log.
    ///
    /// # Errors
    ///
    /// [`crate::exec::ExecError::Running`], and as [`Self::get_exec`].
    pub async fn dispose_exec(&self, id: &ExecId, backend: Option<&str>) -> Result<()> {
        let (connection, _) = self.connected(backend).await?;
        Ok(connection.dispose(id).await?)
    }

    /// Execs whose changes may not be in the workspace yet: those that run, and
    /// those after whose end the connection was broken. None for a backend that
    /// shares the store.
    ///
    /// # Errors
    ///
    /// As [`Self::ready`].
    pub async fn pending(&self, backend: Option<&str>) -> Result<Vec<ExecId>> {
        Ok(self.connected(backend).await?.0.pending())
    }

    /// Brings the changes of the workspace to a backend with a store of its
    /// own. There is nothing to do for one that shares the store.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Sync`], and as [`Self::ready`].
    pub async fn push(&self, backend: Option<&str>) -> Result<()> {
        let (connection, id) = self.connected(backend).await?;
        let failed = |source| WorkspaceError::Sync {
            id: id.to_string(),
            source,
        };
        connection.push().await.map_err(failed)
    }

    /// Brings the changes made at a backend with a store of its own back.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub async fn pull(&self, backend: Option<&str>) -> Result<()> {
        let (connection, id) = self.connected(backend).await?;
        let failed = |source| WorkspaceError::Sync {
            id: id.to_string(),
            source,
        };
        connection.pull().await.map_err(failed)
    }
}
