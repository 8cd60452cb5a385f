//! Fences: questions whether all that was edited before is pushed, and all that
//! was committed before is here.

use crate::cursor::{Cursor, Seq};

#[derive(Debug, Default)]
pub(super) struct Fences {
    /// They wait until there is nothing to push.
    waiting: Vec<u64>,
    /// So many of them came before the store was asked what there is to push.
    asked: usize,
    sent: Option<Sent>,
    last_nonce: u64,
}

#[derive(Debug)]
struct Sent {
    nonce: u64,
    ids: Vec<u64>,
    depth: u64,
    /// The commit that the replica has to come to.
    cursor: Option<Cursor>,
}

impl Fences {
    pub(super) fn add(&mut self, id: u64) {
        self.waiting.push(id);
    }

    /// The store is asked what there is to push.
    pub(super) fn asking(&mut self) {
        self.asked = self.waiting.len();
    }

    /// There is nothing to push. Returns the nonce of a fence to send.
    pub(super) fn nothing_to_push(&mut self, depth: u64) -> Option<u64> {
        if self.asked == 0 || self.sent.is_some() {
            return None;
        }
        self.last_nonce += 1;
        let nonce = self.last_nonce;
        self.sent = Some(Sent {
            nonce,
            ids: self.waiting.drain(..self.asked).collect(),
            depth,
            cursor: None,
        });
        self.asked = 0;
        Some(nonce)
    }

    /// Whether one waits for another to be answered first.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.sent.is_none()
    }

    /// The hub answered. Returns the depth of the question, if it was one.
    pub(super) fn answered(&mut self, nonce: u64, cursor: Cursor) -> Option<u64> {
        let sent = self.sent.as_mut().filter(|sent| sent.nonce == nonce)?;
        sent.cursor = Some(cursor);
        Some(sent.depth)
    }

    /// The replica is at this commit. Returns the fences that it has passed.
    pub(super) fn reached(&mut self, seq: Seq) -> Vec<(u64, Cursor)> {
        let passed = |sent: &mut Sent| sent.cursor.is_some_and(|cursor| cursor.seq <= seq);
        let Some(sent) = self.sent.take_if(passed) else {
            return Vec::new();
        };
        let cursor = sent.cursor;
        let ids = sent.ids.into_iter();
        ids.filter_map(|id| Some((id, cursor?))).collect()
    }

    /// Nothing can be pushed. Returns the fences that wait for it.
    pub(super) fn drain(&mut self) -> Vec<u64> {
        self.asked = 0;
        std::mem::take(&mut self.waiting)
    }
}
