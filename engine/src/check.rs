//! Verifying a replica: every invariant of the database, every chunk.

use std::collections::HashMap;

use cairn_protocol::{ChunkHash, Data, NodeKind};

use crate::Result;
use crate::attr::Ino;
use crate::chunks::Place;
use crate::db::{self, uint};
use crate::history::HISTORY_DATA;
use crate::node::Body;
use crate::replica::Replica;
use crate::rows::each_chunk;
use crate::shared::Shared;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is affected: a path, a chunk, a pack.
    pub what: String,
    /// What is wrong, in words.
    pub why: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Nodes examined.
    pub nodes: u64,
    /// Chunks read and hashed.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub bytes: u64,
    /// Everything wrong; empty for a sound replica.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "callers have a text, an error or an inode, and are done with it"
    )]
    fn add(&mut self, what: impl ToString, why: impl ToString) {
        self.problems.push(Problem {
            what: what.to_string(),
            why: why.to_string(),
        });
    }
}

impl Replica {
    /// Verifies the whole replica. Calls `progress` with the bytes verified
    /// and the bytes to verify. Repairs nothing; but chunks that others may have,
    /// as there is a hub, are noted, so that they are asked for.
    ///
    /// # Errors
    ///
    /// When the replica cannot be examined at all; what is wrong with it is in
    /// the report.
    pub fn check(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CheckReport> {
        self.inner.seal_all()?;
        self.inner.commit(false)?;
        let mut report = CheckReport::default();
        // The commit lock: nothing changes in the database meanwhile.
        let db = self.inner.db.writer();
        match db.query_row("PRAGMA integrity_check(1)", [], |r| r.get::<_, String>(0)) {
            Ok(sound) if sound == "ok" => {}
            Ok(why) => report.add("database", why),
            Err(error) => report.add("database", error),
        }
        // A damaged database may stop one part and not the next.
        let mut damaged = HashMap::new();
        let lost = self.inner.lost.number();
        let mut refs = HashMap::new();
        let parts = [
            self.check_lost(&db, &mut report, &mut damaged),
            self.check_chunks(&db, &mut report, &mut damaged, progress),
            self.check_nodes(&db, &mut report, &damaged, &mut refs),
            self.check_shared(&db, &mut report, &damaged, &mut refs),
            Self::check_refs(&db, &mut report, refs),
            Self::check_names(&db, &mut report),
            self.check_unsealed(&db, &mut report),
        ];
        for error in parts.into_iter().filter_map(Result::err) {
            report.add("database", error);
        }
        for hash in damaged.keys() {
            if let Err(error) = self.inner.note_lost(&db, hash) {
                report.add("database", error);
            }
        }
        drop(db);
        if self.inner.lost.number() != lost {
            self.inner.watchers.wake();
        }
        Ok(report)
    }

    /// Looks for the staging files of files that are not sealed.
    fn check_unsealed(&self, db: &rusqlite::Connection, report: &mut CheckReport) -> Result<()> {
        let mut find = db.prepare("SELECT ino, file FROM staging")?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let (ino, file) = (Ino(uint(row.get(0)?)), uint(row.get(1)?));
            let path = self.inner.chunks.files.staging_path(file);
            if path.is_some_and(|path| !path.exists()) {
                report.add(
                    Self::name_of(db, ino),
                    format!("what was written last is lost with dirty/{file}; it has what was sealed before"),
                );
            }
        }
        Ok(())
    }

    /// Names the chunks that were found to be damaged, and have not come again.
    fn check_lost(
        &self,
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        damaged: &mut HashMap<ChunkHash, String>,
    ) -> Result<()> {
        for (hash, place) in self.inner.look_again(db)? {
            let why = format!(
                "its bytes in pack {} at {} are damaged, and nobody has given it again yet",
                place.pack, place.offset
            );
            report.add(format!("chunk {hash}"), &why);
            damaged.insert(hash, why);
        }
        Ok(())
    }

