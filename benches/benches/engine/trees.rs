//! Large trees: names, listings and the change log.

use std::cell::OnceCell;
use std::hint::black_box;

use cairn_engine::{Ino, NodeKind, Replica, SetAttr};
use cairn_protocol::Cursor;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use super::{DIR, Fresh, Group, Random, done, make, timed};

/// Sizes of trees, in nodes. The largest comes first, so that its figures of
/// memory are not those of the others.
const TREES: [u64; 3] = [1_000_000, 100_000, 1_000];
/// Changes that a reader of the log asks for at a time.
const PAGE: usize = 10_000;

/// Memory of this process now and at most, in MiB.
fn memory() -> (u64, u64) {
    let status = done(std::fs::read_to_string("/proc/self/status"));
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name));
        let kib = line.and_then(|l| l.split_whitespace().nth(1));
        kib.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A tree of files with 16 bytes each: half of them in directories of [`DIR`]
/// entries, half in one directory.
struct Grown {
    fresh: Fresh,
    nodes: u64,
    /// The directories of [`DIR`] entries.
    dirs: Vec<Ino>,
    /// The directory with half of all files.
    flat: Ino,
    /// The state before the last 100 changes.
    recent: Cursor,
}

impl Grown {
    fn name(index: u64) -> String {
        format!("file-{index:07}")
    }

    fn dir_name(index: usize) -> String {
        format!("dir-{index:04}")
    }

    fn new(nodes: u64) -> Self {
        let mut fresh = Fresh::new();
        let (built, (dirs, flat)) = timed(|| Self::fill(&fresh.replica, nodes));
        let after_build = memory();
        let (walked, ()) = timed(|| {
            let all = dirs.iter().chain([&flat]);
            all.for_each(|dir| Self::list(&fresh.replica, *dir));
        });
        let after_walk = memory();
        let (closed, opened);
        (fresh, closed, opened) = fresh.reopen();
        let (listed, ()) = timed(|| Self::list(&fresh.replica, flat));
        let after_list = memory();
        let (read, changes) = timed(|| Self::changes(&fresh.replica, None));
        eprintln!(
            "{nodes} nodes: built in {built:.1?}, memory {} MiB, peak {}; \
             walked in {walked:.1?}, memory {} MiB, peak {}; \
             closed in {closed:.1?}, opened in {opened:.1?}; \
             cold list of {} in {listed:.1?}, memory {} MiB, peak {}; \
             {changes} changes read in {read:.1?}",
            after_build.0,
            after_build.1,
            after_walk.0,
            after_walk.1,
            nodes / 2,
            after_list.0,
            after_list.1,
        );
        let recent = done(fresh.replica.cursor());
        for index in 0..100 {
            let node = done(fresh.replica.lookup(flat, Self::name(index).as_bytes()));
            let set = SetAttr {
                perm: Some(0o600),
                ..SetAttr::default()
            };
            done(fresh.replica.set_attr(node.ino, &set));
        }
        Self {
            fresh,
            nodes,
            dirs,
            flat,
            recent,
        }
    }

    fn fill(replica: &Replica, nodes: u64) -> (Vec<Ino>, Ino) {
        let file = |dir, index| {
            let ino = make(replica, dir, &Self::name(index), NodeKind::File).ino;
            done(replica.write(ino, 0, &Random(index).bytes(16)));
        };
        let tree = make(replica, Ino::ROOT, "tree", NodeKind::Dir).ino;
        let flat = make(replica, Ino::ROOT, "flat", NodeKind::Dir).ino;
        let mut dirs = Vec::new();
        for index in 0..nodes / 2 {
            if index.is_multiple_of(DIR) {
                let name = Self::dir_name(dirs.len());
                dirs.push(make(replica, tree, &name, NodeKind::Dir).ino);
            }
            if let Some(dir) = dirs.last() {
                file(*dir, index % DIR);
            }
        }
        for index in 0..nodes / 2 {
            file(flat, index);
        }
        done(replica.sync());
        (dirs, flat)
    }

    fn list(replica: &Replica, dir: Ino) {
        let mut bytes = 0;
        done(replica.read_dir(dir, 0, &mut |entry| {
            bytes += entry.name.len();
            true
        }));
        black_box(bytes);
    }

    /// Entries of one of [`Self::dirs`].
    fn dir_len(&self) -> u64 {
        DIR.min(self.nodes / 2)
    }

