//! Faults that were found, each by its story.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use cairn_engine::{Allocate, FsError, Ino, NodeKind, Options, Replica, SetAttr};
use cairn_protocol::Entry;

use crate::model::holds;
use crate::support::{
    assert_clean, assert_same, crash_copy, eventually, files_in, make_file, new, noise, open,
    place, quiet, tiny,
};

fn resize(replica: &Replica, ino: Ino, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    replica.set_attr(ino, &set).unwrap();
}

/// A removed node was loaded again from its row, as long as the commit of its
/// removal was to come: it could be read and changed, and had no name.
#[test]
fn a_removed_node_does_not_come_back_before_the_commit() {
    let (_dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    let ino = make_file(&replica, Ino::ROOT, "f");
    replica.flush().unwrap();
    replica.unlink(Ino::ROOT, b"f").unwrap();
    let gone = |found| matches!(found, Err(FsError::NotFound(_)));
    assert!(gone(replica.attr(ino).map(drop)));
    assert!(gone(replica.write(ino, 0, b"ghost")));
    replica.flush().unwrap();
    assert!(gone(replica.attr(ino).map(drop)));
    assert_clean(&replica);
}

/// The same for a node that a crash left without a name.
#[test]
fn an_orphan_of_a_crash_is_gone_from_the_start() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    let ino = make_file(&replica, Ino::ROOT, "f");
    replica.retain(ino, true).unwrap();
    replica.unlink(Ino::ROOT, b"f").unwrap();
    replica.flush().unwrap();
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    let after = Replica::open(&copy, quiet(Options::default())).unwrap();
    assert!(matches!(after.attr(ino), Err(FsError::NotFound(_))));
    assert_clean(&after);
}

/// Truncating a file that was not sealed cut its staging file at once: a crash
/// before the commit left the old size, and zeros instead of the old bytes.
#[test]
fn a_truncation_and_a_crash_leave_the_file_before_or_after() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    let content = noise(3 << 20, 1);
    let ino = make_file(&replica, Ino::ROOT, "f");
    replica.retain(ino, true).unwrap();
    replica.write(ino, 0, &content).unwrap();
    replica.flush().unwrap();
    resize(&replica, ino, 1_000);
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    assert_same(&open(&copy).read_file("/f").unwrap(), &content, "before");
    // What was cut off does not come back, and its space is not kept.
    resize(&replica, ino, 3 << 20);
    let mut cut = content.clone();
    cut[1_000..].fill(0);
    assert_same(&replica.read_file("/f").unwrap(), &cut, "after");
    replica.cursor().unwrap();
    assert_same(&replica.read_file("/f").unwrap(), &cut, "sealed");
    assert_clean(&replica);
}

/// A file whose end is zeros that its staging file did not have became a pack
/// that was shorter than its last chunk, which could not be read.
#[test]
fn zeros_at_the_end_of_an_adopted_file_can_be_read() {
    let (_dir, path) = place();
    let replica = open(&path);
    let content = noise((3 << 20) + 100, 1);
    let ino = make_file(&replica, Ino::ROOT, "f");
    replica.retain(ino, true).unwrap();
    replica.write(ino, 0, &content).unwrap();
    let zeros = Allocate::Zero { keep_size: false };
    resize(&replica, ino, (3 << 20) + 5_000);
    replica
        .allocate(ino, (3 << 20) + 100, 4_900, zeros)
        .unwrap();
    replica.cursor().unwrap();
    let want = [content, vec![0; 4_900]].concat();
    assert_same(&replica.read_file("/f").unwrap(), &want, "/f");
    assert_clean(&replica);
}

/// A commit of a file that was not sealed yet moved the version of its stored
/// content: a pin from before lost it, and then the chunks went.
#[test]
fn a_pin_keeps_the_content_of_a_file_that_is_written_to() {
    let (_dir, path) = place();
    let replica = open(&path);
    let content = noise(2 << 20, 1);
    let ino = replica.write_file("/f", &content).unwrap().ino;
    let pin = replica.pin("a test").unwrap();
    replica.retain(ino, true).unwrap();
    replica.write(ino, 0, b"changed").unwrap();
    for _ in 0..2 {
        let kept = replica.data_at(ino, pin.seq).unwrap();
        assert!(holds(kept.as_ref(), &content));
        replica.flush().unwrap();
        let kept = replica.data_at(ino, pin.seq).unwrap();
        assert!(holds(kept.as_ref(), &content));
        replica.cursor().unwrap();
        replica.gc().unwrap();
    }
    assert_clean(&replica);
}

