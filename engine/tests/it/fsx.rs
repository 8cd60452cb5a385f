//! In the manner of `fsx`: a long sequence of operations on the content of a
//! few files, each compared byte for byte with plain buffers.

use std::path::PathBuf;

use cairn_engine::{Allocate, FileOptions, Ino, Options, Replica, SeekTo, SetAttr};

use crate::support::{Rng, assert_clean, assert_same, make_file, place, seeds, tiny};

/// Sizes around every limit of the engine: inline, whole, memory, staging.
const SIZE_MAX: u64 = 3 << 20;

struct Fsx {
    rng: Rng,
    options: Options,
    _dir: tempfile::TempDir,
    path: PathBuf,
    replica: Option<Replica>,
    files: Vec<(Ino, Vec<u8>)>,
    /// Files that are open for writing.
    open: Vec<Ino>,
    log: Vec<String>,
}

impl Fsx {
    fn new(seed: u64, options: Options) -> Self {
        let (dir, path) = place();
        let replica = Replica::open(&path, options.clone()).unwrap();
        let files = (0..4)
            .map(|i| (make_file(&replica, Ino::ROOT, &format!("f{i}")), Vec::new()))
            .collect();
        Self {
            rng: Rng::new(seed),
            options,
            _dir: dir,
            path,
            replica: Some(replica),
            files,
            open: Vec::new(),
            log: Vec::new(),
        }
    }

    fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    fn say(&mut self, what: String) {
        if self.log.len() == 40 {
            self.log.remove(0);
        }
        self.log.push(what);
    }

    /// An offset, often at a block, at the end, or near one.
    fn offset(&mut self, max: u64) -> u64 {
        let at = self.rng.below(max + 1);
        match self.rng.below(6) {
            0 => at / 65_536 * 65_536,
            1 => at / 4_096 * 4_096,
            2 => max,
            3 => self.rng.below(max.min(5_000) + 1),
            _ => at,
        }
    }

    fn len(&mut self) -> usize {
        match self.rng.below(12) {
            0..6 => self.rng.below(3_000) as usize,
            6..10 => self.rng.below(100_000) as usize,
            10 => self.rng.below(9) as usize * 65_536,
            _ => self.rng.below(1_500_000) as usize,
        }
    }

    /// A range within the limit of sizes.
    fn range(&mut self) -> (u64, usize) {
        let at = self.offset(SIZE_MAX);
        let len = self.len();
        (at, len.min((SIZE_MAX - at) as usize))
    }

    fn step(&mut self) {
        let index = self.rng.index(self.files.len());
        let ino = self.files[index].0;
        match self.rng.below(100) {
            0..30 => self.write(index),
            30..52 => self.read(index),
            52..60 => self.truncate(index),
            60..70 => self.allocate(index),
            70..78 => self.copy(index),
            78..82 => self.seek(index),
            82..86 => {
                self.say(format!("open {ino}"));
                self.replica().retain(ino, true).unwrap();
                self.open.push(ino);
            }
            86..92 => self.close(),
            92..94 => {
                self.say("seal".into());
                self.replica().cursor().unwrap();
            }
            94..96 => {
                self.say(format!("fsync {ino}"));
                self.replica().fsync(ino).unwrap();
            }
            96 => {
                self.say("gc".into());
                self.replica().gc().unwrap();
            }
            97 => {
                self.say("flush".into());
                self.replica().flush().unwrap();
            }
            98 => self.append(index),
            _ => self.seldom(),
        }
    }

    fn write(&mut self, index: usize) {
        let (at, len) = self.range();
        let ino = self.files[index].0;
        let data = if self.rng.chance(15) {
            vec![0; len]
        } else {
            self.rng.bytes(len)
        };
        self.say(format!("write {ino} {at}+{len}"));
        self.replica().write(ino, at, &data).unwrap();
        put(&mut self.files[index].1, at, &data);
    }

    fn append(&mut self, index: usize) {
        let (ino, size) = (self.files[index].0, self.files[index].1.len() as u64);
        let len = self.len().min((SIZE_MAX - size) as usize);
        let data = self.rng.bytes(len);
        self.say(format!("append {ino} +{len}"));
        assert_eq!(self.replica().append(ino, &data).unwrap(), size);
        put(&mut self.files[index].1, size, &data);
    }

    fn read(&mut self, index: usize) {
        let (at, len) = self.range();
        let (ino, content) = (self.files[index].0, &self.files[index].1);
        let start = (at as usize).min(content.len());
        let want = content[start..(start + len).min(content.len())].to_vec();
        self.say(format!("read {ino} {at}+{len}"));
        let mut got = vec![0xaa; len];
        let count = self.replica().read(ino, at, &mut got).unwrap();
        assert_same(&got[..count], &want, format!("{ino} at {at}"));
    }

    fn truncate(&mut self, index: usize) {
        let (ino, now) = (self.files[index].0, self.files[index].1.len() as u64);
        let size = match self.rng.below(4) {
            0 => 0,
            1 => self.offset(now),
            _ => self.offset(SIZE_MAX),
        };
        self.say(format!("truncate {ino} {size}"));
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        assert_eq!(self.replica().set_attr(ino, &set).unwrap().size, size);
        self.files[index].1.resize(size as usize, 0);
    }

