//! `cairn cat`: the content of files, in pieces.

use std::path::PathBuf;

use cairn::NodeKind;
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::{ReplicaArg, locate, shown};
use crate::text;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    replica: ReplicaArg,
    /// The files
    #[arg(value_name = "PLACE", required = true)]
    places: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    path: Vec<u8>,
}

pub(crate) fn run(args: &Args) -> Result {
    for place in &args.places {
        let place = locate(args.replica.replica.as_deref(), Some(place))?;
        host::perform(
            &place.replica,
            host::Request::Cat(Request { path: place.path }),
        )?;
    }
    Ok(Outcome::Done)
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let replica = &host.replica;
    let attr = replica
        .stat(&request.path)
        .map_err(Failure::fs(shown(&request.path)))?;
    match attr.kind {
        NodeKind::File => {}
        NodeKind::Dir => {
            return Err(Failure::Refused(format!(
                "{} is a directory; `cairn ls` lists it",
                shown(&request.path),
            )));
        }
        kind => {
            return Err(Failure::Refused(format!(
                "{} is a {}, which has no content",
                shown(&request.path),
                text::kind(kind),
            )));
        }
    }
    let ino = attr.ino;
    // Held open: it can be read to its end even if its name goes meanwhile.
    replica
        .retain(ino, false)
        .map_err(Failure::fs(shown(&request.path)))?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    let ended = loop {
        match replica.read(ino, offset, &mut piece) {
            Ok(0) => break Ok(Outcome::Done),
            Ok(read) => {
                offset += read as u64;
                if let Err(failure) = console.out(&piece[..read]) {
                    break Err(failure);
                }
            }
            Err(error) => {
                break Err(Failure::fs(format!("cannot read {}", shown(&request.path)))(error));
            }
        }
    };
    replica.release(ino, false);
    ended
}
