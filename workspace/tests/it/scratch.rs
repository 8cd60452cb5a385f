//! A directory for a test, and mounts in it, which go when the test ends,
//! however it ends.

use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::program::{Ran, cairn, ended, ran, run, until};

/// Whether this machine can mount. Says why not; where the tests must run, that is a failure.
pub(crate) fn can_mount() -> bool {
    let missing = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else if !rustix::process::geteuid().is_root() {
        "the tests mount as root"
    } else {
        return true;
    };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "tests of mounts cannot run here: {missing}"
    );
    // Past the test harness, which keeps what a test prints to itself unless it fails.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED, tests of mounts cannot run here: {missing}"
    );
    false
}

/// A directory of its own.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Those that nobody expected; the others are gone by now.
        for at in mounts_below(self.dir.path()) {
            detach(&at);
        }
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs `cairn` here.
    pub(crate) fn cairn(&self, line: &str) -> Ran {
        run(self, &line.split(' ').collect::<Vec<_>>())
    }

    /// Runs `cairn` here, with something on its standard input.
    pub(crate) fn fed(&self, line: &str, input: &[u8]) -> Ran {
        ran(
            cairn().args(line.split(' ')).current_dir(self.dir.path()),
            input,
        )
    }

    /// Runs a shell command here.
    pub(crate) fn sh(&self, line: &str) -> Ran {
        ran(
            Command::new("sh")
                .args(["-c", line])
                .current_dir(self.dir.path()),
            b"",
        )
    }

    /// Mounts `NAME.cairn` at `NAME`, by a process that stays.
    pub(crate) fn mount(&self, name: &str) -> Daemon {
        self.mount_with(name, "")
    }

    /// The same, without the hub that it follows.
    pub(crate) fn mount_offline(&self, name: &str) -> Daemon {
        self.mount_with(name, " --offline")
    }

    fn mount_with(&self, name: &str, more: &str) -> Daemon {
        let mut daemon = Daemon {
            at: self.join(name),
            pid: None,
        };
        let said = self.cairn(&format!("mount {name} --daemon{more}")).done();
        let pid = said
            .err
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|pid| pid.parse().ok());
        daemon.pid = Some(Pid::from_raw(pid.unwrap()).unwrap());
        daemon
    }
}

/// A mount that a process without a parent serves.
pub(crate) struct Daemon {
    at: PathBuf,
    pid: Option<Pid>,
}

impl Daemon {
    pub(crate) fn pid(&self) -> Pid {
        self.pid.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn is_alive(&self) -> bool {
        is_alive(self.pid())
    }

    pub(crate) fn await_end(&self) {
        until("the daemon ends", || !self.is_alive());
    }
}

/// Whether a process is there, and no zombie.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_ok()
        && !stat.is_ok_and(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" Z"))
        })
}

impl Drop for Daemon {
    fn drop(&mut self) {
        detach(&self.at);
        if let Some(pid) = self.pid {
            let begun = std::time::Instant::now();
            while is_alive(pid) && begun.elapsed().as_secs() < 10 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A mount that a child of this process serves.
pub(crate) struct Foreground {
    at: PathBuf,
    pub(crate) child: Child,
}

impl Foreground {
    /// Mounts, and waits until it is mounted.
    pub(crate) fn new(scratch: &Scratch, name: &str, more: &[&str]) -> Self {
        let child = cairn()
            .args(["mount", name])
            .args(more)
            .current_dir(&**scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mounted = Self {
            at: scratch.join(name),
            child,
        };
        until("it is mounted", || is_mounted(&mounted.at));
        mounted
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        detach(&self.at);
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = ended(&mut self.child);
        }
    }
}

/// Detaches every mount at a directory, also a dead one.
pub(crate) fn detach(at: &Path) {
    for _ in 0..4 {
        if !is_mounted(at) {
            return;
        }
        let _ = Command::new("timeout")
            .args(["10", "umount", "-l"])
            .arg(at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Whether the kernel knows a mount there. It is not touched.
pub(crate) fn is_mounted(at: &Path) -> bool {
    mounts_below(at).iter().any(|mount| mount == at)
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4));
    mounts
        .map(PathBuf::from)
        .filter(|at| at.starts_with(dir))
        .collect()
}
