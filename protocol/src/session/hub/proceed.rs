//! What a hub can do next for a client.

use super::batches::Next;
use super::lost::Lost;
use super::{HubSession, Phase, Storing};
use crate::session::client::send_all;
use crate::session::link::{Fault, Row, Step, size};
use crate::session::store::HubAction;
use crate::session::supply;
use crate::wire::{Capabilities, Message};

impl HubSession {
    pub(super) fn proceed(&mut self) -> Step {
        let Phase::Open(client) = self.phase else {
            return Ok(());
        };
        self.proceed_batches()?;
        self.proceed_chunks()?;
        if self.link.is_free(Row::Store)
            && let Some(late) = self.batches.late(self.link.now())
        {
            self.refuse(&late);
        }
        let gives = client.agreement.capabilities.has(Capabilities::GIVES);
        if self.link.is_free(Row::Store)
            && gives
            && let Some(action) = self.lost.next(self.feed.has())
        {
            self.link.act(Row::Store, action);
        }
        if self.batches.is_idle() {
            self.feed.all_committed();
        }
        if !(gives && self.lost.is_open()) {
            self.feed.pass_fences();
        }
        send_all(&mut self.link, &mut self.feed.out);
        if self.link.is_free(Row::Intake)
            && let Some(action) = self.feed.next(self.batches.is_committing())
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

    pub(super) fn proceed_batches(&mut self) -> Step {
        let free = (self.link.is_free(Row::Push), self.link.is_free(Row::Store));
        match self.batches.next(free.0, free.1) {
            Next::Wait => {}
            Next::Push(action) => self.link.act(Row::Push, action),
            Next::Store(action) => {
                let HubAction::Store { chunks } = &action else {
                    return Err(Fault::answer("the action"));
                };
                self.storing = Some(Storing {
                    chunks: chunks.iter().map(|chunk| chunk.hash).collect(),
                    size: 0,
                    lost: false,
                });
                self.link.act(Row::Store, action);
            }
        }
        Ok(())
    }

    pub(super) fn proceed_chunks(&mut self) -> Step {
        while self.link.is_free(Row::Store) {
            let Some(frame) = self.chunks.pop_front() else {
                break;
            };
            let Some(Message::Chunks(message)) = Message::from_frame(&frame)? else {
                break;
            };
            // What nobody needs any more came too late: its batch was refused.
            let lost = Lost::asked(message.request);
            let mut chunks = message.chunks.into_vec();
            chunks.retain(|chunk| {
                if lost {
                    self.lost.needs(&chunk.hash)
                } else {
                    self.batches.needs(&chunk.hash)
                }
            });
            if chunks.is_empty() {
                self.link.consumed(frame.kind, size(&frame));
                continue;
            }
            self.link.counters.chunks_received += chunks.len() as u64;
            self.storing = Some(Storing {
                chunks: chunks.iter().map(|chunk| chunk.hash).collect(),
                size: size(&frame),
                lost,
            });
            self.batches.stores();
            self.link.act(Row::Store, HubAction::Store { chunks });
        }
        Ok(())
    }
}
