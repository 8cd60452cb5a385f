//! How replicas reach each other: QUIC and WebSocket connections that carry the
//! sessions of `cairn-protocol`.

#![forbid(unsafe_code)]

mod address;
mod driver;
mod error;
mod link;
mod memory;
mod quic;
mod random;
pub mod tls;
mod websocket;

pub use address::{Address, AddressError, DEFAULT_PORT, Scheme, WorkspaceName};
pub use error::{CarrierError, ConnectError};
