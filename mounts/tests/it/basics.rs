//! Files, directories, links and names.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use rustix::io::Errno;

use crate::common::{Mounted, pattern};

#[test]
fn files_are_written_and_read() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("file");
    fs::write(&path, b"one").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"NE", 1).unwrap();
    file.write_all_at(b"end", 10).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"oNE\0\0\0\0\0\0\0end");
    file.set_len(2).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"oN");
    assert_eq!(m.replica.read_file("/file").unwrap(), b"oN");
    fs::write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(m.requests() > 0);
}

#[test]
fn large_files_come_back_as_they_went() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("large");
    let data: Vec<u8> = pattern(5_000_000, 0);
    fs::write(&path, &data).unwrap();
    assert!(fs::read(&path).unwrap() == data);
    drop_page_cache(&path);
    assert!(fs::read(&path).unwrap() == data);
    assert_eq!(fs::metadata(&path).unwrap().len(), 5_000_000);
}

fn drop_page_cache(path: &Path) {
    let file = fs::File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn directories_count_their_subdirectories() {
    let Some(m) = Mounted::new() else { return };
    let links = |name: &str| fs::metadata(m.path(name)).unwrap().nlink();
    fs::create_dir_all(m.path("a/b")).unwrap();
    fs::create_dir(m.path("c")).unwrap();
    assert_eq!((links(""), links("a"), links("c")), (4, 3, 2));
    fs::rename(m.path("a/b"), m.path("c/b")).unwrap();
    assert_eq!((links("a"), links("c")), (2, 3));
    let full = fs::remove_dir(m.path("c")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DirectoryNotEmpty);
    let no_dir = fs::remove_file(m.path("c")).unwrap_err();
    assert_eq!(no_dir.kind(), ErrorKind::IsADirectory);
    fs::remove_dir_all(m.path("c")).unwrap();
    assert_eq!(links(""), 3);
    let into_itself = fs::rename(m.path("a"), m.path("a/x")).unwrap_err();
    assert_eq!(into_itself.kind(), ErrorKind::InvalidInput);
}

#[test]
fn links_name_one_file() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.path("one"), b"content").unwrap();
    fs::hard_link(m.path("one"), m.path("two")).unwrap();
    let (one, two) = (fs::metadata(m.path("one")), fs::metadata(m.path("two")));
    assert_eq!(one.as_ref().unwrap().ino(), two.unwrap().ino());
    assert_eq!(one.unwrap().nlink(), 2);
    fs::remove_file(m.path("one")).unwrap();
    assert_eq!(fs::metadata(m.path("two")).unwrap().nlink(), 1);
    assert_eq!(fs::read(m.path("two")).unwrap(), b"content");

    symlink("two", m.path("link")).unwrap();
    assert_eq!(fs::read_link(m.path("link")).unwrap(), Path::new("two"));
    assert_eq!(fs::read(m.path("link")).unwrap(), b"content");
    assert_eq!(fs::symlink_metadata(m.path("link")).unwrap().len(), 3);
    symlink("loop", m.path("loop")).unwrap();
    let round = fs::read(m.path("loop")).unwrap_err();
    assert_eq!(Errno::from_io_error(&round), Some(Errno::LOOP));
}

#[test]
fn special_files_keep_their_kind_and_number() {
    let Some(m) = Mounted::new() else { return };
    let mode = Mode::from_raw_mode(0o640);
    let make = |name: &str, kind, dev| mknodat(CWD, m.path(name), kind, mode, dev).unwrap();
    make("fifo", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
    make("char", FileType::CharacterDevice, makedev(1, 3));
    make("block", FileType::BlockDevice, makedev(7, 300));
    make("plain", FileType::RegularFile, 0);
    let of = |name: &str| fs::metadata(m.path(name)).unwrap();
    assert!(of("fifo").file_type().is_fifo());
    assert!(of("socket").file_type().is_socket());
    assert!(of("char").file_type().is_char_device());
    assert_eq!(of("char").rdev(), makedev(1, 3));
    assert!(of("block").file_type().is_block_device());
    assert_eq!(of("block").rdev(), makedev(7, 300));
    assert!(of("plain").is_file());
    assert_eq!(of("fifo").mode() & 0o7777, 0o640);
}

#[test]
fn names_are_bytes() {
    let Some(m) = Mounted::new() else { return };
    let odd = m.root().join(OsStr::from_bytes(b"\xff\n \"\x01"));
    fs::write(&odd, b"odd").unwrap();
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    let listed = fs::read_dir(m.root()).unwrap().next().unwrap().unwrap();
    assert_eq!(listed.path(), odd);
    fs::write(m.path(&"n".repeat(255)), b"long").unwrap();
    let too_long = fs::write(m.path(&"n".repeat(256)), b"long").unwrap_err();
    assert_eq!(Errno::from_io_error(&too_long), Some(Errno::NAMETOOLONG));
}

#[test]
fn a_missing_name_is_remembered_until_it_is_made() {
    let Some(m) = Mounted::new() else { return };
    let requests = || m.requests();
    assert!(fs::metadata(m.path("later")).is_err());
    let before = requests();
    for _ in 0..100 {
        assert!(fs::metadata(m.path("later")).is_err());
    }
    assert_eq!(requests(), before, "the kernel knows by itself");
    fs::write(m.path("later"), b"now").unwrap();
    assert_eq!(fs::read(m.path("later")).unwrap(), b"now");
}

#[test]
fn rename_has_its_three_ways() {
    let Some(m) = Mounted::new() else { return };
    let rename =
        |from: &str, to: &str, flags| renameat_with(CWD, m.path(from), CWD, m.path(to), flags);
    fs::write(m.path("a"), b"a").unwrap();
    fs::write(m.path("b"), b"b").unwrap();
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"b");
    assert_eq!(
        rename("a", "none", RenameFlags::EXCHANGE),
        Err(Errno::NOENT)
    );
    assert_eq!(rename("a", "c", RenameFlags::WHITEOUT), Err(Errno::INVAL));
    rename("a", "b", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(m.path("b")).unwrap(), b"b");
    assert!(!m.path("a").exists());
    rename("b", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(m.path("c")).unwrap(), b"b");
}

#[test]
fn exclusive_creation_happens_once() {
    let Some(m) = Mounted::new() else { return };
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).open(m.path("lock"))
    };
    create().unwrap();
    assert_eq!(create().unwrap_err().kind(), ErrorKind::AlreadyExists);
    // Made behind the kernel's back.
    m.replica.write_file("/other", b"there").unwrap();
    let taken = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(m.path("other"));
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let shared = OpenOptions::new()
        .append(true)
        .create(true)
        .open(m.path("other"));
    assert_eq!(shared.unwrap().metadata().unwrap().len(), 5);
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let Some(m) = Mounted::read_only() else {
        return;
    };
    m.replica.write_file("/file", b"there").unwrap();
    assert_eq!(fs::read(m.path("file")).unwrap(), b"there");
    let refused = fs::write(m.path("file"), b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
}
