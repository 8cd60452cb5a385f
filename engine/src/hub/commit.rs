//! A batch becomes a commit: resolved, written and answered in one transaction.
//!
//! The order is that of [`crate::commit`]: first the bytes of chunks, synced;
//! then the transaction that names them; then the sync of the database, for who
//! has the answer may forget its edits. Batches that wait for each other share
//! that last sync. The bytes of a large batch are synced while its transaction is
//! written, which waits for that before it commits.

use std::sync::atomic::Ordering;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use cairn_protocol::merge::{Resolution, ResolveError, is_plain, resolve};
use cairn_protocol::session::{StoreFailure, batch_digest};
use cairn_protocol::wire::{Code, Ext, PushAck};
use cairn_protocol::{
    Change, ChunkHash, CommitHasher, Data, Edit, Extent, NodeId, Outcome, ReplicaTag,
};
use rusqlite::{Connection, params};
use rustc_hash::FxHashSet;

use super::feed::Keys;
use super::state::{self, State};
use super::{Hub, Pusher, failure};
use crate::chunks::{Keep, Pending};
use crate::db::{corrupt, int};
use crate::refs::{self, LayoutFault, Refs};
use crate::shared::{Effects, HUB, Shared, View};
use crate::{FsError, Result};

/// A hub forgets what it may every so many commits.
const PRUNE_EVERY: u64 = 1_024;

/// Edits of a batch whose transaction takes so long that its bytes are synced
/// meanwhile: some milliseconds, in which the database is locked in any case. Few
/// where things are tested, so that simulations take both ways.
const LARGE: usize = if cfg!(debug_assertions) { 4 } else { 1_024 };

/// A batch that comes in.
struct Push<'a> {
    pusher: Pusher,
    by: ReplicaTag,
    number: u64,
    edits: &'a [Edit],
    digest: [u8; 32],
    /// The time of day, in seconds.
    now: i64,
    /// The chunks whose bytes are durable, or will be before it is committed.
    synced: FxHashSet<ChunkHash>,
}

/// What a transaction wrote.
pub(super) struct Done {
    pub(super) ack: PushAck,
    /// It was made now, and is just what the edits say.
    pub(super) plain: bool,
    /// The chunks that it names.
    pub(super) named: Vec<ChunkHash>,
    pending: Vec<(ChunkHash, Pending)>,
    refs: refs::Written,
}

/// Why there is no commit.
#[derive(Debug)]
enum Stop {
    Refused(StoreFailure),
    /// A chunk is in a file that a commit of the working tree has to take first.
    Adopting,
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        FsError::from(error).into()
    }
}

fn refuse(code: Code, detail: impl Into<String>) -> Stop {
    Stop::Refused(failure(code, detail))
}

/// What became of a batch is not certain: no refusal of it, or its replica would
/// take it for one that was not committed (SES-20).
pub(super) fn uncertain(error: impl std::fmt::Display) -> StoreFailure {
    StoreFailure {
        code: Code::INTERNAL,
        detail: format!("a batch may be committed, and is to be asked for again: {error}"),
        retry_after_ms: 5_000,
    }
}

/// Why a commit failed. Without space for its last page it is none, even after a
/// crash; after other errors it may be found in the log then.
fn not_committed(error: rusqlite::Error) -> Stop {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => error.into(),
        _ => Stop::Refused(uncertain(error)),
    }
}

