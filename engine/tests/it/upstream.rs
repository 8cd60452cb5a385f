//! A replica of the engine follows a hub of the model: the laws hold whatever
//! several replicas do, and what the peers of this system get wrong is right.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use cairn_engine::{Ino, NewNode, NodeKind, RenameMode, Replica, SetAttr, SetTime, Upstream};
use cairn_protocol::session::{Applied, Batch, BatchOffer, ClientAction, ClientDone, Store};
use cairn_protocol::testing::{Hub, ModelTree, Oracle};
use cairn_protocol::wire::{Blob, ChunkData, Ext, PushAck, Why};
use cairn_protocol::{
    Chain, Change, ChunkHash, Cursor, Data, Edit, Encoded, Encoding, Epoch, NodeId, Outcome, Scope,
    Seq, Timestamp, decode_chunk,
};

use crate::support::{self, Rng};

/// A hub, and the chunks that it has.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) hub: Hub,
    chunks: BTreeMap<ChunkHash, Bytes>,
    /// Bytes of chunks that came, encoded.
    received: usize,
}

impl Side {
    pub(crate) fn cursor(&self) -> Cursor {
        cursor(self.hub.head())
    }

    fn take(&mut self, chunk: ChunkData) {
        let encoded = Encoded {
            encoding: chunk.encoding,
            bytes: chunk.bytes.into_bytes(),
        };
        self.received += encoded.bytes.len();
        let chunks = &self.chunks;
        let base = |hash: &ChunkHash| chunks.get(hash).cloned();
        let bytes = decode_chunk(chunk.hash, chunk.len as usize, &encoded, base).unwrap();
        self.chunks.insert(chunk.hash, bytes);
    }
}

fn cursor(seq: Seq) -> Cursor {
    Cursor {
        epoch: Epoch([7; 16]),
        seq,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    }
}

/// A replica with its store.
pub(crate) struct Client {
    pub(crate) replica: Replica,
    pub(crate) upstream: Upstream,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::of(Replica::in_memory().unwrap())
    }

    pub(crate) fn of(replica: Replica) -> Self {
        let upstream = replica.upstream().unwrap();
        Self { replica, upstream }
    }

    fn perform(&self, action: ClientAction) -> ClientDone {
        match self.upstream.perform(action) {
            ClientDone::Failed(failure) => panic!("{failure}"),
            done => done,
        }
    }

    pub(crate) fn seq(&self) -> Seq {
        self.upstream
            .cursor()
            .unwrap()
            .map_or(0, |cursor| cursor.seq)
    }

    /// Gets what the hub has, with the answer to a batch.
    pub(crate) fn pull(&self, side: &Side, ack: Option<PushAck>) -> Applied {
        self.stage(side, side.hub.changes_since(self.seq()));
        self.apply(side.cursor(), ack)
    }

    pub(crate) fn stage(&self, side: &Side, changes: Vec<Change>) {
        let staged = self.perform(ClientAction::Stage {
            first: 0,
            changes,
            reports: Vec::new(),
        });
        let ClientDone::Staged { wanted } = staged else {
            panic!("{staged:?}");
        };
        let chunks = wanted.iter().map(|(hash, _)| {
            let bytes = side
                .chunks
                .get(hash)
                .expect("the hub has what it names")
                .clone();
            ChunkData {
                hash: *hash,
                len: bytes.len() as u32,
                encoding: Encoding::Raw,
                bytes: Blob::try_from(bytes).unwrap(),
            }
        });
        let chunks = chunks.collect();
        let done = self.perform(ClientAction::Store { chunks });
        assert!(matches!(done, ClientDone::Stored { refused, .. } if refused.is_empty()));
    }

    fn apply(&self, cursor: Cursor, ack: Option<PushAck>) -> Applied {
        let confirmed = false;
        match self.perform(ClientAction::Apply {
            cursor,
            ack,
            confirmed,
        }) {
            ClientDone::Applied(applied) => applied,
            done => panic!("{done:?}"),
        }
    }

    fn batch(&self) -> Option<Box<BatchOffer>> {
        match self.perform(ClientAction::NextBatch { inline: 64 << 10 }) {
            ClientDone::Batch(batch) => batch,
            done => panic!("{done:?}"),
        }
    }

    /// The hub refuses what there is to push, and a cut waits for that, unless it has
    /// committed it before. Returns the edits.
    pub(crate) fn refused(&self, side: &Side) -> Option<Vec<Edit>> {
        let Batch { number, edits, .. } = self.batch()?.batch;
        let last = side.hub.last(self.upstream.tag());
        if last.is_some_and(|(last, _)| number <= last) {
            return None;
        }
        let done = self.perform(ClientAction::Withdraw { batch: number });
        assert_eq!(done, ClientDone::Withdrawn);
        Some(edits)
    }

    /// Pushes what there is. Returns the edits, and the answer, which is not
    /// taken yet.
    pub(crate) fn push(&self, side: &mut Side) -> Option<(Vec<Edit>, PushAck)> {
        let offer = self.batch()?;
        for chunk in offer.inline {
            side.take(chunk);
        }
        let missing = offer
            .batch
            .chunks
            .iter()
            .filter(|hash| !side.chunks.contains_key(*hash));
        let chunks: Vec<_> = missing.map(|hash| (*hash, false)).collect();
        if !chunks.is_empty() {
            let asked = chunks.len();
            let budget = usize::MAX;
            let done = self.perform(ClientAction::Supply { chunks, budget });
            let ClientDone::Chunks {
                chunks,
                taken,
                missing,
            } = done
            else {
                panic!("{done:?}");
            };
            assert_eq!((taken, missing), (asked, vec![]));
            for chunk in chunks {
                side.take(chunk);
            }
        }
        let batch = offer.batch;
        let ack = side
            .hub
            .push(self.upstream.tag(), batch.number, &batch.edits)
            .unwrap();
        let outcomes: Vec<_> = ack
            .outcomes
            .into_iter()
            .map(|(i, o)| (i as u32, o))
            .collect();
        let ack = PushAck {
            batch: ack.batch,
            seq: ack.seq,
            chain: Chain::GENESIS,
            outcomes: outcomes.try_into().unwrap(),
            ext: Ext::default(),
        };
        Some((batch.edits, ack))
    }

    /// Gets and pushes until nothing is left. Returns all edits.
    pub(crate) fn sync(&self, side: &mut Side) -> Vec<Edit> {
        let mut all = Vec::new();
        let mut last = self.batch().is_none();
        for _ in 0..100 {
            if last && self.seq() < side.hub.head() || self.seq() == 0 {
                self.pull(side, None);
            }
            match self.push(side) {
                Some((edits, ack)) => {
                    let shown: Vec<_> = edits.iter().map(short).collect();
                    println!(
                        "{:x}: pushes {shown:?} {:?}",
                        self.upstream.tag().0 & 0xfff,
                        ack.outcomes
                    );
                    all.extend(edits);
                    assert_eq!(self.pull(side, Some(ack)), Applied::Done);
                    last = true;
                }
                None if self.seq() == side.hub.head() => return all,
                None => last = true,
            }
        }
        panic!("it goes on and on: {all:?}");
    }

    /// What the replica shows.
    pub(crate) fn tree(&self) -> ModelTree {
        self.replica.flush().unwrap();
        let mut tree = ModelTree::new();
        for change in self.replica.changes_since(None).unwrap().changes {
            tree.apply(change.ver, &change.entry);
        }
        tree
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.replica.read_file(path).unwrap()
    }

    fn ino(&self, path: &str) -> Ino {
        self.replica.stat(path).unwrap().ino
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let mut names = Vec::new();
        let ino = self.ino(dir);
        let each = &mut |e: cairn_engine::Entry<'_>| {
            names.push(String::from_utf8_lossy(e.name).into_owned());
            true
        };
        self.replica.read_dir(ino, 0, each).unwrap();
        names.sort();
        names
    }
}

