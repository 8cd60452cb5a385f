//! Faults below the engine: reads and writes that fail, and files that may not
//! grow. The error has the errno of the fault, and what was promised stays.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_engine::{Options, Replica};
use rustix::io::Errno;

use crate::support::{assert_clean, assert_same, files_in, noise, open, place};

/// Reading the memory of a process where none is gives EIO: such a pack is one
/// on a bad sector.
#[test]
fn a_read_that_fails_is_an_error_with_its_errno() {
    let (_dir, path) = place();
    let replica = open(&path);
    let (bad, good) = (noise(3 << 20, 1), noise(3 << 20, 2));
    replica.write_file("/bad", &bad).unwrap();
    replica.cursor().unwrap();
    let pack = files_in(&path, "chunks")[0].clone();
    replica.write_file("/good", &good).unwrap();
    replica.cursor().unwrap();
    drop(replica);
    let kept = pack.with_extension("kept");
    std::fs::rename(&pack, &kept).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &pack).unwrap();

    let replica = open(&path);
    let error = replica.read_file("/bad").unwrap_err();
    assert_eq!(error.errno(), Errno::IO, "{error:?}");
    let id = pack.file_stem().unwrap().to_string_lossy();
    assert!(
        error.to_string().contains(&format!("data file {id}")),
        "{error}"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("os error 5"), "{source}");
    assert_same(&replica.read_file("/good").unwrap(), &good, "/good");
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert!(
        report.problems.iter().any(|p| p.what == "/bad"),
        "{report:?}"
    );
    assert!(
        !report.problems.iter().any(|p| p.what == "/good"),
        "{report:?}"
    );
    replica.write_file("/new", &good).unwrap();
    replica.sync().unwrap();
    drop(replica);

    // The sector can be read again.
    std::fs::remove_file(&pack).unwrap();
    std::fs::rename(&kept, &pack).unwrap();
    let replica = open(&path);
    assert_same(&replica.read_file("/bad").unwrap(), &bad, "/bad");
    assert_clean(&replica);
}

/// Files that the process may not let grow beyond this give short writes, then
/// EFBIG.
const LIMIT_BYTES: u64 = 4 << 20;

/// Not a test of its own: what the child with the limit runs.
#[test]
fn limited_child() {
    let Ok(path) = std::env::var("CAIRN_LIMITED_REPLICA") else {
        return;
    };
    let mut report = File::create(Path::new(&path).with_extension("report")).unwrap();
    let replica = Replica::open(&path, Options::default()).unwrap();
    assert_same(
        &replica.read_file("/before").unwrap(),
        &noise(6 << 20, 1),
        "/before",
    );
    let large = replica.write_file("/large", &noise(6 << 20, 2));
    writeln!(report, "large {}", errno(large.map(drop))).unwrap();
    let mut failed = 0;
    for i in 0..200 {
        let content = noise(60_000, 100 + i);
        if replica.write_file(format!("/s{i}"), &content).is_err() {
            failed += 1;
            continue;
        }
        if replica.sync().is_ok() {
            writeln!(report, "kept {i}").unwrap();
        } else {
            failed += 1;
        }
        // Whatever fails, what is there can be read.
        assert_same(&replica.read_file(format!("/s{i}")).unwrap(), &content, i);
    }
    assert_same(
        &replica.read_file("/before").unwrap(),
        &noise(6 << 20, 1),
        "/before",
    );
    writeln!(report, "failed {failed}").unwrap();
}

fn errno(done: Result<(), cairn_engine::FsError>) -> i32 {
    done.err().map_or(0, |e| e.errno().raw_os_error())
}

fn run_limited(path: &Path) -> String {
    // The signal that comes with the limit is ignored, so that writes fail.
    let script = format!(
        r#"trap "" XFSZ; ulimit -f {}; exec "$0" "$@""#,
        LIMIT_BYTES / 1_024
    );
    let status = Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "faulty::limited_child", "--nocapture"])
        .env("CAIRN_LIMITED_REPLICA", path)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "the child failed");
    std::fs::read_to_string(path.with_extension("report")).unwrap()
}

#[test]
fn short_writes_are_errors_and_cost_nothing_that_was_promised() {
    if !Path::new("/bin/bash").exists() {
        println!("skipped: no bash to set the limit with");
        return;
    }
    let (_dir, path): (_, PathBuf) = place();
    let replica = open(&path);
    replica.write_file("/before", &noise(6 << 20, 1)).unwrap();
    replica.cursor().unwrap();
    drop(replica);
    let report = run_limited(&path);
    let large = format!("large {}", Errno::FBIG.raw_os_error());
    assert!(report.contains(&large), "{report}");
    let replica = open(&path);
    assert_clean(&replica);
    assert_same(
        &replica.read_file("/before").unwrap(),
        &noise(6 << 20, 1),
        "/before",
    );
    let kept: Vec<u64> = report
        .lines()
        .filter_map(|line| line.strip_prefix("kept ")?.parse().ok())
        .collect();
    assert!(!kept.is_empty(), "{report}");
    for i in kept {
        let got = replica.read_file(format!("/s{i}")).unwrap();
        assert_same(&got, &noise(60_000, 100 + i), i);
    }
    replica.write_file("/large", &noise(6 << 20, 2)).unwrap();
    replica.cursor().unwrap();
    assert_same(
        &replica.read_file("/large").unwrap(),
        &noise(6 << 20, 2),
        "/large",
    );
    assert_clean(&replica);
}

/// A staging file whose last page was torn, or that lost its end, after what
/// was synced: the rest is as it was.
#[test]
fn a_torn_end_of_a_staging_file_costs_only_that() {
    let (dir, path) = place();
    let replica = open(&path);
    let content = noise(3 << 20, 1);
    let ino = replica.write_file("/f", &content).unwrap().ino;
    replica.retain(ino, true).unwrap();
    replica.write(ino, 0, &noise(10, 2)).unwrap();
    replica.sync().unwrap();
    let copy = dir.path().join("copy.cairn");
    crate::support::crash_copy(&path, &copy);
    for staging in files_in(&copy, "dirty") {
        let file = File::options().write(true).open(staging).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(1_000)).unwrap();
    }
    let after = open(&copy);
    let got = after.read_file("/f").unwrap();
    assert_eq!(got.len(), content.len());
    let end = content.len() - 1_000;
    assert_same(&got[10..end], &content[10..end], "all but the end");
    assert_clean(&after);
}
