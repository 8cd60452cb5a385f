//! Real processes on another machine, in a container or a virtual machine, where
//! `cairn daemon` has a replica of the workspace.
//!
//! The workspace is the hub of that replica. Around each command is a *bracket*:
//! what was edited here is there before the command starts, and what it changed is
//! here before its end is told. Changes flow all the time, so there is mostly
//! nothing to wait for: the bracket is a fence in what flows, and nobody polls.
//!
//! | module | owns |
//! | --- | --- |
//! | this | the description, and the connection |
//! | `bracket` | push, start, pull, and what is pending |
//! | `brackets` | the notes of what is pending |
//! | `execution` | an exec there, as callers here see it |
//! | `closing` | what becomes of execs when the workspace is closed |

mod bracket;
mod brackets;
mod closing;
mod execution;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::Token;
use cairn_transports::{Dialler, SILENCE, Server};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Backend, BackendError, Connection, Host};
use crate::exec::{Boxed, Command, ExecError, ExecId, ExecOptions, Execution, RuntimeId};
use crate::remote::{Link, Lobby, Source};
use crate::sync::{Address, AddressError, Fingerprint, Identity, SyncError, Upstream, Verify};
use crate::waiting::elsewhere;

use bracket::{Bracket, Owners};
use brackets::Brackets;

pub use crate::remote::LinkError;
pub use closing::{AtClose, NotEnded};

/// The name of the workspace in addresses of daemons, where none is given.
const WORKSPACE: &str = "workspace";

/// Runs processes where a daemon is: `cairn daemon --listen …`.
///
/// # Examples
///
/// ```no_run
/// use cairn::{Workspace, backend::Sandbox};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # cairn::block_on(async {
/// // In the container: cairn daemon --mount /workspace --token-file token
/// let sandbox = Sandbox::at("quic://10.0.0.7:7420")?.token("secret");
/// let workspace = Workspace::builder().backend("box", sandbox).create("demo.cairn").await?;
/// workspace.fs().blocking().write_file("/main.c", b"int main() { return 0; }")?;
/// let output = workspace.run("cc main.c -o main").await?;
/// assert!(output.exit.is_success());
/// assert!(workspace.fs().blocking().stat("/main")?.size > 0); // it is here
/// # workspace.close().await?;
/// # Ok(()) })
/// # }
/// ```
#[derive(Debug)]
pub struct Sandbox {
    place: Place,
    token: String,
    patience: Duration,
    silence: Duration,
    at_close: AtClose,
    owners: Arc<Owners>,
    /// Loaded at the first use, and there for all connections.
    brackets: Mutex<Option<Arc<Brackets>>>,
}

/// Where the daemon is.
#[derive(Debug)]
enum Place {
    /// There.
    At(Upstream),
    /// It comes to this address.
    Comes {
        listen: SocketAddr,
        identity: Mutex<Option<Identity>>,
        insecure: bool,
        /// It is open for as long as the backend is there, so that the daemon
        /// finds it.
        lobby: tokio::sync::Mutex<Option<Arc<Lobby>>>,
    },
}

