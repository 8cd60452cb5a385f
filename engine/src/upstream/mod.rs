//! Following a hub: the replica's side of the protocol.
//!
//! The *confirmed tree* is the hub's at the cursor, in the tables of a shared
//! tree. The working tree is the confirmed tree with the edits of programs
//! over it. Which registers were edited is not kept: the replica's own log says
//! which may differ, and where both trees are equal there is nothing to push.
//! Only what an editor saw in a register that others changed since is kept
//! (R11), and the batch that was not answered.
//!
//! A cut is applied when no batch is in flight, or together with its answer;
//! so both trees move in one transaction, which a crash leaves whole (I16).
//!
//! | module | owns |
//! | --- | --- |
//! | `state` | the rows of one hub besides its tree |
//! | `local` | the working tree by the ids of nodes |
//! | `layout` | the chunks of contents |
//! | `scan`, `edits`, `registers`, `push` | what is pushed |
//! | `draft` | what is pushed next, while the hub commits |
//! | `withdraw` | a batch that the hub does not take |
//! | `outsized` | what is too large for that |
//! | `conflicts` | what people should look at |
//! | `lazy`, `evict` | contents that are fetched when they are read, and given up again |
//! | `give` | chunks that the hub has lost |
//! | `ignore` | what is neither pushed nor shown |
//! | `status` | where everything stands, for people and tests |
//! | `stage`, `spool`, `cut` | what comes, from the first change to the commit |
//! | `whole`, `same` | what a transfer says as a whole, and what of that is so here |
//! | `anew` | what was removed here and not pushed, when the hub is another |
//! | `look`, `echo`, `plan`, `replay` | what a cut means for the working tree |
//! | `fresh`, `grow` | what nobody here has heard of, and how it becomes rows |
//! | `hidden` | what ignore rules hide of it |
//! | `plain`, `turn` | what nobody here has edited, and how its rows become others |
//! | `leftover` | what is ignored in directories that go |
//! | `build`, `renew`, `rider` | how the rest is set, and what goes with it |
//! | `show` | the moment when a cut comes to be seen |
//! | `identity` | what makes a copy of a replica one of its own |
//! | `sides` | what it means for the other hub of a hub in the middle |

mod anew;
mod build;
mod conflicts;
mod cut;
mod draft;
mod echo;
mod edits;
mod evict;
mod fresh;
mod give;
mod grow;
mod hidden;
pub(crate) mod identity;
mod ignore;
mod layout;
mod lazy;
mod leftover;
mod local;
mod look;
mod outsized;
mod plain;
mod plan;
mod push;
mod registers;
mod renew;
mod replay;
mod rider;
mod same;
mod scan;
mod show;
mod sides;
mod spool;
mod stage;
mod state;
mod status;
mod turn;
mod whole;
mod withdraw;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_protocol::merge::Place;
use cairn_protocol::session::{ClientAction, ClientDone, Store, StoreFailure};
use cairn_protocol::wire::{Code, Start, Why};
use cairn_protocol::{ChunkHash, Cursor, ReplicaTag, Ver};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::replica::{Inner, Replica};
use crate::{FsError, Result};

pub use conflicts::Conflict;
pub use lazy::Fetcher;
pub use status::SyncStatus;

pub(crate) use rider::Rider;
pub(crate) use state::{TABLES, scanned_by_all};

use draft::Draft;
use ignore::Ignore;
use stage::Staged;
use state::{Flight, Rows, State};

/// The store of a session that follows a hub.
///
/// There is one of each hub; sessions come and go.
pub struct Upstream {
    replica: Replica,
    side: u8,
    flight: Mutex<Option<Arc<Flight>>>,
    /// The version of the tree that it was made of, if that was since the start.
    made_of: Mutex<Option<Ver>>,
    /// There is more to push than it has, as far as is known.
    more: AtomicBool,
    draft: Mutex<Option<Draft>>,
    /// Leases of the chunks of the batch in flight.
    aloft: Mutex<Vec<ChunkHash>>,
    staged: Mutex<Staged>,
    /// The next cut is the whole tree of the hub, because of this.
    reset: Mutex<Option<Reset>>,
    /// Names and nodes that a cut planned in memory, at most.
    planned: AtomicUsize,
    /// A commit failed: what is in memory may not be what the rows say. Taken
    /// after the commit lock.
    unsure: Mutex<bool>,
    /// The cut of which the commit failed: whether another has made up for it.
    late: Mutex<Option<Arc<AtomicBool>>>,
    /// New chunks that a file may have and be pushed; less in tests.
    chunks_max: AtomicUsize,
    /// Contents are fetched when they are read.
    lazy: AtomicBool,
    /// Chunks that the hub has lost, and may have from here.
    given: Mutex<BTreeSet<ChunkHash>>,
    ignore: Mutex<Arc<Ignore>>,
    /// Places of the hub that were ignored, and are to be shown.
    uncovered: Mutex<Vec<Place>>,
}

