//! Locks between processes that use one mount.

use std::fs::{self, File, OpenOptions};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use crate::child::Job;
use crate::common::Mounted;

type Lock = fn(&File, FlockOperation) -> rustix::io::Result<()>;

fn exclude(job: &str, lock: Lock) {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("lock");
    fs::write(&path, b"").unwrap();
    let mut other = Job::start(job, &path);
    assert_eq!(other.hear(), "locked");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let refused = lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_err();
    assert!(
        refused == Errno::AGAIN || refused == Errno::ACCESS,
        "{refused}"
    );
    let waiting = std::thread::spawn(move || {
        lock(&file, FlockOperation::LockExclusive).unwrap();
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiting.is_finished(), "both hold the lock");
    other.end();
    waiting.join().unwrap();
}

#[test]
fn flock_excludes_another_process() {
    exclude("flock", |file, how| flock(file, how));
}

#[test]
fn fcntl_locks_exclude_another_process() {
    exclude("fcntl", |file, how| fcntl_lock(file, how));
}

#[test]
fn a_killed_process_loses_its_lock() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("lock");
    fs::write(&path, b"").unwrap();
    let mut other = Job::start("flock", &path);
    assert_eq!(other.hear(), "locked");
    other.process.kill().unwrap();
    other.process.wait().unwrap();
    let file = File::open(&path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
}
