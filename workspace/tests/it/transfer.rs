//! `cairn import` and `cairn export`: what goes in comes out as it was.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{cairn, ended, until};
use crate::scratch::{Scratch, can_mount};
use crate::trees::{Without, assert_same, everything, noise};

const ALL: Without = Without {
    sockets: false,
    details: false,
};
const NO_SOCKETS: Without = Without {
    sockets: true,
    details: false,
};

fn with_tree() -> Scratch {
    let scratch = Scratch::new();
    everything(&scratch.join("src"));
    scratch
}

#[test]
fn a_directory_survives_the_way_through_a_replica() {
    let s = with_tree();
    s.cairn("import src demo.cairn").done();
    s.cairn("export demo.cairn out").done();
    assert_same(&s.join("src"), &s.join("out"), ALL);
    s.cairn("check demo.cairn").done();
    // Below a path that has to be made, and from there.
    s.cairn("import src demo.cairn/x/y").done();
    s.cairn("export demo.cairn/x/y more/out").done();
    assert_same(&s.join("src"), &s.join("more/out"), ALL);
}

#[test]
fn a_directory_survives_the_way_through_the_owner() {
    if !can_mount() {
        return;
    }
    let s = with_tree();
    let _mount = s.mount("demo");
    s.cairn("import src demo/x").done();
    assert_same(&s.join("src"), &s.join("demo/x"), ALL);
    s.cairn("export demo/x out").done();
    assert_same(&s.join("src"), &s.join("out"), ALL);
    let archive = s.cairn("export demo/x -").ended(1);
    s.fed("import - demo/y", &archive.out).done();
    s.cairn("export demo/y out2").done();
    assert_same(&s.join("src"), &s.join("out2"), NO_SOCKETS);
    s.cairn("umount demo").done();
    s.cairn("export demo.cairn/y out3").done();
    assert_same(&s.join("out2"), &s.join("out3"), ALL);
}

#[test]
fn gnu_tar_reads_what_is_exported() {
    let s = with_tree();
    s.cairn("import src demo.cairn").done();
    s.cairn("export demo.cairn out.tar")
        .ended(1)
        .says(&["socket", "left out"]);
    fs::create_dir(s.join("out")).unwrap();
    s.sh("tar --xattrs --xattrs-include='*' --numeric-owner -xpf out.tar -C out")
        .done();
    assert_same(&s.join("src"), &s.join("out"), NO_SOCKETS);
    // The archive is small: holes are not in it.
    assert!(s.join("out.tar").metadata().unwrap().size() < 8 << 20);
}

#[test]
fn what_gnu_tar_makes_is_imported() {
    let s = with_tree();
    // The old format has no room for a time of so long ago, nor are there names for it.
    for (format, without) in [
        ("--format=posix --xattrs --xattrs-include=*", NO_SOCKETS),
        (
            "--format=gnu",
            Without {
                sockets: true,
                details: true,
            },
        ),
    ] {
        for sparse in [
            "",
            "-S",
            "-S --sparse-version=0.1",
            "-S --sparse-version=0.0",
        ] {
            if sparse.contains("version") && format.contains("gnu") {
                continue;
            }
            s.sh(&format!(
                "rm -rf demo.cairn out; set -f; tar {format} {sparse} -cf in.tar -C src ."
            ))
            .done();
            s.cairn("import in.tar demo.cairn").done();
            s.cairn("export demo.cairn out").done();
            if sparse.is_empty() {
                // Holes that were archived as zeros may be data.
                let (src, out) = (
                    fs::read(s.join("src/sparse-end")).unwrap(),
                    fs::read(s.join("out/sparse-end")).unwrap(),
                );
                assert!(src == out);
                s.sh("rm src/sparse-* out/sparse-*; touch -d @1500000000.999999999 src out")
                    .done();
                assert_same(&s.join("src"), &s.join("out"), without);
                s.sh("rm -rf src").done();
                everything(&s.join("src"));
            } else {
                assert_same(&s.join("src"), &s.join("out"), without);
            }
        }
    }
}

