//! The asking side of a control connection.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::Request;

use super::address;
use super::wire::{Answer, Asked, BODY_MAX, Hello, VERSION};

/// A connection to the owner of a replica.
#[derive(Debug)]
pub(crate) struct Client(UnixStream);

impl Client {
    /// Connects. `None` when no process listens: then the owner has just begun
    /// or just ended, or is a program that embeds the engine.
    pub(crate) fn connect(replica: &Path) -> Result<Option<Self>> {
        match address::connect(replica) {
            Ok(stream) => Ok(Some(Self(stream))),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(lost(error)),
            },
        }
    }

    /// Has the owner run a request, and shows what it answers.
    pub(crate) fn perform(mut self, request: Request, console: &mut dyn Console) -> Result {
        self.greet()
            .and_then(|()| Asked::Request(request).send(&mut self.0))
            .map_err(lost)?;
        loop {
            match Answer::receive(&mut self.0).map_err(lost)? {
                Some(Answer::Out(bytes)) => console.out(&bytes)?,
                Some(Answer::Note(line)) => console.note(&line)?,
                Some(Answer::Progress(at)) => console.progress(&at)?,
                Some(Answer::WantInput(most)) => self.send_input(most, console)?,
                Some(Answer::Done(partial)) => return Ok(Outcome::unless(partial)),
                Some(Answer::Failed(failed)) => {
                    return Err(Failure::Owner {
                        message: failed.message,
                        code: failed.code,
                    });
                }
                None => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        Asked::Hello(Hello { version: VERSION }).send(&mut self.0)
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

fn lost(error: io::Error) -> Failure {
    Failure::io("lost the process that owns the replica; what it did until then is kept")(error)
}

/// A connection that ends when the owner has closed the replica.
#[derive(Debug)]
pub(crate) struct Watch(UnixStream);

/// Begins to watch the owner of a replica, if there is one.
pub(crate) fn watch(replica: &Path) -> Option<Watch> {
    let mut client = Client::connect(replica).ok()??;
    client
        .greet()
        .and_then(|()| Asked::Watch.send(&mut client.0))
        .ok()?;
    Some(Watch(client.0))
}

impl Watch {
    /// Returns when the owner has closed the replica, or is gone.
    pub(crate) fn wait(mut self) {
        let mut byte = [0];
        while matches!(self.0.read(&mut byte), Ok(1)) {}
    }
}
