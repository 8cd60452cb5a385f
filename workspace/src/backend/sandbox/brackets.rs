//! Brackets that are open: execs whose changes may not be in the workspace yet.
//!
//! A bracket is noted before its command is started, and struck out when what the
//! command changed is here. What is left by a process that was killed is taken up
//! by the next one. The changes come with sync in any case; the note is what lets
//! the workspace say whether they have.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::exec::ExecId;

/// The directory of the notes, in that of the backend.
const DIRECTORY: &str = "pending";

/// How far an exec is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// An earlier process or connection left it.
    Left,
    /// It runs, or may.
    Running,
    /// It has ended.
    Ended,
}

/// A note: the daemon's replica, and how far the exec is.
#[derive(Clone, Copy, Debug)]
struct Note {
    store: u64,
    stage: Stage,
}

/// The brackets of a sandbox.
#[derive(Debug)]
pub(super) struct Brackets {
    directory: Option<PathBuf>,
    notes: Mutex<BTreeMap<ExecId, Note>>,
}

impl Brackets {
    /// Those that an earlier process left. Without a directory they are kept in
    /// memory.
    pub(super) fn load(backend: Option<&Path>) -> io::Result<Self> {
        let mut notes = BTreeMap::new();
        let directory = backend.map(|backend| backend.join(DIRECTORY));
        if let Some(directory) = &directory {
            fs::create_dir_all(directory)?;
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name();
                // Other files are none of ours.
                let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let store = fs::read_to_string(entry.path())?;
                let store = u64::from_str_radix(store.trim(), 16).unwrap_or_default();
                let stage = Stage::Left;
                notes.insert(id, Note { store, stage });
            }
        }
        Ok(Self {
            directory,
            notes: Mutex::new(notes),
        })
    }

    fn path(&self, id: &ExecId) -> Option<PathBuf> {
        self.directory.as_ref().map(|dir| dir.join(id.as_str()))
    }

    /// A command is about to be started in the daemon with this replica. `false` if
    /// there is a note of that id already.
    pub(super) fn open(&self, id: &ExecId, store: u64) -> io::Result<bool> {
        if self.is_open(id) {
            return Ok(false);
        }
        if let Some(path) = self.path(id) {
            fs::write(path, format!("{store:016x}\n"))?;
        }
        let stage = Stage::Running;
        let before = self.notes.lock().insert(id.clone(), Note { store, stage });
        Ok(before.is_none())
    }

    pub(super) fn is_open(&self, id: &ExecId) -> bool {
        self.notes.lock().contains_key(id)
    }

    /// The daemon's replica that it ran on.
    pub(super) fn store_of(&self, id: &ExecId) -> Option<u64> {
        self.notes.lock().get(id).map(|note| note.store)
    }

    fn set(&self, id: &ExecId, stage: Stage) {
        if let Some(note) = self.notes.lock().get_mut(id) {
            note.stage = stage;
        }
    }

    /// A command has ended.
    pub(super) fn has_ended(&self, id: &ExecId) {
        self.set(id, Stage::Ended);
    }

    /// Nobody tries to close it any more.
    pub(super) fn leave(&self, id: &ExecId) {
        self.set(id, Stage::Left);
    }

    /// What ran them is no more.
    pub(super) fn leave_all(&self) {
        for note in self.notes.lock().values_mut() {
            note.stage = Stage::Left;
        }
    }

    /// What it changed is here, or it was not started.
    pub(super) fn close(&self, id: &ExecId) {
        self.notes.lock().remove(id);
        if let Some(path) = self.path(id)
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is found in vain by the next process.
            tracing::warn!(%error, %id, "a note of a sandbox cannot be removed");
        }
    }

    /// Those that are open.
    pub(super) fn all(&self) -> Vec<ExecId> {
        self.notes.lock().keys().cloned().collect()
    }

    /// Those whose command does not run any more.
    pub(super) fn ended(&self) -> Vec<ExecId> {
        let notes = self.notes.lock();
        let ended = notes.iter().filter(|(_, note)| note.stage == Stage::Ended);
        ended.map(|(id, _)| id.clone()).collect()
    }

    /// Those of whose command nobody here has learned the end.
    pub(super) fn running(&self) -> Vec<ExecId> {
        let notes = self.notes.lock();
        let running = notes.iter().filter(|(_, note)| note.stage != Stage::Ended);
        running.map(|(id, _)| id.clone()).collect()
    }

    /// Those that were left, and those that have ended, which who asks sees to from
    /// now on.
    pub(super) fn take_up(&self) -> Vec<ExecId> {
        let mut notes = self.notes.lock();
        let left = notes
            .iter_mut()
            .filter(|(_, note)| note.stage != Stage::Running);
        left.map(|(id, note)| {
            note.stage = Stage::Running;
            id.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<ExecId> = ["a", "b"].map(|id| id.parse().unwrap()).into();
        let brackets = Brackets::load(Some(dir.path())).unwrap();
        for id in &ids {
            assert!(brackets.open(id, 7).unwrap());
            assert!(!brackets.open(id, 7).unwrap());
        }
        brackets.close(&ids[0]);
        brackets.close(&ids[0]);
        assert!(brackets.take_up().is_empty(), "it is being seen to");
        drop(brackets);
        fs::write(dir.path().join(DIRECTORY).join(".other"), b"").unwrap();
        let brackets = Brackets::load(Some(dir.path())).unwrap();
        assert_eq!(brackets.all(), ids[1..]);
        assert_eq!(brackets.store_of(&ids[1]), Some(7));
        assert_eq!(brackets.take_up(), ids[1..]);
        assert!(brackets.take_up().is_empty());
        let leave_all = |all: &Brackets, _: &ExecId| all.leave_all();
        for end in [Brackets::leave, Brackets::has_ended, leave_all] {
            end(&brackets, &ids[1]);
            assert_eq!(brackets.take_up(), ids[1..]);
        }
    }
}
