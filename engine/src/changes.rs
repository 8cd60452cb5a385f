//! The change log: what changed since a cursor, coalesced by register.

use bytes::Bytes;
use cairn_protocol::{
    Chain, Change, Cursor, Data, Entry, Name, NodeId, NodeKind, ReplicaTag, Scope, Ver, XattrName,
};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashSet;

use crate::attr::Ino;
use crate::db::{self, corrupt, int, uint};
use crate::node::Body;
use crate::replica::Replica;
use crate::rows::meta_of;
use crate::{FsError, Result};

/// Why changes since a cursor cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// The cursor is another replica's, or from before a reset.
    #[error(
        "the cursor is of another store (epoch {found}, here {here}); start again from the beginning"
    )]
    Epoch {
        /// Epoch of the cursor.
        found: String,
        /// Epoch of this replica.
        here: String,
    },
    /// The cursor names a commit that this history does not have.
    #[error(
        "the cursor's history differs from this store's at {seq}; start again from the beginning"
    )]
    Forked {
        /// Sequence number of the cursor.
        seq: Ver,
    },
    /// The replica failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// Changes between two cursors.
#[derive(Debug)]
pub struct Changes {
    /// By version, each register at most once. A name may come before its node,
    /// if the node changed later: apply the nodes first.
    pub changes: Vec<Change>,
    /// Where to go on. A consistent cut when `more` is `false`.
    pub next: Cursor,
    /// There are more changes up to the same cut: ask again with `resume`.
    pub more: bool,
    /// Passed to [`Replica::changes_page`] to go on inside the cut.
    pub resume: Ver,
}

impl Replica {
    /// The cursor of the present state.
    ///
    /// # Errors
    ///
    /// When the state cannot be committed.
    pub fn cursor(&self) -> Result<Cursor> {
        self.inner.seal_all()?;
        self.inner.commit(false)?;
        self.committed_cursor()
    }

    /// The number of the last change, whether it is committed or not: equal
    /// numbers mean that names, attributes and contents are the same.
    pub fn last_change(&self) -> u64 {
        self.inner.tree.lock().seq
    }

    /// The cursor of the last commit, without waiting for another.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn committed_cursor(&self) -> Result<Cursor> {
        let db = self.inner.db.reader();
        self.head(&db)
    }

    fn head(&self, db: &Connection) -> Result<Cursor> {
        let (seq, chain): (i64, Vec<u8>) = db
            .prepare_cached("SELECT seq, chain FROM commits ORDER BY seq DESC LIMIT 1")?
            .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        self.cursor_at(uint(seq), &chain)
    }

    fn cursor_at(&self, seq: Ver, chain: &[u8]) -> Result<Cursor> {
        let chain = chain
            .try_into()
            .map_err(|_| corrupt("commit", "its chain has a wrong length"))?;
        Ok(Cursor {
            epoch: self.inner.identity.epoch,
            seq,
            chain: Chain(chain),
            scope: Scope::ALL,
        })
    }

    /// What changed since `since`, or everything for `None`, up to now.
    ///
    /// # Errors
    ///
    /// [`CursorError`].
    pub fn changes_since(&self, since: Option<&Cursor>) -> Result<Changes, CursorError> {
        let mut all = self.changes_page(since, None, 0, usize::MAX)?;
        all.more = false;
        Ok(all)
    }

    /// At most about `limit` changes since `since`, up to the cut `until` or
    /// the present, after `resume` (0 for the start). Pages of one cut form a
    /// consistent whole as long as nothing commits between them. What is
    /// changed meanwhile is told as it is by then, or not yet, and in the next
    /// cut in any case.
    ///
    /// # Errors
    ///
    /// [`CursorError`].
    pub fn changes_page(
        &self,
        since: Option<&Cursor>,
        until: Option<&Cursor>,
        resume: Ver,
        limit: usize,
    ) -> Result<Changes, CursorError> {
        let next = match until {
            Some(cut) => *cut,
            None => self.cursor()?,
        };
        let db = self.inner.db.reader();
        if let Some(since) = since {
            self.validate(&db, since)?;
        }
        // One read transaction: a commit beside it changes nothing here.
        let tx = db.unchecked_transaction().map_err(FsError::from)?;
        let from = since.map_or(0, |c| c.seq);
        let (changes, last) = collect(
            &tx,
            ReplicaTag(self.inner.identity.tag),
            from,
            resume.max(from),
            next.seq,
            limit,
        )?;
        tx.commit().map_err(FsError::from)?;
        Ok(Changes {
            changes,
            next,
            more: last.is_some(),
            resume: last.unwrap_or(next.seq),
        })
    }

    fn validate(&self, db: &Connection, since: &Cursor) -> Result<(), CursorError> {
        if since.epoch != self.inner.identity.epoch {
            return Err(CursorError::Epoch {
                found: format!("{:?}", since.epoch),
                here: format!("{:?}", self.inner.identity.epoch),
            });
        }
        let chain: Option<Vec<u8>> = db
            .prepare_cached("SELECT chain FROM commits WHERE seq = ?")
            .and_then(|mut s| s.query_row([int(since.seq)], |r| r.get(0)).optional())
            .map_err(FsError::from)?;
        if chain.as_deref() != Some(since.chain.0.as_slice()) {
            return Err(CursorError::Forked { seq: since.seq });
        }
        Ok(())
    }

    /// The inode of a node, as of the last commit.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn ino_of(&self, id: NodeId) -> Result<Option<Ino>> {
        let tag = ReplicaTag(self.inner.identity.tag);
        db::ino_of(&self.inner.db.reader(), tag, id)
    }

    /// The path of a node, as far as names lead to it: for people.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn path_of(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        path_in(&self.inner.db.reader(), ino)
    }
}

