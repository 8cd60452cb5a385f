//! Random operations on files of a mount, compared with an array of bytes after each, in the
//! manner of `fsx`.
//!
//! `CAIRN_OPS` is the number of operations for each run, `CAIRN_SEED` a seed to run alone. What
//! failed is printed with the operations before it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, SeekFrom, copy_file_range, fadvise, fallocate, seek};
use rustix::io::Errno;

use crate::child::{Job, command, say, wait};
use crate::common::Mounted;
use crate::raw::Map;
use crate::remote::Remote;

const MAPPED: &str = "CAIRN_TEST_MAPPED";
const SEED: &str = "CAIRN_SEED";
const OPS: &str = "CAIRN_OPS";

/// Longest file. The engine keeps contents in several ways, by size; 1 MiB is the largest border.
const SIZE_MAX: usize = 1_500_000;
/// Operations printed with a failure.
const REMEMBERED: usize = 25;
/// The whole content is compared once in so many operations.
const WHOLE: u64 = 40;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

#[test]
fn random_operations_are_those_of_an_array() {
    run(false);
}

#[test]
fn random_operations_with_mapped_memory_are_those_of_an_array() {
    run(true);
}

fn run(mapped: bool) {
    let seeds = match std::env::var(SEED) {
        Ok(seed) => vec![seed],
        Err(_) => ["1", "2", "3"].map(String::from).to_vec(),
    };
    for seed in seeds {
        let Some(m) = Mounted::on_disk() else { return };
        let mut job = command("random", m.root());
        job.env(SEED, &seed)
            .env(MAPPED, if mapped { "1" } else { "0" });
        let mut job = Job::spawn(job);
        while let Some(asked) = job.hear_until_end() {
            behind(&m.replica, &asked);
            job.tell("done");
        }
        job.end();
        for name in ["0", "1"] {
            let kept = m.replica.read_file(&format!("/{name}")).unwrap();
            assert!(
                fs::read(m.path(name)).unwrap() == kept,
                "seed {seed}: the engine has other bytes"
            );
        }
    }
}

/// Does one operation behind the back of the mount.
fn behind(replica: &Remote, asked: &str) {
    let words: Vec<&str> = asked.split(' ').collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let path = format!("/{}", words[1]);
    match words[0] {
        "write" => {
            let data = vec![words[4].parse().unwrap(); number(3)];
            replica.write_range(&path, number(2) as u64, &data).unwrap();
        }
        "truncate" => replica.truncate(&path, number(2) as u64).unwrap(),
        "append" => replica
            .append_file(&path, &vec![words[3].parse().unwrap(); number(2)])
            .unwrap(),
        "seal" => replica.seal(&path).unwrap(),
        other => panic!("no such operation: {other}"),
    }
}

/// `splitmix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`; 0 when that is 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Mostly small, now and then large.
    fn length(&mut self) -> usize {
        match self.below(10) {
            0..4 => self.below(700),
            4..9 => self.below(20_000),
            _ => self.below(150_000),
        }
    }

    /// A range below a limit, often at the border of a page.
    fn range(&mut self, limit: usize) -> (usize, usize) {
        let mut at = self.below(limit);
        if self.below(4) == 0 {
            at &= !4095;
        }
        let mut len = self.length().min(limit - at);
        if self.below(4) == 0 {
            len = len.next_multiple_of(4096).min(limit - at);
        }
        (at, len)
    }
}

/// One file, and what must be in it.
struct Subject {
    path: PathBuf,
    file: File,
    appending: File,
    /// Opened for reading only, before the others.
    reader: Option<File>,
    map: Option<Map>,
    model: Vec<u8>,
}

impl Subject {
    fn new(path: PathBuf) -> Self {
        drop(File::create(&path).unwrap());
        let (file, appending) = Self::open(&path, true);
        Self {
            path,
            file,
            appending,
            reader: None,
            map: None,
            model: Vec::new(),
        }
    }

