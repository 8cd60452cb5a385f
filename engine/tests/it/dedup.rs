//! Equal content is stored once, and what nothing names is given back.

use std::path::Path;

use cairn_engine::{Ino, Replica, Usage};

use crate::support::{
    Rng, assert_clean, assert_same, crash_copy, eventually, files_in, noise, open, place, rounds,
    seeds,
};

fn usage(replica: &Replica) -> Usage {
    replica.cursor().unwrap();
    replica.usage().unwrap()
}

/// Bytes that the packs and staging files take on the disk.
fn on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let all = ["chunks", "dirty"].map(|sub| files_in(path, sub)).concat();
    all.iter()
        .filter_map(|f| f.metadata().ok())
        .map(|m| m.blocks() * 512)
        .sum()
}

#[test]
fn equal_content_is_stored_once() {
    let (_dir, path) = place();
    let replica = open(&path);
    let content = noise(5 << 20, 1);
    replica.write_file("/a", &content).unwrap();
    let once = usage(&replica);
    assert_eq!(once.stored_bytes, content.len() as u64);
    for name in ["/b", "/c"] {
        replica.write_file(name, &content).unwrap();
    }
    // The same bytes behind others: the cuts are found again.
    let shifted = [noise(100, 2), content.clone()].concat();
    replica.write_file("/shifted", &shifted).unwrap();
    let now = usage(&replica);
    assert!(now.stored_bytes < once.stored_bytes + (2 << 20), "{now:?}");
    assert!(now.shared_bytes > 12 << 20, "{now:?}");
    assert_same(
        &replica.read_file("/shifted").unwrap(),
        &shifted,
        "/shifted",
    );
    assert_clean(&replica);
}

#[test]
fn small_files_with_equal_content_share_a_chunk() {
    let (_dir, path) = place();
    let replica = open(&path);
    for i in 0..50 {
        replica
            .write_file(format!("/f{i}"), &noise(20_000, 1))
            .unwrap();
    }
    let now = usage(&replica);
    assert_eq!((now.chunks, now.stored_bytes), (1, 20_000));
    assert_clean(&replica);
}

#[test]
fn copies_share_what_they_copy() {
    let (_dir, path) = place();
    let replica = open(&path);
    let content = noise(4 << 20, 1);
    let from = replica.write_file("/from", &content).unwrap().ino;
    let once = usage(&replica).stored_bytes;
    replica.copy_file("/from", "/copy").unwrap();
    let to = replica.write_file("/range", b"").unwrap().ino;
    replica.copy_range(from, 0, to, 0, u64::MAX).unwrap();
    assert_eq!(usage(&replica).stored_bytes, once);
    // A copy is a copy: a change of one is not one of the other.
    replica.write(from, 1_000_000, b"changed").unwrap();
    for name in ["/copy", "/range"] {
        assert_same(&replica.read_file(name).unwrap(), &content, name);
    }
    assert!(usage(&replica).stored_bytes < once + (2 << 20));
    assert_clean(&replica);
}

/// Twenty times, a hundredth of a file is written anew: less than two copies
/// of it are stored after gc, and take up space on the disk.
#[test]
fn edits_of_a_large_file_store_what_they_change() {
    let (_dir, path) = place();
    let replica = open(&path);
    let mut content = noise(16 << 20, 1);
    replica.write_file("/f", &content).unwrap();
    let mut rng = Rng::new(2);
    for round in 0..20 {
        let edit = rng.bytes(content.len() / 100);
        let at = rng.index(content.len() - edit.len());
        content[at..at + edit.len()].copy_from_slice(&edit);
        if round % 4 == 0 {
            // As many programs write: all of it.
            replica.replace_file("/f", &content).unwrap();
        } else {
            replica.write_range("/f", at as u64, &edit).unwrap();
        }
        replica.cursor().unwrap();
    }
    replica.gc().unwrap();
    replica.sync().unwrap();
    let now = usage(&replica);
    assert!(now.stored_bytes < 2 * content.len() as u64, "{now:?}");
    assert_eq!(now.dead_bytes, 0);
    let disk = on_disk(&path);
    assert!(disk < 2 * content.len() as u64, "{disk} bytes on the disk");
    assert_same(&replica.read_file("/f").unwrap(), &content, "/f");
    assert_clean(&replica);
}

#[test]
fn gc_runs_by_itself() {
    let (_dir, path) = place();
    let replica = open(&path);
    for round in 0..4 {
        replica.write_file("/f", &noise(24 << 20, round)).unwrap();
        replica.cursor().unwrap();
    }
    eventually("the dead chunks are gone", || on_disk(&path) < 64 << 20);
    assert_clean(&replica);
}

