//! Hubs that take no batches for a while: their disks are full, they are busy,
//! they find fault with what is pushed, or let nobody in but to read. What a hub
//! has committed it answers again, whatever it is like (EDT-5).
//!
//! When these worlds choose from a stream of their own, so a seed is the same
//! world without them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Failure, World};
use crate::session::{HubAction, HubDone, Store, StoreFailure};
use crate::testing::rng::Rng;
use crate::testing::subject::{HubSubject, MiddleSubject, ReplicaSubject};
use crate::wire::Code;

/// What hubs are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    /// They take batches.
    #[default]
    Takes,
    /// Who comes now may only read.
    ReadOnly,
    /// They have no space.
    Full,
    /// They say when to come again, each time.
    Busy,
    /// They refuse without a word of hope.
    Never,
}

/// The moods of the hubs of a world: all have the same.
#[derive(Clone, Debug)]
pub(super) struct Moods {
    rng: Rng,
    mood: Arc<Mutex<Mood>>,
}

impl Moods {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed.rotate_left(32) ^ 0x5eed),
            mood: Arc::default(),
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// A hub's end of a connection, with these moods.
    pub(super) fn over(&self, hub: Arc<dyn Store<HubAction, HubDone>>) -> Arc<Moody> {
        Arc::new(Moody {
            hub,
            mood: Arc::clone(&self.mood),
            last: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
        })
    }
}

/// A hub with moods, as one connection has it.
pub(super) struct Moody {
    hub: Arc<dyn Store<HubAction, HubDone>>,
    mood: Arc<Mutex<Mood>>,
    /// The last batch that it committed for the client.
    last: AtomicU64,
    /// The client may only read.
    pub(super) read_only: AtomicBool,
}

impl std::fmt::Debug for Moody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moody").finish_non_exhaustive()
    }
}

impl Moody {
    /// Why it does not do this.
    fn refusal(&self, action: &HubAction) -> Option<StoreFailure> {
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last.load(Ordering::Relaxed);
        let (code, retry_after_ms) = match (mood, action) {
            (_, HubAction::Commit { batch, .. }) if *batch <= last => return None,
            (Mood::Full, HubAction::Commit { .. } | HubAction::Store { .. }) => {
                (Code::QUOTA, 5_000)
            }
            (Mood::Busy, HubAction::Commit { .. }) => (Code::BUSY, 500),
            (Mood::Never, HubAction::Commit { .. }) => (Code::MALFORMED, 0),
            _ => return None,
        };
        Some(StoreFailure {
            code,
            detail: format!("the hub is in a mood: {mood:?}"),
            retry_after_ms,
        })
    }
}

impl Store<HubAction, HubDone> for Moody {
    fn perform(&self, action: HubAction) -> HubDone {
        if let Some(refusal) = self.refusal(&action) {
            return HubDone::Failed(refusal);
        }
        let mut done = self.hub.perform(action);
        match &mut done {
            HubDone::Admitted(admission) => {
                let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
                self.last.store(admission.last_batch, Ordering::Relaxed);
                if mood == Mood::ReadOnly {
                    admission.may_push = false;
                    self.read_only.store(true, Ordering::Relaxed);
                }
            }
            HubDone::Committed { ack, .. } => self.last.store(ack.batch, Ordering::Relaxed),
            _ => {}
        }
        done
    }

    fn on_news(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        self.hub.on_news(wake)
    }
}

impl<H: HubSubject, R: ReplicaSubject, M: MiddleSubject> World<H, R, M> {
    /// Hubs change their mood now and then.
    pub(super) fn change_mood(&mut self) {
        let Some(moods) = &mut self.moods else {
            return;
        };
        if !moods.rng.once_in(25) {
            return;
        }
        let choices = [Mood::ReadOnly, Mood::Full, Mood::Busy, Mood::Never];
        let mood = if moods.rng.once_in(3) {
            Mood::Takes
        } else {
            choices[moods.rng.below(choices.len())]
        };
        self.set_mood(mood);
    }

    /// A client whose connection was cut comes again at once, and is refused while
    /// what it said before is still on its way.
    pub(super) fn overtake(&mut self, who: usize) {
        let Some(moods) = &mut self.moods else {
            return;
        };
        if moods.rng.once_in(2) && !self.is_connected(who) {
            self.set_mood(Mood::ReadOnly);
            self.connect(who);
        }
    }

    fn set_mood(&mut self, mood: Mood) {
        if let Some(moods) = &self.moods {
            moods.set(mood);
            self.tell(|| format!("hubs are in the mood {mood:?}"));
        }
    }

    /// Hubs take nothing for good, and nothing else goes wrong: everybody comes to
    /// have what they have (SES-22).
    pub(super) fn follow_refusing(&mut self) -> Result<(), Failure> {
        let Some(moods) = &mut self.moods else {
            return Ok(());
        };
        let choices = [Mood::Full, Mood::Never, Mood::ReadOnly, Mood::Busy];
        let mood = choices[moods.rng.below(choices.len())];
        moods.set(mood);
        self.tell(|| format!("nothing goes wrong, but hubs are in the mood {mood:?}"));
        let (from, mut steps) = (self.now, 0);
        loop {
            for who in 0..self.clients() {
                self.connect(who);
            }
            let behind = self.behind();
            if behind.is_none() && self.can().is_empty() {
                break;
            }
            self.happen()?;
            self.reap()?;
            steps += 1;
            if self.is_late(from) || steps > 200_000 {
                let what = behind.unwrap_or_default();
                return Err(format!("who is refused does not follow: {what}"));
            }
        }
        Ok(())
    }

    /// Who does not have what his hub has.
    fn behind(&self) -> Option<Failure> {
        (0..self.clients()).find_map(|who| {
            let (cursor, tree) = self.confirmed(who)?;
            let behind = tree != self.hub_view(self.hub_of(who));
            behind.then(|| format!("client {who} is at {}", cursor.seq))
        })
    }

    /// Hubs take batches again. What a token permits does not change while a
    /// connection lasts.
    pub(super) fn cheer_up(&mut self) {
        let Some(moods) = &self.moods else {
            return;
        };
        moods.set(Mood::Takes);
        self.connections.retain(|c| {
            let store = c.moody.as_ref();
            !store.is_some_and(|store| store.read_only.load(Ordering::Relaxed))
        });
    }

    /// Whether nothing goes wrong for longer than it may take to come to rest.
    pub(super) fn is_late(&self, from: Duration) -> bool {
        // What was refused is pushed again after 10 minutes at the latest.
        let patience = if self.moods.is_some() { 25 } else { 10 };
        self.now.saturating_sub(from) > Duration::from_mins(patience)
    }
}
