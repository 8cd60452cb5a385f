//! Memory shared through a file of the mount.

use std::fs::{self, OpenOptions};

use crate::child::Job;
use crate::common::Mounted;
use crate::raw::Map;

#[test]
fn two_processes_share_a_mapped_file() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("shared");
    fs::write(&path, vec![b'.'; 4096]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let map = Map::shared(&file, 4096);
    let mut other = Job::start("map", &path);
    assert_eq!(other.hear(), "mapped");
    map.set(0, b'p');
    other.tell("look");
    assert_eq!(other.hear(), b'p'.to_string());
    assert_eq!(other.hear(), "written");
    assert_eq!(map.get(1), b'c');
    other.tell("end");
    other.end();
    drop(map);
    file.sync_all().unwrap();
    assert_eq!(&m.replica.read_file("/shared").unwrap()[..3], b"pc.");
}

#[test]
fn a_mapped_file_without_a_name_keeps_its_content() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("file");
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let map = Map::shared(&file, 100_000);
    drop(file);
    fs::remove_file(&path).unwrap();
    assert_eq!(map.get(99_999), b'x');
    map.set(50_000, b'y');
    assert_eq!(map.get(50_000), b'y');
}
