//! Files: making them, committing them, their content and its seal.

use std::hint::black_box;
use std::time::Duration;

use cairn_engine::{Ino, NodeKind, Replica, SetAttr};
use criterion::{BatchSize, Criterion, SamplingMode, Throughput};

use super::{DIR, Fresh, Group, Random, done, make, timed};

/// Bytes in a large file.
const LARGE: usize = 64 << 20;
const MIB: usize = 1 << 20;

/// Makes files in a row of directories with [`DIR`] entries each.
struct Maker<'a> {
    replica: &'a Replica,
    dir: Ino,
    made: u64,
}

impl<'a> Maker<'a> {
    fn new(replica: &'a Replica) -> Self {
        Self {
            replica,
            dir: Ino::ROOT,
            made: 0,
        }
    }

    fn make(&mut self) -> Ino {
        if self.made.is_multiple_of(DIR) {
            let name = format!("made-{}", self.made / DIR);
            self.dir = make(self.replica, Ino::ROOT, &name, NodeKind::Dir).ino;
        }
        self.made += 1;
        let name = format!("file-{}", self.made);
        make(self.replica, self.dir, &name, NodeKind::File).ino
    }
}

pub(crate) fn creation(c: &mut Criterion) {
    let mut group = c.benchmark_group("create");
    group.measurement_time(Duration::from_secs(3));
    group.bench_function("an empty file", |b| {
        let fresh = Fresh::new();
        let mut maker = Maker::new(&fresh.replica);
        b.iter(|| maker.make());
    });
    group.bench_function("a file of 1 KiB", |b| {
        let fresh = Fresh::new();
        let (mut maker, mut random) = (Maker::new(&fresh.replica), Random(4));
        b.iter(|| {
            let ino = maker.make();
            done(fresh.replica.write(ino, 0, &random.bytes(1024)));
        });
    });
}

