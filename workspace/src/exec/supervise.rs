//! The course of one exec, from its start to its last event.
//!
//! It is over when its first process has ended, its group is empty and its
//! output was read to the end. Who keeps it from being over gets the time of
//! `linger`, and is killed then. A process that left the group and keeps the
//! output open is not waited for any longer either.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::event::{Ended, EventKind, Exit, Leftovers};
use super::launch::Launched;
use super::options::Stdin;
use super::process::{Group, Process};
use super::signal::Signal;
use super::sys::{self, FAILURE, Stage};
use super::{ExecError, Result, pump};

/// How long a process that was killed may take to go. Longer, and it hangs in
/// the kernel; its end is then not waited for.
const UNKILLABLE: Duration = Duration::from_secs(10);
/// How long output is read on when all who could write it were killed.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks at a group without output: the first, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));
/// From this pause on, a group that seems to be there is looked at closely.
const CLOSELY: Duration = Duration::from_millis(16);

/// What the options say about the course.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_after: Duration,
    pub(crate) linger: Duration,
    pub(crate) detach: bool,
    pub(crate) stdin: Stdin,
}

/// How a first process ended: its exit code, and the signal that ended it.
#[derive(Clone, Copy, Debug)]
struct Status {
    code: i32,
    signal: Option<i32>,
}

/// A process from its start on.
pub(crate) struct Supervised {
    process: Arc<Process>,
    course: Course,
    group: Group,
    /// Its end. The process is reaped even if nobody waits for it here.
    end: oneshot::Receiver<Status>,
    deadline: Option<Instant>,
    pumps: JoinSet<()>,
    feed: Option<tokio::task::AbortHandle>,
    has_terminal: bool,
}

impl Supervised {
    /// Takes a process over, and returns when its program was executed.
    ///
    /// # Errors
    ///
    /// Why it was not. The process is gone then.
    pub(crate) async fn begin(
        process: Arc<Process>,
        launched: Launched,
        course: Course,
    ) -> Result<Self, (Stage, std::io::Error)> {
        let group = Group {
            leader: Arc::new(launched.pidfd),
            pid: launched.pid,
        };
        let mut this = Self {
            deadline: course.timeout.map(|time| Instant::now() + time),
            end: reap(Arc::clone(&group.leader)),
            process,
            course,
            group,
            pumps: JoinSet::new(),
            feed: None,
            has_terminal: launched.terminal.is_some(),
        };
        if let Err(failure) = this.executed(launched.report).await {
            let _ = this.group.signal(Signal::KILL);
            let _ = timeout(UNKILLABLE, &mut this.end).await;
            return Err(failure);
        }
        let out = launched.stdout;
        this.pumps.spawn(pump::drain(
            out,
            Arc::clone(&this.process),
            EventKind::Stdout,
        ));
        if let Some(err) = launched.stderr {
            this.pumps.spawn(pump::drain(
                err,
                Arc::clone(&this.process),
                EventKind::Stderr,
            ));
        }
        this.open_input(launched.stdin, launched.terminal);
        Ok(this)
    }