    fn open(path: &Path, truncate: bool) -> (File, File) {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .truncate(truncate)
            .open(path)
            .unwrap();
        (file, OpenOptions::new().append(true).open(path).unwrap())
    }

    /// A file that nobody else has open is opened anew; if it is empty then, the kernel may read
    /// and write it past the mount.
    fn reopen(&mut self, truncate: bool, reader: bool) {
        self.map = None;
        self.reader = None;
        for file in [&mut self.file, &mut self.appending] {
            *file = File::open("/dev/null").unwrap();
        }
        if reader {
            // A large file that is sealed may be read past the mount, until somebody changes it.
            ask(&format!("seal {}", self.name()));
            let file = File::open(&self.path).unwrap();
            let mut all = vec![0; self.model.len() + 1];
            let len = file.read_at(&mut all, 0).unwrap();
            same(&all[..len], &self.model, 0);
            self.reader = Some(file);
        }
        (self.file, self.appending) = Self::open(&self.path, truncate);
        if truncate {
            self.model.clear();
        }
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    fn grow(&mut self, size: usize) {
        if self.model.len() < size {
            self.model.resize(size, 0);
        }
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        if !data.is_empty() {
            self.grow(at + data.len());
            self.model[at..at + data.len()].copy_from_slice(data);
        }
    }

    fn zero(&mut self, at: usize, len: usize) {
        let end = (at + len).min(self.model.len());
        if at < end {
            self.model[at..end].fill(0);
        }
    }

    fn mapped(&mut self) -> &Map {
        self.map
            .get_or_insert_with(|| Map::shared(&self.file, SIZE_MAX))
    }

    fn check_range(&self, at: usize, len: usize) {
        for file in [Some(&self.file), self.reader.as_ref()]
            .into_iter()
            .flatten()
        {
            let mut found = vec![0xaa; len];
            let got = file.read_at(&mut found, at as u64).unwrap();
            let expected = &self.model[at.min(self.model.len())..(at + len).min(self.model.len())];
            same(&found[..got], expected, at);
        }
    }

    fn check_whole(&self) {
        same(&fs::read(&self.path).unwrap(), &self.model, 0);
    }

    /// Holes read as zeros, data is found where it is. A FUSE filesystem is not told of changes
    /// in mapped memory before they are written.
    fn check_holes(&self, from: usize) {
        if let Some(map) = &self.map {
            map.sync();
        }
        let size = self.model.len() as u64;
        let hole = seek(&self.file, SeekFrom::Hole(from as u64));
        let data = seek(&self.file, SeekFrom::Data(from as u64));
        if from as u64 >= size {
            assert_eq!((hole, data), (Err(Errno::NXIO), Err(Errno::NXIO)));
            return;
        }
        assert!((from as u64..=size).contains(&hole.unwrap()));
        let data = data.map_or(self.model.len(), |data| usize::try_from(data).unwrap());
        assert!(
            self.model[from..data].iter().all(|byte| *byte == 0),
            "data before {data}"
        );
    }
}

fn same(found: &[u8], expected: &[u8], at: usize) {
    assert_eq!(
        found.len(),
        expected.len(),
        "length of what is read from {at} on"
    );
    if let Some(first) = (0..found.len()).find(|&place| found[place] != expected[place]) {
        let wrong = (first..found.len())
            .filter(|&place| found[place] != expected[place])
            .count();
        panic!(
            "byte {} is {} instead of {}, and {wrong} bytes in all are wrong",
            at + first,
            found[first],
            expected[first],
        );
    }
}

/// The process that uses the mount.
pub(crate) fn work(root: &Path) {
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let ops = std::env::var(OPS).map_or(2_000, |ops| ops.parse().unwrap());
    let mapped = std::env::var(MAPPED).is_ok_and(|mapped| mapped == "1");
    let mut random = Random(seed);
    let mut subjects = ["0", "1"].map(|name| Subject::new(root.join(name)));
    let mut done = Remembered {
        seed,
        lines: VecDeque::new(),
    };
    for round in 0..ops {
        let [one, two] = &mut subjects;
        let (subject, other) = if random.below(2) == 0 {
            (one, two)
        } else {
            (two, one)
        };
        let line = step(&mut random, subject, other, mapped, &mut done);
        done.note(&format!("{round}: file {}: {line}", subject.name()));
        for subject in &subjects {
            let size = subject.file.metadata().unwrap().len();
            assert_eq!(
                size,
                subject.model.len() as u64,
                "size of {}",
                subject.name()
            );
            if round % WHOLE == 0 || round + 1 == ops {
                subject.check_whole();
            }
        }
    }
}

/// The last operations, printed when the process panics.
struct Remembered {
    seed: u64,
    lines: VecDeque<String>,
}

impl Remembered {
    fn note(&mut self, line: &str) {
        if self.lines.len() == REMEMBERED {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, the last operations:", self.seed);
            for line in &self.lines {
                eprintln!("  {line}");
            }
        }
    }
}

/// One operation on a file; returns what it was. What is about to be done is noted first where
/// it may fail.
fn step(
    random: &mut Random,
    subject: &mut Subject,
    other: &mut Subject,
    mapped: bool,
    done: &mut Remembered,
) -> String {
    let size = subject.model.len();
    let kinds = if mapped { 26 } else { 20 };
    let kind = random.below(kinds);
    let (at, len) = random.range(if kind < 6 { SIZE_MAX } else { size });
    let line = format!("kind {kind} at {at} for {len} of {size}");
    done.note(&format!("begun: {}: {line}", subject.name()));
    match kind {
        0..4 => {
            // Seldom far beyond the end, else all of the file would be holes.
            let far = if random.below(20) == 0 {
                SIZE_MAX
            } else {
                5_000
            };
            let at = at.min(size + far).min(SIZE_MAX - len);
            let data: Vec<u8> = (0..len).map(|_| random.byte()).collect();
            subject.file.write_all_at(&data, at as u64).unwrap();
            subject.put(at, &data);
        }
        4 => allocate(random, subject, at.min(size + 5_000), len.min(40_000)),
        5 => {
            let size = if random.below(8) == 0 {
                0
            } else {
                at.min(size + 9_000)
            };
            subject.file.set_len(size as u64).unwrap();
            subject.model.resize(size, 0);
        }
        6..9 => subject.check_range(at, len + random.below(2) * 3_000),
        9 => allocate(random, subject, at, len),
        10 if len > 0 => {
            fallocate(&subject.file, PUNCH, at as u64, len as u64).unwrap();
            subject.zero(at, len);
        }
        11 => append(random, subject),
        12 => copy(random, subject, other, at, len),
        13 => copy_inside(random, subject, at, len),
        14 => subject.check_holes(at + random.below(2) * 100),
        15 => subject.file.sync_all().unwrap(),
        16 => subject.reopen(random.below(6) == 0, random.below(2) == 0),
        17 => fadvise(&subject.file, 0, None, Advice::DontNeed).unwrap(),
        18 => behind_the_back(random, subject, at, len),
        19 => rename_or_truncate(random, subject),
        20..22 => same(
            &subject.mapped().read(at, len),
            &subject.model[at..at + len],
            at,
        ),
        22..25 => {
            let data: Vec<u8> = (0..len).map(|_| random.byte()).collect();
            subject.mapped().write(at, &data);
            subject.put(at, &data);
        }
        25 => subject.mapped().sync(),
        _ => {}
    }
    line
}

fn allocate(random: &mut Random, subject: &mut Subject, at: usize, len: usize) {
    if len == 0 {
        return;
    }
    let (at_u64, len_u64) = (at as u64, len as u64);
    let flags = [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::COLLAPSE_RANGE,
        FallocateFlags::INSERT_RANGE,
    ][random.below(6)];
    let done = fallocate(&subject.file, flags, at_u64, len_u64);
    if flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE) {
        assert_eq!(done, Err(Errno::OPNOTSUPP));
        return;
    }
    done.unwrap();
    if !flags.contains(FallocateFlags::KEEP_SIZE) {
        subject.grow(at + len);
    }
    if flags.contains(FallocateFlags::ZERO_RANGE) {
        subject.zero(at, len);
    }
}

