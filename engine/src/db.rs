//! The database of a replica: its schema, its connections, and how rows become
//! nodes. What a commit writes is in [`crate::rows`].
//!
//! One connection writes, under the commit lock; another reads what is not in
//! memory. SQLite runs in WAL mode without syncing by itself: [`Db::sync`]
//! makes committed transactions durable, and a checkpoint comes only after
//! that and after the packs are synced, so that no durable row names bytes
//! that are not.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::{
    Chain, Data, Epoch, Name, NodeId, NodeKind, ReplicaTag, Timestamp, XattrName,
};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::attr::Ino;
use crate::home::{APPLICATION_ID, Home, beside};
use crate::node::{Base, Body, DirBody, FileBody, Layout, Node, Persist, Sealed, Times, Xattr};
use crate::{FsError, OpenError, Result};

/// The newest schema this program knows. A change of the schema adds a step to
/// [`MIGRATIONS`] and moves this number.
pub(crate) const SCHEMA: u32 = 8;

/// `MIGRATIONS[n]` takes schema `n + 1` to `n + 2`.
const MIGRATIONS: [&str; 7] = [
    // 2: dead chunks are found without a scan.
    "CREATE INDEX IF NOT EXISTS chunk_dead ON chunk(pack) WHERE refs = 0;",
    // 3: the bytes of chunks, in a replica of one file. `chunk.pack` is the id.
    "CREATE TABLE IF NOT EXISTS content(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);",
    // 4: the trees of hubs, of the one here and as they are known of others.
    crate::shared::TABLES,
    // 5: what the hub here knows besides its tree.
    crate::hub::TABLES,
    // 6: what a replica knows of its hubs besides their trees.
    crate::upstream::TABLES,
    // 7: chunks that were found to be damaged.
    crate::lost::TABLES,
    // 8: chunks that are elsewhere are in no pack, so the order in packs is without
    // them: it was a fifth of what such a chunk took. Who used it to find whether
    // there are any has a note.
    "INSERT OR REPLACE INTO meta(key, value)
         SELECT 'elsewhere', 1 WHERE EXISTS (SELECT 1 FROM chunk WHERE pack = 0);
     DROP INDEX IF EXISTS chunk_place;
     CREATE INDEX chunk_place ON chunk(pack, off) WHERE pack > 0;",
];

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE node(
    ino INTEGER PRIMARY KEY, kind INTEGER NOT NULL, perm INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL, nlink INTEGER NOT NULL,
    size INTEGER NOT NULL, allocated INTEGER NOT NULL, times BLOB NOT NULL,
    parent INTEGER NOT NULL, entries INTEGER NOT NULL, xattrs INTEGER NOT NULL,
    born INTEGER NOT NULL, meta_ver INTEGER NOT NULL, data_ver INTEGER NOT NULL, ver INTEGER NOT NULL,
    data BLOB, tag INTEGER, counter INTEGER);
CREATE UNIQUE INDEX node_global ON node(tag, counter) WHERE tag IS NOT NULL;
CREATE INDEX node_orphan ON node(ino) WHERE nlink = 0;
CREATE TABLE name(
    parent INTEGER NOT NULL, hash INTEGER NOT NULL, name BLOB NOT NULL,
    child INTEGER, ver INTEGER NOT NULL, PRIMARY KEY(parent, hash, name)) WITHOUT ROWID;
CREATE INDEX name_child ON name(child) WHERE child IS NOT NULL;
CREATE TABLE xattr(
    ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB, ver INTEGER NOT NULL,
    PRIMARY KEY(ino, name)) WITHOUT ROWID;
CREATE TABLE staging(
    ino INTEGER PRIMARY KEY, file INTEGER NOT NULL, size INTEGER NOT NULL,
    base_len INTEGER NOT NULL, ranges BLOB NOT NULL);
