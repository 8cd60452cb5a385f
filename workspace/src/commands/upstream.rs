//! What commands that follow a hub have in common: the options that say which
//! hub, and how it goes on, for people and for programs.

use std::ffi::OsString;
use std::path::PathBuf;

use cairn::Replica;
use cairn::sync::{Address, Counters, Fingerprint, Follow, Upstream, Verify};
use serde::{Deserialize, Serialize};

use crate::console::{Console, Progress};
use crate::failure::{Failure, Result};
use crate::transfer::Stop;

/// The variable that has the token, where others do not see it.
const TOKEN: &str = "CAIRN_TOKEN";

/// How to get into a hub.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Entry {
    /// A file with the token that the hub asks for [default: the variable `CAIRN_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Take only the hub whose certificate has this fingerprint (SHA-256)
    #[arg(long, value_name = "HEX", conflicts_with = "authorities")]
    fingerprint: Option<Fingerprint>,
    /// Take the hub if an authority that this system trusts vouches for it; without this and
    /// --fingerprint, the certificate that it has the first time is remembered
    #[arg(long)]
    authorities: bool,
    /// Get names and attributes at once, and contents when they are read
    #[arg(long)]
    lazy: bool,
}

impl Entry {
    /// The hub at an address.
    pub(crate) fn upstream(&self, address: &Address) -> Result<Upstream> {
        let mut upstream = Upstream::new(address).token(&self.token()?).lazy(self.lazy);
        if let Some(fingerprint) = self.fingerprint {
            upstream = upstream.fingerprint(fingerprint);
        }
        if self.authorities {
            upstream = upstream.verify(Verify::Authorities);
        }
        Ok(upstream)
    }

    fn token(&self) -> Result<String> {
        let Some(file) = &self.token_file else {
            return Ok(std::env::var(TOKEN).unwrap_or_default());
        };
        let text = std::fs::read_to_string(file)
            .map_err(Failure::io(format!("cannot read {}", file.display())))?;
        Ok(text.trim().to_owned())
    }

    /// The same options for another start of the program. A token goes in the
    /// environment, which is inherited.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(file) = &self.token_file {
            words.extend(["--token-file".into(), file.into()]);
        }
        if let Some(fingerprint) = &self.fingerprint {
            words.push(format!("--fingerprint={fingerprint}").into());
        }
        if self.authorities {
            words.push("--authorities".into());
        }
        if self.lazy {
            words.push("--lazy".into());
        }
        words
    }
}

/// The hub that a replica is to follow: the one that is named, which is kept, or
/// the one that it has.
pub(crate) fn choose(replica: &Replica, named: Option<&Upstream>) -> Result<Option<Upstream>> {
    match named {
        Some(upstream) => {
            upstream.keep(replica)?;
            Ok(Some(upstream.clone()))
        }
        None => Ok(Upstream::of(replica)?),
    }
}

/// What a command that follows a hub did.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The hub.
    hub: String,
    /// The hub's commit that the replica has now.
    cursor: String,
    sent_bytes: u64,
    received_bytes: u64,
    changes: u64,
    chunks_sent: u64,
    chunks_received: u64,
    batches: u64,
    round_trips: u64,
    /// Conflicts that nobody has looked at.
    conflicts: u64,
}

/// Brings a replica in step with its hub, and says how it went.
pub(crate) fn bring_in_step(
    follow: &Follow,
    replica: &Replica,
    stop: &Stop,
    json: bool,
    console: &mut dyn Console,
) -> Result<()> {
    let before = follow.counters();
    let mut failed = None;
    let fenced = follow.fence_with(&mut |counters| {
        let shown = stop.check();
        let shown = shown.and_then(|()| show(console, &before, counters, json));
        failed = shown.err();
        failed.is_none()
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    let cursor = fenced?;
    let after = follow.counters();
    let conflicts = replica.conflicts();
    let conflicts = conflicts.map_err(Failure::fs("cannot read the conflicts"))?;
    let report = Report {
        hub: follow.address().to_owned(),
        cursor: cursor.to_string(),
        sent_bytes: after.bytes_sent - before.bytes_sent,
        received_bytes: after.bytes_received - before.bytes_received,
        changes: after.changes - before.changes,
        chunks_sent: after.chunks_sent - before.chunks_sent,
        chunks_received: after.chunks_received - before.chunks_received,
        batches: after.batches - before.batches,
        round_trips: after.round_trips - before.round_trips,
        conflicts: conflicts.len() as u64,
    };
    let out = if json {
        super::json(&report)?
    } else {
        describe(&report).into_bytes()
    };
    console.out(&out)
}

fn show(console: &mut dyn Console, before: &Counters, now: &Counters, json: bool) -> Result<()> {
    let bytes = (now.bytes_received + now.bytes_sent) - (before.bytes_received + before.bytes_sent);
    let at = Progress {
        files: now.changes - before.changes,
        bytes,
        total_bytes: None,
    };
    if json {
        // A line for each step, for who reads it as it comes.
        console.out(&super::json(&at)?)?;
        return console.flush();
    }
    console.progress(&at)
}

fn describe(report: &Report) -> String {
    use crate::text::{bytes, count};
    let conflicts = match report.conflicts {
        0 => String::new(),
        n => format!(
            "; {}, see `cairn conflicts`",
            count(n, "conflict", "conflicts")
        ),
    };
    format!(
        "in step with {}: {} sent, {} received, {}{conflicts}\n",
        report.hub,
        bytes(report.sent_bytes),
        bytes(report.received_bytes),
        count(report.changes, "change", "changes"),
    )
}
