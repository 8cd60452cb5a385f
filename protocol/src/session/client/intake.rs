//! The hub's changes, as they come to a client: staged as they come, applied with
//! their cut when the chunks are here and the batch in flight allows it.

use std::collections::VecDeque;

use crate::chain::Chain;
use crate::cursor::{Cursor, Seq};
use crate::session::link::Fault;
use crate::session::store::{Applied, ClientAction, Report};
use crate::session::transfer::Incoming;
use crate::wire::{Changes, Code, Cut, Frame, Message, PushAck, Start, Why};

/// A cut that is to be applied.
#[derive(Clone, Copy, Debug)]
struct Due {
    cursor: Cursor,
    why: Waits,
}

/// What a cut waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// For its chunks.
    Chunks,
    /// For the batch in flight: that it is answered, or withdrawn.
    Held,
    /// For somebody to say that it may be applied.
    Halted,
}

/// Whether most of the tree may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Nobody had to be asked.
    Unasked,
    /// Somebody has to say that it may.
    Halted,
    /// Somebody said so.
    Allowed,
}

/// What has its place in the order of what the hub says.
#[derive(Debug)]
pub(super) enum Item {
    /// Changes, a cut or a report, paid for by credit.
    Told(Frame),
    /// The answer to a batch that is the cut with its commit.
    Confirmed(Confirmed),
}

/// A commit that is just the batch in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    pub(super) seq: Seq,
    pub(super) chain: Chain,
    /// How many edits the batch has.
    pub(super) edits: u64,
}

/// What is under way at the store.
#[derive(Debug, PartialEq, Eq)]
enum Under {
    Nothing,
    /// Changes from a frame of this kind and size.
    Stage,
    Apply {
        cursor: Cursor,
        with_ack: bool,
    },
    Reset,
}

/// What the next step is.
pub(super) enum Next {
    /// Nothing can be done.
    Wait,
    /// The store has to do this.
    Do(ClientAction),
    /// Something was taken; ask again.
    Again,
}

#[derive(Debug)]
pub(super) struct Intake {
    /// What was not looked at yet.
    queue: VecDeque<Item>,
    transfer: Option<Incoming>,
    /// Nothing was staged in this session.
    is_new: bool,
    /// Changes that were staged since the last cut that was applied.
    staged: u64,
    /// Reports that were staged since then.
    reported: u64,
    reports: Vec<Report>,
    due: Option<Due>,
    /// Where the replica is. `None` before it has anything.
    at: Option<Cursor>,
    under: Under,
    removal: Removal,
    /// The hub has taken what was subscribed.
    pub(super) followed: bool,
    /// Frames that were looked at: their kind and size, to give credit back.
    pub(super) consumed: Vec<(u16, u64)>,
}

/// What happened when a store answered.
pub(super) enum Done {
    Applied {
        cursor: Cursor,
        changes: u64,
        acked: bool,
    },
    Held,
    Halted {
        removed: u64,
        of: u64,
    },
    Wants(Vec<crate::session::Wanted>),
}

impl Intake {
    pub(super) fn new(start: Start) -> Self {
        Self {
            queue: VecDeque::new(),
            transfer: None,
            is_new: true,
            staged: 0,
            reported: 0,
            reports: Vec::new(),
            due: None,
            at: match start {
                Start::Nothing => None,
                Start::At(cursor) => Some(cursor),
            },
            under: Under::Nothing,
            removal: Removal::Unasked,
            followed: false,
            consumed: Vec::new(),
        }
    }

