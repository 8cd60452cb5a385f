//! A large cut is written as rows within the transaction of the commit that shows it.
//! Wherever that fails, nothing of it is seen, and it is right when it is tried again.

use std::path::Path;

use cairn_engine::{Options, Replica};
use cairn_protocol::session::{ClientAction, ClientDone, Store};
use cairn_protocol::wire::Code;
use rusqlite::Connection;

use crate::support::{assert_clean, place};
use crate::upstream::{Client, Side, assert_equal};

/// More than a cut has that is set in memory alone, in directories of directories.
const DIRS: usize = 60;
const FILES: usize = 75;

/// Files that have been there, and that change.
const THERE: usize = 200;

/// A row that cannot be written: the table, and how many may be before.
const FAULTS: [(&str, &str, usize); 9] = [
    ("the first node", "INSERT ON node", 0),
    ("a node in the middle", "INSERT ON node", DIRS * FILES / 2),
    ("the first name", "INSERT ON name", 0),
    ("a name near the end", "INSERT ON name", DIRS * FILES - 10),
    ("the entries of directories", "UPDATE ON node", 3),
    ("a node that others have changed", "UPDATE ON node", 70),
    ("the end of a node", "DELETE ON node", 20),
    ("the tree that is confirmed", "INSERT ON shared_name", 100),
    ("the link of the chain", "INSERT ON commits", 0),
];

/// A hub with a tree that has been there, and a large one that is new.
fn hub() -> (Side, Client) {
    let (mut side, client) = (Side::default(), Client::new());
    let replica = &client.replica;
    replica.mkdir_all("/old/dir").unwrap();
    for name in ["/kept", "/old/edited", "/old/dir/moved", "/old/removed"] {
        replica.write_file(name, name.as_bytes()).unwrap();
    }
    for file in 0..THERE {
        let path = format!("/there/{}", file % 5);
        replica.mkdir_all(&path).unwrap();
        let name = format!("{path}/{file}");
        replica.write_file(&name, name.as_bytes()).unwrap();
    }
    client.sync(&mut side);
    (side, client)
}

/// Edits, renames and removes what has been there.
fn change(replica: &Replica) {
    for file in 0..THERE {
        let name = format!("/there/{}/{file}", file % 5);
        match file % 3 {
            0 => {
                replica.write_file(&name, b"edited there").unwrap();
            }
            1 => replica
                .rename_path(&name, format!("/there/0/{file}-renamed"))
                .unwrap(),
            _ => replica.remove(&name).unwrap(),
        }
    }
}

/// Adds what makes the next cut a large one, and changes what is there.
fn enlarge(side: &mut Side, client: &Client) {
    let replica = &client.replica;
    for dir in 0..DIRS {
        let path = format!("/new/{}/{dir}", dir % 7);
        replica.mkdir_all(&path).unwrap();
        for file in 0..FILES {
            let name = format!("{path}/{file}");
            replica.write_file(&name, name.as_bytes()).unwrap();
        }
    }
    replica.write_file("/old/more", b"more").unwrap();
    replica.write_file("/old/edited", b"edited there").unwrap();
    replica.rename_path("/old/dir/moved", "/new/moved").unwrap();
    replica.remove("/old/removed").unwrap();
    replica.hard_link("/new/0/0/0", "/new/linked").unwrap();
    change(replica);
    client.sync(side);
}

/// Lets a row fail from outside, as a disk would.
pub(crate) struct Fault(Connection);

impl Fault {
    pub(crate) fn new(replica: &Path, on: &str, after: usize) -> Self {
        let db = Connection::open(replica.join("cairn.db")).unwrap();
        db.execute_batch(&format!(
            "CREATE TABLE fault(n INTEGER NOT NULL);
             INSERT INTO fault VALUES({after});
             CREATE TRIGGER fault_fails BEFORE {on} WHEN (SELECT n FROM fault) <= 0
                 BEGIN SELECT RAISE(ABORT, 'a fault of this test'); END;
             CREATE TRIGGER fault_counts AFTER {on}
                 BEGIN UPDATE fault SET n = n - 1; END;"
        ))
        .unwrap();
        Self(db)
    }

    pub(crate) fn end(self) {
        self.0
            .execute_batch("DROP TRIGGER fault_fails; DROP TRIGGER fault_counts; DROP TABLE fault;")
            .unwrap();
    }
}

/// Tries to apply what is staged; `false` when that fails.
pub(crate) fn applies(client: &Client, side: &Side) -> bool {
    let done = client.upstream.perform(ClientAction::Apply {
        cursor: side.cursor(),
        ack: None,
        confirmed: false,
    });
    match done {
        ClientDone::Applied(_) => true,
        ClientDone::Failed(failure) => {
            assert_eq!(failure.code, Code::INTERNAL, "{failure}");
            false
        }
        done => panic!("{done:?}"),
    }
}

fn lists(client: &Client) -> Vec<String> {
    let mut names = client.names("/");
    names.extend(client.names("/old"));
    names
}

