//! A shell that is ready: its workers, and the scripts on them.
//!
//! A worker runs one script at a time. Those that wait are kept in a row; who
//! finds none starts one. A session has one worker, which its scripts wait for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::Replica;
use cairn_mounts::shell::{HostCommands, Job, Limit, Program, Why, Worker};
use parking_lot::{Condvar, Mutex};

use super::ledger::Ledger;
use super::running::Running;
use super::{Connection, Host, Shell};
use crate::backend::BackendError;
use crate::exec::shared::confined_worker;
use crate::exec::{
    Boxed, Command, Confinement, Ended, ExecError, ExecId, ExecOptions, Execution, Exit, Leftovers,
    Result, RuntimeId,
};
use crate::waiting::elsewhere;

/// A worker that has more memory than this after a script is not kept.
const MEMORY_KEPT: u64 = 96 << 20;
/// How long closing waits for scripts that were stopped.
const CLOSING: Duration = Duration::from_secs(5);

/// What there is while it is connected.
#[derive(Debug)]
pub(super) struct ShellConnection {
    shared: Arc<Shared>,
    confinement: Confinement,
}

#[derive(Debug)]
struct Shared {
    shell: Shell,
    program: Program,
    replica: Replica,
    commands: Arc<HostCommands>,
    ledger: Ledger,
    workers: Mutex<Workers>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Workers {
    idle: Vec<Worker>,
    /// In a session, somebody has its worker.
    taken: bool,
    /// What a session has lost is told once.
    lost: bool,
    /// Where a session is.
    cwd: Option<String>,
    closed: bool,
}

impl ShellConnection {
    pub(super) fn begin(shell: Shell, program: Program, host: Host) -> Result<Self, BackendError> {
        let shared = Arc::new(Shared {
            ledger: Ledger::open(host.directory.as_deref())?,
            commands: Arc::new(shell.commands.clone()),
            replica: host.replica,
            program,
            workers: Mutex::default(),
            free: Condvar::new(),
            shell,
        });
        // The first script needs one, and what is wrong with it is found now.
        let first = shared.start()?;
        shared.workers.lock().idle.push(first);
        Ok(Self {
            shared,
            confinement: confined_worker(),
        })
    }
}

impl Shared {
    fn start(&self) -> std::io::Result<Worker> {
        let shell = &self.shell;
        Worker::start(
            &self.program,
            &self.replica,
            &shell.root,
            &shell.limits,
            &self.commands,
        )
    }

    /// A worker for one script, until somebody stops it or its time is over.
    fn worker(
        &self,
        running: &Running,
        deadline: Option<Instant>,
    ) -> std::io::Result<Option<Worker>> {
        let mut workers = self.workers.lock();
        while self.shell.session && workers.taken {
            if running.stopper().is_asked() || deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(None);
            }
            // Who stops a script that waits here is noticed soon enough.
            self.free.wait_for(&mut workers, Duration::from_millis(20));
        }
        workers.taken = true;
        if let Some(worker) = workers.idle.pop() {
            return Ok(Some(worker));
        }
        drop(workers);
        let started = self.start();
        if started.is_err() {
            self.give_back(None);
        }
        started.map(Some)
    }

    /// Keeps a worker for the next script, if it is fit for one.
    fn give_back(&self, worker: Option<Worker>) {
        let session = self.shell.session;
        let worker = worker.filter(Worker::is_usable);
        let worker = worker.filter(|worker| session || worker.memory_bytes() <= MEMORY_KEPT);
        let mut workers = self.workers.lock();
        workers.taken = false;
        let most = if session { 1 } else { self.shell.idle_max };
        let rejected = match worker {
            Some(worker) if !workers.closed && workers.idle.len() < most => {
                workers.idle.push(worker);
                None
            }
            other => other,
        };
        drop(workers);
        self.free.notify_one();
        drop(rejected);
    }

