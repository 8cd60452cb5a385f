//! The hub: against the model hub, over crashes, and what it holds and forgets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_engine::{Access, Hub, HubOptions, HubSession, Options, Replica};
use cairn_protocol::merge::{Place, TreeView};
use cairn_protocol::session::{Admission, HubAction, HubDone, Report, Store, StoreFailure};
use cairn_protocol::testing::{Ack, Hub as ModelHub, ModelReplica, ModelTree, ReplicaSafeguards};
use cairn_protocol::wire::{
    Capabilities, ChunkData, Code, Ext, Hello, Limits, PushAck, Role, Start, Text, Token, Why,
};
use cairn_protocol::{
    Chain, Change, ChunkHash, ChunkerId, CommitHasher, Cursor, Data, Edit, Encoding, Entry, Extent,
    Manifest, Meta, MetaFields, Name, NodeId, NodeKind, Outcome, Refusal, ReplicaTag, Scope,
    Timestamp, XattrName,
};

use crate::support::{Rng, assert_clean, crash_copy, noise, open, place, quiet, seeds};

/// The tag of the model's hub. The hubs here get it, too, so that both mint the same ids.
const HUB_TAG: u64 = 0xb;

const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Timestamp::EPOCH,
    btime: Timestamp::EPOCH,
};

fn hello(tag: u64) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Client,
        workspace: [0; 16],
        replica: ReplicaTag(tag),
        token: Token::default(),
        capabilities: Capabilities::default(),
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    }
}

/// A session, and what it is asked in tests.
struct Client(HubSession);

impl Client {
    fn new(hub: &Hub, tag: u64) -> Self {
        let client = Self(hub.session(Arc::new(|_| Ok(Access::Write))));
        client.admit(tag).unwrap();
        client
    }

