//! Reading a shared tree: registers with their versions, and pages.

use bytes::Bytes;
use cairn_protocol::merge::Place;
use cairn_protocol::{Name, NodeId, NodeKind, Ver, XattrName};
use rusqlite::{CachedStatement, OptionalExtension, params};

use super::{Record, Shared, id_of, key, name_of, record_of};
use crate::Result;
use crate::db::{corrupt, uint};

const RECORD: &str = "SELECT kind, born, data_ver, data, meta_ver, meta, gone, last
    FROM shared_node WHERE side = ? AND tag = ? AND counter = ?";
pub(super) const NAME: &str = "SELECT node_tag, node_counter, ver FROM shared_name
    WHERE side = ? AND tag = ? AND counter = ? AND name = ?";
const RECORDS: &str = "SELECT tag, counter, kind, born, data_ver, data, meta_ver, meta, gone, last
    FROM shared_node WHERE side = ? AND (tag, counter) > (?, ?) ORDER BY tag, counter LIMIT ?";
/// What [`NAME`] finds.
pub(super) fn name_by(
    find: &mut CachedStatement<'_>,
    side: u8,
    place: &Place,
) -> Result<Option<(Option<NodeId>, Ver)>> {
    let (tag, counter) = key(place.0);
    let mut rows = find.query(params![side, tag, counter, place.1.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let node = match row.get::<_, Option<i64>>(0)? {
        Some(_) => Some(id_of(row, 0)?),
        None => None,
    };
    Ok(Some((node, uint(row.get(2)?))))
}

#[allow(dead_code, reason = "some are for the replica's side")]
impl Shared<'_> {
    /// What is known of a node. The root is always there.
    pub(crate) fn record(&self, node: NodeId) -> Result<Option<Record>> {
        let (tag, counter) = key(node);
        let mut find = self.db.prepare_cached(RECORD)?;
        let mut rows = find.query(params![self.side, tag, counter])?;
        match rows.next()? {
            Some(row) => Ok(Some(record_of(row, 0)?)),
            None if node == NodeId::ROOT => Ok(Some(Record::new(NodeKind::Dir, 0))),
            None => Ok(None),
        }
    }

    /// A name: what it stands for, or `None` for a tombstone, and its version.
    pub(crate) fn name(&self, place: &Place) -> Result<Option<(Option<NodeId>, Ver)>> {
        name_by(&mut self.db.prepare_cached(NAME)?, self.side, place)
    }

    /// All names of a node.
    pub(crate) fn places_of(&self, node: NodeId) -> Result<Vec<Place>> {
        let (tag, counter) = key(node);
        let mut find = self.db.prepare_cached(
            "SELECT tag, counter, name FROM shared_name
             WHERE side = ? AND node_tag = ? AND node_counter = ?",
        )?;
        let mut rows = find.query(params![self.side, tag, counter])?;
        let mut places = Vec::new();
        while let Some(row) = rows.next()? {
            places.push((id_of(row, 0)?, name_of(row, 2)?));
        }
        Ok(places)
    }

    /// An extended attribute: its value, or `None` for a tombstone, and its version.
    pub(crate) fn attribute(
        &self,
        node: NodeId,
        name: &XattrName,
    ) -> Result<Option<(Option<Bytes>, Ver)>> {
        let (tag, counter) = key(node);
        let mut find = self.db.prepare_cached(
            "SELECT value, ver FROM shared_xattr
             WHERE side = ? AND tag = ? AND counter = ? AND name = ?",
        )?;
        let found: Option<(Option<Vec<u8>>, i64)> = find
            .query_row(params![self.side, tag, counter, name.as_bytes()], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()?;
        Ok(found.map(|(value, ver)| (value.map(Bytes::from), uint(ver))))
    }

    /// Whether anything has, or had, extended attributes.
    pub(crate) fn has_attributes(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM shared_xattr WHERE side = ?)";
        let mut find = self.db.prepare_cached(sql)?;
        Ok(find.query_row([self.side], |r| r.get(0))?)
    }

    /// All extended attributes of a node, with tombstones.
    pub(crate) fn attributes(&self, node: NodeId) -> Result<Vec<(XattrName, Option<Bytes>, Ver)>> {
        let (tag, counter) = key(node);
        let mut find = self.db.prepare_cached(
            "SELECT name, value, ver FROM shared_xattr WHERE side = ? AND tag = ? AND counter = ?",
        )?;
        let mut rows = find.query(params![self.side, tag, counter])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let name: Vec<u8> = row.get(0)?;
            let name = XattrName::new(&name).map_err(|e| corrupt(node, e))?;
            let value: Option<Vec<u8>> = row.get(1)?;
            all.push((name, value.map(Bytes::from), uint(row.get(2)?)));
        }
        Ok(all)
    }

    /// The node that stands for one that never came to be.
    pub(crate) fn alias_of(&self, node: NodeId) -> Result<Option<NodeId>> {
        let (tag, counter) = key(node);
        let mut find = self.db.prepare_cached(
            "SELECT to_tag, to_counter FROM shared_alias WHERE side = ? AND tag = ? AND counter = ?",
        )?;
        let mut rows = find.query(params![self.side, tag, counter])?;
        rows.next()?.map(|row| id_of(row, 0)).transpose()
    }

    /// Up to `limit` entries of a directory after a name, in the order of names.
    pub(crate) fn children(
        &self,
        dir: NodeId,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<(Name, NodeId, Ver)>> {
        let (tag, counter) = key(dir);
        let after = after.map_or(&[][..], Name::as_bytes);
        let mut find = self.db.prepare_cached(
            "SELECT name, node_tag, node_counter, ver FROM shared_name
             WHERE side = ? AND tag = ? AND counter = ? AND name > ? AND node_tag IS NOT NULL
             ORDER BY name LIMIT ?",
        )?;
        let limit = crate::db::int(limit as u64);
        let mut rows = find.query(params![self.side, tag, counter, after, limit])?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            page.push((name_of(row, 0)?, id_of(row, 1)?, uint(row.get(3)?)));
        }
        Ok(page)
    }

    /// Up to `limit` nodes after one, dead ones too, in the order in which they
    /// are stored. The root is among them only if it has attributes.
    pub(crate) fn nodes(
        &self,
        after: Option<NodeId>,
        limit: usize,
    ) -> Result<Vec<(NodeId, Record)>> {
        let (tag, counter) = after.map_or((i64::MIN, i64::MIN), key);
        let mut find = self.db.prepare_cached(RECORDS)?;
        let limit = crate::db::int(limit as u64);
        let mut rows = find.query(params![self.side, tag, counter, limit])?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            page.push((id_of(row, 0)?, record_of(row, 2)?));
        }
        Ok(page)
    }

    /// Up to `limit` names after one, tombstones too, in the order in which they
    /// are stored.
    pub(crate) fn names(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Option<NodeId>, Ver)>> {
        let (tag, counter) = after.map_or((i64::MIN, i64::MIN), |place| key(place.0));
        let name = after.map_or(&[][..], |place| place.1.as_bytes());
        let mut find = self.db.prepare_cached(
            "SELECT tag, counter, name, node_tag, node_counter, ver FROM shared_name
             WHERE side = ? AND (tag, counter, name) > (?, ?, ?) ORDER BY tag, counter, name LIMIT ?",
        )?;
        let limit = crate::db::int(limit as u64);
        let mut rows = find.query(params![self.side, tag, counter, name, limit])?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let node = match row.get::<_, Option<i64>>(3)? {
                Some(_) => Some(id_of(row, 3)?),
                None => None,
            };
            page.push(((id_of(row, 0)?, name_of(row, 2)?), node, uint(row.get(5)?)));
        }
        Ok(page)
    }

    /// How many nodes live, with the root.
    pub(crate) fn count(&self) -> Result<u64> {
        let (tag, counter) = key(NodeId::ROOT);
        let mut count = self.db.prepare_cached(
            "SELECT count(*) FROM shared_node
             WHERE side = ? AND gone = 0 AND NOT (tag = ? AND counter = ?)",
        )?;
        let others: i64 = count.query_row(params![self.side, tag, counter], |r| r.get(0))?;
        Ok(uint(others) + 1)
    }
}
