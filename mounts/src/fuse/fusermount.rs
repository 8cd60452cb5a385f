//! Mounting without privileges, by the setuid program `fusermount3` of the fuse3 package.
//!
//! The program opens the device, mounts, and passes the device back over a socket whose number
//! stands in the environment. The socket is its standard input, so that no descriptor is ever
//! inherited by a process that another thread starts meanwhile.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::MountError;

const PROGRAMS: [&str; 2] = ["fusermount3", "fusermount"];

/// Mounts at a directory; `options` are separated by commas.
pub(crate) fn mount(at: &Path, options: &str) -> Result<OwnedFd, MountError> {
    let failed = |source| MountError::io("start fusermount3 for", at, source);
    for program in PROGRAMS {
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let spawned = Command::new(program)
            .args(["-o", options, "--"])
            .arg(at)
            .env("_FUSE_COMMFD", "0")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let device = receive(&ours);
        drop(ours);
        let output = child.wait_with_output().map_err(failed)?;
        return device.ok_or_else(|| refused(at, &output));
    }
    Err(MountError::NotPermitted(at.into()))
}

/// Unmounts a directory that this user mounted.
pub(crate) fn unmount(at: &Path, lazy: bool) -> Result<(), MountError> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        match command.arg("--").arg(at).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => return Err(refused(at, &output)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(MountError::io("start fusermount3 for", at, error)),
        }
    }
    Err(MountError::NotPermitted(at.into()))
}

fn refused(at: &Path, output: &Output) -> MountError {
    let said = String::from_utf8_lossy(&output.stderr);
    MountError::Refused {
        path: at.into(),
        reason: if said.trim().is_empty() {
            format!("fusermount3 ended with {}", output.status)
        } else {
            said.trim().into()
        },
    }
}

/// The descriptor that comes with a message of one byte.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut parts, &mut ancillary, flags)).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
