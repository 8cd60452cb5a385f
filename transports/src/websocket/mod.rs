//! Frames over WebSocket (subprotocol `cairn.v1`).
//!
//! Each binary message has one or more whole frames, control before bulk. A
//! receiver takes the payloads of messages as one stream, so it does not matter
//! to it where messages and fragments begin, and no message costs more memory
//! than a frame does.
//!
//! | module | owns |
//! | --- | --- |
//! | `handshake` | from HTTP to WebSocket, on both sides |
//! | `read` | what comes |
//! | `write` | what is sent |

mod handshake;
mod read;
mod write;

use std::time::Duration;

use cairn_protocol::wire::Code;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

use crate::error::CarrierError;
use crate::link::Wire;

pub(crate) use handshake::{EXEC, Path, SYNC, accept, connect, wants_websocket};

/// How long a closed connection may take to get its last bytes to the peer.
const LINGER: Duration = Duration::from_secs(2);

/// Answers to pings that may wait; a peer that sends more has to do without some.
const PONGS: usize = 4;

/// Who opened the connection; it masks what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This side.
    Client,
    /// The peer.
    Server,
}

/// Carries frames until the session or the peer ends the connection, or it breaks.
///
/// # Errors
///
/// [`CarrierError`] when it breaks.
///
/// # Cancel safety
///
/// Dropping it ends the connection at once; frames under way are lost.
pub(crate) async fn run<S>(stream: S, side: Side, wire: Wire) -> Result<(), CarrierError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let Wire { outgoing, incoming } = wire;
    let (pongs, replies) = mpsc::channel(PONGS);
    let mut source = read::Source::new(reader, side, pongs);
    let mut sink = write::Sink::new(writer, side);
    let (code, received_all) = {
        let sending = sink.send_all(&outgoing, replies);
        let receiving = source.receive_all(incoming);
        tokio::pin!(sending, receiving);
        tokio::select! {
            sent = &mut sending => match sent {
                Ok(code) => (code, false),
                Err(error) => {
                    // The peer may have said why, before it stopped to read.
                    let _ = tokio::time::timeout(LINGER, receiving).await;
                    return Err(error);
                }
            },
            received = &mut receiving => {
                let received_all = received?;
                // The peer says no more; this side may.
                (sending.await?, received_all)
            }
        }
    };
    let finish = async {
        sink.close(code).await?;
        if received_all {
            return Ok(());
        }
        // Who closes with bytes unread takes back what it sent last.
        source.drain().await
    };
    match tokio::time::timeout(LINGER, finish).await {
        Ok(Ok(())) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
    }
}

/// The code of a WebSocket close frame: those from 4000 on are free.
fn close_code(code: Code) -> u16 {
    4_000 + code.0.min(999)
}

/// Reads and forgets what still comes.
async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), CarrierError> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Masks bytes, or takes their mask away; the first of them is number `offset` of
/// the payload.
fn mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let shift = usize::try_from(offset % 4).unwrap_or(0);
    let mut turned = key;
    turned.rotate_left(shift);
    // Eight at a time: compilers make wide instructions of it.
    let [a, b, c, d] = turned;
    let wide = u64::from_le_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_on_wherever_the_payload_is_split() {
        let key = [1, 2, 3, 4];
        let plain: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> = plain
            .iter()
            .zip(key.iter().cycle())
            .map(|(b, k)| b ^ k)
            .collect();
        for split in 0..plain.len() {
            let mut bytes = plain.clone();
            let (left, right) = bytes.split_at_mut(split);
            mask(left, key, 0);
            mask(right, key, split as u64);
            assert_eq!(bytes, expected, "split at {split}");
        }
    }
}
