//! What is edited on one replica is on another, and costs what it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_engine::{Ino, Invalidation, NewNode, NodeKind, Observer, SetAttr, SetTime};
use cairn_protocol::session::{Applied, ClientAction};
use cairn_protocol::{Edit, Meta, MetaFields, Name, NodeId, ReplicaTag, Timestamp};

use parking_lot::{Condvar, Mutex};

use super::{Client, Side, assert_equal, two};
use crate::support;

#[test]
fn i1_what_one_replica_writes_another_reads() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/dir").unwrap();
    a.replica.write_file("/dir/small", b"small").unwrap();
    a.replica
        .write_file("/dir/large", &support::noise(3 << 20, 1))
        .unwrap();
    a.replica.symlink_path("small", "/dir/link").unwrap();
    support::eventually("the large file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.stat("/dir/large").is_ok()
    });
    assert_eq!(b.read("/dir/small"), b"small");
    assert_eq!(b.read("/dir/link"), b"small");
    assert_eq!(b.read("/dir/large"), support::noise(3 << 20, 1));
    assert_equal(&[&a, &b], &side);
    b.replica.write_file("/dir/small", b"other").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/dir/small"), b"other");
    assert_equal(&[&a, &b], &side);
}

#[test]
fn what_comes_from_the_hub_does_not_go_back() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica.write_file("/d/f", b"one").unwrap();
    a.sync(&mut side);
    let edits = b.sync(&mut side);
    assert_eq!(edits, []);
    assert_eq!(a.sync(&mut side), []);
    b.replica.write_file("/d/f", b"two").unwrap();
    b.sync(&mut side);
    assert_eq!(a.sync(&mut side), []);
    assert_eq!(b.sync(&mut side), []);
}

/// What a large cut brings becomes rows whose versions are passed over when edits
/// are looked for. What was edited before it, beside it and after it is no part
/// of that.
#[test]
fn what_was_edited_around_a_large_cut_is_pushed() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    for n in 0..40_u8 {
        a.replica.write_file(format!("/d/{n}"), &[n; 900]).unwrap();
    }
    a.sync(&mut side);
    b.replica.write_file("/before", b"before").unwrap();
    b.stage(&side, side.hub.changes_since(0));
    b.replica.write_file("/beside", b"beside").unwrap();
    assert_eq!(b.apply(side.cursor(), None), Applied::Done);
    b.replica.write_file("/d/7", b"after").unwrap();
    b.replica.remove("/d/8").unwrap();
    b.replica.rename_path("/d/9", "/d/nine").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/before"), b"before");
    assert_eq!(a.read("/beside"), b"beside");
    assert_eq!(a.read("/d/7"), b"after");
    assert_eq!(a.read("/d/nine"), [9; 900]);
    assert!(a.replica.stat("/d/8").is_err());
    assert_equal(&[&a, &b], &side);
    assert_eq!((a.sync(&mut side), b.sync(&mut side)), (vec![], vec![]));
    // And what one hub told is edited for another.
    assert_eq!(b.upstream.status().unwrap().pending, 0);
    let own = b.replica.own_upstream().unwrap();
    assert!(own.status().unwrap().pending > 40);
}

#[test]
fn i9_a_directory_of_1000_files_is_renamed_in_two_edits() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/old").unwrap();
    for n in 0..1_000 {
        a.replica.write_file(format!("/old/{n}"), b"x").unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    let ino = b.ino("/old/7");
    a.replica.rename_path("/old", "/new").unwrap();
    let edits = a.sync(&mut side);
    let names = edits
        .iter()
        .filter(|edit| matches!(edit, Edit::Name { .. }));
    assert_eq!(names.count(), 2, "{edits:?}");
    assert!(edits.len() <= 4, "{edits:?}");
    b.sync(&mut side);
    assert_eq!(b.ino("/new/7"), ino);
    assert_equal(&[&a, &b], &side);
}

#[test]
fn everything_of_a_node_arrives() {
    let (mut side, a, b) = two();
    let like = |perm, kind, rdev| NewNode {
        kind,
        perm,
        uid: 7,
        gid: 8,
        rdev,
    };
    let file = a
        .replica
        .make(Ino::ROOT, b"file", &like(0o640, NodeKind::File, 0))
        .unwrap();
    let device = like(0o600, NodeKind::CharDevice, 0x105);
    a.replica.make(Ino::ROOT, b"device", &device).unwrap();
    a.replica
        .make(Ino::ROOT, b"pipe", &like(0o600, NodeKind::Fifo, 0))
        .unwrap();
    a.replica.link(file.ino, Ino::ROOT, b"twin").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let (file_b, twin) = (
        b.replica.stat("/file").unwrap(),
        b.replica.stat("/twin").unwrap(),
    );
    assert_eq!((file_b.ino, file_b.nlink), (twin.ino, 2));
    assert_eq!((file_b.perm, file_b.uid, file_b.gid), (0o640, 7, 8));
    assert_eq!(b.replica.stat("/device").unwrap().rdev, 0x105);
    let time = Timestamp::new(1_000, 5).unwrap();
    let set = SetAttr {
        mtime: Some(SetTime::At(time)),
        perm: Some(0o4755),
        ..SetAttr::default()
    };
    a.replica.set_attr(file.ino, &set).unwrap();
    a.replica.set_xattr_path("/file", b"user.x", b"1").unwrap();
    a.replica.set_xattr_path("/file", b"user.y", b"2").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let got = b.replica.stat("/file").unwrap();
    assert_eq!((got.perm, got.mtime), (0o4755, time));
    assert_eq!(b.replica.xattr_path("/file", b"user.x").unwrap(), &b"1"[..]);
    b.replica.remove_xattr_path("/twin", b"user.x").unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    assert!(a.replica.xattr_path("/file", b"user.x").is_err());
    assert_equal(&[&a, &b], &side);
}

