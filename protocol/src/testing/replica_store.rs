//! The model's replica behind the actions of sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chunks::{ChunkMap, Given};
use super::hub::Ack;
use super::news::News;
use super::replica::{EditError, ModelReplica, ReplicaSafeguards};
use super::tree::ModelTree;
use crate::change::{Change, Entry};
use crate::cursor::{Cursor, Epoch, Scope, Seq};
use crate::data::Data;
use crate::edit::Edit;
use crate::hash::ChunkHash;
use crate::id::{NodeId, ReplicaTag};
use crate::session::{
    Applied, Batch, BatchOffer, ClientAction, ClientDone, Report, Store, StoreFailure, Wanted,
    batch_digest,
};
use crate::wire::{ChunkData, Code, PushAck, Start, Why};
use crate::{Chain, Outcome};

/// Contents of more bytes are in chunks of this many.
pub(super) const PIECE: usize = 4_096;

/// A replica of the model, as sessions see it. Clones are of one replica.
#[derive(Clone, Debug)]
pub struct ModelClient {
    state: Arc<Mutex<State>>,
    news: News,
}

#[derive(Debug)]
struct State {
    tag: ReplicaTag,
    replica: ModelReplica,
    cursor: Option<Cursor>,
    /// What the batch in flight has seen.
    seen: Option<Cursor>,
    /// The last batch that was numbered, and its digest.
    last: (u64, Option<[u8; 32]>),
    chunks: ChunkMap,
    staged: Vec<Change>,
    reports: Vec<Report>,
    /// Only a part of the tree may go at a time.
    halts: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ModelClient {
    /// A replica of an empty tree.
    pub fn new(tag: ReplicaTag, safe: ReplicaSafeguards) -> Self {
        let state = State {
            tag,
            replica: ModelReplica::new(tag, safe),
            cursor: None,
            seen: None,
            last: (0, None),
            chunks: ChunkMap::default(),
            staged: Vec::new(),
            reports: Vec::new(),
            halts: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            news: News::default(),
        }
    }

    /// Makes it halt before most of its tree goes.
    pub fn set_halts(&self) {
        lock(&self.state).halts = true;
    }

    /// A copy of everything that it has, with the same identity.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = lock(&self.state);
        let state = State {
            tag: state.tag,
            replica: state.replica.clone(),
            cursor: state.cursor,
            seen: state.seen,
            last: state.last,
            chunks: state.chunks.clone(),
            staged: Vec::new(),
            reports: state.reports.clone(),
            halts: state.halts,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            news: News::default(),
        }
    }

    /// What its programs do. What they wrote is news.
    ///
    /// # Errors
    ///
    /// What the edit returns.
    pub fn edit<T>(
        &self,
        edit: impl FnOnce(&mut ModelReplica) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        let done = edit(&mut lock(&self.state).replica)?;
        self.news.tell();
        Ok(done)
    }

    /// The value of a register for this content, whose chunks are here then.
    pub fn content(&self, content: &[u8]) -> Data {
        lock(&self.state).chunks.cut(content, PIECE)
    }

    /// What its programs see.
    pub fn local(&self) -> ModelTree {
        lock(&self.state).replica.local().clone()
    }

    /// What it knows of the hub, and as of when.
    pub fn confirmed(&self) -> (Option<Cursor>, ModelTree) {
        let state = lock(&self.state);
        (state.cursor, state.replica.confirmed().clone())
    }

    /// Whether everything was pushed and answered.
    pub fn is_clean(&self) -> bool {
        lock(&self.state).replica.is_clean()
    }

    /// The chunks that its tree needs and that are not here.
    pub fn missing(&self) -> Vec<ChunkHash> {
        let state = lock(&self.state);
        let tree = state.replica.local();
        let contents = tree.live().filter_map(|(node, _)| tree.content(node));
        let missing = contents.flat_map(|data| state.chunks.missing(data, None));
        missing.map(|(hash, _)| hash).collect()
    }

    /// What it was told of what became of the edits of others.
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.state).reports.clone()
    }

    /// Where a session begins: what it has, its last batch, and the digest of
    /// that.
    pub fn start(&self) -> (Start, u64, Option<[u8; 32]>) {
        let state = lock(&self.state);
        let start = state.cursor.map_or(Start::Nothing, Start::At);
        (start, state.last.0, state.last.1)
    }

    /// Forgets what is not durable, as a crash makes it.
    pub fn crash(&self) {
        lock(&self.state).staged.clear();
    }
}

