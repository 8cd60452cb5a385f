//! A hub and replicas that keep files in memory and merge nothing: the last
//! writer wins. What carries sessions is tested with them; what sessions and
//! stores mean is tested elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use cairn_protocol::session::{
    Admission, Applied, Batch, BatchOffer, ClientAction, ClientDone, HubAction, HubDone, Store,
    StoreFailure, batch_digest,
};
use cairn_protocol::wire::{ChunkData, Code, Ext, List, PushAck, Start, Why};
use cairn_protocol::{
    Chain, Change, ChunkHash, ChunkerId, CommitHasher, Cursor, Data, Edit, Encoded, Encoding,
    Entry, Epoch, Extent, Manifest, Name, NodeId, NodeKind, Register, ReplicaTag, Scope, Seq,
    decode_chunk,
};
use cairn_transports::{Access, Beginning, Hub, Replica};
use parking_lot::Mutex;

/// Registers and their values.
pub(crate) type Tree = BTreeMap<Register, Entry>;

type Chunks = HashMap<ChunkHash, Bytes>;

#[derive(Default)]
struct News(Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>);

impl News {
    fn listen(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.0.lock().push(Arc::downgrade(&wake));
        Box::new(wake)
    }

    fn tell(&self) {
        let mut wakers = self.0.lock();
        wakers.retain(|waker| waker.strong_count() > 0);
        let wakers: Vec<_> = wakers.iter().filter_map(Weak::upgrade).collect();
        for wake in wakers {
            wake();
        }
    }
}

fn failed(code: Code, detail: &str) -> StoreFailure {
    StoreFailure {
        code,
        detail: detail.to_owned(),
        retry_after_ms: 0,
    }
}

fn chunk(hash: ChunkHash, bytes: &Bytes) -> ChunkData {
    ChunkData {
        hash,
        len: u32::try_from(bytes.len()).unwrap(),
        encoding: Encoding::Raw,
        bytes: bytes.clone().try_into().unwrap(),
    }
}

fn take_chunks(into: &mut Chunks, chunks: Vec<ChunkData>) -> Vec<(ChunkHash, Code)> {
    let mut refused = Vec::new();
    for ChunkData {
        hash,
        len,
        encoding,
        bytes,
    } in chunks
    {
        let encoded = Encoded {
            encoding,
            bytes: bytes.into_bytes(),
        };
        match decode_chunk(hash, len as usize, &encoded, |base| into.get(base).cloned()) {
            Ok(bytes) => drop(into.insert(hash, bytes)),
            Err(_) => refused.push((hash, Code::CHUNK_CORRUPT)),
        }
    }
    refused
}

/// The first of some chunks, as many as fit.
fn give_chunks(
    from: &Chunks,
    wanted: impl Iterator<Item = ChunkHash>,
    budget: usize,
) -> (Vec<ChunkData>, usize, Vec<ChunkHash>) {
    let (mut chunks, mut taken, mut missing, mut bytes) = (Vec::new(), 0, Vec::new(), 0);
    for hash in wanted {
        match from.get(&hash) {
            Some(found) => {
                bytes += found.len() + 80;
                if bytes > budget && !chunks.is_empty() {
                    break;
                }
                chunks.push(chunk(hash, found));
            }
            None => missing.push(hash),
        }
        taken += 1;
    }
    (chunks, taken, missing)
}

fn hashes(data: &Data) -> Vec<ChunkHash> {
    let Data::File { manifest, .. } = data else {
        return Vec::new();
    };
    let no_pages = |_: &ChunkHash| Err::<Bytes, ()>(());
    let extents = manifest.extents(no_pages).unwrap();
    let hash = |extent| match extent {
        Extent::Chunk { hash, .. } => Some(hash),
        Extent::Hole { .. } => None,
    };
    extents.into_iter().filter_map(hash).collect()
}

/// A file of these chunks.
fn file(chunks: &[Bytes]) -> Data {
    let extents: Vec<_> = chunks
        .iter()
        .map(|bytes| Extent::Chunk {
            hash: ChunkHash::of(bytes),
            len: u32::try_from(bytes.len()).unwrap(),
        })
        .collect();
    let Ok(manifest) = Manifest::build(&extents, |_, _| Ok::<_, Infallible>(()));
    Data::File {
        size: chunks.iter().map(|bytes| bytes.len() as u64).sum(),
        chunker: ChunkerId::FastCdc,
        manifest,
    }
}

/// A hub.
pub(crate) struct ShelfHub {
    pub(crate) name: String,
    pub(crate) access: Access,
    state: Mutex<HubState>,
    news: News,
}

