//! The rows of one commit: what a dirty node or name becomes in the database,
//! in the log and in the commit's hash, and what a pin keeps of the old value.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::{
    Change, ChunkHash, CommitHasher, Data, Entry, Extent, Meta, NodeId, NodeKind, ReplicaTag, Ver,
    XattrName,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::attr::Ino;
use crate::chunks::{self, Pending};
use crate::db::{self, int, own_id, times_to, uint};
use crate::history::{HISTORY_DATA, HISTORY_META, HISTORY_NAME};
use crate::node::{Body, DirKey, Node, Overlay, Staging, Times};
use crate::refs::{LayoutFault, Ledger};
use crate::replica::Inner;
use crate::tree::Gone;
use crate::{FsError, Result};

/// A dirty node, as it was when its commit began.
pub(crate) struct NodeRow {
    pub(crate) ino: Ino,
    id: Option<Box<NodeId>>,
    kind: NodeKind,
    perm: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    nlink: u32,
    size: u64,
    pub(crate) allocated: u64,
    times: Times,
    parent: u64,
    entries: u64,
    xattr_count: usize,
    born: Ver,
    meta_ver: Ver,
    data_ver: Ver,
    ver: Ver,
    stored: bool,
    pub(crate) content: Content,
    staging: Option<Staging>,
    pub(crate) xattrs: Vec<(XattrName, Option<Bytes>, Ver)>,
}

/// What happens to the data register.
pub(crate) enum Content {
    Keep,
    Set(Data),
    /// The content of a small file, to be stored first.
    Store {
        bytes: Arc<Vec<u8>>,
        generation: u64,
    },
}

/// A dirty name, as it was when its commit began.
pub(crate) struct NameRow {
    pub(crate) parent: Ino,
    pub(crate) key: DirKey,
    pub(crate) target: Option<Ino>,
    pub(crate) ver: Ver,
    /// The ids of the directory and of the target.
    pub(crate) ids: (NodeId, Option<NodeId>),
}
impl NodeRow {
    /// What is dirty of a node, which then is not any more.
    pub(crate) fn take(ino: Ino, node: &mut Node) -> Self {
        let attr = node.attr(ino);
        let mut xattrs = Vec::new();
        let mut xattr_count = 0;
        for (name, xattr) in node.xattrs.iter_mut().flat_map(|x| x.iter_mut()) {
            xattr_count += usize::from(xattr.value.is_some());
            if std::mem::take(&mut xattr.dirty) {
                xattrs.push((name.clone(), xattr.value.clone(), xattr.ver));
            }
        }
        let ver = node.ver();
        let mut row = Self {
            ino,
            id: node.id.clone(),
            kind: node.kind,
            perm: node.perm,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            nlink: node.nlink,
            size: 0,
            allocated: attr.blocks * 512,
            times: node.times,
            parent: 0,
            entries: 0,
            xattr_count,
            born: node.born,
            meta_ver: node.meta_ver,
            data_ver: node.data_ver,
            ver,
            stored: node.state.stored || node.state.in_flight,
            content: Content::Keep,
            staging: None,
            xattrs,
        };
        match &mut node.body {
            Body::File(file) => {
                row.size = file.size;
                row.allocated = file.allocated();
                match &file.over {
                    Overlay::Memory(bytes) if file.data_dirty => {
                        row.content = Content::Store {
                            bytes: bytes.clone(),
                            generation: file.generation,
                        };
                    }
                    over => {
                        if file.base_dirty {
                            row.content = Content::Set(file.base.to_data());
                        }
                        if let Overlay::Staging(staging) = over {
                            row.staging = Some(staging.clone());
                            file.recorded = true;
                        }
                    }
                }
                file.data_dirty = false;
                file.base_dirty = false;
            }
            Body::Dir(dir) => {
                row.parent = dir.parent;
                row.entries = dir.entries;
            }
            Body::Symlink(target) => {
                row.content = Content::Set(Data::Symlink {
                    target: target.clone(),
                });
            }
            Body::Special => {}
        }
        row
    }
}

/// Writes rows in the transaction of one commit.
pub(crate) struct RowWriter<'a> {
    db: &'a Connection,
    /// Values at or below this version must be kept when they change.
    pin: Option<Ver>,
    tag: ReplicaTag,
    pub(crate) hasher: CommitHasher,
    /// References that chunks gained or lost.
    pub(crate) ledger: Ledger,
    insert_node: CachedStatement<'a>,
    insert_name: CachedStatement<'a>,
    insert_log: CachedStatement<'a>,
}

