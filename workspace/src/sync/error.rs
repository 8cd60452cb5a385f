//! Why a replica is not in step with its hub, or cannot be one.

use std::sync::Arc;

use cairn_engine::FsError;
use cairn_protocol::session::By;
use cairn_protocol::wire::Code;
use cairn_transports::tls::TlsError;
use cairn_transports::{ClientError, ServeError};

/// Why sync does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// There is no session with the hub.
    #[error("not in step with the hub {address}{}", hint_for(source))]
    Client {
        /// The hub.
        address: String,
        /// Why.
        #[source]
        source: Arc<ClientError>,
    },
    /// The hub refuses something.
    #[error("the hub {address} refuses it: {code}{}", hint(Some(*code)))]
    Refused {
        /// The hub.
        address: String,
        /// Why.
        code: Code,
    },
    /// What comes from the hub would remove most of the replica.
    #[error(
        "the hub {address} would remove {removed} of {of} nodes; look at it there, and go on with \
         --proceed if it is right"
    )]
    Halted {
        /// The hub.
        address: String,
        /// Nodes that would go.
        removed: u64,
        /// Nodes that there are.
        of: u64,
    },
    /// The replica has no hub.
    #[error("the replica follows no hub; `cairn sync DIR --upstream URL` gives it one")]
    NoUpstream,
    /// The name cannot be that of a workspace.
    #[error(
        "{0:?} cannot be the name of a workspace: 1 to 64 letters, digits, dots, dashes and \
         underscores"
    )]
    Name(String),
    /// Two workspaces of one server have one name.
    #[error("two workspaces are called {0}; name one of them otherwise, as NAME=REPLICA")]
    Twice(String),
    /// The server does not start.
    #[error("cannot serve")]
    Serve(#[from] ServeError),
    /// The certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The replica failed.
    #[error("the replica failed")]
    Fs(#[from] FsError),
    /// What the replica keeps of its hub makes no sense.
    #[error("the replica's property {0} is damaged; set it again")]
    Property(&'static str),
    /// The machine has no threads or sockets left.
    #[error("cannot start sync")]
    Start(#[source] std::io::Error),
}

/// What to do about the end of a session.
fn hint_for(error: &ClientError) -> &'static str {
    match error {
        ClientError::Ended(ended) if ended.by == By::Us && ended.code == Code::QUOTA => {
            " (make space on the disk of the replica)"
        }
        other => hint(other.code()),
    }
}

/// What to do about an error, as far as the code tells.
fn hint(code: Option<Code>) -> &'static str {
    match code {
        Some(Code::AUTH) => " (give it the workspace's token, see `cairn token`)",
        Some(Code::READ_ONLY) => " (what is edited here stays here; its token may only read)",
        Some(Code::WORKSPACE) => " (the hub serves others, look at its address)",
        Some(Code::REPLICA_FORKED | Code::TAG_TAKEN) => {
            " (another replica has the identity of this one, as a copy of it has: give this one \
             its own with `cairn sync DIR --new-identity`, which keeps what is only here)"
        }
        Some(Code::VERSION) => " (the two programs are of different times: update the older)",
        Some(Code::QUOTA) => " (make space on its disk)",
        Some(Code::CHUNK_MISSING | Code::CHUNK_CORRUPT) => {
            " (its store is damaged: `cairn check` there names the file; a replica that has it \
             gives it back with `cairn sync`; a clone with --lazy gets everything else)"
        }
        _ => "",
    }
}
