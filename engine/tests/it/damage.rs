//! Damage: each is found and named, nothing panics, and what is not damaged
//! stays readable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_engine::{FsError, OpenError, Options, Replica};

use crate::support::{
    Rng, assert_clean, assert_same, crash_copy, files_in, noise, open, place, quiet, rounds, seeds,
};

fn try_open(path: &Path) -> Result<Replica, OpenError> {
    Replica::open(path, Options::default())
}

/// A closed replica with some of everything, and what its files hold.
fn filled() -> (tempfile::TempDir, PathBuf, Vec<(String, Vec<u8>)>) {
    let (dir, path) = place();
    let replica = open(&path);
    let mut files = Vec::new();
    replica.mkdir_all("/a/b").unwrap();
    for (i, size) in [0, 100, 5_000, 70_000, 900_000, 3 << 20, 3 << 20]
        .into_iter()
        .enumerate()
    {
        let content = noise(size, i as u64 + 1);
        let name = format!("/a/b/f{i}");
        replica.write_file(&name, &content).unwrap();
        replica
            .set_xattr_path(&name, b"user.n", name.as_bytes())
            .unwrap();
        files.push((name, content));
    }
    for i in 0..300 {
        replica
            .write_file(format!("/a/s{i}"), &noise(i, i as u64))
            .unwrap();
        files.push((format!("/a/s{i}"), noise(i, i as u64)));
    }
    replica.symlink_path("b/f1", "/a/link").unwrap();
    replica.cursor().unwrap();
    drop(replica);
    (dir, path, files)
}

