//! `cairn daemon`: a replica of a workspace where its commands run, for the
//! `sandbox` backend of a host.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cairn::daemon::{Daemon, DaemonError};
use cairn::exec::{Confine, Want};
use cairn::sync::{Address, DEFAULT_PORT, Fingerprint, Identity, SyncError, Upstream};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, Outcome, Result};
use crate::locate;
use crate::terminal::say;

/// The variable that has the token, where others do not see it.
const TOKEN: &str = "CAIRN_TOKEN";
/// Where the daemon's own certificate is kept in its store.
const IDENTITY: &str = "identity";
/// What says that something is not wanted.
const NONE: &str = "none";
/// What says that the replica is in memory.
const MEMORY: &str = "memory";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to mount the workspace: an empty directory, or a new one; `none` not to mount it
    #[arg(long, value_name = "DIR", default_value = "/workspace")]
    mount: PathBuf,
    /// Where to keep the replica and the logs of commands; `memory` to lose them at the end
    #[arg(long, value_name = "DIR", default_value = MEMORY)]
    store: PathBuf,
    /// Where to listen for the host, on UDP and TCP [default: 127.0.0.1:7420, unless it dials]
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Dial a host that cannot reach this machine: quic://HOST:PORT, ws:// or wss://
    #[arg(long, value_name = "URL")]
    dial: Option<String>,
    /// Take only the host with this fingerprint, when it is dialled (SHA-256) [default: the one
    /// that is met first]
    #[arg(long, value_name = "HEX", requires = "dial")]
    fingerprint: Option<Fingerprint>,
    /// A file with the token that hosts have to show [default: the variable `CAIRN_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A certificate (PEM), with --key
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Where to keep a certificate that is made [default: with the replica; for one in memory it is
    /// another at each start]
    #[arg(long, value_name = "DIR", conflicts_with = "certificate")]
    identity: Option<PathBuf>,
    /// No encryption: ws:// only
    #[arg(long, conflicts_with_all = ["certificate", "identity"])]
    plain: bool,
    /// Listen beyond this machine even without encryption or a token
    #[arg(long)]
    insecure: bool,
    /// Let commands write only in the workspace and in directories for temporary files. Without it
    /// they may do what this user may: run the daemon in a container or a virtual machine
    #[arg(long)]
    confine: bool,
    /// A variable for all commands
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

impl Args {
    fn store(&self) -> Option<PathBuf> {
        (self.store != Path::new(MEMORY)).then(|| locate::canonical(&self.store))
    }

    fn token(&self) -> Result<String> {
        let Some(file) = &self.token_file else {
            return Ok(std::env::var(TOKEN).unwrap_or_default());
        };
        let text = std::fs::read_to_string(file)
            .map_err(Failure::io(format!("cannot read {}", file.display())))?;
        Ok(text.trim().to_owned())
    }

    fn identity(&self) -> Result<Option<Identity>> {
        if self.plain {
            return Ok(None);
        }
        let made = match (&self.certificate, &self.key, &self.identity, self.store()) {
            (Some(certificate), Some(key), ..) => Identity::load(certificate, key),
            (_, _, Some(dir), _) => Identity::open_or_create(dir),
            (_, _, _, Some(store)) if store.is_file() => {
                Identity::open_or_create(&store.with_extension(IDENTITY))
            }
            (_, _, _, Some(store)) => Identity::open_or_create(&store.join(IDENTITY)),
            _ => Identity::passing(),
        };
        Ok(Some(made.map_err(SyncError::from)?))
    }

    /// The host that is dialled.
    fn host(&self) -> Result<Option<Upstream>> {
        let Some(url) = &self.dial else {
            return Ok(None);
        };
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let whole = if rest.contains('/') {
            url.clone()
        } else {
            format!("{url}/workspace")
        };
        let address: Address = whole
            .parse()
            .map_err(|error| Failure::Usage(format!("--dial: {error}")))?;
        let host = Upstream::new(&address);
        Ok(Some(match self.fingerprint {
            Some(fingerprint) => host.fingerprint(fingerprint),
            None => host,
        }))
    }

    fn listen(&self) -> Option<SocketAddr> {
        let default = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
        self.listen.or(self.dial.is_none().then_some(default))
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::io("cannot wait for signals"))?;
    let daemon = start(args)?;
    announce(&daemon, args);
    signals.forever().next();
    say("ending; another Ctrl-C ends it at once");
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(crate::transfer::EXIT_NOW);
        }
    });
    daemon.shutdown().map_err(failed)?;
    Ok(Outcome::Done)
}

fn start(args: &Args) -> Result<Daemon> {
    let mut builder = Daemon::builder()
        .token(&args.token()?)
        .insecure(args.insecure)
        .confine(Confine {
            writes: if args.confine {
                Want::Required
            } else {
                Want::No
            },
            ..Confine::default()
        });
    if let Some(store) = args.store() {
        builder = builder.store(store);
    }
    if args.mount != Path::new(NONE) {
        builder = builder.mount(locate::absolute(&args.mount)?);
    }
    if let Some(address) = args.listen() {
        builder = builder.listen(address);
        if let Some(identity) = args.identity()? {
            builder = builder.identity(identity);
        }
    }
    if let Some(host) = args.host()? {
        builder = builder.dial(host);
    }
    for variable in &args.env {
        let (name, value) = variable
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("--env {variable}: a variable is NAME=VALUE")))?;
        builder = builder.env(name, value);
    }
    builder.start().map_err(failed)
}

fn failed(error: DaemonError) -> Failure {
    match error {
        DaemonError::Open(error) => error.into(),
        DaemonError::Mount(error) => error.into(),
        DaemonError::Sync(error) => error.into(),
        DaemonError::Io(source) => Failure::io("the daemon cannot work")(source),
        error => Failure::Refused(crate::failure::report(&error)),
    }
}

fn announce(daemon: &Daemon, args: &Args) {
    let mut parts = Vec::new();
    let urls = daemon.urls();
    if !urls.is_empty() {
        parts.push(format!("listening at {}", urls.join(", ")));
    }
    if let Some(fingerprint) = daemon.fingerprint() {
        parts.push(format!("its certificate has the fingerprint {fingerprint}"));
    }
    if let Some(url) = &args.dial {
        parts.push(format!("dialling {url}"));
    }
    if args.mount != Path::new(NONE) {
        parts.push(format!("the workspace is at {}", args.mount.display()));
    }
    say(&format!("{}; stop with Ctrl-C", parts.join("; ")));
}