fn append(random: &mut Random, subject: &mut Subject) {
    let len = random.length().min(SIZE_MAX - subject.model.len());
    let data = vec![random.byte(); len];
    std::io::Write::write_all(&mut subject.appending, &data).unwrap();
    subject.model.extend(data);
}

/// Copies from one file to the other.
fn copy(random: &mut Random, from: &Subject, to: &mut Subject, at: usize, len: usize) {
    let target = random.below(to.model.len() + 2_000).min(SIZE_MAX - len);
    let (mut read, mut written) = (at as u64, target as u64);
    let mut left = len;
    while left > 0 {
        let now = copy_file_range(
            &from.file,
            Some(&mut read),
            &to.file,
            Some(&mut written),
            left,
        );
        left -= now.unwrap();
    }
    let data = from.model[at..at + len].to_vec();
    to.put(target, &data);
}

/// Copies inside one file, which is refused where the ranges overlap.
fn copy_inside(random: &mut Random, subject: &mut Subject, at: usize, len: usize) {
    let target = random
        .below(SIZE_MAX - len)
        .min(subject.model.len() + 2_000);
    let (mut read, mut written) = (at as u64, target as u64);
    let file = &subject.file;
    let copied = copy_file_range(file, Some(&mut read), file, Some(&mut written), len);
    if len > 0 && at < target + len && target < at + len {
        assert_eq!(copied, Err(Errno::INVAL));
    } else {
        assert_eq!(copied, Ok(len));
        let data = subject.model[at..at + len].to_vec();
        subject.put(target, &data);
    }
}

