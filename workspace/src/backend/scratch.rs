//! A directory of a backend's own for the time that it is connected: with the mount of
//! the workspace, a home, and a place for temporary files.
//!
//! A process that is killed leaves its directory, with a mount whose server is gone.
//! The next that opens the same replica finds it by a record; of a workspace in
//! memory there is none, so who needs a directory looks for those that are of no use
//! to anybody.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cairn_mounts::fuse::unmount;
use rustix::io::Errno;

use crate::exec::RuntimeId;

/// How the directories for temporary files are called.
const PREFIX: &str = "cairn-";
/// The file that says where the last one is. It has no comma, so it is no exec's.
const RECORD: &str = "scratch";

/// A directory of the backend's own, which nobody else can look into. It is
/// removed with it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, and removes the one of a process that was killed, which is
    /// recorded in the backend's directory.
    pub(super) fn new(directory: Option<&Path>) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("{PREFIX}{}", RuntimeId::random());
        let this = Self(std::env::temp_dir().join(name));
        let mut dir = std::fs::DirBuilder::new();
        for path in [&this.0, &this.home(), &this.temporary()] {
            dir.mode(0o700).create(path)?;
        }
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory)?;
            let record = directory.join(RECORD);
            if let Ok(earlier) = std::fs::read(&record) {
                Self(OsString::from_vec(earlier).into()).clear();
            }
            std::fs::write(record, this.0.as_os_str().as_bytes())?;
        }
        // A mount that does not answer holds up nobody but this.
        let sweep = std::thread::Builder::new().name("cairn-sweep".into());
        let _ = sweep.spawn(|| sweep_up(&std::env::temp_dir()));
        Ok(this)
    }

    /// Unmounts what a process that was killed left here.
    fn clear(self) {
        let name = self
            .0
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        if self.0.is_absolute() && name.starts_with(PREFIX) {
            // Mostly it is gone already, as the process ended in order.
            let _ = unmount(&self.workspace(), true);
            return;
        }
        tracing::warn!(path = %self.0.display(), "not a directory of an earlier process");
        std::mem::forget(self);
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for dir in [self.home(), self.temporary()] {
            // What processes left there, and the mount point, which is empty by now. A mount
            // that is there still keeps its directory.
            let _ = std::fs::remove_dir_all(dir);
        }
        let _ = std::fs::remove_dir(self.workspace());
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Removes the directories of this user's processes that were killed: where there is a
/// mount without a server.
fn sweep_up(temporary: &Path) {
    let Ok(entries) = std::fs::read_dir(temporary) else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let named = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !named
            || !entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == user)
        {
            continue;
        }
        let scratch = Scratch(entry.path());
        if rustix::fs::statfs(scratch.workspace()).err() == Some(Errno::NOTCONN) {
            scratch.clear();
        } else {
            std::mem::forget(scratch);
        }
    }
}
