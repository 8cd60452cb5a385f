//! The working tree of a hub gives way to pushes. It follows its own hub as any
//! replica does, which is a third of the work of a hub that somebody pushes a
//! tree to, and takes the commit lock meanwhile. So while large batches come it
//! is told of nothing, for a while; unless somebody waits for it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A batch of so many edits is large, and so is one that brings so many chunks.
/// What programs do, one command after the other, is less.
const LARGE: usize = 4_096;
/// How long nothing has to come: less than this passes between two batches.
const QUIET: Duration = Duration::from_millis(250);
/// How long the working tree waits at most.
const LONGEST: Duration = Duration::from_secs(1);

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When something of a large batch came last.
    last: Option<Instant>,
    /// Since when the working tree waits.
    since: Option<Instant>,
    /// Somebody waits for the working tree.
    awaited: bool,
}

impl Pace {
    /// Something of this many edits or chunks came.
    pub(super) fn came(&self, count: usize) {
        if count >= LARGE {
            self.state.lock().last = Some(Instant::now());
        }
    }

    /// More of the batch that came last did.
    pub(super) fn goes_on(&self) {
        let mut state = self.state.lock();
        if state.last.is_some() {
            state.last = Some(Instant::now());
        }
    }

    /// Waits until the working tree may be told.
    pub(super) fn wait(&self) {
        let mut state = self.state.lock();
        while let Some(last) = state.last.filter(|_| !state.awaited) {
            let now = Instant::now();
            let since = *state.since.get_or_insert(now);
            let until = (last + QUIET).min(since + LONGEST);
            if until <= now {
                break;
            }
            self.changed.wait_until(&mut state, until);
        }
        (state.last, state.since) = (None, None);
    }

    /// The working tree waits no more, until it has been told of everything.
    pub(super) fn hurry(&self) {
        self.state.lock().awaited = true;
        self.changed.notify_all();
    }

    /// The working tree was told of everything.
    pub(super) fn told(&self) {
        self.state.lock().awaited = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_awaited_does_not_wait() {
        let pace = Pace::default();
        pace.wait();
        pace.goes_on();
        pace.came(LARGE - 1);
        assert!(pace.state.lock().last.is_none());
        pace.came(LARGE);
        pace.hurry();
        pace.wait();
        pace.told();
        assert!(!pace.state.lock().awaited);
        // One that waits already goes on, and nothing of the wait is left.
        pace.came(LARGE);
        std::thread::scope(|scope| {
            scope.spawn(|| pace.wait());
            pace.hurry();
        });
        let state = pace.state.lock();
        assert!(state.last.is_none() && state.since.is_none());
    }
}
