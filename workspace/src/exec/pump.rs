//! Moves bytes between a process and its log, and to its input.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::event::EventKind;
use super::process::Process;
use super::record::DATA_MAX;
use super::sys;

/// What a terminal takes for the end of its input, at the beginning of a line.
const END_OF_INPUT: &[u8] = b"\x04";

/// Reads an output to its end, and makes events of it. When the exec has
/// ended, what still comes is read and dropped.
pub(crate) async fn drain(from: OwnedFd, to: Arc<Process>, kind: fn(Bytes) -> EventKind) {
    let Ok(from) = sys::wait_for(Arc::new(from), Interest::READABLE) else {
        return;
    };
    let mut buffer = vec![0; DATA_MAX];
    loop {
        match read(&from, &mut buffer).await {
            Ok(0) => return,
            Ok(len) => {
                to.room(len).await;
                to.append(kind(Bytes::copy_from_slice(&buffer[..len])));
            }
            Err(error) => {
                // A terminal without users says so by an error.
                if Errno::from_io_error(&error) != Some(Errno::IO) {
                    tracing::warn!(%error, "reading what a process writes");
                }
                return;
            }
        }
    }
}

async fn read(from: &AsyncFd<Arc<OwnedFd>>, buffer: &mut [u8]) -> io::Result<usize> {
    let interest = Interest::READABLE;
    from.async_io(interest, |fd| Ok(rustix::io::read(fd, &mut *buffer)?))
        .await
}

/// Writes what comes to a standard input, until nothing comes any more or
/// nobody reads it.
pub(crate) async fn feed(to: OwnedFd, mut from: mpsc::Receiver<Bytes>, terminal: bool) {
    let Ok(to) = sys::wait_for(Arc::new(to), Interest::WRITABLE) else {
        return;
    };
    while let Some(bytes) = from.recv().await {
        if write_all(&to, &bytes).await.is_err() {
            return;
        }
    }
    if terminal {
        // A terminal that is gone has no input to end.
        let _ = write_all(&to, END_OF_INPUT).await;
    }
}

async fn write_all(to: &AsyncFd<Arc<OwnedFd>>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = to
            .async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
            .await?;
        bytes = &bytes[written..];
    }
    Ok(())
}
