//! What ignore rules hide, when somebody elsewhere changes much of it: nothing of it
//! is shown, nothing is kept of it in memory, and all of it is right when the rules
//! go.

use cairn_engine::{NodeKind, Replica};
use cairn_protocol::testing::Oracle;

use crate::support::{self, Rng, assert_clean};
use crate::upstream::{Client, Side, Worker, assert_equal};

const DIRS: usize = 5;
const FILES: usize = 30;
const RULES: [&str; 2] = ["target", "*.o"];

/// More than this is planned of no cut here whatever it changes.
const PLANNED_MAX: usize = 12;

fn rules(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

/// Files that are shown, that are in an ignored directory, and that are ignored by
/// themselves in one that is shown.
fn paths() -> impl Iterator<Item = String> {
    (0..DIRS).flat_map(|dir| {
        (0..FILES).flat_map(move |file| {
            [
                format!("/{dir}/{file}"),
                format!("/{dir}/target/{}/{file}", file % 2),
                format!("/{dir}/{file}.o"),
            ]
        })
    })
}

/// Whether one of the [`RULES`] is for a name.
fn is_ignored(name: &str) -> bool {
    name == "target" || name.strip_suffix(".o").is_some()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

/// A hub with a tree, and who made it.
fn hub() -> (Side, Client) {
    let (mut side, client) = (Side::default(), Client::new());
    for path in paths() {
        client.replica.mkdir_all(parent(&path)).unwrap();
        client.replica.write_file(&path, path.as_bytes()).unwrap();
    }
    // A cut that removes most of a tree would have to be confirmed.
    for file in 0..DIRS * FILES * 4 {
        let path = format!("/kept/{}/{file}", file / 50);
        client.replica.mkdir_all(parent(&path)).unwrap();
        client.replica.write_file(&path, b"kept").unwrap();
    }
    client.sync(&mut side);
    (side, client)
}

/// The paths of a replica that no rule ignores, with what is there.
fn shown(client: &Client) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut dirs) = (Vec::new(), vec![String::new()]);
    while let Some(dir) = dirs.pop() {
        for name in client.names(&format!("{dir}/")) {
            if is_ignored(&name) {
                continue;
            }
            let path = format!("{dir}/{name}");
            match client.replica.lstat(&path).unwrap().kind {
                NodeKind::Dir => {
                    found.push((path.clone(), Vec::new()));
                    dirs.push(path);
                }
                _ => found.push((path.clone(), client.read(&path))),
            }
        }
    }
    found.sort();
    found
}

/// What is done to each file.
type Change = (&'static str, fn(&Replica, &str));

const CHANGES: [Change; 7] = [
    ("edited", |r, path| {
        r.write_file(path, b"edited").unwrap();
    }),
    ("replaced", |r, path| {
        r.replace_file(path, b"replaced").unwrap();
    }),
    ("given another mode", |r, path| {
        r.chmod(path, 0o600).unwrap();
    }),
    ("given an attribute", |r, path| {
        r.set_xattr_path(path, b"user.a", b"value").unwrap();
    }),
    ("moved to where others are", |r, path| {
        // What was ignored is shown then, and the other way round.
        let to = match path.strip_suffix(".o") {
            Some(path) => format!("{path}-was-ignored"),
            None => format!("{path}-is-ignored.o"),
        };
        r.rename_path(path, to).unwrap();
    }),
    ("moved to new directories", |r, path| {
        r.mkdir_all(format!("/new{}", parent(path))).unwrap();
        r.rename_path(path, format!("/new{path}")).unwrap();
    }),
    ("removed", |r, path| r.remove(path).unwrap()),
];

#[test]
fn what_is_ignored_stays_hidden_whatever_is_done_to_all_of_it() {
    for (what, change) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Client::new();
        mine.upstream.set_ignore_rules(&rules(&RULES)).unwrap();
        mine.sync(&mut side);
        assert_eq!(shown(&mine), shown(&theirs));
        assert!(mine.upstream.planned() <= PLANNED_MAX, "a clone");
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        mine.upstream.planned();
        mine.sync(&mut side);
        let planned = mine.upstream.planned();
        assert!(planned <= PLANNED_MAX, "{what}: {planned} were planned");
        assert_eq!(shown(&mine), shown(&theirs), "{what}");
        let names = mine.names("/0");
        assert_eq!(names.iter().find(|name| is_ignored(name)), None, "{what}");
        assert_clean(&mine.replica);
        mine.upstream.set_ignore_rules(&[]).unwrap();
        mine.sync(&mut side);
        assert_equal(&[&mine], &side);
    }
}

