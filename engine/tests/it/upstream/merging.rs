//! What several edit at once: nothing is lost, and who has a file open goes on.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use cairn_protocol::Outcome;
use cairn_protocol::session::Applied;

use super::{Client, Side, assert_equal, two};
use crate::support;

#[test]
fn r1_concurrent_edits_of_one_file_are_both_kept_and_both_are_told() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"of a").unwrap();
    b.replica.write_file("/f", b"of b").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let copy = client
            .names("/")
            .into_iter()
            .find(|name| name.contains("conflict"))
            .unwrap();
        assert_eq!(client.read(&format!("/{copy}")), b"of b");
    }
    let told = b.replica.conflicts().unwrap();
    assert!(
        matches!(told[0].outcome, Outcome::Copied { .. }),
        "{told:?}"
    );
    b.replica.resolve_conflict(told[0].id).unwrap();
    assert_eq!(b.replica.conflicts().unwrap(), []);
    assert_equal(&[&a, &b], &side);
}

/// What was not pushed when a cut came that has no room for it.
#[test]
fn what_is_laid_over_a_cut_is_told_to_its_own_people() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"of a").unwrap();
    a.sync(&mut side);
    b.replica.write_file("/f", b"of b").unwrap();
    b.replica.write_file("/other", b"x").unwrap();
    assert_eq!(b.pull(&side, None), Applied::Done);
    let told = b.replica.conflicts().unwrap();
    let [conflict] = &told[..] else {
        panic!("{told:?}")
    };
    let Outcome::Renamed { name, .. } = &conflict.outcome else {
        panic!("{told:?}")
    };
    assert_eq!(b.read(&format!("/{name}")), b"of b");
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(b.replica.conflicts().unwrap(), told);
    assert_equal(&[&a, &b], &side);
}

/// Who had the file open when its content went to a copy goes on writing to
/// the copy, not to what somebody else wrote.
#[test]
fn r12_an_open_file_becomes_the_copy() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"of a").unwrap();
    a.sync(&mut side);
    let open = b.ino("/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 0, b"of b!").unwrap();
    let (_, ack) = b.push(&mut side).unwrap();
    b.replica.write(open, 5, b" and more").unwrap();
    assert_eq!(b.pull(&side, Some(ack)), Applied::Done);
    assert_eq!(b.read("/f"), b"of a");
    b.replica.write(open, 14, b", still").unwrap();
    b.replica.release(open, true);
    b.sync(&mut side);
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let copies = client.names("/");
        let copy = copies
            .iter()
            .find(|name| name.contains("conflict"))
            .unwrap();
        assert_eq!(client.read(&format!("/{copy}")), b"of b! and more, still");
        assert_eq!(copies.len(), 2);
    }
    assert_equal(&[&a, &b], &side);
}

/// What a handle reads without asking cannot be changed for it, so it keeps what
/// it opened, and who opens the file again reads what the hub has.
#[test]
fn who_reads_a_file_directly_keeps_its_content_and_the_next_one_gets_the_new() {
    read_directly_while_it_is_replaced(false);
}

/// The same where the edits have to be replayed.
#[test]
fn who_reads_a_file_directly_keeps_its_content_when_names_meet() {
    read_directly_while_it_is_replaced(true);
}

