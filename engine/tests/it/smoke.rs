//! The way of a file through the engine: written, sealed, reopened, checked.

use cairn_engine::{Options, Replica};

use crate::support::noise;
#[test]
fn content_survives_reopening_and_check_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.cairn");
    let sizes = [
        0,
        1,
        512,
        513,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 1,
        5 << 20,
    ];
    {
        let replica = Replica::open(&path, Options::default()).unwrap();
        replica.mkdir_all("/a/b").unwrap();
        for (i, size) in sizes.iter().enumerate() {
            replica
                .write_file(format!("/a/b/{i}"), &noise(*size, i as u64 + 1))
                .unwrap();
        }
        replica.copy_file("/a/b/8", "/copy").unwrap();
        let big = replica.stat("/a/b/8").unwrap().ino;
        replica.write(big, 1_000_000, b"changed").unwrap();
        replica.sync().unwrap();
    }
    let replica = Replica::open(&path, Options::default()).unwrap();
    for (i, size) in sizes.iter().enumerate().take(8) {
        assert_eq!(
            replica.read_file(format!("/a/b/{i}")).unwrap(),
            noise(*size, i as u64 + 1),
            "size {size}"
        );
    }
    assert_eq!(replica.read_file("/copy").unwrap(), noise(5 << 20, 9));
    let mut changed = noise(5 << 20, 9);
    changed[1_000_000..1_000_007].copy_from_slice(b"changed");
    let got = replica.read_file("/a/b/8").unwrap();
    let differs: Vec<usize> = (0..got.len().min(changed.len()))
        .filter(|i| got[*i] != changed[*i])
        .collect();
    assert_eq!(
        (got.len(), differs.first(), differs.last(), differs.len()),
        (changed.len(), None, None, 0)
    );
    let report = replica.check(&mut |_, _| {}).unwrap();
    assert_eq!(report.problems, []);
    replica.remove_all("/a").unwrap();
    let gc = replica.gc().unwrap();
    assert!(gc.bytes > 0);
    assert_eq!(replica.check(&mut |_, _| {}).unwrap().problems, []);
    assert_eq!(replica.read_file("/copy").unwrap(), noise(5 << 20, 9));
}