#[test]
fn old_archives_are_imported() {
    let s = Scratch::new();
    s.sh("mkdir -p src/dir && echo text > src/dir/file && ln -s file src/dir/link")
        .done();
    for format in ["v7", "ustar", "oldgnu"] {
        s.sh(&format!(
            "rm -rf demo.cairn; tar --format={format} -cf in.tar -C src dir"
        ))
        .done();
        s.cairn("import in.tar demo.cairn").done();
        assert_eq!(s.cairn("cat demo.cairn/dir/link").done().text(), "text\n");
    }
}

#[test]
fn files_go_to_a_name_or_into_a_directory() {
    let s = Scratch::new();
    fs::write(s.join("a.txt"), "text").unwrap();
    s.cairn("import a.txt demo.cairn").done();
    s.cairn("import a.txt demo.cairn/new/b.txt").done();
    s.cairn("import a.txt demo.cairn/new").done();
    assert_eq!(
        s.cairn("ls -R demo.cairn").done().text(),
        "/:\na.txt\nnew\n\n/new:\na.txt\nb.txt\n"
    );
    s.cairn("export demo.cairn/new/b.txt c.txt").done();
    assert_eq!(fs::read(s.join("c.txt")).unwrap(), b"text");
    fs::create_dir(s.join("into")).unwrap();
    s.cairn("export demo.cairn/new/b.txt into").done();
    assert_eq!(fs::read(s.join("into/b.txt")).unwrap(), b"text");
    // With --replica the place is the root unless one is named.
    s.cairn("export --replica demo.cairn whole").done();
    assert!(s.join("whole/new/a.txt").is_file());
    s.cairn("export --replica demo.cairn new part").done();
    assert!(s.join("part/a.txt").is_file());
    s.cairn("import --replica demo.cairn a.txt new/c").done();
    s.cairn("cat --replica demo.cairn new/c").done();
}

#[test]
fn an_archive_may_have_any_name_and_come_from_anywhere() {
    let s = Scratch::new();
    fs::create_dir(s.join("src")).unwrap();
    fs::write(s.join("src/f"), "text").unwrap();
    s.cairn("import src demo.cairn").done();
    s.cairn("export demo.cairn archive --tar").done();
    s.cairn("import archive demo.cairn/again --tar").done();
    s.cairn("export demo.cairn /dev/null --tar").done();
    // A file with the name of an archive.
    fs::write(s.join("odd.tar"), "no archive").unwrap();
    s.cairn("import odd.tar demo.cairn/odd")
        .ended(5)
        .says(&["not a tar archive"]);
    s.cairn("import odd.tar demo.cairn/odd --file").done();
    assert_eq!(s.cairn("cat demo.cairn/odd").done().text(), "no archive");
    // A directory with such a name is a directory.
    fs::create_dir(s.join("dir.tar")).unwrap();
    s.cairn("export demo.cairn/again dir.tar").done();
    assert!(s.join("dir.tar/f").is_file());
    s.sh("gzip < archive > a.tar.gz").done();
    s.cairn("import a.tar.gz demo.cairn/z")
        .ended(2)
        .says(&["gzip -dc a.tar.gz | cairn import"]);
    s.cairn("import --tar a.tar.gz demo.cairn/z")
        .ended(5)
        .says(&["compressed with gzip"]);
    let gz = fs::read(s.join("a.tar.gz")).unwrap();
    s.fed("import - demo.cairn/z", &gz)
        .ended(5)
        .says(&["compressed with gzip"]);
    s.fed("import - demo.cairn/z", b"")
        .ended(5)
        .says(&["empty"]);
    assert!(!s.cairn("ls demo.cairn").done().text().contains('z'));
}

