//! The facade: one store, and what runs commands on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::{AsyncReplica, CursorError, FsError, OpenError, Options, Replica, Watch};
use cairn_protocol::Cursor;
use tokio::sync::Mutex;

use crate::backend::{Backend, BackendError, Connection, Host};
use crate::exec::{
    Command, Confinement, Exec, ExecError, ExecId, ExecOptions, Output, RuntimeId, Signal,
};
use crate::waiting::elsewhere;

/// Where backends keep their things in the directory of a replica.
const DIRECTORY: &str = "exec";

/// Why an operation on a workspace failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The replica cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An operation on the filesystem failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// An exec failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The log cannot be read from a cursor.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// No backend has this id.
    #[error("there is no backend {id:?}; there are {}", list(.known))]
    UnknownBackend {
        /// The id that was asked for.
        id: String,
        /// Those that there are, in their order.
        known: Vec<String>,
    },
    /// The workspace has no backend at all.
    #[error(
        "the workspace has no backend that could run a command; register one when it is opened"
    )]
    NoBackend,
    /// Two backends have the same id.
    #[error("two backends have the id {0:?}; give each its own")]
    DuplicateBackend(String),
    /// The backend could not be connected. The next call tries again.
    #[error("backend {id:?} cannot be connected")]
    Connect {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// The changes could not be brought to or from a backend.
    #[error("backend {id:?} cannot be synced")]
    Sync {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// A backend did not end in order.
    #[error("backend {id:?} did not end in order")]
    Close {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// The system refused something.
    #[error("the workspace cannot work: {0}")]
    Io(#[from] std::io::Error),
    /// The workspace was closed.
    #[error("the workspace is closed")]
    Closed,
}

fn list(known: &[String]) -> String {
    if known.is_empty() {
        return "none".into();
    }
    known.join(", ")
}

/// The result of operations on a workspace.
pub(crate) type Result<T, E = WorkspaceError> = std::result::Result<T, E>;

/// What a workspace is opened with: its backends, in order, and the options of its replica.
///
/// # Examples
///
/// ```
/// use cairn::{Workspace, WorkspaceError, backend::Local};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let twice = Workspace::builder()
///     .backend("local", Local::new())
///     .backend("local", Local::new());
/// let error = cairn::block_on(twice.in_memory()).unwrap_err();
/// assert!(matches!(error, WorkspaceError::DuplicateBackend(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    backends: Vec<(String, Arc<dyn Backend>)>,
    options: Options,
}

impl Builder {
    /// Registers a backend. The first one is the default.
    #[must_use]
    pub fn backend(mut self, id: impl Into<String>, backend: impl Backend + 'static) -> Self {
        self.backends.push((id.into(), Arc::new(backend)));
        self
    }

    /// How the replica is opened. `create` is set by how the workspace is.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Opens the workspace in a replica that is there.
    ///
    /// # Errors
    ///
    /// [`OpenError`], [`WorkspaceError::DuplicateBackend`].
    pub async fn open(mut self, path: impl AsRef<Path>) -> Result<Workspace> {
        self.options.create = false;
        self.open_at(path.as_ref().into()).await
    }

    /// Opens the workspace, and makes its replica if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn create(mut self, path: impl AsRef<Path>) -> Result<Workspace> {
        self.options.create = true;
        self.open_at(path.as_ref().into()).await
    }

    async fn open_at(self, path: PathBuf) -> Result<Workspace> {
        let options = self.options.clone();
        let at = path.clone();
        self.with(move || Replica::open(at, options), Some(path))
            .await
    }

    /// A workspace that lives in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn in_memory(self) -> Result<Workspace> {
        self.with(Replica::in_memory, None).await
    }

    /// A workspace of a replica that is open already.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::DuplicateBackend`], [`ExecError::BadId`] for an id that is none.
    pub fn of(self, replica: Replica) -> Result<Workspace> {
        let path = replica.path().map(Path::to_path_buf);
        self.build(replica, path.as_deref())
    }

    async fn with(
        self,
        open: impl FnOnce() -> Result<Replica, OpenError> + Send + 'static,
        path: Option<PathBuf>,
    ) -> Result<Workspace> {
        self.check()?;
        let replica = elsewhere(open).await??;
        self.build(replica, path.as_deref())
    }

    fn check(&self) -> Result<()> {
        for (at, (id, _)) in self.backends.iter().enumerate() {
            // It becomes the name of a directory, as the id of an exec does.
            id.parse::<ExecId>()?;
            if self.backends[..at].iter().any(|(other, _)| other == id) {
                return Err(WorkspaceError::DuplicateBackend(id.clone()));
            }
        }
        Ok(())
    }

    fn build(self, replica: Replica, path: Option<&Path>) -> Result<Workspace> {
        self.check()?;
        let directory = path.map(|path| {
            if path.is_dir() {
                return path.join(DIRECTORY);
            }
            let mut name = path.as_os_str().to_owned();
            name.push(format!("-{DIRECTORY}"));
            name.into()
        });
        let slot = |(id, backend): (String, Arc<dyn Backend>)| Slot {
            host: Host {
                replica: replica.clone(),
                directory: directory.as_ref().map(|all| all.join(&id)),
            },
            id: id.into(),
            backend,
            connection: Mutex::new(None),
        };
        let backends = self.backends.into_iter().map(slot).collect();
        let inner = Inner {
            backends,
            fs: AsyncReplica::from(replica),
            closed: AtomicBool::new(false),
        };
        Ok(Workspace {
            inner: Arc::new(inner),
        })
    }
}

