//! Streams of bytes between two sessions, and what goes wrong with them.

use std::collections::VecDeque;

use super::rng::Rng;
use crate::session::{Input, Output, Session};
use crate::wire::{Frame, FrameReader, WireError};

/// Bytes on their way in one direction: one stream for each of two lanes, so that
/// what goes over one may pass what goes over the other.
#[derive(Debug, Default)]
pub struct Pipe {
    lanes: [VecDeque<u8>; 2],
    /// Nothing more will be sent.
    closed: bool,
}

impl Pipe {
    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) {
        let lane = usize::from(frame.lane > 0);
        self.lanes[lane].extend(frame.encode());
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether somebody has to be told of something.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes are on their way.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// Whether all was received that will ever be.
    pub fn is_over(&self) -> bool {
        self.closed && self.is_empty()
    }

    /// Loses everything after the first so many bytes of each lane.
    pub fn cut(&mut self, rng: &mut Rng) {
        for lane in &mut self.lanes {
            let left = rng.below(lane.len() + 1);
            lane.truncate(left);
        }
        self.closed = true;
    }

    /// Changes a byte of what is on its way on the lane of chunks.
    pub fn corrupt(&mut self, rng: &mut Rng) {
        let at = rng.below(self.lanes[1].len());
        if let Some(byte) = self.lanes[1].get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
    }

    /// Takes some bytes of a lane that has some.
    fn receive(&mut self, rng: &mut Rng) -> (usize, Vec<u8>) {
        let first = rng.below(2);
        let lane = if self.lanes[first].is_empty() {
            1 - first
        } else {
            first
        };
        let all = self.lanes[lane].len();
        let count = match rng.below(3) {
            0 => all,
            1 => all.min(1 + rng.below(64)),
            _ => all.min(1 + rng.below(4_096)),
        };
        (lane, self.lanes[lane].drain(..count).collect())
    }
}

/// The receiving end of a pipe.
#[derive(Debug)]
pub struct Receiver {
    readers: [FrameReader; 2],
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            readers: [FrameReader::new(0), FrameReader::new(0)],
        }
    }
}

impl Receiver {
    /// Takes some of what is on its way, and gives a session the frames that are
    /// whole. Hands each output of the session to `take`.
    ///
    /// # Errors
    ///
    /// [`WireError`] when that is no stream of frames.
    pub fn receive<S: Session>(
        &mut self,
        pipe: &mut Pipe,
        rng: &mut Rng,
        session: &mut S,
        now: std::time::Duration,
        mut take: impl FnMut(Output<S::Action>),
    ) -> Result<(), WireError> {
        let (lane, bytes) = pipe.receive(rng);
        let reader = &mut self.readers[lane];
        reader.push(&bytes);
        loop {
            reader.set_max(session.frame_max());
            let Some(frame) = reader.next()? else {
                return Ok(());
            };
            session.handle(now, Input::Frame(frame));
            drain(session, &mut take);
        }
    }
}

/// Takes all outputs of a session. Returns when it wants to be called again.
pub fn drain<S: Session>(
    session: &mut S,
    mut take: impl FnMut(Output<S::Action>),
) -> Option<std::time::Duration> {
    loop {
        match session.poll() {
            Output::Wait(until) => return until,
            output => take(output),
        }
    }
}