CREATE TABLE chunk(
    hash BLOB PRIMARY KEY, pack INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL,
    encoding INTEGER NOT NULL, refs INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX chunk_place ON chunk(pack, off);
CREATE TABLE pack(id INTEGER PRIMARY KEY, size INTEGER NOT NULL, live INTEGER NOT NULL);
CREATE TABLE log(ver INTEGER PRIMARY KEY, kind INTEGER NOT NULL, ino INTEGER NOT NULL, hash INTEGER, name BLOB);
CREATE TABLE commits(seq INTEGER PRIMARY KEY, chain BLOB NOT NULL);
CREATE TABLE pin(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, why TEXT NOT NULL);
CREATE TABLE history(
    ino INTEGER NOT NULL, kind INTEGER NOT NULL, hash INTEGER NOT NULL, name BLOB NOT NULL,
    first INTEGER NOT NULL, until INTEGER NOT NULL, value BLOB,
    PRIMARY KEY(ino, kind, hash, name, first)) WITHOUT ROWID;
";

/// Statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 160;

/// What identifies a replica and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) epoch: Epoch,
    pub(crate) tag: u64,
    pub(crate) hash_key: [u8; 32],
    pub(crate) next_ino: u64,
    pub(crate) seq: u64,
    pub(crate) chain: Chain,
    pub(crate) count: u64,
}

#[derive(Debug)]
pub(crate) struct Db {
    path: Option<PathBuf>,
    wal: Mutex<Option<File>>,
    writer: Mutex<Connection>,
    /// `None` in memory, where the writer serves reads too.
    reader: Option<Mutex<Connection>>,
}

impl Db {
    /// Opens or creates the database of a replica.
    pub(crate) fn open(home: &Home, cache_bytes: usize) -> Result<Self, OpenError> {
        let (Some(here), Some(path)) = (home.path(), home.database()) else {
            return Self::in_memory();
        };
        let fail = |error: rusqlite::Error| classify(here, error);
        let mut writer = Connection::open(&path).map_err(fail)?;
        // Until it is clear that this program may write to it, closing it
        // changes nothing.
        let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        writer.set_db_config(no_checkpoint, true).map_err(fail)?;
        refuse_lost(&writer, home)?;
        if home.has_chunk_rows() {
            begin_single_file(&writer).map_err(fail)?;
        }
        prepare_connection(&writer, cache_bytes).map_err(fail)?;
        migrate(&mut writer, here)?;
        writer
            .query_row("SELECT count(*) FROM meta", [], |r| r.get::<_, i64>(0))
            .map_err(fail)?;
        writer.set_db_config(no_checkpoint, false).map_err(fail)?;
        let reader = Connection::open(&path).map_err(fail)?;
        // What it reads is kept in memory as nodes, so it looks at pages once.
        prepare_connection(&reader, cache_bytes / 2).map_err(fail)?;
        Ok(Self {
            path: Some(path),
            wal: Mutex::new(None),
            writer: Mutex::new(writer),
            reader: Some(Mutex::new(reader)),
        })
    }

    /// A database in memory.
    pub(crate) fn in_memory() -> Result<Self, OpenError> {
        let here = Path::new(":memory:");
        let fail = |error: rusqlite::Error| classify(here, error);
        let mut writer = Connection::open_in_memory().map_err(fail)?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS);
        migrate(&mut writer, here)?;
        Ok(Self {
            path: None,
            wal: Mutex::new(None),
            writer: Mutex::new(writer),
            reader: None,
        })
    }

    /// The connection that writes. Its lock is the commit lock.
    pub(crate) fn writer(&self) -> parking_lot::MutexGuard<'_, Connection> {
        self.writer.lock()
    }

    /// A connection that sees what was committed.
    pub(crate) fn reader(&self) -> parking_lot::MutexGuard<'_, Connection> {
        self.reader.as_ref().unwrap_or(&self.writer).lock()
    }

    /// Makes every committed transaction durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut wal = self.wal.lock();
        if wal.is_none() {
            let name = beside(path, "-wal");
            *wal = match File::options().write(true).open(&name) {
                Ok(file) => Some(file),
                // Nothing was written since the database was opened.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => return Err(FsError::io(format!("opening {}", name.display()), e)),
            };
        }
        match wal.as_ref().map(File::sync_data) {
            Some(Err(e)) => Err(FsError::io("syncing the database", e)),
            _ => Ok(()),
        }
    }

    /// Bytes in the write-ahead log.
    pub(crate) fn wal_len(&self) -> u64 {
        let wal = self.path.as_ref().map(|p| beside(p, "-wal"));
        wal.and_then(|p| p.metadata().ok()).map_or(0, |m| m.len())
    }

    /// Bytes of the database on disk.
    pub(crate) fn disk_len(&self) -> u64 {
        let main = self
            .path
            .as_ref()
            .and_then(|p| p.metadata().ok())
            .map_or(0, |m| m.len());
        main + self.wal_len()
    }

    /// Moves the write-ahead log into the database. What is in it must be
    /// durable, and so must be what its rows name.
    pub(crate) fn checkpoint(&self, writer: &Connection) -> Result<()> {
        if self.path.is_none() {
            return Ok(());
        }
        // Busy only means that a reader still needs the log; the next one does it.
        // The log is cut, for its length tells when the next one is due.
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

fn prepare_connection(db: &Connection, cache_bytes: usize) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_secs(10))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    let kib = i64::try_from(cache_bytes / 1024 / 2).unwrap_or(16_384);
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -{kib}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
    ))
}

