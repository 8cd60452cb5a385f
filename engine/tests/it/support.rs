//! What the tests share: reproducible randomness, content that describes
//! itself, and copies of a replica as a crash would leave it.

use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_engine::{Ino, NewNode, NodeKind, Options, Replica};

/// A small reproducible generator (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// An index into something of `len` elements.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    /// Bytes that do not compress and do not repeat.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        noise(len, self.next())
    }
}

/// `len` bytes that depend on `seed`.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The seeds of a random test: `default` of them, or what the environment says.
pub(crate) fn seeds(default: u64) -> Vec<u64> {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("CAIRN_SEED") {
        return vec![seed];
    }
    let start = number("CAIRN_SEED_START").unwrap_or(1);
    (start..start + number("CAIRN_SEEDS").unwrap_or(default)).collect()
}

/// How many rounds a test runs: `default`, or `CAIRN_SEEDS`.
pub(crate) fn rounds(default: u64) -> u64 {
    let set = std::env::var("CAIRN_SEEDS").ok();
    set.and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Caches so small that everything is evicted all the time.
pub(crate) fn tiny() -> Options {
    Options {
        cached_nodes: 1_000,
        cached_bytes: 4 << 20,
        database_cache_bytes: 1 << 20,
        ..Options::default()
    }
}

/// The same, with the replica in one file.
pub(crate) fn single_file(mut options: Options) -> Options {
    options.single_file = true;
    options
}

/// No commit but those that are asked for.
pub(crate) fn quiet(mut options: Options) -> Options {
    options.commit_interval = std::time::Duration::from_secs(10);
    options
}

pub(crate) fn open(path: &Path) -> Replica {
    Replica::open(path, Options::default()).unwrap()
}

/// A directory for a replica, and the path of one in it.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.cairn");
    (dir, path)
}

#[track_caller]
pub(crate) fn assert_clean(replica: &Replica) {
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert_eq!(report.problems, [], "check found problems");
}

/// How to make a node of a kind.
pub(crate) fn new(kind: NodeKind) -> NewNode {
    let perm = if kind == NodeKind::Dir { 0o755 } else { 0o644 };
    NewNode {
        kind,
        perm,
        uid: 1_000,
        gid: 1_000,
        rdev: 0,
    }
}

pub(crate) fn make_file(replica: &Replica, parent: Ino, name: &str) -> Ino {
    let made = replica.make(parent, name.as_bytes(), &new(NodeKind::File));
    made.unwrap().ino
}

pub(crate) fn read_all(replica: &Replica, ino: Ino) -> Vec<u8> {
    let size = replica.attr(ino).unwrap().size as usize;
    let mut bytes = vec![0; size];
    let got = replica.read(ino, 0, &mut bytes).unwrap();
    bytes.truncate(got);
    bytes
}

/// Panics with where two contents differ rather than with all of them.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], want: &[u8], what: impl std::fmt::Display) {
    if let Some(why) = difference(got, want) {
        panic!("{what}: {why}");
    }
}

/// Where two contents differ.
pub(crate) fn difference(got: &[u8], want: &[u8]) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} bytes, expected {}", got.len(), want.len()));
    }
    if got == want {
        return None;
    }
    let first = (0..got.len()).find(|i| got[*i] != want[*i])?;
    let last = (0..got.len()).rfind(|i| got[*i] != want[*i])?;
    Some(format!(
        "of {} bytes, {first}..={last} differ; at {first} is {:?}, expected {:?}",
        got.len(),
        &got[first..(first + 8).min(got.len())],
        &want[first..(first + 8).min(want.len())],
    ))
}

/// Copies a replica that is in use, as a crash of its process would leave it.
/// Another process copies: closing a file of a database drops the locks that
/// this process has on it.
pub(crate) fn crash_copy(from: &Path, to: &Path) {
    // What a replica of one file has beside it, but for the index of the log,
    // which belongs to its processes.
    const PARTS: [&str; 3] = ["", "-wal", "-dirty"];
    for _ in 0..100 {
        for part in PARTS {
            let to = beside(to, part);
            let _ = std::fs::remove_dir_all(&to).or_else(|_| std::fs::remove_file(&to));
        }
        let before = database_state(from);
        let copied = PARTS.iter().all(|part| {
            let from = beside(from, part);
            let copy = || {
                let mut cp = Command::new("cp");
                cp.args(["-a", "--sparse=always"]).arg(&from);
                cp.arg(beside(to, part)).stderr(std::process::Stdio::null());
                cp.status().unwrap().success()
            };
            !from.exists() || copy()
        });
        // A commit beside the copy makes it one of no single moment.
        if copied && before == database_state(from) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the replica does not come to rest");
}

/// The path that begins with another and has `end` behind it.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn database_state(path: &Path) -> Vec<(u64, std::time::SystemTime)> {
    let database = if path.is_dir() {
        path.join("cairn.db")
    } else {
        path.to_path_buf()
    };
    ["", "-wal"]
        .iter()
        .filter_map(|end| beside(&database, end).metadata().ok())
        .map(|m| (m.len(), m.modified().unwrap()))
        .collect()
}

/// The files of a sub-folder of a replica, by name.
pub(crate) fn files_in(path: &Path, sub: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path.join(sub))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Waits until something holds, for at most a while.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < end, "still not so: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
