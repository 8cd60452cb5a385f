//! What runs execs: one thread for any number of them, and their logs.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::confine::{Confine, Confinement, Network, Rules};
use super::environment;
use super::event::{Ended, Exit, Leftovers};
use super::handle::Execution;
use super::id::{ExecId, RuntimeId};
use super::journal::{Journal, Start};
use super::launch::{Launch, launch};
use super::log::Log;
use super::options::{Command, ExecOptions};
use super::orphans;
use super::process::{Process, now_ms};
use super::signal::Signal;
use super::supervise::{Course, Supervised, failure};
use super::{ExecError, Result};

/// Execs between two sweeps of old logs.
const SWEEP_EVERY: u64 = 64;
/// How long [`Runtime::close`] waits for what it killed.
const CLOSING: Duration = Duration::from_secs(5);
/// The end of what nobody saw end.
const LOST: Exit = Exit {
    code: -1,
    ended: Ended::Lost,
    leftovers: Leftovers::None,
};

/// How a runtime runs execs.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// The root of the workspace, which relative working directories are in.
    pub root: PathBuf,
    /// Variables for every exec, beside those of the allow-list.
    pub env: Vec<(OsString, OsString)>,
    /// How processes are confined.
    pub confine: Confine,
    /// Directories beside `root` that may be written in any case.
    pub writable: Vec<PathBuf>,
    /// Where logs are kept. Default: in memory, and they end with the runtime.
    pub logs: Option<PathBuf>,
    /// Most bytes of events that are kept of one exec, the newest: on disk, or
    /// in memory where there is no directory. Default: 16 MiB, at least 512 KiB.
    pub log_bytes: u64,
    /// How long the log of an exec is kept on disk after its last event.
    /// Default: 1 h.
    pub keep: Duration,
    /// How many logs of execs that ended are kept in memory, where there is no
    /// directory. Default: 16.
    pub keep_in_memory: usize,
}

impl RuntimeOptions {
    /// The defaults for a workspace whose root is here.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            env: Vec::new(),
            confine: Confine::default(),
            writable: Vec::new(),
            logs: None,
            log_bytes: 16 << 20,
            keep: Duration::from_hours(1),
            keep_in_memory: 16,
        }
    }
}

/// Runs execs. Dropping it kills them; what it logged on disk stays.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
    /// Ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    id: RuntimeId,
    options: RuntimeOptions,
    rules: Rules,
    journal: Option<Journal>,
    handle: Handle,
    execs: Mutex<Execs>,
    started: AtomicU64,
}

