//! `cairn status`: what a replica holds, who owns it, and where it is mounted.

use std::fmt::Write;
use std::path::PathBuf;

use cairn::sync::{Follow, Refusal, Serve, State, Upstream};
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
    /// The hub that the replica follows, if it follows one.
    sync: Option<Sync>,
    /// Where the replica is served as a hub.
    serves: Vec<String>,
}

/// How far the replica is with its hub.
#[derive(Serialize)]
struct Sync {
    hub: String,
    /// The process that owns the replica has a session.
    connected: bool,
    /// What it does instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
    /// Why the hub does not take what is pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// The hub's commit that the replica has.
    cursor: Option<String>,
    /// Edits that the hub has not acknowledged.
    pending: u64,
    /// Bytes of the contents of those that are in no batch yet.
    pending_bytes: u64,
    /// Files that are being written, and pushed when that ends.
    writing: u64,
    /// Files that have more new chunks than can be pushed.
    outsized: u64,
    conflicts: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

fn sync(host: &Host) -> Result<Option<Sync>> {
    let Some(upstream) = Upstream::of(&host.replica)? else {
        return Ok(None);
    };
    let failed = || Failure::fs("cannot examine how far the sync is");
    let (connected, waits) = match host.follow().and_then(Follow::state) {
        Some(State::Connected) => (true, None),
        Some(State::Waiting { why } | State::Over { why }) => (false, Some(why.to_string())),
        Some(State::Connecting) => (false, Some("it is connecting".into())),
        None => (false, None),
    };
    let counters = host.follow().map(Follow::counters).unwrap_or_default();
    let status = if let Some(follow) = host.follow() {
        follow.status()?
    } else {
        let store = host.replica.upstream().map_err(failed())?;
        store.status().map_err(failed())?
    };
    // What is not there any more is not refused.
    let refusal = host.follow().and_then(Follow::refusal);
    let refusal = refusal.filter(|_| status.in_flight + status.pending > 0);
    let refused = refusal.map(|Refusal { code, detail }| format!("{code}: {detail}"));
    Ok(Some(Sync {
        hub: upstream.address().to_owned(),
        connected,
        waits,
        refused,
        cursor: status.cursor.map(|at| at.to_string()),
        pending: status.in_flight + status.pending,
        pending_bytes: status.pending_bytes,
        writing: status.writing,
        outsized: status.outsized.len() as u64,
        conflicts: status.conflicts,
        sent_bytes: counters.bytes_sent,
        received_bytes: counters.bytes_received,
    }))
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
        sync: sync(host)?,
        serves: host.serve().map(Serve::urls).unwrap_or_default(),
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
    let mut out = format!(
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
    );
    for url in &status.serves {
        let _ = writeln!(out, "serves    {url}");
    }
    if let Some(sync) = &status.sync {
        describe_sync(sync, &mut out);
    }
    out
}

fn describe_sync(sync: &Sync, out: &mut String) {
    let how = match &sync.waits {
        _ if sync.connected => "connected".to_owned(),
        Some(why) => format!("not connected: {why}"),
        None => "not connected: nobody follows it".to_owned(),
    };
    if let Some(refused) = &sync.refused {
        let _ = writeln!(out, "refused   {refused}");
    }
    if sync.outsized > 0 {
        let files = text::count(sync.outsized, "file", "files");
        let _ = writeln!(
            out,
            "too large {files} that cannot be pushed; the log names them"
        );
    }
    let cursor = sync.cursor.as_deref().unwrap_or("none yet");
    let _ = write!(
        out,
        "hub       {}, {how}\nhas       {cursor}\npending   {}, {}\ntraffic   {} sent, {} received\n",
        sync.hub,
        text::count(sync.pending, "edit", "edits"),
        text::count(sync.conflicts, "conflict", "conflicts"),
        text::bytes(sync.sent_bytes),
        text::bytes(sync.received_bytes),
    );
}
