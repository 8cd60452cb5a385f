//! The hub: one order for the edits of all replicas, in the tables of a replica.
//!
//! The hub's tree is a shared tree (see [`crate::shared`]) beside the replica's
//! working tree, and has nothing to do with it; the working tree of a replica
//! that is a hub, too, follows its own hub as any other replica does. All that
//! a hub knows is in the database, so a crash between any two actions leaves it
//! as after one of them, and any number of [`Hub`] values may be of one replica.
//!
//! | module | owns |
//! | --- | --- |
//! | `commit` | a batch becomes a commit, exactly once (EDT-5) |
//! | `feed` | what commits changed, coalesced by register, and who may follow |
//! | `bytes` | chunks that come and go, and those that a session holds |
//! | `horizon` | forgetting what everybody knows |
//! | `newest` | of the sessions of a replica the newest pushes |
//! | `pace` | the working tree gives way to pushes |
//! | `state` | the rows of the hub itself and of the replicas it knows |

mod bytes;
mod commit;
mod feed;
mod horizon;
mod newest;
mod pace;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cairn_protocol::session::{Admission, HubAction, HubDone, Store, StoreFailure};
use cairn_protocol::wire::{Code, Hello, Start, Why};
use cairn_protocol::{ChunkHash, Cursor, ReplicaTag, Seq};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::replica::Replica;
use crate::{FsError, Result};

use bytes::Held;
use feed::Reader;
use newest::{Place, Sessions};
use pace::Pace;
use state::State;

/// What a hub knows besides its tree. Of a commit that everybody knows, only
/// the registers that it was the last to set stay.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS hub(
    id INTEGER PRIMARY KEY CHECK(id = 0), epoch BLOB NOT NULL, tag INTEGER NOT NULL,
    minted INTEGER NOT NULL, head INTEGER NOT NULL, chain BLOB NOT NULL, horizon INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS hub_commit(
    seq INTEGER PRIMARY KEY, author INTEGER NOT NULL, chain BLOB, outcomes BLOB, keys BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS hub_replica(
    tag INTEGER PRIMARY KEY, batch INTEGER NOT NULL, digest BLOB NOT NULL, ack BLOB,
    applied INTEGER NOT NULL, seen INTEGER NOT NULL);
";

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Follow.
    Read,
    /// Follow and push.
    Write,
}

/// Decides who may come in, by the token and the workspace of the greeting.
pub type Door = Arc<dyn Fn(&Hello) -> Result<Access, StoreFailure> + Send + Sync>;

/// How long a hub remembers what ended.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// Commits that are always remembered. Default: 10 000.
    pub keep_commits: u64,
    /// How long a replica that was not seen is waited for: what it has not
    /// applied is remembered. Default: 30 days.
    pub retain: Duration,
    /// What time it is, in seconds since 1970: only how long somebody is away is
    /// told by it, and a clock that jumps makes who was away begin anew, or is
    /// remembered longer. Default: that of the system.
    pub clock: fn() -> i64,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            keep_commits: 10_000,
            retain: Duration::from_hours(30 * 24),
            clock: || crate::replica::now().seconds(),
        }
    }
}

/// Where a hub stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubStatus {
    /// Its last commit.
    pub head: Cursor,
    /// Replicas that have pushed or followed.
    pub replicas: u64,
    /// Commits that did not simply take effect, and are remembered.
    pub conflicts: u64,
    /// The oldest commit from which a replica can follow.
    pub horizon: Seq,
    /// Nodes of its tree that live.
    pub nodes: u64,
}

/// The hub of a replica.
///
/// # Examples
///
/// ```
/// use cairn_engine::{Access, Hub, Replica};
///
/// let replica = Replica::in_memory()?;
/// let hub = Hub::open(&replica)?;
/// assert_eq!(hub.head()?.seq, 0);
/// let session = hub.session(std::sync::Arc::new(|_| Ok(Access::Write)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    replica: Replica,
    options: HubOptions,
}

/// What all [`Hub`] values of a replica share: who wants to know of commits.
#[derive(Default)]
pub(crate) struct Watchers {
    /// Whether the hub has been opened since the replica was.
    begun: AtomicBool,
    next: AtomicU64,
    wakes: Mutex<BTreeMap<u64, Arc<dyn Fn() + Send + Sync>>>,
    /// Up to which commit each session that follows was told.
    telling: Mutex<BTreeMap<u64, Seq>>,
    pace: Pace,
    /// Which lost chunks the tree of the hub names, as of a number of losses.
    lost: Mutex<(u64, BTreeSet<ChunkHash>)>,
    sessions: Sessions,
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watchers({})", self.wakes.lock().len())
    }
}

impl Watchers {
    pub(crate) fn wake(&self) {
        let wakes: Vec<_> = self.wakes.lock().values().cloned().collect();
        for wake in wakes {
            wake();
        }
    }
}

/// Ends a watch.
struct Watching(Replica, u64);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.inner.watchers.wakes.lock().remove(&self.1);
    }
}