/// A change of one byte in the middle of a large file costs about what it is.
#[test]
fn a_small_edit_of_a_large_file_is_a_small_difference() {
    let (mut side, a, b) = two();
    a.replica
        .write_file("/large", &support::noise(900_000, 3))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/large").unwrap()
    });
    let before = side.received;
    a.replica.write_range("/large", 450_000, b"!").unwrap();
    support::eventually("the edit is pushed", || {
        a.sync(&mut side);
        side.received > before
    });
    assert!(
        side.received - before < 1_000,
        "{} bytes",
        side.received - before
    );
    b.sync(&mut side);
    assert_eq!(b.read("/large"), a.read("/large"));
}

#[test]
fn a_batch_stays_the_same_until_it_is_answered() {
    let (dir, path) = support::place();
    let mut side = Side::default();
    let a = Client::of(support::open(&path));
    a.sync(&mut side);
    a.replica.write_file("/f", b"one").unwrap();
    let (edits, _lost) = a.push(&mut side).unwrap();
    a.replica.write_file("/f", b"two").unwrap();
    drop(a);
    let a = Client::of(support::open(&path));
    assert_eq!(a.pull(&side, None), Applied::Held);
    let (again, ack) = a.push(&mut side).unwrap();
    assert_eq!(edits, again);
    assert_eq!(a.pull(&side, Some(ack)), Applied::Done);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"two");
    assert_equal(&[&a], &side);
    drop(dir);
}

/// A batch that the hub does not take is taken back for a cut: what is in it is
/// found again with what was edited later, as what its editor saw, under the same
/// number; and so after a crash.
#[test]
fn a_batch_that_is_withdrawn_is_collected_anew() {
    let (_dir, path) = support::place();
    let (mut side, a) = (Side::default(), Client::new());
    let mut b = Client::of(support::open(&path));
    for name in ["/doc", "/gone", "/kept"] {
        a.replica.write_file(name, b"base").unwrap();
    }
    a.sync(&mut side);
    b.pull(&side, None);
    b.replica.write_file("/doc", b"from b").unwrap();
    b.replica.write_file("/made", b"first").unwrap();
    b.replica.write_file("/fleeting", b"x").unwrap();
    b.replica.mkdir("/dir").unwrap();
    let number = |client: &Client| client.batch().unwrap().batch.number;
    let first = number(&b);
    b.replica.write_file("/made", b"second").unwrap();
    b.replica.remove("/fleeting").unwrap();
    b.replica.remove("/gone").unwrap();
    b.replica.rename_path("/kept", "/dir/kept").unwrap();
    a.replica.write_file("/doc", b"from a").unwrap();
    a.replica.write_file("/new", b"new").unwrap();
    a.sync(&mut side);
    assert_eq!(b.pull(&side, None), Applied::Held);
    b.refused(&side).unwrap();
    assert!(!b.upstream.status().unwrap().is_clean());
    assert_eq!(b.upstream.status().unwrap().in_flight, 0);
    assert_eq!(b.pull(&side, None), Applied::Done);
    assert_eq!(b.names("/"), ["dir", "doc", "made", "new"]);
    assert_eq!(b.read("/doc"), b"from b");
    let (_, last, digest) = b.upstream.start().unwrap();
    assert_eq!((last, digest), (first - 1, None));
    // Of a batch that is not in flight nothing is withdrawn.
    b.perform(ClientAction::Withdraw { batch: first });
    b.replica.flush().unwrap();
    drop(b);
    b = Client::of(support::open(&path));
    assert_eq!(number(&b), first);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_equal(&[&a, &b], &side);
    let names = a.names("/");
    let kept = |name: &str| names.iter().any(|n| n == name);
    assert!(
        !kept("fleeting") && !kept("gone") && !kept("kept"),
        "{names:?}"
    );
    assert_eq!(a.read("/made"), b"second");
    assert_eq!(a.read("/doc"), b"from a");
    let copy = names.iter().find(|name| name.starts_with("doc.conflict"));
    assert_eq!(a.read(&format!("/{}", copy.unwrap())), b"from b");
}

