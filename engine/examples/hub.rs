//! How fast a hub is by itself: what a store does, without any connection.
//!
//! `cargo run --release -p cairn-engine --example hub [FILES]`
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints figures"
)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_engine::{Access, Hub, HubSession, Options, Replica};
use cairn_protocol::session::{HubAction, HubDone, Store};
use cairn_protocol::wire::{Capabilities, ChunkData, Ext, Hello, Limits, Role, Start, Text, Token};
use cairn_protocol::{
    ChunkHash, ChunkerId, Data, Edit, Extent, Manifest, Meta, MetaFields, Name, NodeId, NodeKind,
    ReplicaTag, Timestamp, encode_chunk,
};

/// Files of a batch: four edits each stay within the edits of one message.
const BATCH: u64 = 4_000;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    };
    let words = std::iter::repeat_with(|| next().to_le_bytes());
    words.flatten().take(len).collect()
}

fn session(hub: &Hub) -> HubSession {
    let session = hub.session(Arc::new(|_| Ok(Access::Write)));
    session.perform(HubAction::Admit(Box::new(Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Client,
        workspace: [0; 16],
        replica: ReplicaTag(1),
        token: Token::default(),
        capabilities: Capabilities::default(),
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    })));
    session
}

fn chunk(bytes: &Bytes) -> Fallible<ChunkData> {
    let encoded = encode_chunk(bytes, None);
    Ok(ChunkData {
        hash: ChunkHash::of(bytes),
        len: u32::try_from(bytes.len())?,
        encoding: encoded.encoding,
        bytes: encoded.bytes.try_into()?,
    })
}

/// The edits that make a file of one chunk, a thousand in a directory.
fn new_file(id: u64, hash: ChunkHash, len: u32) -> Fallible<Vec<Edit>> {
    let node = |counter| NodeId {
        replica: ReplicaTag(1),
        counter,
    };
    let dir = 1 + id / 1_000 * 1_001;
    let mut edits = Vec::new();
    let mut make = |id, kind, parent, name: String| -> Fallible<()> {
        edits.push(Edit::New {
            node: node(id),
            kind,
        });
        edits.push(Edit::Name {
            parent,
            name: Name::new(name.as_bytes())?,
            was: None,
            node: Some(node(id)),
        });
        edits.push(Edit::Meta {
            node: node(id),
            base: 0,
            fields: MetaFields::ALL,
            meta: Meta {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Timestamp::EPOCH,
                btime: Timestamp::EPOCH,
            },
        });
        Ok(())
    };
    if id.is_multiple_of(1_000) {
        make(dir, NodeKind::Dir, NodeId::ROOT, format!("dir-{dir}"))?;
    }
    let file = dir + 1 + id % 1_000;
    make(file, NodeKind::File, node(dir), format!("file-{id}.txt"))?;
    let extents = [Extent::Chunk { hash, len }];
    edits.push(Edit::Data {
        node: node(file),
        base: 0,
        data: Data::File {
            size: len.into(),
            chunker: ChunkerId::Whole,
            manifest: Manifest::build(&extents, |_, _| Ok::<_, std::fmt::Error>(()))?,
        },
    });
    Ok(edits)
}

fn done(done: HubDone) -> Fallible<HubDone> {
    match done {
        HubDone::Failed(why) => Err(why.into()),
        done => Ok(done),
    }
}

/// Time that has passed, and time that the processors worked for this process.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    work: Duration,
}

impl Spent {
    fn now() -> Self {
        let since = |clock| {
            let t = rustix::time::clock_gettime(clock);
            let nanos = u32::try_from(t.tv_nsec).unwrap_or(0);
            Duration::new(t.tv_sec.unsigned_abs(), nanos)
        };
        Self {
            wall: since(rustix::time::ClockId::Monotonic),
            work: since(rustix::time::ClockId::ProcessCPUTime),
        }
    }

    fn add_since(&mut self, begun: Self) {
        let now = Self::now();
        self.wall += now.wall.saturating_sub(begun.wall);
        self.work += now.work.saturating_sub(begun.work);
    }

    fn since(begun: Self) -> Self {
        let mut spent = Self::default();
        spent.add_since(begun);
        spent
    }

    /// So many a second: of the time that passed, and of work.
    fn rates(self, count: f64) -> (f64, f64) {
        let (wall, work) = (self.wall.as_secs_f64(), self.work.as_secs_f64());
        (count / wall, count / work)
    }
}

fn rate(what: &str, count: u64, spent: Spent) {
    let (wall, work) = spent.rates(count as f64);
    println!("{what}: {wall:.0}/s, {work:.0} for each second of work");
}

