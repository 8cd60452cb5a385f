//! The calls into the kernel for which no safe wrapper exists. All `unsafe` of the crate is here.
#![allow(
    unsafe_code,
    reason = "three system calls without a safe wrapper; each block carries its proof"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Setter, ioctl, opcode};

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)` in `linux/fuse.h`.
const DEV_CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// Opens `/dev/fuse`.
pub(crate) fn open_device() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
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