struct HubState {
    epoch: Epoch,
    head: Seq,
    chain: Chain,
    log: BTreeMap<Seq, Vec<Entry>>,
    tree: Tree,
    chunks: Chunks,
    answered: HashMap<ReplicaTag, (u64, [u8; 32], PushAck)>,
}

impl HubState {
    fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: self.head,
            chain: self.chain,
            scope: Scope::ALL,
        }
    }

    fn commit(&mut self, entries: Vec<Entry>) {
        self.head += 1;
        let mut hasher = CommitHasher::new();
        for entry in &entries {
            hasher.push(&Change {
                ver: self.head,
                entry: entry.clone(),
            });
            if let Some(register) = entry.register() {
                self.tree.insert(register, entry.clone());
            }
        }
        self.chain = self.chain.next(&hasher.finish());
        self.log.insert(self.head, entries);
    }

    fn feed(&self, after: Seq, max: usize) -> HubDone {
        let (mut changes, mut next) = (Vec::new(), after);
        for (ver, entries) in self.log.range(after + 1..) {
            if changes.len() >= max {
                break;
            }
            next = *ver;
            let commit = entries.iter().cloned();
            changes.extend(commit.map(|entry| Change { ver: *ver, entry }));
        }
        HubDone::Page {
            changes,
            reports: Vec::new(),
            next,
            cut: (next == self.head).then(|| self.cursor()),
            lost: 0,
        }
    }

    fn push(&mut self, from: ReplicaTag, batch: u64, edits: &[Edit]) -> HubDone {
        let digest = batch_digest(edits);
        let last = self.answered.get(&from);
        if let Some((last, known, ack)) = last {
            if *last == batch && *known == digest {
                let ack = Box::new(ack.clone());
                return HubDone::Committed { ack, plain: false };
            }
            if *last + 1 != batch {
                return HubDone::Failed(failed(Code::BATCH_GAP, "a batch is missing"));
            }
        }
        let entries = edits.iter().filter_map(|edit| {
            Some(match edit.clone() {
                Edit::New { node, kind } => Entry::Node { id: node, kind },
                Edit::Data { node, data, .. } => Entry::Data { node, data },
                Edit::Meta { node, meta, .. } => Entry::Meta { node, meta },
                Edit::Name {
                    parent, name, node, ..
                } => Entry::Name { parent, name, node },
                Edit::Xattr {
                    node, name, value, ..
                } => Entry::Xattr { node, name, value },
                Edit::Drop { .. } => return None,
            })
        });
        self.commit(entries.collect());
        let ack = PushAck {
            batch,
            seq: self.head,
            chain: self.chain,
            outcomes: List::default(),
            ext: Ext::default(),
        };
        self.answered.insert(from, (batch, digest, ack.clone()));
        HubDone::Committed {
            ack: Box::new(ack),
            plain: false,
        }
    }
}

impl ShelfHub {
    pub(crate) fn new(name: &str, access: Access) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            access,
            state: Mutex::new(HubState {
                epoch: Epoch([7; 16]),
                head: 0,
                chain: Chain::GENESIS,
                log: BTreeMap::new(),
                tree: Tree::new(),
                chunks: Chunks::new(),
                answered: HashMap::new(),
            }),
            news: News::default(),
        })
    }

    pub(crate) fn tree(&self) -> Tree {
        self.state.lock().tree.clone()
    }

    /// Commits files of these chunks, all in one.
    pub(crate) fn add(&self, from: u64, files: &[Vec<Bytes>]) {
        let mut state = self.state.lock();
        let mut entries = Vec::new();
        for (number, chunks) in (from..).zip(files) {
            for bytes in chunks {
                state.chunks.insert(ChunkHash::of(bytes), bytes.clone());
            }
            entries.extend(new_file(ReplicaTag(1), number, file(chunks)));
        }
        state.commit(entries);
        drop(state);
        self.news.tell();
    }
}

fn new_file(replica: ReplicaTag, number: u64, data: Data) -> [Entry; 3] {
    let node = NodeId {
        replica,
        counter: number + 2,
    };
    let name = Name::new(format!("{replica}-{number}").as_bytes()).unwrap();
    [
        Entry::Node {
            id: node,
            kind: NodeKind::File,
        },
        Entry::Name {
            parent: NodeId::ROOT,
            name,
            node: Some(node),
        },
        Entry::Data { node, data },
    ]
}

/// The hub of a server.
pub(crate) struct OfHub(pub(crate) Arc<ShelfHub>);