/// An edit in a few words.
fn short(edit: &Edit) -> String {
    let id = |id: &NodeId| format!("{:x}:{}", id.replica.0 & 0xfff, id.counter);
    let maybe = |node: &Option<NodeId>| node.as_ref().map_or("-".into(), id);
    match edit {
        Edit::New { node, kind } => format!("new {} {kind:?}", id(node)),
        Edit::Data { node, base, data } => match data {
            Data::Inline { bytes } => format!("data {} on {base}: {bytes:?}", id(node)),
            _ => format!("data {} on {base}", id(node)),
        },
        Edit::Meta {
            node, fields, meta, ..
        } => {
            format!("meta {} {fields:?} {:o}", id(node), meta.mode)
        }
        Edit::Xattr { node, value, .. } => format!("xattr {} {value:?}", id(node)),
        Edit::Name {
            parent,
            name,
            was,
            node,
        } => {
            format!(
                "name {}/{name} {} -> {}",
                id(parent),
                maybe(was),
                maybe(node)
            )
        }
        Edit::Drop { node, data_base } => format!("drop {} of {data_base}", id(node)),
    }
}

/// A tree in a few lines.
fn lines(tree: &ModelTree) -> Vec<String> {
    let id = |id: NodeId| format!("{:x}:{}", id.replica.0 & 0xfff, id.counter);
    let names = tree
        .names()
        .map(|(place, node)| format!("{}/{} {}", id(place.0), place.1, id(node)));
    let nodes = tree.live().map(|(node, kind)| {
        let content = match tree.content(node) {
            Some(Data::Inline { bytes }) => format!("{bytes:?}"),
            other => format!("{other:?}"),
        };
        format!(
            "{} {kind:?} {content} {:?}",
            id(node),
            tree.attributes(node)
        )
    });
    names.chain(nodes).collect()
}

#[track_caller]
pub(crate) fn assert_equal(clients: &[&Client], side: &Side) {
    for client in clients {
        let (here, there) = (client.tree(), side.hub.tree());
        if here != *there {
            let (here, there) = (lines(&here), lines(there));
            let only_here: Vec<_> = here.iter().filter(|line| !there.contains(line)).collect();
            let missing: Vec<_> = there.iter().filter(|line| !here.contains(line)).collect();
            let tag = client.upstream.tag().0 & 0xfff;
            panic!("{tag:x}: only here {only_here:#?}, only at the hub {missing:#?}");
        }
        support::assert_clean(&client.replica);
    }
}

fn two() -> (Side, Client, Client) {
    (Side::default(), Client::new(), Client::new())
}

#[test]
fn i1_what_one_replica_writes_another_reads() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/dir").unwrap();
    a.replica.write_file("/dir/small", b"small").unwrap();
    a.replica
        .write_file("/dir/large", &support::noise(3 << 20, 1))
        .unwrap();
    a.replica.symlink_path("small", "/dir/link").unwrap();
    support::eventually("the large file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.stat("/dir/large").is_ok()
    });
    assert_eq!(b.read("/dir/small"), b"small");
    assert_eq!(b.read("/dir/link"), b"small");
    assert_eq!(b.read("/dir/large"), support::noise(3 << 20, 1));
    assert_equal(&[&a, &b], &side);
    b.replica.write_file("/dir/small", b"other").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/dir/small"), b"other");
    assert_equal(&[&a, &b], &side);
}