#[test]
fn what_is_there_is_kept_unless_it_may_be_replaced() {
    let s = Scratch::new();
    s.sh("mkdir -p one/dir two/dir && echo 1 > one/dir/f && echo 2 > two/dir/f && echo g > two/dir/g").done();
    s.cairn("import one demo.cairn").done();
    s.cairn("import two demo.cairn")
        .ended(5)
        .says(&["/dir/f is there already", "--replace"]);
    assert_eq!(s.cairn("cat demo.cairn/dir/f").done().text(), "1\n");
    s.cairn("import two demo.cairn --replace").done();
    assert_eq!(
        s.cairn("cat demo.cairn/dir/f demo.cairn/dir/g")
            .done()
            .text(),
        "2\ng\n"
    );
    // No temporary name is left.
    assert_eq!(s.cairn("ls -a demo.cairn/dir").done().text(), "f\ng\n");

    s.cairn("export demo.cairn one")
        .ended(5)
        .says(&["one/dir/f is there already", "--replace"]);
    assert_eq!(fs::read(s.join("one/dir/f")).unwrap(), b"1\n");
    s.cairn("export demo.cairn one --replace").done();
    assert_eq!(fs::read(s.join("one/dir/f")).unwrap(), b"2\n");
    assert_eq!(fs::read_dir(s.join("one/dir")).unwrap().count(), 2);

    s.cairn("export demo.cairn a.tar").done();
    s.cairn("export demo.cairn a.tar")
        .ended(5)
        .says(&["a.tar is there already"]);
    s.cairn("export demo.cairn a.tar --replace").done();
    assert!(!s.sh("ls -A").done().text().contains(".part"));
}

#[test]
fn kinds_replace_each_other_but_for_a_full_directory() {
    let s = Scratch::new();
    s.sh("mkdir -p one/full one/empty one/link-to && echo > one/full/f && ln -s full one/link && echo > one/file").done();
    s.sh("mkdir -p two/link two/file three && echo > two/empty && echo > three/full")
        .done();
    s.cairn("import one demo.cairn").done();
    s.cairn("import two demo.cairn").ended(5);
    s.cairn("import two demo.cairn --replace").done();
    let kinds = s.cairn("ls -l demo.cairn").done();
    let kind = |name: &str| {
        kinds
            .text()
            .lines()
            .find(|line| line.ends_with(name))
            .unwrap()
            .chars()
            .next()
    };
    assert_eq!(
        (kind(" link"), kind(" file"), kind(" empty")),
        (Some('d'), Some('d'), Some('-'))
    );
    s.cairn("import three demo.cairn --replace")
        .ended(5)
        .says(&["/full is a directory with something in it"]);
    s.cairn("export demo.cairn one --replace").done();
    s.sh("test -d one/link -a ! -L one/link && test -d one/file && test -f one/empty")
        .done();
    s.cairn("import three other.cairn").done();
    s.cairn("export other.cairn one --replace")
        .ended(5)
        .says(&["one/full is a directory with something in it"]);
}

#[test]
fn the_later_of_two_entries_counts() {
    let s = Scratch::new();
    s.sh("mkdir src && echo 1 > src/f && ln src/f src/g && tar -cf a.tar -C src . && echo 2 > src/f && tar -rf a.tar -C src ./f ./g").done();
    s.cairn("import a.tar demo.cairn").done();
    assert_eq!(
        s.cairn("cat demo.cairn/f demo.cairn/g").done().text(),
        "2\n2\n"
    );
    assert_eq!(s.cairn("ls -a demo.cairn").done().text(), "f\ng\n");
}