impl State {
    fn stage(&mut self, first: u64, changes: Vec<Change>, reports: Vec<Report>) -> Vec<Wanted> {
        if first == 0 {
            self.staged.clear();
        }
        // Reports count, too.
        let before = self.staged.len() as u64;
        debug_assert!(first >= before, "changes follow each other");
        self.reports.extend(reports);
        let wanted = self.wants(&changes);
        self.staged.extend(changes);
        wanted
    }

    /// Stages what is in flight, as this commit.
    fn confirm(&mut self, first: u64, ver: Seq) -> Vec<Wanted> {
        self.stage(first, self.replica.confirmed_as(ver), Vec::new())
    }

    /// The chunks that changes need and that are not here.
    fn wants<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Vec<Wanted> {
        let mut contents: BTreeMap<NodeId, &Data> = BTreeMap::new();
        for change in changes {
            if let Entry::Data { node, data } = &change.entry {
                contents.insert(*node, data);
            }
        }
        let confirmed = self.replica.confirmed();
        let contents = contents.into_iter();
        let wants = contents.flat_map(|(node, data)| {
            let older = confirmed.content(node);
            self.chunks.missing(data, older)
        });
        wants.collect()
    }

    fn apply(&mut self, cursor: Cursor, ack: Option<&PushAck>, confirmed: bool) -> Applied {
        if self.replica.in_flight().is_some() && ack.is_none() {
            return Applied::Held;
        }
        let wants = self.wants(&self.staged);
        if !wants.is_empty() {
            return Applied::Wants(wants);
        }
        let before = self.replica.clone();
        self.replica
            .arrive(cursor.seq, &self.staged, ack.map(answer).as_ref());
        if self.halts && !confirmed {
            let count = |replica: &ModelReplica| replica.local().live().count() as u64;
            let (of, left) = (count(&before), count(&self.replica));
            let enough = if before.begins_anew().is_some() {
                1
            } else {
                10
            };
            let emptied = left == 1 && of > enough;
            if emptied || (of >= 100 && left * 2 < of) {
                self.replica = before;
                let removed = of - left;
                return Applied::Halted { removed, of };
            }
        }
        self.cursor = Some(cursor);
        self.staged.clear();
        Applied::Done
    }

    fn reset(&mut self, why: Why, last_batch: u64) {
        self.staged.clear();
        self.cursor = None;
        self.replica.reset(why, last_batch);
        if self.replica.begins_anew() != Some(Why::Horizon) {
            self.last = (last_batch, None);
            self.seen = None;
        }
    }

    fn withdraw(&mut self, batch: u64) {
        if self.replica.in_flight() == Some(batch) {
            self.replica.withdraw();
            self.last = (batch - 1, None);
        }
    }

    fn next_batch(&mut self, inline: usize) -> Option<Box<BatchOffer>> {
        // What is in flight after a reset has seen what was here before.
        self.seen = self.cursor.or(self.seen);
        let seen = self.seen.unwrap_or(Cursor {
            epoch: Epoch([0; 16]),
            seq: 0,
            chain: Chain::GENESIS,
            scope: Scope::ALL,
        });
        let (number, edits) = self.replica.push()?;
        let edits = edits.to_vec();
        self.last = (number, Some(batch_digest(&edits)));
        let (mut chunks, mut along) = (Vec::new(), Vec::new());
        let mut room = inline;
        for edit in &edits {
            let Edit::Data { node, data, .. } = edit else {
                continue;
            };
            let confirmed = self.replica.confirmed().content(*node);
            let known = confirmed.map(|data| self.chunks.of(data));
            let known = known.unwrap_or_default();
            for (at, hash) in self.chunks.of(data).into_iter().enumerate() {
                if known.contains(&hash) || chunks.contains(&hash) {
                    continue;
                }
                chunks.push(hash);
                let chunk = self.chunks.encoded(hash, known.get(at).copied());
                let left = |chunk: &ChunkData| room.checked_sub(chunk.bytes.len());
                if let Some((chunk, left)) = chunk.and_then(|c| left(&c).map(|left| (c, left))) {
                    room = left;
                    along.push(chunk);
                }
            }
        }
        Some(Box::new(BatchOffer {
            batch: Batch {
                number,
                seen,
                edits,
                chunks,
            },
            inline: along,
            more: false,
        }))
    }

