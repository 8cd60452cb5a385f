//! The replica for callers in a tokio runtime.
//!
//! Every operation runs on the runtime's pool for blocking work, as those of
//! `tokio::fs` do. That holds for a look at an attribute too: it is mostly in
//! memory, but any operation may have to read the database, or wait for a
//! commit while much is being written. The way to the pool and back costs some
//! ten microseconds; [`AsyncReplica::run`] pays it once for many operations.
//!
//! This file owns the handle, what concerns the whole replica, and streams;
//! `paths`, `attributes` and `inodes` have the operations on one file or
//! directory.

mod attributes;
mod inodes;
mod paths;

use std::collections::VecDeque;
use std::path::Path;

use cairn_protocol::{Cursor, Ver};
use tokio::runtime::Handle;

use crate::attr::{Ino, StatFs};
use crate::changes::{Changes, CursorError};
use crate::check::CheckReport;
use crate::gc::{GcReport, Usage};
use crate::options::Options;
use crate::path::DirEntry;
use crate::replica::Replica;
use crate::{FsError, OpenError, Result};

/// Entries of a directory that [`ReadDir`] reads at a time.
const ENTRIES: usize = 512;

/// A [`Replica`] whose operations are futures. Cheap to clone: all clones are
/// the same replica, and so are [`Self::blocking`] and what it is made from.
///
/// The methods have the names and the meaning of those of [`Replica`]; where
/// there is none for an operation, [`Self::run`] reaches it.
///
/// It needs a tokio runtime of either flavour, with no feature but `rt`. The
/// last handle that goes closes the replica, and blocks until everything is on
/// the disk: in a task, use [`Self::close`].
///
/// # Examples
///
/// ```
/// use cairn_engine::AsyncReplica;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let replica = AsyncReplica::in_memory().await?;
/// replica.mkdir_all("/src").await?;
/// replica.write_file("/src/main.rs", "fn main() {}").await?;
/// assert_eq!(replica.read_file("/src/main.rs").await?, b"fn main() {}");
///
/// // Tasks share it.
/// let other = replica.clone();
/// let task = tokio::spawn(async move { other.append_file("/src/main.rs", "\n").await });
/// assert_eq!(task.await??, 12);
/// replica.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncReplica {
    replica: Replica,
}

impl From<Replica> for AsyncReplica {
    fn from(replica: Replica) -> Self {
        Self { replica }
    }
}

/// The handle, and what concerns the whole replica.
impl AsyncReplica {
    /// Opens the replica in the directory `path`, as [`Replica::open`] does.
    ///
    /// # Errors
    ///
    /// As [`Replica::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`]: what was opened, or created, is closed again.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        let here = path.clone();
        let opened = blocking(move || Replica::open(here, options)).await;
        let replica = opened.map_err(|source| OpenError::Fs { path, source })??;
        Ok(replica.into())
    }

    /// A replica that lives in memory and ends with its last handle.
    ///
    /// # Errors
    ///
    /// As [`Replica::in_memory`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`]: the replica ends at once.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let opened = blocking(Replica::in_memory).await;
        let path = ":memory:".into();
        let replica = opened.map_err(|source| OpenError::Fs { path, source })??;
        Ok(replica.into())
    }

    /// Makes everything durable and lets this handle go, which closes the
    /// replica if it was the last one.
    ///
    /// # Errors
    ///
    /// As [`Replica::sync`]. The handle is gone all the same.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn close(self) -> Result<()> {
        let Self { replica } = self;
        blocking(move || replica.sync()).await?
    }

    /// The same replica, for code that may block.
    pub fn blocking(&self) -> &Replica {
        &self.replica
    }

    /// Runs `f` where it may block, and returns what it returns: for what has
    /// no method here, and for several operations in one go.
    ///
    /// # Errors
    ///
    /// What `f` returns. [`FsError::Io`] with a [`tokio::task::JoinError`] as
    /// its source's inner error when `f` panics, or does not run because the
    /// runtime shuts down; the same without one outside a runtime.
    ///
    /// # Cancel safety
    ///
    /// A future that was polled once has begun its operation, which then runs
    /// to its end whether or not the future is dropped: what is lost is the
    /// result. So an operation is never half done, and after a timeout its
    /// effect may still come. A future that was never polled does nothing. A
    /// runtime that shuts down may drop operations that have not begun.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::AsyncReplica;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replica = AsyncReplica::in_memory().await?;
    /// let size = replica
    ///     .run(|replica| {
    ///         replica.mkdir("/logs")?;
    ///         replica.write_file("/logs/today", b"started")?;
    ///         Ok(replica.stat("/logs/today")?.size)
    ///     })
    ///     .await?;
    /// assert_eq!(size, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Replica) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let replica = self.replica.clone();
        blocking(move || f(&replica)).await?
    }

    /// Returns when everything survives a power cut.
    ///
    /// # Errors
    ///
    /// As [`Replica::sync`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn sync(&self) -> Result<()> {
        self.run(Replica::sync).await
    }

    /// Commits without the promise of durability.
    ///
    /// # Errors
    ///
    /// As [`Replica::flush`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn flush(&self) -> Result<()> {
        self.run(Replica::flush).await
    }

    /// The cursor of the present state: pass it to [`Self::changes_since`].
    ///
    /// # Errors
    ///
    /// As [`Replica::cursor`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn cursor(&self) -> Result<Cursor> {
        self.run(Replica::cursor).await
    }

    /// What changed since `since`, or everything for `None`, in pages of about
    /// `page` changes. Nothing is read before the first page is asked for.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::AsyncReplica;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replica = AsyncReplica::in_memory().await?;
    /// let start = replica.cursor().await?;
    /// replica.write_file("/new", "content").await?;
    ///
    /// let mut pages = replica.changes_since(Some(start), 1_000);
    /// let mut next = start;
    /// while let Some(page) = pages.next_page().await? {
    ///     for change in page.changes {
    ///         println!("{change:?}");
    ///     }
    ///     next = page.next;
    /// }
    /// let mut pages = replica.changes_since(Some(next), 1_000);
    /// assert!(pages.next_page().await?.expect("a last page").changes.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "it reads when a page is asked for"]
    pub fn changes_since(&self, since: Option<Cursor>, page: usize) -> ChangePages {
        ChangePages {
            replica: self.clone(),
            since,
            limit: page.max(1),
            at: At::Start,
        }
    }

    /// Space and counts.
    ///
    /// # Errors
    ///
    /// As [`Replica::stat_fs`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn stat_fs(&self) -> Result<StatFs> {
        self.run(Replica::stat_fs).await
    }

    /// How much the replica holds.
    ///
    /// # Errors
    ///
    /// As [`Replica::usage`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn usage(&self) -> Result<Usage> {
        self.run(Replica::usage).await
    }

    /// Gives back what nothing needs. Runs by itself when there is much of it.
    ///
    /// # Errors
    ///
    /// As [`Replica::gc`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn gc(&self) -> Result<GcReport> {
        self.run(Replica::gc).await
    }

    /// Verifies the whole replica. `progress` is called, on another thread,
    /// with the bytes verified and the bytes to verify. Repairs nothing.
    ///
    /// # Errors
    ///
    /// As [`Replica::check`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`]: a check goes on to its end.
    pub async fn check(
        &self,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<CheckReport> {
        self.run(move |r| r.check(&mut progress)).await
    }
}