    fn admit(&self, tag: u64) -> Result<Admission, StoreFailure> {
        match self.0.perform(HubAction::Admit(Box::new(hello(tag)))) {
            HubDone::Admitted(admission) => Ok(*admission),
            HubDone::Failed(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn commit(&self, batch: u64, edits: &[Edit]) -> Result<PushAck, StoreFailure> {
        let edits = edits.to_vec();
        match self.0.perform(HubAction::Commit { batch, edits }) {
            HubDone::Committed(ack) => Ok(*ack),
            HubDone::Failed(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&self, from: Start) -> Result<u64, (Why, u64)> {
        match self.0.perform(HubAction::Subscribe { from }) {
            HubDone::Subscribed(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn page(&self, after: u64, max: usize) -> (Vec<Change>, Vec<Report>, u64, Option<Cursor>) {
        match self.0.perform(HubAction::Feed { after, max }) {
            HubDone::Page {
                changes,
                reports,
                next,
                cut,
            } => (changes, reports, next, cut),
            other => panic!("{other:?}"),
        }
    }

    /// Everything after a commit, in pages of a few changes.
    fn follow(&self, after: u64) -> (Vec<Change>, Vec<Report>, Cursor) {
        let (mut changes, mut reports, mut at) = (Vec::new(), Vec::new(), after);
        loop {
            let (page, told, next, cut) = self.page(at, 3);
            assert!(next >= at);
            changes.extend(page);
            reports.extend(told);
            at = next;
            if let Some(cut) = cut {
                assert_eq!(cut.seq, next);
                return (changes, reports, cut);
            }
        }
    }

    fn store(&self, bytes: &[u8]) -> ChunkHash {
        let hash = ChunkHash::of(bytes);
        assert_eq!(self.put(vec![raw(hash, bytes)]), []);
        hash
    }

    fn put(&self, chunks: Vec<ChunkData>) -> Vec<(ChunkHash, Code)> {
        match self.0.perform(HubAction::Store { chunks }) {
            HubDone::Stored { refused } => refused,
            other => panic!("{other:?}"),
        }
    }

    fn missing(&self, chunks: &[ChunkHash]) -> Vec<bool> {
        let chunks = chunks.to_vec();
        match self.0.perform(HubAction::Offer { chunks }) {
            HubDone::Offered(missing) => missing,
            other => panic!("{other:?}"),
        }
    }

    fn applied(&self, cursor: Cursor) {
        let done = self.0.perform(HubAction::Applied { cursor });
        assert_eq!(done, HubDone::Noted);
    }
}

fn raw(hash: ChunkHash, bytes: &[u8]) -> ChunkData {
    ChunkData {
        hash,
        len: bytes.len() as u32,
        encoding: Encoding::Raw,
        bytes: bytes::Bytes::copy_from_slice(bytes).try_into().unwrap(),
    }
}

/// A hub in a new directory, with the tag of the model's.
fn hub_at(path: &Path, options: HubOptions) -> (Replica, Hub) {
    let replica = Replica::open(path, quiet(Options::default())).unwrap();
    let known = Hub::exists(&replica).unwrap();
    let hub = Hub::open_with(&replica, options).unwrap();
    if !known {
        let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
        db.execute("UPDATE hub SET tag = ?", [HUB_TAG as i64])
            .unwrap();
    }
    (replica, hub)
}

/// Remembers nothing that everybody knows.
const FORGETFUL: HubOptions = HubOptions {
    keep_commits: 0,
    retain: Duration::from_hours(1),
};

fn node(tag: u64, counter: u64) -> NodeId {
    NodeId {
        replica: ReplicaTag(tag),
        counter,
    }
}

fn root(name: &str) -> Place {
    (NodeId::ROOT, Name::new(name.as_bytes()).unwrap())
}

fn text(text: &str) -> Data {
    let bytes = text.as_bytes().to_vec().into();
    Data::Inline { bytes }
}

/// The edits that make a file.
fn new_file(id: NodeId, name: &str, data: Data) -> Vec<Edit> {
    let (parent, name) = root(name);
    vec![
        Edit::New {
            node: id,
            kind: NodeKind::File,
        },
        Edit::Name {
            parent,
            name,
            was: None,
            node: Some(id),
        },
        Edit::Data {
            node: id,
            base: 0,
            data,
        },
        Edit::Meta {
            node: id,
            base: 0,
            fields: MetaFields::ALL,
            meta: META,
        },
    ]
}

/// The edits that remove a file.
fn remove(id: NodeId, name: &str, data_base: u64) -> Vec<Edit> {
    let (parent, name) = root(name);
    let (was, node) = (Some(id), None);
    vec![
        Edit::Name {
            parent,
            name,
            was,
            node,
        },
        Edit::Drop {
            node: id,
            data_base,
        },
    ]
}

/// The content of a file that is these chunks.
fn chunked(chunks: &[&[u8]]) -> Data {
    let extents: Vec<Extent> = (chunks.iter())
        .map(|bytes| Extent::Chunk {
            hash: ChunkHash::of(bytes),
            len: bytes.len() as u32,
        })
        .collect();
    Data::File {
        size: chunks.iter().map(|c| c.len() as u64).sum(),
        chunker: ChunkerId::FastCdc,
        manifest: Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap(),
    }
}

/// The tree that the changes of a feed make.
fn tree_of(changes: &[Change]) -> ModelTree {
    let mut tree = ModelTree::new();
    for change in changes {
        tree.apply(change.ver, &change.entry);
    }
    tree
}

// Against the model.

/// The hub and the model's, and replicas that push to both and follow the hub.
struct World {
    rng: Rng,
    path: PathBuf,
    hub: Option<(Replica, Hub)>,
    model: ModelHub,
    replicas: Vec<ModelReplica>,
    written: u64,
}

impl World {
    fn new(seed: u64, path: PathBuf) -> Self {
        let replica = |tag| ModelReplica::new(ReplicaTag(tag), ReplicaSafeguards::ALL);
        Self {
            rng: Rng::new(seed),
            hub: Some(hub_at(&path, HubOptions::default())),
            path,
            model: ModelHub::default(),
            replicas: (1..=3).map(replica).collect(),
            written: 0,
        }
    }

    fn client(&self, who: usize) -> Client {
        Client::new(&self.hub.as_ref().unwrap().1, who as u64 + 1)
    }

    fn any(&mut self, who: usize, kind: NodeKind) -> Option<NodeId> {
        let all = self.replicas[who].local().live();
        let all: Vec<NodeId> = all.filter(|(_, k)| *k == kind).map(|(n, _)| n).collect();
        (!all.is_empty()).then(|| *self.rng.pick(&all))
    }

    fn free(&mut self, who: usize) -> Place {
        let dir = self.any(who, NodeKind::Dir).unwrap_or(NodeId::ROOT);
        let name = *self.rng.pick(&[b"a", b"b", b"c", b"d"]);
        (dir, Name::new(name).unwrap())
    }

    fn used(&mut self, who: usize) -> Option<Place> {
        let all: Vec<Place> = (self.replicas[who].local().names())
            .map(|(place, _)| place.clone())
            .collect();
        (!all.is_empty()).then(|| self.rng.pick(&all).clone())
    }

    /// One edit of a program, which may be refused.
    fn edit(&mut self, who: usize) -> Option<()> {
        self.written += 1;
        let data = text(&self.written.to_string());
        let meta = Meta {
            mode: *self.rng.pick(&[0o644, 0o600, 0o755]),
            ..META
        };
        let what = self.rng.below(9);
        let (place, used) = (self.free(who), self.used(who));
        let file = self.any(who, NodeKind::File);
        let replica = &mut self.replicas[who];
        match what {
            0 | 1 => drop(replica.create(&place, NodeKind::File, Some(data), meta)),
            2 => drop(replica.create(&place, NodeKind::Dir, None, meta)),
            3 => drop(replica.write(file?, data)),
            4 => drop(replica.link(file?, &place)),
            5 => drop(replica.unlink(&used?)),
            6 | 7 => drop(replica.rename(&used?, &place)),
            _ => drop(replica.set_meta(file?, meta)),
        }
        Some(())
    }

    /// Pushes to both hubs, which have to answer the same.
    fn push(&mut self, who: usize, lossy: bool) {
        let tag = ReplicaTag(who as u64 + 1);
        let Some((batch, edits)) = self.replicas[who].push() else {
            return;
        };
        let edits = edits.to_vec();
        let want = self.model.push(tag, batch, &edits).unwrap();
        let client = self.client(who);
        let ack = client.commit(batch, &edits).unwrap();
        let again = self.rng.chance(30).then(|| client.commit(batch, &edits));
        assert!(again.is_none_or(|again| again.as_ref() == Ok(&ack)), "I3");
        let got = Ack {
            batch: ack.batch,
            seq: ack.seq,
            outcomes: (ack.outcomes.iter())
                .map(|(edit, outcome)| (*edit as usize, outcome.clone()))
                .collect(),
        };
        assert_eq!(got, want);
        if !(lossy && self.rng.chance(30)) {
            self.follow(who, Some(&got));
        }
    }

    fn follow(&mut self, who: usize, ack: Option<&Ack>) {
        let client = self.client(who);
        let (changes, _, cut) = client.follow(self.replicas[who].cursor());
        match ack {
            Some(ack) => self.replicas[who].acknowledge(cut.seq, &changes, ack),
            None => self.replicas[who].follow(cut.seq, &changes),
        }
    }

    /// The process ends, in one way or another.
    fn restart(&mut self) {
        if self.rng.chance(50) {
            let copy = self.path.with_extension("copy");
            crash_copy(&self.path, &copy);
            self.hub = None;
            std::fs::remove_dir_all(&self.path).unwrap();
            std::fs::rename(&copy, &self.path).unwrap();
        }
        self.hub = None;
        self.hub = Some(hub_at(&self.path, HubOptions::default()));
    }

    /// The tree of the hub is that of the model, versions too.
    fn compare(&self) {
        let (changes, _, cut) = self.client(0).follow(0);
        let tree = tree_of(&changes);
        assert!(tree == *self.model.tree(), "another tree than the model");
        assert_eq!(cut.seq, self.model.head());
        for (node, _) in tree.live() {
            assert_eq!(tree.data(node), self.model.tree().data(node));
            assert_eq!(tree.meta(node), self.model.tree().meta(node));
        }
        tree.check().unwrap();
    }
}

#[test]
fn the_hub_does_what_the_model_does() {
    for seed in seeds(40) {
        println!("seed {seed}");
        let (_dir, path) = place();
        let mut world = World::new(seed, path);
        for _ in 0..60 {
            let who = world.rng.index(3);
            match world.rng.below(12) {
                0..7 => drop(world.edit(who)),
                7..10 => world.push(who, true),
                10 => world.follow(who, None),
                _ if world.rng.chance(10) => world.restart(),
                _ => world.compare(),
            }
        }
        for _ in 0..4 {
            (0..3).for_each(|who| world.push(who, false));
        }
        for who in 0..3 {
            world.push(who, false);
            world.follow(who, None);
        }
        for replica in &mut world.replicas {
            if replica.is_clean() {
                assert!(replica.local() == world.model.tree(), "I1");
            }
        }
        world.compare();
        assert_clean(&world.hub.as_ref().unwrap().0);
    }
}

// Exactly once, and who may do what.

#[test]
fn a_batch_is_answered_once_whatever_comes() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let edits = new_file(node(1, 1), "f", text("one"));
    let code = |answer: Result<PushAck, StoreFailure>| answer.unwrap_err().code;
    assert_eq!(code(client.commit(2, &edits)), Code::BATCH_GAP);
    assert_eq!(code(client.commit(0, &edits)), Code::BATCH_GAP);
    let ack = client.commit(1, &edits).unwrap();
    assert_eq!(client.commit(1, &edits), Ok(ack.clone()));
    let other = new_file(node(1, 2), "g", text("two"));
    assert_eq!(code(client.commit(1, &other)), Code::REPLICA_FORKED);
    assert_eq!(code(client.commit(3, &other)), Code::BATCH_GAP);
    assert_eq!(hub.head().unwrap().seq, 1);
    let known = client.admit(1).unwrap();
    assert_eq!((known.last_batch, known.head.seq), (1, 1));
    assert_eq!(known.head.chain, ack.chain);
}

#[test]
fn a_batch_that_makes_no_sense_leaves_nothing_behind() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let before = hub.head().unwrap();
    let unplaced = vec![Edit::New {
        node: node(1, 1),
        kind: NodeKind::File,
    }];
    assert_eq!(
        client.commit(1, &unplaced).unwrap_err().code,
        Code::MALFORMED
    );
    assert_eq!(hub.head().unwrap(), before);
    client
        .commit(1, &new_file(node(1, 1), "f", text("x")))
        .unwrap();
    assert_clean(&replica);
}

#[test]
fn who_may_only_read_cannot_push() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let code = |answer: Result<PushAck, StoreFailure>| answer.unwrap_err().code;
    let client = Client(hub.session(Arc::new(|_| Ok(Access::Read))));
    assert_eq!(code(client.commit(1, &[])), Code::STATE);
    assert!(!client.admit(1).unwrap().may_push);
    assert_eq!(code(client.commit(1, &[])), Code::READ_ONLY);
    assert_eq!(client.subscribe(Start::Nothing), Ok(0));
    assert_eq!(client.admit(0).unwrap_err().code, Code::TAG_TAKEN);
    let refusal = |_: &Hello| {
        Err(StoreFailure {
            code: Code::AUTH,
            detail: "the token is wrong".into(),
            retry_after_ms: 0,
        })
    };
    let stranger = Client(hub.session(Arc::new(refusal)));
    assert_eq!(stranger.admit(1).unwrap_err().code, Code::AUTH);
}

#[test]
fn a_replica_with_the_tag_of_the_hub_is_refused() {
    let (_dir, path) = place();
    let (_replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client(hub.session(Arc::new(|_| Ok(Access::Write))));
    assert_eq!(client.admit(HUB_TAG).unwrap_err().code, Code::TAG_TAKEN);
    assert_eq!(client.commit(1, &[]).unwrap_err().code, Code::STATE);
}

#[test]
fn commits_are_news_until_nobody_listens() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let listening = client.0.on_news(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let other = Client::new(&Hub::open(&replica).unwrap(), 2);
    other
        .commit(1, &new_file(node(2, 1), "f", text("x")))
        .unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    drop(listening);
    other
        .commit(2, &new_file(node(2, 2), "g", text("x")))
        .unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[test]
fn the_chain_is_of_the_changes_of_each_commit() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let mut chain = Chain::GENESIS;
    for n in 1..5 {
        let name = n.to_string();
        let ack = client
            .commit(n, &new_file(node(1, n), &name, text(&name)))
            .unwrap();
        let mut hasher = CommitHasher::new();
        let entries = {
            let (parent, name) = root(&name);
            let id = node(1, n);
            [
                Entry::Node {
                    id,
                    kind: NodeKind::File,
                },
                Entry::Name {
                    parent,
                    name,
                    node: Some(id),
                },
                Entry::Data {
                    node: id,
                    data: text(&n.to_string()),
                },
                Entry::Meta {
                    node: id,
                    meta: META,
                },
            ]
        };
        for entry in entries {
            hasher.push(&Change { ver: n, entry });
        }
        chain = chain.next(&hasher.finish());
        assert_eq!(ack.chain, chain);
    }
}

// Following.

#[test]
fn a_register_that_changes_often_is_told_once() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let f = node(1, 1);
    client.commit(1, &new_file(f, "f", text("0"))).unwrap();
    for n in 2..100 {
        let data = text(&n.to_string());
        let base = n - 1;
        client
            .commit(
                n,
                &[Edit::Data {
                    node: f,
                    base,
                    data,
                }],
            )
            .unwrap();
    }
    let (changes, _, cut) = client.follow(0);
    assert_eq!((changes.len(), cut.seq), (4, 99));
    let (changes, _, _) = client.follow(50);
    assert_eq!(changes.len(), 1);
    assert_eq!(client.follow(99).0, []);
}

#[test]
fn who_clones_is_not_told_what_is_dead() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    for n in 0..10 {
        let (id, name) = (node(1, n + 1), n.to_string());
        client
            .commit(2 * n + 1, &new_file(id, &name, text("x")))
            .unwrap();
        client
            .commit(2 * n + 2, &remove(id, &name, 2 * n + 1))
            .unwrap();
    }
    assert_eq!(client.subscribe(Start::Nothing), Ok(0));
    assert_eq!(client.follow(0).0, []);
    // Who had something is told what ended.
    let told = client.follow(1).0;
    let gone = told
        .iter()
        .filter(|c| matches!(c.entry, Entry::Gone { .. }));
    assert_eq!(gone.count(), 10);
}

#[test]
fn who_does_not_know_a_node_that_lives_again_is_told_all_of_it() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let (f, name) = (node(1, 1), XattrName::new(b"user.x").unwrap());
    client.commit(1, &new_file(f, "f", text("kept"))).unwrap();
    let (base, value) = (0, Some(bytes::Bytes::from_static(b"y")));
    let attribute = Edit::Xattr {
        node: f,
        name: name.clone(),
        base,
        value,
    };
    client.commit(2, &[attribute]).unwrap();
    client.commit(3, &remove(f, "f", 1)).unwrap();
    // Clones while the file is dead.
    let other = Client::new(&hub, 2);
    assert_eq!(other.subscribe(Start::Nothing), Ok(0));
    let (mut told, _, cut) = other.follow(0);
    assert_eq!(told, []);
    // A rename by somebody who did not know that it was removed (R6).
    let (parent, to) = root("g");
    let rename = Edit::Name {
        parent,
        name: to,
        was: None,
        node: Some(f),
    };
    let ack = client.commit(4, &[rename]).unwrap();
    assert_eq!(ack.outcomes[0].1, Outcome::Revived { node: f });
    told.extend(other.follow(cut.seq).0);
    let tree = tree_of(&told);
    assert_eq!(tree.at(&root("g")), Some(f));
    assert_eq!(tree.data(f), Ok(Some((1, text("kept")))));
    assert_eq!(
        tree.xattr(f, &name),
        Ok(Some(bytes::Bytes::from_static(b"y")))
    );
    assert!(tree == tree_of(&client.follow(0).0));
}

#[test]
fn conflicts_are_reported_to_those_who_follow() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let f = node(1, 1);
    a.commit(1, &new_file(f, "f", text("old"))).unwrap();
    let write = |text_of: &str| Edit::Data {
        node: f,
        base: 1,
        data: text(text_of),
    };
    a.commit(2, &[write("of a")]).unwrap();
    let ack = b.commit(1, &[write("of b")]).unwrap();
    let (_, reports, _) = a.follow(2);
    let outcomes: Vec<Outcome> = ack.outcomes.iter().map(|(_, o)| o.clone()).collect();
    assert!(matches!(&outcomes[..], [Outcome::Copied { .. }]));
    let (seq, by) = (3, ReplicaTag(2));
    assert_eq!(reports, [Report { seq, by, outcomes }]);
    assert_eq!(hub.status().unwrap().conflicts, 1);
}

#[test]
fn a_cursor_that_leads_nowhere_is_found_out() {
    let (_dir, path) = place();
    let copy = path.with_extension("backup");
    let lead = |client: &Client, cursor: Cursor| client.subscribe(Start::At(cursor));
    let (seen, epoch) = {
        let (replica, hub) = hub_at(&path, HubOptions::default());
        let client = Client::new(&hub, 1);
        client
            .commit(1, &new_file(node(1, 1), "f", text("x")))
            .unwrap();
        let seen = hub.head().unwrap();
        assert_eq!(lead(&client, seen), Ok(1));
        replica.flush().unwrap();
        crash_copy(&path, &copy);
        client
            .commit(2, &new_file(node(1, 2), "g", text("y")))
            .unwrap();
        let ahead = Cursor { seq: 9, ..seen };
        assert_eq!(lead(&client, ahead), Err((Why::Forked, 0)));
        let scope = Scope([1; 8]);
        assert_eq!(
            lead(&client, Cursor { scope, ..seen }),
            Err((Why::Scope, 0))
        );
        (hub.head().unwrap(), seen.epoch)
    };
    // The hub is back from a backup, and goes on otherwise: it is found out
    // before it has overtaken the cursor, and after.
    let (_replica, hub) = hub_at(&copy, HubOptions::default());
    let client = Client::new(&hub, 2);
    assert_eq!(hub.head().unwrap().epoch, epoch);
    for n in 1..4 {
        assert_eq!(lead(&client, seen), Err((Why::Forked, 0)), "at {n}");
        let name = format!("h{n}");
        client
            .commit(n, &new_file(node(2, n), &name, text("z")))
            .unwrap();
    }
    assert_eq!(lead(&client, seen), Err((Why::Forked, 0)));
    assert_ne!(hub.head().unwrap(), seen);
    // Another hub.
    let other = Replica::in_memory().unwrap();
    let other = Hub::open(&other).unwrap();
    assert_eq!(lead(&Client::new(&other, 1), seen), Err((Why::Epoch, 0)));
}

// Chunks.

#[test]
fn a_commit_needs_its_chunks_and_keeps_them() {
    for single in [false, true] {
        let (_dir, path) = place();
        let options = Options {
            single_file: single,
            ..quiet(Options::default())
        };
        let replica = Replica::open(&path, options).unwrap();
        let hub = Hub::open(&replica).unwrap();
        let client = Client::new(&hub, 1);
        let (a, b) = (noise(70_000, 1), noise(9_000, 2));
        let edits = new_file(node(1, 1), "f", chunked(&[&a, &b, &a]));
        let hashes = [ChunkHash::of(&a), ChunkHash::of(&b)];
        assert_eq!(client.missing(&hashes), [true, true]);
        client.store(&a);
        assert_eq!(
            client.commit(1, &edits).unwrap_err().code,
            Code::CHUNK_MISSING
        );
        client.store(&b);
        client.commit(1, &edits).unwrap();
        drop(client);
        replica.gc().unwrap();
        let client = Client::new(&hub, 1);
        assert_eq!(client.missing(&hashes), [false, false]);
        assert_clean(&replica);
        // Removed, they are kept for who did not know, until everybody does.
        client.commit(2, &remove(node(1, 1), "f", 1)).unwrap();
        drop((client, hub));
        replica.gc().unwrap();
        let hub = Hub::open_with(&replica, FORGETFUL).unwrap();
        let client = Client::new(&hub, 1);
        client.applied(hub.head().unwrap());
        assert_eq!(client.missing(&hashes), [false, false]);
        drop(client);
        assert_eq!(hub.prune().unwrap(), 2);
        let report = replica.gc().unwrap();
        assert_eq!(report.chunks, 2);
        let client = Client::new(&hub, 1);
        assert_eq!(client.missing(&hashes), [true, true]);
        assert_clean(&replica);
    }
}

#[test]
fn gc_leaves_what_a_connection_holds() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    let bytes = noise(70_000, 1);
    let hash = client.store(&bytes);
    replica.gc().unwrap();
    assert_eq!(client.missing(&[hash]), [false]);
    client
        .commit(1, &new_file(node(1, 1), "f", chunked(&[&bytes])))
        .unwrap();
    // What nobody committed goes with its connection.
    let other = Client::new(&hub, 2);
    let lost = other.store(&noise(70_000, 2));
    drop(other);
    replica.gc().unwrap();
    assert_eq!(client.missing(&[hash, lost]), [false, true]);
    assert_clean(&replica);
}

#[test]
fn a_hub_and_the_files_of_its_replica_share_chunks() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, HubOptions::default());
    let client = Client::new(&hub, 1);
    // Large enough for a staging file that becomes a pack.
    let bytes = noise(3 << 20, 7);
    replica.write_file("/large", &bytes).unwrap();
    replica.cursor().unwrap();
    let mut extents = Vec::new();
    let mut chunks = Vec::new();
    for (n, part) in bytes.chunks(400_000).enumerate() {
        if n == 3 {
            replica.write_file("/same", part).unwrap();
            replica.cursor().unwrap();
        }
        client.store(part);
        extents.push(part);
        chunks.push(ChunkHash::of(part));
    }
    client
        .commit(1, &new_file(node(1, 1), "f", chunked(&extents)))
        .unwrap();
    replica.remove("/large").unwrap();
    replica.gc().unwrap();
    assert_eq!(client.missing(&chunks), vec![false; chunks.len()]);
    assert_clean(&replica);
}