    fn allocate(&mut self, index: usize) {
        let (at, len) = self.range();
        if len == 0 {
            return;
        }
        let ino = self.files[index].0;
        let keep_size = self.rng.chance(50);
        let how = match self.rng.below(3) {
            0 => Allocate::PunchHole,
            1 => Allocate::Zero { keep_size },
            _ => Allocate::Reserve { keep_size },
        };
        self.say(format!("{how:?} {ino} {at}+{len}"));
        self.replica().allocate(ino, at, len as u64, how).unwrap();
        let content = &mut self.files[index].1;
        let end = at as usize + len;
        if !matches!(how, Allocate::Reserve { .. }) && (at as usize) < content.len() {
            let stop = end.min(content.len());
            content[at as usize..stop].fill(0);
        }
        let grows = !keep_size && how != Allocate::PunchHole;
        if grows && end > content.len() {
            content.resize(end, 0);
        }
    }

    fn copy(&mut self, index: usize) {
        let to = self.rng.index(self.files.len());
        let (ino, other) = (self.files[index].0, self.files[to].0);
        let size = self.files[index].1.len() as u64;
        let (from_at, to_at, len) = match self.rng.below(3) {
            0 => (0, 0, SIZE_MAX),
            _ => (self.offset(size), self.offset(SIZE_MAX), self.len() as u64),
        };
        let len = len.min(size - from_at.min(size)).min(SIZE_MAX - to_at);
        if len == 0 || (index == to && from_at < to_at + len && to_at < from_at + len) {
            return;
        }
        self.say(format!("copy {ino} {from_at} -> {other} {to_at} +{len}"));
        let got = self.replica().copy_range(ino, from_at, other, to_at, len);
        assert_eq!(got.unwrap(), len);
        let bytes = self.files[index].1[from_at as usize..(from_at + len) as usize].to_vec();
        put(&mut self.files[to].1, to_at, &bytes);
    }

    /// What is skipped on the way to data is zeros; where a hole is, too.
    fn seek(&mut self, index: usize) {
        let (ino, content) = (self.files[index].0, self.files[index].1.clone());
        let at = self.offset(content.len() as u64);
        self.say(format!("seek {ino} {at}"));
        let zeros =
            |from: u64, to: u64| content[from as usize..to as usize].iter().all(|b| *b == 0);
        let size = content.len() as u64;
        match self.replica().seek(ino, at, SeekTo::Data) {
            Ok(data) => assert!(at <= data && data < size && zeros(at, data)),
            Err(_) => assert!(zeros(at.min(size), size)),
        }
        if let Ok(hole) = self.replica().seek(ino, at, SeekTo::Hole) {
            assert!(at <= hole && hole <= size);
            assert!(hole == size || zeros(hole, hole + 1));
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let index = self.rng.index(self.open.len());
            let ino = self.open.swap_remove(index);
            self.say(format!("close {ino}"));
            self.replica().release(ino, true);
        }
    }

    /// Things that take long, or look at everything.
    fn seldom(&mut self) {
        match self.rng.below(12) {
            0 => {
                self.say("close and open the replica".into());
                self.open.clear();
                self.replica = None;
                self.replica = Some(Replica::open(&self.path, self.options.clone()).unwrap());
            }
            1 => {
                self.say("rest".into());
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            2 => {
                // Fills the caches with other things.
                self.say("evict".into());
                for i in 0..6 {
                    let data = self.rng.bytes(900_000);
                    self.replica()
                        .write_file(format!("/evict{i}"), &data)
                        .unwrap();
                }
                self.replica().flush().unwrap();
            }
            3 => {
                self.say("check".into());
                assert_clean(self.replica());
            }
            4 => self.by_stream(),
            _ => {}
        }
        self.compare();
    }

    /// The same file through a handle.
    fn by_stream(&mut self) {
        use std::io::{Seek, SeekFrom, Write};
        let (index, len) = (self.rng.index(self.files.len()), self.len());
        let at = self.offset(SIZE_MAX / 2);
        let data = self.rng.bytes(len);
        self.say(format!("stream f{index} {at}+{len}"));
        let file = FileOptions::new()
            .write(true)
            .open(self.replica(), format!("/f{index}"));
        let mut file = file.unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&data).unwrap();
        put(&mut self.files[index].1, at, &data);
    }

    fn compare(&self) {
        for (i, (ino, want)) in self.files.iter().enumerate() {
            let got = self.replica().read_file(format!("/f{i}")).unwrap();
            assert_same(&got, want, ino);
        }
    }
}

/// Writes into a buffer as into a file.
fn put(content: &mut Vec<u8>, at: u64, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let end = at as usize + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at as usize..end].copy_from_slice(data);
}

fn run(seed: u64, options: Options, steps: u64) {
    let mut fsx = Fsx::new(seed, options);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..steps {
            fsx.step();
        }
        fsx.compare();
        assert_clean(fsx.replica());
    }));
    if let Err(panic) = outcome {
        println!("the last operations of seed {seed}:");
        for line in &fsx.log {
            println!("  {line}");
        }
        std::panic::resume_unwind(panic);
    }
}

/// Operations a seed: `CAIRN_STEPS`, or a few.
fn steps(default: u64) -> u64 {
    let set = std::env::var("CAIRN_STEPS").ok();
    set.and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn random_operations_on_contents_agree_with_buffers() {
    for seed in seeds(1) {
        run(seed, Options::default(), steps(2_000));
    }
}

#[test]
fn random_operations_on_contents_agree_when_memory_is_small() {
    for seed in seeds(1) {
        run(seed ^ 0xf5, tiny(), steps(2_000));
    }
}
