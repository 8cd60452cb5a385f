//! Following a hub, and being one.
//!
//! A *hub* gives the edits of all replicas of a workspace one order and merges
//! them; see `SPEC.md`. [`Serve`] makes replicas of this process hubs that others
//! reach over QUIC and WebSocket. [`Follow`] keeps a replica in step with a hub:
//! what is edited here is pushed, what others edit appears here, also on a mount.
//! Nothing is lost without a word: who edits the same file at the same time finds
//! both contents, one of them under a conflict name.
//!
//! ```
//! use cairn::Replica;
//! use cairn::sync::{Follow, Hub, Serve, Upstream};
//!
//! // A hub, and a replica that follows it; as a rule on another machine.
//! let server = Serve::builder().listen("127.0.0.1:0".parse()?);
//! let origin = Replica::in_memory()?;
//! origin.write_file("/hello.txt", b"Hello")?;
//! let server = server.hub(Hub::new("demo", &origin)?).start()?;
//!
//! let replica = Replica::in_memory()?;
//! let upstream = Upstream::new(&format!("ws://{}/demo", server.address()).parse()?);
//! let follow = Follow::start(&replica, &upstream)?;
//! follow.fence()?; // everything is pushed, and what the hub has is here
//! assert_eq!(replica.read_file("/hello.txt")?, b"Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | `follow` | a replica in step with a hub |
//! | `serve` | replicas as hubs, on one address |
//! | `own` | a replica as a hub for the sandboxes of its workspace |
//! | `upstream` | where the hub of a replica is, kept with the replica |
//! | `tokens` | who may come to a hub, kept with its replica |
//! | `error` | why it does not work |

mod error;
mod follow;
#[cfg(feature = "exec")]
mod own;
mod serve;
mod tokens;
mod upstream;

pub use cairn_engine::{Conflict, SyncStatus};
pub use cairn_protocol::Outcome;
pub use cairn_protocol::session::{Counters, Event};
pub use cairn_protocol::wire::Code;
pub use cairn_transports::tls::{Fingerprint, FingerprintError, Identity};
pub use cairn_transports::{
    Address, AddressError, ClientError, ClientEvent, DEFAULT_PORT, Refusal, Scheme, State,
    WorkspaceName,
};

pub use error::SyncError;
pub use follow::{Events, Follow};
pub use serve::{Hub, Serve, ServeBuilder};
pub use tokens::{Permission, new_token, tokens};
pub use upstream::{Upstream, Verify};

#[cfg(feature = "exec")]
pub(crate) use follow::Attached;
#[cfg(feature = "exec")]
pub(crate) use own::{OwnHub, proceed};

/// A runtime of its own, so that callers need none.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("cairn-sync")
        .enable_all()
        .build()
}
