//! Events as bytes of a log.
//!
//! A record is a header of 21 bytes (number, time, kind, length; little
//! endian) and its bytes. What a crash leaves of a last record is recognised
//! by its length, or by a number that is not the next, and ignored.

use bytes::Bytes;

use super::event::{Event, EventKind, Exit, Seq};

/// Bytes before those of the event.
pub(crate) const HEADER: usize = 21;
/// Most bytes of output in one event.
pub(crate) const DATA_MAX: usize = 64 << 10;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) seq: Seq,
    at_ms: u64,
    kind: u8,
    len: usize,
}

impl Header {
    /// The length of the whole record.
    pub(crate) fn record_len(&self) -> usize {
        HEADER + self.len
    }
}

/// Appends the record of an event.
pub(crate) fn encode(event: &Event, to: &mut Vec<u8>) {
    let exit;
    let (kind, data): (u8, &[u8]) = match &event.kind {
        EventKind::Stdout(data) => (STDOUT, data),
        EventKind::Stderr(data) => (STDERR, data),
        EventKind::Exit(how) => {
            // Its types cannot fail.
            exit = serde_json::to_vec(how).unwrap_or_default();
            (EXIT, &exit)
        }
    };
    debug_assert!(data.len() <= DATA_MAX, "an event is cut before");
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&event.seq.to_le_bytes());
    to.extend_from_slice(&event.at_ms.to_le_bytes());
    to.push(kind);
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(data);
}

/// Reads a header. `None` for what cannot be one.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let (seq, rest) = bytes.split_first_chunk()?;
    let (at_ms, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let (len, _) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let header = Header {
        seq: u64::from_le_bytes(*seq),
        at_ms: u64::from_le_bytes(*at_ms),
        kind: *kind,
        len,
    };
    (len <= DATA_MAX && (STDOUT..=EXIT).contains(kind) && header.seq > 0).then_some(header)
}

/// Reads a record, which is whole. `None` for what cannot be one.
pub(crate) fn decode(record: &Bytes) -> Option<Event> {
    let header = header(record)?;
    let data = record.get(HEADER..header.record_len())?;
    let kind = match header.kind {
        STDOUT => EventKind::Stdout(record.slice_ref(data)),
        STDERR => EventKind::Stderr(record.slice_ref(data)),
        _ => EventKind::Exit(serde_json::from_slice::<Exit>(data).ok()?),
    };
    Some(Event {
        seq: header.seq,
        at_ms: header.at_ms,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::event::{Ended, Leftovers};

    #[test]
    fn events_are_read_as_they_were_written() {
        let exit = Exit {
            code: 137,
            ended: Ended::Killed,
            leftovers: Leftovers::Killed,
        };
        for kind in [
            EventKind::Stdout(Bytes::from_static(b"out")),
            EventKind::Stderr(Bytes::new()),
            EventKind::Exit(exit),
        ] {
            let event = Event {
                seq: 7,
                at_ms: 9,
                kind,
            };
            let mut bytes = Vec::new();
            encode(&event, &mut bytes);
            for len in 0..bytes.len() {
                assert_eq!(decode(&Bytes::copy_from_slice(&bytes[..len])), None);
            }
            assert_eq!(decode(&bytes.into()), Some(event));
        }
    }

    #[test]
    fn other_bytes_are_no_record() {
        assert_eq!(header(&[0; 64]), None);
        assert_eq!(header(&[255; 64]), None);
    }
}
