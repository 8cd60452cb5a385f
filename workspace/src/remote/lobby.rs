//! A host that waits for its daemon to dial, where the host cannot reach it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::{Text, Token};
use cairn_transports::tls::Identity;
use cairn_transports::{Answering, Asked, Channel, Guests, Server, ServerBuilder, Workspaces};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fault::{Code, Fault};
use super::greeting::{Card, Purpose, Role, receive, refuse, welcome};
use super::link::{AGENT, LinkError};
use crate::sync::SyncError;

/// Where daemons come to.
#[derive(Debug)]
pub(crate) struct Lobby {
    address: SocketAddr,
    waiting: Arc<Waiting>,
    /// It listens for as long as this is there.
    _server: Server,
}

/// Those that have come and were not taken: the newest of each purpose.
#[derive(Debug)]
struct Waiting {
    workspace: u64,
    token: Token,
    sync: Mutex<Option<(Channel, Card)>>,
    exec: Mutex<Option<(Channel, Card)>>,
    came: watch::Sender<u64>,
}

impl Waiting {
    fn slot(&self, purpose: Purpose) -> &Mutex<Option<(Channel, Card)>> {
        match purpose {
            Purpose::Sync => &self.sync,
            Purpose::Exec => &self.exec,
        }
    }

    /// A daemon that has another workspace is of no use here.
    fn check_workspace(&self, bound: u64) -> Result<(), Fault> {
        if bound == 0 || bound == self.workspace {
            return Ok(());
        }
        let detail = format!(
            "the daemon has the workspace {bound:016x}, and this is the workspace {:016x}: start \
             another daemon for this one",
            self.workspace
        );
        Err(Fault::new(Code::WORKSPACE, &detail))
    }

    async fn greeted(&self, mut channel: Channel) -> Result<(), Fault> {
        let greeting = receive(&mut channel).await?;
        let checked = greeting
            .check(Role::Daemon, &self.token)
            .and_then(|()| self.check_workspace(greeting.card.workspace));
        if let Err(fault) = checked {
            refuse(&channel, &fault);
            return Err(fault);
        }
        let card = Card {
            workspace: self.workspace,
            agent: Text::cut(AGENT),
            ..Card::default()
        };
        welcome(&mut channel, card)?;
        *self.slot(greeting.purpose).lock() = Some((channel, greeting.card));
        self.came.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// What the server of a lobby serves.
struct Door(Arc<Waiting>);

impl Guests for Door {
    fn came(&self, channel: Channel) {
        let waiting = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(fault) = waiting.greeted(channel).await {
                tracing::debug!(%fault, "who came was no daemon");
            }
        });
    }

    fn request(&self, _: Asked) -> Answering<'_> {
        Box::pin(std::future::ready(None))
    }

    fn open_to_all(&self) -> Option<String> {
        let open = self.0.token == Token::default();
        open.then(|| "that daemons are to come to".to_owned())
    }
}

/// A server that is no hub.
pub(crate) struct NoHubs;

impl Workspaces for NoHubs {
    fn find(&self, _: [u8; 16]) -> Option<Arc<dyn cairn_transports::Hub>> {
        None
    }

    fn all(&self) -> Vec<Arc<dyn cairn_transports::Hub>> {
        Vec::new()
    }
}

impl Lobby {
    /// Listens where the server is to. Needs a tokio runtime.
    pub(crate) async fn open(
        server: ServerBuilder,
        identity: Option<Identity>,
        token: Token,
        workspace: u64,
    ) -> Result<Self, SyncError> {
        let waiting = Arc::new(Waiting {
            workspace,
            token,
            sync: Mutex::new(None),
            exec: Mutex::new(None),
            came: watch::channel(0).0,
        });
        let mut server = server.guests(Arc::new(Door(Arc::clone(&waiting))));
        if let Some(identity) = identity {
            server = server.identity(identity);
        }
        let server = server.start(Arc::new(NoHubs)).await?;
        Ok(Self {
            address: server.address(),
            waiting,
            _server: server,
        })
    }

    /// The connection of a daemon that has come, or comes in time.
    pub(crate) async fn take(
        &self,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<(Channel, Card), LinkError> {
        let mut came = self.waiting.came.subscribe();
        let taken = async {
            loop {
                came.borrow_and_update();
                if let Some(taken) = self.waiting.slot(purpose).lock().take() {
                    return taken;
                }
                // The sender is in `self`.
                let _ = came.changed().await;
            }
        };
        let taken = tokio::time::timeout(patience, taken).await;
        taken.map_err(|_| LinkError::Nobody {
            address: self.address.to_string(),
        })
    }

    /// Waits until somebody has come who is not taken yet.
    pub(crate) async fn newer(&self, purpose: Purpose) {
        let mut came = self.waiting.came.subscribe();
        // The sender is in `self`.
        let _ = came.wait_for(|_| self.has_newer(purpose)).await;
    }

    /// Whether somebody has come who is not taken yet.
    pub(crate) fn has_newer(&self, purpose: Purpose) -> bool {
        self.waiting.slot(purpose).lock().is_some()
    }
}
