//! Replicas in step with a hub, over real connections: each has the name of a
//! failure that somebody's sync has.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::hubs::Hub;
use crate::program::{Ran, until};
use crate::scratch::{Scratch, can_mount};

/// Both ways to a hub.
const SCHEMES: [&str; 2] = ["quic", "wss"];

/// A hub, and two replicas of it.
fn two(scheme: &str) -> (Scratch, Hub) {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    for name in ["a", "b"] {
        let url = hub.url(scheme).to_owned();
        scratch.cairn(&format!("clone {url} {name}")).done();
    }
    (scratch, hub)
}

impl Scratch {
    fn write(&self, path: &str, content: &str) {
        self.fed_file(path, content.as_bytes());
    }

    /// Makes a file of a replica, or replaces its content.
    fn fed_file(&self, path: &str, content: &[u8]) {
        std::fs::write(self.join("content"), content).unwrap();
        self.cairn(&format!("import content {path} --file --replace"))
            .done();
    }

    fn read(&self, path: &str) -> String {
        self.cairn(&format!("cat {path}")).done().text().to_owned()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let listed = self.cairn(&format!("ls {path}")).done();
        listed.text().lines().map(str::to_owned).collect()
    }

    /// Brings a replica in step, and says what that took.
    fn sync(&self, name: &str) -> Value {
        let ran = self.cairn(&format!("sync {name}.cairn --json"));
        assert!(matches!(ran.status.code(), Some(0 | 1)), "{ran:?}");
        last_line(&ran)
    }
}

