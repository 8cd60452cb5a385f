//! A hub's end: many workspaces on one address, over QUIC (UDP) and WebSocket
//! (TCP, the same port), with `/health` and `/metrics` beside.
//!
//! | module | owns |
//! | --- | --- |
//! | `builder` | what is refused before anything listens |
//! | `workspaces` | what the program serves: hubs and their tokens |
//! | `doorman` | who may be here: the first action of each session |
//! | `registry` | the connections that there are; the newest of each replica |
//! | `accept` | connections, until they have a session |
//! | `guests` | what a daemon serves on its address instead |
//! | `http` | requests on the TCP port |
//! | `metrics` | numbers for people |
//!
//! A stranger, that is a connection that was not admitted, has one of
//! [`STRANGERS`] places, 10 seconds, and buffers of a few KiB.

mod accept;
mod builder;
mod doorman;
mod guests;
mod http;
mod metrics;
mod registry;
mod workspaces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::Code;
use tokio::task::JoinHandle;

use crate::driver::Stop;
use crate::tls::Fingerprint;

pub(crate) use accept::hub_config;
pub use builder::{ServeError, ServerBuilder};
pub use guests::{Answer, Answering, Asked, Guests};
pub use workspaces::{Access, Hub, Permission, Workspaces};

use registry::Registry;

/// Connections that were not admitted yet, at most; others are turned away.
pub const STRANGERS: usize = 256;

/// How long a connection may take until its greeting has come.
const GREETING: Duration = Duration::from_secs(10);

/// How long sessions have to say goodbye when a server ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// A server. Dropping it ends it at once, without a word to clients.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    fingerprint: Option<Fingerprint>,
    registry: Arc<Registry>,
    listeners: Vec<JoinHandle<()>>,
    endpoint: Option<quinn::Endpoint>,
}

impl Server {
    /// A server that is to be.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where it listens, on UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients know it by, if it has a certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> String {
        metrics::text(&self.registry)
    }

    /// Says goodbye to all clients (`E_SHUTDOWN`, so that they come again), waits
    /// until their last actions are done, and ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the server as dropping the server does.
    pub async fn shutdown(mut self) {
        for listener in self.listeners.drain(..) {
            listener.abort();
            let _ = listener.await;
        }
        self.registry.stop_all(&Stop {
            code: Code::SHUTDOWN,
            detail: "the hub ends",
        });
        let _ = tokio::time::timeout(FAREWELL, self.registry.all_gone()).await;
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.close(quinn::VarInt::from_u32(Code::SHUTDOWN.0.into()), b"");
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}