impl Hub for OfHub {
    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn access(&self) -> Access {
        self.0.access.clone()
    }

    fn session(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        Arc::new(ShelfSession {
            hub: Arc::clone(&self.0),
            replica: Mutex::new(ReplicaTag(0)),
        })
    }

    fn head(&self) -> Seq {
        self.0.state.lock().head
    }
}

/// A hub, for one of its clients.
struct ShelfSession {
    hub: Arc<ShelfHub>,
    replica: Mutex<ReplicaTag>,
}

impl Store<HubAction, HubDone> for ShelfSession {
    fn perform(&self, action: HubAction) -> HubDone {
        let mut state = self.hub.state.lock();
        match action {
            HubAction::Admit(hello) => {
                *self.replica.lock() = hello.replica;
                let last = state.answered.get(&hello.replica);
                HubDone::Admitted(Box::new(Admission {
                    head: state.cursor(),
                    last_batch: last.map_or(0, |last| last.0),
                    last_batch_digest: last.map_or([0; 32], |last| last.1),
                    may_push: true,
                    session: 1,
                }))
            }
            HubAction::Subscribe { from } => HubDone::Subscribed(match from {
                Start::Nothing => Ok(0),
                Start::At(cursor) if cursor.epoch != state.epoch => Err((Why::Epoch, 0)),
                Start::At(cursor) => Ok(cursor.seq),
            }),
            HubAction::Feed { after, max } => state.feed(after, max),
            HubAction::Applied { .. } => HubDone::Noted,
            HubAction::Offer { chunks } => {
                let missing = |hash| !state.chunks.contains_key(hash);
                HubDone::Offered(chunks.iter().map(missing).collect())
            }
            HubAction::Commit { batch, edits } => {
                let done = state.push(*self.replica.lock(), batch, &edits);
                drop(state);
                self.hub.news.tell();
                done
            }
            HubAction::Store { chunks } => {
                // Not under the lock: decoding is what takes the time.
                drop(state);
                let mut here = Chunks::new();
                let refused = take_chunks(&mut here, chunks);
                self.hub.state.lock().chunks.extend(here);
                HubDone::Stored { refused }
            }
            HubAction::Lost { .. } => HubDone::Lost(Vec::new()),
            HubAction::Read { chunks, budget } => {
                let wanted = chunks.iter().map(|(hash, _)| *hash);
                let (chunks, taken, missing) = give_chunks(&state.chunks, wanted, budget);
                HubDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.hub.news.listen(wake)
    }
}

/// A replica.
pub(crate) struct ShelfReplica {
    pub(crate) tag: ReplicaTag,
    state: Mutex<ReplicaState>,
    news: News,
}

#[derive(Default)]
struct ReplicaState {
    cursor: Option<Cursor>,
    tree: Tree,
    staged: Vec<Change>,
    chunks: Chunks,
    edits: Vec<Edit>,
    named: Vec<ChunkHash>,
    flight: Option<Batch>,
    batches: u64,
    digest: Option<[u8; 32]>,
    files: u64,
}

impl ShelfReplica {
    pub(crate) fn new(tag: u64) -> Arc<Self> {
        Arc::new(Self {
            tag: ReplicaTag(tag),
            state: Mutex::default(),
            news: News::default(),
        })
    }

    pub(crate) fn tree(&self) -> Tree {
        self.state.lock().tree.clone()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.state.lock().chunks.len()
    }

    /// Makes files of these chunks, to be pushed.
    pub(crate) fn write(&self, files: &[Vec<Bytes>]) {
        let mut state = self.state.lock();
        for chunks in files {
            for bytes in chunks {
                let hash = ChunkHash::of(bytes);
                state.chunks.insert(hash, bytes.clone());
                state.named.push(hash);
            }
            let number = state.files;
            state.files += 1;
            for entry in new_file(self.tag, number, file(chunks)) {
                state.edits.push(match entry {
                    Entry::Node { id: node, kind } => Edit::New { node, kind },
                    Entry::Name { parent, name, node } => Edit::Name {
                        parent,
                        name,
                        was: None,
                        node,
                    },
                    Entry::Data { node, data } => Edit::Data {
                        node,
                        base: 0,
                        data,
                    },
                    other => unreachable!("{other:?}"),
                });
            }
        }
        drop(state);
        self.news.tell();
    }
}

impl ReplicaState {
    fn apply(&mut self, cursor: Cursor, ack: Option<&PushAck>) -> ClientDone {
        if self.flight.is_some() && ack.is_none() {
            return ClientDone::Applied(Applied::Held);
        }
        if ack.is_some() {
            self.flight = None;
        }
        for change in std::mem::take(&mut self.staged) {
            if let Some(register) = change.entry.register() {
                self.tree.insert(register, change.entry);
            }
        }
        self.cursor = Some(cursor);
        ClientDone::Applied(Applied::Done)
    }

    fn next_batch(&mut self, inline: usize) -> ClientDone {
        if self.flight.is_none() {
            let (Some(seen), false) = (self.cursor, self.edits.is_empty()) else {
                return ClientDone::Batch(None);
            };
            let take = self.edits.len().min(3 * 8_192);
            let edits: Vec<_> = self.edits.drain(..take).collect();
            let chunks = edits.iter().flat_map(|edit| match edit {
                Edit::Data { data, .. } => hashes(data),
                _ => Vec::new(),
            });
            let chunks: Vec<_> = chunks.collect();
            self.batches += 1;
            self.digest = Some(batch_digest(&edits));
            self.flight = Some(Batch {
                number: self.batches,
                seen,
                edits,
                chunks,
            });
        }
        let batch = self.flight.clone().unwrap();
        let wanted = batch.chunks.iter().copied();
        let (mut inlined, _, _) = give_chunks(&self.chunks, wanted, inline);
        if inlined
            .iter()
            .map(|chunk| chunk.bytes.len() + 80)
            .sum::<usize>()
            > inline
        {
            inlined.clear();
        }
        ClientDone::Batch(Some(Box::new(BatchOffer {
            batch,
            inline: inlined,
            more: true,
        })))
    }

    fn staged(&mut self, first: u64, changes: Vec<Change>) -> ClientDone {
        if first == 0 {
            self.staged.clear();
        }
        let data = changes.iter().flat_map(|change| match &change.entry {
            Entry::Data { data, .. } => hashes(data),
            _ => Vec::new(),
        });
        let wanted = data.filter(|hash| !self.chunks.contains_key(hash));
        let wanted = wanted.map(|hash| (hash, None)).collect();
        self.staged.extend(changes);
        ClientDone::Staged { wanted }
    }
}

impl Store<ClientAction, ClientDone> for ShelfReplica {
    fn perform(&self, action: ClientAction) -> ClientDone {
        let mut state = self.state.lock();
        match action {
            ClientAction::Stage { first, changes, .. } => state.staged(first, changes),
            ClientAction::Confirm { .. } => ClientDone::Staged { wanted: Vec::new() },
            ClientAction::Apply { cursor, ack, .. } => state.apply(cursor, ack.as_ref()),
            ClientAction::Reset { .. } => {
                state.staged.clear();
                state.cursor = None;
                ClientDone::Reset {
                    from: Start::Nothing,
                }
            }
            ClientAction::Withdraw { batch } => {
                if let Some(flight) = state.flight.take_if(|flight| flight.number == batch) {
                    state.edits.splice(..0, flight.edits);
                    (state.batches, state.digest) = (batch - 1, None);
                }
                ClientDone::Withdrawn
            }
            ClientAction::NextBatch { inline } => state.next_batch(inline),
            ClientAction::Prepare => ClientDone::Prepared,
            ClientAction::Supply { chunks, budget } => {
                let wanted = chunks.iter().map(|(hash, _)| *hash);
                let (chunks, taken, missing) = give_chunks(&state.chunks, wanted, budget);
                ClientDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
            ClientAction::Give { chunks, budget } => {
                let (chunks, taken, missing) =
                    give_chunks(&state.chunks, chunks.into_iter(), budget);
                ClientDone::Chunks {
                    chunks,
                    taken,
                    missing,
                }
            }
            ClientAction::Store { chunks } => {
                drop(state);
                let mut here = Chunks::new();
                let refused = take_chunks(&mut here, chunks);
                self.state.lock().chunks.extend(here);
                ClientDone::Stored { refused }
            }
        }
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.news.listen(wake)
    }
}

/// The store is the replica itself.
pub(crate) struct OfShelf(pub(crate) Arc<ShelfReplica>);

impl Replica for OfShelf {
    fn beginning(&self) -> Result<Beginning, StoreFailure> {
        let state = self.0.state.lock();
        Ok(Beginning {
            replica: self.0.tag,
            start: state.cursor.map_or(Start::Nothing, Start::At),
            last_batch: state.batches,
            last_batch_digest: state.digest,
        })
    }

    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>> {
        Arc::clone(&self.0) as _
    }
}
