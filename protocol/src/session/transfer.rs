//! A transfer: the hub's changes from one cut to the next.
//!
//! The changes come in messages within the limits, in one order. They count when
//! the cut has come, and only if they are as many as it says and have its digest.

use crate::chain::CommitHasher;
use crate::change::Change;
use crate::cursor::Cursor;
use crate::wire::{Changes, Code, Cut, Ext, Limits, List};

/// Bytes of a message of changes besides the changes, at most.
const OVERHEAD: usize = 64;

/// The sender's end of a transfer.
#[derive(Debug)]
pub struct Outgoing {
    transfer: u64,
    sent: u64,
    hasher: CommitHasher,
    entries: usize,
    bytes: usize,
}

impl Outgoing {
    /// Begins a transfer of this number.
    pub fn new(transfer: u64, limits: Limits) -> Self {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            transfer,
            sent: 0,
            hasher: CommitHasher::new(),
            entries: size(limits.entries),
            bytes: size(limits.frame).saturating_sub(OVERHEAD),
        }
    }

    /// The messages that carry the next changes.
    ///
    /// # Errors
    ///
    /// [`TransferError::Oversized`] for a change that no message can carry.
    pub fn changes(&mut self, changes: Vec<Change>) -> Result<Vec<Changes>, TransferError> {
        let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        for change in changes {
            let encoded = change.encode();
            if encoded.len() > self.bytes {
                return Err(TransferError::Oversized(encoded.len()));
            }
            if part.len() == self.entries || bytes + encoded.len() > self.bytes {
                messages.extend(self.message(std::mem::take(&mut part)));
                bytes = 0;
            }
            bytes += encoded.len();
            self.hasher.push_encoded(&encoded);
            part.push(change);
        }
        messages.extend(self.message(part));
        Ok(messages)
    }

    fn message(&mut self, changes: Vec<Change>) -> Option<Changes> {
        let first = self.sent;
        self.sent += changes.len() as u64;
        let changes = List::try_from(changes).ok()?;
        (!changes.is_empty()).then(|| Changes {
            transfer: self.transfer,
            first,
            changes,
            ext: Ext::default(),
        })
    }

    /// Ends the transfer: all changes up to this commit have been sent.
    pub fn cut(self, cursor: Cursor) -> Cut {
        Cut {
            transfer: self.transfer,
            cursor,
            entries: self.sent,
            digest: self.hasher.finish().0,
            ext: Ext::default(),
        }
    }
}

/// The receiver's end of a transfer.
#[derive(Debug)]
pub struct Incoming {
    transfer: u64,
    received: u64,
    hasher: CommitHasher,
}

/// Why a transfer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The message is of another transfer.
    #[error("a message of transfer {got} came in transfer {expected}")]
    Other {
        /// The transfer that is under way.
        expected: u64,
        /// That of the message.
        got: u64,
    },
    /// Changes are missing, or came twice.
    #[error("change {got} of the transfer came where {expected} was due")]
    Gap {
        /// The number of the change that was due.
        expected: u64,
        /// That of the one that came.
        got: u64,
    },
    /// The changes are not those that were sent.
    #[error("the changes of the transfer do not match its digest")]
    Digest,
    /// A change is too long for a message.
    #[error("a change of {0} bytes is too long for a message")]
    Oversized(usize),
}

impl TransferError {
    /// What the peer is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Other { .. } | Self::Gap { .. } => Code::STATE,
            Self::Digest => Code::MALFORMED,
            Self::Oversized(_) => Code::LIMIT,
        }
    }
}

impl Incoming {
    /// Begins a transfer of this number.
    pub fn new(transfer: u64) -> Self {
        Self {
            transfer,
            received: 0,
            hasher: CommitHasher::new(),
        }
    }

    /// The changes of a message, to be staged until the cut comes.
    ///
    /// # Errors
    ///
    /// [`TransferError`]: what was staged of the transfer is of no use.
    pub fn changes(&mut self, message: Changes) -> Result<Vec<Change>, TransferError> {
        self.check(message.transfer, message.first)?;
        for change in message.changes.iter() {
            self.hasher.push(change);
        }
        self.received += message.changes.len() as u64;
        Ok(message.changes.into_vec())
    }