impl Hub {
    /// The hub of a replica; it begins with the first call, with an empty tree.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn open(replica: &Replica) -> Result<Self> {
        Self::open_with(replica, HubOptions::default())
    }

    /// The same, with another memory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_with(replica: &Replica, options: HubOptions) -> Result<Self> {
        {
            let db = replica.inner.db.writer();
            let watchers = &replica.inner.watchers;
            if !watchers.begun.load(Ordering::SeqCst) {
                state::begin(&db)?;
                watchers.begun.store(true, Ordering::SeqCst);
            }
        }
        Ok(Self {
            replica: replica.clone(),
            options,
        })
    }

    /// Whether the replica is a hub.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn exists(replica: &Replica) -> Result<bool> {
        Ok(State::find(&replica.inner.db.reader())?.is_some())
    }

    /// The last commit.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn head(&self) -> Result<Cursor> {
        Ok(State::load(&self.replica.inner.db.reader())?.cursor())
    }

    /// Its own tag, in the ids that it mints.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn tag(&self) -> Result<ReplicaTag> {
        Ok(State::load(&self.replica.inner.db.reader())?.tag)
    }

    /// Where the hub stands.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn status(&self) -> Result<HubStatus> {
        state::status(&self.replica.inner.db.reader())
    }

    /// The working tree does not give way to others until it has what the hub
    /// has now: somebody waits for it.
    pub fn hurry(&self) {
        self.replica.inner.watchers.pace.hurry();
    }

    /// The store of one connection. `door` decides whom it is for.
    pub fn session(&self, door: Door) -> HubSession {
        let watchers = &self.replica.inner.watchers;
        HubSession {
            id: watchers.next.fetch_add(1, Ordering::Relaxed),
            held: Held::new(self.replica.clone()),
            hub: self.clone(),
            door,
            peer: Mutex::default(),
        }
    }

    /// Up to which commit each session that follows was told.
    fn telling(&self) -> MutexGuard<'_, BTreeMap<u64, Seq>> {
        self.replica.inner.watchers.telling.lock()
    }
}

/// What the hub knows of the client at the other end.
#[derive(Debug, Default, Clone, Copy)]
struct Peer {
    tag: Option<ReplicaTag>,
    place: Option<Place>,
    may_push: bool,
    /// It began with nothing, had pushed nothing and has had no cut yet: it has
    /// not heard of what ended up to this commit. Of what ended later it may
    /// have: it pushes while it is told.
    unborn: Seq,
}

impl Peer {
    /// The session is over, and nothing of it is under way.
    fn end(self, sessions: &Sessions) {
        if let Some(place) = self.place {
            sessions.end(place);
        }
    }
}

/// Who pushes a batch.
#[derive(Debug, Clone, Copy)]
struct Pusher {
    place: Place,
    /// Who may not gets what was answered before, and nothing else.
    may_push: bool,
}

/// The store of one connection to a hub. Chunks that it was told of stay until
/// it is dropped.
pub struct HubSession {
    id: u64,
    hub: Hub,
    door: Door,
    peer: Mutex<Peer>,
    held: Held,
}

impl fmt::Debug for HubSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSession")
            .field("peer", &*self.peer.lock())
            .finish_non_exhaustive()
    }
}

impl Drop for HubSession {
    fn drop(&mut self) {
        self.hub.telling().remove(&self.id);
        self.peer
            .lock()
            .end(&self.hub.replica.inner.watchers.sessions);
    }
}

impl Store<HubAction, HubDone> for HubSession {
    fn perform(&self, action: HubAction) -> HubDone {
        self.answer(action).unwrap_or_else(HubDone::Failed)
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        let replica = self.hub.replica.clone();
        let watchers = &replica.inner.watchers;
        let id = watchers.next.fetch_add(1, Ordering::Relaxed);
        watchers.wakes.lock().insert(id, wake);
        Box::new(Watching(replica, id))
    }
}

impl HubSession {
    fn answer(&self, action: HubAction) -> Result<HubDone, StoreFailure> {
        Ok(match action {
            HubAction::Admit(hello) => HubDone::Admitted(Box::new(self.admit(&hello)?)),
            HubAction::Subscribe { from } => HubDone::Subscribed(self.subscribe(&from)?),
            HubAction::Feed { after, max } => {
                let Peer { tag, unborn, .. } = *self.peer.lock();
                if self.is_own() {
                    self.pace().wait();
                }
                let mut page = self.hub.feed(after, max, Reader { tag, unborn })?;
                if !self.is_own() {
                    page.lost = self.hub.replica.inner.lost.number();
                }
                if let Some(told) = self.hub.telling().get_mut(&self.id) {
                    *told = page.next;
                }
                if page.cut.is_some() {
                    self.peer.lock().unborn = 0;
                    if self.is_own() {
                        self.pace().told();
                    }
                }
                page.into()
            }
            HubAction::Applied { cursor } => {
                self.applied(&cursor)?;
                HubDone::Noted
            }
            HubAction::Offer { chunks } => {
                self.came(chunks.len());
                HubDone::Offered(self.held.offer(&chunks)?)
            }
            HubAction::Commit { batch, edits } => {
                let by = self.pusher()?;
                // Before the working tree is told of the commit, and once more
                // for what comes next.
                self.came(edits.len());
                let done = self.hub.commit(by, batch, &edits)?;
                if self.is_own() {
                    // It pushes nothing more before it is told of this.
                    self.pace().hurry();
                }
                self.held.let_go(&done.named);
                self.came(edits.len());
                HubDone::Committed {
                    ack: Box::new(done.ack),
                    plain: done.plain,
                }
            }
            HubAction::Store { chunks } => {
                self.pace().goes_on();
                HubDone::Stored {
                    refused: self.held.store(chunks)?,
                }
            }
            HubAction::Lost { after, max } => HubDone::Lost(self.hub.lost(after, max)?),
            HubAction::Read { chunks, budget } => self.hub.read(&chunks, budget)?,
        })
    }

