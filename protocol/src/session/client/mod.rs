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
//! | `fences` | who waits for all of that |
//!
//! After a connection has ended, a new session goes on from what the store has:
//! nothing that counts is in here.

mod fences;
mod intake;
mod push;
mod wants;

use std::collections::VecDeque;
use std::time::Duration;

use self::fences::Fences;
use self::intake::{Done, Intake, Next};
use self::push::Pushing;
use self::wants::Wants;
use super::greeting::{Agreement, Offer, agree};
use super::io::{By, Command, Counters, Event, Input, Output, Session};
use super::link::{BULK, Fault, Link, Row, Step, after, size};
use super::store::{ClientAction, ClientDone};
use super::supply;
use crate::cursor::{Cursor, Scope};
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::wire::{
    About, Applied, Changes, Chunks, Code, Cut, Error, Ext, Fence, Frame, Hello, Hydrate, Message,
    Report, Reset, Role, Start, Subscribe, Text, Token, Welcome, Why,
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

    // What comes in.

    fn input(&mut self, input: Input<ClientDone>) -> Step {
        match input {
            Input::Frame(frame) => self.frame(frame)?,
            Input::Done(id, done) => {
                if let Some(row) = self.link.done(id) {
                    self.done(row, done)?;
                }
            }
            Input::News => self.push.news(),
            Input::Command(command) => self.command(command),
            Input::Closed => {
                let fault = Fault::new(Code::SHUTDOWN, "the connection was lost");
                self.link.end(By::Carrier, fault);
            }
            Input::Tick => {}
        }
        self.link.tick()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Fetch {
                id,
                chunks,
                priority,
            } => self.wants.fetch(id, chunks, priority),
            Command::Fence { id } => {
                self.fences.add(id);
                self.push.news();
            }
            Command::Proceed => self.intake.proceed(),
            Command::Shutdown => self.link.goodbye(),
        }
    }

    fn frame(&mut self, frame: Frame) -> Step {
        self.link.received(&frame)?;
        let open = matches!(self.phase, Phase::Open(_));
        match frame.kind {
            Changes::KIND | Cut::KIND | Report::KIND if open => {
                if self.reset.is_some() {
                    return Err(Fault::state("a change after Reset", "nothing"));
                }
                self.subscribed = None;
                self.live = false;
                self.intake.push(frame);
                return Ok(());
            }
            Chunks::KIND if open => {
                self.chunks.push_back(frame);
                return Ok(());
            }
            _ => {}
        }
        let Some(message) = Message::from_frame(&frame)? else {
            return Ok(());
        };
        let Some(message) = self.link.common(message)? else {
            return Ok(());
        };
        match (&self.phase, message) {
            (Phase::Greeting, Message::Hello(hello)) => self.greeted(&hello),
            (Phase::Greeting, other) => Err(unexpected(&other, "Hello")),
            (Phase::Greeted(agreement), Message::Welcome(welcome)) => {
                let agreement = *agreement;
                self.welcome(agreement, &welcome)
            }
            (Phase::Greeted(_), other) => Err(unexpected(&other, "Welcome")),
            (Phase::Open(_), message) => self.message(message),
        }
    }

    fn greeted(&mut self, hello: &Hello) -> Step {
        let agreement = agree(Role::Client, &self.config.offer, hello);
        let agreement = agreement.map_err(|error| Fault::new(error.code(), error))?;
        self.phase = Phase::Greeted(agreement);
        Ok(())
    }

    fn welcome(&mut self, agreement: Agreement, welcome: &Welcome) -> Step {
        let said = (welcome.version, welcome.capabilities, welcome.limits);
        if said != (agreement.version, agreement.capabilities, agreement.limits) {
            return Err(Fault::new(Code::MALFORMED, "the hub agrees on other terms"));
        }
        let mut known = (self.config.last_batch, self.config.last_batch_digest);
        if let Start::At(cursor) = self.config.start
            && cursor.epoch != welcome.epoch
        {
            // Another store: what it says of batches is of its own history.
            known = (u64::MAX, None);
        }
        self.push.welcome(welcome, known.0, known.1)?;
        self.epoch = Some(welcome.epoch);
        self.link.welcome(agreement.limits.frame);
        self.link.counters.round_trips = 1;
        self.phase = Phase::Open(agreement);
        self.link.event(Event::Connected {
            agreement,
            head: welcome.head,
            session: welcome.session,
        });
        Ok(())
    }

    fn message(&mut self, message: Message) -> Step {
        match message {
            Message::Reset(reset) => self.reset(reset),
            Message::Need(need) => {
                let depth = self.push.need(&need, self.link.counters.round_trips)?;
                self.answered(depth);
                Ok(())
            }
            Message::Outcomes(outcomes) => self.push.outcomes(outcomes),
            Message::PushAck(ack) => {
                let event = Event::Pushed {
                    batch: ack.batch,
                    seq: ack.seq,
                    outcomes: Vec::new(),
                };
                let depth = self.push.acked(ack)?;
                self.answered(depth);
                self.link.counters.batches += 1;
                self.pushed(event);
                Ok(())
            }
            Message::Missing(missing) => {
                let hashes = missing.chunks.iter().copied();
                let (missing, depth) = self.wants.came(missing.request, hashes)?;
                self.answered(depth);
                missing
                    .into_iter()
                    .try_for_each(|hash| self.wants.end(hash, Some(Code::CHUNK_MISSING)))
            }
            Message::FenceOk(ok) => {
                let depth = self.fences.answered(ok.nonce, ok.cursor);
                let depth = depth.ok_or_else(|| Fault::state("FenceOk", "no answer"))?;
                self.answered(depth);
                self.fences_passed();
                Ok(())
            }
            Message::Error(error) => self.error(&error),
            other => Err(unexpected(
                &other,
                "Changes, Cut, Reset, Need, PushAck, Chunks, Missing or FenceOk",
            )),
        }
    }

    /// The answer came to something that was asked at this depth.
    fn answered(&mut self, depth: u64) {
        let trips = &mut self.link.counters.round_trips;
        *trips = (*trips).max(depth + 1);
    }

    fn pushed(&mut self, mut event: Event) {
        if let (Event::Pushed { outcomes, .. }, Some(ack)) = (&mut event, self.push.ack()) {
            *outcomes = ack.outcomes.to_vec();
        }
        self.link.event(event);
    }

    fn reset(&mut self, reset: Reset) -> Step {
        match self.subscribed.take() {
            Some(Start::At(_)) if self.epoch == Some(reset.epoch) => {}
            _ => return Err(Fault::state("Reset", "it after Subscribe from a cursor")),
        }
        self.link.event(Event::Reset { why: reset.why });
        self.reset = Some(reset);
        Ok(())
    }

    fn error(&mut self, error: &Error) -> Step {
        let retry_after = after(error.retry_after_ms);
        match error.about {
            About::Batch(batch) => {
                let now = self.link.now();
                let again = self.push.refused(now, batch, error.code, retry_after)?;
                self.supplies.clear();
                self.link.event(Event::NotPushed {
                    batch,
                    code: error.code,
                    detail: error.detail.to_string(),
                    retry_after: again,
                });
                Ok(())
            }
            About::Request(request) => self.wants.refused(request, error.code),
            About::Connection => Ok(()),
        }
    }

    // What the store answers.

    fn done(&mut self, row: Row, done: ClientDone) -> Step {
        match (row, done) {
            (_, ClientDone::Failed(failure)) => Err(failure.into()),
            (Row::Intake, ClientDone::Staged { wanted }) => {
                self.intake.staged()?;
                self.wants.transfer(wanted)
            }
            (Row::Intake, ClientDone::Applied(applied)) => {
                let done = self.intake.applied(applied)?;
                self.applied(done)
            }
            (Row::Intake, ClientDone::Reset { from }) => {
                self.intake.restarted(from)?;
                if self.lost_batches {
                    return Err(Fault::new(Code::FORKED, "the hub has lost batches"));
                }
                self.subscribe(from);
                Ok(())
            }
            (Row::Push, ClientDone::Batch(offer)) => self.batch(offer),
            (
                Row::Push,
                ClientDone::Chunks {
                    chunks,
                    taken,
                    missing,
                },
            ) => {
                let Some((request, missing)) = self.push.supplied(taken, missing)? else {
                    return Ok(());
                };
                self.link.counters.chunks_sent += chunks.len() as u64;
                let limit = self.agreement()?.limits.frame;
                self.supplies
                    .extend(supply::frames(request, chunks, limit)?);
                if let Some(missing) = missing {
                    self.link.send(&missing.into());
                }
                Ok(())
            }
            (Row::Store, ClientDone::Stored { refused }) => self.stored(&refused),
            _ => Err(Fault::answer("the action")),
        }
    }

    fn agreement(&self) -> Result<Agreement, Fault> {
        match self.phase {
            Phase::Open(agreement) => Ok(agreement),
            _ => Err(Fault::new(Code::INTERNAL, "nothing is agreed yet")),
        }
    }

    fn applied(&mut self, done: Done) -> Step {
        match done {
            Done::Applied {
                cursor,
                changes,
                acked,
            } => {
                if acked {
                    self.push.applied();
                }
                self.wants.forget();
                self.link.counters.changes += changes;
                self.link.event(Event::CutApplied { cursor, changes });
                let ext = Ext::default();
                self.link.send(&Applied { cursor, ext }.into());
                self.fences_passed();
            }
            Done::Halted { removed, of } => self.link.event(Event::Halted { removed, of }),
            Done::Wants(chunks) => self.wants.transfer(chunks)?,
            Done::Held => {}
        }
        Ok(())
    }

    fn batch(&mut self, offer: Option<Box<super::store::BatchOffer>>) -> Step {
        let nothing = offer.is_none();
        let limits = self.agreement()?.limits;
        let depth = self.link.counters.round_trips;
        if !self.push.batch(offer, limits, depth)? {
            // The store has to begin anew, and so has the session.
            self.lost_batches = true;
            self.reset = self.epoch.map(|epoch| Reset {
                why: Why::Forked,
                epoch,
                horizon: 0,
                ext: Ext::default(),
            });
        }
        if nothing && let Some(nonce) = self.fences.nothing_to_push(depth) {
            let ext = Ext::default();
            self.link.send(&Fence { nonce, ext }.into());
        }
        Ok(())
    }

    fn stored(&mut self, refused: &[(ChunkHash, Code)]) -> Step {
        let Some((hashes, size)) = self.storing.take() else {
            return Err(Fault::answer("the action"));
        };
        self.link.consumed(Chunks::KIND, size);
        for hash in hashes {
            match refused.iter().find(|(other, _)| *other == hash) {
                None => self.wants.stored(hash)?,
                Some((_, code)) => self.wants.retry(hash, *code)?,
            }
        }
        Ok(())
    }

    fn fences_passed(&mut self) {
        let Some(at) = self.intake.cursor() else {
            return;
        };
        for (id, cursor) in self.fences.reached(at.seq) {
            let cursor = Ok(cursor);
            self.link.event(Event::Fenced { id, cursor });
        }
        if self.fences.is_waiting() {
            self.push.news();
        }
    }

    // What can be done next.

    fn proceed(&mut self) -> Step {
        let Phase::Open(agreement) = self.phase else {
            return Ok(());
        };
        self.proceed_intake()?;
        self.proceed_chunks()?;
        while let Some(want) = {
            let most = usize::try_from(agreement.limits.wants).unwrap_or(usize::MAX);
            self.wants.request(most, self.link.counters.round_trips)
        } {
            self.link.send(&want.into());
        }
        self.proceed_push(agreement);
        for (id, missing) in std::mem::take(&mut self.wants.fetched) {
            self.link.event(Event::Fetched { id, missing });
        }
        self.link.counters.chunks_wanted = self.wants.len() as u64;
        Ok(())
    }

    fn proceed_intake(&mut self) -> Step {
        while self.link.is_free(Row::Intake) {
            if let Some(reset) = self.reset.take() {
                let last = self.push.last_batch();
                let action = self.intake.reset(reset.why, reset.epoch, last);
                self.link.act(Row::Intake, action);
                return Ok(());
            }
            let here = self.wants.transfer_is_done();
            let next = self
                .intake
                .next(self.push.ack(), here, self.wants.is_full())?;
            for (kind, size) in self.intake.consumed.drain(..) {
                self.link.consumed(kind, size);
            }
            match next {
                Next::Wait => break,
                Next::Do(action) => self.link.act(Row::Intake, action),
                Next::Again => {}
            }
        }
        if self.intake.is_idle()
            && self.intake.followed
            && let Some(cursor) = self.intake.cursor()
            && !std::mem::replace(&mut self.live, true)
        {
            self.link.event(Event::Live { cursor });
            self.fences_passed();
        }
        Ok(())
    }

    fn proceed_chunks(&mut self) -> Step {
        while self.link.is_free(Row::Store) {
            let Some(frame) = self.chunks.pop_front() else {
                break;
            };
            let Some(Message::Chunks(message)) = Message::from_frame(&frame)? else {
                break;
            };
            let hashes = message.chunks.iter().map(|chunk| chunk.hash);
            let (hashes, depth) = self.wants.came(message.request, hashes)?;
            self.answered(depth);
            self.link.counters.chunks_received += hashes.len() as u64;
            if hashes.is_empty() {
                self.link.consumed(frame.kind, size(&frame));
                continue;
            }
            self.storing = Some((hashes.into_iter().collect(), size(&frame)));
            let chunks = message.chunks.into_vec();
            self.link.act(Row::Store, ClientAction::Store { chunks });
        }
        Ok(())
    }

    fn proceed_push(&mut self, agreement: Agreement) {
        if let Some(out) = self.push.out() {
            send_all(&mut self.link, out);
        }
        send_all(&mut self.link, &mut self.supplies);
        if let Some(code) = self.push.stopped() {
            for id in self.fences.drain() {
                let cursor = Err(code);
                self.link.event(Event::Fenced { id, cursor });
            }
        }
        if !self.link.is_free(Row::Push) {
            return;
        }
        let budget = supply::budget(agreement.limits.frame, self.link.bulk_credit());
        if let Some(budget) = budget.filter(|_| self.supplies.is_empty())
            && let Some(action) = self.push.supply(budget)
        {
            self.link.act(Row::Push, action);
            return;
        }
        if !self.intake.may_push() {
            return;
        }
        if let Some(action) = self.push.next(self.link.now(), agreement.limits) {
            self.fences.asking();
            self.link.act(Row::Push, action);
        }
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
        let step = self.input(input);
        let step = step.and_then(|()| match self.link.is_ended() {
            false => self.proceed(),
            true => Ok(()),
        });
        if let Err(fault) = step {
            self.link.fail(fault);
        }
    }

    fn poll(&mut self) -> Output<ClientAction> {
        let retry = self
            .push
            .wait_until
            .filter(|_| self.push.stopped().is_none());
        self.link.poll(retry)
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
