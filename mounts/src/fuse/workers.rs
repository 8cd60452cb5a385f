//! A few threads for operations that wait for the disk.
//!
//! A request that waits must not hold up the thread that reads requests. Threads start when work
//! waits and none is idle, and end after ten idle seconds; a mount on which nothing is synced has
//! none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// As many syncs may wait together, which lets the engine commit them as one group.
const MAX_THREADS: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

/// The threads of one mount.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Shared>);

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Workers")
            .field("waiting", &state.jobs.len())
            .field("threads", &state.threads)
            .finish()
    }
}

impl Workers {
    /// Runs the job on a thread of the pool, or here when none can be started.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads == MAX_THREADS {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let started = std::thread::Builder::new()
            .name("cairn-sync".into())
            .spawn(move || shared.serve());
        if started.is_err() {
            let mut state = self.0.state.lock();
            state.threads -= 1;
            let job = state.jobs.pop_back();
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // The job owns the reply; a panic drops it, which answers EIO.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_that_wait_for_each_other_all_run() {
        let workers = Workers::default();
        let barrier = Arc::new(Barrier::new(4));
        let (done, finished) = mpsc::channel();
        for job in 0..4 {
            let (barrier, done) = (Arc::clone(&barrier), done.clone());
            workers.run(move || {
                barrier.wait();
                done.send(job).unwrap();
            });
        }
        let mut all: Vec<i32> = finished.iter().take(4).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn a_panic_leaves_the_pool_working() {
        let workers = Workers::default();
        workers.run(|| std::panic::resume_unwind(Box::new("job")));
        let (done, finished) = mpsc::channel();
        workers.run(move || done.send(()).unwrap());
        finished.recv().unwrap();
    }
}
