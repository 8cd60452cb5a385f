//! Sync with a hub that takes no edits: who has some follows it all the same, keeps
//! them, is told why they wait, and they arrive when the hub takes them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::hubs::Hub;
use crate::program::{cairn, ended, until};
use crate::scratch::{Scratch, can_mount};
use crate::trees::noise;

const MIB: usize = 1 << 20;

fn write(scratch: &Scratch, path: &str, content: &[u8]) {
    std::fs::write(scratch.join("content"), content).unwrap();
    scratch
        .cairn(&format!("import content {path} --file --replace"))
        .done();
}

fn read(scratch: &Scratch, path: &str) -> String {
    let ran = scratch.cairn(&format!("cat {path}"));
    ran.text().to_owned()
}

/// The contents of the conflict copies of `doc`.
fn copies(scratch: &Scratch, name: &str) -> Vec<String> {
    let listed = scratch.cairn(&format!("ls {name}.cairn")).done();
    let names = listed.text().lines();
    let copies = names.filter(|name| name.starts_with("doc.conflict"));
    copies
        .map(|copy| read(scratch, &format!("{name}.cairn/{copy}")))
        .collect()
}

/// What `cairn status` says of the hub.
fn status(scratch: &Scratch, name: &str) -> Value {
    let status = scratch.cairn(&format!("status {name}.cairn --json")).done();
    status.json()["sync"].clone()
}

fn token(scratch: &Scratch, file: &str, more: &str) {
    let token = scratch.cairn(&format!("token hub.cairn --new{more}"));
    std::fs::write(scratch.join(file), token.done().text().trim()).unwrap();
}

#[test]
fn a_replica_that_may_only_read_follows_and_keeps_its_edits() {
    for scheme in ["quic", "wss"] {
        let scratch = Scratch::new();
        write(&scratch, "hub.cairn/doc", b"base");
        token(&scratch, "rw", "");
        token(&scratch, "ro", " --read-only");
        let hub = Hub::new(&scratch, "hub", &[]);
        let url = hub.url(scheme).to_owned();
        for (name, token) in [("a", "rw"), ("r", "ro")] {
            let clone = format!("clone {url} {name} --token-file {token}");
            scratch.cairn(&clone).done();
        }
        for name in ["doc", "mine"] {
            write(&scratch, &format!("r.cairn/{name}"), b"of the reader");
        }
        for round in 1..3 {
            let other = format!("other-{round}");
            write(&scratch, "a.cairn/doc", format!("of a {round}").as_bytes());
            write(&scratch, &format!("a.cairn/{other}"), b"other");
            scratch.cairn("sync a.cairn").done();
            let refused = scratch.cairn("sync r.cairn").ended(5);
            refused.says(&["E_READ_ONLY", "may only read"]);
            assert_eq!(read(&scratch, &format!("r.cairn/{other}")), "other");
            // It replaced the file, as others did: theirs has the name.
            assert_eq!(read(&scratch, "r.cairn/mine"), "of the reader");
            assert_eq!(copies(&scratch, "r"), ["of the reader"]);
        }
        if can_mount() {
            let _mount = scratch.mount("r");
            until("the hub has refused the edit", || {
                let status = status(&scratch, "r");
                let why = status["refused"].as_str().unwrap_or_default();
                status["connected"] == true && why.contains("E_READ_ONLY")
            });
            assert!(status(&scratch, "r")["pending"].as_u64().unwrap() > 0);
            for n in 0..3 {
                write(&scratch, "a.cairn/live", format!("{n}").as_bytes());
                scratch.cairn("sync a.cairn").done();
                until("what others write is there", || {
                    read(&scratch, "r.cairn/live") == n.to_string()
                });
            }
            assert!(status(&scratch, "r")["pending"].as_u64().unwrap() > 0);
        }
        let sync = format!("sync r.cairn --upstream {url} --token-file rw");
        let ran = scratch.cairn(&sync);
        assert!(matches!(ran.status.code(), Some(0 | 1)), "{ran:?}");
        scratch.cairn("sync a.cairn");
        for name in ["a", "r"] {
            assert_eq!(copies(&scratch, name), ["of the reader"]);
            let mine = read(&scratch, &format!("{name}.cairn/mine"));
            assert_eq!(mine, "of the reader");
            assert_eq!(read(&scratch, &format!("{name}.cairn/doc")), "of a 2");
        }
        assert_eq!(status(&scratch, "r")["pending"], 0);
        scratch.cairn("check r.cairn").done();
        hub.end();
    }
}

