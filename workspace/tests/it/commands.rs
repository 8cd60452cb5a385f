//! Every command, on a replica that nobody owns and on one that is mounted.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{cairn, ended, ran};
use crate::scratch::{Daemon, Scratch, can_mount};

/// A replica with a few things in it, as `demo.cairn`.
fn filled() -> Scratch {
    let s = Scratch::new();
    s.sh("mkdir -p src/dir && printf hello > src/a && printf world > src/dir/b && ln -s a src/link && touch src/.hidden").done();
    s.sh("head -c 300000 /dev/urandom > src/large && cp src/large src/copy")
        .done();
    s.cairn("import src demo.cairn").done();
    s
}

/// Runs a test without an owner, and with one. The place is a path of the
/// replica either way, and then also one of the mount.
fn each_way(test: impl Fn(&Scratch, &str)) {
    let s = filled();
    test(&s, "demo.cairn");
    if can_mount() {
        let mounted: Daemon = s.mount("demo");
        test(&s, "demo.cairn");
        test(&s, "demo");
        drop(mounted);
    }
}

#[test]
fn ls() {
    each_way(|s, at| {
        assert_eq!(
            s.cairn(&format!("ls {at}")).done().text(),
            "a\ncopy\ndir\nlarge\nlink\n"
        );
        assert_eq!(
            s.cairn(&format!("ls -a {at}")).done().text(),
            ".hidden\na\ncopy\ndir\nlarge\nlink\n"
        );
        assert_eq!(s.cairn(&format!("ls {at}/dir")).done().text(), "b\n");
        assert!(
            s.cairn(&format!("ls -l {at}"))
                .done()
                .text()
                .contains("link -> a")
        );
        assert!(
            s.cairn(&format!("ls -R {at}"))
                .done()
                .text()
                .ends_with("/dir:\nb\n")
        );
        let lines = s.cairn(&format!("ls --json {at}")).done();
        let entries: Vec<Value> = lines
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries[0]["path"], "/a");
        assert_eq!(entries[0]["size"], 5);
        assert_eq!(entries[4]["target"], "a");
        s.cairn(&format!("ls {at}/none"))
            .ended(5)
            .says(&["/none", "no such file"]);
    });
}

#[test]
fn cat() {
    each_way(|s, at| {
        assert_eq!(
            s.cairn(&format!("cat {at}/a {at}/dir/b {at}/link"))
                .done()
                .text(),
            "helloworldhello"
        );
        assert_eq!(
            s.cairn(&format!("cat {at}/large")).done().out,
            fs::read(s.join("src/large")).unwrap()
        );
        s.cairn(&format!("cat {at}/dir"))
            .ended(5)
            .says(&["/dir", "directory"]);
        s.cairn(&format!("cat {at}/none")).ended(5).says(&["/none"]);
    });
}

#[test]
fn status_du_and_log_are_json_too() {
    each_way(|s, at| {
        let status = s.cairn(&format!("status --json {at}")).done().json();
        assert!(status["replica"].as_str().unwrap().ends_with("/demo.cairn"));
        assert_eq!(status["nodes"], 8);
        assert!(status["shared_bytes"].as_u64() >= Some(300_000), "{status}");
        let text = s.cairn(&format!("status {at}")).done();
        assert!(text.text().contains("nodes     8"), "{text:?}");

        let du = s.cairn(&format!("du --json {at}")).done().json();
        assert_eq!(du["total"]["nodes"], 8);
        assert_eq!(du["total"]["logical_bytes"], 600_010);
        assert!(s.cairn(&format!("du {at}")).done().text().contains("dir/"));

        let all = s.cairn(&format!("log --json {at}")).done();
        let lines: Vec<Value> = all
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            lines
                .iter()
                .any(|line| line["what"] == "name" && line["path"] == "/dir/b")
        );
        let next = lines.last().unwrap()["next"].as_str().unwrap();
        let none = s.cairn(&format!("log --json {at} --since {next}")).done();
        assert_eq!(none.text().lines().count(), 1, "{none:?}");
        // Page by page it is the same.
        let (mut since, mut seen) = (String::new(), Vec::new());
        loop {
            let page = s.cairn(&format!("log --json {at} --limit 3{since}")).done();
            let mut page: Vec<String> = page.text().lines().map(str::to_owned).collect();
            let last: Value = serde_json::from_str(&page.pop().unwrap()).unwrap();
            let is_last = page.is_empty();
            seen.append(&mut page);
            since = format!(" --since {}", last["next"].as_str().unwrap());
            if is_last {
                break;
            }
        }
        let whole: Vec<&str> = all.text().lines().collect();
        assert_eq!(seen, whole[..whole.len() - 1]);
    });
}

#[test]
fn a_mount_shows_in_the_status() {
    if !can_mount() {
        return;
    }
    let s = filled();
    let status = s.cairn("status --json demo.cairn").done().json();
    assert_eq!(
        (&status["owner"], &status["mounts"]),
        (&Value::Null, &serde_json::json!([]))
    );
    let daemon = s.mount("demo");
    let status = s.cairn("status --json demo").done().json();
    assert_eq!(status["owner"], daemon.pid().as_raw_nonzero().get());
    assert!(status["mounts"][0].as_str().unwrap().ends_with("/demo"));
}

