//! `cairn ignore`: what of a replica is neither pushed to its hub nor taken from
//! it.

use cairn::Replica;
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::PlaceArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Ignore these, too: a name (`node_modules`, `*.log`) or a path (`/build`); may be repeated
    #[arg(long, value_name = "RULE")]
    add: Vec<String>,
    /// Ignore these no more: what was ignored is shown, and pushed
    #[arg(long, value_name = "RULE")]
    remove: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    add: Vec<String>,
    remove: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let request = Request {
        add: args.add.clone(),
        remove: args.remove.clone(),
    };
    host::perform(&place.replica, host::Request::Ignore(request))
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let mut rules = get(host)?;
    for rule in &request.remove {
        let at = rules.iter().position(|known| known == rule);
        let at = at.ok_or_else(|| Failure::Refused(format!("{rule:?} is not among the rules")))?;
        rules.remove(at);
    }
    for rule in &request.add {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    if !(request.add.is_empty() && request.remove.is_empty()) {
        set(host, &rules)?;
    }
    for rule in &rules {
        console.out(format!("{rule}\n").as_bytes())?;
    }
    Ok(Outcome::Done)
}

fn get(host: &Host) -> Result<Vec<String>> {
    if let Some(follow) = host.follow() {
        return Ok(follow.ignore_rules()?);
    }
    let rules = |replica: &Replica| replica.upstream()?.ignore_rules();
    rules(&host.replica).map_err(Failure::fs("cannot read the rules"))
}

fn set(host: &Host, rules: &[String]) -> Result<()> {
    if let Some(follow) = host.follow() {
        return Ok(follow.set_ignore_rules(rules)?);
    }
    let set = |replica: &Replica| replica.upstream()?.set_ignore_rules(rules);
    set(&host.replica).map_err(Failure::fs("cannot set the rules"))
}
