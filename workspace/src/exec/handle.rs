//! What a caller holds of an exec, whatever runs it.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Event, EventKind, Exit, Seq};
use super::id::ExecId;
use super::options::{Keep, Terminal};
use super::signal::Signal;
use super::{Boxed, ExecError, Result};

/// Bytes of events that a reader takes at a time.
const PAGE: usize = 256 << 10;

/// The events that a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest that is kept.
    pub oldest: Seq,
    /// The number that the next one gets.
    pub next: Seq,
}

/// An exec, as a backend offers it. Callers use [`Exec`].
pub trait Execution: Debug + Send + Sync {
    /// Its id.
    fn id(&self) -> &ExecId;

    /// Events from a number on, of about so many bytes, and at least one: it
    /// waits for it. None at all when the exec has ended before.
    fn read(&self, from: Seq, bytes_max: usize) -> Boxed<'_, Result<Vec<Event>>>;

    /// What the log has.
    fn bounds(&self) -> Boxed<'_, Result<Bounds>>;

    /// Waits for the end.
    fn exit(&self) -> Boxed<'_, Result<Exit>>;

    /// Signals all of its processes.
    fn kill(&self, signal: Signal) -> Boxed<'_, Result<()>>;

    /// Writes to its standard input, and waits while that is full.
    fn write(&self, bytes: Bytes) -> Boxed<'_, Result<()>>;

    /// Ends its standard input.
    fn close_input(&self) -> Boxed<'_, Result<()>>;

    /// Changes the size of its terminal.
    fn resize(&self, size: Terminal) -> Boxed<'_, Result<()>>;

    /// What is kept of its events when there are more than its log takes.
    fn keep(&self) -> Keep {
        Keep::Newest
    }

    /// Whether what it changed is in the workspace. It is decided when its end is
    /// told.
    fn synced(&self) -> Synced {
        Synced::Shared
    }
}

/// Whether what an exec changed is in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synced {
    /// It ran on the store of the workspace itself.
    Shared,
    /// What it changed was brought there before its end was told.
    Complete,
    /// It was not yet, or it is not known: it is tried again by itself, and by
    /// [`Workspace::pull`](crate::Workspace::pull).
    Pending,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the first event: an error if it is not kept any more.
    Start,
    /// With the oldest event that is kept.
    Oldest,
    /// With what comes from now on.
    Tail,
    /// With this event.
    Seq(Seq),
}

/// A command that runs or ran. Cheap to clone; it runs on when nobody holds it.
///
/// All methods are futures that need no runtime of their own: they may be
/// awaited in any.
#[derive(Clone, Debug)]
pub struct Exec {
    execution: Arc<dyn Execution>,
    backend: Arc<str>,
}

impl Exec {
    /// A handle of what a backend runs.
    pub fn new(execution: Arc<dyn Execution>, backend: Arc<str>) -> Self {
        Self { execution, backend }
    }

    /// Its id.
    pub fn id(&self) -> &ExecId {
        self.execution.id()
    }

    /// The id of the backend that runs it.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Reads its events. Any number of readers read at their own pace.
    pub fn events(&self, from: ReadFrom) -> Events {
        Events {
            execution: Arc::clone(&self.execution),
            from,
            page: Vec::new().into_iter(),
            ended: false,
        }
    }

    /// Whether what it changed is in the workspace, as known when its end was told.
    pub fn synced(&self) -> Synced {
        self.execution.synced()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// [`ExecError::Log`] when its log cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn wait(&self) -> Result<Exit> {
        self.execution.exit().await
    }

    /// Waits until it ends, and collects what it wrote, as far as its log keeps it.
    ///
    /// # Errors
    ///
    /// [`ExecError::Log`] when its log cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: the next call collects it all.
    pub async fn result(&self) -> Result<Output> {
        if self.execution.keep() == Keep::Newest {
            // What is evicted meanwhile need not be read before.
            self.wait().await?;
        }
        let oldest = self.execution.bounds().await?.oldest;
        let mut events = self.events(ReadFrom::Seq(oldest));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(event) = events.next().await? {
            match event.kind {
                EventKind::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                EventKind::Stderr(bytes) => stderr.extend_from_slice(&bytes),
                EventKind::Exit(exit) => {
                    return Ok(Output {
                        stdout,
                        stderr,
                        evicted: oldest - 1,
                        exit,
                        synced: self.synced(),
                    });
                }
            }
        }
        Err(ExecError::Closed)
    }

    /// Sends a signal to its whole process group.
    ///
    /// # Errors
    ///
    /// [`ExecError::Ended`].
    pub async fn kill(&self, signal: Signal) -> Result<()> {
        self.execution.kill(signal).await
    }

    /// Writes to its standard input, which it was started with as a stream, and
    /// waits while the program does not read.
    ///
    /// # Errors
    ///
    /// [`ExecError::InputClosed`] when it is closed, or the program closed it.
    ///
    /// # Cancel safety
    ///
    /// A part may have been written.
    pub async fn write(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.execution.write(bytes.into()).await
    }

    /// Ends its standard input, after what was written.
    ///
    /// # Errors
    ///
    /// What a remote backend says.
    pub async fn close_input(&self) -> Result<()> {
        self.execution.close_input().await
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    ///
    /// [`ExecError::NoTerminal`], [`ExecError::Ended`].
    pub async fn resize(&self, size: Terminal) -> Result<()> {
        self.execution.resize(size).await
    }
}

/// A reader of an exec's events.
#[derive(Debug)]
pub struct Events {
    execution: Arc<dyn Execution>,
    from: ReadFrom,
    page: std::vec::IntoIter<Event>,
    ended: bool,
}

impl Events {
    /// The next event, which it waits for. `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ExecError::Evicted`] when the reader was too slow, or asked for what
    /// is not kept; it stays where it is, and [`Self::seek`] goes on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.page.next() {
            return Ok(Some(self.took(event)));
        }
        if self.ended {
            return Ok(None);
        }
        let at = self.position().await?;
        self.from = ReadFrom::Seq(at);
        self.page = self.execution.read(at, PAGE).await?.into_iter();
        let event = self.page.next();
        self.ended = event.is_none();
        Ok(event.map(|event| self.took(event)))
    }

    fn took(&mut self, event: Event) -> Event {
        self.from = ReadFrom::Seq(event.seq + 1);
        self.ended = matches!(event.kind, EventKind::Exit(_));
        event
    }

    async fn position(&self) -> Result<Seq> {
        Ok(match self.from {
            ReadFrom::Start => 1,
            ReadFrom::Seq(seq) => seq.max(1),
            ReadFrom::Oldest => self.execution.bounds().await?.oldest,
            ReadFrom::Tail => self.execution.bounds().await?.next,
        })
    }

    /// Goes on from elsewhere.
    pub fn seek(&mut self, from: ReadFrom) {
        self.page = Vec::new().into_iter();
        self.from = from;
        self.ended = false;
    }
}

/// What an exec wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its standard output, or what it wrote to its terminal.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// So many of its first events were not kept: the output lacks its beginning.
    pub evicted: u64,
    /// How it ended.
    pub exit: Exit,
    /// Whether what it changed is in the workspace.
    pub synced: Synced,
}

impl Output {
    /// The standard output as text; what is none is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
