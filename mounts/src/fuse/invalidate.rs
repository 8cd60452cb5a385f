//! Keeping the kernel's caches right when the replica changes by another way than this mount.
//!
//! The kernel caches names, attributes and content without a time limit, so each change from
//! elsewhere must be made known to it. The engine reports changes while it holds locks; a thread
//! with no lock held passes them on.
//!
//! Four races have to be closed; with them closed, what the kernel holds after the last
//! invalidation is right.
//!
//! 1. *A reply overtaken by a change, inode known to the kernel.* The kernel numbers requests and
//!    invalidations and ignores attributes that were asked for before the invalidation. A name
//!    or a page that is being read is locked, and the invalidation waits for that lock.
//! 2. *A reply overtaken by a change, inode not yet counted as known.* The change is not even
//!    queued. But then [`Invalidator::changes`] moved before the inode was counted, and the reply
//!    is sent with no time to live.
//! 3. *A reply sent, the kernel has not yet taken it up.* The kernel answers ENOENT for an inode
//!    that is counted as known. Such an invalidation is repeated with growing pauses until the
//!    kernel takes or forgets the inode.
//! 4. *A write of the kernel's at an offset that was no longer the end of the file.* See
//!    [`super::ops`], append.
//!
//! # A process killed in the middle of an invalidation
//!
//! An invalidation of a name waits, uninterruptibly, for the lock of its directory; whoever holds
//! that may be waiting for an answer of this process. When the process is killed just then, its
//! other threads end, but the waiting one cannot, and as long as it holds the descriptor table of
//! the process the kernel sees the FUSE device as open: the mount hangs for everyone, with the
//! replica's lock still held. Therefore the thread here has a descriptor table of its own with
//! nothing in it but a second device on the connection. When the process is killed, the first
//! device closes with the rest of its files, the kernel fails the requests that were read from it,
//! the directory's lock is given up, and the waiting thread ends and with it the connection.
//! What is left is a request that was not yet read from the device at that moment and holds the
//! lock; `super::mountpoint` clears such a mount at the next start.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_engine::{Ino, Invalidation, Observer};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::lookups::Lookups;
use super::notification::{self, Part};
use super::{opens::Opens, serving, sys};

/// Most invalidations sent before those who wait for them are told.
const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// With doubling, ten repetitions within about a second.
const LAST_PAUSE: Duration = Duration::from_millis(512);

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Invalidation>,
    /// Invalidations put in, ever.
    pushed: u64,
    /// Invalidations passed on to the kernel, ever.
    delivered: u64,
    closed: bool,
}

/// What one mount knows of the kernel's caches, and the invalidations on their way to them.
#[derive(Debug, Default)]
pub(crate) struct Invalidator {
    pub(crate) lookups: Lookups,
    pub(crate) opens: Opens,
    changes: AtomicU64,
    queue: Mutex<Queue>,
    work: Condvar,
    progress: Condvar,
}

impl Invalidator {
    /// A number that moves with each change from elsewhere.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Queues an invalidation, unless the kernel cannot have cached what it is about.
    pub(crate) fn push(&self, what: Invalidation) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if !self.concerns_kernel(&what) {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.closed || queue.items.back() == Some(&what) {
            return;
        }
        queue.items.push_back(what);
        queue.pushed += 1;
        drop(queue);
        self.work.notify_one();
    }

    fn concerns_kernel(&self, what: &Invalidation) -> bool {
        self.lookups.knows(match what {
            Invalidation::Content { ino, .. } | Invalidation::Attr { ino } => *ino,
            Invalidation::Entry { parent, .. } | Invalidation::Deleted { parent, .. } => *parent,
        })
    }

    /// The connection is gone: nobody waits any more, nothing is queued any more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.items.clear();
        drop(queue);
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// The next invalidations; empty when it is time for a repetition, `None` at the end.
    fn next(&self, repeat_at: Option<Instant>) -> Option<Vec<Invalidation>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return None;
            }
            if !queue.items.is_empty() {
                let count = queue.items.len().min(BATCH);
                return Some(queue.items.drain(..count).collect());
            }
            match repeat_at {
                None => self.work.wait(&mut queue),
                Some(at) => {
                    if self.work.wait_until(&mut queue, at).timed_out() {
                        return Some(Vec::new());
                    }
                }
            }
        }
    }

    fn delivered(&self, count: usize) {
        let mut queue = self.queue.lock();
        queue.delivered += count as u64;
        drop(queue);
        self.progress.notify_all();
    }
}

impl Observer for Invalidator {
    fn knows(&self, ino: Ino) -> bool {
        self.lookups.knows(ino)
    }

    fn invalidate(&self, what: Invalidation) {
        self.push(what);
    }

