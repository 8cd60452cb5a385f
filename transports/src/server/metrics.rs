//! Numbers for people: `/metrics` in Prometheus' text format, `/health` in JSON.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::registry::{Carrier, Registry};

const CARRIERS: [(Carrier, &str); 2] = [(Carrier::Quic, "quic"), (Carrier::WebSocket, "websocket")];

/// All numbers.
pub(super) fn text(registry: &Registry) -> String {
    let (open, past) = registry.sums();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "# HELP cairn_{name} {help}\n# TYPE cairn_{name} {kind}"
        );
        for (labels, value) in values {
            let _ = writeln!(text, "cairn_{name}{labels} {value}");
        }
    };
    let by_carrier = |of: &dyn Fn(Carrier) -> u64| {
        CARRIERS.map(|(carrier, name)| (format!("{{carrier=\"{name}\"}}"), of(carrier)))
    };
    let count = |map: &std::collections::BTreeMap<Carrier, u64>, carrier| {
        map.get(&carrier).copied().unwrap_or(0)
    };
    let now = by_carrier(&|carrier| count(&open, carrier));
    metric("connections", "gauge", "Connections that are open.", &now);
    let all = by_carrier(&|carrier| count(&past.connections, carrier));
    metric(
        "connections_total",
        "counter",
        "Connections that there were.",
        &all,
    );
    let ended: Vec<_> = past
        .ended
        .iter()
        .map(|(code, count)| (format!("{{code=\"{code}\"}}"), *count))
        .collect();
    metric(
        "sessions_ended_total",
        "counter",
        "Sessions that ended, by their code.",
        &ended,
    );
    let (counters, traffic) = (past.counters, &registry.traffic);
    let plain = [
        (
            "turned_away_total",
            "Connections for which there was no place.",
            registry.turned_away.load(Relaxed),
        ),
        (
            "sent_bytes_total",
            "Bytes of frames sent.",
            traffic.sent_bytes.load(Relaxed),
        ),
        (
            "received_bytes_total",
            "Bytes of frames received.",
            traffic.received_bytes.load(Relaxed),
        ),
        (
            "sent_frames_total",
            "Frames sent.",
            traffic.sent_frames.load(Relaxed),
        ),
        (
            "received_frames_total",
            "Frames received.",
            traffic.received_frames.load(Relaxed),
        ),
        (
            "round_trips_total",
            "Round trips that sessions waited for.",
            counters.round_trips,
        ),
        ("changes_total", "Changes sent.", counters.changes),
        ("batches_total", "Batches committed.", counters.batches),
        ("chunks_sent_total", "Chunks sent.", counters.chunks_sent),
        (
            "chunks_received_total",
            "Chunks received.",
            counters.chunks_received,
        ),
    ];
    for (name, help, value) in plain {
        metric(name, "counter", help, &[(String::new(), value)]);
    }
    let heads: Vec<_> = registry
        .workspaces
        .all()
        .iter()
        .map(|hub| {
            (
                format!("{{workspace=\"{}\"}}", escaped(&hub.name())),
                hub.head(),
            )
        })
        .collect();
    metric(
        "workspace_head",
        "gauge",
        "The last commit of a workspace.",
        &heads,
    );
    text
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// That the server is there.
pub(super) fn health(registry: &Registry) -> String {
    let connections: u64 = registry.sums().0.values().sum();
    let workspaces = registry.workspaces.all().len();
    format!(
        "{{\"status\":\"ok\",\"protocol\":\"cairn/1\",\"workspaces\":{workspaces},\
         \"connections\":{connections}}}\n"
    )
}
