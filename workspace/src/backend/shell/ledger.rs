//! The execs of a shell: their ids, which are never used twice, and their logs.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::running::Running;
use crate::exec::shared::{Journal, Log, Process, Start, now_ms};
use crate::exec::{
    Command, Ended, ExecError, ExecId, ExecOptions, Execution, Exit, Leftovers, Result, RuntimeId,
};

/// Most bytes of events that are kept of one exec, the newest.
const LOG_BYTES: u64 = 16 << 20;
/// How long the log of an exec is kept on disk after its last event.
const KEEP: Duration = Duration::from_hours(1);
/// How many logs of execs that ended are kept in memory.
const KEEP_IN_MEMORY: usize = 16;
/// Execs between two sweeps of old logs.
const SWEEP_EVERY: u64 = 64;
/// The end of what nobody saw end.
const LOST: Exit = Exit {
    code: -1,
    ended: Ended::Lost,
    leftovers: Leftovers::None,
};

/// The execs.
#[derive(Debug)]
pub(super) struct Ledger {
    id: RuntimeId,
    journal: Option<Journal>,
    execs: Mutex<Execs>,
}

#[derive(Debug, Default)]
struct Execs {
    known: HashMap<ExecId, Arc<Running>>,
    /// Those in memory that have ended, the oldest first.
    ended: VecDeque<ExecId>,
    taken: u64,
    closed: bool,
}

impl Ledger {
    pub(super) fn open(directory: Option<&Path>) -> Result<Self> {
        let this = Self {
            id: RuntimeId::random(),
            journal: directory.map(Journal::open).transpose()?,
            execs: Mutex::default(),
        };
        this.sweep();
        Ok(this)
    }

    pub(super) fn id(&self) -> &RuntimeId {
        &self.id
    }

    /// Makes an id known as one that may have been run.
    pub(super) fn take(&self, command: &Command, options: &ExecOptions) -> Result<Arc<Running>> {
        let id = options.id.clone().unwrap_or_else(ExecId::random);
        let place = self.journal.as_ref().map(|journal| journal.place(&id));
        let process = Process::new(id.clone(), Log::new(place, LOG_BYTES));
        let running = Arc::new(Running::new(process, &options.stdin)?);
        let sweep = {
            let mut execs = self.execs.lock();
            if execs.closed {
                return Err(ExecError::Closed);
            }
            if execs.known.contains_key(&id) {
                return Err(ExecError::Duplicate(id));
            }
            execs.known.insert(id.clone(), Arc::clone(&running));
            execs.taken += 1;
            execs.taken.is_multiple_of(SWEEP_EVERY)
        };
        if let Some(journal) = &self.journal {
            let start = Start {
                runtime: self.id.as_str().into(),
                command: command.summary(),
                at_ms: now_ms(),
                detach: false,
            };
            journal.begin(&id, &start).inspect_err(|_| {
                self.execs.lock().known.remove(&id);
            })?;
        }
        if sweep {
            self.sweep();
        }
        Ok(running)
    }

    /// Frees the id of an exec of which nothing has run.
    pub(super) fn give_back(&self, running: &Running) {
        running.end(LOST);
        self.execs.lock().known.remove(running.id());
        if let Some(journal) = &self.journal {
            // What stays makes the id unusable, and goes with the next sweep.
            let _ = journal.remove(running.id());
        }
    }

    /// An exec is over: its log is found on disk, or it is one of some that are kept.
    pub(super) fn has_ended(&self, id: &ExecId) {
        if let Some(journal) = &self.journal {
            journal.end(id);
            self.execs.lock().known.remove(id);
            return;
        }
        let mut execs = self.execs.lock();
        execs.ended.push_back(id.clone());
        while execs.ended.len() > KEEP_IN_MEMORY {
            if let Some(oldest) = execs.ended.pop_front() {
                execs.known.remove(&oldest);
            }
        }
    }

    /// An exec that was started before.
    pub(super) fn get(&self, id: &ExecId) -> Result<Arc<dyn Execution>> {
        let known = self.execs.lock().known.get(id).cloned();
        if let Some(running) = known {
            return Ok(running);
        }
        let found = match &self.journal {
            Some(journal) => journal.find(id, LOG_BYTES)?,
            None => None,
        };
        let (_, log) = found.ok_or_else(|| self.unknown(id))?;
        let process = Process::new(id.clone(), log);
        if !process.has_ended() {
            process.end(LOST);
        }
        Ok(Arc::new(process))
    }

    /// Forgets an exec that has ended, and its log.
    pub(super) fn dispose(&self, id: &ExecId) -> Result<()> {
        let known = {
            let mut execs = self.execs.lock();
            match execs.known.get(id) {
                Some(running) if !running.has_ended() => {
                    return Err(ExecError::Running(id.clone()));
                }
                _ => {}
            }
            execs.ended.retain(|ended| ended != id);
            execs.known.remove(id).is_some()
        };
        let logged = match &self.journal {
            Some(journal) => journal.remove(id)?,
            None => false,
        };
        if known || logged {
            Ok(())
        } else {
            Err(self.unknown(id))
        }
    }

    /// Refuses further execs, and stops those that run.
    pub(super) fn close(&self) -> Vec<Arc<Running>> {
        let mut execs = self.execs.lock();
        execs.closed = true;
        let running = execs.known.values().filter(|exec| !exec.has_ended());
        let running: Vec<_> = running.cloned().collect();
        drop(execs);
        for exec in &running {
            exec.stop();
        }
        running
    }

    fn unknown(&self, id: &ExecId) -> ExecError {
        ExecError::Unknown {
            id: id.clone(),
            runtime: self.id.clone(),
        }
    }

    fn sweep(&self) {
        if let Some(journal) = &self.journal {
            let kept = |id: &ExecId| self.execs.lock().known.contains_key(id);
            journal.sweep(KEEP, kept);
        }
    }
}
