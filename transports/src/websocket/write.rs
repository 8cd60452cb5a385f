//! What is sent over a WebSocket: frames in messages, answers to pings, the end.

use bytes::{BufMut, Bytes, BytesMut};
use cairn_protocol::wire::{Code, FRAME_HEADER, Frame};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Side, close_code, mask};
use crate::error::CarrierError;
use crate::link::{Lanes, Outgoing};
use crate::random;

/// A message gets more frames until it has so many bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// The writing half of a WebSocket.
pub(super) struct Sink<S> {
    stream: WriteHalf<S>,
    side: Side,
    buffer: BytesMut,
    masks: random::Words,
}

impl<S: AsyncWrite + Unpin> Sink<S> {
    pub(super) fn new(stream: WriteHalf<S>, side: Side) -> Self {
        Self {
            stream,
            side,
            buffer: BytesMut::new(),
            masks: random::Words::default(),
        }
    }

    /// Sends until there is nothing more to send, and says with which code the
    /// connection ends.
    pub(super) async fn send_all(
        &mut self,
        outgoing: &Outgoing,
        mut pongs: mpsc::Receiver<Bytes>,
    ) -> Result<Code, CarrierError> {
        loop {
            tokio::select! {
                next = outgoing.next(Lanes::All) => match next {
                    Ok(frame) => self.send(frame, outgoing).await?,
                    Err(code) => return Ok(code),
                },
                Some(pong) = pongs.recv() => {
                    self.message(OpCode::Control(Control::Pong), &[&pong]).await?;
                }
            }
        }
    }

    /// Sends a frame, and with it others that wait, as one message.
    async fn send(&mut self, first: Frame, outgoing: &Outgoing) -> Result<(), CarrierError> {
        let mut len = FRAME_HEADER + first.payload.len();
        let mut frames = vec![first];
        while len < MESSAGE_BYTES {
            let Some(Ok(frame)) = outgoing.try_next(Lanes::All) else {
                break;
            };
            len += FRAME_HEADER + frame.payload.len();
            frames.push(frame);
        }
        let headers: Vec<_> = frames.iter().map(Frame::header).collect();
        let parts: Vec<&[u8]> = headers
            .iter()
            .zip(&frames)
            .flat_map(|(header, frame)| [&header[..], &frame.payload[..]])
            .collect();
        self.message(OpCode::Data(Data::Binary), &parts).await
    }

    async fn message(&mut self, opcode: OpCode, parts: &[&[u8]]) -> Result<(), CarrierError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let key = (self.side == Side::Client).then(|| self.masks.next());
        let header = FrameHeader {
            opcode,
            mask: key,
            ..FrameHeader::default()
        };
        self.buffer.clear();
        self.buffer.reserve(header.len(len as u64) + len);
        header
            .format(len as u64, &mut (&mut self.buffer).writer())
            .map_err(|_| CarrierError::WebSocket("a header has no room"))?;
        let start = self.buffer.len();
        for part in parts {
            self.buffer.put_slice(part);
        }
        if let Some(key) = key {
            mask(&mut self.buffer[start..], key, 0);
        }
        self.stream.write_all(&self.buffer).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Says that this is the end.
    pub(super) async fn close(&mut self, code: Code) -> Result<(), CarrierError> {
        let code = close_code(code).to_be_bytes();
        self.message(OpCode::Control(Control::Close), &[&code])
            .await?;
        self.stream.shutdown().await?;
        Ok(())
    }
}
