//! `cairn sync`: brings a replica in step with its hub, once or as long as it
//! runs.

use std::time::Duration;

use cairn::Options;
use cairn::sync::{Address, ClientEvent, Event, Follow, State, SyncError, Upstream};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host, Owner};
use crate::locate::PlaceArgs;
use crate::transfer::Stop;

use super::upstream::{Entry, bring_in_step, choose};

/// Between two looks at whether to stop.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// The hub to follow from now on [default: the one that it follows]
    #[arg(long, value_name = "URL")]
    upstream: Option<Address>,
    #[command(flatten)]
    entry: Entry,
    /// Go on until Ctrl-C: what is edited on either side appears on the other
    #[arg(short, long)]
    watch: bool,
    /// For a copy of a replica: give it an identity of its own first. What it has not
    /// pushed stays, and is pushed as its edits
    #[arg(long)]
    new_identity: bool,
    /// Apply what the hub has, even if it removes most of the replica
    #[arg(long)]
    proceed: bool,
    /// A line of JSON for each step
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    upstream: Option<Upstream>,
    watch: bool,
    proceed: bool,
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = args.place.locate()?;
    let address = args.upstream.as_ref();
    let upstream = address.map(|address| args.entry.upstream(address));
    let request = Request {
        upstream: upstream.transpose()?,
        watch: args.watch,
        proceed: args.proceed,
        json: args.json,
    };
    let options = Options {
        create: false,
        renew_identity: args.new_identity,
        ..Options::default()
    };
    let owner = host::owner(&place.replica, &options)?;
    if args.new_identity && matches!(owner, Owner::Other(_)) {
        return Err(Failure::Refused(
            "the identity of a replica cannot be renewed while it is in use; unmount it first"
                .into(),
        ));
    }
    owner.perform_in_terminal(host::Request::Sync(request))
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let stop = Stop::on_signals()?;
    if let Some(serve) = host.serve().filter(|_| request.proceed) {
        // The working tree of a hub follows that, which may remove most of it, too.
        serve.proceed(&host.replica);
        serve.settle()?;
        if host.follow().is_none() && request.upstream.is_none() {
            return Ok(Outcome::Done);
        }
    }
    if let Some(follow) = host.follow() {
        if request.upstream.is_some() {
            return Err(Failure::Refused(
                "the replica follows a hub already, in the process that owns it; end that first"
                    .into(),
            ));
        }
        return with(follow, request, host, &stop, console);
    }
    let upstream = choose(&host.replica, request.upstream.as_ref())?;
    let upstream = upstream.ok_or(SyncError::NoUpstream)?;
    let follow = Follow::start(&host.replica, &upstream)?;
    follow.connected_once()?;
    with(&follow, request, host, &stop, console)
}

fn with(
    follow: &Follow,
    request: &Request,
    host: &Host,
    stop: &Stop,
    console: &mut dyn Console,
) -> Result {
    let mut events = follow.events()?;
    match bring_in_step(follow, &host.replica, stop, request.json, console) {
        Err(Failure::Sync(SyncError::Halted { .. })) if request.proceed => {
            follow.proceed();
            bring_in_step(follow, &host.replica, stop, request.json, console)?;
        }
        // What the hub does not take waits, and keeps nobody from following.
        Err(Failure::Sync(why @ SyncError::Refused { .. })) if request.watch => {
            // That was before anybody listened to events.
            told("refused", why.to_string(), request.json, console)?;
        }
        done => done?,
    }
    if !request.watch {
        let open = host
            .replica
            .conflicts()
            .map_err(Failure::fs("cannot read the conflicts"))?;
        return Ok(Outcome::unless(!open.is_empty()));
    }
    while stop.check().is_ok() {
        if let Some(event) = follow.next_event(&mut events, PAUSE) {
            tell(&event, request.json, console)?;
            if let ClientEvent::State(State::Over { .. }) = event {
                follow.connected()?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// What happened, as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

fn tell(event: &ClientEvent, json: bool, console: &mut dyn Console) -> Result<()> {
    let Some((name, detail)) = describe(event) else {
        return Ok(());
    };
    told(name, detail, json, console)
}

fn told(event: &str, detail: String, json: bool, console: &mut dyn Console) -> Result<()> {
    if json {
        console.out(&super::json(&Line { event, detail })?)?;
        return console.flush();
    }
    console.note(&format!("{event}: {detail}"))
}

/// The events that count for who watches.
fn describe(event: &ClientEvent) -> Option<(&'static str, String)> {
    Some(match event {
        ClientEvent::State(State::Connected) => ("connected", String::new()),
        ClientEvent::State(State::Waiting { why }) => ("waiting", why.to_string()),
        ClientEvent::State(State::Over { why }) => ("over", why.to_string()),
        ClientEvent::Session(Event::CutApplied { cursor, changes }) => {
            let changes = crate::text::count(*changes, "change", "changes");
            ("applied", format!("{changes}, up to commit {}", cursor.seq))
        }
        ClientEvent::Session(Event::Pushed { seq, outcomes, .. }) => {
            let outcomes = match outcomes.len() as u64 {
                0 => String::new(),
                n => format!(", {}", crate::text::count(n, "conflict", "conflicts")),
            };
            ("pushed", format!("commit {seq}{outcomes}"))
        }
        ClientEvent::Session(Event::NotPushed { code, detail, .. }) => {
            ("refused", format!("{code}: {detail}"))
        }
        ClientEvent::Session(Event::Halted { removed, of }) => (
            "halted",
            format!("{removed} of {of} nodes would go; `cairn sync --proceed` lets them"),
        ),
        ClientEvent::Session(Event::Reset { why }) => ("reset", format!("{why:?}")),
        _ => return None,
    })
}
