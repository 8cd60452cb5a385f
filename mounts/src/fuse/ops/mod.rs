//! The operations of the kernel on a replica, whatever delivers them.
//!
//! Each operation is a plain method: arguments as the kernel gave them, result or error number.
//! Nothing here knows how a request arrived or how its answer goes back, so another transport can
//! serve the same operations.
//!
//! Rules that hold for all:
//!
//! 1. An inode whose number is sent to the kernel is counted first, so that the engine keeps its
//!    node ([`Ops::told`]).
//! 2. Attributes that a change from elsewhere may have overtaken are marked as not lasting.
//! 3. A node that is gone is answered with ESTALE where the kernel named it by its number: the
//!    kernel then looks the path up once more, and a rename over an open name is never seen as
//!    a missing file.
//! 4. The kernel checks permissions (`default_permissions`) and applies the umask.

mod dirs;
mod files;
mod names;
mod xattrs;

use std::sync::Arc;

use cairn_engine::{Attr, FsError, Ino, Replica, SetAttr, StatFs};
use cairn_protocol::NodeKind;
use rustix::io::Errno;

pub(crate) use dirs::{ListEntry, Listing};
pub(crate) use files::{Handle, Whither};
pub(crate) use names::perm;
pub(crate) use xattrs::Sized;

use super::invalidate::Invalidator;

/// The result of an operation.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

impl Caller {
    /// Whether set-user-id and set-group-id bits are taken from a program that the caller changes.
    ///
    /// The kernel says so for writes; for truncation and preallocation the library does not pass
    /// the flag on. It is set for callers without `CAP_FSETID`, in practice all but root.
    fn loses_set_id(self) -> bool {
        self.uid != 0
    }
}

/// An inode for the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Its attributes.
    pub(crate) attr: Attr,
    /// Whether the kernel may keep the attributes until it is told otherwise.
    pub(crate) lasting: bool,
}

/// One mount's view of a replica.
#[derive(Debug)]
pub(crate) struct Ops {
    replica: Replica,
    kernel: Arc<Invalidator>,
}

impl Ops {
    /// Operations on a view of a replica that `kernel` observes.
    pub(crate) fn new(replica: Replica, kernel: Arc<Invalidator>) -> Self {
        Self { replica, kernel }
    }

    /// Reads attributes that go to the kernel, and counts the inode as known to it.
    fn told(&self, read: impl FnOnce() -> cairn_engine::Result<Attr>) -> Result<Found> {
        let changes = self.kernel.changes();
        let attr = read().map_err(errno)?;
        self.kernel.lookups.add(attr.ino);
        Ok(Found {
            attr,
            // A change before the inode was counted was not queued for it.
            lasting: self.kernel.changes() == changes && !self.kernel.opens.is_direct(attr.ino),
        })
    }

    /// The kernel forgot `count` of the times it was told of an inode.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        if self.kernel.lookups.sub(ino, count) {
            self.replica.forgotten(ino);
        }
    }

    /// The attributes of an inode.
    pub(crate) fn getattr(&self, ino: Ino) -> Result<Found> {
        let attr = self.replica.attr(ino).map_err(stale)?;
        Ok(self.found(attr))
    }

    /// The kernel is not told when somebody writes into a mapping of a file that it reads and
    /// writes itself, so it asks for the attributes each time.
    fn found(&self, attr: Attr) -> Found {
        Found {
            attr,
            lasting: !self.kernel.opens.is_direct(attr.ino),
        }
    }

    /// Changes attributes.
    pub(crate) fn setattr(&self, caller: Caller, ino: Ino, mut set: SetAttr) -> Result<Found> {
        // With neither mode, size nor times it is a chown, if only to the same owner.
        let chown = set.uid.is_some() || set.gid.is_some() || set == SetAttr::default();
        let truncated = set.size.is_some() && caller.loses_set_id();
        if truncated || chown && self.getattr(ino)?.attr.kind != NodeKind::Dir {
            set.kill_suid_gid = true;
        }
        let attr = self.replica.set_attr(ino, &set).map_err(stale)?;
        Ok(self.found(attr))
    }

    /// Space and counts.
    pub(crate) fn statfs(&self) -> Result<StatFs> {
        self.replica.stat_fs().map_err(errno)
    }

    /// Makes everything so far durable that belongs to the inode.
    pub(crate) fn fsync(&self, ino: Ino) -> Result<()> {
        self.replica.fsync(ino).map_err(stale)
    }

    /// The connection is gone: gives back what the kernel held.
    pub(crate) fn close(&self) {
        self.kernel.close();
        for (ino, held) in self.kernel.opens.drain() {
            for _ in 0..held.direct {
                self.replica.abandon_direct(ino);
            }
            (0..held.readers).for_each(|_| self.replica.release(ino, false));
            (0..held.writers).for_each(|_| self.replica.release(ino, true));
        }
        for ino in self.kernel.lookups.drain() {
            self.replica.forgotten(ino);
        }
        self.replica.unobserve();
    }
}

/// The number of an error.
#[allow(
    clippy::needless_pass_by_value,
    reason = "to be named as the argument of map_err"
)]
fn errno(error: FsError) -> Errno {
    let errno = error.errno();
    if errno == Errno::IO {
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
    }
    errno
}

/// The number of an error of a request that named its inode by number: rule 3.
fn stale(error: FsError) -> Errno {
    match errno(error) {
        Errno::NOENT => Errno::STALE,
        other => other,
    }
}
