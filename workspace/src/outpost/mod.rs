//! A daemon: a replica of a workspace on the machine where its commands run.
//!
//! It mounts the replica, runs commands on it, and follows the hub of the host,
//! which dials it or which it dials. What the commands change goes to the host as
//! what anybody edits goes to a hub; nothing of it is the daemon's alone for
//! longer than there is no connection.
//!
//! | module | owns |
//! | --- | --- |
//! | `station` | what the daemon has, and what hosts ask of it |
//! | `seat` | the connection for calls of the host |
//! | `pace` | waiting for sync, for as long as it gets on |
//! | `guests` | who comes, and requests of HTTP |
//! | `dial` | a daemon that goes to its host |

mod dial;
mod guests;
mod pace;
mod seat;
mod station;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{OpenError, Options, Replica};
use cairn_mounts::fuse::{Mount, MountError, MountOptions};
use cairn_protocol::wire::Token;
use cairn_transports::{ServeError, Server};
use tokio::runtime::Runtime;

use crate::exec::{Confine, ExecError, RuntimeId};
use crate::remote::NoHubs;
use crate::sync::{Fingerprint, Identity, SyncError, Upstream, runtime};

use station::{Station, StationOptions};

/// How long what is edited has to get to the host when a daemon ends.
const LAST: Duration = Duration::from_secs(10);

/// Why a daemon does not start, or does not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Its replica cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It cannot listen, or not be in step.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// It cannot run commands.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// It would do nothing.
    #[error("the daemon neither listens nor dials; give it an address for one of the two")]
    Nowhere,
    /// The token has too many bytes.
    #[error("the token is longer than 256 bytes")]
    Token,
    /// The system refused something.
    #[error("the daemon cannot work")]
    Io(#[from] std::io::Error),
}

impl From<ServeError> for DaemonError {
    fn from(error: ServeError) -> Self {
        Self::Sync(error.into())
    }
}

/// What a daemon is to be.
#[derive(Debug)]
pub struct DaemonBuilder {
    store: Option<PathBuf>,
    mount: Option<PathBuf>,
    mount_options: MountOptions,
    listen: Option<SocketAddr>,
    identity: Option<Identity>,
    insecure: bool,
    token: String,
    dial: Option<Upstream>,
    confine: Confine,
    env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Default for DaemonBuilder {
    fn default() -> Self {
        Self {
            store: None,
            mount: None,
            mount_options: MountOptions {
                // A file that the kernel writes by itself is pushed only when the mount
                // was told that it was closed, which it is after its writer has ended.
                passthrough: false,
                ..MountOptions::default()
            },
            listen: None,
            identity: None,
            insecure: false,
            token: String::new(),
            dial: None,
            confine: Confine::default(),
            env: Vec::new(),
        }
    }
}

impl DaemonBuilder {
    /// Keeps its replica, and the logs of execs, in this directory. Default: in
    /// memory.
    #[must_use]
    pub fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.store = Some(directory.into());
        self
    }

    /// Mounts the replica here: an empty directory, or a new one. Default: nowhere,
    /// and then commands need a working directory of the machine's own.
    #[must_use]
    pub fn mount(mut self, at: impl Into<PathBuf>) -> Self {
        self.mount = Some(at.into());
        self
    }

    /// How it is mounted. Default: without passthrough, with which what a command
    /// wrote may not be with the host when its end is told.
    #[must_use]
    pub fn mount_options(mut self, options: MountOptions) -> Self {
        self.mount_options = options;
        self
    }

    /// Listens there, on UDP and TCP. Port 0 is any that is free on both.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Has a certificate: there is QUIC, and `wss://`.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Listens on any address without certificate or token.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Takes only hosts that show this token, and shows it to the host it dials.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Dials a host that cannot reach it. The workspace in the address is only a
    /// name.
    #[must_use]
    pub fn dial(mut self, host: Upstream) -> Self {
        self.dial = Some(host);
        self
    }

    /// How commands are confined. Default: as [`Confine`] is.
    #[must_use]
    pub fn confine(mut self, confine: Confine) -> Self {
        self.confine = confine;
        self
    }

