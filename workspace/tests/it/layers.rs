//! The parts depend on each other in one direction only: the protocol on
//! nothing of ours, the engine and the transports on it, the mounts on the
//! engine, and this crate on all.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::program::ran;

/// What each part may depend on among ours, in the order they are built.
const MAY: [(&str, &[&str]); 5] = [
    ("cairn-protocol", &[]),
    ("cairn-engine", &["cairn-protocol"]),
    ("cairn-transports", &["cairn-protocol"]),
    ("cairn-mounts", &["cairn-protocol", "cairn-engine"]),
    (
        "cairn",
        &[
            "cairn-protocol",
            "cairn-engine",
            "cairn-transports",
            "cairn-mounts",
        ],
    ),
];

/// What has a clock, waits, or speaks with the world. The protocol does not
/// build any of it, not even through others.
const WORLDLY: [&str; 5] = ["rusqlite", "libsqlite3-sys", "tokio", "fuser", "rustix"];

fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    cargo.args([
        "metadata",
        "--format-version=1",
        "--offline",
        "--all-features",
        "--manifest-path",
        manifest,
        // What other systems need was never downloaded.
        "--filter-platform",
        &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
    ]);
    ran(&mut cargo, b"").done().json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    for (name, may) in MAY {
        let package = packages
            .iter()
            .find(|package| package["name"] == name)
            .unwrap();
        let ours: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            // Tests may use what they like, but for the protocol's.
            .filter(|dependency| dependency["kind"] != "dev" || name == "cairn-protocol")
            .map(|dependency| text(&dependency["name"]))
            // Itself: its tests have features that it has not.
            .filter(|dependency| dependency.starts_with("cairn") && *dependency != name)
            .collect();
        let wrong: Vec<_> = ours
            .iter()
            .filter(|dependency| !may.contains(dependency))
            .collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn the_protocol_knows_nothing_of_the_world() {
    let metadata = metadata();
    let packages: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let below: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let normal = node["deps"].as_array().unwrap().iter().filter(|dep| {
                dep["dep_kinds"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            (
                text(&node["id"]),
                normal.map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let (protocol, _) = packages
        .iter()
        .find(|(_, name)| **name == "cairn-protocol")
        .unwrap();
    let (mut todo, mut seen) = (vec![*protocol], BTreeSet::new());
    while let Some(id) = todo.pop() {
        if seen.insert(packages[id]) {
            todo.extend(&below[id]);
        }
    }
    for name in WORLDLY {
        assert!(!seen.contains(name), "the protocol builds {name}: {seen:?}");
    }
}
