//! What a client hears: from the hub, and from its program.

use super::intake::{Confirmed, Item};
use super::{ClientSession, Phase, unexpected};
use crate::session::greeting::{Agreement, agree};
use crate::session::io::{By, Command, Event, Input};
use crate::session::link::{Fault, Step, after};
use crate::session::store::ClientDone;
use crate::wire::{
    About, Capabilities, Changes, Chunks, Code, Cut, Error, Frame, Hello, IS_CUT, Message, Report,
    Reset, Role, Start, Welcome,
};

impl ClientSession {
    pub(super) fn input(&mut self, input: Input<ClientDone>) -> Step {
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

    pub(super) fn command(&mut self, command: Command) {
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

    pub(super) fn frame(&mut self, frame: Frame) -> Step {
        self.link.received(&frame)?;
        let open = matches!(self.phase, Phase::Open(_));
        match frame.kind {
            Changes::KIND | Cut::KIND | Report::KIND if open => {
                if self.reset.is_some() {
                    return Err(Fault::state("a change after Reset", "nothing"));
                }
                self.subscribed = None;
                self.live = false;
                self.intake.push(Item::Told(frame));
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

    pub(super) fn greeted(&mut self, hello: &Hello) -> Step {
        let agreement = agree(Role::Client, &self.config.offer, hello);
        let agreement = agreement.map_err(|error| Fault::new(error.code(), error))?;
        self.phase = Phase::Greeted(agreement);
        Ok(())
    }

    pub(super) fn welcome(&mut self, agreement: Agreement, welcome: &Welcome) -> Step {
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

    pub(super) fn message(&mut self, message: Message) -> Step {
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
                let (seq, chain) = (ack.seq, ack.chain);
                let is_cut = ack.ext.iter().any(|(key, _)| *key == IS_CUT);
                let (edits, depth) = self.push.acked(ack)?;
                self.answered(depth);
                self.link.counters.batches += 1;
                self.pushed(event);
                if is_cut {
                    self.confirmed(Confirmed { seq, chain, edits })?;
                }
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
            Message::Want(want) if self.gives() => self.gives.asked(want),
            Message::Error(error) => self.error(&error),
            other => Err(unexpected(
                &other,
                "Changes, Cut, Reset, Need, PushAck, Chunks, Missing or FenceOk",
            )),
        }
    }

    /// The answer to a batch is the cut with its commit.
    pub(super) fn confirmed(&mut self, confirmed: Confirmed) -> Step {
        let agreed = self.agreement()?.capabilities;
        let plain = self.push.ack().is_some_and(|ack| ack.outcomes.is_empty());
        if !plain || !agreed.has(Capabilities::CONFIRM) {
            let got = "PushAck that is a cut";
            return Err(Fault::state(got, "one that is not"));
        }
        self.intake.push(Item::Confirmed(confirmed));
        Ok(())
    }

    /// Whether the hub may ask for what it has lost.
    fn gives(&self) -> bool {
        let agreed = self.agreement().map(|agreed| agreed.capabilities);
        agreed.is_ok_and(|agreed| agreed.has(Capabilities::GIVES))
    }

    /// The answer came to something that was asked at this depth.
    pub(super) fn answered(&mut self, depth: u64) {
        let trips = &mut self.link.counters.round_trips;
        *trips = (*trips).max(depth + 1);
    }

    pub(super) fn pushed(&mut self, mut event: Event) {
        if let (Event::Pushed { outcomes, .. }, Some(ack)) = (&mut event, self.push.ack()) {
            *outcomes = ack.outcomes.to_vec();
        }
        self.link.event(event);
    }

    pub(super) fn reset(&mut self, reset: Reset) -> Step {
        match self.subscribed.take() {
            Some(Start::At(_)) if self.epoch == Some(reset.epoch) => {}
            _ => return Err(Fault::state("Reset", "it after Subscribe from a cursor")),
        }
        self.link.event(Event::Reset { why: reset.why });
        self.reset = Some(reset);
        Ok(())
    }

    pub(super) fn error(&mut self, error: &Error) -> Step {
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
}
