//! One exec: its events, and what can be done to it while it runs.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, watch};

use super::event::{Event, EventKind, Exit, Seq};
use super::handle::{Bounds, Execution};
use super::id::ExecId;
use super::launch;
use super::log::{Log, ReadError};
use super::options::{Keep, Terminal};
use super::signal::Signal;
use super::{Boxed, ExecError, Result, sys};

/// Writes to a standard input that wait in memory.
const INPUT_QUEUE: usize = 8;
/// Longest piece of input that is queued.
const INPUT_PIECE: usize = 64 << 10;

/// The process group of an exec.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) leader: Arc<OwnedFd>,
    pub(crate) pid: Pid,
}

impl Group {
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        sys::signal_group(self.leader.as_fd(), self.pid, signal.number())
    }

    /// Whether a process is in it, be it one that waits for its parent.
    pub(crate) fn is_alive(&self) -> bool {
        self.reap_orphans();
        sys::signal_group(self.leader.as_fd(), self.pid, 0) != Err(Errno::SRCH)
    }

    /// Whether a process is in it that has not ended. Who ended may stay in the
    /// group for long, if the first process of the machine is slow to reap.
    /// Looks at every process there is, so [`Self::is_alive`] is asked first.
    pub(crate) fn has_living(&self) -> bool {
        let own = self.pid.as_raw_pid();
        processes().any(|pid| Stat::read(pid).is_some_and(|stat| stat.group == own))
    }

    /// Kills all of its session: the jobs of a shell with job control have
    /// process groups of their own.
    pub(crate) fn kill_session(&self) {
        let own = self.pid.as_raw_pid();
        for pid in processes() {
            // The descriptor first, so that what is read is about the process it refers to.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if Stat::read(pid).is_some_and(|stat| stat.session == own) {
                // It may have ended.
                let _ = pidfd_send_signal(process, rustix::process::Signal::KILL);
            }
        }
    }

    /// Reaps those of the group that became children of this process, which
    /// happens when it is the first one of a container.
    fn reap_orphans(&self) {
        let options = rustix::process::WaitOptions::NOHANG;
        while let Ok(Some(_)) = rustix::process::waitpgid(self.pid, options) {}
    }
}

/// The processes of this machine.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw)
}

/// What the kernel says of a process that has not ended.
struct Stat {
    group: i32,
    session: i32,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // `PID (NAME) STATE PARENT GROUP SESSION ...`, and a name may have anything in it.
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let ended = matches!(fields.next()?, "Z" | "X");
        let group = fields.nth(1)?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        (!ended).then_some(Self { group, session })
    }
}

#[derive(Debug)]
struct Control {
    /// While it runs.
    group: Option<Group>,
    terminal: Option<OwnedFd>,
    /// Somebody ended it through its handle.
    killed: bool,
}

/// An exec of a runtime, running or not.
#[derive(Debug)]
pub(crate) struct Process {
    id: ExecId,
    log: Mutex<Log>,
    /// The number that the next event gets.
    news: watch::Sender<Seq>,
    control: Mutex<Control>,
    input: Mutex<Option<mpsc::Sender<Bytes>>>,
    keep: Keep,
    /// The first event that no reader has had, for [`Keep::Unread`]; 0 when nothing
    /// is to be waited for.
    unread: watch::Sender<Seq>,
    /// How many outputs wait for a reader.
    held_up: watch::Sender<usize>,
}

impl Process {
    /// One that is about to start, or that an earlier runtime left.
    pub(crate) fn new(id: ExecId, log: Log) -> Self {
        Self {
            id,
            news: watch::Sender::new(log.next()),
            log: Mutex::new(log),
            control: Mutex::new(Control {
                group: None,
                terminal: None,
                killed: false,
            }),
            input: Mutex::new(None),
            keep: Keep::Newest,
            unread: watch::Sender::new(1),
            held_up: watch::Sender::new(0),
        }
    }

