//! Files and directories that lose their name, or get another, while they are open.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::common::{Mounted, Stop, letter};

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("file");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    let nodes = || m.replica.nodes();
    let with_file = nodes();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all_at(b" and written", 4).unwrap();
    let mut back = [0; 16];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"kept and written");
    file.sync_all().unwrap();
    drop(file);
    let gone = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while nodes() == with_file {
        assert!(std::time::Instant::now() < gone, "the node stays");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_replaced_by_rename_stays_what_it_was_to_its_readers() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.path("config"), b"old").unwrap();
    let old = File::open(m.path("config")).unwrap();
    fs::write(m.path("config.new"), b"new").unwrap();
    fs::rename(m.path("config.new"), m.path("config")).unwrap();
    let mut back = [0; 3];
    old.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"old");
    assert_eq!(fs::read(m.path("config")).unwrap(), b"new");
}

/// Readers of a name that is replaced all the time never find it missing, nor a mixture.
#[test]
fn a_name_that_is_replaced_is_never_missing() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("name");
    fs::write(&path, b"0").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(relaxed) {
                    let seen = fs::read(&path).unwrap();
                    assert!(!seen.is_empty() && seen.iter().all(|byte| *byte == seen[0]));
                }
            });
        }
        scope.spawn(|| {
            let _stop = Stop(&stop);
            for round in 0..1000_usize {
                let content = vec![letter(round); 1 + round % 9000];
                if round % 2 == 0 {
                    fs::write(m.path("next"), content).unwrap();
                    fs::rename(m.path("next"), &path).unwrap();
                } else {
                    m.replica.replace_file("/name", &content).unwrap();
                }
            }
        });
    });
}

#[test]
fn a_removed_directory_is_empty_and_stays_so() {
    let Some(m) = Mounted::new() else { return };
    fs::create_dir(m.path("dir")).unwrap();
    let dir = File::open(m.path("dir")).unwrap();
    fs::remove_dir(m.path("dir")).unwrap();
    let inside = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    assert!(fs::write(format!("{inside}/new"), b"").is_err());
    assert_eq!(dir.metadata().unwrap().nlink(), 0);
}

#[test]
fn many_files_can_be_open() {
    let Some(m) = Mounted::new() else { return };
    let files: Vec<File> = (0..500)
        .map(|number| File::create(m.path(&number.to_string())).unwrap())
        .collect();
    for (number, file) in files.iter().enumerate() {
        file.write_all_at(number.to_string().as_bytes(), 0).unwrap();
        fs::remove_file(m.path(&number.to_string())).unwrap();
    }
    assert_eq!(
        files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .max(),
        Some(3)
    );
}
