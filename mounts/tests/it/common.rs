//! A replica in memory, mounted at a directory of its own.

use std::path::{Path, PathBuf};

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountOptions};
use tempfile::TempDir;

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
    eprintln!("skipped: {missing}");
    false
}

pub(crate) struct Mounted {
    pub(crate) replica: Replica,
    pub(crate) mount: Option<Mount>,
    at: PathBuf,
    _dir: TempDir,
}

impl Mounted {
    /// `None` where mounting is impossible.
    pub(crate) fn new() -> Option<Self> {
        Self::with(MountOptions::default())
    }

    pub(crate) fn with(options: MountOptions) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let replica = Replica::in_memory().unwrap();
        let mount = Mount::new(replica.clone(), &dir.path().join("m"), options).unwrap();
        Some(Self {
            replica,
            at: mount.path().to_path_buf(),
            mount: Some(mount),
            _dir: dir,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.at
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = self.mount.take().map(Mount::unmount);
        if !std::thread::panicking() {
            unmounted.map_or(Ok(()), |result| result).unwrap();
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder fits a byte"
)]
/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at / 7 + at + seed) % 251) as u8).collect()
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder fits a byte"
)]
/// A letter for each round.
pub(crate) fn letter(round: usize) -> u8 {
    b'a' + (round % 26) as u8
}
