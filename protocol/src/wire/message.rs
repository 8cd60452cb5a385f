//! The messages: their kinds, their fields, and the bounds of these.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::{Blob, List, Text};
use super::code::Code;
use super::frame::{Frame, IGNORABLE, WireError};
use crate::chain::Chain;
use crate::change::Change;
use crate::cursor::{Cursor, Epoch, Scope, Seq};
use crate::edit::Edit;
use crate::encoding::Encoding;
use crate::flavor;
use crate::hash::ChunkHash;
use crate::id::ReplicaTag;
use crate::limits::{
    AGENT_MAX, BATCH_EDITS_MAX, CHUNK_MAX, DETAIL_MAX, EDITS_MAX, ENTRIES_MAX, EXT_KEYS_MAX,
    EXT_VALUE_MAX, HASHES_MAX, RULE_MAX, RULES_MAX, TOKEN_MAX,
};
use crate::outcome::Outcome;

/// What later versions add to a message: values by number. Unknown ones are kept
/// and mean nothing.
pub type Ext = List<(u16, Blob<EXT_VALUE_MAX>), EXT_KEYS_MAX>;

/// In [`PushAck::ext`]: the answer is the cut with its commit. The value is empty.
pub const IS_CUT: u16 = 1;

/// What a replica may do besides the first version, as bits. Unknown ones survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// The answer to a batch may be the cut with its commit (SES-24).
    pub const CONFIRM: Self = Self(1);
    /// A hub asks clients for chunks that it has lost, and a client answers (SES-23).
    pub const GIVES: Self = Self(2);
    /// All of these.
    pub const ALL: Self = Self(3);

    /// Whether all of these are among them.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both have.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What one side of a connection takes. The lesser of both holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a frame's payload.
    pub frame: u32,
    /// Changes of a message.
    pub entries: u32,
    /// Edits of a message.
    pub edits: u32,
    /// Bytes of the chunks that come with a batch.
    pub inline: u32,
    /// Requests for chunks that wait for an answer.
    pub wants: u32,
}

impl Limits {
    /// What this version takes.
    pub const OURS: Self = Self {
        frame: 1 << 20,
        entries: 4_096,
        edits: 16_384,
        inline: 256 << 10,
        wants: 64,
    };

    /// The lesser of each.
    #[must_use]
    pub fn agree(self, other: Self) -> Self {
        Self {
            frame: self.frame.min(other.frame),
            entries: self.entries.min(other.entries),
            edits: self.edits.min(other.edits),
            inline: self.inline.min(other.inline),
            wants: self.wants.min(other.wants),
        }
    }
}

/// A secret that a peer shows. It is never shown to people.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Token(Blob<TOKEN_MAX>);

impl Token {
    /// The token with these bytes, unless they are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Blob::try_from(Bytes::copy_from_slice(bytes)).ok().map(Self)
    }

    /// The bytes, to send or to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Token {
    /// Takes as long whatever the tokens are: hashes are compared in constant time.
    fn eq(&self, other: &Self) -> bool {
        blake3::hash(&self.0) == blake3::hash(&other.0)
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who a side of a connection is to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It follows and pushes.
    Client,
    /// It sequences and merges.
    Hub,
}

/// From where a client follows the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// It has nothing.
    Nothing,
    /// It has the hub's tree at this cursor.
    At(Cursor),
}

/// Which chunks come with the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hydrate {
    /// None.
    MetaOnly,
    /// Those of files up to so many bytes.
    Inline(u32),
    /// All.
    Full,
}

/// What a list of chunks belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Of {
    /// The batch of this number.
    Batch(u64),
    /// The transfer of this number.
    Transfer(u64),
}

/// A chunk with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkData {
    /// The chunk.
    pub hash: ChunkHash,
    /// Its length, in bytes.
    pub len: u32,
    /// How the bytes are encoded.
    pub encoding: Encoding,
    /// The encoded bytes.
    pub bytes: Blob<CHUNK_MAX>,
}

/// Why a hub and a client have to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The hub's store is another.
    Epoch,
    /// The histories differ.
    Forked,
    /// The cursor is older than what the hub remembers.
    Horizon,
    /// The cursor is of another scope.
    Scope,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// The connection, which ends.
    Connection,
    /// A batch.
    Batch(u64),
    /// A request for chunks.
    Request(u64),
}

