//! Push, start, pull: what is around each command of a sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_protocol::Cursor;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use super::brackets::Brackets;
use super::execution::RemoteExecution;
use crate::exec::{
    Command, ExecError, ExecId, ExecOptions, Execution, Keep, Result, RuntimeId, Signal,
};
use crate::remote::{Call, CallError, Caller, Card, Code, Fault, Link, LinkError, Plan, Reply};

/// The first wait before a pull is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The wait before a call that was cut is made again.
const AGAIN: Duration = Duration::from_millis(20);
/// A connection that lasted for this long was a good one.
const LASTED: Duration = Duration::from_secs(5);
/// Execs of which is known which runtime they belong to.
const OWNERS: usize = 4_096;

/// What outlives a connection: which runtime has which exec.
#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<BTreeMap<ExecId, RuntimeId>>);

impl Owners {
    fn note(&self, id: &ExecId, runtime: &RuntimeId) {
        let mut owners = self.0.lock();
        while owners.len() >= OWNERS {
            owners.pop_first();
        }
        owners.insert(id.clone(), runtime.clone());
    }

    fn of(&self, id: &ExecId) -> Option<RuntimeId> {
        self.0.lock().get(id).cloned()
    }
}

/// Calls that are cut one after the other, over connections that come about and
/// break at once.
struct Cuts {
    patience: Duration,
    since: Option<Instant>,
}

impl Cuts {
    /// Makes a call. `None` if it was cut, and may be made again.
    ///
    /// # Errors
    ///
    /// Its own, and [`ExecError::Unreachable`] when it was cut for too long.
    async fn call(
        &mut self,
        caller: &Caller,
        call: Call,
        failed: impl FnOnce(Fault) -> ExecError,
    ) -> Result<Option<Reply>> {
        let begun = Instant::now();
        match caller.call(call).await {
            Ok(reply) => return Ok(Some(reply)),
            Err(CallError::Fault(fault)) => return Err(failed(fault)),
            Err(CallError::NotSent | CallError::Cut) => {}
        }
        if begun.elapsed() >= LASTED {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            let why = "the connection comes about, and breaks again and again";
            return Err(ExecError::Unreachable(why.into()));
        }
        tokio::time::sleep(AGAIN).await;
        Ok(None)
    }
}

/// A sandbox that is connected, for as long as its runtime is the same.
#[derive(Debug)]
pub(super) struct Bracket {
    link: Link,
    card: Card,
    runtime: RuntimeId,
    brackets: Arc<Brackets>,
    owners: Arc<Owners>,
    lost: AtomicBool,
    /// Nothing is to be started any more. Who starts something holds it meanwhile.
    closing: RwLock<bool>,
    closed: watch::Sender<bool>,
}

impl Bracket {
    pub(super) fn new(
        link: Link,
        card: Card,
        brackets: Arc<Brackets>,
        owners: Arc<Owners>,
    ) -> Arc<Self> {
        Arc::new(Self {
            link,
            runtime: RuntimeId::from_text(&*card.runtime),
            card,
            brackets,
            owners,
            lost: AtomicBool::new(false),
            closing: RwLock::new(false),
            closed: watch::channel(false).0,
        })
    }

    pub(super) fn runtime(&self) -> &RuntimeId {
        &self.runtime
    }

    /// Whether another runtime answers by now.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Execs whose changes may not be here.
    pub(super) fn pending(&self) -> Vec<ExecId> {
        self.brackets.all()
    }

    pub(super) fn is_pending(&self, id: &ExecId) -> bool {
        self.brackets.is_open(id)
    }

    /// A connection to the runtime that this is of.
    async fn caller(&self) -> Result<Option<Arc<Caller>>> {
        let unreachable = |error: LinkError| ExecError::Unreachable(Box::new(error));
        let caller = self.link.patiently().await.map_err(unreachable)?;
        if caller.card.runtime == self.card.runtime {
            return Ok(Some(caller));
        }
        // The next use makes a connection of its own, which sees to what is pending.
        self.lost.store(true, Ordering::SeqCst);
        self.closed.send_replace(true);
        self.brackets.leave_all();
        self.link.close().await;
        Ok(None)
    }

    fn is_gone(&self, id: &ExecId) -> ExecError {
        ExecError::Lost {
            id: id.clone(),
            runtime: self.runtime.clone(),
        }
    }

    /// Makes a call about an exec that does no harm when it is done twice, over as
    /// many connections as it takes.
    pub(super) async fn call(&self, id: &ExecId, call: Call) -> Result<Reply> {
        let mut cuts = self.cuts();
        loop {
            let caller = self.caller().await?.ok_or_else(|| self.is_gone(id))?;
            let failed = |fault| self.failed(id, fault);
            if let Some(reply) = cuts.call(&caller, call.clone(), failed).await? {
                return Ok(reply);
            }
        }
    }

