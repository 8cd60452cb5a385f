//! Waiting for a worker: for its next message, for whoever stops the run, or
//! until its time is over.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::wire::{self, FromWorker, HEAD};

/// How long to look for something from the worker before this thread sleeps:
/// waking it would take longer than most answers.
const LOOK: Duration = Duration::from_micros(30);
/// Bytes that are received at a time.
const SCRATCH: usize = 64 << 10;

/// Something that waiting for a worker brings.
pub(crate) enum Event {
    Said(FromWorker, Vec<u8>),
    /// Somebody stops the run.
    Stopped,
    TimeIsOver,
    Gone,
}

/// What came from a worker and was not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    /// Where it is received, before it is put there.
    scratch: Vec<u8>,
    /// Where the first frame begins.
    from: usize,
}

impl Incoming {
    /// Waits until there is a whole frame, or something else happens.
    pub(crate) fn wait(
        &mut self,
        stream: &UnixStream,
        wake: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Event> {
        let mut looked = Instant::now();
        loop {
            if let Some((message, bytes)) = self.frame()? {
                return Ok(Event::Said(message, bytes));
            }
            match self.fill(stream)? {
                Some(0) => return Ok(Event::Gone),
                Some(_) => looked = Instant::now(),
                None if looked.elapsed() < LOOK => std::hint::spin_loop(),
                None => match sleep(stream, wake, deadline)? {
                    Woken::Worker => {}
                    Woken::Stop => return Ok(Event::Stopped),
                    Woken::Time => return Ok(Event::TimeIsOver),
                },
            }
        }
    }

    /// Takes what is there. `None`: nothing is; 0: nothing comes any more.
    fn fill(&mut self, stream: &UnixStream) -> io::Result<Option<usize>> {
        self.scratch.resize(SCRATCH, 0);
        let got = rustix::net::recv(stream, &mut *self.scratch, RecvFlags::DONTWAIT);
        let got = match got {
            Ok((got, _)) => Some(got),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(rustix::io::Errno::CONNRESET) => Some(0),
            Err(errno) => return Err(errno.into()),
        };
        let received = got.unwrap_or(0);
        self.bytes.extend_from_slice(&self.scratch[..received]);
        Ok(got)
    }

    fn frame(&mut self) -> io::Result<Option<(FromWorker, Vec<u8>)>> {
        let rest = &self.bytes[self.from..];
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let (message, bytes) = wire::lengths(*head)?;
        if rest.len() < message + bytes {
            return Ok(None);
        }
        let said = wire::decode(&rest[..message])?;
        let content = rest[message..message + bytes].to_vec();
        self.from += HEAD + message + bytes;
        if self.from == self.bytes.len() {
            self.bytes.clear();
            self.from = 0;
        } else if self.from > 1 << 20 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        Ok(Some((said, content)))
    }
}

enum Woken {
    Worker,
    Stop,
    Time,
}

fn sleep(
    stream: &UnixStream,
    wake: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> io::Result<Woken> {
    let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
    if let Some(wake) = &wake {
        fds.push(PollFd::new(wake, PollFlags::IN));
    }
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) => return Ok(Woken::Time),
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stopped = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
    Ok(if stopped { Woken::Stop } else { Woken::Worker })
}
