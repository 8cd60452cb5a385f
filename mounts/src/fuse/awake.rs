//! Keeping the processors out of deep sleep while requests come in quick succession.
//!
//! A request passes from the caller's thread to one of ours and back. When they run on different
//! processors, each waits while the other sleeps, and in a virtual machine a sleeping processor
//! is woken by way of the hypervisor, which takes ten times as long as the whole request does
//! otherwise. So while a burst of requests lasts, a thread spins on each processor. It runs under
//! `SCHED_IDLE`: whatever else wants the processor gets it at once.
//!
//! Between bursts the threads sleep and cost nothing. A request costs one atomic addition, and
//! every sixteenth one a look at the clock.
//!
//! Spinning pays only while processors would sleep. A processor that spins does not look for
//! waiting threads of the others, as one does that falls idle, and so slows down work that could
//! use them all (`npm ci` by a fifth on two processors). So the threads watch how much there is
//! to run, and rest for a while when it is enough for all processors.
//!
//! Time that the spinning threads take counts against a processor quota of the control group, so
//! where there is one they are not started.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::sys;

/// Most processors kept awake.
const MAX_THREADS: usize = 4;
/// How long the threads spin after the last request.
const LINGER: Duration = Duration::from_micros(500);
/// The clock is looked at once in so many requests: a power of two.
const STRIDE: u64 = 16;
/// A stride within this time begins a burst: less than 250 us from request to request.
const BURST: Duration = Duration::from_millis(4);
/// Turns between two looks at the counter, about 1 us.
const TURNS: u32 = 32;
/// Looks at the counter between two at what there is to run, which take some microseconds.
const LOOKS: u32 = 64;
/// How long the threads rest when the processors have enough to do.
const REST: Duration = Duration::from_millis(20);

/// Counts the requests of a mount, and keeps the processors awake while there are many.
#[derive(Debug)]
pub(crate) struct Pulse {
    requests: AtomicU64,
    /// When the last stride ended, in nanoseconds since `started`.
    last_stride: AtomicU64,
    started: Instant,
    parked: AtomicBool,
    closed: AtomicBool,
    threads: Mutex<Vec<Thread>>,
    /// Threads that spin at the moment.
    spinning: AtomicU32,
    /// Until when the threads rest, in nanoseconds since `started`.
    rest: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            last_stride: AtomicU64::new(0),
            started: Instant::now(),
            parked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            spinning: AtomicU32::new(0),
            rest: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Requests served so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A request came in.
    pub(crate) fn beat(&self) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(STRIDE) {
            self.stride();
        }
    }

    fn stride(&self) {
        let now = nanos(self.started.elapsed());
        let last = self.last_stride.swap(now, Ordering::Relaxed);
        if now.saturating_sub(last) < nanos(BURST)
            && now >= self.rest.load(Ordering::Relaxed)
            && self.parked.swap(false, Ordering::Relaxed)
        {
            for thread in self.threads.lock().iter() {
                thread.unpark();
            }
        }
    }

    /// Spins while requests come and a processor has nothing to do, sleeps otherwise, until the
    /// end.
    fn keep_awake(&self, runnable: &Runnable) {
        self.spinning.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.requests();
        let mut last = Instant::now();
        while !self.closed.load(Ordering::Relaxed) {
            let mut idle = false;
            for _ in 0..LOOKS {
                for _ in 0..TURNS {
                    std::hint::spin_loop();
                }
                let requests = self.requests();
                if requests != seen {
                    seen = requests;
                    last = Instant::now();
                }
                idle = last.elapsed() > LINGER;
                if idle {
                    break;
                }
            }
            let busy = !idle && runnable.is_enough(self.spinning.load(Ordering::Relaxed));
            if busy {
                let rest = nanos(self.started.elapsed() + REST);
                self.rest.store(rest, Ordering::Relaxed);
            }
            if busy || idle || self.is_resting() {
                // A wake-up between the two calls is kept for `park`. One thread may park while
                // another that saw a later request spins on: the next burst wakes them all.
                self.parked.store(true, Ordering::Relaxed);
                self.spinning.fetch_sub(1, Ordering::Relaxed);
                std::thread::park();
                self.spinning.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
        }
    }

    fn is_resting(&self) -> bool {
        nanos(self.started.elapsed()) < self.rest.load(Ordering::Relaxed)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the time since a mount began fits 64 bits of nanoseconds for 584 years"
)]
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// How much the processors of this machine have to run.
#[derive(Debug)]
struct Runnable {
    loadavg: File,
    processors: u32,
}

