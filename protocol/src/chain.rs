//! The chain: one short value that stands for a whole history of commits.
//!
//! Two replicas whose chain is equal at a sequence number have seen the same
//! commits up to it (I6); a store restored from a backup is found out at once.

use crate::change::Change;
use crate::text::opaque_bytes;

opaque_bytes! {
    /// BLAKE3 over the changes of one commit, in their order. Made by [`CommitHasher`].
    pub CommitDigest, 32, "64 hexadecimal digits"
}

opaque_bytes! {
    /// The value of the chain after a commit.
    pub Chain, 16, "32 hexadecimal digits"
}

impl Chain {
    /// The chain before the first commit.
    pub const GENESIS: Self = Self([0; 16]);

    /// The chain after a commit with this digest: the first 16 bytes of
    /// BLAKE3(chain ‖ digest).
    #[must_use]
    pub fn next(&self, digest: &CommitDigest) -> Self {
        let mut joined = [0; 48];
        joined[..16].copy_from_slice(&self.0);
        joined[16..].copy_from_slice(&digest.0);
        let mut chain = [0; 16];
        chain.copy_from_slice(&blake3::hash(&joined).as_bytes()[..16]);
        Self(chain)
    }
}

/// Computes the [`CommitDigest`] of a commit, one change at a time.
///
/// The hashed bytes are, for each change, the length of its encoding as `u32`
/// little-endian and the encoding.
#[derive(Clone, Debug, Default)]
pub struct CommitHasher {
    hasher: blake3::Hasher,
    /// What is to be hashed next: many short pieces at once take a fifth of the
    /// time.
    waiting: Vec<u8>,
}

/// So many bytes are hashed at once, about.
const TOGETHER: usize = 16 << 10;

impl CommitHasher {
    /// A hasher of a commit without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next change of the commit.
    pub fn push(&mut self, change: &Change) {
        let start = self.waiting.len();
        self.waiting.extend([0; 4]);
        change.encode_to(&mut self.waiting);
        let len = self.waiting.len() - start - 4;
        let len = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        self.waiting[start..start + 4].copy_from_slice(&len);
        self.hash_some();
    }

    /// [`Self::push`] for who has the encoding of the change.
    pub(crate) fn push_encoded(&mut self, encoded: &[u8]) {
        let len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        self.waiting.extend(len.to_le_bytes());
        self.waiting.extend_from_slice(encoded);
        self.hash_some();
    }

    fn hash_some(&mut self) {
        if self.waiting.len() >= TOGETHER {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    /// The digest of the changes added.
    pub fn finish(&self) -> CommitDigest {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.waiting);
        CommitDigest(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, NodeId, NodeKind};

    fn change(ver: u64) -> Change {
        Change {
            ver,
            entry: Entry::Node {
                id: NodeId::ROOT,
                kind: NodeKind::Dir,
            },
        }
    }

    fn digest(vers: &[u64]) -> CommitDigest {
        let mut hasher = CommitHasher::new();
        for ver in vers {
            hasher.push(&change(*ver));
        }
        hasher.finish()
    }

    #[test]
    fn i6_the_chain_tells_histories_apart() {
        let (a, b) = (digest(&[1]), digest(&[2]));
        let ab = Chain::GENESIS.next(&a).next(&b);
        assert_eq!(ab, Chain::GENESIS.next(&a).next(&b));
        assert_ne!(ab, Chain::GENESIS.next(&b).next(&a));
        assert_ne!(ab, Chain::GENESIS.next(&digest(&[1, 2])));
    }

    #[test]
    fn a_digest_depends_on_order_and_count() {
        assert_ne!(digest(&[1, 2]), digest(&[2, 1]));
        assert_ne!(digest(&[1]), digest(&[1, 1]));
        assert_eq!(
            digest(&[]).to_string(),
            crate::ChunkHash::of(b"").to_string()
        );
    }

    #[test]
    fn the_chain_is_pinned() {
        let bytes = [&[0; 16][..], &[7; 32]].concat();
        let want = blake3::hash(&bytes);
        assert_eq!(
            Chain::GENESIS.next(&CommitDigest([7; 32])).as_bytes(),
            &want.as_bytes()[..16]
        );
    }
}