impl Sandbox {
    /// The daemon at `quic://HOST:PORT`, `ws://` or `wss://`. It is known by the
    /// certificate that it has when it is first met.
    ///
    /// # Errors
    ///
    /// [`AddressError`].
    pub fn at(url: &str) -> Result<Self, AddressError> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let address: Address = if rest.contains('/') {
            url.parse()?
        } else {
            format!("{url}/{WORKSPACE}").parse()?
        };
        Ok(Self::with(Place::At(Upstream::new(&address))))
    }

    /// A daemon that dials (`cairn daemon --dial`): the host listens there, on UDP and
    /// TCP, from the first use on.
    pub fn listen(address: SocketAddr) -> Self {
        Self::with(Place::Comes {
            listen: address,
            identity: Mutex::new(None),
            insecure: false,
            lobby: tokio::sync::Mutex::new(None),
        })
    }

    fn with(place: Place) -> Self {
        Self {
            place,
            token: String::new(),
            patience: Duration::from_secs(20),
            silence: SILENCE,
            at_close: AtClose::default(),
            owners: Arc::default(),
            brackets: Mutex::new(None),
        }
    }

    /// The token that the daemon was started with.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Takes only the daemon whose certificate has this fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        if let Place::At(daemon) = self.place {
            self.place = Place::At(daemon.fingerprint(fingerprint));
        }
        self
    }

    /// How to know that the daemon is the right one.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        if let Place::At(daemon) = self.place {
            self.place = Place::At(daemon.verify(verify));
        }
        self
    }

    /// What this host shows a daemon that dials: there is QUIC, and `wss://`.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        if let Place::Comes { identity: slot, .. } = &self.place {
            *slot.lock() = Some(identity);
        }
        self
    }

    /// Listens on any address without certificate or token.
    #[must_use]
    pub fn insecure(mut self, allow: bool) -> Self {
        if let Place::Comes { insecure, .. } = &mut self.place {
            *insecure = allow;
        }
        self
    }

    /// How long a connection that is not there is waited for: when a command is to
    /// be started, and when it breaks in the middle. Default: 20 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long the daemon may be silent before its connections are given up, and
    /// made again: those of calls and of sync, over QUIC and WebSocket alike. A
    /// daemon gives up a silent host after 15 s. Default: 15 s, range 100 ms to 1 h.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// What becomes of the commands that run when the workspace is closed. Default:
    /// they run on. What is dropped without being closed leaves them running in any
    /// case.
    #[must_use]
    pub fn at_close(mut self, at_close: AtClose) -> Self {
        self.at_close = at_close;
        self
    }

    async fn brackets(
        &self,
        directory: Option<std::path::PathBuf>,
    ) -> Result<Arc<Brackets>, BackendError> {
        if let Some(brackets) = &*self.brackets.lock() {
            return Ok(Arc::clone(brackets));
        }
        let loaded = elsewhere(move || Brackets::load(directory.as_deref())).await??;
        Ok(Arc::clone(self.brackets.lock().insert(Arc::new(loaded))))
    }

    async fn source(&self, host: &Host, workspace: u64) -> Result<Source, BackendError> {
        let token =
            Token::new(self.token.as_bytes()).ok_or("the token is longer than 256 bytes")?;
        let (listen, identity, insecure, lobby) = match &self.place {
            Place::At(daemon) => {
                let trust = daemon.trust(&host.replica)?;
                let dialler = Dialler::new(daemon.parsed()?, trust).map_err(SyncError::from)?;
                let dialler = dialler.silence(self.silence);
                return Ok(Source::Dial {
                    dialler,
                    address: daemon.address().to_owned(),
                    token,
                });
            }
            Place::Comes {
                listen,
                identity,
                insecure,
                lobby,
            } => (listen, identity, insecure, lobby),
        };
        let mut lobby = lobby.lock().await;
        if let Some(lobby) = &*lobby {
            return Ok(Source::Listen(Arc::clone(lobby)));
        }
        let identity = identity.lock().take();
        let server = Server::builder()
            .listen(*listen)
            .insecure(*insecure)
            .silence(self.silence);
        let opened = Lobby::open(server, identity, token, workspace).await?;
        let opened = Arc::new(opened);
        *lobby = Some(Arc::clone(&opened));
        Ok(Source::Listen(opened))
    }
}

impl Backend for Sandbox {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn connect(&self, host: Host) -> Boxed<'_, Result<Arc<dyn Connection>, BackendError>> {
        Box::pin(async move {
            let own = Arc::clone(&host.hub);
            let hub = elsewhere(move || own.get()).await??;
            let handle = hub.handle().clone();
            let source = {
                let inside = handle.enter();
                let source = self.source(&host, hub.workspace());
                drop(inside);
                Inside {
                    handle: handle.clone(),
                    future: Box::pin(source),
                }
                .await?
            };
            let brackets = self.brackets(host.directory).await?;
            let (patience, silence) = (self.patience, self.silence);
            let owners = Arc::clone(&self.owners);
            let connected = handle.spawn(async move {
                let link = Link::start(hub, source, patience, silence);
                match link.patiently().await {
                    Ok(caller) => Ok(Bracket::new(link, caller.card.clone(), brackets, owners)),
                    Err(error) => {
                        link.close().await;
                        Err(error)
                    }
                }
            });
            let bracket = connected.await??;
            bracket.take_up(&handle);
            Ok(Arc::new(SandboxConnection {
                bracket,
                handle,
                at_close: self.at_close,
            }) as Arc<dyn Connection>)
        })
    }
}