    /// Ends the transfer. What was staged is now the hub's tree at the cursor.
    ///
    /// # Errors
    ///
    /// [`TransferError`]: what was staged of the transfer is of no use.
    pub fn cut(self, message: &Cut) -> Result<Cursor, TransferError> {
        self.check(message.transfer, message.entries)?;
        if self.hasher.finish().0 != message.digest {
            return Err(TransferError::Digest);
        }
        Ok(message.cursor)
    }

    fn check(&self, transfer: u64, at: u64) -> Result<(), TransferError> {
        let (expected, got) = (self.transfer, transfer);
        if expected != got {
            return Err(TransferError::Other { expected, got });
        }
        let (expected, got) = (self.received, at);
        if expected != got {
            return Err(TransferError::Gap { expected, got });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_MIN;
    use crate::wire::Message;
    use crate::{Chain, Entry, Epoch, NodeId, Scope, XattrName};

    fn cursor() -> Cursor {
        Cursor {
            epoch: Epoch([1; 16]),
            seq: 7,
            chain: Chain([2; 16]),
            scope: Scope::ALL,
        }
    }

    fn change(ver: u64, len: usize) -> Change {
        Change {
            ver,
            entry: Entry::Xattr {
                node: NodeId::ROOT,
                name: XattrName::new(b"user.x").unwrap(),
                value: Some(vec![7; len].into()),
            },
        }
    }

    const LIMITS: Limits = Limits {
        frame: FRAME_MIN,
        entries: 100,
        ..Limits::OURS
    };

    #[test]
    fn i4_changes_come_within_the_limits_and_count_with_the_cut() {
        let all: Vec<Change> = (0..250)
            .map(|ver| change(ver, if ver % 9 == 0 { 60_000 } else { 10 }))
            .collect();
        let mut sender = Outgoing::new(3, LIMITS);
        let mut messages = sender.changes(all[..130].to_vec()).unwrap();
        messages.extend(sender.changes(all[130..].to_vec()).unwrap());
        let cut = sender.cut(cursor());
        let mut receiver = Incoming::new(3);
        let mut got = Vec::new();
        for message in messages {
            assert!(message.changes.len() <= 100);
            let frame = Message::from(message.clone()).to_frame(0);
            assert!(frame.payload.len() <= FRAME_MIN as usize);
            got.extend(receiver.changes(message).unwrap());
        }
        assert_eq!(got, all);
        assert_eq!(receiver.cut(&cut), Ok(cursor()));
    }

    #[test]
    fn changes_that_are_missing_twice_or_other_are_found_out() {
        let mut sender = Outgoing::new(3, LIMITS);
        let all = (0..250).map(|ver| change(ver, 1)).collect();
        let messages = sender.changes(all).unwrap();
        let cut = sender.cut(cursor());
        let code = |messages: &[&Changes], cut: &Cut| {
            let mut receiver = Incoming::new(3);
            let taken = messages
                .iter()
                .try_for_each(|m| receiver.changes((*m).clone()).map(drop));
            let ended = taken.and_then(|()| receiver.cut(cut));
            ended.err().map(|error| error.code())
        };
        let [a, b, c] = &messages[..] else { panic!() };
        assert_eq!(code(&[a, b, c], &cut), None);
        assert_eq!(code(&[a, c], &cut), Some(Code::STATE));
        assert_eq!(code(&[a, a, b, c], &cut), Some(Code::STATE));
        assert_eq!(code(&[a, b], &cut), Some(Code::STATE));
        let mut other = c.clone();
        other.changes = vec![change(999, 1); c.changes.len()].try_into().unwrap();
        assert_eq!(code(&[a, b, &other], &cut), Some(Code::MALFORMED));
        other.transfer = 4;
        assert_eq!(code(&[a, b, &other], &cut), Some(Code::STATE));
    }
}
