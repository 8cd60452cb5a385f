//! The connection for calls of the host: reads them, does them beside each other,
//! and answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::wire::IGNORABLE;
use cairn_transports::Channel;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::station::Station;
use crate::exec::{Event, EventKind, ExecId, Execution, Keep, Seq, Signal, Terminal};
use crate::remote::{
    CALL, CALLS_MAX, CANCEL, Call, CallFrame, Code, EventWire, Fault, READ_MAX, REPLY, Reply,
    ReplyFrame, decode, encode,
};

/// How long nothing may come from a host before it is taken to be gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Replies that wait to be sent.
const QUEUE: usize = 8;

/// Calls under way, by their numbers.
type UnderWay = Arc<Mutex<HashMap<u64, AbortHandle>>>;

/// Serves the calls of one connection, until it ends or another takes its place.
pub(super) async fn serve(station: Arc<Station>, channel: Channel, seat: u64) {
    let (sender, mut receiver) = channel.split();
    let (replies, mut queued) = mpsc::channel::<Bytes>(QUEUE);
    let sending = async {
        while let Some(payload) = queued.recv().await {
            sender.send(REPLY, payload).await;
        }
    };
    let receiving = async {
        let mut desk = Desk {
            station,
            seat,
            replies,
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            under_way: UnderWay::default(),
            calls: JoinSet::new(),
        };
        // A host that is there says something every few seconds.
        while let Ok(Some(Ok((kind, payload)))) = timeout(SILENCE, receiver.next()).await {
            if !desk.take(kind, &payload) {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

/// What takes the frames of a connection.
struct Desk {
    station: Arc<Station>,
    seat: u64,
    replies: mpsc::Sender<Bytes>,
    places: Arc<Semaphore>,
    under_way: UnderWay,
    /// What is under way ends with this, but for what has begun to start.
    calls: JoinSet<()>,
}

impl Desk {
    /// Takes a frame. `false` for one that makes no sense.
    fn take(&mut self, kind: u16, payload: &Bytes) -> bool {
        while self.calls.try_join_next().is_some() {}
        match kind {
            CALL => {
                let Ok(frame) = decode::<CallFrame>(payload) else {
                    return false;
                };
                self.begin(frame);
            }
            CANCEL => {
                let number = decode::<u64>(payload).unwrap_or(u64::MAX);
                if let Some(call) = self.under_way.lock().remove(&number) {
                    call.abort();
                }
            }
            // A newer host may say more.
            kind => return kind & IGNORABLE != 0,
        }
        true
    }

    fn begin(&mut self, frame: CallFrame) {
        let doing = Doing {
            station: Arc::clone(&self.station),
            seat: self.seat,
            place: Arc::clone(&self.places).try_acquire_owned().ok(),
            replies: self.replies.clone(),
            under_way: Arc::clone(&self.under_way),
        };
        let number = frame.number;
        // It is known before it can end.
        let mut all = self.under_way.lock();
        all.insert(number, self.calls.spawn(doing.run(frame)));
    }
}

/// A call under way.
struct Doing {
    station: Arc<Station>,
    seat: u64,
    place: Option<OwnedSemaphorePermit>,
    replies: mpsc::Sender<Bytes>,
    under_way: UnderWay,
}

impl Doing {
    async fn run(self, frame: CallFrame) {
        let number = frame.number;
        let reply = match &self.place {
            Some(_) => self.perform(frame.call).await,
            None => Err(Fault::new(Code::BUSY, "too many calls are under way")),
        };
        if let Ok(payload) = encode(&ReplyFrame { number, reply }) {
            // Nobody may wait for it any more.
            let _ = self.replies.send(payload).await;
        }
        self.under_way.lock().remove(&number);
    }

    async fn perform(&self, call: Call) -> Result<Reply, Fault> {
        let station = &self.station;
        Ok(match call {
            Call::Ping => Reply::Done,
            Call::Start { id, after, plan } => {
                let id = parsed(&id)?;
                if let Some(after) = after {
                    station.reach(after).await?;
                }
                let (command, options) = plan.into_command(id.clone());
                station.start_exec(self.seat, id, command, options).await?;
                Reply::Done
            }
            Call::Find { id } => {
                let id = parsed(&id)?;
                let exec = station.find(&id).await?;
                Reply::Found {
                    written: station.written(&id).await,
                    keep_unread: exec.keep() == Keep::Unread,
                }
            }
            Call::Read {
                id,
                from,
                bytes_max,
            } => self.read(&parsed(&id)?, from, bytes_max).await?,
            Call::Bounds { id } => {
                let bounds = self.exec(&id).await?.bounds().await?;
                Reply::Bounds {
                    oldest: bounds.oldest,
                    next: bounds.next,
                }
            }
            Call::Exit { id } => {
                let exit = self.exec(&id).await?.exit().await?;
                station.forget_input(&parsed(&id)?);
                Reply::Exit(exit)
            }
            Call::Reach { cursor } => {
                station.reach(cursor).await?;
                Reply::Done
            }
            Call::Settle => Reply::Settled(station.settle().await?),
            other => self.control(other).await?,
        })
    }

    /// A page of events.
    async fn read(&self, id: &ExecId, from: Seq, bytes_max: u32) -> Result<Reply, Fault> {
        let max = usize::try_from(bytes_max).unwrap_or(READ_MAX).min(READ_MAX);
        let events = self.station.find(id).await?.read(from, max).await?;
        let ends = |event: &Event| matches!(event.kind, EventKind::Exit(_));
        if events.last().is_some_and(ends) {
            self.station.forget_input(id);
        }
        let events = events.into_iter().map(EventWire::new);
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let long = |_| Fault::new(Code::LOG, "too many events for a reply");
        Ok(Reply::Events(events.try_into().map_err(long)?))
    }

    /// What is done to an exec.
    async fn control(&self, call: Call) -> Result<Reply, Fault> {
        let station = &self.station;
        match call {
            Call::Kill { id, signal } => {
                let signal = Signal::from_number(signal)?;
                self.exec(&id).await?.kill(signal).await?;
            }
            Call::Write { id, at, bytes } => {
                station.write(&parsed(&id)?, at, bytes.into_bytes()).await?;
            }
            Call::CloseInput { id } => {
                self.exec(&id).await?.close_input().await?;
                station.forget_input(&parsed(&id)?);
            }
            Call::Resize { id, rows, columns } => {
                let size = Terminal { rows, columns };
                self.exec(&id).await?.resize(size).await?;
            }
            Call::Dispose { id } => {
                let id = parsed(&id)?;
                station.forget_input(&id);
                station.runtime().dispose(&id)?;
            }
            _ => return Err(Fault::new(Code::UNSUPPORTED, "this call is not known")),
        }
        Ok(Reply::Done)
    }

    async fn exec(&self, id: &str) -> Result<Arc<dyn Execution>, Fault> {
        self.station.find(&parsed(id)?).await
    }
}

fn parsed(id: &str) -> Result<ExecId, Fault> {
    Ok(id.parse()?)
}
