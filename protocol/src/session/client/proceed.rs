//! What a client can do next.

use super::intake::Next;
use super::{ClientSession, Phase, send_all};
use crate::session::greeting::Agreement;
use crate::session::io::Event;
use crate::session::link::{Row, Step, size};
use crate::session::store::ClientAction;
use crate::session::supply;
use crate::wire::Message;

impl ClientSession {
    pub(super) fn proceed(&mut self) -> Step {
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
        self.proceed_gives(agreement);
        for (id, missing) in std::mem::take(&mut self.wants.fetched) {
            self.link.event(Event::Fetched { id, missing });
        }
        self.link.counters.chunks_wanted = self.wants.len() as u64;
        Ok(())
    }

    pub(super) fn proceed_intake(&mut self) -> Step {
        while self.link.is_free(Row::Intake) {
            if let Some(reset) = self.reset.take() {
                let last = self.push.last_batch();
                let action = self.intake.reset(reset.why, reset.epoch, last);
                self.link.act(Row::Intake, action);
                return Ok(());
            }
            if self.intake.is_held()
                && let Some(action) = self.push.withdraw()
            {
                self.link.act(Row::Intake, action);
                return Ok(());
            }
            // What is edited here is pushed first, where it can be: the hub says
            // what becomes of it, to both sides. Laid over the cut, it would go
            // there as if its editors had known.
            let pushes = self.intake.may_push() && self.push.is_about_to(self.link.now());
            let here = self.wants.transfer_is_done() && !pushes;
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

    pub(super) fn proceed_chunks(&mut self) -> Step {
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

    /// What the hub has lost goes out when nothing of a batch waits for credit.
    pub(super) fn proceed_gives(&mut self, agreement: Agreement) {
        if !self.supplies.is_empty() {
            return;
        }
        send_all(&mut self.link, &mut self.gives.out);
        let budget = supply::budget(agreement.limits.frame, self.link.bulk_credit());
        if let Some(budget) = budget.filter(|_| self.link.is_free(Row::Read))
            && let Some(action) = self.gives.next(budget)
        {
            self.link.act(Row::Read, action);
        }
    }

    pub(super) fn proceed_push(&mut self, agreement: Agreement) {
        if let Some(out) = self.push.out() {
            send_all(&mut self.link, out);
        }
        send_all(&mut self.link, &mut self.supplies);
        // Who waits has what the hub told, as far as it can be had.
        let is_stuck = self.intake.is_held() && !self.push.is_withdrawing();
        let has_all = self.live || is_stuck;
        if let Some(code) = self.push.stopped().filter(|_| has_all) {
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
        if self.supplies.is_empty()
            && let Some(action) = self.push.prepare()
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
