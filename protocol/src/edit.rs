//! An edit: what a replica did to one register, and what it saw there before.
//!
//! A replica pushes its edits in *batches*. A batch is a set: each register is in
//! it at most once, with its newest value, and the order of the edits means
//! nothing. What the replica saw is that of the first edit that the hub has not
//! acknowledged (R11), so the hub can tell whether anybody came between.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::change::Entry;
use crate::cursor::Ver;
use crate::data::Data;
use crate::id::NodeId;
use crate::name::{Name, XattrName};
use crate::register::{Meta, NodeKind, Register};

/// One edit. The order of the variants is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// The replica made a node.
    New {
        /// The node, whose id the replica minted.
        node: NodeId,
        /// What it is, for ever.
        kind: NodeKind,
    },
    /// The replica gave a node this content.
    Data {
        /// The node.
        node: NodeId,
        /// The version it saw; 0 for none.
        base: Ver,
        /// The content.
        data: Data,
    },
    /// The replica changed attributes of a node.
    Meta {
        /// The node.
        node: NodeId,
        /// The version it saw; 0 for none.
        base: Ver,
        /// Which attributes it changed.
        fields: MetaFields,
        /// Their values; the others do not count.
        meta: Meta,
    },
    /// The replica set or removed an extended attribute.
    Xattr {
        /// The node.
        node: NodeId,
        /// The attribute's name.
        name: XattrName,
        /// The version it saw; 0 for none.
        base: Ver,
        /// The value, or `None` to remove it.
        #[serde(deserialize_with = "crate::change::xattr_value")]
        value: Option<Bytes>,
    },
    /// The replica made a name stand for another node, or for none.
    Name {
        /// The directory.
        parent: NodeId,
        /// The entry's name.
        name: Name,
        /// The node it saw there.
        was: Option<NodeId>,
        /// The node it put there.
        node: Option<NodeId>,
    },
    /// The replica removed the last name that it knew of a node.
    Drop {
        /// The node.
        node: NodeId,
        /// The version of its content that it saw; 0 for none.
        data_base: Ver,
    },
}

/// Attributes of a node, as a set of bits. The numbers are part of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct MetaFields(u8);

/// Bits that stand for no attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no attributes have the bits {0:#x}")]
pub struct UnknownFields(pub u8);

impl MetaFields {
    /// No attribute.
    pub const NONE: Self = Self(0);
    /// [`Meta::mode`].
    pub const MODE: Self = Self(1);
    /// [`Meta::uid`].
    pub const UID: Self = Self(2);
    /// [`Meta::gid`].
    pub const GID: Self = Self(4);
    /// [`Meta::mtime`].
    pub const MTIME: Self = Self(8);
    /// [`Meta::btime`].
    pub const BTIME: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// These and those.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but not those.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are among them.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// In which attributes two values differ.
    pub fn between(old: &Meta, new: &Meta) -> Self {
        let bit = |differs, field: Self| if differs { field } else { Self::NONE };
        bit(old.mode != new.mode, Self::MODE)
            .with(bit(old.uid != new.uid, Self::UID))
            .with(bit(old.gid != new.gid, Self::GID))
            .with(bit(old.mtime != new.mtime, Self::MTIME))
            .with(bit(old.btime != new.btime, Self::BTIME))
    }

    /// `old` with these attributes taken from `new`.
    pub fn take(self, old: &Meta, new: &Meta) -> Meta {
        Meta {
            mode: if self.has(Self::MODE) {
                new.mode
            } else {
                old.mode
            },
            uid: if self.has(Self::UID) {
                new.uid
            } else {
                old.uid
            },
            gid: if self.has(Self::GID) {
                new.gid
            } else {
                old.gid
            },
            mtime: if self.has(Self::MTIME) {
                new.mtime
            } else {
                old.mtime
            },
            btime: if self.has(Self::BTIME) {
                new.btime
            } else {
                old.btime
            },
        }
    }
}

impl TryFrom<u8> for MetaFields {
    type Error = UnknownFields;

    fn try_from(bits: u8) -> Result<Self, UnknownFields> {
        match bits & !Self::ALL.0 {
            0 => Ok(Self(bits)),
            unknown => Err(UnknownFields(unknown)),
        }
    }
}

impl From<MetaFields> for u8 {
    fn from(fields: MetaFields) -> Self {
        fields.0
    }
}

impl Edit {
    /// The register that the edit sets; `None` when it is about a node's existence.
    pub fn register(&self) -> Option<Register> {
        match self {
            Self::Data { node, .. } => Some(Register::Data(*node)),
            Self::Meta { node, .. } => Some(Register::Meta(*node)),
            Self::Xattr { node, name, .. } => Some(Register::Xattr {
                node: *node,
                name: name.clone(),
            }),
            Self::Name { parent, name, .. } => Some(Register::Name {
                parent: *parent,
                name: name.clone(),
            }),
            Self::New { .. } | Self::Drop { .. } => None,
        }
    }

    /// What it does when it takes effect just as it says.
    pub fn effect(&self) -> Entry {
        match self.clone() {
            Self::New { node: id, kind } => Entry::Node { id, kind },
            Self::Data { node, data, .. } => Entry::Data { node, data },
            Self::Meta { node, meta, .. } => Entry::Meta { node, meta },
            Self::Xattr {
                node, name, value, ..
            } => Entry::Xattr { node, name, value },
            Self::Name {
                parent, name, node, ..
            } => Entry::Name { parent, name, node },
            Self::Drop { node, .. } => Entry::Gone { node },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn meta(mode: u32, uid: u32) -> Meta {
        Meta {
            mode,
            uid,
            gid: 0,
            mtime: Timestamp::EPOCH,
            btime: Timestamp::EPOCH,
        }
    }

    #[test]
    fn r10_attributes_are_taken_one_by_one() {
        let (old, new) = (meta(0o644, 1), meta(0o600, 2));
        let fields = MetaFields::between(&old, &new);
        assert_eq!(fields, MetaFields::MODE.with(MetaFields::UID));
        assert_eq!(fields.take(&old, &new), new);
        assert_eq!(MetaFields::MODE.take(&old, &new), meta(0o600, 1));
        assert_eq!(MetaFields::NONE.take(&old, &new), old);
    }

    #[test]
    fn i12_bits_without_a_meaning_are_refused() {
        for bits in 0..=u8::MAX {
            let decoded = postcard::from_bytes::<MetaFields>(&[bits]);
            assert_eq!(decoded.is_ok(), bits < 32, "{bits}");
        }
    }
}