/// What an ignore list left out arrives when the list changes: both what the
/// hub has and what is here.
#[test]
fn i14_what_was_ignored_comes_and_goes_when_the_rules_go() {
    let (mut side, a, b) = two();
    let rules = ["target".to_owned(), "*.log".to_owned()];
    b.pull(&side, None);
    b.upstream.set_ignore_rules(&rules).unwrap();
    for path in ["/src", "/target", "/target/deep"] {
        a.replica.mkdir(path).unwrap();
    }
    for path in ["/src/a", "/src/a.log", "/target/x", "/target/deep/y"] {
        a.replica.write_file(path, path.as_bytes()).unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    assert_eq!(b.names("/"), ["src"]);
    assert_eq!(b.names("/src"), ["a"]);
    b.replica.write_file("/b.log", b"of b").unwrap();
    b.replica.write_file("/src/b", b"of b").unwrap();
    b.sync(&mut side);
    a.replica.write_file("/target/x", b"again").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    assert_eq!(a.names("/"), ["src", "target"]);
    assert_eq!(a.names("/src"), ["a", "a.log", "b"]);
    b.upstream.set_ignore_rules(&[]).unwrap();
    assert_eq!(b.read("/target/x"), b"again");
    assert_eq!(b.read("/target/deep/y"), b"/target/deep/y");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/b.log"), b"of b");
    assert_equal(&[&a, &b], &side);
}

/// Whatever a clock showed: before 1970, in the last second that there is, and with
/// the last nanosecond of it.
#[test]
fn times_of_any_age_arrive_and_do_not_go_back() {
    let (mut side, a, b) = two();
    let times = [
        (i64::MIN, 0),
        (-62_135_596_800, 1),
        (-1, 999_999_999),
        (253_402_300_799, 999_999_999),
        (i64::MAX, 999_999_999),
    ];
    let times = times.map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap());
    for (n, time) in times.iter().enumerate() {
        a.replica.write_file(format!("/{n}"), b"x").unwrap();
        let set = SetAttr {
            mtime: Some(SetTime::At(*time)),
            ..SetAttr::default()
        };
        a.replica.set_attr(a.ino(&format!("/{n}")), &set).unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    // Of when it was made, another says the same.
    for (n, time) in times.iter().enumerate() {
        let name = Name::new(n.to_string().as_bytes()).unwrap();
        let node = side.hub.tree().at(&(NodeId::ROOT, name)).unwrap();
        let meta = Meta {
            btime: *time,
            ..*side.hub.tree().attributes(node).unwrap()
        };
        let base = 1;
        let fields = MetaFields::BTIME;
        let edit = Edit::Meta {
            node,
            base,
            fields,
            meta,
        };
        side.hub
            .push(ReplicaTag(99), n as u64 + 1, &[edit])
            .unwrap();
    }
    for client in [&a, &b] {
        assert_eq!(client.pull(&side, None), Applied::Done);
        assert_eq!(client.sync(&mut side), []);
        for (n, time) in times.iter().enumerate() {
            let got = client.replica.stat(format!("/{n}")).unwrap();
            assert_eq!((got.mtime, got.btime), (*time, *time));
        }
    }
    assert_equal(&[&a, &b], &side);
}

/// A cache above the engine, such as a mount's, that takes its time.
#[derive(Debug, Default)]
struct Slow {
    waiting: AtomicUsize,
    is_settled: Mutex<bool>,
    settled: Condvar,
}

impl Observer for Slow {
    fn knows(&self, _: Ino) -> bool {
        true
    }

    fn invalidate(&self, _: Invalidation) {}

    fn settle(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut settled = self.is_settled.lock();
        while !*settled {
            self.settled.wait(&mut settled);
        }
    }
}

/// A sandbox began a command when the cut was committed that it waited for, and the
/// command read what the kernel had cached before.
#[test]
fn regression_who_is_told_of_a_cut_sees_it_through_every_cache() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"new").unwrap();
    a.sync(&mut side);
    b.stage(&side, side.hub.changes_since(b.seq()));
    let slow = Arc::new(Slow::default());
    let _mount = b.replica.observed(slow.clone());
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| b.apply(side.cursor(), None));
        support::eventually("the cut is committed", || {
            slow.waiting.load(Ordering::SeqCst) == 1
        });
        scope.spawn(|| {
            assert_eq!(b.seq(), side.hub.head());
            told.store(true, Ordering::SeqCst);
        });
        support::eventually("the other asks, too", || {
            told.load(Ordering::SeqCst) || slow.waiting.load(Ordering::SeqCst) == 2
        });
        let too_early = told.load(Ordering::SeqCst);
        *slow.is_settled.lock() = true;
        slow.settled.notify_all();
        assert!(!too_early);
    });
    assert!(told.load(Ordering::SeqCst));
}
