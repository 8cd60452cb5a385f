//! Why an operation on a workspace failed.

use cairn_engine::{CursorError, FsError, OpenError};

use crate::backend::BackendError;
use crate::exec::ExecError;

/// Why an operation on a workspace failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The replica cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An operation on the filesystem failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// An exec failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The log cannot be read from a cursor.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// No backend has this id.
    #[error("there is no backend {id:?}; there are {}", list(.known))]
    UnknownBackend {
        /// The id that was asked for.
        id: String,
        /// Those that there are, in their order.
        known: Vec<String>,
    },
    /// The workspace has no backend at all.
    #[error(
        "the workspace has no backend that could run a command; register one when it is opened"
    )]
    NoBackend,
    /// Two backends have the same id.
    #[error("two backends have the id {0:?}; give each its own")]
    DuplicateBackend(String),
    /// The backend could not be connected. The next call tries again.
    #[error("backend {id:?} cannot be connected")]
    Connect {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// The changes could not be brought to or from a backend.
    #[error("backend {id:?} cannot be synced")]
    Sync {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// A backend did not end in order.
    #[error("backend {id:?} did not end in order")]
    Close {
        /// Its id.
        id: String,
        /// The failure.
        #[source]
        source: BackendError,
    },
    /// The system refused something.
    #[error("the workspace cannot work: {0}")]
    Io(#[from] std::io::Error),
    /// The workspace was closed.
    #[error("the workspace is closed")]
    Closed,
}

fn list(known: &[String]) -> String {
    if known.is_empty() {
        return "none".into();
    }
    known.join(", ")
}

/// The result of operations on a workspace.
pub(crate) type Result<T, E = WorkspaceError> = std::result::Result<T, E>;
