//! `cairn check`: verifies every invariant and every chunk, and names what is
//! damaged. It repairs nothing, but where there is a hub it notes which chunks are
//! damaged, so that they come again.

use std::time::{Duration, Instant};

use cairn::sync::State;
use serde::{Deserialize, Serialize};

use crate::console::{Console, Progress};
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;
use crate::text;

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(100);

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
        host::Request::Check(Request { json: args.json }),
    )
}

#[derive(Serialize)]
struct Report {
    nodes: u64,
    chunks: u64,
    bytes: u64,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    what: String,
    why: String,
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let mut told = Instant::now();
    let report = host.replica.check(&mut |bytes, total| {
        if told.elapsed() >= REPORT {
            told = Instant::now();
            // Nothing to stop for: who asked gets to know when it is over.
            let _ = console.progress(&Progress {
                files: 0,
                bytes,
                total_bytes: Some(total),
            });
        }
    });
    let report = report.map_err(Failure::fs("the replica cannot be examined"))?;
    let found = !report.problems.is_empty();
    if request.json {
        let problems = report
            .problems
            .into_iter()
            .map(|p| Problem {
                what: p.what,
                why: p.why,
            })
            .collect();
        let report = Report {
            nodes: report.nodes,
            chunks: report.chunks,
            bytes: report.bytes,
            problems,
        };
        console.out(&super::json(&report)?)?;
        return Ok(Outcome::unless(found));
    }
    for problem in &report.problems {
        console.out(format!("{problem}\n").as_bytes())?;
    }
    // What the hub has comes without another word, if it is there.
    if let Some(follow) = host.follow()
        && matches!(follow.state(), Some(State::Connected))
        && let Err(error) = follow.mend()
    {
        console.note(&format!("what is damaged cannot be fetched now: {error}"))?;
    }
    if !host.replica.lost_chunks().is_empty() {
        console.note(
            "chunks that are damaged come again: at a hub from replicas that have them, when \
             they sync; at a replica from its hub, with `cairn sync`",
        )?;
    }
    console.note(&format!(
        "verified {}, {} and {}: {}",
        text::count(report.nodes, "node", "nodes"),
        text::count(report.chunks, "chunk", "chunks"),
        text::bytes(report.bytes),
        match report.problems.len() as u64 {
            0 => "all is well".into(),
            problems => text::count(problems, "problem", "problems"),
        },
    ))?;
    Ok(Outcome::unless(found))
}
