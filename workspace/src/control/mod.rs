//! How a command reaches the process that owns a replica: a socket in the
//! replica's directory.
//!
//! A connection carries one request and its answer as frames, see [`wire`].
//! The owner runs the very function that would run here, with the connection
//! as its console.

mod address;
mod client;
mod server;
mod wire;

pub(crate) use client::{Client, watch};
pub(crate) use server::Server;
#[cfg(feature = "mcp")]
pub(crate) use wire::{Answer, Failed};
