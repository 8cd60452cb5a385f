//! A disk without space: a clear error, nothing lost, and work goes on when
//! there is space again.
//!
//! On small filesystems of their own, which only root can mount.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_engine::{FsError, Options, Replica};
use rustix::io::Errno;

use crate::support::{Rng, assert_clean, assert_same, eventually, noise, rounds, seeds};

/// A small filesystem, mounted until it is dropped.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
}

fn run(program: &str, args: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Disk {
    /// A disk in memory, which says at once when it is full.
    pub(crate) fn tmpfs(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let args = ["-t", "tmpfs", "-o", &size, "none"].map(Path::new);
        let mounted = run("mount", &[&args[..], &[dir.path()]].concat());
        Self::mounted(dir, mounted)
    }

    /// A disk in a file, with a filesystem that has a journal.
    pub(crate) fn ext4(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let made = run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image]);
        let args = ["-o", "loop"].map(Path::new);
        let mounted = made && run("mount", &[&args[..], &[&image, dir.path()]].concat());
        Self::mounted(dir, mounted)
    }

    fn mounted(dir: tempfile::TempDir, mounted: bool) -> Option<Self> {
        if !mounted {
            println!("skipped: a small filesystem cannot be mounted here; run as root");
            return None;
        }
        Some(Self { dir })
    }

    pub(crate) fn replica(&self) -> PathBuf {
        self.dir.path().join("w.cairn")
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// Somebody else takes all of the space.
    pub(crate) fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for size in [1 << 20, 4_096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        let _ = file.sync_all();
    }

    pub(crate) fn relieve(&self) {
        let file = File::options().write(true).open(self.ballast()).unwrap();
        // Without this it may keep its space for a moment: a process that another
        // test has just begun may have it open until it runs its program.
        file.set_len(0).unwrap();
        std::fs::remove_file(self.ballast()).unwrap();
        // What was freed may be used when the journal has it.
        let dir = File::open(self.path()).unwrap();
        rustix::fs::syncfs(dir).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Somebody else takes all of the space but so many bytes, or gives some back
    /// until there are so many.
    pub(crate) fn leave(&self, bytes: u64) {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let file = options.open(self.ballast()).unwrap();
        for _ in 0..10 {
            let stat = rustix::fs::statvfs(self.path()).unwrap();
            let free = stat.f_bfree * stat.f_frsize;
            let len = file.metadata().unwrap().len();
            if free <= bytes {
                file.set_len(len.saturating_sub(bytes - free)).unwrap();
                return;
            }
            // Something else may have taken some meanwhile.
            let all = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&file, all, len, free - bytes).is_ok() {
                return;
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[Path::new("-l"), self.dir.path()]);
    }
}

fn open(path: &Path) -> Replica {
    Replica::open(path, Options::default()).unwrap()
}

/// Whether an operation was refused, and then for want of space.
#[track_caller]
fn refused<T>(done: Result<T, FsError>) -> bool {
    match done {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.errno(), Errno::NOSPC, "{error:?}");
            true
        }
    }
}

fn fill_and_go_on(disk: &Disk) {
    let path = disk.replica();
    let replica = open(&path);
    let mut written = Vec::new();
    for i in 0..1_000 {
        let content = noise(700_000, i);
        if refused(replica.write_file(format!("/f{i}"), &content)) {
            drop(replica.remove(format!("/f{i}")));
            break;
        }
        written.push(i);
    }
    assert!(written.len() > 10 && written.len() < 1_000);
    // What was taken can be kept: some space is held back for it.
    replica.sync().unwrap();
    let check = |replica: &Replica, written: &[u64]| {
        for i in written {
            let got = replica.read_file(format!("/f{i}")).unwrap();
            assert_same(&got, &noise(700_000, *i), i);
        }
    };
    check(&replica, &written);
    drop(replica);
    let replica = open(&path);
    check(&replica, &written);
    assert_clean(&replica);
    // Removing needs no space, and makes some.
    let half = written.len() / 2;
    for i in written.split_off(half) {
        replica.remove(format!("/f{i}")).unwrap();
    }
    replica.sync().unwrap();
    replica.gc().unwrap();
    eventually("there is space again", || {
        !refused(replica.write_file("/after", &noise(1 << 20, 7)))
    });
    replica.sync().unwrap();
    check(&replica, &written);
    assert_clean(&replica);
}

