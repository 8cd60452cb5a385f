//! The model's hub behind the actions of sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chunks::{ChunkMap, Given};
use super::hub::{Hub, PushError};
use super::news::News;
use super::tree::ModelTree;
use crate::chain::{Chain, CommitHasher};
use crate::cursor::{Cursor, Epoch, Scope, Seq};
use crate::data::Data;
use crate::edit::Edit;
use crate::hash::ChunkHash;
use crate::id::{NodeId, ReplicaTag};
use crate::merge::{Safeguards, is_plain};
use crate::session::{Admission, HubAction, HubDone, Report, Store, StoreFailure, batch_digest};
use crate::wire::{Code, Ext, List, PushAck, Start, Token, Why};

/// A hub of the model, as sessions see it. Clones are of one hub.
#[derive(Clone, Debug)]
pub struct ModelHub {
    state: Arc<Mutex<State>>,
    news: News,
}

#[derive(Clone, Debug)]
struct State {
    hub: Hub,
    epoch: Epoch,
    /// After each commit, from 0 on.
    chains: Vec<Chain>,
    reports: Vec<Report>,
    chunks: ChunkMap,
    /// Chunks that were lost, and may have come again.
    lost: BTreeSet<ChunkHash>,
    /// How often chunks were lost.
    losses: u64,
    read_only: BTreeSet<Vec<u8>>,
    sessions: u64,
    /// The newest session of each replica, which alone may push (SES-21).
    newest: BTreeMap<ReplicaTag, u64>,
    newest_only: bool,
    /// What ended before is forgotten, and cursors before lead nowhere.
    horizon: Seq,
    /// How often it was restored.
    lives: u64,
    /// The tree after each commit, for the laws.
    history: BTreeMap<Seq, ModelTree>,
}

/// A copy of everything that a hub has, as a backup is.
#[derive(Clone, Debug)]
pub struct HubBackup(State);

/// The hub, as one connection has it.
#[derive(Debug)]
struct Peer {
    hub: ModelHub,
    client: Mutex<Option<Client>>,
}

/// Whom a connection is of, and the number of its session.
#[derive(Clone, Copy, Debug)]
struct Client {
    tag: ReplicaTag,
    session: u64,
    may_push: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "texts and errors are made for this call"
)]
fn failed(code: Code, detail: impl ToString) -> HubDone {
    HubDone::Failed(StoreFailure {
        code,
        detail: detail.to_string(),
        retry_after_ms: 0,
    })
}

impl ModelHub {
    /// A hub with an empty tree.
    pub fn new(epoch: Epoch) -> Self {
        Self::with(epoch, Safeguards::ALL, true)
    }

    /// A hub without some safeguards, for tests of tests.
    pub fn with(epoch: Epoch, safe: Safeguards, exactly_once: bool) -> Self {
        let state = State {
            hub: Hub::with(safe, exactly_once),
            epoch,
            chains: vec![Chain::GENESIS],
            reports: Vec::new(),
            chunks: ChunkMap::default(),
            lost: BTreeSet::new(),
            losses: 0,
            read_only: BTreeSet::new(),
            sessions: 0,
            newest: BTreeMap::new(),
            newest_only: true,
            horizon: 0,
            lives: 0,
            history: BTreeMap::from([(0, ModelTree::new())]),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            news: News::default(),
        }
    }

    /// Who shows this token may not push.
    pub fn set_read_only(&self, token: &Token) {
        lock(&self.state)
            .read_only
            .insert(token.as_bytes().to_vec());
    }

    /// Every token may push again.
    pub fn clear_read_only(&self) {
        lock(&self.state).read_only.clear();
    }

    /// Lets older sessions of a replica push beside its newest, for tests of tests.
    pub fn let_older_push(&self) {
        lock(&self.state).newest_only = false;
    }

