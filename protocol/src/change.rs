//! A change: the new value of one register, or the birth or end of a node.
//!
//! Owns the encoding changes have in the log and on the wire. It is postcard, and
//! strict: one value has one encoding, so changes can be compared and hashed as
//! bytes. Decoding is total (I12): any bytes give a change or an error, and memory
//! stays within a small multiple of the input.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::cursor::Ver;
use crate::data::Data;
use crate::flavor;
use crate::id::NodeId;
use crate::limits::XATTR_VALUE_MAX;
use crate::name::{Name, XattrName};
use crate::register::{Meta, NodeKind, Register};

/// What happened, and in which commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The commit.
    pub ver: Ver,
    /// What happened.
    pub entry: Entry,
}

/// What a change says. The order of the variants is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A node exists.
    Node {
        /// The node.
        id: NodeId,
        /// What it is, for ever.
        kind: NodeKind,
    },
    /// A node has this content.
    Data {
        /// The node.
        node: NodeId,
        /// Its content.
        data: Data,
    },
    /// A node has these attributes.
    Meta {
        /// The node.
        node: NodeId,
        /// Its attributes.
        meta: Meta,
    },
    /// A name in a directory stands for a node, or for nothing any more.
    Name {
        /// The directory.
        parent: NodeId,
        /// The entry's name.
        name: Name,
        /// The node, or `None` for a tombstone.
        node: Option<NodeId>,
    },
    /// A node has an extended attribute, or has it no more.
    Xattr {
        /// The node.
        node: NodeId,
        /// The attribute's name.
        name: XattrName,
        /// The attribute's value, at most [`XATTR_VALUE_MAX`] bytes, or `None` for a tombstone.
        #[serde(deserialize_with = "xattr_value")]
        value: Option<Bytes>,
    },
    /// A node is dead; its id never comes back.
    Gone {
        /// The node.
        node: NodeId,
    },
}

/// Why bytes are not a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end early, or a value in them is not allowed.
    #[error("the change is malformed")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the change.
    #[error("{len} bytes follow the change")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// The bytes mean a change that is encoded otherwise.
    #[error("the change is not in its one encoding")]
    NotCanonical,
}

impl Change {
    /// The bytes of the change.
    #[expect(
        clippy::missing_panics_doc,
        reason = "postcard fails for want of space or of a length; a vector and these types have both"
    )]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a change always encodes")
    }

    /// Adds the bytes of the change to others.
    #[expect(
        clippy::expect_used,
        reason = "postcard fails for want of space or of a length; a vector and these types have both"
    )]
    pub(crate) fn encode_to(&self, bytes: &mut Vec<u8>) {
        flavor::append(self, bytes).expect("a change always encodes");
    }

    /// The change with these bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not exactly what [`Change::encode`] gives
    /// for a change within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (change, rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(DecodeError::Malformed)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing { len: rest.len() });
        }
        // postcard reads a number padded with zero groups; such bytes must not count as equal.
        if change.encode() != bytes {
            return Err(DecodeError::NotCanonical);
        }
        Ok(change)
    }
}

impl Entry {
    /// The register the entry sets; `None` when it is about a node's existence.
    pub fn register(&self) -> Option<Register> {
        match self {
            Self::Data { node, .. } => Some(Register::Data(*node)),
            Self::Meta { node, .. } => Some(Register::Meta(*node)),
            Self::Name { parent, name, .. } => Some(Register::Name {
                parent: *parent,
                name: name.clone(),
            }),
            Self::Xattr { node, name, .. } => Some(Register::Xattr {
                node: *node,
                name: name.clone(),
            }),
            Self::Node { .. } | Self::Gone { .. } => None,
        }
    }
}

pub(crate) fn xattr_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Bytes>, D::Error> {
    let value = Option::<Bytes>::deserialize(deserializer)?;
    match &value {
        Some(bytes) if bytes.len() > XATTR_VALUE_MAX => Err(de::Error::invalid_length(
            bytes.len(),
            &"at most 65536 bytes",
        )),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(counter: u64) -> Change {
        let node = NodeId {
            counter,
            ..NodeId::ROOT
        };
        Change {
            ver: 7,
            entry: Entry::Gone { node },
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        assert_eq!(gone(300).encode(), [7, 5, 0, 0xac, 2]);
        let name = Entry::Name {
            parent: NodeId::ROOT,
            name: Name::new(b"ab").unwrap(),
            node: Some(NodeId {
                counter: 2,
                ..NodeId::ROOT
            }),
        };
        assert_eq!(
            Change {
                ver: 1,
                entry: name
            }
            .encode(),
            [1, 3, 0, 1, 2, b'a', b'b', 1, 0, 2]
        );
    }

    #[test]
    fn i12_trailing_and_padded_bytes_are_refused() {
        assert_eq!(Change::decode(&[7, 5, 0, 1]), Ok(gone(1)));
        assert_eq!(
            Change::decode(&[7, 5, 0, 1, 0]),
            Err(DecodeError::Trailing { len: 1 })
        );
        assert_eq!(
            Change::decode(&[7, 5, 0, 0x81, 0]),
            Err(DecodeError::NotCanonical)
        );
        assert!(matches!(
            Change::decode(&[7, 5, 0]),
            Err(DecodeError::Malformed(_))
        ));
        assert!(matches!(
            Change::decode(&[7, 6, 0, 1]),
            Err(DecodeError::Malformed(_))
        ));
    }

    #[test]
    fn i12_an_attribute_value_is_bounded() {
        let with = |len: usize| {
            let name = XattrName::new(b"user.x").unwrap();
            let value = Some(vec![1; len].into());
            Change {
                ver: 1,
                entry: Entry::Xattr {
                    node: NodeId::ROOT,
                    name,
                    value,
                },
            }
        };
        let largest = with(XATTR_VALUE_MAX);
        assert_eq!(Change::decode(&largest.encode()), Ok(largest));
        assert!(Change::decode(&with(XATTR_VALUE_MAX + 1).encode()).is_err());
    }

    #[test]
    fn an_entry_knows_its_register() {
        assert_eq!(gone(1).entry.register(), None);
        let entry = Entry::Data {
            node: NodeId::ROOT,
            data: Data::Dir,
        };
        assert_eq!(entry.register(), Some(Register::Data(NodeId::ROOT)));
    }
}
