//! A change by another way is seen on the mount as soon as it is made, also by who has the file
//! open, mapped or cached.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::child::Job;
use crate::common::{Mounted, Place, Stop, letter, pattern};
use crate::raw::Map;

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
    let sizes = [
        10, 4096, 5000, 4097, 1, 0, 300_000, 299_999, 70_000, 2_000_000, 12,
    ];
    for (round, size) in sizes.into_iter().cycle().take(110).enumerate() {
        let data: Vec<u8> = pattern(size, round);
        m.replica.write_file("/file", &data).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            size as u64,
            "stat, round {round}"
        );
        assert_eq!(
            open.metadata().unwrap().len(),
            size as u64,
            "fstat, round {round}"
        );
        assert!(content(&open) == data, "open file, round {round}");
        assert!(
            fs::read(&path).unwrap() == data,
            "opened anew, round {round}"
        );
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
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(m.path("file"))
        .unwrap();
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
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(m.path("file"))
        .unwrap();
    let map = Map::shared(&file, 16_384);
    assert_eq!(map.get(99), b'a');
    m.replica.write_file("/file", &[b'b'; 16_384]).unwrap();
    assert_eq!(
        (map.get(0), map.get(99), map.get(16_383)),
        (b'b', b'b', b'b')
    );
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
    m.replica.rename("/a", "/b").unwrap();
    assert!(!m.path("a").exists());
    assert_eq!(fs::read(m.path("b")).unwrap(), b"1");
    assert_eq!(listed(), "b");
    m.replica.write_file("/c", b"2").unwrap();
    m.replica.rename("/c", "/b").unwrap();
    assert_eq!(fs::read(m.path("b")).unwrap(), b"2", "replaced");
    m.replica.mkdir("/d").unwrap();
    assert_eq!(fs::metadata(m.root()).unwrap().nlink(), 3);
    m.replica.remove("/b").unwrap();
    assert!(!m.path("b").exists());
    assert_eq!(listed(), "d");
    m.replica.symlink("one", "/l").unwrap();
    assert_eq!(fs::read_link(m.path("l")).unwrap().to_str(), Some("one"));
    m.replica.remove("/l").unwrap();
    m.replica.symlink("two", "/l").unwrap();
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
    m.replica.rename("/old", "/new").unwrap();
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
    m.replica.chown("/file", 5, 6).unwrap();
    let seen = fs::metadata(&path).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (5, 6));
    m.replica.hard_link("/file", "/other").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    m.replica.remove("/other").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

/// Who has just made a file may use it past the mount, which nobody must notice.
#[test]
fn a_new_file_that_stays_open_is_one_with_the_replica() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("file");
    let mut options = OpenOptions::new();
    let writer = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    let mut expected = Vec::new();
    for round in 0..40 {
        let data = pattern(1 + round * 1013, round);
        match round % 4 {
            0 => writer.write_all_at(&data, 0).unwrap(),
            1 => m.replica.write_range("/file", 0, &data).unwrap(),
            2 => m.replica.truncate("/file", data.len() as u64).unwrap(),
            _ => {
                let map = Map::shared(&writer, 4096);
                map.set(7, letter(round));
                expected[7] = letter(round);
            }
        }
        match round % 4 {
            0 | 1 => {
                expected.resize(expected.len().max(data.len()), 0);
                expected[..data.len()].copy_from_slice(&data);
            }
            2 => expected.resize(data.len(), 0),
            _ => {}
        }
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            expected.len() as u64,
            "round {round}"
        );
        assert_eq!(
            writer.metadata().unwrap().len(),
            expected.len() as u64,
            "round {round}"
        );
        assert!(content(&writer) == expected, "its writer, round {round}");
        assert!(
            fs::read(&path).unwrap() == expected,
            "another reader, round {round}"
        );
        assert!(
            m.replica.read_file("/file").unwrap() == expected,
            "the replica, round {round}"
        );
    }
    drop(writer);
    assert!(fs::read(&path).unwrap() == expected);
    m.replica.append_file("/file", b"more").unwrap();
    assert!(fs::read(&path).unwrap().ends_with(b"more"));
}

