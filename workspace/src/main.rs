//! The program `cairn`: reads the command line, runs one command, and ends with
//! the exit code that tells how it went.

#[cfg(all(feature = "exec", target_os = "linux", target_env = "gnu"))]
mod arenas;
mod args;
mod commands;
mod console;
mod control;
mod daemon;
mod failure;
mod host;
mod locate;
mod logging;
mod mountinfo;
mod terminal;
mod text;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The shell backend starts this program again to run scripts in.
    #[cfg(feature = "shell")]
    cairn::backend::shell::worker();
    #[cfg(all(feature = "exec", target_os = "linux", target_env = "gnu"))]
    arenas::bound();
    let cli = args::Cli::parse();
    match commands::run(cli.command) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(failure) => {
            terminal::say_failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}
