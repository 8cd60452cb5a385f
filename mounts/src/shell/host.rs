//! The host's end: starts a worker, gives it scripts, and does what it asks on
//! the replica.
//!
//! A run takes the thread that calls it. What the worker wants is done in that
//! thread, in order; so is the output, and so a reader that does not take it
//! slows the script, and fills no memory. Waiting for the worker ends when it
//! says something, when somebody stops the run, or when its time is over. A
//! script that does not end within [`GRACE`] of that is ended with its process.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::Replica;
use rustix::event::{EventfdFlags, eventfd};

use super::calls::{HostCall, HostCommands};
use super::incoming::{Event, Incoming};
use super::interpreter::SCRIPT_MAX;
use super::store::Store;
use super::wire::{self, Answer, Ask, BYTES_MAX, Call, Done, FromWorker, Run, ToWorker, VERSION};
use super::{Limit, Limits};

/// Time that a script has to end when it is cancelled.
const GRACE: Duration = Duration::from_millis(50);
/// Time that a new worker has to say hello.
const HELLO: Duration = Duration::from_secs(30);
/// A worker that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is kept of a dead worker's last words.
const LAST_WORDS: usize = 4 << 10;

/// The program that a worker is: it calls [`super::serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments; the worker's memory limit in bytes comes after them.
    pub arguments: Vec<OsString>,
}

/// A script, and how it is run.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The script.
    pub script: Vec<u8>,
    /// What `$0` is. Default: `bash`.
    pub name: Option<String>,
    /// What `$1` and so on are.
    pub arguments: Vec<String>,
    /// The whole standard input.
    pub stdin: Vec<u8>,
    /// The working directory, in the shell's names. Default: the root of the
    /// workspace or, in a session, where the last run ended.
    pub cwd: Option<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Whether variables, functions and the working directory are kept for the
    /// next run on the same worker.
    pub session: bool,
    /// Time until it is ended. Default: any.
    pub timeout: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status, as a shell's: 0 to 255.
    pub code: i32,
    /// Why.
    pub why: Why,
    /// The working directory at the end, if the worker lives.
    pub cwd: Option<String>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The script came to its end.
    Exited,
    /// It was stopped.
    Stopped,
    /// A limit ended it.
    Limit(Limit),
    /// The worker died of something else.
    Died,
}

/// Stops a run from another thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Stopper>);

#[derive(Debug)]
struct Stopper {
    asked: AtomicBool,
    wake: OwnedFd,
}

impl Stop {
    /// One for one run.
    ///
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(Stopper {
            asked: AtomicBool::new(false),
            wake: eventfd(0, flags)?,
        })))
    }

    /// Ends the run, or keeps it from beginning.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        // A number that is not 0, whichever way round the machine has it; it cannot be full.
        let _ = rustix::io::write(&self.0.wake, &[1, 0, 0, 0, 0, 0, 0, 1]);
    }

    /// Whether somebody wants the run to end.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }
}

/// A process that runs scripts.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stream: UnixStream,
    cancel: UnixStream,
    last_words: io::PipeReader,
    incoming: Incoming,
    replica: Replica,
    commands: Arc<HostCommands>,
    root: String,
    limits: Limits,
    runs: u64,
    usable: bool,
}