    /// Reads the log from `since` on, a page at a time. Returns the number of
    /// changes.
    fn changes(replica: &Replica, since: Option<&Cursor>) -> usize {
        let (mut cut, mut resume, mut seen) = (None, 0, 0);
        loop {
            let page = done(replica.changes_page(since, cut.as_ref(), resume, PAGE));
            seen += page.changes.len();
            if !page.more {
                return seen;
            }
            (cut, resume) = (Some(page.next), page.resume);
        }
    }
}

pub(crate) fn trees(c: &mut Criterion) {
    let limit = std::env::var("CAIRN_BENCH_NODES").ok();
    let limit = limit.map_or(TREES[0], |n| done(n.parse()));
    let mut sizes: Vec<u64> = TREES.into_iter().filter(|n| *n <= limit).collect();
    if sizes.is_empty() {
        sizes.push(limit);
    }
    for nodes in sizes {
        let tree = OnceCell::new();
        let tree = || tree.get_or_init(|| Grown::new(nodes));
        names(&mut c.benchmark_group("names"), nodes, &tree);
        listings(&mut c.benchmark_group("listings"), nodes, &tree);
        changes(&mut c.benchmark_group("changes"), nodes, &tree);
    }
}

fn names<'t>(group: &mut Group<'_>, nodes: u64, tree: &impl Fn() -> &'t Grown) {
    group.bench_function(
        BenchmarkId::new("lookup, any of a large directory", nodes),
        |b| {
            let tree = tree();
            let mut random = Random(1);
            b.iter(|| {
                let name = Grown::name(random.below(nodes / 2));
                done(tree.fresh.replica.lookup(tree.flat, name.as_bytes()))
            });
        },
    );
    group.bench_function(BenchmarkId::new("stat, any path", nodes), |b| {
        let tree = tree();
        let mut random = Random(2);
        b.iter(|| {
            let dir = random.index(tree.dirs.len());
            let name = Grown::name(random.below(tree.dir_len()));
            let path = format!("/tree/{}/{name}", Grown::dir_name(dir));
            done(tree.fresh.replica.stat(path))
        });
    });
    group.bench_function(BenchmarkId::new("stat, one path", nodes), |b| {
        let tree = tree();
        let path = format!("/tree/{}/{}", Grown::dir_name(0), Grown::name(7));
        b.iter(|| done(tree.fresh.replica.stat(&path)));
    });
}

fn listings<'t>(group: &mut Group<'_>, nodes: u64, tree: &impl Fn() -> &'t Grown) {
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(DIR.min(nodes / 2)));
    group.bench_function(BenchmarkId::new("readdir, any directory", nodes), |b| {
        let tree = tree();
        let mut random = Random(3);
        b.iter(|| {
            let dir = random.index(tree.dirs.len());
            Grown::list(&tree.fresh.replica, tree.dirs[dir]);
        });
    });
    group.throughput(Throughput::Elements(nodes / 2));
    group.bench_function(
        BenchmarkId::new("readdir, the large directory", nodes),
        |b| {
            let tree = tree();
            b.iter(|| Grown::list(&tree.fresh.replica, tree.flat));
        },
    );
}

/// Changes in a page: far fewer than there are behind the middle of the log.
fn tree_page(nodes: u64) -> u64 {
    (PAGE as u64).min(nodes / 2)
}

fn changes<'t>(group: &mut Group<'_>, nodes: u64, tree: &impl Fn() -> &'t Grown) {
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(100));
    group.bench_function(
        BenchmarkId::new("changes_since, the last 100", nodes),
        |b| {
            let tree = tree();
            b.iter(|| assert_eq!(Grown::changes(&tree.fresh.replica, Some(&tree.recent)), 100));
        },
    );
    group.throughput(Throughput::Elements(tree_page(nodes)));
    let id = BenchmarkId::new("changes_since, a page of the log", nodes);
    group.bench_function(id, |b| {
        let tree = tree();
        let replica = &tree.fresh.replica;
        let (cut, middle) = (tree.recent, tree.recent.seq / 2);
        let page = usize::try_from(tree_page(nodes)).unwrap_or(PAGE);
        b.iter(|| {
            let page = done(replica.changes_page(None, Some(&cut), middle, page));
            assert!(page.more);
            page
        });
    });
}
