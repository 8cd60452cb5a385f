//! What a client's store answers.

use super::intake::Done;
use super::{ClientSession, Phase};
use crate::hash::ChunkHash;
use crate::session::greeting::Agreement;
use crate::session::io::Event;
use crate::session::link::{Fault, Row, Step};
use crate::session::store::{BatchOffer, ClientDone};
use crate::session::supply;
use crate::wire::{Applied, ChunkData, Chunks, Code, Ext, Fence, Reset, Why};

impl ClientSession {
    pub(super) fn done(&mut self, row: Row, done: ClientDone) -> Step {
        match (row, done) {
            (Row::Read, ClientDone::Failed(_)) => {
                // That a chunk cannot be read here is no reason to end.
                if let Some(missing) = self.gives.failed()? {
                    self.link.send(&missing.into());
                }
                Ok(())
            }
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
            (Row::Intake, ClientDone::Withdrawn) => {
                self.push.withdrawn()?;
                self.intake.released();
                Ok(())
            }
            (Row::Push, ClientDone::Batch(offer)) => self.batch(offer),
            (Row::Push, ClientDone::Prepared) => Ok(()),
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
            (
                Row::Read,
                ClientDone::Chunks {
                    chunks,
                    taken,
                    missing,
                },
            ) => self.given(chunks, taken, missing),
            (Row::Store, ClientDone::Stored { refused }) => self.stored(&refused),
            _ => Err(Fault::answer("the action")),
        }
    }

    fn given(&mut self, chunks: Vec<ChunkData>, taken: usize, missing: Vec<ChunkHash>) -> Step {
        let (request, missing) = self.gives.given(taken, missing)?;
        self.link.counters.chunks_sent += chunks.len() as u64;
        let limit = self.agreement()?.limits.frame;
        let frames = supply::frames(request, chunks, limit)?;
        self.gives.out.extend(frames);
        if let Some(missing) = missing {
            self.link.send(&missing.into());
        }
        Ok(())
    }

    pub(super) fn agreement(&self) -> Result<Agreement, Fault> {
        match self.phase {
            Phase::Open(agreement) => Ok(agreement),
            _ => Err(Fault::new(Code::INTERNAL, "nothing is agreed yet")),
        }
    }

    pub(super) fn applied(&mut self, done: Done) -> Step {
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

    pub(super) fn batch(&mut self, offer: Option<Box<BatchOffer>>) -> Step {
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

    pub(super) fn stored(&mut self, refused: &[(ChunkHash, Code)]) -> Step {
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

    pub(super) fn fences_passed(&mut self) {
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
}
