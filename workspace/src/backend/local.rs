//! Real processes on this machine, on a mount of the workspace's own store: no
//! second store, and nothing to sync.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountError, MountOptions};
use parking_lot::Mutex;

use super::scratch::Scratch;
use super::{Backend, BackendError, Connection, Host};
use crate::exec::{
    Boxed, Command, Confine, Confinement, ExecError, ExecId, ExecOptions, Execution, Runtime,
    RuntimeId, RuntimeOptions, Want,
};
use crate::waiting::elsewhere;

/// The variable that tells a process where the workspace is.
const ROOT_VARIABLE: &str = "CAIRN_WORKSPACE";

/// Runs processes on this machine. They are confined by default: see [`Confine`].
///
/// Processes that may not write everywhere get a home directory and a directory
/// for temporary files of their own, which go with the backend.
///
/// # Examples
///
/// ```
/// use cairn::{Workspace, backend::Local};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if !std::path::Path::new("/dev/fuse").exists() { return Ok(()) }
/// # let run = async {
/// let workspace = Workspace::builder()
///     .backend("local", Local::new())
///     .in_memory()
///     .await?;
/// workspace.fs().blocking().write_file("/greeting", b"hello\n")?;
/// let output = workspace.run("tr a-z A-Z < greeting > loud && cat loud").await?;
/// assert_eq!(output.text(), "HELLO\n");
/// assert_eq!(workspace.fs().blocking().read_file("/loud")?, b"HELLO\n");
/// workspace.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) };
/// # cairn::block_on(run)
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Local {
    place: Place,
    confine: Confine,
    env: Vec<(OsString, OsString)>,
    mount: MountOptions,
}

/// Where the workspace is mounted.
#[derive(Clone, Debug, Default)]
enum Place {
    /// In a directory for temporary files.
    #[default]
    Temporary,
    /// Here.
    At(PathBuf),
    /// Here, by somebody else.
    Mounted(PathBuf),
}

impl Local {
    /// Mounts the workspace in a directory for temporary files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts the workspace here: an empty directory, or a new one.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::At(path.into());
        self
    }

    /// Uses a mount of the workspace's replica that this process already serves.
    #[must_use]
    pub fn mounted_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::Mounted(path.into());
        self
    }

    /// How processes are confined.
    #[must_use]
    pub fn confine(mut self, confine: Confine) -> Self {
        self.confine = confine;
        self
    }

    /// A variable for all processes.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// How the workspace is mounted.
    #[must_use]
    pub fn mount_options(mut self, options: MountOptions) -> Self {
        self.mount = options;
        self
    }

    /// Mounts, and starts what runs processes.
    fn begin(self, host: Host) -> Result<LocalConnection, BackendError> {
        let scratch = Scratch::new(host.directory.as_deref())?;
        let (root, mount) = self.mount(&scratch, &host.replica)?;
        let mut options = RuntimeOptions::new(&root);
        options.env = self.variables(&root, &scratch);
        options.confine = self.confine;
        options.writable = vec![scratch.temporary(), scratch.home()];
        options.logs = host.directory;
        Ok(LocalConnection {
            runtime: Arc::new(Runtime::new(options)?),
            end: Mutex::new(Some(End { mount, scratch })),
        })
    }

    fn mount(
        &self,
        scratch: &Scratch,
        replica: &Replica,
    ) -> Result<(PathBuf, Option<Mount>), BackendError> {
        let at = match &self.place {
            Place::Mounted(path) => return Ok((std::path::absolute(path)?, None)),
            Place::At(path) => path.clone(),
            Place::Temporary => scratch.workspace(),
        };
        let mount = Mount::new(replica.clone(), &at, self.mount.clone())?;
        Ok((mount.path().into(), Some(mount)))
    }

    fn variables(&self, root: &Path, scratch: &Scratch) -> Vec<(OsString, OsString)> {
        let mut env = vec![(ROOT_VARIABLE.into(), root.into())];
        if self.confine.writes != Want::No {
            env.push(("HOME".into(), scratch.home().into()));
            env.push(("TMPDIR".into(), scratch.temporary().into()));
        }
        env.extend(self.env.iter().cloned());
        env
    }
}

impl Backend for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn connect(&self, host: Host) -> Boxed<'_, Result<Arc<dyn Connection>, BackendError>> {
        let this = self.clone();
        Box::pin(async move {
            let connection = elsewhere(move || this.begin(host)).await??;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        })
    }
}

/// What there is while it is connected. The runtime goes before the mount.
#[derive(Debug)]
struct LocalConnection {
    runtime: Arc<Runtime>,
    end: Mutex<Option<End>>,
}

/// What is taken down at the end: the mount before the directory it is in.
#[derive(Debug)]
struct End {
    mount: Option<Mount>,
    scratch: Scratch,
}

impl End {
    fn take_down(self) -> Result<(), MountError> {
        let unmounted = self.mount.map_or(Ok(()), Mount::unmount);
        drop(self.scratch);
        unmounted
    }
}

impl LocalConnection {
    fn on_disk<T: Send + 'static>(
        &self,
        id: &ExecId,
        operation: fn(&Runtime, &ExecId) -> Result<T, ExecError>,
    ) -> Boxed<'static, Result<T, ExecError>> {
        let (runtime, id) = (Arc::clone(&self.runtime), id.clone());
        let done = elsewhere(move || operation(&runtime, &id));
        let what = "a thread that reads the log";
        Box::pin(async move {
            let failed = |source| ExecError::Start { what, source };
            done.await.map_err(failed)?
        })
    }
}

impl Connection for LocalConnection {
    fn runtime(&self) -> &RuntimeId {
        self.runtime.id()
    }

    fn confinement(&self) -> Option<&Confinement> {
        Some(self.runtime.confinement())
    }

    fn exec(
        &self,
        command: Command,
        options: ExecOptions,
    ) -> Boxed<'_, Result<Arc<dyn Execution>, ExecError>> {
        Box::pin(self.runtime.exec(command, options))
    }

    fn get<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<Arc<dyn Execution>, ExecError>> {
        // The log of one that has ended is read from the disk.
        self.on_disk(id, Runtime::get)
    }

    fn dispose<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<(), ExecError>> {
        self.on_disk(id, Runtime::dispose)
    }

    fn close(&self) -> Boxed<'_, Result<Vec<ExecId>, BackendError>> {
        Box::pin(async {
            self.runtime.close().await;
            let end = self.end.lock().take();
            if let Some(end) = end {
                elsewhere(move || end.take_down()).await??;
            }
            Ok(Vec::new())
        })
    }
}
