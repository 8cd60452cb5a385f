//! `cairn log`: the change log from a cursor on.

use std::fmt;
use std::str::FromStr;

use cairn::Replica;
use cairn::log::{Change, Cursor, Data, Entry, NodeId};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::{PlaceArgs, shown};
use crate::text;

/// Changes read at a time.
const PAGE: u64 = 4_096;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Begin after this cursor, as printed by an earlier `log` or by `status`
    #[arg(long, value_name = "CURSOR")]
    since: Option<Point>,
    /// Stop after about this many changes; the cursor printed then goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    since: Option<Point>,
    limit: Option<u64>,
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let request = Request {
        since: args.since,
        limit: args.limit,
        json: args.json,
    };
    host::perform(&place.replica, host::Request::Log(request))
}

/// Where to go on: at a cursor, or in the midst of the changes between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Changes up to here are known.
    since: Option<Cursor>,
    /// The cut that is being read, and how far.
    within: Option<(Cursor, u64)>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = &self.since {
            write!(f, "{since}")?;
        }
        match &self.within {
            Some((until, at)) => write!(f, "/{until}/{at}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cursor = |text: &str| text.parse::<Cursor>().map_err(|error| error.to_string());
        let mut fields = text.split('/');
        let since = match fields.next() {
            None | Some("") => None,
            Some(since) => Some(cursor(since)?),
        };
        let within = match (fields.next(), fields.next(), fields.next()) {
            (None, ..) if since.is_some() => None,
            (Some(until), Some(at), None) => Some((
                cursor(until)?,
                at.parse().map_err(|_| "not a cursor".to_owned())?,
            )),
            _ => return Err("not a cursor that `cairn log` or `cairn status` printed".into()),
        };
        Ok(Self { since, within })
    }
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let since = request.since.and_then(|point| point.since);
    let within = request.since.and_then(|point| point.within);
    let (mut until, mut at) = (
        within.map(|(until, _)| until),
        within.map_or(0, |(_, at)| at),
    );
    let mut left = request.limit.unwrap_or(u64::MAX);
    let mut next = Point { since, within };
    while left > 0 {
        let limit = usize::try_from(left.min(PAGE)).unwrap_or(usize::MAX);
        let page = host
            .replica
            .changes_page(since.as_ref(), until.as_ref(), at, limit)?;
        for change in &page.changes {
            console.out(&line(change, &host.replica, request.json)?)?;
        }
        left = left.saturating_sub(page.changes.len() as u64);
        if !page.more {
            next = Point {
                since: Some(page.next),
                within: None,
            };
            break;
        }
        until = Some(page.next);
        at = page.resume;
        next.within = Some((page.next, at));
    }
    let last = if request.json {
        super::json(&serde_json::json!({ "next": next.to_string() }))?
    } else {
        format!("next {next}\n").into_bytes()
    };
    console.out(&last)?;
    Ok(Outcome::Done)
}

/// A change for a script.
#[derive(Serialize)]
struct Record {
    seq: u64,
    what: &'static str,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

fn line(change: &Change, replica: &Replica, json: bool) -> Result<Vec<u8>> {
    let record = record(change, replica)?;
    if json {
        return super::json(&record);
    }
    let path = record.path.unwrap_or(record.node);
    let detail = record
        .detail
        .map(|detail| format!("  {detail}"))
        .unwrap_or_default();
    Ok(format!("{:>8} {:<7} {path}{detail}\n", record.seq, record.what).into_bytes())
}

fn record(change: &Change, replica: &Replica) -> Result<Record> {
    let (what, node, path, detail) = match &change.entry {
        Entry::Node { id, kind } => (
            "node",
            *id,
            path_of(replica, *id)?,
            Some(text::kind(*kind).into()),
        ),
        Entry::Data { node, data } => (
            "data",
            *node,
            path_of(replica, *node)?,
            Some(describe(data)),
        ),
        Entry::Meta { node, meta } => {
            let detail = format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid);
            ("meta", *node, path_of(replica, *node)?, Some(detail))
        }
        Entry::Name { parent, name, node } => {
            let path = path_of(replica, *parent)?
                .map(|dir| format!("{}/{}", dir.trim_end_matches('/'), shown(name.as_bytes())));
            let what = if node.is_some() { "name" } else { "unname" };
            (what, node.unwrap_or(*parent), path, None)
        }
        Entry::Xattr { node, name, value } => {
            let what = if value.is_some() { "xattr" } else { "unxattr" };
            (
                what,
                *node,
                path_of(replica, *node)?,
                Some(name.to_string()),
            )
        }
        Entry::Gone { node } => ("gone", *node, None, None),
    };
    Ok(Record {
        seq: change.ver,
        what,
        node: node.to_string(),
        path,
        detail,
    })
}

/// The present path of a node, if it has one.
fn path_of(replica: &Replica, node: NodeId) -> Result<Option<String>> {
    let path = match replica.ino_of(node) {
        Ok(Some(ino)) => replica.path_of(ino),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let path = path.map_err(Failure::fs("cannot read the log"))?;
    Ok(path.map(|path| shown(&path)))
}

fn describe(data: &Data) -> String {
    match data {
        Data::Symlink { target } => format!("-> {}", shown(target)),
        Data::Special { rdev } => format!("device {rdev:#x}"),
        other => text::bytes(other.size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_survives_its_text() {
        let cursor = format!(
            "{}:7:{}:{}",
            "ab".repeat(16),
            "cd".repeat(16),
            "00".repeat(8)
        );
        for text in [
            cursor.clone(),
            format!("{cursor}/{cursor}/5"),
            format!("/{cursor}/5"),
        ] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        for text in ["", "/", "7", "//5", "a/b/c/d"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
