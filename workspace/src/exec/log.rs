//! The events of one exec, of which a bounded amount is kept.
//!
//! The log is a row of segments, each a quarter of the most that is kept. When
//! a new one would be too much, the oldest goes as a whole. A segment is a file
//! `ID,N` or, for a runtime without a directory, memory. A disk that fails does
//! not stop an exec: from then on its segments are in memory.
//!
//! Invariants: numbers are consecutive over all segments; nothing follows an
//! exit; kept bytes never exceed the most by more than one record.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::event::{Event, EventKind, Seq};
use super::record::{self, DATA_MAX, HEADER};

/// Between two entries of a segment's index.
const INDEX_EVERY: u64 = 64 << 10;
/// Bytes read from a segment at a time: a whole record at least.
const READ: usize = 2 * (DATA_MAX + HEADER);
/// Segments of a log that is full.
const SEGMENTS: u64 = 4;
/// The least that a log keeps: two of the largest records in each segment.
const CAP_MIN: u64 = SEGMENTS * 2 * (DATA_MAX + HEADER) as u64;

/// Where the files of an exec's log are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
}

impl Place {
    fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{},{number}", self.name))
    }
}

/// Why events cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// They were evicted; this is the oldest that is kept.
    Evicted(Seq),
    /// The disk failed.
    Io(io::Error),
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    File { file: File, path: PathBuf },
}

#[derive(Debug)]
struct Segment {
    first: Seq,
    bytes: u64,
    store: Store,
    /// Where some of the records begin.
    index: Vec<(Seq, u64)>,
}