    /// What is kept of its events.
    pub(crate) fn keeping(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Waits until an event of so many bytes can be added without losing one that
    /// nobody has had.
    pub(crate) async fn room(&self, len: usize) {
        if self.keep == Keep::Newest {
            return;
        }
        let mut unread = self.unread.subscribe();
        loop {
            let from = *unread.borrow_and_update();
            if from == 0 || !self.log.lock().would_lose(from, len) {
                return;
            }
            let _held_up = HeldUp::new(&self.held_up);
            if unread.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until no output waits for a reader.
    pub(crate) async fn goes_on(&self) {
        // The sender is in `self`.
        let _ = self.held_up.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Whether an output waits for a reader.
    pub(crate) fn is_held_up(&self) -> bool {
        *self.held_up.borrow() > 0
    }

    /// Does not wait for readers any more.
    pub(crate) fn hurry(&self) {
        self.unread.send_replace(0);
    }

    /// A reader has had all events before this one.
    fn had(&self, before: Seq) {
        if self.keep == Keep::Unread {
            self.unread.send_if_modified(|unread| {
                let more = *unread != 0 && before > *unread;
                if more {
                    *unread = before;
                }
                more
            });
        }
    }

    /// It runs. Returns what comes for its standard input, if that is open.
    pub(crate) fn started(
        &self,
        group: Group,
        terminal: Option<OwnedFd>,
        open_input: bool,
    ) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
        *self.input.lock() = open_input.then_some(sender);
        let mut control = self.control.lock();
        control.group = Some(group);
        control.terminal = terminal;
        receiver
    }

    /// Whether somebody ended it through its handle.
    pub(crate) fn was_killed(&self) -> bool {
        self.control.lock().killed
    }

    /// Adds an event. Returns `false` when it has ended.
    pub(crate) fn append(&self, kind: EventKind) -> bool {
        let (added, next) = {
            let mut log = self.log.lock();
            (log.append(now_ms(), kind), log.next())
        };
        // Without the log: who waits looks at it with this value held.
        self.news.send_replace(next);
        added
    }

    /// Adds the last event, and lets go of all but the log.
    pub(crate) fn end(&self, exit: Exit) {
        *self.input.lock() = None;
        {
            let mut control = self.control.lock();
            control.group = None;
            control.terminal = None;
        }
        self.append(EventKind::Exit(exit));
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.log.lock().has_ended()
    }

    /// Signals the process group.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let mut control = self.control.lock();
        let ended = || ExecError::Ended(self.id.clone());
        let group = control.group.as_ref().ok_or_else(ended)?;
        match group.signal(signal) {
            Ok(()) => {
                control.killed |= signal.ends();
                if signal == Signal::KILL {
                    self.hurry();
                }
                Ok(())
            }
            // It is about to be known that it ended.
            Err(Errno::SRCH) => Err(ended()),
            Err(errno) => Err(ExecError::start("sending a signal")(errno)),
        }
    }

    async fn read_from(&self, from: Seq, bytes_max: usize) -> Result<Vec<Event>> {
        let mut news = self.news.subscribe();
        self.had(from);
        loop {
            news.borrow_and_update();
            {
                let log = self.log.lock();
                let events = log.read(from, bytes_max).map_err(|error| match error {
                    ReadError::Evicted(oldest) => ExecError::Evicted {
                        id: self.id.clone(),
                        wanted: from,
                        oldest,
                    },
                    ReadError::Io(source) => ExecError::Log {
                        id: self.id.clone(),
                        source,
                    },
                })?;
                if !events.is_empty() || log.has_ended() {
                    return Ok(events);
                }
            }
            if news.changed().await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn feed(&self, mut bytes: Bytes) -> Result<()> {
        let closed = || ExecError::InputClosed(self.id.clone());
        let sender = self.input.lock().clone().ok_or_else(closed)?;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(INPUT_PIECE));
            sender.send(piece).await.map_err(|_| closed())?;
        }
        Ok(())
    }

    fn set_size(&self, size: Terminal) -> Result<()> {
        let control = self.control.lock();
        if control.group.is_none() {
            return Err(ExecError::Ended(self.id.clone()));
        }
        let none = || ExecError::NoTerminal(self.id.clone());
        let terminal = control.terminal.as_ref().ok_or_else(none)?;
        launch::resize(terminal, size).map_err(ExecError::start("setting the terminal's size"))
    }

    async fn wait_for_exit(&self) -> Result<Exit> {
        let mut news = self.news.subscribe();
        // The sender lives as long as `self`.
        let _ = news.wait_for(|_| self.has_ended()).await;
        let last = self.log.lock().next() - 1;
        let events = self.read_from(last, 1).await?;
        match events.into_iter().next().map(|event| event.kind) {
            Some(EventKind::Exit(exit)) => Ok(exit),
            _ => Err(ExecError::Closed),
        }
    }
}

/// An output that waits for a reader.
struct HeldUp<'a>(&'a watch::Sender<usize>);

impl<'a> HeldUp<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Execution for Process {
    fn keep(&self) -> Keep {
        self.keep
    }

    fn id(&self) -> &ExecId {
        &self.id
    }

    fn read(&self, from: Seq, bytes_max: usize) -> Boxed<'_, Result<Vec<Event>>> {
        Box::pin(self.read_from(from, bytes_max))
    }

    fn bounds(&self) -> Boxed<'_, Result<Bounds>> {
        Box::pin(async {
            let log = self.log.lock();
            Ok(Bounds {
                oldest: log.oldest(),
                next: log.next(),
            })
        })
    }

    fn exit(&self) -> Boxed<'_, Result<Exit>> {
        Box::pin(self.wait_for_exit())
    }

    fn kill(&self, signal: Signal) -> Boxed<'_, Result<()>> {
        Box::pin(async move { self.signal(signal) })
    }

    fn write(&self, bytes: Bytes) -> Boxed<'_, Result<()>> {
        Box::pin(self.feed(bytes))
    }

    fn close_input(&self) -> Boxed<'_, Result<()>> {
        Box::pin(async {
            *self.input.lock() = None;
            Ok(())
        })
    }

    fn resize(&self, size: Terminal) -> Boxed<'_, Result<()>> {
        Box::pin(async move { self.set_size(size) })
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