fn last_line(ran: &Ran) -> Value {
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

fn conflicts(scratch: &Scratch, name: &str) -> Vec<Value> {
    let ran = scratch.cairn(&format!("conflicts list {name}.cairn --json"));
    let lines = ran.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn concurrent_edits_of_one_file_are_both_kept_and_both_sides_are_told() {
    for scheme in SCHEMES {
        let (scratch, _hub) = two(scheme);
        scratch.write("a.cairn/doc", "base");
        scratch.sync("a");
        scratch.sync("b");
        scratch.write("a.cairn/doc", "from a");
        scratch.write("b.cairn/doc", "from b");
        for name in ["a", "b", "a"] {
            scratch.sync(name);
        }
        for name in ["a", "b"] {
            let names = scratch.names(&format!("{name}.cairn"));
            assert_eq!(names.len(), 2, "{names:?}");
            assert!(names[1].starts_with("doc.conflict-"), "{names:?}");
            let contents =
                [&names[0], &names[1]].map(|n| scratch.read(&format!("{name}.cairn/{n}")));
            assert_eq!(contents, ["from a", "from b"]);
            let told = conflicts(&scratch, name);
            assert_eq!(told.len(), 1, "replica {name}: {told:?}");
            assert_eq!(told[0]["path"], format!("/{}", names[1]));
        }
    }
}

#[test]
fn a_conflict_is_resolved_on_every_replica() {
    let (scratch, _hub) = two("quic");
    scratch.write("a.cairn/doc", "base");
    scratch.sync("a");
    scratch.sync("b");
    scratch.write("a.cairn/doc", "from a");
    scratch.write("b.cairn/doc", "from b");
    for name in ["a", "b"] {
        scratch.sync(name);
    }
    let id = &conflicts(&scratch, "b")[0]["id"];
    scratch
        .cairn(&format!("conflicts resolve {id} --keep copy b.cairn"))
        .done();
    scratch.cairn("conflicts list b.cairn").done();
    for name in ["b", "a"] {
        scratch.sync(name);
    }
    for name in ["a", "b"] {
        assert_eq!(scratch.names(&format!("{name}.cairn")), ["doc"]);
        assert_eq!(scratch.read(&format!("{name}.cairn/doc")), "from b");
    }
    scratch
        .cairn("conflicts resolve 99 b.cairn")
        .ended(5)
        .says(&["99", "list"]);
}

#[test]
fn a_delete_does_not_erase_an_edit_that_it_had_not_seen() {
    for scheme in SCHEMES {
        let (scratch, _hub) = two(scheme);
        scratch.write("a.cairn/doc", "base");
        scratch.sync("a");
        scratch.sync("b");
        scratch.write("a.cairn/doc", "edited");
        scratch.sync("a");
        scratch.sh("mkdir empty").done();
        delete(&scratch, "b", "doc");
        scratch.sync("b");
        scratch.sync("a");
        for name in ["a", "b"] {
            assert_eq!(scratch.read(&format!("{name}.cairn/doc")), "edited");
        }
    }
}

/// Removes a file of a replica that nobody owns.
fn delete(scratch: &Scratch, name: &str, path: &str) {
    if !can_mount() {
        return;
    }
    let _mount = scratch.mount_offline(name);
    std::fs::remove_file(scratch.join(name).join(path)).unwrap();
}

#[test]
fn attributes_times_and_links_arrive_after_the_first_sync() {
    if !can_mount() {
        return;
    }
    for scheme in SCHEMES {
        let (scratch, _hub) = two(scheme);
        scratch.write("a.cairn/doc", "content");
        scratch.sync("a");
        scratch.sync("b");
        let (_a, _b) = (scratch.mount("a"), scratch.mount("b"));
        let change = "chmod 4640 a/doc && setfattr -n user.color -v blue a/doc && \
             touch -d 2001-02-03T04:05:06.123456789Z a/doc && ln a/doc a/second && \
             ln -s doc a/link && mkfifo a/fifo && chown 12:34 a/second";
        scratch.sh(change).done();
        until("all of it is on the other mount", || {
            let seen = scratch.sh(
                "stat -c '%a %h %u %g %y' b/second 2>/dev/null; readlink b/link; \
                test -p b/fifo && getfattr --only-values -n user.color b/doc 2>/dev/null",
            );
            let wanted = scratch.sh("stat -c '%a %h %u %g %y' a/doc; echo doc; echo -n blue");
            seen.out == wanted.out
        });
        let inodes = scratch
            .sh("stat -c %i b/doc b/second | uniq | wc -l")
            .done();
        assert_eq!(inodes.text().trim(), "1", "two names of one file");
        scratch
            .sh("setfattr -x user.color b/second && rm b/doc")
            .done();
        until("what was removed is gone", || {
            !scratch.join("a/doc").exists() && scratch.sh("getfattr -d a/second").out.is_empty()
        });
        assert_eq!(std::fs::read(scratch.join("a/second")).unwrap(), b"content");
    }
}

#[test]
fn a_directory_of_a_thousand_files_is_renamed_by_a_handful_of_edits() {
    if !can_mount() {
        return;
    }
    let (scratch, _hub) = two("quic");
    let make = "mkdir -p tree/sub && for i in $(seq 1000); do echo $i > tree/sub/$i; done";
    scratch.sh(make).done();
    scratch.cairn("import tree a.cairn/tree").done();
    scratch.sync("a");
    scratch.sync("b");
    {
        let _mount = scratch.mount_offline("a");
        scratch.sh("mv a/tree a/other").done();
    }
    let sent = scratch.sync("a");
    // Two names, the times of the root and of the directory, and their echo as a cut.
    assert!(sent["changes"].as_u64().unwrap() <= 10, "{sent}");
    assert!(sent["sent_bytes"].as_u64().unwrap() < 1_000, "{sent}");
    scratch.sync("b");
    assert_eq!(scratch.names("b.cairn"), ["other"]);
    assert_eq!(scratch.read("b.cairn/other/sub/777"), "777\n");
}

#[test]
fn with_nothing_to_do_there_is_one_round_trip_and_no_echo() {
    for scheme in SCHEMES {
        let (scratch, _hub) = two(scheme);
        let make = "mkdir tree && for i in $(seq 500); do echo $i > tree/$i; done";
        scratch.sh(make).done();
        scratch.cairn("import tree a.cairn/tree").done();
        for name in ["a", "b", "a"] {
            scratch.sync(name);
        }
        for name in ["a", "b", "a", "b"] {
            let took = scratch.sync(name);
            let number = |key: &str| took[key].as_u64().unwrap();
            assert_eq!(number("changes"), 0, "{took}");
            assert_eq!(number("batches"), 0, "{took}");
            assert!(
                number("sent_bytes") + number("received_bytes") < 1_024,
                "{took}"
            );
        }
    }
}

#[test]
fn a_small_edit_of_a_large_file_travels_as_the_edit() {
    let (scratch, _hub) = two("quic");
    let mut content = noise(8 << 20);
    scratch.fed_file("a.cairn/large", &content);
    scratch.sync("a");
    scratch.sync("b");
    content[4 << 20] ^= 1;
    scratch.fed_file("a.cairn/large", &content);
    let sent = scratch.sync("a")["sent_bytes"].as_u64().unwrap();
    assert!(sent < 64 << 10, "one byte changed, {sent} bytes sent");
    let received = scratch.sync("b")["received_bytes"].as_u64().unwrap();
    assert!(
        received < 64 << 10,
        "one byte changed, {received} bytes received"
    );
    content.insert(0, 7);
    scratch.fed_file("a.cairn/large", &content);
    let sent = scratch.sync("a")["sent_bytes"].as_u64().unwrap();
    assert!(sent < 64 << 10, "one byte inserted, {sent} bytes sent");
    scratch.sync("b");
    assert!(scratch.cairn("cat b.cairn/large").done().out == content);
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| byte()).collect()
}

/// Copies a replica that nobody owns.
fn copy(scratch: &Scratch, from: &str, to: &str) {
    scratch
        .sh(&format!("rm -rf {to} && cp -a {from} {to}"))
        .done();
}

#[test]
fn a_hub_that_was_rolled_back_gets_back_what_it_lost() {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let (address, url) = (hub.address(), hub.url("quic").to_owned());
    scratch.cairn(&format!("clone {url} a")).done();
    scratch.write("a.cairn/old", "old");
    scratch.sync("a");
    hub.end();
    copy(&scratch, "hub.cairn", "backup.cairn");
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.write("a.cairn/new", "new");
    scratch.write("a.cairn/old", "edited");
    scratch.sync("a");
    hub.end();
    copy(&scratch, "backup.cairn", "hub.cairn");
    // Behind what the replica knows.
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.sync("a");
    scratch.cairn(&format!("clone {url} b")).done();
    for name in ["a", "b"] {
        let names = scratch.names(&format!("{name}.cairn"));
        let contents: Vec<String> = (names.iter())
            .map(|n| scratch.read(&format!("{name}.cairn/{n}")))
            .collect();
        for wanted in ["new", "edited"] {
            assert!(
                contents.iter().any(|c| c == wanted),
                "{names:?}: {contents:?}"
            );
        }
    }
    hub.end();
}

#[test]
fn a_hub_that_was_rolled_back_and_overtook_its_replica_is_found_out() {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let (address, url) = (hub.address(), hub.url("quic").to_owned());
    for name in ["a", "b"] {
        scratch.cairn(&format!("clone {url} {name}")).done();
    }
    scratch.write("a.cairn/first", "first");
    scratch.sync("a");
    scratch.sync("b");
    hub.end();
    copy(&scratch, "hub.cairn", "backup.cairn");
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.write("a.cairn/of-a", "of a");
    scratch.sync("a");
    hub.end();
    copy(&scratch, "backup.cairn", "hub.cairn");
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    // Ahead of what the first replica knows, in another history.
    for i in 0..10 {
        scratch.write(&format!("b.cairn/of-b-{i}"), "of b");
        scratch.sync("b");
    }
    for name in ["a", "b", "a"] {
        scratch.sync(name);
    }
    let names = scratch.names("a.cairn");
    assert_eq!(names.len(), 12, "{names:?}");
    assert_eq!(scratch.names("b.cairn"), names);
    hub.end();
}

#[test]
fn a_hub_that_lost_its_store_gets_everything_again() {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let (address, url) = (hub.address(), hub.url("wss").to_owned());
    let known = hub.fingerprint.clone().unwrap();
    scratch
        .cairn(&format!("clone {url} a --fingerprint {known}"))
        .done();
    for i in 0..150 {
        std::fs::write(scratch.join(format!("file{i}")), i.to_string()).unwrap();
    }
    scratch.sh("mkdir many && mv file* many").done();
    scratch.cairn("import many a.cairn/many").done();
    scratch.sync("a");
    hub.end();
    // All but the certificate, which its owner has elsewhere, too.
    scratch
        .sh("mv hub.cairn/identity . && rm -r hub.cairn")
        .done();
    scratch.write("hub.cairn/doc", "of the new store");
    scratch.sh("mv identity hub.cairn").done();
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.sync("a");
    assert_eq!(scratch.names("a.cairn/many").len(), 150);
    scratch.cairn(&format!("clone {url} b")).done();
    assert_eq!(scratch.names("b.cairn/many").len(), 150);
    hub.end();
}

#[test]
fn a_hub_that_is_killed_in_the_middle_of_pushes_has_all_of_what_it_acknowledged() {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let (address, url) = (hub.address(), hub.url("quic").to_owned());
    scratch.cairn(&format!("clone {url} a")).done();
    scratch.fed_file("a.cairn/one", &noise(3 << 20));
    scratch.sync("a");
    hub.kill();
    let hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch.fed_file("a.cairn/two", &noise(1 << 20));
    scratch.sync("a");
    scratch.cairn(&format!("clone {url} b")).done();
    assert_eq!(scratch.cairn("cat b.cairn/one").done().out, noise(3 << 20));
    assert_eq!(scratch.cairn("cat b.cairn/two").done().out, noise(1 << 20));
    hub.end();
    for name in ["a", "b", "hub"] {
        scratch.cairn(&format!("check {name}.cairn")).done();
    }
}

#[test]
fn tokens_are_asked_for_and_tell_what_one_may() {
    let scratch = Scratch::new();
    scratch.write("hub.cairn/doc", "content");
    let token = scratch
        .cairn("token hub.cairn --new")
        .done()
        .text()
        .trim()
        .to_owned();
    let reader = scratch.cairn("token hub.cairn --new --read-only").done();
    let reader = reader.text().trim().to_owned();
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    std::fs::write(scratch.join("rw"), &token).unwrap();
    std::fs::write(scratch.join("ro"), &reader).unwrap();
    std::fs::write(scratch.join("wrong"), "wrong-secret").unwrap();
    let refused = scratch.cairn(&format!("clone {url} a --token-file wrong"));
    let refused = refused.ended(5).says(&["E_AUTH"]);
    assert!(!refused.err.contains("wrong-secret"), "{refused:?}");
    assert!(
        !scratch.join("a.cairn").exists(),
        "what was made for nothing is gone"
    );
    scratch
        .cairn(&format!("clone {url} a --token-file rw"))
        .done();
    scratch.write("a.cairn/more", "more");
    scratch.sync("a");
    scratch
        .cairn(&format!("clone {url} r --token-file ro"))
        .done();
    assert_eq!(scratch.read("r.cairn/more"), "more");
    scratch.write("r.cairn/mine", "mine");
    scratch
        .cairn("sync r.cairn")
        .ended(5)
        .says(&["E_READ_ONLY"]);
    assert_eq!(scratch.read("r.cairn/mine"), "mine");
}

#[test]
fn what_is_wrong_with_a_hub_is_said_with_what_to_do() {
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let (address, url) = (hub.address(), hub.url("quic").to_owned());
    let elsewhere = format!("quic://{address}/other");
    scratch
        .cairn(&format!("clone {elsewhere} a"))
        .ended(5)
        .says(&["E_WORKSPACE"]);
    let wrong = "00".repeat(32);
    let ran = scratch.cairn(&format!("clone {url} a --fingerprint {wrong}"));
    ran.ended(5).says(&["fingerprint", &wrong]);
    scratch
        .cairn("clone http://x/y a")
        .ended(2)
        .says(&["quic://"]);
    scratch
        .cairn("clone quic://token@x/y a")
        .ended(2)
        .says(&["token"]);
    scratch
        .cairn("sync hub.cairn")
        .ended(5)
        .says(&["--upstream"]);
    scratch.cairn(&format!("clone {url} a")).done();
    scratch
        .cairn(&format!("clone {url} a"))
        .ended(5)
        .says(&["there already", "sync"]);
    hub.end();
    scratch.cairn("sync a.cairn").ended(5).says(&[&address]);
    scratch
        .cairn("serve hub.cairn --listen 0.0.0.0:0 --plain")
        .ended(5)
        .says(&["certificate"]);
    scratch
        .cairn("serve hub.cairn --listen 0.0.0.0:0")
        .ended(5)
        .says(&["token"]);
    scratch
        .cairn("serve x=hub.cairn x=b.cairn")
        .ended(5)
        .says(&["NAME=REPLICA"]);
    // Another hub at the same place is not taken for the first.
    scratch.sh("rm -r hub.cairn").done();
    let _hub = Hub::at(&scratch, "hub", &address, &[]);
    scratch
        .cairn("sync a.cairn")
        .ended(5)
        .says(&["fingerprint", "in between"]);
}

#[test]
fn edits_on_one_mount_appear_on_the_other() {
    if !can_mount() {
        return;
    }
    for scheme in SCHEMES {
        let (scratch, _hub) = two(scheme);
        let (a, b) = (scratch.mount("a"), scratch.mount("b"));
        let at = |name: &str| scratch.join(name);
        let shows = |path: &Path, content: &[u8]| std::fs::read(path).is_ok_and(|c| c == content);
        std::fs::write(at("a/doc"), "one").unwrap();
        until("a new file appears", || shows(&at("b/doc"), b"one"));
        std::fs::write(at("b/doc"), "a longer content").unwrap();
        until("it grows", || shows(&at("a/doc"), b"a longer content"));
        std::fs::write(at("a/doc"), "short").unwrap();
        until("it shrinks", || shows(&at("b/doc"), b"short"));
        std::fs::rename(at("b/doc"), at("b/other")).unwrap();
        until("it is renamed", || {
            shows(&at("a/other"), b"short") && !at("a/doc").exists()
        });
        std::fs::remove_file(at("a/other")).unwrap();
        until("it is removed", || !at("b/other").exists());
        let git = "git init -q a/repo && cd a/repo && for i in $(seq 50); do echo $i > $i; done && \
             git add . && git -c user.name=x -c user.email=x@y commit -qm first && git rev-parse HEAD";
        let head = scratch.sh(git).done();
        until("a commit appears whole", || {
            let there = scratch.sh("cd b/repo && git fsck --strict && git rev-parse HEAD \
                && test -z \"$(git status --porcelain)\"");
            there.status.success() && there.out == head.out
        });
        drop((a, b));
        for name in ["a", "b"] {
            scratch.cairn(&format!("check {name}.cairn")).done();
        }
    }
}

/// The kernel reads a large file without asking the mount. Whoever opens it
/// after a change came gets the change, also beside a handle that was there before.
#[test]
fn a_large_file_that_is_open_on_one_mount_is_replaced_on_the_other() {
    if !can_mount() {
        return;
    }
    let (scratch, _hub) = two("quic");
    let (a, b) = (scratch.mount("a"), scratch.mount("b"));
    let at = |name: &str| scratch.join(name);
    let old = noise(8 << 20);
    let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
    let shows = |path: &Path, content: &[u8]| std::fs::read(path).is_ok_and(|c| c == content);
    std::fs::write(at("a/large"), &old).unwrap();
    until("the file appears", || shows(&at("b/large"), &old));
    let mut open = std::fs::File::open(at("a/large")).unwrap();
    let mut start = vec![0; 1 << 20];
    open.read_exact(&mut start).unwrap();
    std::fs::write(at("b/large"), &new).unwrap();
    until("it is replaced", || shows(&at("a/large"), &new));
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    let seen = [start, rest].concat();
    // One that is not read directly sees the change.
    assert!(seen == old || seen[1 << 20..] == new[1 << 20..]);
    drop(open);
    std::fs::write(at("a/large"), "small").unwrap();
    until("it is small on both", || shows(&at("b/large"), b"small"));
    drop((a, b));
    for name in ["a", "b"] {
        scratch.cairn(&format!("check {name}.cairn")).done();
    }
}

#[test]
fn what_is_edited_without_a_hub_is_pushed_when_it_is_back() {
    if !can_mount() {
        return;
    }
    let (scratch, hub) = two("quic");
    let address = hub.address();
    let _a = scratch.mount("a");
    hub.end();
    std::fs::write(scratch.join("a/alone"), "alone").unwrap();
    let is_connected =
        || scratch.cairn("status a --json").done().json()["sync"]["connected"] == true;
    until("it has noticed that its hub ended", || !is_connected());
    let _hub = Hub::at(&scratch, "hub", &address, &[]);
    until("it is pushed", || {
        scratch.sync("b");
        scratch.names("b.cairn").contains(&"alone".to_owned())
    });
    assert!(is_connected());
}

#[test]
fn what_was_ignored_arrives_when_the_rule_goes() {
    let (scratch, _hub) = two("quic");
    scratch.cairn("ignore b.cairn --add *.log").done();
    scratch.write("a.cairn/a.log", "of a");
    scratch.write("a.cairn/doc", "doc");
    scratch.sync("a");
    scratch.write("b.cairn/b.log", "of b");
    for name in ["b", "a"] {
        scratch.sync(name);
    }
    assert_eq!(scratch.names("b.cairn"), ["b.log", "doc"]);
    assert_eq!(scratch.names("a.cairn"), ["a.log", "doc"]);
    scratch.write("a.cairn/a.log", "edited while nobody looked");
    scratch.sync("a");
    scratch.sync("b");
    scratch
        .cairn("ignore b.cairn --remove *.txt")
        .ended(5)
        .says(&["*.txt"]);
    scratch.cairn("ignore b.cairn --remove *.log").done();
    for name in ["b", "a"] {
        scratch.sync(name);
    }
    for name in ["a", "b"] {
        assert_eq!(
            scratch.names(&format!("{name}.cairn")),
            ["a.log", "b.log", "doc"]
        );
        assert_eq!(
            scratch.read(&format!("{name}.cairn/a.log")),
            "edited while nobody looked"
        );
        assert_eq!(scratch.read(&format!("{name}.cairn/b.log")), "of b");
    }
}

#[test]
fn a_lazy_replica_is_there_at_once_and_fetches_what_is_read() {
    let scratch = Scratch::new();
    let make = "mkdir tree && for i in $(seq 200); do head -c 20000 /dev/urandom > tree/$i; done && \
         head -c 3000000 /dev/urandom > tree/large";
    scratch.sh(make).done();
    scratch.cairn("import tree hub.cairn/tree").done();
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    let cloned = scratch
        .cairn(&format!("clone {url} a --lazy --json"))
        .done();
    assert!(
        last_line(&cloned)["received_bytes"].as_u64().unwrap() < 200_000,
        "{cloned:?}"
    );
    assert_eq!(scratch.names("a.cairn/tree").len(), 201);
    let wanted = std::fs::read(scratch.join("tree/7")).unwrap();
    assert_eq!(scratch.cairn("cat a.cairn/tree/7").done().out, wanted);
    if can_mount() {
        let _mount = scratch.mount("a");
        scratch
            .sh("cmp a/tree/large tree/large && cmp a/tree/9 tree/9")
            .done();
        let status = scratch.cairn("status a --json").done().json();
        let received = status["sync"]["received_bytes"].as_u64().unwrap();
        assert!((3_000_000..3_200_000).contains(&received), "{status}");
        std::fs::write(scratch.join("a/tree/9"), "edited").unwrap();
    }
    scratch.sync("a");
    // What the hub has can be given up, and is fetched again.
    let gone = scratch.cairn("evict a.cairn --json").done().json();
    assert!(gone["bytes"].as_u64().unwrap() >= 20_000, "{gone}");
    assert_eq!(scratch.cairn("cat a.cairn/tree/7").done().out, wanted);
    hub.end();
    // What was read stays; for the rest there is nobody to ask.
    assert_eq!(scratch.cairn("cat a.cairn/tree/7").done().out, wanted);
    scratch.cairn("cat a.cairn/tree/8").ended(5).says(&["hub"]);
    scratch.cairn("check a.cairn").done();
    scratch.cairn("check hub.cairn").done();
}

#[test]
fn a_hub_in_the_middle_passes_on_what_it_gets_either_way() {
    let scratch = Scratch::new();
    let top = Hub::new(&scratch, "top", &[]);
    let url = top.url("quic").to_owned();
    for name in ["a", "middle"] {
        scratch.cairn(&format!("clone {url} {name}")).done();
    }
    let middle = Hub::new(&scratch, "middle", &[]);
    let url = middle.url("quic").to_owned();
    scratch.cairn(&format!("clone {url} b")).done();
    scratch.write("a.cairn/of-a", "of a");
    scratch.write("b.cairn/of-b", "of b");
    let both = ["of-a", "of-b"];
    until("what is edited at either end is at both", || {
        for name in ["a", "b"] {
            scratch.sync(name);
        }
        ["a", "b"]
            .iter()
            .all(|name| scratch.names(&format!("{name}.cairn")) == both)
    });
    scratch.write("a.cairn/doc", "from a");
    scratch.write("b.cairn/doc", "from b");
    until("both contents are everywhere", || {
        for name in ["a", "b"] {
            scratch.sync(name);
        }
        let names = |name| scratch.names(&format!("{name}.cairn"));
        names("a") == names("b") && names("a").len() == 4
    });
    let names = scratch.names("a.cairn");
    let mut contents: Vec<String> = (names.iter())
        .map(|n| scratch.read(&format!("b.cairn/{n}")))
        .collect();
    contents.sort();
    assert_eq!(contents, ["from a", "from b", "of a", "of b"]);
    middle.end();
    top.end();
    for name in ["a", "b", "middle", "top"] {
        scratch.cairn(&format!("check {name}.cairn")).done();
    }
}

#[test]
fn a_copy_of_a_replica_is_told_that_it_is_one() {
    let (scratch, _hub) = two("quic");
    scratch.write("a.cairn/doc", "doc");
    scratch.sync("a");
    copy(&scratch, "a.cairn", "copy.cairn");
    scratch.write("a.cairn/of-a", "of a");
    scratch.sync("a");
    scratch.write("copy.cairn/of-copy", "of the copy");
    scratch
        .cairn("sync copy.cairn")
        .ended(5)
        .says(&["E_REPLICA_FORKED", "--new-identity"]);
    assert_eq!(scratch.read("copy.cairn/of-copy"), "of the copy");
    scratch.write("a.cairn/more", "more");
    scratch.sync("a");
}

#[test]
fn a_copy_of_a_replica_gets_an_identity_of_its_own_and_loses_nothing() {
    let (scratch, _hub) = two("quic");
    for (name, content) in [("doc", "doc"), ("gone", "gone"), ("moved", "moved")] {
        scratch.write(&format!("a.cairn/{name}"), content);
    }
    scratch.sync("a");
    // Copied with something that nobody has pushed.
    scratch.write("a.cairn/waits", "waits");
    copy(&scratch, "a.cairn", "copy.cairn");
    // Both go on, and give the same numbers to different files.
    for n in 0..20 {
        scratch.write(&format!("a.cairn/a-{n}"), &format!("of a {n}"));
        scratch.write(&format!("copy.cairn/copy-{n}"), &format!("of the copy {n}"));
    }
    scratch.sync("a");
    scratch.write("copy.cairn/doc", "edited in the copy");
    if can_mount() {
        let _mount = scratch.mount_offline("copy");
        scratch
            .sh("rm copy/gone && mv copy/moved copy/elsewhere")
            .done();
    }
    scratch
        .cairn("sync copy.cairn")
        .ended(5)
        .says(&["E_REPLICA_FORKED"]);
    // What it had before the copy comes from both, so there may be a conflict.
    let first = scratch.cairn("sync copy.cairn --new-identity");
    assert!(matches!(first.status.code(), Some(0 | 1)), "{first:?}");
    scratch.write("copy.cairn/later", "later");
    for name in ["copy", "a", "copy", "b"] {
        scratch.sync(name);
    }
    for name in ["a", "copy", "b"] {
        let read = |file: &str| scratch.read(&format!("{name}.cairn/{file}"));
        for n in 0..20 {
            assert_eq!(read(&format!("a-{n}")), format!("of a {n}"));
            assert_eq!(read(&format!("copy-{n}")), format!("of the copy {n}"));
        }
        assert_eq!(read("doc"), "edited in the copy");
        assert_eq!(read("waits"), "waits");
        assert_eq!(read("later"), "later");
        if can_mount() {
            assert_eq!(read("elsewhere"), "moved");
            let names = scratch.names(&format!("{name}.cairn"));
            assert!(!names.iter().any(|name| name == "gone" || name == "moved"));
        }
        scratch.cairn(&format!("check {name}.cairn")).done();
    }
}

#[test]
fn a_cut_that_would_empty_a_replica_waits_for_a_word() {
    let (scratch, _hub) = two("quic");
    let make = "mkdir tree && for i in $(seq 150); do echo $i > tree/$i; done";
    scratch.sh(make).done();
    scratch.cairn("import tree a.cairn/tree").done();
    scratch.sync("a");
    scratch.sync("b");
    if !can_mount() {
        return;
    }
    {
        let _mount = scratch.mount_offline("a");
        scratch.sh("rm -r a/tree").done();
    }
    scratch.sync("a");
    scratch
        .cairn("sync b.cairn")
        .ended(5)
        .says(&["--proceed", "151 of 152"]);
    assert_eq!(scratch.names("b.cairn/tree").len(), 150);
    scratch.cairn("sync b.cairn --proceed").done();
    assert!(scratch.names("b.cairn").is_empty());
}

#[test]
fn a_large_cut_shows_through_a_mount_that_had_looked_before() {
    let (scratch, _hub) = two("quic");
    if !can_mount() {
        return;
    }
    // Directories of the large cut, one of which is there, and what is in it changes.
    let make = "mkdir -p tree/d0 && echo old > tree/d0/kept && echo old > tree/d0/replaced";
    scratch.sh(make).done();
    scratch.cairn("import tree a.cairn/tree").done();
    scratch.sync("a");
    let mount = scratch.join("b");
    let mounted = scratch.mount("b");
    until("the first is there", || mount.join("tree/d0/kept").exists());
    let names = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(mount.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // The kernel knows all of this now: listings, contents, and what is not there.
    assert_eq!(names("tree"), ["d0"]);
    assert_eq!(names("tree/d0"), ["kept", "replaced"]);
    let read = |path: &str| std::fs::read_to_string(mount.join(path)).unwrap();
    assert_eq!(read("tree/d0/replaced"), "old\n");
    for missing in ["tree/d0/f7", "tree/d5", "tree/d5/f1"] {
        assert!(!mount.join(missing).exists());
    }
    let held = std::fs::File::open(mount.join("tree/d0")).unwrap();
    let make = "cd tree && echo new > d0/replaced && \
        for d in $(seq 0 49); do mkdir -p d$d && (cd d$d && seq 100 | split -l 1 -d -a 3 - f); done";
    scratch.sh(make).done();
    scratch.cairn("import tree a.cairn/tree --replace").done();
    scratch.sync("a");
    // It may be two cuts, where the import was pushed as two batches.
    until("the large cut is there", || {
        let dirs = (0..50).map(|dir| format!("tree/d{dir}"));
        let there = dirs.filter(|dir| mount.join(dir).join("f099").exists());
        there.count() == 50 && read("tree/d0/replaced") == "new\n"
    });
    assert_eq!(read("tree/d0/replaced"), "new\n");
    assert_eq!(read("tree/d0/kept"), "old\n");
    assert_eq!(names("tree").len(), 50);
    assert_eq!(names("tree/d0").len(), 102);
    for dir in 1..50 {
        assert_eq!(names(&format!("tree/d{dir}")).len(), 100);
    }
    assert_eq!(read("tree/d5/f001"), "2\n");
    // Who had the directory open before sees it, too, and writes beside it.
    let listed = rustix::fs::Dir::read_from(&held).unwrap().count();
    assert_eq!(listed, 102 + 2);
    std::fs::write(mount.join("tree/d7/mine"), "mine").unwrap();
    scratch.cairn("sync b.cairn").done();
    scratch.sync("a");
    assert_eq!(scratch.read("a.cairn/tree/d7/mine"), "mine");
    everything_changes(&scratch, &mount);
    drop(mounted);
    scratch.cairn("check b.cairn").done();
}

/// All that is there changes while the mount knows it and has some of it open.
fn everything_changes(scratch: &Scratch, mount: &Path) {
    use std::os::unix::fs::FileExt;
    let read = |path: &str| std::fs::read_to_string(mount.join(path)).unwrap();
    let open = |path: &str| std::fs::File::open(mount.join(path)).unwrap();
    let (one, two) = (open("tree/d9/f009"), open("tree/d40/f003"));
    let through = |file: &std::fs::File| {
        let mut bytes = [0; 100];
        let len = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    assert_eq!((&*through(&one), &*through(&two)), ("10\n", "4\n"));
    let change = "for f in d*/f*; do echo more >> $f; done; chmod 600 d10/f*";
    let ran = crate::program::cairn()
        .args(["exec", "a.cairn/tree", "--", change])
        .current_dir(&**scratch)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    scratch.sync("a");
    until("everything has changed", || {
        let files = (0..50).map(|dir| format!("tree/d{dir}/f031"));
        let changed = files.filter(|file| read(file) == "32\nmore\n");
        changed.count() == 50 && read("tree/d39/f099") == "100\nmore\n"
    });
    assert_eq!(
        (&*through(&one), &*through(&two)),
        ("10\nmore\n", "4\nmore\n")
    );
}
