//! What sync costs: time, bytes on the wire and round trips of the things that
//! replicas do, over QUIC and WebSocket, on loopback and over a link that takes
//! 20 ms each way.
//!
//! `cargo run --release -p cairn-benches --example sync -- PLACE [quic|wss] [DELAY_MS] [WHAT]`
//!
//! Hub and replicas are durable, with default options, in one process each in a
//! directory of PLACE; the bytes are those of the sessions' frames. A row is one
//! run; the commands in `benches/README.md` say how the tables were made.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn::sync::{Counters, Follow, Hub, Identity, Serve, Upstream};
use cairn::{Options, Replica};
use cairn_transports::testing::{TcpLink, UdpLink};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// What is measured.
type Work = fn(&World<'_>) -> Result;

/// A hub, and the way to it.
struct World<'a> {
    place: &'a Path,
    serve: Serve,
    scheme: &'a str,
    link: Option<Link>,
    runtime: tokio::runtime::Runtime,
}

enum Link {
    Tcp(TcpLink),
    Udp(UdpLink),
}

impl Link {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(link) => link.address(),
            Self::Udp(link) => link.address(),
        }
    }
}

impl<'a> World<'a> {
    fn new(place: &'a Path, scheme: &'a str, delay: Duration) -> Result<Self> {
        let hub = open(place, "hub")?;
        let serve = Serve::builder()
            .listen("127.0.0.1:0".parse()?)
            .identity(Identity::open_or_create(&place.join("identity"))?)
            .hub(Hub::new("w", &hub)?)
            .start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let target = serve.address();
        let link = match (delay, scheme) {
            (Duration::ZERO, _) => None,
            (_, "quic") => Some(Link::Udp(runtime.block_on(UdpLink::start(target, delay))?)),
            _ => Some(Link::Tcp(runtime.block_on(TcpLink::start(target, delay))?)),
        };
        Ok(Self {
            place,
            serve,
            scheme,
            link,
            runtime,
        })
    }

    fn upstream(&self) -> Result<Upstream> {
        let address = self
            .link
            .as_ref()
            .map_or(self.serve.address(), Link::address);
        Ok(Upstream::new(
            &format!("{}://{address}/w", self.scheme).parse()?,
        ))
    }

    fn follow(&self, replica: &Replica) -> Result<Follow> {
        let _inside = self.runtime.enter();
        Ok(Follow::start(replica, &self.upstream()?)?)
    }
}

fn open(place: &Path, name: &str) -> Result<Replica> {
    Ok(Replica::open(
        place.join(format!("{name}.cairn")),
        Options::default(),
    )?)
}

/// One row of the table.
fn row(what: &str, took: Duration, worked: f64, before: &Counters, after: &Counters) -> Result {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| {what} | {:.1} ms | {worked:.0} ms | {} | {} | {} | {} |",
        took.as_secs_f64() * 1e3,
        after.bytes_sent - before.bytes_sent,
        after.bytes_received - before.bytes_received,
        after.round_trips - before.round_trips,
        after.changes - before.changes,
    )?;
    Ok(())
}

/// Brings a replica in step, and says what that took.
fn in_step(what: &str, follow: &Follow) -> Result {
    let before = follow.counters();
    let (begun, worked) = (Instant::now(), work_ms());
    follow.fence()?;
    let (took, worked) = (begun.elapsed(), work_ms() - worked);
    row(what, took, worked, &before, &follow.counters())
}

/// Makes a replica of the hub's workspace, and says what that took.
fn cloned(what: &str, world: &World<'_>, name: &str) -> Result<(Replica, Follow)> {
    let replica = open(world.place, name)?;
    let (begun, worked) = (Instant::now(), work_ms());
    let follow = world.follow(&replica)?;
    follow.connected()?;
    follow.fence()?;
    row(
        what,
        begun.elapsed(),
        work_ms() - worked,
        &Counters::default(),
        &follow.counters(),
    )?;
    Ok((replica, follow))
}

/// Bytes that do not compress, others for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len];
    for word in bytes.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    bytes
}

fn fill(replica: &Replica, dir: &str, files: u64, len: usize) -> Result {
    for file in 0..files {
        let parent = format!("/{dir}/{}", file / 1_000);
        if file % 1_000 == 0 {
            replica.mkdir_all(&parent)?;
        }
        replica.write_file(format!("{parent}/{file}"), &noise(file + 1, len))?;
    }
    replica.sync()?;
    Ok(())
}

