//! The frames between a worker and its host, and a part of a file that is read
//! before it is needed: while the worker looks at one part, the host already
//! sends the next.

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::wire::{self, Answer, Ask, FromWorker, ToWorker};

/// How long an answer is looked for before the thread sleeps: waking it would
/// take longer than most answers.
const LOOK: Duration = Duration::from_micros(30);

/// A stream that is looked at for a while before it is waited for.
#[derive(Debug)]
struct Eager(UnixStream);

impl Read for Eager {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((read, _)) => return Ok(read),
                Err(Errno::AGAIN) if begun.elapsed() < LOOK => std::hint::spin_loop(),
                Err(Errno::AGAIN | Errno::INTR) => return self.0.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    from: BufReader<Eager>,
    to: UnixStream,
    pub(crate) ahead: Option<Ahead>,
}

/// A part of a file that is read before it is needed, so that the host has it
/// ready when it is.
#[derive(Debug)]
pub(crate) struct Ahead {
    ino: u64,
    offset: u64,
    len: usize,
    /// What was answered, when something else had to be said meanwhile.
    pub(crate) answer: Option<Answered>,
}

/// What the host answered, and the bytes that go with it.
pub(crate) type Answered = io::Result<(Answer, Vec<u8>)>;

impl Ahead {
    /// Whether it is this part.
    pub(crate) fn is(&self, ino: u64, offset: u64, len: usize) -> bool {
        (self.ino, self.offset, self.len) == (ino, offset, len)
    }
}

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            from: BufReader::with_capacity(64 << 10, Eager(stream.try_clone()?)),
            to: stream,
            ahead: None,
        })
    }

    pub(crate) fn send(&mut self, message: &FromWorker, bytes: &[u8]) {
        self.settle();
        let sent = wire::send(&mut self.to, message, bytes);
        sent.unwrap_or_else(|_| gone());
    }

    pub(crate) fn receive(&mut self) -> (ToWorker, Vec<u8>) {
        match wire::receive(&mut self.from) {
            Ok(Some(said)) => said,
            _ => gone(),
        }
    }

    /// Asks for what comes after a part of a file, if there is more.
    pub(crate) fn ask_ahead(&mut self, ino: u64, offset: u64, len: usize, part: &[u8]) {
        if part.len() < len {
            return;
        }
        let offset = offset + len as u64;
        let ask = Ask::Read {
            ino,
            offset,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        self.send(&FromWorker::Ask(ask), &[]);
        self.ahead = Some(Ahead {
            ino,
            offset,
            len,
            answer: None,
        });
    }

    /// Takes an answer that is on its way. The host sends nothing else before,
    /// and while it sends, it does not listen.
    fn settle(&mut self) {
        if self
            .ahead
            .as_ref()
            .is_some_and(|ahead| ahead.answer.is_none())
        {
            let (answer, _) = self.answer();
            if let Some(ahead) = &mut self.ahead {
                ahead.answer = Some(answer);
            }
        }
    }

    /// The next answer, and the last change that it may tell of.
    pub(crate) fn answer(&mut self) -> (Answered, u64) {
        let (ToWorker::Answer(answer, change), bytes) = self.receive() else {
            gone()
        };
        let answer = match answer {
            Answer::Failed(errno, reason) => Err(error(errno, reason)),
            answer => Ok((answer, bytes)),
        };
        (answer, change)
    }
}

/// Ends the process: nobody is left to run anything for.
pub(crate) fn gone() -> ! {
    std::process::exit(1)
}

fn error(errno: i32, reason: Option<String>) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    match reason {
        Some(reason) => io::Error::new(error.kind(), reason),
        None => error,
    }
}
