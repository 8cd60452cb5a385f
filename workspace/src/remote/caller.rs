//! The host's end of a connection for calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cairn_transports::Channel;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::fault::{Code, Fault};
use super::greeting::Card;
use super::wire::{
    CALL, CALLS_MAX, CANCEL, Call, CallFrame, REPLY, Reply, ReplyFrame, decode, encode,
};

/// Frames that wait to be queued.
const QUEUE: usize = 16;
/// Who may be silent for less would be asked all the time.
const LEAST: Duration = Duration::from_millis(100);

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The connection was over before it was sent.
    NotSent,
    /// The connection ended: it may have been done.
    Cut,
    /// It failed.
    Fault(Fault),
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Makes calls over one connection, for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who answers.
    pub(crate) card: Card,
    next: AtomicU64,
    places: Semaphore,
    frames: mpsc::Sender<(u16, Bytes)>,
    waiting: Arc<Waiting>,
}

/// Who waits for a reply.
type Waiter = oneshot::Sender<Result<Reply, Fault>>;

/// Calls under way; `None` when the connection is over.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, Waiter>>>);

impl Caller {
    /// Makes calls over a channel, for as long as the other end is not silent for so
    /// long. It needs a tokio runtime.
    pub(crate) fn start(channel: Channel, card: Card, silence: Duration) -> Arc<Self> {
        let (sender, mut receiver) = channel.split();
        let (frames, mut queued) = mpsc::channel::<(u16, Bytes)>(QUEUE);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let caller = Arc::new(Self {
            card,
            next: AtomicU64::new(0),
            places: Semaphore::new(CALLS_MAX),
            frames,
            waiting: Arc::clone(&waiting),
        });
        let pinging = ping(Arc::downgrade(&caller), silence);
        tokio::spawn(async move {
            let sending = async {
                while let Some((kind, payload)) = queued.recv().await {
                    sender.send(kind, payload).await;
                }
            };
            let receiving = async {
                while let Some(Ok((kind, payload))) = receiver.next().await {
                    if kind != REPLY || !waiting.answer(&payload) {
                        return;
                    }
                }
            };
            tokio::select! {
                () = sending => {}
                () = receiving => {}
                () = pinging => {}
            }
            waiting.end();
        });
        caller
    }

    /// Whether the connection is there, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.waiting.0.lock().is_some()
    }

    /// Makes a call, and waits for its reply.
    ///
    /// # Cancel safety
    ///
    /// The call may be done, or taken back.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(CallError::NotSent);
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let payload = encode(&CallFrame { number, call })?;
        let (reply, answer) = oneshot::channel();
        match &mut *self.waiting.0.lock() {
            Some(waiting) => waiting.insert(number, reply),
            None => return Err(CallError::NotSent),
        };
        let mut taken_back = TakenBack {
            caller: self,
            number: Some(number),
        };
        if self.frames.send((CALL, payload)).await.is_err() {
            return Err(CallError::NotSent);
        }
        let answered = answer.await;
        taken_back.number = None;
        answered
            .map_err(|_| CallError::Cut)?
            .map_err(CallError::Fault)
    }
}

/// Takes a call back when nobody waits for it any more.
struct TakenBack<'a> {
    caller: &'a Caller,
    number: Option<u64>,
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        if let Some(waiting) = &mut *self.caller.waiting.0.lock() {
            waiting.remove(&number);
        }
        if let Ok(payload) = encode(&number) {
            // Where there is no room the reply comes, and is nobody's.
            let _ = self.caller.frames.try_send((CANCEL, payload));
        }
    }
}

impl Waiting {
    /// Hands a reply over. `false` for what is none.
    fn answer(&self, payload: &Bytes) -> bool {
        let Ok(frame) = decode::<ReplyFrame>(payload) else {
            return false;
        };
        let waiting = self
            .0
            .lock()
            .as_mut()
            .and_then(|all| all.remove(&frame.number));
        if let Some(reply) = waiting {
            let _ = reply.send(frame.reply);
        }
        true
    }

    fn end(&self) {
        // Who waits learns it by this.
        drop(self.0.lock().take());
    }
}

/// Returns when the other end does not answer any more, or nobody makes calls.
async fn ping(caller: std::sync::Weak<Caller>, silence: Duration) {
    let silence = silence.max(LEAST);
    let pause = silence / 3;
    loop {
        tokio::time::sleep(pause).await;
        let Some(caller) = caller.upgrade() else {
            return;
        };
        let answered =
            tokio::time::timeout(silence.saturating_sub(pause), caller.call(Call::Ping)).await;
        match answered {
            Ok(Ok(_)) => {}
            // With all places taken it is busy, and there.
            Ok(Err(CallError::Fault(fault))) if fault.code == Code::BUSY => {}
            _ => return,
        }
    }
}
