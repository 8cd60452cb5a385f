//! How a replica is opened: every knob with its default and what it costs.

use std::time::Duration;

use cairn_protocol::ReplicaTag;

/// How to open a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// Create the replica when there is none. Default: `true`.
    pub create: bool,
    /// Create it as one file, with the chunks in the database: easier to copy
    /// and to hand on, slower for large files. A replica that is there already
    /// stays as it is. Default: `false`.
    pub single_file: bool,
    /// Longest time a change stays in memory only: what a crash of the process
    /// may lose without `fsync`. Default: 50 ms, range 1 ms to 10 s.
    pub commit_interval: Duration,
    /// Nodes kept in memory, about 300 bytes each with their name.
    /// Default: 400 000 (about 120 MiB), at least 1 000.
    pub cached_nodes: usize,
    /// Bytes of file contents kept in memory, dirty and clean together.
    /// Default: 64 MiB, at least 4 MiB.
    pub cached_bytes: usize,
    /// Page caches of the database, in bytes: half of it for the connection that
    /// writes, a quarter for the one that reads. Default: 32 MiB.
    pub database_cache_bytes: usize,
    /// Files up to this size live in the database row of their node.
    /// Default: 512 bytes, at most 4 096.
    pub inline_max: usize,
    /// Free disk space below which writes answer "no space", so that what was
    /// already acknowledged can still be committed. Default: 32 MiB.
    pub reserve_bytes: u64,
    /// Owner of the root directory of a new replica: `(uid, gid)`.
    /// Default: the user of this process.
    pub root_owner: Option<(u32, u32)>,
    /// Tag of a new replica, for who needs the same one each time: no two
    /// replicas that have to do with each other may have one. Default: random.
    pub tag: Option<ReplicaTag>,
    /// Give a replica that is there another identity: another tag for what it makes
    /// and pushes from now on, and a new epoch for its log. It is what a copy of a
    /// replica needs to follow the hub of the original; what it has not pushed stays
    /// to be pushed. Default: `false`.
    pub renew_identity: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            single_file: false,
            commit_interval: Duration::from_millis(50),
            cached_nodes: 400_000,
            cached_bytes: 64 << 20,
            database_cache_bytes: 32 << 20,
            inline_max: 512,
            reserve_bytes: 32 << 20,
            root_owner: None,
            tag: None,
            renew_identity: false,
        }
    }
}

impl Options {
    /// The same options with every value moved into its range.
    pub(crate) fn clamped(mut self) -> Self {
        self.commit_interval = self
            .commit_interval
            .clamp(Duration::from_millis(1), Duration::from_secs(10));
        self.cached_nodes = self.cached_nodes.max(1_000);
        self.cached_bytes = self.cached_bytes.max(4 << 20);
        self.inline_max = self.inline_max.min(4_096);
        self
    }
}