/// The staging file of a sealed file went with the commit of the seal, which
/// was not durable: a power cut brought back rows that named it.
#[test]
fn a_staging_file_stays_until_the_seal_is_durable() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    let base = noise(2 << 20, 1);
    let ino = replica.write_file("/f", &base).unwrap().ino;
    replica.cursor().unwrap();
    replica.retain(ino, true).unwrap();
    replica.write(ino, 1_000, b"promised").unwrap();
    replica.fsync(ino).unwrap();
    let synced = dir.path().join("synced");
    crash_copy(&path, &synced);
    replica.cursor().unwrap();
    let staged = files_in(&path, "dirty");
    assert_eq!(staged.len(), 1, "{staged:?}");
    // And goes then.
    replica.sync().unwrap();
    assert_eq!(files_in(&path, "dirty"), [] as [std::path::PathBuf; 0]);
    let after = open(&synced);
    assert_eq!(after.read_range("/f", 1_000, 8).unwrap(), b"promised");
}

/// It goes without any sync, too, a little later.
#[test]
fn a_staging_file_does_not_wait_for_a_sync_for_ever() {
    let (_dir, path) = place();
    let replica = open(&path);
    let ino = replica.write_file("/f", &noise(2 << 20, 1)).unwrap().ino;
    replica.cursor().unwrap();
    replica.write(ino, 0, b"changed").unwrap();
    replica.cursor().unwrap();
    eventually("the staging file is gone", || {
        files_in(&path, "dirty").is_empty()
    });
}

/// After the first long log every commit was followed by a checkpoint and its
/// syncs, for the log was never shorter again.
#[test]
fn the_log_is_cut_when_it_is_long() {
    let (_dir, path) = place();
    let replica = open(&path);
    for i in 0..6_000 {
        replica
            .write_file(format!("/f{i}"), &noise(400, i))
            .unwrap();
        if i % 50 == 0 {
            replica.flush().unwrap();
        }
    }
    let log = path.join("cairn.db-wal");
    eventually("the log is short", || {
        log.metadata().unwrap().len() < 16 << 20
    });
    assert_clean(&replica);
}

/// A follower that read a cut in pages never learned of a node that changed
/// between the pages: the next cut told only what was newer.
#[test]
fn a_node_that_changes_between_two_pages_is_told() {
    let (_dir, path) = place();
    let replica = open(&path);
    let start = replica.cursor().unwrap();
    replica.write_file("/a", b"a").unwrap();
    let ino = replica.write_file("/b", b"b").unwrap().ino;
    let first = replica.changes_page(Some(&start), None, 0, 1).unwrap();
    assert!(first.more);
    replica.chmod("/b", 0o600).unwrap();
    replica.flush().unwrap();
    let rest = replica
        .changes_page(Some(&start), Some(&first.next), first.resume, 1_000)
        .unwrap();
    let told = rest
        .changes
        .iter()
        .any(|c| matches!(&c.entry, Entry::Node { id, .. } if id.counter == ino.0));
    assert!(told, "{rest:?}");
}

/// What was written through a file underneath was committed under its version
/// without the content; a follower that asked then was not told later.
#[test]
fn the_content_of_a_file_in_direct_use_is_told_when_that_ends() {
    let (_dir, path) = place();
    let replica = open(&path);
    let ino = replica.write_file("/f", b"").unwrap().ino;
    replica.retain(ino, true).unwrap();
    let direct = replica.start_direct(ino).unwrap().expect("it is empty");
    let file = std::fs::File::from(direct.as_fd().try_clone_to_owned().unwrap());
    file.write_all_at(b"content", 0).unwrap();
    let cursor = replica.cursor().unwrap();
    drop((file, direct));
    replica.end_direct(ino);
    replica.release(ino, true);
    let changes = replica.changes_since(Some(&cursor)).unwrap().changes;
    let told = changes.iter().any(|c| match &c.entry {
        Entry::Data { data, .. } => holds(Some(data), b"content"),
        _ => false,
    });
    assert!(told, "{changes:?}");
}