/// Who watched a replica whose edits are refused was told that, and it ended.
#[test]
fn who_watches_a_replica_that_is_refused_goes_on() {
    let scratch = Scratch::new();
    write(&scratch, "hub.cairn/doc", b"base");
    token(&scratch, "rw", "");
    token(&scratch, "ro", " --read-only");
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    for (name, token) in [("a", "rw"), ("r", "ro")] {
        let clone = format!("clone {url} {name} --token-file {token}");
        scratch.cairn(&clone).done();
    }
    write(&scratch, "r.cairn/mine", b"of the reader");
    let mut watch = cairn()
        .args(["sync", "r.cairn", "--watch", "--json"])
        .current_dir(&*scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut wait_for = |event: &str| {
        let found = lines.by_ref().find(|line| {
            let line: Value = serde_json::from_str(line.as_ref().unwrap()).unwrap();
            line["event"] == event
        });
        assert!(found.is_some(), "the watch ended before {event}");
    };
    wait_for("refused");
    write(&scratch, "a.cairn/other", b"other");
    scratch.cairn("sync a.cairn").done();
    wait_for("applied");
    kill_process(Pid::from_child(&watch), Signal::INT).unwrap();
    assert!(ended(&mut watch).success());
    assert_eq!(read(&scratch, "r.cairn/other"), "other");
    assert_eq!(read(&scratch, "r.cairn/mine"), "of the reader");
    hub.end();
}

#[test]
fn a_full_hub_is_followed_by_who_has_edits_for_it() {
    if !can_mount() {
        return;
    }
    for scheme in ["quic", "wss"] {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("disk")).unwrap();
        scratch.sh("mount -t tmpfs -o size=24m none disk").done();
        let hub = Hub::new(&scratch, "disk/hub", &[]);
        let url = hub.url(scheme).to_owned();
        scratch.cairn(&format!("clone {url} a")).done();
        let bytes = noise(40 * MIB, 1);
        write(&scratch, "a.cairn/large", &bytes);
        write(&scratch, "a.cairn/edited", b"of a");
        let _mount = scratch.mount("a");
        until("the hub has refused the edits", || {
            let status = status(&scratch, "a");
            let why = status["refused"].as_str().unwrap_or_default();
            why.contains("E_QUOTA") && status["pending"].as_u64() > Some(0)
        });
        for n in 0..3 {
            std::fs::write(scratch.join("small"), n.to_string()).unwrap();
            until("the hub has space for what is small", || {
                let small = "import small disk/hub.cairn/small --file --replace";
                scratch.cairn(small).status.success()
            });
            until("what the hub has is there", || {
                read(&scratch, "a.cairn/small") == n.to_string()
            });
        }
        assert!(status(&scratch, "a")["pending"].as_u64() > Some(0));
        scratch.sh("mount -o remount,size=200m disk").done();
        until("all is with the hub", || {
            let status = status(&scratch, "a");
            status["pending"] == 0 && status["refused"].is_null()
        });
        scratch.cairn("sync disk/hub.cairn");
        assert!(scratch.cairn("cat disk/hub.cairn/large").done().out == bytes);
        assert_eq!(read(&scratch, "disk/hub.cairn/edited"), "of a");
        hub.end();
    }
}
