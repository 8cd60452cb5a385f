//! Calls and replies.

use bytes::Bytes;
use cairn_protocol::Cursor;
use cairn_protocol::wire::{Blob, List, Text};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fault::{Code, Fault};
use super::plan::Plan;
use crate::exec::{Event, EventKind, Exit, Seq};

/// The frame of a call.
pub(crate) const CALL: u16 = 0x110;
/// The frame of its reply.
pub(crate) const REPLY: u16 = 0x111;
/// The frame by which a caller takes a call back: what waits is waited for no more.
pub(crate) const CANCEL: u16 = 0x112;

/// Calls under way on one connection, at most (X5).
pub(crate) const CALLS_MAX: usize = 256;
/// Bytes of events that one call gives, about (X6). With all calls reading, a daemon
/// holds 80 MiB for its host, at most.
pub(crate) const READ_MAX: usize = 256 << 10;
/// Longest piece of input, in bytes (X7).
pub(crate) const PIECE_MAX: usize = 256 << 10;
/// Longest output of an event, in bytes.
const DATA_MAX: usize = 64 << 10;
/// Most events in a reply.
const EVENTS_MAX: usize = 16_384;

type Id = Text<128>;

/// Something that a host asks of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Are you there?
    Ping,
    /// Be at this commit of mine, then start an exec.
    Start {
        id: Id,
        after: Option<Cursor>,
        plan: Box<Plan>,
    },
    /// Is there such an exec?
    Find { id: Id },
    /// Events from a number on, when there is one.
    Read { id: Id, from: Seq, bytes_max: u32 },
    /// What the log has.
    Bounds { id: Id },
    /// Say when it has ended.
    Exit { id: Id },
    /// Send a signal to its processes.
    Kill { id: Id, signal: i32 },
    /// Write to its standard input. `at` counts what was written before, so that a
    /// piece that comes twice is written once.
    Write {
        id: Id,
        at: u64,
        bytes: Blob<PIECE_MAX>,
    },
    /// End its standard input.
    CloseInput { id: Id },
    /// Change the size of its terminal.
    Resize { id: Id, rows: u16, columns: u16 },
    /// Forget it.
    Dispose { id: Id },
    /// Be at this commit of mine.
    Reach { cursor: Cursor },
    /// Push what is edited at yours, and say in which commit of mine it is.
    Settle,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// There is; so many bytes were written to its standard input, and it waits for
    /// readers, or not.
    Found {
        written: u64,
        keep_unread: bool,
    },
    Events(List<EventWire, EVENTS_MAX>),
    Bounds {
        oldest: Seq,
        next: Seq,
    },
    Exit(Exit),
    Settled(Cursor),
}

/// A call with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallFrame {
    pub(crate) number: u64,
    pub(crate) call: Call,
}

/// The reply to the call of this number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplyFrame {
    pub(crate) number: u64,
    pub(crate) reply: Result<Reply, Fault>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventWire {
    seq: Seq,
    at_ms: u64,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Stdout(Blob<DATA_MAX>),
    Stderr(Blob<DATA_MAX>),
    Exit(Exit),
}

impl EventWire {
    pub(crate) fn new(event: Event) -> Result<Self, Fault> {
        let blob = |bytes: Bytes| {
            let long = |_| Fault::new(Code::LOG, "an event is too long");
            Blob::try_from(bytes).map_err(long)
        };
        let kind = match event.kind {
            EventKind::Stdout(bytes) => Kind::Stdout(blob(bytes)?),
            EventKind::Stderr(bytes) => Kind::Stderr(blob(bytes)?),
            EventKind::Exit(exit) => Kind::Exit(exit),
        };
        Ok(Self {
            seq: event.seq,
            at_ms: event.at_ms,
            kind,
        })
    }

    pub(crate) fn into_event(self) -> Event {
        Event {
            seq: self.seq,
            at_ms: self.at_ms,
            kind: match self.kind {
                Kind::Stdout(bytes) => EventKind::Stdout(bytes.into_bytes()),
                Kind::Stderr(bytes) => EventKind::Stderr(bytes.into_bytes()),
                Kind::Exit(exit) => EventKind::Exit(exit),
            },
        }
    }
}

/// The payload of a frame.
pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes, Fault> {
    let bytes = postcard::to_stdvec(value)
        .map_err(|error| Fault::new(Code::MALFORMED, &error.to_string()))?;
    if bytes.len() > cairn_protocol::FRAME_MAX {
        return Err(Fault::new(
            Code::BAD_COMMAND,
            "the command with its variables and input is longer than 1 MiB; write it to a file of \
             the workspace instead",
        ));
    }
    Ok(bytes.into())
}

/// What a payload says. There is nothing behind it.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Bytes) -> Result<T, Fault> {
    let malformed = |detail: &str| Fault::new(Code::MALFORMED, detail);
    let taken = postcard::take_from_bytes(payload);
    let (value, rest) = taken.map_err(|error| malformed(&error.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(malformed("there is something behind a message"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::greeting::Greeting;
    use super::*;
    use crate::exec::{Ended, Leftovers};

    fn event(kind: EventKind) -> EventWire {
        let event = Event {
            seq: 300,
            at_ms: 1,
            kind,
        };
        EventWire::new(event).unwrap()
    }

    #[test]
    fn x1_the_encoding_of_calls_is_pinned() {
        let call = CallFrame {
            number: 300,
            call: Call::Read {
                id: Text::cut("x1"),
                from: 7,
                bytes_max: 128,
            },
        };
        let bytes = encode(&call).unwrap();
        assert_eq!(&*bytes, [0xac, 2, 3, 2, b'x', b'1', 7, 0x80, 1]);
        assert_eq!(decode::<CallFrame>(&bytes).unwrap(), call);
        let exit = Exit {
            code: 143,
            ended: Ended::Killed,
            leftovers: Leftovers::None,
        };
        let events = [
            event(EventKind::Stdout(Bytes::from_static(b"a"))),
            event(EventKind::Exit(exit)),
        ];
        let reply = ReplyFrame {
            number: 1,
            reply: Ok(Reply::Events(events.to_vec().try_into().unwrap())),
        };
        let bytes = encode(&reply).unwrap();
        let expected = [
            1, 0, 2, 2, 0xac, 2, 1, 0, 1, b'a', 0xac, 2, 1, 2, 0x9e, 2, 2, 0,
        ];
        assert_eq!(&*bytes, expected);
        assert_eq!(decode::<ReplyFrame>(&bytes).unwrap(), reply);
        let fault = ReplyFrame {
            number: 2,
            reply: Err(Fault::new(Code::UNKNOWN, "no")),
        };
        let bytes = encode(&fault).unwrap();
        assert_eq!(&*bytes, [2, 1, 22, 2, b'n', b'o', 0, 0]);
    }

    proptest! {
        #[test]
        fn i12_any_bytes_are_a_call_or_an_error(bytes: Vec<u8>) {
            let payload = Bytes::from(bytes);
            let _ = decode::<Greeting>(&payload);
            let _ = decode::<ReplyFrame>(&payload);
            if let Ok(call) = decode::<CallFrame>(&payload) {
                prop_assert!(decode::<CallFrame>(&encode(&call).unwrap()).unwrap() == call);
            }
        }
    }

    #[test]
    fn i12_a_list_that_is_not_there_is_not_allocated() {
        // A reply of as many events as a number can say, and none of them.
        let payload = Bytes::from_static(&[1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0xf]);
        assert_eq!(
            decode::<ReplyFrame>(&payload).unwrap_err().code,
            Code::MALFORMED
        );
    }
}