fn classify(dir: &Path, error: rusqlite::Error) -> OpenError {
    open_error(dir, error.into())
}

/// The same failure, as one of opening a replica.
pub(crate) fn open_error(dir: &Path, error: FsError) -> OpenError {
    match error {
        FsError::Corrupt(detail) => OpenError::Damaged {
            path: dir.into(),
            detail,
        },
        source => OpenError::Fs {
            path: dir.into(),
            source,
        },
    }
}

/// An empty database is a new one, unless there are data files: then it was
/// lost, and to begin anew would remove them.
fn refuse_lost(db: &Connection, home: &Home) -> Result<(), OpenError> {
    let here = home.path().unwrap_or(Path::new(":memory:"));
    let schema: u32 = db
        .query_row("PRAGMA user_version", [], |r| r.get(0))
        .map_err(|e| classify(here, e))?;
    let has_files =
        |folder| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some());
    if schema == 0 && home.folders().any(has_files) {
        return Err(OpenError::Damaged {
            path: here.into(),
            detail: "it is empty, but there are data files".into(),
        });
    }
    Ok(())
}

/// Marks a new database as a replica of one file, which can give space back.
/// One that is there already stays as it is.
fn begin_single_file(db: &Connection) -> rusqlite::Result<()> {
    let schema: u32 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if schema == 0 {
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    Ok(())
}

/// Brings the schema up to date, one transaction a step.
fn migrate(db: &mut Connection, dir: &Path) -> Result<(), OpenError> {
    let fail = |error: rusqlite::Error| classify(dir, error);
    loop {
        let found: u32 = db
            .query_row("PRAGMA user_version", [], |r| r.get(0))
            .map_err(fail)?;
        if found == SCHEMA {
            return Ok(());
        }
        if found > SCHEMA {
            return Err(OpenError::NewerSchema {
                path: dir.into(),
                found,
                known: SCHEMA,
            });
        }
        let step = db.transaction().map_err(fail)?;
        let next = if found == 0 {
            step.execute_batch(TABLES).map_err(fail)?;
            1
        } else {
            step.execute_batch(MIGRATIONS[found as usize - 1])
                .map_err(fail)?;
            found + 1
        };
        step.pragma_update(None, "user_version", next)
            .map_err(fail)?;
        step.commit().map_err(fail)?;
    }
}

pub(crate) fn meta_get<T: rusqlite::types::FromSql>(
    db: &Connection,
    key: &str,
) -> Result<Option<T>> {
    Ok(db
        .prepare_cached("SELECT value FROM meta WHERE key = ?")?
        .query_row([key], |r| r.get(0))
        .optional()?)
}

pub(crate) fn meta_set(db: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)")?
        .execute(params![key, value])?;
    Ok(())
}

/// SQLite keeps signed 64-bit integers; all our numbers stay below 2^63.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(crate) const NODE_COLUMNS: &str = "ino, kind, perm, uid, gid, rdev, nlink, size, allocated, times, \
     parent, entries, xattrs, born, meta_ver, data_ver, data, tag, counter";

pub(crate) fn corrupt(what: impl std::fmt::Display, why: impl std::fmt::Display) -> FsError {
    FsError::Corrupt(format!("{what}: {why}"))
}

