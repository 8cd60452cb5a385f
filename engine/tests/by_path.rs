//! Operations by path: streams, searches, watches and compare-and-swap.
#![allow(missing_docs, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    clippy::format_collect,
    clippy::too_many_lines,
    reason = "tests, and their helpers"
)]

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use cairn_engine::{FileOptions, FsError, GrepOptions, Options, Replica};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

fn paths(walk: cairn_engine::Walk) -> Vec<String> {
    walk.map(|found| String::from_utf8(found.unwrap().path).unwrap())
        .collect()
}

fn project() -> Replica {
    let replica = Replica::in_memory().unwrap();
    replica.mkdir_all("/a/src/deep").unwrap();
    replica
        .write_file("/a/src/main.rs", b"fn main() {\n    run();\n}\n")
        .unwrap();
    replica
        .write_file("/a/src/deep/run.rs", b"pub fn run() {}")
        .unwrap();
    replica
        .write_file("/a/README", b"Run it.\r\nrun run")
        .unwrap();
    replica.write_file("/a/src.bin", b"run\0run").unwrap();
    replica.symlink_path("/a", "/a/src/deep/up").unwrap();
    replica
}

#[test]
fn a_walk_is_sorted_and_does_not_follow_links() {
    let all = paths(project().walk_dir("/a/").unwrap());
    let expected = [
        "/a/README",
        "/a/src",
        "/a/src/deep",
        "/a/src/deep/run.rs",
        "/a/src/deep/up",
        "/a/src/main.rs",
        "/a/src.bin",
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_pattern_sees_the_path_below_the_directory() {
    let replica = project();
    let find = |dir, glob| paths(replica.find(dir, glob).unwrap());
    assert_eq!(find("/a", "*.rs"), [""; 0]);
    assert_eq!(find("/a", "src/*.rs"), ["/a/src/main.rs"]);
    assert_eq!(find("/a/src", "*.rs"), ["/a/src/main.rs"]);
    assert_eq!(find("/", "**/*.rs").len(), 2);
    assert_eq!(find("/a", "{README,src.???}").len(), 2);
    assert!(matches!(
        replica.find("/a", "[z-a"),
        Err(FsError::Invalid(_))
    ));
    assert!(matches!(
        replica.find("/a/README", "*"),
        Err(FsError::NotDir(_))
    ));
    assert!(matches!(
        replica.find("/none", "*"),
        Err(FsError::NotFound(_))
    ));
}

#[test]
fn what_goes_during_a_walk_is_left_out() {
    let replica = project();
    let mut walk = replica.walk_dir("/a").unwrap();
    walk.next().unwrap().unwrap();
    replica.remove_all("/a/src").unwrap();
    assert!(paths(walk).iter().all(|p| !p.starts_with("/a/src/deep")));
}

#[test]
fn grep_reads_text_and_leaves_out_binary_files() {
    let replica = project();
    let grep = |pattern: &str, options: &GrepOptions| {
        let mut found = Vec::new();
        replica
            .grep("/a", pattern, options, |line| {
                found.push((String::from_utf8(line.path).unwrap(), line.number));
                true
            })
            .unwrap();
        found
    };
    let exact = grep("run", &GrepOptions::default());
    let expected = [
        ("/a/README", 2),
        ("/a/src/deep/run.rs", 1),
        ("/a/src/main.rs", 2),
    ];
    assert_eq!(exact, expected.map(|(path, line)| (path.to_owned(), line)));
    let any_case = GrepOptions {
        ignore_case: true,
        ..GrepOptions::default()
    };
    assert_eq!(grep("run", &any_case).len(), 4);
    let regex = GrepOptions {
        regex: true,
        ..GrepOptions::default()
    };
    assert_eq!(
        grep(r"^fn \w+\(", &regex),
        [("/a/src/main.rs".to_owned(), 1)]
    );
    assert_eq!(
        grep("n()", &regex),
        grep("n", &regex),
        "an empty group matches anywhere"
    );
    assert_eq!(
        grep("n()", &GrepOptions::default()).len(),
        3,
        "the text itself"
    );
    let in_sources = GrepOptions {
        include: Some("src/**".into()),
        limit: 1,
        ..regex
    };
    assert_eq!(grep("run", &in_sources).len(), 1);
    let malformed = replica.grep("/a", "(", &in_sources, |_| true);
    assert!(matches!(malformed, Err(FsError::Invalid(_))));
}

#[test]
fn grep_takes_lines_of_any_length() {
    let replica = Replica::in_memory().unwrap();
    let mut text = vec![b'x'; 300_000];
    text.extend_from_slice(b"\nneedle");
    replica.write_file("/long", &text).unwrap();
    let mut numbers = Vec::new();
    replica
        .grep("/", "needle", &GrepOptions::default(), |line| {
            numbers.push(line.number);
            true
        })
        .unwrap();
    assert_eq!(numbers, [2]);
}

#[test]
fn a_file_is_a_stream() {
    let replica = Replica::in_memory().unwrap();
    let mut file = FileOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&replica, "/f")
        .unwrap();
    let block = vec![7; 3 << 20];
    file.write_all(&block).unwrap();
    file.seek(SeekFrom::Current(-2)).unwrap();
    file.write_all(b"end").unwrap();
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), (3 << 20) + 1);
    file.seek(SeekFrom::Start((3 << 20) - 3)).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\u{7}end");
    file.seek(SeekFrom::End(i64::MIN)).unwrap_err();
    // It can be used after its last name is gone.
    replica.remove("/f").unwrap();
    file.rewind().unwrap();
    assert_eq!(file.read(&mut [0; 10]).unwrap(), 10);
    assert_eq!(file.attr().unwrap().nlink, 0);
}