pub(crate) fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function("flush of 1 000 new files", |b| {
        let fresh = Fresh::new();
        let mut maker = Maker::new(&fresh.replica);
        b.iter_batched(
            || {
                for _ in 0..1_000 {
                    maker.make();
                }
            },
            |()| done(fresh.replica.flush()),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("write of 200 bytes and fsync", |b| {
        let fresh = Fresh::new();
        let (ino, data) = (Maker::new(&fresh.replica).make(), Random(5).bytes(200));
        b.iter(|| {
            done(fresh.replica.write(ino, 0, &data));
            done(fresh.replica.fsync(ino));
        });
    });
}

pub(crate) fn small(c: &mut Criterion) {
    let mut group = c.benchmark_group("small");
    group.throughput(Throughput::Bytes(4096));
    group.bench_function("read of 4 KiB", |b| {
        let fresh = Fresh::new();
        let mut maker = Maker::new(&fresh.replica);
        let inos: Vec<Ino> = (0..1_000).map(|_| maker.make()).collect();
        for ino in &inos {
            let data = Random(ino.0).bytes(4096);
            done(fresh.replica.write(*ino, 0, &data));
        }
        // What was just written is still in memory.
        let (fresh, ..) = fresh.reopen();
        let (mut random, mut buffer) = (Random(6), [0; 4096]);
        b.iter(|| {
            let ino = inos[random.index(inos.len())];
            assert_eq!(done(fresh.replica.read(ino, 0, &mut buffer)), 4096);
        });
    });
    group.bench_function("write of 4 KiB over a file", |b| {
        let fresh = Fresh::new();
        let mut maker = Maker::new(&fresh.replica);
        let inos: Vec<Ino> = (0..1_000).map(|_| maker.make()).collect();
        let (mut random, mut data) = (Random(7), Random(8).bytes(4096));
        b.iter(|| {
            data[..8].copy_from_slice(&random.next().to_le_bytes());
            let ino = inos[random.index(inos.len())];
            done(fresh.replica.write(ino, 0, &data));
        });
    });
}

/// A file of [`LARGE`] bytes that stays open for writing: only an explicit
/// seal seals it.
struct Large {
    fresh: Fresh,
    ino: Ino,
    data: Vec<u8>,
    random: Random,
}

impl Large {
    fn new() -> Self {
        let fresh = Fresh::new();
        let ino = make(&fresh.replica, Ino::ROOT, "large", NodeKind::File).ino;
        done(fresh.replica.retain(ino, true));
        Self {
            fresh,
            ino,
            data: Vec::new(),
            random: Random(9),
        }
    }

    /// An empty file, new data, and none of the old on the disk.
    fn renew(&mut self) {
        self.truncate();
        done(self.fresh.replica.gc());
        self.data = self.random.bytes(LARGE);
    }

    fn truncate(&self) {
        let set = SetAttr {
            size: Some(0),
            ..SetAttr::default()
        };
        done(self.fresh.replica.set_attr(self.ino, &set));
    }

    fn write(&self) {
        for (i, part) in self.data.chunks(MIB).enumerate() {
            let offset = (i * MIB) as u64;
            done(self.fresh.replica.write(self.ino, offset, part));
        }
    }

    /// Writes 4 KiB at a multiple of 4 KiB anywhere in the file.
    fn write_block(&mut self) {
        let at = self.random.below(LARGE as u64 / 4096) * 4096;
        let block = self.random.bytes(4096);
        done(self.fresh.replica.write(self.ino, at, &block));
    }

    /// A version is one of sealed content.
    fn seal(&self) {
        black_box(done(self.fresh.replica.version("/large")));
    }

    fn read(&self, buffer: &mut [u8], offset: u64) {
        let got = done(self.fresh.replica.read(self.ino, offset, buffer));
        assert_eq!(got, buffer.len());
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.fresh.replica.release(self.ino, true);
    }
}

/// Times `work` alone, with `prepare` before each.
fn with_large(
    group: &mut Group<'_>,
    name: &str,
    prepare: impl Fn(&mut Large),
    work: impl Fn(&mut Large),
) {
    group.bench_function(name, |b| {
        let mut large = Large::new();
        large.renew();
        large.write();
        large.seal();
        b.iter_custom(|count| {
            let once = |_| {
                prepare(&mut large);
                timed(|| work(&mut large)).0
            };
            (0..count).map(once).sum()
        });
    });
}

pub(crate) fn large(c: &mut Criterion) {
    let mut group = c.benchmark_group("large");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(500));
    group.throughput(Throughput::Bytes(LARGE as u64));
    with_large(&mut group, "write of 64 MiB", Large::renew, |l| l.write());
    with_large(&mut group, "write of 64 MiB and fsync", Large::renew, |l| {
        l.write();
        done(l.fresh.replica.fsync(l.ino));
    });
    with_large(
        &mut group,
        "read of 64 MiB",
        |_| (),
        |l| {
            let mut buffer = vec![0; MIB];
            for at in (0..LARGE).step_by(MIB) {
                l.read(&mut buffer, at as u64);
            }
        },
    );
    let written = |l: &mut Large| {
        l.renew();
        l.write();
    };
    with_large(&mut group, "seal of 64 MiB", written, |l| l.seal());
    let rewritten = |l: &mut Large| {
        l.renew();
        l.write();
        l.seal();
        l.truncate();
        l.write();
    };
    with_large(&mut group, "seal of 64 MiB that is known", rewritten, |l| {
        l.seal();
    });

    group.throughput(Throughput::Bytes(4096));
    with_large(
        &mut group,
        "re-chunk after a write of 4 KiB",
        Large::write_block,
        |l| l.seal(),
    );
    with_large(
        &mut group,
        "read of 4 KiB anywhere",
        |_| (),
        |l| {
            let at = l.random.below(LARGE as u64 / 4096) * 4096;
            l.read(&mut [0; 4096], at);
        },
    );
    with_large(
        &mut group,
        "write of 4 KiB anywhere",
        |_| (),
        Large::write_block,
    );
}
