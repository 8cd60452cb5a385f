//! `cairn export`: copies out of a replica, to a directory or a tar archive.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use cairn::{Options, Replica};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::host::{self, Host, Owner};
use crate::locate::{self, Place, ReplicaArg, locate};
use crate::mountinfo;
use crate::terminal::Terminal;
use crate::transfer::remote::{Drained, Helper};
use crate::transfer::{Counted, PIECE, Stop, Talk, directory, replica, tar};

const MORE: &str = "\
What is exported:
  The content of a directory goes into TARGET, which is made if it is not there:
  `cairn export demo.cairn/src src`. A file gets the name TARGET, or goes into
  TARGET if that is a directory. TARGET is an archive if its name ends in `.tar`
  and it is no directory, or with --tar, or if it is `-`, the standard output.
  Kept is what `cairn import` keeps; owners, devices and attributes other than
  those of users only by root. An archive is in the pax format: GNU tar, bsdtar
  and Python read it with extended attributes (SCHILY.xattr) and holes
  (GNU.sparse 1.0). It cannot hold sockets.

What is there already:
  Directories are merged. Anything else is refused, or replaced with --replace.
  Nothing is ever removed besides. Symbolic links below TARGET are not followed.

An export shows the replica as it is while it is read: what is changed at that
time may be in it or not. One that ends early, by a failure or Ctrl-C, keeps what
is in a directory, and leaves no archive behind.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE, allow_missing_positional = true)]
pub(crate) struct Args {
    #[command(flatten)]
    replica: ReplicaArg,
    /// What to export: a replica, a path in one, or a path below a mount; with --replica
    /// a path in it. Default: the working directory, or the root
    #[arg(value_name = "PLACE")]
    place: Option<PathBuf>,
    /// A directory, a file, a tar archive, or `-` for an archive to the standard output
    #[arg(required = true)]
    target: PathBuf,
    /// Replace what has the same name
    #[arg(long)]
    replace: bool,
    /// Make TARGET a tar archive, whatever its name
    #[arg(long)]
    tar: bool,
}

/// An export; it goes as an archive to the standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    path: Vec<u8>,
    /// Somebody sees the progress, and wants to know of how much.
    attended: bool,
    /// The archive is for a process of ours.
    between: bool,
}

/// Where an export goes.
enum Target {
    Stdout,
    /// A file that is made, or replaced when it is complete.
    Archive(PathBuf),
    /// What can be written to, but is no file.
    Device(PathBuf),
    /// A directory, or the name of a file.
    Files(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result {
    let place = locate(args.replica.replica.as_deref(), args.place.as_deref())?;
    let target = find(args)?;
    if !matches!(target, Target::Stdout) {
        check_apart(&args.target, &place)?;
    }
    let stop = Stop::on_signals()?;
    let owner = host::owner(
        &place.replica,
        &Options {
            create: false,
            ..Options::default()
        },
    )?;
    let mut terminal = Terminal::new();
    let request = Request {
        path: place.path,
        attended: Terminal::is_attended(),
        between: false,
    };
    let ended = match target {
        Target::Stdout => stdout(owner, request, stop, &mut terminal),
        Target::Device(path) => {
            let file = File::options()
                .write(true)
                .open(&path)
                .map_err(Failure::io(format!("cannot open {}", path.display())))?;
            archive(owner, request, &file, &path, stop, &mut terminal)
        }
        Target::Archive(path) => archive_file(owner, request, &path, stop, &mut terminal),
        Target::Files(path) => {
            let replace = args.replace;
            let files = Files {
                path,
                replace,
                stop,
            };
            match owner {
                Owner::This(replica) => files.write_from(&replica, &request, &mut terminal),
                owner @ Owner::Other(_) => files.write_from_owner(owner, request, &mut terminal),
            }
        }
    };
    let flushed = terminal.finish();
    let outcome = ended?;
    flushed?;
    Ok(outcome)
}

fn stdout(owner: Owner, request: Request, stop: Stop, terminal: &mut Terminal) -> Result {
    // Not through the buffer of the terminal, which ends at lines.
    let out = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(Failure::io("cannot use the standard output"))?;
    let mut drained = Drained {
        console: terminal,
        output: Some(File::from(out)),
        helper: None,
        name: "the standard output".into(),
        stop,
    };
    owner.perform(host::Request::Export(request), &mut drained)
}

fn find(args: &Args) -> Result<Target> {
    let path = &args.target;
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "an archive is not for a terminal; name a file, or use `-` in a pipe".into(),
            ));
        }
        return Ok(Target::Stdout);
    }
    let there = path.metadata().ok();
    let is_dir = there.as_ref().is_some_and(std::fs::Metadata::is_dir);
    if is_dir && args.tar {
        return Err(Failure::Usage(format!(
            "{} is a directory; name the archive to make",
            path.display()
        )));
    }
    let path = locate::absolute(path)?;
    if is_dir || !(args.tar || path.as_os_str().as_bytes().ends_with(b".tar")) {
        return Ok(Target::Files(path));
    }
    match there.map(|there| there.file_type()) {
        Some(kind) if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() => {
            Ok(Target::Device(path))
        }
        Some(_) if !args.replace => Err(Failure::Refused(format!(
            "{} is there already; --replace replaces it",
            args.target.display(),
        ))),
        _ => Ok(Target::Archive(path)),
    }
}

