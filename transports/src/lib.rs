//! How replicas reach each other: QUIC and WebSocket connections that carry the
//! sessions of `cairn-protocol`.
//!
//! There is nothing here yet. The sync protocol comes first; until then a
//! replica is used on one machine.
