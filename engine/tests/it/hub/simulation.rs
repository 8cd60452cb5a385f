//! The hub under the random schedules of the protocol's tests: real sessions,
//! replicas of the model, connections that are cut at any byte, crashes, and
//! backups that are restored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cairn_engine::{Hub, HubOptions, HubSession, Replica};
use cairn_protocol::session::{HubAction, HubDone, Store};
use cairn_protocol::testing::{HubSubject, ModelClient, ModelTree, World};
use cairn_protocol::wire::Start;
use cairn_protocol::{ChunkHash, Data, Epoch, Extent, NodeId, Seq};

use super::{Client, hub_at, tree_of};
use crate::space;
use crate::support::{assert_clean, crash_copy, seeds};

/// The tree after each commit.
pub(crate) type History = Arc<Mutex<BTreeMap<Seq, ModelTree>>>;

/// A hub in a directory, which moves to another whenever its process ends.
#[derive(Debug)]
pub(crate) struct EngineHub {
    dir: tempfile::TempDir,
    pub(crate) lives: i64,
    open: Option<(Replica, Hub)>,
    history: History,
}

/// The store of a connection; what a commit made of the tree is noted.
struct Noting {
    session: HubSession,
    hub: Hub,
    history: History,
}

/// The store of a connection to a hub that notes what it was.
pub(crate) fn connect(hub: &Hub, history: &History) -> Arc<dyn Store<HubAction, HubDone>> {
    let door = Arc::new(|_: &_| Ok(cairn_engine::Access::Write));
    space::with_space(Arc::new(Noting {
        session: hub.session(door),
        hub: hub.clone(),
        history: history.clone(),
    }))
}

/// The tree of a hub.
pub(crate) fn view(hub: &Hub) -> ModelTree {
    let client = Client::new(hub, u64::MAX);
    // Without a word to the hub that somebody follows: that would keep what it
    // may forget.
    tree_of(&client.follow(0).0)
}

impl Store<HubAction, HubDone> for Noting {
    fn perform(&self, action: HubAction) -> HubDone {
        let done = self.session.perform(action);
        if let HubDone::Committed { ack, .. } = &done {
            let mut history = self.history.lock().unwrap();
            history.entry(ack.seq).or_insert_with(|| view(&self.hub));
        }
        done
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.session.on_news(wake)
    }
}

impl EngineHub {
    fn path(&self) -> PathBuf {
        self.dir.path().join(format!("{}.cairn", self.lives))
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.open.as_ref().unwrap().0
    }

    fn hub(&self) -> &Hub {
        &self.open.as_ref().unwrap().1
    }

    /// Opens what is at the path of this life. What is random is made the same
    /// in each run of a seed.
    fn start(&mut self) {
        let path = self.path();
        let (replica, hub) = hub_at(&path, HubOptions::default());
        let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
        db.execute(
            "UPDATE hub SET tag = ?, epoch = ?",
            (0xb00 + self.lives, [1_u8; 16]),
        )
        .unwrap();
        self.open = Some((replica, hub));
    }
}

impl HubSubject for EngineHub {
    type Backup = tempfile::TempDir;