    /// The hub as a connection's sessions have it.
    pub fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        Arc::new(Peer {
            hub: self.clone(),
            client: Mutex::new(None),
        })
    }

    /// Its tree.
    pub fn tree(&self) -> ModelTree {
        lock(&self.state).hub.tree().clone()
    }

    /// Its tree after a commit (I4).
    pub fn tree_at(&self, seq: Seq) -> Option<ModelTree> {
        lock(&self.state).history.get(&seq).cloned()
    }

    /// Its last commit.
    pub fn head(&self) -> Cursor {
        lock(&self.state).head()
    }

    /// Forgets what ended, as when everybody that it has seen for a long time is
    /// at this commit or after it.
    pub fn forget(&self, horizon: Seq) {
        let mut state = lock(&self.state);
        if horizon == state.hub.head() {
            state.horizon = horizon;
            state.hub.forget();
        }
    }

    /// Loses the chunks of a content, as a damaged disk does.
    pub fn lose(&self, node: NodeId) {
        let mut state = lock(&self.state);
        let of = |data: &Data| state.chunks.of(data);
        let chunks = state.hub.tree().content(node).map(of).unwrap_or_default();
        for hash in chunks {
            state.chunks.lose(&hash);
            state.lost.insert(hash);
        }
        state.losses += 1;
        drop(state);
        self.news.tell();
    }

    /// The chunks that its tree needs and that it does not have.
    pub fn missing(&self) -> Vec<ChunkHash> {
        let state = lock(&self.state);
        let tree = state.hub.tree();
        let contents = tree.live().filter_map(|(node, _)| tree.content(node));
        let missing = contents.flat_map(|data| state.chunks.missing(data, None));
        missing.map(|(hash, _)| hash).collect()
    }

    /// Everything that it has now.
    pub fn backup(&self) -> HubBackup {
        HubBackup(lock(&self.state).clone())
    }

    /// Makes it what it was, or another hub.
    pub fn restore(&self, backup: HubBackup) {
        let mut state = lock(&self.state);
        let lives = state.lives + 1;
        let (sessions, newest) = (state.sessions, std::mem::take(&mut state.newest));
        *state = backup.0;
        (state.lives, state.sessions, state.newest) = (lives, sessions, newest);
        state.hub.set_tag(ReplicaTag(0xb00 + lives));
        drop(state);
        self.news.tell();
    }
}

impl State {
    fn head(&self) -> Cursor {
        let seq = self.hub.head();
        Cursor {
            epoch: self.epoch,
            seq,
            chain: self.chain(seq).unwrap_or(Chain::GENESIS),
            scope: Scope::ALL,
        }
    }

    fn chain(&self, seq: Seq) -> Option<Chain> {
        self.chains.get(usize::try_from(seq).ok()?).copied()
    }

    fn subscribe(&self, from: Start) -> Result<Seq, (Why, Seq)> {
        let Start::At(cursor) = from else {
            return Ok(0);
        };
        if cursor.epoch != self.epoch {
            return Err((Why::Epoch, 0));
        }
        if self.chain(cursor.seq) != Some(cursor.chain) {
            return Err((Why::Forked, 0));
        }
        if cursor.seq < self.horizon {
            return Err((Why::Horizon, self.horizon));
        }
        Ok(cursor.seq)
    }

    fn feed(&self, after: Seq, max: usize) -> HubDone {
        let head = self.hub.head();
        let mut next = head;
        if after == 0 && self.horizon > 0 {
            return HubDone::Page {
                changes: self.hub.whole(),
                reports: Vec::new(),
                next,
                cut: Some(self.head()),
                lost: self.lost_number(),
            };
        }
        let mut changes = self.hub.changes_since(after);
        if let Some(last) = changes.get(max.saturating_sub(1)) {
            // All of a commit come together.
            next = last.ver;
            changes.retain(|change| change.ver <= next);
        }
        let told = |report: &&Report| report.seq > after && report.seq <= next;
        HubDone::Page {
            changes,
            reports: self.reports.iter().filter(told).cloned().collect(),
            next,
            cut: (next == head).then(|| self.head()),
            lost: self.lost_number(),
        }
    }

    /// What is lost, and has not come again.
    fn still_lost(&self) -> impl Iterator<Item = ChunkHash> {
        let lost = self.lost.iter().copied();
        lost.filter(|hash| !self.chunks.has(hash))
    }

    fn lost_number(&self) -> u64 {
        self.still_lost().next().map_or(0, |_| self.losses)
    }