/// What is ignored here and was made here stays, and so does what was shown before
/// the rules came.
#[test]
fn what_is_here_and_ignored_stays_as_it_is() {
    for (what, change) in CHANGES {
        let (mut side, theirs) = hub();
        let mine = Client::new();
        mine.upstream
            .set_ignore_rules(&rules(&["target", "*.none"]))
            .unwrap();
        mine.sync(&mut side);
        mine.replica.mkdir("/1/target").unwrap();
        mine.replica.write_file("/1/target/0", b"mine").unwrap();
        mine.replica.write_file("/2/0.none", b"mine").unwrap();
        mine.upstream.set_ignore_rules(&rules(&RULES)).unwrap();
        mine.replica.write_file("/3/1.o", b"built here").unwrap();
        mine.sync(&mut side);
        for path in paths() {
            change(&theirs.replica, &path);
        }
        theirs.sync(&mut side);
        mine.sync(&mut side);
        assert_eq!(mine.read("/1/target/0"), b"mine", "{what}");
        if !what.starts_with("moved") {
            assert_eq!(mine.read("/3/1.o"), b"built here", "{what}");
        }
        assert!(mine.names("/2").contains(&"1.o".to_owned()), "{what}");
        assert_eq!(theirs.read("/2/0.none"), b"mine", "{what}");
        mine.upstream.set_ignore_rules(&[]).unwrap();
        for _ in 0..3 {
            mine.sync(&mut side);
            theirs.sync(&mut side);
        }
        assert_equal(&[&mine, &theirs], &side);
        assert_eq!(mine.read("/2/0.none"), b"mine", "{what}");
    }
}

/// A hub, who has rules and has built something in `/proj`, and who has none.
fn built() -> (Side, Client, Client) {
    let (mut side, theirs, mine) = (Side::default(), Client::new(), Client::new());
    mine.upstream.set_ignore_rules(&rules(&RULES)).unwrap();
    theirs.replica.mkdir_all("/proj/src").unwrap();
    theirs.replica.write_file("/proj/src/a", b"a").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    mine.replica.mkdir_all("/proj/target").unwrap();
    mine.replica.write_file("/proj/target/x", b"built").unwrap();
    mine.replica.write_file("/proj/src/a.o", b"built").unwrap();
    mine.sync(&mut side);
    (side, theirs, mine)
}

/// Who ignored what they built in a directory could follow nobody any more when
/// somebody removed that.
#[test]
fn what_is_ignored_stays_when_its_directory_is_removed() {
    let (mut side, theirs, mine) = built();
    theirs.replica.remove_all("/proj").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    assert_eq!(mine.names("/proj"), ["src", "target"]);
    assert_eq!(mine.names("/proj/src"), ["a.o"]);
    assert_eq!(mine.read("/proj/target/x"), b"built");
    // Nobody hears of it,
    assert!(theirs.names("/").is_empty());
    theirs.replica.write_file("/other", b"other").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    assert_eq!(side.hub.tree().names().count(), 1);
    // until there is something to be told.
    mine.replica.write_file("/proj/src/b", b"b").unwrap();
    mine.sync(&mut side);
    theirs.sync(&mut side);
    assert_eq!(theirs.names("/proj"), ["src"]);
    assert_eq!(theirs.names("/proj/src"), ["b"]);
    assert_clean(&mine.replica);
}

#[test]
fn what_is_ignored_goes_on_in_the_directory_that_takes_the_place() {
    for at_once in [true, false] {
        let (mut side, theirs, mine) = built();
        theirs.replica.remove_all("/proj").unwrap();
        if !at_once {
            theirs.sync(&mut side);
            mine.sync(&mut side);
        }
        theirs.replica.mkdir_all("/proj/src").unwrap();
        theirs.replica.write_file("/proj/src/a", b"again").unwrap();
        theirs.sync(&mut side);
        mine.sync(&mut side);
        assert_eq!(mine.names("/"), ["proj"]);
        assert_eq!(mine.names("/proj"), ["src", "target"]);
        assert_eq!(mine.names("/proj/src"), ["a", "a.o"]);
        assert_eq!(mine.read("/proj/src/a"), b"again");
        assert_eq!(mine.read("/proj/target/x"), b"built");
        assert_eq!(theirs.names("/proj"), ["src"]);
        mine.upstream.set_ignore_rules(&[]).unwrap();
        mine.sync(&mut side);
        assert_equal(&[&mine], &side);
    }
}

