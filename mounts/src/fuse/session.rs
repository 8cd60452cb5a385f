//! The adapter from the requests of the FUSE library to [`Ops`].

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_engine::{Ino, SetAttr};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::awake::Pulse;
use super::backing::Backings;
use super::convert::{file_attr, file_type, from_kernel, no_file, set_time};
use super::ops::{Caller, Found, Handle, ListEntry, Listing, Ops, Sized, Whither, perm};
use super::serving::Serving;
use super::workers::Workers;

/// The kernel keeps what it knows until it is told otherwise: 136 years.
const LASTING: Duration = Duration::from_secs(u32::MAX as u64);
/// For what a change may have overtaken.
const ONCE: Duration = Duration::ZERO;
/// Inode numbers are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// An open file uses what the kernel has cached, and is closed without a request: locks are the
/// kernel's, and what is written is visible to everyone already.
///
/// That is more than a request saved. A process that serves a mount and has a file open on it is
/// killed in one go, and were the kernel to ask for something when it closes that file, it would
/// wait forever for an answer of the same process.
const OPENED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// The same for a file that the kernel reads and writes itself, past its cache for this mount.
const OPENED_DIRECT: FopenFlags = FopenFlags::FOPEN_NOFLUSH;

/// Largest write request. Larger ones gain nothing: the page cache of the kernel passes them on
/// in pieces of its own.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel sends ahead of need, such as those of readahead.
const MAX_BACKGROUND: u16 = 64;

/// What is asked of the kernel, where it can do it.
///
/// Not asked for:
/// - `POSIX_LOCKS`, `FLOCK_LOCKS`: without them the kernel itself keeps the locks of the mount.
///   They work between all processes that use it, cost no request, and a process that waits for
///   one can be interrupted.
/// - `DONT_MASK`: the kernel applies the umask, which is right where there are no default access
///   control lists. `POSIX_ACL`: see `ops::xattrs`.
/// - `AUTO_INVAL_DATA`: every change is made known, so the kernel need not guess from a changed
///   time, at the price of asking for the attributes before each read.
/// - `EXPLICIT_INVAL_DATA`: without it, a kernel that learns of a new size drops the content, too.
///   It may learn of the size from the answer to another request, before the invalidation that is
///   on its way, and would show the last page as it was, with zeros where the file has grown.
/// - `WRITEBACK_CACHE`: see [`super`].
const WANTED: [InitFlags; 9] = [
    // Larger reads ahead; requests of more than 128 KiB.
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // One request for a listing with attributes, when the attributes are wanted.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Opening with O_TRUNC is one request, and a large file that begins anew may be direct. See
    // `Ops::open` for what the kernel then does not check.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Set-id bits go without a request of their own, and the kernel asks for a file's
    // capabilities once instead of at each write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // A listing needs no handle, see `opendir`.
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
];

/// Serves one mount.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) ops: Arc<Ops>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) workers: Workers,
    pub(crate) backings: Backings,
    /// Whether to let the kernel read and write new files itself, where it can.
    pub(crate) passthrough: bool,
}

impl Session {
    /// Runs one request. A panic in it is answered with EIO, by the reply that it drops, and does
    /// not end the thread on which the whole mount depends.
    fn serve(&self, request: impl FnOnce(&Ops)) {
        self.pulse.beat();
        let serving = Serving::begin();
        if catch_unwind(AssertUnwindSafe(|| request(&self.ops))).is_err() {
            tracing::error!("a request panicked and was answered with EIO");
        }
        drop(serving);
    }