/// Builds a node from a row of [`NODE_COLUMNS`]. Extended attributes come
/// apart: the second value says whether there are any.
pub(crate) fn node_of(row: &Row<'_>) -> Result<(Ino, Node, bool)> {
    let ino = Ino(uint(row.get(0)?));
    let kind =
        NodeKind::try_from(row.get::<_, u8>(1)?).map_err(|e| corrupt(ino, format!("{e:?}")))?;
    let size = uint(row.get(7)?);
    let times: Vec<u8> = row.get(9)?;
    let data: Option<Vec<u8>> = row.get(16)?;
    let data = data.map(Bytes::from);
    let body = match kind {
        NodeKind::File => {
            let base = match data {
                None => Base::Empty,
                Some(bytes) => base_of(&bytes, uint(row.get(8)?)).map_err(|e| corrupt(ino, e))?,
            };
            Body::File(FileBody {
                size,
                base,
                // A row that became another while the node was not in memory
                // brings another content: who has begun with the old one sees it.
                generation: uint(row.get(15)?),
                ..FileBody::default()
            })
        }
        NodeKind::Dir => Body::Dir(DirBody {
            parent: uint(row.get(10)?),
            entries: uint(row.get(11)?),
            ..DirBody::default()
        }),
        NodeKind::Symlink => match data.as_deref().map(postcard::from_bytes::<Data>) {
            Some(Ok(Data::Symlink { target })) => Body::Symlink(target),
            _ => {
                return Err(corrupt(
                    ino,
                    "the target of the symbolic link is unreadable",
                ));
            }
        },
        _ => Body::Special,
    };
    let node = Node {
        kind,
        id: foreign_id(row.get(17)?, row.get(18)?).map(Box::new),
        perm: row.get(2)?,
        uid: row.get(3)?,
        gid: row.get(4)?,
        rdev: row.get(5)?,
        nlink: row.get(6)?,
        times: times_of(&times).ok_or_else(|| corrupt(ino, "its times are unreadable"))?,
        xattrs: None,
        body,
        born: uint(row.get(13)?),
        meta_ver: uint(row.get(14)?),
        data_ver: uint(row.get(15)?),
        state: Persist {
            stored: true,
            ..Persist::default()
        },
        holds: 0,
        writers: 0,
        used: 0,
    };
    Ok((ino, node, row.get::<_, i64>(12)? != 0))
}

/// The id in the columns `tag` and `counter`, which are empty where the inode
/// tells the id. All bits of a peer's numbers count.
pub(crate) fn foreign_id(tag: Option<i64>, counter: Option<i64>) -> Option<NodeId> {
    Some(NodeId {
        replica: ReplicaTag(tag?.cast_unsigned()),
        counter: counter?.cast_unsigned(),
    })
}

