//! The replica: opening and closing it, bringing into memory what an operation
//! needs, and the two background threads.
//!
//! Locks, in the order they may be taken: a staging file's `frozen` lock, the
//! commit lock ([`Db::writer`]), the tree. Nothing blocks on a disk with the
//! tree locked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_protocol::{Chain, NodeKind, Timestamp, Ver};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::attr::Ino;
use crate::chunks::Chunks;
use crate::db::{self, Db, Identity};
use crate::files::Files;
use crate::home::Home;
use crate::lock::OwnerLock;
use crate::node::{Body, DirBody, Dirent, Node, Persist, Times};
use crate::observe::{Invalidation, Observer};
use crate::options::Options;
use crate::tree::{Need, Step, Stop, Tree};
use crate::waste::Waste;
use crate::{FsError, OpenError, Result};

/// Entries read from the database at a time.
const PAGE: usize = 512;
/// So many chunks that nothing names yet are committed all the same: about 200
/// bytes of memory each, 3 MiB.
const SPARE_CHUNKS_MAX: usize = 16_384;
/// With less free space than this beyond what is in memory, it is looked at
/// before each write: between two looks of the committer, that much may go.
const SPARE_MIN: u64 = 256 << 20;

/// With less than this above the reserve, what is of no use is collected at once.
const NEARLY_FULL: u64 = 4 << 20;

/// A durable, content-addressed filesystem. Cheap to clone: all clones are the
/// same replica. The last one to go closes it.
///
/// # Examples
///
/// ```
/// use cairn_engine::{Ino, Replica};
///
/// let replica = Replica::in_memory()?;
/// replica.write_file("/hello.txt", b"Hello")?;
/// assert_eq!(replica.read_file("/hello.txt")?, b"Hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
    /// Which observer's operations these are; 0 for none.
    pub(crate) origin: u32,
    _open: Arc<Open>,
}

/// Held by every public handle: when the last goes, the replica closes.
#[derive(Debug)]
struct Open(Arc<Inner>, Mutex<Vec<std::thread::JoinHandle<()>>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.wake_committer();
        self.0.seals.stop();
        for thread in self.1.lock().drain(..) {
            // A thread that holds the last handle closes it without itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        if let Err(error) = self.0.shut() {
            tracing::error!(%error, "the last changes could not be committed");
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) db: Db,
    pub(crate) chunks: Chunks,
    pub(crate) tree: Mutex<Tree>,
    pub(crate) identity: Identity,
    pub(crate) chain: Mutex<Chain>,
    pub(crate) observers: RwLock<Vec<(u32, Arc<dyn Observer>)>>,
    pub(crate) seals: crate::seal::Queue,
    pub(crate) faults: Faults,
    /// The newest version that a commit has written.
    pub(crate) committed: AtomicU64,
    /// Transactions written since the start, and those of them that are durable.
    pub(crate) written: AtomicU64,
    pub(crate) synced: AtomicU64,
    pub(crate) waste: Waste,
    pub(crate) news: News,
    pub(crate) watchers: crate::hub::Watchers,
    pub(crate) shift: crate::shift::Shift,
    /// A transaction that failed may be found in the log after a crash; see
    /// [`crate::late`].
    pub(crate) may_return: AtomicBool,
    /// Some chunks may be at a hub only, and who gets them; see
    /// [`crate::Fetcher`].
    pub(crate) elsewhere: AtomicBool,
    /// Chunks that were found to be damaged.
    pub(crate) lost: crate::lost::Lost,
    pub(crate) fetcher: RwLock<Option<Arc<dyn crate::Fetcher>>>,
    /// Taking files out of their packs, one at a time; see [`crate::direct`].
    pub(crate) unpacking: Mutex<()>,
    pub(crate) stop: AtomicBool,
    pub(crate) dead_bytes: AtomicU64,
    wake: (Mutex<bool>, Condvar),
    _lock: Option<OwnerLock>,
}

