//! The loop between a session, its store and a carrier: one for clients and
//! hubs, whatever carries the frames.
//!
//! A session is a state machine without IO. The driver gives it what happens, in
//! the order in which it happens, and does what it says: frames go to the
//! carrier's queue, actions to threads that may block, events to whoever wants to
//! know. Actions of different rows run beside each other; the session has at most
//! one of each row under way, so the order within a row is kept.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::session::{ActionId, By, Command, Counters, Ended, Event, Input, Output};
use cairn_protocol::session::{Session, Store};
use cairn_protocol::wire::{Code, Ext, Frame, Goodbye, Message, Text, WireError};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::error::CarrierError;
use crate::link::{Inbox, Outbox};

/// Why a session is to end, when it is not its own decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// What the peer is told.
    pub code: Code,
    /// Why, for people.
    pub detail: &'static str,
}

/// What a session is driven with.
pub(crate) struct Drive<A, D> {
    /// What does its actions.
    pub store: Arc<dyn Store<A, D>>,
    /// Where its frames go.
    pub outbox: Outbox,
    /// Where its frames come from.
    pub inbox: Inbox,
    /// What the program wants of it. When the senders are gone, nothing more.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// Longest payload, in bytes, that is taken whatever the session says. A
    /// client asked for what its hub sends, so it takes all from the start.
    pub frame_max: usize,
    /// Ends it from outside.
    pub stop: watch::Receiver<Option<Stop>>,
    /// What it has sent and received, always up to date.
    pub counters: Arc<Mutex<Counters>>,
}

impl<A, D> std::fmt::Debug for Drive<A, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").finish_non_exhaustive()
    }
}

/// What happened.
enum Happening<D> {
    Input(Input<D>),
    NoFrame(WireError),
    Stop(Stop),
    /// Some of what was queued is sent.
    Sent,
}

/// Drives a session until it is over and its last action is done. The frames that
/// it queued last are still to be sent by the carrier.
///
/// # Cancel safety
///
/// Dropping it ends the session without a word to the peer. Actions under way
/// are done to their end, and their answers lost, as in a crash.
pub(crate) async fn drive<S>(
    mut session: S,
    mut with: Drive<S::Action, S::Done>,
    mut tell: impl FnMut(Event),
) -> Ended
where
    S: Session,
    S::Action: Send + 'static,
    S::Done: Send + 'static,
{
    let start = Instant::now();
    let news = Arc::new(Notify::new());
    let waker = Arc::clone(&news);
    let _news_guard = with.store.on_news(Arc::new(move || waker.notify_one()));
    let (done, mut answers) = mpsc::unbounded_channel();
    let mut acting = Acting {
        store: Arc::clone(&with.store),
        done,
        under_way: 0,
    };
    let mut happened = Happening::Input(Input::Tick);
    let ended = loop {
        match happened {
            Happening::Input(input) => session.handle(start.elapsed(), input),
            Happening::NoFrame(error) => break refuse(&with.outbox, &error),
            Happening::Stop(stop) if stop.code == Code::SHUTDOWN => {
                // Once is enough.
                with.stop = watch::channel(None).1;
                session.handle(start.elapsed(), Input::Command(Command::Shutdown));
            }
            Happening::Stop(stop) => break end(&with.outbox, stop.code, stop.detail.to_owned()),
            Happening::Sent => {}
        }
        // Before the peer is told that it may.
        with.inbox.admit(session.frame_max().max(with.frame_max));
        let polled = take_outputs(&mut session, &with.outbox, &mut acting, &mut tell);
        *with.counters.lock() = session.counters();
        let until = match polled {
            Ok(until) => until,
            Err(ended) => break ended,
        };
        happened = next(
            &mut with,
            &news,
            &mut answers,
            until.map(|until| start + until),
        )
        .await;
        if matches!(happened, Happening::Input(Input::Done(..))) {
            acting.under_way -= 1;
        }
    };
    with.outbox.finish(ended.code);
    // The next session of this store finds it at rest.
    while acting.under_way > 0 && answers.recv().await.is_some() {
        acting.under_way -= 1;
    }
    ended
}

