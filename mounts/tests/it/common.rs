//! A replica, mounted at a directory of its own by a process of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::remote::Remote;

/// Whether this machine can mount. Says why not; where the tests must run, that is a failure.
pub(crate) fn can_mount() -> bool {
    let missing = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse (load the module, or give the container the device)"
    } else if !rustix::process::geteuid().is_root() {
        "the tests mount as root"
    } else {
        return true;
    };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "tests of mounts cannot run here: {missing}"
    );
    // Past the test harness, which keeps what a test prints to itself unless it fails.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED, tests of mounts cannot run here: {missing}"
    );
    false
}

/// A directory to mount at. However the process ends that has it, by SIGKILL for its whole group,
/// too, what is mounted there is ended as well: a process in a session of its own sees to that.
pub(crate) struct Place {
    at: PathBuf,
    guard: Child,
    _dir: TempDir,
}

impl Place {
    /// The directory itself is not made.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = dir.path().canonicalize().unwrap().join("m");
        // Nothing here looks at the mount: that might never return.
        let guard = Command::new("setsid")
            .args([
                "sh",
                "-c",
                "cat; umount -cf \"$0\"; umount -cl \"$0\"; rm -rf --one-file-system \"${0%/m}\"",
            ])
            .arg(&at)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            at,
            guard,
            _dir: dir,
        }
    }

    pub(crate) fn at(&self) -> &Path {
        &self.at
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

pub(crate) struct Mounted {
    pub(crate) replica: Remote,
    still: bool,
    place: Place,
}

impl Mounted {
    /// `None` where mounting is impossible.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| Remote::start(), false)
    }

    /// With a replica on disk.
    pub(crate) fn on_disk() -> Option<Self> {
        Self::with(
            |place| Remote::start_at(&place.at().with_file_name("r.cairn")),
            false,
        )
    }

    pub(crate) fn read_only() -> Option<Self> {
        Self::with(|_| Remote::start(), true)
    }

    fn with(start: impl FnOnce(&Place) -> Remote, read_only: bool) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let place = Place::new();
        let replica = start(&place);
        replica.mount(place.at(), read_only).unwrap();
        Some(Self {
            replica,
            still: true,
            place,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        self.place.at()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.replica.requests()
    }

    /// The server is dead; what it left is cleared away.
    pub(crate) fn abandon(&mut self) {
        self.still = false;
        detach(self.root());
    }

    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        self.still = false;
        self.replica.unmount()
    }
}

impl Drop for Mounted {
    /// A test that leaves something open on its mount has failed.
    fn drop(&mut self) {
        if self.still {
            let unmounted = self.unmount();
            detach(self.root());
            if !std::thread::panicking() {
                unmounted.unwrap();
            }
        }
    }
}

/// Tells other threads to stop, also when this one panics.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whatever is mounted there is gone afterwards, also when its server is.
fn detach(at: &Path) {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    while rustix::mount::unmount(at, flags).is_ok() {}
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder fits a byte")]
/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at / 7 + at + seed) % 251) as u8)
        .collect()
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder fits a byte")]
/// A letter for each round.
pub(crate) fn letter(round: usize) -> u8 {
    b'a' + (round % 26) as u8
}