#[test]
fn what_is_ignored_stays_beside_a_file_that_takes_its_place() {
    let (mut side, theirs, mine) = built();
    theirs.replica.remove_all("/proj").unwrap();
    theirs.replica.write_file("/proj", b"a file").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    assert_eq!(mine.read("/proj"), b"a file");
    assert_eq!(mine.read("/proj.ignored/target/x"), b"built");
    assert_eq!(mine.read("/proj.ignored/src/a.o"), b"built");
    assert_clean(&mine.replica);
}

/// Who ignores the new name of a directory could follow nobody any more.
#[test]
fn a_directory_that_gets_an_ignored_name_goes_there() {
    let (mut side, theirs, mine) = built();
    theirs.replica.rename_path("/proj", "/target").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    assert_eq!(mine.names("/"), ["target"]);
    assert_eq!(mine.read("/target/src/a"), b"a");
    mine.upstream.set_ignore_rules(&[]).unwrap();
    mine.sync(&mut side);
    theirs.sync(&mut side);
    assert_eq!(mine.names("/"), ["target"]);
    assert_eq!(theirs.read("/target/target/x"), b"built");
    assert_equal(&[&mine, &theirs], &side);
}

/// The same where something else is ignored under that name.
#[test]
fn a_directory_that_gets_an_ignored_name_that_is_taken_stays_where_it_is() {
    let (mut side, theirs, mine) = built();
    mine.replica.write_file("/target", b"mine").unwrap();
    theirs.replica.rename_path("/proj", "/target").unwrap();
    theirs.sync(&mut side);
    mine.sync(&mut side);
    assert_eq!(mine.names("/"), ["proj", "target"]);
    assert_eq!(mine.read("/proj/src/a"), b"a");
    assert_eq!(mine.read("/target"), b"mine");
    mine.upstream.set_ignore_rules(&[]).unwrap();
    mine.sync(&mut side);
    theirs.sync(&mut side);
    assert_eq!(theirs.read("/target/target/x"), b"built");
    assert_equal(&[&mine, &theirs], &side);
}

/// One has rules, which come and go; in the end all have the same, and everything.
fn schedule(seed: u64, moves: bool) {
    const SETS: [&[&str]; 4] = [&["3"], &["2", "3"], &["1/2"], &[]];
    let mut rng = Rng::new(seed);
    let mut side = Side::default();
    let (mut oracle, mut written) = (Oracle::default(), 0);
    let (one, other) = (Client::new(), Client::new());
    let first = rng.pick(&SETS);
    println!("{:x} ignores {first:?}", other.upstream.tag().0 & 0xfff);
    other.upstream.set_ignore_rules(&rules(first)).unwrap();
    for _ in 0..12 {
        let client = if rng.chance(70) { &one } else { &other };
        for _ in 0..=rng.below(16) {
            let (rng, oracle, written) = (&mut rng, &mut oracle, &mut written);
            Worker {
                rng,
                oracle,
                written,
            }
            .step_with(client, moves);
        }
        match rng.below(4) {
            0 => drop(one.sync(&mut side)),
            1 => drop(other.sync(&mut side)),
            2 => {
                one.sync(&mut side);
                other.sync(&mut side);
            }
            _ if rng.chance(30) => {
                let set = rng.pick(&SETS);
                println!("{:x} ignores {set:?}", other.upstream.tag().0 & 0xfff);
                other.upstream.set_ignore_rules(&rules(set)).unwrap();
            }
            _ => {}
        }
        assert_clean(&one.replica);
        assert_clean(&other.replica);
    }
    other.upstream.set_ignore_rules(&[]).unwrap();
    for _ in 0..4 {
        one.sync(&mut side);
        other.sync(&mut side);
    }
    side.hub.tree().check().unwrap();
    assert_equal(&[&one, &other], &side);
    assert_eq!(oracle.lost(side.hub.tree()), Vec::<Vec<u8>>::new());
}

#[test]
fn i14_schedules_with_rules_that_come_and_go_converge_and_lose_nothing() {
    for seed in support::seeds(40) {
        println!("seed {seed}");
        schedule(seed, false);
    }
}

#[test]
fn i14_schedules_with_rules_and_directories_that_move_converge_and_lose_nothing() {
    for seed in support::seeds(40) {
        println!("seed {seed}");
        schedule(seed, true);
    }
}
