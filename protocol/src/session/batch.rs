//! A batch: the edits that a replica pushes as one, in as many messages as they
//! need, and put together again.

use crate::cursor::Cursor;
use crate::edit::Edit;
use crate::flavor;
use crate::hash::ChunkHash;
use crate::limits::{BATCH_BYTES_MAX, BATCH_CHUNKS_MAX, BATCH_EDITS_MAX, HASHES_MAX};
use crate::session::BatchOffer;
use crate::wire::{ChunkData, Code, Ext, Limits, List, Push};

/// Bytes of a message of edits besides the edits and hashes, at most.
const OVERHEAD: usize = 256;
const HASH_BYTES: usize = 32;
/// Bytes of a chunk in a message besides its own, at most: two hashes, three
/// lengths and the number of the encoding.
pub(super) const CHUNK_OVERHEAD: usize = 80;

/// The edits that a replica pushes as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub number: u64,
    /// What the replica had seen.
    pub seen: Cursor,
    /// The edits.
    pub edits: Vec<Edit>,
    /// The chunks that they name and that may be new to the hub.
    pub chunks: Vec<ChunkHash>,
}

/// The digest of a batch: BLAKE3 of its edits in their order, each as the length
/// of its encoding (`u32`, little-endian) and the encoding.
pub fn batch_digest(edits: &[Edit]) -> [u8; 32] {
    /// So many bytes are hashed at once, about: short pieces take five times as long.
    const TOGETHER: usize = 16 << 10;
    let mut hasher = blake3::Hasher::new();
    let mut waiting = Vec::new();
    for edit in edits {
        let start = waiting.len();
        waiting.extend([0; 4]);
        encode_to(edit, &mut waiting);
        let len = waiting.len() - start - 4;
        let len = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        waiting[start..start + 4].copy_from_slice(&len);
        if waiting.len() >= TOGETHER {
            hasher.update(&waiting);
            waiting.clear();
        }
    }
    hasher.update(&waiting);
    *hasher.finalize().as_bytes()
}

#[expect(
    clippy::expect_used,
    reason = "postcard fails for want of space or of a length; a vector and these types have both"
)]
fn encode_to(edit: &Edit, bytes: &mut Vec<u8>) {
    flavor::append(edit, bytes).expect("an edit always encodes");
}

/// The length of an edit's encoding. One that had none would be too long.
fn length(edit: &Edit) -> usize {
    flavor::length(edit).unwrap_or(usize::MAX)
}

impl Batch {
    /// The messages that carry the batch.
    ///
    /// # Errors
    ///
    /// [`AssemblyError`] for a batch that is larger than a batch may be.
    pub fn messages(self, limits: Limits) -> Result<Vec<Push>, AssemblyError> {
        let offer = BatchOffer {
            batch: self,
            inline: Vec::new(),
            more: false,
        };
        offer.messages(limits)
    }
}

impl BatchOffer {
    /// The messages that carry the batch and the chunks that come along.
    ///
    /// # Errors
    ///
    /// [`AssemblyError`] for a batch that is larger than a batch may be.
    pub fn messages(self, limits: Limits) -> Result<Vec<Push>, AssemblyError> {
        let (batch, inline) = (self.batch, self.inline);
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let mut parts = Parts::new(size(limits.frame).saturating_sub(OVERHEAD));
        let digest = batch_digest(&batch.edits);
        let mut total = 0;
        for edit in batch.edits {
            let len = length(&edit);
            total += len;
            if len > parts.room || total > BATCH_BYTES_MAX {
                return Err(AssemblyError::Bytes(total));
            }
            let part = parts.with_room(len, |part| part.edits.len() < size(limits.edits));
            part.edits.push(edit);
        }
        for hash in batch.chunks {
            let part = parts.with_room(HASH_BYTES, |part| part.chunks.len() < HASHES_MAX);
            part.chunks.push(hash);
        }
        for chunk in inline {
            let len = chunk.bytes.len() + CHUNK_OVERHEAD;
            let part = parts.with_room(len, |part| part.inline.len() < HASHES_MAX);
            part.inline.push(chunk);
        }
        let last = parts.done.len();
        let parts = parts.done.into_iter().chain([parts.open]);
        let message = |(number, part): (usize, Part)| {
            Ok(Push {
                batch: batch.number,
                part: u32::try_from(number).unwrap_or(u32::MAX),
                last: number == last,
                seen: batch.seen,
                edits: List::try_from(part.edits).map_err(|e| AssemblyError::Edits(e.len))?,
                chunks: List::try_from(part.chunks).map_err(|e| AssemblyError::Edits(e.len))?,
                inline: List::try_from(part.inline).map_err(|e| AssemblyError::Edits(e.len))?,
                digest: if number == last { digest } else { [0; 32] },
                ext: Ext::default(),
            })
        };
        parts.enumerate().map(message).collect()
    }
}