    /// The chunks that the hub's tree names, as far as it is known, and those of
    /// the batch in flight.
    fn named_at_the_hub(&mut self) -> BTreeSet<ChunkHash> {
        let mut contents: Vec<Data> = Vec::new();
        if self.replica.in_flight().is_some()
            && let Some((_, edits)) = self.replica.push()
        {
            contents.extend(edits.iter().filter_map(|edit| match edit {
                Edit::Data { data, .. } => Some(data.clone()),
                _ => None,
            }));
        }
        // Of dead nodes, too: who was away is told of them with their contents.
        let known = self.replica.confirmed().entries(0).into_iter();
        contents.extend(known.filter_map(|(_, entry)| match entry {
            Entry::Data { data, .. } => Some(data),
            _ => None,
        }));
        let named = contents.iter().flat_map(|data| self.chunks.of(data));
        named.collect()
    }

    /// Whether there may be something to push.
    fn is_dirty(&self) -> bool {
        !self.replica.is_clean()
    }
}

fn answer(ack: &PushAck) -> Ack {
    let outcomes = ack.outcomes.iter().cloned();
    let outcome = |(at, outcome): (u32, Outcome)| (usize::try_from(at).unwrap_or(0), outcome);
    Ack {
        batch: ack.batch,
        seq: ack.seq,
        outcomes: outcomes.map(outcome).collect(),
    }
}

impl Store<ClientAction, ClientDone> for ModelClient {
    fn perform(&self, action: ClientAction) -> ClientDone {
        let mut state = lock(&self.state);
        match action {
            ClientAction::Stage {
                first,
                changes,
                reports,
            } => ClientDone::Staged {
                wanted: state.stage(first, changes, reports),
            },
            ClientAction::Confirm { first, seq } => ClientDone::Staged {
                wanted: state.confirm(first, seq),
            },
            ClientAction::Apply {
                cursor,
                ack,
                confirmed,
            } => {
                let applied = state.apply(cursor, ack.as_ref(), confirmed);
                let news = applied == Applied::Done && state.is_dirty();
                drop(state);
                if news {
                    self.news.tell();
                }
                ClientDone::Applied(applied)
            }
            ClientAction::Reset {
                why, last_batch, ..
            } => {
                state.reset(why, last_batch);
                ClientDone::Reset {
                    from: Start::Nothing,
                }
            }
            ClientAction::Withdraw { batch } => {
                state.withdraw(batch);
                ClientDone::Withdrawn
            }
            ClientAction::NextBatch { inline } => ClientDone::Batch(state.next_batch(inline)),
            ClientAction::Prepare => ClientDone::Prepared,
            ClientAction::Supply { chunks, budget } => {
                let chunks: Vec<Wanted> = chunks.iter().map(|(hash, _)| (*hash, None)).collect();
                let Given {
                    chunks,
                    taken,
                    missing,
                } = state.chunks.give(&chunks, budget);
                ClientDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
            ClientAction::Give { chunks, budget } => {
                let named = state.named_at_the_hub();
                let (known, missing): (Vec<_>, Vec<_>) =
                    (chunks.into_iter()).partition(|hash| named.contains(hash));
                let known: Vec<Wanted> = known.iter().map(|hash| (*hash, None)).collect();
                let mut given = state.chunks.give(&known, budget);
                if given.taken == known.len() {
                    given.taken += missing.len();
                    given.missing.extend(missing);
                }
                ClientDone::Chunks {
                    chunks: given.chunks,
                    taken: given.taken,
                    missing: given.missing,
                }
            }
            ClientAction::Store { chunks } => ClientDone::Stored {
                refused: state.chunks.keep(chunks),
            },
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.news.add(wake)
    }
}

/// A store that fails at everything, with this code.
#[derive(Clone, Copy, Debug)]
pub struct BrokenClient(pub Code);

impl Store<ClientAction, ClientDone> for BrokenClient {
    fn perform(&self, _: ClientAction) -> ClientDone {
        ClientDone::Failed(StoreFailure {
            code: self.0,
            detail: "the store is broken".to_owned(),
            retry_after_ms: 0,
        })
    }

    fn on_news(&self, _: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        Box::new(())
    }
}
