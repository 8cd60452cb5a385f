//! What a daemon has, and what hosts ask of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{Replica, Upstream};
use cairn_protocol::Cursor;
use cairn_protocol::wire::{Text, Token};
use cairn_transports::{Arrivals, Client, ClientOptions, State};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::pace::{PATIENCE, not_taken, paced, reach};
use crate::exec::{Command, Confine, ExecId, ExecOptions, Execution, Runtime, RuntimeOptions};
use crate::remote::{Card, Code, Fault};
use crate::sync::{Attached, SyncError, proceed};

use super::DaemonError;

/// The variable that tells a process where the workspace is.
const ROOT_VARIABLE: &str = "CAIRN_WORKSPACE";
/// The property with the workspace that a replica on disk is bound to.
const BOUND: &str = "daemon.workspace";
/// What this program calls itself.
const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));
/// How long processes have to end by themselves when the daemon ends.
const TERMINATING: Duration = Duration::from_secs(2);

/// What a station is made of.
pub(super) struct StationOptions {
    pub(super) replica: Replica,
    pub(super) mount: Option<PathBuf>,
    pub(super) logs: Option<PathBuf>,
    pub(super) token: Token,
    pub(super) confine: Confine,
    pub(super) env: Vec<(OsString, OsString)>,
}

/// What a daemon has.
#[derive(Debug)]
pub(super) struct Station {
    runtime: Runtime,
    replica: Replica,
    upstream: Arc<Upstream>,
    client: Mutex<Option<Arc<Client>>>,
    arrivals: Arc<Arrivals>,
    token: Token,
    mount: Option<PathBuf>,
    /// The workspace that the replica is of; 0 before the first host.
    bound: Mutex<u64>,
    starting: Mutex<Starting>,
    /// What was written to the input of execs, by those whose input is open.
    inputs: Mutex<HashMap<ExecId, Arc<tokio::sync::Mutex<u64>>>>,
}

/// Execs that are about to be known to the runtime.
#[derive(Debug, Default)]
struct Starting {
    /// The connection for calls that counts: the newest.
    seat: u64,
    ids: HashMap<ExecId, watch::Receiver<()>>,
}

