//! `cairn import`: copies a directory, a file or a tar archive into a replica.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cairn::{Options, Replica};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::host::{self, Creation, Host, Owner};
use crate::locate::{self, Place, ReplicaArg, locate, shown};
use crate::mountinfo;
use crate::terminal::Terminal;
use crate::transfer::remote::{Fed, Helper};
use crate::transfer::{Counted, PIECE, Sink, Stop, Talk, directory, replica, tar};

/// Endings of archives that have to be unpacked on their way, and by what.
const COMPRESSED: [(&str, &str); 9] = [
    (".tar.gz", "gzip"),
    (".tgz", "gzip"),
    (".tar.xz", "xz"),
    (".txz", "xz"),
    (".tar.zst", "zstd"),
    (".tzst", "zstd"),
    (".tar.bz2", "bzip2"),
    (".tbz2", "bzip2"),
    (".tar.lz4", "lz4"),
];

const MORE: &str = "\
What is imported:
  The content of a directory, or of an archive, goes into PLACE, which is made
  if it is not there: `cairn import src demo.cairn/src`. A file gets the name
  PLACE, or goes into PLACE if that is a directory. An archive is a file whose
  name ends in `.tar`, one named with --tar, or `-` for the standard input.
  Kept are modes, owners (if root imports; others own what they import), times
  of last change, hard and symbolic links, extended attributes, holes, fifos,
  sockets and devices. Owners are kept by number.

What is there already:
  Directories are merged. Anything else is refused when it was there before the
  import, or replaced with --replace. Nothing is ever removed besides. Symbolic
  links in the replica are not followed below PLACE.

What is refused in an archive:
  Absolute names, names with `..`, names that go through a symbolic link, names
  of more than 255 bytes. The import stops at the first of them.

An import that ends early, by a failure or Ctrl-C, keeps what is in place and
says how much that is; the same command with --replace goes on.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub(crate) struct Args {
    #[command(flatten)]
    replica: ReplicaArg,
    /// A directory, a file, a tar archive, or `-` for an archive from the standard input
    source: PathBuf,
    /// Where to: a replica, a path in one, or a path below a mount; with --replica
    /// a path in it. Default: the working directory, or the root
    #[arg(value_name = "PLACE")]
    place: Option<PathBuf>,
    /// Replace what has the same name
    #[arg(long)]
    replace: bool,
    /// Take SOURCE as a tar archive, whatever its name
    #[arg(long)]
    tar: bool,
    /// Take SOURCE as a file, even if its name is that of an archive
    #[arg(long, conflicts_with = "tar")]
    file: bool,
    #[command(flatten)]
    creation: Creation,
}

/// An import; its source comes as an archive over the standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    path: Vec<u8>,
    replace: bool,
    owner: Option<(u32, u32)>,
    /// The name of the one file that comes, if it is not a tree.
    single: Option<Vec<u8>>,
}

impl Request {
    fn how(&self) -> replica::How {
        replica::How {
            replace: self.replace,
            owner: self.owner,
            single: self.single.clone(),
        }
    }
}

