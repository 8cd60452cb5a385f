//! A client's end of a connection: it follows a hub and pushes to it.
//!
//! `Hello` and `Subscribe` are sent at once. When the hub has taken them, three
//! things go on beside each other, each with one store action at a time:
//!
//! | module | owns |
//! | --- | --- |
//! | `intake` | the hub's changes: staged, and applied with their cut |
//! | `wants` | the chunks that these changes, or programs, need |
//! | `push` | the batch in flight |
//! | `gives` | the chunks that the hub has lost |
//! | `fences` | who waits for all of that |
//! | `heard`, `done`, `proceed` | what comes in, what the store answers, and what can be done then |
//!
//! After a connection has ended, a new session goes on from what the store has:
//! nothing that counts is in here.

mod done;
mod fences;
mod gives;
mod heard;
mod intake;
mod proceed;
mod push;
mod wants;

use std::collections::VecDeque;
use std::time::Duration;

use self::fences::Fences;
use self::gives::Gives;
use self::intake::Intake;
use self::push::Pushing;
use self::wants::Wants;
use super::greeting::{Agreement, Offer};
use super::io::{Counters, Input, Output, Session};
use super::link::{BULK, Fault, Link};
use super::store::{ClientAction, ClientDone};
use crate::cursor::{Cursor, Scope};
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::wire::{
    Ext, Frame, Hello, Hydrate, Message, Reset, Role, Start, Subscribe, Text, Token,
};

/// What a client's session begins with. All of a replica is of its store, as it
/// is when the connection is made.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The workspace.
    pub workspace: [u8; 16],
    /// The replica.
    pub replica: ReplicaTag,
    /// What allows it to be there.
    pub token: Token,
    /// Its program, for people.
    pub agent: String,
    /// What it speaks, can and takes.
    pub offer: Offer,
    /// What it has of the hub's tree.
    pub start: Start,
    /// The last batch that it numbered, answered or not; 0 for none.
    pub last_batch: u64,
    /// The digest of that batch. `None` if it took the number from the hub (see
    /// [`ClientAction::Reset`]) and has not made a batch since.
    pub last_batch_digest: Option<[u8; 32]>,
    /// Which chunks it will want.
    pub hydrate: Hydrate,
}

/// How far the two sides are.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The hub has said nothing.
    Greeting,
    /// It has said what it is, and may still refuse.
    Greeted(Agreement),
    /// It has taken the client.
    Open(Agreement),
}

/// A client's end of a connection.
#[derive(Debug)]
pub struct ClientSession {
    link: Link<ClientAction>,
    config: ClientConfig,
    phase: Phase,
    /// A `Subscribe` that the hub may still refuse, and what it asked for.
    subscribed: Option<Start>,
    /// The hub's life, once it is known.
    epoch: Option<crate::Epoch>,
    /// Reset for this reason, when the store is free.
    reset: Option<Reset>,
    intake: Intake,
    wants: Wants,
    push: Pushing,
    gives: Gives,
    fences: Fences,
    /// Frames of chunks that were not looked at yet.
    chunks: VecDeque<Frame>,
    /// The chunks that the store is keeping, and the frame they came in.
    storing: Option<(Vec<ChunkHash>, u64)>,
    /// Chunks of the batch in flight that wait for credit.
    supplies: VecDeque<Frame>,
    /// The program knows that everything is here.
    live: bool,
    /// The hub does not know of batches that it had committed.
    lost_batches: bool,
}

impl ClientSession {
    /// A session over a connection that was just made. `now` as in
    /// [`Session::handle`].
    pub fn new(now: Duration, config: ClientConfig) -> Self {
        let mut session = Self {
            link: Link::new(now),
            phase: Phase::Greeting,
            subscribed: None,
            epoch: None,
            reset: None,
            intake: Intake::new(config.start),
            wants: Wants::default(),
            push: Pushing::new(),
            gives: Gives::default(),
            fences: Fences::default(),
            chunks: VecDeque::new(),
            storing: None,
            supplies: VecDeque::new(),
            live: false,
            lost_batches: false,
            config,
        };
        let hello = Message::from(session.hello());
        session.link.send(&hello);
        session.subscribe(session.config.start);
        session
    }

    fn hello(&self) -> Hello {
        Hello {
            version_min: self.config.offer.version_min,
            version_max: self.config.offer.version_max,
            role: Role::Client,
            workspace: self.config.workspace,
            replica: self.config.replica,
            token: self.config.token.clone(),
            capabilities: self.config.offer.capabilities,
            limits: self.config.offer.limits,
            agent: Text::cut(&self.config.agent),
            ext: Ext::default(),
        }
    }

    fn subscribe(&mut self, from: Start) {
        self.subscribed = Some(from);
        let message = Subscribe {
            from,
            scope: Scope::ALL,
            hydrate: self.config.hydrate,
            ext: Ext::default(),
        };
        self.link.send(&message.into());
    }

    /// Where the replica is in the hub's history.
    pub fn cursor(&self) -> Option<Cursor> {
        self.intake.cursor()
    }
}

/// Sends the first frames, as far as there is credit.
pub(super) fn send_all<A>(link: &mut Link<A>, frames: &mut VecDeque<Frame>) {
    while let Some(frame) = frames.pop_front() {
        if let Err(frame) = link.try_send(frame) {
            frames.push_front(frame);
            return;
        }
    }
}

/// The message is not legal now.
pub(super) fn unexpected(got: &Message, expected: &str) -> Fault {
    Fault::state(&format!("a message of kind {}", got.kind()), expected)
}

impl Session for ClientSession {
    type Action = ClientAction;
    type Done = ClientDone;

    fn handle(&mut self, now: Duration, input: Input<ClientDone>) {
        self.link.advance(now);
        if self.link.is_ended() {
            return;
        }
        let mut step = self.input(input);
        if step.is_ok() && !self.link.is_ended() {
            step = self.proceed();
        }
        if let Err(fault) = step {
            self.link.fail(fault);
        }
    }

    fn poll(&mut self) -> Output<ClientAction> {
        self.link.poll(self.push.wait_until)
    }

    fn frame_max(&self) -> usize {
        self.link.frame_max()
    }

    fn counters(&self) -> Counters {
        self.link.counters
    }
}

// Chunks go over a lane of their own, so that what has to stay in order does not
// wait for them.
const _: () = assert!(BULK != super::link::CONTROL);
