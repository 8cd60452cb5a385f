//! What a session asks of the store beside it, and what the store answers.
//!
//! A session does no IO. Where it needs its store it gives an *action*, and goes
//! on when the answer comes back; whatever happens between the two (a crash, a
//! full disk) happens to the store alone. A session has at most one action of
//! each row under way; actions of different rows may run beside each other:
//!
//! | row | client | hub |
//! | --- | --- | --- |
//! | intake | `Stage`, `Confirm`, `Apply`, `Reset`, `Withdraw` | `Admit`, `Subscribe`, `Feed`, `Applied` |
//! | push | `NextBatch`, `Supply`, `Prepare` | `Offer`, `Commit` |
//! | chunks that come in | `Store` | `Lost`, `Store` |
//! | chunks that go out | `Give` | `Read` |

use std::sync::Arc;

use super::batch::Batch;
use crate::change::Change;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::edit::Edit;
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::outcome::Outcome;
use crate::wire::{ChunkData, Code, Hello, PushAck, Start, Why};

/// A chunk that is wanted, and one that the asker has and that may be like it.
pub type Wanted = (ChunkHash, Option<ChunkHash>);

/// A store failed, or refuses. The peer is told the code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct StoreFailure {
    /// What the peer is told.
    pub code: Code,
    /// What happened and to what, for people.
    pub detail: String,
    /// When to try again, in milliseconds from now; 0 for not at all.
    pub retry_after_ms: u32,
}

/// What became of a commit that others made: for people, so that both sides of
/// a conflict are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The commit.
    pub seq: Seq,
    /// Whose edits these were.
    pub by: ReplicaTag,
    /// What did not simply take effect.
    pub outcomes: Vec<Outcome>,
}

/// A batch as a replica offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOffer {
    /// The batch. Its `chunks` are all that may be new to the hub.
    pub batch: Batch,
    /// Some of these chunks with their bytes: what is small or a difference to
    /// something that the hub has, within the limit that was asked for.
    pub inline: Vec<ChunkData>,
    /// There is more to push after it, as far as the replica knows. The hub is
    /// not told.
    pub more: bool,
}

