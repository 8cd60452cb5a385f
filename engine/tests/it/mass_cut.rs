//! Somebody elsewhere changes every file. What nobody here has edited becomes other
//! rows, past memory; what is edited here, or open, or known to a cache, is as if it
//! had been the only change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::{File, Ino, Invalidation, Observer, Options, Replica};
use parking_lot::Mutex;

use cairn_protocol::session::Applied;
use cairn_protocol::wire::Why;

use crate::support::{assert_clean, noise, place};
use crate::upstream::{Client, Side, assert_equal};

const DIRS: usize = 6;
const FILES: usize = 30;

/// No cut here plans more in memory than this many names and nodes, of which it
/// changes hundreds.
const PLANNED_MAX: usize = 12;

/// What is done to each file, and what is at its path then.
type Change = (&'static str, fn(&Replica, &str), Option<&'static str>);

const CHANGES: [Change; 7] = [
    (
        "edited",
        |r, path| {
            r.write_file(path, &other(path)).unwrap();
        },
        Some(""),
    ),
    (
        "replaced",
        |r, path| {
            r.replace_file(path, &other(path)).unwrap();
        },
        Some(""),
    ),
    (
        "given another mode",
        |r, path| {
            r.chmod(path, 0o600).unwrap();
        },
        Some(""),
    ),
    (
        "given an attribute",
        |r, path| r.set_xattr_path(path, b"user.a", b"value").unwrap(),
        Some(""),
    ),
    (
        "renamed",
        |r, path| r.rename_path(path, format!("{path}-renamed")).unwrap(),
        Some("-renamed"),
    ),
    (
        "moved to new directories",
        |r, path| {
            r.mkdir_all(format!("/new{}", parent(path))).unwrap();
            r.rename_path(path, format!("/new{path}")).unwrap();
        },
        None,
    ),
    ("removed", |r, path| r.remove(path).unwrap(), None),
];

