//! Bash scripts on the workspace's own store: no mount, no second store, no
//! process of the machine but the one that interprets them.
//!
//! Scripts see the workspace as a directory, by default `/workspace`, and
//! beside it what a small Linux system has: `/tmp` and `/home/user` in memory,
//! which go with the run or the session, and `/dev/null` and the like. They
//! have no network and no programs but the tools of the interpreter and the
//! commands that the host registers.
//!
//! A script runs in a *worker*: this program, started again by the backend.
//! [`worker`] makes a program fit for that. Workers wait for the next script, so
//! that most need not be waited for.
//!
//! How scripts differ from those of bash is in `docs/shell.md`.

mod connection;
mod ledger;
mod running;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use cairn_mounts::shell::{
    Completeness, HostCall, HostCommand, HostResult, Limit, Limits, completeness,
};
use cairn_mounts::shell::{HostCommands, Program};

use super::{Backend, BackendError, Connection, Host};
use crate::exec::Boxed;
use crate::waiting::elsewhere;
use connection::ShellConnection;

/// What a program is called with to be a worker: its first argument.
pub const WORKER: &str = "shell-worker";
/// Whether this program has called [`worker`].
static IS_FIT: AtomicBool = AtomicBool::new(false);

/// Makes this program fit to run scripts: call it first in `main`.
///
/// The shell backend starts the program again, and this function is then the
/// worker, and ends with it. Otherwise it does nothing but note that it was
/// called; a program that does not call it needs [`Shell::program`].
pub fn worker() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == WORKER) {
        let memory = arguments.next();
        let memory = memory.and_then(|bytes| bytes.to_str()?.parse().ok());
        let Some(memory) = memory else {
            std::process::exit(2);
        };
        let _ = cairn_mounts::shell::serve(memory);
        std::process::exit(1);
    }
    IS_FIT.store(true, Ordering::Relaxed);
}

/// Runs bash scripts on the store of the workspace.
///
/// # Examples
///
/// ```standalone_crate
/// use cairn::{Workspace, backend::{self, Shell}};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     backend::shell::worker();
///     cairn::block_on(async {
///         let workspace = Workspace::builder()
///             .backend("shell", Shell::new())
///             .in_memory()
///             .await?;
///         workspace.fs().blocking().write_file("/greeting", b"hello\n")?;
///         let output = workspace.run("tr a-z A-Z < greeting | tee loud").await?;
///         assert_eq!(output.text(), "HELLO\n");
///         assert_eq!(workspace.fs().blocking().read_file("/loud")?, b"HELLO\n");
///         workspace.close().await?;
///         Ok(())
///     })
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Shell {
    program: Option<Program>,
    root: String,
    limits: Limits,
    session: bool,
    env: Vec<(String, String)>,
    commands: HostCommands,
    idle_max: usize,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            program: None,
            root: "/workspace".into(),
            limits: Limits::default(),
            session: false,
            env: Vec::new(),
            commands: HostCommands::new(),
            idle_max: 2,
        }
    }
}

impl Shell {
    /// Each script begins anew, whatever ran before.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scripts run one after the other, and variables, functions, aliases, the
    /// working directory and what is outside of the workspace stay from one to
    /// the next. Traps and `set` options do not.
    #[must_use]
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Where scripts see the workspace: an absolute path without dots. Default:
    /// `/workspace`.
    #[must_use]
    pub fn root(mut self, path: impl Into<String>) -> Self {
        self.root = path.into();
        self
    }

    /// What a script may take. Its time is in its
    /// [`ExecOptions`](crate::exec::ExecOptions).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// A variable for all scripts.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A command that scripts can call and this process performs. It takes the
    /// place of a tool of the same name.
    #[must_use]
    pub fn command(mut self, name: impl Into<String>, command: impl HostCommand + 'static) -> Self {
        self.commands.insert(name.into(), Arc::new(command));
        self
    }

    /// The program whose processes run scripts, in place of this one: `cairn`,
    /// or one that calls [`worker`] first, of the same version.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(Program {
            path: path.into(),
            arguments: vec![WORKER.into()],
        });
        self
    }

    /// Workers that are kept for the next script. Default: 2, each of about 15
    /// MiB.
    #[must_use]
    pub fn idle_workers(mut self, most: usize) -> Self {
        self.idle_max = most;
        self
    }

    /// The program that is started for a worker.
    fn worker_program(&self) -> Result<Program, BackendError> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        if IS_FIT.load(Ordering::Relaxed) {
            return Ok(Program {
                // Also when the file was replaced meanwhile.
                path: "/proc/self/exe".into(),
                arguments: vec![WORKER.into()],
            });
        }
        Err(
            "this program cannot run scripts: call `cairn::backend::shell::worker()` first in \
             `main`, or give the path of `cairn` to `Shell::program`"
                .into(),
        )
    }

    fn check_root(&self) -> Result<(), BackendError> {
        let path = std::path::Path::new(&self.root);
        let plain = path
            .components()
            .skip(1)
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if path.is_absolute() && plain && self.root.len() > 1 && !self.root.ends_with('/') {
            return Ok(());
        }
        Err(format!(
            "{:?} cannot be where scripts see the workspace; give an absolute path such as /workspace",
            self.root
        )
        .into())
    }
}

impl Backend for Shell {
    fn kind(&self) -> &'static str {
        "shell"
    }

    fn connect(&self, host: Host) -> Boxed<'_, Result<Arc<dyn Connection>, BackendError>> {
        let this = self.clone();
        Box::pin(async move {
            this.check_root()?;
            let program = this.worker_program()?;
            let begin = move || ShellConnection::begin(this, program, host);
            let connection = elsewhere(begin).await??;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        })
    }
}
