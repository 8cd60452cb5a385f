//! A hub's end of a connection: it tells one client of its commits, takes its
//! batches, and gives it chunks.
//!
//! | module | owns |
//! | --- | --- |
//! | `feed` | the changes that the client is told, and fences |
//! | `batches` | what the client pushes |
//! | `requests` | the chunks that it asks for |

mod batches;
mod feed;
mod requests;

use std::collections::VecDeque;
use std::time::Duration;

use self::batches::{Batches, Next, Refused};
use self::feed::{Feed, PART, Page};
use self::requests::Requests;
use super::client::{send_all, unexpected};
use super::greeting::{Agreement, Offer, agree};
use super::io::{By, Command, Counters, Event, Input, Output, Session};
use super::link::{Fault, Link, Row, Step, after, millis, size};
use super::store::{Admission, HubAction, HubDone, StoreFailure};
use super::supply;
use crate::cursor::Epoch;
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::wire::{
    About, Chunks, Code, Error, Ext, Frame, Hello, List, Message, Outcomes, Push, PushAck, Reset,
    Role, Subscribe, Text, Token, Welcome, Why,
};

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
    /// The chunks that the store is keeping, and the bytes they came in.
    storing: Option<(Vec<ChunkHash>, u64)>,
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
            chunks: VecDeque::new(),
            storing: None,
            out: VecDeque::new(),
        }
    }

    /// Whether the client was taken.
    pub fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    // What comes in.

    fn input(&mut self, input: Input<HubDone>) -> Step {
        match input {
            Input::Frame(frame) => self.frame(frame)?,
            Input::Done(id, done) => {
                if let Some(row) = self.link.done(id) {
                    self.done(row, done)?;
                }
            }
            Input::News => self.feed.news(),
            Input::Command(Command::Shutdown) => self.link.goodbye(),
            Input::Closed => {
                let fault = Fault::new(Code::SHUTDOWN, "the connection was lost");
                self.link.end(By::Carrier, fault);
            }
            Input::Command(_) | Input::Tick => {}
        }
        self.link.tick()
    }

    fn frame(&mut self, frame: Frame) -> Step {
        self.link.received(&frame)?;
        if frame.kind == Chunks::KIND && self.is_admitted() {
            self.chunks.push_back(frame);
            return Ok(());
        }
        let Some(message) = Message::from_frame(&frame)? else {
            return Ok(());
        };
        let Some(message) = self.link.common(message)? else {
            return Ok(());
        };
        match (&mut self.phase, message) {
            (Phase::Greeting, Message::Hello(hello)) => self.greeted(hello),
            (Phase::Greeting, other) => Err(unexpected(&other, "Hello")),
            (Phase::Admitting(_, waits @ None), Message::Subscribe(subscribe)) => {
                *waits = Some(subscribe);
                Ok(())
            }
            (Phase::Admitting(..), other) => Err(unexpected(&other, "nothing before Welcome")),
            (Phase::Open(client), message) => {
                let client = *client;
                if let Message::Push(push) = message {
                    let size = size(&frame);
                    self.push(client, push, size)
                } else {
                    self.message(client, message)
                }
            }
        }
    }

    fn greeted(&mut self, hello: Hello) -> Step {
        let agreement = agree(Role::Hub, &self.config.offer, &hello);
        let agreement = agreement.map_err(|error| Fault::new(error.code(), error))?;
        let greeting = Hello {
            version_min: self.config.offer.version_min,
            version_max: self.config.offer.version_max,
            role: Role::Hub,
            workspace: hello.workspace,
            replica: self.config.replica,
            token: Token::default(),
            capabilities: self.config.offer.capabilities,
            limits: self.config.offer.limits,
            agent: Text::cut(&self.config.agent),
            ext: Ext::default(),
        };
        self.link.send(&greeting.into());
        self.phase = Phase::Admitting(agreement, None);
        let admit = HubAction::Admit(Box::new(hello));
        self.link.act(Row::Intake, admit);
        Ok(())
    }

    fn message(&mut self, client: Client, message: Message) -> Step {
        match message {
            Message::Subscribe(subscribe) => self.subscribe(&subscribe),
            Message::Applied(applied) => {
                self.feed.applied(applied.cursor);
                Ok(())
            }
            Message::Want(want) => self.requests.add(want, client.agreement.limits),
            Message::Missing(missing) => {
                // Without the chunk there is no batch.
                if self.batches.waits_for_chunks(missing.request) {
                    self.refuse(&Refused {
                        batch: missing.request,
                        code: Code::CHUNK_MISSING,
                        detail: "the replica does not have a chunk of its batch".to_owned(),
                    });
                }
                Ok(())
            }
            Message::Fence(fence) => self.feed.fence(fence.nonce),
            Message::SetScope(_) => Err(Fault::new(Code::UNSUPPORTED, "scopes are not here yet")),
            other => Err(unexpected(
                &other,
                "Subscribe, Applied, Push, Chunks, Want, Missing or Fence",
            )),
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Step {
        let Phase::Open(client) = &mut self.phase else {
            return Ok(());
        };
        if client.subscribing || self.feed.is_subscribed() {
            return Err(Fault::state("Subscribe", "it once, and again after Reset"));
        }
        if subscribe.scope != crate::Scope::ALL {
            return Err(Fault::new(Code::SCOPE, "scopes are not here yet"));
        }
        client.subscribing = true;
        self.feed.subscribe(subscribe.from);
        Ok(())
    }

    fn push(&mut self, client: Client, push: Push, size: u64) -> Step {
        if !self.feed.is_subscribed() {
            return Err(Fault::state("Push", "it after the first changes"));
        }
        self.link.consumed(Push::KIND, size);
        let (batch, part) = (push.batch, push.part);
        let refusal = |code, detail: &str| Refused {
            batch,
            code,
            detail: detail.to_owned(),
        };
        if !client.may_push {
            if part == 0 {
                self.refuse(&refusal(Code::READ_ONLY, "the token allows to read only"));
            }
            return Ok(());
        }
        if push.seen.epoch != client.epoch {
            self.refuse(&refusal(Code::EPOCH, "the edits are of another history"));
            return Ok(());
        }
        self.batches.part(push, client.agreement.limits)
    }

    /// Tells the client that its batch is not taken.
    fn refuse(&mut self, refused: &Refused) {
        self.refuse_until(refused, None);
    }

    fn refuse_until(&mut self, refused: &Refused, retry_after: Option<Duration>) {
        self.batches.refuse(refused.batch);
        self.error(
            About::Batch(refused.batch),
            refused.code,
            &refused.detail,
            retry_after,
        );
    }

    fn error(&mut self, about: About, code: Code, detail: &str, retry_after: Option<Duration>) {
        let message = Error {
            code,
            about,
            retry_after_ms: millis(retry_after),
            detail: Text::cut(detail),
            ext: Ext::default(),
        };
        self.link.send(&message.into());
    }

    // What the store answers.

    fn done(&mut self, row: Row, done: HubDone) -> Step {
        match (row, done) {
            (row, HubDone::Failed(failure)) => self.failed(row, failure),
            (Row::Intake, HubDone::Admitted(admission)) => self.admitted(&admission),
            (Row::Intake, HubDone::Subscribed(result)) => self.subscribed(result),
            (
                Row::Intake,
                HubDone::Page {
                    changes,
                    reports,
                    next,
                    cut,
                },
            ) => {
                let page = Page {
                    changes,
                    reports,
                    next,
                    cut,
                };
                self.page(page)
            }
            (Row::Intake, HubDone::Noted) => Ok(()),
            (Row::Push, HubDone::Offered(missing)) => {
                for need in self.batches.offered(&missing)? {
                    self.link.send(&need.into());
                }
                Ok(())
            }
            (Row::Push, HubDone::Committed(ack)) => self.committed(*ack),
            (Row::Store, HubDone::Stored { refused }) => self.stored(&refused),
            (
                Row::Read,
                HubDone::Chunks {
                    chunks,
                    taken,
                    missing,
                },
            ) => {
                let (request, missing) = self.requests.read(taken, missing)?;
                self.link.counters.chunks_sent += chunks.len() as u64;
                let limit = self.client()?.agreement.limits.frame;
                self.out.extend(supply::frames(request, chunks, limit)?);
                if let Some(missing) = missing {
                    self.link.send(&missing.into());
                }
                Ok(())
            }
            _ => Err(Fault::answer("the action")),
        }
    }

    /// Fails what the action was for: a batch, a request, or the session.
    fn failed(&mut self, row: Row, failure: StoreFailure) -> Step {
        let retry_after = after(failure.retry_after_ms);
        match (row, self.batches.number()) {
            (_, _) if [Code::INTERNAL, Code::SHUTDOWN].contains(&failure.code) => {
                Err(failure.into())
            }
            (Row::Push, Some(batch)) => {
                let StoreFailure { code, detail, .. } = failure;
                let refused = Refused {
                    batch,
                    code,
                    detail,
                };
                self.refuse_until(&refused, retry_after);
                self.release_page()
            }
            (Row::Store, batch) => {
                let (_, size) = self.storing.take().unwrap_or_default();
                self.link.consumed(Chunks::KIND, size);
                if let Some(batch) = batch {
                    let StoreFailure { code, detail, .. } = failure;
                    let refused = Refused {
                        batch,
                        code,
                        detail,
                    };
                    self.refuse_until(&refused, retry_after);
                }
                Ok(())
            }
            (Row::Read, _) => {
                if let Some(request) = self.requests.failed() {
                    let about = About::Request(request);
                    self.error(about, failure.code, &failure.detail, retry_after);
                }
                Ok(())
            }
            (Row::Intake | Row::Push, _) => Err(failure.into()),
        }
    }

    fn client(&self) -> Result<Client, Fault> {
        match self.phase {
            Phase::Open(client) => Ok(client),
            _ => Err(Fault::new(Code::INTERNAL, "nothing is agreed yet")),
        }
    }

    fn admitted(&mut self, admission: &Admission) -> Step {
        let Phase::Admitting(agreement, waits) = &mut self.phase else {
            return Err(Fault::answer("the action"));
        };
        let (agreement, waits) = (*agreement, waits.take());
        let welcome = Welcome {
            version: agreement.version,
            epoch: admission.head.epoch,
            head: admission.head,
            capabilities: agreement.capabilities,
            limits: agreement.limits,
            last_batch: admission.last_batch,
            last_batch_digest: admission.last_batch_digest,
            session: admission.session,
            ext: Ext::default(),
        };
        self.link.send(&welcome.into());
        self.link.welcome(agreement.limits.frame);
        self.phase = Phase::Open(Client {
            agreement,
            epoch: admission.head.epoch,
            may_push: admission.may_push,
            subscribing: false,
        });
        self.link.event(Event::Connected {
            agreement,
            head: admission.head,
            session: admission.session,
        });
        waits.map_or(Ok(()), |subscribe| self.subscribe(&subscribe))
    }

    fn subscribed(&mut self, result: Result<crate::Seq, (Why, crate::Seq)>) -> Step {
        let Phase::Open(client) = &mut self.phase else {
            return Err(Fault::answer("the action"));
        };
        client.subscribing = false;
        match result {
            Ok(after) => self.feed.subscribed(after),
            Err((why, horizon)) => {
                let reset = Reset {
                    why,
                    epoch: client.epoch,
                    horizon,
                    ext: Ext::default(),
                };
                self.link.send(&reset.into());
                self.link.event(Event::Reset { why });
            }
        }
        Ok(())
    }

    fn page(&mut self, page: Page) -> Step {
        if self.batches.is_committing() {
            // The client has to have the answer before the cut with the commit.
            self.feed.stash(page);
            return Ok(());
        }
        let limits = self.client()?.agreement.limits;
        self.link.counters.changes += self.feed.page(page, limits)?;
        Ok(())
    }

    fn release_page(&mut self) -> Step {
        self.feed.unstash().map_or(Ok(()), |page| self.page(page))
    }

    fn committed(&mut self, mut ack: PushAck) -> Step {
        if !self.batches.is_committing() {
            return Err(Fault::answer("the action"));
        }
        let (batch, seq) = (ack.batch, ack.seq);
        let outcomes = ack.outcomes.to_vec();
        // What has no room in the answer goes before it.
        let (last, before) = match outcomes.len().checked_sub(PART) {
            Some(rest) => (outcomes[rest..].to_vec(), &outcomes[..rest]),
            None => (outcomes.clone(), &[][..]),
        };
        for part in before.chunks(PART) {
            let message = Outcomes {
                batch,
                outcomes: List::try_from(part.to_vec()).unwrap_or_default(),
                ext: Ext::default(),
            };
            self.link.send(&message.into());
        }
        ack.outcomes = List::try_from(last).unwrap_or_default();
        self.link.send(&ack.into());
        self.batches.committed();
        self.link.counters.batches += 1;
        self.link.event(Event::Pushed {
            batch,
            seq,
            outcomes,
        });
        self.feed.news();
        self.release_page()
    }

    fn stored(&mut self, refused: &[(ChunkHash, Code)]) -> Step {
        let Some((hashes, size)) = self.storing.take() else {
            return Err(Fault::answer("the action"));
        };
        self.link.consumed(Chunks::KIND, size);
        match self.batches.stored(&hashes, refused) {
            Ok(needs) => {
                for need in needs {
                    self.link.send(&need.into());
                }
            }
            Err(why) => self.refuse(&why),
        }
        Ok(())
    }

    // What can be done next.

    fn proceed(&mut self) -> Step {
        let Phase::Open(client) = self.phase else {
            return Ok(());
        };
        self.proceed_batches()?;
        self.proceed_chunks()?;
        if self.batches.is_idle() {
            self.feed.all_committed();
        }
        send_all(&mut self.link, &mut self.feed.out);
        if self.link.is_free(Row::Intake)
            && let Some(action) = self.feed.next()
        {
            self.link.act(Row::Intake, action);
        }
        send_all(&mut self.link, &mut self.out);
        let credit = self.link.bulk_credit();
        let budget = supply::budget(client.agreement.limits.frame, credit);
        if let Some(budget) = budget.filter(|_| self.out.is_empty())
            && self.link.is_free(Row::Read)
            && let Some(action) = self.requests.next(budget)
        {
            self.link.act(Row::Read, action);
        }
        Ok(())
    }

    fn proceed_batches(&mut self) -> Step {
        let free = (self.link.is_free(Row::Push), self.link.is_free(Row::Store));
        match self.batches.next(free.0, free.1) {
            Next::Wait => {}
            Next::Push(action) => self.link.act(Row::Push, action),
            Next::Store(action) => {
                let HubAction::Store { chunks } = &action else {
                    return Err(Fault::answer("the action"));
                };
                let hashes = chunks.iter().map(|chunk| chunk.hash).collect();
                self.storing = Some((hashes, 0));
                self.link.act(Row::Store, action);
            }
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
            // What nobody needs any more came too late: its batch was refused.
            let mut chunks = message.chunks.into_vec();
            chunks.retain(|chunk| self.batches.needs(&chunk.hash));
            if chunks.is_empty() {
                self.link.consumed(frame.kind, size(&frame));
                continue;
            }
            self.link.counters.chunks_received += chunks.len() as u64;
            let hashes = chunks.iter().map(|chunk| chunk.hash).collect();
            self.storing = Some((hashes, size(&frame)));
            self.link.act(Row::Store, HubAction::Store { chunks });
        }
        Ok(())
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
        let step = self.input(input);
        let step = step.and_then(|()| match self.link.is_ended() {
            false => self.proceed(),
            true => Ok(()),
        });
        if let Err(fault) = step {
            self.link.fail(fault);
        }
    }

    fn poll(&mut self) -> Output<HubAction> {
        self.link.poll(None)
    }

    fn frame_max(&self) -> usize {
        self.link.frame_max()
    }

    fn counters(&self) -> Counters {
        self.link.counters
    }
}
