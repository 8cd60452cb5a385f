//! Cursors: how far a replica has followed another, and in which history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::text::{ParseError, opaque_bytes, parse_decimal};

/// The number of a commit in a replica's own order. The first commit is 1; 0 is before it.
pub type Seq = u64;

/// The [`Seq`] of the commit in which a register last changed.
pub type Ver = u64;

opaque_bytes! {
    /// The life of a store: random, drawn when it is created or deliberately reset.
    pub Epoch, 16, "32 hexadecimal digits"
}

opaque_bytes! {
    /// A hash of the subtree and ignore rules a cursor was obtained under.
    pub Scope, 8, "16 hexadecimal digits"
}

impl Scope {
    /// The scope that leaves nothing out.
    pub const ALL: Self = Self([0; 8]);
}

/// A point in a replica's history, with the proof of which history it is.
///
/// Text form, for a command line: `epoch:seq:chain:scope`, `seq` in decimal and the
/// others in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The store's life.
    pub epoch: Epoch,
    /// The last commit included.
    pub seq: Seq,
    /// The chain after that commit.
    pub chain: Chain,
    /// What part of the tree the holder follows.
    pub scope: Scope,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}:{}",
            self.epoch, self.seq, self.chain, self.scope
        )
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let mut fields = text.split(':');
            let cursor = Self {
                epoch: fields.next()?.parse().ok()?,
                seq: parse_decimal(fields.next()?)?,
                chain: fields.next()?.parse().ok()?,
                scope: fields.next()?.parse().ok()?,
            };
            fields.next().is_none().then_some(cursor)
        };
        parse().ok_or(ParseError::new(
            "a cursor of the form epoch:seq:chain:scope",
        ))
    }
}