/// What a client's session asks of its replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Keep these changes until a cut comes. A register may come several times;
    /// the last counts. Answered by [`ClientDone::Staged`].
    Stage {
        /// How many changes and reports came before these since the last cut that
        /// was applied: a cut that is held is applied with what comes after it.
        /// With 0, these replace what was staged before.
        first: u64,
        /// The changes.
        changes: Vec<Change>,
        /// What became of the commits of others.
        reports: Vec<Report>,
    },
    /// Keep what the batch in flight says, as changes of this commit: it took
    /// effect just so. Answered by [`ClientDone::Staged`].
    Confirm {
        /// As in `Stage`.
        first: u64,
        /// The commit.
        seq: Seq,
    },
    /// The transfer is whole and its chunks are here: make it the confirmed
    /// tree, atomically, and show it. Answered by [`ClientDone::Applied`].
    Apply {
        /// The hub's commit.
        cursor: Cursor,
        /// The answer to the batch in flight, if the transfer is the first
        /// that includes its commit.
        ack: Option<PushAck>,
        /// Apply it even if it removes most of the tree.
        confirmed: bool,
    },
    /// The cursor leads nowhere: forget what was staged, and make ready for the
    /// whole tree of the hub. The edits of the batch in flight become edits that
    /// were not pushed. Answered by [`ClientDone::Reset`].
    Reset {
        /// Why.
        why: Why,
        /// The life of the hub's store.
        epoch: Epoch,
        /// The last batch of this replica that the hub knows. The next one is
        /// numbered after it.
        last_batch: u64,
    },
    /// The hub has refused the batch in flight and not committed it, and a cut
    /// waits for it: its edits become edits that were not pushed, with what their
    /// editors saw, and its number is that of the next batch. Nothing happens if
    /// another batch is in flight, or none. Answered by [`ClientDone::Withdrawn`].
    Withdraw {
        /// Its number.
        batch: u64,
    },
    /// The edits that were not pushed yet, as a batch that stays the same until
    /// its answer is applied or it is withdrawn; the one in flight if there is one.
    /// Answered by [`ClientDone::Batch`].
    NextBatch {
        /// Bytes of chunks that may come along, encoded.
        inline: usize,
    },
    /// The batch in flight is with the hub, and there is more to push: the next
    /// one may be collected. What becomes of the one in flight is not known yet,
    /// so this may be of no use. Answered by [`ClientDone::Prepared`].
    Prepare,
    /// Chunks of the batch in flight, encoded, perhaps as differences to what
    /// the hub has. Answered by [`ClientDone::Chunks`].
    Supply {
        /// Which. With `true`, the hub asks again, and has no base for it.
        chunks: Vec<(ChunkHash, bool)>,
        /// Encoded bytes, at most; one chunk always fits.
        budget: usize,
    },
    /// Chunks that came: check and keep them. Answered by [`ClientDone::Stored`].
    Store {
        /// The chunks.
        chunks: Vec<ChunkData>,
    },
    /// Chunks that the hub has lost, encoded without a base: those that its tree
    /// names, as far as it is known here, and no others. Answered by
    /// [`ClientDone::Chunks`].
    Give {
        /// Which.
        chunks: Vec<ChunkHash>,
        /// Encoded bytes, at most; one chunk always fits.
        budget: usize,
    },
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientDone {
    /// The changes are kept.
    Staged {
        /// The chunks that have to be here before the transfer is applied.
        wanted: Vec<Wanted>,
    },
    /// What became of a cut.
    Applied(Applied),
    /// From where the client follows the hub now.
    Reset {
        /// From there.
        from: Start,
    },
    /// The batch is not in flight any more.
    Withdrawn,
    /// The batch to push; `None` when there is nothing to push.
    Batch(Option<Box<BatchOffer>>),
    /// The next batch is collected, or not.
    Prepared,
    /// The first of the chunks that were asked for.
    Chunks {
        /// As many of the first as fit the budget, but for what is missing.
        chunks: Vec<ChunkData>,
        /// How many of those asked for were looked at.
        taken: usize,
        /// Those of them that are not here.
        missing: Vec<ChunkHash>,
    },
    /// The chunks are kept.
    Stored {
        /// But for these: why not.
        refused: Vec<(ChunkHash, Code)>,
    },
    /// It could not be done.
    Failed(StoreFailure),
}

/// What became of a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is the confirmed tree, durably, and programs see it.
    Done,
    /// It touches what is in flight: it has to wait for the answer.
    Held,
    /// These chunks have to be here first: pages of manifests tell of more
    /// chunks when they come, and what a change names may have been superseded
    /// before it could be had.
    Wants(Vec<Wanted>),
    /// It would remove most of the tree: somebody has to say that it may.
    Halted {
        /// Nodes that would go.
        removed: u64,
        /// Nodes that there are.
        of: u64,
    },
}

