//! The ends of a transfer that a command has besides its terminal: files of
//! this machine as the standard input or output, and, when another process owns
//! the replica, a thread that makes an archive of a directory or a directory of
//! an archive.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::console::{Console, Progress};
use crate::failure::{Failure, Outcome, Result};

use super::{Stop, Talk};

/// What a thread does with its end of a pipe.
type Work<P> = Box<dyn FnOnce(P, &Talk<'_>) -> Result<()> + Send>;

/// A thread that does half of a transfer.
#[derive(Debug)]
pub(crate) struct Helper {
    said: Said,
    thread: Option<JoinHandle<Result>>,
    outcome: Outcome,
}

/// What the thread has to say, until somebody takes it.
#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<(Vec<String>, Progress)>>);

impl Said {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, Progress)> {
        // Nothing is left half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console for Said {
    fn out(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn error(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn note(&mut self, line: &str) -> Result<()> {
        self.lock().0.push(line.into());
        Ok(())
    }

    fn progress(&mut self, at: &Progress) -> Result<()> {
        self.lock().1 = at.clone();
        Ok(())
    }

    fn input(&mut self, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }
}

impl Helper {
    /// A thread that writes what is to be read here.
    pub(crate) fn writing(
        stop: &Stop,
        total: Option<u64>,
        work: Work<PipeWriter>,
    ) -> Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe().map_err(Failure::io("cannot make a pipe"))?;
        Ok((Self::start(stop, total, writer, work)?, reader))
    }

    /// A thread that reads what is written here.
    pub(crate) fn reading(
        stop: &Stop,
        total: Option<u64>,
        work: Work<PipeReader>,
    ) -> Result<(Self, PipeWriter)> {
        let (reader, writer) = io::pipe().map_err(Failure::io("cannot make a pipe"))?;
        Ok((Self::start(stop, total, reader, work)?, writer))
    }

    fn start<P: Send + 'static>(
        stop: &Stop,
        total: Option<u64>,
        pipe: P,
        work: Work<P>,
    ) -> Result<Self> {
        let said = Said::default();
        said.lock().1.total_bytes = total;
        let (mut theirs, stop) = (said.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("cairn-transfer".into())
            .spawn(move || {
                let talk = Talk::new(&mut theirs, stop, total);
                let worked = work(pipe, &talk);
                // For who asks how far it came.
                talk.show()?;
                worked.map(|()| talk.outcome())
            });
        let thread = thread.map_err(Failure::io("cannot start a thread"))?;
        Ok(Self {
            said,
            thread: Some(thread),
            outcome: Outcome::Done,
        })
    }

    /// Passes on what it said.
    fn relay(&self, to: &mut dyn Console) -> Result<()> {
        let lines = std::mem::take(&mut self.said.lock().0);
        lines.iter().try_for_each(|line| to.note(line))
    }

    /// Waits for its end.
    fn join(&mut self, to: &mut dyn Console) -> Result {
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            self.relay(to)?;
            self.outcome =
                ended.map_err(|_| Failure::Refused("a thread of this program failed".into()))??;
        }
        Ok(self.outcome)
    }

    /// How far it came.
    fn progress(&self) -> Progress {
        self.said.lock().1.clone()
    }
}

/// A console with something else as its standard input.
pub(crate) struct Fed<'a> {
    pub(crate) console: &'a mut dyn Console,
    pub(crate) input: Box<dyn Read>,
    /// Who writes what is read from `input`, if it is no file.
    pub(crate) helper: Option<Helper>,
    /// Bytes read from it.
    pub(crate) read: u64,
    /// Bytes it has, if that is known.
    pub(crate) total: Option<u64>,
    pub(crate) stop: Stop,
}

impl Console for Fed<'_> {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        self.console.out(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.console.flush()
    }

    fn error(&mut self, bytes: &[u8]) -> Result<()> {
        self.console.error(bytes)
    }

    fn note(&mut self, line: &str) -> Result<()> {
        self.console.note(line)
    }

    fn progress(&mut self, at: &Progress) -> Result<()> {
        // How much of the source is read, for its size is known.
        let from_source = match &self.helper {
            Some(helper) => helper.progress(),
            None => Progress {
                files: at.files,
                bytes: self.read,
                total_bytes: self.total,
            },
        };
        self.console.progress(&from_source)
    }

    fn input(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        while len < buf.len() {
            self.stop.check()?;
            match self.input.read(&mut buf[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::io("cannot read the source")(error)),
            }
        }
        self.read += len as u64;
        if let Some(helper) = &mut self.helper {
            helper.relay(self.console)?;
            if len == 0 {
                // It ended; how, decides whether this was all.
                helper.join(self.console)?;
            }
        }
        Ok(len)
    }
}

impl Fed<'_> {
    /// How the source ended, after everything was read.
    pub(crate) fn outcome(&self) -> Outcome {
        self.helper
            .as_ref()
            .map_or(Outcome::Done, |helper| helper.outcome)
    }
}

/// A console with something else as its standard output.
pub(crate) struct Drained<'a, W: Write> {
    pub(crate) console: &'a mut dyn Console,
    /// `None` when it is closed.
    pub(crate) output: Option<W>,
    /// Who reads what is written to `output`, if it is no file.
    pub(crate) helper: Option<Helper>,
    /// What it is, for a message.
    pub(crate) name: String,
    pub(crate) stop: Stop,
}

impl<W: Write> Console for Drained<'_, W> {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        self.stop.check()?;
        let Some(output) = &mut self.output else {
            return Err(Failure::OutputClosed);
        };
        let Err(error) = output.write_all(bytes) else {
            return Ok(());
        };
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Who read it has stopped. If it was our thread, its failure is the reason.
            self.helper
                .as_mut()
                .map(|helper| helper.join(self.console))
                .transpose()?;
            return Err(Failure::OutputClosed);
        }
        Err(Failure::io(format!("cannot write {}", self.name))(error))
    }

    fn flush(&mut self) -> Result<()> {
        self.console.flush()
    }

    fn error(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn note(&mut self, line: &str) -> Result<()> {
        self.console.note(line)
    }

    fn progress(&mut self, at: &Progress) -> Result<()> {
        self.stop.check()?;
        self.console.progress(at)?;
        self.helper
            .as_ref()
            .map_or(Ok(()), |helper| helper.relay(self.console))
    }

    fn input(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.console.input(buf)
    }
}

impl<W: Write> Drained<'_, W> {
    /// Ends the output, and waits for who reads it.
    pub(crate) fn close(&mut self) -> Result {
        self.output = None;
        match &mut self.helper {
            Some(helper) => helper.join(self.console),
            None => Ok(Outcome::Done),
        }
    }

    /// How much the reader of the output has done.
    pub(crate) fn done(&self) -> Progress {
        self.helper
            .as_ref()
            .map_or_else(Progress::default, Helper::progress)
    }
}
