//! What a hub's store answers.

use super::batches::Refused;
use super::feed::{PART, Page};
use super::{Client, HubSession, Phase};
use crate::hash::ChunkHash;
use crate::session::io::Event;
use crate::session::link::{Fault, Row, Step, after};
use crate::session::store::{Admission, HubDone, StoreFailure};
use crate::session::supply;
use crate::wire::{
    About, Blob, Capabilities, Chunks, Code, Ext, IS_CUT, List, Outcomes, PushAck, Reset, Welcome,
    Why,
};

/// Failures that end the session: nobody knows what became of what the store was
/// asked for.
const ENDS: [Code; 2] = [Code::INTERNAL, Code::SHUTDOWN];

impl HubSession {
    pub(super) fn done(&mut self, row: Row, done: HubDone) -> Step {
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
                    lost,
                },
            ) => {
                let page = Page {
                    changes,
                    reports,
                    next,
                    cut,
                };
                self.lost.heard(lost, next);
                self.page(page)
            }
            (Row::Intake, HubDone::Noted) => Ok(()),
            (Row::Push, HubDone::Offered(missing)) => {
                for need in self.batches.offered(self.link.now(), &missing)? {
                    self.link.send(&need.into());
                }
                Ok(())
            }
            (Row::Push, HubDone::Committed { ack, plain }) => self.committed(*ack, plain),
            (Row::Store, HubDone::Stored { refused }) => self.stored(&refused),
            (Row::Store, HubDone::Lost(chunks)) => {
                if let Some(want) = self.lost.found(chunks)? {
                    self.link.send(&want.into());
                }
                Ok(())
            }
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
    pub(super) fn failed(&mut self, row: Row, failure: StoreFailure) -> Step {
        let retry_after = after(failure.retry_after_ms);
        match (row, self.batches.number()) {
            (_, _) if ENDS.contains(&failure.code) => Err(failure.into()),
            (Row::Push, _) if self.batches.was_asked_before() => self.release_page(),
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
                let storing = self.storing.take();
                let size = storing.as_ref().map_or(0, |storing| storing.size);
                self.link.consumed(Chunks::KIND, size);
                let lost = storing.filter(|storing| storing.lost);
                if let Some(lost) = lost {
                    self.lost.answered(&lost.chunks);
                } else if let Some(batch) = batch.filter(|_| !self.batches.stored_before()) {
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

    pub(super) fn client(&self) -> Result<Client, Fault> {
        match self.phase {
            Phase::Open(client) => Ok(client),
            _ => Err(Fault::new(Code::INTERNAL, "nothing is agreed yet")),
        }
    }

    pub(super) fn admitted(&mut self, admission: &Admission) -> Step {
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
        self.batches.admitted(admission.last_batch);
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

    pub(super) fn subscribed(&mut self, result: Result<crate::Seq, (Why, crate::Seq)>) -> Step {
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

    pub(super) fn page(&mut self, page: Page) -> Step {
        if self.batches.is_committing() {
            // The client has to have the answer before the cut with the commit.
            self.feed.stash(page);
            return Ok(());
        }
        let limits = self.client()?.agreement.limits;
        self.link.counters.changes += self.feed.page(page, limits)?;
        Ok(())
    }

    pub(super) fn release_page(&mut self) -> Step {
        self.feed.unstash().map_or(Ok(()), |page| self.page(page))
    }

    pub(super) fn committed(&mut self, mut ack: PushAck, plain: bool) -> Step {
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
        let agreed = self.client()?.agreement.capabilities;
        if plain && agreed.has(Capabilities::CONFIRM) && self.feed.confirm(seq, ack.chain) {
            let is_cut = vec![(IS_CUT, Blob::default())];
            ack.ext = List::try_from(is_cut).unwrap_or_default();
        }
        self.link.send(&ack.into());
        self.batches.committed(batch);
        self.link.counters.batches += 1;
        self.link.event(Event::Pushed {
            batch,
            seq,
            outcomes,
        });
        self.feed.news();
        self.release_page()
    }

    pub(super) fn stored(&mut self, refused: &[(ChunkHash, Code)]) -> Step {
        let Some(storing) = self.storing.take() else {
            return Err(Fault::answer("the action"));
        };
        self.link.consumed(Chunks::KIND, storing.size);
        if storing.lost {
            // One that was of no use is not asked for again here.
            self.lost.answered(&storing.chunks);
            return Ok(());
        }
        let now = self.link.now();
        match self.batches.stored(now, &storing.chunks, refused) {
            Ok(needs) => {
                for need in needs {
                    self.link.send(&need.into());
                }
            }
            Err(why) => self.refuse(&why),
        }
        Ok(())
    }
}