    fn cuts(&self) -> Cuts {
        Cuts {
            patience: self.link.patience(),
            since: None,
        }
    }

    fn failed(&self, id: &ExecId, fault: Fault) -> ExecError {
        match fault.code {
            Code::NOT_IN_STEP => ExecError::Push(Box::new(fault)),
            Code::UNKNOWN => match self.owners.of(id) {
                Some(owner) if owner != self.runtime => ExecError::Lost {
                    id: id.clone(),
                    runtime: owner,
                },
                _ => fault.about(id, &self.runtime),
            },
            _ => fault.about(id, &self.runtime),
        }
    }

    /// Brings what was edited here there, and starts a command.
    pub(super) async fn exec(
        self: Arc<Self>,
        handle: Handle,
        command: Command,
        options: ExecOptions,
    ) -> Result<Arc<dyn Execution>> {
        let id = options.id.clone().unwrap_or_else(ExecId::random);
        let plan = Plan::new(&command, &options);
        let (plan, rest) = plan.map_err(|fault| self.failed(&id, fault))?;
        self.begin(&handle, &id, plan).await?;
        self.owners.note(&id, &self.runtime);
        let execution = RemoteExecution::new(self, handle, id, 0, options.keep);
        if !rest.is_empty() {
            execution.feed(rest);
        }
        Ok(execution)
    }

    /// Notes that a command is about to run, and starts it.
    async fn begin(self: &Arc<Self>, handle: &Handle, id: &ExecId, plan: Plan) -> Result<()> {
        let closing = self.closing.read().await;
        if *closing {
            return Err(ExecError::Closed);
        }
        let cut = self.here().await?;
        let opened = self.brackets.open(id, self.card.store);
        let fresh = opened.map_err(|source| ExecError::Log {
            id: id.clone(),
            source,
        })?;
        let started = self.start(id, cut, plan).await;
        match &started {
            // Its changes may come.
            Err(ExecError::MayRun { .. } | ExecError::Lost { .. }) => {
                handle.spawn(Arc::clone(self).recover(id.clone()));
            }
            Err(_) if fresh => self.brackets.close(id),
            Ok(()) | Err(_) => {}
        }
        started
    }

    /// The commit of what was edited here so far.
    async fn here(&self) -> Result<Cursor> {
        let hub = self.link.hub();
        let hub = hub.map_err(|error| ExecError::Push(Box::new(error)))?;
        let fenced = hub.fence().await;
        fenced.map_err(|error| ExecError::Push(Box::new(error)))
    }

