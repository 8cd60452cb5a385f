//! Open files: reading, writing, allocating, copying.

use std::cell::RefCell;

use cairn_engine::{Allocate, Direct, Ino, Invalidation, SeekTo, SetAttr};
use rustix::io::Errno;

use super::{Caller, Ops, Result, errno, stale};
use crate::fuse::opens::{Access, Beside};

/// The most that one request for copying moves: the answer has 32 bits for the count.
const COPY_MAX: u64 = 0xffff_f000;

const PUNCHED: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZEROED: i32 = libc::FALLOC_FL_ZERO_RANGE;
const ZEROED_INSIDE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

thread_local! {
    /// What a read fills and its answer is sent from: as large as the largest request so far, at
    /// most 1 MiB for each thread that reads requests.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whither {
    /// To an offset; the file grows if it has to.
    Offset(u64),
    /// To an offset, as far as the file goes.
    Inside(u64),
    /// To the end of the file, which the kernel believes to be here.
    End(u64),
}

/// An open file. It holds all its state itself; nothing is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// What it was opened for.
    pub(crate) access: Access,
    /// Whether the kernel reads and writes the file underneath.
    pub(crate) direct: bool,
}

impl From<Handle> for u64 {
    fn from(handle: Handle) -> Self {
        let access = match handle.access {
            Access::Read => 0,
            Access::Write => 1,
            Access::Execute => 2,
        };
        access | Self::from(handle.direct) << 2
    }
}

impl From<u64> for Handle {
    fn from(number: u64) -> Self {
        Self {
            access: match number & 3 {
                1 => Access::Write,
                2 => Access::Execute,
                _ => Access::Read,
            },
            direct: number & 4 != 0,
        }
    }
}

/// Whether writes through a handle may have to be durable without a request that says so: with
/// `O_SYNC`, or by `msync`. When the kernel writes the file underneath itself, it syncs only that,
/// so what names it must be durable before.
fn syncs_itself(flags: i32) -> bool {
    flags & (libc::O_SYNC | libc::O_DSYNC) != 0 || flags & libc::O_ACCMODE == libc::O_RDWR
}

/// When the first handle of a file may be for the kernel to read and write itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Never.
    No,
    /// When the file is empty, and the handle writes.
    Empty,
    /// When the file is large.
    Large,
}

impl Start {
    /// For a file that was just made.
    pub(super) fn of_new(flags: i32, direct: bool) -> Self {
        if direct && !syncs_itself(flags) {
            Self::Empty
        } else {
            Self::No
        }
    }
}

impl Ops {
    /// Opens a file. With a [`Direct`], the handle is for the kernel to read and write itself.
    ///
    /// The kernel does not let a file be opened for writing while it is executed, and sees to that
    /// before it asks. But it checks `O_RDONLY | O_TRUNC` only when it has our answer: when we
    /// truncated, the caller would get ETXTBSY for a file that is empty, and the process that
    /// executes it would die when it next needs a page of it, while it is started above all.
    /// So such an open is refused here. Only such: the kernel tells of the end of a process without
    /// waiting for us, and what replaces a program just after need not wait, either.
    pub(crate) fn open(
        &self,
        caller: Caller,
        ino: Ino,
        flags: i32,
        direct: bool,
    ) -> Result<(Handle, Option<Direct>)> {
        let access = Access::of(flags);
        let write = access.writes();
        let truncate = flags & libc::O_TRUNC != 0;
        if truncate && !write && self.kernel.opens.is_executed(ino) {
            return Err(Errno::TXTBSY);
        }
        self.replica.retain(ino, write).map_err(stale)?;
        self.prepare_direct(ino, write, direct);
        if truncate {
            let empty = SetAttr {
                size: Some(0),
                kill_suid_gid: caller.loses_set_id(),
                ..SetAttr::default()
            };
            if let Err(error) = self.replica.set_attr(ino, &empty) {
                self.replica.release(ino, write);
                return Err(stale(error));
            }
        }
        let start = match (direct && !syncs_itself(flags), truncate) {
            (false, _) => Start::No,
            (true, true) => Start::Empty,
            (true, false) => Start::Large,
        };
        let (handle, file) = self.count(ino, access, start);
        if handle.direct && syncs_itself(flags) {
            // From here on a sync of the file underneath is all it takes.
            if let Err(error) = self.replica.fsync(ino) {
                self.release(ino, handle);
                return Err(stale(error));
            }
        }
        Ok((handle, file))
    }

    /// Does what takes long before the table of open files is locked. A failure shows again there.
    fn prepare_direct(&self, ino: Ino, write: bool, direct: bool) {
        let needed = if write {
            self.kernel.opens.is_direct(ino)
        } else {
            direct && !self.kernel.opens.contains(ino)
        };
        if needed {
            let _ = self.replica.prepare_direct(ino, write);
        }
    }

    /// Counts the handle of a file that is retained. The first one may be direct, as `start` says;
    /// those that are opened beside it must be.
    pub(super) fn count(&self, ino: Ino, access: Access, start: Start) -> (Handle, Option<Direct>) {
        let write = access.writes();
        let file = self.kernel.opens.add(ino, access, |beside| {
            let file = match beside {
                Beside::None => match start {
                    Start::Empty if write => self.replica.start_direct(ino),
                    Start::Large => self.replica.resume_direct(ino, write),
                    _ => Ok(None),
                },
                Beside::Direct => self.replica.join_direct(ino, write),
                Beside::Ordinary => Ok(None),
            };
            // Used through the replica, it meets the same error and tells the caller.
            file.unwrap_or(None)
        });
        let handle = Handle {
            access,
            direct: file.is_some(),
        };
        (handle, file)
    }