    fn commit(&mut self, client: Client, batch: u64, edits: &[Edit]) -> HubDone {
        let Client { tag, session, .. } = client;
        if self.newest_only && self.newest.get(&tag) != Some(&session) {
            return failed(Code::SHUTDOWN, "the replica has a newer session");
        }
        let last = self.hub.last(tag).map_or(0, |(last, _)| last);
        if !client.may_push && batch > last {
            return failed(Code::READ_ONLY, "the token allows to read only");
        }
        let files = edits.iter().filter_map(|edit| match edit {
            Edit::Data { data, .. } => Some(data),
            _ => None,
        });
        // What was committed is answered, whatever was lost since (SES-20).
        let missing = |data: &Data| batch > last && !self.chunks.missing(data, None).is_empty();
        if files.into_iter().any(missing) {
            return failed(Code::CHUNK_MISSING, "a chunk of the batch is not here");
        }
        let before = self.hub.head();
        let ack = match self.hub.push(tag, batch, edits) {
            Ok(ack) => ack,
            Err(error @ PushError::Gap { .. }) => return failed(Code::BATCH_GAP, error),
            Err(error @ PushError::ReplicaForked(_)) => {
                return failed(Code::REPLICA_FORKED, error);
            }
            Err(error) => return failed(Code::MALFORMED, error),
        };
        if self.hub.head() > before {
            self.committed(tag, &ack.outcomes);
        }
        let entries = self.hub.changes_since(ack.seq - 1).into_iter();
        let entries: Vec<_> = entries.map(|change| change.entry).collect();
        let is_new = self.hub.head() > before;
        let plain = is_new && ack.outcomes.is_empty() && is_plain(edits, &entries);
        let outcomes = ack.outcomes.iter();
        let outcomes = outcomes.map(|(at, outcome)| {
            let at = u32::try_from(*at).unwrap_or(u32::MAX);
            (at, outcome.clone())
        });
        let ack = Box::new(PushAck {
            batch,
            seq: ack.seq,
            chain: self.chain(ack.seq).unwrap_or(Chain::GENESIS),
            outcomes: List::try_from(outcomes.collect::<Vec<_>>()).unwrap_or_default(),
            ext: Ext::default(),
        });
        HubDone::Committed { ack, plain }
    }

    fn committed(&mut self, by: ReplicaTag, outcomes: &[(usize, crate::Outcome)]) {
        let seq = self.hub.head();
        let mut hasher = CommitHasher::new();
        for change in self.hub.changes_since(seq - 1) {
            hasher.push(&change);
        }
        let last = self.chain(seq - 1).unwrap_or(Chain::GENESIS);
        self.chains.push(last.next(&hasher.finish()));
        self.history.insert(seq, self.hub.tree().clone());
        let outcomes: Vec<_> = outcomes.iter().map(|(_, o)| o.clone()).collect();
        if !outcomes.is_empty() {
            self.reports.push(Report { seq, by, outcomes });
        }
    }
}

impl Peer {
    fn admit(&self, hello: &crate::wire::Hello) -> HubDone {
        let mut state = lock(&self.hub.state);
        state.sessions += 1;
        let session = state.sessions;
        let tag = hello.replica;
        state.newest.insert(tag, session);
        let may_push = !state.read_only.contains(hello.token.as_bytes());
        *lock(&self.client) = Some(Client {
            tag,
            session,
            may_push,
        });
        let last = state.hub.last(tag);
        HubDone::Admitted(Box::new(Admission {
            head: state.head(),
            last_batch: last.map_or(0, |(batch, _)| batch),
            last_batch_digest: last.map_or([0; 32], |(_, edits)| batch_digest(edits)),
            may_push,
            session,
        }))
    }
}

impl Store<HubAction, HubDone> for Peer {
    fn perform(&self, action: HubAction) -> HubDone {
        if let HubAction::Admit(hello) = &action {
            return self.admit(hello);
        }
        let mut state = lock(&self.hub.state);
        match action {
            HubAction::Admit(_) | HubAction::Applied { .. } => HubDone::Noted,
            HubAction::Subscribe { from } => HubDone::Subscribed(state.subscribe(from)),
            HubAction::Feed { after, max } => state.feed(after, max),
            HubAction::Offer { chunks } => {
                let missing = chunks.iter().map(|hash| !state.chunks.has(hash));
                HubDone::Offered(missing.collect())
            }
            HubAction::Commit { batch, edits } => {
                let Some(client) = *lock(&self.client) else {
                    return failed(Code::STATE, "a batch before a greeting");
                };
                let head = state.hub.head();
                let done = state.commit(client, batch, &edits);
                let is_new = state.hub.head() > head;
                drop(state);
                if is_new {
                    self.hub.news.tell();
                }
                done
            }
            HubAction::Store { chunks } => HubDone::Stored {
                refused: state.chunks.keep(chunks),
            },
            HubAction::Lost { after, max } => {
                let lost = state.still_lost().filter(|hash| Some(*hash) > after);
                HubDone::Lost(lost.take(max).collect())
            }
            HubAction::Read { chunks, budget } => {
                let given = state.chunks.give(&chunks, budget);
                let Given {
                    chunks,
                    taken,
                    missing,
                } = given;
                HubDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.hub.news.add(wake)
    }
}