#[test]
fn a_replica_that_fills_its_disk_says_so_and_goes_on_after_removals() {
    for disk in [Disk::tmpfs(48), Disk::ext4(64)].into_iter().flatten() {
        fill_and_go_on(&disk);
    }
}

/// Replaces files while the space comes and goes. Each is one of the contents
/// that it was given, whole; after a sync that worked, the last one.
fn come_and_go(disk: &Disk, seed: u64) {
    let path = disk.replica();
    let mut replica = open(&path);
    let mut rng = Rng::new(seed);
    let mut may: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
    let mut synced = BTreeSet::new();
    let mut full = false;
    for step in 0..160 {
        match rng.below(20) {
            0 if !full => {
                disk.fill();
                full = true;
            }
            0..3 if full => {
                disk.relieve();
                full = false;
                eventually("writes work again", || {
                    !refused(replica.write_file("/probe", b"x"))
                });
            }
            3..5 => {
                if !refused(replica.sync()) {
                    synced.extend(may.keys().cloned());
                    for all in may.values_mut() {
                        all.drain(..all.len() - 1);
                    }
                }
            }
            5 => drop(refused(replica.gc())),
            6 if rng.chance(40) => {
                // As a program that ends, with the disk as it is.
                drop(replica);
                if full {
                    disk.relieve();
                    full = false;
                }
                replica = open(&path);
                // With a full disk the end could not be kept.
                may.retain(|name, all| {
                    let got = replica.read_file(name).unwrap_or_default();
                    let found = all.iter().rfind(|(size, seed)| got == noise(*size, *seed));
                    let kept = found.copied();
                    assert!(
                        kept.is_some() || !synced.contains(name),
                        "{name} is none of {all:?}"
                    );
                    *all = kept.into_iter().collect();
                    !all.is_empty()
                });
            }
            _ => {
                let name = format!("/f{}", rng.below(8));
                let (size, seed) = (rng.below(1_500_000) as usize, rng.next());
                let done = replica.replace_file(&name, &noise(size, seed));
                let all = may.entry(name).or_default();
                if !refused(done) {
                    all.push((size, seed));
                }
                if all.is_empty() {
                    may.retain(|_, all| !all.is_empty());
                }
            }
        }
        if rng.chance(20) {
            for (name, all) in &may {
                let (size, seed) = *all.last().unwrap();
                let got = replica.read_file(name).unwrap();
                assert_same(&got, &noise(size, seed), format!("step {step}: {name}"));
            }
        }
    }
    if full {
        disk.relieve();
    }
    eventually("a sync works again", || !refused(replica.sync()));
    drop(replica);
    let replica = open(&path);
    for (name, all) in &may {
        let (size, seed) = *all.last().unwrap();
        assert_same(&replica.read_file(name).unwrap(), &noise(size, seed), name);
    }
    assert_clean(&replica);
}

#[test]
fn space_that_comes_and_goes_costs_nothing_that_was_written() {
    for seed in seeds(rounds(1)) {
        println!("seed {seed}");
        for disk in [Disk::tmpfs(64), Disk::ext4(80)].into_iter().flatten() {
            come_and_go(&disk, seed);
        }
    }
}

#[test]
fn a_replica_on_a_full_disk_can_be_read() {
    for disk in [Disk::tmpfs(48), Disk::ext4(64)].into_iter().flatten() {
        let path = disk.replica();
        let replica = open(&path);
        let content = noise(3 << 20, 1);
        replica.write_file("/f", &content).unwrap();
        replica.cursor().unwrap();
        drop(replica);
        disk.fill();
        match Replica::open(&path, Options::default()) {
            Ok(replica) => {
                assert_same(&replica.read_file("/f").unwrap(), &content, "/f");
                assert!(refused(replica.write_file("/g", &content)));
                assert_same(&replica.read_file("/f").unwrap(), &content, "/f");
            }
            // What a start has to note did not fit; it says so and why.
            Err(error) => {
                let why = format!("{error}: {:?}", std::error::Error::source(&error));
                assert!(why.contains("pace") || why.contains("full"), "{why}");
            }
        }
        disk.relieve();
        let replica = open(&path);
        assert_same(&replica.read_file("/f").unwrap(), &content, "/f");
        replica.write_file("/g", &content).unwrap();
        assert_clean(&replica);
    }
}
