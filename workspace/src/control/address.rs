//! Where the socket is, also when its path is too long for the kernel.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use cairn::Replica;

/// Name of the socket in the replica's working directory.
const NAME: &str = "control.sock";
/// Longest path of a socket, without the NUL: `sizeof(sockaddr_un.sun_path) - 1`.
const PATH_MAX: usize = 107;

/// The path of the socket.
pub(crate) fn path(replica: &Path) -> PathBuf {
    Replica::working_dir(replica).join(NAME)
}

/// Calls `f` with a path to the socket that is short enough.
fn with_short<T>(replica: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = path(replica);
    if path.as_os_str().as_bytes().len() <= PATH_MAX {
        return f(&path);
    }
    let dir = File::open(Replica::working_dir(replica))?;
    f(&Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(NAME))
}

/// Connects to the owner of a replica.
pub(crate) fn connect(replica: &Path) -> io::Result<UnixStream> {
    with_short(replica, |path| UnixStream::connect(path))
}

/// Makes the socket. Only for the owner: it removes what an earlier one left.
pub(crate) fn listen(replica: &Path) -> io::Result<UnixListener> {
    let path = path(replica);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = with_short(replica, |path| UnixListener::bind(path))?;
    // Until here the peer's credentials alone protect it, see `server`.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let replica = dir.path().join("x".repeat(200));
        std::fs::create_dir(&replica).unwrap();
        let listener = listen(&replica).unwrap();
        connect(&replica).unwrap();
        listener.accept().unwrap();
        // A socket that nobody serves any more is replaced.
        drop(listener);
        assert!(connect(&replica).is_err());
        let _listener = listen(&replica).unwrap();
        connect(&replica).unwrap();
    }
}