impl Station {
    /// Starts what runs commands and what follows the host. To be called in a tokio
    /// runtime.
    pub(super) fn start(options: StationOptions) -> Result<Self, DaemonError> {
        let root = options.mount.clone().unwrap_or_else(|| "/".into());
        let mut how = RuntimeOptions::new(&root);
        if options.mount.is_some() {
            how.env.push((ROOT_VARIABLE.into(), root.into()));
        }
        how.env.extend(options.env);
        how.confine = options.confine;
        how.writable = vec![std::env::temp_dir()];
        how.logs = options.logs;
        let runtime = Runtime::new(how)?;
        let bound = bound(&options.replica)?;
        let upstream = Arc::new(options.replica.upstream().map_err(SyncError::from)?);
        let arrivals = Arc::new(Arrivals::default());
        let from = cairn_transports::Upstream::Comes(Arc::clone(&arrivals));
        let with = ClientOptions {
            patience: PATIENCE,
            ..ClientOptions::default()
        };
        let client = Client::start(from, with, Arc::new(Attached(Arc::clone(&upstream))));
        proceed(&client);
        Ok(Self {
            runtime,
            replica: options.replica,
            upstream,
            client: Mutex::new(Some(Arc::new(client))),
            arrivals,
            token: options.token,
            mount: options.mount,
            bound: Mutex::new(bound),
            starting: Mutex::default(),
            inputs: Mutex::default(),
        })
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(super) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    pub(super) fn mount(&self) -> Option<&PathBuf> {
        self.mount.as_ref()
    }

    /// What it tells of itself.
    pub(super) fn card(&self) -> Card {
        Card {
            runtime: Text::cut(self.runtime.id().as_str()),
            store: self.upstream.tag().0,
            workspace: *self.bound.lock(),
            agent: Text::cut(AGENT),
        }
    }

    /// Whether a host is connected for sync.
    pub(super) fn is_in_touch(&self) -> bool {
        let client = self.client.lock();
        let state = client.as_ref().map(|client| client.state());
        matches!(state, Some(State::Connected))
    }

    /// Belongs to a workspace from now on, if to none before.
    pub(super) fn bind(&self, workspace: u64) -> Result<(), Fault> {
        let mut bound = self.bound.lock();
        if *bound == 0 && workspace != 0 {
            let kept = self
                .replica
                .set_property(BOUND, Some(&workspace.to_be_bytes()));
            kept.map_err(|error| Fault::new(Code::WORKSPACE, &error.to_string()))?;
            *bound = workspace;
        }
        if *bound == workspace {
            return Ok(());
        }
        let detail = format!(
            "it has the workspace {:016x}, and this is the workspace {workspace:016x}",
            *bound
        );
        Err(Fault::new(Code::WORKSPACE, &detail))
    }

    fn client(&self) -> Result<Arc<Client>, Fault> {
        let client = self.client.lock().clone();
        client.ok_or_else(|| Fault::new(Code::CLOSED, "the daemon ends"))
    }

    /// Waits until the replica is at a commit of the host, or after it.
    pub(super) async fn reach(&self, cursor: Cursor) -> Result<(), Fault> {
        reach(&*self.client()?, &self.upstream, cursor).await
    }

    /// Waits until what is edited here is with the host. Gives the commit it is in.
    pub(super) async fn settle(&self) -> Result<Cursor, Fault> {
        let client = self.client()?;
        let replica = self.replica.clone();
        let failed = |error: &dyn std::fmt::Display| {
            Fault::new(Code::NOT_IN_STEP, &format!("the replica failed: {error}"))
        };
        // What is not sealed yet is edited, too.
        let sealed = tokio::task::spawn_blocking(move || replica.cursor()).await;
        sealed
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        let mut events = client.events();
        let handle = client.handle();
        let fenced = async {
            tokio::select! {
                fenced = handle.fence() => fenced,
                code = not_taken(&mut events) => Ok(Err(code)),
            }
        };
        match paced(&client, fenced).await? {
            Ok(Ok(cursor)) => Ok(cursor),
            Ok(Err(code)) => Err(Fault::new(
                Code::NOT_IN_STEP,
                &format!("the host does not take it: {code}"),
            )),
            Err(error) => Err(Fault::new(Code::NOT_IN_STEP, &error.to_string())),
        }
    }

    /// How far the replica is.
    pub(super) fn status(&self) -> Result<cairn_engine::SyncStatus, cairn_engine::FsError> {
        self.upstream.status()
    }

    /// What sync has sent and received.
    pub(super) fn counters(&self) -> cairn_protocol::session::Counters {
        let client = self.client.lock().clone();
        client.map(|client| client.counters()).unwrap_or_default()
    }

    /// A new connection for calls: those before it start nothing any more.
    pub(super) fn take_seat(&self) -> u64 {
        let mut starting = self.starting.lock();
        starting.seat += 1;
        starting.seat
    }

    /// Starts an exec, unless the connection that asks for it counts no more. It is
    /// started to its end, also if nobody waits.
    pub(super) async fn start_exec(
        self: &Arc<Self>,
        seat: u64,
        id: ExecId,
        command: Command,
        options: ExecOptions,
    ) -> Result<(), Fault> {
        let relative = options.cwd.as_ref().is_none_or(|cwd| cwd.is_relative());
        if self.mount.is_none() && relative {
            return Err(Fault::new(
                Code::UNSUPPORTED,
                "this daemon mounts nothing: give an absolute working directory, or start it with \
                 --mount",
            ));
        }
        let (done, over) = watch::channel(());
        {
            let mut starting = self.starting.lock();
            if starting.seat != seat {
                return Err(Fault::new(
                    Code::CLOSED,
                    "the host has a newer connection; it was not started",
                ));
            }
            if starting.ids.contains_key(&id) {
                return Err(crate::exec::ExecError::Duplicate(id).into());
            }
            starting.ids.insert(id.clone(), over);
        }
        let this = Arc::clone(self);
        let started = tokio::spawn(async move {
            let started = this.runtime.exec(command, options).await;
            this.starting.lock().ids.remove(&id);
            drop(done);
            started
        });
        match started.await {
            Ok(started) => Ok(started.map(drop)?),
            Err(error) => Err(Fault::new(Code::START, &error.to_string())),
        }
    }

    /// An exec. One that is about to begin is waited for, so the answer holds.
    pub(super) async fn find(&self, id: &ExecId) -> Result<Arc<dyn Execution>, Fault> {
        let starting = self.starting.lock().ids.get(id).cloned();
        if let Some(mut starting) = starting {
            // It ends by being dropped.
            while starting.changed().await.is_ok() {}
        }
        Ok(self.runtime.get(id)?)
    }

    /// Writes a piece of input once, however often it comes.
    pub(super) async fn write(
        &self,
        id: &ExecId,
        at: u64,
        bytes: bytes::Bytes,
    ) -> Result<(), Fault> {
        let exec = self.find(id).await?;
        let written = Arc::clone(self.inputs.lock().entry(id.clone()).or_default());
        let mut written = written.lock_owned().await;
        let before = usize::try_from(written.saturating_sub(at)).unwrap_or(usize::MAX);
        if before >= bytes.len() && !bytes.is_empty() {
            return Ok(());
        }
        let fresh = bytes.slice(before.min(bytes.len())..);
        // What was begun is written to its end, also when the connection breaks, so
        // that the count is right.
        let writing = tokio::spawn(async move {
            *written += fresh.len() as u64;
            exec.write(fresh).await
        });
        let done = writing.await;
        Ok(done.map_err(|error| Fault::new(Code::START, &error.to_string()))??)
    }

    /// How much was written to an exec.
    pub(super) async fn written(&self, id: &ExecId) -> u64 {
        let written = self.inputs.lock().get(id).cloned();
        match written {
            Some(written) => *written.lock().await,
            None => 0,
        }
    }

    /// Nothing more is written to an exec.
    pub(super) fn forget_input(&self, id: &ExecId) {
        self.inputs.lock().remove(id);
    }

    /// Ends what runs: asks first.
    pub(super) async fn close_execs(&self) {
        self.runtime.terminate(TERMINATING).await;
        self.runtime.close().await;
    }

    /// Brings what was edited to the host, if it is there.
    pub(super) async fn last_words(&self, within: Duration) {
        if !self.is_in_touch() {
            return;
        }
        let gone = async {
            while self.is_in_touch() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            settled = tokio::time::timeout(within, self.settle()) => {
                if !matches!(settled, Ok(Ok(_))) {
                    tracing::warn!("not everything that was edited is with the host");
                }
            }
            () = gone => {}
        }
    }

    /// Follows the host no more.
    pub(super) async fn close(&self) {
        let client = self.client.lock().take();
        if let Some(client) = client.and_then(|client| Arc::try_unwrap(client).ok()) {
            client.shutdown().await;
        }
    }
}

fn bound(replica: &Replica) -> Result<u64, DaemonError> {
    let property = replica.property(BOUND).map_err(SyncError::from)?;
    Ok(match property {
        Some(bytes) => {
            let bytes = bytes.try_into().map_err(|_| SyncError::Property(BOUND))?;
            u64::from_be_bytes(bytes)
        }
        None => 0,
    })
}
