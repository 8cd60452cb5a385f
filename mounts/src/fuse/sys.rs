//! The calls into the kernel for which no safe wrapper exists. All `unsafe` of the crate is here.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block carries its proof"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)` in `linux/fuse.h`.
const DEV_CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// `FUSE_MINOR` in `linux/miscdevice.h`, with the major number of miscellaneous devices.
const DEVICE: (u32, u32) = (10, 229);

/// Opens `/dev/fuse`.
///
/// # Errors
///
/// ENXIO when it is something else: containers bind another device over those they hide.
pub(crate) fn open_device() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
    let found = rustix::fs::fstat(&device)?;
    let number = (
        rustix::fs::major(found.st_rdev),
        rustix::fs::minor(found.st_rdev),
    );
    if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && number == DEVICE {
        Ok(device)
    } else {
        Err(Errno::NXIO)
    }
}

/// Opens a second device on the connection of `session`.
///
/// Requests read from one device are ended by the kernel when that device is closed, whether or
/// not the other stays open.
pub(crate) fn clone_device(session: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let device = open_device()?;
    let source = session.as_raw_fd().unsigned_abs();
    // SAFETY: the request reads one `uint32_t`, the number of an open FUSE device, which `source`
    // is: `session` is borrowed for the length of the call. Nothing is written to memory.
    unsafe { ioctl(&device, Setter::<DEV_CLONE, u32>::new(source))? };
    Ok(device)
}

/// Gives the calling thread a descriptor table of its own that holds only `keep`.
///
/// From then on the thread must use no other descriptor, nor close one: the numbers mean nothing
/// in its table.
pub(crate) fn keep_only(keep: BorrowedFd<'_>) -> io::Result<()> {
    let keep = keep.as_raw_fd().unsigned_abs();
    let close = |first: u32, last: u32, flags: u32| {
        // SAFETY: with CLOSE_RANGE_UNSHARE the kernel copies the descriptor table for this thread
        // before it closes anything, so no descriptor that other code owns is closed. The second
        // call comes only after the first one succeeded, and works on the copy.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    close(keep + 1, u32::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    match keep.checked_sub(1) {
        Some(last) => close(0, last, 0),
        None => Ok(()),
    }
}

/// `struct file_handle` of `open_by_handle_at(2)`, with what FUSE puts into it
/// (`fuse_encode_fh`): the upper and lower half of the inode number, and the generation.
#[repr(C)]
struct InodeHandle {
    bytes: u32,
    kind: i32,
    words: [u32; 3],
}

/// `FILEID_INO64_GEN` in `linux/exportfs.h`.
const INO64_GEN: i32 = 0x81;

/// Refers to an inode that the kernel knows, by its number, on the FUSE filesystem of `mount`.
/// Only root may.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the number goes in two halves"
)]
pub(crate) fn inode(mount: BorrowedFd<'_>, ino: u64) -> io::Result<OwnedFd> {
    let handle = InodeHandle {
        bytes: 12,
        kind: INO64_GEN,
        words: [(ino >> 32) as u32, ino as u32, 0],
    };
    let number = mount.as_raw_fd();
    let handle = &raw const handle;
    // SAFETY: the kernel reads a header and the 12 bytes that it announces, which is all of
    // `handle`; it writes no memory.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            number,
            handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    match i32::try_from(opened) {
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows of it.
        Ok(opened @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(opened) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts the calling thread under `SCHED_IDLE`: it runs only where nothing else wants to.
pub(crate) fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to an initialised `sched_param` that outlives the call; pid 0 is the
    // calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