    /// Starts a command once: when the connection breaks, it is asked whether it was.
    async fn start(&self, id: &ExecId, after: Cursor, plan: Plan) -> Result<()> {
        let call = Call::Start {
            id: cairn_protocol::wire::Text::cut(id.as_str()),
            after: Some(after),
            plan: Box::new(plan),
        };
        let mut cuts = self.cuts();
        loop {
            // Another runtime has not started it, and this one has not been asked.
            let caller = self.caller().await?.ok_or_else(|| {
                ExecError::Unreachable("the daemon was started anew in the meantime".into())
            })?;
            let failed = |fault| self.failed(id, fault);
            let cut = match cuts.call(&caller, call.clone(), failed).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => None,
                Err(error @ ExecError::Unreachable(_)) => Some(error),
                Err(error) => return Err(error),
            };
            if self.has_begun(id).await? {
                return Ok(());
            }
            if let Some(error) = cut {
                return Err(error);
            }
        }
    }

    /// Whether an exec was started over a connection that is no more. The daemon
    /// starts nothing for it from when it knows of a newer one, so the answer holds.
    async fn has_begun(&self, id: &ExecId) -> Result<bool> {
        let text = cairn_protocol::wire::Text::cut(id.as_str());
        match self.call(id, Call::Find { id: text }).await {
            Ok(_) => Ok(true),
            Err(ExecError::Unknown { .. }) => Ok(false),
            Err(ExecError::Unreachable(_)) => Err(ExecError::MayRun { id: id.clone() }),
            Err(error) => Err(error),
        }
    }

    /// An exec that was started before.
    pub(super) async fn find(
        self: Arc<Self>,
        handle: Handle,
        id: ExecId,
    ) -> Result<Arc<dyn Execution>> {
        let text = cairn_protocol::wire::Text::cut(id.as_str());
        match self.call(&id, Call::Find { id: text }).await? {
            Reply::Found {
                written,
                keep_unread,
            } => {
                let keep = if keep_unread {
                    Keep::Unread
                } else {
                    Keep::Newest
                };
                Ok(RemoteExecution::new(self, handle, id, written, keep))
            }
            _ => Err(ExecError::Closed),
        }
    }

    pub(super) async fn dispose(&self, id: &ExecId) -> Result<()> {
        let text = cairn_protocol::wire::Text::cut(id.as_str());
        self.call(id, Call::Dispose { id: text }).await.map(drop)
    }

    /// Brings what was edited here there.
    pub(super) async fn push(&self) -> Result<()> {
        let cursor = self.here().await?;
        self.any(Call::Reach { cursor }).await.map(drop)
    }

    /// A call that is about no exec, whatever runtime answers.
    async fn any(&self, call: Call) -> Result<(Reply, Card)> {
        let mut cuts = self.cuts();
        loop {
            let caller = self.link.patiently().await;
            let caller = caller.map_err(|error| ExecError::Unreachable(Box::new(error)))?;
            let failed = |fault| ExecError::Push(Box::new(fault));
            if let Some(reply) = cuts.call(&caller, call.clone(), failed).await? {
                return Ok((reply, caller.card.clone()));
            }
        }
    }

    /// Brings what was edited there here. Gives the replica that it was of.
    async fn settle(&self) -> Result<u64> {
        let (_, card) = self.any(Call::Settle).await?;
        // The hub has it now; the working tree follows at once.
        self.here().await?;
        Ok(card.store)
    }

    /// The same, for all execs that have ended.
    pub(super) async fn pull_all(&self) -> Result<()> {
        let waiting = self.brackets.ended();
        let store = self.settle().await?;
        for id in waiting {
            self.brought(&id, store);
        }
        Ok(())
    }

    /// An exec has ended: brings what it changed here, or notes that it is pending,
    /// and goes on trying.
    pub(super) async fn pull(self: &Arc<Self>, handle: &Handle, id: &ExecId) {
        self.brackets.has_ended(id);
        if !self.brackets.is_open(id) {
            return;
        }
        match self.settle().await {
            Ok(store) => self.brought(id, store),
            Err(error) => {
                tracing::warn!(%error, %id, "what an exec changed is not here yet");
                handle.spawn(Arc::clone(self).recover(id.clone()));
            }
        }
    }

    fn brought(&self, id: &ExecId, store: u64) {
        if self.brackets.store_of(id).is_some_and(|of| of != store) {
            tracing::warn!(%id, "the daemon that ran an exec has lost its replica: what the exec changed and did not get here is gone");
        }
        self.brackets.close(id);
    }

    /// Takes up what an earlier process or connection has left.
    pub(super) fn take_up(self: &Arc<Self>, handle: &Handle) {
        for id in self.brackets.take_up() {
            handle.spawn(Arc::clone(self).recover(id));
        }
    }

    /// Tries to bring the changes of an exec here, until it works or the connection
    /// is closed.
    async fn recover(self: Arc<Self>, id: ExecId) {
        let mut closed = self.closed.subscribe();
        let mut pause = RETRY.0;
        let trying = async {
            loop {
                if self.try_recover(&id).await.is_ok() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
        };
        tokio::select! {
            () = trying => {}
            _ = closed.wait_for(|closed| *closed) => self.brackets.leave(&id),
        }
    }

    async fn try_recover(&self, id: &ExecId) -> Result<()> {
        self.exit(id).await?;
        self.brackets.has_ended(id);
        let store = self.settle().await?;
        self.brought(id, store);
        Ok(())
    }

    /// Waits until an exec has ended, or is gone.
    pub(super) async fn exit(&self, id: &ExecId) -> Result<()> {
        let text = cairn_protocol::wire::Text::cut(id.as_str());
        match self.call(id, Call::Exit { id: text }).await {
            Ok(_) | Err(ExecError::Unknown { .. } | ExecError::Lost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn kill(&self, id: &ExecId, signal: Signal) -> Result<()> {
        let call = Call::Kill {
            id: cairn_protocol::wire::Text::cut(id.as_str()),
            signal: signal.number(),
        };
        self.call(id, call).await.map(drop)
    }

    /// Refuses what comes, and waits for what is being started. Gives the execs of
    /// which nobody here has learned the end.
    pub(super) async fn begin_to_close(&self) -> Vec<ExecId> {
        *self.closing.write().await = true;
        self.brackets.running()
    }

    /// Ends the connections. What runs there runs on.
    pub(super) async fn close(&self) {
        self.closed.send_replace(true);
        self.link.close().await;
    }
}
