//! `cairn clone`: makes a replica of a hub's workspace.

use std::path::{Path, PathBuf};

use cairn::sync::{Address, Follow};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Creation};
use crate::locate;
use crate::terminal::{Terminal, say};

use super::upstream::{Entry, bring_in_step};
use crate::transfer::Stop;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the workspace is: `quic://HOST[:PORT]/NAME`, `wss://` or `ws://`
    url: Address,
    /// The replica's directory or file, which is made; NAME stands for NAME.cairn
    /// [default: the name of the workspace]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    entry: Entry,
    #[command(flatten)]
    creation: Creation,
    /// A line of JSON for each step
    #[arg(long)]
    json: bool,
}

/// The replica of a name: `demo` stands for `demo.cairn`.
fn replica_of(dir: &Path) -> PathBuf {
    if dir
        .extension()
        .is_some_and(|extension| extension == "cairn")
    {
        return dir.into();
    }
    let mut name = dir.as_os_str().to_owned();
    name.push(".cairn");
    name.into()
}

pub(crate) fn run(args: &Args) -> Result {
    let workspace = PathBuf::from(args.url.workspace().to_string());
    let dir = replica_of(args.dir.as_ref().unwrap_or(&workspace));
    let dir = locate::canonical(&dir);
    if dir.exists() {
        return Err(Failure::Refused(format!(
            "{} is there already; `cairn sync {}` goes on with it",
            dir.display(),
            dir.display(),
        )));
    }
    let upstream = args.entry.upstream(&args.url)?;
    let made = locate::missing(&dir);
    let replica = host::own(&dir, &args.creation.options())?;
    let begun = upstream
        .keep(&replica)
        .and_then(|()| Follow::start(&replica, &upstream))
        .and_then(|follow| follow.connected_once().map(|()| follow));
    let follow = match begun {
        Ok(follow) => follow,
        Err(error) => {
            drop(replica);
            // Nothing has come yet.
            locate::remove_made(&made);
            return Err(error.into());
        }
    };
    let mut terminal = Terminal::new();
    // A signal ends the process as it is: what has come is kept.
    let never = Stop::default();
    let done = bring_in_step(&follow, &replica, &never, args.json, &mut terminal);
    let console: &mut dyn Console = &mut terminal;
    if let Err(failure) = done {
        console.note(&format!(
            "what has come is kept; `cairn sync {}` goes on with it",
            dir.display()
        ))?;
        return Err(failure);
    }
    terminal.finish()?;
    drop(follow);
    replica
        .sync()
        .map_err(Failure::fs("cannot sync the replica"))?;
    if !args.json {
        say(&format!(
            "{} is a replica of {}; use it with `cairn mount {} --replica {}`",
            dir.display(),
            args.url,
            dir.with_extension("").display(),
            dir.display(),
        ));
    }
    Ok(Outcome::Done)
}
