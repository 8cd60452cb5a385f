//! Files that are too large to be pushed: those whose contents have more new
//! chunks than a batch may name. They wait, people are told which, and
//! everything else goes on.

use std::collections::BTreeSet;

use cairn_protocol::{BATCH_CHUNKS_MAX, BATCH_EDITS_MAX, Edit, NodeId};

use super::edits::Edits;
use super::layout::Chunks;
use super::local::{Here, Local};
use crate::{FsError, Result};

/// New chunks of a file, at most: what comes along in its batch needs some, too.
pub(super) const CHUNKS_MAX: usize = BATCH_CHUNKS_MAX - BATCH_EDITS_MAX / 2;
/// A content of this many bytes for each of its chunks need not be counted: no
/// chunker makes smaller ones but at the ends of files and at holes, of which
/// there is one a block at most.
const CHUNK_LEAST: u64 = cairn_protocol::HOLE_BLOCK as u64 / 2;

impl Edits<'_> {
    /// Whether a content has more new chunks than a batch may. It is noted.
    pub(super) fn is_outsized(&mut self, here: &Here) -> Result<bool> {
        let Some(data) = &here.data else {
            return Ok(false);
        };
        if data.size() / CHUNK_LEAST < self.chunks_max as u64 {
            return Ok(false);
        }
        let chunks = Chunks::of(self.local.inner, self.local.db, data)?;
        let old = match self.record(here.id)?.and_then(|record| record.data) {
            Some((_, old)) => Chunks::of(self.local.inner, self.local.db, &old)?,
            None => Chunks::default(),
        };
        let old: BTreeSet<_> = old.all().map(|(_, hash)| hash).collect();
        let new = chunks.all().filter(|(_, hash)| !old.contains(hash)).count();
        let outsized = new > self.chunks_max;
        if outsized {
            self.outsized.insert(here.id);
        }
        Ok(outsized)
    }
}

/// Which files are too large to be pushed: those that were, unless they are
/// pushed now or are gone, and those that are found to be.
pub(super) fn still_outsized(
    before: BTreeSet<NodeId>,
    local: &Local<'_>,
    edits: &Edits<'_>,
) -> Result<BTreeSet<NodeId>> {
    let mut outsized = BTreeSet::new();
    let pushed = edits.list.iter().filter_map(|edit| match edit {
        Edit::Data { node, .. } => Some(*node),
        _ => None,
    });
    let pushed: BTreeSet<NodeId> = pushed.filter(|node| before.contains(node)).collect();
    for node in before {
        if !pushed.contains(&node) && local.is_live(node)? {
            outsized.insert(node);
        }
    }
    for node in edits.outsized.difference(&outsized) {
        tracing::warn!(%node, "{}", FsError::TooLarge(OUTSIZED));
    }
    outsized.extend(&edits.outsized);
    Ok(outsized)
}

/// What is wrong with a file that waits.
const OUTSIZED: &str = "a file of more than 491 520 new chunks (120 GiB, about) to be pushed; make it in steps, with a sync after each";

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use cairn_protocol::session::{Applied, ClientAction, ClientDone, Store};
    use cairn_protocol::wire::{Ext, List, PushAck};
    use cairn_protocol::{Chain, Cursor, Epoch, Scope};

    use super::super::Upstream;
    use super::*;
    use crate::Replica;

    fn cut(upstream: &Upstream, seq: u64, ack: Option<PushAck>) {
        let cursor = Cursor {
            epoch: Epoch([1; 16]),
            seq,
            chain: Chain::GENESIS,
            scope: Scope::ALL,
        };
        upstream.perform(ClientAction::Stage {
            first: 0,
            changes: Vec::new(),
            reports: Vec::new(),
        });
        let confirmed = true;
        let done = upstream.perform(ClientAction::Apply {
            cursor,
            ack,
            confirmed,
        });
        assert_eq!(done, ClientDone::Applied(Applied::Done));
    }

    fn pushed(upstream: &Upstream) -> Vec<NodeId> {
        let done = upstream.perform(ClientAction::NextBatch { inline: 0 });
        let ClientDone::Batch(Some(offer)) = done else {
            panic!("{done:?}");
        };
        let nodes = offer.batch.edits.iter().filter_map(|edit| match edit {
            Edit::Data { node, .. } => Some(*node),
            _ => None,
        });
        nodes.collect()
    }

    /// A file with more new chunks than a batch may name failed the batch, and
    /// with it everything else that was to be pushed, for ever.
    #[test]
    fn a_file_that_is_too_large_to_be_pushed_waits_alone() {
        let replica = Replica::in_memory().unwrap();
        let upstream = replica.upstream().unwrap();
        upstream.chunks_max.store(1, Ordering::Relaxed);
        cut(&upstream, 1, None);
        let content: Vec<u8> = (0..150_000_u32)
            .flat_map(|n| {
                n.wrapping_mul(2_654_435_761)
                    .rotate_left(n % 31)
                    .to_le_bytes()
            })
            .collect();
        replica.write_file("/large", &content).unwrap();
        replica.write_file("/small", b"small").unwrap();
        replica.flush().unwrap();
        let id = |path: &str| {
            let ino = replica.stat(path).unwrap().ino;
            crate::db::own_id(upstream.tag(), ino)
        };
        let (large, small) = (id("/large"), id("/small"));
        assert_eq!(pushed(&upstream), [small]);
        let status = upstream.status().unwrap();
        assert_eq!(status.outsized, [large]);
        assert!(!status.is_clean());
        let ack = PushAck {
            batch: 1,
            seq: 2,
            chain: Chain::GENESIS,
            outcomes: List::default(),
            ext: Ext::default(),
        };
        cut(&upstream, 2, Some(ack));
        replica.write_file("/large", b"not any more").unwrap();
        replica.flush().unwrap();
        assert_eq!(pushed(&upstream), [large]);
        assert_eq!(upstream.status().unwrap().outsized, []);
    }
}
