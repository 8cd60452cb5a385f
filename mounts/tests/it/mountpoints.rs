//! Mount points that are not fit, and what is said about them.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_engine::{Options, Replica};
use cairn_mounts::fuse::{Mount, MountError, MountOptions, unmount};

use crate::child::{Job, command, say};
use crate::common::{Mounted, Place, can_mount};
use crate::remote::Remote;

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
    assert!(
        matches!(error, MountError::ContainsReplica { .. }),
        "{error}"
    );
    says(&error, &root, "another directory");

    let error = refused(&replica, Path::new("/proc"));
    assert!(
        matches!(error, MountError::AlreadyMounted { .. }),
        "{error}"
    );
    says(&error, Path::new("/proc"), "umount /proc");
}

#[test]
fn a_missing_last_component_is_made_and_stays() {
    let Some(mut m) = Mounted::new() else { return };
    assert!(m.root().is_dir());
    m.unmount().unwrap();
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 0);
}

#[test]
fn a_live_mount_is_not_mounted_over() {
    let Some(m) = Mounted::new() else { return };
    let error = refused(&Replica::in_memory().unwrap(), m.root());
    assert!(
        matches!(error, MountError::AlreadyMounted { .. }),
        "{error}"
    );
    says(&error, m.root(), "umount");
    fs::write(m.path("file"), b"still there").unwrap();
}

#[test]
fn links_to_a_mount_point_are_followed() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.at()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(place.at(), elsewhere.path().join("link")).unwrap();
    let replica = Replica::in_memory().unwrap();
    let options = MountOptions::default();
    let mount = Mount::new(replica, &elsewhere.path().join("./link/"), options).unwrap();
    assert_eq!(mount.path(), place.at());
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
    let error = m.unmount().expect_err("in use");
    assert!(error.contains("is in use by"), "{error}");
    assert!(!path.exists(), "the name is gone at once");
    let mut kept = String::new();
    std::io::Read::read_to_string(&mut &file, &mut kept).unwrap();
    assert_eq!(kept, "kept", "what is open stays");
}

#[test]
fn an_unmount_from_outside_ends_the_wait() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let replica = Replica::in_memory().unwrap();
    let mount = Mount::new(replica, place.at(), MountOptions::default()).unwrap();
    let root = mount.path().to_path_buf();
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
    let Some(mut m) = Mounted::new() else { return };
    m.replica.kill();
    let dead = fs::read_dir(m.root()).unwrap_err();
    assert_eq!(
        rustix::io::Errno::from_io_error(&dead),
        Some(rustix::io::Errno::NOTCONN)
    );
    let next = Remote::start();
    next.write_file("/file", b"new").unwrap();
    next.mount(m.root(), false).unwrap();
    assert_eq!(fs::read(m.path("file")).unwrap(), b"new");
    next.unmount().unwrap();
    m.abandon();
}

#[test]
fn a_replica_can_be_mounted_again_and_again() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let replica = Replica::in_memory().unwrap();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..20_u8 {
        let options = MountOptions {
            threads: Some(1 + usize::from(round % 3)),
            keep_awake: round % 2 == 0,
            ..MountOptions::default()
        };
        let mount = Mount::new(replica.clone(), place.at(), options).unwrap();
        let name = format!("round-{round}");
        Job::start("write-name", &mount.path().join(&name)).end();
        drop(mount);
        assert_eq!(
            replica.read_file(format!("/{name}")).unwrap(),
            name.as_bytes()
        );
    }
    // Other tests of this process open files, too.
    assert!(descriptors() < 2000);
}

/// Tries to mount and says why it cannot be done.
pub(crate) fn mount_refused(at: &Path) {
    say(&refused(&Replica::in_memory().unwrap(), at).to_string());
}

/// What a process is told that tries to mount where `prepare` has left something out.
fn told(at: &Path, prepare: &str) -> String {
    let inner = command("mount-refused", at);
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    shell.arg(format!("{prepare} \"$@\"")).arg("sh");
    shell
        .arg(std::env::current_exe().unwrap())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        shell.env(name, value.unwrap());
    }
    let mut job = Job::spawn(shell);
    let line = job.hear();
    job.end();
    line
}

#[test]
fn without_a_device_it_says_how_to_get_one() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("m");
    // A container hides a device by nothing at all, or by binding another one over it.
    for hide in [
        "mount -t tmpfs tmpfs /dev;",
        "mount --bind /dev/null /dev/fuse;",
    ] {
        let line = told(&at, hide);
        assert!(
            line.contains("no FUSE device") && line.contains("modprobe fuse"),
            "{line}"
        );
        assert!(!at.exists(), "it is not made for nothing");
    }
}

#[test]
fn without_permission_it_says_how_to_get_it() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("m");
    fs::create_dir(&at).unwrap();
    std::os::unix::fs::chown(&at, Some(65_534), Some(65_534)).unwrap();
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for (mode, path, remedy) in [
        ("600", "$PATH", "ask for read and write permission"),
        ("666", "/nowhere", "install fuse3"),
    ] {
        let device = format!("mount -t tmpfs tmpfs /dev; mknod -m {mode} /dev/fuse c 10 229;");
        let nobody = "$setpriv --reuid 65534 --regid 65534 --clear-groups";
        let line = told(
            &at,
            &format!("{device} setpriv=$(command -v setpriv); PATH={path} exec {nobody}"),
        );
        assert!(line.contains(remedy), "{line}");
    }
}
