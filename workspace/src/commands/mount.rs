//! `cairn mount`: owns a replica, shows it as a filesystem, and serves the
//! commands of other processes until it is unmounted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use cairn::fuse::{Mount, MountError, MountOptions, unmount};
use cairn::sync::{Address, Follow};
use cairn::{Options, Replica};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::upstream::{Entry, choose};
use crate::control;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Creation, Host};
use crate::terminal::{StatusLine, say};
use crate::{daemon, locate, logging, text};

/// Between two looks at the numbers of the status line.
const REFRESH: Duration = Duration::from_secs(1);
/// How long the users of a detached mount may keep it before it ends anyway.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to mount: an empty directory, or a new one
    mountpoint: PathBuf,
    /// The replica's directory or file [default: MOUNTPOINT.cairn]
    #[arg(short, long, value_name = "DIR")]
    replica: Option<PathBuf>,
    /// Return when it is mounted, and leave a process behind that serves it
    #[arg(short, long)]
    daemon: bool,
    #[arg(long, hide = true, conflicts_with = "daemon")]
    detached: bool,
    /// The hub to follow from now on: what is edited on either side appears on the other
    /// [default: the one that the replica follows]
    #[arg(long, value_name = "URL")]
    upstream: Option<Address>,
    /// Do not follow a hub
    #[arg(long, conflicts_with = "upstream")]
    offline: bool,
    #[command(flatten)]
    entry: Entry,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    creation: Creation,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Let nobody change anything through the mount
    #[arg(long)]
    read_only: bool,
    /// Let other users use the mount [default: true for root]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_other: Option<bool>,
    /// Threads that serve requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Let the processors sleep between requests that follow each other quickly: slower, in a
    /// virtual machine by several times, but no work for nothing
    #[arg(long)]
    no_keep_awake: bool,
    /// Do all reading and writing in this process, also where the kernel could do it itself
    #[arg(long)]
    no_passthrough: bool,
    /// The longest time a change may be lost by a crash, unless it is synced
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    commit_interval_ms: u64,
}

impl How {
    /// The same options for another start of the program.
    fn arguments(&self) -> Vec<OsString> {
        let mut words = vec![format!("--commit-interval-ms={}", self.commit_interval_ms)];
        if self.read_only {
            words.push("--read-only".into());
        }
        if let Some(allow) = self.allow_other {
            words.push(format!("--allow-other={allow}"));
        }
        if let Some(threads) = self.threads {
            words.push(format!("--threads={threads}"));
        }
        if self.no_keep_awake {
            words.push("--no-keep-awake".into());
        }
        if self.no_passthrough {
            words.push("--no-passthrough".into());
        }
        words.into_iter().map(OsString::from).collect()
    }

    fn options(&self, replica: &Path) -> MountOptions {
        let default = MountOptions::default();
        MountOptions {
            allow_other: self.allow_other.unwrap_or(default.allow_other),
            read_only: self.read_only,
            keep_awake: !self.no_keep_awake,
            passthrough: !self.no_passthrough,
            threads: self.threads.map(usize::from),
            // By this, other processes find the replica of a mount.
            fs_name: replica.to_string_lossy().into_owned(),
        }
    }
}

impl Args {
    /// The options about the hub, for another start of the program.
    fn following(&self) -> Vec<OsString> {
        let mut words = self.entry.arguments();
        if let Some(address) = &self.upstream {
            words.push(format!("--upstream={address}").into());
        }
        if self.offline {
            words.push("--offline".into());
        }
        words
    }

