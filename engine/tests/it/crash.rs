//! Crashes: `kill -9` of a process in the middle of its work, and power cuts.
//!
//! A child process (this test binary again) runs a script of operations that
//! follows from a seed and from the tree it found, and keeps a ledger outside
//! the replica: a line for each operation that returned, another when what was
//! done so far was promised to last. What the parent finds after the kill must
//! be the state after some operation, and not before the last promise.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cairn_engine::{Ino, NewNode, NodeKind, Options, RenameMode, Replica, SetAttr};

use crate::reference::{Answer, ROOT, Tree};
use crate::support::{
    Rng, assert_clean, assert_same, crash_copy, files_in, noise, open, place, quiet, rounds, seeds,
    single_file, tiny,
};

/// One operation of a script.
#[derive(Clone, Debug)]
enum Op {
    Make(u64, Vec<u8>, NodeKind),
    Link(u64, u64, Vec<u8>),
    Unlink(u64, Vec<u8>),
    Rename(u64, Vec<u8>, u64, Vec<u8>),
    Write(u64, u64, usize, u64),
    Truncate(u64, u64),
    Copy(u64, u64),
    Xattr(u64, u64),
    /// Opened and closed, so that a seal starts.
    Close(u64),
    Gc,
    Seal,
    Flush,
    Sync,
    Fsync(u64),
}

impl Op {
    fn is_promise(&self) -> bool {
        matches!(
            self,
            Self::Flush | Self::Sync | Self::Fsync(_) | Self::Gc | Self::Seal
        )
    }
}

struct Script {
    rng: Rng,
    tree: Tree,
}

impl Script {
    fn new(seed: u64, tree: Tree) -> Self {
        Self {
            rng: Rng::new(seed),
            tree,
        }
    }

    fn some(&mut self, kind: NodeKind) -> u64 {
        let nodes = self.tree.nodes.iter().filter(|(_, n)| n.kind == kind);
        let all: Vec<u64> = nodes.map(|(ino, _)| *ino).collect();
        if all.is_empty() {
            ROOT
        } else {
            *self.rng.pick(&all)
        }
    }

    fn entry(&mut self) -> (u64, Vec<u8>) {
        let dir = self.some(NodeKind::Dir);
        let names: Vec<_> = self.tree.nodes[&dir].entries.keys().cloned().collect();
        let name = if names.is_empty() {
            b"none".to_vec()
        } else {
            self.rng.pick(&names).clone()
        };
        (dir, name)
    }

    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.rng.below(60)).into_bytes()
    }

    fn next(&mut self) -> Op {
        let file = self.some(NodeKind::File);
        match self.rng.below(100) {
            0..22 => Op::Make(self.some(NodeKind::Dir), self.name(), NodeKind::File),
            22..26 => Op::Make(self.some(NodeKind::Dir), self.name(), NodeKind::Dir),
            26..30 => Op::Link(file, self.some(NodeKind::Dir), self.name()),
            30..38 => {
                let (dir, name) = self.entry();
                Op::Unlink(dir, name)
            }
            38..46 => {
                let (dir, name) = self.entry();
                Op::Rename(dir, name, self.some(NodeKind::Dir), self.name())
            }
            46..68 => {
                let len = match self.rng.below(10) {
                    0..6 => self.rng.below(2_000),
                    6..9 => self.rng.below(200_000),
                    _ => self.rng.below(4 << 20),
                };
                let at = self
                    .rng
                    .below(self.tree.nodes[&file].content.len() as u64 + 1);
                Op::Write(file, at.min(6 << 20), len as usize, self.rng.next())
            }
            68..74 => {
                let size = self.tree.nodes[&file].content.len() as u64 + 1_000;
                Op::Truncate(file, self.rng.below(size))
            }
            74..78 => Op::Copy(file, self.some(NodeKind::File)),
            78..80 => Op::Xattr(file, self.rng.next()),
            80..88 => Op::Close(file),
            88..90 => Op::Gc,
            90..91 => Op::Seal,
            91..95 => Op::Flush,
            95..97 => Op::Sync,
            _ => Op::Fsync(file),
        }
    }

    /// The states within an operation that is not done at once: bytes are
    /// copied a mebibyte at a time.
    fn on_the_way(&self, op: &Op) -> Vec<Tree> {
        let Op::Copy(from, to) = op else {
            return Vec::new();
        };
        let part = |mib: u64| {
            let mut tree = self.tree.clone();
            tree.copy((*from, 0), (*to, 0), mib << 20)
                .ok()
                .map(|_| tree)
        };
        (1..8).filter_map(part).collect()
    }

    /// Does an operation in the model. `made` is the number of the node that
    /// the engine made, where it made one.
    fn follow(&mut self, op: &Op, made: Option<u64>) {
        let tree = &mut self.tree;
        let none = std::collections::BTreeSet::new();
        let _: Answer = match op {
            Op::Make(dir, name, kind) => {
                if let Some(ino) = made {
                    tree.add(*dir, name, ino, &new_node(*kind), &[]);
                }
                Ok(())
            }
            Op::Link(ino, dir, name) => tree.link(*ino, *dir, name),
            Op::Unlink(dir, name) => match tree.unlink(*dir, name, &none) {
                Err(rustix::io::Errno::ISDIR) => tree.rmdir(*dir, name, &none),
                other => other,
            },
            Op::Rename(dir, name, to, new) => {
                tree.rename((*dir, name), (*to, new), RenameMode::Replace, &none)
            }
            Op::Write(ino, at, len, seed) => tree.write(*ino, *at, &noise(*len, *seed)),
            Op::Truncate(ino, size) => tree.truncate(*ino, *size),
            Op::Copy(from, to) => tree.copy((*from, 0), (*to, 0), 8 << 20).map(drop),
            Op::Xattr(ino, seed) => tree.set_xattr(
                *ino,
                b"user.x",
                &seed.to_le_bytes(),
                cairn_engine::XattrMode::Set,
            ),
            _ => Ok(()),
        };
    }
}

