//! Which processors the work and the daemons under test may use.
//!
//! On a small machine the distance between the caller and the FUSE daemon
//! decides metadata speed more than anything the daemon does, so a run can pin
//! both. Children inherit the affinity of the thread that spawns them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::{Context as _, Result};

/// The two affinities of a run.
#[derive(Debug, Clone)]
pub(crate) struct Affinity {
    work: CpuSet,
    daemon: CpuSet,
}

impl Affinity {
    /// Pins the calling thread, and so the work that it starts, to
    /// `work_cpu`, and remembers `daemon_cpu` for the daemons. Without a
    /// number the affinity stays what the program was started with.
    ///
    /// # Errors
    /// When the system refuses, for example for a processor that is not there.
    pub(crate) fn apply(work_cpu: Option<usize>, daemon_cpu: Option<usize>) -> Result<Self> {
        let inherited = sched_getaffinity(None).context(|| "read the affinity")?;
        let only = |cpu: Option<usize>| {
            cpu.map_or_else(
                || inherited,
                |cpu| {
                    let mut set = CpuSet::new();
                    set.set(cpu);
                    set
                },
            )
        };
        let affinity = Self {
            work: only(work_cpu),
            daemon: only(daemon_cpu),
        };
        set(&affinity.work)?;
        Ok(affinity)
    }

    /// Runs `spawn` with the affinity that daemons shall have.
    ///
    /// # Errors
    /// When the affinity cannot be changed.
    pub(crate) fn for_daemon<T>(&self, spawn: impl FnOnce() -> T) -> Result<T> {
        set(&self.daemon)?;
        let spawned = spawn();
        set(&self.work)?;
        Ok(spawned)
    }
}

fn set(cpus: &CpuSet) -> Result<()> {
    sched_setaffinity(None, cpus).context(|| "pin to a processor")
}