/// Tells who waits for it that something was committed.
#[derive(Default)]
pub(crate) struct News {
    newest: Mutex<Ver>,
    changed: Condvar,
    callers: Mutex<Vec<(u64, Wake)>>,
}

/// What is called after a commit. It must not block.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("News")
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl News {
    pub(crate) fn tell(&self, committed: Ver) {
        *self.newest.lock() = committed;
        self.changed.notify_all();
        for (_, wake) in self.callers.lock().iter() {
            wake();
        }
    }

    /// Calls `wake` after each commit, until [`Self::forget`] with the number.
    pub(crate) fn call(&self, wake: Wake) -> u64 {
        let mut callers = self.callers.lock();
        let number = callers.iter().map(|(n, _)| n + 1).max().unwrap_or(0);
        callers.push((number, wake));
        number
    }

    pub(crate) fn forget(&self, number: u64) {
        self.callers.lock().retain(|(n, _)| *n != number);
    }

    /// Waits for something newer than `known`. Returns whether it came in time.
    pub(crate) fn wait(&self, known: Ver, deadline: Instant) -> bool {
        let mut newest = self.newest.lock();
        while *newest <= known {
            if self.changed.wait_until(&mut newest, deadline).timed_out() {
                return *newest > known;
            }
        }
        true
    }
}

/// Why writes are refused for now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The disk has less free space than the reserve, or a commit found none.
    pub(crate) full: AtomicBool,
    /// The last commit failed for another reason.
    pub(crate) failing: AtomicBool,
    /// Free space of the disk above the reserve when it was last looked at, in
    /// bytes.
    spare: AtomicU64,
}