    /// Begins to follow the hub, if there is one.
    fn follow(&self, replica: &Replica) -> Result<Option<Arc<Follow>>> {
        if self.offline {
            return Ok(None);
        }
        let address = self.upstream.as_ref();
        let named = address.map(|address| self.entry.upstream(address));
        let Some(upstream) = choose(replica, named.transpose()?.as_ref())? else {
            return Ok(None);
        };
        let follow = Follow::start(replica, &upstream)?;
        if self.upstream.is_some() {
            // Said just now: that it does not work should be said as well.
            follow.connected_once()?;
        }
        Ok(Some(Arc::new(follow)))
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let at = locate::absolute(&args.mountpoint)?;
    if locate::is_replica(&at) {
        return Err(Failure::Usage(format!(
            "{0} is a replica; name where to mount it: `cairn mount DIR --replica {0}`",
            args.mountpoint.display(),
        )));
    }
    let dir = match &args.replica {
        Some(dir) => dir.clone(),
        None => beside(&at)?,
    };
    let dir = locate::canonical(&dir);
    if args.daemon {
        let mut words: Vec<OsString> = vec![
            "mount".into(),
            daemon::FLAG.into(),
            "--replica".into(),
            dir.into(),
        ];
        words.extend(args.how.arguments());
        words.extend(args.creation.argument().map(OsString::from));
        words.extend(args.following());
        words.extend(["--".into(), at.into()]);
        return daemon::start(&words);
    }
    logging::start(args.detached);
    if args.detached {
        daemon::detach()?;
    }
    serve(&at, &dir, args)
}

/// The default replica: beside the mount point, under its name.
fn beside(at: &Path) -> Result<PathBuf> {
    let name = at
        .file_name()
        .ok_or_else(|| Failure::Usage("name the replica with --replica DIR".into()))?;
    let mut name = name.to_os_string();
    name.push(".cairn");
    Ok(at.with_file_name(name))
}

/// What happens to a mount.
enum Event {
    /// Somebody wants it to end.
    Signal,
    /// It was unmounted, and nobody uses it any more.
    Ended,
}

/// Owns the replica and mounts it. If that fails, nothing of it is left.
fn begin(at: &Path, dir: &Path, args: &Args) -> Result<(Replica, Arc<Mount>)> {
    // The replica beside it would be made with the directory above it.
    if !at.starts_with(dir) && !at.parent().is_none_or(Path::is_dir) {
        return Err(MountError::Missing(at.into()).into());
    }
    let missing = locate::missing(dir);
    let (how, creation) = (&args.how, &args.creation);
    let commit_interval = Duration::from_millis(how.commit_interval_ms);
    let replica = host::own(
        dir,
        &Options {
            commit_interval,
            ..creation.options()
        },
    )?;
    match Mount::new(replica.clone(), at, how.options(dir)) {
        Ok(mount) => Ok((replica, Arc::new(mount))),
        Err(error) => {
            drop(replica);
            // If it was made for this mount, nothing is in it.
            locate::remove_made(&missing);
            Err(error.into())
        }
    }
}

fn serve(at: &Path, dir: &Path, args: &Args) -> Result {
    // From here on a signal is an event; one that comes early ends the mount at once.
    let (events, happened) = channel();
    watch_signals(events.clone())?;
    let (replica, mount) = begin(at, dir, args)?;
    let follow = args.follow(&replica)?;
    let at = mount.path();
    let control = control::Server::start(dir, Host::serving(&replica, None, follow.as_ref()))
        .map_err(Failure::io(format!(
            "cannot make the control socket in {}",
            dir.display()
        )))?;
    let waiter = std::thread::spawn({
        let mount = Arc::clone(&mount);
        move || {
            mount.wait();
            // Whoever received it has ended if this fails.
            let _ = events.send(Event::Ended);
        }
    });
    let message = format!("{} is mounted at {}", dir.display(), at.display());
    if args.detached {
        daemon::ready(dir, &message)?;
        tracing::info!(replica = %dir.display(), at = %at.display(), "mounted");
    } else {
        say(&format!(
            "{message}; stop with Ctrl-C or `cairn umount {}`",
            at.display()
        ));
    }
    let ended = attend(&mount, &replica, &happened, !args.detached);
    if ended {
        let _ = waiter.join();
    }
    let watchers = control.stop();
    drop(mount);
    drop(follow);
    // What could not be committed is an error; a replica that is dropped cannot tell.
    replica.sync().map_err(Failure::fs(format!(
        "the last changes of {} could not be committed",
        dir.display()
    )))?;
    drop(replica);
    drop(watchers);
    tracing::info!("unmounted");
    if !args.detached {
        say("unmounted");
    }
    Ok(Outcome::Done)
}

fn watch_signals(events: Sender<Event>) -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::io("cannot wait for signals"))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Signal).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Waits for the end of a mount. Returns `false` if its users still hold it.
fn attend(mount: &Mount, replica: &Replica, happened: &Receiver<Event>, attended: bool) -> bool {
    let mut line = Status::new(attended);
    loop {
        match happened.recv_timeout(REFRESH) {
            Ok(Event::Ended) => {
                line.line.clear();
                return true;
            }
            Ok(Event::Signal) => {
                line.line.clear();
                return end(mount, happened);
            }
            Err(RecvTimeoutError::Timeout) => line.refresh(mount, replica),
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Unmounts; if it is in use, detaches it and gives its users a moment.
fn end(mount: &Mount, happened: &Receiver<Event>) -> bool {
    match unmount(mount.path(), false) {
        Ok(()) | Err(MountError::NotMounted(_)) => {}
        Err(MountError::Busy { users, .. }) => {
            say(&format!(
                "{} is in use by {users}; it is detached and ends in {} seconds, or at once with Ctrl-C",
                mount.path().display(),
                GRACE.as_secs(),
            ));
            if let Err(error) = unmount(mount.path(), true) {
                say(&format!("cairn: {error}"));
            }
        }
        Err(error) => {
            say(&format!("cairn: {error}"));
            return false;
        }
    }
    matches!(happened.recv_timeout(GRACE), Ok(Event::Ended))
}

/// The line that shows how the mount is doing.
struct Status {
    line: StatusLine,
    seen: (Instant, u64),
    bytes: String,
    next_usage: Instant,
}

impl Status {
    fn new(wanted: bool) -> Self {
        let now = Instant::now();
        Self {
            line: StatusLine::new(wanted),
            seen: (now, 0),
            bytes: String::new(),
            next_usage: now,
        }
    }

    fn refresh(&mut self, mount: &Mount, replica: &Replica) {
        if !self.line.is_shown() {
            return;
        }
        let (now, requests) = (Instant::now(), mount.requests());
        let elapsed = now.duration_since(self.seen.0).as_millis().max(1);
        let rate = u128::from(requests.saturating_sub(self.seen.1)) * 1_000 / elapsed;
        self.seen = (now, requests);
        if now >= self.next_usage
            && let Ok(usage) = replica.usage()
        {
            self.bytes = format!(
                "{}, {} stored",
                text::bytes(usage.logical_bytes),
                text::bytes(usage.stored_bytes + usage.unsealed_bytes),
            );
            // It reads the whole database: never more than a fiftieth of the time.
            self.next_usage = Instant::now() + now.elapsed() * 50;
        }
        let nodes = replica.stat_fs().map_or(0, |stat| stat.nodes);
        self.line
            .set(format!("{nodes} nodes, {}, {rate} requests/s", self.bytes));
    }
}
