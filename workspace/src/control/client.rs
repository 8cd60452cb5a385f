//! The asking side of a control connection.

#[cfg(feature = "mcp")]
use std::io::Write;
use std::io::{self, Read};
#[cfg(feature = "mcp")]
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
#[cfg(feature = "mcp")]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::Request;

use super::address;
use super::wire::{Answer, Asked, BODY_MAX, Failed, Hello, VERSION};

/// How long an owner may take to greet: it has a thread for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is passed on at a time, in bytes.
#[cfg(feature = "mcp")]
const PIECE: usize = 64 << 10;

/// A connection to the owner of a replica.
#[derive(Debug)]
pub(crate) struct Client(UnixStream);

impl Client {
    /// Connects. `None` when no process answers: then the owner has just begun
    /// or just ended, or is a program that embeds the engine. Nothing was asked
    /// of it, so whoever wants something may try again.
    pub(crate) fn connect(replica: &Path) -> Result<Option<Self>> {
        let mut stream = match address::connect(replica) {
            Ok(stream) => stream,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(lost(error)),
        };
        let greeted = greet(&mut stream);
        match greeted {
            Ok(Some(Answer::Ready)) => Ok(Some(Self(stream))),
            Ok(Some(Answer::Failed(failed))) => Err(failed.into()),
            Ok(Some(_)) => Err(lost(io::ErrorKind::InvalidData.into())),
            Ok(None) => Ok(None),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Failure::Refused(
                "the process that owns the replica does not answer; see whether it is stopped"
                    .into(),
            )),
            Err(error) => Err(lost(error)),
        }
    }

    /// Has the owner run a request, and shows what it answers.
    pub(crate) fn perform(mut self, request: Request, console: &mut dyn Console) -> Result {
        Asked::Request(request).send(&mut self.0).map_err(lost)?;
        loop {
            match Answer::receive(&mut self.0).map_err(lost)? {
                Some(Answer::Out(bytes)) => console.out(&bytes)?,
                Some(Answer::Error(bytes)) => console.error(&bytes)?,
                Some(Answer::Flush) => console.flush()?,
                Some(Answer::Note(line)) => console.note(&line)?,
                Some(Answer::Progress(at)) => console.progress(&at)?,
                Some(Answer::WantInput(most)) => self.send_input(most, console)?,
                Some(Answer::Done(code)) => return Ok(Outcome::of(code)),
                Some(Answer::Failed(failed)) => return Err(failed.into()),
                Some(Answer::Ready) => {}
                None => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Lets the owner serve the tools for agents, and carries what is said between it
    /// and the standard input and output, until one side ends.
    #[cfg(feature = "mcp")]
    pub(crate) fn carry(mut self, request: crate::commands::mcp::Request) -> Result {
        Asked::Mcp(request).send(&mut self.0).map_err(lost)?;
        match Answer::receive(&mut self.0).map_err(lost)? {
            Some(Answer::Ready) => {}
            Some(Answer::Failed(failed)) => return Err(failed.into()),
            _ => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
        let mut to = self.0.try_clone().map_err(lost)?;
        let ended = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&ended);
        // It is left behind if the owner ends first, as nothing wakes who reads.
        std::thread::spawn(move || {
            let _ = pass_on(&mut io::stdin().lock(), &mut to);
            theirs.store(true, Ordering::SeqCst);
            let _ = to.shutdown(Shutdown::Write);
        });
        pass_on(&mut self.0, &mut io::stdout().lock()).map_err(lost)?;
        if ended.load(Ordering::SeqCst) {
            return Ok(Outcome::Done);
        }
        Err(Failure::Refused(
            "the process that owns the replica has ended the session".into(),
        ))
    }

    fn send_input(&mut self, most: u32, console: &mut dyn Console) -> Result<()> {
        let mut bytes = vec![0; (most as usize).min(BODY_MAX)];
        let input = match console.input(&mut bytes) {
            Ok(read) => {
                bytes.truncate(read);
                Asked::Input(bytes)
            }
            Err(failure) => Asked::InputFailed(failure.report()),
        };
        input.send(&mut self.0).map_err(lost)
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        Self::Owner {
            message: failed.message,
            code: failed.code,
        }
    }
}

/// Passes on what comes, as it comes. Not with `io::copy`, which lets the kernel splice:
/// that waits for a socket with the pipe locked, so nobody can read what is in the pipe.
#[cfg(feature = "mcp")]
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&piece[..read]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn greet(stream: &mut UnixStream) -> io::Result<Option<Answer>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    Asked::Hello(Hello { version: VERSION }).send(stream)?;
    let answer = Answer::receive(stream)?;
    stream.set_read_timeout(None)?;
    Ok(answer)
}

/// Whether an error means that nobody is there (any more).
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

fn lost(error: io::Error) -> Failure {
    Failure::io("lost the process that owns the replica; what it did until then is kept")(error)
}

/// A connection that ends when the owner has closed the replica.
#[derive(Debug)]
pub(crate) struct Watch(UnixStream);

/// Begins to watch the owner of a replica, if there is one.
pub(crate) fn watch(replica: &Path) -> Option<Watch> {
    let mut client = Client::connect(replica).ok()??;
    Asked::Watch.send(&mut client.0).ok()?;
    Some(Watch(client.0))
}

impl Watch {
    /// Returns when the owner has closed the replica, or is gone.
    pub(crate) fn wait(mut self) {
        let mut byte = [0];
        while matches!(self.0.read(&mut byte), Ok(1)) {}
    }
}
