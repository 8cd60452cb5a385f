//! Names: lookup, making, removing, renaming, linking.

use cairn_engine::{Direct, FsError, Ino, NewNode, RenameMode};
use cairn_protocol::NodeKind;
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::files::Start;
use super::{Caller, Found, Handle, Ops, Result, errno, stale};
use crate::fuse::opens::Access;

impl Ops {
    /// The inode a name stands for; `None` when there is none.
    pub(crate) fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Found>> {
        match self.told(|| self.replica.lookup(parent, name)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a file, directory, named pipe, socket or device.
    pub(crate) fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
    ) -> Result<Found> {
        let new = NewNode {
            kind: kind(mode)?,
            perm: perm(mode),
            uid: caller.uid,
            gid: caller.gid,
            rdev,
        };
        self.told(|| self.replica.make(parent, name, &new))
    }

    /// Makes a directory.
    pub(crate) fn mkdir(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
    ) -> Result<Found> {
        let kind = FileType::Directory.as_raw_mode();
        self.make(caller, parent, name, kind | u32::from(perm(mode)), 0)
    }

    /// Makes a file and opens it.
    ///
    /// The kernel asks for this when it knows of no such name. When another way into the replica
    /// has made one meanwhile, ESTALE sends the kernel back to look the name up and to open what
    /// it finds, with the check of permissions that belongs to that.
    pub(crate) fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        direct: bool,
    ) -> Result<(Found, Handle, Option<Direct>)> {
        let kind = FileType::RegularFile.as_raw_mode();
        let found = self
            .make(caller, parent, name, kind | u32::from(perm(mode)), 0)
            .map_err(|errno| match errno {
                Errno::EXIST if flags & libc::O_EXCL == 0 => Errno::STALE,
                other => other,
            })?;
        let access = Access::of(flags);
        if let Err(error) = self.replica.retain(found.attr.ino, access.writes()) {
            self.forget(found.attr.ino, 1);
            return Err(stale(error));
        }
        let start = Start::of_new(flags, direct);
        let (handle, file) = self.count(found.attr.ino, access, start);
        let lasting = found.lasting && !handle.direct;
        Ok((Found { lasting, ..found }, handle, file))
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Found> {
        let Caller { uid, gid } = caller;
        self.told(|| self.replica.symlink(parent, name, target, uid, gid))
    }

    /// The target of a symbolic link.
    pub(crate) fn readlink(&self, ino: Ino) -> Result<impl AsRef<[u8]> + use<>> {
        self.replica.read_link(ino).map_err(stale)
    }

    /// Gives an inode one more name.
    pub(crate) fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Found> {
        self.told(|| self.replica.link(ino, parent, name))
    }

    /// Removes the name of anything but a directory.
    pub(crate) fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.replica.unlink(parent, name).map_err(errno)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.replica.rmdir(parent, name).map_err(errno)
    }

    /// Renames.
    pub(crate) fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::EXCHANGE {
            RenameMode::Exchange
        } else {
            // RENAME_WHITEOUT: there is no lower layer here whose entry it could hide.
            return Err(Errno::INVAL);
        };
        self.replica
            .rename(from.0, from.1, to.0, to.1, mode)
            .map_err(|error: FsError| errno(error))
    }
}

/// The low 12 bits: permissions, set-id and sticky.
#[allow(
    clippy::cast_possible_truncation,
    reason = "12 bits remain after the mask"
)]
pub(crate) fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

fn kind(mode: u32) -> Result<NodeKind> {
    Ok(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        // mknod(2) without a type means a regular file, and the kernel has put that in.
        FileType::Symlink | FileType::Unknown => return Err(Errno::INVAL),
    })
}
