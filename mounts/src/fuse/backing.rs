//! Files that the kernel reads and writes itself (FUSE passthrough).
//!
//! Which may be is decided by [`super::opens`] and the engine; here is only what the kernel must
//! be told: each file underneath is registered once, for as long as it may be handed out.
//!
//! A large file gains by it, a small one loses: it costs more to set up than the few requests it
//! saves. Nobody knows how large a new file will be, so only some are tried: [`Chances`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::Direct;
use fuser::BackingId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// The files registered with the kernel, by their number: at most those in use and the few that
/// the engine keeps for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Backings {
    registered: Mutex<FxHashMap<u64, Arc<BackingId>>>,
    /// The kernel knows passthrough, and has not refused a file.
    usable: AtomicBool,
    chances: Mutex<Chances>,
}

impl Backings {
    /// The kernel agreed to passthrough.
    pub(crate) fn allow(&self) {
        self.usable.store(true, Ordering::Relaxed);
    }

    /// Whether to try with a file that may be large enough.
    pub(crate) fn usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    /// Whether to try with a new file.
    pub(crate) fn try_one(&self) -> bool {
        self.usable() && self.chances.lock().take(Instant::now())
    }

    /// The registration of a file, made with `register` if there is none. Where the kernel
    /// refuses, as it does without `CAP_SYS_ADMIN` or over a stacked filesystem, no other is tried.
    pub(crate) fn of(
        &self,
        file: &Direct,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if let Some(known) = self.registered.lock().get(&file.id()) {
            return Some(Arc::clone(known));
        }
        match register(file.as_fd()) {
            Ok(id) => {
                let id = Arc::new(id);
                self.registered.lock().insert(file.id(), Arc::clone(&id));
                Some(id)
            }
            Err(error) => {
                self.usable.store(false, Ordering::Relaxed);
                tracing::info!(%error, "no passthrough: large new files are slower to write");
                None
            }
        }
    }

    /// A file is not handed out any more: as a rule because it became large.
    pub(crate) fn forget(&self, id: u64) {
        self.registered.lock().remove(&id);
        self.chances.lock().pay_back();
    }
}

/// A new chance comes so often: a program that makes thousands of small files a second does not
/// notice the few it meets, and one that writes a large file now and then meets one each time.
const CHANCE_EVERY: Duration = Duration::from_millis(20);
/// Chances that wait at most.
const CHANCES_MAX: u32 = 4;

/// How many new files may be tried now.
#[derive(Debug)]
struct Chances {
    left: u32,
    /// When the last one came.
    since: Instant,
}

impl Default for Chances {
    fn default() -> Self {
        Self {
            left: CHANCES_MAX,
            since: Instant::now(),
        }
    }
}

impl Chances {
    fn take(&mut self, now: Instant) -> bool {
        let came = now.saturating_duration_since(self.since).as_millis() / CHANCE_EVERY.as_millis();
        if came > 0 {
            let came = u32::try_from(came).unwrap_or(CHANCES_MAX);
            self.left = self.left.saturating_add(came).min(CHANCES_MAX);
            self.since = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    fn pay_back(&mut self) {
        self.left = (self.left + 1).min(CHANCES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_run_out_and_come_back() {
        let mut chances = Chances::default();
        let start = chances.since;
        let taken = (0..1_000).filter(|_| chances.take(start)).count();
        assert_eq!(taken, 4);
        chances.pay_back();
        assert!(chances.take(start) && !chances.take(start));
        let later = start + CHANCE_EVERY;
        assert!(chances.take(later) && !chances.take(later));
        let much_later = start + CHANCE_EVERY * 1_000;
        let taken = (0..1_000).filter(|_| chances.take(much_later)).count();
        assert_eq!(taken, 4);
    }
}
