//! A TCP link that takes its time, and breaks when it is told to.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces under way in one direction, each of up to 64 KiB.
const PIECES: usize = 1024;

/// A link to a server, on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct TcpLink {
    address: SocketAddr,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    /// After how many bytes each next connection breaks, both ways together.
    cuts: Mutex<VecDeque<u64>>,
    /// Bytes that were carried, both ways together.
    carried: AtomicU64,
    /// Counted up to break all connections that there are.
    broken: watch::Sender<u64>,
    delay: Duration,
}

impl TcpLink {
    /// A link to `target`; each byte takes `delay`, in either direction.
    ///
    /// # Errors
    ///
    /// There is no port.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control {
            cuts: Mutex::default(),
            carried: AtomicU64::new(0),
            broken: watch::channel(0).0,
            delay,
        });
        let task = tokio::spawn(accept(listener, target, Arc::clone(&control)));
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

    /// Breaks the next connections after so many bytes, counted both ways: one for
    /// each number. Those that come after them hold.
    pub fn cut_after(&self, bytes: impl IntoIterator<Item = u64>) {
        self.control.cuts.lock().extend(bytes);
    }

    /// Breaks all connections that there are.
    pub fn cut_now(&self) {
        self.control.broken.send_modify(|count| *count += 1);
    }

    /// How many bytes were carried so far, both ways together.
    pub fn carried(&self) -> u64 {
        self.control.carried.load(Relaxed)
    }

    /// Whether all cuts that were asked for have been begun.
    pub fn is_whole(&self) -> bool {
        self.control.cuts.lock().is_empty()
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_now();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let left = control.cuts.lock().pop_front();
            let mut broken = control.broken.subscribe();
            tokio::select! {
                _ = carry(client, target, &control, left) => {}
                _ = broken.changed() => {}
            }
        });
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    control: &Control,
    left: Option<u64>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let left = Arc::new(Mutex::new(left));
    tokio::try_join!(
        pipe(client_in, server_out, control, Arc::clone(&left)),
        pipe(server_in, client_out, control, left),
    )?;
    Ok(())
}

/// Carries one direction; it fails when the connection is to break.
async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    control: &Control,
    left: Arc<Mutex<Option<u64>>>,
) -> io::Result<()> {
    let delay = control.delay;
    let (pieces, mut due) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    let reading = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(64 << 10);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            let piece = buffer.split().freeze();
            if pieces.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = due.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(at).await;
            }
            let allowed = allowed(&left, piece.len());
            to.write_all(&piece[..allowed]).await?;
            control.carried.fetch_add(allowed as u64, Relaxed);
            if allowed < piece.len() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        to.shutdown().await
    };
    let both: io::Result<((), ())> = async { tokio::try_join!(reading, writing) }.await;
    both.map(|_| ())
}

/// How many of so many bytes pass before the cut.
fn allowed(left: &Mutex<Option<u64>>, len: usize) -> usize {
    match &mut *left.lock() {
        None => len,
        Some(left) => {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
            *left -= allowed as u64;
            allowed
        }
    }
}