fn new_node(kind: NodeKind) -> NewNode {
    crate::support::new(kind)
}

/// Does an operation in the engine, where it may well be refused. Returns the
/// number of the node it made.
fn perform(replica: &Replica, op: &Op) -> Option<u64> {
    let _ = match op {
        Op::Make(dir, name, kind) => {
            let made = replica.make(Ino(*dir), name, &new_node(*kind));
            return made.ok().map(|attr| attr.ino.0);
        }
        Op::Link(ino, dir, name) => replica.link(Ino(*ino), Ino(*dir), name).map(drop),
        Op::Unlink(dir, name) => match replica.unlink(Ino(*dir), name) {
            Err(cairn_engine::FsError::IsDir(_)) => replica.rmdir(Ino(*dir), name),
            other => other,
        },
        Op::Rename(dir, name, to, new) => {
            replica.rename(Ino(*dir), name, Ino(*to), new, RenameMode::Replace)
        }
        Op::Write(ino, at, len, seed) => replica.write(Ino(*ino), *at, &noise(*len, *seed)),
        Op::Truncate(ino, size) => {
            let set = SetAttr {
                size: Some(*size),
                ..SetAttr::default()
            };
            replica.set_attr(Ino(*ino), &set).map(drop)
        }
        Op::Copy(from, to) => replica
            .copy_range(Ino(*from), 0, Ino(*to), 0, 8 << 20)
            .map(drop),
        Op::Xattr(ino, seed) => replica.set_xattr(
            Ino(*ino),
            b"user.x",
            &seed.to_le_bytes(),
            cairn_engine::XattrMode::Set,
        ),
        Op::Close(ino) => {
            let opened = replica.retain(Ino(*ino), true).map(drop);
            replica.release(Ino(*ino), true);
            opened
        }
        Op::Gc => replica.gc().map(drop),
        Op::Seal => replica.cursor().map(drop),
        Op::Flush => replica.flush(),
        Op::Sync => replica.sync(),
        Op::Fsync(ino) => replica.fsync(Ino(*ino)),
    };
    None
}

// The child.

/// Not a test of its own: what a child process runs.
#[test]
fn child() {
    let Ok(role) = std::env::var("CAIRN_CHILD") else {
        return;
    };
    let var = |name: &str| std::env::var(name).unwrap();
    let path = PathBuf::from(var("CAIRN_CHILD_REPLICA"));
    let seed = var("CAIRN_CHILD_SEED").parse().unwrap();
    let ledger = File::options()
        .append(true)
        .open(var("CAIRN_CHILD_LEDGER"))
        .unwrap();
    match role.as_str() {
        "script" => run_script(&path, seed, ledger),
        "migrate" => migrate_for_ever(&path, ledger),
        other => panic!("no role {other}"),
    }
}

fn run_script(path: &Path, seed: u64, mut ledger: File) {
    let replica = Replica::open(
        path,
        if seed.is_multiple_of(2) {
            Options::default()
        } else {
            tiny()
        },
    )
    .unwrap();
    let mut script = Script::new(seed, Tree::of(&replica));
    ledger.write_all(b"ready\n").unwrap();
    while script.tree.bytes() < 48 << 20 {
        let op = script.next();
        let made = perform(&replica, &op);
        script.follow(&op, made);
        let line = match (made, op.is_promise()) {
            (Some(ino), _) => format!("{ino}\n"),
            (None, true) => "kept\n".into(),
            (None, false) => "done\n".into(),
        };
        // One call: it is in the file or it is not.
        ledger.write_all(line.as_bytes()).unwrap();
    }
}