macro_rules! messages {
    ($(
        #[doc = $doc:literal]
        $kind:literal $name:ident { $( #[doc = $field_doc:literal] $field:ident: $type:ty, )* }
    )*) => {
        $(
            #[doc = $doc]
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {
                $( #[doc = $field_doc] pub $field: $type, )*
                /// What later versions add.
                pub ext: Ext,
            }

            impl $name {
                /// The number of this kind of message.
                pub const KIND: u16 = $kind;
            }

            impl ::std::convert::From<$name> for Message {
                fn from(message: $name) -> Self {
                    Self::$name(message)
                }
            }
        )*

        /// A message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $( #[doc = $doc] $name($name), )*
        }

        impl Message {
            /// The number of its kind.
            pub fn kind(&self) -> u16 {
                match self {
                    $( Self::$name(_) => $kind, )*
                }
            }

            fn payload(&self) -> Result<Vec<u8>, postcard::Error> {
                let mut payload = Vec::with_capacity(self.weight());
                match self {
                    $( Self::$name(message) => flavor::append(message, &mut payload)?, )*
                }
                Ok(payload)
            }

            fn is_payload(&self, payload: &[u8]) -> bool {
                match self {
                    $( Self::$name(message) => flavor::is_encoding(message, payload), )*
                }
            }

            fn from_payload(kind: u16, payload: &[u8]) -> Option<Result<(Self, &[u8]), postcard::Error>> {
                match kind {
                    $( $kind => Some(
                        postcard::take_from_bytes(payload)
                            .map(|(message, rest)| (Self::$name(message), rest)),
                    ), )*
                    _ => None,
                }
            }
        }
    };
}

messages! {
    /// The first message of each side: who it is.
    1 Hello {
        /// Oldest version it speaks.
        version_min: u16,
        /// Newest version it speaks.
        version_max: u16,
        /// Who it is to the other.
        role: Role,
        /// The workspace.
        workspace: [u8; 16],
        /// The replica.
        replica: ReplicaTag,
        /// What allows it to be here.
        token: Token,
        /// What it may do.
        capabilities: Capabilities,
        /// What it takes.
        limits: Limits,
        /// Its program, for people.
        agent: Text<AGENT_MAX>,
    }
    /// The hub takes the client.
    2 Welcome {
        /// The version that is spoken.
        version: u16,
        /// The life of the hub's store.
        epoch: Epoch,
        /// The hub's last commit.
        head: Cursor,
        /// What both may do.
        capabilities: Capabilities,
        /// The lesser of both sides' limits.
        limits: Limits,
        /// The last batch of this replica that the hub has committed; 0 for none.
        last_batch: u64,
        /// The digest of that batch.
        last_batch_digest: [u8; 32],
        /// A number for the logs of both.
        session: u64,
    }
    /// The client follows the hub.
    3 Subscribe {
        /// From where.
        from: Start,
        /// What part of the tree.
        scope: Scope,
        /// Which chunks come along.
        hydrate: Hydrate,
    }
    /// What the hub has committed; it counts with the cut that follows.
    4 Changes {
        /// The transfer that it is part of.
        transfer: u64,
        /// Number of its first change in the transfer.
        first: u64,
        /// The changes.
        changes: List<Change, ENTRIES_MAX>,
    }
    /// All changes up to a commit have been sent.
    5 Cut {
        /// The transfer that ends.
        transfer: u64,
        /// The commit.
        cursor: Cursor,
        /// How many changes the transfer has.
        entries: u64,
        /// BLAKE3 of the changes, as a commit's digest is made.
        digest: [u8; 32],
    }
    /// The client has a cut durably.
    6 Applied {
        /// The cut.
        cursor: Cursor,
    }
    /// A part of a batch of edits.
    7 Push {
        /// The batch.
        batch: u64,
        /// Number of the part, from 0.
        part: u32,
        /// It is the last part.
        last: bool,
        /// What the client had seen.
        seen: Cursor,
        /// The edits.
        edits: List<Edit, EDITS_MAX>,
        /// The chunks that the edits name and that may be new to the hub.
        chunks: List<ChunkHash, HASHES_MAX>,
        /// Some of them with their bytes.
        inline: List<ChunkData, HASHES_MAX>,
        /// BLAKE3 of the whole batch, in the last part.
        digest: [u8; 32],
    }
    /// Which chunks of a list are needed.
    8 Need {
        /// The list.
        of: Of,
        /// Number of the chunk that the first bit is for.
        first: u32,
        /// A bit for each chunk of the list, the lowest of the first byte first.
        bits: Blob<{ HASHES_MAX / 8 }>,
    }
    /// A batch is committed.
    9 PushAck {
        /// The batch.
        batch: u64,
        /// The commit that it became.
        seq: Seq,
        /// The chain after that commit.
        chain: Chain,
        /// What did not simply take effect, by the index of the edit.
        outcomes: List<(u32, Outcome), BATCH_EDITS_MAX>,
    }
    /// Chunks are wanted.
    10 Want {
        /// The request.
        request: u64,
        /// 0 is answered first.
        priority: u8,
        /// The chunks, each with one that may serve as base of a difference.
        chunks: List<(ChunkHash, Option<ChunkHash>), HASHES_MAX>,
    }
    /// Chunks that were wanted.
    11 Chunks {
        /// The request.
        request: u64,
        /// The chunks.
        chunks: List<ChunkData, HASHES_MAX>,
    }
    /// Chunks that were wanted and are not there.
    12 Missing {
        /// The request.
        request: u64,
        /// The chunks.
        chunks: List<ChunkHash, HASHES_MAX>,
    }
    /// The sender may send more.
    13 Credit {
        /// On which lane.
        lane: u8,
        /// So many bytes more.
        bytes: u64,
        /// So many changes more.
        entries: u64,
    }
    /// The client follows another part of the tree.
    14 SetScope {
        /// The name of the part.
        scope: Scope,
        /// The rules that make it.
        rules: List<Blob<RULE_MAX>, RULES_MAX>,
    }
    /// Asks to be told when all that was pushed before is committed and sent.
    15 Fence {
        /// The question.
        nonce: u64,
    }
    /// It is.
    16 FenceOk {
        /// The question.
        nonce: u64,
        /// The last commit.
        cursor: Cursor,
    }
    /// The client's cursor leads nowhere.
    18 Reset {
        /// Why.
        why: Why,
        /// The life of the hub's store.
        epoch: Epoch,
        /// The oldest commit that it remembers.
        horizon: Seq,
    }
    /// Is somebody there?
    19 Ping {
        /// The question.
        nonce: u64,
    }
    /// Yes.
    20 Pong {
        /// The question.
        nonce: u64,
    }
    /// The connection ends.
    21 Goodbye {
        /// Why.
        code: Code,
        /// Why, for people.
        detail: Text<DETAIL_MAX>,
    }
    /// Something is wrong.
    22 Error {
        /// What.
        code: Code,
        /// With what.
        about: About,
        /// When to try again, in milliseconds from now; 0 for not at all.
        retry_after_ms: u32,
        /// What, for people. Nobody takes it apart.
        detail: Text<DETAIL_MAX>,
    }
    /// What became of a commit that another replica made.
    23 Report {
        /// The commit.
        seq: Seq,
        /// Whose edits these were.
        by: ReplicaTag,
        /// What did not simply take effect.
        outcomes: List<Outcome, EDITS_MAX>,
    }
    /// Outcomes of a batch that have no room in its `PushAck`, which follows.
    24 Outcomes {
        /// The batch.
        batch: u64,
        /// What did not simply take effect, by the index of the edit.
        outcomes: List<(u32, Outcome), EDITS_MAX>,
    }
}

impl Message {
    /// About how many bytes it takes, where that is many: a vector that grows
    /// has them copied and its pages made again and again.
    fn weight(&self) -> usize {
        let chunks = match self {
            Self::Chunks(message) => &message.chunks,
            Self::Push(message) => &message.inline,
            _ => return 64,
        };
        let bytes = chunks.iter().map(|chunk| chunk.bytes.len() + 80);
        64 + bytes.sum::<usize>()
    }

    /// The frame of the message.
    #[expect(
        clippy::missing_panics_doc,
        reason = "postcard fails for want of space or of a length; a vector and these types have both"
    )]
    pub fn to_frame(&self, lane: u8) -> Frame {
        let payload = self.payload().expect("a message always encodes");
        Frame {
            kind: self.kind(),
            lane,
            payload: payload.into(),
        }
    }

    /// The message of a frame; `None` if it is of a kind to be passed over.
    ///
    /// # Errors
    ///
    /// [`WireError`] when the payload is not exactly what [`Self::to_frame`] gives
    /// for a message within the limits. Of [`Chunks`] that is not looked at: their
    /// bytes are checked by their hash.
    pub fn from_frame(frame: &Frame) -> Result<Option<Self>, WireError> {
        let kind = frame.kind;
        let Some(decoded) = Self::from_payload(kind, &frame.payload) else {
            if kind & IGNORABLE != 0 {
                return Ok(None);
            }
            return Err(WireError::Kind { kind });
        };
        let malformed = |source| WireError::Malformed { kind, source };
        let (message, rest) = decoded.map_err(malformed)?;
        let is_bulk = matches!(message, Self::Chunks(_));
        if !(rest.is_empty() && (is_bulk || message.is_payload(&frame.payload))) {
            return Err(WireError::NotCanonical { kind });
        }
        Ok(Some(message))
    }
}
