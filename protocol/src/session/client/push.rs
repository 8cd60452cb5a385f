//! A client's batches: one at a time, from the first message to the cut that has
//! its commit (R13).
//!
//! A batch stays the same until it is answered, whatever happens: who does not
//! know whether it was committed must not push its edits in another. But what the
//! hub has refused in this session it has not committed (SES-20), and nothing of
//! an older session can be committed any more (SES-21). So a batch that is refused,
//! and not only for a moment, is *withdrawn* as soon as a cut waits for it: a hub
//! that takes nothing keeps nobody from following it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::hash::ChunkHash;
use crate::limits::{BATCH_CHUNKS_MAX, BATCH_EDITS_MAX};
use crate::outcome::Outcome;
use crate::session::batch::batch_digest;
use crate::session::link::Fault;
use crate::session::store::{BatchOffer, ClientAction};
use crate::wire::{
    Code, Frame, Limits, List, Message, Missing, Need, Of, Outcomes, PushAck, Welcome,
};

/// How often a batch is pushed that the hub refuses for want of a chunk.
const TRIES: u8 = 3;
/// When a batch is pushed again that the hub refuses for good, as it seems. The
/// wait doubles with each time, up to [`REFUSED_LONGEST`]: the batch stays the same
/// until it is answered, and the hub may be another by then, or have more room.
const REFUSED_FIRST: Duration = Duration::from_secs(5);
const REFUSED_LONGEST: Duration = Duration::from_mins(10);
/// Chunks that the store is asked for at a time, at most.
const SUPPLY_CHUNKS: usize = 512;

#[derive(Debug)]
enum State {
    /// Nothing is in flight, as far as this session knows.
    Quiet,
    /// The store is asked for a batch.
    Asking,
    /// The store is told that it is in flight no longer.
    Withdrawing,
    /// It was sent, or is about to be.
    Awaiting(Flight),
    /// It is answered, and has to be applied with its cut.
    Acked(Box<PushAck>),
}

#[derive(Debug)]
struct Flight {
    number: u64,
    edits: u64,
    chunks: Vec<ChunkHash>,
    supplied: BTreeSet<ChunkHash>,
    /// Frames that wait for credit.
    out: VecDeque<Frame>,
    /// Chunks that the hub needs; with `true`, again.
    needed: VecDeque<(ChunkHash, bool)>,
    outcomes: Vec<(u32, Outcome)>,
    /// Round trips when it was sent.
    depth: u64,
    /// The next one may be prepared meanwhile.
    more: bool,
}

#[derive(Debug)]
pub(super) struct Pushing {
    state: State,
    /// There may be something to push.
    news: bool,
    /// Not before then.
    pub(super) wait_until: Option<Duration>,
    /// Why nothing is pushed until then, or, without such a time, in this session.
    stopped: Option<Code>,
    tries: u8,
    /// The batch in flight, if the hub has refused it and has not committed it.
    turned_down: Option<u64>,
    /// The wait after the last refusal of this batch that named none.
    refused: Option<Duration>,
    /// What the hub had committed when the session began.
    last_batch: u64,
    last_digest: [u8; 32],
}

