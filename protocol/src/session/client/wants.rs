//! The chunks that a client wants: for a transfer, or because a program reads.
//!
//! A chunk is wanted once, whoever wants it. It waits, is asked for, is being
//! stored, and then is here, or is not to be had. One that does not match its
//! hash is asked for again, without a base, three times in all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::hash::ChunkHash;
use crate::limits::WANTED_MAX;
use crate::session::link::Fault;
use crate::session::store::Wanted;
use crate::wire::{Code, Ext, List, Want};

/// How often a chunk is asked for.
const TRIES: u8 = 3;
/// Chunks of one request: about what one answer has room for when they are small.
const REQUEST_CHUNKS: usize = 512;
/// With so many chunks wanted no more changes are looked at: about 4 MiB, and
/// more than a link with 100 ms delay takes at 100 000 chunks/s.
const AHEAD: usize = WANTED_MAX / 4;
/// The priority of what a transfer needs.
pub(super) const TRANSFER: u8 = 8;
/// Chunks that may turn out not to be had before a transfer is given up.
const GIVEN_UP_MAX: usize = 4_096;

#[derive(Debug)]
struct State {
    at: At,
    base: Option<ChunkHash>,
    priority: u8,
    tries: u8,
    transfer: bool,
    fetches: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Waiting,
    Asked(u64),
    Storing,
}

#[derive(Debug)]
struct Request {
    left: BTreeSet<ChunkHash>,
    /// Round trips when it was sent.
    depth: u64,
}

#[derive(Debug, Default)]
struct Fetch {
    left: usize,
    missing: Vec<(ChunkHash, Code)>,
}

/// A fetch that came to its end, and what is missing.
pub(super) type Fetched = (u64, Vec<(ChunkHash, Code)>);

#[derive(Debug, Default)]
pub(super) struct Wants {
    chunks: BTreeMap<ChunkHash, State>,
    waiting: BTreeMap<u8, VecDeque<ChunkHash>>,
    requests: BTreeMap<u64, Request>,
    asked: usize,
    last_request: u64,
    fetches: BTreeMap<u64, Fetch>,
    /// Chunks that the transfer needs and that are not here.
    transfer_left: usize,
    given_up: BTreeMap<ChunkHash, Code>,
    pub(super) fetched: Vec<Fetched>,
}

impl Wants {
    /// How many chunks are wanted.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether there are so many that no more changes should be looked at.
    pub(super) fn is_full(&self) -> bool {
        self.chunks.len() >= AHEAD
    }

    /// Whether all that the transfer needs is here, or not to be had.
    pub(super) fn transfer_is_done(&self) -> bool {
        self.transfer_left == 0
    }

    /// The transfer needs these. Fails if one has turned out not to be had.
    pub(super) fn transfer(&mut self, chunks: Vec<Wanted>) -> Result<(), Fault> {
        for (hash, base) in chunks {
            if let Some(code) = self.given_up.get(&hash) {
                let detail = format!("chunk {hash} is not to be had");
                return Err(Fault::new(*code, detail));
            }
            let state = self.want(hash, base, TRANSFER);
            if !std::mem::replace(&mut state.transfer, true) {
                self.transfer_left += 1;
            }
        }
        Ok(())
    }

    /// A program waits for these.
    pub(super) fn fetch(&mut self, id: u64, chunks: Vec<Wanted>, priority: u8) {
        let mut fetch = Fetch::default();
        for (hash, base) in chunks {
            let state = self.want(hash, base, priority);
            if !state.fetches.contains(&id) {
                state.fetches.push(id);
                fetch.left += 1;
            }
        }
        if fetch.left == 0 {
            self.fetched.push((id, Vec::new()));
        } else {
            self.fetches.insert(id, fetch);
        }
    }

    fn want(&mut self, hash: ChunkHash, base: Option<ChunkHash>, priority: u8) -> &mut State {
        let state = self.chunks.entry(hash).or_insert(State {
            at: At::Waiting,
            base,
            priority: u8::MAX,
            tries: 0,
            transfer: false,
            fetches: Vec::new(),
        });
        if state.at == At::Waiting && (state.tries == 0 && priority < state.priority) {
            state.priority = priority;
            self.waiting.entry(priority).or_default().push_back(hash);
        }
        state
    }