const INSERT_NODE: &str = "INSERT INTO node(ino, kind, perm, uid, gid, rdev, nlink, size, allocated, times, parent,
     entries, xattrs, born, meta_ver, data_ver, ver, data, tag, counter)
 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?20, ?21)
 ON CONFLICT(ino) DO UPDATE SET perm = ?3, uid = ?4, gid = ?5, nlink = ?7, size = ?8, allocated = ?9,
     times = ?10, parent = ?11, entries = ?12, xattrs = ?13, meta_ver = ?15,
     data_ver = CASE WHEN ?19 THEN ?16 ELSE data_ver END, ver = max(ver, ?17),
     data = CASE WHEN ?19 THEN ?18 ELSE data END, tag = ?20, counter = ?21";
const INSERT_NAME: &str =
    "INSERT OR REPLACE INTO name(parent, hash, name, child, ver) VALUES(?, ?, ?, ?, ?)";
const INSERT_LOG: &str =
    "INSERT OR REPLACE INTO log(ver, kind, ino, hash, name) VALUES(?, ?, ?, ?, ?)";

impl<'a> RowWriter<'a> {
    pub(crate) fn new(db: &'a Connection, tag: ReplicaTag) -> Result<Self> {
        let pin: Option<i64> = db
            .prepare_cached("SELECT max(seq) FROM pin")?
            .query_row([], |r| r.get(0))?;
        Ok(Self {
            db,
            pin: pin.map(uint),
            tag,
            hasher: CommitHasher::new(),
            ledger: Ledger::default(),
            // To look them up for each row would be a tenth of what a row takes.
            insert_node: db.prepare_cached(INSERT_NODE)?,
            insert_name: db.prepare_cached(INSERT_NAME)?,
            insert_log: db.prepare_cached(INSERT_LOG)?,
        })
    }

    fn id(&self, ino: Ino, foreign: Option<&NodeId>) -> NodeId {
        foreign.copied().unwrap_or_else(|| own_id(self.tag, ino))
    }