#[test]
fn what_comes_from_the_hub_does_not_go_back() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"one").unwrap();
    a.sync(&mut side);
    let edits = b.sync(&mut side);
    assert_eq!(edits, []);
    assert_eq!(a.sync(&mut side), []);
    b.replica.write_file("/d/f", b"two").unwrap();
    b.sync(&mut side);
    assert_eq!(a.sync(&mut side), []);
    assert_eq!(b.sync(&mut side), []);
}

/// What a large cut brings becomes rows whose versions are passed over when edits
/// are looked for. What was edited before it, beside it and after it is no part
/// of that.
#[test]
fn what_was_edited_around_a_large_cut_is_pushed() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    for n in 0..40_u8 {
        a.replica.write_file(format!("/d/{n}"), &[n; 900]).unwrap();
    }
    a.sync(&mut side);
    b.replica.write_file("/before", b"before").unwrap();
    b.stage(&side, side.hub.changes_since(0));
    b.replica.write_file("/beside", b"beside").unwrap();
    assert_eq!(b.apply(side.cursor(), None), Applied::Done);
    b.replica.write_file("/d/7", b"after").unwrap();
    b.replica.remove("/d/8").unwrap();
    b.replica.rename_path("/d/9", "/d/nine").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/before"), b"before");
    assert_eq!(a.read("/beside"), b"beside");
    assert_eq!(a.read("/d/7"), b"after");
    assert_eq!(a.read("/d/nine"), [9; 900]);
    assert!(a.replica.stat("/d/8").is_err());
    assert_equal(&[&a, &b], &side);
    assert_eq!((a.sync(&mut side), b.sync(&mut side)), (vec![], vec![]));
    // And what one hub told is edited for another.
    assert_eq!(b.upstream.status().unwrap().pending, 0);
    let own = b.replica.own_upstream().unwrap();
    assert!(own.status().unwrap().pending > 40);
}

#[test]
fn i9_a_directory_of_1000_files_is_renamed_in_two_edits() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/old").unwrap();
    for n in 0..1_000 {
        a.replica.write_file(format!("/old/{n}"), b"x").unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    let ino = b.ino("/old/7");
    a.replica.rename_path("/old", "/new").unwrap();
    let edits = a.sync(&mut side);
    let names = edits
        .iter()
        .filter(|edit| matches!(edit, Edit::Name { .. }));
    assert_eq!(names.count(), 2, "{edits:?}");
    assert!(edits.len() <= 4, "{edits:?}");
    b.sync(&mut side);
    assert_eq!(b.ino("/new/7"), ino);
    assert_equal(&[&a, &b], &side);
}

#[test]
fn everything_of_a_node_arrives() {
    let (mut side, a, b) = two();
    let like = |perm, kind, rdev| NewNode {
        kind,
        perm,
        uid: 7,
        gid: 8,
        rdev,
    };
    let file = a
        .replica
        .make(Ino::ROOT, b"file", &like(0o640, NodeKind::File, 0))
        .unwrap();
    let device = like(0o600, NodeKind::CharDevice, 0x105);
    a.replica.make(Ino::ROOT, b"device", &device).unwrap();
    a.replica
        .make(Ino::ROOT, b"pipe", &like(0o600, NodeKind::Fifo, 0))
        .unwrap();
    a.replica.link(file.ino, Ino::ROOT, b"twin").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let (file_b, twin) = (
        b.replica.stat("/file").unwrap(),
        b.replica.stat("/twin").unwrap(),
    );
    assert_eq!((file_b.ino, file_b.nlink), (twin.ino, 2));
    assert_eq!((file_b.perm, file_b.uid, file_b.gid), (0o640, 7, 8));
    assert_eq!(b.replica.stat("/device").unwrap().rdev, 0x105);
    let time = Timestamp::new(1_000, 5).unwrap();
    let set = SetAttr {
        mtime: Some(SetTime::At(time)),
        perm: Some(0o4755),
        ..SetAttr::default()
    };
    a.replica.set_attr(file.ino, &set).unwrap();
    a.replica.set_xattr_path("/file", b"user.x", b"1").unwrap();
    a.replica.set_xattr_path("/file", b"user.y", b"2").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let got = b.replica.stat("/file").unwrap();
    assert_eq!((got.perm, got.mtime), (0o4755, time));
    assert_eq!(b.replica.xattr_path("/file", b"user.x").unwrap(), &b"1"[..]);
    b.replica.remove_xattr_path("/twin", b"user.x").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert!(a.replica.xattr_path("/file", b"user.x").is_err());
    assert_equal(&[&a, &b], &side);
}

#[test]
fn r1_concurrent_edits_of_one_file_are_both_kept_and_both_are_told() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"of a").unwrap();
    b.replica.write_file("/f", b"of b").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let copy = client
            .names("/")
            .into_iter()
            .find(|name| name.contains("conflict"))
            .unwrap();
        assert_eq!(client.read(&format!("/{copy}")), b"of b");
    }
    let told = b.replica.conflicts().unwrap();
    assert!(
        matches!(told[0].outcome, Outcome::Copied { .. }),
        "{told:?}"
    );
    b.replica.resolve_conflict(told[0].id).unwrap();
    assert_eq!(b.replica.conflicts().unwrap(), []);
    assert_equal(&[&a, &b], &side);
}

