//! Why a mount could not be made or ended.

use std::io;
use std::path::PathBuf;

/// Why a mount could not be made or ended. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The directory above the mount point does not exist.
    #[error("cannot mount at {}: the directory above it does not exist; create it first", .0.display())]
    Missing(PathBuf),
    /// The mount point is not a directory.
    #[error("cannot mount at {}: it is not a directory; name an empty directory, or a new one", .0.display())]
    NotDirectory(PathBuf),
    /// The mount would hide what is in the directory.
    #[error("cannot mount at {}: the directory is not empty and the mount would hide its content; name an empty directory, or a new one", .0.display())]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("cannot mount at {}: {filesystem} is mounted there already; unmount it first with `umount {}`, or name another directory", .path.display(), .path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
        /// Type and source of what is mounted.
        filesystem: String,
    },
    /// A filesystem is mounted there that does not answer.
    #[error("cannot mount at {}: {filesystem} is mounted there and does not answer; end the process that serves it, then `umount -f {}`", .path.display(), .path.display())]
    Unresponsive {
        /// The mount point.
        path: PathBuf,
        /// Type and source of what is mounted.
        filesystem: String,
    },
    /// The mount point is inside the replica's own directory.
    #[error("cannot mount at {}: it is inside the replica {}; name a directory outside of it", .path.display(), .replica.display())]
    InsideReplica {
        /// The mount point.
        path: PathBuf,
        /// The replica's directory.
        replica: PathBuf,
    },
    /// The replica's own directory is below the mount point, which would hide it.
    #[error("cannot mount at {}: the replica {} is inside of it and would be hidden; name another directory, or move the replica", .path.display(), .replica.display())]
    ContainsReplica {
        /// The mount point.
        path: PathBuf,
        /// The replica's directory.
        replica: PathBuf,
    },
    /// The machine has no FUSE device, or another device is bound over it.
    #[error(
        "there is no FUSE device at /dev/fuse; load the module with `modprobe fuse`, or start the container with `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice,
    /// The FUSE device may not be opened.
    #[error("/dev/fuse may not be opened; run as root, or ask for read and write permission on it")]
    DeviceRefused(#[source] io::Error),
    /// Mounting needs a right that this process does not have.
    #[error("mounting at {} is not permitted; run as root, or install fuse3, whose program fusermount3 lets users mount in directories of their own", .0.display())]
    NotPermitted(PathBuf),
    /// The kernel or fusermount3 refused.
    #[error("mounting at {} was refused: {reason}", .path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The mount is in use.
    #[error("{} is in use by {users}; close what they have open there, or detach it with `umount -l {}`", .path.display(), .path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// Processes that use it, as far as they can be seen.
        users: String,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted at {}", .0.display())]
    NotMounted(PathBuf),
    /// The system failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The mount point.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }
}