impl Worker {
    /// Starts a worker for a replica, which is at `root` in its scripts' names.
    ///
    /// # Errors
    ///
    /// When the program cannot be started, or is not a worker of this version.
    pub fn start(
        program: &Program,
        replica: &Replica,
        root: &str,
        limits: &Limits,
        commands: &Arc<HostCommands>,
    ) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let (cancel, cancelled) = UnixStream::pair()?;
        let (last_words, errors) = io::pipe()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .arg(limits.memory_bytes.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(cancelled))
            .stderr(errors)
            .spawn()?;
        let mut this = Self {
            child,
            stream,
            cancel,
            last_words,
            incoming: Incoming::default(),
            replica: replica.clone(),
            commands: Arc::clone(commands),
            root: root.into(),
            limits: limits.clone(),
            runs: 0,
            usable: true,
        };
        this.greet(program)?;
        Ok(this)
    }

    fn greet(&mut self, program: &Program) -> io::Result<()> {
        let not = |why: &str| {
            let path = program.path.display();
            io::Error::other(format!(
                "{path} is no worker of this version of cairn: {why}"
            ))
        };
        let stop = Stop::new()?;
        match self.wait(&stop, Some(Instant::now() + HELLO))? {
            Event::Said(FromWorker::Hello(VERSION), _) => Ok(()),
            Event::Said(..) => Err(not("it said something else")),
            Event::Gone => Err(not(&format!("it ended: {}", self.last_words()))),
            _ => Err(not("it said nothing")),
        }
    }

    /// Whether it can run another script.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Memory that it has, in bytes, as the kernel counts it.
    pub fn memory_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()));
        let pages = statm.ok().and_then(|statm| {
            let resident = statm.split(' ').nth(1)?;
            resident.parse::<u64>().ok()
        });
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    /// Runs a script, and returns when it has ended. Output comes in pieces of
    /// at most 1 MiB; `true` goes with the standard error.
    pub fn run(&mut self, job: &Job, stop: &Stop, output: &mut dyn FnMut(bool, &[u8])) -> Ended {
        let mut store = Store::new(self.replica.clone());
        self.runs += 1;
        if job.script.len() > SCRIPT_MAX {
            return Self::ended(Limit::Script.code(), Why::Limit(Limit::Script), output);
        }
        if job.stdin.len() as u64 > self.limits.whole_file_bytes {
            return Self::ended(Limit::Memory.code(), Why::Limit(Limit::Memory), output);
        }
        let deadline = job
            .timeout
            .and_then(|time| Instant::now().checked_add(time));
        let ended = self
            .send(job)
            .and_then(|()| self.follow(&mut store, stop, deadline, output));
        ended.unwrap_or_else(|error| {
            tracing::warn!(%error, "a shell worker broke");
            self.kill();
            Self::ended(1, Why::Died, output)
        })
    }

    fn send(&mut self, job: &Job) -> io::Result<()> {
        for piece in job.stdin.chunks(BYTES_MAX) {
            wire::send(&mut self.stream, &ToWorker::Input, piece)?;
        }
        let run = Run {
            number: self.runs,
            root: self.root.clone(),
            cwd: job.cwd.clone(),
            env: job.env.clone(),
            name: job.name.clone().unwrap_or_else(|| "bash".into()),
            arguments: job.arguments.clone(),
            session: job.session,
            commands: self.commands.keys().cloned().collect(),
            limits: self.limits.clone(),
        };
        wire::send(&mut self.stream, &ToWorker::Run(Box::new(run)), &job.script)
    }

    /// Serves the worker until its script has ended.
    fn follow(
        &mut self,
        store: &mut Store,
        stop: &Stop,
        mut deadline: Option<Instant>,
        output: &mut dyn FnMut(bool, &[u8]),
    ) -> io::Result<Ended> {
        let mut cancelled: Option<Why> = None;
        loop {
            let event = match cancelled {
                None => self.wait(stop, deadline)?,
                // What stops it has come already.
                Some(_) => self.wait_only(deadline)?,
            };
            let why = match event {
                Event::Said(FromWorker::Ask(ask), bytes) => {
                    self.answer(store, ask, &bytes)?;
                    continue;
                }
                Event::Said(FromWorker::Output { is_error }, bytes) => {
                    output(is_error, &bytes);
                    continue;
                }
                Event::Said(FromWorker::Done(done), _) => {
                    return Ok(Self::done(done, cancelled, output));
                }
                Event::Said(FromWorker::Hello(_), _) => {
                    return Err(wire::malformed("the worker greeted twice"));
                }
                Event::Gone => return Ok(self.died(cancelled, output)),
                Event::Stopped => Why::Stopped,
                Event::TimeIsOver => match cancelled {
                    Some(why) => {
                        self.kill();
                        return Ok(Self::ended(code_of(why), why, output));
                    }
                    None => Why::Limit(Limit::Time),
                },
            };
            self.cancel.write_all(&self.runs.to_le_bytes())?;
            cancelled = Some(why);
            deadline = Some(Instant::now() + GRACE);
        }
    }

    fn answer(&mut self, store: &mut Store, ask: Ask, bytes: &[u8]) -> io::Result<()> {
        // What changes while a directory is listed may not be in the list.
        let before = self.replica.last_change();
        let lists = matches!(ask, Ask::List(..));
        let (answer, content) = match ask {
            Ask::Command(call) => self.command(&call, bytes),
            ask => store.perform(ask, bytes),
        };
        let change = if lists {
            before
        } else {
            self.replica.last_change()
        };
        wire::send(
            &mut self.stream,
            &ToWorker::Answer(answer, change),
            &content,
        )
    }

    fn command(&self, call: &Call, stdin: &[u8]) -> (Answer, Vec<u8>) {
        let Some(command) = self.commands.get(&call.name) else {
            return (
                Answer::Failed(rustix::io::Errno::NOSYS.raw_os_error(), None),
                Vec::new(),
            );
        };
        let done = command.perform(&HostCall {
            name: &call.name,
            arguments: &call.arguments,
            env: &call.env,
            cwd: &call.cwd,
            stdin,
            replica: &self.replica,
        });
        let mut bytes = done.stdout;
        bytes.truncate(BYTES_MAX);
        let out = bytes.len() as u64;
        bytes.extend(done.stderr.iter().take(BYTES_MAX - bytes.len()));
        (Answer::Performed(done.code & 0xff, out), bytes)
    }

    fn done(done: Done, cancelled: Option<Why>, output: &mut dyn FnMut(bool, &[u8])) -> Ended {
        let why = match (cancelled, done.limit) {
            (Some(why), _) if done.cancelled => why,
            (_, Some(limit)) => Why::Limit(limit),
            _ => Why::Exited,
        };
        let code = match why {
            Why::Exited => done.code,
            why => code_of(why),
        };
        let cwd = Some(done.cwd);
        Ended {
            cwd,
            ..Self::ended(code, why, output)
        }
    }

    /// The end of a run, after the limit that was passed was named.
    fn ended(code: i32, why: Why, output: &mut dyn FnMut(bool, &[u8])) -> Ended {
        if let Why::Limit(limit) = why {
            output(true, format!("cairn: {}\n", limit.message()).as_bytes());
        }
        Ended {
            code,
            why,
            cwd: None,
        }
    }

    /// The worker is gone, and what is left of it says why.
    fn died(&mut self, cancelled: Option<Why>, output: &mut dyn FnMut(bool, &[u8])) -> Ended {
        self.kill();
        let status = self.child.wait().ok();
        if let Some(why) = cancelled {
            return Self::ended(code_of(why), why, output);
        }
        let words = self.last_words();
        let signal = status.as_ref().and_then(ExitStatus::signal);
        let limit = if words.contains("overflowed its stack") {
            Some(Limit::Recursion)
        } else if words.contains("memory allocation") || signal == Some(9) {
            Some(Limit::Memory)
        } else {
            None
        };
        if let Some(limit) = limit {
            return Self::ended(limit.code(), Why::Limit(limit), output);
        }
        let code = signal.map_or(1, |signal| 128 + signal);
        let said = format!(
            "cairn: the process that ran the script died: {}\n",
            words.trim()
        );
        output(true, said.as_bytes());
        Self::ended(code, Why::Died, output)
    }

    fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        // The process is gone, and with it the other end.
        let limited = self.last_words.by_ref().take(LAST_WORDS as u64);
        let mut limited = limited;
        let _ = limited.read_to_end(&mut words);
        String::from_utf8_lossy(&words).into_owned()
    }

    fn kill(&mut self) {
        self.usable = false;
        // It may be gone already.
        let _ = self.child.kill();
    }

    fn wait(&mut self, stop: &Stop, deadline: Option<Instant>) -> io::Result<Event> {
        if stop.is_asked() {
            return Ok(Event::Stopped);
        }
        if is_over(deadline) {
            return Ok(Event::TimeIsOver);
        }
        let wake = stop.0.wake.as_fd();
        self.incoming.wait(&self.stream, Some(wake), deadline)
    }

    fn wait_only(&mut self, deadline: Option<Instant>) -> io::Result<Event> {
        if is_over(deadline) {
            return Ok(Event::TimeIsOver);
        }
        self.incoming.wait(&self.stream, None, deadline)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// A worker that never stops talking must not keep its time from being over.
fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

fn code_of(why: Why) -> i32 {
    match why {
        Why::Exited => 0,
        Why::Stopped => 130,
        Why::Limit(limit) => limit.code(),
        Why::Died => 1,
    }
}
