//! The directory in which a runtime keeps its execs: for each a file
//! `ID,start`, made before anything runs, and the segments of its log.
//!
//! The first file is what makes an id unique for good, and what a later runtime
//! knows a lost exec by. No id has a comma.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::id::{ExecId, RuntimeId};
use super::log::{Log, Place, segments_of};
use super::orphans;
use super::{ExecError, Result};

const START: &str = "start";
/// What follows the JSON of a start when the exec has ended.
const ENDED: &[u8] = b"\nended\n";

/// What is known of an exec that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The runtime it belongs to.
    pub(crate) runtime: String,
    /// The command, for people; not all of a long one.
    pub(crate) command: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: u64,
    /// Its processes may run on when it has ended.
    pub(crate) detach: bool,
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// Uses a directory, which is made if it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let failed = |source| ExecError::Directory {
            path: dir.into(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        // What commands print is for their owner.
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::chmod(dir, mode).map_err(|errno| failed(errno.into()))?;
        Ok(Self { dir: dir.into() })
    }

    pub(crate) fn place(&self, id: &ExecId) -> Place {
        Place {
            dir: self.dir.clone(),
            name: id.as_str().into(),
        }
    }

    fn start_file(&self, id: &ExecId) -> PathBuf {
        self.dir.join(format!("{id},{START}"))
    }

    /// Takes an id before its command is started. From now on it is never run again.
    pub(crate) fn begin(&self, id: &ExecId, start: &Start) -> Result<()> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => ExecError::Duplicate(id.clone()),
            _ => ExecError::Log {
                id: id.clone(),
                source,
            },
        };
        let mut file = File::create_new(self.start_file(id)).map_err(failed)?;
        let line = serde_json::to_vec(start).map_err(|error| failed(error.into()))?;
        file.write_all(&line).map_err(failed)
    }

    /// Notes that an exec has ended and left nothing that a later runtime has to end.
    pub(crate) fn end(&self, id: &ExecId) {
        let file = File::options().append(true).open(self.start_file(id));
        if let Err(error) = file.and_then(|mut file| file.write_all(ENDED)) {
            // It was disposed of meanwhile, or its processes are looked for once in vain.
            tracing::debug!(%error, %id, "noting the end of an exec");
        }
    }

    /// What an earlier runtime left of an exec. `None` if nothing did.
    pub(crate) fn find(&self, id: &ExecId, cap: u64) -> Result<Option<(Start, Log)>> {
        let failed = |source| ExecError::Log {
            id: id.clone(),
            source,
        };
        let start = match fs::read(self.start_file(id)) {
            Ok(start) => start,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // A crash may have come before it was written; that it is there says enough.
        let start = parse(&start).unwrap_or_else(|| Start {
            runtime: RuntimeId::from_text("unknown").as_str().into(),
            command: String::new(),
            at_ms: 0,
            detach: false,
        });
        let log = Log::reopen(&self.place(id), cap).map_err(failed)?;
        Ok(Some((start, log)))
    }

    /// The marks of execs that did not end and whose processes must not outlive their runtime.
    pub(crate) fn marks(&self) -> HashSet<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let marked = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_suffix(START)?.strip_suffix(',')?.parse().ok()?;
            let bytes = fs::read(entry.path()).ok()?;
            let start = parse(&bytes)?;
            let over = bytes.ends_with(ENDED) || start.detach;
            (!over).then(|| orphans::mark(&start.runtime, &id))
        });
        marked.collect()
    }

    /// Forgets an exec. Returns whether anything was there.
    pub(crate) fn remove(&self, id: &ExecId) -> Result<bool> {
        let failed = |source| ExecError::Log {
            id: id.clone(),
            source,
        };
        for (_, path) in segments_of(&self.place(id)).map_err(failed)? {
            fs::remove_file(path).map_err(failed)?;
        }
        match fs::remove_file(self.start_file(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Forgets execs that nothing was written for in so long a time, but for
    /// those that are `kept`.
    pub(crate) fn sweep(&self, age: Duration, kept: impl Fn(&ExecId) -> bool) {
        let Some(before) = SystemTime::now().checked_sub(age) else {
            return;
        };
        let mut written: BTreeMap<ExecId, SystemTime> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let id = name.split_once(',').and_then(|(id, _)| id.parse().ok());
            let at = entry.metadata().and_then(|metadata| metadata.modified());
            if let (Some(id), Ok(at)) = (id, at) {
                let newest = written.entry(id).or_insert(at);
                *newest = at.max(*newest);
            }
        }
        for (id, at) in written {
            if at < before && !kept(&id) {
                // It is tried again at the next sweep.
                let _ = self.remove(&id);
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Start> {
    serde_json::from_slice(bytes.strip_suffix(ENDED).unwrap_or(bytes)).ok()
}