    /// A thread that serves a request of a mount does not wait: the invalidation it would wait
    /// for may wait for a lock in the kernel that only its own reply sets free, or that of the
    /// thread that waits for it on another mount of the replica.
    fn settle(&self) {
        if serving::here() {
            return;
        }
        let mut queue = self.queue.lock();
        let target = queue.pushed;
        while !queue.closed && queue.delivered < target {
            self.progress.wait(&mut queue);
        }
    }
}

/// Starts the thread that passes invalidations on. It ends when the invalidator is closed.
///
/// The device must stay open until the thread has ended.
pub(crate) fn start(
    invalidator: Arc<Invalidator>,
    device: Arc<OwnedFd>,
    at: PathBuf,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("cairn-notify".into())
        .spawn(move || {
            // Without a table of its own the thread does its work all the same; only the
            // protection against a kill is missing.
            let _ = sys::keep_only(device.as_fd());
            Courier {
                invalidator: &invalidator,
                device: device.as_fd(),
                at,
                unknown: VecDeque::new(),
            }
            .run();
        })
}

/// An invalidation of an inode that the kernel should know but does not.
struct Repetition {
    at: Instant,
    pause: Duration,
    ino: Ino,
    part: Part,
}

/// Runs on the thread.
struct Courier<'a> {
    invalidator: &'a Invalidator,
    device: BorrowedFd<'a>,
    at: PathBuf,
    unknown: VecDeque<Repetition>,
}

impl Courier<'_> {
    fn run(&mut self) {
        while let Some(batch) = self
            .invalidator
            .next(self.unknown.iter().map(|r| r.at).min())
        {
            let count = batch.len();
            let mut directories: Vec<Ino> = Vec::new();
            let mut open: Vec<Ino> = Vec::new();
            for what in batch {
                if let Invalidation::Content { ino, .. } = what
                    && self.invalidator.opens.contains(ino)
                {
                    note(&mut open, ino);
                }
                self.deliver(what, &mut directories);
            }
            // After the names, whose invalidation waits for a listing in progress: what that put
            // into the cache goes, too.
            for directory in directories {
                self.inode(directory, Part::ALL, FIRST_PAUSE);
            }
            if !open.is_empty() {
                self.measure(&open);
            }
            self.invalidator.delivered(count);
            self.repeat();
        }
    }

    fn deliver(&mut self, what: Invalidation, directories: &mut Vec<Ino>) {
        match what {
            Invalidation::Content { ino, offset, len } => {
                self.inode(ino, Part::Content { offset, len }, FIRST_PAUSE);
            }
            Invalidation::Attr { ino } => self.inode(ino, Part::Attributes, FIRST_PAUSE),
            // The kernel also offers to delete the name, which tells those who watch the
            // directory. But it then takes the inode for gone: a directory that was moved is
            // never usable again, and a file with another name has no link left.
            Invalidation::Entry { parent, name } | Invalidation::Deleted { parent, name, .. } => {
                let _ = notification::inval_entry(self.device, parent, &name);
                note(directories, parent);
            }
        }
    }

    fn inode(&mut self, ino: Ino, part: Part, pause: Duration) {
        let known = |invalidator: &Invalidator| invalidator.lookups.knows(ino);
        if notification::inval_inode(self.device, ino, part) == Err(Errno::NOENT)
            && pause <= LAST_PAUSE
            && known(self.invalidator)
        {
            self.unknown.push_back(Repetition {
                at: Instant::now() + pause,
                pause,
                ino,
                part,
            });
        }
    }

    /// Lets the kernel ask for the new size of open files. It does so by itself at each call that
    /// depends on the size, except for memory: an access beyond the end that it last knew would
    /// kill the process, although the file has grown. As root only; there is no other way to ask.
    fn measure(&self, open: &[Ino]) {
        // Not as a mere path: the kernel takes no such descriptor for the mount of a handle.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(mount) = rustix::fs::open(&self.at, flags, Mode::empty()) else {
            return;
        };
        for ino in open {
            if let Ok(inode) = sys::inode(mount.as_fd(), ino.0) {
                let _ = rustix::fs::fstat(inode);
            }
        }
    }

    fn repeat(&mut self) {
        let now = Instant::now();
        for _ in 0..self.unknown.len() {
            if let Some(repetition) = self.unknown.pop_front() {
                if repetition.at <= now {
                    self.inode(repetition.ino, repetition.part, repetition.pause * 2);
                } else {
                    self.unknown.push_back(repetition);
                }
            }
        }
    }
}

fn note(directories: &mut Vec<Ino>, directory: Ino) {
    if directories.last() != Some(&directory) && !directories.contains(&directory) {
        directories.push(directory);
    }
}