fn parent(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

fn paths() -> impl Iterator<Item = String> {
    (0..DIRS).flat_map(|dir| (0..FILES).map(move |file| format!("/all/{dir}/{file}")))
}

/// Some are in rows, some are chunks.
fn content(path: &str) -> Vec<u8> {
    let seed = path.bytes().map(u64::from).sum::<u64>();
    noise(if seed % 3 == 0 { 2_000 } else { 40 }, seed)
}

/// Another content, of the same length: who reads a whole file asks for that first.
fn other(path: &str) -> Vec<u8> {
    content(path).into_iter().rev().collect()
}

/// A hub with a tree, and who made it.
fn hub() -> (Side, Client) {
    let (mut side, client) = (Side::default(), Client::new());
    for path in paths() {
        client.replica.mkdir_all(parent(&path)).unwrap();
        client.replica.write_file(&path, &content(&path)).unwrap();
    }
    client.replica.hard_link("/all/0/0", "/linked").unwrap();
    // A cut that removes most of a tree would have to be confirmed.
    for file in 0..DIRS * FILES + 50 {
        let path = format!("/kept/{}/{file}", file / 50);
        client.replica.mkdir_all(parent(&path)).unwrap();
        client.replica.write_file(&path, b"kept").unwrap();
    }
    client.sync(&mut side);
    (side, client)
}

/// A cache that knows what it was told of.
#[derive(Debug, Default)]
struct Cache {
    known: Mutex<BTreeSet<Ino>>,
    told: Mutex<Vec<Invalidation>>,
}

impl Observer for Cache {
    fn knows(&self, ino: Ino) -> bool {
        self.known.lock().contains(&ino)
    }

    fn invalidate(&self, what: Invalidation) {
        self.told.lock().push(what);
    }

    fn settle(&self) {}
}

/// A replica that follows, on the disk.
struct Follower {
    client: Client,
    path: std::path::PathBuf,
    dir: tempfile::TempDir,
}

impl Follower {
    fn new(side: &mut Side) -> Self {
        let (dir, path) = place();
        let client = Client::of(Replica::open(&path, Options::default()).unwrap());
        client.sync(side);
        Self { client, path, dir }
    }

    /// It has what the hub has, in memory and on the disk.
    fn check(self, side: &Side, what: &str) {
        assert_equal(&[&self.client], side);
        assert_clean(&self.client.replica);
        let tree = self.client.tree();
        let Self { client, path, dir } = self;
        drop(client);
        let client = Client::of(Replica::open(&path, Options::default()).unwrap());
        assert_eq!(client.tree(), tree, "{what}");
        assert_clean(&client.replica);
        drop((client, dir));
    }
}

fn read(replica: &Replica, file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 8_192];
    let len = replica.read(file.ino(), 0, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn what_is_done_to_every_file_arrives() {
    for (what, change, at) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Follower::new(&mut side);
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        mine.client.upstream.planned();
        mine.client.sync(&mut side);
        let planned = mine.client.upstream.planned();
        assert!(planned <= PLANNED_MAX, "{what}: {planned} were planned");
        if let Some(end) = at {
            for path in paths() {
                let path = format!("{path}{end}");
                assert_eq!(
                    mine.client.read(&path),
                    theirs.read(&path),
                    "{what}: {path}"
                );
            }
        }
        mine.check(&side, what);
    }
}

/// A replica with a hub in it follows another, too: what comes from there goes on to
/// who follows it, and the other way round.
#[test]
fn what_is_done_to_every_file_arrives_through_a_hub_in_the_middle() {
    for (_, change, _) in CHANGES {
        let (mut above, theirs) = hub();
        let (mut below, last) = (Side::default(), Client::new());
        let replica = Replica::in_memory().unwrap();
        let own = replica.own_upstream().unwrap();
        let (up, own) = (
            Client::of(replica.clone()),
            Client {
                replica,
                upstream: own,
            },
        );
        up.sync(&mut above);
        own.sync(&mut below);
        last.sync(&mut below);
        let half = |n: usize| paths().enumerate().filter(move |(at, _)| at % 2 == n);
        for (_, path) in half(0) {
            change(&theirs.replica, &path);
        }
        for (_, path) in half(1) {
            change(&last.replica, &path);
        }
        theirs.sync(&mut above);
        last.sync(&mut below);
        own.pull(&below, None);
        up.pull(&above, None);
        for _ in 0..3 {
            own.sync(&mut below);
            up.sync(&mut above);
        }
        theirs.sync(&mut above);
        last.sync(&mut below);
        assert_equal(&[&up, &theirs], &above);
        assert_equal(&[&own, &last], &below);
    }
}

/// The hub is another, which has all that this one had, or it tells its whole tree
/// for the replica was away for long: what is so here costs nothing.
#[test]
fn what_a_whole_tree_has_as_it_is_here_is_not_planned() {
    for why in [Why::Epoch, Why::Forked, Why::Horizon] {
        let (mut side, theirs) = hub();
        let mine = Follower::new(&mut side);
        theirs.replica.write_file("/all/1/1", b"theirs").unwrap();
        theirs.replica.remove("/all/2/2").unwrap();
        theirs.replica.write_file("/all/3/new", b"new").unwrap();
        theirs.replica.chmod("/all/4/4", 0o600).unwrap();
        theirs.sync(&mut side);
        let here = &mine.client.replica;
        here.write_file("/all/1/2", b"edited here").unwrap();
        here.remove("/all/2/3").unwrap();
        here.write_file("/all/3/mine", b"mine").unwrap();
        mine.client.upstream.planned();
        let whole = side.hub.whole();
        let done = mine.client.begin_anew(&side, why, whole, None);
        assert_eq!(done, Applied::Done);
        let planned = mine.client.upstream.planned();
        assert!(
            planned <= 3 * PLANNED_MAX,
            "{why:?}: {planned} were planned"
        );
        for _ in 0..2 {
            mine.client.sync(&mut side);
            theirs.sync(&mut side);
        }
        assert_eq!(theirs.read("/all/3/mine"), b"mine", "{why:?}");
        assert!(!theirs.replica.exists("/all/2/3").unwrap(), "{why:?}");
        if why == Why::Horizon {
            assert_eq!(theirs.read("/all/1/2"), b"edited here");
            assert_eq!(mine.client.read("/all/1/1"), b"theirs");
            assert!(!mine.client.replica.exists("/all/2/2").unwrap());
        }
        assert_equal(&[&theirs], &side);
        mine.check(&side, "whole");
    }
}

/// All of it goes, with its directories.
#[test]
fn a_tree_that_is_removed_goes_with_its_directories() {
    let (mut side, theirs) = hub();
    let mine = Follower::new(&mut side);
    theirs.replica.remove_all("/all").unwrap();
    theirs.sync(&mut side);
    mine.client.sync(&mut side);
    assert_eq!(mine.client.names("/"), ["kept", "linked"]);
    assert_eq!(mine.client.read("/linked"), content("/all/0/0"));
    mine.check(&side, "removed");
}

#[test]
fn what_is_edited_here_stays_when_everything_changes_elsewhere() {
    for (what, change, _) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Follower::new(&mut side);
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        let here = &mine.client.replica;
        here.write_file("/all/1/1", b"edited here").unwrap();
        here.chmod("/all/1/2", 0o640).unwrap();
        here.remove("/all/1/3").unwrap();
        here.rename_path("/all/1/4", "/all/1/four").unwrap();
        here.rename_path("/all/1/5", "/all/2/five").unwrap();
        here.write_file("/all/3/new", b"new here").unwrap();
        here.write_file("/all/4/6", b"edited and moved").unwrap();
        here.rename_path("/all/4/6", "/six").unwrap();
        mine.client.sync(&mut side);
        theirs.sync(&mut side);
        let all: BTreeMap<_, _> = side.hub.tree().names().collect();
        assert!(all.len() > 3, "{what}");
        assert_eq!(theirs.read("/all/3/new"), b"new here", "{what}");
        mine.check(&side, what);
    }
}