/// Who had the file open when its content went to a copy goes on writing to
/// the copy, not to what somebody else wrote.
#[test]
fn r12_an_open_file_becomes_the_copy() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"of a").unwrap();
    a.sync(&mut side);
    let open = b.ino("/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 0, b"of b!").unwrap();
    let (_, ack) = b.push(&mut side).unwrap();
    b.replica.write(open, 5, b" and more").unwrap();
    assert_eq!(b.pull(&side, Some(ack)), Applied::Done);
    assert_eq!(b.read("/f"), b"of a");
    b.replica.write(open, 14, b", still").unwrap();
    b.replica.release(open, true);
    b.sync(&mut side);
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let copies = client.names("/");
        let copy = copies
            .iter()
            .find(|name| name.contains("conflict"))
            .unwrap();
        assert_eq!(client.read(&format!("/{copy}")), b"of b! and more, still");
        assert_eq!(copies.len(), 2);
    }
    assert_equal(&[&a, &b], &side);
}

/// What a handle reads without asking cannot be changed for it, so it keeps what
/// it opened, and who opens the file again reads what the hub has.
#[test]
fn who_reads_a_file_directly_keeps_its_content_and_the_next_one_gets_the_new() {
    read_directly_while_it_is_replaced(false);
}

/// The same where the edits have to be replayed.
#[test]
fn who_reads_a_file_directly_keeps_its_content_when_names_meet() {
    read_directly_while_it_is_replaced(true);
}

fn read_directly_while_it_is_replaced(names_meet: bool) {
    let mut side = Side::default();
    let (_dir, path) = support::place();
    let (a, b) = (Client::new(), Client::of(support::open(&path)));
    let (old, new) = (support::noise(2 << 20, 1), support::noise(3 << 20, 2));
    b.replica.write_file("/f", &old).unwrap();
    b.replica.hard_link("/f", "/g").unwrap();
    b.replica.set_xattr_path("/f", b"user.x", b"1").unwrap();
    b.replica.cursor().unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    let ino = b.ino("/f");
    b.replica.retain(ino, false).unwrap();
    let direct = b.replica.resume_direct(ino, false).unwrap();
    let under = direct.expect("it is one pack").as_fd().try_clone_to_owned();
    let under = std::fs::File::from(under.unwrap());
    // The hub gets another content, the replica has edits of its own.
    a.replica.write_file("/f", &new).unwrap();
    if names_meet {
        a.replica.mkdir("/h").unwrap();
    }
    support::eventually("the new content is pushed", || {
        a.sync(&mut side);
        a.replica.usage().unwrap().unsealed_bytes == 0
    });
    b.replica.chmod("/f", 0o700).unwrap();
    b.replica.set_xattr_path("/f", b"user.y", b"2").unwrap();
    b.replica.rename_path("/g", "/h").unwrap();
    b.sync(&mut side);
    let mut seen = vec![0; old.len()];
    under.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == old);
    let now = b.replica.stat("/f").unwrap();
    assert_ne!(now.ino, ino);
    assert_eq!((now.nlink, now.perm), (2, 0o700));
    let mut files = b.names("/");
    files.retain(|name| !(names_meet && name == "h"));
    assert_eq!(files.len(), 2);
    for name in files {
        assert!(b.read(&format!("/{name}")) == new, "{name}");
    }
    assert!(b.replica.end_direct(ino).is_some());
    b.replica.release(ino, false);
    assert_eq!(b.sync(&mut side), []);
    a.sync(&mut side);
    assert_eq!(a.replica.xattr_path("/f", b"user.y").unwrap(), &b"2"[..]);
    assert_eq!(a.replica.stat("/f").unwrap().perm, 0o700);
    assert_equal(&[&a, &b], &side);
}

#[test]
fn r3_a_removal_does_not_take_what_its_author_had_not_seen() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"second").unwrap();
    b.replica.remove("/f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"second");
    assert_eq!(b.read("/f"), b"second");
    assert_equal(&[&a, &b], &side);
}

/// Found by a simulation (40033): the name that both made has all edits resolved
/// on the hub's tree, and a file that is dead there was taken for a new one.
#[test]
fn r10_attributes_alone_do_not_bring_a_file_back() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove("/f").unwrap();
    a.replica.write_file("/x", b"x").unwrap();
    b.replica.chmod("/f", 0o600).unwrap();
    b.replica.mkdir("/x").unwrap();
    a.sync(&mut side);
    assert_eq!(b.pull(&side, None), Applied::Done);
    b.sync(&mut side);
    a.sync(&mut side);
    assert!(!a.replica.exists("/f").unwrap());
    assert_eq!(a.names("/").len(), 2, "{:?}", a.names("/"));
    assert_equal(&[&a, &b], &side);
}

/// A change of one byte in the middle of a large file costs about what it is.
#[test]
fn a_small_edit_of_a_large_file_is_a_small_difference() {
    let (mut side, a, b) = two();
    a.replica
        .write_file("/large", &support::noise(900_000, 3))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/large").unwrap()
    });
    let before = side.received;
    a.replica.write_range("/large", 450_000, b"!").unwrap();
    support::eventually("the edit is pushed", || {
        a.sync(&mut side);
        side.received > before
    });
    assert!(
        side.received - before < 1_000,
        "{} bytes",
        side.received - before
    );
    b.sync(&mut side);
    assert_eq!(b.read("/large"), a.read("/large"));
}

