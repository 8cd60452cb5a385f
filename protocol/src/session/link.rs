//! What both ends of a connection have: the queue of outputs, the actions under
//! way, credit, timers, counters, and how it ends.

use std::collections::VecDeque;
use std::time::Duration;

use super::credit::{Grant, Spend};
use super::io::{ActionId, By, Counters, Ended, Event, Output};
use super::store::StoreFailure;
use crate::limits::{FRAME_STRANGER, WINDOW_BULK, WINDOW_CONTROL};
use crate::wire::{
    About, Changes, Chunks, Code, Credit, Error, Ext, FRAME_HEADER, Frame, Goodbye, Message, Ping,
    Pong, Push, Report, Text, WireError,
};

/// A peer that says nothing for so long is asked whether it is there.
pub(super) const PING_AFTER: Duration = Duration::from_secs(15);
/// One that says nothing for so long is not.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(45);
/// A peer has to have said who it is by then.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(10);
/// Questions whether this side is there that are answered in `PING_AFTER`.
const PINGS_MAX: u32 = 64;

/// The lane of what has to stay in order.
pub(super) const CONTROL: u8 = 0;
/// The lane of chunks.
pub(super) const BULK: u8 = 1;

/// Why a session has to end.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
}

pub(super) type Step = Result<(), Fault>;

impl Fault {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts and errors are made for this call"
    )]
    pub(super) fn new(code: Code, detail: impl ToString) -> Self {
        Self {
            code,
            detail: detail.to_string(),
            retry_after: None,
        }
    }

    /// The peer sent what is not legal now.
    pub(super) fn state(got: &str, expected: &str) -> Self {
        Self::new(
            Code::STATE,
            format!("{got} is not allowed now; expected {expected}"),
        )
    }

    /// The store answered something else than was asked.
    pub(super) fn answer(asked: &str) -> Self {
        Self::new(Code::INTERNAL, format!("no answer to {asked}"))
    }
}

impl From<StoreFailure> for Fault {
    fn from(failure: StoreFailure) -> Self {
        Self {
            code: failure.code,
            retry_after: after(failure.retry_after_ms),
            detail: failure.detail,
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::new(error.code(), error)
    }
}

/// A time to try again, as messages have it.
pub(super) fn after(millis: u32) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis.into()))
}

pub(super) fn millis(after: Option<Duration>) -> u32 {
    after.map_or(0, |time| {
        u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
    })
}

/// Actions of one row are done one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Changes, in order.
    Intake,
    /// Batches.
    Push,
    /// Chunks that come in.
    Store,
    /// Chunks that go out.
    Read,
}

#[derive(Debug)]
pub(super) struct Link<A> {
    out: VecDeque<Output<A>>,
    actions: u64,
    rows: [Option<ActionId>; 4],
    /// What may be sent, by lane.
    spend: [Spend; 2],
    /// What the peer may send, by lane.
    grant: [Grant; 2],
    pub(super) counters: Counters,
    now: Duration,
    heard: Duration,
    asked: Duration,
    pings: u32,
    pings_since: Duration,
    /// By then the peer has to be known.
    greeting: Option<Duration>,
    frame_max: usize,
    ended: bool,
}

