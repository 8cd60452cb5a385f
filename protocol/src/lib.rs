//! The centre of Cairn: what replicas agree on, free of IO, clocks and randomness.
//!
//! Everything here is a value or a pure function: identities ([`NodeId`]), names
//! ([`Name`]), content hashes ([`ChunkHash`]), versions and cursors ([`Cursor`]),
//! the registers a tree is made of ([`Register`]), the changes that update them
//! ([`Change`]), and the way a file's content is cut into chunks ([`cut`],
//! [`recut`], [`Manifest`]). The rules are numbered in `SPEC.md`; where a rule has
//! a number, the code and the test that hold it name that number.

#![forbid(unsafe_code)]

mod chain;
mod change;
mod chunker;
mod cursor;
mod data;
mod edit;
mod encoding;
mod extent;
mod flavor;
mod hash;
mod id;
mod limits;
mod manifest;
pub mod merge;
mod name;
mod outcome;
mod register;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod time;
mod varint;
pub mod wire;

pub use chain::{Chain, CommitDigest, CommitHasher};
pub use change::{Change, DecodeError, Entry};
pub use chunker::{ReadAt, Sink, cut, recut};
pub use cursor::{Cursor, Epoch, Scope, Seq, Ver};
pub use data::{Data, DataError};
pub use edit::{Edit, MetaFields, UnknownFields};
pub use encoding::{ChunkError, Encoded, Encoding, decode_chunk, encode_chunk};
pub use extent::{ChunkerId, Extent, LayoutError, UnknownChunker, check_total};
pub use hash::ChunkHash;
pub use id::{NodeId, ReplicaTag};
pub use limits::*;
pub use manifest::{Manifest, ManifestError};
pub use name::{Name, NameError, XattrName};
pub use outcome::{Outcome, Refusal};
pub use register::{Meta, MetaError, NodeKind, Register, UnknownKind};
pub use text::ParseError;
pub use time::{Timestamp, TimestampError};
