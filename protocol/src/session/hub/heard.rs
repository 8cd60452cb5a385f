//! What a hub hears from a client.

use std::time::Duration;

use super::batches::Refused;
use super::lost::Lost;
use super::{Client, HubSession, Phase};
use crate::session::client::unexpected;
use crate::session::greeting::agree;
use crate::session::io::{By, Command, Input};
use crate::session::link::{Fault, Row, Step, millis, size};
use crate::session::store::{HubAction, HubDone};
use crate::wire::{
    About, Chunks, Code, Error, Ext, Frame, Hello, Message, Push, Role, Subscribe, Text, Token,
};

impl HubSession {
    pub(super) fn input(&mut self, input: Input<HubDone>) -> Step {
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

    pub(super) fn frame(&mut self, frame: Frame) -> Step {
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

    pub(super) fn greeted(&mut self, hello: Hello) -> Step {
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

    pub(super) fn message(&mut self, client: Client, message: Message) -> Step {
        match message {
            Message::Subscribe(subscribe) => self.subscribe(&subscribe),
            Message::Applied(applied) => {
                self.feed.applied(applied.cursor);
                Ok(())
            }
            Message::Want(want) => self.requests.add(want, client.agreement.limits),
            Message::Missing(missing) if Lost::asked(missing.request) => {
                self.lost.answered(missing.chunks.iter());
                Ok(())
            }
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

    pub(super) fn subscribe(&mut self, subscribe: &Subscribe) -> Step {
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

    pub(super) fn push(&mut self, client: Client, push: Push, size: u64) -> Step {
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
        if !self.batches.comes(batch, part)? {
            return Ok(());
        }
        if !client.may_push && !self.batches.is_answered(batch) {
            self.refuse(&refusal(Code::READ_ONLY, "the token allows to read only"));
            return Ok(());
        }
        if push.seen.epoch != client.epoch {
            self.refuse(&refusal(Code::EPOCH, "the edits are of another history"));
            return Ok(());
        }
        self.batches.part(push, client.agreement.limits)
    }

    /// Tells the client that its batch is not taken.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        self.refuse_until(refused, None);
    }

    pub(super) fn refuse_until(&mut self, refused: &Refused, retry_after: Option<Duration>) {
        self.batches.refuse(refused.batch);
        self.error(
            About::Batch(refused.batch),
            refused.code,
            &refused.detail,
            retry_after,
        );
    }

    pub(super) fn error(
        &mut self,
        about: About,
        code: Code,
        detail: &str,
        retry_after: Option<Duration>,
    ) {
        let message = Error {
            code,
            about,
            retry_after_ms: millis(retry_after),
            detail: Text::cut(detail),
            ext: Ext::default(),
        };
        self.link.send(&message.into());
    }
}
