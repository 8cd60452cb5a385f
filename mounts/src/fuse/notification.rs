//! The messages by which a filesystem tells the kernel to drop what it has cached
//! (`linux/fuse.h`, `enum fuse_notify_code`).
#![allow(
    clippy::host_endian_bytes,
    reason = "the FUSE protocol is in the byte order of the machine"
)]

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use cairn_engine::Ino;
use rustix::io::Errno;

const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;

/// `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;

/// The part of an inode to drop. The attributes are dropped in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing but the attributes.
    Attributes,
    /// Content from `offset`, `len` bytes or to the end.
    Content {
        /// First byte.
        offset: u64,
        /// Bytes; `None` is all that follows.
        len: Option<u64>,
    },
}

impl Part {
    /// All content.
    pub(crate) const ALL: Self = Self::Content {
        offset: 0,
        len: None,
    };

    /// Offset and length as the kernel wants them: a negative offset leaves the content, and a
    /// length of 0 means all that follows.
    fn range(self) -> (i64, i64) {
        match self {
            Self::Attributes | Self::Content { len: Some(0), .. } => (-1, 0),
            Self::Content { offset, len } => (
                i64::try_from(offset).unwrap_or(i64::MAX),
                len.and_then(|len| i64::try_from(len).ok()).unwrap_or(0),
            ),
        }
    }
}

/// Drops attributes and content of an inode.
pub(crate) fn inval_inode(device: BorrowedFd<'_>, ino: Ino, part: Part) -> Result<(), Errno> {
    let (offset, len) = part.range();
    let mut body = [0; 24];
    body[..8].copy_from_slice(&ino.0.to_ne_bytes());
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..].copy_from_slice(&len.to_ne_bytes());
    send(device, INVAL_INODE, &body, None)
}

/// Drops what the kernel knows about a name.
pub(crate) fn inval_entry(device: BorrowedFd<'_>, parent: Ino, name: &[u8]) -> Result<(), Errno> {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&parent.0.to_ne_bytes());
    body[8..12].copy_from_slice(&name_len(name)?);
    send(device, INVAL_ENTRY, &body, Some(name))
}

fn name_len(name: &[u8]) -> Result<[u8; 4], Errno> {
    u32::try_from(name.len())
        .map(u32::to_ne_bytes)
        .map_err(|_| Errno::NAMETOOLONG)
}

fn send(device: BorrowedFd<'_>, code: i32, body: &[u8], name: Option<&[u8]>) -> Result<(), Errno> {
    let total = HEADER_BYTES + body.len() + name.map_or(0, |name| name.len() + 1);
    let total = u32::try_from(total).map_err(|_| Errno::NAMETOOLONG)?;
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&total.to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    let parts = [
        IoSlice::new(&header),
        IoSlice::new(body),
        IoSlice::new(name.unwrap_or_default()),
        IoSlice::new(b"\0"),
    ];
    let used = if name.is_some() { 4 } else { 2 };
    loop {
        match rustix::io::writev(device, &parts[..used]) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_as_the_kernel_wants_them() {
        assert_eq!(Part::Attributes.range(), (-1, 0));
        assert_eq!(Part::ALL.range(), (0, 0));
        let none = Part::Content {
            offset: 5,
            len: Some(0),
        };
        assert_eq!(none.range(), (-1, 0), "0 bytes must not mean all");
        let some = Part::Content {
            offset: 5,
            len: Some(7),
        };
        assert_eq!(some.range(), (5, 7));
        let huge = Part::Content {
            offset: 5,
            len: Some(u64::MAX),
        };
        assert_eq!(huge.range(), (5, 0));
    }
}