fn flip(path: &Path, at: u64, mask: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

/// Everything of a replica on the disk, but the lock and what is only shared
/// memory.
fn state(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<PathBuf> = ["", "chunks", "dirty"]
        .iter()
        .flat_map(|sub| files_in(path, sub))
        .filter(|p| p.is_file() && !p.ends_with("lock") && !p.ends_with("cairn.db-shm"))
        .collect();
    all.sort();
    all.into_iter()
        .map(|p| (p.clone(), std::fs::read(p).unwrap()))
        .filter(|(_, b)| !b.is_empty())
        .collect()
}

/// The pack that holds this content, and where.
fn find(path: &Path, content: &[u8]) -> (PathBuf, u64) {
    for pack in files_in(path, "chunks") {
        let bytes = std::fs::read(&pack).unwrap();
        let start = &content[..64];
        if let Some(at) = bytes.windows(64).position(|w| w == start) {
            return (pack, at as u64);
        }
    }
    panic!("no pack holds it");
}

/// What a check says, as one text.
fn problems(replica: &Replica) -> String {
    let report = replica.check(&mut |_, _| {}).unwrap();
    let all: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    all.join("\n")
}

// Opening.

#[test]
fn a_newer_schema_is_refused_and_nothing_is_touched() {
    let (_dir, path, _) = filled();
    {
        let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
        db.pragma_update(None, "user_version", 77).unwrap();
    }
    let before = state(&path);
    match try_open(&path) {
        Err(error @ OpenError::NewerSchema { found: 77, .. }) => {
            assert!(
                error.to_string().contains("install a newer cairn"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(state(&path) == before, "something was touched");
}

/// Closing the database that was refused wrote its log into it.
#[test]
fn a_newer_schema_with_a_log_is_refused_and_nothing_is_touched() {
    let (dir, path, _) = filled();
    let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    db.pragma_update(None, "user_version", 77).unwrap();
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    let before = state(&copy);
    assert!(before.iter().any(|(p, _)| p.ends_with("cairn.db-wal")));
    assert!(matches!(
        try_open(&copy),
        Err(OpenError::NewerSchema { found: 77, .. })
    ));
    assert!(state(&copy) == before, "something was touched");
}

#[test]
fn what_is_not_a_database_is_refused_and_nothing_is_touched() {
    let (_dir, path, _) = filled();
    std::fs::write(path.join("cairn.db"), noise(50_000, 1)).unwrap();
    let before = state(&path);
    match try_open(&path) {
        Err(error @ OpenError::Damaged { .. }) => {
            assert!(error.to_string().contains("copy the replica"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(state(&path) == before, "something was touched");
}

/// An empty database looked like a new replica: it was set up, and the packs
/// that no row of it named would have gone.
#[test]
fn a_database_cut_to_nothing_is_not_a_new_replica() {
    let (_dir, path, _) = filled();
    std::fs::write(path.join("cairn.db"), b"").unwrap();
    let before = state(&path);
    assert!(matches!(try_open(&path), Err(OpenError::Damaged { .. })));
    assert!(state(&path) == before, "something was touched");
}

#[test]
fn what_is_not_there_or_not_a_replica_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.cairn");
    let options = Options {
        create: false,
        ..Options::default()
    };
    let found = Replica::open(&missing, options.clone());
    assert!(matches!(found, Err(OpenError::Missing(path)) if path == missing));
    std::fs::write(dir.path().join("something"), b"else").unwrap();
    let found = try_open(dir.path());
    assert!(matches!(found, Err(OpenError::NotReplica(path)) if path == dir.path()));
    assert!(!dir.path().join("cairn.db").exists());
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let (_dir, path) = place();
    let replica = open(&path);
    match try_open(&path) {
        Err(OpenError::InUse { owner, .. }) => {
            assert_eq!(owner, format!("process {}", std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    replica.write_file("/f", b"still mine").unwrap();
    drop(replica);
    assert_eq!(open(&path).read_file("/f").unwrap(), b"still mine");
}

// The database.

/// Opens what may be damaged and looks at everything. Any error will do.
fn look_at_everything(path: &Path) {
    let Ok(replica) = try_open(path) else { return };
    let mut todo = vec![b"/".to_vec()];
    let mut seen = 0;
    while let Some(dir) = todo.pop() {
        for entry in replica.list(&dir, 0, 10_000).unwrap_or_default() {
            let path = [dir.as_slice(), b"/", &entry.name].concat();
            let _ = replica.list_xattrs(entry.attr.ino);
            let _ = replica.read_link(entry.attr.ino);
            seen += 1;
            if entry.attr.size < 64 << 20 {
                let _ = replica.read_file(&path);
            }
            if entry.attr.kind == cairn_engine::NodeKind::Dir && seen < 10_000 {
                todo.push(path);
            }
        }
    }
    let _ = replica.usage();
    let _ = replica.check(&mut |_, _| {});
    let _ = replica.changes_since(None);
    let _ = replica.write_file("/new", b"new");
    let _ = replica.sync();
    let _ = replica.gc();
}

#[test]
fn a_database_with_flipped_bits_panics_nowhere_and_costs_no_packs() {
    let (dir, path, _) = filled();
    let packs = files_in(&path, "chunks").len();
    let len = path.join("cairn.db").metadata().unwrap().len();
    for seed in seeds(rounds(25)) {
        let mut rng = Rng::new(seed);
        let copy = dir.path().join("copy.cairn");
        crash_copy(&path, &copy);
        for _ in 0..=rng.below(3) {
            flip(&copy.join("cairn.db"), rng.below(len), 1 << rng.below(8));
        }
        println!("seed {seed}");
        drop(try_open(&copy));
        assert_eq!(files_in(&copy, "chunks").len(), packs, "seed {seed}");
        look_at_everything(&copy);
    }
}

#[test]
fn a_truncated_database_panics_nowhere_and_costs_no_packs() {
    let (dir, path, _) = filled();
    let packs = files_in(&path, "chunks").len();
    let len = path.join("cairn.db").metadata().unwrap().len();
    let mut rng = Rng::new(1);
    for round in 0..rounds(12) {
        let copy = dir.path().join("copy.cairn");
        crash_copy(&path, &copy);
        let keep = if round % 2 == 0 {
            rng.below(len)
        } else {
            rng.below(len / 4_096) * 4_096
        };
        let db = File::options()
            .write(true)
            .open(copy.join("cairn.db"))
            .unwrap();
        db.set_len(keep).unwrap();
        drop(try_open(&copy));
        assert_eq!(files_in(&copy, "chunks").len(), packs, "cut to {keep}");
        look_at_everything(&copy);
    }
}

/// A log that ends in the middle, or whose tail was never written, is the
/// database as it was a few commits before: whole, if older.
#[test]
fn a_torn_log_is_an_older_replica() {
    for seed in seeds(rounds(8)) {
        let (dir, path) = place();
        let replica = Replica::open(&path, quiet(Options::default())).unwrap();
        let mut rng = Rng::new(seed);
        for i in 0..40_u64 {
            let content = noise(rng.below(90_000) as usize, i);
            replica.write_file(format!("/f{i}"), &content).unwrap();
            replica.flush().unwrap();
        }
        let copy = dir.path().join("copy.cairn");
        crash_copy(&path, &copy);
        let log = copy.join("cairn.db-wal");
        let len = log.metadata().unwrap().len();
        let at = len / 4 + rng.below(len / 2);
        if rng.chance(50) {
            File::options()
                .write(true)
                .open(&log)
                .unwrap()
                .set_len(at)
                .unwrap();
        } else {
            let zeros = vec![0; (len - at).min(5_000) as usize];
            File::options()
                .write(true)
                .open(&log)
                .unwrap()
                .write_all_at(&zeros, at)
                .unwrap();
        }
        let after = open(&copy);
        assert_clean(&after);
        let mut rng = Rng::new(seed);
        let mut ended = false;
        for i in 0..40_u64 {
            let content = noise(rng.below(90_000) as usize, i);
            match after.read_file(format!("/f{i}")) {
                Ok(got) => {
                    assert!(
                        !ended,
                        "seed {seed}: file {i} came back without those before"
                    );
                    assert_same(&got, &content, i);
                }
                Err(_) => ended = true,
            }
        }
    }
}

// Packs and staging files.

#[test]
fn a_flipped_bit_in_a_pack_is_named_with_the_file_it_belongs_to() {
    let (_dir, path, files) = filled();
    let (pack, at) = find(&path, &files[5].1);
    flip(&pack, at + 1_000, 4);
    let replica = open(&path);
    let problems = problems(&replica);
    assert!(
        problems.contains("/a/b/f5: part of it is damaged"),
        "{problems}"
    );
    assert!(problems.contains("do not match its hash"), "{problems}");
    assert_eq!(problems.lines().count(), 2, "{problems}");
    for (name, content) in files.iter().filter(|(name, _)| name != "/a/b/f5") {
        assert_same(&replica.read_file(name).unwrap(), content, name);
    }
    // The rest of it, too.
    let last = replica.read_range("/a/b/f5", 2 << 20, 1 << 20).unwrap();
    assert_same(&last, &files[5].1[2 << 20..], "the end of f5");
    // Collecting garbage next to it takes nothing along.
    replica.remove("/a/b/f6").unwrap();
    replica.gc().unwrap();
    assert_same(&replica.read_file("/a/b/f4").unwrap(), &files[4].1, "f4");
}

#[test]
fn a_truncated_pack_is_an_error_that_names_it() {
    let (_dir, path, files) = filled();
    let (pack, at) = find(&path, &files[5].1);
    assert_eq!(at, 0, "f5 is a pack of its own");
    File::options()
        .write(true)
        .open(&pack)
        .unwrap()
        .set_len(1_500_000)
        .unwrap();
    let replica = open(&path);
    let id = pack.file_stem().unwrap().to_string_lossy().into_owned();
    match replica.read_file("/a/b/f5") {
        Err(error @ FsError::Corrupt(_)) => {
            let text = error.to_string();
            assert!(text.contains(&format!("data file {id} ends")), "{text}");
            assert!(text.contains("cairn check"), "{text}");
            assert_eq!(error.errno(), rustix::io::Errno::IO);
        }
        other => panic!("{:?}", other.map(|b| b.len())),
    }
    assert!(problems(&replica).contains("/a/b/f5: part of it is damaged"));
    for (name, content) in files.iter().filter(|(name, _)| name != "/a/b/f5") {
        assert_same(&replica.read_file(name).unwrap(), content, name);
    }
}

#[test]
fn a_missing_pack_is_an_error_that_names_it() {
    let (_dir, path, files) = filled();
    let (pack, _) = find(&path, &files[5].1);
    std::fs::remove_file(&pack).unwrap();
    let replica = open(&path);
    let error = replica.read_file("/a/b/f5").unwrap_err().to_string();
    assert!(
        error.contains(&format!("{} is missing", pack.display())),
        "{error}"
    );
    assert!(problems(&replica).contains("/a/b/f5: part of it is damaged"));
    for (name, content) in files.iter().filter(|(name, _)| name != "/a/b/f5") {
        assert_same(&replica.read_file(name).unwrap(), content, name);
    }
    // A new file does not get the number of the one that is missing.
    replica.write_file("/new", &noise(3 << 20, 99)).unwrap();
    replica.cursor().unwrap();
    assert!(!pack.exists());
    // With the file goes the damage.
    replica.remove("/a/b/f5").unwrap();
    replica.gc().unwrap();
    assert_clean(&replica);
}

/// A staging file that was lost was noted in the log of the program only, and
/// the next file could get its number.
#[test]
fn a_missing_staging_file_is_named_and_its_number_is_not_given_again() {
    let (dir, path) = place();
    let replica = Replica::open(&path, quiet(Options::default())).unwrap();
    let sealed = noise(2 << 20, 1);
    replica.write_file("/f", &sealed).unwrap();
    replica.write_file("/other", &noise(3 << 20, 2)).unwrap();
    replica.cursor().unwrap();
    let ino = replica.stat("/f").unwrap().ino;
    replica.retain(ino, true).unwrap();
    replica.write(ino, 1 << 20, b"not sealed").unwrap();
    replica.flush().unwrap();
    let copy = dir.path().join("copy.cairn");
    crash_copy(&path, &copy);
    let [staging] = &files_in(&copy, "dirty")[..] else {
        panic!("one staging file: {:?}", files_in(&copy, "dirty"));
    };
    std::fs::remove_file(staging).unwrap();
    let after = open(&copy);
    let number = staging.file_name().unwrap().to_string_lossy().into_owned();
    let named = format!("/f: what was written last is lost with dirty/{number}");
    assert!(problems(&after).contains(&named), "{}", problems(&after));
    assert_same(&after.read_file("/f").unwrap(), &sealed, "what was sealed");
    let ino = after.write_file("/new", &noise(2 << 20, 3)).unwrap().ino;
    after.retain(ino, true).unwrap();
    after.flush().unwrap();
    assert!(!staging.exists(), "its number was given again");
    assert_same(
        &after.read_file("/other").unwrap(),
        &noise(3 << 20, 2),
        "/other",
    );
    // Written anew, it is whole again.
    after.write_file("/f", &sealed).unwrap();
    after.cursor().unwrap();
    assert_clean(&after);
}
