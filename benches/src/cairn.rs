//! How the `cairn` program is started and stopped: the only place that knows
//! its command line.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the replica inside the target's directory.
const REPLICA: &str = "bench.cairn";

/// The program under test.
#[derive(Debug, Clone)]
pub(crate) struct Cairn {
    binary: PathBuf,
    extra: Vec<String>,
}

impl Cairn {
    /// Takes the program's path and further words for its `mount` command.
    pub(crate) fn new(binary: PathBuf, extra: Vec<String>) -> Self {
        Self { binary, extra }
    }

    /// Creates a durable replica in `dir`, mounts it and returns when it is
    /// mounted, leaving a daemon behind.
    pub(crate) fn mount(&self, dir: &Path, mountpoint: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("mount")
            .arg(mountpoint)
            .arg("--replica")
            .arg(dir.join(REPLICA))
            .arg("--daemon")
            .args(&self.extra);
        command
    }

    /// Unmounts, and ends the daemon behind the mount.
    pub(crate) fn umount(&self, mountpoint: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("umount").arg(mountpoint);
        command
    }
}