/// Runs `f` on the pool for blocking work.
async fn blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    // `tokio::task::spawn_blocking` would panic without a runtime.
    let runtime = Handle::try_current()
        .map_err(|e| stopped("an operation was started outside a tokio runtime", e))?;
    runtime.spawn_blocking(f).await.map_err(|e| {
        let why = if e.is_panic() {
            "an operation panicked"
        } else {
            "the tokio runtime shuts down"
        };
        stopped(why, e)
    })
}

/// A name or a path that an operation takes along.
fn owned(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes.as_ref().to_vec()
}

fn stopped(why: &str, source: impl std::error::Error + Send + Sync + 'static) -> FsError {
    FsError::io(why, std::io::Error::other(source))
}

/// The entries of a directory, one by one; see [`AsyncReplica::read_dir`].
///
/// Memory holds some hundred entries at a time. The order is stable; what comes
/// and goes meanwhile may be seen or not.
#[derive(Debug)]
pub struct ReadDir {
    replica: AsyncReplica,
    dir: Ino,
    /// Entries that were read and not handed out.
    ready: VecDeque<DirEntry>,
    /// Where the next page starts; `None` after the last.
    after: Option<u64>,
}

impl ReadDir {
    fn new(replica: AsyncReplica, dir: Ino) -> Self {
        Self {
            replica,
            dir,
            ready: VecDeque::new(),
            after: Some(0),
        }
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Replica::read_dir`].
    ///
    /// # Cancel safety
    ///
    /// No entry is lost: the next call returns what this one would have.
    pub async fn next_entry(&mut self) -> Result<Option<DirEntry>> {
        while self.ready.is_empty()
            && let Some(after) = self.after
        {
            let dir = self.dir;
            let page = self.replica.run(move |r| page(r, dir, after)).await?;
            self.after = (page.len() >= ENTRIES)
                .then(|| page.back().map(|e| e.cookie))
                .flatten();
            self.ready = page;
        }
        Ok(self.ready.pop_front())
    }
}

/// Entries of a directory after a cookie: [`ENTRIES`], or all that are left.
fn page(replica: &Replica, dir: Ino, after: u64) -> Result<VecDeque<DirEntry>> {
    let mut entries = VecDeque::new();
    replica.read_dir(dir, after, &mut |e| {
        entries.push_back(DirEntry {
            name: e.name.to_vec(),
            attr: *e.attr,
            cookie: e.cookie,
        });
        entries.len() < ENTRIES
    })?;
    Ok(entries)
}

/// Changes, a page at a time; see [`AsyncReplica::changes_since`].
///
/// All pages belong to one cut: the state when the first was asked for.
#[derive(Debug)]
pub struct ChangePages {
    replica: AsyncReplica,
    since: Option<Cursor>,
    limit: usize,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Start,
    Inside { cut: Cursor, resume: Ver },
    End,
}

impl ChangePages {
    /// The next page, or `None` after the last. There is always a first one,
    /// even if it is empty. The last one, and only that, has `more` unset, and
    /// its `next` is the cursor to go on from.
    ///
    /// # Errors
    ///
    /// [`CursorError`], as [`Replica::changes_page`]. The next call tries again.
    ///
    /// # Cancel safety
    ///
    /// No page is lost: the next call reads it again.
    pub async fn next_page(&mut self) -> Result<Option<Changes>, CursorError> {
        let (cut, resume) = match self.at {
            At::Start => (None, 0),
            At::Inside { cut, resume } => (Some(cut), resume),
            At::End => return Ok(None),
        };
        let (replica, since, limit) = (self.replica.replica.clone(), self.since, self.limit);
        let read = move || replica.changes_page(since.as_ref(), cut.as_ref(), resume, limit);
        let page = blocking(read).await??;
        self.at = if page.more {
            At::Inside {
                cut: page.next,
                resume: page.resume,
            }
        } else {
            At::End
        };
        Ok(Some(page))
    }
}
