//! Memory of a process that builds a tree of a million files through the
//! library, lists it, closes it, and lists it again: resident now, and at most
//! so far.
//!
//! `cargo run --release -p cairn-benches --example memory -- DIRECTORIES PLACE`

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use cairn_engine::{Ino, NewNode, NodeKind, Replica};

const FILES: u32 = 1_000_000;
/// Entries asked for at once.
const PAGE: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dirs), Some(place), None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: memory DIRECTORIES PLACE".into());
    };
    let dirs: u32 = dirs.parse()?;
    let place = tempfile::tempdir_in(place)?;
    let path = place.path().join("w.cairn");
    let replica = timed("built", || build(&path, dirs))?;
    timed("listed", || list(&replica, dirs))?;
    drop(replica);
    let replica = timed("opened", || {
        Ok(Replica::open(&path, cairn_engine::Options::default())?)
    })?;
    timed("listed", || list(&replica, dirs))
}

fn build(path: &Path, dirs: u32) -> Result<Replica, Box<dyn Error>> {
    let replica = Replica::open(path, cairn_engine::Options::default())?;
    for dir in 0..dirs {
        let dir = replica.make(Ino::ROOT, name(dir).as_bytes(), &new(NodeKind::Dir))?;
        for file in 0..FILES / dirs {
            let file = replica.make(dir.ino, name(file).as_bytes(), &new(NodeKind::File))?;
            replica.write(file.ino, 0, b"sixteen bytes, 1")?;
        }
    }
    replica.flush()?;
    Ok(replica)
}

fn list(replica: &Replica, dirs: u32) -> Result<(), Box<dyn Error>> {
    let mut listed = 0;
    for dir in 0..dirs {
        let mut cookie = 0;
        loop {
            let page = replica.list(format!("/{}", name(dir)), cookie, PAGE)?;
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            listed += page.len();
        }
    }
    if listed != (FILES / dirs * dirs) as usize {
        return Err(format!("{listed} files were listed").into());
    }
    Ok(())
}

fn name(number: u32) -> String {
    format!("{number:07}")
}

fn new(kind: NodeKind) -> NewNode {
    NewNode {
        kind,
        perm: 0o755,
        uid: 0,
        gid: 0,
        rdev: 0,
    }
}

/// Runs a step, and prints what it took.
fn timed<T>(
    what: &str,
    step: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let begun = Instant::now();
    let done = step()?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mebibytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|l| l.split_whitespace().next());
        number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    writeln!(
        std::io::stdout(),
        "{what} in {:.2} s: {} MiB, at most {} MiB",
        begun.elapsed().as_secs_f64(),
        mebibytes("VmRSS:"),
        mebibytes("VmHWM:")
    )?;
    Ok(done)
}
