//! How caches above the engine, such as a mount's, learn of changes that did
//! not come through them.

use crate::attr::Ino;

/// A cache above the engine.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// Whether the cache still knows this node: an unlinked node is kept as
    /// long. Called with locks held: must not block or call the engine.
    fn knows(&self, ino: Ino) -> bool;

    /// Queues an invalidation. Called with locks held, in the order of the
    /// changes: must not block or call the engine.
    fn invalidate(&self, what: Invalidation);

    /// Returns when everything queued so far has taken effect. Called with no
    /// lock held, after a change that did not come through this cache.
    fn settle(&self);
}

/// What is no longer as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Bytes of a file, and its attributes.
    Content {
        /// The file.
        ino: Ino,
        /// First byte.
        offset: u64,
        /// Number of bytes; `None` for all that follow.
        len: Option<u64>,
    },
    /// A node's attributes or extended attributes.
    Attr {
        /// The node.
        ino: Ino,
    },
    /// What a name points at: it was made or replaced.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// A name went.
    Deleted {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// What it pointed at.
        child: Ino,
    },
}