    fn pace(&self) -> &Pace {
        &self.hub.replica.inner.watchers.pace
    }

    /// Whether the client is the working tree of this replica.
    fn is_own(&self) -> bool {
        let own = ReplicaTag(self.hub.replica.inner.identity.tag);
        self.peer.lock().tag == Some(own)
    }

    /// Something of a batch came, of so many edits or chunks.
    fn came(&self, count: usize) {
        if !self.is_own() {
            self.pace().came(count);
        }
    }

    fn admit(&self, hello: &Hello) -> Result<Admission, StoreFailure> {
        let access = (self.door)(hello)?;
        let (inner, tag) = (&self.hub.replica.inner, hello.replica);
        if tag == ReplicaTag(0) || tag == self.hub.tag()? {
            let detail = format!("the tag {tag} is not free for a replica");
            return Err(failure(Code::TAG_TAKEN, detail));
        }
        if inner.may_return.load(Ordering::SeqCst) {
            // What it is told of its last batch has to stay true.
            inner.lay(&inner.db.writer()).map_err(commit::uncertain)?;
        }
        let (place, others) = inner.watchers.sessions.begin(tag);
        let before = std::mem::replace(
            &mut *self.peer.lock(),
            Peer {
                tag: Some(tag),
                place: Some(place),
                may_push: access == Access::Write,
                unborn: 0,
            },
        );
        before.end(&inner.watchers.sessions);
        let load = |db: &Connection| Ok::<_, FsError>((State::load(db)?, state::replica(db, tag)?));
        let (state, known) = if others {
            // A commit of an older session ends first.
            load(&inner.db.writer())?
        } else {
            load(&inner.db.reader())?
        };
        let (last_batch, last_batch_digest) = known.map_or((0, [0; 32]), |r| (r.batch, r.digest));
        Ok(Admission {
            head: state.cursor(),
            last_batch,
            last_batch_digest,
            may_push: access == Access::Write,
            session: inner.watchers.next.fetch_add(1, Ordering::Relaxed),
        })
    }

    fn subscribe(&self, from: &Start) -> Result<Result<Seq, (Why, Seq)>, StoreFailure> {
        let tag = self.tag()?;
        // One at a time with a prune: what the client is about to be told must
        // not be forgotten on the way, however long it was away.
        let db = self.hub.replica.inner.db.writer();
        let answer = feed::subscribe(&db, from)?;
        let pushed = state::replica(&db, tag)?.is_some_and(|known| known.batch > 0);
        self.peer.lock().unborn = match from {
            Start::Nothing if !pushed => State::load(&db)?.head,
            _ => 0,
        };
        if let Ok(seq) = answer {
            state::note_applied(&db, tag, seq, (self.hub.options.clock)())?;
            self.hub.telling().insert(self.id, seq);
        }
        Ok(answer)
    }

    fn tag(&self) -> Result<ReplicaTag, StoreFailure> {
        self.peer.lock().tag.ok_or_else(nobody)
    }

    fn pusher(&self) -> Result<Pusher, StoreFailure> {
        let Peer {
            place, may_push, ..
        } = *self.peer.lock();
        let place = place.ok_or_else(nobody)?;
        Ok(Pusher { place, may_push })
    }

    fn applied(&self, cursor: &Cursor) -> Result<(), StoreFailure> {
        let tag = self.tag()?;
        let db = self.hub.replica.inner.db.writer();
        if State::load(&db)?.epoch == cursor.epoch {
            state::note_applied(&db, tag, cursor.seq, (self.hub.options.clock)())?;
        }
        Ok(())
    }
}

fn nobody() -> StoreFailure {
    failure(Code::STATE, "nobody was admitted to this session")
}

/// A refusal that does not go away by itself.
fn failure(code: Code, detail: impl Into<String>) -> StoreFailure {
    StoreFailure {
        code,
        detail: detail.into(),
        retry_after_ms: 0,
    }
}

impl From<FsError> for StoreFailure {
    fn from(error: FsError) -> Self {
        let (code, retry_after_ms) = match &error {
            FsError::NoSpace => (Code::QUOTA, 5_000),
            FsError::Closed => (Code::SHUTDOWN, 1_000),
            _ => (Code::INTERNAL, 1_000),
        };
        Self {
            code,
            detail: error.to_string(),
            retry_after_ms,
        }
    }
}