impl Replica {
    /// Opens the replica at `path`, a directory or a file, and creates it when
    /// it is not there and [`Options::create`] says so.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: in use, damaged, newer, or the disk failed. Nothing was changed.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let io = |context: &str| {
            let (path, context) = (path.to_path_buf(), context.to_owned());
            move |source| OpenError::Io {
                path,
                context,
                source,
            }
        };
        let (home, new) = Home::find(path, &options)?;
        let lock = OwnerLock::take(&home, path)?;
        let db = Db::open(&home, options.database_cache_bytes)?;
        let files = Files::open(home).map_err(io("opening the data files"))?;
        let replica = Self::start(path, db, files, options, lock)?;
        if new {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            for name in [path, parent.unwrap_or(Path::new("."))] {
                std::fs::File::open(name)
                    .and_then(|d| d.sync_all())
                    .map_err(io("making its name durable"))?;
            }
        }
        Ok(replica)
    }

    /// A replica that lives in memory and ends with its last handle.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when there is no memory for it.
    pub fn in_memory() -> Result<Self, OpenError> {
        let here = PathBuf::from(":memory:");
        let files = Files::open(Home::Memory).map_err(|source| OpenError::Io {
            path: here.clone(),
            context: "opening the data files".into(),
            source,
        })?;
        Self::start(&here, Db::in_memory()?, files, Options::default(), None)
    }

    fn start(
        path: &Path,
        db: Db,
        files: Files,
        options: Options,
        lock: Option<OwnerLock>,
    ) -> Result<Self, OpenError> {
        let options = options.clamped();
        let fail = |source| db::open_error(path, source);
        let identity = crate::recover::identity(&db, &options).map_err(fail)?;
        let mut tree = Tree::new(
            identity.hash_key,
            identity.next_ino,
            identity.seq,
            identity.count,
        );
        let revived = crate::recover::overlays(&db, &files, &mut tree).map_err(fail)?;
        let dead = crate::gc::dead_bytes(&db).map_err(fail)?;
        let elsewhere = crate::chunks::are_elsewhere(&db).map_err(fail)?;
        let lost = crate::lost::Lost::load(&db).map_err(fail)?;
        let inner = Arc::new(Inner {
            chain: Mutex::new(identity.chain),
            committed: AtomicU64::new(identity.seq),
            // What is there already is as good as one that was not synced.
            written: AtomicU64::new(1),
            synced: AtomicU64::new(0),
            waste: Waste::default(),
            identity,
            db,
            chunks: Chunks::new(files),
            tree: Mutex::new(tree),
            observers: RwLock::default(),
            seals: crate::seal::Queue::default(),
            faults: Faults::default(),
            news: News::default(),
            watchers: crate::hub::Watchers::default(),
            shift: crate::shift::Shift::default(),
            may_return: AtomicBool::new(false),
            elsewhere: AtomicBool::new(elsewhere),
            lost,
            fetcher: RwLock::default(),
            unpacking: Mutex::new(()),
            stop: AtomicBool::new(false),
            dead_bytes: AtomicU64::new(dead),
            wake: (Mutex::new(false), Condvar::new()),
            _lock: lock,
            options,
        });
        let mut threads = Vec::new();
        for (name, run) in [
            ("cairn-commit", committer as fn(&Inner)),
            ("cairn-seal", crate::seal::sealer),
        ] {
            let inner = inner.clone();
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&inner))
                .map_err(|source| OpenError::Io {
                    path: path.into(),
                    context: format!("starting the thread {name}"),
                    source,
                })?;
            threads.push(thread);
        }
        for ino in revived {
            inner.seals.push(ino);
        }
        let open = Open(inner.clone(), Mutex::new(threads));
        Ok(Self {
            inner,
            origin: 0,
            _open: Arc::new(open),
        })
    }

    /// The directory or the file of the replica, or `None` for one in memory.
    pub fn path(&self) -> Option<&Path> {
        self.inner.chunks.files.home().path()
    }

    /// A handle whose operations are not reported back to `observer`, which
    /// from now on is told of every other change.
    #[must_use]
    pub fn observed(&self, observer: Arc<dyn Observer>) -> Self {
        let mut observers = self.inner.observers.write();
        let origin = observers.iter().map(|(id, _)| id + 1).max().unwrap_or(1);
        observers.push((origin, observer));
        Self {
            origin,
            ..self.clone()
        }
    }

    /// A handle whose operations are reported to every observer.
    pub(crate) fn unobserved(&self) -> Self {
        Self {
            origin: 0,
            ..self.clone()
        }
    }

    /// Ends what [`Self::observed`] began.
    pub fn unobserve(&self) {
        let origin = self.origin;
        self.inner.observers.write().retain(|(id, _)| *id != origin);
    }

    /// Runs a function of the tree, loading what it needs.
    pub(crate) fn with<T>(&self, f: impl FnMut(&mut Tree) -> Step<T>) -> Result<T> {
        self.inner.with(f)
    }

    /// Runs a function that changes the tree.
    pub(crate) fn change<T>(
        &self,
        grows: bool,
        f: impl FnMut(&mut Tree, &Notes<'_>) -> Step<T>,
    ) -> Result<T> {
        let out = self.change_unsettled(grows, f)?;
        self.settle();
        Ok(out)
    }

    /// The same for a caller with a lock that a write through a cache above
    /// takes, too: the cache may have to write a page back before it can drop
    /// it. The caller settles when it has given the lock up.
    pub(crate) fn change_unsettled<T>(
        &self,
        grows: bool,
        mut f: impl FnMut(&mut Tree, &Notes<'_>) -> Step<T>,
    ) -> Result<T> {
        self.inner.admit(grows)?;
        let notes = self.notes();
        self.inner.with(|tree| f(tree, &notes))
    }

    /// Waits until caches above have seen the change just made.
    pub(crate) fn settle(&self) {
        let others: Vec<Arc<dyn Observer>> = {
            let observers = self.inner.observers.read();
            observers
                .iter()
                .filter(|(id, _)| *id != self.origin)
                .map(|(_, o)| o.clone())
                .collect()
        };
        for observer in others {
            observer.settle();
        }
    }
}

/// Tells the caches above of a change. Called with the tree locked.
pub(crate) struct Notes<'a> {
    inner: &'a Inner,
    origin: u32,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(inner: &'a Inner, origin: u32) -> Self {
        Self { inner, origin }
    }

    pub(crate) fn tell(&self, what: impl Fn() -> Invalidation) {
        for (id, observer) in self.inner.observers.read().iter() {
            if *id != self.origin {
                observer.invalidate(what());
            }
        }
    }

    /// Whether a cache above still knows a node.
    pub(crate) fn known(&self, ino: Ino) -> bool {
        self.inner
            .observers
            .read()
            .iter()
            .any(|(_, o)| o.knows(ino))
    }
}