/// Another way into the replica changes the file. What is in mapped memory is written first: the
/// kernel would write its whole page over the change.
fn behind_the_back(random: &mut Random, subject: &mut Subject, at: usize, len: usize) {
    if let Some(map) = &subject.map {
        map.sync();
    }
    let (name, byte) = (subject.name(), random.byte());
    match random.below(3) {
        0 => {
            ask(&format!("write {name} {at} {len} {byte}"));
            subject.put(at, &vec![byte; len]);
        }
        1 => {
            ask(&format!("truncate {name} {at}"));
            subject.model.truncate(at);
        }
        _ => {
            let len = len.min(SIZE_MAX - subject.model.len());
            ask(&format!("append {name} {len} {byte}"));
            subject.model.resize(subject.model.len() + len, byte);
        }
    }
    // At once, and without a look at the size.
    if let Some(last) = mapped_last(subject) {
        assert_eq!(
            Some(&last),
            subject.model.last(),
            "the last byte in mapped memory"
        );
    }
    subject.check_range(0, subject.model.len() + 10);
}

/// Has the other process do something behind the back of the mount.
fn ask(what: &str) {
    say(what);
    assert_eq!(wait().trim(), "done");
}

fn mapped_last(subject: &Subject) -> Option<u8> {
    let last = subject.model.len().checked_sub(1)?;
    subject.map.as_ref().map(|map| map.get(last))
}

fn rename_or_truncate(random: &mut Random, subject: &mut Subject) {
    if random.below(4) > 0 {
        let aside = subject.path.with_extension("aside");
        fs::rename(&subject.path, &aside).unwrap();
        fs::rename(&aside, &subject.path).unwrap();
    } else {
        drop(
            OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&subject.path)
                .unwrap(),
        );
        subject.model.clear();
    }
}