impl Runnable {
    fn open(processors: usize) -> io::Result<Self> {
        Ok(Self {
            loadavg: File::open("/proc/loadavg")?,
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
        })
    }

    /// Whether every processor has something to run besides `spinning` threads of ours.
    fn is_enough(&self, spinning: u32) -> bool {
        let mut text = [0; 64];
        let len = self.loadavg.read_at(&mut text, 0).unwrap_or(0);
        running(&text[..len]).is_some_and(|n| n >= spinning.saturating_add(self.processors))
    }
}

/// Of the text of `/proc/loadavg`, such as `0.20 0.18 0.12 1/80 11206`, the number of threads that
/// run or could run.
fn running(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let (running, _) = text.split(' ').nth(3)?.split_once('/')?;
    running.parse().ok()
}

/// The spinning threads of one mount. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    pulse: Arc<Pulse>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// One thread per processor, as far as the machine allows it; with one processor, none.
    pub(crate) fn start(pulse: Arc<Pulse>) -> Self {
        let mut awake = Self {
            pulse,
            threads: Vec::new(),
        };
        let processors = processors();
        if processors.len() < 2 || has_quota() {
            return awake;
        }
        let count = processors.len();
        for processor in processors.into_iter().take(MAX_THREADS) {
            let pulse = Arc::clone(&awake.pulse);
            let thread = std::thread::Builder::new()
                .name("cairn-awake".into())
                .spawn(move || {
                    // A thread that would compete with real work must not spin.
                    if pin(processor).is_ok()
                        && sys::run_when_idle().is_ok()
                        && let Ok(runnable) = Runnable::open(count)
                    {
                        pulse.keep_awake(&runnable);
                    }
                });
            let Ok(thread) = thread else { break };
            awake.pulse.threads.lock().push(thread.thread().clone());
            awake.threads.push(thread);
        }
        awake
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.pulse.closed.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The processors this process may run on.
fn processors() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&processor| allowed.is_set(processor))
        .collect()
}

fn pin(processor: usize) -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only)
}

/// Whether a control group above this process limits its processor time.
fn has_quota() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return std::fs::read_to_string("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
            .is_ok_and(|quota| !quota.starts_with('-'));
    };
    std::path::Path::new("/sys/fs/cgroup")
        .join(group)
        .ancestors()
        .take_while(|path| path.starts_with("/sys/fs/cgroup"))
        .any(|path| {
            std::fs::read_to_string(path.join("cpu.max")).is_ok_and(|max| !max.starts_with("max"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runnable_threads_of_loadavg() {
        assert_eq!(running(b"0.20 0.18 0.12 1/80 11206\n"), Some(1));
        assert_eq!(running(b"12.00 3.18 0.12 34/2080 11206\n"), Some(34));
        for other in [
            &b""[..],
            b"1 2 3",
            b"1 2 3 4 5",
            b"1 2 3 x/5",
            b"\xff 2 3 1/5",
        ] {
            assert_eq!(running(other), None, "{other:?}");
        }
        let runnable = Runnable::open(1).unwrap();
        assert!(runnable.is_enough(0), "this thread runs");
        assert!(!runnable.is_enough(u32::MAX));
    }

    #[test]
    fn spinning_follows_the_requests() {
        let pulse = Arc::new(Pulse::default());
        let awake = Awake::start(Arc::clone(&pulse));
        if awake.threads.is_empty() {
            return;
        }
        let wait_for = |parked: bool| {
            let until = Instant::now() + Duration::from_secs(20);
            while pulse.parked.load(Ordering::Relaxed) != parked {
                assert!(Instant::now() < until, "parked should become {parked}");
                if !parked {
                    (0..STRIDE).for_each(|_| pulse.beat());
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        wait_for(true);
        wait_for(false);
        wait_for(true);
        drop(awake);
        assert!(pulse.requests() > 0);
    }
}