/// The kernel may read large sealed files past the mount. Whoever changes one, its readers see it.
#[test]
fn large_sealed_files_follow() {
    let Some(m) = Mounted::on_disk() else { return };
    let path = m.path("file");
    for round in 0..12 {
        let mut expected = pattern(6_000_000 + round, round);
        m.replica.write_file("/file", &expected).unwrap();
        m.replica.seal("/file").unwrap();
        let reader = File::open(&path).unwrap();
        assert!(content(&reader) == expected, "round {round}");
        let change = pattern(5000, round + 7);
        match round % 4 {
            0 => {
                m.replica.write_range("/file", 3_000_000, &change).unwrap();
                expected[3_000_000..3_005_000].copy_from_slice(&change);
            }
            1 => {
                m.replica.truncate("/file", 1_234_567).unwrap();
                expected.truncate(1_234_567);
            }
            2 => {
                let writer = OpenOptions::new().append(true).open(&path).unwrap();
                std::io::Write::write_all(&mut &writer, &change).unwrap();
                expected.extend(change);
            }
            _ => {
                m.replica.append_file("/file", &change).unwrap();
                expected.extend(change);
            }
        }
        assert_eq!(
            reader.metadata().unwrap().len(),
            expected.len() as u64,
            "round {round}"
        );
        assert!(content(&reader) == expected, "open before, round {round}");
        assert!(
            fs::read(&path).unwrap() == expected,
            "opened after, round {round}"
        );
        assert!(
            m.replica.read_file("/file").unwrap() == expected,
            "the replica, round {round}"
        );
        m.replica.remove("/file").unwrap();
        assert!(
            content(&reader) == expected,
            "without a name, round {round}"
        );
    }
}

#[test]
fn times_and_extended_attributes_follow() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", b"x").unwrap();
    let path = m.path("file");
    let open = File::open(&path).unwrap();
    let mut room = [0; 16];
    for round in 1..20_u64 {
        m.replica.set_mtime("/file", round * 1000).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().mtime().cast_unsigned(),
            round * 1000
        );
        assert_eq!(
            open.metadata().unwrap().mtime().cast_unsigned(),
            round * 1000
        );
        let value = round.to_string();
        m.replica
            .set_xattr("/file", "user.round", value.as_bytes())
            .unwrap();
        let len = rustix::fs::fgetxattr(&open, "user.round", &mut room).unwrap();
        assert_eq!(&room[..len], value.as_bytes());
    }
}

#[test]
fn a_change_under_one_name_is_seen_under_all() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/one", b"first").unwrap();
    m.replica.mkdir("/dir").unwrap();
    m.replica.hard_link("/one", "/dir/two").unwrap();
    let (one, two) = (
        File::open(m.path("one")).unwrap(),
        File::open(m.path("dir/two")).unwrap(),
    );
    assert_eq!(
        (content(&one), content(&two)),
        (b"first".to_vec(), b"first".to_vec())
    );
    for round in 0..20 {
        let data = pattern(1 + round * 977, round);
        let name = if round % 2 == 0 { "/one" } else { "/dir/two" };
        m.replica.write_file(name, &data).unwrap();
        for file in [&one, &two] {
            assert!(content(file) == data, "round {round}");
            assert_eq!(file.metadata().unwrap().nlink(), 2);
        }
        assert!(fs::read(m.path("one")).unwrap() == fs::read(m.path("dir/two")).unwrap());
    }
    // Each name may then mean another file, or none.
    m.replica.replace_file("/one", b"other").unwrap();
    assert_eq!(fs::read(m.path("one")).unwrap(), b"other");
    assert_eq!(fs::metadata(m.path("dir/two")).unwrap().nlink(), 1);
    assert_eq!(one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
}

#[test]
fn a_tree_that_is_removed_or_made_is_gone_or_there() {
    let Some(m) = Mounted::new() else { return };
    let missing = || ["tree", "tree/sub", "tree/sub/file"].map(|name| m.path(name).exists());
    for round in 0..10 {
        assert_eq!(missing(), [false; 3], "round {round}");
        m.replica.mkdir("/tree").unwrap();
        assert_eq!(missing(), [true, false, false], "round {round}");
        m.replica.mkdir("/tree/sub").unwrap();
        assert_eq!(missing(), [true, true, false], "round {round}");
        m.replica.write_file("/tree/sub/file", b"there").unwrap();
        assert_eq!(missing(), [true; 3], "round {round}");
        let file = File::open(m.path("tree/sub/file")).unwrap();
        let sub = File::open(m.path("tree/sub")).unwrap();
        let inside = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sub));
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
        m.replica.write_file("/tree/sub/more", b"").unwrap();
        assert_eq!(
            fs::read_dir(&inside).unwrap().count(),
            2,
            "an open directory is listed again"
        );
        m.replica.remove_all("/tree").unwrap();
        assert_eq!(missing(), [false; 3], "round {round}");
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert_eq!(content(&file), b"there", "who has it open keeps it");
        assert_eq!(
            (
                file.metadata().unwrap().nlink(),
                sub.metadata().unwrap().nlink()
            ),
            (0, 0)
        );
    }
}

