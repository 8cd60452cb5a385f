//! Sync when a store is in trouble: a disk is full, at the hub or at a replica, or
//! the hub's is damaged. That is said with what to do, nothing is lost, and all is
//! well when the trouble is over.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use cairn::{Options, Replica};
use rustix::process::{Pid, Signal, kill_process};

use crate::hubs::Hub;
use crate::program::{cairn, ended, until};
use crate::scratch::{Scratch, can_mount};
use crate::trees::noise;

const MIB: usize = 1 << 20;

/// Has `dir` be a disk of this size, in memory. It goes with the scratch.
fn disk(scratch: &Scratch, dir: &str, mib: usize) {
    std::fs::create_dir(scratch.join(dir)).unwrap();
    let mount = format!("mount -t tmpfs -o size={mib}m none {dir}");
    scratch.sh(&mount).done();
}

fn enlarge(scratch: &Scratch, dir: &str, mib: usize) {
    let mount = format!("mount -o remount,size={mib}m {dir}");
    scratch.sh(&mount).done();
}

#[test]
fn a_hub_with_a_full_disk_says_so_and_gets_everything_later() {
    if !can_mount() {
        return;
    }
    for scheme in ["quic", "wss"] {
        let scratch = Scratch::new();
        disk(&scratch, "disk", 24);
        let hub = Hub::new(&scratch, "disk/hub", &[]);
        let url = hub.url(scheme).to_owned();
        scratch.cairn(&format!("clone {url} a")).done();
        let bytes = noise(40 * MIB, 1);
        std::fs::write(scratch.join("noise"), &bytes).unwrap();
        scratch.cairn("import noise a.cairn/large --file").done();
        let refused = scratch.cairn("sync a.cairn").ended(5);
        refused.says(&["E_QUOTA", "make space on its disk"]);
        // What came for the batch is given back, and others have their space.
        until("the hub has space", || {
            std::fs::write(scratch.join("small"), "small").unwrap();
            let ran = scratch.cairn("import small disk/hub.cairn/small --file --replace");
            ran.status.success()
        });
        scratch.cairn("check disk/hub.cairn").done();
        enlarge(&scratch, "disk", 200);
        scratch.cairn("sync a.cairn").done();
        assert!(scratch.cairn("cat disk/hub.cairn/large").done().out == bytes);
        assert_eq!(scratch.cairn("cat a.cairn/small").done().text(), "small");
        hub.end();
    }
}

#[test]
fn a_replica_with_a_full_disk_says_so_and_goes_on_with_what_has_come() {
    if !can_mount() {
        return;
    }
    for scheme in ["quic", "wss"] {
        let scratch = Scratch::new();
        let bytes = noise(40 * MIB, 1);
        std::fs::write(scratch.join("noise"), &bytes).unwrap();
        scratch.cairn("import noise hub.cairn/large --file").done();
        let hub = Hub::new(&scratch, "hub", &[]);
        let url = hub.url(scheme).to_owned();
        disk(&scratch, "disk", 24);
        let refused = scratch.cairn(&format!("clone {url} disk/b")).ended(5);
        refused.says(&[
            "E_QUOTA",
            "make space on the disk of the replica",
            "is kept",
        ]);
        scratch.cairn("check disk/b.cairn").done();
        enlarge(&scratch, "disk", 200);
        scratch.cairn("sync disk/b.cairn").done();
        assert!(scratch.cairn("cat disk/b.cairn/large").done().out == bytes);
        hub.end();
    }
}

#[test]
fn a_hub_with_a_damaged_chunk_is_named_and_gives_everything_else() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("noise"), noise(3 * MIB, 2)).unwrap();
    std::fs::write(scratch.join("small"), "small").unwrap();
    scratch.cairn("import noise hub.cairn/large --file").done();
    scratch.cairn("import small hub.cairn/small --file").done();
    // What was just written is in a pack then.
    scratch.cairn("gc hub.cairn").done();
    let pack = scratch.join("hub.cairn/chunks/1.pack");
    let pack = File::options().write(true).open(pack).unwrap();
    pack.write_all_at(b"damaged", MIB as u64).unwrap();
    let hub = Hub::new(&scratch, "hub", &[]);
    for scheme in ["quic", "wss"] {
        let url = hub.url(scheme).to_owned();
        let refused = scratch.cairn(&format!("clone {url} {scheme}")).ended(5);
        refused.says(&["E_CHUNK_MISSING", "cairn check", "--lazy"]);
        let lazy = format!("{scheme}-lazy");
        scratch.cairn(&format!("clone {url} {lazy} --lazy")).done();
        assert_eq!(
            scratch
                .cairn(&format!("cat {lazy}.cairn/small"))
                .done()
                .text(),
            "small"
        );
        let damaged = scratch.cairn(&format!("cat {lazy}.cairn/large")).ended(5);
        damaged.says(&["/large", "E_CHUNK_MISSING"]);
    }
    hub.end();
}

/// Writes over some bytes of the only large file of a replica.
fn damage(scratch: &Scratch, name: &str) {
    let chunks = scratch.join(format!("{name}.cairn/chunks"));
    let packs = std::fs::read_dir(chunks).unwrap();
    let packs = packs.map(|entry| entry.unwrap().path());
    let largest = packs.max_by_key(|path| path.metadata().unwrap().len());
    let pack = File::options().write(true).open(largest.unwrap()).unwrap();
    pack.write_all_at(b"damaged", MIB as u64).unwrap();
}