#[test]
fn i16_a_large_cut_whose_commit_fails_is_right_when_it_is_tried_again() {
    let (mut side, theirs) = hub();
    let small = side.cursor();
    let mut followers = Vec::new();
    for (what, on, after) in FAULTS {
        let (dir, path) = place();
        let client = Client::of(Replica::open(&path, Options::default()).unwrap());
        client.sync(&mut side);
        assert_eq!(side.cursor(), small, "nobody has pushed anything");
        followers.push((what, on, after, dir, path, client));
    }
    enlarge(&mut side, &theirs);
    for (n, (what, on, after, _dir, path, client)) in followers.into_iter().enumerate() {
        println!("{what} cannot be written");
        // Somebody works here meanwhile.
        let (mine, later, here) = (
            format!("/old/mine-{n}"),
            format!("/old/later-{n}"),
            format!("/new-here-{n}"),
        );
        client.replica.write_file(&mine, b"mine").unwrap();
        client.replica.flush().unwrap();
        // Of every other, memory has nothing but what can leave it.
        let held = (n % 2 == 0).then(|| client.replica.open_file("/there/3/3").unwrap());
        let before = lists(&client);
        client.stage(&side, side.hub.changes_since(client.seq()));
        let fault = Fault::new(&path, on, after);
        let shown = (0..3).any(|_| applies(&client, &side));
        assert!(!shown, "{what}: the fault was not met");
        if on != "INSERT ON commits" {
            assert_eq!(lists(&client), before, "{what}: nothing of it is shown");
        }
        // Memory may have a part of it, and rows that are to become others cannot
        // be read before they have; then this says what keeps them from that.
        match client.replica.read_file(&mine) {
            Ok(content) => assert_eq!(content, b"mine"),
            Err(error) => assert!(format!("{error:?}").contains("a fault of this test")),
        }
        drop(held);
        fault.end();
        // What is written between two tries stays, too.
        client.replica.write_file(&later, b"later").unwrap();
        client.replica.write_file(&here, b"here").unwrap();
        // A session that failed begins again from the cursor.
        client.upstream.start().unwrap();
        client.sync(&mut side);
        for (path, content) in [
            (&*mine, "mine"),
            (&*later, "later"),
            (&*here, "here"),
            ("/old/edited", "edited there"),
            ("/new/3/3/7", "/new/3/3/7"),
            ("/new/linked", "/new/0/0/0"),
            ("/there/3/3", "edited there"),
            ("/there/0/4-renamed", "/there/4/4"),
        ] {
            assert_eq!(client.read(path), content.as_bytes(), "{what}: {path}");
        }
        assert_equal(&[&client], &side);
        // It is on the disk as it is in memory.
        let tree = client.tree();
        drop(client);
        let client = Client::of(Replica::open(&path, Options::default()).unwrap());
        assert_eq!(client.tree(), tree, "{what}");
        assert_clean(&client.replica);
    }
}

#[test]
fn i16_a_large_cut_whose_commit_failed_is_gone_after_a_crash_and_comes_again() {
    let (mut side, theirs) = hub();
    let (_dir, path) = place();
    let client = Client::of(Replica::open(&path, Options::default()).unwrap());
    client.sync(&mut side);
    enlarge(&mut side, &theirs);
    for (what, on, after) in FAULTS {
        let (_dir, copy) = place();
        crate::support::crash_copy(&path, &copy);
        let client = Client::of(Replica::open(&copy, Options::default()).unwrap());
        let before = lists(&client);
        client.stage(&side, side.hub.changes_since(client.seq()));
        let fault = Fault::new(&copy, on, after);
        assert!(!applies(&client, &side), "{what}: the fault was not met");
        let (_dir, crashed) = place();
        crate::support::crash_copy(&copy, &crashed);
        fault.end();
        Fault(Connection::open(crashed.join("cairn.db")).unwrap()).end();
        let after = Client::of(Replica::open(&crashed, Options::default()).unwrap());
        assert_eq!(lists(&after), before, "{what}");
        after.sync(&mut side);
        assert_equal(&[&after], &side);
    }
}

/// A commit that makes up for one that failed once took versions and inodes that it
/// did not say were used. After a crash the next file got the inode of another.
#[test]
fn i16_what_a_late_commit_took_is_not_taken_again_after_a_crash() {
    let (mut side, theirs) = hub();
    let mut followers = Vec::new();
    for held in [true, false] {
        let (dir, path) = place();
        let client = Client::of(Replica::open(&path, Options::default()).unwrap());
        client.sync(&mut side);
        // What somebody has is set in memory, and the rest in rows.
        let file = held.then(|| client.replica.open_file("/there/3/3").unwrap());
        followers.push((dir, path, client, file));
    }
    enlarge(&mut side, &theirs);
    for (_dir, path, client, _file) in followers {
        client.stage(&side, side.hub.changes_since(client.seq()));
        let fault = Fault::new(&path, "INSERT ON commits", 0);
        assert!(!applies(&client, &side), "the fault was not met");
        fault.end();
        client.upstream.start().unwrap();
        let tree = client.tree();
        let (_dir, crashed) = place();
        crate::support::crash_copy(&path, &crashed);
        let after = Client::of(Replica::open(&crashed, Options::default()).unwrap());
        assert_eq!(after.tree(), tree);
        for n in 0..100 {
            let name = format!("/after-{n}");
            after.replica.write_file(&name, name.as_bytes()).unwrap();
        }
        assert_clean(&after.replica);
        after.sync(&mut side);
        assert_equal(&[&after], &side);
        for name in ["/after-0", "/after-99", "/new/0/0/0", "/new/3/3/7"] {
            assert_eq!(after.read(name), name.as_bytes());
        }
    }
}