#[derive(Debug, Default)]
struct Execs {
    known: HashMap<ExecId, Arc<Process>>,
    /// Those in memory that have ended, the oldest first.
    ended: VecDeque<ExecId>,
    closed: bool,
}

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    ///
    /// [`ExecError::Confine`] when less can be enforced than was asked for,
    /// [`ExecError::Directory`], [`ExecError::Start`].
    pub fn new(options: RuntimeOptions) -> Result<Self> {
        let own: Vec<&Path> = std::iter::once(&options.root)
            .chain(&options.writable)
            .map(PathBuf::as_path)
            .collect();
        let rules = Rules::prepare(&options.confine, &own)?;
        let journal = options.logs.as_deref().map(Journal::open).transpose()?;
        let start = |source| ExecError::Start {
            what: "the thread of the runtime",
            source,
        };
        let driver = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start)?;
        let shared = Arc::new(Shared {
            id: RuntimeId::random(),
            rules,
            journal,
            handle: driver.handle().clone(),
            execs: Mutex::default(),
            started: AtomicU64::new(0),
            options,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("cairn-exec".into())
            .spawn(move || {
                // The sender's end counts as well.
                let _ = driver.block_on(stopped);
                driver.shutdown_background();
            })
            .map_err(start)?;
        shared.sweep();
        if let Some(journal) = &shared.journal {
            orphans::end(&journal.marks(), &shared.id);
        }
        Ok(Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its identity: another one after each start.
    pub fn id(&self) -> &RuntimeId {
        &self.shared.id
    }

    /// How its processes are confined.
    pub fn confinement(&self) -> &Confinement {
        &self.shared.rules.report
    }

    /// Runs a command, and returns when its program was executed.
    ///
    /// # Errors
    ///
    /// [`ExecError`] says why it was not. Then nothing of it has run.
    ///
    /// # Cancel safety
    ///
    /// It may have been started. With an id of the caller's, [`Self::get`] tells.
    pub async fn exec(&self, command: Command, options: ExecOptions) -> Result<Arc<dyn Execution>> {
        let shared = Arc::clone(&self.shared);
        let (answer, answered) = oneshot::channel();
        self.shared.handle.spawn(async move {
            match shared.start(command, options).await {
                Ok((process, supervised)) => {
                    // Who asked may be gone; the exec is there all the same.
                    let _ = answer.send(Ok(Arc::clone(&process)));
                    supervised.run().await;
                    shared.has_ended(process.id());
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        });
        let process = answered.await.map_err(|_| ExecError::Closed)??;
        Ok(process)
    }

    /// An exec of this runtime, or what an earlier one left in the same
    /// directory: its log, and that it is lost if it had not ended.
    ///
    /// # Errors
    ///
    /// [`ExecError::Unknown`], [`ExecError::Log`].
    pub fn get(&self, id: &ExecId) -> Result<Arc<dyn Execution>> {
        let known = self.shared.execs.lock().known.get(id).cloned();
        if let Some(process) = known {
            return Ok(process);
        }
        let found = match &self.shared.journal {
            Some(journal) => journal.find(id, self.shared.options.log_bytes)?,
            None => None,
        };
        let (_, log) = found.ok_or_else(|| self.shared.unknown(id))?;
        let process = Process::new(id.clone(), log);
        if !process.has_ended() {
            process.end(LOST);
        }
        Ok(Arc::new(process))
    }

    /// Forgets an exec that has ended, and its log.
    ///
    /// # Errors
    ///
    /// [`ExecError::Running`], [`ExecError::Unknown`], [`ExecError::Log`].
    pub fn dispose(&self, id: &ExecId) -> Result<()> {
        let mut execs = self.shared.execs.lock();
        let known = match execs.known.get(id) {
            Some(process) if !process.has_ended() => return Err(ExecError::Running(id.clone())),
            known => known.is_some(),
        };
        execs.known.remove(id);
        execs.ended.retain(|ended| ended != id);
        drop(execs);
        let logged = match &self.shared.journal {
            Some(journal) => journal.remove(id)?,
            None => false,
        };
        if known || logged {
            Ok(())
        } else {
            Err(self.shared.unknown(id))
        }
    }

    /// How many execs run.
    pub fn running(&self) -> usize {
        let execs = self.shared.execs.lock();
        execs
            .known
            .values()
            .filter(|exec| !exec.has_ended())
            .count()
    }

    /// Asks what runs to end (TERM), and returns when all has, or the time is over.
    ///
    /// # Cancel safety
    ///
    /// What was asked stays asked.
    pub async fn terminate(&self, within: Duration) {
        let running = self.shared.signal_all(Signal::TERM);
        let (answer, answered) = oneshot::channel::<()>();
        self.shared.handle.spawn(async move {
            let gone = async {
                for process in running {
                    // Its log does not matter now.
                    let _ = process.exit().await;
                }
            };
            let _ = tokio::time::timeout(within, gone).await;
            drop(answer);
        });
        let _ = answered.await;
    }

    /// Kills what runs, and returns when it is gone.
    ///
    /// # Cancel safety
    ///
    /// What was killed stays so; dropping the runtime does the rest.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let (answer, answered) = oneshot::channel::<()>();
        self.shared.handle.spawn(async move {
            let running = shared.kill_all();
            let gone = async {
                for process in running {
                    // Its log does not matter now.
                    let _ = process.exit().await;
                }
            };
            let _ = tokio::time::timeout(CLOSING, gone).await;
            drop(answer);
        });
        let _ = answered.await;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let running = self.shared.kill_all();
        let (answer, answered) = std::sync::mpsc::channel();
        self.shared.handle.spawn(async move {
            for process in running {
                let _ = process.exit().await;
            }
            let _ = answer.send(());
        });
        // So that nothing is left that nobody reaps.
        let _ = answered.recv_timeout(CLOSING);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn unknown(&self, id: &ExecId) -> ExecError {
        ExecError::Unknown {
            id: id.clone(),
            runtime: self.id.clone(),
        }
    }

    /// Takes an id and starts its command.
    async fn start(
        self: &Arc<Self>,
        command: Command,
        options: ExecOptions,
    ) -> Result<(Arc<Process>, Supervised)> {
        if self.started.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.sweep();
        }
        let process = self.take(&command, &options)?;
        let started = self.begin(&process, command, options).await;
        match started {
            Ok(supervised) => {
                if self.execs.lock().closed {
                    // It began while the others were killed.
                    let _ = process.signal(Signal::KILL);
                }
                Ok((process, supervised))
            }
            Err(error) => {
                self.give_back(&process);
                Err(error)
            }
        }
    }

    /// Makes an id known as one that may have been run.
    fn take(&self, command: &Command, options: &ExecOptions) -> Result<Arc<Process>> {
        let id = options.id.clone().unwrap_or_else(ExecId::random);
        let place = self.journal.as_ref().map(|journal| journal.place(&id));
        let log = Log::new(place, self.options.log_bytes);
        let process = Arc::new(Process::new(id.clone(), log).keeping(options.keep));
        {
            let mut execs = self.execs.lock();
            if execs.closed {
                return Err(ExecError::Closed);
            }
            if execs.known.contains_key(&id) {
                return Err(ExecError::Duplicate(id));
            }
            execs.known.insert(id.clone(), Arc::clone(&process));
        }
        if let Some(journal) = &self.journal {
            let start = Start {
                runtime: self.id.as_str().into(),
                command: command.summary(),
                at_ms: now_ms(),
                detach: options.detach,
            };
            journal.begin(&id, &start).inspect_err(|_| {
                self.execs.lock().known.remove(&id);
            })?;
        }
        Ok(process)
    }

    /// Frees the id of an exec of which nothing has run.
    fn give_back(&self, process: &Process) {
        process.end(LOST);
        self.execs.lock().known.remove(process.id());
        if let Some(journal) = &self.journal {
            // What stays makes the id unusable, and goes with the next sweep.
            let _ = journal.remove(process.id());
        }
    }

    async fn begin(
        &self,
        process: &Arc<Process>,
        command: Command,
        options: ExecOptions,
    ) -> Result<Supervised> {
        let course = Course {
            timeout: options.timeout,
            kill_after: options.kill_after,
            linger: options.linger,
            detach: options.detach,
            stdin: options.stdin.clone(),
        };
        let program = match &command {
            Command::Argv(argv) => argv.first().cloned().unwrap_or_default(),
            Command::Shell(_) => "/bin/sh".into(),
        };
        let launch_options = self.launch(process.id(), command, options)?;
        let cwd = launch_options.cwd.clone();
        let launched = launch(launch_options)?;
        Supervised::begin(Arc::clone(process), launched, course)
            .await
            .map_err(|error| failure(error, program.to_string_lossy().into_owned(), cwd))
    }

    fn launch(&self, id: &ExecId, command: Command, options: ExecOptions) -> Result<Launch> {
        let cwd = match &options.cwd {
            Some(cwd) => self.options.root.join(cwd),
            None => self.options.root.clone(),
        };
        let given = self.options.env.iter().chain(&options.env);
        let mut env = environment::compose(std::env::vars_os(), given);
        env.insert("PWD".into(), cwd.clone().into_os_string());
        let mark = orphans::mark(self.id.as_str(), id);
        env.insert(orphans::VARIABLE.into(), mark.into());
        if options.terminal.is_some() {
            env.entry("TERM".into()).or_insert("xterm-256color".into());
        }
        let landlock = self.rules.landlock.as_ref();
        let landlock = landlock.map(std::os::fd::OwnedFd::try_clone).transpose();
        Ok(Launch {
            command,
            cwd,
            env,
            stdin: options.stdin,
            terminal: options.terminal,
            limits: options.limits,
            dies_with_parent: !options.detach,
            no_network: self.options.confine.network == Network::None,
            landlock: landlock.map_err(|source| ExecError::Start {
                what: "the Landlock rules",
                source,
            })?,
        })
    }

    /// An exec is over: its log is found on disk, or it is one of some that are kept.
    fn has_ended(&self, id: &ExecId) {
        if let Some(journal) = &self.journal {
            journal.end(id);
            self.execs.lock().known.remove(id);
            return;
        }
        let mut execs = self.execs.lock();
        execs.ended.push_back(id.clone());
        while execs.ended.len() > self.options.keep_in_memory {
            if let Some(oldest) = execs.ended.pop_front() {
                execs.known.remove(&oldest);
            }
        }
    }

    fn sweep(&self) {
        if let Some(journal) = &self.journal {
            let kept = |id: &ExecId| self.execs.lock().known.contains_key(id);
            journal.sweep(self.options.keep, kept);
        }
    }

    /// Refuses further execs, and kills those that run.
    fn kill_all(&self) -> Vec<Arc<Process>> {
        self.signal_all(Signal::KILL)
    }

    /// Refuses further execs, and signals those that run.
    fn signal_all(&self, signal: Signal) -> Vec<Arc<Process>> {
        let mut execs = self.execs.lock();
        execs.closed = true;
        let running = execs.known.values().filter(|process| !process.has_ended());
        let running: Vec<_> = running.cloned().collect();
        drop(execs);
        for process in &running {
            // One that has just ended needs none.
            let _ = process.signal(signal);
        }
        running
    }
}
