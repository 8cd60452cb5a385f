//! What the program waits for, over all sessions of a client.
//!
//! A request that a session has not answered is asked of the next one. Requests
//! fail when the client is over, and when there was no connection for longer than
//! the client's patience.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cairn_protocol::session::{Command, Counters, Event, Wanted};
use cairn_protocol::wire::Code;
use cairn_protocol::{ChunkHash, Cursor};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{ClientError, Halt};
use crate::counters::add;

/// An answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Fetched(Vec<(ChunkHash, Code)>),
    Fenced(Result<Cursor, Code>),
}

type Answered = Result<Answer, Arc<ClientError>>;

/// An answer that comes.
pub(super) struct Waiting(oneshot::Receiver<Answered>);

impl Waiting {
    /// Waits for it on this thread.
    pub(super) fn wait(self) -> Answered {
        let answer = self.0.blocking_recv();
        answer.unwrap_or_else(|_| Err(Arc::new(ClientError::ShutDown)))
    }
}

impl Future for Waiting {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(Arc::new(ClientError::ShutDown))))
    }
}

/// The requests of a client.
#[derive(Debug)]
pub(super) struct Requests {
    patience: Duration,
    state: Mutex<State>,
    /// The cut that waits for somebody to say that it may remove so much.
    halt: watch::Sender<Option<Halt>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, (Command, oneshot::Sender<Answered>)>,
    session: Option<mpsc::UnboundedSender<Command>>,
    counters: Arc<Mutex<Counters>>,
    past: Counters,
    /// Since when there is no connection.
    alone_since: Option<Instant>,
    /// Requests are in vain.
    failed: Option<Arc<ClientError>>,
}

impl Requests {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::new(State {
                next: 0,
                waiting: BTreeMap::new(),
                session: None,
                counters: Arc::default(),
                past: Counters::default(),
                alone_since: None,
                failed: None,
            }),
            halt: watch::Sender::new(None),
        }
    }

    pub(super) fn fetch(&self, chunks: Vec<Wanted>, priority: u8) -> Waiting {
        self.ask(|id| Command::Fetch {
            id,
            chunks,
            priority,
        })
    }

    pub(super) fn fence(&self) -> Waiting {
        self.ask(|id| Command::Fence { id })
    }

    fn ask(&self, command: impl FnOnce(u64) -> Command) -> Waiting {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            let _ = reply.send(Err(Arc::clone(error)));
            return Waiting(answer);
        }
        let id = state.next;
        state.next += 1;
        let command = command(id);
        if let Some(session) = &state.session {
            let _ = session.send(command.clone());
        }
        state.waiting.insert(id, (command, reply));
        Waiting(answer)
    }

    pub(super) fn proceed(&self) {
        self.halt.send_replace(None);
        if let Some(session) = &self.state.lock().session {
            let _ = session.send(Command::Proceed);
        }
    }

    /// Keeps what is halted until something else comes of it.
    pub(super) fn note_halt(&self, event: &Event) {
        let halt = match *event {
            Event::Halted { removed, of } => Some(Halt { removed, of }),
            Event::Connected { .. } | Event::Reset { .. } | Event::CutApplied { .. } => None,
            _ => return,
        };
        self.halt.send_replace(halt);
    }

    /// Waits until a cut is halted.
    pub(super) async fn halted(&self) -> Halt {
        let mut halt = self.halt.subscribe();
        let found = halt.wait_for(Option::is_some).await.map(|halt| *halt);
        match found {
            Ok(Some(halt)) => halt,
            // The sender is here, so it is never gone.
            _ => std::future::pending().await,
        }
    }

    /// A session is there: it is asked everything that was not answered.
    pub(super) fn session(
        &self,
        counters: Arc<Mutex<Counters>>,
    ) -> mpsc::UnboundedReceiver<Command> {
        let (session, commands) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for (command, _) in state.waiting.values() {
            let _ = session.send(command.clone());
        }
        state.session = Some(session);
        state.counters = counters;
        commands
    }

    /// The session was taken by the hub.
    pub(super) fn connected(&self) {
        let mut state = self.state.lock();
        (state.alone_since, state.failed) = (None, None);
    }

    /// The session is over, or there was none.
    pub(super) fn alone(&self, why: &Arc<ClientError>) {
        let mut state = self.state.lock();
        state.session = None;
        let last = std::mem::take(&mut *state.counters.lock());
        add(&mut state.past, &last);
        let since = *state.alone_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            state.fail(why);
        }
    }

    /// There will be no session any more.
    pub(super) fn over(&self, why: &Arc<ClientError>) {
        let mut state = self.state.lock();
        state.session = None;
        state.fail(why);
    }

    /// An event of the session, if it is an answer.
    pub(super) fn answered(&self, event: &Event) {
        let (id, answer) = match event {
            Event::Fetched { id, missing } => (id, Answer::Fetched(missing.clone())),
            Event::Fenced { id, cursor } => (id, Answer::Fenced(*cursor)),
            _ => return,
        };
        if let Some((_, reply)) = self.state.lock().waiting.remove(id) {
            let _ = reply.send(Ok(answer));
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state.lock();
        let mut sum = state.past;
        add(&mut sum, &state.counters.lock());
        sum
    }
}

impl State {
    fn fail(&mut self, why: &Arc<ClientError>) {
        self.failed = Some(Arc::clone(why));
        for (_, reply) in std::mem::take(&mut self.waiting).into_values() {
            let _ = reply.send(Err(Arc::clone(why)));
        }
    }
}
