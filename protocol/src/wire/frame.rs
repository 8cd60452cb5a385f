//! Frames: the length and kind of what follows, and cutting a stream into them.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::code::Code;
use crate::limits::FRAME_MAX;

/// Bytes of a frame before its payload: `len` as `u32`, `kind` as `u16`, both
/// little-endian, `flags`, `lane`.
pub const FRAME_HEADER: usize = 8;

/// The bit of a kind that says that who does not know the kind passes it over.
pub const IGNORABLE: u16 = 1 << 15;

/// A message in bytes. Shown without them: a greeting has a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: u16,
    /// 0 for what has to stay in order, others for bulk.
    pub lane: u8,
    /// The message.
    pub payload: Bytes,
}

/// Why bytes are no messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A frame is longer than it may be.
    #[error("a frame of {len} bytes is longer than {max}")]
    Oversized {
        /// Length of its payload, in bytes.
        len: usize,
        /// Longest allowed, in bytes.
        max: usize,
    },
    /// A frame has flags that have no meaning yet.
    #[error("a frame has the unknown flags {flags:#04x}")]
    Flags {
        /// All flags of the frame.
        flags: u8,
    },
    /// A message is of a kind that is not known and must not be passed over.
    #[error("messages of kind {kind} are not known")]
    Kind {
        /// The kind.
        kind: u16,
    },
    /// The payload is not a message of its kind.
    #[error("a message of kind {kind} is malformed")]
    Malformed {
        /// The kind.
        kind: u16,
        /// What the decoder found.
        #[source]
        source: postcard::Error,
    },
    /// The payload is a message that is encoded otherwise, or goes on behind it.
    #[error("a message of kind {kind} is not in its one encoding")]
    NotCanonical {
        /// The kind.
        kind: u16,
    },
}

impl WireError {
    /// What the peer is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Oversized { .. } => Code::LIMIT,
            Self::Flags { .. } | Self::Kind { .. } => Code::UNSUPPORTED,
            Self::Malformed { .. } | Self::NotCanonical { .. } => Code::MALFORMED,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("lane", &self.lane)
            .field("len", &self.payload.len())
            .finish()
    }
}

impl Frame {
    /// The bytes before the payload.
    pub fn header(&self) -> [u8; FRAME_HEADER] {
        // No message of ours is that long; a reader would refuse it.
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut header = [0; FRAME_HEADER];
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[4..6].copy_from_slice(&self.kind.to_le_bytes());
        header[7] = self.lane;
        header
    }

    /// The bytes of the frame.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER + self.payload.len());
        bytes.put_slice(&self.header());
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }
}

/// Cuts a stream of bytes into frames. It holds at most one frame of the longest
/// length that is allowed, and what was pushed last. Shown without them, as a
/// [`Frame`] is.
pub struct FrameReader {
    bytes: BytesMut,
    max: usize,
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("len", &self.bytes.len())
            .field("max", &self.max)
            .finish()
    }
}

impl FrameReader {
    /// A reader of frames with payloads of at most `max` bytes: little, before
    /// the peer has said who it is.
    pub fn new(max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            max: max.min(FRAME_MAX),
        }
    }

    /// Allows payloads of `max` bytes from now on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(FRAME_MAX);
    }

    /// Takes more of the stream. Take all frames out before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame; `None` until more of the stream has come.
    ///
    /// # Errors
    ///
    /// [`WireError`]: the stream is of no use any more.
    #[allow(
        clippy::should_implement_trait,
        reason = "it goes on after `None`, and ends with an error"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(mut header) = self.bytes.get(..FRAME_HEADER) else {
            return Ok(None);
        };
        let len = usize::try_from(header.get_u32_le()).unwrap_or(usize::MAX);
        let (kind, flags, lane) = (header.get_u16_le(), header.get_u8(), header.get_u8());
        if len > self.max {
            return Err(WireError::Oversized { len, max: self.max });
        }
        if flags != 0 {
            return Err(WireError::Flags { flags });
        }
        if self.bytes.len() < FRAME_HEADER + len {
            return Ok(None);
        }
        self.bytes.advance(FRAME_HEADER);
        let payload = self.bytes.split_to(len).freeze();
        Ok(Some(Frame {
            kind,
            lane,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Frame {
        Frame {
            kind: 3,
            lane: 1,
            payload: vec![7; len].into(),
        }
    }

    #[test]
    fn a_stream_is_cut_into_its_frames_wherever_it_is_split() {
        let frames = [frame(0), frame(5), frame(300)];
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for size in 1..stream.len() {
            let mut reader = FrameReader::new(1_000);
            let mut got = Vec::new();
            for part in stream.chunks(size) {
                reader.push(part);
                while let Some(frame) = reader.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
        }
    }

    #[test]
    fn i12_a_frame_that_is_too_long_is_refused_by_its_header() {
        let mut reader = FrameReader::new(100);
        reader.push(&frame(101).encode()[..FRAME_HEADER]);
        let refused = WireError::Oversized { len: 101, max: 100 };
        assert_eq!(reader.next(), Err(refused.clone()));
        assert_eq!(refused.code(), Code::LIMIT);
        let mut reader = FrameReader::new(usize::MAX);
        reader.push(&[0xff; FRAME_HEADER]);
        assert!(matches!(
            reader.next(),
            Err(WireError::Oversized { max: FRAME_MAX, .. })
        ));
    }

    #[test]
    fn i12_a_reader_makes_room_for_what_came_and_for_few_frames() {
        let header = &frame(FRAME_MAX).encode()[..FRAME_HEADER];
        let mut reader = FrameReader::new(FRAME_MAX);
        reader.push(header);
        assert_eq!(reader.next(), Ok(None));
        assert!(reader.bytes.capacity() < 1_000, "a length is no reason");
        let stream = frame(4_096).encode();
        let mut reader = FrameReader::new(4_096);
        for part in (0..50).flat_map(|_| stream.chunks(100)) {
            reader.push(part);
            while reader.next().unwrap().is_some() {}
            // A buffer that grows doubles.
            assert!(reader.bytes.capacity() <= 3 * stream.len());
        }
        assert!(reader.bytes.is_empty());
    }

    #[test]
    fn flags_without_a_meaning_are_refused() {
        let mut bytes = frame(1).encode().to_vec();
        bytes[6] = 1;
        let mut reader = FrameReader::new(100);
        reader.push(&bytes);
        assert_eq!(reader.next(), Err(WireError::Flags { flags: 1 }));
    }
}
