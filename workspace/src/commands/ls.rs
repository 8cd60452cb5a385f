//! `cairn ls`: the entries of a directory, or one path.

use std::io::{IsTerminal, Write as _};

use cairn::{Attr, DirEntry, NodeKind, Replica};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::{PlaceArgs, shown};
use crate::text;

/// Entries read at a time.
const PAGE: usize = 1_024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Default, clap::Args, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Flags {
    /// Show mode, links, owner, size and time (in UTC)
    #[arg(short, long)]
    long: bool,
    /// Show names that begin with a dot
    #[arg(short, long)]
    all: bool,
    /// Go into directories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    path: Vec<u8>,
    flags: Flags,
    /// The output is a terminal.
    escape: bool,
}

pub(crate) fn run(args: Args) -> Result {
    let place = args.place.locate()?;
    let escape = std::io::stdout().is_terminal();
    let request = Request {
        path: place.path,
        flags: args.flags,
        escape,
    };
    host::perform(&place.replica, host::Request::Ls(request))
}

/// An entry for a script.
#[derive(Serialize)]
struct Record<'a> {
    path: String,
    /// The bytes of the path in hexadecimal, when they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    ino: u64,
    kind: &'a str,
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: u64,
    blocks: u64,
    mtime: Time,
    ctime: Time,
    btime: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Serialize)]
struct Time {
    seconds: i64,
    nanos: u32,
}

impl From<cairn::Timestamp> for Time {
    fn from(time: cairn::Timestamp) -> Self {
        Self {
            seconds: time.seconds(),
            nanos: time.nanos(),
        }
    }
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let replica = &host.replica;
    let mut lister = Lister {
        replica,
        request,
        console,
    };
    let attr = replica
        .lstat(&request.path)
        .map_err(Failure::fs(shown(&request.path)))?;
    // A link to a directory, named by itself, is followed.
    let attr = match attr.kind {
        NodeKind::Symlink => replica.stat(&request.path).unwrap_or(attr),
        _ => attr,
    };
    if attr.kind != NodeKind::Dir {
        lister.entry(&request.path, &request.path, &attr)?;
        return Ok(Outcome::Done);
    }
    let mut todo = vec![request.path.clone()];
    let mut first = true;
    while let Some(dir) = todo.pop() {
        if request.flags.recursive && !request.flags.json {
            let line = format!("{}{}:\n", if first { "" } else { "\n" }, lister.name(&dir));
            lister.console.out(line.as_bytes())?;
        }
        first = false;
        lister.directory(&dir, &mut todo)?;
    }
    Ok(Outcome::Done)
}

struct Lister<'a> {
    replica: &'a Replica,
    request: &'a Request,
    console: &'a mut dyn Console,
}

impl Lister<'_> {
    fn name(&self, name: &[u8]) -> String {
        if self.request.escape {
            text::escaped(name)
        } else {
            String::from_utf8_lossy(name).into_owned()
        }
    }

    /// Lists a directory by name, and adds those in it to what is to be done.
    fn directory(&mut self, dir: &[u8], todo: &mut Vec<Vec<u8>>) -> Result<()> {
        let mut entries = entries(self.replica, dir)?;
        entries.retain(|entry| self.request.flags.all || !entry.name.starts_with(b"."));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in &entries {
            self.entry(&entry.name, &join(dir, &entry.name), &entry.attr)?;
        }
        if self.request.flags.recursive {
            let dirs = entries
                .iter()
                .rev()
                .filter(|entry| entry.attr.kind == NodeKind::Dir);
            todo.extend(dirs.map(|entry| join(dir, &entry.name)));
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], path: &[u8], attr: &Attr) -> Result<()> {
        let target = match attr.kind {
            NodeKind::Symlink => Some(
                self.replica
                    .read_link(attr.ino)
                    .map_err(Failure::fs(shown(path)))?,
            ),
            _ => None,
        };
        if self.request.flags.json {
            let record = record(path, attr, target.as_deref());
            return self.console.out(&super::json(&record)?);
        }
        let mut line = Vec::new();
        if self.request.flags.long {
            let time = text::time(attr.mtime);
            let head = format!(
                "{} {:>3} {:>5} {:>5} {:>12} {time} ",
                text::mode(attr),
                attr.nlink,
                attr.uid,
                attr.gid,
                attr.size,
            );
            line.extend_from_slice(head.as_bytes());
        }
        self.put(&mut line, name);
        if let Some(target) = target.filter(|_| self.request.flags.long) {
            line.extend_from_slice(b" -> ");
            self.put(&mut line, &target);
        }
        line.push(b'\n');
        self.console.out(&line)
    }

    fn put(&self, line: &mut Vec<u8>, name: &[u8]) {
        if self.request.escape {
            // Writing to memory does not fail.
            let _ = write!(line, "{}", text::escaped(name));
        } else {
            line.extend_from_slice(name);
        }
    }
}

fn record<'a>(path: &[u8], attr: &Attr, target: Option<&[u8]>) -> Record<'a> {
    let hex = || text::hex(path);
    Record {
        path: String::from_utf8_lossy(path).into_owned(),
        path_hex: std::str::from_utf8(path).is_err().then(hex),
        ino: attr.ino.0,
        kind: text::kind(attr.kind),
        mode: format!("{:04o}", attr.perm),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        blocks: attr.blocks,
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        btime: attr.btime.into(),
        target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
    }
}

/// All entries of a directory.
pub(crate) fn entries(replica: &Replica, dir: &[u8]) -> Result<Vec<DirEntry>> {
    let mut all: Vec<DirEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |entry| entry.cookie);
        let page = replica
            .list(dir, after, PAGE)
            .map_err(Failure::fs(shown(dir)))?;
        let full = page.len() == PAGE;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

/// The path of an entry.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
