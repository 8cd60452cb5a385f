//! Opening: who the replica is, and what a crash left unsealed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairn_protocol::{Chain, Epoch, NodeKind, ReplicaTag};
use rusqlite::OptionalExtension;

use crate::attr::Ino;
use crate::db::{self, Db, Identity, int, meta_get, meta_set, uint};
use crate::files::Files;
use crate::node::{Body, Node, Overlay, Staging};
use crate::options::Options;
use crate::ranges::RangeSet;
use crate::replica::{new_dir, new_node};
use crate::tree::{Gone, Tree};
use crate::{FsError, Result};

/// Reads the identity of a replica, or gives a new one its own.
pub(crate) fn identity(db: &Db, options: &Options) -> Result<Identity> {
    let mut writer = db.writer();
    let empty: bool =
        writer.query_row("SELECT NOT EXISTS (SELECT 1 FROM node)", [], |r| r.get(0))?;
    if empty && meta_get::<Vec<u8>>(&writer, "epoch")?.is_none() {
        let step = writer.transaction()?;
        let random = random()?;
        meta_set(&step, "epoch", &random[..16])?;
        let mut tag = [0; 8];
        tag.copy_from_slice(&random[16..24]);
        // Signed in the database, and zero is the root's.
        let tag = options
            .tag
            .map_or(u64::from_le_bytes(tag) >> 1, |tag| tag.0);
        meta_set(&step, "tag", int(tag.max(1)))?;
        meta_set(&step, "hash_key", &random[24..56])?;
        meta_set(&step, "next_ino", 2)?;
        meta_set(&step, "count", 1)?;
        let user = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let (uid, gid) = options.root_owner.unwrap_or(user);
        let mut root = new_node(NodeKind::Dir, 0o755, uid, gid, 0, new_dir(Ino::ROOT));
        (root.born, root.meta_ver, root.data_ver) = (1, 1, 1);
        insert_root(&step, &root)?;
        meta_set(&step, "seq", 1)?;
        step.execute(
            "INSERT INTO commits(seq, chain) VALUES(1, ?)",
            [Chain::GENESIS.0.as_slice()],
        )?;
        step.commit()?;
    } else if options.renew_identity {
        renew(&mut writer)?;
    }
    let missing = |what: &str| FsError::Corrupt(format!("the database lacks its {what}"));
    let epoch: Vec<u8> = meta_get(&writer, "epoch")?.ok_or_else(|| missing("epoch"))?;
    let hash_key: Vec<u8> = meta_get(&writer, "hash_key")?.ok_or_else(|| missing("hash key"))?;
    let number = |key: &str| -> Result<u64> {
        Ok(uint(meta_get(&writer, key)?.ok_or_else(|| missing(key))?))
    };
    let chain: Option<Vec<u8>> = writer
        .query_row(
            "SELECT chain FROM commits ORDER BY seq DESC LIMIT 1",
            [],
            |r| r.get(0),
        )
        .optional()?;
    Ok(Identity {
        epoch: Epoch(epoch.try_into().map_err(|_| missing("epoch"))?),
        tag: number("tag")?,
        hash_key: hash_key.try_into().map_err(|_| missing("hash key"))?,
        next_ino: number("next_ino")?,
        seq: number("seq")?,
        count: number("count")?,
        chain: Chain(
            chain
                .and_then(|c| c.try_into().ok())
                .ok_or_else(|| missing("chain"))?,
        ),
    })
}

/// Gives a replica another tag and another epoch.
fn renew(db: &mut rusqlite::Connection) -> Result<()> {
    let step = db.transaction()?;
    let random = random()?;
    let mut tag = [0; 8];
    tag.copy_from_slice(&random[16..24]);
    let new = (u64::from_le_bytes(tag) >> 1).max(1);
    let old = meta_get(&step, "tag")?.map_or(0, uint);
    crate::upstream::identity::renew(&step, ReplicaTag(old), ReplicaTag(new))?;
    meta_set(&step, "tag", int(new))?;
    meta_set(&step, "epoch", &random[..16])?;
    Ok(step.commit()?)
}

fn insert_root(db: &rusqlite::Connection, root: &Node) -> Result<()> {
    db.execute(
        "INSERT INTO node(ino, kind, perm, uid, gid, rdev, nlink, size, allocated, times, parent, entries, xattrs,
             born, meta_ver, data_ver, ver) VALUES(1, ?, ?, ?, ?, 0, 2, 0, 0, ?, 1, 0, 0, 1, 1, 1, 1)",
        rusqlite::params![u8::from(root.kind), root.perm, root.uid, root.gid, db::times_to(&root.times).as_slice()],
    )?;
    db.execute("INSERT INTO log(ver, kind, ino) VALUES(1, 0, 1)", [])?;
    Ok(())
}

pub(crate) fn random() -> Result<[u8; 56]> {
    let mut bytes = [0; 56];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|e| FsError::io("reading random numbers", e.into()))?;
    }
    Ok(bytes)
}

