//! One module per command: its arguments, the request they become, and the
//! function that carries the request out on a replica.

pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod clone;
pub(crate) mod completions;
pub(crate) mod conflicts;
pub(crate) mod du;
pub(crate) mod evict;
#[cfg(feature = "shell")]
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod ignore;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod ls;
#[cfg(feature = "mcp")]
pub(crate) mod mcp;
pub(crate) mod mount;
pub(crate) mod serve;
#[cfg(feature = "shell")]
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod token;
pub(crate) mod umount;
mod upstream;

use crate::args::Command;
use crate::failure::Result;

/// Runs a command of the command line.
pub(crate) fn run(command: Command) -> Result {
    if !matches!(command, Command::Mount(_) | Command::Serve(_)) {
        crate::logging::start(false);
    }
    match command {
        Command::Mount(args) => mount::run(&args),
        Command::Umount(args) => umount::run(&args),
        Command::Ls(args) => ls::run(args),
        Command::Cat(args) => cat::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Du(args) => du::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Clone(args) => clone::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Conflicts(args) => conflicts::run(&args),
        Command::Evict(args) => evict::run(&args),
        Command::Ignore(args) => ignore::run(&args),
        Command::Token(args) => token::run(&args),
        #[cfg(feature = "mcp")]
        Command::Mcp(args) => mcp::run(&args),
        #[cfg(feature = "shell")]
        Command::Exec(args) => exec::run(&args),
        #[cfg(feature = "shell")]
        Command::Shell(args) => shell::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// A value as a line of JSON.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(|error| {
        crate::failure::Failure::io("cannot write JSON")(std::io::Error::from(error))
    })?;
    line.push(b'\n');
    Ok(line)
}
