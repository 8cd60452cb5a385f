//! `cairn evict`: gives up the bytes of contents that the hub holds, too.

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;
use crate::text;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    host::perform(
        &place.replica,
        host::Request::Evict(Request { json: args.json }),
    )
}

/// What was given up.
#[derive(Serialize)]
struct Report {
    bytes: u64,
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let bytes = match host.follow() {
        Some(follow) => follow.evict()?,
        None => (host.replica.upstream())
            .and_then(|upstream| upstream.evict())
            .map_err(Failure::fs("what the hub holds cannot be given up"))?,
    };
    let out = if request.json {
        super::json(&Report { bytes })?
    } else {
        format!(
            "gave up {} that the hub holds; who reads them fetches them again\n",
            text::bytes(bytes)
        )
        .into_bytes()
    };
    console.out(&out)?;
    Ok(Outcome::Done)
}
