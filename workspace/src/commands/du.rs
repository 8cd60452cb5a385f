//! `cairn du`: what takes the space, per entry of a directory and in all.
//!
//! Of an entry it tells what its files hold (`logical`) and what they would
//! take if nothing were shared (`allocated`: without holes). What is stored,
//! and what sharing saves, is a matter of the whole replica.

use std::collections::HashSet;
use std::fmt::Write as _;

use cairn::{Attr, Ino, NodeKind, Replica};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::{PlaceArgs, shown};
use crate::text;

use super::ls::{entries, join};

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
    path: Vec<u8>,
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let request = Request {
        path: place.path,
        json: args.json,
    };
    host::perform(&place.replica, host::Request::Du(request))
}

/// What a tree holds.
#[derive(Clone, Copy, Default, Serialize)]
struct Size {
    nodes: u64,
    logical_bytes: u64,
    allocated_bytes: u64,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.logical_bytes += other.logical_bytes;
        self.allocated_bytes += other.allocated_bytes;
    }
}

#[derive(Serialize)]
struct Report {
    path: String,
    entries: Vec<Line>,
    total: Size,
    replica: Whole,
}

#[derive(Serialize)]
struct Line {
    name: String,
    kind: &'static str,
    #[serde(flatten)]
    size: Size,
}

/// The whole replica.
#[derive(Serialize)]
#[allow(
    clippy::struct_field_names,
    reason = "a script sees the names, and needs the unit"
)]
struct Whole {
    logical_bytes: u64,
    stored_bytes: u64,
    shared_bytes: u64,
    unsealed_bytes: u64,
    disk_bytes: u64,
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let report = measure(&request.path, &host.replica)?;
    let out = if request.json {
        super::json(&report)?
    } else {
        describe(&report).into_bytes()
    };
    console.out(&out)?;
    Ok(Outcome::Done)
}

fn measure(path: &[u8], replica: &Replica) -> Result<Report> {
    let usage = replica
        .usage()
        .map_err(Failure::fs("cannot examine the replica"))?;
    let mut walk = Walk {
        replica,
        linked: HashSet::new(),
    };
    let attr = replica.stat(path).map_err(Failure::fs(shown(path)))?;
    let mut total = walk.one(&attr);
    let mut lines = Vec::new();
    if attr.kind == NodeKind::Dir {
        for entry in entries(replica, path)? {
            let size = walk.tree(&join(path, &entry.name), &entry.attr)?;
            total.add(size);
            lines.push(Line {
                name: shown(&entry.name),
                kind: text::kind(entry.attr.kind),
                size,
            });
        }
    }
    lines.sort_by(|a, b| {
        b.size
            .allocated_bytes
            .cmp(&a.size.allocated_bytes)
            .then_with(|| a.name.cmp(&b.name))
    });
    Ok(Report {
        path: shown(path),
        entries: lines,
        total,
        replica: Whole {
            logical_bytes: usage.logical_bytes,
            stored_bytes: usage.stored_bytes,
            shared_bytes: usage.shared_bytes,
            unsealed_bytes: usage.unsealed_bytes,
            disk_bytes: usage.disk_bytes,
        },
    })
}

struct Walk<'a> {
    replica: &'a Replica,
    /// Files with several names that were met: they count once.
    linked: HashSet<Ino>,
}

impl Walk<'_> {
    fn one(&mut self, attr: &Attr) -> Size {
        if attr.kind != NodeKind::Dir && attr.nlink > 1 && !self.linked.insert(attr.ino) {
            return Size::default();
        }
        let logical_bytes = if attr.kind == NodeKind::File {
            attr.size
        } else {
            0
        };
        Size {
            nodes: 1,
            logical_bytes,
            allocated_bytes: attr.blocks * 512,
        }
    }

    fn tree(&mut self, path: &[u8], attr: &Attr) -> Result<Size> {
        let mut size = self.one(attr);
        let mut todo = vec![(path.to_vec(), *attr)];
        while let Some((path, attr)) = todo.pop() {
            if attr.kind != NodeKind::Dir {
                continue;
            }
            for entry in entries(self.replica, &path)? {
                size.add(self.one(&entry.attr));
                if entry.attr.kind == NodeKind::Dir {
                    todo.push((join(&path, &entry.name), entry.attr));
                }
            }
        }
        Ok(size)
    }
}

fn describe(report: &Report) -> String {
    let line = |size: &Size, name: &str| {
        format!(
            "{:>12} {:>12} {:>9}  {name}\n",
            text::bytes(size.logical_bytes),
            text::bytes(size.allocated_bytes),
            size.nodes
        )
    };
    let mut out = format!("{:>12} {:>12} {:>9}\n", "logical", "allocated", "nodes");
    for entry in &report.entries {
        let slash = if entry.kind == "dir" { "/" } else { "" };
        out += &line(&entry.size, &format!("{}{slash}", entry.name));
    }
    out += &line(&report.total, &format!("{} in all", report.path));
    let _ = writeln!(
        out,
        "the replica holds {} in files, {} stored, {} saved by sharing, {} not sealed yet, {} on disk",
        text::bytes(report.replica.logical_bytes),
        text::bytes(report.replica.stored_bytes),
        text::bytes(report.replica.shared_bytes),
        text::bytes(report.replica.unsealed_bytes),
        text::bytes(report.replica.disk_bytes),
    );
    out
}