impl Inner {
    pub(crate) fn with<T>(&self, mut f: impl FnMut(&mut Tree) -> Step<T>) -> Result<T> {
        loop {
            let mut tree = self.tree.lock();
            match f(&mut tree) {
                Ok(value) => return Ok(value),
                Err(Stop::Fs(error)) => return Err(error),
                Err(Stop::Need(need)) => {
                    let evictions = tree.evictions;
                    drop(tree);
                    self.load(need, evictions)?;
                }
            }
        }
    }

    /// Refuses a change while the disk cannot take it, and slows it down while
    /// more waits for a commit than memory should hold.
    pub(crate) fn admit(&self, grows: bool) -> Result<()> {
        if self.faults.failing.load(Ordering::Relaxed) {
            // Each try is a chance to recover; its error is the caller's.
            self.commit(false)?;
        }
        if grows && self.faults.full.load(Ordering::Relaxed) {
            self.commit(false)?;
            self.look_at_space();
            if self.faults.full.load(Ordering::Relaxed) {
                return Err(FsError::NoSpace);
            }
        }
        let (waiting, memory) = {
            let tree = self.tree.lock();
            (tree.dirty_nodes.len(), tree.memory)
        };
        if grows && memory as u64 + SPARE_MIN > self.faults.spare.load(Ordering::Relaxed) {
            self.make_sure_of_space(memory as u64)?;
        }
        if waiting > 16_384 || memory > self.options.cached_bytes / 2 {
            if waiting > 65_536 || memory > self.options.cached_bytes {
                self.commit(false)?;
            } else {
                self.wake_committer();
            }
        }
        Ok(())
    }

    /// What is acknowledged and in memory only must find space when it is
    /// committed. Where that is not certain, it is committed at once.
    fn make_sure_of_space(&self, memory: u64) -> Result<()> {
        self.look_at_space();
        if memory > self.faults.spare.load(Ordering::Relaxed) {
            self.commit(false)?;
            self.look_at_space();
            if self.faults.full.load(Ordering::Relaxed) {
                return Err(FsError::NoSpace);
            }
        }
        Ok(())
    }

    fn load(&self, need: Need, evictions: u64) -> Result<()> {
        if matches!(need, Need::Node(_) | Need::Name(..) | Need::Page(..))
            && self.shift.wait()
            && self.tree.lock().is_turning(&need)
        {
            // Its error is the caller's.
            self.commit(false)?;
        }
        match need {
            Need::Node(ino) => {
                let node = db::load_node(&self.db.reader(), ino)?
                    .ok_or_else(|| FsError::NotFound(ino.to_string()))?;
                let mut tree = self.tree.lock();
                if tree.dying.contains(&ino.0) {
                    return Err(FsError::NotFound(ino.to_string()));
                }
                if tree.evictions == evictions {
                    insert_node(&mut tree, ino, node);
                }
            }
            Need::Name(dir, key) => {
                let found = db::load_name(&self.db.reader(), dir, key.0, &key.1)?;
                let mut tree = self.tree.lock();
                if tree.evictions == evictions
                    && let Some(Node {
                        body: Body::Dir(body),
                        ..
                    }) = tree.nodes.get_mut(&dir.0)
                {
                    let (target, ver) = found.map_or((None, 0), |(ino, ver)| (Some(ino), ver));
                    let state = Persist {
                        stored: target.is_some(),
                        ..Persist::default()
                    };
                    body.children
                        .entry(key)
                        .or_insert(Dirent { target, ver, state });
                }
            }
            Need::Page(dir, from) => self.load_page(dir, from, evictions)?,
            Need::Content(ino) => self.load_content(ino)?,
            Need::Staging(ino) => self.make_staging(ino)?,
            Need::Unpacked(ino) => self.unpack_direct(ino)?,
            Need::Alone(ino) => self.unshare(ino)?,
        }
        self.trim();
        Ok(())
    }