#[test]
fn chunks_that_are_not_what_they_say_are_refused() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let (bytes, other) = (noise(5_000, 1), ChunkHash::of(b"other"));
    let wrong = client.put(vec![raw(other, &bytes)]);
    assert_eq!(wrong, [(other, Code::CHUNK_CORRUPT)]);
    let hash = ChunkHash::of(&bytes);
    let encoding = Encoding::ZstdPrefix { base: other };
    let without = ChunkData {
        encoding,
        ..raw(hash, &bytes)
    };
    assert_eq!(client.put(vec![without]), [(hash, Code::CHUNK_MISSING)]);
    assert_eq!(client.missing(&[hash, other]), [true, true]);
    // A content that says another length than its chunk has.
    client.store(&bytes);
    let extents = [Extent::Chunk { hash, len: 4_999 }];
    let manifest = Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap();
    let (size, chunker) = (4_999, ChunkerId::Whole);
    let data = Data::File {
        size,
        chunker,
        manifest,
    };
    let refused = client
        .commit(1, &new_file(node(1, 1), "f", data))
        .unwrap_err();
    assert_eq!(refused.code, Code::MALFORMED);
    assert_clean(&replica);
}

#[test]
fn pages_of_manifests_are_chunks_that_come_first() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let bytes = noise(100, 1);
    let hash = client.store(&bytes);
    let extents = vec![Extent::Chunk { hash, len: 100 }; 10_000];
    let mut pages = Vec::new();
    let manifest = Manifest::build(&extents, |_, page| {
        pages.push(page);
        Ok::<_, ()>(())
    });
    let data = Data::File {
        size: 1_000_000,
        chunker: ChunkerId::FastCdc,
        manifest: manifest.unwrap(),
    };
    let edits = new_file(node(1, 1), "f", data);
    assert_eq!(
        client.commit(1, &edits).unwrap_err().code,
        Code::CHUNK_MISSING
    );
    for page in &pages {
        client.store(page);
    }
    client.commit(1, &edits).unwrap();
    drop(client);
    replica.gc().unwrap();
    assert_clean(&replica);
}

