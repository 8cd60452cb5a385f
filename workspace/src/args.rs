//! The command line.

use clap::{Parser, Subcommand};

#[cfg(feature = "mcp")]
use crate::commands::mcp;
use crate::commands::{
    cat, check, clone, completions, conflicts, du, evict, export, gc, ignore, import, log, ls,
    mount, serve, status, sync, token, umount,
};
#[cfg(feature = "shell")]
use crate::commands::{exec, shell};

const EXIT_CODES: &str = "\
Places:
  A place is a replica (demo.cairn), a path in one (demo.cairn/src), or a path
  below a mount of one (demo/src). With --replica DIR it is a path in DIR.
  Commands on a replica that is mounted are run by the process that mounted it.

Exit codes:
  0  done
  1  done, but problems were found or something had to be left out
  2  the command line makes no sense
  3  the replica cannot be opened
  4  mounting or unmounting failed
  5  anything else failed
  The exit code of exec and shell is that of the script.";

/// A workspace filesystem for agents and the programs they run
#[derive(Debug, Parser)]
#[command(name = "cairn", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One verb per job.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a replica as a filesystem; it is created if it is not there
    Mount(mount::Args),
    /// Unmount, and wait until the replica is closed
    Umount(umount::Args),
    /// List a directory
    Ls(ls::Args),
    /// Print files
    Cat(cat::Args),
    /// Copy a directory, a file or a tar archive into a replica
    Import(import::Args),
    /// Copy out of a replica, to a directory or a tar archive
    Export(export::Args),
    /// Tell what a replica holds, and who owns it
    Status(status::Args),
    /// Tell what takes the space
    Du(du::Args),
    /// Give back space that nothing needs
    Gc(gc::Args),
    /// Verify everything, and name what is damaged
    Check(check::Args),
    /// Tell what changed since a cursor
    Log(log::Args),
    /// Serve replicas as hubs that others follow
    Serve(serve::Args),
    /// Make a replica of a hub's workspace
    Clone(clone::Args),
    /// Bring a replica in step with its hub
    Sync(sync::Args),
    /// List, show and end conflicts between edits of several replicas
    Conflicts(conflicts::Args),
    /// Show or change what is neither pushed to the hub nor taken from it
    Ignore(ignore::Args),
    /// Give up the bytes of contents that the hub holds; who reads them fetches them again
    Evict(evict::Args),
    /// Show or make the token that a replica's hub asks for
    Token(token::Args),
    /// Serve the tools for agents over the Model Context Protocol, on the standard input and output
    #[cfg(feature = "mcp")]
    Mcp(mcp::Args),
    /// Run a bash script on a replica, without a mount
    #[cfg(feature = "shell")]
    Exec(exec::Args),
    /// A bash prompt on a replica, without a mount
    #[cfg(feature = "shell")]
    Shell(shell::Args),
    /// Print the completions for a shell
    Completions(completions::Args),
}
