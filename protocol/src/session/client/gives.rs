//! What a client gives to a hub that has lost it (SES-23): one request at a time.

use std::collections::VecDeque;

use crate::hash::ChunkHash;
use crate::session::link::Fault;
use crate::session::store::ClientAction;
use crate::wire::{Code, Ext, Frame, List, Missing, Want};

/// Chunks that the store is asked for at a time, at most.
const AT_A_TIME: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Gives {
    request: u64,
    left: VecDeque<ChunkHash>,
    /// Frames that wait for credit.
    pub(super) out: VecDeque<Frame>,
}

impl Gives {
    /// The hub asks for chunks.
    pub(super) fn asked(&mut self, want: Want) -> Result<(), Fault> {
        if !self.left.is_empty() || !self.out.is_empty() {
            return Err(Fault::new(Code::LIMIT, "too much is wanted at a time"));
        }
        self.request = want.request;
        let chunks = want.chunks.into_vec().into_iter();
        self.left = chunks.map(|(hash, _)| hash).collect();
        Ok(())
    }

    /// What to ask of the store next.
    pub(super) fn next(&self, budget: usize) -> Option<ClientAction> {
        if self.left.is_empty() || !self.out.is_empty() {
            return None;
        }
        let chunks = self.left.iter().take(AT_A_TIME).copied().collect();
        Some(ClientAction::Give { chunks, budget })
    }

    /// The store has looked at the first of them. Returns the request, and what to
    /// tell of what is missing.
    pub(super) fn given(
        &mut self,
        taken: usize,
        missing: Vec<ChunkHash>,
    ) -> Result<(u64, Option<Missing>), Fault> {
        if taken == 0 || taken > self.left.len().min(AT_A_TIME) {
            return Err(Fault::answer("a request for chunks"));
        }
        self.left.drain(..taken);
        Ok((self.request, self.missing(missing)?))
    }

    /// The store cannot read: nothing that is left is to be had here.
    pub(super) fn failed(&mut self) -> Result<Option<Missing>, Fault> {
        let left = std::mem::take(&mut self.left);
        self.missing(left.into())
    }

    fn missing(&self, chunks: Vec<ChunkHash>) -> Result<Option<Missing>, Fault> {
        let chunks = List::try_from(chunks).map_err(|_| Fault::answer("a request"))?;
        let request = self.request;
        let ext = Ext::default();
        Ok((!chunks.is_empty()).then_some(Missing {
            request,
            chunks,
            ext,
        }))
    }
}
