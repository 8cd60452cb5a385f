//! Which files the kernel has open, and how.
//!
//! The engine keeps a file for as long as it is retained. The kernel says when it closes a file,
//! except when the connection ends under it; then what is left here is released.

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::Ino;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// What the kernel adds to the flags of an open that begins the execution of the file: its
/// `FMODE_EXEC` (`include/linux/fs.h`). A program cannot give it.
const EXECUTE: i32 = 0x20;

/// What a handle was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading only.
    Read,
    /// Reading only, by the kernel, to execute the file. Such a handle is open for as long as a
    /// process executes it, and as parts of it are mapped.
    Execute,
    /// Writing, and maybe reading.
    Write,
}

impl Access {
    /// As the flags of the open say.
    pub(crate) fn of(flags: i32) -> Self {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            Self::Write
        } else if flags & EXECUTE != 0 {
            Self::Execute
        } else {
            Self::Read
        }
    }

    /// Whether it may write.
    pub(crate) fn writes(self) -> bool {
        self == Self::Write
    }
}

/// Open handles of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Handles opened for reading only.
    pub(crate) readers: u64,
    /// Of these, handles by which the file is executed.
    executing: u64,
    /// Handles opened for writing.
    pub(crate) writers: u64,
    /// Of all, handles whose reads and writes do not come here. The kernel allows no others
    /// beside them.
    pub(crate) direct: u64,
}

impl Held {
    /// The handles of a kind.
    fn of(&mut self, access: Access) -> &mut u64 {
        if access.writes() {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }
}

/// What a handle finds when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// No other handle of the file.
    None,
    /// Handles whose reads and writes come here.
    Ordinary,
    /// Handles whose reads and writes do not.
    Direct,
}

/// The open files of one mount: 41 bytes each, only while open.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    files: Mutex<FxHashMap<Ino, Held>>,
    /// Direct handles in all: mostly none, and then nothing is looked up.
    direct: AtomicU64,
}

impl Opens {
    /// A handle is opened. It is a direct one if `direct` gives something, which is asked with
    /// the table locked: two handles do not decide differently.
    pub(crate) fn add<T>(
        &self,
        ino: Ino,
        access: Access,
        direct: impl FnOnce(Beside) -> Option<T>,
    ) -> Option<T> {
        let mut files = self.files.lock();
        let held = files.entry(ino).or_default();
        let direct = direct(match *held {
            Held { direct: 1.., .. } => Beside::Direct,
            Held {
                readers: 0,
                writers: 0,
                ..
            } => Beside::None,
            Held { .. } => Beside::Ordinary,
        });
        *held.of(access) += 1;
        held.executing += u64::from(access == Access::Execute);
        if direct.is_some() {
            held.direct += 1;
            self.direct.fetch_add(1, Ordering::Relaxed);
        }
        direct
    }

    /// A direct handle becomes an ordinary one.
    pub(crate) fn make_ordinary(&self, ino: Ino) {
        if let Some(held @ Held { direct: 1.., .. }) = self.files.lock().get_mut(&ino) {
            held.direct -= 1;
            self.direct.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether a file has direct handles.
    pub(crate) fn is_direct(&self, ino: Ino) -> bool {
        self.direct.load(Ordering::Relaxed) > 0
            && self
                .files
                .lock()
                .get(&ino)
                .is_some_and(|held| held.direct > 0)
    }

    /// Whether a handle is open by which the file is executed.
    pub(crate) fn is_executed(&self, ino: Ino) -> bool {
        let files = self.files.lock();
        files.get(&ino).is_some_and(|held| held.executing > 0)
    }

    /// A handle was closed, which is an ordinary one by now. False when it was not open.
    pub(crate) fn sub(&self, ino: Ino, access: Access) -> bool {
        let mut opens = self.files.lock();
        let Some(held) = opens.get_mut(&ino) else {
            return false;
        };
        let count = held.of(access);
        let was_open = *count > 0;
        *count = count.saturating_sub(1);
        let executing = u64::from(access == Access::Execute);
        held.executing = held.executing.saturating_sub(executing);
        if *held == Held::default() {
            opens.remove(&ino);
        }
        was_open
    }

    /// Whether a handle of the file is open, so that it may be mapped.
    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.files.lock().contains_key(&ino)
    }

    /// Takes all that is open.
    pub(crate) fn drain(&self) -> impl Iterator<Item = (Ino, Held)> + use<> {
        self.direct.store(0, Ordering::Relaxed);
        std::mem::take(&mut *self.files.lock()).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_counted_by_kind() {
        let opens = Opens::default();
        let ordinary = |access| opens.add(Ino(5), access, |_| None::<()>);
        ordinary(Access::Write);
        ordinary(Access::Read);
        assert!(opens.sub(Ino(5), Access::Write));
        assert!(!opens.sub(Ino(5), Access::Write));
        assert!(opens.contains(Ino(5)));
        assert_eq!(
            opens.drain().collect::<Vec<_>>(),
            [(
                Ino(5),
                Held {
                    readers: 1,
                    ..Held::default()
                }
            )]
        );
        assert!(!opens.contains(Ino(5)));
    }

    #[test]
    fn a_file_is_executed_until_the_last_such_handle_is_closed() {
        let opens = Opens::default();
        for access in [Access::Execute, Access::Execute, Access::Read] {
            assert_eq!(opens.add(Ino(5), access, |_| None::<()>), None);
        }
        assert!(opens.is_executed(Ino(5)) && !opens.is_executed(Ino(6)));
        assert!(opens.sub(Ino(5), Access::Execute));
        assert!(opens.is_executed(Ino(5)));
        assert!(opens.sub(Ino(5), Access::Execute));
        assert!(!opens.is_executed(Ino(5)));
        assert!(opens.sub(Ino(5), Access::Read));
        assert!(!opens.contains(Ino(5)));
    }

    #[test]
    fn direct_handles_stay_among_themselves() {
        let opens = Opens::default();
        assert_eq!(opens.add(Ino(5), Access::Write, Some), Some(Beside::None));
        assert_eq!(opens.add(Ino(5), Access::Read, Some), Some(Beside::Direct));
        assert!(opens.is_direct(Ino(5)) && !opens.is_direct(Ino(6)));
        opens.make_ordinary(Ino(5));
        opens.make_ordinary(Ino(5));
        assert!(!opens.is_direct(Ino(5)));
        assert_eq!(
            opens.add(Ino(5), Access::Read, Some),
            Some(Beside::Ordinary)
        );
    }
}