#[test]
fn chunks_are_read_as_differences_and_within_a_budget() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open(&replica).unwrap();
    let client = Client::new(&hub, 1);
    let old = noise(200_000, 1);
    let mut new = old.clone();
    new[100_000] ^= 1;
    let (base, hash) = (client.store(&old), client.store(&new));
    let read = |chunks: Vec<_>, budget| match client.0.perform(HubAction::Read { chunks, budget }) {
        HubDone::Chunks {
            chunks,
            taken,
            missing,
        } => (chunks, taken, missing),
        other => panic!("{other:?}"),
    };
    let (chunks, _, _) = read(vec![(hash, Some(base))], 1 << 20);
    assert_eq!(chunks[0].encoding, Encoding::ZstdPrefix { base });
    assert!(chunks[0].bytes.len() < 1_000);
    let unknown = ChunkHash::of(b"unknown");
    let wanted = vec![(unknown, None), (hash, None), (base, None), (hash, None)];
    let (chunks, taken, missing) = read(wanted, 450_000);
    assert_eq!((chunks.len(), taken, missing), (2, 3, vec![unknown]));
    let (chunks, taken, _) = read(vec![(hash, Some(unknown)), (base, None)], 1);
    assert_eq!((chunks.len(), taken), (1, 1));
    assert_eq!(chunks[0].encoding, Encoding::Raw);
}

