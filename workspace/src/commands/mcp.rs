//! `cairn mcp`: serves the tools for agents to a program that speaks the Model
//! Context Protocol on the standard input and output.

use std::path::PathBuf;

use cairn::backend::Local;
use cairn::exec::{Confine, Network, Want};
use cairn::tools::Tools;
use cairn::{Builder, Options, Workspace, WorkspaceError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;

use crate::failure::{Failure, Outcome, Result};
use crate::{host, locate};

/// The id under which processes run.
const BACKEND: &str = "local";

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// The replica's directory or file
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

impl Args {
    fn confine(&self) -> Confine {
        Confine {
            writes: Want::IfAvailable,
            writable: self.writable.clone(),
            network: if self.network == "none" {
                Network::None
            } else {
                Network::Direct
            },
        }
    }
}

pub(crate) fn run(args: &Args) -> Result {
    let dir = locate::canonical(&args.replica);
    let options = Options {
        create: args.create,
        ..Options::default()
    };
    let replica = host::own(&dir, &options)?;
    let builder = backend(args, Workspace::builder());
    let workspace = builder.of(replica).map_err(failure)?;
    let tools = if args.read_only {
        Tools::read_only(workspace.clone())
    } else {
        Tools::new(workspace.clone())
    };
    let served = serve(tools);
    cairn::block_on(workspace.close()).map_err(failure)?;
    served
}

/// Adds what runs commands, if anything does.
fn backend(args: &Args, builder: Builder) -> Builder {
    #[cfg(feature = "shell")]
    if args.shell {
        return builder.backend("shell", cairn::backend::Shell::new());
    }
    if args.read_only || args.no_exec {
        return builder;
    }
    builder.backend(BACKEND, Local::new().confine(args.confine()))
}

/// Serves until the client or a signal ends it.
fn serve(tools: Tools) -> Result {
    let stop = stopped()?;
    let driver = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot serve"))?;
    let served = driver.block_on(async {
        tokio::select! {
            served = cairn::mcp::serve_stdio(tools) => served,
            _ = stop => Ok(()),
        }
    });
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
