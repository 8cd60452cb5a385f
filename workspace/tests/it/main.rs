//! The program `cairn`, run as its users run it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test relies on ends it when it is not so"
)]

mod commands;
mod daemon;
mod daemons;
mod errors;
mod exec;
mod hostile;
mod hubs;
mod layers;
mod mcp;
mod program;
mod sandbox;
mod sandbox_daemon;
mod sandbox_exec;
mod sandbox_faults;
mod scratch;
#[cfg(feature = "shell")]
mod shell;
mod sync;
mod sync_refused;
mod sync_times;
mod sync_trouble;
mod tools;
mod transfer;
mod trees;
mod workspace;