impl Segment {
    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        match &mut self.store {
            Store::Memory(bytes) => bytes.extend_from_slice(record),
            Store::File { file, .. } => file.write_all(record)?,
        }
        Ok(())
    }

    /// Bytes from an offset on: [`READ`] of them, or all there are.
    fn read(&self, offset: u64) -> io::Result<Bytes> {
        let len = self.bytes.saturating_sub(offset).min(READ as u64);
        let len = usize::try_from(len).unwrap_or(READ);
        match &self.store {
            Store::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let slice = bytes.get(from..).unwrap_or_default();
                Ok(Bytes::copy_from_slice(&slice[..len.min(slice.len())]))
            }
            Store::File { file, .. } => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }

    /// Records in order from an offset on, until `each` has enough or the segment ends.
    fn scan(&self, mut at: u64, mut each: impl FnMut(Event) -> bool) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a record is damaged");
        while at < self.bytes {
            let mut bytes = self.read(at)?;
            let begun = at;
            while let Some(header) = record::header(&bytes) {
                let len = header.record_len();
                if len > bytes.len() {
                    break;
                }
                let event = record::decode(&bytes.split_to(len)).ok_or_else(damaged)?;
                at += len as u64;
                if !each(event) {
                    return Ok(());
                }
            }
            if at == begun {
                return Err(damaged());
            }
        }
        Ok(())
    }

    fn remove(self) {
        if let Store::File { path, .. } = self.store {
            // What cannot be removed now goes with the exec.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The log of one exec.
#[derive(Debug)]
pub(crate) struct Log {
    place: Option<Place>,
    segments: VecDeque<Segment>,
    next_segment: u64,
    next: Seq,
    cap: u64,
    bytes: u64,
    ended: bool,
    scratch: Vec<u8>,
}

impl Log {
    /// An empty log that keeps about `cap` bytes.
    pub(crate) fn new(place: Option<Place>, cap: u64) -> Self {
        Self {
            place,
            segments: VecDeque::new(),
            next_segment: 0,
            next: 1,
            cap: cap.max(CAP_MIN),
            bytes: 0,
            ended: false,
            scratch: Vec::new(),
        }
    }

    /// The number that the next event gets.
    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// Whether its last event is there.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The oldest event that is kept, or the next one.
    pub(crate) fn oldest(&self) -> Seq {
        self.segments.front().map_or(self.next, |first| first.first)
    }

    /// Whether the next event of so many bytes makes some go from a number on.
    pub(crate) fn would_lose(&self, from: Seq, len: usize) -> bool {
        let len = (HEADER + len) as u64;
        let fits = |last: &Segment| last.bytes + len <= self.cap / SEGMENTS;
        let full = self.segments.len() as u64 >= SEGMENTS;
        // The oldest segment goes, with all up to the first event of the next.
        let second = self
            .segments
            .get(1)
            .map_or(self.next, |second| second.first);
        full && !self.segments.back().is_some_and(fits) && second > from
    }

    /// Adds an event. Returns `false`, and adds none, after the last one.
    pub(crate) fn append(&mut self, at_ms: u64, kind: EventKind) -> bool {
        if self.ended {
            return false;
        }
        self.ended = matches!(kind, EventKind::Exit(_));
        let event = Event {
            seq: self.next,
            at_ms,
            kind,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        record::encode(&event, &mut scratch);
        self.store(event.seq, &scratch);
        self.scratch = scratch;
        self.next += 1;
        true
    }

    fn store(&mut self, seq: Seq, record: &[u8]) {
        let len = record.len() as u64;
        let fits = |last: &Segment| last.bytes + len <= self.cap / SEGMENTS;
        if !self.segments.back().is_some_and(fits) {
            self.begin_segment(seq);
        }
        if let Err(error) = self.last().write(record) {
            tracing::warn!(%error, "the log of an exec goes on in memory");
            // A torn record at the end of that file is ignored when it is read.
            self.place = None;
            self.begin_segment(seq);
            // Memory takes it.
            let _ = self.last().write(record);
        }
        let last = self.last();
        if last
            .index
            .last()
            .is_none_or(|(_, at)| last.bytes - at >= INDEX_EVERY)
        {
            last.index.push((seq, last.bytes));
        }
        last.bytes += len;
        self.bytes += len;
    }

    fn last(&mut self) -> &mut Segment {
        if self.segments.is_empty() {
            self.begin_segment(self.next);
        }
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    fn begin_segment(&mut self, first: Seq) {
        while self.segments.len() as u64 >= SEGMENTS {
            if let Some(oldest) = self.segments.pop_front() {
                self.bytes -= oldest.bytes;
                oldest.remove();
            }
        }
        let store = self.place.as_ref().and_then(|place| {
            let path = place.segment(self.next_segment);
            let mut how = File::options();
            let opened = how.read(true).append(true).create(true).open(&path);
            opened
                .inspect_err(
                    |error| tracing::warn!(%error, path = %path.display(), "an exec's log"),
                )
                .ok()
                .map(|file| Store::File { file, path })
        });
        self.next_segment += 1;
        self.segments.push_back(Segment {
            first,
            bytes: 0,
            store: store.unwrap_or(Store::Memory(Vec::new())),
            index: Vec::new(),
        });
    }

    /// Events from a number on, of about `bytes_max` bytes but at least one,
    /// if there is one.
    pub(crate) fn read(&self, from: Seq, bytes_max: usize) -> Result<Vec<Event>, ReadError> {
        if from < self.oldest() {
            return Err(ReadError::Evicted(self.oldest()));
        }
        let mut events = Vec::new();
        let mut left = bytes_max;
        let begin = self
            .segments
            .partition_point(|segment| segment.first <= from);
        for segment in self.segments.range(begin.saturating_sub(1)..) {
            if left == 0 && !events.is_empty() {
                break;
            }
            let at = segment.index.partition_point(|(seq, _)| *seq <= from);
            let at = at.checked_sub(1).map_or(0, |at| segment.index[at].1);
            segment
                .scan(at, |event| {
                    if event.seq >= from {
                        left = left.saturating_sub(size(&event));
                        events.push(event);
                    }
                    left > 0
                })
                .map_err(ReadError::Io)?;
        }
        Ok(events)
    }

    /// Reads what an earlier runtime left. The log goes on where it ended.
    pub(crate) fn reopen(place: &Place, cap: u64) -> io::Result<Self> {
        let mut log = Self::new(Some(place.clone()), cap);
        for (number, path) in segments_of(place)? {
            let bytes = Bytes::from(std::fs::read(&path)?);
            log.next_segment = number + 1;
            log.take_up(&path, bytes)?;
        }
        Ok(log)
    }

    /// Takes a segment that was read: its records, as far as they are whole and in order.
    fn take_up(&mut self, path: &Path, mut bytes: Bytes) -> io::Result<()> {
        let (mut index, mut at, mut first) = (Vec::new(), 0, None);
        while let Some(header) = record::header(&bytes) {
            let begins = self.segments.is_empty() && first.is_none();
            let len = header.record_len();
            if len > bytes.len() || !(begins || header.seq == self.next) {
                break;
            }
            let Some(event) = record::decode(&bytes.split_to(len)) else {
                break;
            };
            self.ended |= matches!(event.kind, EventKind::Exit(_));
            first.get_or_insert(event.seq);
            if index
                .last()
                .is_none_or(|(_, from)| at - from >= INDEX_EVERY)
            {
                index.push((event.seq, at));
            }
            at += len as u64;
            self.next = event.seq + 1;
        }
        let Some(first) = first else { return Ok(()) };
        let file = File::options().read(true).append(true).open(path)?;
        // What follows was cut off by a crash, and something may be appended.
        file.set_len(at)?;
        self.bytes += at;
        let path = path.into();
        self.segments.push_back(Segment {
            first,
            bytes: at,
            store: Store::File { file, path },
            index,
        });
        Ok(())
    }
}

/// The segments of a log that are on disk, in order.
pub(crate) fn segments_of(place: &Place) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&place.dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            let rest = name.strip_prefix(&place.name)?.strip_prefix(',')?;
            rest.parse().ok()
        });
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn size(event: &Event) -> usize {
    match &event.kind {
        EventKind::Stdout(data) | EventKind::Stderr(data) => HEADER + data.len(),
        EventKind::Exit(_) => HEADER,
    }
}

#[cfg(test)]
mod tests;
