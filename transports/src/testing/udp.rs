//! A UDP link that takes its time, loses packets, and breaks when it is told to.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Packets under way in one direction; others are lost.
const PACKETS: usize = 64 << 10;

/// Longest packet, in bytes.
const PACKET_MAX: usize = 64 << 10;

/// A link to a server, on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct UdpLink {
    address: SocketAddr,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Control {
    lost_of_thousand: AtomicU32,
    /// Packets that came, both ways together.
    came: AtomicU64,
    /// Of these, the first that is lost, and the first that is not any more.
    gap: Mutex<(u64, u64)>,
    /// After how many packets each next client is not heard any more, and hears
    /// nothing, both ways together.
    cuts: Mutex<VecDeque<u64>>,
    /// Counted up to cut all clients off that there are.
    cut: AtomicU64,
}

/// How long a client is in touch.
#[derive(Clone)]
struct Touch {
    control: Arc<Control>,
    /// How often all were cut off when it came.
    cut: u64,
    left: Arc<AtomicU64>,
}

impl Touch {
    fn new(control: &Arc<Control>) -> Self {
        let left = control.cuts.lock().pop_front().unwrap_or(u64::MAX);
        Self {
            control: Arc::clone(control),
            cut: control.cut.load(Relaxed),
            left: Arc::new(AtomicU64::new(left)),
        }
    }

    /// Takes a packet; `false` from the cut on.
    fn passes(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.cut == self.control.cut.load(Relaxed)
            && self.left.fetch_update(Relaxed, Relaxed, one_less).is_ok()
    }
}

impl UdpLink {
    /// A link to `target`; each packet takes `delay`, in either direction.
    ///
    /// # Errors
    ///
    /// There is no port.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let control = Arc::default();
        let link = Link {
            socket: Arc::new(socket),
            target,
            delay,
            control: Arc::clone(&control),
        };
        let task = tokio::spawn(async move {
            let _ = link.run().await;
        });
        Ok(Self {
            address,
            control,
            task,
        })
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses so many of a thousand packets from now on.
    pub fn lose(&self, of_thousand: u32) {
        self.control.lost_of_thousand.store(of_thousand, Relaxed);
    }

    /// Loses so many packets in a row, after this many from the start, counted both
    /// ways.
    pub fn lose_after(&self, packets: u64, count: u64) {
        *self.control.gap.lock() = (packets, packets.saturating_add(count));
    }

    /// Cuts the next clients off after so many packets, counted both ways: one for
    /// each number. Those that come after them stay in touch. Each connection of a
    /// client of this crate is a new one.
    pub fn cut_after(&self, packets: impl IntoIterator<Item = u64>) {
        self.control.cuts.lock().extend(packets);
    }

    /// Cuts all clients off that there are. Nobody is told.
    pub fn cut_now(&self) {
        self.control.cut.fetch_add(1, Relaxed);
    }

    /// Whether all cuts that were asked for have been begun.
    pub fn is_whole(&self) -> bool {
        self.control.cuts.lock().is_empty()
    }

    /// How many packets came so far, lost ones too, both ways together.
    pub fn came(&self) -> u64 {
        self.control.came.load(Relaxed)
    }
}

impl Drop for UdpLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Link {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    delay: Duration,
    control: Arc<Control>,
}

impl Link {
    async fn run(self) -> io::Result<()> {
        // What runs for a client ends with this.
        let mut tasks = JoinSet::new();
        let mut clients = HashMap::new();
        let mut buffer = vec![0; PACKET_MAX];
        let mut random = Loss::new(&self.control, 1);
        loop {
            let (len, client) = self.socket.recv_from(&mut buffer).await?;
            if let Entry::Vacant(new) = clients.entry(client) {
                let server = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
                server.connect(self.target).await?;
                let (forth, due) = mpsc::channel(PACKETS);
                tasks.spawn(send(due, Arc::clone(&server), None));
                let (back, due) = mpsc::channel(PACKETS);
                tasks.spawn(send(due, Arc::clone(&self.socket), Some(client)));
                let loss = Loss::new(&self.control, 2);
                let touch = Touch::new(&self.control);
                tasks.spawn(receive(server, back, self.delay, loss, touch.clone()));
                new.insert((forth, touch));
            }
            let lost = random.loses();
            if let Some((forth, touch)) = clients.get(&client)
                && touch.passes()
                && !lost
            {
                let packet = Bytes::copy_from_slice(&buffer[..len]);
                let _ = forth.try_send((Instant::now() + self.delay, packet));
            }
        }
    }
}

async fn receive(
    server: Arc<UdpSocket>,
    back: mpsc::Sender<(Instant, Bytes)>,
    delay: Duration,
    mut random: Loss,
    touch: Touch,
) {
    let mut buffer = vec![0; PACKET_MAX];
    while let Ok(len) = server.recv(&mut buffer).await {
        if !random.loses() && touch.passes() {
            let packet = Bytes::copy_from_slice(&buffer[..len]);
            let _ = back.try_send((Instant::now() + delay, packet));
        }
    }
}

async fn send(
    mut due: mpsc::Receiver<(Instant, Bytes)>,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
) {
    while let Some((at, packet)) = due.recv().await {
        tokio::time::sleep_until(at).await;
        // What cannot be sent is lost, as elsewhere.
        let _ = match to {
            Some(to) => socket.send_to(&packet, to).await,
            None => socket.send(&packet).await,
        };
    }
}

/// Says which packets are lost: the same ones each time.
struct Loss {
    control: Arc<Control>,
    state: u64,
}

impl Loss {
    fn new(control: &Arc<Control>, seed: u64) -> Self {
        Self {
            control: Arc::clone(control),
            state: seed,
        }
    }

    fn loses(&mut self) -> bool {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let often = u64::from(self.control.lost_of_thousand.load(Relaxed));
        let number = self.control.came.fetch_add(1, Relaxed);
        let (from, to) = *self.control.gap.lock();
        (self.state >> 33) % 1_000 < often || (from..to).contains(&number)
    }
}
