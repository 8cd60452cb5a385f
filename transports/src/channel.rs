//! Connections between a host and a daemon, over which both sync and exec run.
//!
//! A [`Channel`] is a connection whose frames belong to who holds it, whoever of
//! the two has dialled. What its first frames say is of no interest here; when
//! both sides know each other, a channel may become that of a session: of a hub
//! with [`host`], of a replica with [`Arrivals`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::session::{Ended, Event, HubSession};
use cairn_protocol::wire::{Code, Frame, WireError};
use cairn_protocol::{FRAME_MAX, ReplicaTag};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::client::connect::{Connector, Speaks};
use crate::driver::{Drive, Stop, drive, together};
use crate::error::{CarrierError, ConnectError};
use crate::link::{Inbox, Outbox, Wire, link};
use crate::server::{Hub, hub_config};
use crate::silence::SILENCE;
use crate::tls::{TlsError, Trust};

/// How long a carrier has to send what is queued when nobody holds the channel.
const FLUSH: Duration = Duration::from_secs(5);

/// What carries the frames of a channel, and how it ended.
type Task = JoinHandle<Result<(), CarrierError>>;

/// A connection of a host and a daemon. It ends when it is dropped, once what was
/// queued is sent.
#[derive(Debug)]
pub struct Channel {
    outbox: Outbox,
    inbox: Inbox,
    carrying: Carrying,
    /// The place of a stranger; given up on admission.
    stranger: Option<OwnedSemaphorePermit>,
}

/// A carrier at work. It has some time yet when this is dropped.
#[derive(Debug)]
struct Carrying {
    task: Task,
    _held: oneshot::Sender<()>,
}

/// Sends frames over a channel.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Outbox>);

/// Receives the frames of a channel, and keeps it up.
#[derive(Debug)]
pub struct Receiver {
    inbox: Inbox,
    _carrying: Carrying,
}

impl Channel {
    /// Carries frames from now on. Needs a Tokio runtime.
    pub(crate) fn start<F>(
        carry: impl FnOnce(Wire) -> F,
        stranger: Option<OwnedSemaphorePermit>,
    ) -> Self
    where
        F: Future<Output = Result<(), CarrierError>> + Send + 'static,
    {
        let (outbox, inbox, wire) = link(Arc::default());
        let (held, dropped) = oneshot::channel();
        let carry = carry(wire);
        let task = tokio::spawn(async move {
            let mut carry = Box::pin(carry);
            tokio::select! {
                carried = &mut carry => carried,
                _ = dropped => tokio::time::timeout(FLUSH, carry).await.unwrap_or(Ok(())),
            }
        });
        Self {
            outbox,
            inbox,
            carrying: Carrying { task, _held: held },
            stranger,
        }
    }

    /// Queues a frame. It is lost if the connection ends.
    pub fn send(&self, kind: u16, payload: Bytes) {
        self.outbox.push(frame(kind, payload));
    }

    /// The next frame: its kind and its payload. `None` when the connection has
    /// ended.
    ///
    /// # Errors
    ///
    /// [`WireError`] when the peer sent what is no frame. Nothing comes after it.
    ///
    /// # Cancel safety
    ///
    /// Safe: a frame is taken or it is not.
    pub async fn next(&mut self) -> Option<Result<(u16, Bytes), WireError>> {
        next(&mut self.inbox).await
    }

    /// The peer is known: it may send frames of full size, and is no stranger.
    pub fn admit(&mut self) {
        self.inbox.admit(FRAME_MAX);
        self.stranger = None;
    }

    /// Both directions, for tasks of their own.
    pub fn split(self) -> (Sender, Receiver) {
        let receiver = Receiver {
            inbox: self.inbox,
            _carrying: self.carrying,
        };
        (Sender(Arc::new(self.outbox)), receiver)
    }

    /// What a session is driven with, and the end of its carrier.
    pub(crate) fn into_link(
        self,
    ) -> (
        Outbox,
        Inbox,
        impl Future<Output = Result<(), CarrierError>>,
    ) {
        let mut carrying = self.carrying;
        let carried = async move {
            let ended = (&mut carrying.task).await;
            ended.unwrap_or(Err(CarrierError::Streams("its carrier has failed")))
        };
        (self.outbox, self.inbox, carried)
    }
}