/// A future that needs a tokio runtime, for callers that have none.
struct Inside<'a, T> {
    handle: Handle,
    future: Boxed<'a, T>,
}

impl<T> Future for Inside<'_, T> {
    type Output = T;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<T> {
        let handle = self.handle.clone();
        let _inside = handle.enter();
        self.future.as_mut().poll(context)
    }
}

/// A sandbox that is connected.
#[derive(Debug)]
struct SandboxConnection {
    bracket: Arc<Bracket>,
    handle: Handle,
    at_close: AtClose,
}

impl Drop for SandboxConnection {
    fn drop(&mut self) {
        // Execs that callers hold, and pulls that are tried again, do not keep it up.
        let bracket = Arc::clone(&self.bracket);
        self.handle.spawn(async move { bracket.close().await });
    }
}

/// What a task of the workspace's runtime gives, or that it is no more.
async fn of_task<T, E>(
    task: tokio::task::JoinHandle<Result<T, E>>,
    closed: impl FnOnce() -> E,
) -> Result<T, E> {
    task.await.unwrap_or_else(|_| Err(closed()))
}

impl SandboxConnection {
    fn ask<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, ExecError>> + Send + 'static,
    ) -> Boxed<'_, Result<T, ExecError>> {
        Box::pin(of_task(self.handle.spawn(future), || ExecError::Closed))
    }
}

impl Connection for SandboxConnection {
    fn runtime(&self) -> &RuntimeId {
        self.bracket.runtime()
    }

    fn exec(
        &self,
        command: Command,
        options: ExecOptions,
    ) -> Boxed<'_, Result<Arc<dyn Execution>, ExecError>> {
        let bracket = Arc::clone(&self.bracket);
        let handle = self.handle.clone();
        self.ask(async move { bracket.exec(handle, command, options).await })
    }

    fn get<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<Arc<dyn Execution>, ExecError>> {
        let (bracket, id, handle) = (Arc::clone(&self.bracket), id.clone(), self.handle.clone());
        self.ask(async move { bracket.find(handle, id).await })
    }

    fn dispose<'a>(&'a self, id: &'a ExecId) -> Boxed<'a, Result<(), ExecError>> {
        let (bracket, id) = (Arc::clone(&self.bracket), id.clone());
        self.ask(async move { bracket.dispose(&id).await })
    }

    fn push(&self) -> Boxed<'_, Result<(), BackendError>> {
        let bracket = Arc::clone(&self.bracket);
        let task = self.handle.spawn(async move { bracket.push().await });
        Box::pin(async move {
            of_task(task, || ExecError::Closed)
                .await
                .map_err(Into::into)
        })
    }

    fn pull(&self) -> Boxed<'_, Result<(), BackendError>> {
        let bracket = Arc::clone(&self.bracket);
        let task = self.handle.spawn(async move { bracket.pull_all().await });
        Box::pin(async move {
            of_task(task, || ExecError::Closed)
                .await
                .map_err(Into::into)
        })
    }

    fn pending(&self) -> Vec<ExecId> {
        self.bracket.pending()
    }

    fn is_lost(&self) -> bool {
        self.bracket.is_lost()
    }

    fn close(&self) -> Boxed<'_, Result<Vec<ExecId>, BackendError>> {
        let (bracket, handle) = (Arc::clone(&self.bracket), self.handle.clone());
        let at_close = self.at_close;
        let task = self.handle.spawn(async move {
            let running = bracket.begin_to_close().await;
            let done = match at_close {
                AtClose::RunOn => Ok(running),
                AtClose::End { grace } => closing::end_all(&bracket, &handle, grace)
                    .await
                    .map(|()| Vec::new()),
            };
            bracket.close().await;
            done
        });
        Box::pin(async move { Ok(task.await??) })
    }
}