/// The whole tree of the hub is to come.
#[derive(Clone, Copy, Debug)]
struct Reset {
    why: Why,
    /// The last batch of this replica that the hub knows.
    last_batch: u64,
}

impl Reset {
    /// Whether what was confirmed is of another history.
    fn is_anew(self) -> bool {
        self.why != Why::Horizon
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

/// Why an action fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Programs change what a cut touches faster than it can be applied.
    #[error("the files are being changed; it is tried again")]
    Busy,
    /// The replica failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<Failure> for StoreFailure {
    fn from(failure: Failure) -> Self {
        let (code, retry_after_ms) = match &failure {
            Failure::Busy => (Code::BUSY, 100),
            Failure::Fs(FsError::NoSpace) => (Code::QUOTA, 5_000),
            Failure::Fs(_) => (Code::INTERNAL, 5_000),
        };
        Self {
            code,
            detail: failure.to_string(),
            retry_after_ms,
        }
    }
}

impl Replica {
    /// The store of sessions that follow a hub elsewhere.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn upstream(&self) -> Result<Upstream> {
        Upstream::open(self, crate::shared::UPSTREAM)
    }

    /// The store of sessions by which the working tree follows the hub in this
    /// replica.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn own_upstream(&self) -> Result<Upstream> {
        Upstream::open(self, crate::shared::OWN_HUB)
    }
}

impl Upstream {
    fn open(replica: &Replica, side: u8) -> Result<Self> {
        let upstream = Self {
            replica: replica.unobserved(),
            side,
            flight: Mutex::new(None),
            made_of: Mutex::new(None),
            more: AtomicBool::new(false),
            draft: Mutex::new(None),
            aloft: Mutex::default(),
            staged: Mutex::default(),
            reset: Mutex::new(None),
            planned: AtomicUsize::new(0),
            unsure: Mutex::new(true),
            late: Mutex::default(),
            chunks_max: AtomicUsize::new(outsized::CHUNKS_MAX),
            lazy: AtomicBool::new(false),
            given: Mutex::default(),
            ignore: Mutex::default(),
            uncovered: Mutex::default(),
        };
        upstream.settle_down()?;
        upstream.load_lazy()?;
        *upstream.ignore.lock() = Arc::new(Ignore::new(&upstream.ignore_rules()?)?);
        Ok(upstream)
    }

    fn inner(&self) -> &Inner {
        &self.replica.inner
    }

    fn state(&self) -> Result<State> {
        let db = self.inner().db.reader();
        let side = self.side;
        Rows { db: &db, side }.state()
    }

    /// Commits what is not, and makes sure that memory says what the rows say.
    fn settle_down(&self) -> Result<()> {
        let inner = self.inner();
        inner.commit_changes()?;
        if *self.unsure.lock() || inner.may_return.load(Ordering::SeqCst) {
            drop(self.settled()?);
        }
        Ok(())
    }