#[test]
fn a_batch_stays_the_same_until_it_is_answered() {
    let (dir, path) = support::place();
    let mut side = Side::default();
    let a = Client::of(support::open(&path));
    a.sync(&mut side);
    a.replica.write_file("/f", b"one").unwrap();
    let (edits, _lost) = a.push(&mut side).unwrap();
    a.replica.write_file("/f", b"two").unwrap();
    drop(a);
    let a = Client::of(support::open(&path));
    assert_eq!(a.pull(&side, None), Applied::Held);
    let (again, ack) = a.push(&mut side).unwrap();
    assert_eq!(edits, again);
    assert_eq!(a.pull(&side, Some(ack)), Applied::Done);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"two");
    assert_equal(&[&a], &side);
    drop(dir);
}

/// A batch that the hub does not take is taken back for a cut: what is in it is
/// found again with what was edited later, as what its editor saw, under the same
/// number; and so after a crash.
#[test]
fn a_batch_that_is_withdrawn_is_collected_anew() {
    let (_dir, path) = support::place();
    let (mut side, a) = (Side::default(), Client::new());
    let mut b = Client::of(support::open(&path));
    for name in ["/doc", "/gone", "/kept"] {
        a.replica.write_file(name, b"base").unwrap();
    }
    a.sync(&mut side);
    b.pull(&side, None);
    b.replica.write_file("/doc", b"from b").unwrap();
    b.replica.write_file("/made", b"first").unwrap();
    b.replica.write_file("/fleeting", b"x").unwrap();
    b.replica.mkdir("/dir").unwrap();
    let number = |client: &Client| client.batch().unwrap().batch.number;
    let first = number(&b);
    b.replica.write_file("/made", b"second").unwrap();
    b.replica.remove("/fleeting").unwrap();
    b.replica.remove("/gone").unwrap();
    b.replica.rename_path("/kept", "/dir/kept").unwrap();
    a.replica.write_file("/doc", b"from a").unwrap();
    a.replica.write_file("/new", b"new").unwrap();
    a.sync(&mut side);
    assert_eq!(b.pull(&side, None), Applied::Held);
    b.refused(&side).unwrap();
    assert!(!b.upstream.status().unwrap().is_clean());
    assert_eq!(b.upstream.status().unwrap().in_flight, 0);
    assert_eq!(b.pull(&side, None), Applied::Done);
    assert_eq!(b.names("/"), ["dir", "doc", "made", "new"]);
    assert_eq!(b.read("/doc"), b"from b");
    let (_, last, digest) = b.upstream.start().unwrap();
    assert_eq!((last, digest), (first - 1, None));
    // Of a batch that is not in flight nothing is withdrawn.
    b.perform(ClientAction::Withdraw { batch: first });
    b.replica.flush().unwrap();
    drop(b);
    b = Client::of(support::open(&path));
    assert_eq!(number(&b), first);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_equal(&[&a, &b], &side);
    let names = a.names("/");
    let kept = |name: &str| names.iter().any(|n| n == name);
    assert!(
        !kept("fleeting") && !kept("gone") && !kept("kept"),
        "{names:?}"
    );
    assert_eq!(a.read("/made"), b"second");
    assert_eq!(a.read("/doc"), b"from a");
    let copy = names.iter().find(|name| name.starts_with("doc.conflict"));
    assert_eq!(a.read(&format!("/{}", copy.unwrap())), b"from b");
}

#[test]
fn a_hub_of_another_life_gets_what_it_lacks() {
    let (mut side, a, b) = two();
    a.replica.write_file("/kept", b"kept").unwrap();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let mut fresh = Side::default();
    for client in [&a, &b] {
        client.perform(ClientAction::Reset {
            why: Why::Epoch,
            epoch: Epoch([8; 16]),
            last_batch: 0,
        });
        client.stage(&fresh, fresh.hub.changes_since(0));
        assert_eq!(client.apply(fresh.cursor(), None), Applied::Done);
        client.sync(&mut fresh);
    }
    a.sync(&mut fresh);
    assert_eq!(b.read("/d/f"), b"f");
    assert_eq!(fresh.hub.tree().names().count(), 3);
    assert_equal(&[&a, &b], &fresh);
}

#[test]
fn i8_what_is_absent_after_a_long_time_was_removed() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"f").unwrap();
    a.replica.write_file("/g", b"g").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    b.replica.write_file("/new", b"new").unwrap();
    b.perform(ClientAction::Reset {
        why: Why::Horizon,
        epoch: Epoch([7; 16]),
        last_batch: 0,
    });
    // What lives, and nothing of what ended.
    let tree = side.hub.tree();
    let changes = side.hub.changes_since(0).into_iter().filter(|change| {
        use cairn_protocol::Entry;
        match &change.entry {
            Entry::Node { id: node, .. } | Entry::Data { node, .. } | Entry::Meta { node, .. } => {
                tree.is_live(*node)
            }
            Entry::Name { parent, name, node } => {
                node.is_some() && tree.at(&(*parent, name.clone())) == *node
            }
            _ => false,
        }
    });
    b.stage(&side, changes.collect());
    assert_eq!(b.apply(side.cursor(), None), Applied::Done);
    assert_eq!(b.names("/"), ["g", "new"]);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_equal(&[&a, &b], &side);
}

