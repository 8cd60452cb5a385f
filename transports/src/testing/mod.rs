//! Links with faults between a client and a server, for tests and benchmarks:
//! they delay, lose, and cut.
//!
//! | module | owns |
//! | --- | --- |
//! | `tcp` | a link for WebSocket |
//! | `udp` | a link for QUIC |

mod tcp;
mod udp;

pub use tcp::TcpLink;
pub use udp::UdpLink;
