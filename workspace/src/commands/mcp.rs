//! `cairn mcp`: serves the tools for agents to a program that speaks the Model
//! Context Protocol on the standard input and output.
//!
//! If another process owns the replica, because it is mounted or served, that one
//! serves the tools, and this one carries what is said.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cairn::backend::Local;
use cairn::exec::{Confine, Network, Want};
use cairn::mcp::McpError;
use cairn::tools::Tools;
use cairn::{Builder, Options, Workspace, WorkspaceError};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;

use crate::control::{Answer, Failed};
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host, Owner};
use crate::locate;

/// The id under which processes run.
const BACKEND: &str = "local";

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// The replica's directory or file, or where it is mounted
    replica: PathBuf,
    /// Only the tools that change nothing: read, ls, find, grep
    #[arg(long)]
    read_only: bool,
    /// Make the replica if it is not there
    #[arg(long, conflicts_with = "read_only")]
    create: bool,
    /// Run no commands, only the tools for files
    #[arg(long)]
    no_exec: bool,
    /// Run commands as bash scripts on the replica itself: without a mount, programs or network
    #[cfg(feature = "shell")]
    #[arg(long, conflicts_with_all = ["no_exec", "read_only"])]
    shell: bool,
    /// The network that commands have
    #[arg(long, value_name = "NET", default_value = "direct", value_parser = ["direct", "none"])]
    network: String,
    /// Where commands may write beside the workspace; / for anywhere
    #[arg(long, value_name = "DIR")]
    writable: Vec<PathBuf>,
}

/// What is served, for the process that owns the replica.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Request {
    read_only: bool,
    exec: bool,
    shell: bool,
    network: bool,
    /// Paths, as bytes.
    writable: Vec<Vec<u8>>,
}

impl Request {
    fn new(args: &Args) -> Result<Self> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).map(|path| path.into_os_string().into_vec());
        let writable = args.writable.iter().map(absolute).collect::<Result<_, _>>();
        #[cfg(feature = "shell")]
        let shell = args.shell;
        #[cfg(not(feature = "shell"))]
        let shell = false;
        Ok(Self {
            read_only: args.read_only,
            exec: !args.read_only && !args.no_exec,
            shell,
            network: args.network != "none",
            writable: writable.map_err(Failure::io("cannot find what commands may write to"))?,
        })
    }

    fn confine(&self) -> Confine {
        Confine {
            writes: Want::IfAvailable,
            writable: self.writable.iter().map(|path| path_of(path)).collect(),
            network: if self.network {
                Network::Direct
            } else {
                Network::None
            },
        }
    }

    /// Adds what runs commands, if anything does.
    fn backend(&self, builder: Builder, local: Local) -> Builder {
        if !self.exec {
            return builder;
        }
        #[cfg(feature = "shell")]
        if self.shell {
            return builder.backend("shell", cairn::backend::Shell::new());
        }
        builder.backend(BACKEND, local.confine(self.confine()))
    }

    fn tools(&self, workspace: &Workspace) -> Tools {
        if self.read_only {
            Tools::read_only(workspace.clone())
        } else {
            Tools::new(workspace.clone())
        }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

pub(crate) fn run(args: &Args) -> Result {
    let dir = match locate::locate(None, Some(&args.replica)) {
        Ok(place) if place.path == b"/" => place.replica,
        // To be made, or none: that is said when it is opened.
        _ => locate::canonical(&args.replica),
    };
    let options = Options {
        create: args.create,
        ..Options::default()
    };
    let request = Request::new(args)?;
    let replica = match host::owner(&dir, &options)? {
        Owner::This(replica) => replica,
        Owner::Other(client) => return client.carry(request),
    };
    let builder = request.backend(Workspace::builder(), Local::new());
    let workspace = builder.of(replica).map_err(failure)?;
    let stop = stopped()?;
    let served = drive(async {
        tokio::select! {
            served = cairn::mcp::serve_stdio(request.tools(&workspace)) => served,
            _ = stop => Ok(()),
        }
    });
    cairn::block_on(workspace.close()).map_err(failure)?;
    served
}

/// Serves a session for another process, in the one that owns the replica. Commands run
/// on its mount, if there is one.
pub(crate) fn serve_other(
    request: &Request,
    host: &Host,
    mut stream: UnixStream,
) -> io::Result<()> {
    let path = host.replica.path().map(locate::canonical);
    let mount = path.and_then(|path| crate::mountinfo::mounts_of(&path).pop());
    let local = mount.map_or_else(Local::new, |at| Local::new().mounted_at(at));
    // Several sessions have the same replica, and none of them is its only one.
    let builder = request.backend(Workspace::builder().forget_execs(), local);
    let workspace = match builder.of(host.replica.clone()).map_err(failure) {
        Ok(workspace) => workspace,
        Err(failure) => {
            return Answer::Failed(Failed {
                code: failure.code(),
                message: failure.report(),
            })
            .send(&mut stream);
        }
    };
    Answer::Ready.send(&mut stream)?;
    stream.set_nonblocking(true)?;
    let served = drive(async {
        let stream = tokio::net::UnixStream::from_std(stream)
            .map_err(|error| McpError::Session(error.to_string()))?;
        let (read, write) = stream.into_split();
        cairn::mcp::serve(request.tools(&workspace), read, write).await
    });
    if let Err(failure) = served.and(cairn::block_on(workspace.close()).map_err(failure)) {
        tracing::info!(failure = failure.report(), "a session of tools has ended");
    }
    Ok(())
}

/// Drives a session to its end.
fn drive(session: impl Future<Output = Result<(), McpError>>) -> Result {
    let driver = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot serve"))?;
    let served = driver.block_on(session);
    // A thread may wait for the standard input, and nothing more will come.
    driver.shutdown_background();
    served.map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(Outcome::Done)
}

/// Comes true with a signal that ends this process.
fn stopped() -> Result<oneshot::Receiver<()>> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::io("cannot wait for signals"))?;
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Whoever waited has ended if this fails.
            let _ = stop.send(());
        }
    });
    Ok(stopped)
}

fn failure(error: WorkspaceError) -> Failure {
    match error {
        WorkspaceError::Open(error) => error.into(),
        WorkspaceError::Fs(source) => Failure::fs("the workspace")(source),
        other => Failure::Refused(crate::failure::report(&other)),
    }
}
