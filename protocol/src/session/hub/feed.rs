//! What a client is told of the hub's commits: pages of changes, each cut when
//! the last commit is told, and again when there is news.

use std::collections::VecDeque;

use crate::chain::Chain;
use crate::cursor::{Cursor, Seq};
use crate::limits::EDITS_MAX;
use crate::session::link::{Fault, size};
use crate::session::store::{HubAction, Report};
use crate::session::transfer::Outgoing;
use crate::wire::{self, Ext, FenceOk, Frame, Limits, List, Message, Start};

/// Changes of the first page: what they weigh is not known yet.
const FIRST_PAGE: usize = 256;
/// Bytes of a page that are aimed at: much more would only wait for credit.
const PAGE_BYTES: u64 = 1 << 20;
/// Fences that wait for an answer, at most.
const FENCES_MAX: usize = 16;

/// A page, as the store gave it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) changes: Vec<crate::Change>,
    pub(super) reports: Vec<Report>,
    pub(super) next: Seq,
    pub(super) cut: Option<Cursor>,
}

/// A fence that was not answered.
#[derive(Debug)]
struct Open {
    nonce: u64,
    /// Everything that was pushed before it is committed.
    committed: bool,
    /// A page was asked for after that.
    asked: bool,
    /// What it asked for.
    cursor: Option<Cursor>,
}