impl<A> Link<A> {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            out: VecDeque::new(),
            actions: 0,
            rows: [None; 4],
            spend: [Spend::new(WINDOW_CONTROL), Spend::new(WINDOW_BULK)],
            grant: [Grant::new(WINDOW_CONTROL), Grant::new(WINDOW_BULK)],
            counters: Counters::default(),
            now,
            heard: now,
            asked: now,
            pings: 0,
            pings_since: now,
            greeting: Some(now + GREETING_MAX),
            frame_max: FRAME_STRANGER,
            ended: false,
        }
    }

    // Time.

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Takes the time, which may stand still but does not go back.
    pub(super) fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// What is due by now.
    pub(super) fn tick(&mut self) -> Step {
        if self.ended {
            return Ok(());
        }
        if self.greeting.is_some_and(|by| by <= self.now) {
            return Err(Fault::new(Code::STATE, "the peer did not say who it is"));
        }
        if self.now.saturating_sub(self.heard) >= IDLE_MAX {
            return Err(Fault::new(Code::STATE, "the peer has gone silent"));
        }
        if self.now >= self.ping_at() {
            self.asked = self.now;
            let nonce = self.counters.frames_sent;
            let ext = Ext::default();
            self.send(&Ping { nonce, ext }.into());
        }
        Ok(())
    }

    fn ping_at(&self) -> Duration {
        self.heard.max(self.asked) + PING_AFTER
    }

    /// The peer is known, and may send frames of this length.
    pub(super) fn welcome(&mut self, frame_max: u32) {
        self.greeting = None;
        self.frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
    }

    pub(super) fn frame_max(&self) -> usize {
        self.frame_max
    }

    // Outputs.

    pub(super) fn poll(&mut self, also_at: Option<Duration>) -> Output<A> {
        self.out.pop_front().unwrap_or_else(|| {
            let idle = self.heard + IDLE_MAX;
            let times = [Some(self.ping_at().min(idle)), self.greeting, also_at];
            let first = times.into_iter().flatten().min();
            Output::Wait(first.filter(|_| !self.ended))
        })
    }

    /// Sends a message of lane 0 that costs no credit.
    pub(super) fn send(&mut self, message: &Message) {
        self.transmit(message.to_frame(CONTROL));
    }

    fn transmit(&mut self, frame: Frame) {
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += size(&frame);
        self.out.push_back(Output::Transmit(frame));
    }

    /// Sends a frame if there is credit for it.
    pub(super) fn try_send(&mut self, frame: Frame) -> Result<(), Frame> {
        let spend = cost_lane(frame.kind).map(|lane| &mut self.spend[lane]);
        if spend.is_some_and(|spend| !spend.take(size(&frame))) {
            return Err(frame);
        }
        self.transmit(frame);
        Ok(())
    }

    /// Bytes of chunks that may be sent.
    pub(super) fn bulk_credit(&self) -> u64 {
        self.spend[1].left()
    }

    pub(super) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    // Actions.

    pub(super) fn is_free(&self, row: Row) -> bool {
        self.rows[row as usize].is_none()
    }

    pub(super) fn act(&mut self, row: Row, action: A) {
        debug_assert!(self.is_free(row), "one action of a row at a time");
        self.actions += 1;
        let id = ActionId(self.actions);
        self.rows[row as usize] = Some(id);
        self.out.push_back(Output::Action(id, action));
    }

    /// Of which row the action was, if it was under way.
    pub(super) fn done(&mut self, id: ActionId) -> Option<Row> {
        let rows = [Row::Intake, Row::Push, Row::Store, Row::Read];
        let row = rows
            .into_iter()
            .find(|row| self.rows[*row as usize] == Some(id));
        self.rows[row? as usize] = None;
        row
    }

    // Frames that come.

    /// Notes a frame that came.
    pub(super) fn received(&mut self, frame: &Frame) -> Step {
        self.heard = self.now;
        self.counters.frames_received += 1;
        self.counters.bytes_received += size(frame);
        if frame.payload.len() > self.frame_max {
            let (len, max) = (frame.payload.len(), self.frame_max);
            return Err(WireError::Oversized { len, max }.into());
        }
        let Some(lane) = cost_lane(frame.kind) else {
            return Ok(());
        };
        if self.grant[lane].take(size(frame)) {
            return Ok(());
        }
        Err(Fault::new(Code::LIMIT, "more bytes came than were granted"))
    }

    /// What came in a frame of this size needs no memory any more.
    pub(super) fn consumed(&mut self, kind: u16, size: u64) {
        let Some(lane) = cost_lane(kind) else {
            return;
        };
        if let Some(bytes) = self.grant[lane].consumed(size) {
            let lane = if lane == 0 { CONTROL } else { BULK };
            let message = Credit {
                lane,
                bytes,
                entries: 0,
                ext: Ext::default(),
            };
            self.send(&message.into());
        }
    }

    /// What is the same for both ends. Returns the message if it is not.
    pub(super) fn common(&mut self, message: Message) -> Result<Option<Message>, Fault> {
        match message {
            Message::Ping(Ping { nonce, .. }) => self.pong(nonce)?,
            Message::Pong(_) => {}
            Message::Credit(credit) => self.credit(&credit)?,
            Message::Goodbye(Goodbye { code, detail, .. }) => {
                self.end(By::Peer, Fault::new(code, &*detail));
            }
            Message::Error(error) if error.about == About::Connection => {
                let fault = Fault {
                    code: error.code,
                    detail: error.detail.to_string(),
                    retry_after: after(error.retry_after_ms),
                };
                self.end(By::Peer, fault);
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn pong(&mut self, nonce: u64) -> Step {
        if self.now.saturating_sub(self.pings_since) >= PING_AFTER {
            (self.pings, self.pings_since) = (0, self.now);
        }
        self.pings += 1;
        if self.pings > PINGS_MAX {
            return Err(Fault::new(Code::LIMIT, "too many pings"));
        }
        let ext = Ext::default();
        self.send(&Pong { nonce, ext }.into());
        Ok(())
    }

    fn credit(&mut self, credit: &Credit) -> Step {
        let lane = usize::from(credit.lane);
        let spend = self.spend.get_mut(lane);
        let spend = spend.ok_or_else(|| Fault::new(Code::MALFORMED, "credit of no lane"))?;
        if spend.add(credit.bytes) {
            return Ok(());
        }
        Err(Fault::new(Code::LIMIT, "credit beyond the window"))
    }

    // The end.

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Ends the session for a fault of the peer, the store or the carrier.
    pub(super) fn fail(&mut self, fault: Fault) {
        if self.ended {
            return;
        }
        let message = Error {
            code: fault.code,
            about: About::Connection,
            retry_after_ms: millis(fault.retry_after),
            detail: Text::cut(&fault.detail),
            ext: Ext::default(),
        };
        self.send(&message.into());
        self.end(By::Us, fault);
    }

    /// Ends the session in peace.
    pub(super) fn goodbye(&mut self) {
        let message = Goodbye {
            code: Code::SHUTDOWN,
            detail: Text::default(),
            ext: Ext::default(),
        };
        self.send(&message.into());
        self.end(By::Us, Fault::new(Code::SHUTDOWN, ""));
    }

    pub(super) fn end(&mut self, by: By, fault: Fault) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.out.push_back(Output::Close(Ended {
            by,
            code: fault.code,
            detail: fault.detail,
            retry_after: fault.retry_after,
        }));
    }
}

/// Bytes of a frame with its header.
pub(super) fn size(frame: &Frame) -> u64 {
    (FRAME_HEADER + frame.payload.len()) as u64
}

/// The account that frames of a kind are paid from.
fn cost_lane(kind: u16) -> Option<usize> {
    match kind {
        Changes::KIND | Report::KIND | Push::KIND => Some(0),
        Chunks::KIND => Some(1),
        _ => None,
    }
}
