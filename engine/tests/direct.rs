//! Files whose staging file somebody else writes, as the kernel behind a mount
//! does.
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

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cairn_engine::{
    Allocate, Direct, FileOptions, FsError, Ino, Options, Replica, SetAttr, SetTime, Timestamp,
};

fn replica() -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("r.cairn"), Options::default()).unwrap();
    (dir, replica)
}

/// Another descriptor of the file underneath, as the kernel has one.
fn kernel(direct: &Direct) -> File {
    direct.as_fd().try_clone_to_owned().unwrap().into()
}

/// A file in direct use, with one handle that writes.
fn start(replica: &Replica, path: &str) -> (Ino, File, u64) {
    let ino = replica.write_file(path, b"").unwrap().ino;
    replica.retain(ino, true).unwrap();
    let direct = replica.start_direct(ino).unwrap().expect("it is empty");
    (ino, kernel(&direct), direct.id())
}

fn end(replica: &Replica, ino: Ino) -> Option<u64> {
    let gone = replica.end_direct(ino);
    replica.release(ino, true);
    gone
}

fn check(replica: &Replica) {
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn everybody_sees_what_anybody_writes() {
    let (_dir, replica) = replica();
    let (ino, file, _) = start(&replica, "/f");
    file.write_all_at(b"hello", 0).unwrap();
    assert_eq!(replica.stat("/f").unwrap().size, 5);
    assert_eq!(replica.read_file("/f").unwrap(), b"hello");
    replica.write(ino, 5, b" world").unwrap();
    let mut all = [0; 11];
    file.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"hello world");
    file.write_all_at(b"!", 11).unwrap();
    assert_eq!(replica.append(ino, b"?").unwrap(), 12);
    assert_eq!(replica.read_file("/f").unwrap(), b"hello world!?");
    replica.truncate_path("/f", 3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    replica.truncate_path("/f", 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.write_all_at(b"again", 2).unwrap();
    assert_eq!(replica.read_file("/f").unwrap(), b"\0\0again");
    replica.allocate(ino, 2, 1, Allocate::PunchHole).unwrap();
    assert_eq!(replica.read_file("/f").unwrap(), b"\0\0\0gain");
    replica.truncate_path("/f", 1 << 40).unwrap();
    assert!(
        replica.stat("/f").unwrap().blocks < 100,
        "holes take no space"
    );
    replica.truncate_path("/f", 7).unwrap();
    end(&replica, ino);
    assert_eq!(replica.read_file("/f").unwrap(), b"\0\0\0gain");
    check(&replica);
}

#[test]
fn a_change_has_its_time_and_a_time_that_was_set_stays() {
    let (_dir, replica) = replica();
    let (ino, file, _) = start(&replica, "/f");
    let before = replica.attr(ino).unwrap().mtime;
    std::thread::sleep(std::time::Duration::from_millis(20));
    file.write_all_at(b"x", 0).unwrap();
    assert!(replica.attr(ino).unwrap().mtime > before);
    file.write_all_at(b"y", 1).unwrap();
    let old = Timestamp::new(1_000_000, 5).unwrap();
    let set = SetAttr {
        mtime: Some(SetTime::At(old)),
        ..SetAttr::default()
    };
    replica.set_attr(ino, &set).unwrap();
    replica.flush().unwrap();
    end(&replica, ino);
    let attr = replica.attr(ino).unwrap();
    assert_eq!((attr.mtime, attr.size), (old, 2));
}

#[test]
fn small_files_share_the_file_underneath_one_after_another() {
    let (_dir, replica) = replica();
    let (a, file, first) = start(&replica, "/a");
    file.write_all_at(b"of a", 0).unwrap();
    drop(file);
    // A copy reads it while it is open, a handle after it was closed.
    replica.copy_file("/a", "/copy").unwrap();
    assert_eq!(end(&replica, a), None);
    let (b, file, second) = start(&replica, "/b");
    assert_eq!(first, second);
    assert_eq!(replica.stat("/b").unwrap().size, 0);
    file.write_all_at(b"of b, longer", 0).unwrap();
    // From here on a commit names the file underneath: it is not used again.
    replica.flush().unwrap();
    assert_eq!(end(&replica, b), Some(second));
    let (c, _, third) = start(&replica, "/c");
    assert_ne!(second, third);
    assert_eq!(end(&replica, c), None);
    replica.sync().unwrap();
    for (path, content) in [
        ("/a", "of a"),
        ("/copy", "of a"),
        ("/b", "of b, longer"),
        ("/c", ""),
    ] {
        assert_eq!(replica.read_file(path).unwrap(), content.as_bytes());
    }
    check(&replica);
}

#[test]
fn a_large_file_is_sealed_when_the_last_handle_goes() {
    let (_dir, replica) = replica();
    let (ino, file, id) = start(&replica, "/f");
    let content: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    file.write_all_at(&content, 0).unwrap();
    let joined = replica
        .join_direct(ino, true)
        .unwrap()
        .expect("in direct use");
    assert_eq!(joined.id(), id);
    replica.cursor().unwrap();
    assert_eq!(replica.usage().unwrap().chunks, 0, "it is open");
    assert_eq!(replica.end_direct(ino), None);
    assert_eq!(end(&replica, ino), Some(id));
    replica.cursor().unwrap();
    assert_eq!(replica.usage().unwrap().stored_bytes, content.len() as u64);
    assert!(replica.read_file("/f").unwrap() == content);
    assert!(
        replica.start_direct(ino).unwrap().is_none(),
        "it has content"
    );
    assert!(replica.join_direct(ino, false).unwrap().is_none());
    check(&replica);
}

#[test]
fn a_file_that_goes_while_it_is_used_takes_its_staging_file_along() {
    let (dir, replica) = replica();
    let (ino, file, id) = start(&replica, "/f");
    file.write_all_at(&[1; 100_000], 0).unwrap();
    replica.flush().unwrap();
    replica.remove("/f").unwrap();
    assert_eq!(replica.attr(ino).unwrap().size, 100_000);
    assert_eq!(end(&replica, ino), Some(id));
    replica.sync().unwrap();
    assert!(!dir.path().join(format!("r.cairn/dirty/{id}")).exists());
    check(&replica);
}

#[test]
fn what_needs_the_content_at_rest_says_so_or_copies() {
    let (_dir, replica) = replica();
    let (ino, file, _) = start(&replica, "/f");
    let content = vec![7; 2 << 20];
    file.write_all_at(&content, 0).unwrap();
    let version = replica.version("/f").unwrap();
    let refused = replica.write_if("/f", version, b"other");
    assert!(matches!(refused, Err(FsError::NotSupported(_))));
    replica.copy_file("/f", "/copy").unwrap();
    file.write_all_at(&[8; 10], 0).unwrap();
    assert!(replica.read_file("/copy").unwrap() == content);
    assert_ne!(replica.version("/f").unwrap(), version);
    end(&replica, ino);
    let version = replica.version("/f").unwrap();
    replica.write_if("/f", version, b"other").unwrap();
    check(&replica);
}

#[test]
fn a_crash_keeps_what_was_written_directly() {
    let (dir, replica) = replica();
    let crashed = |to: &Path| {
        let status = std::process::Command::new("cp")
            .arg("-r")
            .arg(dir.path().join("r.cairn"))
            .arg(to)
            .status()
            .unwrap();
        assert!(status.success());
        Replica::open(to, Options::default()).unwrap()
    };
    let (small, a, _) = start(&replica, "/small");
    let (large, b, _) = start(&replica, "/large");
    a.write_all_at(b"first", 0).unwrap();
    b.write_all_at(&[2; 1000], 0).unwrap();
    replica.flush().unwrap();
    // Not committed: but where it was written is.
    a.write_all_at(b"second", 5).unwrap();
    b.write_all_at(&[3; 5 << 20], 1000).unwrap();
    let after = crashed(&dir.path().join("1.cairn"));
    assert_eq!(after.read_file("/small").unwrap(), b"firstsecond");
    assert_eq!(after.stat("/large").unwrap().size, 1000 + (5 << 20));
    assert_eq!(after.read_range("/large", 999, 2).unwrap(), [2, 3]);
    after.cursor().unwrap();
    check(&after);
    drop(after);
    end(&replica, small);
    end(&replica, large);
    // The commit that names the staging file of the small one is still the last.
    let after = crashed(&dir.path().join("2.cairn"));
    assert_eq!(after.read_file("/small").unwrap(), b"firstsecond");
    drop(after);
    replica.flush().unwrap();
    let after = crashed(&dir.path().join("3.cairn"));
    assert_eq!(after.read_file("/small").unwrap(), b"firstsecond");
    check(&after);
}

#[test]
fn handles_of_the_library_and_direct_ones_mix() {
    use std::io::Write;
    let (_dir, replica) = replica();
    let (ino, file, _) = start(&replica, "/log");
    let mut log = FileOptions::new()
        .append(true)
        .open(&replica, "/log")
        .unwrap();
    let mut expected = Vec::new();
    for n in 0..200_u64 {
        let line = format!("line {n}\n");
        if n % 2 == 0 {
            log.write_all(line.as_bytes()).unwrap();
        } else {
            file.write_all_at(line.as_bytes(), replica.attr(ino).unwrap().size)
                .unwrap();
        }
        expected.extend_from_slice(line.as_bytes());
        if n == 150 {
            end(&replica, ino);
            // The kernel closes its file with the last handle.
            let rest = (n + 1..200)
                .map(|n| format!("line {n}\n"))
                .collect::<String>();
            log.write_all(rest.as_bytes()).unwrap();
            expected.extend_from_slice(rest.as_bytes());
            break;
        }
    }
    assert_eq!(replica.read_file("/log").unwrap(), expected);
}

/// A large sealed file, read directly by one handle.
fn read_sealed(replica: &Replica, content: &[u8]) -> (Ino, File, u64) {
    let ino = replica.write_file("/f", content).unwrap().ino;
    replica.cursor().unwrap();
    replica.retain(ino, false).unwrap();
    let direct = replica
        .resume_direct(ino, false)
        .unwrap()
        .expect("it is one pack");
    (ino, kernel(&direct), direct.id())
}

fn all_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn numbers() -> Vec<u8> {
    (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn who_reads_a_pack_sees_a_change_of_the_file_and_its_copies_do_not() {
    let (dir, replica) = replica();
    let content = numbers();
    let (ino, file, _) = read_sealed(&replica, &content);
    replica.copy_file("/f", "/copy").unwrap();
    replica.cursor().unwrap();
    assert!(all_of(&file) == content);
    // One file per pack: a change of one must not be seen by the other.
    let copy = replica.stat("/copy").unwrap().ino;
    assert!(replica.resume_direct(copy, false).unwrap().is_none());
    replica.write(ino, 1_000_000, b"changed").unwrap();
    let mut expected = content.clone();
    expected[1_000_000..1_000_007].copy_from_slice(b"changed");
    assert!(all_of(&file) == expected);
    assert!(replica.read_file("/f").unwrap() == expected);
    assert!(replica.read_file("/copy").unwrap() == content);
    // A handle that writes joins.
    let joined = replica
        .join_direct(ino, true)
        .unwrap()
        .expect("in direct use");
    kernel(&joined).write_all_at(b"again", 5).unwrap();
    expected[5..10].copy_from_slice(b"again");
    assert!(replica.read_file("/f").unwrap() == expected);
    replica.sync().unwrap();
    let crashed = dir.path().join("crashed.cairn");
    let status = std::process::Command::new("cp")
        .args([
            "-r".as_ref(),
            replica.path().unwrap().as_os_str(),
            crashed.as_os_str(),
        ])
        .status();
    assert!(status.unwrap().success());
    {
        let after = Replica::open(&crashed, Options::default()).unwrap();
        assert!(after.read_file("/f").unwrap() == expected);
        assert!(after.read_file("/copy").unwrap() == content);
        check(&after);
    }
    drop(joined);
    replica.end_direct(ino);
    replica.end_direct(ino);
    replica.release(ino, false);
    replica.gc().unwrap();
    assert!(replica.read_file("/f").unwrap() == expected);
    assert!(replica.read_file("/copy").unwrap() == content);
    check(&replica);
}

#[test]
fn gc_leaves_a_pack_alone_that_is_read() {
    let (_dir, replica) = replica();
    let content = numbers();
    let (ino, file, pack) = read_sealed(&replica, &content);
    replica.remove("/f").unwrap();
    replica.sync().unwrap();
    replica.gc().unwrap();
    assert!(all_of(&file) == content, "open files outlive their names");
    assert_eq!(replica.end_direct(ino), Some(pack));
    replica.release(ino, false);
    replica.sync().unwrap();
    replica.gc().unwrap();
    assert_eq!(replica.usage().unwrap().dead_bytes, 0);
    check(&replica);
}

#[test]
fn emptying_and_punching_a_file_that_is_read_from_its_pack() {
    let (_dir, replica) = replica();
    let content = numbers();
    let (ino, file, _) = read_sealed(&replica, &content);
    replica
        .allocate(ino, 4096, 4096, Allocate::PunchHole)
        .unwrap();
    assert!(all_of(&file)[4096..8192].iter().all(|b| *b == 0));
    replica.truncate_path("/f", 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    replica.append(ino, b"new").unwrap();
    assert_eq!(all_of(&file), b"new");
    replica.end_direct(ino);
    replica.release(ino, false);
    assert_eq!(replica.read_file("/f").unwrap(), b"new");
    replica.gc().unwrap();
    check(&replica);
}

#[test]
fn what_is_not_sealed_is_read_from_its_staging_file() {
    let (_dir, replica) = replica();
    let content = numbers();
    let ino = replica.write_file("/f", &content).unwrap().ino;
    replica.retain(ino, false).unwrap();
    let direct = replica
        .resume_direct(ino, false)
        .unwrap()
        .expect("it is staged");
    let file = kernel(&direct);
    drop(direct);
    assert!(all_of(&file) == content);
    replica.append(ino, b"more").unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.len() as u64 + 4);
    replica.end_direct(ino);
    replica.release(ino, false);
    replica.cursor().unwrap();
    assert_eq!(replica.usage().unwrap().unsealed_bytes, 0);
    assert!(replica.read_file("/f").unwrap()[..content.len()] == content);
    check(&replica);
}

#[test]
fn after_a_restart_a_pack_is_still_known_to_be_a_file() {
    let (dir, replica) = replica();
    let content = numbers();
    replica.write_file("/f", &content).unwrap();
    replica.write_file("/small", &content[..10_000]).unwrap();
    replica.cursor().unwrap();
    drop(replica);
    let replica = Replica::open(dir.path().join("r.cairn"), Options::default()).unwrap();
    let ino = replica.stat("/f").unwrap().ino;
    replica.retain(ino, false).unwrap();
    let direct = replica
        .resume_direct(ino, false)
        .unwrap()
        .expect("it is one pack");
    assert!(all_of(&kernel(&direct)) == content);
    let small = replica.stat("/small").unwrap().ino;
    assert!(replica.resume_direct(small, false).unwrap().is_none());
    replica.end_direct(ino);
    replica.release(ino, false);
}

#[test]
fn a_copy_of_a_file_that_is_read_directly_moves_no_bytes_and_is_a_copy() {
    for adopted in [false, true] {
        let (_dir, replica) = replica();
        let content = numbers();
        let ino = replica.write_file("/f", &content).unwrap().ino;
        replica.retain(ino, false).unwrap();
        let direct = replica
            .resume_direct(ino, false)
            .unwrap()
            .expect("it is staged");
        let file = kernel(&direct);
        drop(direct);
        replica.copy_file("/f", "/copy").unwrap();
        replica.copy_file("/f", "/other").unwrap();
        assert_eq!(
            replica.usage().unwrap().chunks,
            0,
            "nothing was sealed to copy it"
        );
        replica.remove("/other").unwrap();
        if adopted {
            // Sealing the copy makes the file underneath a pack.
            replica.cursor().unwrap();
            assert_eq!(replica.usage().unwrap().unsealed_bytes, 0);
        }
        // Somebody opens the file to write: the copy must not see it.
        replica.retain(ino, true).unwrap();
        let joined = replica
            .join_direct(ino, true)
            .unwrap()
            .expect("in direct use");
        kernel(&joined).write_all_at(b"changed", 77).unwrap();
        drop(joined);
        let mut expected = content.clone();
        expected[77..84].copy_from_slice(b"changed");
        assert!(all_of(&file) == expected);
        assert!(replica.read_file("/f").unwrap() == expected);
        assert!(replica.read_file("/copy").unwrap() == content);
        replica.end_direct(ino);
        replica.release(ino, true);
        replica.end_direct(ino);
        replica.release(ino, false);
        replica.gc().unwrap();
        assert!(replica.read_file("/f").unwrap() == expected);
        assert!(replica.read_file("/copy").unwrap() == content);
        check(&replica);
    }
}

#[test]
fn the_last_that_shares_a_staging_file_has_it_for_itself() {
    let (_dir, replica) = replica();
    let content = numbers();
    let ino = replica.write_file("/f", &content).unwrap().ino;
    replica.retain(ino, false).unwrap();
    let direct = replica
        .resume_direct(ino, false)
        .unwrap()
        .expect("it is staged");
    replica.copy_file("/f", "/copy").unwrap();
    replica.remove("/copy").unwrap();
    replica.write(ino, 0, b"mine").unwrap();
    assert_eq!(&all_of(&kernel(&direct))[..4], b"mine");
    drop(direct);
    replica.end_direct(ino);
    replica.release(ino, false);
    replica.cursor().unwrap();
    assert_eq!(replica.read_range("/f", 0, 4).unwrap(), b"mine");
    check(&replica);
}

/// The kernel lets who has a file open go on writing to what is under it, after
/// the process that served the mount has died.
#[test]
fn who_writes_on_after_a_crash_does_not_damage_what_is_stored() {
    let (dir, replica) = replica();
    let (_, large, id) = start(&replica, "/large");
    large.write_all_at(&numbers(), 0).unwrap();
    let (_, small, _) = start(&replica, "/small");
    small.write_all_at(b"small", 0).unwrap();
    replica.flush().unwrap();
    let crashed = dir.path().join("crashed.cairn");
    let status = std::process::Command::new("cp")
        .args([
            "-r".as_ref(),
            replica.path().unwrap().as_os_str(),
            crashed.as_os_str(),
        ])
        .status();
    assert!(status.unwrap().success());
    let large = File::options()
        .write(true)
        .open(crashed.join(format!("dirty/{id}")))
        .unwrap();
    let after = Replica::open(&crashed, Options::default()).unwrap();
    after.copy_file("/large", "/copy").unwrap();
    after.cursor().unwrap();
    large.write_all_at(&[0xff; 100_000], 50_000).unwrap();
    assert_eq!(after.usage().unwrap().unsealed_bytes, 0);
    assert!(after.read_file("/large").unwrap() == numbers());
    assert!(after.read_file("/copy").unwrap() == numbers());
    check(&after);
}

#[test]
fn who_writes_on_after_a_mount_was_torn_down_does_not_damage_what_is_stored() {
    let (_dir, replica) = replica();
    let (a, large, _) = start(&replica, "/large");
    large.write_all_at(&numbers(), 0).unwrap();
    let (b, small, _) = start(&replica, "/small");
    small.write_all_at(b"small", 0).unwrap();
    for ino in [a, b] {
        replica.abandon_direct(ino);
        replica.release(ino, true);
    }
    let (c, other, _) = start(&replica, "/other");
    other.write_all_at(b"other", 0).unwrap();
    replica.cursor().unwrap();
    large.write_all_at(&[0xff; 100_000], 50_000).unwrap();
    small.write_all_at(b"LATE!", 0).unwrap();
    end(&replica, c);
    assert!(replica.read_file("/large").unwrap() == numbers());
    assert_eq!(replica.read_file("/small").unwrap(), b"small");
    assert_eq!(replica.read_file("/other").unwrap(), b"other");
    check(&replica);
}