/// What a hub's session asks of its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubAction {
    /// May this client be here? From when this is answered, nothing is committed that
    /// an older session of the replica asks for (SES-21). Answered by
    /// [`HubDone::Admitted`].
    Admit(Box<Hello>),
    /// May it follow from there? Answered by [`HubDone::Subscribed`].
    Subscribe {
        /// From where.
        from: Start,
    },
    /// Changes after a commit, in the order of their versions, up to the last
    /// commit that there is by then. Answered by [`HubDone::Page`].
    Feed {
        /// Changes of later commits only.
        after: Seq,
        /// How many, about; all of one commit come together.
        max: usize,
    },
    /// The client has a cut durably. Answered by [`HubDone::Noted`].
    Applied {
        /// The cut.
        cursor: Cursor,
    },
    /// Which of these chunks are missing? Those that are there stay until the
    /// session ends. Answered by [`HubDone::Offered`].
    Offer {
        /// The chunks.
        chunks: Vec<ChunkHash>,
    },
    /// Commit a batch whose chunks are all here, or answer again what was
    /// answered before, also to who may not push. A failure says that it was not
    /// committed and will not be (SES-20), but for `INTERNAL` and `SHUTDOWN`, which
    /// end the session. Answered by [`HubDone::Committed`].
    Commit {
        /// The batch's number.
        batch: u64,
        /// Its edits.
        edits: Vec<Edit>,
    },
    /// Chunks that came: check and keep them until the session ends; for ever
    /// those that the hub's tree names and that were lost. Answered by
    /// [`HubDone::Stored`].
    Store {
        /// The chunks.
        chunks: Vec<ChunkData>,
    },
    /// Which chunks of the hub's tree are lost or damaged? Answered by
    /// [`HubDone::Lost`].
    Lost {
        /// Those after this one only.
        after: Option<ChunkHash>,
        /// How many, at most.
        max: usize,
    },
    /// Chunks to send, encoded, as differences where that is less. Answered by
    /// [`HubDone::Chunks`].
    Read {
        /// Which, each with one that the client has.
        chunks: Vec<Wanted>,
        /// Encoded bytes, at most; one chunk always fits.
        budget: usize,
    },
}

/// What a hub's store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubDone {
    /// The client may be here.
    Admitted(Box<Admission>),
    /// Where the client begins; or why it cannot begin there, and the oldest
    /// commit that the hub remembers.
    Subscribed(Result<Seq, (Why, Seq)>),
    /// Changes.
    Page {
        /// In the order of their versions.
        changes: Vec<Change>,
        /// What became of the edits that they are of.
        reports: Vec<Report>,
        /// Everything up to this commit is told.
        next: Seq,
        /// The cursor at `next`, if that was the last commit.
        cut: Option<Cursor>,
        /// 0 if the hub has all chunks of its tree, as far as it knows; else a
        /// number that is another whenever more were found to be lost.
        lost: u64,
    },
    /// Chunks that are lost, in the order of their hashes.
    Lost(Vec<ChunkHash>),
    /// It is noted.
    Noted,
    /// For each chunk that was asked for: whether it is missing.
    Offered(Vec<bool>),
    /// The batch is committed.
    Committed {
        /// The answer.
        ack: Box<PushAck>,
        /// The commit was made now, and is just what the edits say
        /// ([`is_plain`](crate::merge::is_plain)).
        plain: bool,
    },
    /// The first of the chunks that were asked for.
    Chunks {
        /// As many of the first as fit the budget, but for what is missing.
        chunks: Vec<ChunkData>,
        /// How many of those asked for were looked at.
        taken: usize,
        /// Those of them that are not here.
        missing: Vec<ChunkHash>,
    },
    /// The chunks are kept.
    Stored {
        /// But for these: why not.
        refused: Vec<(ChunkHash, Code)>,
    },
    /// It could not be done.
    Failed(StoreFailure),
}

/// What a hub knows of a client that may be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The hub's last commit.
    pub head: Cursor,
    /// The last batch of this replica that was committed; 0 for none.
    pub last_batch: u64,
    /// Its digest.
    pub last_batch_digest: [u8; 32],
    /// Whether it may push.
    pub may_push: bool,
    /// A number for the logs of both.
    pub session: u64,
}

/// What a session does its actions with. Calls may block: who drives a session
/// makes them where that harms nobody.
pub trait Store<Action, Done>: Send + Sync {
    /// Does what a session asks. Never panics; what fails is an answer, too.
    fn perform(&self, action: Action) -> Done;

    /// Calls `wake` whenever there may be something new: on a replica something
    /// to push, on a hub something to feed. Until the guard is dropped.
    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync>;
}
