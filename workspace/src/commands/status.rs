//! `cairn status`: what a replica holds, who owns it, and where it is mounted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;
use crate::{mountinfo, text};

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
    replica: PathBuf,
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let request = Request {
        replica: place.replica.clone(),
        json: args.json,
    };
    host::perform(&place.replica, host::Request::Status(request))
}

/// The state of a replica.
#[derive(Serialize)]
struct Status {
    replica: String,
    /// The process that owns the replica; none while nobody uses it.
    owner: Option<u32>,
    mounts: Vec<String>,
    epoch: String,
    cursor: String,
    nodes: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    shared_bytes: u64,
    chunks: u64,
    unsealed_bytes: u64,
    dead_bytes: u64,
    disk_bytes: u64,
    available_bytes: u64,
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let failed =
        |error| Failure::fs(format!("cannot examine {}", request.replica.display()))(error);
    let usage = host.replica.usage().map_err(failed)?;
    let cursor = host.replica.committed_cursor().map_err(failed)?;
    let disk = host.replica.stat_fs().map_err(failed)?;
    let mounts = mountinfo::mounts_of(&request.replica);
    let status = Status {
        replica: request.replica.display().to_string(),
        owner: host.serving.then(std::process::id),
        mounts: mounts.iter().map(|at| at.display().to_string()).collect(),
        epoch: cursor.epoch.to_string(),
        cursor: cursor.to_string(),
        nodes: usage.nodes,
        logical_bytes: usage.logical_bytes,
        stored_bytes: usage.stored_bytes,
        shared_bytes: usage.shared_bytes,
        chunks: usage.chunks,
        unsealed_bytes: usage.unsealed_bytes,
        dead_bytes: usage.dead_bytes,
        disk_bytes: usage.disk_bytes,
        available_bytes: disk.available_bytes,
    };
    let out = if request.json {
        super::json(&status)?
    } else {
        describe(&status).into_bytes()
    };
    console.out(&out)?;
    Ok(Outcome::Done)
}

fn describe(status: &Status) -> String {
    let owner = status
        .owner
        .map_or_else(|| "no process".into(), |pid| format!("process {pid}"));
    let mounts = if status.mounts.is_empty() {
        "nowhere".into()
    } else {
        status.mounts.join(", ")
    };
    format!(
        "replica   {}\nowner     {owner}\nmounted   {mounts}\nepoch     {}\ncursor    {}\nnodes     {}\n\
         logical   {}\nstored    {} in {}\nshared    {}\nunsealed  {}\nwaste     {}\non disk   {}, {} free\n",
        status.replica,
        status.epoch,
        status.cursor,
        status.nodes,
        text::bytes(status.logical_bytes),
        text::bytes(status.stored_bytes),
        text::count(status.chunks, "chunk", "chunks"),
        text::bytes(status.shared_bytes),
        text::bytes(status.unsealed_bytes),
        text::bytes(status.dead_bytes),
        text::bytes(status.disk_bytes),
        text::bytes(status.available_bytes),
    )
}
