//! Errors of filesystem operations and of opening a replica.

use std::path::PathBuf;

/// Why a filesystem operation failed. Each has the errno of POSIX for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// No such file or directory.
    #[error("no such file or directory: {0}")]
    NotFound(String),
    /// The name is taken.
    #[error("already exists: {0}")]
    Exists(String),
    /// A component of the path is not a directory.
    #[error("not a directory: {0}")]
    NotDir(String),
    /// The operation does not apply to a directory.
    #[error("is a directory: {0}")]
    IsDir(String),
    /// The directory has entries.
    #[error("directory not empty: {0}")]
    NotEmpty(String),
    /// An argument makes no sense.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// Refused for this kind of node.
    #[error("operation not permitted: {0}")]
    NotPermitted(&'static str),
    /// A name of more than 255 bytes, or a path of more than 4 096 components.
    #[error("name too long")]
    NameTooLong,
    /// More than 40 symbolic links in a path.
    #[error("too many levels of symbolic links: {0}")]
    Loop(String),
    /// A size beyond 2^63-1, or a value beyond its limit.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoXattr,
    /// A buffer or an extended attribute's value is too small or too large.
    #[error("extended attribute too large")]
    XattrTooLarge,
    /// More links than a node can have.
    #[error("too many links")]
    TooManyLinks,
    /// `seek` beyond the last data.
    #[error("no data or hole after this offset")]
    NoSuchOffset,
    /// The disk under the replica is full: free some space, then repeat.
    #[error("no space left on the disk under the replica")]
    NoSpace,
    /// Not supported here.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// The version did not match, in a compare-and-swap write.
    #[error("the file changed: its version is {actual}, expected {expected}")]
    VersionMismatch {
        /// Version the caller expected.
        expected: u64,
        /// Version found.
        actual: u64,
    },
    /// Stored data is damaged or missing: `cairn check` names it.
    #[error("damaged data: {0}; run `cairn check`")]
    Corrupt(String),
    /// The content is not here, and could not be had from the hub.
    #[error(
        "the content is at the hub only, and cannot be fetched: {0}; reach the hub with `cairn sync` or `cairn mount --upstream`, then repeat"
    )]
    Elsewhere(String),
    /// The disk under the replica failed.
    #[error("the disk under the replica failed: {context}")]
    Io {
        /// What was being done.
        context: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
    /// The database under the replica failed.
    #[error("the replica's database failed")]
    Db(#[source] rusqlite::Error),
    /// The replica is closed.
    #[error("the replica is closed")]
    Closed,
}

impl FsError {
    /// The POSIX error number of this error.
    pub fn errno(&self) -> rustix::io::Errno {
        use rustix::io::Errno;
        match self {
            Self::NotFound(_) => Errno::NOENT,
            Self::Exists(_) => Errno::EXIST,
            Self::NotDir(_) => Errno::NOTDIR,
            Self::IsDir(_) => Errno::ISDIR,
            Self::NotEmpty(_) => Errno::NOTEMPTY,
            Self::Invalid(_) => Errno::INVAL,
            Self::NotPermitted(_) => Errno::PERM,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::Loop(_) => Errno::LOOP,
            Self::TooLarge(_) => Errno::FBIG,
            Self::NoXattr => Errno::NODATA,
            Self::XattrTooLarge => Errno::RANGE,
            Self::TooManyLinks => Errno::MLINK,
            Self::NoSuchOffset => Errno::NXIO,
            Self::NoSpace => Errno::NOSPC,
            Self::NotSupported(_) => Errno::OPNOTSUPP,
            Self::VersionMismatch { .. } => Errno::STALE,
            Self::Elsewhere(_) => Errno::REMOTEIO,
            Self::Corrupt(_) | Self::Db(_) | Self::Closed => Errno::IO,
            Self::Io { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
        }
    }

    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) {
            return Self::NoSpace;
        }
        Self::Io {
            context: context.into(),
            source,
        }
    }
}

/// The error stays whole inside: `io::Error::downcast` gives it back.
impl From<FsError> for std::io::Error {
    fn from(error: FsError) -> Self {
        let like = Self::from_raw_os_error(error.errno().raw_os_error());
        Self::new(like.kind(), error)
    }
}

impl From<rusqlite::Error> for FsError {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map(|e| e.extended_code);
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoSpace,
            // The index of the log could not grow: there is no other reason.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Self::NoSpace,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Corrupt(format!("database: {error}"))
            }
            _ => Self::Db(error),
        }
    }
}

/// Why a replica could not be opened or created. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at this path.
    #[error("no replica at {}; create one with `cairn mount` or `cairn import`", .0.display())]
    Missing(PathBuf),
    /// The path holds something else.
    #[error("{} is not a replica: neither a directory with a cairn.db nor a file that cairn made; give a new path or the path of a replica", .0.display())]
    NotReplica(PathBuf),
    /// Another process owns the replica.
    #[error("the replica {} is in use by {owner}; use that process, or stop it first", .path.display())]
    InUse {
        /// The replica.
        path: PathBuf,
        /// The process that holds the lock, as far as it is known.
        owner: String,
    },
    /// A newer program wrote it.
    #[error("the replica {} has schema {found}, this program knows up to {known}; install a newer cairn", .path.display())]
    NewerSchema {
        /// The replica.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version this program knows.
        known: u32,
    },
    /// The database is damaged.
    #[error("the database of {} is damaged: {detail}; copy the replica before you try to repair it", .path.display())]
    Damaged {
        /// The replica.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The disk failed.
    #[error("cannot open the replica {}: {context}", .path.display())]
    Io {
        /// The replica.
        path: PathBuf,
        /// What was being done.
        context: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
    /// A filesystem operation failed while opening.
    #[error("cannot open the replica {}", .path.display())]
    Fs {
        /// The replica.
        path: PathBuf,
        /// The failure.
        #[source]
        source: FsError,
    },
}

/// The result of a filesystem operation.
pub type Result<T, E = FsError> = std::result::Result<T, E>;