    fn create(_: Epoch) -> Self {
        let mut hub = Self {
            dir: space::dir(),
            lives: 0,
            open: None,
            history: History::default(),
        };
        hub.start();
        hub
    }

    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        connect(self.hub(), &self.history)
    }

    fn view(&self) -> ModelTree {
        view(self.hub())
    }

    fn view_at(&self, seq: Seq) -> Option<ModelTree> {
        self.history.lock().unwrap().get(&seq).cloned()
    }

    fn crash(&mut self) {
        let from = self.path();
        self.lives += 1;
        crash_copy(&from, &self.path());
        self.open = None;
        std::fs::remove_dir_all(from).unwrap();
        self.start();
    }

    fn backup(&self) -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        crash_copy(&self.path(), &dir.path().join("backup"));
        Some(dir)
    }

    fn restore(&mut self, backup: tempfile::TempDir) {
        self.open = None;
        std::fs::remove_dir_all(self.path()).unwrap();
        self.lives += 1;
        crash_copy(&backup.path().join("backup"), &self.path());
        self.start();
    }

    fn lose(&mut self, node: NodeId) {
        let view = self.view();
        let Some(Data::File { manifest, .. }) = view.content(node) else {
            return;
        };
        let Some((replica, _)) = &self.open else {
            return;
        };
        let extents = manifest.extents(|_| Err::<Vec<u8>, ()>(())).unwrap();
        for extent in extents {
            if let Extent::Chunk { hash, .. } = extent {
                spoil(&self.path(), &hash);
            }
        }
        replica.check(&mut |_, _| {}).unwrap();
    }

    fn check(&self) -> Result<(), String> {
        let lost = self.open.as_ref().map(|(replica, _)| replica.lost_chunks());
        let lost: BTreeSet<ChunkHash> = lost.into_iter().flatten().collect();
        let view = self.view();
        let contents = view.live().filter_map(|(node, _)| view.content(node));
        let named = contents.filter_map(|data| match data {
            Data::File { manifest, .. } => manifest.extents(|_| Err::<Vec<u8>, ()>(())).ok(),
            _ => None,
        });
        let missing = named.flatten().find(|extent| match extent {
            Extent::Chunk { hash, .. } => lost.contains(hash),
            Extent::Hole { .. } => false,
        });
        match missing {
            None => Ok(()),
            Some(extent) => Err(format!("a chunk is missing (HUB-1): {extent:?}")),
        }
    }
}

/// Damages the bytes of a chunk, if it is in a pack of this replica.
pub(crate) fn spoil(path: &Path, hash: &ChunkHash) {
    let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    let place = db.query_row(
        "SELECT pack, off FROM chunk WHERE hash = ? AND pack > 0",
        [hash.as_bytes().as_slice()],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    );
    if let Ok((pack, at)) = place {
        let pack = path.join(format!("chunks/{pack}.pack"));
        let pack = File::options().read(true).write(true).open(pack).unwrap();
        let mut byte = [0];
        pack.read_exact_at(&mut byte, at as u64).unwrap();
        pack.write_all_at(&[!byte[0]], at as u64).unwrap();
    }
}

impl Drop for EngineHub {
    fn drop(&mut self) {
        if let Some((replica, _)) = self.open.as_ref().filter(|_| !std::thread::panicking()) {
            // What is dead, and was lost, nobody may have any more.
            if replica.lost_chunks().is_empty() {
                assert_clean(replica);
            }
        }
    }
}

/// The hub of every other world refuses batches now and then.
fn world(seed: u64, tell: bool) -> World<EngineHub, ModelClient> {
    match seed % 2 {
        0 => World::new(seed, tell),
        _ => World::new(seed, tell).refusing(seed),
    }
}

fn run(seed: u64) {
    if let Err(why) = world(seed, false).run() {
        let mut world = world(seed, true);
        let again = world.run();
        for line in world.story() {
            println!("{line}");
        }
        panic!("CAIRN_SEED={seed}: {why} (again: {again:?})");
    }
}

#[test]
fn i1_to_i7_hold_for_replicas_of_the_model_and_a_real_hub() {
    seeds(40).into_iter().for_each(run);
}

/// What random schedules found: an edit in a directory that had become an alias
/// of another, which its author was never told of, for it was dead by then (1698).
#[test]
fn seeds_of_a_real_hub_that_failed_before_hold() {
    let world: World<EngineHub, ModelClient> = World::new(1_698, false);
    assert_eq!(world.as_it_was().run(), Ok(()));
}

/// A hub of another life begins where it was, under another tag.
#[test]
fn a_hub_takes_another_tag_when_it_is_opened_again() {
    let (_dir, path) = crate::support::place();
    let tag = || -> i64 {
        let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
        db.query_row("SELECT tag FROM hub", [], |r| r.get(0))
            .unwrap()
    };
    let mut tags = Vec::new();
    for _ in 0..2 {
        let replica = crate::support::open(&path);
        let hub = Hub::open(&replica).unwrap();
        tags.push(tag());
        // Another value of the same hub leaves it.
        Hub::open(&replica).unwrap();
        assert_eq!(tag(), tags[tags.len() - 1]);
        assert_eq!(Client::new(&hub, 1).subscribe(Start::Nothing), Ok(0));
    }
    assert_ne!(tags[0], tags[1]);
}