#[test]
fn who_has_a_file_open_reads_on_when_everything_changes_elsewhere() {
    for (what, change, at) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Follower::new(&mut side);
        let here = &mine.client.replica;
        let file = here.open_file("/all/2/2").unwrap();
        let last = here.open_file("/all/5/29").unwrap();
        assert_eq!(read(here, &last), content("/all/5/29"));
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        mine.client.sync(&mut side);
        for (path, file) in [("/all/2/2", &file), ("/all/5/29", &last)] {
            let expected = if what == "edited" {
                other(path)
            } else {
                content(path)
            };
            assert_eq!(read(here, file), expected, "{what}: {path}");
        }
        if let Some(end) = at {
            let path = format!("/all/2/2{end}");
            assert_eq!(mine.client.read(&path), theirs.read(&path), "{what}");
        }
        drop((file, last));
        mine.check(&side, what);
    }
}

#[test]
fn a_cache_is_told_of_what_it_knows_when_everything_changes_elsewhere() {
    for (what, change, at) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Follower::new(&mut side);
        let cache = Arc::new(Cache::default());
        let observed = mine.client.replica.observed(cache.clone());
        let ino = |path: &str| observed.stat(path).unwrap().ino;
        let (dir, file) = (ino("/all/3"), ino("/all/3/3"));
        cache.known.lock().extend([Ino::ROOT, dir, file]);
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        mine.client.sync(&mut side);
        let told = std::mem::take(&mut *cache.told.lock());
        let names = |told: &Invalidation| match told {
            Invalidation::Entry { parent, name } => *parent == dir && name == b"3",
            Invalidation::Deleted {
                parent,
                name,
                child,
            } => *parent == dir && name == b"3" && *child == file,
            _ => false,
        };
        let attributes = |told: &Invalidation| *told == Invalidation::Attr { ino: file };
        let content =
            |told: &Invalidation| matches!(told, Invalidation::Content { ino, .. } if *ino == file);
        match what {
            "edited" => assert!(told.iter().any(content), "{what}"),
            "given another mode" | "given an attribute" => {
                assert!(told.iter().any(attributes), "{what}");
            }
            _ => assert!(told.iter().any(names), "{what}"),
        }
        if at.is_none() || what == "replaced" {
            // It is kept as long as somebody knows it.
            let there = observed.attr(file).unwrap();
            let left = u32::from(what == "moved to new directories");
            assert_eq!(there.nlink, left, "{what}");
        }
        cache.known.lock().clear();
        for ino in [dir, file] {
            observed.forgotten(ino);
        }
        observed.unobserve();
        drop(observed);
        mine.check(&side, what);
    }
}

/// Who reads two files sees both as before or both as after, also while the cut is
/// being written.
#[test]
fn nobody_sees_half_of_it() {
    let (mut side, theirs) = hub();
    let mine = Follower::new(&mut side);
    for path in paths() {
        theirs.replica.write_file(&path, &other(&path)).unwrap();
    }
    theirs.sync(&mut side);
    let stop = AtomicBool::new(false);
    let is_new = |path: &str| {
        let found = mine.client.read(path);
        assert!(found == content(path) || found == other(path));
        found == other(path)
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (stop, is_new) = (&stop, &is_new);
            scope.spawn(move || {
                let paths: Vec<String> = paths().collect();
                let mut at = thread;
                while !stop.load(Ordering::SeqCst) {
                    at += 7;
                    let (one, two) = (&paths[at % paths.len()], &paths[at * 31 % paths.len()]);
                    let first = is_new(one);
                    let second = is_new(two);
                    let third = is_new(one);
                    assert!(!first || second, "{one} is new, and {two} is not");
                    assert!(!second || third, "{two} is new, and {one} is not");
                }
            });
        }
        mine.client.sync(&mut side);
        stop.store(true, Ordering::SeqCst);
    });
    assert!(paths().all(|path| is_new(&path)));
    mine.check(&side, "edited");
}
