//! Holes, preallocation, and copying without moving bytes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

use crate::common::{Mounted, pattern};

fn open(m: &Mounted, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.open(m.path(name)).unwrap()
}

#[test]
fn holes_are_found_by_seeking() {
    let Some(m) = Mounted::new() else { return };
    let file = open(&m, "sparse");
    file.write_all_at(b"data", 4 << 20).unwrap();
    file.set_len(8 << 20).unwrap();
    let data = seek(&file, SeekFrom::Data(0)).unwrap();
    assert!((1 << 20..=4 << 20).contains(&data), "{data}");
    let hole = seek(&file, SeekFrom::Hole(4 << 20)).unwrap();
    assert!(((4 << 20) + 4..=8 << 20).contains(&hole), "{hole}");
    assert_eq!(seek(&file, SeekFrom::Data(8 << 20)), Err(Errno::NXIO));
    assert_eq!(seek(&file, SeekFrom::End(0)), Ok(8 << 20));
}

#[test]
fn preallocation_has_its_modes() {
    let Some(m) = Mounted::new() else { return };
    let file = open(&m, "file");
    file.write_all_at(&[7; 10_000], 0).unwrap();
    let len = || file.metadata().unwrap().len();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(len(), 10_000);
    fallocate(&file, FallocateFlags::empty(), 0, 20_000).unwrap();
    assert_eq!(len(), 20_000);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 1000, 2000).unwrap();
    let zero = FallocateFlags::ZERO_RANGE;
    fallocate(&file, zero, 5000, 1000).unwrap();
    let content = fs::read(m.path("file")).unwrap();
    let expected: Vec<u8> = (0..20_000)
        .map(|at| match at {
            1000..3000 | 5000..6000 | 10_000.. => 0,
            _ => 7,
        })
        .collect();
    assert!(content == expected);
    fallocate(&file, zero, 19_000, 2000).unwrap();
    assert_eq!(len(), 21_000);
    let collapse = FallocateFlags::COLLAPSE_RANGE;
    assert_eq!(fallocate(&file, collapse, 0, 4096), Err(Errno::OPNOTSUPP));
}

#[test]
fn ranges_are_copied() {
    let Some(m) = Mounted::new() else { return };
    let data: Vec<u8> = pattern(3_000_000, 0);
    fs::write(m.path("from"), &data).unwrap();
    let (from, to) = (File::open(m.path("from")).unwrap(), open(&m, "to"));
    let (mut read, mut written) = (0, 0);
    while copy_file_range(&from, Some(&mut read), &to, Some(&mut written), 1 << 30).unwrap() > 0 {}
    assert_eq!(written, 3_000_000);
    assert!(fs::read(m.path("to")).unwrap() == data);
    let (mut read, mut written) = (100, 50);
    let part = copy_file_range(&from, Some(&mut read), &to, Some(&mut written), 1000).unwrap();
    assert_eq!(part, 1000);
    assert!(fs::read(m.path("to")).unwrap()[50..1050] == data[100..1100]);
}

#[test]
fn direct_and_synchronous_access_work() {
    let Some(m) = Mounted::new() else { return };
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::SYNC;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(flags.bits().cast_signed())
        .open(m.path("direct"))
        .unwrap();
    file.write_all_at(&[5; 8192], 4096).unwrap();
    let mut back = [0; 12_288];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back[..4096] == [0; 4096] && back[4096..] == [5; 8192]);
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(m.root()).unwrap().sync_all().unwrap();
}
