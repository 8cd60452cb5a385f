//! Child processes: one at a time, with a deadline, stoppable by a signal.
//!
//! A measurement must not pay for its own supervision. The caller therefore
//! blocks in `wait`, standard error goes to a file instead of a pipe with a
//! reader, and one watchdog thread, which wakes four times a second, looks at
//! the signals and at the deadline.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{BenchError, Context as _, Result};

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(250);

/// How much of a failed command's standard error is kept.
const STDERR_TAIL_BYTES: usize = 2000;

/// The process that is being waited for.
#[derive(Debug, Clone, Copy)]
struct Running {
    group: Pid,
    deadline: Instant,
    expired: bool,
}

/// Runs commands, one after the other.
#[derive(Debug)]
pub(crate) struct Shell {
    stop: Arc<AtomicBool>,
    running: Arc<Mutex<Option<Running>>>,
    timeout: Duration,
}

impl Shell {
    /// Takes over SIGINT and SIGTERM and starts the watchdog.
    ///
    /// # Errors
    /// When a signal handler cannot be installed.
    pub(crate) fn new(timeout: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            // A second signal ends the program at once, in case a filesystem
            // under test has stopped answering a loop of this very process.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
                .context(|| "install a signal handler")?;
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .context(|| "install a signal handler")?;
        }
        let running = Arc::new(Mutex::new(None));
        let shell = Self {
            stop: Arc::clone(&stop),
            running: Arc::clone(&running),
            timeout,
        };
        thread::spawn(move || watch(&stop, &running));
        Ok(shell)
    }

    /// Fails when a signal has asked the program to stop.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }

    /// Runs `script` with `sh -c` in `dir` and returns the life time of the
    /// process, from before it is spawned until it has been waited for.
    ///
    /// # Errors
    /// When the script ends with a failure, passes the deadline, or a signal
    /// stops the program.
    pub(crate) fn time(
        &self,
        script: &str,
        dir: &Path,
        environment: &[(&str, OsString)],
    ) -> Result<Duration> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(script)
            .current_dir(dir)
            .envs(environment.iter().map(|(key, value)| (key, value)));
        self.run(&mut command)
    }

    /// Runs any command to its end, with its output thrown away.
    ///
    /// # Errors
    /// As [`Shell::time`].
    pub(crate) fn run(&self, command: &mut Command) -> Result<Duration> {
        self.check()?;
        let name = describe(command);
        let stderr = tempfile::tempfile().context(|| "make a file for standard error")?;
        let child_stderr = stderr.try_clone().context(|| "duplicate a file")?;
        // Its own process group: the watchdog then reaches grandchildren too,
        // and Ctrl-C at a terminal reaches only this program.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(child_stderr)
            .process_group(0);

        let start = Instant::now();
        let mut child = command.spawn().context(|| name.clone())?;
        *self.running.lock() = Some(Running {
            group: Pid::from_child(&child),
            deadline: start + self.timeout,
            expired: false,
        });
        let status = child.wait();
        let took = start.elapsed();
        let expired = self
            .running
            .lock()
            .take()
            .is_some_and(|running| running.expired);

        self.check()?;
        let status = status.context(|| name.clone())?;
        if expired {
            return Err(BenchError::TimedOut {
                command: name,
                seconds: self.timeout.as_secs(),
            });
        }
        if !status.success() {
            return Err(BenchError::Command {
                command: name,
                status: status.to_string(),
                stderr: tail(&stderr).unwrap_or_default(),
            });
        }
        Ok(took)
    }
}

/// Kills the running child when a signal came or its deadline passed.
fn watch(stop: &AtomicBool, running: &Mutex<Option<Running>>) {
    loop {
        thread::sleep(TICK);
        if let Some(child) = running.lock().as_mut() {
            let expired = Instant::now() >= child.deadline;
            if expired || stop.load(Ordering::Relaxed) {
                child.expired |= expired;
                // The group is gone only when the child just ended by itself.
                let _ = kill_process_group(child.group, Signal::KILL);
            }
        }
    }
}

/// The first words of a command line, on one line.
fn describe(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        words.push(' ');
        words.push_str(&argument.to_string_lossy());
    }
    let mut line: String = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(90) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// The end of what a command wrote, on one line.
fn tail(stderr: &File) -> io::Result<String> {
    use std::os::unix::fs::FileExt as _;

    let len = stderr.metadata()?.len();
    let start = len.saturating_sub(STDERR_TAIL_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(STDERR_TAIL_BYTES)];
    stderr.read_exact_at(&mut bytes, start)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    Ok(lines[lines.len().saturating_sub(8)..].join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(timeout_ms: u64) -> Shell {
        Shell::new(Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn a_failure_carries_the_end_of_standard_error() {
        let error = shell(10_000)
            .time("echo one >&2; echo two >&2; exit 3", Path::new("/"), &[])
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("exit status: 3: one | two"), "{error}");
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let start = Instant::now();
        let result = shell(100).time("sleep 30 & sleep 30", Path::new("/"), &[]);
        assert!(matches!(result, Err(BenchError::TimedOut { .. })));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
