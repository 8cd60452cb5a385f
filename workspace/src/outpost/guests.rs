//! Who comes to a daemon: hosts, and requests of HTTP.

use std::sync::{Arc, Weak};

use cairn_protocol::wire::Token;
use cairn_transports::{Answer, Answering, Asked, Channel, Guests};

use super::seat;
use super::station::Station;
use crate::remote::{Fault, Purpose, Role, receive, refuse, welcome};

/// What a daemon's server serves. It does not keep the daemon.
pub(super) struct Door(Weak<Station>);

impl Door {
    pub(super) fn new(station: &Arc<Station>) -> Self {
        Self(Arc::downgrade(station))
    }
}

impl Guests for Door {
    fn came(&self, channel: Channel) {
        let Some(station) = self.0.upgrade() else {
            return;
        };
        let station = Arc::downgrade(&station);
        tokio::spawn(async move {
            if let Err(fault) = greeted(&station, channel).await {
                tracing::debug!(%fault, "who came was no host of this daemon");
            }
        });
    }

    fn request(&self, asked: Asked) -> Answering<'_> {
        Box::pin(async move {
            let station = self.0.upgrade()?;
            respond(&station, &asked).await
        })
    }

    fn open_to_all(&self) -> Option<String> {
        let station = self.0.upgrade()?;
        (*station.token() == Token::default()).then(|| "of this daemon".to_owned())
    }
}

/// Takes a host, or refuses it.
async fn greeted(station: &Weak<Station>, mut channel: Channel) -> Result<(), Fault> {
    let greeting = receive(&mut channel).await?;
    let Some(station) = station.upgrade() else {
        return Ok(());
    };
    let taken = greeting
        .check(Role::Host, station.token())
        .and_then(|()| station.bind(greeting.card.workspace));
    if let Err(fault) = taken {
        refuse(&channel, &fault);
        return Err(fault);
    }
    match greeting.purpose {
        Purpose::Sync => {
            welcome(&mut channel, station.card())?;
            drop(station.arrivals().bring(channel));
        }
        Purpose::Exec => {
            // Before the host can ask what was started (X4).
            let seat = station.take_seat();
            welcome(&mut channel, station.card())?;
            seat::serve(station, channel, seat).await;
        }
    }
    Ok(())
}

fn json(status: u16, value: &serde_json::Value) -> Answer {
    Answer {
        status,
        kind: "application/json",
        body: format!("{value}\n"),
    }
}

async fn respond(station: &Arc<Station>, asked: &Asked) -> Option<Answer> {
    const KNOWN: [&str; 4] = ["/info", "/stats", "/metrics", "/checkpoint"];
    if asked.path == "/health" && asked.method == "GET" {
        let value = serde_json::json!({ "status": "ok", "connected": station.is_in_touch() });
        return Some(json(200, &value));
    }
    if !KNOWN.contains(&asked.path.as_str()) {
        return None;
    }
    if asked.token.clone().unwrap_or_default() != *station.token() {
        let why = "give the daemon's token: Authorization: Bearer TOKEN";
        return Some(json(401, &serde_json::json!({ "error": why })));
    }
    Some(match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/info") => json(200, &info(station)),
        ("GET", "/stats") => {
            let station = Arc::clone(station);
            // It reads the database.
            let stats = tokio::task::spawn_blocking(move || stats(&station)).await;
            stats.unwrap_or_else(|error| failed(&error))
        }
        ("GET", "/metrics") => metrics(station),
        ("POST", "/checkpoint") => checkpoint(station).await,
        (_, path) => {
            let right = if path == "/checkpoint" { "POST" } else { "GET" };
            let why = format!("{path} is asked with {right}");
            json(405, &serde_json::json!({ "error": why }))
        }
    })
}

fn info(station: &Station) -> serde_json::Value {
    let card = station.card();
    serde_json::json!({
        "runtime": &*card.runtime,
        "store": format!("{:016x}", card.store),
        "workspace": (card.workspace != 0).then(|| format!("{:016x}", card.workspace)),
        "agent": &*card.agent,
        "mount": station.mount(),
        "protocol": "cairn-exec/1",
    })
}

fn failed(error: &dyn std::error::Error) -> Answer {
    json(503, &serde_json::json!({ "error": error.to_string() }))
}

fn stats(station: &Station) -> Answer {
    match (station.status(), station.replica().usage()) {
        (Ok(status), Ok(usage)) => json(
            200,
            &serde_json::json!({
                "connected": station.is_in_touch(),
                "cursor": status.cursor.map(|cursor| cursor.to_string()),
                "edits_pending": status.pending + status.in_flight,
                "conflicts": status.conflicts,
                "nodes": usage.nodes,
                "logical_bytes": usage.logical_bytes,
                "stored_bytes": usage.stored_bytes,
                "execs_running": station.runtime().running(),
            }),
        ),
        (Err(error), _) | (_, Err(error)) => failed(&error),
    }
}

fn metrics(station: &Station) -> Answer {
    let counters = station.counters();
    let values = [
        ("connected", u64::from(station.is_in_touch())),
        ("execs_running", station.runtime().running() as u64),
        ("sent_bytes_total", counters.bytes_sent),
        ("received_bytes_total", counters.bytes_received),
        ("changes_total", counters.changes),
        ("batches_total", counters.batches),
        ("chunks_sent_total", counters.chunks_sent),
        ("chunks_received_total", counters.chunks_received),
    ];
    let lines = values.map(|(name, value)| {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        format!("# TYPE cairn_daemon_{name} {kind}\ncairn_daemon_{name} {value}\n")
    });
    Answer {
        status: 200,
        kind: "text/plain; version=0.0.4",
        body: lines.concat(),
    }
}

/// Makes everything durable and, if a host is there, waits until it is there, too.
async fn checkpoint(station: &Arc<Station>) -> Answer {
    let replica = station.replica().clone();
    match tokio::task::spawn_blocking(move || replica.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    }
    if !station.is_in_touch() {
        let value = serde_json::json!({ "durable": true, "connected": false });
        return json(200, &value);
    }
    match station.settle().await {
        Ok(cursor) => json(
            200,
            &serde_json::json!({
                "durable": true, "connected": true, "cursor": cursor.to_string()
            }),
        ),
        Err(fault) => failed(&fault),
    }
}
