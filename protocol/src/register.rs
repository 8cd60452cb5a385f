//! What a tree is made of: nodes of a kind, and registers that change one by one.
//!
//! A node's state is split so that edits of different things never conflict: its
//! content, its attributes, each of its extended attributes and each of its names
//! have versions of their own.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::name::{Name, XattrName};
use crate::time::Timestamp;

/// What a node is, from its creation to its end. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum NodeKind {
    /// A regular file.
    File = 0,
    /// A directory.
    Dir = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
}

/// A number that stands for no [`NodeKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of node has the number {0}")]
pub struct UnknownKind(pub u8);

impl TryFrom<u8> for NodeKind {
    type Error = UnknownKind;

    fn try_from(number: u8) -> Result<Self, UnknownKind> {
        Ok(match number {
            0 => Self::File,
            1 => Self::Dir,
            2 => Self::Symlink,
            3 => Self::Fifo,
            4 => Self::Socket,
            5 => Self::CharDevice,
            6 => Self::BlockDevice,
            _ => return Err(UnknownKind(number)),
        })
    }
}

impl From<NodeKind> for u8 {
    fn from(kind: NodeKind) -> Self {
        kind as Self
    }
}

/// The key of something that changes and has a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Register {
    /// The content of a node.
    Data(NodeId),
    /// Mode, owner and times of a node.
    Meta(NodeId),
    /// What a name in a directory stands for.
    Name {
        /// The directory.
        parent: NodeId,
        /// The entry's name.
        name: Name,
    },
    /// One extended attribute of a node.
    Xattr {
        /// The node.
        node: NodeId,
        /// The attribute's name.
        name: XattrName,
    },
}

/// A mode with bits beside the 12 of permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mode {mode:#o} has bits beside the 12 of permission")]
pub struct MetaError {
    /// The refused mode.
    pub mode: u32,
}

/// The attributes of a node that replicas share. Access and change times are each replica's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawMeta")]
pub struct Meta {
    /// Permission: `rwx` for owner, group and others, set-user-id, set-group-id, sticky.
    /// At most [`Meta::MODE_MASK`]; the kind of node is not part of it.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// When the node was created.
    pub btime: Timestamp,
}

#[derive(Deserialize)]
struct RawMeta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    btime: Timestamp,
}

impl Meta {
    /// The 12 bits of permission.
    pub const MODE_MASK: u32 = 0o7777;
}

impl TryFrom<RawMeta> for Meta {
    type Error = MetaError;

    fn try_from(raw: RawMeta) -> Result<Self, MetaError> {
        let RawMeta {
            mode,
            uid,
            gid,
            mtime,
            btime,
        } = raw;
        if mode & !Self::MODE_MASK != 0 {
            return Err(MetaError { mode });
        }
        Ok(Self {
            mode,
            uid,
            gid,
            mtime,
            btime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_kinds_are_stable() {
        let kinds: Vec<_> = (0..=u8::MAX)
            .filter_map(|n| NodeKind::try_from(n).ok())
            .collect();
        assert_eq!(kinds.len(), 7);
        for (number, kind) in (0..).zip(&kinds) {
            assert_eq!(u8::from(*kind), number);
            assert_eq!(postcard::to_stdvec(kind), Ok(vec![number]));
        }
        assert_eq!(kinds[0], NodeKind::File);
        assert_eq!(kinds[6], NodeKind::BlockDevice);
    }

    #[test]
    fn decoding_refuses_a_mode_with_a_file_type() {
        let meta = |mode| Meta {
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::EPOCH,
            btime: Timestamp::EPOCH,
        };
        let encoded = postcard::to_stdvec(&meta(0o7777)).unwrap();
        assert_eq!(postcard::from_bytes(&encoded), Ok(meta(0o7777)));
        let encoded = postcard::to_stdvec(&meta(0o100_644)).unwrap();
        assert!(postcard::from_bytes::<Meta>(&encoded).is_err());
    }
}