#[test]
fn a_handle_does_only_what_it_was_opened_for() {
    let replica = Replica::in_memory().unwrap();
    replica.write_file("/f", b"content").unwrap();
    replica.mkdir("/d").unwrap();
    let mut read = replica.open_file("/f").unwrap();
    let refused = read.write(b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(matches!(refused.downcast(), Ok(FsError::NotPermitted(_))));
    assert!(read.set_len(0).is_err());
    let mut write = FileOptions::new()
        .append(true)
        .open(&replica, "/f")
        .unwrap();
    write.read(&mut [0]).unwrap_err();
    write.write_all(b" and more").unwrap();
    assert_eq!(replica.read_file("/f").unwrap(), b"content and more");
    let open = |options: FileOptions, path: &str| options.open(&replica, path);
    let new = FileOptions::new().write(true).create_new(true);
    assert!(matches!(open(new, "/f"), Err(FsError::Exists(_))));
    assert!(matches!(
        open(FileOptions::new().read(true), "/d"),
        Err(FsError::IsDir(_))
    ));
    assert!(matches!(
        open(FileOptions::new(), "/f"),
        Err(FsError::Invalid(_))
    ));
    assert!(matches!(
        open(FileOptions::new().read(true).create(true), "/g"),
        Err(FsError::Invalid(_))
    ));
    assert!(!replica.exists("/g").unwrap());
}

#[test]
fn a_version_stays_until_the_content_changes() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("r.cairn"), Options::default()).unwrap();
    for len in [0, 10, 100_000, 3 << 20] {
        replica.write_file("/f", &vec![1; len]).unwrap();
        let version = replica.version("/f").unwrap();
        replica.sync().unwrap();
        replica.cursor().unwrap();
        replica.chmod("/f", 0o600).unwrap();
        assert_eq!(replica.version("/f").unwrap(), version, "{len} bytes");
        replica.append_file("/f", b"x").unwrap();
        assert_ne!(replica.version("/f").unwrap(), version, "{len} bytes");
    }
}

#[test]
fn of_those_who_swap_one_version_one_wins() {
    let replica = Replica::in_memory().unwrap();
    for len in [10, 2 << 20] {
        replica.write_file("/f", &vec![9; len]).unwrap();
        for _ in 0..20 {
            let version = replica.version("/f").unwrap();
            let contents: Vec<Vec<u8>> = (0..4).map(|n| vec![n; len]).collect();
            let wins: Vec<bool> = std::thread::scope(|scope| {
                let all: Vec<_> = contents
                    .iter()
                    .map(|c| scope.spawn(|| replica.write_if("/f", version, c).is_ok()))
                    .collect();
                all.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(wins.iter().filter(|w| **w).count(), 1);
            let winner = wins.iter().position(|w| *w).unwrap();
            assert!(replica.read_file("/f").unwrap() == contents[winner]);
        }
    }
    assert_eq!(
        replica.list("/", 0, 10).unwrap().len(),
        1,
        "nothing else is left"
    );
}

#[test]
fn a_watch_tells_each_change_once_and_goes_on_from_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("r.cairn");
    let replica = Replica::open(&place, Options::default()).unwrap();
    replica.write_file("/before", b"").unwrap();
    let mut watch = replica.watch(None).unwrap();
    assert!(watch.next_within(Duration::ZERO).unwrap().is_none());
    for n in 0..2_500 {
        replica.write_file(format!("/{n}"), b"").unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 2_500 {
        let changes = watch.next_within(PATIENCE).unwrap().expect("more to come");
        seen.extend(
            replica
                .paths_of(&changes)
                .unwrap()
                .into_iter()
                .filter(|p| p != b"/"),
        );
    }
    assert!(!seen.contains(b"/before".as_slice()));
    // A handle that waits hears of a change in another thread.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| watch.next_within(PATIENCE).unwrap());
        replica.mkdir("/later").unwrap();
        let changes = waiting.join().unwrap().expect("a change");
        assert!(
            replica
                .paths_of(&changes)
                .unwrap()
                .contains(b"/later".as_slice())
        );
    });
    while watch.next_within(Duration::ZERO).unwrap().is_some() {}
    let cursor = watch.cursor();
    drop(watch);
    replica.remove("/0").unwrap();
    drop(replica);
    let replica = Replica::open(&place, Options::default()).unwrap();
    let mut watch = replica.watch(Some(cursor)).unwrap();
    let changes = watch
        .next_within(PATIENCE)
        .unwrap()
        .expect("what came last");
    assert!(
        replica
            .paths_of(&changes)
            .unwrap()
            .contains(b"/0".as_slice())
    );
    let foreign = Replica::in_memory().unwrap().cursor().unwrap();
    assert!(replica.watch(Some(foreign)).is_err());
}