    /// Runs a script to its end.
    fn run(&self, running: &Running, mut job: Job) {
        let deadline = job
            .timeout
            .and_then(|time| Instant::now().checked_add(time));
        let Some(stdin) = running.collect(deadline) else {
            return self.unstarted(running);
        };
        job.stdin = stdin;
        let mut worker = match self.worker(running, deadline) {
            Ok(Some(worker)) => worker,
            Ok(None) => return self.unstarted(running),
            Err(error) => {
                let said = format!("cairn: no process can be started to run the script: {error}\n");
                running.output(true, said.as_bytes());
                return self.end(running, 126, Why::Died);
            }
        };
        job.timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if self.shell.session {
            self.resume(running, &mut job);
        }
        let stop = running.stopper();
        let ended = worker.run(&job, stop, &mut |is_error, bytes| {
            running.output(is_error, bytes);
        });
        if self.shell.session {
            let mut workers = self.workers.lock();
            workers.lost = !worker.is_usable();
            if let Some(cwd) = ended.cwd {
                workers.cwd = Some(cwd);
            }
        }
        // Before its end is told: who asks for the next one then finds this.
        self.give_back(Some(worker));
        self.end(running, ended.code, ended.why);
        self.refill();
    }

    /// Starts a worker for the next script where the last one was not kept.
    fn refill(&self) {
        let session = self.shell.session;
        {
            let mut workers = self.workers.lock();
            let busy = session && workers.taken;
            if workers.closed || busy || !workers.idle.is_empty() {
                return;
            }
            // A session has one worker at a time.
            workers.taken = session;
        }
        // Who needs one tries again, and is told why it fails.
        self.give_back(self.start().ok());
    }

    /// A session whose worker died goes on where it was, without its variables.
    fn resume(&self, running: &Running, job: &mut Job) {
        let mut workers = self.workers.lock();
        if std::mem::take(&mut workers.lost) {
            let said = "cairn: the last script ended the session's process: its variables and \
                        functions are lost\n";
            running.output(true, said.as_bytes());
            job.cwd = job.cwd.take().or_else(|| workers.cwd.clone());
        }
    }

    /// It was stopped, or its time was over, before anything of it ran.
    fn unstarted(&self, running: &Running) {
        if running.killed().is_some() {
            return self.end(running, 130, Why::Stopped);
        }
        let limit = Limit::Time;
        running.output(true, format!("cairn: {}\n", limit.message()).as_bytes());
        self.end(running, limit.code(), Why::Limit(limit));
    }

    fn end(&self, running: &Running, code: i32, why: Why) {
        let (code, ended) = match (why, running.killed()) {
            (Why::Stopped, signal) => {
                let number = signal.map_or(2, crate::exec::Signal::number);
                (128 + number, Ended::Killed)
            }
            (Why::Limit(Limit::Time), _) => (code, Ended::TimedOut),
            _ => (code, Ended::Exited),
        };
        running.end(Exit {
            code,
            ended,
            leftovers: Leftovers::None,
        });
        self.ledger.has_ended(running.id());
    }