/// Refuses a target that is in the replica's directory, or shows what is exported.
fn check_apart(target: &Path, place: &Place) -> Result<()> {
    let real = locate::canonical(target);
    if real.starts_with(&place.replica) || locate::in_directory(&real).is_some() {
        return Err(Failure::Usage(format!(
            "{0} is in the directory of a replica, which only cairn writes to; copy into the replica with `cairn export PLACE - | cairn import - {0}`",
            target.display(),
        )));
    }
    let shown_there = mountinfo::showing(&real).filter(|mounted| mounted.replica == place.replica);
    let inside =
        shown_there.and_then(|mounted| Some(locate::inside(real.strip_prefix(mounted.at).ok()?)));
    if inside.is_some_and(|inside| locate::is_below(&inside, &place.path)) {
        return Err(Failure::Usage(format!(
            "{} is a part of what is exported, and would go into itself without end; name another target",
            target.display(),
        )));
    }
    Ok(())
}

/// Exports to an archive in a file: beside it, until it is complete.
fn archive_file(
    owner: Owner,
    request: Request,
    path: &Path,
    stop: Stop,
    terminal: &mut Terminal,
) -> Result {
    if !path.parent().is_none_or(Path::is_dir) {
        return Err(Failure::Refused(format!(
            "cannot make {}: the directory above it does not exist; create it first",
            path.display(),
        )));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let file =
        File::create_new(&part).map_err(Failure::io(format!("cannot make {}", path.display())))?;
    let ended = archive(owner, request, &file, &part, stop, terminal).and_then(|outcome| {
        std::fs::rename(&part, path)
            .map_err(Failure::io(format!("cannot make {}", path.display())))?;
        Ok(outcome)
    });
    if ended.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    ended
}

fn archive(
    owner: Owner,
    request: Request,
    file: &File,
    path: &Path,
    stop: Stop,
    terminal: &mut Terminal,
) -> Result {
    let name = path.display().to_string();
    let mut drained = Drained {
        console: terminal,
        output: Some(file),
        helper: None,
        name,
        stop,
    };
    let outcome = owner.perform(host::Request::Export(request), &mut drained)?;
    match file.sync_all() {
        // A pipe, or a device, has nothing to sync.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(Failure::io(format!(
            "cannot write {}",
            path.display()
        ))(error)),
        _ => Ok(outcome),
    }
}

/// Where and how an export goes to files.
struct Files {
    path: PathBuf,
    replace: bool,
    stop: Stop,
}

impl Files {
    /// Exports from a replica that this process owns.
    fn write_from(self, replica: &Replica, request: &Request, terminal: &mut Terminal) -> Result {
        let total = total(request, replica)?;
        let talk = Talk::new(terminal, self.stop, total);
        let sink = directory::Writer::new(&self.path, self.replace, &talk);
        let mut sink = Counted { sink, talk: &talk };
        let sent = replica::read(replica, &request.path, &mut sink, &talk);
        tell(&talk.done(), &sent, &self.path, |line| talk.note(line));
        sent.map(|()| talk.outcome())
    }

    /// Exports from the archive that the owner of the replica makes.
    fn write_from_owner(self, owner: Owner, request: Request, terminal: &mut Terminal) -> Result {
        let Self {
            path,
            replace,
            stop,
        } = self;
        let work = Box::new({
            let path = path.clone();
            move |pipe, talk: &Talk<'_>| {
                let sink = directory::Writer::new(&path, replace, talk);
                let mut input = io::BufReader::with_capacity(PIECE, pipe);
                tar::read(&mut input, &mut Counted { sink, talk }, talk)
            }
        });
        let (helper, pipe) = Helper::reading(&stop, None, work)?;
        let mut drained = Drained {
            console: terminal,
            output: Some(pipe),
            helper: Some(helper),
            name: path.display().to_string(),
            stop,
        };
        let request = Request {
            between: true,
            ..request
        };
        let ended = owner.perform(host::Request::Export(request), &mut drained);
        let closed = drained.close();
        // What the owner says is why the archive was cut short.
        let ended = ended.and_then(|outcome| Ok(outcome.and(closed?)));
        let done = drained.done();
        tell(&done, &ended, &path, |line| terminal.note(line));
        ended
    }
}

/// Says what is in place.
fn tell<T>(
    done: &crate::console::Progress,
    ended: &Result<T>,
    target: &Path,
    note: impl FnOnce(&str) -> Result<()>,
) {
    let line = match ended {
        Ok(_) => format!("exported {} to {}", done.summary(), target.display()),
        Err(_) if done.files > 0 => format!(
            "{} of the export are in place in {}; the same command with --replace goes on",
            done.summary(),
            target.display(),
        ),
        Err(_) => return,
    };
    // The failure itself is more important than who cannot be told of this.
    let _ = note(&line);
}

fn total(request: &Request, replica: &Replica) -> Result<Option<u64>> {
    request
        .attended
        .then(|| replica::measure(replica, &request.path))
        .transpose()
}

pub(crate) fn perform(request: &Request, host: &Host, console: &mut dyn Console) -> Result {
    let total = total(request, &host.replica)?;
    let talk = Talk::new(console, Stop::default(), total);
    let sink = tar::Writer::new(&talk, &talk, request.between);
    replica::read(
        &host.replica,
        &request.path,
        &mut Counted { sink, talk: &talk },
        &talk,
    )?;
    if !request.between {
        talk.note(&format!("exported {}", talk.done().summary()))?;
    }
    Ok(talk.outcome())
}
