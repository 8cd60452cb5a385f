//! The answering side: serves other processes while this one owns the replica.
//!
//! At most [`CONNECTIONS_MAX`] at a time, each with a thread of its own. Only
//! root and the user of this process are served.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::console::{Console, Progress};
use crate::failure::{Failure, Result};
use crate::host::Host;

use super::address;
use super::wire::{Answer, Asked, BODY_MAX, Failed, VERSION};

/// Connections served at a time; one more is refused.
const CONNECTIONS_MAX: usize = 64;
/// A peer that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long running commands may take to notice that the owner ends.
const GRACE: Duration = Duration::from_secs(5);

/// A server of the control socket.
#[derive(Debug)]
pub(crate) struct Server {
    socket: PathBuf,
    replica: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: Mutex<Connections>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    running: Vec<(u64, UnixStream)>,
    watching: Vec<UnixStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Nothing is left half done in it.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of those who wait for the end of this process: dropped when
/// the replica is closed.
#[derive(Debug)]
#[must_use]
pub(crate) struct Watchers(
    #[expect(dead_code, reason = "dropping them is the message")] Vec<UnixStream>,
);

impl Server {
    /// Listens in the directory of the replica, which this process owns.
    pub(crate) fn start(replica: &Path, host: Host) -> io::Result<Self> {
        let listener = address::listen(replica)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("cairn-control".into())
            .spawn(move || accept(&listener, &host, &theirs))?;
        Ok(Self {
            socket: address::path(replica),
            replica: replica.into(),
            shared,
            thread: Some(thread),
        })
    }

    /// Serves no more. Commands that run are told, and given a moment to end.
    pub(crate) fn stop(mut self) -> Watchers {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(address::connect(&self.replica));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
        let connections = self.shared.lock();
        for (_, stream) in &connections.running {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let ended = self
            .shared
            .fewer
            .wait_timeout_while(connections, GRACE, |c| !c.running.is_empty());
        let (mut connections, timeout) = ended.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            tracing::warn!("a command of another process still runs; it is ended");
        }
        Watchers(std::mem::take(&mut connections.watching))
    }
}

fn accept(listener: &UnixListener, host: &Host, shared: &Arc<Shared>) {
    loop {
        let stream = listener.accept();
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let served = stream.and_then(|(stream, _)| serve(stream, host, shared));
        if let Err(error) = served {
            tracing::warn!(%error, "a control connection could not be served");
            // Out of descriptors or threads: the next try would fail at once.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Starts a thread for a connection, if it is permitted.
fn serve(mut stream: UnixStream, host: &Host, shared: &Arc<Shared>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Ok(());
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    let id = {
        let mut connections = shared.lock();
        if connections.running.len() >= CONNECTIONS_MAX {
            let message =
                "the process that owns the replica serves too many commands; repeat it later"
                    .into();
            return Answer::Failed(Failed { code: 5, message }).send(&mut stream);
        }
        connections.next += 1;
        let id = connections.next;
        connections.running.push((id, stream.try_clone()?));
        id
    };
    let (host, theirs) = (host.clone(), Arc::clone(shared));
    let spawned = std::thread::Builder::new()
        .name("cairn-command".into())
        .spawn(move || {
            if let Err(error) = converse(stream, &host, &theirs) {
                tracing::debug!(%error, "a control connection broke");
            }
            drop(host);
            done(&theirs, id);
        });
    if spawned.is_err() {
        done(shared, id);
    }
    spawned.map(drop)
}

fn done(shared: &Shared, id: u64) {
    shared.lock().running.retain(|(other, _)| *other != id);
    shared.fewer.notify_all();
}

fn converse(mut stream: UnixStream, host: &Host, shared: &Shared) -> io::Result<()> {
    let Some(Asked::Hello(hello)) = Asked::receive(&mut stream)? else {
        return Ok(());
    };
    if hello.version != VERSION {
        let message = format!(
            "the process {} that owns the replica runs another version of cairn; end it, or use its version",
            std::process::id(),
        );
        return Answer::Failed(Failed { code: 5, message }).send(&mut stream);
    }
    Answer::Ready.send(&mut stream)?;
    match Asked::receive(&mut stream)? {
        Some(Asked::Request(request)) => {
            let mut console = Remote { stream };
            let end = match request.run(host, &mut console) {
                Ok(outcome) => Answer::Done(outcome.code()),
                Err(failure) => Answer::Failed(Failed {
                    code: failure.code(),
                    message: failure.report(),
                }),
            };
            end.send(&mut console.stream)
        }
        #[cfg(feature = "mcp")]
        Some(Asked::Mcp(request)) => crate::commands::mcp::serve_other(&request, host, stream),
        Some(Asked::Watch) => {
            shared.lock().watching.push(stream);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The console of a command that another process asked for.
struct Remote {
    stream: UnixStream,
}

impl Remote {
    fn send(&mut self, answer: &Answer) -> Result<()> {
        // It went away, or was killed: the command ends here too.
        answer
            .send(&mut self.stream)
            .map_err(|_| Failure::OutputClosed)
    }
}

impl Console for Remote {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(BODY_MAX) {
            self.send(&Answer::Out(part.to_vec()))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.send(&Answer::Flush)?;
        self.stream.flush().map_err(|_| Failure::OutputClosed)
    }

    fn error(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(BODY_MAX) {
            self.send(&Answer::Error(part.to_vec()))?;
        }
        Ok(())
    }

    fn note(&mut self, line: &str) -> Result<()> {
        self.send(&Answer::Note(line.into()))
    }

    fn progress(&mut self, at: &Progress) -> Result<()> {
        self.send(&Answer::Progress(at.clone()))
    }

    fn input(&mut self, buf: &mut [u8]) -> Result<usize> {
        let most = u32::try_from(buf.len().min(BODY_MAX)).unwrap_or(u32::MAX);
        self.send(&Answer::WantInput(most))?;
        self.stream.flush().map_err(|_| Failure::OutputClosed)?;
        match Asked::receive(&mut self.stream) {
            Ok(Some(Asked::Input(bytes))) if bytes.len() <= buf.len() => {
                buf[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Ok(Some(Asked::InputFailed(why))) => Err(Failure::Refused(why)),
            _ => Err(Failure::OutputClosed),
        }
    }
}