#[test]
fn gc_and_check() {
    each_way(|s, at| {
        let gc = s.cairn(&format!("gc --json {at}")).done().json();
        assert!(gc["chunks"].is_u64() && gc["bytes"].is_u64());
        s.cairn(&format!("gc {at}")).done();
        let check = s.cairn(&format!("check --json {at}")).done().json();
        assert_eq!(check["problems"], serde_json::json!([]));
        s.cairn(&format!("check {at}"))
            .done()
            .says(&["all is well"]);
    });
}

#[test]
fn check_finds_damage() {
    let s = filled();
    let pack = fs::read_dir(s.join("demo.cairn/chunks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file() && path.metadata().unwrap().len() > 100_000)
        .unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&pack, bytes).unwrap();
    let found = s.cairn("check --json demo.cairn").ended(1).json();
    assert!(!found["problems"].as_array().unwrap().is_empty());
}

#[test]
fn in_a_mount_the_working_directory_is_the_place() {
    if !can_mount() {
        return;
    }
    let s = filled();
    let _mount = s.mount("demo");
    let there = ran(cairn().arg("ls").current_dir(s.join("demo/dir")), b"").done();
    assert_eq!(there.text(), "b\n");
    let there = ran(
        cairn().args(["cat", "b"]).current_dir(s.join("demo/dir")),
        b"",
    )
    .done();
    assert_eq!(there.text(), "world");
}

#[test]
fn a_reader_that_stops_is_no_panic() {
    let s = filled();
    for line in [
        "ls -R demo.cairn",
        "log demo.cairn",
        "cat demo.cairn/large demo.cairn/large",
        "completions bash",
    ] {
        let mut child = cairn()
            .args(line.split(' '))
            .current_dir(&*s)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let status = ended(&mut child);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.is_empty(), "{line}: {said}");
        assert!(status.code().is_some(), "{line}: {status}");
    }
}

#[test]
fn completions_and_help() {
    let s = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            s.cairn(&format!("completions {shell}"))
                .done()
                .text()
                .contains("import")
        );
    }
    s.cairn("completions bash > /dev/null").ended(2);
    for command in [
        "mount",
        "umount",
        "ls",
        "cat",
        "import",
        "export",
        "status",
        "du",
        "gc",
        "check",
        "log",
        "completions",
    ] {
        assert!(
            s.cairn(&format!("{command} --help"))
                .done()
                .text()
                .contains("Usage: cairn")
        );
        assert!(s.cairn("--help").done().text().contains(command));
    }
    assert!(s.cairn("--version").done().text().starts_with("cairn "));
    s.cairn("import --help").done();
}

#[test]
fn command_lines_that_make_no_sense() {
    let s = filled();
    for line in [
        "",
        "none",
        "ls --none demo.cairn",
        "ls a b c",
        "import",
        "export demo.cairn a b c",
        "log --since x demo.cairn",
        "log --limit 0 demo.cairn",
        "mount",
        "mount --commit-interval-ms 0 x",
        "umount",
        "cat",
        "completions ksh",
    ] {
        s.cairn(line).ended(2);
    }
    s.cairn("ls src")
        .ended(2)
        .says(&["src", "neither a replica nor below a mount", "--replica"]);
    s.cairn("status")
        .ended(2)
        .says(&["name a replica", "working directory"]);
}

#[test]
fn a_replica_in_one_file_is_used_as_any_other() {
    let s = Scratch::new();
    fs::create_dir(s.join("src")).unwrap();
    fs::write(s.join("src/small"), "small").unwrap();
    fs::write(s.join("src/large"), vec![7; 3 << 20]).unwrap();
    // It lies in what it is made from.
    s.cairn("import src src/one.cairn --single-file")
        .ended(1)
        .says(&["one.cairn", "left out"]);
    assert_eq!(fs::read_dir(s.join("src")).unwrap().count(), 3);
    fs::rename(s.join("src/one.cairn"), s.join("one.cairn")).unwrap();
    assert_eq!(s.cairn("cat one.cairn/small").done().text(), "small");
    s.cairn("check one.cairn").done();
    s.cairn("import one.cairn other.cairn")
        .ended(2)
        .says(&["is a replica"]);
    if can_mount() {
        let _mount = s.mount("one");
        assert_eq!(fs::read(s.join("one/large")).unwrap(), vec![7; 3 << 20]);
        fs::write(s.join("one/new"), vec![8; 5 << 20]).unwrap();
        // The owner is asked.
        let listed = s.cairn("ls one.cairn").done();
        assert_eq!(listed.text(), "large\nnew\nsmall\n");
        s.cairn("umount one").done();
    }
    let left: Vec<_> = fs::read_dir(&*s)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("one.cairn-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    s.cairn("export one.cairn out").done();
    assert_eq!(fs::read(s.join("out/large")).unwrap(), vec![7; 3 << 20]);
}

/// It came when the script had ended, or after 64 KiB.
#[cfg(feature = "shell")]
#[test]
fn what_a_script_says_is_seen_while_it_runs() {
    each_way(|s, at| {
        let mut running = cairn()
            .args(["exec", at, "--", "echo up; sleep 300"])
            .current_dir(&**s)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 3];
        let out = running.stdout.as_mut().unwrap();
        out.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"up\n");
        running.kill().unwrap();
        running.wait().unwrap();
    });
}
