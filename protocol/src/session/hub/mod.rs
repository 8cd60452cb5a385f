//! A hub's end of a connection: it tells one client of its commits, takes its
//! batches, and gives it chunks.
//!
//! | module | owns |
//! | --- | --- |
//! | `feed` | the changes that the client is told, and fences |
//! | `batches` | what the client pushes |
//! | `requests` | the chunks that it asks for |
//! | `lost` | the chunks that it is asked for, as the hub has lost them |
//! | `heard`, `done`, `proceed` | what comes in, what the store answers, and what can be done then |

mod batches;
mod done;
mod feed;
mod heard;
mod lost;
mod proceed;
mod requests;

use std::collections::VecDeque;
use std::time::Duration;

use self::batches::Batches;
use self::feed::Feed;
use self::lost::Lost;
use self::requests::Requests;
use super::greeting::{Agreement, Offer};
use super::io::{Counters, Input, Output, Session};
use super::link::Link;
use super::store::{HubAction, HubDone};
use crate::cursor::Epoch;
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::wire::{Frame, Subscribe};

/// What a hub's session begins with.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The hub's own tag.
    pub replica: ReplicaTag,
    /// Its program, for people.
    pub agent: String,
    /// What it speaks, can and takes.
    pub offer: Offer,
}

/// How far the two sides are.
#[derive(Debug)]
enum Phase {
    /// The client has said nothing.
    Greeting,
    /// The store is asked whether the client may be here. What the client sent
    /// with its greeting waits.
    Admitting(Agreement, Option<Subscribe>),
    /// The client is here.
    Open(Client),
}

#[derive(Clone, Copy, Debug)]
struct Client {
    agreement: Agreement,
    epoch: Epoch,
    may_push: bool,
    /// The store is asked whether the client may follow from where it is.
    subscribing: bool,
}

/// Chunks that the store is keeping.
#[derive(Debug)]
struct Storing {
    chunks: Vec<ChunkHash>,
    /// The bytes that they came in.
    size: u64,
    /// The batch is not waiting for them: the hub had lost them.
    lost: bool,
}

/// A hub's end of a connection.
#[derive(Debug)]
pub struct HubSession {
    link: Link<HubAction>,
    config: HubConfig,
    phase: Phase,
    feed: Feed,
    batches: Batches,
    requests: Requests,
    /// Frames of chunks that were not looked at yet.
    chunks: VecDeque<Frame>,
    lost: Lost,
    /// The chunks that the store is keeping.
    storing: Option<Storing>,
    /// Chunks that wait for credit.
    out: VecDeque<Frame>,
}

impl HubSession {
    /// A session over a connection that was just made. `now` as in
    /// [`Session::handle`].
    pub fn new(now: Duration, config: HubConfig) -> Self {
        Self {
            link: Link::new(now),
            config,
            phase: Phase::Greeting,
            feed: Feed::new(),
            batches: Batches::default(),
            requests: Requests::default(),
            lost: Lost::default(),
            chunks: VecDeque::new(),
            storing: None,
            out: VecDeque::new(),
        }
    }

    /// Whether the client was taken.
    pub fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }
}

impl Session for HubSession {
    type Action = HubAction;
    type Done = HubDone;

    fn handle(&mut self, now: Duration, input: Input<HubDone>) {
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

    fn poll(&mut self) -> Output<HubAction> {
        self.link.poll(self.batches.late_at())
    }

    fn frame_max(&self) -> usize {
        self.link.frame_max()
    }

    fn counters(&self) -> Counters {
        self.link.counters
    }
}