#[test]
fn a_damaged_chunk_at_a_hub_comes_again_from_a_replica_that_has_it() {
    let scratch = Scratch::new();
    let bytes = noise(3 * MIB, 2);
    std::fs::write(scratch.join("noise"), &bytes).unwrap();
    for scheme in ["quic", "wss"] {
        let name = format!("hub-{scheme}");
        scratch
            .cairn(&format!("import noise {name}.cairn/large --file"))
            .done();
        scratch.cairn(&format!("gc {name}.cairn")).done();
        let hub = Hub::at(&scratch, &name, "127.0.0.1:0", &[]);
        let url = hub.url(scheme).to_owned();
        scratch.cairn(&format!("clone {url} a-{scheme}")).done();
        damage(&scratch, &name);
        let checked = scratch.cairn(&format!("check {name}.cairn")).ended(1);
        assert!(checked.text().contains("/large: part of it is damaged"));
        checked.says(&["come again"]);
        // It is known after a crash, and named again.
        let address = hub.address();
        hub.kill();
        let hub = Hub::at(&scratch, &name, &address, &[]);
        scratch.cairn(&format!("check {name}.cairn")).ended(1);
        scratch.cairn(&format!("clone {url} b-{scheme}")).ended(5);
        scratch.cairn(&format!("sync a-{scheme}.cairn")).done();
        scratch.cairn(&format!("check {name}.cairn")).done();
        scratch.cairn(&format!("sync b-{scheme}.cairn")).done();
        for place in [&name, &format!("b-{scheme}")] {
            let read = scratch.cairn(&format!("cat {place}.cairn/large")).done();
            assert!(read.out == bytes);
        }
        hub.end();
    }
}

#[test]
fn a_damaged_chunk_that_nobody_knew_of_comes_again_while_replicas_follow() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("noise"), noise(3 * MIB, 2)).unwrap();
    scratch.cairn("import noise hub.cairn/large --file").done();
    scratch.cairn("gc hub.cairn").done();
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    scratch.cairn(&format!("clone {url} a")).done();
    let mut watching = cairn()
        .args(["sync", "a.cairn", "--watch"])
        .current_dir(&*scratch)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    damage(&scratch, "hub");
    // Who reads it finds that out, and who follows gives it.
    let mut number = 0;
    until("a clone has everything", || {
        number += 1;
        let cloned = scratch.cairn(&format!("clone {url} b{number}"));
        cloned.status.success()
    });
    kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
    ended(&mut watching);
    scratch.cairn("check hub.cairn").done();
    hub.end();
}

#[test]
fn a_damaged_chunk_at_a_replica_comes_again_from_its_hub() {
    let scratch = Scratch::new();
    let bytes = noise(3 * MIB, 2);
    std::fs::write(scratch.join("noise"), &bytes).unwrap();
    scratch.cairn("import noise hub.cairn/large --file").done();
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    for name in ["a", "b"] {
        scratch.cairn(&format!("clone {url} {name}")).done();
        damage(&scratch, name);
        scratch.cairn(&format!("check {name}.cairn")).ended(1);
    }
    scratch.cairn("sync a.cairn").done();
    scratch.cairn("check a.cairn").done();
    // Who reads it need not wait for that.
    assert!(scratch.cairn("cat b.cairn/large").done().out == bytes);
    scratch.cairn("check b.cairn").done();
    // Without the hub it is said what is missing.
    scratch.cairn(&format!("clone {url} c")).done();
    damage(&scratch, "c");
    scratch.cairn("check c.cairn").ended(1);
    hub.end();
    scratch
        .cairn("cat c.cairn/large")
        .ended(5)
        .says(&["/large"]);
}

/// The working tree of a hub does not lose most of itself before somebody says so; the
/// server waited for that for ever when it was to end, and before it began.
#[test]
fn a_hub_whose_working_tree_is_halted_ends_and_begins() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("many")).unwrap();
    for n in 0..200 {
        std::fs::write(scratch.join(format!("many/{n}")), "x").unwrap();
    }
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    scratch.cairn(&format!("clone {url} a")).done();
    scratch.cairn("import many a.cairn/many").done();
    scratch.cairn("sync a.cairn").done();
    let count = |name: &str| {
        let ran = scratch.cairn(&format!("ls {name}.cairn/many"));
        ran.text().lines().count()
    };
    until("the hub has them", || count("hub") == 200);
    let a = Replica::open(scratch.join("a.cairn"), Options::default()).unwrap();
    a.remove_all("/many").unwrap();
    drop(a);
    scratch.cairn("sync a.cairn").done();
    let address = hub.address();
    hub.end();
    assert_eq!(count("hub"), 200);
    // It serves what it has, and its working tree has more, until somebody says so.
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.cairn(&format!("clone {url} b")).done();
    assert_eq!(count("b"), 0);
    assert_eq!(count("hub"), 200);
    scratch.cairn("sync hub.cairn --proceed").done();
    assert_eq!(count("hub"), 0);
    hub.end();
}