fn small_files(world: &World<'_>) -> Result {
    let (a, follow) = cloned("clone of nothing", world, "a")?;
    fill(&a, "small", 10_000, 4 << 10)?;
    in_step("push of 10 000 files of 4 KiB", &follow)?;
    world.serve.settle()?;
    let (b, other) = cloned("clone of 10 000 files of 4 KiB", world, "b")?;
    in_step("nothing to do, connected", &other)?;
    drop(other);
    let other = world.follow(&b)?;
    other.connected()?;
    let (begun, worked) = (Instant::now(), work_ms());
    other.fence()?;
    row(
        "reconnect with nothing to do",
        begun.elapsed(),
        work_ms() - worked,
        &Counters::default(),
        &other.counters(),
    )?;
    a.rename_path("/small", "/moved")?;
    in_step("rename of a directory of 10 000 files", &follow)?;
    in_step("the same, on the other replica", &other)?;
    Ok(())
}

fn one_of_many(world: &World<'_>) -> Result {
    let (a, follow) = cloned("clone of nothing", world, "a")?;
    fill(&a, "many", 100_000, 64)?;
    in_step("push of 100 000 files of 64 bytes", &follow)?;
    a.write_range("/many/50/50500", 0, b"x")?;
    in_step("one byte changed in one of 100 000 files", &follow)?;
    Ok(())
}

fn large_file(world: &World<'_>) -> Result {
    let (a, follow) = cloned("clone of nothing", world, "a")?;
    let mut content = noise(7, 256 << 20);
    a.write_file("/large", &content)?;
    a.cursor()?;
    in_step("push of a file of 256 MiB", &follow)?;
    let (_b, other) = cloned("clone of a file of 256 MiB", world, "b")?;
    a.write_range("/large", 128 << 20, b"x")?;
    a.cursor()?;
    in_step("one byte changed in its middle", &follow)?;
    in_step("the same, on the other replica", &other)?;
    content.insert(0, 1);
    a.write_file("/large", &content)?;
    a.cursor()?;
    in_step("one byte inserted at its front", &follow)?;
    in_step("the same, on the other replica", &other)
}

fn live(world: &World<'_>) -> Result {
    let (a, _follow) = cloned("clone of nothing", world, "a")?;
    let (b, _other) = cloned("clone of nothing", world, "b")?;
    let mut took = Vec::new();
    for i in 0..50 {
        let path = format!("/live{i}");
        a.write_file(&path, b"x")?;
        a.flush()?;
        // From the commit on: how long a change waits for one is an option.
        let begun = Instant::now();
        while b.stat(&path).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    took.sort_unstable();
    let mut out = std::io::stdout().lock();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    writeln!(
        out,
        "| from a commit to visibility on the other replica, of 50: shortest, median, longest | {:.1}, {:.1}, {:.1} ms | | | | | |",
        ms(took[0]),
        ms(took[took.len() / 2]),
        ms(took[took.len() - 1]),
    )?;
    Ok(())
}

/// Processor time of this process, hub and replicas together, in milliseconds.
fn work_ms() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let whole = u64::try_from(used.tv_sec).unwrap_or(0);
    let used = Duration::new(whole, u32::try_from(used.tv_nsec).unwrap_or(0));
    used.as_secs_f64() * 1e3
}

/// Most memory that this process had.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.map_or_else(String::new, |line| {
        line.replace("VmHWM:", "").trim().to_owned()
    })
}

fn main() -> Result {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize| words.get(index).map(String::as_str);
    let place = word(0).ok_or("usage: sync PLACE [quic|wss] [DELAY_MS] [WHAT]")?;
    let scheme = word(1).unwrap_or("quic");
    let delay = Duration::from_millis(word(2).unwrap_or("0").parse()?);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| what, over {scheme}, {} ms each way | time | work | bytes sent | received | round trips | changes |",
        delay.as_millis()
    )?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    drop(out);
    let all: [(&str, Work); 4] = [
        ("small", small_files),
        ("many", one_of_many),
        ("large", large_file),
        ("live", live),
    ];
    for (name, run) in all {
        if word(3).is_none_or(|wanted| wanted == name) {
            let place = tempfile::tempdir_in(place)?;
            run(&World::new(place.path(), scheme, delay)?)?;
        }
    }
    writeln!(
        std::io::stdout().lock(),
        "\nMost memory of the process, hub and replicas together: {}",
        peak()
    )?;
    Ok(())
}