/// Makes the database one of schema 1, as the first version wrote it.
fn downgrade(path: &Path) {
    let mut db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    let step = db.transaction().unwrap();
    step.execute_batch(
        "DROP TABLE IF EXISTS content; DROP INDEX IF EXISTS chunk_dead; PRAGMA user_version = 1;",
    )
    .unwrap();
    step.commit().unwrap();
}

fn migrate_for_ever(path: &Path, mut ledger: File) {
    loop {
        downgrade(path);
        ledger.write_all(b"old\n").unwrap();
        drop(Replica::open(path, Options::default()).unwrap());
    }
}

// The parent.

struct Victim {
    child: Child,
    ledger: PathBuf,
}

impl Victim {
    fn start(role: &str, replica: &Path, seed: u64) -> Self {
        let ledger = replica.with_extension("ledger");
        File::create(&ledger).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env("CAIRN_CHILD", role)
            .env("CAIRN_CHILD_REPLICA", replica)
            .env("CAIRN_CHILD_LEDGER", &ledger)
            .env("CAIRN_CHILD_SEED", seed.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, ledger }
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + Duration::from_mins(1);
        while self.ledger.metadata().unwrap().len() == 0 {
            assert!(Instant::now() < end, "the child does not start");
            assert!(self.child.try_wait().unwrap().is_none(), "the child failed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it, and returns its ledger.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert!(
            status.code().is_none_or(|code| code == 0),
            "the child failed by itself: {status}"
        );
        let text = std::fs::read_to_string(&self.ledger).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// The states a script goes through, as far as the ledger tells, and the first
/// of them that may be what is left. The operation that was under way may have
/// been done, too; a node that it made is one of `found` that is not known.
fn states(seed: u64, start: &Tree, ledger: &[String], found: &Tree) -> (Vec<Tree>, usize) {
    let mut script = Script::new(seed, start.clone());
    let mut all = vec![script.tree.clone()];
    let mut kept = 0;
    for line in ledger.iter().skip(1) {
        let op = script.next();
        all.extend(script.on_the_way(&op));
        script.follow(&op, line.parse().ok());
        all.push(script.tree.clone());
        if line == "kept" {
            kept = all.len() - 1;
        }
    }
    let op = script.next();
    all.extend(script.on_the_way(&op));
    let unknown = found
        .nodes
        .keys()
        .find(|ino| !script.tree.nodes.contains_key(ino));
    script.follow(&op, unknown.copied());
    all.push(script.tree);
    (all, kept)
}

fn kill_rounds(seed: u64, count: u64, options: &Options) {
    let mut rng = Rng::new(seed);
    // Who opens it again does not say what it is.
    let open = |path: &Path| Replica::open(path, options.clone()).unwrap();
    let mut dir = place();
    drop(open(&dir.1));
    let mut start = Tree::of(&open(&dir.1));
    for round in 0..count {
        let script = rng.next();
        let mut victim = Victim::start("script", &dir.1, script);
        if rng.chance(85) {
            victim.wait_until_ready();
        }
        std::thread::sleep(Duration::from_micros(rng.below(250_000)));
        let ledger = victim.kill();

        let replica = open(&dir.1);
        let found = Tree::of(&replica);
        let (states, kept) = states(script, &start, &ledger, &found);
        let whys: Vec<_> = (kept..states.len())
            .rev()
            .map(|k| {
                let later: Vec<&Tree> = states[k + 1..].iter().collect();
                found.differs(&states[k], &later)
            })
            .collect();
        assert!(
            whys.iter().any(Option::is_none),
            "seed {seed}, round {round}, script {script}: of {} states, {kept} before the last promise, none \
             leads to what is left: {whys:#?}",
            states.len(),
        );
        assert_clean(&replica);
        replica.gc().unwrap();
        assert_clean(&replica);
        drop(replica);
        if found.bytes() > 32 << 20 || found.nodes.len() > 600 {
            dir = place();
        }
        start = Tree::of(&open(&dir.1));
    }
}

/// Rounds of kills: `CAIRN_ROUNDS`, or a few.
fn kills(default: u64) -> u64 {
    let set = std::env::var("CAIRN_ROUNDS").ok();
    set.and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn what_a_kill_leaves_is_a_prefix_with_all_that_was_promised() {
    let seed = seeds(1)[0];
    kill_rounds(seed, kills(24), &Options::default());
}

#[test]
fn what_a_kill_leaves_of_a_single_file_is_a_prefix_too() {
    let seed = seeds(1)[0];
    kill_rounds(seed, kills(12), &single_file(Options::default()));
}

#[test]
fn a_kill_during_a_migration_leaves_one_schema_or_the_other() {
    let (_dir, path) = place();
    let replica = open(&path);
    replica.write_file("/f", &noise(3 << 20, 1)).unwrap();
    drop(replica);
    let mut rng = Rng::new(seeds(1)[0]);
    for _ in 0..kills(6) {
        let mut victim = Victim::start("migrate", &path, 0);
        victim.wait_until_ready();
        std::thread::sleep(Duration::from_micros(rng.below(60_000)));
        victim.kill();
        let replica = open(&path);
        assert_clean(&replica);
        assert_same(&replica.read_file("/f").unwrap(), &noise(3 << 20, 1), "/f");
    }
}

// Power cuts: the database as it was when it was last synced, and the data
// files as they are now. The other way round, bytes that were never written,
// takes a disk that forgets.

/// What a power cut now would leave, if `database` is what was synced last.
fn power_cut(path: &Path, database: &Path, to: &Path) {
    crash_copy(path, to);
    for name in ["cairn.db", "cairn.db-wal", "cairn.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        if database.join(name).exists() {
            std::fs::copy(database.join(name), to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_power_cut_brings_back_what_was_synced() {
    for seed in seeds(rounds(12)) {
        let (dir, path) = place();
        let replica = Replica::open(&path, quiet(Options::default())).unwrap();
        let mut script = Script::new(seed, Tree::of(&replica));
        let (synced, cut) = (dir.path().join("synced"), dir.path().join("cut"));
        for _ in 0..6 {
            run_some(&replica, &mut script, 30, |_| true);
            perform(&replica, &Op::Seal);
            run_some(&replica, &mut script, 6, |_| true);
            replica.sync().unwrap();
            crash_copy(&path, &synced);
            let before = script.tree.clone();
            // Nothing here makes the database durable.
            let later = run_some(&replica, &mut script, 40, |op| {
                !matches!(op, Op::Sync | Op::Fsync(_) | Op::Gc)
            });
            perform(&replica, &Op::Seal);
            perform(&replica, &Op::Flush);
            power_cut(&path, &synced, &cut);
            let after = open(&cut);
            let found = Tree::of(&after);
            let later: Vec<&Tree> = later.iter().collect();
            let why = found.differs(&before, &later);
            assert_eq!(why, None, "seed {seed}");
            assert_clean(&after);
        }
    }
}

/// Runs some operations of a script; returns the states it went through.
fn run_some(
    replica: &Replica,
    script: &mut Script,
    count: usize,
    may: fn(&Op) -> bool,
) -> Vec<Tree> {
    let mut states = Vec::new();
    for _ in 0..count {
        let op = script.next();
        if may(&op) && script.tree.bytes() < 24 << 20 {
            let made = perform(replica, &op);
            script.follow(&op, made);
            states.push(script.tree.clone());
        }
    }
    states
}

/// A crash between the adoption of a staging file and the commit that names it
/// as a pack, or before the first commit of a new pack, left files in `chunks/`
/// that nothing ever removed.
#[test]
fn packs_that_no_commit_names_are_removed_at_the_start() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    replica.write_file("/kept", &noise(3 << 20, 1)).unwrap();
    replica.cursor().unwrap();
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    std::fs::write(copy.join("chunks/900.pack"), noise(1 << 20, 2)).unwrap();
    let pack = files_in(&copy, "chunks")[0].clone();
    let len = pack.metadata().unwrap().len();
    let mut tail = File::options().append(true).open(&pack).unwrap();
    tail.write_all(&noise(1 << 20, 3)).unwrap();
    let after = open(&copy);
    assert_eq!(files_in(&copy, "chunks"), std::slice::from_ref(&pack));
    assert_eq!(
        pack.metadata().unwrap().len(),
        len,
        "bytes after the last chunk"
    );
    assert_same(
        &after.read_file("/kept").unwrap(),
        &noise(3 << 20, 1),
        "/kept",
    );
    assert_clean(&after);
    after.write_file("/more", &noise(3 << 20, 4)).unwrap();
    after.cursor().unwrap();
    assert_clean(&after);
}

/// The rename of an adoption that a power cut undid is done again.
#[test]
fn an_adoption_whose_rename_was_lost_is_finished() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    replica.write_file("/f", &noise(3 << 20, 1)).unwrap();
    replica.cursor().unwrap();
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    let pack = files_in(&copy, "chunks")[0].clone();
    std::fs::rename(&pack, copy.join("dirty").join(pack.file_stem().unwrap())).unwrap();
    let after = open(&copy);
    assert_same(&after.read_file("/f").unwrap(), &noise(3 << 20, 1), "/f");
    assert_clean(&after);
}
