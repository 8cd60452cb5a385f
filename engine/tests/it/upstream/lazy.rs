//! Contents that are fetched when they are read, and given up again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::{Replica, Upstream};
use cairn_protocol::session::{Applied, ClientAction, ClientDone, Store};
use cairn_protocol::wire::{Blob, ChunkData};
use cairn_protocol::{ChunkHash, Encoding};

use super::{Client, Side, assert_equal};
use crate::support;

/// Gets chunks from a hub of the model when they are read.
struct Hands {
    chunks: BTreeMap<ChunkHash, Bytes>,
    upstream: std::sync::Weak<Upstream>,
    fetched: std::sync::Mutex<usize>,
}

impl Hands {
    fn of(side: &Side, upstream: &Arc<Upstream>) -> Arc<Self> {
        Arc::new(Self {
            chunks: side.chunks.clone(),
            upstream: Arc::downgrade(upstream),
            fetched: std::sync::Mutex::default(),
        })
    }
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hands")
    }
}

impl cairn_engine::Fetcher for Hands {
    fn fetch(&self, wanted: &[cairn_protocol::session::Wanted]) -> Result<(), String> {
        *self.fetched.lock().unwrap() += wanted.len();
        let chunks = wanted.iter().filter_map(|(hash, _)| {
            let bytes = self.chunks.get(hash)?.clone();
            Some(ChunkData {
                hash: *hash,
                len: bytes.len() as u32,
                encoding: Encoding::Raw,
                bytes: Blob::try_from(bytes).ok()?,
            })
        });
        let chunks = chunks.collect();
        let upstream = self.upstream.upgrade().ok_or("gone")?;
        upstream.perform(ClientAction::Store { chunks });
        Ok(())
    }
}

/// A replica that has what the hub has, without its contents.
fn follow_lazily(side: &Side, path: &Path) -> (Replica, Arc<Upstream>) {
    let replica = support::open(path);
    let upstream = Arc::new(replica.upstream().unwrap());
    upstream.set_lazy(true).unwrap();
    let staged = upstream.perform(ClientAction::Stage {
        first: 0,
        changes: side.hub.changes_since(0),
        reports: Vec::new(),
    });
    assert_eq!(staged, ClientDone::Staged { wanted: Vec::new() });
    let apply = ClientAction::Apply {
        cursor: side.cursor(),
        ack: None,
        confirmed: false,
    };
    assert_eq!(upstream.perform(apply), ClientDone::Applied(Applied::Done));
    (replica, upstream)
}

/// A lazy replica lists everything, fetches what is read and no more, and
/// says what to do when nobody can be asked.
#[test]
fn a_lazy_replica_fetches_what_is_read() {
    let (dir, path) = support::place();
    let (mut side, a) = (Side::default(), Client::new());
    for n in 0..50 {
        a.replica
            .write_file(format!("/{n}"), &support::noise(20_000, n))
            .unwrap();
    }
    a.replica
        .write_file("/medium", &support::noise(900_000, 99))
        .unwrap();
    a.sync(&mut side);
    let (replica, upstream) = follow_lazily(&side, &path);
    assert_eq!(replica.stat("/7").unwrap().size, 20_000);
    let error = replica.read_file("/7").unwrap_err();
    assert!(error.to_string().contains("cairn sync"), "{error}");
    let hands = Hands::of(&side, &upstream);
    upstream.set_fetcher(Some(hands.clone()));
    assert_eq!(replica.read_file("/7").unwrap(), support::noise(20_000, 7));
    assert_eq!(*hands.fetched.lock().unwrap(), 1);
    replica.write_range("/8", 5, b"edited").unwrap();
    assert_eq!(replica.read_file("/8").unwrap()[5..11], *b"edited");
    assert_eq!(*hands.fetched.lock().unwrap(), 2);
    support::assert_clean(&replica);
    replica.gc().unwrap();
    drop((upstream, replica));
    // It knows afterwards, too, what it has and what not.
    let b = Client::of(support::open(&path));
    assert_eq!(b.read("/7"), support::noise(20_000, 7));
    assert!(b.replica.read_file("/9").is_err());
    b.sync(&mut side);
    a.sync(&mut side);
    assert_eq!(a.read("/8")[5..11], *b"edited");
    assert_equal(&[&a, &b], &side);
    // What is at the hub may be given up, and comes again.
    b.replica
        .write_file("/own", &support::noise(30_000, 1))
        .unwrap();
    b.replica.flush().unwrap();
    assert!(b.upstream.evict().unwrap() >= 20_000);
    assert!(b.replica.read_file("/7").is_err());
    assert_eq!(b.read("/own"), support::noise(30_000, 1));
    support::assert_clean(&b.replica);
    b.replica.gc().unwrap();
    support::assert_clean(&b.replica);
    drop(dir);
}

/// A database of schema 7 has no note that chunks are elsewhere: that is found
/// when it becomes one of today.
#[test]
fn a_lazy_replica_of_an_older_program_knows_what_is_elsewhere() {
    let (_dir, path) = support::place();
    let (mut side, a) = (Side::default(), Client::new());
    let content = support::noise(20_000, 1);
    a.replica.write_file("/f", &content).unwrap();
    a.sync(&mut side);
    drop(follow_lazily(&side, &path));
    let db = rusqlite::Connection::open(path.join("cairn.db")).unwrap();
    db.execute_batch(
        "DROP INDEX chunk_place; CREATE INDEX chunk_place ON chunk(pack, off);
         DELETE FROM meta WHERE key = 'elsewhere'; PRAGMA user_version = 7;",
    )
    .unwrap();
    drop(db);
    let replica = support::open(&path);
    let upstream = Arc::new(replica.upstream().unwrap());
    let hands = Hands::of(&side, &upstream);
    upstream.set_fetcher(Some(hands.clone()));
    assert_eq!(replica.read_file("/f").unwrap(), content);
    assert_eq!(*hands.fetched.lock().unwrap(), 1);
    support::assert_clean(&replica);
}
