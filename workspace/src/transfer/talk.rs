//! What a transfer says while it runs: how far it is, and what it leaves out.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use crate::console::{Console, Progress};
use crate::failure::{Failure, Outcome, Result};

use super::Stop;
use super::error::Shown;

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(100);

/// The conversation of one transfer with its console. Source and sink share it.
pub(crate) struct Talk<'a> {
    console: RefCell<&'a mut dyn Console>,
    stop: Stop,
    at: RefCell<Progress>,
    told: Cell<Instant>,
    left_out: Cell<u64>,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(console: &'a mut dyn Console, stop: Stop, total_bytes: Option<u64>) -> Self {
        let at = Progress {
            total_bytes,
            ..Progress::default()
        };
        Self {
            console: RefCell::new(console),
            stop,
            at: RefCell::new(at),
            told: Cell::new(Instant::now()),
            left_out: Cell::new(0),
        }
    }

    /// Fails when the transfer has to stop.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.stop.check()
    }

    /// Counts what was done, and shows it now and then.
    pub(crate) fn count(&self, files: u64, bytes: u64) -> Result<()> {
        let mut at = self.at.borrow_mut();
        at.files += files;
        at.bytes += bytes;
        drop(at);
        if self.told.get().elapsed() < REPORT {
            Ok(())
        } else {
            self.show()
        }
    }

    /// Shows what was done.
    pub(crate) fn show(&self) -> Result<()> {
        self.told.set(Instant::now());
        self.console.borrow_mut().progress(&self.at.borrow())
    }

    /// What was done so far.
    pub(crate) fn done(&self) -> Progress {
        self.at.borrow().clone()
    }

    /// Says what of a node is left out, and why. The transfer goes on.
    pub(crate) fn leave_out(&self, path: &[u8], why: impl Display) -> Result<()> {
        self.left_out.set(self.left_out.get() + 1);
        self.note(&format!("{}: {why}", Shown::new(path)))
    }

    /// Says something.
    pub(crate) fn note(&self, line: &str) -> Result<()> {
        self.console.borrow_mut().note(line)
    }

    /// How the transfer ended, if nothing failed.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::unless(self.left_out.get() > 0)
    }
}

/// The standard input and output of the console.
impl io::Read for &Talk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.console.borrow_mut().input(buf).map_err(inside)
    }
}

impl io::Write for &Talk<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.console.borrow_mut().out(buf).map_err(inside)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A failure on its way through [`io`].
fn inside(failure: Failure) -> io::Error {
    io::Error::other(failure)
}

/// The failure that came through [`io`], or a failure of it.
pub(super) fn outside(error: io::Error, what: &str) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        Err(error) => Failure::io(what)(error),
    }
}