    pub(crate) fn node(&mut self, inner: &Inner, row: &NodeRow) -> Result<()> {
        if row.stored {
            self.keep_meta(row)?;
        }
        let data = match &row.content {
            Content::Set(data) => Some(data),
            _ => None,
        };
        if let Some(data) = data {
            if row.stored && row.kind == NodeKind::File {
                self.release_data(inner, row.ino, row.data_ver)?;
            }
            self.count_refs(inner, data, 1)?;
        }
        let encoded = data
            .map(postcard::to_stdvec)
            .transpose()
            .map_err(|e| FsError::Corrupt(format!("a data register cannot be encoded: {e}")))?;
        self.insert_node.execute(params![
            int(row.ino.0),
            u8::from(row.kind),
            row.perm,
            row.uid,
            row.gid,
            row.rdev,
            row.nlink,
            int(row.size),
            int(row.allocated),
            times_to(&row.times).as_slice(),
            int(row.parent),
            int(row.entries),
            int(row.xattr_count as u64),
            int(row.born),
            int(row.meta_ver),
            int(row.data_ver),
            int(row.ver),
            encoded,
            encoded.is_some(),
            row.id.as_ref().map(|id| id.replica.0.cast_signed()),
            row.id.as_ref().map(|id| id.counter.cast_signed()),
        ])?;
        self.staging(row)?;
        let id = self.id(row.ino, row.id.as_deref());
        for (name, value, ver) in &row.xattrs {
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO xattr(ino, name, value, ver) VALUES(?, ?, ?, ?)",
                )?
                .execute(params![
                    int(row.ino.0),
                    name.as_bytes(),
                    value.as_deref(),
                    int(*ver)
                ])?;
            let entry = Entry::Xattr {
                node: id,
                name: name.clone(),
                value: value.clone(),
            };
            self.hasher.push(&Change { ver: *ver, entry });
        }
        self.log(row.ver, 0, row.ino, None)?;
        if !row.stored {
            self.hasher.push(&Change {
                ver: row.born,
                entry: Entry::Node { id, kind: row.kind },
            });
        }
        self.hasher.push(&Change {
            ver: row.meta_ver,
            entry: Entry::Meta {
                node: id,
                meta: meta_of(row.perm, row.uid, row.gid, &row.times),
            },
        });
        if let Some(data) = data {
            self.hasher.push(&Change {
                ver: row.data_ver,
                entry: Entry::Data {
                    node: id,
                    data: data.clone(),
                },
            });
        }
        Ok(())
    }

    fn staging(&self, row: &NodeRow) -> Result<()> {
        if row.kind != NodeKind::File {
            return Ok(());
        }
        match &row.staging {
            Some(staging) => {
                let ranges = postcard::to_stdvec(&staging.ranges)
                    .map_err(|e| FsError::Corrupt(format!("ranges cannot be encoded: {e}")))?;
                self.db
                    .prepare_cached(
                        "INSERT OR REPLACE INTO staging(ino, file, size, base_len, ranges) VALUES(?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        int(row.ino.0),
                        int(staging.file.id),
                        int(row.size),
                        int(staging.base_len),
                        ranges,
                    ])?;
            }
            None if row.stored => {
                self.db
                    .prepare_cached("DELETE FROM staging WHERE ino = ?")?
                    .execute([int(row.ino.0)])?;
            }
            None => {}
        }
        Ok(())
    }

    pub(crate) fn name(&mut self, row: &NameRow) -> Result<()> {
        self.keep_name(row)?;
        self.insert_name.execute(params![
            int(row.parent.0),
            int(row.key.0),
            row.key.1.as_bytes(),
            row.target.map(|t| int(t.0)),
            int(row.ver),
        ])?;
        self.log(row.ver, 1, row.parent, Some(&row.key))?;
        let entry = Entry::Name {
            parent: row.ids.0,
            name: row.key.1.clone(),
            node: row.ids.1,
        };
        self.hasher.push(&Change {
            ver: row.ver,
            entry,
        });
        Ok(())
    }

    pub(crate) fn gone(&mut self, inner: &Inner, gone: &Gone) -> Result<()> {
        let ino = int(gone.ino.0);
        if gone.was_file {
            self.release_data(inner, gone.ino, gone.ver)?;
            self.db
                .prepare_cached("DELETE FROM staging WHERE ino = ?")?
                .execute([ino])?;
        }
        if self.pin.is_some() {
            self.keep_node(gone)?;
        }
        self.db
            .prepare_cached("DELETE FROM node WHERE ino = ?")?
            .execute([ino])?;
        self.db
            .prepare_cached("DELETE FROM xattr WHERE ino = ?")?
            .execute([ino])?;
        self.db
            .prepare_cached("DELETE FROM name WHERE parent = ?")?
            .execute([ino])?;
        self.log_end(gone)?;
        self.hasher.push(&Change {
            ver: gone.ver,
            entry: Entry::Gone {
                node: self.id(gone.ino, gone.id.as_deref()),
            },
        });
        Ok(())
    }

    fn log(&mut self, ver: Ver, kind: u8, ino: Ino, key: Option<&DirKey>) -> Result<()> {
        self.insert_log.execute(params![
            int(ver),
            kind,
            int(ino.0),
            key.map(|k| int(k.0)),
            key.map(|k| k.1.as_bytes()),
        ])?;
        Ok(())
    }

    /// The row is gone, so the log has the id if the inode does not tell it.
    fn log_end(&self, gone: &Gone) -> Result<()> {
        let id = gone.id.as_ref().map(postcard::to_stdvec).transpose();
        let id = id.map_err(|e| FsError::Corrupt(format!("an id cannot be encoded: {e}")))?;
        self.db
            .prepare_cached("INSERT OR REPLACE INTO log(ver, kind, ino, name) VALUES(?, 2, ?, ?)")?
            .execute(params![int(gone.ver), int(gone.ino.0), id])?;
        Ok(())
    }

    /// The stored data register of a file stops being current: its chunks lose
    /// a reference, unless a pin keeps the value.
    fn release_data(&mut self, inner: &Inner, ino: Ino, until: Ver) -> Result<()> {
        let old: Option<(Option<Vec<u8>>, i64)> = self
            .db
            .prepare_cached("SELECT data, data_ver FROM node WHERE ino = ?")?
            .query_row([int(ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((Some(bytes), first)) = old else {
            return Ok(());
        };
        if self.pin.is_some_and(|pin| uint(first) <= pin) {
            return self.keep(ino, HISTORY_DATA, None, uint(first), until, &bytes);
        }
        let data: Data = postcard::from_bytes(&bytes).map_err(|e| db::corrupt(ino, e))?;
        self.count_refs(inner, &data, -1)
    }

    fn count_refs(&mut self, inner: &Inner, data: &Data, by: i64) -> Result<()> {
        let counted = self.ledger.count(inner, self.db, data, by);
        counted.map_err(LayoutFault::into_error)
    }

    /// Writes the rows of new chunks, and what references came and went.
    pub(crate) fn chunks(&mut self, new: &[(ChunkHash, Pending)]) -> Result<()> {
        self.ledger.write(self.db, new)?;
        match self.ledger.missing.first() {
            Some(hash) => Err(FsError::Corrupt(format!("chunk {hash} has no row"))),
            None => Ok(()),
        }
    }

    fn keep_meta(&self, row: &NodeRow) -> Result<()> {
        let Some(pin) = self.pin else { return Ok(()) };
        let old: Option<(i64, i64)> = self
            .db
            .prepare_cached("SELECT meta_ver, ino FROM node WHERE ino = ?")?
            .query_row([int(row.ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        match old {
            Some((first, _)) if uint(first) <= pin && uint(first) != row.meta_ver => {
                self.keep_meta_value(row.ino, uint(first), row.meta_ver)
            }
            _ => Ok(()),
        }
    }

    fn keep_meta_value(&self, ino: Ino, first: Ver, until: Ver) -> Result<()> {
        let Some(node) = db::load_node(self.db, ino)? else {
            return Ok(());
        };
        let meta = meta_of(node.perm, node.uid, node.gid, &node.times);
        let bytes = postcard::to_stdvec(&meta).map_err(|e| db::corrupt(ino, e))?;
        self.keep(ino, HISTORY_META, None, first, until, &bytes)
    }

    fn keep_node(&self, gone: &Gone) -> Result<()> {
        if let (Some(node), Some(pin)) = (db::load_node(self.db, gone.ino)?, self.pin)
            && node.meta_ver <= pin
        {
            self.keep_meta_value(gone.ino, node.meta_ver, gone.ver)?;
        }
        Ok(())
    }

    fn keep_name(&self, row: &NameRow) -> Result<()> {
        let Some(pin) = self.pin else { return Ok(()) };
        let old: Option<(Option<i64>, i64)> = self
            .db
            .prepare_cached(
                "SELECT child, ver FROM name WHERE parent = ? AND hash = ? AND name = ?",
            )?
            .query_row(
                params![int(row.parent.0), int(row.key.0), row.key.1.as_bytes()],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .optional()?;
        match old {
            Some((Some(child), first)) if uint(first) <= pin => self.keep(
                row.parent,
                HISTORY_NAME,
                Some(&row.key),
                uint(first),
                row.ver,
                &child.to_le_bytes(),
            ),
            _ => Ok(()),
        }
    }

    fn keep(
        &self,
        ino: Ino,
        kind: u8,
        key: Option<&DirKey>,
        first: Ver,
        until: Ver,
        value: &[u8],
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR IGNORE INTO history(ino, kind, hash, name, first, until, value) VALUES(?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(ino.0),
                kind,
                key.map_or(0, |k| int(k.0)),
                key.map_or(&[][..], |k| k.1.as_bytes()),
                int(first),
                int(until),
                value,
            ])?;
        Ok(())
    }
}

pub(crate) fn meta_of(perm: u16, uid: u32, gid: u32, times: &Times) -> Meta {
    Meta {
        mode: u32::from(perm),
        uid,
        gid,
        mtime: times.mtime,
        btime: times.btime,
    }
}

/// Every chunk a data register names: pages of its manifest and its content.
pub(crate) fn each_chunk(
    inner: &Inner,
    db: &Connection,
    data: &Data,
    each: &mut dyn FnMut(ChunkHash) -> Result<()>,
) -> Result<()> {
    let Data::File { manifest, .. } = data else {
        return Ok(());
    };
    for page in manifest.pages() {
        each(page)?;
    }
    let extents = manifest
        .extents(|page| {
            let place = match inner.chunks.known(page) {
                Some(place) => Some(place),
                None => chunks::place_in(db, page)?,
            };
            let place =
                place.ok_or_else(|| FsError::Corrupt(format!("chunk {page} is missing")))?;
            let mut bytes = vec![0; place.len as usize];
            inner.chunks.read_at(|| db, page, place, 0, &mut bytes)?;
            Ok::<_, FsError>(bytes)
        })
        .map_err(|e| FsError::Corrupt(format!("a manifest cannot be read: {e}")))?;
    for extent in extents {
        if let Extent::Chunk { hash, .. } = extent {
            each(hash)?;
        }
    }
    Ok(())
}
