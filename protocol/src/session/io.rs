//! What goes into a session and what comes out of it: the same for both ends, so
//! that one driver serves them all.
//!
//! A session is a pure state machine. Whoever drives it gives it one [`Input`]
//! with the time, then takes [`Output`]s until one is [`Output::Wait`]:
//!
//! ```ignore
//! session.handle(now, input);
//! loop {
//!     match session.poll() {
//!         Output::Transmit(frame) => carrier.send(frame),
//!         Output::Action(id, action) => spawn(id, store.perform(action)),
//!         Output::Event(event) => tell(event),
//!         Output::Close(ended) => return flush_and_close(ended),
//!         Output::Wait(until) => break wait_for_an_input_or(until),
//!     }
//! }
//! ```
//!
//! What a driver has to keep:
//!
//! - `now` is the time since any start, the same for all inputs; one that goes
//!   back counts as standing still.
//! - An action is done once, and its answer given as [`Input::Done`]. Actions may
//!   be done beside each other: a session has one of each row under way.
//! - [`Session::frame_max`] may change with each frame that is handled: set it in
//!   the [`FrameReader`](crate::wire::FrameReader) before the next frame is cut.
//! - While more than [`BACKLOG_MAX`] bytes wait to be sent, no frames are given
//!   to the session: who does not read is not read. Peers that keep the rules
//!   never come there, so they do not wait for each other.

use std::fmt;
use std::time::Duration;

use super::greeting::Agreement;
use super::store::{Report, Wanted};
use crate::cursor::{Cursor, Seq};
use crate::hash::ChunkHash;
use crate::outcome::Outcome;
use crate::wire::{Code, Frame, Why};

/// Bytes that may wait to be sent before a driver stops reading: more than both
/// windows together allow, and control messages.
pub const BACKLOG_MAX: usize = 16 << 20;

/// An action under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub(super) u64);

/// What a session is given.
#[derive(Clone, Debug)]
pub enum Input<D> {
    /// The peer sent this.
    Frame(Frame),
    /// The action was done.
    Done(ActionId, D),
    /// The store may have something new; see [`Store::on_news`](super::Store::on_news).
    News,
    /// The program wants something.
    Command(Command),
    /// The carrier says that nothing will come any more.
    Closed,
    /// Time has passed.
    Tick,
}

/// What the program wants of a session. A hub's session knows
/// [`Command::Shutdown`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Get these chunks; [`Event::Fetched`] tells when they are here.
    Fetch {
        /// A number of the program's own.
        id: u64,
        /// The chunks, each with one that is here and may be like it.
        chunks: Vec<Wanted>,
        /// 0 is served first. What a transfer needs has 8.
        priority: u8,
    },
    /// Push everything that was edited before this, and follow the hub to a
    /// commit after it; [`Event::Fenced`] tells when.
    Fence {
        /// A number of the program's own.
        id: u64,
    },
    /// Apply the cut that is halted.
    Proceed,
    /// End the connection.
    Shutdown,
}

/// What a driver has to do or to know.
#[derive(Clone, Debug)]
pub enum Output<A> {
    /// Send this. Frames of lane 0 keep their order.
    Transmit(Frame),
    /// Do this.
    Action(ActionId, A),
    /// Something happened that the program may want to know.
    Event(Event),
    /// Nothing until an input, or until then: give [`Input::Tick`] at that time.
    Wait(Option<Duration>),
    /// It is over, when all is sent that was to be transmitted before. There are
    /// no other outputs after this but [`Output::Wait`].
    Close(Ended),
}

/// What a program may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer is there and taken.
    Connected {
        /// What holds for the connection.
        agreement: Agreement,
        /// The hub's last commit.
        head: Cursor,
        /// A number for the logs of both.
        session: u64,
    },
    /// The replica begins anew.
    Reset {
        /// Why.
        why: Why,
    },
    /// The replica has the hub's tree at this cursor.
    CutApplied {
        /// The cursor.
        cursor: Cursor,
        /// How many changes led there.
        changes: u64,
    },
    /// Everything is here that the hub has committed so far.
    Live {
        /// Its last commit.
        cursor: Cursor,
    },
    /// The hub has committed a batch.
    Pushed {
        /// The batch.
        batch: u64,
        /// The commit that it became.
        seq: Seq,
        /// What did not simply take effect, by the index of the edit.
        outcomes: Vec<(u32, Outcome)>,
    },
    /// The hub does not take a batch.
    NotPushed {
        /// The batch.
        batch: u64,
        /// Why.
        code: Code,
        /// Why, for people.
        detail: String,
        /// When it is pushed again, from now, whether the hub named a time or not;
        /// `None` for not in this session.
        retry_after: Option<Duration>,
    },
    /// What became of the edits of others.
    Report(Report),
    /// A cut would remove most of the tree: [`Command::Proceed`] applies it.
    Halted {
        /// Nodes that would go.
        removed: u64,
        /// Nodes that there are.
        of: u64,
    },
    /// Chunks that were to be fetched are here.
    Fetched {
        /// The number of the command.
        id: u64,
        /// But for these: why not.
        missing: Vec<(ChunkHash, Code)>,
    },
    /// Everything that was edited before a fence is pushed, and the hub followed
    /// to a commit after it; or why not.
    Fenced {
        /// The number of the command.
        id: u64,
        /// The commit.
        cursor: Result<Cursor, Code>,
    },
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Ended {
    /// Who ended it.
    pub by: By,
    /// Why.
    pub code: Code,
    /// Why, for people.
    pub detail: String,
    /// When to try again, if whoever ended it says so.
    pub retry_after: Option<Duration>,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This side.
    Us,
    /// The peer.
    Peer,
    /// The carrier, without a word of the peer.
    Carrier,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Us => "this side",
            By::Peer => "the peer",
            By::Carrier => "the carrier",
        };
        write!(f, "{by} ended the session: {}", self.code)?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail)
    }
}

impl Ended {
    /// Whether it would end in the same way again, so that there is no use in
    /// trying before somebody has changed something.
    pub fn is_final(&self) -> bool {
        let codes = [
            Code::VERSION,
            Code::AUTH,
            Code::WORKSPACE,
            Code::UNSUPPORTED,
            Code::REPLICA_FORKED,
            Code::TAG_TAKEN,
        ];
        self.by != By::Carrier && self.retry_after.is_none() && codes.contains(&self.code)
    }
}

/// What a session has sent and received. Bytes are those of frames with their
/// headers, before a carrier adds its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// How many times something was asked that could not have been asked before
    /// the answer to what was asked before: the longest such sequence. Of a
    /// client; a hub does not ask.
    pub round_trips: u64,
    /// Changes sent or received.
    pub changes: u64,
    /// Chunks sent.
    pub chunks_sent: u64,
    /// Chunks received.
    pub chunks_received: u64,
    /// Chunks that are asked for and not here yet.
    pub chunks_wanted: u64,
    /// Batches committed.
    pub batches: u64,
}

/// One end of a connection.
pub trait Session {
    /// What it asks of its store.
    type Action;
    /// What the store answers.
    type Done;

    /// Takes an input.
    fn handle(&mut self, now: Duration, input: Input<Self::Done>);

    /// The next output: take them until one is [`Output::Wait`].
    #[must_use]
    fn poll(&mut self) -> Output<Self::Action>;

    /// Bytes of a payload that the peer may send now.
    fn frame_max(&self) -> usize;

    /// What was sent and received.
    fn counters(&self) -> Counters;
}