fn push_files(session: &HubSession, files: u64) -> Fallible<()> {
    let (mut storing, mut committing) = (Spent::default(), Spent::default());
    for batch in 0..files / BATCH {
        let (mut chunks, mut edits) = (Vec::new(), Vec::new());
        for id in batch * BATCH..(batch + 1) * BATCH {
            let bytes = noise(4_096, id);
            chunks.push(chunk(&bytes)?);
            edits.extend(new_file(id, ChunkHash::of(&bytes), 4_096)?);
        }
        let hashes: Vec<ChunkHash> = chunks.iter().map(|c| c.hash).collect();
        let begun = Spent::now();
        done(session.perform(HubAction::Offer { chunks: hashes }))?;
        while !chunks.is_empty() {
            let rest = chunks.split_off(chunks.len().min(250));
            done(session.perform(HubAction::Store { chunks }))?;
            chunks = rest;
        }
        storing.add_since(begun);
        let begun = Spent::now();
        let batch = batch + 1;
        done(session.perform(HubAction::Commit { batch, edits }))?;
        committing.add_since(begun);
    }
    rate("files offered and stored", files, storing);
    rate("files committed", files, committing);
    let both = Spent {
        wall: storing.wall + committing.wall,
        work: storing.work + committing.work,
    };
    rate("files stored and committed", files, both);
    Ok(())
}

fn feed(session: &HubSession, files: u64) -> Fallible<()> {
    done(session.perform(HubAction::Subscribe {
        from: Start::Nothing,
    }))?;
    let start = Spent::now();
    let (mut after, max) = (0, 4_096);
    loop {
        let HubDone::Page { next, cut, .. } =
            done(session.perform(HubAction::Feed { after, max }))?
        else {
            continue;
        };
        after = next;
        if cut.is_some() {
            break;
        }
    }
    rate("files fed", files, Spent::since(start));
    Ok(())
}

fn read(session: &HubSession, files: u64) -> Fallible<()> {
    let hashes: Vec<ChunkHash> = (0..files)
        .map(|id| ChunkHash::of(&noise(4_096, id)))
        .collect();
    let start = Spent::now();
    let mut left = &hashes[..];
    while !left.is_empty() {
        let chunks = left.iter().take(256).map(|hash| (*hash, None)).collect();
        let read = HubAction::Read {
            chunks,
            budget: 900_000,
        };
        if let HubDone::Chunks { taken, .. } = done(session.perform(read))? {
            left = &left[taken..];
        }
    }
    rate("files read", files, Spent::since(start));
    Ok(())
}

fn large(session: &HubSession, what: &str, of: impl Fn(u64) -> Bytes) -> Fallible<()> {
    const CHUNKS: u64 = 400;
    let chunks: Vec<Bytes> = (0..CHUNKS).map(of).collect();
    let total: u64 = chunks.iter().map(|c| c.len() as u64).sum();
    let speed = |doing: &str, spent: Spent| {
        let (wall, work) = spent.rates(total as f64 / 1e6);
        println!("{what} {doing}: {wall:.0} MB/s, {work:.0} for each second of work");
    };
    let start = Spent::now();
    let encoded: Fallible<Vec<ChunkData>> = chunks.iter().map(chunk).collect();
    let encoded = encoded?;
    speed("encoded and hashed", Spent::since(start));
    let start = Spent::now();
    for chunk in encoded {
        let chunks = vec![chunk];
        done(session.perform(HubAction::Store { chunks }))?;
    }
    speed("stored", Spent::since(start));
    let start = Spent::now();
    for bytes in &chunks {
        let chunks = vec![(ChunkHash::of(bytes), None)];
        let budget = 1 << 20;
        done(session.perform(HubAction::Read { chunks, budget }))?;
    }
    speed("read (and hashed)", Spent::since(start));
    Ok(())
}

fn main() -> Fallible<()> {
    let files = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let replica = Replica::open(dir.path().join("hub.cairn"), Options::default())?;
    let hub = Hub::open(&replica)?;
    let session = session(&hub);
    push_files(&session, files)?;
    feed(&session, files)?;
    read(&session, files / BATCH * BATCH)?;
    large(&session, "noise", |seed| noise(262_144, seed))?;
    let words = |seed: u64| {
        let word = |n: usize| format!("word{} ", (seed + n as u64 * n as u64) % 9_973);
        let text: String = (0..30_000).map(word).collect();
        Bytes::from(text)
    };
    large(&session, "text", words)?;
    Ok(())
}
