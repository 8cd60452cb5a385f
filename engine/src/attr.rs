//! What the filesystem says about a node: attributes, and requests to change them.

use cairn_protocol::{NodeKind, Timestamp};

/// An inode number: private to one replica, never reused, stable over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

impl std::fmt::Display for Ino {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inode {}", self.0)
    }
}

/// The attributes of a node, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// What kind of node it is.
    pub kind: NodeKind,
    /// Permission bits, set-id bits and the sticky bit: the low 12 bits of `st_mode`.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a character or block device.
    pub rdev: u32,
    /// Number of names; a directory counts itself and each subdirectory.
    pub nlink: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated size in units of 512 bytes; holes are not counted.
    pub blocks: u64,
    /// Last read, kept by the `relatime` rule.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
}

/// A time to set: given, or the time of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Timestamp),
}

/// A request to change attributes: what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (low 12 bits of `st_mode`).
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: truncates or extends with a hole.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of anything; set by kernels that keep times themselves.
    pub ctime: Option<Timestamp>,
    /// Clear set-user-id, and set-group-id where the group may execute: what
    /// `write`, `truncate` and `chown` do to a program.
    pub kill_suid_gid: bool,
}

/// What a new node is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Kind; a symbolic link has its own call.
    pub kind: NodeKind,
    /// Permission bits, with the umask applied.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group; a set-group-id parent directory overrides it.
    pub gid: u32,
    /// Device number, for devices.
    pub rdev: u32,
}

/// What `rename` does when the target exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Fail with [`crate::FsError::Exists`].
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// What `set_xattr` requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Set,
    /// Fail if it exists.
    Create,
    /// Fail if it does not exist.
    Replace,
}

/// What `seek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The next byte that may hold data.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

/// What `allocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Make sure of space; extends the file unless `keep_size`.
    Reserve {
        /// Leave the size as it is.
        keep_size: bool,
    },
    /// Turn the range into a hole; the size stays.
    PunchHole,
    /// Make the range read as zeros; extends the file unless `keep_size`.
    Zero {
        /// Leave the size as it is.
        keep_size: bool,
    },
}

/// One entry of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// The node's attributes.
    pub attr: &'a Attr,
    /// Pass this to `read_dir` to go on after this entry; stays valid while
    /// other entries come and go.
    pub cookie: u64,
}

/// Space and counts, for `statfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of the disk under the replica.
    pub total_bytes: u64,
    /// Bytes free for anyone.
    pub free_bytes: u64,
    /// Bytes free for an unprivileged user.
    pub available_bytes: u64,
    /// Nodes in the replica.
    pub nodes: u64,
}
