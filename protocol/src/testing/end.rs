//! One end of a connection in a simulation: a session, its store, and what is
//! under way between them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::pipe::{Pipe, Receiver, drain};
use super::rng::Rng;
use crate::session::{ActionId, Command, Ended, Event, Input, Output, Session, Store};
use crate::wire::Frame;

/// One end of a connection. Actions wait until they are done, answers until they
/// are given, so anything can come between.
pub struct End<S: Session> {
    session: S,
    store: Arc<dyn Store<S::Action, S::Done>>,
    receiver: Receiver,
    todo: Vec<(ActionId, S::Action)>,
    done: VecDeque<(ActionId, S::Done)>,
    news: Arc<AtomicBool>,
    _guard: Box<dyn Send + Sync>,
    wait: Option<Duration>,
    /// What happened and nobody asked for yet.
    pub events: VecDeque<Event>,
    /// Why it is over.
    pub ended: Option<Ended>,
    /// Frames that were sent, those of pings not counted.
    pub sent: u64,
}

impl<S: Session> fmt::Debug for End<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = (self.todo.len(), self.done.len());
        f.debug_struct("End")
            .field("under_way", &under_way)
            .field("wait", &self.wait)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<S: Session> End<S> {
    /// The end of a session that was just made; what it says goes into `out`.
    pub fn new(session: S, store: Arc<dyn Store<S::Action, S::Done>>, out: &mut Pipe) -> Self {
        let news = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&news);
        let guard = store.on_news(Arc::new(move || flag.store(true, Ordering::Relaxed)));
        let mut end = Self {
            session,
            store,
            receiver: Receiver::default(),
            todo: Vec::new(),
            done: VecDeque::new(),
            news,
            _guard: guard,
            wait: None,
            events: VecDeque::new(),
            ended: None,
            sent: 0,
        };
        end.wait = drain(&mut end.session, |output| {
            Sink {
                todo: &mut end.todo,
                events: &mut end.events,
                ended: &mut end.ended,
                sent: &mut end.sent,
            }
            .take(output, out);
        });
        end
    }

    /// The session.
    pub fn session(&self) -> &S {
        &self.session
    }

    /// When it wants to be told of the time.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Whether the store has something to do or to say.
    pub fn is_busy(&self) -> bool {
        !self.todo.is_empty() || !self.done.is_empty() || self.has_news()
    }

    fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.ended.is_none()
    }

    /// Gives the session an input.
    pub fn give(&mut self, now: Duration, input: Input<S::Done>, out: &mut Pipe) {
        self.session.handle(now, input);
        let mut sink = Sink {
            todo: &mut self.todo,
            events: &mut self.events,
            ended: &mut self.ended,
            sent: &mut self.sent,
        };
        self.wait = drain(&mut self.session, |output| sink.take(output, out));
    }

    /// Gives the session a command.
    pub fn command(&mut self, now: Duration, command: Command, out: &mut Pipe) {
        self.give(now, Input::Command(command), out);
    }

    /// Receives some of what is on its way, or that nothing is any more.
    pub fn receive(&mut self, now: Duration, rng: &mut Rng, input: &mut Pipe, out: &mut Pipe) {
        if input.is_empty() {
            return self.give(now, Input::Closed, out);
        }
        let mut sink = Sink {
            todo: &mut self.todo,
            events: &mut self.events,
            ended: &mut self.ended,
            sent: &mut self.sent,
        };
        let session = &mut self.session;
        let received = (self.receiver).receive(input, rng, session, now, |o| sink.take(o, out));
        if received.is_err() {
            self.give(now, Input::Closed, out);
        }
        self.give(now, Input::Tick, out);
    }

    /// Does an action, gives an answer, or tells of news.
    pub fn work(&mut self, now: Duration, rng: &mut Rng, out: &mut Pipe) {
        let count = self.todo.len() + self.done.len() + usize::from(self.has_news());
        let at = rng.below(count);
        if at < self.todo.len() {
            let (id, action) = self.todo.remove(at);
            self.done.push_back((id, self.store.perform(action)));
        } else if let Some((id, done)) = self.done.pop_front() {
            self.give(now, Input::Done(id, done), out);
        } else if self.news.swap(false, Ordering::Relaxed) {
            self.give(now, Input::News, out);
        }
    }
}

/// Where outputs go.
struct Sink<'a, A> {
    todo: &'a mut Vec<(ActionId, A)>,
    events: &'a mut VecDeque<Event>,
    ended: &'a mut Option<Ended>,
    sent: &'a mut u64,
}

impl<A> Sink<'_, A> {
    fn take(&mut self, output: Output<A>, out: &mut Pipe) {
        match output {
            Output::Transmit(frame) => {
                *self.sent += u64::from(!is_ping(&frame));
                out.send(&frame);
            }
            Output::Action(id, action) => self.todo.push((id, action)),
            Output::Event(event) => self.events.push_back(event),
            Output::Close(ended) => {
                out.close();
                *self.ended = Some(ended);
            }
            Output::Wait(_) => {}
        }
    }
}

fn is_ping(frame: &Frame) -> bool {
    use crate::wire::{Ping, Pong};
    [Ping::KIND, Pong::KIND].contains(&frame.kind)
}
