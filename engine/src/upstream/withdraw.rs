//! A batch that the hub has refused and not committed is taken back when a cut
//! waits for it (SES-22).
//!
//! Nothing has to be done to its edits. Until a batch is answered, the confirmed
//! tree does not move, what is frozen stays so, and the log is looked at from where
//! the batch was ([`State::scanned`](super::state::State::scanned)). So they are
//! found again as what they were, with what their editors saw, by whoever looks for
//! edits: the cut that waits, or the next batch.

use std::sync::atomic::Ordering;

use cairn_protocol::{Edit, Register};

use super::Upstream;
use super::state::{Base, Flight, Frozen, Rows};
use crate::Result;

impl Upstream {
    /// Takes the batch in flight back, if it is this one.
    pub(super) fn withdraw(&self, batch: u64) -> Result<()> {
        self.settle_down()?;
        let flight = self.flight.lock().clone();
        let Some(flight) = flight.filter(|flight| flight.number == batch) else {
            return Ok(());
        };
        let inner = self.inner();
        {
            let db = self.settled()?;
            let side = self.side;
            let tx = db.unchecked_transaction()?;
            let rows = Rows { db: &tx, side };
            let mut state = rows.state()?;
            // The batch before it is not known any more.
            (state.batch, state.digest) = (batch.saturating_sub(1), None);
            rows.set_state(&state)?;
            rows.set_flight(None)?;
            let frozen = rows.frozen()?;
            rows.set_frozen(&frozen, &unsaid(&flight, frozen.clone()))?;
            inner.note_end(tx.commit())?;
            inner.written.fetch_add(1, Ordering::SeqCst);
        }
        self.drop_draft();
        *self.flight.lock() = None;
        *self.made_of.lock() = None;
        let aloft = std::mem::take(&mut *self.aloft.lock());
        inner.chunks.end_leases(&aloft);
        Ok(())
    }
}

/// What was frozen, with nothing of what the batch said: another hub that this
/// replica follows may have noted, of a name, that its editor saw what the batch put
/// there (see [`super::sides`]).
pub(super) fn unsaid(flight: &Flight, mut frozen: Frozen) -> Frozen {
    for edit in &flight.edits {
        let Edit::Name {
            parent, name, was, ..
        } = edit
        else {
            continue;
        };
        let (parent, name) = (*parent, name.clone());
        if let Some(base) = frozen.get_mut(&Register::Name { parent, name }) {
            *base = Base::Name(*was);
        }
    }
    frozen
}
