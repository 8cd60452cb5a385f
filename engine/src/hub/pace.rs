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
/// How long the working tree waits at most. It holds nothing meanwhile; but what it
/// pushes next has to wait for what it is told, so it is in a hurry when it pushes.
const LONGEST: Duration = Duration::from_secs(1);

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    quiet: Duration,
    longest: Duration,
    /// When something of a large batch came last.
    last: Option<Instant>,
    /// Since when the working tree waits.
    since: Option<Instant>,
    /// Somebody waits for the working tree.
    awaited: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            quiet: QUIET,
            longest: LONGEST,
            last: None,
            since: None,
            awaited: false,
        }
    }
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
            let until = (last + state.quiet).min(since + state.longest);
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
    use std::sync::Arc;

    use cairn_protocol::session::{HubAction, HubDone, Store};
    use cairn_protocol::wire::{Capabilities, Ext, Hello, Limits, Role, Start, Text, Token};
    use cairn_protocol::{ChunkHash, ReplicaTag};

    use super::*;
    use crate::hub::{Access, Hub, HubSession};
    use crate::replica::Replica;

    fn follower(hub: &Hub, tag: u64) -> HubSession {
        let session = hub.session(Arc::new(|_| Ok(Access::Write)));
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            role: Role::Client,
            workspace: [0; 16],
            replica: ReplicaTag(tag),
            token: Token::default(),
            capabilities: Capabilities::default(),
            limits: Limits::OURS,
            agent: Text::default(),
            ext: Ext::default(),
        };
        session.perform(HubAction::Admit(Box::new(hello)));
        let from = Start::Nothing;
        let done = session.perform(HubAction::Subscribe { from });
        assert_eq!(done, HubDone::Subscribed(Ok(0)));
        session
    }

    /// Pushes were seen to stall for as long as the working tree may wait: those of
    /// the working tree itself, which has to be told of one before the next.
    #[test]
    fn the_working_tree_that_gives_way_holds_nothing_up() {
        let replica = Replica::in_memory().unwrap();
        let hub = Hub::open(&replica).unwrap();
        let pace = &replica.inner.watchers.pace;
        let own = follower(&hub, replica.inner.identity.tag);
        let other = follower(&hub, 1);
        let for_ever = Duration::from_hours(24);
        (pace.state.lock().quiet, pace.state.lock().longest) = (for_ever, for_ever);
        let chunks = (0..LARGE).map(|n| ChunkHash::of(&n.to_le_bytes()));
        let chunks = chunks.collect();
        other.perform(HubAction::Offer { chunks });
        let commit = |session: &HubSession, batch| {
            let edits = Vec::new();
            let done = session.perform(HubAction::Commit { batch, edits });
            assert!(matches!(done, HubDone::Committed { .. }), "{done:?}");
        };
        let feed = |session: &HubSession| {
            let (after, max) = (0, 10);
            match session.perform(HubAction::Feed { after, max }) {
                HubDone::Page { cut, .. } => cut.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        std::thread::scope(|scope| {
            let told = scope.spawn(|| feed(&own));
            while pace.state.lock().since.is_none() {
                std::thread::yield_now();
            }
            // Others push and are told, as if nobody waited.
            commit(&other, 1);
            let cursor = feed(&other);
            other.perform(HubAction::Applied { cursor });
            assert_eq!(hub.prune().unwrap(), 0);
            assert!(!told.is_finished());
            // It pushes itself: now it is told, too.
            commit(&own, 1);
            assert_eq!(told.join().unwrap().seq, 2);
        });
    }

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