    /// Runs one request that waits for the disk on another thread.
    fn serve_apart(&self, request: impl FnOnce(&Ops) + Send + 'static) {
        self.pulse.beat();
        let ops = Arc::clone(&self.ops);
        self.workers.run(move || {
            let _serving = Serving::begin();
            request(&ops);
        });
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

fn code(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

fn ttl(found: &Found) -> Duration {
    if found.lasting { LASTING } else { ONCE }
}

fn reply_entry(reply: ReplyEntry, found: &Found) {
    // The name itself is locked while it is looked up or made, and an invalidation waits for
    // that lock, so only the attributes can be outdated.
    let attr = file_attr(&found.attr);
    reply.entry_with_ttls(&ttl(found), &LASTING, &attr, GENERATION);
}

fn reply_found(reply: ReplyEntry, found: Result<Found, rustix::io::Errno>) {
    match found {
        Ok(found) => reply_entry(reply, &found),
        Err(errno) => reply.error(code(errno)),
    }
}

fn reply_done(reply: ReplyEmpty, done: Result<(), rustix::io::Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(code(errno)),
    }
}

fn reply_xattr<T: AsRef<[u8]>>(reply: ReplyXattr, found: Result<Sized<T>, rustix::io::Errno>) {
    match found {
        Ok(Sized::Value(value)) => reply.data(value.as_ref()),
        Ok(Sized::Length(len)) => reply.size(len),
        Err(errno) => reply.error(code(errno)),
    }
}

impl Listing for ReplyDirectory {
    const COUNTED: bool = false;

    fn take(&mut self, entry: ListEntry, name: &[u8], position: u64) -> bool {
        let (ino, kind) = match entry {
            ListEntry::Dots(ino) => (ino, fuser::FileType::Directory),
            ListEntry::Node(found) => (found.attr.ino, file_type(found.attr.kind)),
        };
        !self.add(INodeNo(ino.0), position, kind, OsStr::from_bytes(name))
    }
}

impl Listing for ReplyDirectoryPlus {
    const COUNTED: bool = true;

    fn take(&mut self, entry: ListEntry, name: &[u8], position: u64) -> bool {
        let (attr, ttl) = match entry {
            ListEntry::Dots(ino) => {
                let mut attr = no_file();
                attr.ino = INodeNo(ino.0);
                attr.kind = fuser::FileType::Directory;
                (attr, ONCE)
            }
            ListEntry::Node(found) => (file_attr(&found.attr), ttl(&found)),
        };
        let name = OsStr::from_bytes(name);
        !self.add(attr.ino, position, name, &ttl, &attr, GENERATION)
    }
}

impl Filesystem for Session {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // An older kernel lacks some of them, and each is an improvement only.
            let _ = config.add_capabilities(flag);
        }
        // One filesystem under this one: not another stacked one.
        if self.passthrough
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok()
        {
            self.backings.allow();
        }
        // A value out of range leaves the default.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.ops.close();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.serve(|ops| match ops.lookup(ino(parent), name.as_bytes()) {
            Ok(Some(found)) => reply_entry(reply, &found),
            Ok(None) => reply.entry(&LASTING, &no_file(), GENERATION),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.serve(|ops| ops.forget(ino(number), count));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(|ops| match ops.getattr(ino(number)) {
            Ok(found) => reply.attr(&ttl(&found), &file_attr(&found.attr)),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(from_kernel),
            kill_suid_gid: false,
        };
        self.serve(|ops| match ops.setattr(caller(request), ino(number), set) {
            Ok(found) => reply.attr(&ttl(&found), &file_attr(&found.attr)),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.serve(|ops| match ops.readlink(ino(number)) {
            Ok(target) => reply.data(target.as_ref()),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.serve(|ops| {
            let node = ops.make(caller(request), ino(parent), name.as_bytes(), mode, rdev);
            reply_found(reply, node);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.serve(|ops| {
            let node = ops.mkdir(caller(request), ino(parent), name.as_bytes(), mode);
            reply_found(reply, node);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(|ops| reply_done(reply, ops.unlink(ino(parent), name.as_bytes())));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(|ops| reply_done(reply, ops.rmdir(ino(parent), name.as_bytes())));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        self.serve(|ops| {
            let node = ops.symlink(caller(request), ino(parent), name.as_bytes(), target);
            reply_found(reply, node);
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let from = (ino(parent), name.as_bytes());
        let to = (ino(new_parent), new_name.as_bytes());
        self.serve(|ops| reply_done(reply, ops.rename(from, to, flags)));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.serve(|ops| {
            reply_found(reply, ops.link(ino(number), ino(parent), name.as_bytes()));
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // Files with content show whether they are large enough.
        let direct = match flags.0 & libc::O_TRUNC {
            0 => self.backings.usable(),
            _ => self.backings.try_one(),
        };
        self.serve(
            |ops| match ops.open(caller(request), ino(number), flags.0, direct) {
                Ok((mut handle, file)) => {
                    let backing = file
                        .and_then(|file| self.backings.of(&file, |file| reply.open_backing(file)));
                    if let Some(backing) = backing {
                        let handle = FileHandle(handle.into());
                        reply.opened_passthrough(handle, OPENED_DIRECT, &backing);
                    } else {
                        ops.make_ordinary(ino(number), &mut handle);
                        reply.opened(FileHandle(handle.into()), OPENED);
                    }
                }
                Err(errno) => reply.error(code(errno)),
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        // Who insists on a new file often fills it by copying, which moves no bytes as long as
        // the kernel does not hold the file underneath.
        let direct = flags & libc::O_EXCL == 0 && self.backings.try_one();
        self.serve(|ops| {
            let name = name.as_bytes();
            match ops.create(caller(request), ino(parent), name, mode, flags, direct) {
                Ok((found, mut handle, file)) => {
                    let backing = file
                        .and_then(|file| self.backings.of(&file, |file| reply.open_backing(file)));
                    let (ttl, attr) = (ttl(&found), file_attr(&found.attr));
                    if let Some(backing) = backing {
                        let handle = FileHandle(handle.into());
                        let flags = OPENED_DIRECT;
                        reply.created_passthrough(&ttl, &attr, GENERATION, handle, flags, &backing);
                    } else {
                        ops.make_ordinary(found.attr.ino, &mut handle);
                        let handle = FileHandle(handle.into());
                        reply.created(&ttl, &attr, GENERATION, handle, OPENED);
                    }
                }
                Err(errno) => reply.error(code(errno)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(|ops| {
            ops.read(ino(number), offset, size as usize, |read| match read {
                Ok(data) => reply.data(data),
                Err(errno) => reply.error(code(errno)),
            });
        });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // A page that the kernel writes back comes from mapped memory inside the file; the flags
        // are then those of any handle of it.
        let whither = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            Whither::Inside(offset)
        } else if flags.0 & libc::O_APPEND != 0 {
            Whither::End(offset)
        } else {
            Whither::Offset(offset)
        };
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.serve(|ops| {
            let written = ops.write(ino(number), whither, data, kill);
            match (written, u32::try_from(data.len())) {
                (Ok(()), Ok(len)) => reply.written(len),
                (Ok(()), Err(_)) => reply.error(Errno::EINVAL),
                (Err(errno), _) => reply.error(code(errno)),
            }
        });
    }

    /// For kernels that do not know [`FopenFlags::FOPEN_NOFLUSH`]; they do not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(|ops| {
            if let Some(gone) = ops.release(ino(number), Handle::from(handle.0)) {
                self.backings.forget(gone);
            }
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.serve_apart(move |ops| reply_done(reply, ops.fsync(ino(number))));
    }

    /// A directory needs no handle: the kernel holds the inode while it is open, and a listing
    /// has no state. The kernel does not ask again, and saves two requests per listing.
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _: &Request,
        dir: INodeNo,
        _: FileHandle,
        position: u64,
        mut reply: ReplyDirectory,
    ) {
        self.serve(|ops| match ops.readdir(ino(dir), position, &mut reply) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        dir: INodeNo,
        _: FileHandle,
        position: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.serve(|ops| match ops.readdir(ino(dir), position, &mut reply) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.serve_apart(move |ops| reply_done(reply, ops.fsync(ino(number))));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        let blocks = |bytes: u64| bytes / u64::from(BLOCK);
        self.serve(|ops| match ops.statfs() {
            // Nodes are limited by space only, a row of the database each.
            Ok(now) => reply.statfs(
                blocks(now.total_bytes),
                blocks(now.free_bytes),
                blocks(now.available_bytes),
                now.nodes + blocks(now.available_bytes),
                blocks(now.available_bytes),
                BLOCK,
                255,
                BLOCK,
            ),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.serve(|ops| {
            let set = ops.setxattr(ino(number), name.as_bytes(), value, flags);
            reply_done(reply, set);
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        self.serve(|ops| {
            reply_xattr(reply, ops.getxattr(ino(number), name.as_bytes(), room));
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, room: u32, reply: ReplyXattr) {
        self.serve(|ops| reply_xattr(reply, ops.listxattr(ino(number), room)));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.serve(|ops| reply_done(reply, ops.removexattr(ino(number), name.as_bytes())));
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.serve(|ops| {
            let done = ops.fallocate(caller(request), ino(number), offset, len, mode);
            reply_done(reply, done);
        });
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve(|ops| match ops.lseek(ino(number), offset, whence) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (ino(from), from_offset);
        let to = (ino(to), to_offset);
        self.serve(
            |ops| match ops.copy_file_range(caller(request), from, to, len) {
                Ok(copied) => reply.written(copied),
                Err(errno) => reply.error(code(errno)),
            },
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready; the kernel does not ask again.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