impl Hub {
    /// Commits a batch, or answers again what it answered before.
    pub(super) fn commit(
        &self,
        pusher: Pusher,
        number: u64,
        edits: &[Edit],
    ) -> Result<Done, StoreFailure> {
        let mut push = Push {
            pusher,
            by: pusher.place.tag,
            number,
            edits,
            digest: batch_digest(edits),
            now: (self.options.clock)(),
            synced: FxHashSet::default(),
        };
        let pending = self.pending_of(&mut push);
        let inner = &self.replica.inner;
        let sync = || inner.sync_packs(&pending).map(drop);
        let done = if edits.len() < LARGE {
            sync()?;
            self.commit_when(&push, &mut || Ok(()))?
        } else {
            std::thread::scope(|scope| {
                let mut syncing = Syncing::begin(scope, sync)?;
                self.commit_when(&push, &mut || syncing.end())
            })?
        };
        {
            let _commit = inner.db.writer();
            inner.make_durable().map_err(uncertain)?;
        }
        inner.watchers.wake();
        if done.ack.seq.is_multiple_of(PRUNE_EVERY)
            && let Err(error) = self.prune()
        {
            tracing::warn!(%error, "the hub could not forget what is old; it is tried again");
        }
        Ok(done)
    }

    /// The batch's chunks that have no row yet. The bytes of those in packs are to be
    /// synced.
    fn pending_of(&self, push: &mut Push<'_>) -> Vec<(ChunkHash, Pending)> {
        let named = push.edits.iter().flat_map(|edit| match edit {
            Edit::Data { data, .. } => chunks_of(data),
            _ => Vec::new(),
        });
        let pending = self.replica.inner.chunks.pending_of(named);
        let of_packs = pending.iter().filter(|(_, p)| p.keep == Keep::InPack);
        push.synced = of_packs.map(|(hash, _)| *hash).collect();
        pending
    }

