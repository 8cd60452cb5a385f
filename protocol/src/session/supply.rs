//! Chunks on their way out: how many fit a message, and the messages.

use super::batch::CHUNK_OVERHEAD;
use super::link::{BULK, Fault};
use crate::limits::{FRAME_MIN, HASHES_MAX};
use crate::wire::{ChunkData, Chunks, Code, Ext, FRAME_HEADER, Frame, List, Message};

/// Chunks that a store is asked for at a time.
pub(super) const CHUNKS_MAX: usize = 2_048;
/// Bytes of a message besides the chunks, at most.
const OVERHEAD: usize = 64;

/// Encoded bytes that a store may give now, so that the answer fits one message
/// and the credit. `None` if there is no credit for what is longest.
pub(super) fn budget(frame_max: u32, credit: u64) -> Option<usize> {
    let longest = u64::from(FRAME_MIN) + FRAME_HEADER as u64;
    let room = u64::from(frame_max).min(credit.checked_sub(FRAME_HEADER as u64)?);
    let around = (CHUNKS_MAX * CHUNK_OVERHEAD + OVERHEAD) as u64;
    let budget = usize::try_from(room.saturating_sub(around)).ok();
    budget.filter(|_| credit >= longest)
}

/// The frames that carry these chunks.
pub(super) fn frames(
    request: u64,
    chunks: Vec<ChunkData>,
    frame_max: u32,
) -> Result<Vec<Frame>, Fault> {
    let room = usize::try_from(frame_max).unwrap_or(usize::MAX) - OVERHEAD;
    let (mut frames, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        let len = chunk.bytes.len() + CHUNK_OVERHEAD;
        if bytes + len > room || part.len() == HASHES_MAX {
            frames.push(frame(request, std::mem::take(&mut part))?);
            bytes = 0;
        }
        bytes += len;
        part.push(chunk);
    }
    if !part.is_empty() {
        frames.push(frame(request, part)?);
    }
    Ok(frames)
}

fn frame(request: u64, chunks: Vec<ChunkData>) -> Result<Frame, Fault> {
    let too_many = |error| Fault::new(Code::INTERNAL, error);
    let message = Chunks {
        request,
        chunks: List::try_from(chunks).map_err(too_many)?,
        ext: Ext::default(),
    };
    Ok(Message::from(message).to_frame(BULK))
}
