//! The replica without a mount: what its operations cost on a disk, with
//! default options, and how that grows with the size of the tree.
//!
//! ```sh
//! cargo bench -p cairn-benches --bench engine
//! CAIRN_BENCH_NODES=100000 cargo bench -p cairn-benches --bench engine -- changes
//! ```
//!
//! `CAIRN_BENCH_NODES` limits the trees (default one million nodes),
//! `CAIRN_BENCH_DIR` is where the replicas are made (default `/var/tmp`; not
//! a filesystem in memory). A tree is built once, when the first benchmark
//! needs it; what that took, and what it takes in memory, goes to the standard
//! error output. The whole run takes less than ten minutes on two cores.

mod files;
mod trees;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cairn_engine::{Attr, Ino, NewNode, NodeKind, Options, Replica};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tempfile::TempDir;

/// Entries in a directory that is not a large one.
const DIR: u64 = 1_000;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// The benchmark's own work does not fail.
fn done<T, E: Debug>(result: Result<T, E>) -> T {
    result.expect("the replica does what the benchmark asks for")
}

/// Splitmix64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A place in a list of `len`.
    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(len / 8).flatten().collect()
    }
}

/// A new replica, and the directory that goes with it.
struct Fresh {
    replica: Replica,
    dir: TempDir,
}

impl Fresh {
    fn new() -> Self {
        let parent = std::env::var_os("CAIRN_BENCH_DIR");
        let parent = parent.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let dir = done(TempDir::new_in(parent));
        let replica = done(Replica::open(dir.path(), Options::default()));
        Self { replica, dir }
    }

    /// Closes the replica and opens it again. Returns how long each took.
    fn reopen(self) -> (Self, Duration, Duration) {
        let Self { replica, dir } = self;
        let (closed, ()) = timed(|| drop(replica));
        let (opened, replica) = timed(|| {
            let replica = done(Replica::open(dir.path(), Options::default()));
            done(replica.stat("/"));
            replica
        });
        (Self { replica, dir }, closed, opened)
    }
}

fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = f();
    (start.elapsed(), value)
}

fn make(replica: &Replica, parent: Ino, name: &str, kind: NodeKind) -> Attr {
    let new = NewNode {
        kind,
        perm: 0o755,
        uid: 0,
        gid: 0,
        rdev: 0,
    };
    done(replica.make(parent, name.as_bytes(), &new))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    trees::trees(&mut criterion);
    files::creation(&mut criterion);
    files::commits(&mut criterion);
    files::small(&mut criterion);
    files::large(&mut criterion);
    criterion.final_summary();
}
