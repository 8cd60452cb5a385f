//! A replica in one file: what is beside it while it is open, what is left when
//! it was closed, and what is refused.

use std::path::{Path, PathBuf};

use cairn_engine::{FsError, OpenError, Options, Replica};

use crate::support::{
    assert_clean, assert_same, beside, crash_copy, noise, place, quiet, single_file,
};

const LARGE: usize = 9 << 20;

fn open_file(path: &Path) -> Replica {
    Replica::open(path, single_file(Options::default())).unwrap()
}

/// A replica with a file of each size, closed.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = place();
    fill(&open_file(&path));
    (dir, path)
}

fn fill(replica: &Replica) {
    replica.write_file("/tiny", b"tiny").unwrap();
    replica.write_file("/small", &noise(70_000, 1)).unwrap();
    replica.write_file("/large", &noise(LARGE, 2)).unwrap();
    replica.copy_file("/large", "/copy").unwrap();
}

#[track_caller]
fn assert_filled(replica: &Replica) {
    assert_eq!(replica.read_file("/tiny").unwrap(), b"tiny");
    assert_same(
        &replica.read_file("/small").unwrap(),
        &noise(70_000, 1),
        "/small",
    );
    for large in ["/large", "/copy"] {
        assert_same(&replica.read_file(large).unwrap(), &noise(LARGE, 2), large);
    }
    assert_clean(replica);
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_closed_one_is_one_file_that_can_be_moved() {
    let (dir, path) = filled();
    assert_eq!(names_in(dir.path()), ["w.cairn"]);
    assert!(Replica::is_single_file(&path));
    let elsewhere = dir.path().join("moved");
    std::fs::rename(&path, &elsewhere).unwrap();
    // What it is, it says itself.
    let replica = Replica::open(&elsewhere, Options::default()).unwrap();
    assert_filled(&replica);
    assert_eq!(replica.path(), Some(elsewhere.as_path()));
    drop(replica);
    assert_eq!(names_in(dir.path()), ["moved"]);
}

#[test]
fn what_is_equal_is_stored_once() {
    let (_dir, path) = filled();
    let size = path.metadata().unwrap().len();
    assert!(size < LARGE as u64 * 5 / 4, "{size} bytes");
}

#[test]
fn what_is_not_sealed_survives_a_crash() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(single_file(Options::default()))).unwrap();
    fill(&replica);
    replica.sync().unwrap();
    let copy = dir.path().join("copy");
    crash_copy(&path, &copy);
    assert!(beside(&copy, "-dirty").is_dir());
    assert_filled(&Replica::open(&copy, Options::default()).unwrap());
    assert!(!beside(&copy, "-dirty").exists());
}

#[test]
fn garbage_makes_the_file_shorter() {
    let (_dir, path) = filled();
    let replica = open_file(&path);
    for name in ["/large", "/copy"] {
        replica.remove(name).unwrap();
    }
    let report = replica.gc().unwrap();
    assert!(report.bytes >= LARGE as u64, "{report:?}");
    assert_same(
        &replica.read_file("/small").unwrap(),
        &noise(70_000, 1),
        "/small",
    );
    assert_clean(&replica);
    drop(replica);
    let size = path.metadata().unwrap().len();
    assert!(size < 1 << 20, "{size} bytes");
}

/// More than may wait for a commit, which the seal has to ask for.
#[test]
fn a_file_larger_than_what_may_wait_is_sealed() {
    let (_dir, path) = place();
    let options = quiet(single_file(Options::default()));
    let replica = Replica::open(&path, options).unwrap();
    let content = noise(150 << 20, 3);
    replica.write_file("/f", &content).unwrap();
    drop(replica);
    assert!(!beside(&path, "-dirty").exists());
    let replica = Replica::open(&path, Options::default()).unwrap();
    assert_same(&replica.read_file("/f").unwrap(), &content, "/f");
    assert_clean(&replica);
}

#[test]
fn a_second_owner_is_refused() {
    let (_dir, path) = filled();
    let _first = open_file(&path);
    let second = Replica::open(&path, Options::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
}

#[test]
fn another_file_is_refused_and_not_touched() {
    let (dir, _) = place();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, noise(5_000, 4)).unwrap();
    let database = dir.path().join("other.db");
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("CREATE TABLE t(x)").unwrap();
    drop(other);
    for path in [text, database] {
        let before = std::fs::read(&path).unwrap();
        let opened = Replica::open(&path, single_file(Options::default()));
        assert!(
            matches!(opened, Err(OpenError::NotReplica(_))),
            "{opened:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    assert_eq!(names_in(dir.path()), ["notes.txt", "other.db"]);
}

#[test]
fn an_empty_file_becomes_one() {
    let (_dir, path) = place();
    std::fs::File::create(&path).unwrap();
    fill(&Replica::open(&path, Options::default()).unwrap());
    assert_filled(&Replica::open(&path, Options::default()).unwrap());
}

/// The database was lost, what was not sealed is still there.
#[test]
fn unsealed_data_without_its_database_is_kept() {
    let (_dir, path) = place();
    std::fs::File::create(&path).unwrap();
    let dirty = beside(&path, "-dirty");
    std::fs::create_dir(&dirty).unwrap();
    std::fs::write(dirty.join("7"), b"precious").unwrap();
    let opened = Replica::open(&path, Options::default());
    assert!(
        matches!(opened, Err(OpenError::Damaged { .. })),
        "{opened:?}"
    );
    assert_eq!(std::fs::read(dirty.join("7")).unwrap(), b"precious");
}

#[test]
fn damaged_chunks_are_named_and_the_rest_stays_readable() {
    let (_dir, path) = filled();
    let db = rusqlite::Connection::open(&path).unwrap();
    let ids: Vec<i64> = {
        let mut find = db
            .prepare("SELECT c.pack FROM chunk c WHERE c.len > 100000 ORDER BY c.pack")
            .unwrap();
        let ids = find.query_map([], |r| r.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    };
    db.execute(
        "UPDATE content SET bytes = zeroblob(length(bytes)) WHERE id = ?",
        [ids[0]],
    )
    .unwrap();
    db.execute("DELETE FROM content WHERE id = ?", [ids[1]])
        .unwrap();
    db.execute("UPDATE content SET bytes = x'00' WHERE id = ?", [ids[2]])
        .unwrap();
    db.execute("INSERT INTO content(id, bytes) VALUES(1000000, x'00')", [])
        .unwrap();
    drop(db);
    let replica = open_file(&path);
    let report = replica.check(&mut |_, _| {}).unwrap();
    let all: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let all = all.join("\n");
    for expected in [
        "do not match its hash",
        "cannot be read",
        "/large: part of it is damaged",
        "/copy: part of it is damaged",
        "1 rows of content belong to no chunk",
    ] {
        assert!(all.contains(expected), "no {expected:?} in:\n{all}");
    }
    assert!(matches!(
        replica.read_file("/large"),
        Err(FsError::Corrupt(_))
    ));
    assert_same(
        &replica.read_file("/small").unwrap(),
        &noise(70_000, 1),
        "/small",
    );
}
