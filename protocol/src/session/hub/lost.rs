//! Chunks that the hub should have and lacks: asked of a client that may have
//! them (SES-23).
//!
//! The store says with each page whether it lacks something. Then it is asked
//! which chunks these are, some at a time in the order of their hashes, and the
//! client is asked for those. Each is asked for once: who does not have a chunk
//! now will hardly have it later in the same connection.

use std::collections::BTreeSet;

use crate::cursor::Seq;
use crate::hash::ChunkHash;
use crate::session::link::Fault;
use crate::session::store::HubAction;
use crate::wire::{Ext, List, Want};

/// Set in the numbers of a hub's requests, and in no number of a batch.
const OF_HUB: u64 = 1 << 63;
/// Chunks that are asked for at a time: at most 16 MiB.
pub(super) const AT_A_TIME: usize = 32;
/// Whatever the client itself waits for comes first.
const PRIORITY: u8 = 200;

/// Which chunks the store is asked for next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sweep {
    #[default]
    None,
    First,
    After(ChunkHash),
}

#[derive(Debug, Default)]
pub(super) struct Lost {
    /// What the store said last of what it lacks; 0 for nothing.
    heard: u64,
    /// It said so with a page up to this commit.
    since: Seq,
    /// What it had said when the client was asked last, and whether the client had
    /// all that was lost then, as far as it follows.
    asked_of: (u64, bool),
    sweep: Sweep,
    looking: bool,
    /// Chunks that the client was asked for and has not answered.
    open: BTreeSet<ChunkHash>,
    requests: u64,
}

impl Lost {
    /// The store said with a page up to `next` what number its losses have.
    pub(super) fn heard(&mut self, lost: u64, next: Seq) {
        if self.heard != lost {
            (self.heard, self.since) = (lost, next);
        }
    }

    /// Whether the client is asked for something, or is about to be.
    pub(super) fn is_open(&self) -> bool {
        self.sweep != Sweep::None || self.heard != 0 && self.asked_of != (self.heard, true)
    }

    /// What to ask of the store next, for a client that has this commit. One that
    /// has not followed to what was lost is asked again when it has; not only then,
    /// for it may be kept from following by what is lost, and two such clients by
    /// what only the other has.
    pub(super) fn next(&mut self, has: Option<Seq>) -> Option<HubAction> {
        if self.looking || !self.open.is_empty() {
            return None;
        }
        if self.sweep == Sweep::None && self.heard != 0 {
            let now = (self.heard, has >= Some(self.since));
            if now > self.asked_of || now.0 != self.asked_of.0 {
                self.asked_of = now;
                self.sweep = Sweep::First;
            }
        }
        let after = match self.sweep {
            Sweep::None => return None,
            Sweep::First => None,
            Sweep::After(hash) => Some(hash),
        };
        self.looking = true;
        let max = AT_A_TIME;
        Some(HubAction::Lost { after, max })
    }

    /// The store lacks these. Returns what to ask the client.
    pub(super) fn found(&mut self, chunks: Vec<ChunkHash>) -> Result<Option<Want>, Fault> {
        self.looking = false;
        let Some(last) = chunks.last().copied() else {
            self.sweep = Sweep::None;
            return Ok(None);
        };
        self.sweep = Sweep::After(last);
        self.open = chunks.iter().copied().collect();
        self.requests += 1;
        let chunks: Vec<_> = chunks.into_iter().map(|hash| (hash, None)).collect();
        Ok(Some(Want {
            request: OF_HUB | self.requests,
            priority: PRIORITY,
            chunks: List::try_from(chunks).map_err(|_| Fault::answer("what is lost"))?,
            ext: Ext::default(),
        }))
    }

    /// Whether this is the number of a request of a hub.
    pub(super) fn asked(request: u64) -> bool {
        request & OF_HUB != 0
    }

    /// Whether the client was asked for the chunk.
    pub(super) fn needs(&self, hash: &ChunkHash) -> bool {
        self.open.contains(hash)
    }

    /// The client has answered for these.
    pub(super) fn answered<'a>(&mut self, chunks: impl IntoIterator<Item = &'a ChunkHash>) {
        for hash in chunks {
            self.open.remove(hash);
        }
    }
}
