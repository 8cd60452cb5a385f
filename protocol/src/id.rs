//! Who made a node: identities that are never used twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::{ParseError, parse_decimal};

/// A replica's number, drawn at random when the replica is created.
///
/// Text form: lower-case hexadecimal without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaTag(pub u64);

impl fmt::Display for ReplicaTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for ReplicaTag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(tag) if digits => Ok(Self(tag)),
            _ => Err(ParseError::new(
                "a replica tag of 1 to 16 hexadecimal digits",
            )),
        }
    }
}

/// The identity of a file, directory, link or special node, for ever.
///
/// The creating replica mints it from its tag and a counter that only grows; no
/// replica needs to ask another. Text form: `tag:counter`, the tag in hexadecimal
/// and the counter in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The replica that minted the id.
    pub replica: ReplicaTag,
    /// The how-manieth id of that replica it is.
    pub counter: u64,
}

impl NodeId {
    /// The root directory, the same node in every replica.
    pub const ROOT: Self = Self {
        replica: ReplicaTag(0),
        counter: 1,
    };
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replica, self.counter)
    }
}

impl FromStr for NodeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = ParseError::new("a node id of the form tag:counter");
        let (tag, counter) = text.split_once(':').ok_or(error)?;
        Ok(Self {
            replica: tag.parse().map_err(|_| error)?,
            counter: parse_decimal(counter).ok_or(error)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_survive_their_text() {
        let id = NodeId {
            replica: ReplicaTag(0x1f3a_0000_0000_00b2),
            counter: 42,
        };
        assert_eq!(id.to_string(), "1f3a0000000000b2:42");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("0:1".parse(), Ok(NodeId::ROOT));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            ":",
            "1",
            "1:",
            ":1",
            "+1:1",
            "1:+1",
            "1:2:3",
            "11112222333344445:1",
            "g:1",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