    /// The next request, if there may be one more.
    pub(super) fn request(&mut self, most: usize, depth: u64) -> Option<Want> {
        let room = WANTED_MAX.saturating_sub(self.asked).min(REQUEST_CHUNKS);
        if self.requests.len() >= most || room == 0 {
            return None;
        }
        let (priority, hashes) = self.next(room)?;
        self.last_request += 1;
        let request = self.last_request;
        let mut chunks = Vec::with_capacity(hashes.len());
        for hash in &hashes {
            if let Some(state) = self.chunks.get_mut(hash) {
                state.at = At::Asked(request);
                // A base that did not help once will not help again.
                chunks.push((*hash, state.base.filter(|_| state.tries == 0)));
            }
        }
        self.asked += hashes.len();
        self.requests.insert(
            request,
            Request {
                left: hashes,
                depth,
            },
        );
        Some(Want {
            request,
            priority,
            chunks: List::try_from(chunks).ok()?,
            ext: Ext::default(),
        })
    }

    /// The next chunks to ask for, and their priority.
    fn next(&mut self, room: usize) -> Option<(u8, BTreeSet<ChunkHash>)> {
        let mut hashes = BTreeSet::new();
        while hashes.is_empty() {
            let mut first = self.waiting.first_entry()?;
            let priority = *first.key();
            while hashes.len() < room
                && let Some(hash) = first.get_mut().pop_front()
            {
                // It may have been asked for at a higher priority.
                let state = self.chunks.get(&hash);
                let waits = |s: &State| s.at == At::Waiting && s.priority == priority;
                if state.is_some_and(waits) {
                    hashes.insert(hash);
                }
            }
            if first.get().is_empty() {
                first.remove();
            }
            if !hashes.is_empty() {
                return Some((priority, hashes));
            }
        }
        None
    }

    /// Chunks came in answer to a request. Returns which of them were asked for,
    /// and the depth of the request.
    pub(super) fn came(
        &mut self,
        request: u64,
        hashes: impl Iterator<Item = ChunkHash>,
    ) -> Result<(BTreeSet<ChunkHash>, u64), Fault> {
        let Some(open) = self.requests.get_mut(&request) else {
            let detail = format!("request {request} is not under way");
            return Err(Fault::new(Code::STATE, detail));
        };
        let depth = open.depth;
        let mut expected = BTreeSet::new();
        for hash in hashes {
            if !open.left.remove(&hash) {
                let detail = format!("chunk {hash} was not asked for in request {request}");
                return Err(Fault::new(Code::STATE, detail));
            }
            expected.insert(hash);
        }
        if open.left.is_empty() {
            self.requests.remove(&request);
        }
        self.asked -= expected.len();
        for hash in &expected {
            if let Some(state) = self.chunks.get_mut(hash) {
                state.at = At::Storing;
            }
        }
        Ok((expected, depth))
    }

    /// The request cannot be answered.
    pub(super) fn refused(&mut self, request: u64, code: Code) -> Result<(), Fault> {
        let open = self.requests.get(&request);
        let left: Vec<ChunkHash> = open.iter().flat_map(|open| open.left.clone()).collect();
        self.came(request, left.iter().copied())?;
        for hash in left {
            self.end(hash, Some(code))?;
        }
        Ok(())
    }

    /// The chunk is here.
    pub(super) fn stored(&mut self, hash: ChunkHash) -> Result<(), Fault> {
        self.end(hash, None)
    }

    /// The chunk that came could not be kept: it is asked for again, or given up.
    pub(super) fn retry(&mut self, hash: ChunkHash, code: Code) -> Result<(), Fault> {
        let Some(state) = self.chunks.get_mut(&hash) else {
            return Ok(());
        };
        state.tries += 1;
        if state.tries >= TRIES {
            return self.end(hash, Some(code));
        }
        state.at = At::Waiting;
        let queue = self.waiting.entry(state.priority).or_default();
        queue.push_front(hash);
        Ok(())
    }

    /// The chunk is here, or is not to be had.
    pub(super) fn end(&mut self, hash: ChunkHash, failed: Option<Code>) -> Result<(), Fault> {
        let Some(state) = self.chunks.remove(&hash) else {
            return Ok(());
        };
        if state.transfer {
            self.transfer_left -= 1;
        }
        for id in state.fetches {
            let Some(fetch) = self.fetches.get_mut(&id) else {
                continue;
            };
            fetch.left -= 1;
            fetch.missing.extend(failed.map(|code| (hash, code)));
            if fetch.left == 0
                && let Some(fetch) = self.fetches.remove(&id)
            {
                self.fetched.push((id, fetch.missing));
            }
        }
        if let Some(code) = failed.filter(|_| state.transfer) {
            self.given_up.insert(hash, code);
            if self.given_up.len() > GIVEN_UP_MAX {
                return Err(Fault::new(code, "too many chunks are not to be had"));
            }
        }
        Ok(())
    }

    /// A transfer came to its end, and what was given up did not matter.
    pub(super) fn forget(&mut self) {
        self.given_up.clear();
    }
}