    fn load_page(&self, dir: Ino, from: u64, evictions: u64) -> Result<()> {
        let page = db::load_page(&self.db.reader(), dir, from, PAGE)?;
        let mut tree = self.tree.lock();
        if tree.evictions != evictions {
            return Ok(());
        }
        let full = page.len() < PAGE;
        // Names with the last hash may go on in the next page.
        let end = if full {
            u64::MAX
        } else {
            page.last().map_or(u64::MAX, |r| r.hash - 1)
        };
        let mut nodes = Vec::with_capacity(page.len());
        if let Some(Node {
            body: Body::Dir(body),
            ..
        }) = tree.nodes.get_mut(&dir.0)
        {
            for row in page {
                let state = Persist {
                    stored: true,
                    ..Persist::default()
                };
                body.children.entry((row.hash, row.name)).or_insert(Dirent {
                    target: Some(row.child),
                    ver: row.ver,
                    state,
                });
                nodes.push((row.child, row.node));
            }
            body.window = Some(match body.window {
                Some((start, old_end)) if from <= old_end.saturating_add(1) && from >= start => {
                    (start, end.max(old_end))
                }
                _ => (from, end),
            });
            if body.window == Some((0, u64::MAX)) {
                body.complete = true;
            }
        }
        for (ino, node) in nodes {
            insert_node(&mut tree, ino, node);
        }
        Ok(())
    }

    /// Keeps memory within its bounds.
    pub(crate) fn trim(&self) {
        let mut tree = self.tree.lock();
        let nodes = self.options.cached_nodes;
        if tree.nodes.len() > nodes || tree.memory > self.options.cached_bytes {
            tree.evict(nodes - nodes / 4, self.options.cached_bytes / 2);
        }
    }

    pub(crate) fn wake_committer(&self) {
        *self.wake.0.lock() = true;
        self.wake.1.notify_one();
    }

    /// Commits what is left and closes the database.
    fn shut(&self) -> Result<()> {
        if self.chunks.files.home().has_chunk_rows() {
            // What is not in the one file is left out when it is moved.
            self.seal_all()?;
        }
        self.commit(true)?;
        self.chunks.close_tail();
        self.checkpoint()?;
        self.chunks.files.tidy_up();
        Ok(())
    }
}

fn insert_node(tree: &mut Tree, ino: Ino, mut node: Node) {
    if tree.dying.contains(&ino.0) {
        return;
    }
    node.used = tree.tick;
    tree.nodes.add(ino.0, node);
}

