//! The log against a list that keeps everything.

use proptest::prelude::*;

use super::*;
use crate::exec::event::{Ended, Exit, Leftovers};

fn place(dir: &Path) -> Place {
    Place {
        dir: dir.into(),
        name: "x".into(),
    }
}

fn line(number: u64, len: usize) -> EventKind {
    let mut text = number.to_string().into_bytes();
    text.resize(len.max(text.len()), b'.');
    EventKind::Stdout(text.into())
}

fn exit() -> EventKind {
    EventKind::Exit(Exit {
        code: 0,
        ended: Ended::Exited,
        leftovers: Leftovers::None,
    })
}

fn all(log: &Log, from: Seq) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let next = events.last().map_or(from, |last| last.seq + 1);
        let page = log.read(next, 10_000).unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// Events are kept from the oldest to the newest without a gap, and what is
/// kept is bounded, whatever the sizes.
#[test]
fn a_log_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    for place in [None, Some(place(dir.path()))] {
        let mut log = Log::new(place, 0);
        for number in 1..3_000 {
            assert_eq!(log.next(), number);
            let len = usize::try_from(number * 7_919 % 5_000).unwrap();
            assert!(log.append(number, line(number, len)));
            assert!(log.bytes <= log.cap);
        }
        let oldest = log.oldest();
        assert!(oldest > 1 && log.bytes > log.cap / 2);
        for from in [oldest, oldest + 1, 2_900, 2_999] {
            let events = all(&log, from);
            assert_eq!(events.len() as u64, 3_000 - from);
            for (event, number) in events.iter().zip(from..) {
                let len = usize::try_from(number * 7_919 % 5_000).unwrap();
                assert_eq!((event.seq, &event.kind), (number, &line(number, len)));
            }
        }
        let evicted = log.read(oldest - 1, 1);
        assert!(matches!(evicted, Err(ReadError::Evicted(at)) if at == oldest));
        assert!(log.read(3_000, 1).unwrap().is_empty());
    }
    assert!(segments_of(&place(dir.path())).unwrap().len() as u64 <= SEGMENTS);
}

#[test]
fn nothing_follows_an_exit() {
    let mut log = Log::new(None, 0);
    assert!(log.append(0, line(1, 1)));
    assert!(log.append(0, exit()));
    assert!(!log.append(0, line(2, 1)));
    assert_eq!(all(&log, 1).len(), 2);
}

/// A crash may cut the last record anywhere. What is before it counts, and
/// the log goes on after it.
#[test]
fn a_torn_log_is_read_up_to_the_tear() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new(Some(place(dir.path())), 0);
    for number in 1..=3 {
        log.append(0, line(number, 10));
    }
    drop(log);
    let path = place(dir.path()).segment(0);
    let whole = std::fs::read(&path).unwrap();
    for len in (0..=whole.len()).rev() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let mut log = Log::reopen(&place(dir.path()), 0).unwrap();
        let kept = (len / (HEADER + 10)) as u64;
        assert_eq!(all(&log, 1).len() as u64, kept);
        log.append(0, exit());
        let log = Log::reopen(&place(dir.path()), 0).unwrap();
        assert!(log.has_ended());
        assert_eq!(all(&log, 1).len() as u64, kept + 1);
        for (_, path) in segments_of(&place(dir.path())).unwrap() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// What is done to a log. Places are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Read {
        from: u64,
        bytes: usize,
    },
    /// The runtime ends in order, or its last write is cut off.
    Reopen {
        cut: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => prop_oneof![0..200_usize, 0..DATA_MAX].prop_map(Op::Append),
        3 => (any::<u64>(), 0..200_000_usize).prop_map(|(from, bytes)| Op::Read { from, bytes }),
        1 => prop_oneof![Just(0), 0..100_usize].prop_map(|cut| Op::Reopen { cut }),
    ];
    prop::collection::vec(op, 1..80)
}

/// All events that there ever were, and the log that keeps the newest.
struct Pair {
    dir: tempfile::TempDir,
    log: Log,
    model: Vec<EventKind>,
}

impl Pair {
    fn perform(&mut self, op: &Op) {
        match *op {
            Op::Append(len) => {
                let kind = line(self.log.next(), len);
                assert!(self.log.append(0, kind.clone()));
                self.model.push(kind);
            }
            Op::Read { from, bytes } => self.read(from % (self.log.next() + 2), bytes),
            Op::Reopen { cut } => self.reopen(cut),
        }
    }

    fn read(&self, from: Seq, bytes: usize) {
        let oldest = self.log.oldest();
        match self.log.read(from, bytes) {
            Err(ReadError::Evicted(at)) => assert!(at == oldest && from < oldest),
            Err(error) => panic!("{error:?}"),
            Ok(events) => {
                assert!(from >= oldest);
                assert_eq!(events.is_empty(), from >= self.log.next());
                let before = events.len().saturating_sub(1);
                let read: usize = events[..before].iter().map(size).sum();
                assert!(
                    read < bytes.max(1),
                    "a page is about as large as was asked for"
                );
                for (event, seq) in events.iter().zip(from..) {
                    assert_eq!(event.seq, seq);
                    let at = usize::try_from(seq - 1).unwrap();
                    assert_eq!(event.kind, self.model[at]);
                }
            }
        }
    }

    fn reopen(&mut self, cut: usize) {
        let newest = segments_of(&place(self.dir.path())).unwrap().pop();
        if let Some((_, path)) = newest {
            let file = File::options().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len.saturating_sub(cut as u64)).unwrap();
        }
        let before = self.log.next();
        self.log = Log::reopen(&place(self.dir.path()), 0).unwrap();
        let lost = before - self.log.next();
        assert!(cut > 0 || lost == 0, "{lost} events are lost");
        assert!(lost <= 1 + (cut / HEADER) as u64, "{lost} events are lost");
        let kept = self.model.len() - usize::try_from(lost).unwrap();
        self.model.truncate(kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_is_a_list_without_its_beginning(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(Some(place(dir.path())), 0);
        let mut pair = Pair { dir, log, model: Vec::new() };
        for op in ops {
            pair.perform(&op);
        }
        let oldest = pair.log.oldest();
        prop_assert_eq!(all(&pair.log, oldest).len() as u64, pair.log.next() - oldest);
    }
}