    fn job(&self, command: &Command, options: &ExecOptions) -> Result<Job> {
        if options.terminal.is_some() {
            return Err(ExecError::NotSupported("a terminal for a script"));
        }
        if options.detach {
            return Err(ExecError::NotSupported("processes that outlive a script"));
        }
        if options.limits != crate::exec::Limits::default() {
            return Err(ExecError::NotSupported(
                "limits of one script; `Shell::limits` is for all",
            ));
        }
        let mut env = self.shell.env.clone();
        for (name, value) in &options.env {
            env.push((text(name)?, text(value)?));
        }
        let named = |name: &String| {
            let mut bytes = name.bytes();
            let first = bytes
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !env.iter().all(|(name, _)| named(name)) {
            return Err(ExecError::BadCommand(
                "a variable's name has something else than letters, digits and _",
            ));
        }
        let cwd = options
            .cwd
            .as_deref()
            .map(|cwd| self.cwd(cwd))
            .transpose()?;
        Ok(Job {
            script: script(command)?,
            env,
            cwd,
            session: self.shell.session,
            timeout: options.timeout,
            ..Job::default()
        })
    }

    /// A working directory in the shell's names, which must be there if it is
    /// in the workspace.
    fn cwd(&self, cwd: &Path) -> Result<String> {
        let root = Path::new(&self.shell.root);
        let path = normal(&root.join(cwd));
        let failed = |source: std::io::Error| ExecError::Cwd {
            path: cwd.into(),
            source,
        };
        if let Ok(inside) = path.strip_prefix(root) {
            let inside = [b"/", inside.as_os_str().as_bytes()].concat();
            let attr = self
                .replica
                .stat(inside)
                .map_err(|error| failed(error.into()))?;
            if attr.kind != cairn_protocol::NodeKind::Dir {
                return Err(failed(std::io::ErrorKind::NotADirectory.into()));
            }
        }
        text(path.as_os_str())
    }
}

/// A path without dots; `..` of the root is the root.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

fn text(text: &std::ffi::OsStr) -> Result<String> {
    let not = ExecError::BadCommand("an argument, variable or path is not UTF-8");
    text.to_str().map(str::to_owned).ok_or(not)
}

/// The script of a command. An argument list is one command with its words quoted.
fn script(command: &Command) -> Result<Vec<u8>> {
    match command {
        Command::Shell(source) => Ok(source.as_bytes().to_vec()),
        Command::Argv(words) => {
            if words.first().is_none_or(|name| name.is_empty()) {
                return Err(ExecError::BadCommand("it has no program"));
            }
            let quoted = words.iter().map(|word: &OsString| {
                let word = text(word)?.replace('\'', "'\\''");
                Ok(format!("'{word}'"))
            });
            Ok(quoted.collect::<Result<Vec<_>>>()?.join(" ").into_bytes())
        }
    }
}

impl Connection for ShellConnection {
    fn runtime(&self) -> &RuntimeId {
        self.shared.ledger.id()
    }

    fn confinement(&self) -> Option<&Confinement> {
        Some(&self.confinement)
    }

    fn exec(
        &self,
        command: Command,
        options: ExecOptions,
    ) -> Boxed<'_, Result<Arc<dyn Execution>>> {
        let started = self.begin_script(&command, &options);
        Box::pin(std::future::ready(started))
    }

    fn get<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<Arc<dyn Execution>>> {
        self.on_disk(id, Ledger::get)
    }

    fn dispose<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<()>> {
        self.on_disk(id, Ledger::dispose)
    }

    fn close(&self) -> Boxed<'_, Result<Vec<ExecId>, BackendError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            elsewhere(move || shared.close()).await?;
            Ok(Vec::new())
        })
    }
}

impl ShellConnection {
    fn begin_script(&self, command: &Command, options: &ExecOptions) -> Result<Arc<dyn Execution>> {
        let job = self.shared.job(command, options)?;
        let running = self.shared.ledger.take(command, options)?;
        let (shared, theirs) = (Arc::clone(&self.shared), Arc::clone(&running));
        let spawned = std::thread::Builder::new()
            .name("cairn-shell".into())
            .spawn(move || shared.run(&theirs, job));
        if let Err(source) = spawned {
            self.shared.ledger.give_back(&running);
            return Err(ExecError::Start {
                what: "a thread for the script",
                source,
            });
        }
        Ok(running)
    }

    fn on_disk<T: Send + 'static>(
        &self,
        id: &ExecId,
        operation: fn(&Ledger, &ExecId) -> Result<T>,
    ) -> Boxed<'static, Result<T>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let done = elsewhere(move || operation(&shared.ledger, &id));
        let what = "a thread that reads the log";
        Box::pin(async move {
            let failed = |source| ExecError::Start { what, source };
            done.await.map_err(failed)?
        })
    }
}

impl Shared {
    fn close(&self) {
        let running = self.ledger.close();
        let until = Instant::now() + CLOSING;
        for exec in running {
            while !exec.has_ended() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let mut workers = self.workers.lock();
        workers.closed = true;
        let idle = std::mem::take(&mut workers.idle);
        drop(workers);
        drop(idle);
    }
}

impl Drop for ShellConnection {
    fn drop(&mut self) {
        self.shared.close();
    }
}
