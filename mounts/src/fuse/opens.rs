//! Which files the kernel has open, and how.
//!
//! The engine keeps a file for as long as it is retained. The kernel says when it closes a file,
//! except when the connection ends under it; then what is left here is released.

use cairn_engine::Ino;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Open handles of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Handles opened for reading only.
    pub(crate) readers: u64,
    /// Handles opened for writing.
    pub(crate) writers: u64,
}

/// The open files of one mount: 25 bytes each, only while open.
#[derive(Debug, Default)]
pub(crate) struct Opens(Mutex<FxHashMap<Ino, Held>>);

impl Opens {
    /// A handle was opened.
    pub(crate) fn add(&self, ino: Ino, write: bool) {
        let mut opens = self.0.lock();
        let held = opens.entry(ino).or_default();
        *(if write { &mut held.writers } else { &mut held.readers }) += 1;
    }

    /// A handle was closed. False when it was not open.
    pub(crate) fn sub(&self, ino: Ino, write: bool) -> bool {
        let mut opens = self.0.lock();
        let Some(held) = opens.get_mut(&ino) else {
            return false;
        };
        let count = if write { &mut held.writers } else { &mut held.readers };
        let was_open = *count > 0;
        *count = count.saturating_sub(1);
        if *held == Held::default() {
            opens.remove(&ino);
        }
        was_open
    }

    /// Whether a handle of the file is open, so that it may be mapped.
    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }

    /// Takes all that is open.
    pub(crate) fn drain(&self) -> impl Iterator<Item = (Ino, Held)> + use<> {
        std::mem::take(&mut *self.0.lock()).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_counted_by_kind() {
        let opens = Opens::default();
        opens.add(Ino(5), true);
        opens.add(Ino(5), false);
        assert!(opens.sub(Ino(5), true));
        assert!(!opens.sub(Ino(5), true));
        assert!(opens.contains(Ino(5)));
        assert_eq!(
            opens.drain().collect::<Vec<_>>(),
            [(Ino(5), Held { readers: 1, writers: 0 })]
        );
        assert!(!opens.contains(Ino(5)));
    }
}
