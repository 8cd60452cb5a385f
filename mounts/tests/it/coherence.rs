//! A change by another way is seen on the mount as soon as it is made, also by who has the file
//! open, mapped or cached.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use cairn_mounts::fuse::{Mount, MountOptions};

use crate::common::{Mounted, letter, pattern};
use crate::map::Map;

fn content(file: &File) -> Vec<u8> {
    let mut file = file;
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    all
}

/// Each round writes a new length through the API and looks at it in every way the mount offers.
#[test]
fn grown_and_shrunk_files_are_never_clipped_or_stale() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", b"start").unwrap();
    let path = m.path("file");
    let open = File::open(&path).unwrap();
    assert_eq!(content(&open), b"start");
    let sizes = [10, 4096, 5000, 4097, 1, 0, 300_000, 299_999, 70_000, 2_000_000, 12];
    for (round, size) in sizes.into_iter().cycle().take(110).enumerate() {
        let data: Vec<u8> = pattern(size, round);
        m.replica.write_file("/file", &data).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), size as u64, "stat, round {round}");
        assert_eq!(open.metadata().unwrap().len(), size as u64, "fstat, round {round}");
        assert!(content(&open) == data, "open file, round {round}");
        assert!(fs::read(&path).unwrap() == data, "opened anew, round {round}");
    }
}

/// The open file is not looked at in between: the first read after the change must be right.
#[test]
fn the_first_read_after_a_change_is_right() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", &[1; 10_000]).unwrap();
    let file = File::open(m.path("file")).unwrap();
    let mut buffer = vec![0; 20_000];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 10_000);
    m.replica.write_file("/file", &[2; 15_000]).unwrap();
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 15_000, "grown");
    assert!(buffer[..15_000].iter().all(|byte| *byte == 2));
    m.replica.write_file("/file", &[3; 5_000]).unwrap();
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5_000, "shrunk");
    assert!(buffer[..5_000].iter().all(|byte| *byte == 3));
    assert_eq!((&file).seek(SeekFrom::End(0)).unwrap(), 5_000);
    m.replica.append_file("/file", &[4; 100]).unwrap();
    assert_eq!((&file).seek(SeekFrom::End(0)).unwrap(), 5_100);
    assert_eq!(file.read_at(&mut buffer, 5_000).unwrap(), 100, "appended");
}

#[test]
fn a_mapped_file_shows_new_bytes() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", &[b'a'; 8192]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(m.path("file")).unwrap();
    let map = Map::shared(&file, 16_384);
    assert_eq!((map.get(0), map.get(8191)), (b'a', b'a'));
    m.replica.write_file("/file", &[b'b'; 8192]).unwrap();
    assert_eq!((map.get(0), map.get(8191)), (b'b', b'b'));
    m.replica.write_file("/file", &[b'c'; 100]).unwrap();
    assert_eq!((map.get(99), map.get(100)), (b'c', 0));
}

/// Nobody asks for the attributes between the growth and the access beyond the old end.
#[test]
fn a_mapped_file_that_grows_can_be_used_beyond_its_old_end() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", &[b'a'; 100]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(m.path("file")).unwrap();
    let map = Map::shared(&file, 16_384);
    assert_eq!(map.get(99), b'a');
    m.replica.write_file("/file", &[b'b'; 16_384]).unwrap();
    assert_eq!((map.get(0), map.get(99), map.get(16_383)), (b'b', b'b', b'b'));
}