impl Sender {
    /// Queues a frame, and waits while so much is queued that there should not be
    /// more. One task alone may wait.
    ///
    /// # Cancel safety
    ///
    /// It is queued, or it is not.
    pub async fn send(&self, kind: u16, payload: Bytes) {
        while self.0.is_full() {
            self.0.taken().await;
        }
        self.0.push(frame(kind, payload));
    }
}

impl Receiver {
    /// As [`Channel::next`].
    ///
    /// # Errors
    ///
    /// As [`Channel::next`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Result<(u16, Bytes), WireError>> {
        next(&mut self.inbox).await
    }
}

fn frame(kind: u16, payload: Bytes) -> Frame {
    Frame {
        kind,
        lane: 0,
        payload,
    }
}

async fn next(inbox: &mut Inbox) -> Option<Result<(u16, Bytes), WireError>> {
    let came = inbox.next().await?;
    Some(came.map(|frame| (frame.kind, frame.payload)))
}

/// Makes channels to who listens at an address. The workspace in it is only a
/// name.
pub struct Dialler(Connector);

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}

impl Dialler {
    /// Channels to this address.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: certificates cannot be used on this machine.
    pub fn new(address: Address, trust: Trust) -> Result<Self, TlsError> {
        Connector::new(address, trust, Speaks::Exec, SILENCE).map(Self)
    }

    /// How long the other end may be silent before the connection is given up. By
    /// default [`SILENCE`].
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.0.set_silence(silence);
        self
    }

    /// A channel. Needs a Tokio runtime with time and IO.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives the connection up.
    pub async fn dial(&self) -> Result<Channel, ConnectError> {
        let carry = self.0.connect().await?;
        let mut channel = Channel::start(carry, None);
        // Who was dialled is known by its certificate.
        channel.admit();
        Ok(channel)
    }
}

/// Serves the replica at the other end of a channel as its hub, until the channel
/// or the session ends, or `stop` is dropped or told.
///
/// # Cancel safety
///
/// Dropping it ends the session without a word.
pub async fn host(
    hub: Arc<dyn Hub>,
    tag: ReplicaTag,
    channel: Channel,
    stop: oneshot::Receiver<()>,
) -> Ended {
    let (outbox, inbox, carried) = channel.into_link();
    let (farewell, told) = watch::channel(None);
    let with = Drive {
        store: hub.session(),
        outbox,
        inbox,
        commands: mpsc::unbounded_channel().1,
        frame_max: FRAME_MAX,
        stop: told,
        counters: Arc::default(),
    };
    let session = HubSession::new(Duration::ZERO, hub_config(tag));
    let driving = drive(session, with, |event: Event| {
        tracing::debug!(?event, "session");
    });
    let session = together(driving, carried);
    tokio::pin!(session);
    tokio::select! {
        (ended, _) = &mut session => return ended,
        _ = stop => {}
    }
    farewell.send_replace(Some(Stop {
        code: Code::SHUTDOWN,
        detail: "the host ends",
    }));
    session.await.0
}

/// Channels to a hub that somebody else brings about. The newest counts: the
/// session over one that came before it ends.
#[derive(Debug)]
pub struct Arrivals {
    waiting: Mutex<Option<Arrival>>,
    newest: watch::Sender<u64>,
}

/// A channel, and what is dropped when the session over it has ended.
type Arrival = (Channel, oneshot::Sender<()>);

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(None),
            newest: watch::channel(0).0,
        }
    }
}

impl Arrivals {
    /// A channel over which the hub is reached from now on. What it returns is
    /// dropped at the other end when the session over it has ended.
    pub fn bring(&self, channel: Channel) -> oneshot::Receiver<()> {
        let (over, ended) = oneshot::channel();
        *self.waiting.lock() = Some((channel, over));
        self.newest.send_modify(|newest| *newest += 1);
        ended
    }

    /// Waits for a channel, and gives what tells that there is a newer one.
    pub(crate) async fn next(&self) -> (Arrival, watch::Receiver<u64>) {
        let mut newest = self.newest.subscribe();
        loop {
            newest.borrow_and_update();
            if let Some(channel) = self.waiting.lock().take() {
                return (channel, newest);
            }
            // The sender is in `self`.
            let _ = newest.changed().await;
        }
    }
}
