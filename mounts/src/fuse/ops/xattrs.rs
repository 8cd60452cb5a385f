//! Extended attributes.
//!
//! POSIX access control lists are refused (EOPNOTSUPP) rather than stored: a list that is stored
//! but not applied leaves directories unreadable after `cp -a` or `rsync -A`, and these tools
//! know how to go on without.

use cairn_engine::{FsError, Ino, XattrMode};
use rustix::io::Errno;

use super::{Ops, Result, stale};

/// Namespaces that `setxattr` accepts. The kernel has checked who may use them.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The answer to a request with a limit: what was asked for, or how long it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sized<T> {
    /// The value.
    Value(T),
    /// Its length, when the request had no room at all and only asked for that.
    Length(u32),
}

impl<T: AsRef<[u8]>> Sized<T> {
    fn new(value: T, room: u32) -> Result<Self> {
        let len = u32::try_from(value.as_ref().len()).map_err(|_| Errno::TOOBIG)?;
        if room == 0 {
            Ok(Self::Length(len))
        } else if len > room {
            Err(Errno::RANGE)
        } else {
            Ok(Self::Value(value))
        }
    }
}

impl Ops {
    /// The value of an attribute.
    pub(crate) fn getxattr(
        &self,
        ino: Ino,
        name: &[u8],
        room: u32,
    ) -> Result<Sized<impl AsRef<[u8]> + use<>>> {
        supported(name)?;
        match self.replica.xattr(ino, name) {
            Ok(value) => Sized::new(value, room),
            Err(FsError::NoXattr) => Err(Errno::NODATA),
            Err(error) => Err(stale(error)),
        }
    }

    /// Sets an attribute.
    pub(crate) fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        supported(name)?;
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Errno::INVAL),
        };
        self.replica
            .set_xattr(ino, name, value, mode)
            .map_err(stale)
    }

    /// The names of all attributes, each ended by a NUL.
    pub(crate) fn listxattr(&self, ino: Ino, room: u32) -> Result<Sized<Vec<u8>>> {
        let mut names = Vec::new();
        for name in self.replica.list_xattrs(ino).map_err(stale)? {
            if supported(name.as_bytes()).is_ok() {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        Sized::new(names, room)
    }

    /// Removes an attribute.
    pub(crate) fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        supported(name)?;
        self.replica.remove_xattr(ino, name).map_err(stale)
    }
}

fn supported(name: &[u8]) -> Result<()> {
    let known = NAMESPACES
        .iter()
        .any(|namespace| name.starts_with(namespace));
    if known { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sized_as_getxattr_2_says() {
        assert_eq!(Sized::new(b"abc", 0), Ok(Sized::Length(3)));
        assert_eq!(Sized::new(b"abc", 2), Err(Errno::RANGE));
        assert_eq!(Sized::new(b"abc", 3), Ok(Sized::Value(b"abc")));
        assert_eq!(Sized::new(b"", 0), Ok(Sized::Length(0)));
    }

    #[test]
    fn access_control_lists_are_refused() {
        assert_eq!(supported(b"system.posix_acl_access"), Err(Errno::OPNOTSUPP));
        assert_eq!(supported(b"user.mime_type"), Ok(()));
    }
}
