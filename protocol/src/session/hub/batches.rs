//! The batches that a client pushes: put together, completed with the chunks
//! that are missing, and committed one after another.
//!
//! Each try of a batch ends once: it is committed, or it is refused before its
//! commit is under way. So a client knows that what was refused was not committed
//! (SES-20), and may push other edits under its number. The store may still be at
//! something for a try that is over; what it says of that is of no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::hash::ChunkHash;
use crate::limits::{BATCH_CHUNKS_MAX, HASHES_MAX};
use crate::session::batch::{Batch, BatchAssembly};
use crate::session::link::Fault;
use crate::session::store::{BatchOffer, HubAction};
use crate::wire::{Blob, ChunkData, Code, Ext, Limits, Need, Of, Push};

/// How often a chunk is asked for.
const TRIES: u8 = 3;
/// How long none of the chunks that were asked for may come. A frame of them takes
/// that long at 70 kbit/s.
const PATIENCE: Duration = Duration::from_mins(2);

/// A batch that all parts are here of.
#[derive(Debug)]
struct Whole {
    batch: Batch,
    inline: Vec<ChunkData>,
    /// The chunks that were asked for and did not come: where they are in the
    /// list, and how often they were asked for.
    missing: BTreeMap<ChunkHash, (usize, u8)>,
    /// When the last of them came, or they were asked for.
    since: Duration,
    /// The chunks that came along and are kept.
    kept: BTreeSet<ChunkHash>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The chunks that came along have to be stored.
    Inline,
    /// It has to be found out which chunks are missing.
    Offer,
    /// Chunks are missing.
    Chunks,
    /// It can be committed.
    Commit,
    Committing,
}

/// What a batch needs now.
pub(super) enum Next {
    Wait,
    Push(HubAction),
    Store(HubAction),
}

/// Why a batch is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) batch: u64,
    pub(super) code: Code,
    pub(super) detail: String,
}

#[derive(Debug, Default)]
pub(super) struct Batches {
    assembly: Option<BatchAssembly>,
    whole: Option<Box<Whole>>,
    /// The last batch that was refused: its other parts are passed over.
    refused: Option<u64>,
    /// The last batch of the client that was committed, in this session or before.
    last: u64,
    /// Tries that are over.
    over: u64,
    /// What [`Self::over`] was when the store was asked for something, and when it
    /// was given chunks.
    asked: u64,
    storing: u64,
}

impl Batches {
    /// The client is here, and this was its last batch.
    pub(super) fn admitted(&mut self, last: u64) {
        self.last = last;
    }

    /// Whether a batch was committed before, and is to be answered again: that
    /// changes nothing, so it is allowed to everybody and takes no space.
    pub(super) fn is_answered(&self, batch: u64) -> bool {
        batch > 0 && batch == self.last
    }

    /// Whether a part has to be looked at. What is left of a batch that was refused
    /// has not.
    pub(super) fn comes(&mut self, batch: u64, part: u32) -> Result<bool, Fault> {
        if self.refused == Some(batch) && part > 0 {
            return Ok(false);
        }
        if self.whole.is_some() {
            return Err(Fault::state("Push", "it after PushAck"));
        }
        // Part 0 is another try.
        self.refused = None;
        Ok(true)
    }

    /// Whether what the store was asked for is of a try that is over.
    pub(super) fn was_asked_before(&self) -> bool {
        self.asked != self.over
    }

    /// The same of the chunks that it was given.
    pub(super) fn stored_before(&self) -> bool {
        self.storing != self.over
    }

    /// The store is given chunks.
    pub(super) fn stores(&mut self) {
        self.storing = self.over;
    }

