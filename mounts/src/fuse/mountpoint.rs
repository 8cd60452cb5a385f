//! The directory at which a replica is mounted: is it fit, and what is left there of an earlier
//! mount whose server has died.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::MountError;
use super::table::{Mounted, mounted_at};
use super::{fusermount, holders};

/// A server that has not answered for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(3);
/// A user that is about to go, such as a process that ends, is waited for: so often, so long.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Links in a path, as the kernel counts them.
const MAX_LINKS: usize = 40;

/// The type under which mounts of this program appear in the table of mounts.
pub(crate) const KIND: &str = "fuse.cairn";

/// A directory that is fit to be mounted on.
#[derive(Debug)]
pub(crate) struct MountPoint {
    /// Absolute, without symbolic links.
    pub(crate) path: PathBuf,
    /// It was made for this mount.
    pub(crate) made: bool,
}

/// Checks a mount point, removes a dead mount from it, and makes the directory if only its last
/// component is missing.
pub(crate) fn prepare(at: &Path, replica: Option<&Path>) -> Result<MountPoint, MountError> {
    let path = resolve(at)?;
    while let Some(mounted) = table(&path)? {
        clear(&path, &mounted)?;
    }
    let made = make(&path)?;
    check(&path, replica).inspect_err(|_| {
        if made {
            // It is empty and nobody else knows of it.
            let _ = fs::remove_dir(&path);
        }
    })?;
    Ok(MountPoint { path, made })
}

/// Unmounts what is mounted at a path. With `lazy`, at once, even from under processes that use
/// it; they keep what they have open.
///
/// # Errors
///
/// [`MountError::Busy`] when processes use it and `lazy` is not set, [`MountError::NotMounted`]
/// when nothing is mounted there, and errors of the system.
pub fn unmount(at: &Path, lazy: bool) -> Result<(), MountError> {
    let path = resolve(at)?;
    if table(&path)?.is_none() {
        return Err(MountError::NotMounted(path));
    }
    detach(&path, lazy)
}

/// Unmounts a path that is free of symbolic links.
pub(crate) fn detach(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    };
    let unmount = || rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW);
    let mut unmounted = unmount();
    for _ in 0..BUSY_TRIES {
        if unmounted != Err(Errno::BUSY) {
            break;
        }
        std::thread::sleep(BUSY_PAUSE);
        unmounted = unmount();
    }
    match unmounted {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy {
            path: path.into(),
            users: holders::of(path),
        }),
        Err(Errno::INVAL) => Err(MountError::NotMounted(path.into())),
        Err(Errno::PERM) => fusermount::unmount(path, lazy),
        Err(errno) => Err(MountError::io("unmount", path, errno)),
    }
}

fn table(path: &Path) -> Result<Option<Mounted>, MountError> {
    mounted_at(path).map_err(|source| MountError::io("read the table of mounts for", path, source))
}

/// The absolute path without symbolic links, found without touching what is mounted at its end.
fn resolve(at: &Path) -> Result<PathBuf, MountError> {
    let mut path = std::path::absolute(at)
        .map_err(|source| MountError::io("find the mount point", at, source))?;
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(Component::Normal(name))) =
            (path.parent(), path.components().next_back())
        else {
            return path
                .canonicalize()
                .map_err(|source| MountError::io("find the mount point", at, source));
        };
        let parent = parent
            .canonicalize()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => MountError::Missing(path.clone()),
                io::ErrorKind::NotADirectory => MountError::NotDirectory(path.clone()),
                _ => MountError::io("find the mount point", at, source),
            })?;
        path = parent.join(name);
        if table(&path)?.is_some() {
            return Ok(path);
        }
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(MountError::io("find the mount point", at, Errno::LOOP))
}

/// Removes a mount whose server is gone. A live one is an error.
fn clear(path: &Path, mounted: &Mounted) -> Result<(), MountError> {
    let filesystem = mounted.describe();
    let path = path.to_path_buf();
    if !mounted.is_fuse() {
        return Err(MountError::AlreadyMounted { path, filesystem });
    }
    match probe(&path) {
        State::Alive => Err(MountError::AlreadyMounted { path, filesystem }),
        State::Dead => {
            tracing::info!(path = %path.display(), "removing a mount whose server is gone");
            detach(&path, true)
        }
        State::Silent if mounted.kind == KIND && holders::dying_server() => {
            // The server was killed while one of its threads waited in the kernel for a request
            // of its own mount. Ending the connection sets both free; see `super::invalidate`.
            tracing::warn!(path = %path.display(), "ending a mount whose server was killed");
            match rustix::mount::unmount(&path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
                Ok(()) => Ok(()),
                Err(_) => detach(&path, true),
            }
        }
        State::Silent => Err(MountError::Unresponsive { path, filesystem }),
    }
}

enum State {
    Alive,
    Dead,
    Silent,
}

/// Asks the server for something small, from a thread that can be left behind.
fn probe(path: &Path) -> State {
    let (answer, answered) = mpsc::channel();
    let path = path.to_path_buf();
    let started = std::thread::Builder::new()
        .name("cairn-probe".into())
        .spawn(move || answer.send(rustix::fs::statfs(&path).map(drop)));
    if started.is_err() {
        return State::Silent;
    }
    match answered.recv_timeout(PATIENCE) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => State::Dead,
        Ok(_) => State::Alive,
        Err(_) => State::Silent,
    }
}

/// Makes the directory if it is missing. True when it was made.
fn make(path: &Path) -> Result<bool, MountError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(MountError::io("create the mount point", path, error)),
    }
}

fn check(path: &Path, replica: Option<&Path>) -> Result<(), MountError> {
    let path_buf = || path.to_path_buf();
    if let Some(replica) = replica.and_then(|replica| replica.canonicalize().ok()) {
        if path.starts_with(&replica) {
            let path = path_buf();
            return Err(MountError::InsideReplica { path, replica });
        }
        if replica.starts_with(path) {
            let path = path_buf();
            return Err(MountError::ContainsReplica { path, replica });
        }
    }
    let mut entries = fs::read_dir(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory => MountError::NotDirectory(path_buf()),
        _ => MountError::io("look into the mount point", path, source),
    })?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(MountError::NotEmpty(path_buf())),
    }
}