    /// The commit lock, of who has settled down: makes up for a commit that has
    /// failed since.
    fn settled(&self) -> Result<MutexGuard<'_, Connection>> {
        let inner = self.inner();
        let db = inner.db.writer();
        if inner.tree.lock().rider.is_some() {
            // Of this hub or another: there is room for one.
            inner.commit_locked(&db, false)?;
        }
        inner.lay(&db)?;
        if *self.unsure.lock() {
            self.recall(&db)?;
            *self.unsure.lock() = false;
        }
        Ok(db)
    }

    /// Makes memory what the rows say.
    fn recall(&self, db: &Connection) -> Result<()> {
        let side = self.side;
        let flight = Rows { db, side }.flight()?;
        self.drop_draft();
        *self.made_of.lock() = None;
        if let Some(flight) = &flight {
            self.lease_flight(flight);
        } else {
            let old = std::mem::take(&mut *self.aloft.lock());
            self.inner().chunks.end_leases(&old);
        }
        *self.flight.lock() = flight.map(Arc::new);
        let late = self.late.lock().take();
        if late.is_some_and(|landed| landed.load(Ordering::SeqCst)) {
            // What comes next is no whole tree any more.
            *self.reset.lock() = None;
            self.uncovered.lock().clear();
        }
        Ok(())
    }

    /// Whose edits these are.
    pub fn tag(&self) -> ReplicaTag {
        ReplicaTag(self.inner().identity.tag)
    }

    /// The hub's commit that the working tree is of; `None` before the first cut.
    /// Who reads through a mount or another cache above sees it, too: that may take
    /// a moment longer than the commit, and is waited for.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn cursor(&self) -> Result<Option<Cursor>> {
        let cursor = self.state()?.cursor;
        self.replica.settle();
        Ok(cursor)
    }

    /// Another session begins: what the hub said in the one before of the cursor is
    /// forgotten, and said again if it still holds. The hub may be another by now;
    /// what it tells from the cursor on must not be taken for its whole tree, which
    /// says by its silence what was removed.
    pub fn begin_session(&self) {
        if self.reset.lock().take().is_some() {
            self.forget_staged();
        }
    }

    /// What a session begins with: from where it follows the hub, the number
    /// of the last batch, and its digest.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn start(&self) -> Result<(Start, u64, Option<[u8; 32]>)> {
        self.settle_down()?;
        let state = self.state()?;
        let start = state.cursor.map_or(Start::Nothing, Start::At);
        Ok((start, state.batch, state.digest))
    }

    fn reset(&self, why: Why, last_batch: u64) -> Start {
        self.forget_staged();
        self.drop_draft();
        *self.reset.lock() = Some(Reset { why, last_batch });
        Start::Nothing
    }

    fn try_perform(&self, action: ClientAction) -> Result<ClientDone, Failure> {
        Ok(match action {
            ClientAction::Stage {
                first,
                changes,
                reports,
            } => {
                let wanted = self.stage(first, changes, reports)?;
                ClientDone::Staged { wanted }
            }
            ClientAction::Confirm { first, seq } => {
                self.confirm(first, seq)?;
                ClientDone::Staged { wanted: Vec::new() }
            }
            ClientAction::Apply {
                cursor,
                ack,
                confirmed,
            } => ClientDone::Applied(self.apply(cursor, ack, confirmed)?),
            ClientAction::Reset {
                why, last_batch, ..
            } => ClientDone::Reset {
                from: self.reset(why, last_batch),
            },
            ClientAction::Withdraw { batch } => {
                self.withdraw(batch)?;
                ClientDone::Withdrawn
            }
            ClientAction::NextBatch { inline } => ClientDone::Batch(self.next_batch(inline)?),
            ClientAction::Prepare => {
                self.prepare()?;
                ClientDone::Prepared
            }
            ClientAction::Supply { chunks, budget } => self.supply(&chunks, budget)?,
            ClientAction::Store { chunks } => {
                let refused = self.store(chunks)?;
                ClientDone::Stored { refused }
            }
            ClientAction::Give { chunks, budget } => self.give(&chunks, budget)?,
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.forget_staged();
        self.drop_draft();
        let aloft = std::mem::take(&mut *self.aloft.lock());
        self.inner().chunks.end_leases(&aloft);
    }
}

/// Calls after commits end with this.
struct Calls(Replica, u64);

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.inner.news.forget(self.1);
    }
}

impl Store<ClientAction, ClientDone> for Upstream {
    fn perform(&self, action: ClientAction) -> ClientDone {
        match self.try_perform(action) {
            Ok(done) => done,
            Err(failure) => ClientDone::Failed(failure.into()),
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        let number = self.inner().news.call(wake);
        Box::new(Calls(self.replica.clone(), number))
    }
}

/// Keeps chunks from gc until the leases are ended.
fn lease(inner: &Inner, hashes: &[ChunkHash]) {
    let mut leases = inner.chunks.leases();
    for hash in hashes {
        leases.take(*hash);
    }
}