/// The hub answers the batch in flight although it has forgotten the cursor, and
/// refuses what it does to nodes that it has forgotten: that was not pushed.
#[test]
fn what_is_in_flight_for_a_node_that_was_forgotten_is_made_again() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.replica.write_file("/moved", b"moved").unwrap();
    a.replica.write_file("/kept", b"kept").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write_file("/f", b"of b").unwrap();
    b.replica.rename_path("/moved", "/there").unwrap();
    a.replica.remove("/f").unwrap();
    a.replica.remove("/moved").unwrap();
    a.sync(&mut side);
    side.hub.forget();
    let (_, ack) = b.push(&mut side).unwrap();
    b.perform(ClientAction::Reset {
        why: Why::Horizon,
        epoch: Epoch([7; 16]),
        last_batch: 0,
    });
    b.stage(&side, side.hub.whole());
    assert_eq!(b.apply(side.cursor(), Some(ack)), Applied::Done);
    assert_eq!(b.read("/f"), b"of b");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"of b");
    assert_eq!(a.read("/there"), b"moved");
    assert_equal(&[&a, &b], &side);
}

/// The answer says that a directory is an alias of another, and the hub has
/// forgotten that one meanwhile: what was made in it is not lost.
#[test]
fn an_alias_of_what_was_forgotten_is_made_again() {
    let (mut side, a, b) = two();
    b.sync(&mut side);
    a.replica.mkdir("/d").unwrap();
    a.sync(&mut side);
    b.replica.mkdir("/d").unwrap();
    let (_, ack) = b.push(&mut side).unwrap();
    b.replica.write_file("/d/f", b"of b").unwrap();
    a.replica.remove("/d").unwrap();
    a.sync(&mut side);
    side.hub.forget();
    b.perform(ClientAction::Reset {
        why: Why::Horizon,
        epoch: Epoch([7; 16]),
        last_batch: 0,
    });
    b.stage(&side, side.hub.whole());
    assert_eq!(b.apply(side.cursor(), Some(ack)), Applied::Done);
    assert_eq!(b.read("/d/f"), b"of b");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/d/f"), b"of b");
    assert_equal(&[&a, &b], &side);
}

#[test]
fn a_cut_that_removes_most_of_a_tree_asks_first() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    for n in 0..200 {
        a.replica.write_file(format!("/d/{n}"), b"x").unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    let halted = b.pull(&side, None);
    assert!(
        matches!(halted, Applied::Halted { removed: 201, .. }),
        "{halted:?}"
    );
    assert!(b.replica.exists("/d/1").unwrap());
}

/// All of a tree does not go unasked, but for so few files that it happens all the
/// time; and what was not said to be removed, but is absent, is asked about always.
#[test]
fn a_cut_that_empties_the_root_asks_first() {
    for (files, asks) in [(9, false), (10, true)] {
        let (mut side, a, b) = two();
        for n in 0..files {
            a.replica.write_file(format!("/{n}"), b"x").unwrap();
        }
        a.sync(&mut side);
        b.sync(&mut side);
        for n in 0..files {
            a.replica.remove(format!("/{n}")).unwrap();
        }
        a.sync(&mut side);
        let pulled = b.pull(&side, None);
        assert_eq!(matches!(pulled, Applied::Halted { .. }), asks, "{files}");
        // Another file comes in the place of all: that is no empty tree.
        a.replica.write_file("/new", b"new").unwrap();
        a.sync(&mut side);
        assert_eq!(b.pull(&side, None), Applied::Done);
    }
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.perform(ClientAction::Reset {
        why: Why::Horizon,
        epoch: Epoch([7; 16]),
        last_batch: 0,
    });
    b.stage(&side, Vec::new());
    let halted = b.apply(side.cursor(), None);
    assert_eq!(halted, Applied::Halted { removed: 1, of: 2 });
    assert!(b.replica.exists("/f").unwrap());
}

/// What the programs on a replica do at random, and what they see of it.
pub(crate) struct Worker<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) written: &'a mut u64,
}

