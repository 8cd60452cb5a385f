//! Space that nothing names any more, and when it may be given back.
//!
//! The commit that stops naming a staging file is not durable at once. A power
//! cut would bring back the rows before it, and they need the file: so it goes
//! after a sync that made that commit durable, not after the commit.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::files::Files;

/// What waits this long is worth a sync of its own.
const WAIT: Duration = Duration::from_secs(1);
/// So is more than this many files.
const FILES_MAX: usize = 256;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Item {
    /// A staging file.
    Staging(u64),
    /// What a pack holds after its last chunk.
    Tail { pack: u64, len: u64 },
}

#[derive(Debug, Default)]
pub(crate) struct Waste(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With the number of the commit after which nothing names it.
    items: Vec<(u64, Item)>,
    since: Option<Instant>,
}

impl Waste {
    pub(crate) fn add(&self, commit: u64, items: impl IntoIterator<Item = Item>) {
        let mut state = self.0.lock();
        state.items.extend(items.into_iter().map(|i| (commit, i)));
        if !state.items.is_empty() {
            state.since.get_or_insert_with(Instant::now);
        }
    }

    /// Gives back what commits up to `durable` made waste.
    pub(crate) fn give_back(&self, files: &Files, durable: u64) {
        let mut state = self.0.lock();
        let (gone, kept) = std::mem::take(&mut state.items)
            .into_iter()
            .partition(|(commit, _)| *commit <= durable);
        state.items = kept;
        state.since = (!state.items.is_empty()).then(Instant::now);
        drop(state);
        for (_, item) in gone {
            match item {
                Item::Staging(id) => files.remove_staging(id),
                Item::Tail { pack, len } => files.cut_pack(pack, len),
            }
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        let state = self.0.lock();
        state.items.len() > FILES_MAX || state.since.is_some_and(|since| since.elapsed() > WAIT)
    }
}
