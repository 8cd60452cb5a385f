//! Trees in directories of this machine.
//!
//! Each directory is opened from the top on, name by name and never through a
//! symbolic link, and only one at a time: a tree may be deeper than a path may
//! be long, or than a process may have files open.

mod read;
mod write;
mod xattr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{self, Errno};

pub(crate) use read::{Skip, measure, read};
pub(crate) use write::Writer;

use super::names;

/// Opens a directory below another.
fn open_below(top: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let mut at = top
        .try_clone()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
    for name in names(path) {
        at = open_dir(&at, name)?;
    }
    Ok(at)
}

fn open_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, how, Mode::empty())
}
