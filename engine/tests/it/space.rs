//! The disk under a world. It is that of the temporary directory, which has to
//! have space: a world knows nothing of operations that are refused for want of
//! it, and would take what a program could not write for something that was lost.
//! Or it is a small disk that is full now and then, see `tight`.

use std::cell::RefCell;
use std::sync::Arc;

use cairn_engine::{FsError, Options};
use cairn_protocol::session::{ClientDone, HubDone, Store, StoreFailure};
use cairn_protocol::wire::Code;

use crate::full_disk::Disk;
use crate::support::{Rng, quiet};

thread_local! {
    /// The small disk of the world that this thread runs.
    static SMALL: RefCell<Option<Small>> = const { RefCell::new(None) };
}

/// A disk that is full so many times.
pub(crate) struct Small {
    disk: Disk,
    rng: Rng,
    times: u64,
    full: bool,
    refusals: u64,
}

impl Small {
    pub(crate) fn new(disk: Disk, seed: u64, times: u64) -> Self {
        Self {
            disk,
            rng: Rng::new(seed),
            times,
            full: false,
            refusals: 0,
        }
    }

    /// Puts the worlds of this thread on it.
    pub(crate) fn begin(self) {
        SMALL.set(Some(self));
    }
}

/// Ends that. Returns how often something was refused.
pub(crate) fn end() -> u64 {
    SMALL.take().map_or(0, |small| small.refusals)
}

/// The small disk, if there is one.
fn small<T>(look: impl FnOnce(&mut Small) -> T) -> Option<T> {
    SMALL.with_borrow_mut(|small| small.as_mut().map(look))
}

/// A directory for what a world has on its disk.
pub(crate) fn dir() -> tempfile::TempDir {
    let here = small(|small| tempfile::tempdir_in(small.disk.path()));
    here.unwrap_or_else(tempfile::tempdir).unwrap()
}

/// No commit but those that are asked for. On a small disk some replicas hold no
/// space back, so that it may end in the middle of whatever they write.
pub(crate) fn options() -> Options {
    let reserve_bytes = small(|small| match small.rng.below(4) {
        0 => Options::default().reserve_bytes,
        _ => 0,
    });
    let options = quiet(Options::default());
    Options {
        reserve_bytes: reserve_bytes.unwrap_or(options.reserve_bytes),
        ..options
    }
}

/// The small disk may become full, or have a little more or less space.
pub(crate) fn maybe_fill() {
    small(|small| {
        if small.times > 0 && small.rng.chance(40) {
            small.times -= 1;
            small.fill();
        }
    });
}

/// The small disk is as full as it may be at some other time.
pub(crate) fn fill_otherwise() {
    small(Small::fill);
}

impl Small {
    fn fill(&mut self) {
        const PAGE: u64 = 4_096;
        let most = [1, 4, 12, 40][self.rng.index(4)];
        self.disk.leave(self.rng.below(most) * PAGE);
        self.full = true;
    }
}

/// There is space again.
pub(crate) fn relieve() {
    small(|small| {
        if std::mem::take(&mut small.full) {
            small.disk.relieve();
        }
    });
}

/// A number below `n` of the stream of the small disk, 0 without one.
pub(crate) fn random(n: u64) -> u64 {
    small(|small| small.rng.below(n)).unwrap_or(0)
}

/// Whether a failure may be one for want of space, as the disk is full. It counts.
pub(crate) fn is_excuse(failure: &StoreFailure) -> bool {
    let codes = [Code::QUOTA, Code::INTERNAL];
    let for_space = codes.contains(&failure.code) && !failure.detail.contains("damaged");
    small(|small| {
        small.refusals += u64::from(small.full && for_space);
        small.full && for_space
    }) == Some(true)
}

/// Does what has to be possible when there is space.
#[track_caller]
pub(crate) fn patiently<T>(mut what: impl FnMut() -> Result<T, FsError>) -> Result<T, FsError> {
    let full = small(|small| small.full) == Some(true);
    match what() {
        Err(FsError::NoSpace | FsError::Db(_)) if full => {
            relieve();
            what()
        }
        Err(FsError::NoSpace) => panic!("{NO_SPACE}"),
        done => done,
    }
}

const NO_SPACE: &str = "the disk of the temporary directory is full: nothing can be said of \
                        this world; free some space, or set TMPDIR";

/// What a store answers, whoever's it is.
pub(crate) trait Answer: Sized {
    fn failure(&self) -> Option<&StoreFailure>;
    fn failed(why: StoreFailure) -> Self;
}

impl Answer for ClientDone {
    fn failure(&self) -> Option<&StoreFailure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn failed(why: StoreFailure) -> Self {
        Self::Failed(why)
    }
}

impl Answer for HubDone {
    fn failure(&self) -> Option<&StoreFailure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn failed(why: StoreFailure) -> Self {
        Self::Failed(why)
    }
}

/// A store that has space, or the test ends with a word of it.
struct WithSpace<S>(Arc<S>);

/// The store of a world on a disk with space, which it has to be: see the head.
/// On a small disk it is left as it is.
pub(crate) fn with_space<A: 'static, D: Answer + 'static>(
    store: Arc<impl Store<A, D> + 'static>,
) -> Arc<dyn Store<A, D>> {
    if small(|_| ()).is_some() {
        return store;
    }
    Arc::new(WithSpace(store))
}

impl<A, D: Answer, S: Store<A, D>> Store<A, D> for WithSpace<S> {
    fn perform(&self, action: A) -> D {
        let done = self.0.perform(action);
        if let Some(failure) = done.failure() {
            assert!(failure.code != Code::QUOTA, "{NO_SPACE}: {failure}");
        }
        done
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.0.on_news(wake)
    }
}