#[derive(Debug)]
pub(super) struct Feed {
    /// The client wants to follow from there.
    start: Option<Start>,
    /// Everything up to here was told. `None` while nothing is subscribed.
    after: Option<Seq>,
    /// There may be more.
    news: bool,
    /// A page was asked for.
    asked: bool,
    transfers: u64,
    outgoing: Option<Outgoing>,
    last_cut: Option<Cursor>,
    page: usize,
    /// Frames that wait for credit.
    pub(super) out: VecDeque<Frame>,
    /// A page that has to wait for the answer to a batch.
    stash: Option<Page>,
    fences: Vec<Open>,
    /// The last cut that the client has, and was not noted.
    applied: Option<Cursor>,
    /// The last commit that the client has.
    has: Option<Seq>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            start: None,
            after: None,
            news: false,
            asked: false,
            transfers: 0,
            outgoing: None,
            last_cut: None,
            page: FIRST_PAGE,
            out: VecDeque::new(),
            stash: None,
            fences: Vec::new(),
            applied: None,
            has: None,
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.after.is_some()
    }

    pub(super) fn subscribe(&mut self, from: Start) {
        self.start = Some(from);
    }

    pub(super) fn subscribed(&mut self, after: Seq) {
        self.after = Some(after);
        // Who has it already does not say so again.
        self.has = (after > 0).then_some(after);
        self.news = true;
    }

    pub(super) fn news(&mut self) {
        self.news = true;
    }

    pub(super) fn applied(&mut self, cursor: Cursor) {
        self.applied = Some(cursor);
        self.has = Some(cursor.seq);
    }

    /// The last commit that the client has.
    pub(super) fn has(&self) -> Option<Seq> {
        self.has
    }

    pub(super) fn fence(&mut self, nonce: u64) -> Result<(), Fault> {
        if self.fences.len() == FENCES_MAX {
            return Err(Fault::new(crate::wire::Code::LIMIT, "too many fences"));
        }
        self.fences.push(Open {
            nonce,
            committed: false,
            asked: false,
            cursor: None,
        });
        Ok(())
    }

    /// Nothing that was pushed waits to be committed.
    pub(super) fn all_committed(&mut self) {
        for fence in &mut self.fences {
            self.news |= !std::mem::replace(&mut fence.committed, true);
        }
    }

    /// What to ask of the store next. While a batch is being committed, what
    /// there is to tell would have to wait for its answer.
    pub(super) fn next(&mut self, committing: bool) -> Option<HubAction> {
        if let Some(cursor) = self.applied.take() {
            return Some(HubAction::Applied { cursor });
        }
        if let Some(from) = self.start.take() {
            return Some(HubAction::Subscribe { from });
        }
        let after = self.after?;
        if committing || !self.news || !self.out.is_empty() || self.stash.is_some() {
            return None;
        }
        self.news = false;
        self.asked = true;
        for fence in &mut self.fences {
            fence.asked |= fence.committed;
        }
        let max = self.page;
        Some(HubAction::Feed { after, max })
    }

    /// The client is told of a commit of its own by the answer alone, if that is
    /// the next of which it has to be told.
    pub(super) fn confirm(&mut self, seq: Seq, chain: Chain) -> bool {
        let between = self.outgoing.is_none() && self.out.is_empty();
        let none_asked = !self.asked && self.stash.is_none();
        let Some(last) = self.last_cut.filter(|_| between && none_asked) else {
            return false;
        };
        if self.after != Some(last.seq) || last.seq.checked_add(1) != Some(seq) {
            return false;
        }
        self.after = Some(seq);
        self.last_cut = Some(Cursor { seq, chain, ..last });
        true
    }

    /// The page has to wait for the answer to a batch, which may be in it.
    pub(super) fn stash(&mut self, page: Page) {
        self.asked = false;
        self.stash = Some(page);
    }

    pub(super) fn unstash(&mut self) -> Option<Page> {
        self.stash.take()
    }

    /// Makes a page into messages. Returns how many changes it has.
    pub(super) fn page(&mut self, page: Page, limits: Limits) -> Result<u64, Fault> {
        self.asked = false;
        let count = page.changes.len();
        for report in page.reports {
            self.out.extend(reports(&report));
        }
        let mut bytes = 0;
        if count > 0 {
            let transfers = &mut self.transfers;
            let outgoing = self.outgoing.get_or_insert_with(|| {
                *transfers += 1;
                Outgoing::new(*transfers, limits)
            });
            let messages = outgoing.changes(page.changes);
            let messages = messages.map_err(|error| Fault::new(error.code(), error))?;
            for message in messages {
                let frame = Message::from(message).to_frame(0);
                bytes += size(&frame);
                self.out.push_back(frame);
            }
        }
        self.adjust(count, bytes);
        self.after = Some(page.next);
        match page.cut {
            Some(cursor) => self.cut(cursor, limits),
            None => self.news = true,
        }
        Ok(count as u64)
    }

    /// Makes the next page about as large as it should be.
    fn adjust(&mut self, count: usize, bytes: u64) {
        if bytes > 2 * PAGE_BYTES {
            self.page = (self.page / 2).max(1);
        } else if count >= self.page && bytes < PAGE_BYTES / 2 {
            self.page = (self.page * 2).min(crate::ENTRIES_MAX);
        }
    }

    /// Answers the fences whose cut was told.
    pub(super) fn pass_fences(&mut self) {
        let passed = self.fences.extract_if(.., |fence| fence.cursor.is_some());
        for Open { nonce, cursor, .. } in passed {
            let Some(cursor) = cursor else {
                continue;
            };
            let ext = Ext::default();
            let ok = Message::from(FenceOk { nonce, cursor, ext });
            self.out.push_back(ok.to_frame(0));
        }
    }

    fn cut(&mut self, cursor: Cursor, limits: Limits) {
        // A client that has this already is told nothing.
        if self.outgoing.is_some() || self.last_cut != Some(cursor) {
            let outgoing = self.outgoing.take();
            let outgoing = outgoing.unwrap_or_else(|| {
                self.transfers += 1;
                Outgoing::new(self.transfers, limits)
            });
            let cut = Message::from(outgoing.cut(cursor));
            self.out.push_back(cut.to_frame(0));
            self.last_cut = Some(cursor);
        }
        for fence in self.fences.iter_mut().filter(|fence| fence.asked) {
            fence.cursor.get_or_insert(cursor);
        }
    }
}

/// The messages that carry a report.
fn reports(report: &Report) -> Vec<Frame> {
    let parts = report.outcomes.chunks(PART.min(EDITS_MAX));
    let frames = parts.map(|part| {
        Message::from(wire::Report {
            seq: report.seq,
            by: report.by,
            outcomes: List::try_from(part.to_vec()).unwrap_or_default(),
            ext: Ext::default(),
        })
        .to_frame(0)
    });
    frames.collect()
}

/// Outcomes of one message: each has at most about 300 bytes.
pub(super) const PART: usize = 1_024;