impl Worker<'_> {
    fn paths(client: &Client) -> (Vec<String>, Vec<String>) {
        let (mut dirs, mut files) = (vec![String::new()], Vec::new());
        let mut at = 0;
        while let Some(dir) = dirs.get(at).cloned() {
            at += 1;
            for name in client.names(&format!("{dir}/")) {
                let path = format!("{dir}/{name}");
                match client.replica.lstat(&path).unwrap().kind {
                    NodeKind::Dir => dirs.push(path),
                    _ => files.push(path),
                }
            }
        }
        (dirs, files)
    }

    fn content(client: &Client, path: &str) -> Data {
        let bytes = client.replica.read_file(path).unwrap().into();
        Data::Inline { bytes }
    }

    fn fresh(&mut self) -> Vec<u8> {
        *self.written += 1;
        format!("content {}", self.written).into_bytes()
    }

    fn removed(&mut self, client: &Client, path: &str) {
        let attr = client.replica.lstat(path).unwrap();
        if attr.kind == NodeKind::File && attr.nlink == 1 {
            self.oracle.removed(Some(&Self::content(client, path)));
        }
    }

    pub(crate) fn step(&mut self, client: &Client) {
        let (dirs, files) = Self::paths(client);
        let dir = self.rng.pick(&dirs).clone();
        let place = format!("{}/{}", self.rng.pick(&dirs), self.rng.below(4));
        let replica = &client.replica;
        let tag = client.upstream.tag().0 & 0xfff;
        let file = (!files.is_empty()).then(|| self.rng.pick(&files).clone());
        let what = self.rng.below(11);
        println!("{tag:x}: {what} {file:?} {dir:?} {place:?} {dirs:?} {files:?}");
        match (what, file) {
            (0 | 1, _) if !replica.exists(&place).unwrap() => {
                let bytes = self.fresh();
                replica.write_file(&place, &bytes).unwrap();
                self.oracle.written(
                    &Data::Inline {
                        bytes: bytes.into(),
                    },
                    None,
                );
            }
            (2, _) => drop(replica.mkdir(&place)),
            (3 | 4, Some(file)) => {
                let old = Self::content(client, &file);
                let bytes = self.fresh();
                replica.write_file(&file, &bytes).unwrap();
                let new = Data::Inline {
                    bytes: bytes.into(),
                };
                self.oracle.written(&new, Some(&old));
            }
            (5, Some(file)) => {
                self.removed(client, &file);
                replica.remove(&file).unwrap();
            }
            (6, _) if !dir.is_empty() => drop(replica.remove(&dir)),
            (7, Some(file)) => {
                let same = replica.exists(&place).unwrap()
                    && replica.stat(&place).unwrap().ino == replica.stat(&file).unwrap().ino;
                let over = replica.exists(&place).unwrap() && !dirs.contains(&place) && !same;
                if over {
                    self.removed(client, &place);
                }
                let renamed = replica.rename_path(&file, &place);
                assert!(!over || renamed.is_ok());
            }
            (8, _) if !dir.is_empty() => drop(replica.rename_path(&dir, &place)),
            (9, Some(file)) => drop(replica.hard_link(&file, &place)),
            (10, Some(file)) => {
                drop(replica.chmod(&file, 0o600 + self.rng.below(64) as u16));
                drop(replica.set_xattr_path(&file, b"user.x", &[self.rng.below(3) as u8]));
            }
            _ => {
                let (x, y) = (self.rng.pick(&dirs).clone(), place);
                let at = |path: &str| {
                    let (parent, name) = path.rsplit_once('/')?;
                    let parent = replica.stat(format!("{parent}/")).ok()?.ino;
                    Some((parent, name.as_bytes().to_vec()))
                };
                if let (Some(x), Some(y)) = (at(&x), at(&y)) {
                    drop(replica.rename(x.0, &x.1, y.0, &y.1, RenameMode::Exchange));
                }
            }
        }
    }
}

fn schedule(seed: u64) {
    let (mut rng, mut refusals) = (Rng::new(seed), Rng::new(!seed));
    let mut side = Side::default();
    let (mut oracle, mut written) = (Oracle::default(), 0);
    let clients: Vec<Client> = (0..2 + rng.below(2)).map(|_| Client::new()).collect();
    let mut acks: Vec<Option<PushAck>> = clients.iter().map(|_| None).collect();
    for client in &clients {
        if rng.chance(80) {
            client.pull(&side, None);
        }
    }
    for _ in 0..80 {
        let who = rng.index(clients.len());
        let client = &clients[who];
        if refusals.chance(10) {
            client.refused(&side);
        }
        match rng.below(10) {
            0..=5 => {
                let (rng, oracle, written) = (&mut rng, &mut oracle, &mut written);
                Worker {
                    rng,
                    oracle,
                    written,
                }
                .step(client);
            }
            6 | 7 => {
                let pushed = client.push(&mut side);
                if let Some((edits, ack)) = &pushed {
                    let edits: Vec<_> = edits.iter().map(short).collect();
                    println!(
                        "{:x}: pushed {edits:?} {:?}",
                        client.upstream.tag().0 & 0xfff,
                        ack.outcomes
                    );
                }
                acks[who] = pushed.map(|(_, ack)| ack).filter(|_| rng.chance(70));
            }
            _ => {
                let applied = client.pull(&side, acks[who].take());
                let tag = client.upstream.tag().0 & 0xfff;
                println!("{tag:x}: pulled {applied:?} to {}", side.hub.head());
            }
        }
        support::assert_clean(&client.replica);
    }
    for _ in 0..4 {
        for client in &clients {
            client.sync(&mut side);
        }
    }
    side.hub.tree().check().unwrap();
    let all: Vec<&Client> = clients.iter().collect();
    assert_equal(&all, &side);
    assert_eq!(oracle.lost(side.hub.tree()), Vec::<Vec<u8>>::new());
}

#[test]
fn i1_i2_i4_i11_random_schedules_converge_and_lose_nothing() {
    for seed in support::seeds(40) {
        println!("seed {seed}");
        schedule(seed);
    }
}

/// What an ignore list left out arrives when the list changes: both what the
/// hub has and what is here.
#[test]
fn i14_what_was_ignored_comes_and_goes_when_the_rules_go() {
    let (mut side, a, b) = two();
    let rules = ["target".to_owned(), "*.log".to_owned()];
    b.pull(&side, None);
    b.upstream.set_ignore_rules(&rules).unwrap();
    for path in ["/src", "/target", "/target/deep"] {
        a.replica.mkdir(path).unwrap();
    }
    for path in ["/src/a", "/src/a.log", "/target/x", "/target/deep/y"] {
        a.replica.write_file(path, path.as_bytes()).unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    assert_eq!(b.names("/"), ["src"]);
    assert_eq!(b.names("/src"), ["a"]);
    b.replica.write_file("/b.log", b"of b").unwrap();
    b.replica.write_file("/src/b", b"of b").unwrap();
    b.sync(&mut side);
    a.replica.write_file("/target/x", b"again").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    assert_eq!(a.names("/"), ["src", "target"]);
    assert_eq!(a.names("/src"), ["a", "a.log", "b"]);
    b.upstream.set_ignore_rules(&[]).unwrap();
    assert_eq!(b.read("/target/x"), b"again");
    assert_eq!(b.read("/target/deep/y"), b"/target/deep/y");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/b.log"), b"of b");
    assert_equal(&[&a, &b], &side);
}

/// Somebody else changes a large file while it is being written here, and
/// not sealed yet.
#[test]
fn r1_a_file_that_is_being_written_is_kept_when_another_comes() {
    let (mut side, a, b) = two();
    a.replica
        .write_file("/f", &support::noise(2 << 20, 1))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/f").unwrap()
    });
    let open = b.ino("/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 5, b"of b").unwrap();
    a.replica.write_file("/f", b"of a").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write(open, 9, b", more").unwrap();
    b.replica.release(open, true);
    support::eventually("everything is pushed", || {
        b.sync(&mut side);
        b.upstream.status().unwrap().is_clean()
    });
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let names = client.names("/");
        let copy = names.iter().find(|name| name.contains("conflict")).unwrap();
        assert_eq!(client.read(&format!("/{copy}"))[5..15], *b"of b, more");
    }
    assert_equal(&[&a, &b], &side);
}

