//! The queues between a session and what carries its frames.
//!
//! A carrier is a future that moves frames between a connection and a [`Wire`];
//! who drives the session has the other ends, an [`Outbox`] and an [`Inbox`]. So
//! neither waits for the other: a session never blocks on a slow peer, it only
//! sees how much is waiting, and a carrier stops reading when nobody takes what
//! it has read.
//!
//! Memory: what has come and was not taken is bounded here, by [`INBOX_BYTES`];
//! what waits to be sent is bounded by who drives, which stops taking more from
//! its peer and its store ([`Outbox::is_full`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cairn_protocol::FRAME_STRANGER;
use cairn_protocol::session::BACKLOG_MAX;
use cairn_protocol::wire::{Code, FRAME_HEADER, Frame, FrameReader, WireError};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// What may have come and not been taken, in bytes: some of the longest frames.
pub(crate) const INBOX_BYTES: usize = 4 << 20;

/// What a frame costs beside its payload, in bytes, so that a stream of empty
/// frames is bounded, too.
const FRAME_COST: usize = 64;

/// What went over connections, for people and benchmarks.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes of frames sent, headers included.
    pub sent_bytes: AtomicU64,
    /// Frames sent.
    pub sent_frames: AtomicU64,
    /// Bytes of frames that came, headers included.
    pub received_bytes: AtomicU64,
    /// Frames that came.
    pub received_frames: AtomicU64,
}

impl Traffic {
    fn sent(&self, frame: &Frame) {
        self.sent_bytes.fetch_add(size(frame), Relaxed);
        self.sent_frames.fetch_add(1, Relaxed);
    }

    fn received(&self, frame: &Frame) {
        self.received_bytes.fetch_add(size(frame), Relaxed);
        self.received_frames.fetch_add(1, Relaxed);
    }
}

fn size(frame: &Frame) -> u64 {
    (FRAME_HEADER + frame.payload.len()) as u64
}

fn cost(frame: &Frame) -> usize {
    FRAME_COST + frame.payload.len()
}

#[derive(Debug, Default)]
struct Queues {
    control: VecDeque<Frame>,
    bulk: VecDeque<Frame>,
    bytes: usize,
    /// No more come; the code with which the connection ends.
    last: Option<Code>,
}

#[derive(Debug, Default)]
struct Sending {
    queues: Mutex<Queues>,
    control: Notify,
    bulk: Notify,
    taken: Notify,
}

/// What came: a frame and its room in the queue, or what was no frame.
type Came = Result<(Frame, OwnedSemaphorePermit), WireError>;

/// Where a session's frames go.
#[derive(Debug)]
pub(crate) struct Outbox(Arc<Sending>);

/// Where a session's frames come from.
#[derive(Debug)]
pub(crate) struct Inbox {
    frames: mpsc::UnboundedReceiver<Came>,
    frame_max: watch::Sender<usize>,
}

/// A carrier's end: what to send.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    sending: Arc<Sending>,
    traffic: Arc<Traffic>,
}

/// A carrier's end: where to put what comes.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    frames: mpsc::UnboundedSender<Came>,
    room: Arc<Semaphore>,
    frame_max: watch::Receiver<usize>,
    traffic: Arc<Traffic>,
}

/// Both ends of a carrier.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What to send.
    pub outgoing: Outgoing,
    /// Where to put what comes.
    pub incoming: Incoming,
}

/// The queues of one connection.
pub(crate) fn link(traffic: Arc<Traffic>) -> (Outbox, Inbox, Wire) {
    let sending = Arc::new(Sending::default());
    let (to_session, frames) = mpsc::unbounded_channel();
    let (frame_max, limit) = watch::channel(FRAME_STRANGER);
    let wire = Wire {
        outgoing: Outgoing {
            sending: Arc::clone(&sending),
            traffic: Arc::clone(&traffic),
        },
        incoming: Incoming {
            frames: to_session,
            room: Arc::new(Semaphore::new(INBOX_BYTES)),
            frame_max: limit,
            traffic,
        },
    };
    (Outbox(sending), Inbox { frames, frame_max }, wire)
}

impl Outbox {
    /// Queues a frame. It is lost if the connection ends.
    pub(crate) fn push(&self, frame: Frame) {
        let mut queues = self.0.queues.lock();
        queues.bytes += cost(&frame);
        if frame.lane == 0 {
            queues.control.push_back(frame);
            self.0.control.notify_one();
        } else {
            queues.bulk.push_back(frame);
            self.0.bulk.notify_one();
        }
    }

    /// Whether so much waits that there should not be more.
    pub(crate) fn is_full(&self) -> bool {
        self.0.queues.lock().bytes >= BACKLOG_MAX
    }

    /// Waits until something was sent.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost.
    pub(crate) async fn taken(&self) {
        self.0.taken.notified().await;
    }

    /// Lets the connection end, with a code, when everything queued is sent.
    pub(crate) fn finish(&self, code: Code) {
        self.0.queues.lock().last.get_or_insert(code);
        self.0.control.notify_one();
        self.0.bulk.notify_one();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.finish(Code::SHUTDOWN);
    }
}

