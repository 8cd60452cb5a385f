//! The hub of the model: one tree, one order, and what it has answered.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::tree::ModelTree;
use crate::change::{Change, Entry};
use crate::cursor::Seq;
use crate::edit::Edit;
use crate::id::{NodeId, ReplicaTag};
use crate::merge::{ResolveError, Safeguards, resolve_with};
use crate::outcome::Outcome;

/// The hub's first tag, in the ids that it mints.
const TAG: ReplicaTag = ReplicaTag(0xb);

/// The answer to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The batch.
    pub batch: u64,
    /// The commit that it became.
    pub seq: Seq,
    /// What did not simply take effect.
    pub outcomes: Vec<(usize, Outcome)>,
}

/// Why a push is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Batches are numbered without gaps.
    #[error("batch {got} comes after batch {last}")]
    Gap {
        /// The last that was committed.
        last: u64,
        /// The one that came.
        got: u64,
    },
    /// The same number came with other edits before: there are two replicas of
    /// one tag.
    #[error("batch {0} came before with other edits")]
    ReplicaForked(u64),
    /// The edits contradict each other.
    #[error("the edits make no sense")]
    Batch(#[source] ResolveError<Infallible>),
}

/// A hub.
#[derive(Clone, Debug)]
pub struct Hub {
    tag: ReplicaTag,
    tree: ModelTree,
    head: Seq,
    minted: u64,
    /// The last batch of each replica, and its answer.
    answered: BTreeMap<ReplicaTag, (Vec<Edit>, Ack)>,
    /// What each commit changed.
    log: Vec<Vec<Entry>>,
    safe: Safeguards,
    /// Batches that come twice take effect once (I3).
    exactly_once: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Self::with(Safeguards::ALL, true)
    }
}

impl Hub {
    /// A hub with an empty tree, perhaps without some safeguards.
    pub fn with(safe: Safeguards, exactly_once: bool) -> Self {
        Self {
            tag: TAG,
            tree: ModelTree::new(),
            head: 0,
            minted: 0,
            answered: BTreeMap::new(),
            log: Vec::new(),
            safe,
            exactly_once,
        }
    }

    /// Takes another tag: what was minted after a backup was made, and is not
    /// known any more, is not minted again.
    pub fn set_tag(&mut self, tag: ReplicaTag) {
        self.tag = tag;
    }

    /// Its tree.
    pub fn tree(&self) -> &ModelTree {
        &self.tree
    }

    /// The number of its last commit.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The last batch of a replica that was committed.
    pub fn last(&self, tag: ReplicaTag) -> Option<(u64, &[Edit])> {
        let answered = self.answered.get(&tag);
        answered.map(|(edits, ack)| (ack.batch, edits.as_slice()))
    }

    /// What its commits after `seq` changed.
    pub fn changes_since(&self, seq: Seq) -> Vec<Change> {
        let commits = (1..).zip(&self.log).filter(|(ver, _)| *ver > seq);
        let changes = commits.flat_map(|(ver, entries)| {
            let entries = entries.iter().cloned();
            entries.map(move |entry| Change { ver, entry })
        });
        changes.collect()
    }

    /// Forgets what is dead, as after a long time.
    pub fn forget(&mut self) {
        self.tree.forget();
    }

    /// What its tree is made of, and what is dead and not forgotten.
    pub fn whole(&self) -> Vec<Change> {
        let entries = self.tree.entries(self.head).into_iter();
        // It does not keep when a node or a name came to be: no later than now.
        let ver = |ver| if ver == 0 { self.head } else { ver };
        let told = entries.map(|(own, entry)| (ver(own), entry));
        told.map(|(ver, entry)| Change { ver, entry }).collect()
    }

    /// Commits a batch of a replica, or answers again what it answered before.
    ///
    /// # Errors
    ///
    /// [`PushError`]; then nothing has changed.
    pub fn push(&mut self, from: ReplicaTag, batch: u64, edits: &[Edit]) -> Result<Ack, PushError> {
        if let Some((before, ack)) = self.answered.get(&from).filter(|_| self.exactly_once) {
            if ack.batch == batch {
                let same = before == edits;
                return if same {
                    Ok(ack.clone())
                } else {
                    Err(PushError::ReplicaForked(batch))
                };
            }
            if ack.batch + 1 != batch {
                let last = ack.batch;
                return Err(PushError::Gap { last, got: batch });
            }
        }
        let ack = self.commit(from, batch, edits)?;
        self.answered.insert(from, (edits.to_vec(), ack.clone()));
        Ok(ack)
    }

    fn commit(&mut self, from: ReplicaTag, batch: u64, edits: &[Edit]) -> Result<Ack, PushError> {
        let (replica, mut minted) = (self.tag, self.minted);
        let mut mint = || {
            minted += 1;
            NodeId {
                replica,
                counter: minted,
            }
        };
        let resolution = resolve_with(self.safe, &self.tree, edits, from, &mut mint)
            .map_err(PushError::Batch)?;
        self.minted = minted;
        // What is made again and was not forgotten is told with all that it has.
        let again: Vec<NodeId> = (resolution.entries.iter())
            .filter_map(|entry| match entry {
                Entry::Node { id, .. } if self.tree.kind(*id).is_some() => Some(*id),
                _ => None,
            })
            .collect();
        self.head += 1;
        self.tree.commit(self.head, &resolution);
        for (_, outcome) in &resolution.outcomes {
            if let Outcome::Alias { from, to } = outcome {
                self.tree.aliases.insert(*from, *to);
            }
        }
        let mut entries = resolution.entries;
        for node in again {
            for ((node, name), value) in self.tree.xattrs_of(node) {
                let (node, name, value) = (*node, name.clone(), Some(value.clone()));
                let entry = Entry::Xattr { node, name, value };
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
        self.log.push(entries);
        Ok(Ack {
            batch,
            seq: self.head,
            outcomes: resolution.outcomes,
        })
    }
}