#[test]
fn an_export_does_not_follow_links_of_the_target() {
    let s = Scratch::new();
    s.sh("mkdir -p src/dir out elsewhere && echo > src/dir/f && ln -s ../elsewhere out/dir")
        .done();
    s.cairn("import src demo.cairn").done();
    s.cairn("export demo.cairn out")
        .ended(5)
        .says(&["out/dir is there already"]);
    assert_eq!(fs::read_dir(s.join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_tree_does_not_go_into_itself() {
    if !can_mount() {
        return;
    }
    let s = Scratch::new();
    let _mount = s.mount("demo");
    fs::write(s.join("demo/f"), "x").unwrap();
    s.cairn("import demo demo/sub")
        .ended(2)
        .says(&["into itself"]);
    s.cairn("export demo demo/sub")
        .ended(2)
        .says(&["into itself"]);
    s.cairn("export demo demo.cairn/sub")
        .ended(2)
        .says(&["only cairn writes to"]);
    s.cairn("import demo.cairn demo.cairn/sub")
        .ended(2)
        .says(&["is a replica", "cairn export "]);
    // The whole directory, with the replica and its mount in it.
    s.cairn("import . demo/sub")
        .ended(1)
        .says(&["demo: left out", "demo.cairn: left out"]);
    // Beside it is no problem.
    fs::create_dir(s.join("demo/a")).unwrap();
    fs::write(s.join("demo/a/f"), "y").unwrap();
    s.cairn("import demo/a demo/b").done();
    s.cairn("export demo/b demo/c").done();
    assert_eq!(fs::read(s.join("demo/c/f")).unwrap(), b"y");
}

#[test]
fn a_failed_import_says_what_is_in_place() {
    let s = Scratch::new();
    s.sh("mkdir src && cd src && for i in 1 2 3 4 5; do head -c 100000 /dev/urandom > f$i; done; tar -cf ../a.tar f1 f2 f3 f4 f5").done();
    let whole = fs::read(s.join("a.tar")).unwrap();
    s.fed("import - demo.cairn", &whole[..250_000])
        .ended(5)
        .says(&["cut short", "f3", "2 entries", "in place", "--replace"]);
    // What is not complete is not there.
    assert_eq!(s.cairn("ls demo.cairn").done().text(), "f1\nf2\n");
    s.fed("import - demo.cairn --replace", &whole).done();
    s.cairn("check demo.cairn").done();
    // Between two entries nobody can tell, but that there is no end mark.
    let end = whole.len() - whole.len() % 512;
    let last = (0..end / 512)
        .rev()
        .find(|at| whole[at * 512..][..512].iter().any(|byte| *byte != 0))
        .unwrap();
    s.fed("import - other.cairn", &whole[..(last + 1) * 512])
        .ended(1)
        .says(&["no end mark"]);
    // A replica that was made for nothing is not left behind.
    s.fed("import - third.cairn", b"garbage").ended(5);
    assert!(!s.join("third.cairn").exists());
    s.cairn("import nowhere third.cairn")
        .ended(5)
        .says(&["nowhere"]);
    assert!(!s.join("third.cairn").exists());
}

#[test]
fn an_import_can_be_interrupted() {
    let s = Scratch::new();
    fs::create_dir(s.join("src")).unwrap();
    for name in 0..20_000 {
        fs::write(s.join(format!("src/{name:05}")), noise(200, name)).unwrap();
    }
    let mut child = cairn()
        .args(["import", "src", "demo.cairn"])
        .current_dir(&*s)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A new replica alone takes less.
    until("the import has begun", || {
        s.join("demo.cairn/cairn.db-wal")
            .metadata()
            .is_ok_and(|found| found.len() > 1_500_000)
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(ended(&mut child).code(), Some(5), "{said}");
    assert!(
        said.contains("interrupted") && said.contains("in place"),
        "{said}"
    );
    s.cairn("check demo.cairn").done();
    s.cairn("import src demo.cairn --replace").done();
    s.cairn("export demo.cairn out").done();
    assert_same(&s.join("src"), &s.join("out"), ALL);
}

#[test]
fn a_reader_that_stops_ends_an_export_quietly() {
    let s = Scratch::new();
    s.sh("mkdir src && head -c 20000000 /dev/urandom > src/large")
        .done();
    s.cairn("import src demo.cairn").done();
    let line = format!(
        "{} export demo.cairn - 2>err | head -c 1000 | wc -c",
        env!("CARGO_BIN_EXE_cairn")
    );
    let counted = s.sh(&line).done();
    assert_eq!(counted.text().trim(), "1000");
    let said = fs::read_to_string(s.join("err")).unwrap();
    assert!(said.is_empty(), "{said}");
}

#[test]
fn others_than_root_own_what_they_import() {
    if !rustix::process::geteuid().is_root()
        || Command::new("setpriv").arg("--version").output().is_err()
    {
        eprintln!("SKIPPED: another user cannot be played here");
        return;
    }
    let s = Scratch::new();
    s.sh("mkdir src && echo > src/f && chmod 755 . && mkdir home && chown 1234:1234 home")
        .done();
    let program = env!("CARGO_BIN_EXE_cairn");
    let copy = s.join("cairn-copy");
    fs::copy(program, &copy).unwrap();
    s.sh(
        "setpriv --reuid=1234 --regid=1234 --clear-groups ./cairn-copy import src home/demo.cairn",
    )
    .done();
    let listed = s.cairn("ls --json home/demo.cairn").done();
    let entry = listed.json();
    assert_eq!(
        (entry["uid"].as_u64(), entry["gid"].as_u64()),
        (Some(1_234), Some(1_234))
    );
}