    /// Reads and hashes every chunk. Notes those that are damaged.
    fn check_chunks(
        &self,
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        damaged: &mut HashMap<ChunkHash, String>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let total = uint(
            db.query_row("SELECT sum(len) FROM chunk", [], |r| {
                r.get::<_, Option<i64>>(0)
            })?
            .unwrap_or(0),
        );
        let mut find =
            db.prepare("SELECT hash, pack, off, len FROM chunk WHERE pack > 0 ORDER BY pack, off")?;
        let mut rows = find.query([])?;
        let mut buf = Vec::new();
        let mut end = (0, 0);
        while let Some(row) = rows.next()? {
            let hash = ChunkHash::from_bytes(row.get(0)?);
            let place = Place {
                pack: uint(row.get(1)?),
                offset: uint(row.get(2)?),
                len: row.get(3)?,
            };
            if end.0 == place.pack && place.offset < end.1 {
                report.add(
                    format!("chunk {hash}"),
                    format!("overlaps another in pack {}", place.pack),
                );
            }
            end = (place.pack, place.offset + u64::from(place.len));
            if !place.is_sound() {
                let why = format!("its row is wrong: {place:?}");
                report.add(format!("chunk {hash}"), &why);
                damaged.insert(hash, why);
                continue;
            }
            buf.resize(place.len as usize, 0);
            let chunks = &self.inner.chunks;
            let read = chunks.read_at(|| db, &hash, place, 0, &mut buf);
            let why = match read {
                Err(error) => Some(error.to_string()),
                Ok(()) if ChunkHash::of(&buf) != hash => Some(format!(
                    "its bytes in pack {} at {} do not match its hash",
                    place.pack, place.offset
                )),
                Ok(()) => None,
            };
            if let Some(why) = why {
                report.add(format!("chunk {hash}"), &why);
                damaged.insert(hash, why);
            }
            report.chunks += 1;
            report.bytes += u64::from(place.len);
            progress(report.bytes, total);
        }
        let lost = "SELECT count(*) FROM content WHERE NOT EXISTS
            (SELECT 1 FROM chunk WHERE chunk.pack = content.id AND chunk.pack > 0)
            AND NOT EXISTS (SELECT 1 FROM lost WHERE lost.pack = content.id)";
        let lost: i64 = db.query_row(lost, [], |r| r.get(0))?;
        if lost > 0 && self.inner.chunks.files.home().has_chunk_rows() {
            report.add(
                "database",
                format!("{lost} rows of content belong to no chunk"),
            );
        }
        Ok(())
    }

