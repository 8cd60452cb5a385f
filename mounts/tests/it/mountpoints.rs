//! Mount points that are not fit, and what is said about them.

use std::fs;
use std::path::Path;

use cairn_engine::{Options, Replica};
use cairn_mounts::fuse::{Mount, MountError, MountOptions, unmount};

use crate::child::Job;
use crate::common::{Mounted, can_mount};

fn refused(replica: &Replica, at: &Path) -> MountError {
    Mount::new(replica.clone(), at, MountOptions::default()).expect_err("should be refused")
}

fn says(error: &MountError, at: &Path, remedy: &str) {
    let text = error.to_string();
    assert!(text.contains(at.to_str().unwrap()), "{text}");
    assert!(text.contains(remedy), "{text}");
}

#[test]
fn each_unfit_mount_point_is_told_with_a_remedy() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let replica = Replica::open(root.join("work.cairn"), Options::default()).unwrap();

    let at = root.join("none/deep");
    let error = refused(&replica, &at);
    assert!(matches!(error, MountError::Missing(_)), "{error}");
    says(&error, &at, "create it first");
    assert!(!root.join("none").exists());

    let at = root.join("file");
    fs::write(&at, b"").unwrap();
    let error = refused(&replica, &at);
    assert!(matches!(error, MountError::NotDirectory(_)), "{error}");
    says(&error, &at, "an empty directory");

    let at = root.join("full");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("file"), b"").unwrap();
    let error = refused(&replica, &at);
    assert!(matches!(error, MountError::NotEmpty(_)), "{error}");
    says(&error, &at, "an empty directory");

    let at = root.join("work.cairn/inside");
    let error = refused(&replica, &at);
    assert!(matches!(error, MountError::InsideReplica { .. }), "{error}");
    says(&error, &at, "outside");
    assert!(!at.exists(), "it is not made for nothing");

    let error = refused(&replica, &root);
    assert!(matches!(error, MountError::ContainsReplica { .. }), "{error}");
    says(&error, &root, "another directory");

    let error = refused(&replica, Path::new("/proc"));
    assert!(matches!(error, MountError::AlreadyMounted { .. }), "{error}");
    says(&error, Path::new("/proc"), "umount /proc");
}

#[test]
fn a_missing_last_component_is_made() {
    let Some(m) = Mounted::new() else { return };
    assert!(m.root().is_dir());
}

#[test]
fn a_live_mount_is_not_mounted_over() {
    let Some(m) = Mounted::new() else { return };
    let error = refused(&Replica::in_memory().unwrap(), m.root());
    assert!(matches!(error, MountError::AlreadyMounted { .. }), "{error}");
    says(&error, m.root(), "umount");
    fs::write(m.path("file"), b"still there").unwrap();
}

#[test]
fn links_to_a_mount_point_are_followed() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink("real", root.join("link")).unwrap();
    let replica = Replica::in_memory().unwrap();
    let options = MountOptions::default();
    let mount = Mount::new(replica, &root.join("./link/"), options).unwrap();
    assert_eq!(mount.path(), root.join("real"));
    mount.unmount().unwrap();
}

#[test]
fn a_mount_in_use_says_who_uses_it_and_goes_with_its_last_user() {
    let Some(mut m) = Mounted::new() else { return };
    let path = m.path("file");
    fs::write(&path, b"kept").unwrap();
    let file = fs::File::open(&path).unwrap();
    let error = unmount(m.root(), false).expect_err("in use");
    assert!(matches!(error, MountError::Busy { .. }), "{error}");
    says(&error, m.root(), &format!("process {}", std::process::id()));
    let error = m.mount.take().unwrap().unmount().expect_err("in use");
    assert!(matches!(error, MountError::Busy { .. }), "{error}");
    assert!(!path.exists(), "the name is gone at once");
    let mut kept = String::new();
    std::io::Read::read_to_string(&mut &file, &mut kept).unwrap();
    assert_eq!(kept, "kept", "what is open stays");
}

#[test]
fn an_unmount_from_outside_ends_the_wait() {
    let Some(mut m) = Mounted::new() else { return };
    let root = m.root().to_path_buf();
    let mount = m.mount.take().unwrap();
    let waiting = std::thread::spawn(move || {
        mount.wait();
        mount.unmount()
    });
    unmount(&root, false).unwrap();
    waiting.join().unwrap().unwrap();
    let error = unmount(&root, false).expect_err("nothing there");
    assert!(matches!(error, MountError::NotMounted(_)), "{error}");
}

#[test]
fn a_dead_mount_is_cleared_away() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("m");
    let mut server = Job::start("serve", &at);
    assert_eq!(server.hear(), "mounted");
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let dead = fs::read_dir(&at).unwrap_err();
    assert_eq!(rustix::io::Errno::from_io_error(&dead), Some(rustix::io::Errno::NOTCONN));
    let replica = Replica::in_memory().unwrap();
    replica.write_file("/file", b"new").unwrap();
    let mount = Mount::new(replica, &at, MountOptions::default()).unwrap();
    assert_eq!(fs::read(at.join("file")).unwrap(), b"new");
    mount.unmount().unwrap();
}

#[test]
fn a_replica_can_be_mounted_again_and_again() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::in_memory().unwrap();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..20_u8 {
        let options = MountOptions {
            threads: Some(1 + usize::from(round % 3)),
            keep_awake: round % 2 == 0,
            ..MountOptions::default()
        };
        let mount = Mount::new(replica.clone(), dir.path(), options).unwrap();
        fs::write(mount.path().join("round"), [round]).unwrap();
        drop(mount);
        assert_eq!(replica.read_file("/round").unwrap(), [round]);
    }
    // Other tests of this process open files, too.
    assert!(descriptors() < 2000);
}