#[derive(Debug)]
struct Inner {
    /// Before the replica, which they may have mounted.
    backends: Vec<Slot>,
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

    async fn close(&self) -> Result<()> {
        let connection = self.connection.lock().await.take();
        let Some(connection) = connection else {
            return Ok(());
        };
        connection
            .close()
            .await
            .map_err(|source| WorkspaceError::Close {
                id: self.id.to_string(),
                source,
            })
    }
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
    /// [`CursorError`] when the cursor is none of this workspace's.
    pub fn watch(&self, since: Option<Cursor>) -> Result<Watch> {
        Ok(self.fs().blocking().watch(since)?)
    }

    /// Ends the backends and what runs there, and makes everything durable.
    /// Commands are refused from now on; the filesystem can be used still.
    ///
    /// # Errors
    ///
    /// The first that occurs; the rest is closed all the same.
    pub async fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::SeqCst);
        let mut first = Ok(());
        for slot in &self.inner.backends {
            let closed = slot.close().await;
            first = first.and(closed);
        }
        let replica = self.fs().blocking().clone();
        let synced = elsewhere(move || replica.sync()).await?;
        first.and(synced.map_err(WorkspaceError::from))
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
    /// [`ExecError`] says why it was not started; [`WorkspaceError::UnknownBackend`],
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
    /// use cairn::exec::{Command, EventKind, ExecOptions, From};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if !std::path::Path::new("/dev/fuse").exists() { return Ok(()) }
    /// # cairn::block_on(async {
    /// let workspace = Workspace::builder().backend("local", Local::new()).in_memory().await?;
    /// let exec = workspace
    ///     .exec(Command::argv(["sh", "-c", "echo one; echo two >&2"]), ExecOptions::default())
    ///     .await?;
    /// let mut events = exec.events(From::Start);
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
        let (connection, id) = self.connected(options.backend.as_deref()).await?;
        let execution = connection.exec(command.into(), options).await?;
        Ok(Exec::new(execution, id))
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
    /// [`ExecError::Unknown`], and as [`Self::ready`].
    pub async fn get_exec(&self, id: &ExecId, backend: Option<&str>) -> Result<Exec> {
        let (connection, name) = self.connected(backend).await?;
        Ok(Exec::new(connection.get(id).await?, name))
    }

    /// Signals an exec's processes.
    ///
    /// # Errors
    ///
    /// [`ExecError::Ended`], and as [`Self::get_exec`].
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
    /// [`ExecError::Running`], and as [`Self::get_exec`].
    pub async fn dispose_exec(&self, id: &ExecId, backend: Option<&str>) -> Result<()> {
        let (connection, _) = self.connected(backend).await?;
        Ok(connection.dispose(id).await?)
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