    /// Waits until the child executes its program, which may have to be read
    /// from a mount.
    async fn executed(&self, report: OwnedFd) -> Result<(), (Stage, std::io::Error)> {
        let failed = |error| (Stage::Program, error);
        let report = sys::wait_for(Arc::new(report), Interest::READABLE).map_err(failed)?;
        let mut message = [0; FAILURE];
        let read = report.async_io(Interest::READABLE, |fd| {
            Ok(rustix::io::read(fd, &mut message)?)
        });
        let read = match self.deadline {
            Some(deadline) => timeout_at(deadline, read).await.unwrap_or_else(|_| {
                let slow = "the program could not be read in time";
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, slow))
            }),
            None => read.await,
        };
        match read.map_err(failed)? {
            FAILURE => Err(sys::failure(message)),
            _ => Ok(()),
        }
    }

    fn open_input(&mut self, stdin: Option<OwnedFd>, terminal: Option<OwnedFd>) {
        let open = self.course.stdin == Stdin::Stream;
        let group = self.group.clone();
        let mut input = self.process.started(group, terminal, open);
        if let Stdin::Bytes(bytes) = &self.course.stdin {
            input = once(bytes.clone());
        }
        if let Some(stdin) = stdin {
            let feed = tokio::spawn(pump::feed(stdin, input, self.has_terminal));
            self.feed = Some(feed.abort_handle());
        }
    }

    /// Sees the exec through, to its last event.
    pub(crate) async fn run(mut self) {
        let (status, timed_out) = self.first_process().await;
        let leftovers = self.others().await;
        if self.has_terminal && !self.course.detach {
            self.group.kill_session();
        }
        if let Some(feed) = &self.feed {
            feed.abort();
        }
        let ended = match status {
            _ if timed_out => Ended::TimedOut,
            _ if self.process.was_killed() => Ended::Killed,
            Some(Status {
                signal: Some(signal),
                ..
            }) => Ended::Signalled(signal),
            Some(_) => Ended::Exited,
            None => Ended::Lost,
        };
        self.process.end(Exit {
            code: status.map_or(-1, |status| status.code),
            ended,
            leftovers,
        });
        if leftovers == Leftovers::Detached {
            // Who writes on is not killed by it.
            self.pumps.detach_all();
        }
    }

    /// Waits for the first process. Returns whether its time was over, too.
    async fn first_process(&mut self) -> (Option<Status>, bool) {
        let Some(deadline) = self.deadline else {
            return ((&mut self.end).await.ok(), false);
        };
        if let Ok(end) = timeout_at(deadline, &mut self.end).await {
            return (end.ok(), false);
        }
        self.process.hurry();
        // Who is not there any more needs no signal.
        let _ = self.group.signal(Signal::TERM);
        if let Ok(end) = timeout(self.course.kill_after, &mut self.end).await {
            return (end.ok(), true);
        }
        let _ = self.group.signal(Signal::KILL);
        let end = timeout(UNKILLABLE, &mut self.end).await;
        (end.ok().and_then(Result::ok), true)
    }

    /// Waits for the rest of the group and of the output, or ends them.
    async fn others(&mut self) -> Leftovers {
        let (drained, deadline) = self.drained().await;
        if self.is_empty_before(deadline).await {
            if drained || self.course.detach {
                return if drained {
                    Leftovers::None
                } else {
                    Leftovers::Detached
                };
            }
            return Leftovers::Escaped;
        }
        if self.course.detach {
            return Leftovers::Detached;
        }
        let _ = self.group.signal(Signal::KILL);
        let settled = Instant::now() + SETTLE;
        let drained = timeout_at(settled, finish(&mut self.pumps)).await.is_ok();
        // They go in their own time; this only lets them be reaped.
        self.is_empty_before(settled).await;
        if drained {
            Leftovers::Killed
        } else {
            Leftovers::Escaped
        }
    }

    /// Reads the output to its end, or until the time of `linger` is over. The time
    /// in which it waits for a reader does not count, but ends with the exec's own.
    async fn drained(&mut self) -> (bool, Instant) {
        loop {
            let deadline = Instant::now() + self.course.linger;
            if timeout_at(deadline, finish(&mut self.pumps)).await.is_ok() {
                return (true, deadline);
            }
            if !self.process.is_held_up() {
                return (false, deadline);
            }
            let process = Arc::clone(&self.process);
            let Some(over) = self.deadline else {
                process.goes_on().await;
                continue;
            };
            if timeout_at(over, process.goes_on()).await.is_err() {
                process.hurry();
            }
        }
    }

    async fn is_empty_before(&self, deadline: Instant) -> bool {
        let (mut pause, longest) = LOOK;
        while self.group.is_alive() {
            if pause >= CLOSELY && !self.group.has_living() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        true
    }
}

/// Waits for all tasks. It may be dropped and called again.
async fn finish(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// An input of fixed bytes.
fn once(bytes: Bytes) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(bytes);
    receiver
}

/// Reaps a child when it ends, and tells how it did.
fn reap(leader: Arc<OwnedFd>) -> oneshot::Receiver<Status> {
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        match wait(leader).await {
            // Nobody may be interested any more.
            Ok(status) => drop(ended.send(status)),
            Err(error) => tracing::error!(%error, "waiting for a process"),
        }
    });
    end
}

async fn wait(leader: Arc<OwnedFd>) -> std::io::Result<Status> {
    let ready = sys::wait_for(leader, Interest::READABLE)?;
    loop {
        let mut guard = ready.readable().await?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let id = WaitId::PidFd(ready.get_ref().as_fd());
        match waitid(id, options) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal();
                let code = status.exit_status().unwrap_or_default();
                return Ok(Status {
                    code: signal.map_or(code, |signal| 128 + signal),
                    signal,
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => guard.clear_ready(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The error of a child that did not get to its program.
pub(crate) fn failure(
    (stage, source): (Stage, std::io::Error),
    program: String,
    cwd: std::path::PathBuf,
) -> ExecError {
    let what = match stage {
        Stage::Cwd => return ExecError::Cwd { path: cwd, source },
        Stage::Program => return ExecError::Program { program, source },
        Stage::Session => {
            let what = "its session and descriptors";
            return ExecError::Start { what, source };
        }
        Stage::Limits => "the resource limits cannot be set".into(),
        Stage::Network => {
            "a network namespace cannot be made; it takes root or user namespaces".into()
        }
        Stage::Writes => "Landlock refused the rules".into(),
    };
    ExecError::Confine {
        what,
        source: Some(source),
    }
}
