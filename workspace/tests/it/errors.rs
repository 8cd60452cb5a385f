//! What is in the way is named, with a remedy, and the exit code tells a script.

use std::fs;

use cairn::{Options, Replica};

use crate::scratch::{Foreground, Scratch, can_mount, is_mounted};

#[test]
fn replicas_that_cannot_be_opened() {
    let s = Scratch::new();
    for line in ["ls", "status", "du", "gc", "check", "log", "export"] {
        let more = if line == "export" { " out" } else { "" };
        s.cairn(&format!("{line} none.cairn{more}"))
            .ended(3)
            .says(&["none.cairn", "no replica", "cairn mount"]);
    }
    assert!(!s.join("none.cairn").exists() && !s.join("out").exists());

    fs::create_dir(s.join("other.cairn")).unwrap();
    fs::write(s.join("other.cairn/file"), "x").unwrap();
    s.cairn("ls other.cairn")
        .ended(3)
        .says(&["other.cairn", "is not a replica"]);
    s.cairn("import /etc/hostname other.cairn")
        .ended(3)
        .says(&["is not a replica"]);
    assert_eq!(fs::read_dir(s.join("other.cairn")).unwrap().count(), 1);

    s.cairn("import /etc/hostname new.cairn").done();
    let db = rusqlite::Connection::open(s.join("new.cairn/cairn.db")).unwrap();
    db.pragma_update(None, "user_version", 9_999).unwrap();
    drop(db);
    s.cairn("ls new.cairn")
        .ended(3)
        .says(&["new.cairn", "schema 9999", "newer cairn"]);

    fs::create_dir(s.join("bad.cairn")).unwrap();
    fs::write(s.join("bad.cairn/cairn.db"), vec![b'x'; 8_192]).unwrap();
    s.cairn("ls bad.cairn").ended(3).says(&["bad.cairn"]);
}

#[test]
fn another_program_owns_the_replica() {
    let s = Scratch::new();
    let _replica = Replica::open(s.join("demo.cairn"), Options::default()).unwrap();
    // It embeds the library, and nobody listens there.
    s.cairn("ls demo.cairn")
        .ended(3)
        .says(&["demo.cairn", "in use by", "stop it first"]);
}

#[test]
fn two_owners_at_once() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let _mount = s.mount("demo");
    s.cairn("mount other --replica demo.cairn")
        .ended(3)
        .says(&["demo.cairn", "demo"]);
    s.cairn("mount other --replica demo.cairn --daemon")
        .ended(3)
        .says(&["demo.cairn"]);
    assert!(!s.join("other").exists());
}

#[test]
fn mount_points_that_do_not_fit() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    s.sh("mkdir full && touch full/f && touch file").done();
    for more in ["", " --daemon"] {
        let mount = |at: &str| s.cairn(&format!("mount {at}{more}"));
        mount("full").ended(4).says(&["full", "not empty"]);
        mount("file").ended(4).says(&["file", "not a directory"]);
        mount("none/deep")
            .ended(4)
            .says(&["none/deep", "create it first"]);
        mount("--replica demo.cairn demo.cairn/inside")
            .ended(4)
            .says(&["inside", "outside"]);
        mount("--replica demo.cairn/sub demo.cairn").ended(4);
    }
    // Replicas that were made for nothing are not left behind.
    assert_eq!(s.sh("ls -A").done().text(), "file\nfull\n");
    let _mount = s.mount("demo");
    s.cairn("mount demo --replica second.cairn")
        .ended(4)
        .says(&["demo", "mounted there already", "unmount it first"]);
    s.cairn("mount demo.cairn")
        .ended(2)
        .says(&["is a replica", "--replica"]);
    assert!(!s.join("second.cairn").exists());
}

#[test]
fn nothing_to_unmount() {
    let s = Scratch::new();
    fs::create_dir(s.join("dir")).unwrap();
    s.cairn("umount dir")
        .ended(4)
        .says(&["dir", "nothing is mounted"]);
    s.cairn("umount none").ended(4).says(&["none"]);
}

#[test]
fn a_mount_in_use_is_not_unmounted() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let _mount = s.mount("demo");
    let mut user = std::process::Command::new("sleep")
        .arg("100")
        .current_dir(s.join("demo"))
        .spawn()
        .unwrap();
    let said = s.cairn("umount demo");
    let lazily = s.cairn("umount --lazy demo");
    user.kill().unwrap();
    user.wait().unwrap();
    said.ended(4).says(&["demo", "in use by", "sleep"]);
    lazily.done();
    assert!(!is_mounted(&s.join("demo")));
}

#[test]
fn a_read_only_mount_refuses_changes() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let mounted = Foreground::new(&s, "demo", &["--read-only"]);
    assert!(fs::write(s.join("demo/f"), "x").is_err());
    drop(mounted);
}
