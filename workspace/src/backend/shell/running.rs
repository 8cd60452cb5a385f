//! One script that runs or ran: its events, its input, and how it is stopped.

use bytes::Bytes;
use cairn_mounts::shell::Stop;
use parking_lot::{Condvar, Mutex};
use std::time::Instant;

use crate::exec::shared::Process;
use crate::exec::{
    Bounds, Boxed, Event, EventKind, ExecError, ExecId, Execution, Exit, Result, Seq, Signal,
    Stdin, Terminal,
};

/// Output in one event.
const EVENT_BYTES: usize = 64 << 10;

/// A script.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    stop: Stop,
    /// The signal that it was ended with.
    killed: Mutex<Option<Signal>>,
    input: Mutex<Input>,
    closed: Condvar,
}

/// The standard input, which is collected before the script begins.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    open: bool,
}

impl Running {
    pub(super) fn new(process: Process, stdin: &Stdin) -> Result<Self> {
        let start = |source| ExecError::Start {
            what: "a descriptor to stop a script with",
            source,
        };
        Ok(Self {
            process,
            stop: Stop::new().map_err(start)?,
            killed: Mutex::default(),
            input: Mutex::new(Input {
                bytes: match stdin {
                    Stdin::Bytes(bytes) => bytes.to_vec(),
                    _ => Vec::new(),
                },
                open: *stdin == Stdin::Stream,
            }),
            closed: Condvar::new(),
        })
    }

    pub(super) fn stopper(&self) -> &Stop {
        &self.stop
    }

    pub(super) fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// The signal that somebody ended it with.
    pub(super) fn killed(&self) -> Option<Signal> {
        *self.killed.lock()
    }

    /// Ends it for good.
    pub(super) fn stop(&self) {
        self.killed.lock().get_or_insert(Signal::KILL);
        self.stop.stop();
        self.closed.notify_all();
    }

    /// The whole input, when it is closed. `None` when it is stopped, or its
    /// time is over, before.
    pub(super) fn collect(&self, deadline: Option<Instant>) -> Option<Vec<u8>> {
        let mut input = self.input.lock();
        while input.open && !self.stop.is_asked() {
            match deadline {
                Some(at) => {
                    if self.closed.wait_until(&mut input, at).timed_out() {
                        return None;
                    }
                }
                None => self.closed.wait(&mut input),
            }
        }
        let stopped = self.stop.is_asked();
        (!stopped).then(|| std::mem::take(&mut input.bytes))
    }

    /// Adds output.
    pub(super) fn output(&self, is_error: bool, bytes: &[u8]) {
        for piece in bytes.chunks(EVENT_BYTES) {
            let piece = Bytes::copy_from_slice(piece);
            self.process.append(if is_error {
                EventKind::Stderr(piece)
            } else {
                EventKind::Stdout(piece)
            });
        }
    }

    /// Adds the last event.
    pub(super) fn end(&self, exit: Exit) {
        self.input.lock().open = false;
        self.process.end(exit);
    }
}

impl Execution for Running {
    fn id(&self) -> &ExecId {
        self.process.id()
    }

    fn read(&self, from: Seq, bytes_max: usize) -> Boxed<'_, Result<Vec<Event>>> {
        self.process.read(from, bytes_max)
    }

    fn bounds(&self) -> Boxed<'_, Result<Bounds>> {
        self.process.bounds()
    }

    fn exit(&self) -> Boxed<'_, Result<Exit>> {
        self.process.exit()
    }

    /// Signals that end a process end the script, if it wants or not; it has
    /// no traps for others.
    fn kill(&self, signal: Signal) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            if self.has_ended() {
                return Err(ExecError::Ended(self.id().clone()));
            }
            if signal.ends() {
                self.killed.lock().get_or_insert(signal);
                self.stop.stop();
                self.closed.notify_all();
            }
            Ok(())
        })
    }

    fn write(&self, bytes: Bytes) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let mut input = self.input.lock();
            if !input.open {
                return Err(ExecError::InputClosed(self.id().clone()));
            }
            input.bytes.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn close_input(&self) -> Boxed<'_, Result<()>> {
        Box::pin(async {
            self.input.lock().open = false;
            self.closed.notify_all();
            Ok(())
        })
    }

    fn resize(&self, _: Terminal) -> Boxed<'_, Result<()>> {
        Box::pin(async { Err(ExecError::NoTerminal(self.id().clone())) })
    }
}
