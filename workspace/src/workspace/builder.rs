//! Opening a workspace: its backends, and where its replica is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cairn_engine::{AsyncReplica, OpenError, Options, Replica};
use tokio::sync::Mutex;

use super::error::Result;
use super::{Inner, Slot, Workspace, WorkspaceError};
use crate::backend::{Backend, Host, HostHub};
use crate::exec::ExecId;
use crate::waiting::elsewhere;

/// Where backends keep their things in the directory of a replica.
const DIRECTORY: &str = "exec";

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
    forgets: bool,
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

    /// Leaves nothing of execs beside the replica: their logs are kept in memory, and
    /// are gone with the workspace. So several workspaces may be of one replica that is
    /// open ([`Self::of`]).
    #[must_use]
    pub fn forget_execs(mut self) -> Self {
        self.forgets = true;
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
    /// [`WorkspaceError::DuplicateBackend`], [`crate::exec::ExecError::BadId`] for an id that is none.
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
        let directory = path.filter(|_| !self.forgets).map(|path| {
            if path.is_dir() {
                return path.join(DIRECTORY);
            }
            let mut name = path.as_os_str().to_owned();
            name.push(format!("-{DIRECTORY}"));
            name.into()
        });
        let hub = Arc::new(HostHub::new(replica.clone()));
        let slot = |(id, backend): (String, Arc<dyn Backend>)| Slot {
            host: Host {
                hub: Arc::clone(&hub),
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
            hub,
            fs: AsyncReplica::from(replica),
            closed: AtomicBool::new(false),
        };
        Ok(Workspace {
            inner: Arc::new(inner),
        })
    }
}