/// Sums at the end of the range of numbers overflowed.
#[test]
fn offsets_at_the_end_of_the_range_are_refused() {
    let (_dir, path) = place();
    let replica = open(&path);
    let ino = replica.write_file("/f", b"content").unwrap().ino;
    let far = u64::MAX - 3;
    let found = replica.copy_range(ino, 0, ino, far, 7);
    assert!(matches!(found, Err(FsError::TooLarge(_))), "{found:?}");
    let found = replica.write(ino, far, b"content");
    assert!(matches!(found, Err(FsError::TooLarge(_))), "{found:?}");
    assert_eq!(replica.read(ino, far, &mut [0; 8]).unwrap(), 0);
    replica
        .read_dir(Ino::ROOT, u64::MAX, &mut |_| true)
        .unwrap();
    let found = replica.allocate(ino, far, 7, Allocate::PunchHole);
    assert!(matches!(found, Err(FsError::TooLarge(_))), "{found:?}");
}

/// Two who stored the same chunk at the same time left its second place in the
/// cache: it was read from there after the pack had gone.
#[test]
fn a_chunk_that_was_stored_twice_is_read_from_where_its_row_says() {
    let (_dir, path) = place();
    let replica = open(&path);
    for round in 0..6 {
        let content = noise(3 << 20, round);
        let files: Vec<Ino> = (0..4)
            .map(|i| make_file(&replica, Ino::ROOT, &format!("f{round}-{i}")))
            .collect();
        std::thread::scope(|scope| {
            for ino in &files {
                let (replica, content) = (&replica, &content);
                scope.spawn(move || {
                    replica.write(*ino, 0, content).unwrap();
                    replica.cursor().unwrap();
                });
            }
        });
        for i in 0..3 {
            replica.remove(format!("/f{round}-{i}")).unwrap();
        }
        replica.gc().unwrap();
        let got = replica.read_file(format!("/f{round}-3")).unwrap();
        assert_same(&got, &content, round);
    }
    assert_clean(&replica);
}

/// A process that was just being started held the lock of a closed replica.
#[test]
fn a_closed_replica_can_be_opened_while_processes_start() {
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            for _ in 0..60 {
                std::process::Command::new("true").status().unwrap();
            }
        });
        while !starter.is_finished() {
            let replica = open(&path);
            replica.make(Ino::ROOT, b"d", &new(NodeKind::Dir)).ok();
        }
    });
}

/// A directory in use kept every name it ever had in memory. Now it forgets
/// those that are stored, and everything still finds them.
#[test]
fn a_directory_larger_than_the_cache_is_whole() {
    let (_dir, path) = place();
    let replica = Replica::open(&path, quiet(tiny())).unwrap();
    let name = |i: u32| format!("f{i}");
    for i in 0..6_000 {
        make_file(&replica, Ino::ROOT, &name(i));
        if i % 500 == 0 {
            replica.flush().unwrap();
        }
    }
    for i in (0..6_000).step_by(3) {
        replica.unlink(Ino::ROOT, name(i).as_bytes()).unwrap();
    }
    let mut listed = std::collections::BTreeSet::new();
    let mut cookie = 0;
    loop {
        let page = replica.list("/", cookie, 100).unwrap();
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        listed.extend(page.into_iter().map(|e| String::from_utf8(e.name).unwrap()));
    }
    let expected = (0..6_000).filter(|i| i % 3 != 0).map(name).collect();
    assert_eq!(listed, expected);
    for i in 0..6_000 {
        let found = replica.lookup(Ino::ROOT, name(i).as_bytes());
        assert_eq!(found.is_ok(), i % 3 != 0, "{i}");
    }
    assert_clean(&replica);
}