/// How long a carrier has to send what is queued when the session is over.
const FLUSH: Duration = Duration::from_secs(5);

/// Runs a driver and the carrier of its session until both are done.
///
/// # Cancel safety
///
/// As that of [`drive`].
pub(crate) async fn together(
    driving: impl Future<Output = Ended>,
    carrying: impl Future<Output = Result<(), CarrierError>>,
) -> (Ended, Result<(), CarrierError>) {
    // They are large, and would be part of every future around them.
    let (mut driving, mut carrying) = (Box::pin(driving), Box::pin(carrying));
    tokio::select! {
        ended = &mut driving => {
            let carried = tokio::time::timeout(FLUSH, carrying).await;
            (ended, carried.unwrap_or(Ok(())))
        }
        carried = &mut carrying => (driving.await, carried),
    }
}

/// Actions under way.
struct Acting<A, D> {
    store: Arc<dyn Store<A, D>>,
    done: mpsc::UnboundedSender<(ActionId, D)>,
    under_way: usize,
}

impl<A: Send + 'static, D: Send + 'static> Acting<A, D> {
    fn start(&mut self, id: ActionId, action: A) {
        self.under_way += 1;
        let (store, done) = (Arc::clone(&self.store), self.done.clone());
        // It is not awaited: the answer comes by the channel.
        drop(tokio::task::spawn_blocking(move || {
            let _ = done.send((id, store.perform(action)));
        }));
    }
}

/// Does what the session says, until it waits or is over.
fn take_outputs<S>(
    session: &mut S,
    outbox: &Outbox,
    acting: &mut Acting<S::Action, S::Done>,
    tell: &mut impl FnMut(Event),
) -> Result<Option<Duration>, Ended>
where
    S: Session,
    S::Action: Send + 'static,
    S::Done: Send + 'static,
{
    loop {
        match session.poll() {
            Output::Transmit(frame) => outbox.push(frame),
            Output::Action(id, action) => acting.start(id, action),
            Output::Event(event) => tell(event),
            Output::Wait(until) => return Ok(until),
            Output::Close(ended) => return Err(ended),
        }
    }
}

/// Waits for what happens next.
async fn next<A, D>(
    with: &mut Drive<A, D>,
    news: &Notify,
    answers: &mut mpsc::UnboundedReceiver<(ActionId, D)>,
    until: Option<Instant>,
) -> Happening<D> {
    let timer = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    let is_full = with.outbox.is_full();
    tokio::select! {
        // Answers first: they are what the session waits for, and what it was
        // asked for is bounded.
        biased;
        stop = stopped(&mut with.stop) => Happening::Stop(stop),
        Some((id, answer)) = answers.recv() => Happening::Input(Input::Done(id, answer)),
        () = news.notified() => Happening::Input(Input::News),
        Some(command) = with.commands.recv() => Happening::Input(Input::Command(command)),
        frame = with.inbox.next(), if !is_full => match frame {
            Some(Ok(frame)) => Happening::Input(Input::Frame(frame)),
            Some(Err(error)) => Happening::NoFrame(error),
            None => Happening::Input(Input::Closed),
        },
        // Who does not read is not read.
        () = with.outbox.taken(), if is_full => Happening::Sent,
        () = timer => Happening::Input(Input::Tick),
    }
}

/// Waits until the session is to end.
async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    loop {
        if let Some(stop) = stop.borrow_and_update().clone() {
            return stop;
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Ends a connection whose peer sent what is no frame.
fn refuse(outbox: &Outbox, error: &WireError) -> Ended {
    end(outbox, error.code(), error.to_string())
}

fn end(outbox: &Outbox, code: Code, detail: String) -> Ended {
    outbox.push(goodbye(code, &detail));
    Ended {
        by: By::Us,
        code,
        detail,
        retry_after: None,
    }
}

/// A message that ends a connection.
pub(crate) fn goodbye(code: Code, detail: &str) -> Frame {
    let message = Goodbye {
        code,
        detail: Text::cut(detail),
        ext: Ext::default(),
    };
    Message::from(message).to_frame(0)
}