    /// Commits a batch whose bytes are durable when `synced` has returned.
    fn commit_when(
        &self,
        push: &Push<'_>,
        synced: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Done, StoreFailure> {
        loop {
            match self.try_commit(push, synced) {
                Ok(done) => return Ok(done),
                Err(Stop::Adopting) => self.replica.inner.commit(false)?,
                Err(Stop::Refused(why)) => return Err(why),
            }
        }
    }

    fn try_commit(
        &self,
        push: &Push<'_>,
        synced: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Done, Stop> {
        let inner = &self.replica.inner;
        let db = inner.db.writer();
        // Under the lock under which a newer session asks what was committed.
        if inner.watchers.sessions.is_older(push.pusher.place) {
            return Err(refuse(Code::SHUTDOWN, "the replica has a newer session"));
        }
        if let Some(ack) = answered(&db, push)? {
            return Ok(Done {
                ack,
                plain: false,
                named: Vec::new(),
                pending: Vec::new(),
                refs: refs::Written::default(),
            });
        }
        if !push.pusher.may_push {
            return Err(refuse(Code::READ_ONLY, "the token allows to read only"));
        }
        db.execute_batch("BEGIN IMMEDIATE")?;
        let written = self.write(&db, push).and_then(|done| {
            synced()?;
            inner.end_transaction(&db).map_err(not_committed)?;
            Ok(done)
        });
        match written {
            Ok(done) => {
                inner.written.fetch_add(1, Ordering::SeqCst);
                inner
                    .dead_bytes
                    .fetch_add(done.refs.dead, Ordering::Relaxed);
                inner.chunks.settled(&done.pending);
                for (hash, pending) in &done.pending {
                    inner.chunks.remember(*hash, pending.place);
                }
                for hash in &done.refs.twice {
                    inner.chunks.forget(hash);
                }
                Ok(done)
            }
            Err(error) => {
                // A failed transaction may have rolled back by itself.
                if !db.is_autocommit() {
                    db.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    fn write(&self, db: &Connection, push: &Push<'_>) -> Result<Done, Stop> {
        let mut state = State::load(db)?;
        let tree = Shared::new(db, HUB);
        let resolution = resolve_on(tree, push, &mut state)?;
        let plain = resolution.outcomes.is_empty() && is_plain(push.edits, &resolution.entries);
        state.head += 1;
        let changes: Vec<Change> = (resolution.entries.into_iter())
            .map(|entry| Change {
                ver: state.head,
                entry,
            })
            .collect();
        let mut hasher = CommitHasher::new();
        for change in &changes {
            hasher.push(change);
        }
        state.chain = state.chain.next(&hasher.finish());
        let mut refs = Refs::default();
        let effects = self.apply(db, &changes, &resolution.deaths, &mut refs)?;
        // What lives again may have more than its author knows.
        let plain = plain && effects.revived.is_empty();
        for (_, outcome) in &resolution.outcomes {
            if let Outcome::Alias { from, to } = outcome {
                tree.set_alias(*from, *to, state.head)?;
            }
        }
        let named: Vec<ChunkHash> = refs.gained().copied().collect();
        let pending = self.take_pending(&named, push)?;
        let written = refs.write(db, &pending, false)?;
        refuse_missing(&written)?;
        state.save(db)?;
        let ack = answer(push, &state, resolution.outcomes)?;
        note_commit(db, push, &ack, &Keys::of(&changes, &effects.revived))?;
        Ok(Done {
            ack,
            plain,
            named,
            pending,
            refs: written,
        })
    }

    fn apply(
        &self,
        db: &Connection,
        changes: &[Change],
        deaths: &[(NodeId, cairn_protocol::merge::Place)],
        refs: &mut Refs,
    ) -> Result<Effects, Stop> {
        let mut wrong = None;
        let mut count = |data: &Data, by: i64| match refs.count(&self.replica.inner, db, data, by) {
            Ok(()) => Ok(()),
            Err(LayoutFault::Fs(error)) => Err(error),
            Err(fault) => {
                let detail = fault.to_string();
                wrong = Some(match fault {
                    LayoutFault::Missing(_) => refuse(Code::CHUNK_MISSING, &detail),
                    _ => refuse(Code::MALFORMED, &detail),
                });
                Err(corrupt("batch", detail))
            }
        };
        let applied = Shared::new(db, HUB).apply(changes, deaths, &mut count);
        applied.map_err(|error| wrong.unwrap_or_else(|| error.into()))
    }

    /// The chunks that are stored and have no row yet, durably stored.
    fn take_pending(
        &self,
        named: &[ChunkHash],
        push: &Push<'_>,
    ) -> Result<Vec<(ChunkHash, Pending)>, Stop> {
        let inner = &self.replica.inner;
        let pending = inner.chunks.pending_of(named.iter().copied());
        if pending.iter().any(|(_, p)| p.keep == Keep::Adopt) {
            return Err(Stop::Adopting);
        }
        let late = |(hash, _): &&(ChunkHash, Pending)| !push.synced.contains(hash);
        let late: Vec<_> = pending.iter().filter(late).cloned().collect();
        inner.sync_packs(&late)?;
        Ok(pending)
    }
}

/// A sync that runs beside the transaction.
struct Syncing<'s>(Option<ScopedJoinHandle<'s, Result<()>>>);

impl<'s> Syncing<'s> {
    /// Begins it; where there is no thread for it, it is done at once.
    fn begin<'e>(
        scope: &'s Scope<'s, 'e>,
        sync: impl Fn() -> Result<()> + Copy + Send + 's,
    ) -> Result<Self> {
        match Builder::new().spawn_scoped(scope, sync) {
            Ok(thread) => Ok(Self(Some(thread))),
            Err(_) => sync().map(|()| Self(None)),
        }
    }

    /// Waits until the bytes are durable.
    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.0.take() else {
            return Ok(());
        };
        let broken = |_| FsError::Corrupt("the sync of a batch's chunks came to no end".into());
        thread.join().map_err(broken)?
    }
}

/// The chunks that can be told from a content alone.
fn chunks_of(data: &Data) -> Vec<ChunkHash> {
    let Data::File { manifest, .. } = data else {
        return Vec::new();
    };
    let mut chunks: Vec<ChunkHash> = manifest.pages().collect();
    if chunks.is_empty()
        && let Ok(extents) = manifest.extents(|_| Err::<Vec<u8>, ()>(()))
    {
        chunks.extend(extents.iter().filter_map(|extent| match extent {
            Extent::Chunk { hash, .. } => Some(*hash),
            Extent::Hole { .. } => None,
        }));
    }
    chunks
}

/// The answer that a batch had before; or whether it may come now (EDT-5).
fn answered(db: &Connection, push: &Push<'_>) -> Result<Option<PushAck>, Stop> {
    let (by, number) = (push.by, push.number);
    let known = state::replica(db, by)?;
    let last = known.as_ref().map_or(0, |known| known.batch);
    if let Some(known) = known.filter(|known| known.batch == number && number > 0) {
        if known.digest != push.digest {
            let detail = format!("batch {number} of replica {by} came before with other edits");
            return Err(refuse(Code::REPLICA_FORKED, detail));
        }
        let ack = known.ack.unwrap_or_default();
        let ack = postcard::from_bytes(&ack)
            .map_err(|e| corrupt(format!("the answer to batch {number} of replica {by}"), e))?;
        return Ok(Some(ack));
    }
    if number != last + 1 {
        let detail = format!("batch {number} of replica {by} comes after batch {last}");
        return Err(refuse(Code::BATCH_GAP, detail));
    }
    Ok(None)
}

fn resolve_on(tree: Shared<'_>, push: &Push<'_>, state: &mut State) -> Result<Resolution, Stop> {
    let tag = state.tag;
    let mut mint = || {
        state.minted += 1;
        NodeId {
            replica: tag,
            counter: state.minted,
        }
    };
    let resolution = resolve(&View::new(tree), push.edits, push.by, &mut mint);
    resolution.map_err(|error| match error {
        ResolveError::Tree(error) => error.into(),
        ResolveError::Batch(error) => refuse(Code::MALFORMED, error.to_string()),
    })
}

fn refuse_missing(written: &refs::Written) -> Result<(), Stop> {
    if let Some(first) = written.missing.first() {
        let count = written.missing.len();
        let detail = format!("{count} chunks that the batch names are missing, as chunk {first}");
        return Err(refuse(Code::CHUNK_MISSING, detail));
    }
    match written.unlike.first() {
        Some(hash) => Err(refuse(
            Code::MALFORMED,
            format!("chunk {hash} is of another length than the batch says"),
        )),
        None => Ok(()),
    }
}

fn answer(
    push: &Push<'_>,
    state: &State,
    outcomes: Vec<(usize, Outcome)>,
) -> Result<PushAck, Stop> {
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let outcomes: Vec<_> = (outcomes.into_iter())
        .map(|(edit, outcome)| (number(edit), outcome))
        .collect();
    let count = outcomes.len();
    let too_many = |_| {
        let detail = format!("{count} outcomes of a batch are more than an answer can have");
        refuse(Code::LIMIT, detail)
    };
    Ok(PushAck {
        batch: push.number,
        seq: state.head,
        chain: state.chain,
        outcomes: outcomes.try_into().map_err(too_many)?,
        ext: Ext::default(),
    })
}

fn note_commit(db: &Connection, push: &Push<'_>, ack: &PushAck, keys: &Keys) -> Result<(), Stop> {
    let fail = |e| corrupt("the answer to a batch", e);
    let encoded = postcard::to_stdvec(ack).map_err(fail)?;
    let (by, number) = (push.by, push.number);
    state::note_batch(db, by, number, &push.digest, &encoded, push.now)?;
    let outcomes: Vec<&Outcome> = ack.outcomes.iter().map(|(_, outcome)| outcome).collect();
    let conflicts = !outcomes.is_empty();
    let outcomes = conflicts.then(|| postcard::to_stdvec(&outcomes));
    let outcomes = outcomes.transpose().map_err(fail)?;
    db.prepare_cached(
        "INSERT INTO hub_commit(seq, author, chain, outcomes, keys) VALUES(?, ?, ?, ?, ?)",
    )?
    .execute(params![
        int(ack.seq),
        push.by.0.cast_signed(),
        ack.chain.0.as_slice(),
        outcomes,
        keys.encode()?
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::newest::Place;
    use super::*;
    use crate::Replica;

    #[test]
    fn a_batch_whose_bytes_cannot_be_synced_is_not_committed() {
        let replica = Replica::in_memory().unwrap();
        let hub = Hub::open(&replica).unwrap();
        let tag = ReplicaTag(1);
        let pusher = Pusher {
            place: Place { tag, number: 1 },
            may_push: true,
        };
        let push = Push {
            pusher,
            by: tag,
            number: 1,
            edits: &[],
            digest: batch_digest(&[]),
            now: 0,
            synced: FxHashSet::default(),
        };
        let full = hub.commit_when(&push, &mut || Err(FsError::NoSpace));
        assert_eq!(full.map(|_| ()).unwrap_err().code, Code::QUOTA);
        assert!(replica.inner.db.writer().is_autocommit());
        let done = hub.commit_when(&push, &mut || Ok(())).unwrap();
        let again = hub.commit_when(&push, &mut || unreachable!()).unwrap();
        assert_eq!(done.ack, again.ack);
    }

    #[test]
    fn an_answer_survives_a_power_cut() {
        let replica = Replica::in_memory().unwrap();
        let hub = Hub::open(&replica).unwrap();
        let counts = || {
            let inner = &replica.inner;
            let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
            (of(&inner.written), of(&inner.synced))
        };
        let before = counts().0;
        let tag = ReplicaTag(1);
        let place = Place { tag, number: 1 };
        let pusher = Pusher {
            place,
            may_push: true,
        };
        for number in 1..4 {
            hub.commit(pusher, number, &[]).unwrap();
            let (written, synced) = counts();
            assert!(written >= before + number);
            assert_eq!(synced, written);
            // One that was written by who did not get to sync it is synced
            // before it is answered again.
            replica.inner.synced.store(0, Ordering::SeqCst);
            hub.commit(pusher, number, &[]).unwrap();
            assert_eq!(counts().1, written);
        }
    }

    /// A batch that could not be committed, and was found in the log after a crash: by
    /// then its author, told that it was not committed, had pushed another.
    #[test]
    fn ses_21_what_may_come_back_is_written_over_before_a_session_begins() {
        let replica = Replica::in_memory().unwrap();
        let hub = Hub::open(&replica).unwrap();
        let inner = &replica.inner;
        let admit = || {
            let session = hub.session(std::sync::Arc::new(|_| Ok(crate::Access::Write)));
            let hello = cairn_protocol::wire::Hello {
                version_min: 1,
                version_max: 1,
                role: cairn_protocol::wire::Role::Client,
                workspace: [0; 16],
                replica: ReplicaTag(1),
                token: cairn_protocol::wire::Token::default(),
                capabilities: cairn_protocol::wire::Capabilities::default(),
                limits: cairn_protocol::wire::Limits::OURS,
                agent: cairn_protocol::wire::Text::default(),
                ext: Ext::default(),
            };
            session.admit(&hello).map(drop).map_err(|why| why.code)
        };
        let fails = "CREATE TRIGGER fails BEFORE INSERT ON meta
             BEGIN SELECT RAISE(ABORT, 'a fault of this test'); END;";
        inner.db.writer().execute_batch(fails).unwrap();
        assert_eq!(admit(), Ok(()));
        inner.may_return.store(true, Ordering::SeqCst);
        assert_eq!(admit(), Err(Code::INTERNAL));
        let end = "DROP TRIGGER fails";
        inner.db.writer().execute_batch(end).unwrap();
        assert_eq!(admit(), Ok(()));
        assert!(!inner.may_return.load(Ordering::SeqCst));
    }
}
