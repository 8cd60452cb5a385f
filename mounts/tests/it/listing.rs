//! Listings, large ones and while they change.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use cairn_engine::Ino;

use crate::common::{Mounted, Stop};

const MANY: usize = 50_000;

fn list(m: &Mounted) -> HashMap<String, u32> {
    let mut seen = HashMap::new();
    for entry in fs::read_dir(m.path("dir")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        *seen.entry(name).or_default() += 1;
    }
    seen
}

/// What is there all the time is listed exactly once, whatever comes and goes beside it, both
/// through the mount and behind it.
#[test]
fn fifty_thousand_entries_are_listed_while_others_come_and_go() {
    let Some(m) = Mounted::new() else { return };
    m.replica.mkdir("/dir").unwrap();
    m.replica.fill("/dir/stay-", MANY);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                if stop.load(relaxed) {
                    break;
                }
                let name = format!("dir/go-{}", round % 50);
                fs::write(m.path(&name), b"").unwrap();
                fs::remove_file(m.path(&name)).unwrap();
                let name = format!("/dir/behind-{}", round % 50);
                m.replica.write_file(&name, b"").unwrap();
                m.replica.remove(&name).unwrap();
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..5 {
            let seen = list(&m);
            let stayed = seen.iter().filter(|(name, _)| name.starts_with("stay-"));
            assert_eq!(stayed.clone().count(), MANY);
            assert!(stayed.into_iter().all(|(_, times)| *times == 1));
        }
    });
    assert_eq!(list(&m).len(), MANY);
}

#[test]
fn a_listing_says_who_is_who() {
    let Some(m) = Mounted::new() else { return };
    fs::create_dir_all(m.path("dir/sub")).unwrap();
    fs::write(m.path("dir/file"), b"12345").unwrap();
    for entry in fs::read_dir(m.path("dir")).unwrap() {
        let entry = entry.unwrap();
        let (listed, looked_up) = (
            entry.metadata().unwrap(),
            fs::metadata(entry.path()).unwrap(),
        );
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), looked_up.ino());
        assert_eq!(listed.len(), looked_up.len());
        assert_eq!(entry.file_type().unwrap(), looked_up.file_type());
    }
    let dir = rustix::fs::open(
        m.path("dir"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let dots: HashMap<_, _> = rustix::fs::Dir::read_from(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_owned(), entry.ino()))
        .collect();
    assert_eq!(dots[c"."], fs::metadata(m.path("dir")).unwrap().ino());
    assert_eq!(dots[c".."], Ino::ROOT.0);
    assert_eq!(dots.len(), 4);
}

/// What the kernel was told of in a listing is forgotten again, whether it used it or not.
#[test]
fn the_kernel_gives_back_what_it_was_told() {
    let Some(m) = Mounted::new() else { return };
    m.replica.fill("/f", 1000);
    for entry in fs::read_dir(m.root()).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    let before = m.replica.nodes();
    for number in 0..1000 {
        m.replica.remove(&format!("/f{number}")).unwrap();
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while m.replica.nodes() > before - 1000 {
        assert!(std::time::Instant::now() < until, "removed nodes stay");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
