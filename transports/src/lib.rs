//! How replicas reach each other: QUIC and WebSocket connections that carry the
//! sessions of `cairn-protocol`.

#![forbid(unsafe_code)]

mod address;
mod channel;
mod client;
mod counters;
mod driver;
mod error;
mod link;
mod memory;
mod quic;
mod random;
mod server;
mod silence;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
mod websocket;

pub use address::{Address, AddressError, DEFAULT_PORT, Scheme, WorkspaceName};
pub use channel::{Arrivals, Channel, Dialler, Receiver, Sender, host};
pub use client::{
    Beginning, Client, ClientError, ClientEvent, ClientHandle, ClientOptions, Halt, Refusal,
    Replica, State, Upstream,
};
pub use error::{CarrierError, ConnectError};
pub use server::{
    Access, Answer, Answering, Asked, Guests, Hub, Permission, STRANGERS, ServeError, Server,
    ServerBuilder, Workspaces,
};

pub use silence::SILENCE;

/// What this program calls itself in greetings, unless it is told.
const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));