/// Pages that were changed in mapped memory and are written back while the file is cut off, on the
/// mount or behind it, do not make it longer again.
#[test]
fn what_is_cut_off_does_not_come_back_from_mapped_memory() {
    let Some(m) = Mounted::on_disk() else { return };
    let path = m.path("file");
    for round in 0..60 {
        let before = if round % 2 == 0 { 400_000 } else { 2_000_000 };
        m.replica.write_file("/file", &vec![b'x'; before]).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let map = Map::shared(&file, before);
        (0..before).step_by(4096).for_each(|at| map.set(at, b'y'));
        std::thread::scope(|scope| {
            scope.spawn(|| file.sync_all().unwrap());
            match round % 3 {
                0 => drop(
                    OpenOptions::new()
                        .write(true)
                        .truncate(true)
                        .open(&path)
                        .unwrap(),
                ),
                1 => m.replica.truncate("/file", 0).unwrap(),
                _ => m.replica.truncate("/file", 100).unwrap(),
            }
        });
        let size = if round % 3 == 2 { 100 } else { 0 };
        assert_eq!(fs::metadata(&path).unwrap().len(), size, "round {round}");
        assert_eq!(
            m.replica.read_file("/file").unwrap().len() as u64,
            size,
            "round {round}"
        );
    }
}

/// What another process has mapped follows, too, and a file cut off under it is cut off: an
/// access beyond the end is what it is on any filesystem.
#[test]
fn mapped_memory_of_another_process_follows() {
    let Some(m) = Mounted::new() else { return };
    m.replica.write_file("/file", &[b'a'; 10_000]).unwrap();
    let mut other = Job::start("map-look", &m.path("file"));
    let mut look = |at: &str| {
        other.tell(at);
        other.hear_until_end()
    };
    assert_eq!(look("9999").as_deref(), Some("97"));
    for round in 0..20 {
        let (byte, size) = (letter(round), 10_000 + round * 3_001);
        m.replica
            .write_range("/file", 0, &vec![byte; size])
            .unwrap();
        let last = (size - 1).to_string();
        for at in ["0", "5000", &last] {
            assert_eq!(look(at), Some(byte.to_string()), "round {round}, byte {at}");
        }
    }
    m.replica.truncate("/file", 100).unwrap();
    assert_eq!(
        look("100").as_deref(),
        Some("0"),
        "the rest of the last page"
    );
    assert_eq!(look("5000"), None, "beyond it there is nothing");
    let status = other.process.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGBUS)
    );
}

/// Readers, and writers behind them, on two mounts of one replica. What a reader sees after the
/// last change is what is there.
#[test]
fn the_last_change_is_what_everyone_sees() {
    let Some(m) = Mounted::new() else { return };
    let place = Place::new();
    let second = place.at();
    m.replica.mount(second, false).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    std::thread::scope(|scope| {
        for root in [m.root(), second] {
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
        let _stop = Stop(&stop);
        for round in 0..3000_usize {
            let name = &names[round * 7 % 20];
            let data = vec![letter(round); round * 31 % 6000];
            match round % 7 {
                0 => drop(m.replica.remove(&format!("/{name}"))),
                1 => fs::write(second.join(name), &data).unwrap(),
                2 => fs::write(m.path(name), &data).unwrap(),
                3 => drop(m.replica.replace_file(&format!("/{name}"), &data)),
                _ => m.replica.write_file(&format!("/{name}"), &data).unwrap(),
            }
        }
    });
    // Changes through one mount reach the other without being waited for.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for name in &names {
        let kept = m.replica.read_file(&format!("/{name}")).ok();
        for root in [m.root(), second] {
            let size = fs::metadata(root.join(name)).ok().map(|attr| attr.len());
            assert_eq!(size, kept.as_ref().map(|kept| kept.len() as u64), "{name}");
            assert!(fs::read(root.join(name)).ok() == kept, "{name}");
        }
    }
    m.replica.unmount().unwrap();
}