/// What was dead when the replica was closed was forgotten: it stayed until as
/// much again had died.
#[test]
fn gc_runs_by_itself_after_a_restart() {
    let (_dir, path) = place();
    let replica = open(&path);
    for (name, size) in [("/f", 56), ("/g", 12)] {
        replica
            .write_file(name, &noise(size << 20, size as u64))
            .unwrap();
    }
    replica.cursor().unwrap();
    replica.remove("/f").unwrap();
    drop(replica);
    assert!(on_disk(&path) > 64 << 20, "56 MiB are not worth it alone");
    let replica = open(&path);
    replica.remove("/g").unwrap();
    eventually("the dead chunks are gone", || on_disk(&path) < 8 << 20);
    assert_clean(&replica);
}

#[test]
fn references_are_right_after_random_copies_and_removals() {
    for seed in seeds(4) {
        let (_dir, path) = place();
        let replica = open(&path);
        let mut rng = Rng::new(seed);
        let name = |rng: &mut Rng| format!("/f{}", rng.below(12));
        for _ in 0..60 {
            let path = name(&mut rng);
            match rng.below(6) {
                0..2 => {
                    // Few contents, so that many are equal.
                    let size = *rng.pick(&[100, 3_000, 80_000, 1_500_000]);
                    let content = noise(size, rng.below(4));
                    replica.write_file(path, &content).unwrap();
                }
                2 => drop(replica.remove(path)),
                3 => drop(replica.copy_file(path, name(&mut rng))),
                4 => drop(replica.rename_path(path, name(&mut rng))),
                _ => drop(replica.cursor().unwrap()),
            }
        }
        assert_clean(&replica);
        for i in 0..12 {
            drop(replica.remove(format!("/f{i}")));
        }
        replica.gc().unwrap();
        let now = usage(&replica);
        assert_eq!((now.chunks, now.dead_bytes), (0, 0), "seed {seed}");
        assert_clean(&replica);
    }
}

#[test]
fn gc_gives_space_back_to_the_disk() {
    let (_dir, path) = place();
    let replica = open(&path);
    replica.write_file("/large", &noise(20 << 20, 1)).unwrap();
    for i in 0..200 {
        replica
            .write_file(format!("/s{i}"), &noise(50_000, 100 + i))
            .unwrap();
    }
    replica.sync().unwrap();
    replica.cursor().unwrap();
    let before = on_disk(&path);
    replica.remove("/large").unwrap();
    // Every second, so that each pack keeps some.
    for i in (0..200).step_by(2) {
        replica.remove(format!("/s{i}")).unwrap();
    }
    let report = replica.gc().unwrap();
    replica.sync().unwrap();
    assert!(report.bytes >= (20 << 20) + 100 * 50_000, "{report:?}");
    let after = on_disk(&path);
    assert!(
        after + (20 << 20) < before,
        "{before} bytes before, {after} after"
    );
    for i in (1..200).step_by(2) {
        let got = replica.read_file(format!("/s{i}")).unwrap();
        assert_same(&got, &noise(50_000, 100 + i), i);
    }
    assert_clean(&replica);
    drop(replica);
    assert!(on_disk(&path) < 12 << 20, "space is reserved for nothing");
}

#[test]
fn a_crash_at_any_point_of_gc_loses_nothing() {
    for seed in seeds(rounds(3)) {
        let (dir, path) = place();
        let replica = open(&path);
        let mut rng = Rng::new(seed);
        for i in 0..60 {
            let content = noise(rng.below(400_000) as usize, i);
            replica.write_file(format!("/f{i}"), &content).unwrap();
        }
        replica.cursor().unwrap();
        for i in (0..60).filter(|_| rng.chance(50)).collect::<Vec<_>>() {
            replica.remove(format!("/f{i}")).unwrap();
        }
        let left: Vec<(Vec<u8>, Vec<u8>)> = replica
            .list("/", 0, 100)
            .unwrap()
            .into_iter()
            .map(|e| {
                let path = [b"/", e.name.as_slice()].concat();
                let content = replica.read_file(&path).unwrap();
                (path, content)
            })
            .collect();
        replica.flush().unwrap();
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| replica.gc().unwrap());
            let mut round = 0;
            while !collector.is_finished() || round == 0 {
                round += 1;
                let copy = dir.path().join(format!("crash{round}.cairn"));
                crash_copy(&path, &copy);
                let after = open(&copy);
                for (path, content) in &left {
                    assert_same(&after.read_file(path).unwrap(), content, "after a crash");
                }
                assert_clean(&after);
            }
        });
        assert_clean(&replica);
    }
}

#[test]
fn a_replica_in_memory_collects_its_garbage() {
    let replica = Replica::in_memory().unwrap();
    for round in 0..3 {
        replica.write_file("/f", &noise(6 << 20, round)).unwrap();
        replica.cursor().unwrap();
        replica.gc().unwrap();
    }
    assert_same(&replica.read_file("/f").unwrap(), &noise(6 << 20, 2), "/f");
    let now = usage(&replica);
    assert_eq!((now.stored_bytes, now.dead_bytes), (6 << 20, 0));
    assert_eq!(replica.attr(Ino::ROOT).unwrap().nlink, 2);
    assert_clean(&replica);
}