/// Commits at the interval, checkpoints when the log is long, and collects
/// garbage when there is enough of it.
fn committer(inner: &Inner) {
    while !inner.stop.load(Ordering::SeqCst) {
        {
            let mut wake = inner.wake.0.lock();
            if !*wake {
                inner
                    .wake
                    .1
                    .wait_for(&mut wake, inner.options.commit_interval);
            }
            *wake = false;
        }
        inner.look_at_space();
        if !inner.has_only_spare_chunks()
            && let Err(error) = inner.commit(false)
        {
            tracing::warn!(%error, "a commit failed; it is tried again");
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        inner.trim();
        if let Err(error) = inner.housekeeping() {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
    }
}

impl Inner {
    /// Commits, unless nothing waits for it but chunks that nothing names yet:
    /// a cut that is about to name them writes their rows once, with their
    /// references, instead of rows and references one after the other.
    pub(crate) fn commit_changes(&self) -> Result<()> {
        if self.has_only_spare_chunks() {
            return Ok(());
        }
        self.commit(false)
    }

    /// Whether nothing waits for a commit but chunks that nothing names yet, such
    /// as those of a batch that is on its way: the commit that names them syncs
    /// them and writes their rows, all at once.
    fn has_only_spare_chunks(&self) -> bool {
        let waiting = self.chunks.pending_count();
        if waiting == 0 || waiting > SPARE_CHUNKS_MAX {
            return false;
        }
        let tree = self.tree.lock();
        tree.is_clean() && tree.direct.is_empty()
    }

    /// Takes space for chunks that come from elsewhere. They may come faster than
    /// the disk is looked at, so what is taken counts until it is again.
    pub(crate) fn take_space(&self, bytes: u64) -> Result<()> {
        let take = |spare: u64| spare.checked_sub(bytes);
        let taken = || {
            let spare = &self.faults.spare;
            spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        };
        if taken().is_err() {
            self.look_at_space();
            taken().map_err(|_| FsError::NoSpace)?;
        }
        Ok(())
    }

    fn look_at_space(&self) {
        let Some(path) = self.chunks.files.home().path() else {
            self.faults.spare.store(u64::MAX, Ordering::Relaxed);
            return;
        };
        if let Ok(stat) = rustix::fs::statvfs(path) {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let all = stat.f_blocks.saturating_mul(stat.f_frsize);
            let reserve = self.options.reserve_bytes.min(all / 8);
            self.faults.full.store(free < reserve, Ordering::Relaxed);
            let spare = free.saturating_sub(reserve);
            self.faults.spare.store(spare, Ordering::Relaxed);
        }
    }

    /// Moves the write-ahead log into the database.
    fn checkpoint(&self) -> Result<()> {
        let db = self.db.writer();
        self.make_durable()?;
        self.db.checkpoint(&db)
    }

    fn housekeeping(&self) -> Result<()> {
        /// A longer log makes reads of the database slower.
        const WAL_MAX: u64 = 16 << 20;
        /// Space worth collecting by itself.
        const DEAD_MAX: u64 = 64 << 20;
        if self.db.wal_len() > WAL_MAX {
            self.checkpoint()?;
        }
        if self.waste.is_due() {
            let _commit = self.db.writer();
            self.make_durable()?;
        }
        if self.dead_bytes.load(Ordering::Relaxed) > DEAD_MAX {
            self.collect_garbage()?;
        }
        self.make_space()
    }

    /// On a disk that is nearly full every byte counts, also those of chunks that
    /// came for what was never committed.
    fn make_space(&self) -> Result<()> {
        let spare = self.faults.spare.load(Ordering::Relaxed);
        if spare < NEARLY_FULL && self.dead_bytes.load(Ordering::Relaxed) > 0 {
            self.commit(false)?;
            self.collect_garbage()?;
        }
        Ok(())
    }
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanos = u32::try_from(t.tv_nsec).unwrap_or(0);
    Timestamp::new(t.tv_sec, nanos).unwrap_or(Timestamp::EPOCH)
}

/// A node as it is made.
pub(crate) fn new_node(
    kind: NodeKind,
    perm: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    body: Body,
) -> Node {
    let now = now();
    Node {
        kind,
        id: None,
        perm: perm & 0o7777,
        uid,
        gid,
        rdev,
        nlink: if kind == NodeKind::Dir { 2 } else { 1 },
        times: Times {
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        },
        xattrs: None,
        body,
        born: 0,
        meta_ver: 0,
        data_ver: 0,
        state: Persist::default(),
        holds: 0,
        writers: 0,
        used: 0,
    }
}

/// The body of a new, empty directory: all of its entries are known.
pub(crate) fn new_dir(parent: Ino) -> Body {
    Body::Dir(DirBody {
        parent: parent.0,
        complete: true,
        ..DirBody::default()
    })
}