    /// Whether nothing that was pushed waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.assembly.is_none() && self.whole.is_none()
    }

    /// Whether a commit is under way.
    pub(super) fn is_committing(&self) -> bool {
        let stage = self.whole.as_ref().map(|whole| whole.stage);
        stage == Some(Stage::Committing)
    }

    /// Takes a part of a batch.
    pub(super) fn part(&mut self, push: Push, limits: Limits) -> Result<(), Fault> {
        let answered = self.is_answered(push.batch);
        let assembly = &mut self.assembly;
        let assembly = assembly.get_or_insert_with(|| BatchAssembly::new(&push, limits));
        let whole = assembly.take(push);
        let whole = whole.map_err(|error| Fault::new(error.code(), error))?;
        if let Some(BatchOffer { batch, inline, .. }) = whole {
            self.assembly = None;
            let stage = match (inline.is_empty(), batch.chunks.is_empty()) {
                _ if answered => Stage::Commit,
                (false, _) => Stage::Inline,
                (true, false) => Stage::Offer,
                (true, true) => Stage::Commit,
            };
            self.whole = Some(Box::new(Whole {
                batch,
                inline,
                missing: BTreeMap::new(),
                since: Duration::ZERO,
                kept: BTreeSet::new(),
                stage,
            }));
        }
        Ok(())
    }

    /// The batch is committed.
    pub(super) fn committed(&mut self, batch: u64) {
        self.whole = None;
        self.last = batch;
        self.over += 1;
    }

    /// The batch is not taken.
    pub(super) fn refuse(&mut self, batch: u64) {
        self.assembly = None;
        self.whole = None;
        self.refused = Some(batch);
        self.over += 1;
    }

    /// What has to be done next, where the store is free for it.
    pub(super) fn next(&mut self, push_is_free: bool, store_is_free: bool) -> Next {
        let Some(whole) = &mut self.whole else {
            return Next::Wait;
        };
        match whole.stage {
            Stage::Inline if store_is_free && !whole.inline.is_empty() => {
                self.storing = self.over;
                let chunks = std::mem::take(&mut whole.inline);
                Next::Store(HubAction::Store { chunks })
            }
            Stage::Offer if push_is_free => {
                self.asked = self.over;
                let chunks = whole.batch.chunks.clone();
                Next::Push(HubAction::Offer { chunks })
            }
            Stage::Commit if push_is_free => {
                self.asked = self.over;
                whole.stage = Stage::Committing;
                Next::Push(HubAction::Commit {
                    batch: whole.batch.number,
                    edits: std::mem::take(&mut whole.batch.edits),
                })
            }
            _ => Next::Wait,
        }
    }

    /// The number of the batch, if all its parts are here.
    pub(super) fn number(&self) -> Option<u64> {
        self.whole.as_ref().map(|whole| whole.batch.number)
    }

    /// Whether this batch lacks chunks that were asked for.
    pub(super) fn waits_for_chunks(&self, batch: u64) -> bool {
        let whole = self.whole.as_ref();
        whole.is_some_and(|whole| whole.batch.number == batch && whole.stage == Stage::Chunks)
    }

    /// Whether the chunk is missing. What is not is not stored: nobody would
    /// ever ask for it.
    pub(super) fn needs(&self, hash: &ChunkHash) -> bool {
        let whole = self.whole.as_ref();
        whole.is_some_and(|whole| whole.missing.contains_key(hash))
    }

    /// When chunks are missing for too long.
    pub(super) fn late_at(&self) -> Option<Duration> {
        let whole = self.whole.as_ref();
        let waiting = whole.filter(|whole| whole.stage == Stage::Chunks)?;
        Some(waiting.since + PATIENCE)
    }

    /// Why the batch is not taken any more, if its chunks do not come: one that came
    /// under another hash than it was sent under is not known to have been sent, and
    /// both sides would wait for ever.
    pub(super) fn late(&self, now: Duration) -> Option<Refused> {
        self.late_at().filter(|at| *at <= now)?;
        Some(Refused {
            batch: self.number()?,
            code: Code::CHUNK_MISSING,
            detail: "chunks that were asked for do not come".to_owned(),
        })
    }

    /// The store has told what is missing. Returns what to ask for.
    pub(super) fn offered(&mut self, now: Duration, missing: &[bool]) -> Result<Vec<Need>, Fault> {
        let is_due = !self.was_asked_before();
        let whole = self.whole.as_mut().filter(|_| is_due);
        let Some(whole) = whole.filter(|whole| whole.stage == Stage::Offer) else {
            return Ok(Vec::new());
        };
        if missing.len() != whole.batch.chunks.len() {
            return Err(Fault::answer("an offer"));
        }
        let chunks = whole.batch.chunks.iter().zip(missing).enumerate();
        let missing = chunks.filter(|(_, (_, missing))| **missing);
        whole.missing = missing.map(|(at, (hash, _))| (*hash, (at, 1))).collect();
        (whole.stage, whole.since) = (Stage::Chunks, now);
        let needs = needs(
            whole.batch.number,
            whole.missing.values().map(|(at, _)| *at),
        );
        whole.settle();
        Ok(needs)
    }

    /// The store has kept chunks. Returns what to ask for again, or why the
    /// batch is not taken.
    pub(super) fn stored(
        &mut self,
        now: Duration,
        hashes: &[ChunkHash],
        refused: &[(ChunkHash, Code)],
    ) -> Result<Vec<Need>, Refused> {
        let is_due = !self.stored_before();
        let Some(whole) = self.whole.as_mut().filter(|_| is_due) else {
            return Ok(Vec::new());
        };
        let why = |hash| refused.iter().find(|(other, _)| *other == hash);
        if whole.stage == Stage::Inline {
            let kept = hashes.iter().filter(|hash| why(**hash).is_none());
            whole.kept.extend(kept);
            let all = whole.batch.chunks.iter();
            let all = all.into_iter().all(|hash| whole.kept.contains(hash));
            whole.stage = if all { Stage::Commit } else { Stage::Offer };
            return Ok(Vec::new());
        }
        whole.since = now;
        let mut again = Vec::new();
        for hash in hashes {
            let Some((at, tries)) = whole.missing.get_mut(hash) else {
                continue;
            };
            match why(*hash) {
                None => {
                    whole.missing.remove(hash);
                }
                Some((_, code)) if *tries >= TRIES => {
                    return Err(Refused {
                        batch: whole.batch.number,
                        code: *code,
                        detail: format!("chunk {hash} came {TRIES} times and is of no use"),
                    });
                }
                Some(_) => {
                    *tries += 1;
                    again.push(*at);
                }
            }
        }
        again.sort_unstable();
        let again = needs(whole.batch.number, again.into_iter());
        whole.settle();
        Ok(again)
    }
}

impl Whole {
    fn settle(&mut self) {
        if self.stage == Stage::Chunks && self.missing.is_empty() {
            self.stage = Stage::Commit;
        }
    }
}

/// The messages that ask for these chunks of a batch.
fn needs(batch: u64, chunks: impl Iterator<Item = usize>) -> Vec<Need> {
    let mut parts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for at in chunks.filter(|at| *at < BATCH_CHUNKS_MAX) {
        let (part, at) = (at / HASHES_MAX, at % HASHES_MAX);
        let bits = parts.entry(part).or_default();
        bits.resize(bits.len().max(at / 8 + 1), 0);
        bits[at / 8] |= 1 << (at % 8);
    }
    let parts = parts.into_iter().map(|(part, bits)| Need {
        of: Of::Batch(batch),
        first: u32::try_from(part * HASHES_MAX).unwrap_or(u32::MAX),
        bits: Blob::try_from(bytes::Bytes::from(bits)).unwrap_or_default(),
        ext: Ext::default(),
    });
    parts.collect()
}