    fn check_nodes(
        &self,
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        damaged: &HashMap<ChunkHash, String>,
        refs: &mut HashMap<ChunkHash, i64>,
    ) -> Result<()> {
        let mut find = db.prepare(&format!("SELECT {} FROM node", db::NODE_COLUMNS))?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            report.nodes += 1;
            let ino = Ino(uint(row.get(0)?));
            let node = match db::node_of(row) {
                Ok((_, node, _)) => node,
                Err(error) => {
                    report.add(Self::name_of(db, ino), error);
                    continue;
                }
            };
            let names: i64 = db
                .prepare_cached("SELECT count(*) FROM name WHERE child = ?")?
                .query_row([db::int(ino.0)], |r| r.get(0))?;
            if node.kind == NodeKind::Dir {
                Self::check_dir(db, report, ino, &node, names)?;
            } else if i64::from(node.nlink) != names {
                report.add(
                    Self::name_of(db, ino),
                    format!("says {} links and has {names} names", node.nlink),
                );
            }
            if let Body::File(file) = &node.body {
                let staged: i64 = db
                    .prepare_cached("SELECT count(*) FROM staging WHERE ino = ?")?
                    .query_row([db::int(ino.0)], |r| r.get(0))?;
                if staged == 0 && file.size != file.base.size() {
                    report.add(
                        Self::name_of(db, ino),
                        format!("says {} bytes and holds {}", file.size, file.base.size()),
                    );
                }
                self.count(
                    db,
                    report,
                    damaged,
                    &Self::name_of(db, ino),
                    &file.base.to_data(),
                    refs,
                );
            }
        }
        let mut kept = db.prepare("SELECT ino, value FROM history WHERE kind = ?")?;
        let mut rows = kept.query([HISTORY_DATA])?;
        while let Some(row) = rows.next()? {
            let what = format!("{}, an old version", Ino(uint(row.get(0)?)));
            match postcard::from_bytes::<Data>(&row.get::<_, Vec<u8>>(1)?) {
                Ok(data) => self.count(db, report, damaged, &what, &data, refs),
                Err(error) => report.add(what, error),
            }
        }
        Ok(())
    }

    /// The trees of hubs: whether they are trees, and what they name.
    fn check_shared(
        &self,
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        damaged: &HashMap<ChunkHash, String>,
        refs: &mut HashMap<ChunkHash, i64>,
    ) -> Result<()> {
        for side in crate::shared::sides(db)? {
            let tree = Shared::new(db, side);
            let what = match side {
                crate::shared::HUB => "the tree of the hub".into(),
                side => format!("the confirmed tree {side}"),
            };
            for why in tree.verify()? {
                report.add(&what, why);
            }
            report.nodes += tree.records()?;
            tree.each_data(&mut |node, data| {
                let what = format!("{what}, node {node}");
                match data {
                    Ok(data) => self.count(db, report, damaged, &what, &data, refs),
                    Err(error) => report.add(what, error),
                }
            })?;
        }
        Ok(())
    }

    /// Whether each chunk has as many references as it says.
    fn check_refs(
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        mut refs: HashMap<ChunkHash, i64>,
    ) -> Result<()> {
        let mut find = db.prepare("SELECT hash, refs FROM chunk")?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let hash = ChunkHash::from_bytes(row.get(0)?);
            let says: i64 = row.get(1)?;
            let has = refs.remove(&hash).unwrap_or(0);
            if says != has {
                report.add(
                    format!("chunk {hash}"),
                    format!("says {says} references and has {has}"),
                );
            }
        }
        for hash in refs.keys() {
            report.add(
                format!("chunk {hash}"),
                "is named by a file and is not stored",
            );
        }
        Ok(())
    }

    fn check_dir(
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        ino: Ino,
        node: &crate::node::Node,
        names: i64,
    ) -> Result<()> {
        let Body::Dir(dir) = &node.body else {
            return Ok(());
        };
        let (entries, dirs): (i64, i64) = db
            .prepare_cached(
                "SELECT count(*), coalesce(sum(n.kind = 1), 0) FROM name e LEFT JOIN node n ON n.ino = e.child
                 WHERE e.parent = ? AND e.child IS NOT NULL",
            )?
            .query_row([db::int(ino.0)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        if uint(entries) != dir.entries {
            report.add(
                Self::name_of(db, ino),
                format!("says {} entries and has {entries}", dir.entries),
            );
        }
        if node.nlink > 0 && i64::from(node.nlink) != 2 + dirs {
            report.add(
                Self::name_of(db, ino),
                format!("says {} links and has {}", node.nlink, 2 + dirs),
            );
        }
        if ino != Ino::ROOT && node.nlink > 0 && names != 1 {
            report.add(
                Self::name_of(db, ino),
                format!("is a directory with {names} names"),
            );
        }
        Ok(())
    }

    fn count(
        &self,
        db: &rusqlite::Connection,
        report: &mut CheckReport,
        damaged: &HashMap<ChunkHash, String>,
        what: &str,
        data: &Data,
        refs: &mut HashMap<ChunkHash, i64>,
    ) {
        let mut bad = None;
        let counted = each_chunk(&self.inner, db, data, &mut |hash| {
            *refs.entry(hash).or_default() += 1;
            if damaged.contains_key(&hash) {
                bad = Some(hash);
            }
            Ok(())
        });
        if let Err(error) = counted {
            report.add(what, error);
        } else if let Some(hash) = bad {
            report.add(
                what,
                format!("part of it is damaged (chunk {hash}); the rest is readable"),
            );
        }
    }

    fn check_names(db: &rusqlite::Connection, report: &mut CheckReport) -> Result<()> {
        let mut find = db.prepare(
            "SELECT e.parent, e.name FROM name e LEFT JOIN node n ON n.ino = e.child LEFT JOIN node p ON p.ino = e.parent
             WHERE e.child IS NOT NULL AND (n.ino IS NULL OR p.ino IS NULL)",
        )?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let name: Vec<u8> = row.get(1)?;
            let what = format!(
                "{}/{}",
                Ino(uint(row.get(0)?)),
                String::from_utf8_lossy(&name)
            );
            report.add(what, "is a name whose node or directory does not exist");
        }
        // Directories that the root does not reach form a cycle.
        let lost: i64 = db.query_row(
            "WITH RECURSIVE reach(ino) AS (SELECT 1 UNION SELECT e.child FROM reach r JOIN name e ON e.parent = r.ino
                 JOIN node n ON n.ino = e.child AND n.kind = 1 WHERE e.child IS NOT NULL)
             SELECT count(*) FROM node WHERE kind = 1 AND nlink > 0 AND ino NOT IN (SELECT ino FROM reach)",
            [],
            |r| r.get(0),
        )?;
        if lost > 0 {
            report.add(
                "tree",
                format!("{lost} directories are not reachable from the root"),
            );
        }
        Ok(())
    }

    fn name_of(db: &rusqlite::Connection, ino: Ino) -> String {
        let path = crate::changes::path_in(db, ino).ok().flatten();
        path.map_or_else(
            || ino.to_string(),
            |p| String::from_utf8_lossy(&p).into_owned(),
        )
    }
}