pub(crate) fn path_in(db: &Connection, ino: Ino) -> Result<Option<Vec<u8>>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT {
        let up: Option<(i64, Vec<u8>)> = db
            .prepare_cached("SELECT parent, name FROM name WHERE child = ? LIMIT 1")?
            .query_row([int(at.0)], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((parent, name)) = up else {
            return Ok(None);
        };
        parts.push(name);
        at = Ino(uint(parent));
        if parts.len() > cairn_protocol::PATH_DEPTH_MAX {
            return Ok(None);
        }
    }
    let mut path = Vec::new();
    for part in parts.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(Some(path))
}

/// Reads log rows in `(resume, until]` and turns those that are still current
/// into changes of registers newer than `from`.
fn collect(
    db: &Connection,
    tag: ReplicaTag,
    from: Ver,
    resume: Ver,
    until: Ver,
    limit: usize,
) -> Result<(Vec<Change>, Option<Ver>)> {
    let mut changes = Vec::new();
    let mut early = FxHashSet::default();
    let mut log = db.prepare_cached(
        "SELECT ver, kind, ino, hash, name FROM log WHERE ver > ? AND ver <= ? ORDER BY ver",
    )?;
    let mut rows = log.query(params![int(resume), int(until)])?;
    while let Some(row) = rows.next()? {
        let ver = uint(row.get(0)?);
        let ino = Ino(uint(row.get(2)?));
        match row.get::<_, u8>(1)? {
            0 => {
                let current: Option<i64> = db
                    .prepare_cached("SELECT ver FROM node WHERE ino = ?")?
                    .query_row([int(ino.0)], |r| r.get(0))
                    .optional()?;
                let current = current.map(uint);
                // A row of the next cut tells only what is newer than this one:
                // what this cut has to tell is told here.
                if current == Some(ver) || (current > Some(until) && early.insert(ino.0)) {
                    node_changes(db, tag, from, ino, &mut changes)?;
                }
            }
            1 => {
                let name: Vec<u8> = row.get(4)?;
                name_change(db, tag, ver, ino, row.get(3)?, &name, &mut changes)?;
            }
            _ => {
                let node = gone_id(tag, ino, row.get(4)?)?;
                let entry = Entry::Gone { node };
                changes.push(Change { ver, entry });
            }
        }
        if changes.len() >= limit {
            return Ok((changes, Some(ver)));
        }
    }
    Ok((changes, None))
}

/// The id of a node whose row is gone, as the log has it.
fn gone_id(tag: ReplicaTag, ino: Ino, id: Option<Vec<u8>>) -> Result<NodeId> {
    let id = id.map(|id| postcard::from_bytes(&id)).transpose();
    let id = id.map_err(|e| corrupt(ino, e))?;
    Ok(id.unwrap_or_else(|| db::own_id(tag, ino)))
}

/// The registers of a node that are newer than `from`.
fn node_changes(
    db: &Connection,
    tag: ReplicaTag,
    from: Ver,
    ino: Ino,
    out: &mut Vec<Change>,
) -> Result<()> {
    let Some(node) = db::load_node(db, ino)? else {
        return Ok(());
    };
    let id = node.id.as_deref().copied();
    let id = id.unwrap_or_else(|| db::own_id(tag, ino));
    if node.born > from {
        out.push(Change {
            ver: node.born,
            entry: Entry::Node {
                id,
                kind: node.kind,
            },
        });
    }
    if node.meta_ver > from {
        let meta = meta_of(node.perm, node.uid, node.gid, &node.times);
        out.push(Change {
            ver: node.meta_ver,
            entry: Entry::Meta { node: id, meta },
        });
    }
    if node.data_ver > from {
        let data = match &node.body {
            Body::File(file) => Some(file.base.to_data()),
            Body::Symlink(target) => Some(Data::Symlink {
                target: target.clone(),
            }),
            Body::Special if matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice) => {
                Some(Data::Special {
                    rdev: u64::from(node.rdev),
                })
            }
            Body::Dir(_) | Body::Special => None,
        };
        if let Some(data) = data {
            out.push(Change {
                ver: node.data_ver,
                entry: Entry::Data { node: id, data },
            });
        }
    }
    let mut xattrs = db.prepare_cached(
        "SELECT name, value, ver FROM xattr WHERE ino = ? AND ver > ? ORDER BY ver",
    )?;
    let mut rows = xattrs.query(params![int(ino.0), int(from)])?;
    while let Some(row) = rows.next()? {
        let name: Vec<u8> = row.get(0)?;
        let value: Option<Vec<u8>> = row.get(1)?;
        let name = XattrName::new(&name).map_err(|e| corrupt(ino, e))?;
        let entry = Entry::Xattr {
            node: id,
            name,
            value: value.map(Bytes::from),
        };
        out.push(Change {
            ver: uint(row.get(2)?),
            entry,
        });
    }
    Ok(())
}

fn name_change(
    db: &Connection,
    tag: ReplicaTag,
    ver: Ver,
    parent: Ino,
    hash: i64,
    name: &[u8],
    out: &mut Vec<Change>,
) -> Result<()> {
    let current: Option<(Option<i64>, i64)> = db
        .prepare_cached("SELECT child, ver FROM name WHERE parent = ? AND hash = ? AND name = ?")?
        .query_row(params![int(parent.0), hash, name], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .optional()?;
    if let Some((child, found)) = current
        && uint(found) == ver
    {
        let child = child.map(|c| db::id_of(db, tag, Ino(uint(c))));
        let entry = Entry::Name {
            parent: db::id_of(db, tag, parent)?,
            name: Name::new(name).map_err(|e| corrupt(parent, e))?,
            node: child.transpose()?,
        };
        out.push(Change { ver, entry });
    }
    Ok(())
}
