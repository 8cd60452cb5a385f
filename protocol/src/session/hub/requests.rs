//! The chunks that a client asks for: which request is answered next.

use std::collections::{BTreeMap, VecDeque};

use crate::hash::ChunkHash;
use crate::limits::WANTED_MAX;
use crate::session::link::Fault;
use crate::session::store::{HubAction, Wanted};
use crate::session::supply::CHUNKS_MAX;
use crate::wire::{Code, Ext, Limits, List, Missing, Want};

/// Priority and number: the order in which requests are answered.
type Key = (u8, u64);

#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<Key, VecDeque<Wanted>>,
    /// How many chunks are asked for.
    chunks: usize,
    reading: Option<(Key, usize)>,
}

impl Requests {
    /// Takes a request.
    pub(super) fn add(&mut self, want: Want, limits: Limits) -> Result<(), Fault> {
        self.chunks += want.chunks.len();
        let most = usize::try_from(limits.wants).unwrap_or(usize::MAX);
        if self.chunks > WANTED_MAX || self.open.len() >= most {
            return Err(Fault::new(Code::LIMIT, "too much is wanted at a time"));
        }
        if self
            .open
            .keys()
            .any(|(_, request)| *request == want.request)
        {
            let detail = format!("request {} is under way", want.request);
            return Err(Fault::new(Code::STATE, detail));
        }
        if !want.chunks.is_empty() {
            let chunks = want.chunks.into_vec().into();
            self.open.insert((want.priority, want.request), chunks);
        }
        Ok(())
    }

    /// What to read next.
    pub(super) fn next(&mut self, budget: usize) -> Option<HubAction> {
        let (key, chunks) = self.open.first_key_value()?;
        let chunks: Vec<Wanted> = chunks.iter().take(CHUNKS_MAX).copied().collect();
        self.reading = Some((*key, chunks.len()));
        Some(HubAction::Read { chunks, budget })
    }

    /// The store has read the first chunks of what was asked. Returns the
    /// request, and what to tell of what is missing.
    pub(super) fn read(
        &mut self,
        taken: usize,
        missing: Vec<ChunkHash>,
    ) -> Result<(u64, Option<Missing>), Fault> {
        let Some((key, asked)) = self.reading.take() else {
            return Err(Fault::answer("a request"));
        };
        if taken == 0 || taken > asked {
            return Err(Fault::answer("a request for chunks"));
        }
        self.chunks -= taken;
        if let Some(open) = self.open.get_mut(&key) {
            open.drain(..taken.min(open.len()));
            if open.is_empty() {
                self.open.remove(&key);
            }
        }
        let request = key.1;
        let chunks = List::try_from(missing).map_err(|_| Fault::answer("a request"))?;
        let missing = (!chunks.is_empty()).then(|| Missing {
            request,
            chunks,
            ext: Ext::default(),
        });
        Ok((request, missing))
    }

    /// The store cannot read. Returns the request.
    pub(super) fn failed(&mut self) -> Option<u64> {
        let (key, _) = self.reading.take()?;
        self.chunks -= self.open.remove(&key).map_or(0, |open| open.len());
        Some(key.1)
    }
}
