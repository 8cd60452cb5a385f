//! What comes over a WebSocket: headers, payloads without their masks, pings.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use cairn_protocol::FRAME_STRANGER;
use cairn_protocol::wire::FrameReader;
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};
use tokio::sync::mpsc;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Side, drain, mask};
use crate::error::CarrierError;
use crate::link::Incoming;

/// How much is read at once, in bytes, from an admitted peer. Before that it is
/// no more than a greeting.
const READ_AT_ONCE: usize = 256 << 10;

/// Longest payload of a control frame, by RFC 6455.
const CONTROL_MAX: u64 = 125;

/// The frame that is being received.
#[derive(Debug, Default)]
struct Payload {
    left: u64,
    seen: u64,
    mask: Option<[u8; 4]>,
}

/// What is to be done when the buffer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Read more.
    More,
    /// The peer sends no more.
    Closed,
    /// Nobody takes more.
    Unwanted,
}

/// The reading half of a WebSocket.
pub(super) struct Source<S> {
    stream: ReadHalf<S>,
    /// What was read and not looked at.
    buffer: BytesMut,
    payload: Payload,
    side: Side,
    pongs: mpsc::Sender<Bytes>,
}

impl<S: AsyncRead + Unpin> Source<S> {
    pub(super) fn new(stream: ReadHalf<S>, side: Side, pongs: mpsc::Sender<Bytes>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            payload: Payload::default(),
            side,
            pongs,
        }
    }

    /// Receives until the peer closes (`true`) or nobody takes frames.
    pub(super) async fn receive_all(&mut self, incoming: Incoming) -> Result<bool, CarrierError> {
        let mut reader = FrameReader::new(incoming.frame_max());
        loop {
            match self.take_buffered(&mut reader, &incoming).await? {
                After::More => {}
                After::Closed => return Ok(true),
                After::Unwanted => return Ok(false),
            }
            let room = if incoming.frame_max() > FRAME_STRANGER {
                READ_AT_ONCE
            } else {
                FRAME_STRANGER
            };
            self.buffer.reserve(room);
            let mut limited = (&mut self.stream).take(room as u64);
            tokio::select! {
                read = limited.read_buf(&mut self.buffer) => {
                    if read? == 0 {
                        return Ok(true);
                    }
                }
                () = incoming.closed() => return Ok(false),
            }
        }
    }

    /// Takes what the buffer has.
    async fn take_buffered(
        &mut self,
        reader: &mut FrameReader,
        incoming: &Incoming,
    ) -> Result<After, CarrierError> {
        loop {
            while self.payload.left > 0 && !self.buffer.is_empty() {
                self.take_payload(reader);
                if !incoming.deliver_all(reader).await {
                    return Ok(After::Unwanted);
                }
            }
            let Some((header, len)) = self.header()? else {
                return Ok(After::More);
            };
            match header.opcode {
                OpCode::Data(Data::Binary | Data::Continue) => {
                    self.buffer.advance(header.len(len));
                    self.payload = Payload {
                        left: len,
                        seen: 0,
                        mask: header.mask,
                    };
                }
                OpCode::Control(control) => {
                    if !self.take_control(control, &header, len)? {
                        return Ok(After::More);
                    }
                    if control == Control::Close {
                        return Ok(After::Closed);
                    }
                }
                OpCode::Data(_) => return Err(CarrierError::WebSocket("a message is not binary")),
            }
        }
    }

    /// Moves what is there of the payload to the reader of frames.
    fn take_payload(&mut self, reader: &mut FrameReader) {
        let Payload {
            left,
            seen,
            mask: key,
        } = &mut self.payload;
        let here = usize::try_from(*left)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        let mut bytes = self.buffer.split_to(here);
        if let Some(key) = *key {
            mask(&mut bytes, key, *seen);
        }
        reader.push(&bytes);
        *left -= here as u64;
        *seen += here as u64;
    }

    /// The header at the start of the buffer, checked and still there.
    fn header(&self) -> Result<Option<(FrameHeader, u64)>, CarrierError> {
        let parsed = FrameHeader::parse(&mut Cursor::new(&self.buffer[..]))
            .map_err(|_| CarrierError::WebSocket("a frame has no known kind"))?;
        let Some((header, len)) = parsed else {
            return Ok(None);
        };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(CarrierError::WebSocket("a frame needs an extension"));
        }
        if header.mask.is_some() != (self.side == Side::Server) {
            return Err(CarrierError::WebSocket(
                "frames of clients alone are masked",
            ));
        }
        Ok(Some((header, len)))
    }

    /// Takes a control frame; `false` if it has not all come.
    fn take_control(
        &mut self,
        control: Control,
        header: &FrameHeader,
        len: u64,
    ) -> Result<bool, CarrierError> {
        if len > CONTROL_MAX || !header.is_final {
            return Err(CarrierError::WebSocket("a control frame is too long"));
        }
        let start = header.len(len);
        let end = start + usize::try_from(len).unwrap_or(0);
        if self.buffer.len() < end {
            return Ok(false);
        }
        let mut frame = self.buffer.split_to(end);
        frame.advance(start);
        if let Some(key) = header.mask {
            mask(&mut frame, key, 0);
        }
        if control == Control::Ping {
            let _ = self.pongs.try_send(frame.freeze());
        }
        Ok(true)
    }

    /// Reads and forgets what still comes.
    pub(super) async fn drain(&mut self) -> Result<(), CarrierError> {
        drain(&mut self.stream).await
    }
}
