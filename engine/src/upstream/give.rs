//! Chunks that the hub has lost: it gets them again from who follows it.

use std::collections::BTreeSet;

use cairn_protocol::ChunkHash;
use cairn_protocol::session::{ClientDone, Wanted};

use super::push::encode;
use super::{Upstream, layout};
use crate::Result;
use crate::lost::is_damage;

/// Chunks whose right to be given is remembered: the rest of a request.
const GIVEN_MAX: usize = 16_384;

impl Upstream {
    /// Gives the first of some chunks, those that the confirmed tree or the batch
    /// in flight names: a hub that asks for others has no business with them.
    pub(super) fn give(&self, asked: &[ChunkHash], budget: usize) -> Result<ClientDone> {
        let given = self.permit(asked)?;
        let (mut chunks, mut missing, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let (mut taken, mut bytes) = (0, 0);
        {
            let _gate = self.inner().chunks.reading();
            let db = self.inner().db.reader();
            for hash in asked {
                let is_given = given.contains(hash);
                let is_here = is_given && layout::place(self.inner(), &db, hash)?.is_some();
                let chunk = is_here.then(|| encode(self.inner(), &db, *hash, None));
                let Some(Ok(chunk)) = chunk else {
                    if let Some(Err(error)) = chunk
                        && is_damage(&error)
                    {
                        damaged.push(*hash);
                    }
                    missing.push(*hash);
                    taken += 1;
                    continue;
                };
                if !chunks.is_empty() && bytes + chunk.bytes.len() > budget {
                    break;
                }
                bytes += chunk.bytes.len();
                chunks.push(chunk);
                taken += 1;
            }
        }
        for hash in &damaged {
            self.inner().lose(hash)?;
        }
        Ok(ClientDone::Chunks {
            chunks,
            taken,
            missing,
        })
    }

    /// Finds out which of some chunks the hub may have: one look through the tree
    /// for a whole request.
    fn permit(&self, asked: &[ChunkHash]) -> Result<BTreeSet<ChunkHash>> {
        let mut given = self.given.lock();
        let unknown = asked.iter().filter(|hash| !given.contains(hash));
        let mut unknown: BTreeSet<ChunkHash> = unknown.copied().collect();
        let flight = self.flight.lock().clone();
        let flight = flight.iter().flat_map(|flight| &flight.chunks);
        let aloft: Vec<_> = flight.map(|(hash, _)| *hash).collect();
        let aloft = aloft.into_iter().filter(|hash| unknown.remove(hash));
        let mut named: BTreeSet<ChunkHash> = aloft.collect();
        named.extend(self.inner().named_by(self.side, &unknown)?);
        let may = |hash: &&ChunkHash| given.contains(*hash) || named.contains(*hash);
        let permitted = asked.iter().filter(may).copied().collect();
        if given.len() + named.len() > GIVEN_MAX {
            given.clear();
        }
        given.extend(named);
        Ok(permitted)
    }

    /// What is lost here and the hub may have, as its tree names it.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn lost(&self) -> Result<Vec<Wanted>> {
        let lost = self.inner().lost.after(None).into_iter().collect();
        let named = self.inner().named_by(self.side, &lost)?;
        Ok(named.into_iter().map(|hash| (hash, None)).collect())
    }
}
