//! A client and a hub that talk at once, in virtual time: for tests that say what
//! happens, and what it costs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::pipe::drain;
use crate::session::{Command, Ended, Event, Input, Output, Session, Store};
use crate::wire::{Frame, Message};

/// One end of a connection whose store answers at once.
pub struct Side<S: Session> {
    /// The session.
    pub session: S,
    store: Arc<dyn Store<S::Action, S::Done>>,
    news: Arc<AtomicBool>,
    _guard: Box<dyn Send + Sync>,
    /// What it said, and the peer has not heard.
    pub out: VecDeque<Frame>,
    /// What happened.
    pub events: Vec<Event>,
    /// Why it is over.
    pub ended: Option<Ended>,
    /// Actions are not done for now.
    pub is_stuck: bool,
    stuck: Vec<(crate::session::ActionId, S::Action)>,
}

impl<S: Session> fmt::Debug for Side<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side")
            .field("events", &self.events)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<S: Session> Side<S> {
    /// A session that was just made, with its store.
    pub fn new(session: S, store: Arc<dyn Store<S::Action, S::Done>>) -> Self {
        let news = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&news);
        let guard = store.on_news(Arc::new(move || flag.store(true, Ordering::Relaxed)));
        let mut side = Self {
            session,
            store,
            news,
            _guard: guard,
            out: VecDeque::new(),
            events: Vec::new(),
            ended: None,
            is_stuck: false,
            stuck: Vec::new(),
        };
        side.settle(Duration::ZERO);
        side
    }

    /// Gives the session an input, and does what it asks of its store.
    pub fn give(&mut self, now: Duration, input: Input<S::Done>) {
        self.session.handle(now, input);
        self.settle(now);
    }

    /// Gives the session a message.
    pub fn hear(&mut self, now: Duration, message: &Message) {
        self.give(now, Input::Frame(message.to_frame(0)));
    }

    /// Does what is left to do. Returns whether there was anything.
    pub fn settle(&mut self, now: Duration) -> bool {
        let mut any = false;
        loop {
            let (out, events, ended) = (&mut self.out, &mut self.events, &mut self.ended);
            let mut actions = std::mem::take(&mut self.stuck);
            drain(&mut self.session, |output| match output {
                Output::Transmit(frame) => out.push_back(frame),
                Output::Action(id, action) => actions.push((id, action)),
                Output::Event(event) => events.push(event),
                Output::Close(why) => *ended = Some(why),
                Output::Wait(_) => {}
            });
            if self.is_stuck {
                self.stuck = actions;
                return any;
            }
            let news = self.news.swap(false, Ordering::Relaxed);
            if actions.is_empty() && !news {
                return any;
            }
            any = true;
            for (id, action) in actions {
                let done = self.store.perform(action);
                self.session.handle(now, Input::Done(id, done));
            }
            if news {
                self.session.handle(now, Input::News);
            }
        }
    }

    /// How many actions wait.
    pub fn waiting(&self) -> usize {
        self.stuck.len()
    }

    /// What it said, as messages; the peer does not hear it.
    pub fn said(&mut self) -> Vec<Message> {
        let frames = self.out.drain(..);
        let messages = frames.map(|frame| Message::from_frame(&frame));
        messages
            .filter_map(|message| message.ok().flatten())
            .collect()
    }

    /// Gives the session a command.
    pub fn command(&mut self, now: Duration, command: Command) {
        self.give(now, Input::Command(command));
    }
}

/// Lets two sides talk until neither has anything to say. Returns the frames
/// that went over the connection.
pub fn talk<A: Session, B: Session>(now: Duration, a: &mut Side<A>, b: &mut Side<B>) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let mut any = a.settle(now) | b.settle(now);
        while let Some(frame) = a.out.pop_front() {
            frames.push(frame.clone());
            b.give(now, Input::Frame(frame));
            any = true;
        }
        while let Some(frame) = b.out.pop_front() {
            frames.push(frame.clone());
            a.give(now, Input::Frame(frame));
            any = true;
        }
        if !any {
            return frames;
        }
    }
}
