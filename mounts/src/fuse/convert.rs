//! Between the engine's types and those of the FUSE library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_engine::{Attr, SetTime};
use cairn_protocol::{NodeKind, Timestamp};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

/// The block size that `stat` reports: programs that buffer by it (among them Python and the C
/// library up to 8 KiB) then write in fewer requests. One block of the page cache is no less.
const BLOCK_SIZE: u32 = 64 * 1024;

/// Attributes for the kernel.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: to_system(attr.atime),
        mtime: to_system(attr.mtime),
        ctime: to_system(attr.ctime),
        crtime: to_system(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The answer to a lookup of a name that does not exist: inode 0 may be cached as such.
pub(crate) fn no_file() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The kind of a node.
pub(crate) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Dir => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time to set.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(from_kernel(time)),
    }
}

/// A time that the library made from the kernel's seconds and nanoseconds.
///
/// For a time before 1970 the library goes back from 1970 by the seconds *and* the nanoseconds,
/// although the nanoseconds count forward. This undoes it, number by number; a test that sets
/// such a time on a mount fails should the library change.
pub(crate) fn from_kernel(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = 0_i64.checked_sub_unsigned(before.as_secs());
            (Ok(seconds.unwrap_or(i64::MIN)), before.subsec_nanos())
        }
    };
    Timestamp::new(seconds.unwrap_or(i64::MAX), nanos).unwrap_or(Timestamp::EPOCH)
}

fn to_system(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds().unsigned_abs());
    let second = if time.seconds() < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos().into())))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_nanoseconds_forward() {
        let time = Timestamp::new(-1, 250_000_000).unwrap();
        assert_eq!(to_system(time), UNIX_EPOCH - Duration::from_millis(750));
        let from_library = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(from_kernel(from_library), time);
        let late = Timestamp::new(1 << 40, 999_999_999).unwrap();
        assert_eq!(from_kernel(to_system(late)), late);
    }

    #[test]
    fn extreme_times_do_no_harm() {
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            let time = Timestamp::new(seconds, 0).unwrap();
            assert_eq!(from_kernel(to_system(time)), time);
        }
        to_system(Timestamp::new(i64::MAX, 999_999_999).unwrap());
    }
}