    /// Where the replica is.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.at
    }

    /// Whether everything that came is applied.
    pub(super) fn is_idle(&self) -> bool {
        let between = self.due.is_none() && self.transfer.is_none();
        between && self.queue.is_empty() && self.under == Under::Nothing
    }

    /// Whether edits may be pushed: what they say that was seen is of the hub's
    /// history, because the hub has taken the cursor, or the batch in flight is
    /// what keeps a cut from being applied.
    pub(super) fn may_push(&self) -> bool {
        self.under != Under::Reset && self.followed && (self.at.is_some() || self.is_held())
    }

    /// Whether a cut waits for the batch in flight.
    pub(super) fn is_held(&self) -> bool {
        self.due.is_some_and(|due| due.why == Waits::Held)
    }

    /// Nothing is in flight any more: what waited for it need not.
    pub(super) fn released(&mut self) {
        if let Some(due) = self.due.as_mut().filter(|due| due.why == Waits::Held) {
            due.why = Waits::Chunks;
        }
    }

    /// Takes what has its place in the order.
    pub(super) fn push(&mut self, item: Item) {
        self.queue.push_back(item);
    }

    /// The cut that is halted may be applied, or the next one.
    pub(super) fn proceed(&mut self) {
        if self.removal == Removal::Halted {
            self.removal = Removal::Allowed;
        }
    }

    /// The hub does not take the cursor: what came before is of no use.
    pub(super) fn reset(&mut self, why: Why, epoch: crate::Epoch, last_batch: u64) -> ClientAction {
        self.queue.clear();
        self.transfer = None;
        (self.staged, self.reported) = (0, 0);
        self.reports.clear();
        self.due = None;
        self.followed = false;
        self.under = Under::Reset;
        ClientAction::Reset {
            why,
            epoch,
            last_batch,
        }
    }

    /// From where the replica follows after a reset.
    pub(super) fn restarted(&mut self, from: Start) -> Result<(), Fault> {
        if self.under != Under::Reset {
            return Err(Fault::answer("the action"));
        }
        self.under = Under::Nothing;
        self.at = match from {
            Start::Nothing => None,
            Start::At(cursor) => Some(cursor),
        };
        Ok(())
    }

    /// The next step, when the store is free.
    pub(super) fn next(
        &mut self,
        ack: Option<&PushAck>,
        chunks_are_here: bool,
        full: bool,
    ) -> Result<Next, Fault> {
        let Some(due) = self.due else {
            return self.next_without_cut(ack, full);
        };
        let ack = ack.filter(|ack| ack.seq <= due.cursor.seq);
        let now = match due.why {
            Waits::Chunks if !chunks_are_here => return Ok(Next::Wait),
            Waits::Chunks => true,
            Waits::Held => ack.is_some(),
            Waits::Halted => self.removal == Removal::Allowed,
        };
        if now {
            return Ok(self.apply(due.cursor, ack));
        }
        // A later cut will do as well.
        self.take(full)
    }

    fn next_without_cut(&mut self, ack: Option<&PushAck>, full: bool) -> Result<Next, Fault> {
        // The commit of a batch that changed nothing may have been applied
        // before its answer came.
        let known = self
            .at
            .filter(|_| self.staged == 0 && self.transfer.is_none());
        let known = known.filter(|at| ack.is_some_and(|ack| ack.seq <= at.seq));
        match known {
            Some(at) => Ok(self.apply(at, ack)),
            None => self.take(full),
        }
    }

    fn apply(&mut self, cursor: Cursor, ack: Option<&PushAck>) -> Next {
        self.under = Under::Apply {
            cursor,
            with_ack: ack.is_some(),
        };
        Next::Do(ClientAction::Apply {
            cursor,
            ack: ack.cloned(),
            confirmed: self.removal == Removal::Allowed,
        })
    }

    /// Looks at what is next.
    fn take(&mut self, full: bool) -> Result<Next, Fault> {
        if full {
            return Ok(Next::Wait);
        }
        let frame = match self.queue.pop_front() {
            None => return Ok(Next::Wait),
            Some(Item::Confirmed(confirmed)) => return self.confirm(confirmed),
            Some(Item::Told(frame)) => frame,
        };
        self.consumed
            .push((frame.kind, crate::session::link::size(&frame)));
        self.followed = true;
        match Message::from_frame(&frame)? {
            Some(Message::Changes(changes)) => self.changes(changes),
            Some(Message::Cut(cut)) => self.cut(&cut),
            Some(Message::Report(report)) => {
                self.reports.push(Report {
                    seq: report.seq,
                    by: report.by,
                    outcomes: report.outcomes.into_vec(),
                });
                Ok(self.stage(Vec::new()))
            }
            _ => Ok(Next::Again),
        }
    }

    /// The commit after the last cut is the batch in flight.
    fn confirm(&mut self, confirmed: Confirmed) -> Result<Next, Fault> {
        let Confirmed { seq, chain, edits } = confirmed;
        let last = self.due.map(|due| due.cursor).or(self.at);
        let last = last.filter(|_| self.transfer.is_none());
        let Some(last) = last.filter(|last| last.seq.checked_add(1) == Some(seq)) else {
            let got = "PushAck that is a cut";
            return Err(Fault::state(got, "it after the cut before its commit"));
        };
        let cursor = Cursor { seq, chain, ..last };
        let why = Waits::Chunks;
        self.due = Some(Due { cursor, why });
        self.is_new = false;
        let first = self.staged + self.reported;
        self.staged += edits;
        self.under = Under::Stage;
        Ok(Next::Do(ClientAction::Confirm { first, seq }))
    }

    fn stage(&mut self, changes: Vec<crate::Change>) -> Next {
        self.is_new = false;
        let first = self.staged + self.reported;
        let reports = std::mem::take(&mut self.reports);
        self.staged += changes.len() as u64;
        self.reported += reports.len() as u64;
        self.under = Under::Stage;
        Next::Do(ClientAction::Stage {
            first,
            changes,
            reports,
        })
    }

    fn changes(&mut self, message: Changes) -> Result<Next, Fault> {
        let number = message.transfer;
        let transfer = self.transfer.get_or_insert_with(|| Incoming::new(number));
        let changes = transfer.changes(message);
        let changes = changes.map_err(|error| Fault::new(error.code(), error))?;
        // What was staged is no longer what the last cut was of.
        self.due = None;
        Ok(self.stage(changes))
    }

    fn cut(&mut self, message: &Cut) -> Result<Next, Fault> {
        let number = message.transfer;
        let transfer = self.transfer.take();
        let transfer = transfer.unwrap_or_else(|| Incoming::new(number));
        let cursor = transfer.cut(message);
        let cursor = cursor.map_err(|error| Fault::new(error.code(), error))?;
        if let Some(at) = self.at {
            if at.epoch != cursor.epoch {
                return Err(Fault::new(Code::EPOCH, "a cut of another life of the hub"));
            }
            if at.seq > cursor.seq {
                return Err(Fault::new(Code::STATE, "a cut before the cursor"));
            }
        }
        if self.at == Some(cursor) && self.staged == 0 {
            return Ok(Next::Again);
        }
        let why = Waits::Chunks;
        self.due = Some(Due { cursor, why });
        if self.is_new {
            // What an earlier session left is not of this cut.
            return Ok(self.stage(Vec::new()));
        }
        Ok(Next::Again)
    }

    /// The store has staged.
    pub(super) fn staged(&mut self) -> Result<(), Fault> {
        if self.under != Under::Stage {
            return Err(Fault::answer("the action"));
        }
        self.under = Under::Nothing;
        Ok(())
    }

    /// The store has answered what became of the cut.
    pub(super) fn applied(&mut self, applied: Applied) -> Result<Done, Fault> {
        let Under::Apply { cursor, with_ack } = self.under else {
            return Err(Fault::answer("the action"));
        };
        self.under = Under::Nothing;
        let why = match applied {
            Applied::Done => {
                self.at = Some(cursor);
                self.due = None;
                self.removal = Removal::Unasked;
                let changes = std::mem::take(&mut self.staged);
                self.reported = 0;
                let acked = with_ack;
                return Ok(Done::Applied {
                    cursor,
                    changes,
                    acked,
                });
            }
            Applied::Held if with_ack => {
                return Err(Fault::answer("a cut with its acknowledgement"));
            }
            Applied::Held => Waits::Held,
            Applied::Halted { .. } => {
                self.removal = Removal::Halted;
                Waits::Halted
            }
            Applied::Wants(_) => Waits::Chunks,
        };
        self.due = Some(Due { cursor, why });
        Ok(match applied {
            Applied::Halted { removed, of } => Done::Halted { removed, of },
            Applied::Wants(chunks) => Done::Wants(chunks),
            _ => Done::Held,
        })
    }
}
