//! How replicas reach each other: QUIC and WebSocket connections that carry the
//! sessions of `cairn-protocol`.

#![forbid(unsafe_code)]

mod error;
mod link;
mod memory;
mod quic;
mod random;
pub mod tls;
mod websocket;

pub use error::{CarrierError, ConnectError};
