//! The round trip of an exec: `true` on the local backend, against a plain
//! spawn with its working directory on the disk.
//!
//! `cargo run --release -p cairn-benches --example exec [ROUNDS]`
#![allow(clippy::print_stdout, reason = "the program prints its results")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn::backend::Local;
use cairn::exec::{Command as Exec, Confine, ExecOptions, Want};
use cairn::{Workspace, block_on};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(300), |rounds| rounds.parse())?;
    let disk = tempfile::tempdir_in("/var/tmp")?;
    let plain = || -> Result<(), Failure> {
        let mut command = Command::new("true");
        command.current_dir(disk.path()).stdin(Stdio::null());
        command.output()?;
        Ok(())
    };
    let spawn = measure(rounds, plain)?;
    println!("a plain spawn on {}: {spawn:?}", disk.path().display());
    for (name, writes) in [("confined", Want::IfAvailable), ("not confined", Want::No)] {
        let took = execs(disk.path(), writes, rounds)?;
        println!(
            "an exec, {name}: {took:?}, {:?} more",
            took.saturating_sub(spawn)
        );
    }
    // A fork copies the tables of this process's memory.
    let ballast = vec![1_u8; BALLAST];
    let took = execs(disk.path(), Want::No, rounds)?;
    let more = took.saturating_sub(spawn);
    println!(
        "an exec, not confined, from a process of {} MiB: {took:?}, {more:?} more",
        ballast.len() >> 20
    );
    Ok(())
}

/// Memory of a process that has much.
const BALLAST: usize = 512 << 20;

/// The round trip on a local backend, whose workspace is on this disk.
fn execs(disk: &Path, writes: Want, rounds: usize) -> Result<Duration, Failure> {
    let confine = Confine {
        writes,
        ..Confine::default()
    };
    let builder = Workspace::builder().backend("local", Local::new().confine(confine));
    let workspace = block_on(builder.create(disk.join(format!("{writes:?}.cairn"))))?;
    block_on(workspace.run("true"))?;
    let took = measure(rounds, || {
        let exec = workspace.exec(Exec::argv(["true"]), ExecOptions::default());
        block_on(async { exec.await?.wait().await.map_err(Failure::from) })?;
        Ok(())
    })?;
    block_on(workspace.close())?;
    Ok(took)
}

/// The median time of one.
fn measure(
    rounds: usize,
    mut once: impl FnMut() -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        let begun = Instant::now();
        once()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