/// Where an import comes from.
enum Source {
    /// A stream of an archive, with its length if that is known.
    Archive(Box<dyn Read>, Option<u64>),
    /// A directory, or a file.
    Files(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result {
    let place = locate(args.replica.replica.as_deref(), args.place.as_deref())?;
    let source = find(args)?;
    let mut single = None;
    if let Source::Files(path) = &source {
        check_apart(path, &place)?;
        if !path.is_dir() {
            single = Some(path.file_name().unwrap_or_default().as_bytes().to_vec());
        }
    }
    let user = (rustix::process::geteuid(), rustix::process::getegid());
    let owner = (!user.0.is_root()).then(|| (user.0.as_raw(), user.1.as_raw()));
    let request = Request {
        path: place.path.clone(),
        replace: args.replace,
        owner,
        single,
    };
    let missing = locate::missing(&place.replica);
    let owner = host::owner(&place.replica, &args.creation.options())?;
    let ended = import(owner, request, source, &place);
    if !missing.is_empty() && ended.is_err() && is_empty(&place.replica) {
        locate::remove_made(&missing);
    }
    ended
}

fn import(owner: Owner, request: Request, source: Source, place: &Place) -> Result {
    let stop = Stop::on_signals()?;
    let mut terminal = Terminal::new();
    let ended = match (source, owner) {
        (Source::Archive(input, total), owner) => {
            let mut fed = Fed {
                console: &mut terminal,
                input,
                helper: None,
                read: 0,
                total,
                stop,
            };
            owner.perform(host::Request::Import(request), &mut fed)
        }
        (Source::Files(path), Owner::This(replica)) => {
            let total = measure(&path);
            let talk = Talk::new(&mut terminal, stop, total);
            let skip = skip(place);
            put(&request, &replica, &talk, |sink| {
                directory::read(&path, &skip, sink, &talk)
            })
        }
        (Source::Files(path), owner @ Owner::Other(_)) => {
            let total = measure(&path);
            let skip = skip(place);
            let work = Box::new(move |pipe, talk: &Talk<'_>| {
                let sink = tar::Writer::new(pipe, talk, true);
                directory::read(&path, &skip, &mut Counted { sink, talk }, talk)
            });
            let (helper, pipe) = Helper::writing(&stop, total, work)?;
            let (input, helper) = (Box::new(pipe), Some(helper));
            let mut fed = Fed {
                console: &mut terminal,
                input,
                helper,
                read: 0,
                total: None,
                stop,
            };
            let ended = owner.perform(host::Request::Import(request), &mut fed);
            ended.map(|outcome| outcome.and(fed.outcome()))
        }
    };
    let flushed = terminal.finish();
    let outcome = ended?;
    flushed?;
    Ok(outcome)
}

/// How much there is, if somebody looks: it means to go through the tree once more.
fn measure(path: &Path) -> Option<u64> {
    Terminal::is_attended().then(|| directory::measure(path))
}

/// What lies in the source but is the target: the import would never end.
fn skip(place: &Place) -> directory::Skip {
    let mounts = mountinfo::mounts_of(&place.replica);
    let beside = ["-wal", "-shm", "-dirty", ".log"].map(|end| {
        let mut name = place.replica.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    });
    let own = [place.replica.clone()].into_iter().chain(beside);
    let all: Vec<PathBuf> = mounts.into_iter().chain(own).collect();
    directory::Skip::new(all.iter().map(PathBuf::as_path))
}

/// Whether there is nothing in a replica. It is of no use if it was made for
/// an import that failed.
fn is_empty(dir: &Path) -> bool {
    let options = Options {
        create: false,
        ..Options::default()
    };
    Replica::open(dir, options)
        .is_ok_and(|replica| replica.stat_fs().is_ok_and(|stat| stat.nodes <= 1))
}

/// Finds out what the source is.
fn find(args: &Args) -> Result<Source> {
    let path = &args.source;
    if path.as_os_str() == "-" && !args.file {
        if io::stdin().is_terminal() {
            return Err(Failure::Usage("the archive is to come from the standard input, which is a terminal; use `-` in a pipe".into()));
        }
        return Ok(Source::Archive(Box::new(io::stdin()), None));
    }
    let found = path.metadata().map_err(|error| missing(path, error))?;
    let is_archive = args.tar
        || (!args.file && found.is_file() && path.as_os_str().as_bytes().ends_with(b".tar"));
    if is_archive {
        if found.is_dir() {
            return Err(Failure::Usage(format!(
                "{} is a directory, not an archive; leave out --tar",
                path.display()
            )));
        }
        let file =
            File::open(path).map_err(Failure::io(format!("cannot open {}", path.display())))?;
        return Ok(Source::Archive(
            Box::new(file),
            found.is_file().then_some(found.len()),
        ));
    }
    if !found.is_file() && !found.is_dir() {
        return Err(Failure::Usage(format!(
            "{} is neither a directory nor a file; with --tar it is read as an archive",
            path.display(),
        )));
    }
    if found.is_file() && !args.file {
        check_compressed(path)?;
    }
    Ok(Source::Files(locate::absolute(path)?))
}

fn missing(path: &Path, error: io::Error) -> Failure {
    let inside = locate(None, Some(path)).is_ok();
    if inside && error.kind() == io::ErrorKind::NotFound {
        return Failure::Usage(format!(
            "{0} is in a replica that is not mounted there; copy it with `cairn export {0} - | cairn import - PLACE`",
            path.display(),
        ));
    }
    Failure::io(format!("cannot import {}", path.display()))(error)
}

fn check_compressed(path: &Path) -> Result<()> {
    let name = path.as_os_str().as_bytes();
    let Some((_, program)) = COMPRESSED
        .iter()
        .find(|(end, _)| name.ends_with(end.as_bytes()))
    else {
        return Ok(());
    };
    Err(Failure::Usage(format!(
        "{0} is a compressed archive; unpack it on the way with `{program} -dc {0} | cairn import - PLACE`, or import it as it is with --file",
        path.display(),
    )))
}

/// Refuses a source that is the replica, or shows what the import is to make.
fn check_apart(source: &Path, place: &Place) -> Result<()> {
    let real = locate::canonical(source);
    if locate::is_replica(&real) {
        return Err(Failure::Usage(format!(
            "{0} is a replica; copy what is in it with `cairn export {0} - | cairn import - PLACE`",
            source.display(),
        )));
    }
    if real.starts_with(&place.replica) {
        return Err(Failure::Usage(format!(
            "{} is a file of the replica itself",
            source.display()
        )));
    }
    let shown_there = mountinfo::showing(&real).filter(|mounted| mounted.replica == place.replica);
    let inside =
        shown_there.and_then(|mounted| Some(locate::inside(real.strip_prefix(mounted.at).ok()?)));
    if inside.is_some_and(|inside| real.is_dir() && locate::is_below(&place.path, &inside)) {
        return Err(Failure::Usage(format!(
            "{} is a part of {}, and would go into itself without end",
            shown(&place.path),
            source.display(),
        )));
    }
    Ok(())
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let talk = Talk::new(console, Stop::default(), None);
    put(request, &host.replica, &talk, |sink| {
        tar::read(&mut BufReader::with_capacity(PIECE, &talk), sink, &talk)
    })
}

/// Puts what `send` sends into the replica, and makes it durable.
fn put(
    request: &Request,
    replica: &Replica,
    talk: &Talk<'_>,
    send: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result {
    let sink = replica::Writer::new(replica, &request.path, request.how())?;
    let ended = send(&mut Counted { sink, talk });
    // Once, for all of it: a sync for each file would take longer than the import.
    let synced = replica
        .sync()
        .map_err(Failure::fs("what was imported could not be synced"));
    let done = talk.done();
    if let Err(failure) = ended {
        if done.files > 0 {
            let line = format!(
                "{} of the import are in place in {}; the same command with --replace goes on",
                done.summary(),
                shown(&request.path),
            );
            // The failure itself is more important than who cannot be told of this.
            let _ = talk.note(&line);
        }
        return Err(failure);
    }
    synced?;
    talk.note(&format!(
        "imported {} into {}",
        done.summary(),
        shown(&request.path)
    ))?;
    Ok(talk.outcome())
}
