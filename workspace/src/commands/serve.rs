//! `cairn serve`: makes replicas hubs that others follow, on one address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn::sync::{DEFAULT_PORT, Follow, Hub, Identity, Serve, SyncError, Upstream};
use cairn::{Options, Replica};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::terminal::say;
use crate::{control, daemon, locate, logging};

/// Where a hub's own certificate is kept.
const IDENTITY: &str = "identity";

#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line that do not depend on each other"
)]
pub(crate) struct Args {
    /// The replicas, which are made if they are not there; NAME=REPLICA to name the workspace
    /// [default name: that of the replica]
    #[arg(value_name = "REPLICA", required = true)]
    replicas: Vec<PathBuf>,
    /// Where to listen, on UDP and TCP
    #[arg(short, long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))]
    listen: SocketAddr,
    /// A certificate (PEM), with --key [default: one that is made, and kept with the first replica]
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// No encryption: ws:// only
    #[arg(long, conflicts_with = "certificate")]
    plain: bool,
    /// Listen beyond this machine even without encryption or tokens
    #[arg(long)]
    insecure: bool,
    /// Return when it listens, and leave a process behind that serves
    #[arg(short, long)]
    daemon: bool,
    #[arg(long, hide = true, conflicts_with = "daemon")]
    detached: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    if args.daemon {
        return daemon::start(&arguments(args)?);
    }
    logging::start(args.detached);
    if args.detached {
        daemon::detach()?;
    }
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::io("cannot wait for signals"))?;
    let named = args.replicas.iter().map(|named| name_of(named));
    let named = named.collect::<Result<Vec<_>>>()?;
    let mut served = Vec::new();
    for (name, dir) in named {
        let replica = host::own(&dir, &Options::default())?;
        served.push((name, dir, replica));
    }
    let serve = start(args, &served)?;
    let follows = follow(&served)?;
    let controls = listen(&served, &serve, &follows)?;
    // What was in the replicas before is with the hubs before anybody is told.
    let waits = match serve.settle() {
        Err(why @ SyncError::Halted { .. }) => Some(why),
        settled => settled.map(|()| None)?,
    };
    announce(args, &served, &serve)?;
    if let Some(why) = waits {
        // Others are served all the same.
        tracing::warn!(%why, "a working tree stays as it is; see `cairn sync REPLICA --proceed`");
    }
    signals.forever().next();
    if !args.detached {
        say("ending; another Ctrl-C ends it at once");
    }
    end_at_once_on_another(signals);
    let watchers: Vec<_> = controls.into_iter().map(control::Server::stop).collect();
    drop(follows);
    drop(serve);
    for (_, dir, replica) in served {
        let failed = format!(
            "the last changes of {} could not be committed",
            dir.display()
        );
        replica.sync().map_err(Failure::fs(failed))?;
    }
    drop(watchers);
    Ok(Outcome::Done)
}

/// `NAME=REPLICA`, or a replica that is called as its file is.
fn name_of(named: &Path) -> Result<(String, PathBuf)> {
    let text = named.to_string_lossy();
    if let Some((name, dir)) = text.split_once('=') {
        return Ok((name.to_owned(), locate::canonical(Path::new(dir))));
    }
    let dir = locate::canonical(named);
    let name = dir
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| {
        Failure::Usage(format!("{} has no name; say NAME=REPLICA", named.display()))
    })?;
    Ok((name, dir))
}

fn start(args: &Args, served: &[(String, PathBuf, Replica)]) -> Result<Arc<Serve>> {
    let mut builder = Serve::builder().listen(args.listen).insecure(args.insecure);
    if let Some(identity) = identity(args, served)? {
        builder = builder.identity(identity);
    }
    for (name, _, replica) in served {
        builder = builder.hub(Hub::new(name, replica)?);
    }
    Ok(Arc::new(builder.start()?))
}

fn identity(args: &Args, served: &[(String, PathBuf, Replica)]) -> Result<Option<Identity>> {
    if args.plain {
        return Ok(None);
    }
    let identity = match (&args.certificate, &args.key, served.first()) {
        (Some(certificate), Some(key), _) => Identity::load(certificate, key),
        (_, _, Some((_, dir, _))) if dir.is_dir() => Identity::open_or_create(&dir.join(IDENTITY)),
        (_, _, Some((_, file, _))) => Identity::open_or_create(&file.with_extension(IDENTITY)),
        _ => return Ok(None),
    };
    Ok(Some(identity.map_err(cairn::sync::SyncError::from)?))
}

/// A replica that follows a hub itself goes on to do so, and is one in the middle.
fn follow(served: &[(String, PathBuf, Replica)]) -> Result<Vec<Option<Arc<Follow>>>> {
    let follows = served.iter().map(|(_, _, replica)| {
        let Some(upstream) = Upstream::of(replica)? else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Follow::start(replica, &upstream)?)))
    });
    follows.collect()
}

/// Other commands on the replicas come to this process.
fn listen(
    served: &[(String, PathBuf, Replica)],
    serve: &Arc<Serve>,
    follows: &[Option<Arc<Follow>>],
) -> Result<Vec<control::Server>> {
    let controls = served
        .iter()
        .zip(follows)
        .map(|((_, dir, replica), follow)| {
            let host = Host::serving(replica, Some(serve), follow.as_ref());
            control::Server::start(dir, host).map_err(Failure::io(format!(
                "cannot make the control socket in {}",
                dir.display()
            )))
        });
    controls.collect()
}

fn announce(args: &Args, served: &[(String, PathBuf, Replica)], serve: &Serve) -> Result<()> {
    let urls = serve.urls().join(", ");
    let known = match serve.fingerprint() {
        Some(fingerprint) => format!("; its certificate has the fingerprint {fingerprint}"),
        None => String::new(),
    };
    let message = format!("serving {urls}{known}");
    if let (true, Some((_, dir, _))) = (args.detached, served.first()) {
        return daemon::ready(dir, &message);
    }
    say(&format!("{message}; stop with Ctrl-C"));
    Ok(())
}

/// Clients that do not answer are waited for, but not by who is in a hurry.
fn end_at_once_on_another(mut signals: Signals) {
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(crate::transfer::EXIT_NOW);
        }
    });
}

/// The same command for another start of the program.
fn arguments(args: &Args) -> Result<Vec<std::ffi::OsString>> {
    let mut words: Vec<std::ffi::OsString> = vec!["serve".into(), daemon::FLAG.into()];
    words.push(format!("--listen={}", args.listen).into());
    for (flag, file) in [("--certificate", &args.certificate), ("--key", &args.key)] {
        if let Some(file) = file {
            words.extend([flag.into(), locate::absolute(file)?.into()]);
        }
    }
    for (flag, set) in [("--plain", args.plain), ("--insecure", args.insecure)] {
        if set {
            words.push(flag.into());
        }
    }
    words.push("--".into());
    for named in &args.replicas {
        let (name, dir) = name_of(named)?;
        let mut word = std::ffi::OsString::from(format!("{name}="));
        word.push(dir);
        words.push(word);
    }
    Ok(words)
}