#[test]
fn attributes_by_path() {
    let replica = project();
    replica
        .set_xattr_path("/a/README", b"user.note", b"first")
        .unwrap();
    assert_eq!(
        &replica.xattr_path("/a/README", b"user.note").unwrap()[..],
        b"first"
    );
    assert_eq!(replica.list_xattrs_path("/a/README").unwrap().len(), 1);
    replica
        .remove_xattr_path("/a/README", b"user.note")
        .unwrap();
    assert!(matches!(
        replica.xattr_path("/a/README", b"user.note"),
        Err(FsError::NoXattr)
    ));
}

/// What a crash of the process would leave.
fn after_a_crash(place: &std::path::Path) -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("crashed.cairn");
    let status = std::process::Command::new("cp")
        .args(["-r".as_ref(), place.as_os_str(), copy.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
    let replica = Replica::open(&copy, Options::default()).unwrap();
    (dir, replica)
}

#[test]
fn a_copy_of_what_is_not_sealed_is_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("r.cairn");
    let replica = Replica::open(&place, Options::default()).unwrap();
    let content: Vec<u8> = (0..5_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut other = content.clone();
    other[1_000_000] ^= 1;
    let change = |path: &str| replica.write_range(path, 1_000_000, &other[1_000_000..1_000_001]);
    let is = |path: &str, content: &[u8]| {
        assert!(replica.read_file(path).unwrap() == content, "{path}");
    };
    // The handle keeps the file from being sealed by itself.
    let open = FileOptions::new()
        .append(true)
        .create(true)
        .open(&replica, "/a")
        .unwrap();
    replica.write_range("/a", 0, &content).unwrap();
    for name in ["/b", "/c", "/d", "/e"] {
        replica.copy_file("/a", name).unwrap();
    }
    assert_eq!(
        replica.usage().unwrap().chunks,
        0,
        "nothing was sealed to copy it"
    );
    replica.remove("/e").unwrap();
    replica.truncate_path("/d", 0).unwrap();
    replica.flush().unwrap();
    {
        let (_dir, crashed) = after_a_crash(&place);
        for name in ["/a", "/b", "/c"] {
            assert!(crashed.read_file(name).unwrap() == content, "{name}");
        }
        crashed.remove("/a").unwrap();
        crashed.sync().unwrap();
        crashed.append_file("/b", b"end").unwrap();
        assert_eq!(crashed.stat("/b").unwrap().size, content.len() as u64 + 3);
        assert!(crashed.read_file("/c").unwrap() == content);
        assert!(crashed.check(&mut |_, _| {}).unwrap().problems.is_empty());
    }
    is("/c", &content);
    change("/a").unwrap();
    is("/a", &other);
    is("/b", &content);
    change("/b").unwrap();
    is("/b", &other);
    is("/c", &content);
    replica.remove("/a").unwrap();
    drop(open);
    replica.gc().unwrap();
    is("/c", &content);
    assert_eq!(replica.stat("/d").unwrap().size, 0);
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let usage = replica.usage().unwrap();
    assert!(
        usage.stored_bytes < content.len() as u64 * 3 / 2,
        "{usage:?}"
    );
}

#[test]
fn writers_of_copies_do_not_meet() {
    let replica = Replica::in_memory().unwrap();
    let content = vec![1; 3 << 20];
    for round in 0..20 {
        let (a, b) = (format!("/a{round}"), format!("/b{round}"));
        replica.write_file(&a, &content).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..200 {
                    replica.write_range(&a, at * 10_000, &[2; 5_000]).unwrap();
                }
            });
            scope.spawn(|| {
                replica.copy_file(&a, &b).unwrap();
                let first = replica.read_file(&b).unwrap();
                replica.write_range(&b, 2_500_000, &[3; 1_000]).unwrap();
                let mut expected = first;
                expected[2_500_000..2_501_000].fill(3);
                assert!(replica.read_file(&b).unwrap() == expected);
            });
        });
        let written = replica.read_file(&a).unwrap();
        assert!((0..200).all(|at| written[at * 10_000..at * 10_000 + 5_000] == [2; 5_000]));
        assert!(written[2_500_000..].iter().all(|b| *b == 1));
        replica.cursor().unwrap();
        assert!(replica.read_file(&a).unwrap() == written);
    }
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}
