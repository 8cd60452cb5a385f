//! `cairn conflicts`: where the hub did otherwise than an editor said, since
//! somebody else had edited the same.

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use cairn::Replica;
use cairn::sync::{Conflict, Outcome as Became};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the conflicts that nobody has resolved
    List {
        #[command(flatten)]
        place: PlaceArgs,
        /// A line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Show one
    Show {
        /// Its number, as `list` shows it
        id: u64,
        #[command(flatten)]
        place: PlaceArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End one
    Resolve {
        /// Its number, as `list` shows it
        id: u64,
        /// Which of two contents stays
        #[arg(long, value_enum, default_value_t = Keep::Both)]
        keep: Keep,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Which of two contents stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Keep {
    /// Both, where they are: the conflict is only marked as seen
    Both,
    /// That under the file's own name; the copy is removed
    Original,
    /// That of the copy, which replaces the file
    Copy,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    List { json: bool },
    Show { id: u64, json: bool },
    Resolve { id: u64, keep: Keep },
}

pub(crate) fn run(args: &Args) -> Result {
    let (place, request) = match &args.what {
        What::List { place, json } => (place, Request::List { json: *json }),
        What::Show { id, place, json } => (
            place,
            Request::Show {
                id: *id,
                json: *json,
            },
        ),
        What::Resolve { id, keep, place } => {
            let (id, keep) = (*id, *keep);
            (place, Request::Resolve { id, keep })
        }
    };
    let place = place.locate()?;
    host::perform(&place.replica, host::Request::Conflicts(request))
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let replica = &host.replica;
    let all = replica
        .conflicts()
        .map_err(Failure::fs("cannot read the conflicts"))?;
    match request {
        Request::List { json } => {
            for conflict in &all {
                show(replica, conflict, *json, console)?;
            }
            Ok(Outcome::unless(!all.is_empty()))
        }
        Request::Show { id, json } => {
            show(replica, find(&all, *id)?, *json, console)?;
            Ok(Outcome::Done)
        }
        Request::Resolve { id, keep } => {
            let conflict = find(&all, *id)?;
            settle(replica, conflict, *keep)?;
            let failed = Failure::fs(format!("cannot end conflict {id}"));
            replica.resolve_conflict(*id).map_err(failed)?;
            Ok(Outcome::Done)
        }
    }
}

fn find(all: &[Conflict], id: u64) -> Result<&Conflict> {
    all.iter()
        .find(|conflict| conflict.id == id)
        .ok_or_else(|| {
            Failure::Refused(format!(
                "there is no open conflict {id}; `cairn conflicts list` shows those that there are"
            ))
        })
}

/// A conflict, for programs.
#[derive(Serialize)]
struct Line<'a> {
    id: u64,
    commit: u64,
    by: String,
    at_ms: i64,
    what: &'a str,
    path: Option<String>,
}

fn show(
    replica: &Replica,
    conflict: &Conflict,
    json: bool,
    console: &mut dyn Console,
) -> Result<()> {
    let path = path_of(replica, conflict)?;
    let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
    let what = describe(&conflict.outcome);
    let out = if json {
        super::json(&Line {
            id: conflict.id,
            commit: conflict.seq,
            by: conflict.by.to_string(),
            at_ms: conflict.at_ms,
            what,
            path,
        })?
    } else {
        let path = path.unwrap_or_else(|| "(gone)".into());
        let (id, by) = (conflict.id, conflict.by);
        format!("{id}\t{path}\t{what}, by replica {by}\n").into_bytes()
    };
    console.out(&out)
}

fn describe(outcome: &Became) -> &'static str {
    match outcome {
        Became::Copied { .. } => "edited on two sides: one content is this copy",
        Became::Revived { .. } => "removed on one side, used on the other: it is back",
        Became::Kept { .. } => "removed by somebody who had not seen it as it is: kept",
        Became::Renamed { .. } => "its name was taken: it has this one",
        Became::Alias { .. } => "made on two sides: it is one now",
        Became::Refused { .. } => "somebody else was first: nothing changed",
    }
}

/// Where what a conflict is about is now.
fn path_of(replica: &Replica, conflict: &Conflict) -> Result<Option<Vec<u8>>> {
    let node = match &conflict.outcome {
        Became::Copied { copy: node, .. }
        | Became::Revived { node }
        | Became::Kept { node }
        | Became::Renamed { node, .. }
        | Became::Alias { to: node, .. } => *node,
        Became::Refused { .. } => return Ok(None),
    };
    let failed = Failure::fs(format!("cannot find conflict {}", conflict.id));
    replica.path_of_id(node).map_err(failed)
}

/// Lets the content stay that is wanted.
fn settle(replica: &Replica, conflict: &Conflict, keep: Keep) -> Result<()> {
    if keep == Keep::Both {
        return Ok(());
    }
    let (Became::Copied { .. } | Became::Renamed { .. }) = conflict.outcome else {
        return Err(Failure::Refused(
            "only of two contents one can be kept; end this conflict without --keep".into(),
        ));
    };
    let Some(copy) = path_of(replica, conflict)? else {
        return Ok(());
    };
    let named = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let failed = || Failure::fs(format!("cannot replace {}", named(&copy)));
    match keep {
        Keep::Both => Ok(()),
        Keep::Original => replica.remove(&copy).map_err(failed()),
        Keep::Copy => {
            let original = original_of(&copy).ok_or_else(|| {
                Failure::Refused(format!(
                    "{} was renamed since; move it where it belongs, and end the conflict",
                    named(&copy)
                ))
            })?;
            replica.rename_path(&copy, original).map_err(failed())
        }
    }
}

/// The file that a conflict name is of.
fn original_of(copy: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b".conflict-";
    let name = copy.iter().rposition(|byte| *byte == b'/')? + 1;
    let at = copy[name..]
        .windows(MARK.len())
        .rposition(|part| part == MARK)?;
    (at > 0).then(|| &copy[..name + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_of_a_conflict_name_is_found() {
        assert_eq!(original_of(b"/a.conflict-b/c"), None);
        assert_eq!(
            original_of(b"/a/b.txt.conflict-1f-2"),
            Some(&b"/a/b.txt"[..])
        );
        assert_eq!(original_of(b"/.conflict-1"), None);
    }
}
