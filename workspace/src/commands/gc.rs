//! `cairn gc`: gives back the space of what nothing needs any more.

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
        host::Request::Gc(Request { json: args.json }),
    )
}

/// What was given back.
#[derive(Serialize)]
struct Report {
    chunks: u64,
    bytes: u64,
    packs: u64,
    moved_bytes: u64,
    log_entries: u64,
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let report = host.replica.gc().map_err(Failure::fs(
        "the collection stopped; what was done stays done",
    ))?;
    let report = Report {
        chunks: report.chunks,
        bytes: report.bytes,
        packs: report.packs,
        moved_bytes: report.moved_bytes,
        log_entries: report.log_entries,
    };
    let out = if request.json {
        super::json(&report)?
    } else {
        format!(
            "gave back {} in {}, {} and {}; moved {} out of packs that were mostly empty\n",
            text::bytes(report.bytes),
            text::count(report.chunks, "chunk", "chunks"),
            text::count(report.packs, "pack", "packs"),
            text::count(report.log_entries, "log entry", "log entries"),
            text::bytes(report.moved_bytes),
        )
        .into_bytes()
    };
    console.out(&out)?;
    Ok(Outcome::Done)
}
