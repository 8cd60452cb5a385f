//! Messages as bytes: they come back, as SPEC.md and the vectors beside this have
//! them, and any bytes are messages or an error (I12).

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use cairn_protocol::wire::{
    About, Blob, Capabilities, Changes, ChunkData, Chunks, Code, Credit, Cut, Error, Ext, Fence,
    FenceOk, Frame, FrameReader, Goodbye, Hello, Hydrate, IGNORABLE, IS_CUT, Limits, List, Message,
    Missing, Need, Of, Outcomes, Ping, Pong, Push, PushAck, Report, Reset, Role, SetScope, Start,
    Subscribe, Text, Token, Want, Welcome, Why, WireError,
};
use cairn_protocol::wire::{Applied, FRAME_HEADER};
use cairn_protocol::{
    Chain, Change, ChunkHash, Cursor, EDITS_MAX, Edit, Encoding, Entry, Epoch, FRAME_MAX,
    HASHES_MAX, Name, NodeId, NodeKind, Outcome, Refusal, ReplicaTag, Scope,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

fn list<T, const MAX: usize>(values: Vec<T>) -> List<T, MAX> {
    List::try_from(values).ok().unwrap()
}

fn blob<const MAX: usize>(bytes: &'static [u8]) -> Blob<MAX> {
    Blob::try_from(Bytes::from_static(bytes)).unwrap()
}

fn hash(byte: u8) -> ChunkHash {
    ChunkHash::from_bytes([byte; 32])
}

fn cursor() -> Cursor {
    Cursor {
        epoch: Epoch([0xe0; 16]),
        seq: 300,
        chain: Chain([0xc0; 16]),
        scope: Scope::ALL,
    }
}

/// One message of each kind, as the vectors have them.
#[allow(clippy::too_many_lines, reason = "a table, one row a kind")]
fn samples() -> Vec<Message> {
    let ext = Ext::default();
    let node = NodeId {
        replica: ReplicaTag(9),
        counter: 7,
    };
    let name = Name::new(b"ab").unwrap();
    let parent = NodeId::ROOT;
    let chunk = ChunkData {
        hash: hash(1),
        len: 3,
        encoding: Encoding::ZstdPrefix { base: hash(2) },
        bytes: blob(b"xyz"),
    };
    let greeting = [
        Message::from(Hello {
            version_min: 1,
            version_max: 1,
            role: Role::Client,
            workspace: [0xaa; 16],
            replica: ReplicaTag(9),
            token: Token::new(b"secret").unwrap(),
            capabilities: Capabilities(1),
            limits: Limits::OURS,
            agent: Text::cut("cairn 0.1"),
            ext: list(vec![(500, blob(b"later"))]),
        }),
        Message::from(Welcome {
            version: 1,
            epoch: Epoch([0xe0; 16]),
            head: cursor(),
            capabilities: Capabilities(1),
            limits: Limits::OURS,
            last_batch: 4,
            last_batch_digest: [0xdd; 32],
            session: 5,
            ext: ext.clone(),
        }),
    ];
    let feed = [
        Message::from(Subscribe {
            from: Start::At(cursor()),
            scope: Scope::ALL,
            hydrate: Hydrate::Inline(4_096),
            ext: ext.clone(),
        }),
        Message::from(Changes {
            transfer: 1,
            first: 0,
            changes: list(vec![Change {
                ver: 300,
                entry: Entry::Gone { node },
            }]),
            ext: ext.clone(),
        }),
        Message::from(Cut {
            transfer: 1,
            cursor: cursor(),
            entries: 1,
            digest: [0xdd; 32],
            ext: ext.clone(),
        }),
        Message::from(Applied {
            cursor: cursor(),
            ext: ext.clone(),
        }),
    ];
    let push = [
        Message::from(Push {
            batch: 1,
            part: 0,
            last: true,
            seen: cursor(),
            edits: list(vec![
                Edit::New {
                    node,
                    kind: NodeKind::File,
                },
                Edit::Name {
                    parent,
                    name: name.clone(),
                    was: None,
                    node: Some(node),
                },
            ]),
            chunks: list(vec![hash(1)]),
            inline: list(vec![chunk.clone()]),
            digest: [0xdd; 32],
            ext: ext.clone(),
        }),
        Message::from(Need {
            of: Of::Batch(1),
            first: 0,
            bits: blob(&[0b101]),
            ext: ext.clone(),
        }),
        Message::from(PushAck {
            batch: 1,
            seq: 301,
            chain: Chain([0xc0; 16]),
            outcomes: list(vec![
                (0, Outcome::Renamed { node, parent, name }),
                (
                    1,
                    Outcome::Refused {
                        why: Refusal::Unknown,
                    },
                ),
            ]),
            ext: ext.clone(),
        }),
    ];
    let chunks = [
        Message::from(Want {
            request: 1,
            priority: 0,
            chunks: list(vec![(hash(1), Some(hash(2))), (hash(3), None)]),
            ext: ext.clone(),
        }),
        Message::from(Chunks {
            request: 1,
            chunks: list(vec![chunk]),
            ext: ext.clone(),
        }),
        Message::from(Missing {
            request: 1,
            chunks: list(vec![hash(3)]),
            ext: ext.clone(),
        }),
        Message::from(Credit {
            lane: 1,
            bytes: 1 << 20,
            entries: 100,
            ext: ext.clone(),
        }),
    ];
    let rest = [
        Message::from(SetScope {
            scope: Scope([5; 8]),
            rules: list(vec![blob(b"target/")]),
            ext: ext.clone(),
        }),
        Message::from(Fence {
            nonce: 300,
            ext: ext.clone(),
        }),
        Message::from(FenceOk {
            nonce: 300,
            cursor: cursor(),
            ext: ext.clone(),
        }),
        Message::from(Reset {
            why: Why::Horizon,
            epoch: Epoch([0xe0; 16]),
            horizon: 300,
            ext: ext.clone(),
        }),
        Message::from(Ping {
            nonce: 1,
            ext: ext.clone(),
        }),
        Message::from(Pong {
            nonce: 1,
            ext: ext.clone(),
        }),
        Message::from(Goodbye {
            code: Code::SHUTDOWN,
            detail: Text::cut("bye"),
            ext: ext.clone(),
        }),
        Message::from(Error {
            code: Code(999),
            about: About::Request(1),
            retry_after_ms: 1_000,
            detail: Text::cut("odd"),
            ext: ext.clone(),
        }),
        Message::from(Report {
            seq: 300,
            by: ReplicaTag(9),
            outcomes: list(vec![Outcome::Kept { node }]),
            ext: ext.clone(),
        }),
        Message::from(Outcomes {
            batch: 1,
            outcomes: list(vec![(7, Outcome::Revived { node })]),
            ext,
        }),
        Message::from(PushAck {
            batch: 2,
            seq: 302,
            chain: Chain([0xc0; 16]),
            outcomes: list(Vec::new()),
            ext: list(vec![(IS_CUT, Blob::default())]),
        }),
    ];
    let all = [greeting.to_vec(), feed.to_vec(), push.to_vec()];
    [all.concat(), chunks.to_vec(), rest.to_vec()].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// `CAIRN_WRITE_VECTORS=1` writes them anew.
#[test]
fn frames_are_as_the_vectors_have_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/frames.txt");
    let frames: Vec<Frame> = samples().iter().map(|m| m.to_frame(0)).collect();
    if std::env::var_os("CAIRN_WRITE_VECTORS").is_some() {
        let lines = frames.iter().zip(samples()).map(|(frame, message)| {
            let shown = format!("{message:?}");
            let name = shown.split(['(', ' ']).next().unwrap().to_owned();
            format!("{name} {}\n", hex(&frame.encode()))
        });
        let head = "# One frame of each kind: its name, and its bytes in hexadecimal.\n";
        std::fs::write(&path, head.to_owned() + &lines.collect::<String>()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), frames.len());
    for ((line, frame), message) in lines.iter().zip(frames).zip(samples()) {
        let (_, bytes) = line.split_once(' ').unwrap();
        assert_eq!(hex(&frame.encode()), bytes, "{message:?}");
        let mut reader = FrameReader::new(FRAME_MAX);
        reader.push(&unhex(bytes));
        let read = reader.next().unwrap().unwrap();
        assert_eq!(Message::from_frame(&read), Ok(Some(message)));
    }
}

#[test]
fn the_kinds_of_messages_are_numbered() {
    let kinds: Vec<u16> = samples().iter().map(Message::kind).collect();
    // The last is an answer that is a cut.
    let all = (1..=24).filter(|kind| *kind != 17);
    assert_eq!(kinds, all.chain([9]).collect::<Vec<u16>>());
}

#[test]
fn what_may_be_passed_over_is_and_what_may_not_is_refused() {
    let frame = |kind| Frame {
        kind,
        lane: 0,
        payload: Bytes::from_static(b"whatever"),
    };
    assert_eq!(Message::from_frame(&frame(IGNORABLE | 0x63)), Ok(None));
    let refused = Message::from_frame(&frame(99)).unwrap_err();
    assert_eq!(refused, WireError::Kind { kind: 99 });
    assert_eq!(refused.code(), Code::UNSUPPORTED);
    // The number of a kind to come.
    assert!(Message::from_frame(&frame(17)).is_err());
}

#[test]
fn i12_padded_and_trailing_bytes_are_refused() {
    let ping = samples().into_iter().find(|m| m.kind() == 19).unwrap();
    let frame = ping.to_frame(0);
    assert_eq!(*frame.payload, [1, 0]);
    for payload in [&[0x81, 0, 0][..], &[1, 0, 0]] {
        let payload = Bytes::copy_from_slice(payload);
        let refused = Message::from_frame(&Frame {
            payload,
            ..frame.clone()
        });
        assert_eq!(refused, Err(WireError::NotCanonical { kind: 19 }));
    }
}

#[test]
fn i12_lists_that_are_too_long_are_refused() {
    let message = |count| {
        // batch, part, last, seen, then the edits, of which there are so many.
        let mut payload = vec![1, 0, 1];
        payload.extend_from_slice(&postcard::to_stdvec(&cursor()).unwrap());
        payload.extend_from_slice(&postcard::to_stdvec(&vec![5_u8; count][..]).unwrap());
        let frame = Frame {
            kind: 7,
            lane: 0,
            payload: payload.into(),
        };
        Message::from_frame(&frame).unwrap_err()
    };
    assert_eq!(message(EDITS_MAX + 1).code(), Code::MALFORMED);
    assert!(List::<u8, HASHES_MAX>::try_from(vec![0; HASHES_MAX + 1]).is_err());
}

#[test]
fn a_token_is_not_shown() {
    let hello = &samples()[0];
    assert!(!format!("{hello:?}").contains("secret"));
    let token = |bytes| Token::new(bytes).unwrap();
    assert_eq!(token(b"secret"), token(b"secret"));
    assert_ne!(token(b"secret"), token(b"secreT"));
    assert_eq!(Token::new(&[0; 257]), None);
}

/// Reads a stream to its end or to what is wrong with it.
fn read(stream: &[u8], sizes: &[usize]) -> Vec<Result<Option<Message>, WireError>> {
    let mut reader = FrameReader::new(FRAME_MAX);
    let (mut left, mut got) = (stream, Vec::new());
    for size in sizes.iter().cycle() {
        let (part, rest) = left.split_at((*size).min(left.len()));
        reader.push(part);
        loop {
            match reader.next() {
                Ok(Some(frame)) => got.push(Message::from_frame(&frame)),
                Ok(None) => break,
                Err(error) => {
                    got.push(Err(error));
                    return got;
                }
            }
        }
        if rest.is_empty() {
            return got;
        }
        left = rest;
    }
    got
}

proptest! {
    #[test]
    fn messages_come_back_however_the_stream_is_split(sizes in vec(1_usize..400, 1..20)) {
        let stream: Vec<u8> = samples().iter().flat_map(|m| m.to_frame(0).encode()).collect();
        let got: Vec<_> = read(&stream, &sizes);
        let want: Vec<_> = samples().into_iter().map(|m| Ok(Some(m))).collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn i12_any_bytes_are_messages_or_an_error(
        bytes in vec(any::<u8>(), 0..600),
        sizes in vec(1_usize..100, 1..8),
    ) {
        read(&bytes, &sizes);
    }

    #[test]
    fn i12_a_damaged_message_is_another_or_an_error(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let all = samples();
        let mut bytes = which.get(&all).to_frame(0).encode().to_vec();
        for (at, byte) in damage {
            let at = FRAME_HEADER + at.index(bytes.len() - FRAME_HEADER);
            bytes[at] = byte;
        }
        for message in read(&bytes, &[64]).into_iter().flatten().flatten() {
            let again = message.to_frame(0);
            prop_assert_eq!(Message::from_frame(&again), Ok(Some(message)));
        }
    }
}
