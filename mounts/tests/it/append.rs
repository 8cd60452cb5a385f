//! Several writers that append to one file.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::child::Job;
use crate::common::{Mounted, Stop};

/// Two processes on the mount, and one writer that the kernel knows nothing of: no line is lost
/// or broken, neither in the replica nor in what the kernel has cached.
#[test]
fn no_line_is_lost_by_appending() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("log");
    fs::write(&path, b"").unwrap();
    let other = Job::start("append", &path);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            for line in 0..500 {
                file.write_all(format!("mount {line:04}\n").as_bytes())
                    .unwrap();
            }
        });
        scope.spawn(|| {
            for line in 0..500 {
                let line = format!("api   {line:04}\n");
                m.replica.append_file("/log", line.as_bytes()).unwrap();
            }
        });
    });
    other.end();
    let kept = m.replica.read_file("/log").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fs::read(&path).unwrap() != kept {
        assert!(
            std::time::Instant::now() < until,
            "the kernel shows something else"
        );
    }
    let mut text = String::from_utf8(kept).unwrap();
    assert_eq!(text.lines().count(), 1500);
    // The kernel passes on what crosses the border of a page in two pieces, and only what is
    // written through the mount waits for the second one.
    for line in 0..500 {
        let line = format!("api   {line:04}\n");
        let at = text.find(&line).unwrap_or_else(|| panic!("broken: {line}"));
        text.replace_range(at..at + line.len(), "");
    }
    let lines: HashSet<&str> = text.lines().collect();
    for writer in ["child", "mount"] {
        for line in 0..500 {
            assert!(lines.contains(format!("{writer} {line:04}").as_str()));
        }
    }
}

/// Readers look all the time at the end of a file to which others append: they never see bytes
/// that nobody wrote, and in the end all of them.
#[test]
fn readers_of_a_growing_file_see_what_was_appended() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("log");
    fs::write(&path, b"").unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    grow(
        &path,
        |line| file.write_all(line).unwrap(),
        |_| panic!("bytes that nobody wrote"),
    );
    assert!(fs::read(&path).unwrap() == m.replica.read_file("/log").unwrap());
}

/// When the end moves behind the kernel's back, a read that was under way may have got its page
/// before and look at the size after: the next read is right.
#[test]
fn readers_of_a_file_that_grows_behind_the_mount_see_what_was_appended() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("log");
    fs::write(&path, b"").unwrap();
    let again = |_: &[u8]| assert!(!fs::read(&path).unwrap().contains(&0), "it stays wrong");
    grow(
        &path,
        |line| m.replica.append_file("/log", line).unwrap(),
        again,
    );
    assert!(fs::read(&path).unwrap() == m.replica.read_file("/log").unwrap());
}

fn grow(path: &Path, mut append: impl FnMut(&[u8]), zeros: impl Fn(&[u8]) + Sync) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seen = fs::read(path).unwrap();
                    if seen.contains(&0) {
                        zeros(&seen);
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        for line in 0..2000 {
            append(format!("line {line:04}\n").as_bytes());
        }
    });
    assert_eq!(fs::metadata(path).unwrap().len(), 2000 * 10);
}