impl Inbox {
    /// The next frame; `None` when the connection has ended.
    ///
    /// # Errors
    ///
    /// [`WireError`] when the peer sent what is no frame: nothing comes after it,
    /// and the peer can still be told.
    ///
    /// # Cancel safety
    ///
    /// Safe: a frame is taken or it is not.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame, WireError>> {
        let came = self.frames.recv().await?;
        Some(came.map(|(frame, _room)| frame))
    }

    /// The peer is known: it may send payloads of `frame_max` bytes.
    pub(crate) fn admit(&self, frame_max: usize) {
        self.frame_max.send_replace(frame_max);
    }
}

/// Which lanes a carrier wants the next frame of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Control alone.
    Control,
    /// Bulk alone.
    Bulk,
    /// All, control first. One reader alone may ask for this.
    All,
}

impl Outgoing {
    /// The next frame to send; the code with which the connection ends when there
    /// is no other.
    ///
    /// # Cancel safety
    ///
    /// Safe: a frame is taken or it is not.
    pub(crate) async fn next(&self, lanes: Lanes) -> Result<Frame, Code> {
        loop {
            if let Some(next) = self.try_next(lanes) {
                return next;
            }
            match lanes {
                Lanes::Control => self.sending.control.notified().await,
                Lanes::Bulk => self.sending.bulk.notified().await,
                Lanes::All => tokio::select! {
                    () = self.sending.control.notified() => {}
                    () = self.sending.bulk.notified() => {}
                },
            }
        }
    }

    /// What [`Self::next`] would give at once.
    pub(crate) fn try_next(&self, lanes: Lanes) -> Option<Result<Frame, Code>> {
        let mut queues = self.sending.queues.lock();
        let mut frame = None;
        if lanes != Lanes::Bulk {
            frame = queues.control.pop_front();
        }
        if lanes != Lanes::Control {
            frame = frame.or_else(|| queues.bulk.pop_front());
        }
        let Some(frame) = frame else {
            return queues.last.map(Err);
        };
        queues.bytes -= cost(&frame);
        drop(queues);
        self.traffic.sent(&frame);
        self.sending.taken.notify_one();
        Some(Ok(frame))
    }
}

impl Incoming {
    /// Hands a frame over, when there is room. `false` when nobody takes frames
    /// any more.
    pub(crate) async fn deliver(&self, frame: Frame) -> bool {
        self.traffic.received(&frame);
        let cost = u32::try_from(cost(&frame)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await;
        let Ok(permit) = room else {
            return false;
        };
        self.frames.send(Ok((frame, permit))).is_ok()
    }

    /// Hands over what a stream has by now. `false` when nothing more is taken:
    /// nobody takes frames, or there came what is none.
    pub(crate) async fn deliver_all(&self, reader: &mut FrameReader) -> bool {
        loop {
            reader.set_max(self.frame_max());
            match reader.next() {
                Ok(None) => return true,
                Ok(Some(frame)) => {
                    if !self.deliver(frame).await {
                        return false;
                    }
                }
                Err(error) => {
                    let _ = self.frames.send(Err(error));
                    return false;
                }
            }
        }
    }

    /// Longest payload that is taken now, in bytes.
    pub(crate) fn frame_max(&self) -> usize {
        *self.frame_max.borrow()
    }

    /// Waits until the peer is admitted. For ever, if it never is.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn admitted(&mut self) {
        let admitted = |max: &usize| *max > FRAME_STRANGER;
        if self.frame_max.wait_for(admitted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until nobody takes frames any more.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn closed(&self) {
        self.frames.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(lane: u8, len: usize) -> Frame {
        Frame {
            kind: 1,
            lane,
            payload: vec![0; len].into(),
        }
    }

    #[tokio::test]
    async fn control_goes_before_bulk_and_the_end_comes_last() {
        let (outbox, _inbox, wire) = link(Arc::default());
        outbox.push(frame(1, 10));
        outbox.push(frame(0, 20));
        outbox.finish(Code::SHUTDOWN);
        outbox.push(frame(0, 30));
        let mut lens = Vec::new();
        let code = loop {
            match wire.outgoing.next(Lanes::All).await {
                Ok(frame) => lens.push(frame.payload.len()),
                Err(code) => break code,
            }
        };
        assert_eq!((lens, code), (vec![20, 30, 10], Code::SHUTDOWN));
    }

    #[tokio::test]
    async fn i13_what_nobody_takes_is_bounded() {
        let (outbox, mut inbox, wire) = link(Arc::default());
        let mut delivered = 0;
        let more = async {
            loop {
                assert!(wire.incoming.deliver(frame(1, 1 << 20)).await);
                delivered += 1;
            }
        };
        tokio::select! {
            biased;
            () = more => {}
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(delivered, INBOX_BYTES / ((1 << 20) + FRAME_COST));
        assert!(inbox.next().await.is_some());
        assert!(wire.incoming.deliver(frame(1, 1 << 20)).await);
        while !outbox.is_full() {
            outbox.push(frame(0, 0));
        }
        assert_eq!(
            outbox.0.queues.lock().control.len(),
            BACKLOG_MAX / FRAME_COST
        );
    }
}