/// The id of a node; that of an inode without a row is the one that this
/// replica would have minted.
pub(crate) fn id_of(db: &Connection, tag: ReplicaTag, ino: Ino) -> Result<NodeId> {
    let columns = db
        .prepare_cached("SELECT tag, counter FROM node WHERE ino = ?")?
        .query_row([int(ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let foreign = columns.and_then(|(tag, counter)| foreign_id(tag, counter));
    Ok(foreign.unwrap_or_else(|| own_id(tag, ino)))
}

/// The inode of a node that has a row.
pub(crate) fn ino_of(db: &Connection, tag: ReplicaTag, id: NodeId) -> Result<Option<Ino>> {
    if id == NodeId::ROOT {
        return Ok(Some(Ino::ROOT));
    }
    let (replica, counter) = (id.replica.0.cast_signed(), id.counter.cast_signed());
    let bound: Option<i64> = db
        .prepare_cached("SELECT ino FROM node WHERE tag = ? AND counter = ?")?
        .query_row([replica, counter], |r| r.get(0))
        .optional()?;
    if bound.is_some() || id.replica != tag {
        return Ok(bound.map(|ino| Ino(uint(ino))));
    }
    let own: Option<i64> = db
        .prepare_cached("SELECT ino FROM node WHERE ino = ? AND tag IS NULL")?
        .query_row([counter], |r| r.get(0))
        .optional()?;
    Ok(own.map(|ino| Ino(uint(ino))))
}

/// The id of a node that was made here.
pub(crate) fn own_id(tag: ReplicaTag, ino: Ino) -> NodeId {
    if ino == Ino::ROOT {
        NodeId::ROOT
    } else {
        NodeId {
            replica: tag,
            counter: ino.0,
        }
    }
}

/// Reads the data register of a file.
pub(crate) fn base_of(bytes: &[u8], allocated: u64) -> std::result::Result<Base, String> {
    match postcard::from_bytes::<Data>(bytes) {
        Ok(Data::Inline { bytes }) if bytes.is_empty() => Ok(Base::Empty),
        Ok(Data::Inline { bytes }) => Ok(Base::Inline(bytes)),
        Ok(Data::File {
            size,
            chunker,
            manifest,
        }) => Ok(Base::Sealed(
            Sealed {
                size,
                chunker,
                manifest,
                allocated,
                pack: std::sync::OnceLock::new(),
                layout: std::sync::OnceLock::<Layout>::new(),
            }
            .into(),
        )),
        Ok(_) => Err("its content is of another kind".into()),
        Err(e) => Err(format!("its content cannot be decoded: {e}")),
    }
}

pub(crate) fn times_to(times: &Times) -> [u8; 48] {
    let mut out = [0; 48];
    for (slot, t) in
        out.chunks_exact_mut(12)
            .zip([times.atime, times.mtime, times.ctime, times.btime])
    {
        slot[..8].copy_from_slice(&t.seconds().to_le_bytes());
        slot[8..].copy_from_slice(&t.nanos().to_le_bytes());
    }
    out
}

fn times_of(bytes: &[u8]) -> Option<Times> {
    let bytes: &[u8; 48] = bytes.try_into().ok()?;
    let at = |i: usize| {
        let slot = &bytes[i * 12..i * 12 + 12];
        let seconds = i64::from_le_bytes(slot[..8].try_into().ok()?);
        let nanos = u32::from_le_bytes(slot[8..].try_into().ok()?);
        Timestamp::new(seconds, nanos).ok()
    };
    Some(Times {
        atime: at(0)?,
        mtime: at(1)?,
        ctime: at(2)?,
        btime: at(3)?,
    })
}

pub(crate) fn load_node(db: &Connection, ino: Ino) -> Result<Option<Node>> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {NODE_COLUMNS} FROM node WHERE ino = ?"))?;
    let mut rows = statement.query([int(ino.0)])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let (_, mut node, has_xattrs) = node_of(row)?;
    if has_xattrs {
        node.xattrs = Some(Box::new(load_xattrs(db, ino)?));
    }
    Ok(Some(node))
}

fn load_xattrs(db: &Connection, ino: Ino) -> Result<BTreeMap<XattrName, Xattr>> {
    let mut statement = db
        .prepare_cached("SELECT name, value, ver FROM xattr WHERE ino = ? AND value IS NOT NULL")?;
    let mut rows = statement.query([int(ino.0)])?;
    let mut xattrs = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: Vec<u8> = row.get(0)?;
        let value: Vec<u8> = row.get(1)?;
        let name = XattrName::new(&name).map_err(|e| corrupt(ino, e))?;
        xattrs.insert(
            name,
            Xattr {
                value: Some(value.into()),
                ver: uint(row.get(2)?),
                dirty: false,
            },
        );
    }
    Ok(xattrs)
}

pub(crate) fn load_name(
    db: &Connection,
    parent: Ino,
    hash: u64,
    name: &Name,
) -> Result<Option<(Ino, u64)>> {
    Ok(db
        .prepare_cached("SELECT child, ver FROM name WHERE parent = ? AND hash = ? AND name = ? AND child IS NOT NULL")?
        .query_row(params![int(parent.0), int(hash), name.as_bytes()], |r| {
            Ok((Ino(uint(r.get(0)?)), uint(r.get(1)?)))
        })
        .optional()?)
}

/// One entry of a directory, with its node.
pub(crate) struct PageRow {
    pub(crate) hash: u64,
    pub(crate) name: Name,
    pub(crate) ver: u64,
    pub(crate) child: Ino,
    pub(crate) node: Node,
}

/// Up to `limit` entries of a directory whose hash is `from` or more.
pub(crate) fn load_page(
    db: &Connection,
    parent: Ino,
    from: u64,
    limit: usize,
) -> Result<Vec<PageRow>> {
    let columns = NODE_COLUMNS.replace(", ", ", n.");
    let mut statement = db.prepare_cached(&format!(
        "SELECT n.{columns}, e.hash, e.name, e.ver FROM name e JOIN node n ON n.ino = e.child
         WHERE e.parent = ? AND e.hash >= ? AND e.child IS NOT NULL ORDER BY e.hash, e.name LIMIT ?"
    ))?;
    let mut rows = statement.query(params![int(parent.0), int(from), int(limit as u64)])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        let (child, mut node, has_xattrs) = node_of(row)?;
        if has_xattrs {
            node.xattrs = Some(Box::new(load_xattrs(db, child)?));
        }
        let name: Vec<u8> = row.get(20)?;
        page.push(PageRow {
            hash: uint(row.get(19)?),
            name: Name::new(&name).map_err(|e| corrupt(parent, e))?,
            ver: uint(row.get(21)?),
            child,
            node,
        });
    }
    Ok(page)
}
