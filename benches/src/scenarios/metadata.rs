//! Many small operations: names, attributes, directories, small files.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, open, openat, renameat, statat, unlinkat};

use super::{Need, Scenario, Step};
use crate::inputs::Inputs;

/// Files of the flat scenarios.
const FILES: usize = 1000;

/// Directories per level, in three levels.
const FANOUT: usize = 10;

/// Bytes of a small file: within one page, as most sources are.
const SMALL_BYTES: usize = 1000;

/// Rounds of writing a file aside and renaming it into place.
const REPLACEMENTS: usize = 200;

/// Appended records, each made durable.
const RECORDS: usize = 100;

/// Bytes of an appended record.
const RECORD_BYTES: usize = 200;

const CREATE: &str = r#"i=0
while [ "$i" -lt 1000 ]; do
    echo x > "f$i"
    i=$((i + 1))
done"#;

const MKDIR_TREE: &str = "for a in 0 1 2 3 4 5 6 7 8 9; do
    mkdir d$a
    for b in 0 1 2 3 4 5 6 7 8 9; do
        mkdir d$a/d$b
        for c in 0 1 2 3 4 5 6 7 8 9; do
            mkdir d$a/d$b/d$c
        done
    done
done";

pub(super) fn all() -> Vec<Scenario> {
    let created = Step::Loop(create);
    vec![
        Scenario::new("create 1000 files", Step::Nothing, Step::Shell(CREATE)),
        Scenario::new("create 1000 files (loop)", Step::Nothing, created),
        Scenario::new(
            "stat 1000 files",
            created,
            Step::Shell(r#"for f in f*; do stat "$f" || exit 1; done"#),
        ),
        Scenario::new("stat 1000 files (loop)", created, Step::Loop(stat)),
        Scenario::new(
            "stat 1000 files again (loop)",
            Step::Loop(|dir, inputs| create(dir, inputs).and_then(|()| stat(dir, inputs))),
            Step::Loop(stat),
        ),
        Scenario::new("stat 1000 files cold (loop)", created, Step::Loop(stat)).cold(),
        Scenario::new("rm 1000 files", created, Step::Shell("rm f*")),
        Scenario::new("rm 1000 files (loop)", created, Step::Loop(remove)),
        Scenario::new(
            "mkdir tree 10x10x10",
            Step::Nothing,
            Step::Shell(MKDIR_TREE),
        ),
        Scenario::new(
            "mkdir tree 10x10x10 (loop)",
            Step::Nothing,
            Step::Loop(make_tree),
        ),
        Scenario::new("find tree", Step::Loop(make_tree), Step::Shell("find .")),
        Scenario::new("find tree (loop)", Step::Loop(make_tree), Step::Loop(walk)),
        Scenario::new(
            "find tree again (loop)",
            Step::Loop(|dir, inputs| make_tree(dir, inputs).and_then(|()| walk(dir, inputs))),
            Step::Loop(walk),
        ),
        Scenario::new(
            "find tree cold (loop)",
            Step::Loop(make_tree),
            Step::Loop(walk),
        )
        .cold(),
        Scenario::new(
            "open+read+close 1000 small (loop)",
            Step::Loop(create_small),
            Step::Loop(read_small),
        )
        .with(Need::Random),
        Scenario::new(
            "write 1000 small (loop)",
            Step::Nothing,
            Step::Loop(create_small),
        )
        .with(Need::Random),
        Scenario::new("rename 1000 files (loop)", created, Step::Loop(rename)),
        Scenario::new(
            "write aside + rename x200 (loop)",
            Step::Nothing,
            Step::Loop(replace),
        )
        .with(Need::Random),
        Scenario::new(
            "append + fsync x100 (loop)",
            Step::Nothing,
            Step::Loop(append),
        )
        .with(Need::Random),
    ]
}

/// Opens a directory, so that loops name files without a walk from the root.
fn directory(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(dir, flags, Mode::empty())?)
}

/// The flags of `>` in a shell.
fn create_flags() -> OFlags {
    OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC
}

fn write_file(dir: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o644);
    File::from(openat(dir, name, create_flags(), mode)?).write_all(bytes)
}

fn create(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    (0..FILES).try_for_each(|index| write_file(&dir, &format!("f{index}"), b"x\n"))
}

fn stat(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    for index in 0..FILES {
        statat(&dir, format!("f{index}"), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn remove(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    for index in 0..FILES {
        unlinkat(&dir, format!("f{index}"), AtFlags::empty())?;
    }
    Ok(())
}

fn rename(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    for index in 0..FILES {
        renameat(&dir, format!("f{index}"), &dir, format!("g{index}"))?;
    }
    Ok(())
}

fn make_tree(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    let mode = Mode::from_raw_mode(0o755);
    for a in 0..FANOUT {
        mkdirat(&dir, format!("d{a}"), mode)?;
        for b in 0..FANOUT {
            mkdirat(&dir, format!("d{a}/d{b}"), mode)?;
            for c in 0..FANOUT {
                mkdirat(&dir, format!("d{a}/d{b}/d{c}"), mode)?;
            }
        }
    }
    Ok(())
}

/// Lists every directory and asks for the attributes of every entry.
fn walk(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let found = walk_below(&directory(dir)?)?;
    let expected = FANOUT + FANOUT * FANOUT + FANOUT * FANOUT * FANOUT;
    if found == expected {
        Ok(())
    } else {
        let text = format!("found {found} of {expected} directories");
        Err(io::Error::other(text))
    }
}

fn walk_below(dir: &OwnedFd) -> io::Result<usize> {
    let mut found = 0;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        found += 1;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            found += walk_below(&openat(dir, name, flags, Mode::empty())?)?;
        }
    }
    Ok(found)
}

/// The random content of a small file, another one for each file.
fn small(inputs: &Inputs, index: usize, len_bytes: usize) -> &[u8] {
    &inputs.first[index * len_bytes..][..len_bytes]
}

fn create_small(dir: &Path, inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    (0..FILES).try_for_each(|index| {
        let content = small(inputs, index, SMALL_BYTES);
        write_file(&dir, &format!("f{index}"), content)
    })
}

fn read_small(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut buffer = [0; 4096];
    for index in 0..FILES {
        let file = openat(&dir, format!("f{index}"), flags, Mode::empty())?;
        if File::from(file).read(&mut buffer)? != SMALL_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn replace(dir: &Path, inputs: &Inputs) -> io::Result<()> {
    let dir = directory(dir)?;
    for index in 0..REPLACEMENTS {
        write_file(&dir, "new", small(inputs, index, SMALL_BYTES))?;
        renameat(&dir, "new", &dir, "state")?;
    }
    Ok(())
}

fn append(dir: &Path, inputs: &Inputs) -> io::Result<()> {
    let mut log = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("log"))?;
    for index in 0..RECORDS {
        log.write_all(small(inputs, index, RECORD_BYTES))?;
        log.sync_all()?;
    }
    Ok(())
}