// The horizon.

#[test]
fn what_everybody_knows_is_forgotten() {
    let (_dir, path) = place();
    let (replica, hub) = hub_at(&path, FORGETFUL);
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    let mut batch = 0;
    let mut push = |edits: Vec<Edit>| {
        batch += 1;
        a.commit(batch, &edits).unwrap()
    };
    push(new_file(node(1, 1), "f", text("x")));
    push(new_file(node(1, 2), "g", text("y")));
    let slow = hub.head().unwrap();
    b.applied(slow);
    push(remove(node(1, 1), "f", 1));
    a.applied(hub.head().unwrap());
    assert_eq!(hub.prune().unwrap(), 2);
    // The slow one can still go on from where it was.
    assert_eq!(b.subscribe(Start::At(slow)), Ok(2));
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(b.follow(2).0.iter().any(ended));
    let head = hub.head().unwrap();
    b.applied(head);
    assert_eq!(hub.prune().unwrap(), 3);
    assert_eq!(b.subscribe(Start::At(slow)), Err((Why::Horizon, 3)));
    assert_eq!(b.subscribe(Start::At(head)), Ok(3));
    assert_eq!(b.subscribe(Start::Nothing), Ok(0));
    // Another knows nothing of the dead, and an edit of it cannot revive it.
    let late = Edit::Data {
        node: node(1, 1),
        base: 1,
        data: text("late"),
    };
    let ack = b.commit(1, &[late]).unwrap();
    let why = Refusal::Unknown;
    assert_eq!(ack.outcomes[0].1, Outcome::Refused { why });
    assert_eq!(tree_of(&b.follow(0).0).names().count(), 1);
    assert_clean(&replica);
    drop((a, b, hub, replica));
    assert_clean(&open(&path));
}