fn read_directly_while_it_is_replaced(names_meet: bool) {
    let mut side = Side::default();
    let (_dir, path) = support::place();
    let (a, b) = (Client::new(), Client::of(support::open(&path)));
    let (old, new) = (support::noise(2 << 20, 1), support::noise(3 << 20, 2));
    b.replica.write_file("/f", &old).unwrap();
    b.replica.hard_link("/f", "/g").unwrap();
    b.replica.set_xattr_path("/f", b"user.x", b"1").unwrap();
    b.replica.cursor().unwrap();
    b.sync(&mut side);
    a.sync(&mut side);
    let ino = b.ino("/f");
    b.replica.retain(ino, false).unwrap();
    let direct = b.replica.resume_direct(ino, false).unwrap();
    let under = direct.expect("it is one pack").as_fd().try_clone_to_owned();
    let under = std::fs::File::from(under.unwrap());
    // The hub gets another content, the replica has edits of its own.
    a.replica.write_file("/f", &new).unwrap();
    if names_meet {
        a.replica.mkdir("/h").unwrap();
    }
    support::eventually("the new content is pushed", || {
        a.sync(&mut side);
        a.replica.usage().unwrap().unsealed_bytes == 0
    });
    b.replica.chmod("/f", 0o700).unwrap();
    b.replica.set_xattr_path("/f", b"user.y", b"2").unwrap();
    b.replica.rename_path("/g", "/h").unwrap();
    b.sync(&mut side);
    let mut seen = vec![0; old.len()];
    under.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == old);
    let now = b.replica.stat("/f").unwrap();
    assert_ne!(now.ino, ino);
    assert_eq!((now.nlink, now.perm), (2, 0o700));
    let mut files = b.names("/");
    files.retain(|name| !(names_meet && name == "h"));
    assert_eq!(files.len(), 2);
    for name in files {
        assert!(b.read(&format!("/{name}")) == new, "{name}");
    }
    assert!(b.replica.end_direct(ino).is_some());
    b.replica.release(ino, false);
    assert_eq!(b.sync(&mut side), []);
    a.sync(&mut side);
    assert_eq!(a.replica.xattr_path("/f", b"user.y").unwrap(), &b"2"[..]);
    assert_eq!(a.replica.stat("/f").unwrap().perm, 0o700);
    assert_equal(&[&a, &b], &side);
}

#[test]
fn r3_a_removal_does_not_take_what_its_author_had_not_seen() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"first").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.write_file("/f", b"second").unwrap();
    b.replica.remove("/f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/f"), b"second");
    assert_eq!(b.read("/f"), b"second");
    assert_equal(&[&a, &b], &side);
}

/// Found by a simulation (40033): the name that both made has all edits resolved
/// on the hub's tree, and a file that is dead there was taken for a new one.
#[test]
fn r10_attributes_alone_do_not_bring_a_file_back() {
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove("/f").unwrap();
    a.replica.write_file("/x", b"x").unwrap();
    b.replica.chmod("/f", 0o600).unwrap();
    b.replica.mkdir("/x").unwrap();
    a.sync(&mut side);
    assert_eq!(b.pull(&side, None), Applied::Done);
    b.sync(&mut side);
    a.sync(&mut side);
    assert!(!a.replica.exists("/f").unwrap());
    assert_eq!(a.names("/").len(), 2, "{:?}", a.names("/"));
    assert_equal(&[&a, &b], &side);
}

/// Somebody else changes a large file while it is being written here, and
/// not sealed yet.
#[test]
fn r1_a_file_that_is_being_written_is_kept_when_another_comes() {
    let (mut side, a, b) = two();
    a.replica
        .write_file("/f", &support::noise(2 << 20, 1))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/f").unwrap()
    });
    let open = b.ino("/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 5, b"of b").unwrap();
    a.replica.write_file("/f", b"of a").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write(open, 9, b", more").unwrap();
    b.replica.release(open, true);
    support::eventually("everything is pushed", || {
        b.sync(&mut side);
        b.upstream.status().unwrap().is_clean()
    });
    a.sync(&mut side);
    for client in [&a, &b] {
        assert_eq!(client.read("/f"), b"of a");
        let names = client.names("/");
        let copy = names.iter().find(|name| name.contains("conflict")).unwrap();
        assert_eq!(client.read(&format!("/{copy}"))[5..15], *b"of b, more");
    }
    assert_equal(&[&a, &b], &side);
}

/// The other side removes a large file that is being written here.
#[test]
fn r2_a_file_that_is_being_written_outlives_its_removal_elsewhere() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    a.replica
        .write_file("/d/f", &support::noise(2 << 20, 1))
        .unwrap();
    support::eventually("the file is sealed", || {
        a.sync(&mut side);
        b.sync(&mut side);
        b.replica.exists("/d/f").unwrap()
    });
    let open = b.ino("/d/f");
    b.replica.retain(open, true).unwrap();
    b.replica.write(open, 5, b"of b").unwrap();
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    b.replica.write(open, 9, b", more").unwrap();
    b.replica.release(open, true);
    support::eventually("everything is pushed", || {
        b.sync(&mut side);
        b.upstream.status().unwrap().is_clean()
    });
    a.sync(&mut side);
    assert_eq!(a.read("/d/f")[5..15], *b"of b, more");
    assert_equal(&[&a, &b], &side);
}