    /// Makes an ordinary handle of a direct one, before the kernel has it or when it closes it.
    /// Returns the number of the file underneath if that is not used again.
    pub(crate) fn make_ordinary(&self, ino: Ino, handle: &mut Handle) -> Option<u64> {
        if !std::mem::take(&mut handle.direct) {
            return None;
        }
        self.kernel.opens.make_ordinary(ino);
        self.replica.end_direct(ino)
    }

    /// Closes a file. Returns what [`Self::make_ordinary`] does.
    pub(crate) fn release(&self, ino: Ino, mut handle: Handle) -> Option<u64> {
        let gone = self.make_ordinary(ino, &mut handle);
        if self.kernel.opens.sub(ino, handle.access) {
            self.replica.release(ino, handle.access.writes());
        }
        gone
    }

    /// Reads, and hands what was read to `answer`. It is short only at the end of the file.
    pub(crate) fn read<T>(
        &self,
        ino: Ino,
        offset: u64,
        size: usize,
        answer: impl FnOnce(Result<&[u8]>) -> T,
    ) -> T {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let read = self.replica.read(ino, offset, &mut buffer[..size]);
            answer(read.map(|len| &buffer[..len]).map_err(stale))
        })
    }

    /// Writes.
    pub(crate) fn write(
        &self,
        ino: Ino,
        whither: Whither,
        data: &[u8],
        kill_suid_gid: bool,
    ) -> Result<()> {
        match whither {
            Whither::Offset(offset) => self.replica.write(ino, offset, data).map_err(stale)?,
            // The page may have been under way when the file was cut off.
            Whither::Inside(offset) => {
                self.replica
                    .write_inside(ino, offset, data)
                    .map_err(stale)?;
            }
            Whither::End(offset) => self.append(ino, offset, data)?,
        }
        if kill_suid_gid {
            self.replica.kill_privileges(ino).map_err(stale)?;
        }
        Ok(())
    }

    /// The kernel's offset is the end of the file as it last knew it, and its cache may already
    /// hold the data there. When that was no longer the end, the cache is wrong from there on. It is
    /// dropped once the kernel has the answer to the write: until then the pages are locked, and
    /// the invalidation waits for them.
    fn append(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        let actual = self.replica.append(ino, data).map_err(stale)?;
        if actual != offset {
            self.kernel.push(Invalidation::Content {
                ino,
                offset: offset.min(actual),
                len: None,
            });
        }
        Ok(())
    }

    /// Reserves space, punches a hole or writes zeros.
    pub(crate) fn fallocate(
        &self,
        caller: Caller,
        ino: Ino,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Result<()> {
        let how = match mode {
            0 => Allocate::Reserve { keep_size: false },
            libc::FALLOC_FL_KEEP_SIZE => Allocate::Reserve { keep_size: true },
            PUNCHED => Allocate::PunchHole,
            ZEROED => Allocate::Zero { keep_size: false },
            ZEROED_INSIDE => Allocate::Zero { keep_size: true },
            _ => return Err(Errno::OPNOTSUPP),
        };
        self.replica
            .allocate(ino, offset, len, how)
            .map_err(stale)?;
        if caller.loses_set_id() {
            self.replica.kill_privileges(ino).map_err(stale)?;
        }
        Ok(())
    }

    /// Finds the next data or hole.
    pub(crate) fn lseek(&self, ino: Ino, offset: i64, whence: i32) -> Result<i64> {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            // The kernel itself does the others.
            _ => return Err(Errno::INVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let found = self.replica.seek(ino, offset, to).map_err(stale)?;
        i64::try_from(found).map_err(|_| Errno::OVERFLOW)
    }

    /// Copies from file to file without moving the bytes through the caller.
    pub(crate) fn copy_file_range(
        &self,
        caller: Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<u32> {
        let len = len.min(COPY_MAX);
        let copied = self
            .replica
            .copy_range(from.0, from.1, to.0, to.1, len)
            .map_err(errno)?;
        if caller.loses_set_id() {
            self.replica.kill_privileges(to.0).map_err(errno)?;
        }
        u32::try_from(copied).map_err(|_| Errno::OVERFLOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_its_number() {
        for access in [Access::Read, Access::Execute, Access::Write] {
            for direct in [false, true] {
                let handle = Handle { access, direct };
                assert_eq!(Handle::from(u64::from(handle)), handle);
            }
        }
    }

    #[test]
    fn a_handle_that_may_sync_without_a_request_does_not_begin_direct_use() {
        for flags in [
            libc::O_RDWR,
            libc::O_WRONLY | libc::O_SYNC,
            libc::O_WRONLY | libc::O_DSYNC,
        ] {
            assert_eq!(Start::of_new(flags, true), Start::No);
        }
        assert_eq!(Start::of_new(libc::O_WRONLY, true), Start::Empty);
        assert_eq!(Start::of_new(libc::O_WRONLY, false), Start::No);
    }
}
