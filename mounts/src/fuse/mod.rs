//! Mounting a replica through FUSE.
//!
//! ```no_run
//! use cairn_mounts::fuse::{Mount, MountOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let replica = cairn_engine::Replica::in_memory()?;
//! let mount = Mount::new(replica, "/mnt/work".as_ref(), MountOptions::default())?;
//! mount.wait();
//! # Ok(())
//! # }
//! ```
//!
//! A program on the mount finds a POSIX filesystem. The kernel keeps names, attributes and
//! content in its caches for as long as it likes; what changes the replica by another way, such
//! as a sync, the API or a second mount, is made known to it before the change returns to its
//! caller, also for files that are open or mapped (see `invalidate`).
//!
//! A process should not use a mount that it serves itself; it has the library, and its children may
//! use the mount. When it is killed while it waits for an answer of its own, nobody is left to
//! give it, and it cannot end before the next mount at the same place, or `umount -f`.
//!
//! What the kernel or the FUSE library does not offer, and a program therefore does not get:
//! `O_TMPFILE` (the library has no such request; programs fall back to a name), POSIX access
//! control lists (refused with EOPNOTSUPP), `FICLONE` (refused; `copy_file_range` shares extents
//! and `cp` uses it), the birth time in `statx`, and durability by `sync` and `syncfs`, which the
//! kernel does not pass on to FUSE filesystems; `fsync` and `O_SYNC` do what they say. Set-user-id
//! programs and device nodes can be made and kept but have no effect on the mount (`nosuid`,
//! `nodev`), since what they hold may come from another machine.

mod awake;
mod backing;
mod convert;
mod error;
mod fusermount;
mod holders;
mod invalidate;
mod lookups;
mod mountpoint;
mod notification;
mod opens;
mod ops;
mod server;
mod serving;
mod session;
mod sys;
mod table;
mod workers;

use std::path::{Path, PathBuf};

use cairn_engine::Replica;

pub use error::MountError;
pub use mountpoint::unmount;

use server::Server;

/// How a replica is mounted.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switches that do not depend on each other"
)]
pub struct MountOptions {
    /// Users other than the one who mounts may use the mount, as far as permissions let them.
    /// Default: when root mounts. Others need `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
    /// Nothing can be changed through the mount. Default: off.
    pub read_only: bool,
    /// Keep the processors from sleeping while requests come in quick succession, which makes
    /// each several times faster in a virtual machine. Takes only time that nobody wants, and
    /// none between bursts of requests. Default: on.
    pub keep_awake: bool,
    /// Let the kernel read and write new files itself while they are open, at the speed of the
    /// disk, where it knows how and lets us: Linux 6.9 or newer, as root. Default: on.
    pub passthrough: bool,
    /// Threads that serve requests; default 2. Each may take up to 1 MiB for reads.
    pub threads: Option<usize>,
    /// What the table of mounts shows as the source. Default: `cairn`.
    pub fs_name: String,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: rustix::process::geteuid().is_root(),
            read_only: false,
            keep_awake: true,
            passthrough: true,
            threads: None,
            fs_name: "cairn".into(),
        }
    }
}

/// A mounted replica. It is unmounted when this is dropped; if it is in use then, it is detached
/// from the tree of files at once and goes when its last user closes what it has open.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    server: Server,
}

impl Mount {
    /// Mounts a replica at a directory and serves it from threads of its own. The directory is
    /// made if only its last component is missing.
    ///
    /// # Errors
    ///
    /// [`MountError`] says what is in the way and what to do about it.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a mount takes its replica over; who needs it besides keeps a clone"
    )]
    pub fn new(replica: Replica, at: &Path, options: MountOptions) -> Result<Self, MountError> {
        let point = mountpoint::prepare(at, replica.path())?;
        match Server::start(&replica, &point.path, &options) {
            Ok(server) => Ok(Self {
                path: point.path,
                server,
            }),
            Err(error) => {
                if point.made {
                    let _ = std::fs::remove_dir(&point.path);
                }
                Err(error)
            }
        }
    }

    /// Where it is mounted: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Requests of the kernel served so far.
    pub fn requests(&self) -> u64 {
        self.server.requests()
    }

    /// Waits until it is unmounted from outside, as by `umount`.
    pub fn wait(&self) {
        self.server.wait();
    }

    /// Unmounts, and returns when nothing of the mount is left.
    ///
    /// # Errors
    ///
    /// [`MountError::Busy`] when processes use it. It is then detached all the same: its name is
    /// gone, and it ends when they close what they have open.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        if self.server.has_ended() {
            return Ok(());
        }
        match mountpoint::detach(&self.path, false) {
            // From outside, since the look above.
            Ok(()) | Err(MountError::NotMounted(_)) => {
                self.server.join();
                Ok(())
            }
            Err(error) => {
                mountpoint::detach(&self.path, true)?;
                self.server.leave();
                Err(error)
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::debug!(error = &error as &dyn std::error::Error, "unmount on drop");
        }
    }
}