/// A replica that was away for long begins to follow: nothing is forgotten
/// between the pages that it is told.
#[test]
fn what_somebody_is_being_told_is_not_forgotten() {
    let replica = Replica::in_memory().unwrap();
    let hub = Hub::open_with(&replica, FORGETFUL).unwrap();
    let (a, b) = (Client::new(&hub, 1), Client::new(&hub, 2));
    a.commit(1, &new_file(node(1, 1), "f", text("x"))).unwrap();
    let seen = hub.head().unwrap();
    a.commit(2, &new_file(node(1, 2), "g", text("y"))).unwrap();
    assert_eq!(b.subscribe(Start::At(seen)), Ok(1));
    let (first, _, next, cut) = b.page(1, 1);
    assert_eq!((first.len(), next), (4, 2));
    assert!(cut.is_some());
    a.commit(3, &remove(node(1, 1), "f", 1)).unwrap();
    a.applied(hub.head().unwrap());
    assert_eq!(hub.prune().unwrap(), 1);
    let ended = |c: &Change| matches!(c.entry, Entry::Gone { .. });
    assert!(b.page(next, 1).0.iter().any(ended));
}

#[test]
fn forgetting_changes_nothing_for_who_clones() {
    for seed in seeds(10) {
        let (_dir, path) = place();
        let mut world = World::new(seed, path.clone());
        for _ in 0..80 {
            let who = world.rng.index(3);
            match world.rng.below(3) {
                0 => world.push(who, false),
                _ => drop(world.edit(who)),
            }
        }
        let hub = Hub::open_with(&world.hub.as_ref().unwrap().0, FORGETFUL).unwrap();
        for who in 0..3 {
            world.client(who).applied(hub.head().unwrap());
        }
        assert_eq!(hub.prune().unwrap(), hub.head().unwrap().seq);
        let (replica, _) = world.hub.as_ref().unwrap();
        replica.gc().unwrap();
        world.compare();
        assert_clean(replica);
    }
}
