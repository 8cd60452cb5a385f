//! Several writers that append to one file.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;

use crate::child::Job;
use crate::common::Mounted;

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
                file.write_all(format!("mount {line:04}\n").as_bytes()).unwrap();
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
        assert!(std::time::Instant::now() < until, "the kernel shows something else");
    }
    let text = String::from_utf8(kept).unwrap();
    let lines: HashSet<&str> = text.lines().collect();
    assert_eq!(text.lines().count(), 1500);
    for writer in ["child", "mount", "api  "] {
        for line in 0..500 {
            assert!(lines.contains(format!("{writer} {line:04}").as_str()));
        }
    }
}