/// Brings back the files that were not sealed, removes the nodes that had no
/// name and the staging files that belong to nothing. Returns the files to seal.
pub(crate) fn overlays(db: &Db, files: &Files, tree: &mut Tree) -> Result<Vec<Ino>> {
    let database = db;
    let db = db.reader();
    // Also of files that are missing: their number must not name another.
    let newest: Option<i64> = db.query_row(
        "SELECT max(id) FROM (SELECT id FROM pack UNION ALL SELECT file FROM staging UNION ALL SELECT max(id) FROM content)",
        [],
        |r| r.get(0),
    )?;
    files.reserve_ids(uint(newest.unwrap_or(0)));
    let mut revived = Vec::new();
    let mut named = BTreeSet::new();
    let mut opened: HashMap<u64, (Staging, BTreeSet<u64>)> = HashMap::new();
    let mut rows = db.prepare("SELECT ino, file, size, base_len, ranges FROM staging")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let ino = Ino(uint(row.get(0)?));
        let id = uint(row.get(1)?);
        named.insert(id);
        let Some(mut node) = db::load_node(&db, ino)? else {
            continue;
        };
        let ranges: Vec<u8> = row.get(4)?;
        let ranges: RangeSet = postcard::from_bytes(&ranges).map_err(|e| db::corrupt(ino, e))?;
        let (size, base_len) = (uint(row.get(2)?), uint(row.get(3)?));
        let mut staging = match opened.get(&id) {
            Some((first, _)) => Staging {
                ranges,
                base_len,
                ..first.clone()
            },
            None => match files.open_staging(id) {
                Ok(file) => Staging::new(file, ranges, base_len),
                Err(error) => {
                    tracing::error!(%ino, %error, "unsealed content is missing; the file has what was sealed before");
                    continue;
                }
            },
        };
        if let Body::File(body) = &mut node.body {
            body.size = size;
        }
        crate::direct::revive(&mut node, &mut staging);
        if let Body::File(body) = &mut node.body {
            body.over = Overlay::Staging(staging.clone());
        }
        tree.nodes.insert(ino.0, node);
        tree.touch_private(ino);
        let (_, files) = opened.entry(id).or_insert((staging, BTreeSet::new()));
        files.insert(ino.0);
        revived.push(ino);
    }
    drop(rows);
    for (id, (staging, files)) in opened {
        if files.len() > 1 {
            *staging.frozen.write() = true;
            tree.shared.insert(id, files);
        }
    }
    remove_orphans(&db, tree)?;
    if files.home().path().is_some() {
        // What is removed now must not be named by what a power cut brings back.
        files.sync_names()?;
        database.sync()?;
        tidy(&db, files, &named)?;
    }
    Ok(revived)
}

/// Brings the data files in line with the database: those that no row names
/// go, and so does what a pack holds after its last chunk.
fn tidy(db: &rusqlite::Connection, files: &Files, staged: &BTreeSet<u64>) -> Result<()> {
    let mut packs: BTreeMap<u64, u64> = BTreeMap::new();
    let mut rows = db.prepare("SELECT id, size FROM pack")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        packs.insert(uint(row.get(0)?), uint(row.get(1)?));
    }
    let (on_disk, dirty) = files
        .on_disk()
        .map_err(|e| FsError::io("listing the data files", e))?;
    let on_disk: BTreeSet<u64> = on_disk.into_iter().collect();
    for id in dirty.into_iter().filter(|id| !staged.contains(id)) {
        if packs.contains_key(&id) && !on_disk.contains(&id) {
            // Its adoption is committed, and a power cut undid the rename.
            files.finish_adoption(id)?;
        } else {
            files.remove_staging(id);
        }
    }
    // The rows of packs and those of chunks must agree: a damaged row costs nothing.
    let mut end = db.prepare("SELECT max(off + len) FROM chunk WHERE pack = ? AND pack > 0")?;
    for id in on_disk {
        let named: Option<i64> = end.query_row([int(id)], |r| r.get(0))?;
        match (packs.get(&id), named.map(uint)) {
            (Some(size), named) => files.cut_pack(id, named.unwrap_or(0).max(*size)),
            (None, None) => files.remove_pack(id),
            (None, Some(_)) => {}
        }
    }
    Ok(())
}

fn remove_orphans(db: &rusqlite::Connection, tree: &mut Tree) -> Result<()> {
    let mut orphans = db.prepare("SELECT ino, kind, tag, counter FROM node WHERE nlink = 0")?;
    let mut orphans = orphans.query([])?;
    while let Some(row) = orphans.next()? {
        let ino = Ino(uint(row.get(0)?));
        tree.drop_overlay(ino);
        tree.nodes.remove(&ino.0);
        tree.dirty_nodes.remove(&ino.0);
        tree.count = tree.count.saturating_sub(1);
        let ver = tree.next_ver();
        tree.bury(Gone {
            ino,
            id: db::foreign_id(row.get(2)?, row.get(3)?).map(Box::new),
            ver,
            was_file: row.get::<_, u8>(1)? == u8::from(NodeKind::File),
        });
    }
    Ok(())
}