    /// A variable for all commands.
    #[must_use]
    pub fn env(
        mut self,
        name: impl Into<std::ffi::OsString>,
        value: impl Into<std::ffi::OsString>,
    ) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it. It blocks for a moment.
    ///
    /// # Errors
    ///
    /// [`DaemonError`]; then nothing is left of it.
    pub fn start(self) -> Result<Daemon, DaemonError> {
        if self.listen.is_none() && self.dial.is_none() {
            return Err(DaemonError::Nowhere);
        }
        let token = Token::new(self.token.as_bytes()).ok_or(DaemonError::Token)?;
        let replica = match &self.store {
            Some(directory) => Replica::open(directory, Options::default())?,
            None => Replica::in_memory()?,
        };
        let mount = match &self.mount {
            Some(at) => Some(Mount::new(replica.clone(), at, self.mount_options.clone())?),
            None => None,
        };
        let runtime = runtime()?;
        let options = StationOptions {
            replica,
            mount: mount.as_ref().map(|mount| mount.path().to_path_buf()),
            logs: self.store.as_deref().map(logs_of),
            token,
            confine: self.confine,
            env: self.env,
        };
        let station = {
            let _inside = runtime.enter();
            Arc::new(Station::start(options)?)
        };
        let server = serve(
            &runtime,
            &station,
            self.listen,
            self.identity,
            self.insecure,
        )?;
        if let Some(host) = &self.dial {
            let _inside = runtime.enter();
            dial::start(&station, host)?;
        }
        Ok(Daemon {
            server,
            station: Some(station),
            mount,
            runtime: Some(runtime),
        })
    }
}

/// Listens for hosts, if it is to.
fn serve(
    runtime: &Runtime,
    station: &Arc<Station>,
    listen: Option<SocketAddr>,
    identity: Option<Identity>,
    insecure: bool,
) -> Result<Option<Server>, DaemonError> {
    let Some(address) = listen else {
        return Ok(None);
    };
    let mut server = Server::builder()
        .listen(address)
        .insecure(insecure)
        .guests(Arc::new(guests::Door::new(station)));
    if let Some(identity) = identity {
        server = server.identity(identity);
    }
    let started = runtime.block_on(server.start(Arc::new(NoHubs)))?;
    Ok(Some(started))
}

/// Where the logs of execs are.
fn logs_of(store: &Path) -> PathBuf {
    if store.is_dir() {
        return store.join("exec");
    }
    let mut name = store.as_os_str().to_owned();
    name.push("-exec");
    name.into()
}

/// A daemon that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct Daemon {
    server: Option<Server>,
    station: Option<Arc<Station>>,
    mount: Option<Mount>,
    runtime: Option<Runtime>,
}

impl Daemon {
    /// What a daemon is to be.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// Where it listens, on UDP and TCP, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// What hosts know it by, if it has a certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.server.as_ref().and_then(Server::fingerprint)
    }

    /// Its addresses, the best first.
    pub fn urls(&self) -> Vec<String> {
        let Some(address) = self.address() else {
            return Vec::new();
        };
        let schemes: &[&str] = match self.fingerprint() {
            Some(_) => &["quic", "wss"],
            None => &["ws"],
        };
        let url = |scheme: &&str| format!("{scheme}://{address}");
        schemes.iter().map(url).collect()
    }

    /// The identity of what runs its execs.
    pub fn runtime(&self) -> Option<&RuntimeId> {
        self.station.as_ref().map(|station| station.runtime().id())
    }

    /// Ends what runs, brings what was edited to the host if it is there, unmounts,
    /// and makes everything durable. It blocks.
    ///
    /// # Errors
    ///
    /// The first that occurs; the rest is ended all the same.
    pub fn shutdown(mut self) -> Result<(), DaemonError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), DaemonError> {
        let (Some(runtime), Some(station)) = (self.runtime.take(), self.station.take()) else {
            return Ok(());
        };
        let server = self.server.take();
        runtime.block_on(async {
            station.close_execs().await;
            station.last_words(LAST).await;
            station.close().await;
            if let Some(server) = server {
                server.shutdown().await;
            }
        });
        let unmounted = self.mount.take().map_or(Ok(()), Mount::unmount);
        let synced = station.replica().sync();
        drop(station);
        runtime.shutdown_timeout(LAST);
        unmounted?;
        synced.map_err(|error| DaemonError::Sync(error.into()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a daemon did not end in order");
        }
    }
}
