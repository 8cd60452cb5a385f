//! `cairn token`: who may come to the hub of a replica.

use serde::{Deserialize, Serialize};

use cairn::sync::{Permission, new_token, tokens};

use crate::console::Console;
use crate::failure::{Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Make a new token in the place of the old one; with the first, nobody may come without
    #[arg(long)]
    new: bool,
    /// The token with which one may follow, and not push
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    new: bool,
    read_only: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let request = Request {
        new: args.new,
        read_only: args.read_only,
    };
    host::perform(&place.replica, host::Request::Token(request))
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let wanted = if request.read_only {
        Permission::Read
    } else {
        Permission::Write
    };
    let token = if request.new {
        Some(new_token(&host.replica, wanted)?)
    } else {
        let known = tokens(&host.replica)?;
        let mut known = known.into_iter().filter(|(of, _)| *of == wanted);
        known.next().map(|(_, token)| token)
    };
    let Some(token) = token else {
        console.note("there is no such token yet; make one with --new")?;
        return Ok(Outcome::Partial);
    };
    console.out(format!("{token}\n").as_bytes())?;
    Ok(Outcome::Done)
}