#[test]
fn names_come_and_go() {
    let Some(m) = Mounted::new() else { return };
    let listed = || {
        let mut names: Vec<_> = fs::read_dir(m.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(listed(), "");
    assert!(!m.path("a").exists());
    m.replica.write_file("/a", b"1").unwrap();
    assert!(m.path("a").exists(), "a name known to be missing");
    assert_eq!(listed(), "a");
    m.replica.rename_path("/a", "/b").unwrap();
    assert!(!m.path("a").exists());
    assert_eq!(fs::read(m.path("b")).unwrap(), b"1");
    assert_eq!(listed(), "b");
    m.replica.write_file("/c", b"2").unwrap();
    m.replica.rename_path("/c", "/b").unwrap();
    assert_eq!(fs::read(m.path("b")).unwrap(), b"2", "replaced");
    m.replica.mkdir("/d").unwrap();
    assert_eq!(fs::metadata(m.root()).unwrap().nlink(), 3);
    m.replica.remove("/b").unwrap();
    assert!(!m.path("b").exists());
    assert_eq!(listed(), "d");
    m.replica.symlink_path("one", "/l").unwrap();
    assert_eq!(fs::read_link(m.path("l")).unwrap().to_str(), Some("one"));
    m.replica.remove("/l").unwrap();
    m.replica.symlink_path("two", "/l").unwrap();
    assert_eq!(fs::read_link(m.path("l")).unwrap().to_str(), Some("two"));
}

#[test]
fn an_open_file_survives_what_happens_to_its_name() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", b"first").unwrap();
    let file = File::open(m.path("file")).unwrap();
    m.replica.replace_file("/file", b"second").unwrap();
    assert_eq!(content(&file), b"first");
    assert_eq!(fs::read(m.path("file")).unwrap(), b"second");
    let second = File::open(m.path("file")).unwrap();
    m.replica.remove("/file").unwrap();
    assert_eq!(content(&second), b"second");
    assert_eq!(second.metadata().unwrap().nlink(), 0);
    assert!(!m.path("file").exists());
}

/// A directory that was moved while a process works in it goes on to work.
#[test]
fn a_moved_directory_stays_usable() {
    let Some(m) = Mounted::new() else { return };
    fs::create_dir_all(m.path("old/sub")).unwrap();
    let inside = File::open(m.path("old/sub")).unwrap();
    fs::write(m.path("old/sub/file"), b"1").unwrap();
    m.replica.rename_path("/old", "/new").unwrap();
    assert!(!m.path("old").exists());
    fs::write(m.path("new/sub/more"), b"2").unwrap();
    let inside = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside));
    fs::write(format!("{inside}/most"), b"3").unwrap();
    assert_eq!(fs::read_dir(m.path("new/sub")).unwrap().count(), 3);
    assert_eq!(m.replica.read_file("/new/sub/most").unwrap(), b"3");
    assert_eq!(fs::metadata(m.path("new")).unwrap().nlink(), 3);
}

#[test]
fn attributes_follow() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", b"x").unwrap();
    let path = m.path("file");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    m.replica.chmod("/file", 0o600).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    m.replica.chown("/file", Some(5), Some(6)).unwrap();
    let seen = fs::metadata(&path).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (5, 6));
    m.replica.hard_link("/file", "/other").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    m.replica.remove("/other").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

/// Readers, and writers behind them, on two mounts of one replica. What a reader sees after the
/// last change is what is there.
#[test]
fn the_last_change_is_what_everyone_sees() {
    let Some(m) = Mounted::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let second = Mount::new(m.replica.clone(), dir.path(), MountOptions::default()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    std::thread::scope(|scope| {
        for root in [m.root(), second.path()] {
            let (names, stop) = (&names, &stop);
            scope.spawn(move || {
                while !stop.load(relaxed) {
                    for name in names {
                        let path = root.join(name);
                        if let (Ok(attr), Ok(content)) = (fs::metadata(&path), fs::read(&path)) {
                            assert!(attr.len() < 6000 && content.len() < 6000);
                        }
                        let _ = fs::read_dir(root).unwrap().count();
                    }
                }
            });
        }
        for round in 0..3000_usize {
            let name = &names[round * 7 % 20];
            let data = vec![letter(round); round * 31 % 6000];
            match round % 7 {
                0 => drop(m.replica.remove(format!("/{name}"))),
                1 => fs::write(second.path().join(name), &data).unwrap(),
                2 => fs::write(m.path(name), &data).unwrap(),
                3 => drop(m.replica.replace_file(format!("/{name}"), &data)),
                _ => drop(m.replica.write_file(format!("/{name}"), &data).unwrap()),
            }
        }
        stop.store(true, relaxed);
    });
    // Changes through one mount reach the other without being waited for.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for name in &names {
        let kept = m.replica.read_file(format!("/{name}")).ok();
        for root in [m.root(), second.path()] {
            let size = fs::metadata(root.join(name)).ok().map(|attr| attr.len());
            assert_eq!(size, kept.as_ref().map(|kept| kept.len() as u64), "{name}");
            assert!(fs::read(root.join(name)).ok() == kept, "{name}");
        }
    }
    second.unmount().unwrap();
}