/// The other side removes a large file that is being written here.
#[test]
fn r2_a_file_that_is_being_written_outlives_its_removal_elsewhere() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica
        .write_file("/d/f", &support::noise(2 << 20, 1))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/d/f").unwrap()
    });
    let open = b.ino("/d/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 5, b"of b").unwrap();
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write(open, 9, b", more").unwrap();
    b.replica.release(open, true);
    support::eventually("everything is pushed", || {
        b.sync(&mut side);
        b.upstream.status().unwrap().is_clean()
    });
    a.sync(&mut side);
    assert_eq!(a.read("/d/f")[5..15], *b"of b, more");
    assert_equal(&[&a, &b], &side);
}

/// Gets chunks from a hub of the model when they are read.
struct Hands {
    chunks: BTreeMap<ChunkHash, Bytes>,
    upstream: std::sync::Weak<Upstream>,
    fetched: std::sync::Mutex<usize>,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hands")
    }
}

impl cairn_engine::Fetcher for Hands {
    fn fetch(&self, wanted: &[cairn_protocol::session::Wanted]) -> Result<(), String> {
        *self.fetched.lock().unwrap() += wanted.len();
        let chunks = wanted.iter().filter_map(|(hash, _)| {
            let bytes = self.chunks.get(hash)?.clone();
            Some(ChunkData {
                hash: *hash,
                len: bytes.len() as u32,
                encoding: Encoding::Raw,
                bytes: Blob::try_from(bytes).ok()?,
            })
        });
        let chunks = chunks.collect();
        let upstream = self.upstream.upgrade().ok_or("gone")?;
        upstream.perform(ClientAction::Store { chunks });
        Ok(())
    }
}

/// A lazy replica lists everything, fetches what is read and no more, and
/// says what to do when nobody can be asked.
#[test]
fn a_lazy_replica_fetches_what_is_read() {
    let (dir, path) = support::place();
    let (mut side, a) = (Side::default(), Client::new());
    for n in 0..50 {
        a.replica
            .write_file(format!("/{n}"), &support::noise(20_000, n))
            .unwrap();
    }
    a.replica
        .write_file("/medium", &support::noise(900_000, 99))
        .unwrap();
    a.sync(&mut side);
    let replica = support::open(&path);
    let upstream = std::sync::Arc::new(replica.upstream().unwrap());
    upstream.set_lazy(true).unwrap();
    let staged = upstream.perform(ClientAction::Stage {
        first: 0,
        changes: side.hub.changes_since(0),
        reports: Vec::new(),
    });
    assert_eq!(staged, ClientDone::Staged { wanted: Vec::new() });
    let apply = ClientAction::Apply {
        cursor: side.cursor(),
        ack: None,
        confirmed: false,
    };
    assert_eq!(upstream.perform(apply), ClientDone::Applied(Applied::Done));
    assert_eq!(replica.stat("/7").unwrap().size, 20_000);
    let error = replica.read_file("/7").unwrap_err();
    assert!(error.to_string().contains("cairn sync"), "{error}");
    let hands = std::sync::Arc::new(Hands {
        chunks: side.chunks.clone(),
        upstream: std::sync::Arc::downgrade(&upstream),
        fetched: std::sync::Mutex::default(),
    });
    upstream.set_fetcher(Some(hands.clone()));
    assert_eq!(replica.read_file("/7").unwrap(), support::noise(20_000, 7));
    assert_eq!(*hands.fetched.lock().unwrap(), 1);
    replica.write_range("/8", 5, b"edited").unwrap();
    assert_eq!(replica.read_file("/8").unwrap()[5..11], *b"edited");
    assert_eq!(*hands.fetched.lock().unwrap(), 2);
    support::assert_clean(&replica);
    replica.gc().unwrap();
    drop((upstream, replica));
    // It knows afterwards, too, what it has and what not.
    let b = Client::of(support::open(&path));
    assert_eq!(b.read("/7"), support::noise(20_000, 7));
    assert!(b.replica.read_file("/9").is_err());
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/8")[5..11], *b"edited");
    assert_equal(&[&a, &b], &side);
    // What is at the hub may be given up, and comes again.
    b.replica
        .write_file("/own", &support::noise(30_000, 1))
        .unwrap();
    b.replica.flush().unwrap();
    assert!(b.upstream.evict().unwrap() >= 20_000);
    assert!(b.replica.read_file("/7").is_err());
    assert_eq!(b.read("/own"), support::noise(30_000, 1));
    support::assert_clean(&b.replica);
    b.replica.gc().unwrap();
    support::assert_clean(&b.replica);
    drop(dir);
}
