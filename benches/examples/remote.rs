//! What a command costs in a sandbox: the round trip of `true`, and of one that writes
//! 10 000 files until all of them are at the host; on a daemon in another process, over
//! loopback QUIC and WebSocket, against the local backend and a plain spawn.
//!
//! `cargo run --release -p cairn-benches --example remote [PROGRAM [ROUNDS [FILES_ROUNDS]]]`
//!
//! PROGRAM is the `cairn` that is the daemon, by default the one beside this program.
#![allow(clippy::print_stdout, reason = "the program prints its results")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cairn::backend::{Local, Sandbox};
use cairn::exec::{Command as Exec, ExecOptions, Synced};
use cairn::{Workspace, block_on};

type Failure = Box<dyn std::error::Error>;

/// What hosts show.
const TOKEN: &str = "bench";

/// Files of a line each, in a directory of their own.
const FILES: usize = 10_000;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments
        .next()
        .map_or_else(beside, |path| Ok(path.into()))?;
    let rounds = arguments.next().map_or(Ok(300), |text| text.parse())?;
    let files_rounds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let disk = tempfile::tempdir_in("/var/tmp")?;
    let times = Times {
        rounds,
        files_rounds,
    };
    times.plain(disk.path())?;
    let builder = Workspace::builder().backend("local", Local::new());
    let local = block_on(builder.create(disk.path().join("local.cairn")))?;
    times.workspace("local backend", &local, Synced::Shared)?;
    for scheme in ["quic", "ws"] {
        let daemon = Daemon::start(&program, &disk.path().join(scheme), scheme)?;
        let builder = Workspace::builder().backend("box", daemon.sandbox(scheme)?);
        let path = disk.path().join(format!("{scheme}.cairn"));
        let workspace = block_on(builder.create(path))?;
        times.workspace(&format!("sandbox, {scheme}"), &workspace, Synced::Complete)?;
    }
    Ok(())
}

/// The program that was built with this one.
fn beside() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let dir = own.parent().and_then(Path::parent);
    let program = dir.map(|dir| dir.join("cairn")).filter(|at| at.exists());
    program.ok_or_else(|| "build the program: cargo build --release -p cairn".into())
}

/// Writes the files into a new directory.
fn script(round: usize) -> String {
    format!("mkdir d{round} && cd d{round} && seq {FILES} | split -l 1 -a 4 - f")
}

/// How often each is done.
struct Times {
    rounds: usize,
    files_rounds: usize,
}

impl Times {
    /// The same without Cairn.
    fn plain(&self, disk: &Path) -> Result<(), Failure> {
        let run = |command: &mut Command| -> Result<(), Failure> {
            let ran = command.current_dir(disk).stdin(Stdio::null()).output()?;
            ran.status.success().then_some(()).ok_or("it failed".into())
        };
        let once = median(self.rounds, |_| run(&mut Command::new("true")))?;
        let files = median(self.files_rounds, |round| {
            run(Command::new("sh").args(["-c", &script(round)]))
        })?;
        tell("a plain spawn", once, files);
        Ok(())
    }

    /// A warm backend: its first use is not counted.
    fn workspace(&self, name: &str, workspace: &Workspace, synced: Synced) -> Result<(), Failure> {
        block_on(workspace.run("true"))?;
        let once = median(self.rounds, |_| {
            let exec = workspace.exec(Exec::argv(["true"]), ExecOptions::default());
            block_on(async { exec.await?.wait().await.map_err(Failure::from) })?;
            Ok(())
        })?;
        let files = median(self.files_rounds, |round| {
            let output = block_on(workspace.run(&*script(round)))?;
            if !output.exit.is_success() || output.synced != synced {
                return Err(format!("it failed: {output:?}").into());
            }
            Ok(())
        })?;
        // They are here, as it was said.
        for round in 0..self.files_rounds {
            let dir = format!("/d{round}");
            let found = workspace.fs().blocking().walk_dir(&dir)?.count();
            if found != FILES {
                return Err(format!("{dir} has {found} files").into());
            }
        }
        tell(name, once, files);
        block_on(workspace.close())?;
        Ok(())
    }
}

fn tell(name: &str, once: [Duration; 3], files: [Duration; 3]) {
    println!("{name}: `true` {once:.2?}, {FILES} files {files:.2?} (median, shortest, longest)");
}

/// The median time of one, the shortest and the longest.
fn median(
    rounds: usize,
    mut once: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<[Duration; 3], Failure> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds.max(1) {
        let begun = Instant::now();
        once(round)?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok([times[times.len() / 2], times[0], times[times.len() - 1]])
}

/// A daemon in a process of its own. It ends when it is dropped.
struct Daemon {
    child: Child,
    address: String,
    fingerprint: Option<String>,
}

impl Daemon {
    /// One that mounts there, and keeps its replica in memory.
    fn start(program: &Path, mount: &Path, scheme: &str) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(["daemon", "--listen", "127.0.0.1:0", "--mount"]);
        command.arg(mount).env("CAIRN_TOKEN", TOKEN);
        if scheme == "ws" {
            command.arg("--plain");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().ok_or("it says nothing")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        // It is not to wait for somebody to read what it says later.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        let mut words = line.split([' ', ',', ';']);
        let url = words.find(|word| word.contains("://"));
        let address = url.and_then(|url| url.split('/').nth(2));
        let known = line.split("fingerprint ").nth(1);
        let known = known.and_then(|rest| rest.split(';').next());
        Ok(Self {
            child,
            address: address.ok_or_else(|| format!("no daemon: {line}"))?.into(),
            fingerprint: known.map(|known| known.trim().to_owned()),
        })
    }

    fn sandbox(&self, scheme: &str) -> Result<Sandbox, Failure> {
        let sandbox = Sandbox::at(&format!("{scheme}://{}", self.address))?.token(TOKEN);
        Ok(match &self.fingerprint {
            Some(known) => sandbox.fingerprint(known.parse()?),
            None => sandbox,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It unmounts.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