impl Pushing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Quiet,
            news: true,
            wait_until: None,
            stopped: None,
            tries: 0,
            turned_down: None,
            refused: None,
            last_batch: 0,
            last_digest: [0; 32],
        }
    }

    /// Takes what the hub has committed of this replica. Fails if that is not
    /// what the replica pushed: somebody else has its tag.
    pub(super) fn welcome(
        &mut self,
        welcome: &Welcome,
        last_batch: u64,
        digest: Option<[u8; 32]>,
    ) -> Result<(), Fault> {
        (self.last_batch, self.last_digest) = (welcome.last_batch, welcome.last_batch_digest);
        let (there, here) = (welcome.last_batch, last_batch);
        let other = digest.is_some_and(|digest| digest != self.last_digest);
        if there > here || (there == here && there > 0 && other) {
            let detail = format!("the hub has a batch {there} of this replica that is not its own");
            return Err(Fault::new(Code::REPLICA_FORKED, detail));
        }
        Ok(())
    }

    pub(super) fn last_batch(&self) -> u64 {
        self.last_batch
    }

    pub(super) fn news(&mut self) {
        self.news = true;
    }

    pub(super) fn stopped(&self) -> Option<Code> {
        self.stopped
    }

    /// The answer that has to be applied.
    pub(super) fn ack(&self) -> Option<&PushAck> {
        match &self.state {
            State::Acked(ack) => Some(ack),
            _ => None,
        }
    }

    /// The answer is applied.
    pub(super) fn applied(&mut self) {
        self.state = State::Quiet;
        self.news = true;
    }

    /// Withdraws the batch in flight, if it is certain that it was not committed,
    /// and nobody knows whether it ever will be.
    pub(super) fn withdraw(&mut self) -> Option<ClientAction> {
        let quiet = matches!(self.state, State::Quiet) && self.stopped.is_some();
        let batch = self.turned_down.take_if(|_| quiet)?;
        self.state = State::Withdrawing;
        Some(ClientAction::Withdraw { batch })
    }

    pub(super) fn is_withdrawing(&self) -> bool {
        matches!(self.state, State::Withdrawing)
    }

    /// The store has withdrawn it.
    pub(super) fn withdrawn(&mut self) -> Result<(), Fault> {
        if !matches!(self.state, State::Withdrawing) {
            return Err(Fault::answer("the action"));
        }
        self.state = State::Quiet;
        self.news = true;
        Ok(())
    }

    /// Whether the store is asked for a batch, or is to be.
    pub(super) fn is_about_to(&self, now: Duration) -> bool {
        matches!(self.state, State::Asking) || self.may_ask(now)
    }

    /// Whether there may be another batch, and it may be pushed.
    fn may_ask(&self, now: Duration) -> bool {
        let may = match self.wait_until {
            Some(until) => until <= now,
            None => self.stopped.is_none(),
        };
        matches!(self.state, State::Quiet) && self.news && may
    }

    /// Asks for the next batch if there may be one.
    pub(super) fn next(&mut self, now: Duration, limits: Limits) -> Option<ClientAction> {
        if !self.may_ask(now) {
            return None;
        }
        self.news = false;
        (self.wait_until, self.stopped) = (None, None);
        self.state = State::Asking;
        let inline = usize::try_from(limits.inline).unwrap_or(usize::MAX);
        Some(ClientAction::NextBatch { inline })
    }

    /// The store's answer to that. Returns whether the hub has all batches
    /// before it: if not, its history is another.
    pub(super) fn batch(
        &mut self,
        offer: Option<Box<BatchOffer>>,
        limits: Limits,
        depth: u64,
    ) -> Result<bool, Fault> {
        if !matches!(self.state, State::Asking) {
            return Err(Fault::answer("the action"));
        }
        self.state = State::Quiet;
        let Some(offer) = offer else {
            return Ok(true);
        };
        let number = offer.batch.number;
        if number > self.last_batch.saturating_add(1) {
            return Ok(false);
        }
        let same = || batch_digest(&offer.batch.edits) == self.last_digest;
        if number < self.last_batch || (number == self.last_batch && !same()) {
            let detail = format!("the hub has another batch {number} of this replica");
            return Err(Fault::new(Code::REPLICA_FORKED, detail));
        }
        self.turned_down = None;
        let (chunks, more) = (offer.batch.chunks.clone(), offer.more);
        let edits = offer.batch.edits.len() as u64;
        let parts = offer.messages(limits);
        let parts = parts.map_err(|error| Fault::new(Code::INTERNAL, error))?;
        let frames = parts
            .into_iter()
            .map(|part| Message::from(part).to_frame(0));
        self.state = State::Awaiting(Flight {
            number,
            edits,
            chunks,
            supplied: BTreeSet::new(),
            out: frames.collect(),
            needed: VecDeque::new(),
            outcomes: Vec::new(),
            depth,
            more,
        });
        Ok(true)
    }

    /// Frames that wait for credit.
    pub(super) fn out(&mut self) -> Option<&mut VecDeque<Frame>> {
        match &mut self.state {
            State::Awaiting(flight) => Some(&mut flight.out),
            _ => None,
        }
    }

    fn flight(&mut self, batch: u64) -> Result<&mut Flight, Fault> {
        match &mut self.state {
            State::Awaiting(flight) if flight.number == batch => Ok(flight),
            _ => Err(Fault::new(
                Code::STATE,
                format!("batch {batch} is not in flight"),
            )),
        }
    }

    /// The hub needs chunks. Returns the depth of the question.
    pub(super) fn need(&mut self, need: &Need, depth: u64) -> Result<u64, Fault> {
        let Of::Batch(batch) = need.of else {
            return Err(Fault::state("Need of a transfer", "Need of a batch"));
        };
        let flight = self.flight(batch)?;
        let malformed = || Fault::new(Code::MALFORMED, "a chunk is needed that is not listed");
        for (byte, bits) in need.bits.iter().enumerate() {
            for bit in (0..8).filter(|bit| bits & (1 << bit) != 0) {
                let at = usize::try_from(need.first).map_err(|_| malformed())?;
                let hash = *flight
                    .chunks
                    .get(at + byte * 8 + bit)
                    .ok_or_else(malformed)?;
                let again = flight.supplied.contains(&hash);
                flight.needed.push_back((hash, again));
            }
        }
        if flight.needed.len() > BATCH_CHUNKS_MAX {
            return Err(Fault::new(
                Code::LIMIT,
                "more chunks are needed than listed",
            ));
        }
        let asked = flight.depth;
        flight.depth = flight.depth.max(depth).max(asked + 1);
        Ok(asked)
    }

    /// Asks the store for the next chunks that are needed.
    pub(super) fn supply(&mut self, budget: usize) -> Option<ClientAction> {
        let State::Awaiting(flight) = &mut self.state else {
            return None;
        };
        if flight.needed.is_empty() {
            return None;
        }
        let chunks = flight.needed.iter().take(SUPPLY_CHUNKS).copied().collect();
        Some(ClientAction::Supply { chunks, budget })
    }

    /// Asks the store to prepare the next batch, once, when all of this one is
    /// with the hub, as far as can be known: one of which the hub has all chunks is
    /// committed without a question.
    pub(super) fn prepare(&mut self) -> Option<ClientAction> {
        let State::Awaiting(flight) = &mut self.state else {
            return None;
        };
        let sent = flight.out.is_empty() && flight.needed.is_empty();
        let supplied = flight.chunks.is_empty() || !flight.supplied.is_empty();
        let may = sent && supplied && std::mem::take(&mut flight.more);
        may.then_some(ClientAction::Prepare)
    }

    /// The store gave these. Returns the batch, and what to tell of what is
    /// missing; `None` if the batch is not in flight any more.
    pub(super) fn supplied(
        &mut self,
        taken: usize,
        missing: Vec<ChunkHash>,
    ) -> Result<Option<(u64, Option<Missing>)>, Fault> {
        let State::Awaiting(flight) = &mut self.state else {
            return Ok(None);
        };
        if taken == 0 || taken > flight.needed.len().min(SUPPLY_CHUNKS) {
            return Err(Fault::answer("a request for chunks"));
        }
        let done = flight.needed.drain(..taken).map(|(hash, _)| hash);
        flight.supplied.extend(done);
        let request = flight.number;
        let chunks = List::try_from(missing).map_err(|_| Fault::answer("a request"))?;
        let missing = (!chunks.is_empty()).then(|| Missing {
            request,
            chunks,
            ext: crate::wire::Ext::default(),
        });
        Ok(Some((request, missing)))
    }

    /// Outcomes that have no room in the answer.
    pub(super) fn outcomes(&mut self, message: Outcomes) -> Result<(), Fault> {
        let flight = self.flight(message.batch)?;
        flight.outcomes.extend(message.outcomes.into_vec());
        if flight.outcomes.len() > BATCH_EDITS_MAX {
            return Err(Fault::new(Code::LIMIT, "more outcomes than edits"));
        }
        Ok(())
    }

    /// The hub has committed the batch. Returns how many edits that has, and the
    /// depth of the question.
    pub(super) fn acked(&mut self, mut ack: PushAck) -> Result<(u64, u64), Fault> {
        let flight = self.flight(ack.batch)?;
        let (edits, depth) = (flight.edits, flight.depth);
        let mut outcomes = std::mem::take(&mut flight.outcomes);
        outcomes.extend(ack.outcomes.into_vec());
        let too_many = |_| Fault::new(Code::LIMIT, "more outcomes than edits");
        ack.outcomes = List::try_from(outcomes).map_err(too_many)?;
        (self.tries, self.refused) = (0, None);
        self.last_batch = ack.batch;
        self.state = State::Acked(Box::new(ack));
        Ok((edits, depth))
    }

    /// The hub does not take the batch. Returns when it is pushed again.
    pub(super) fn refused(
        &mut self,
        now: Duration,
        batch: u64,
        code: Code,
        retry_after: Option<Duration>,
    ) -> Result<Option<Duration>, Fault> {
        self.flight(batch)?;
        if [Code::REPLICA_FORKED, Code::BATCH_GAP].contains(&code) {
            return Err(Fault::new(code, format!("the hub refuses batch {batch}")));
        }
        self.state = State::Quiet;
        // One that it had committed before, whose answer was lost, it refuses, too:
        // it has the edits, and the next batch comes after it.
        self.turned_down = (batch > self.last_batch).then_some(batch);
        self.tries = self.tries.saturating_add(1);
        let again = [Code::CHUNK_MISSING, Code::CHUNK_CORRUPT].contains(&code);
        let at_once = again && self.tries < TRIES;
        let mut wait = retry_after.or(at_once.then_some(Duration::ZERO));
        if wait.is_none() {
            self.stopped = Some(code);
            // What a token permits does not change while the connection lasts.
            wait = (code != Code::READ_ONLY).then(|| self.wait_longer());
        } else if code == Code::QUOTA || self.tries > TRIES {
            // That it is tried again helps nobody who waits: somebody has to make
            // space, or the hub has trouble that does not pass.
            self.stopped = Some(code);
        }
        self.wait_until = wait.map(|wait| now + wait);
        self.news = true;
        Ok(wait)
    }

    fn wait_longer(&mut self) -> Duration {
        let next = self.refused.map_or(REFUSED_FIRST, |last| last * 2);
        let wait = next.min(REFUSED_LONGEST);
        self.refused = Some(wait);
        wait
    }
}
