//! Extended attributes of files of this machine.

use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, lgetxattr, llistxattr, lsetxattr};
use rustix::io::{self, Errno};

use crate::transfer::{Xattrs, keeps_xattr};

/// Room for names or a value at the first try; most are smaller.
const ROOM: usize = 1_024;
/// Largest list of names, and largest value, of the kernel: `XATTR_SIZE_MAX`.
const ROOM_MAX: usize = 64 << 10;

/// Where a node is.
pub(super) enum At<'a> {
    /// It is open.
    Open(&'a OwnedFd),
    /// A name in a directory, of what cannot be opened.
    Name(&'a OwnedFd, &'a [u8]),
}

impl At<'_> {
    /// A path for calls that take no directory; the last name is not followed.
    fn path(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
        [
            format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).as_bytes(),
            name,
        ]
        .concat()
    }

    fn list(&self, names: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Open(file) => flistxattr(file, spare_capacity(names)),
            Self::Name(dir, name) => llistxattr(Self::path(dir, name), spare_capacity(names)),
        }
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Open(file) => fgetxattr(file, key, spare_capacity(value)),
            Self::Name(dir, name) => lgetxattr(Self::path(dir, name), key, spare_capacity(value)),
        }
    }

    /// Sets one.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(file) => fsetxattr(file, key, value, XattrFlags::empty()),
            Self::Name(dir, name) => {
                lsetxattr(Self::path(dir, name), key, value, XattrFlags::empty())
            }
        }
    }

    /// All that are kept.
    pub(super) fn all(&self) -> io::Result<Xattrs> {
        let names = match with_room(|names| self.list(names)) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            names => names?,
        };
        let mut all = Vec::new();
        for key in names
            .split(|byte| *byte == 0)
            .filter(|key| keeps_xattr(key))
        {
            match with_room(|value| self.get(key, value)) {
                Ok(value) => all.push((key.to_vec(), value)),
                // It went meanwhile, or is not for this user.
                Err(Errno::NODATA | Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// Calls `get` with a buffer that is empty and large enough.
fn with_room(mut get: impl FnMut(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(ROOM);
    match get(&mut buf) {
        Err(Errno::RANGE) => {
            buf = Vec::with_capacity(ROOM_MAX);
            get(&mut buf).map(|_| buf)
        }
        done => done.map(|_| buf),
    }
}