/// What one message carries.
#[derive(Default)]
struct Part {
    edits: Vec<Edit>,
    chunks: Vec<ChunkHash>,
    inline: Vec<ChunkData>,
}

/// A batch as it is divided.
struct Parts {
    done: Vec<Part>,
    open: Part,
    /// Bytes in the open part, and how many it may have.
    bytes: usize,
    room: usize,
}

impl Parts {
    fn new(room: usize) -> Self {
        Self {
            done: Vec::new(),
            open: Part::default(),
            bytes: 0,
            room,
        }
    }

    /// The part that takes the next `len` bytes.
    fn with_room(&mut self, len: usize, has_room: impl Fn(&Part) -> bool) -> &mut Part {
        if self.bytes + len > self.room || !has_room(&self.open) {
            self.done.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += len;
        &mut self.open
    }
}

/// A batch that is coming in. Bounded: what is too much is refused on the way.
#[derive(Debug)]
pub struct BatchAssembly {
    batch: Batch,
    inline: Vec<ChunkData>,
    /// Bytes that may still come inline.
    inline_left: usize,
    parts: u32,
    bytes: usize,
}

/// Why a batch is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// The message is of another batch, or another part was due.
    #[error("part {part} of batch {batch} came where part {due} of batch {expected} was due")]
    Part {
        /// The batch that is coming in.
        expected: u64,
        /// The part that was due.
        due: u32,
        /// The batch of the message.
        batch: u64,
        /// Its part.
        part: u32,
    },
    /// The edits are not those that were sent.
    #[error("the edits of the batch do not match its digest")]
    Digest,
    /// The batch has too many edits, or names too many chunks.
    #[error("a batch of {0} edits or chunks is too large")]
    Edits(usize),
    /// The batch has too many bytes.
    #[error("a batch or an edit of {0} bytes is too large")]
    Bytes(usize),
    /// More bytes of chunks came along than may.
    #[error("more bytes of chunks came with the batch than may")]
    Inline,
}

impl AssemblyError {
    /// What the peer is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Part { .. } => Code::STATE,
            Self::Digest => Code::MALFORMED,
            Self::Edits(_) | Self::Bytes(_) | Self::Inline => Code::LIMIT,
        }
    }
}

impl BatchAssembly {
    /// Begins with the first message of a batch.
    pub fn new(first: &Push, limits: Limits) -> Self {
        Self {
            inline: Vec::new(),
            inline_left: usize::try_from(limits.inline).unwrap_or(usize::MAX),
            batch: Batch {
                number: first.batch,
                seen: first.seen,
                edits: Vec::new(),
                chunks: Vec::new(),
            },
            parts: 0,
            bytes: 0,
        }
    }

