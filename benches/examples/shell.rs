//! The shell backend against bash on a tmpfs, and against just-bash where it is
//! installed: the workloads of `docs/shell.md`.
//!
//! `cargo run --release -p cairn-benches --example shell [ROUNDS [JUST_BASH [NAME]]]`,
//! where `JUST_BASH` is a directory in which `npm install just-bash` was run, or
//! `-`, and only workloads that have `NAME` in theirs are run if it is given.
#![allow(clippy::print_stdout, reason = "the program prints its results")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn::backend::{self, Shell};
use cairn::exec::{Command as Exec, ExecOptions, Signal};
use cairn::{Replica, Workspace, block_on};

type Failure = Box<dyn std::error::Error>;

/// A name, a script, and how many times fewer rounds it gets.
const WORKLOADS: [(&str, &str, usize); 16] = [
    ("true", "true", 1),
    (
        "grep -r, 1000 files of 4 KiB",
        "grep -r needle tree | wc -l",
        1,
    ),
    ("find -name, 1000 files", "find tree -name '*7' | wc -l", 1),
    (
        "4 MB: cat, tr, sort, uniq -c",
        "cat words | tr a-z A-Z | sort | uniq -c | wc -l",
        1,
    ),
    ("4 MB: sort", "sort words > sorted", 1),
    (
        "50 MB: awk sum",
        "awk '{ s += $2 } END { print s }' numbers",
        4,
    ),
    (
        "50 MB: sed s/// > file",
        "sed s/1/one/ numbers > changed",
        4,
    ),
    ("50 MB: grep -c", "grep -c 77 numbers", 4),
    ("50 MB: head -1", "head -1 numbers", 1),
    ("50 MB: tail -1, wc -c", "tail -1 numbers; wc -c numbers", 1),
    ("50 MB: cp", "cp numbers copy", 1),
    (
        "1000 x >> to 50 MB",
        "for ((i = 0; i < 1000; i++)); do echo x >> copy; done",
        2,
    ),
    (
        "arithmetic loop, 10 000",
        "s=0; for ((i = 0; i < 10000; i++)); do ((s += i)); done; echo $s",
        1,
    ),
    (
        "$(echo), 1000",
        "for ((i = 0; i < 1000; i++)); do x=$(echo $i); done",
        1,
    ),
    (
        "pipe, 1000",
        "for ((i = 0; i < 1000; i++)); do echo $i | cat > /dev/null; done",
        2,
    ),
    ("jq, 4 MB", "jq 'map(.a) | add' json", 2),
];

fn main() -> Result<(), Failure> {
    backend::shell::worker();
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(9), |rounds| rounds.parse())?;
    let just_bash = arguments.next().filter(|dir| dir != "-").map(PathBuf::from);
    let only = arguments.next().unwrap_or_default();
    let tmpfs = tempfile::tempdir_in("/dev/shm")?;
    let limits = backend::shell::Limits {
        memory_bytes: 4 << 30,
        ..backend::shell::Limits::default()
    };
    let shell = Shell::new().limits(limits);
    let workspace = block_on(Workspace::builder().backend("shell", shell).in_memory())?;
    inputs(workspace.fs().blocking(), tmpfs.path())?;
    println!("| workload | shell | bash on tmpfs | shell/bash | just-bash |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let wanted = WORKLOADS.into_iter();
    for (name, script, fewer) in wanted.filter(|(name, ..)| name.contains(&only)) {
        let rounds = match name {
            "true" => rounds * 20,
            _ => (rounds / fewer).max(3),
        };
        let ours = measure(rounds, || {
            let exec = workspace.exec(Exec::from(script), ExecOptions::default());
            let exit = block_on(async { exec.await?.wait().await.map_err(Failure::from) })?;
            exit.is_success()
                .then_some(())
                .ok_or_else(|| format!("{name}: {exit:?}").into())
        })?;
        let bash = measure(rounds, || {
            let mut bash = Command::new("bash");
            bash.args(["-c", script])
                .current_dir(tmpfs.path())
                .env("LC_ALL", "C");
            // Its output is read, as that of the shell is: GNU's grep does less for /dev/null.
            bash.stdin(Stdio::null()).stderr(Stdio::inherit());
            let status = bash.output()?.status;
            status
                .success()
                .then_some(())
                .ok_or_else(|| format!("{name}: {status}").into())
        })?;
        let other = match &just_bash {
            Some(dir) => just_bash_ms(dir, tmpfs.path(), script, if fewer > 1 { 1 } else { 3 }),
            None => String::new(),
        };
        let ratio = ours.as_secs_f64() / bash.as_secs_f64();
        println!(
            "| {name} | {} | {} | {ratio:.2} | {other} |",
            ms(ours),
            ms(bash)
        );
    }
    if !only.is_empty() {
        block_on(workspace.close())?;
        return Ok(());
    }
    kills(&workspace)?;
    block_on(workspace.close())?;
    Ok(())
}

