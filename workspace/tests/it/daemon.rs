//! The life of a mount: how it begins, and all the ways it ends.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::program::{cairn, ended, until};
use crate::scratch::{Foreground, Scratch, can_mount, is_mounted};

#[test]
fn a_daemon_mounts_and_umount_waits_for_its_end() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let daemon = s.mount("demo");
    assert!(is_mounted(&s.join("demo")));
    fs::write(s.join("demo/f"), "kept").unwrap();
    s.cairn("umount demo").done();
    assert!(!is_mounted(&s.join("demo")));
    // Its end was waited for: nobody owns the replica any more.
    let status = s.cairn("status --json demo.cairn").done().json();
    assert!(status["owner"].is_null());
    daemon.await_end();
    assert_eq!(s.cairn("cat demo.cairn/f").done().text(), "kept");
    assert!(!s.join("demo.cairn/control.sock").exists());
    let log = fs::read_to_string(s.join("demo.cairn/cairn.log")).unwrap();
    assert!(
        log.contains("mounted") && log.contains("unmounted"),
        "{log}"
    );
}

#[test]
fn any_umount_ends_a_daemon() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let daemon = s.mount("demo");
    fs::write(s.join("demo/f"), "kept").unwrap();
    s.sh("umount demo").done();
    daemon.await_end();
    assert_eq!(s.cairn("cat demo.cairn/f").done().text(), "kept");
}

#[test]
fn signals_unmount() {
    if !can_mount() {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let s = Scratch::new();
        let mut mounted = Foreground::new(&s, "demo", &[]);
        fs::write(s.join("demo/f"), "kept").unwrap();
        mounted.signal(signal);
        assert_eq!(ended(&mut mounted.child).code(), Some(0));
        assert!(!is_mounted(&s.join("demo")));
        assert_eq!(s.cairn("cat demo.cairn/f").done().text(), "kept");

        let daemon = s.mount("demo");
        daemon.signal(signal);
        daemon.await_end();
        assert!(!is_mounted(&s.join("demo")));
    }
}

#[test]
fn a_signal_ends_a_mount_that_is_in_use() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let mut mounted = Foreground::new(&s, "demo", &[]);
    fs::write(s.join("demo/f"), "kept").unwrap();
    let mut user = Command::new("sleep")
        .arg("100")
        .current_dir(s.join("demo"))
        .spawn()
        .unwrap();
    mounted.signal(Signal::INT);
    until("it is detached", || !is_mounted(&s.join("demo")));
    // The second one does not wait for those who use it.
    mounted.signal(Signal::INT);
    let status = ended(&mut mounted.child);
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(s.cairn("cat demo.cairn/f").done().text(), "kept");
}

#[test]
fn a_killed_daemon_leaves_a_mount_that_the_next_replaces() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let daemon = s.mount("demo");
    s.sh("printf kept > demo/f && sync demo/f").done();
    daemon.signal(Signal::KILL);
    daemon.await_end();
    assert!(
        is_mounted(&s.join("demo")),
        "the dead mount is still in the table"
    );
    // Commands find the replica nevertheless, and nobody owns it.
    assert_eq!(s.cairn("cat demo.cairn/f").done().text(), "kept");
    let again = s.mount("demo");
    assert_eq!(fs::read(s.join("demo/f")).unwrap(), b"kept");
    again.signal(Signal::KILL);
    again.await_end();
    s.cairn("umount demo").done();
    assert!(!is_mounted(&s.join("demo")));
    s.cairn("check demo.cairn").done();
}

#[test]
fn a_daemon_that_fails_tells_its_caller() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    fs::create_dir(s.join("full")).unwrap();
    fs::write(s.join("full/f"), "x").unwrap();
    let failed = s
        .cairn("mount --daemon full")
        .ended(4)
        .says(&["full", "not empty"]);
    assert_eq!(failed.err.lines().count(), 1, "said once: {failed:?}");
    fs::create_dir(s.join("bad.cairn")).unwrap();
    fs::write(s.join("bad.cairn/file"), "x").unwrap();
    s.cairn("mount --daemon bad")
        .ended(3)
        .says(&["bad.cairn", "is not a replica"]);
    assert!(!s.join("bad").exists());
}

#[test]
fn a_command_does_not_survive_its_owner() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    s.sh("mkdir src && cd src && for i in 1 2 3; do head -c 1000000 /dev/urandom > f$i; done")
        .done();
    let daemon = s.mount("demo");
    // The archive does not end: the import waits for more when its owner is killed.
    let archive = s.sh("tar -cf - -C src f1 f2 f3").done().out;
    let mut importer = cairn()
        .args(["import", "-", "demo/x"])
        .current_dir(&*s)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = importer.stdin.take().unwrap();
    input.write_all(&archive[..2_500_000]).unwrap();
    until("something is imported", || {
        s.cairn("ls demo.cairn/x").text().contains("f1")
    });
    daemon.signal(Signal::KILL);
    daemon.await_end();
    // It notices when it has something to say.
    drop(input);
    assert_eq!(ended(&mut importer).code(), Some(5));
    let mut said = String::new();
    importer
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(
        said.contains("lost the process that owns the replica"),
        "{said}"
    );
    s.cairn("umount demo").done();
    s.cairn("check demo.cairn").done();
}

#[test]
fn the_socket_is_for_its_user_only() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let _mount = s.mount("demo");
    let mode = s
        .join("demo.cairn/control.sock")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Garbage on it harms nobody.
    let mut stream =
        std::os::unix::net::UnixStream::connect(s.join("demo.cairn/control.sock")).unwrap();
    std::io::Write::write_all(&mut stream, &[0xff; 4_096]).unwrap();
    drop(stream);
    s.cairn("ls demo").done();
}