    /// Takes the next message, the first one too. Returns the batch when that was
    /// the last.
    ///
    /// # Errors
    ///
    /// [`AssemblyError`]: the batch is of no use.
    pub fn take(&mut self, message: Push) -> Result<Option<BatchOffer>, AssemblyError> {
        if (message.batch, message.part) != (self.batch.number, self.parts) {
            return Err(AssemblyError::Part {
                expected: self.batch.number,
                due: self.parts,
                batch: message.batch,
                part: message.part,
            });
        }
        self.parts += 1;
        let edits = self.batch.edits.len() + message.edits.len();
        let chunks = self.batch.chunks.len() + message.chunks.len();
        if edits > BATCH_EDITS_MAX || chunks > BATCH_CHUNKS_MAX {
            return Err(AssemblyError::Edits(edits.max(chunks)));
        }
        self.bytes += message.edits.iter().map(length).sum::<usize>();
        if self.bytes > BATCH_BYTES_MAX {
            return Err(AssemblyError::Bytes(self.bytes));
        }
        let inline = message.inline.iter().map(|chunk| chunk.bytes.len()).sum();
        let left = self.inline_left.checked_sub(inline);
        self.inline_left = left.ok_or(AssemblyError::Inline)?;
        self.inline.extend(message.inline.into_vec());
        if self.inline.len() > self.batch.chunks.len() + message.chunks.len() {
            return Err(AssemblyError::Inline);
        }
        self.batch.edits.extend(message.edits.into_vec());
        self.batch.chunks.extend(message.chunks.into_vec());
        if !message.last {
            return Ok(None);
        }
        if batch_digest(&self.batch.edits) != message.digest {
            return Err(AssemblyError::Digest);
        }
        let batch = Batch {
            edits: std::mem::take(&mut self.batch.edits),
            chunks: std::mem::take(&mut self.batch.chunks),
            ..self.batch
        };
        Ok(Some(BatchOffer {
            batch,
            inline: std::mem::take(&mut self.inline),
            more: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_MIN;
    use crate::wire::Message;
    use crate::{Chain, Encoding, Epoch, NodeId, ReplicaTag, Scope, XattrName};
    use bytes::Bytes;

    const SEEN: Cursor = Cursor {
        epoch: Epoch([1; 16]),
        seq: 7,
        chain: Chain([2; 16]),
        scope: Scope::ALL,
    };

    fn edit(counter: u64, len: usize) -> Edit {
        Edit::Xattr {
            node: NodeId {
                replica: ReplicaTag(1),
                counter,
            },
            name: XattrName::new(b"user.x").unwrap(),
            base: 0,
            value: Some(vec![7; len].into()),
        }
    }

    fn batch(edits: usize, len: usize, chunks: usize) -> Batch {
        Batch {
            number: 3,
            seen: SEEN,
            edits: (0..edits as u64).map(|n| edit(n, len)).collect(),
            chunks: (0..chunks as u64)
                .map(|n| ChunkHash::of(&n.to_le_bytes()))
                .collect(),
        }
    }

    fn inline(count: usize) -> Vec<ChunkData> {
        let chunk = |n| ChunkData {
            hash: ChunkHash::of(&[n]),
            len: 9_000,
            encoding: Encoding::Raw,
            bytes: Bytes::from(vec![n; 9_000]).try_into().unwrap(),
        };
        (0..u8::try_from(count).unwrap()).map(chunk).collect()
    }

    fn assemble(messages: &[Push]) -> Result<Option<BatchOffer>, AssemblyError> {
        let mut assembly = BatchAssembly::new(&messages[0], LIMITS);
        let mut whole = None;
        for message in messages {
            whole = assembly.take(message.clone())?;
        }
        Ok(whole)
    }

    const LIMITS: Limits = Limits {
        frame: FRAME_MIN,
        edits: 1_000,
        ..Limits::OURS
    };

    #[test]
    fn a_batch_survives_its_messages_whatever_its_size() {
        for (edits, len, chunks) in [(0, 0, 0), (1, 1, 1), (2_500, 1, 20_000), (40, 60_000, 3)] {
            let whole = BatchOffer {
                batch: batch(edits, len, chunks),
                inline: inline(chunks.min(5)),
                more: false,
            };
            let messages = whole.clone().messages(LIMITS).unwrap();
            for message in &messages {
                let frame = Message::from(message.clone()).to_frame(0);
                assert!(frame.payload.len() <= FRAME_MIN as usize);
                assert!(message.edits.len() <= 1_000);
            }
            assert_eq!(assemble(&messages), Ok(Some(whole)));
        }
    }

    #[test]
    fn parts_that_are_missing_or_other_are_found_out() {
        let messages = batch(2_500, 1, 1).messages(LIMITS).unwrap();
        let [a, b, c] = &messages[..] else { panic!() };
        let code = |parts: &[&Push]| {
            let parts: Vec<Push> = parts.iter().map(|p| (*p).clone()).collect();
            assemble(&parts).err().map(|error| error.code())
        };
        assert_eq!(code(&[a, b, c]), None);
        assert_eq!(code(&[a, c]), Some(Code::STATE));
        assert_eq!(code(&[a, a]), Some(Code::STATE));
        assert_eq!(code(&[b, c]), Some(Code::STATE));
        let mut other = c.clone();
        other.edits = vec![edit(1, 9)].try_into().unwrap();
        assert_eq!(code(&[a, b, &other]), Some(Code::MALFORMED));
    }

    #[test]
    fn i13_a_batch_that_never_ends_is_refused() {
        let one = batch(1_000, 1, 0).messages(LIMITS).unwrap().remove(0);
        let mut assembly = BatchAssembly::new(&one, LIMITS);
        let refused = (0..).find_map(|part| {
            let last = false;
            let message = Push {
                part,
                last,
                ..one.clone()
            };
            assembly.take(message).err()
        });
        assert_eq!(refused.unwrap().code(), Code::LIMIT);
        let mut assembly = BatchAssembly::new(&one, LIMITS);
        let refused = (0..).find_map(|part| {
            let message = Push {
                part,
                last: false,
                chunks: vec![ChunkHash::of(b"")].try_into().unwrap(),
                inline: inline(1).try_into().unwrap(),
                edits: List::default(),
                ..one.clone()
            };
            assembly.take(message).err()
        });
        assert_eq!(refused, Some(AssemblyError::Inline));
        let large = batch(300, 60_000, 0);
        assert!(matches!(
            large.messages(LIMITS),
            Err(AssemblyError::Bytes(_))
        ));
    }
}
