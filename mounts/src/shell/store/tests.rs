use super::*;

fn store() -> Store {
    Store::new(Replica::in_memory().unwrap())
}

fn errno(answer: &Answer) -> i32 {
    match answer {
        Answer::Failed(errno, _) => *errno,
        answer => panic!("{answer:?}"),
    }
}

fn ask(store: &mut Store, ask: Ask) -> Answer {
    store.perform(ask, b"").0
}

fn opened(answer: &Answer) -> Opened {
    match answer {
        Answer::Opened(opened) => *opened,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn no_link_is_followed() {
    let mut store = store();
    store.replica.mkdir("/d").unwrap();
    store.replica.write_file("/d/f", b"x").unwrap();
    store.replica.symlink_path("d", "/l").unwrap();
    store.replica.symlink_path("d/f", "/k").unwrap();
    let through = ask(&mut store, Ask::Stat(b"/l/f".to_vec()));
    assert_eq!(errno(&through), libc::ENOTDIR);
    for path in [b"/k", b"/l"] {
        let answer = ask(&mut store, Ask::Load(path.to_vec()));
        assert_eq!(errno(&answer), libc::ENOTDIR);
        let Answer::Node(node) = ask(&mut store, Ask::Stat(path.to_vec())) else {
            panic!("a link has attributes");
        };
        assert_eq!(node.kind, NodeKind::Symlink);
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let mut store = store();
    store.replica.mkdir("/d").unwrap();
    for path in [b"/d/..".as_slice(), b"/./d", b"/d/../d", b"/a\0b"] {
        let answer = ask(&mut store, Ask::Stat(path.to_vec()));
        assert_eq!(errno(&answer), libc::EINVAL, "{path:?}");
        let answer = ask(&mut store, Ask::Remove(path.to_vec(), true));
        assert_eq!(errno(&answer), libc::EINVAL, "{path:?}");
    }
    let root = ask(&mut store, Ask::Remove(b"/".to_vec(), true));
    assert_eq!(errno(&root), libc::EPERM);
    assert!(store.replica.exists("/d").unwrap());
}

#[test]
fn only_open_files_are_read_and_written_by_number() {
    let mut store = store();
    store.replica.write_file("/f", b"secret").unwrap();
    let ino = store.replica.stat("/f").unwrap().ino.0;
    let read = Ask::Read {
        ino,
        offset: 0,
        len: 10,
    };
    assert_eq!(errno(&ask(&mut store, read)), libc::EINVAL);
    let write = Ask::Write { ino, offset: 0 };
    assert_eq!(errno(&store.perform(write, b"x").0), libc::EINVAL);
    let replace = Ask::Replace {
        path: b"/g".to_vec(),
        perm: 0o644,
        staged: ino,
    };
    assert_eq!(errno(&ask(&mut store, replace)), libc::EINVAL);
}

#[test]
fn open_files_are_bounded_and_closed_at_the_end() {
    let mut store = store();
    let replica = store.replica.clone();
    replica.write_file("/f", b"x").unwrap();
    for _ in 0..OPEN_MAX {
        opened(&ask(&mut store, Ask::Open(b"/f".to_vec())));
    }
    let more = ask(&mut store, Ask::Open(b"/f".to_vec()));
    assert_eq!(errno(&more), libc::EOPNOTSUPP);
    let ino = replica.stat("/f").unwrap().ino;
    replica.remove("/f").unwrap();
    assert!(replica.attr(ino).is_ok(), "it is held open");
    drop(store);
    assert!(replica.attr(ino).is_err(), "nobody holds it any more");
}

#[test]
fn a_staged_content_takes_the_place_of_the_old_one() {
    let mut store = store();
    let replica = store.replica.clone();
    replica.write_file("/f", b"old").unwrap();
    replica.hard_link("/f", "/g").unwrap();
    let staged = opened(&ask(&mut store, Ask::Stage)).ino;
    assert_eq!(replica.list("/", 0, 10).unwrap().len(), 2);
    let content = vec![7; 3 << 20];
    for (at, piece) in content.chunks(PIECE).enumerate() {
        let offset = (at * PIECE) as u64;
        let write = Ask::Write {
            ino: staged,
            offset,
        };
        assert!(matches!(store.perform(write, piece).0, Answer::Done));
    }
    let replace = Ask::Replace {
        path: b"/f".to_vec(),
        perm: 0o644,
        staged,
    };
    assert!(matches!(ask(&mut store, replace), Answer::Done));
    ask(&mut store, Ask::Close(staged));
    assert_eq!(replica.read_file("/g").unwrap(), content);
    assert!(
        replica.attr(Ino(staged)).is_err(),
        "it went when it was closed"
    );
}

#[test]
fn a_large_directory_comes_in_pages() {
    let mut store = store();
    for n in 0..=2 * PAGE {
        store.replica.write_file(format!("/f{n}"), b"").unwrap();
    }
    let (mut cookie, mut names, mut pages) = (Some(0), Vec::new(), 0);
    while let Some(from) = cookie {
        let Answer::Entries(entries, next) = ask(&mut store, Ask::List(b"/".to_vec(), from)) else {
            panic!("a directory has entries");
        };
        names.extend(entries.into_iter().map(|(name, _)| name));
        (cookie, pages) = (next, pages + 1);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), pages), (2 * PAGE + 1, 3));
}

#[test]
fn small_files_are_read_at_once_as_far_as_they_fit() {
    let mut store = store();
    let replica = store.replica.clone();
    replica.mkdir("/d").unwrap();
    replica.write_file("/a", b"one").unwrap();
    replica.write_file("/b", &vec![7; PIECE - 5]).unwrap();
    replica.write_file("/c", b"").unwrap();
    let paths = ["/a", "/d", "/b", "/nothere", "/b", "/a", "/c", "/a"];
    let paths = paths.map(|path| path.as_bytes().to_vec()).to_vec();
    let (answer, bytes) = store.perform(Ask::LoadSome(paths), b"");
    let Answer::Some(lens) = answer else {
        panic!("{answer:?}");
    };
    let big = u32::try_from(PIECE - 5).ok();
    assert_eq!(lens, [Some(3), None, big, None, None, None, Some(0), None]);
    assert_eq!(bytes.len(), PIECE - 2);
    assert!(bytes.starts_with(b"one\x07"));
}