/// How long it takes to end what runs.
fn kills(workspace: &Workspace) -> Result<(), Failure> {
    println!("\n| killed | from the signal to the end |\n| --- | ---: |");
    for script in [
        "sleep 100",
        "while :; do :; done",
        "jq -n 'def f: f; f'",
        "awk 'BEGIN { while (1) x++ }'",
    ] {
        let took = killed(workspace, script)?;
        println!("| `{script}` | {} |", ms(took));
    }
    Ok(())
}

/// The median time from a signal to the end of a script.
fn killed(workspace: &Workspace, script: &str) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let exec = block_on(workspace.exec(Exec::from(script), ExecOptions::default()))?;
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        block_on(exec.kill(Signal::TERM))?;
        block_on(exec.wait())?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// The same files in both places.
fn inputs(replica: &Replica, dir: &Path) -> Result<(), Failure> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for n in 0..1_000 {
        let mut text = String::new();
        while text.len() < 4_096 {
            text.push_str("line ");
            text.push_str(&next().to_string());
            text.push_str(" of some text\n");
        }
        if n % 10 == 0 {
            text.push_str("needle\n");
        }
        files.push((format!("tree/{}/f{n}", n % 20), text.into_bytes()));
    }
    let text = |bytes: usize, line: &mut dyn FnMut() -> String| {
        let mut text = String::with_capacity(bytes + 64);
        while text.len() < bytes {
            text.push_str(&line());
        }
        text.into_bytes()
    };
    let mut words = || format!("word{}\n", next() % 5_000);
    files.push(("words".into(), text(4_000_000, &mut words)));
    let mut number = 0_u64;
    let mut numbers = || {
        number += 1;
        format!("row{number} {}\n", number * 7_919 % 100_000)
    };
    files.push(("numbers".into(), text(50_000_000, &mut numbers)));
    let objects: Vec<String> = (0..120_000)
        .map(|n| format!("{{\"a\":{n},\"b\":\"text {n}\"}}"))
        .collect();
    files.push((
        "json".into(),
        format!("[{}]", objects.join(",")).into_bytes(),
    ));
    for (name, bytes) in files {
        let path = dir.join(&name);
        if let Some(parent) = Path::new(&name).parent() {
            std::fs::create_dir_all(dir.join(parent))?;
            if parent != Path::new("") {
                replica.mkdir_all(format!("/{}", parent.display()))?;
            }
        }
        std::fs::write(path, &bytes)?;
        replica.write_file(format!("/{name}"), &bytes)?;
    }
    Ok(())
}

/// The median of just-bash, without the time to load its files.
fn just_bash_ms(dir: &Path, files: &Path, script: &str, rounds: usize) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/just-bash.mjs");
    // Some take minutes.
    let mut node = Command::new("timeout");
    node.args(["60", "node", "--max-old-space-size=4096"]);
    node.arg(program);
    node.args([
        dir.as_os_str(),
        files.as_os_str(),
        script.as_ref(),
        rounds.to_string().as_ref(),
    ]);
    let output = node.stderr(Stdio::null()).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match said.as_deref().map(str::parse::<f64>) {
        Ok(Ok(ms)) => self::ms(Duration::from_secs_f64(ms / 1e3)),
        _ => "failed, or > 60 s".into(),
    }
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
