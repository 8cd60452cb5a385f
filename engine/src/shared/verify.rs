//! What has to hold of a shared tree (I11), for who checks a replica.

use cairn_protocol::{Data, NodeId};
use rusqlite::{Connection, params};

use super::{Shared, data_of, id_of, key};
use crate::Result;
use crate::db::uint;

/// What must not be found, and what it would mean. `?1` is the side, `?2` and
/// `?3` are the root, which may have no row.
const WRONG: [(&str, &str); 5] = [
    (
        "SELECT count(*) FROM shared_name e LEFT JOIN shared_node n
             ON n.side = e.side AND n.tag = e.node_tag AND n.counter = e.node_counter
         WHERE e.side = ?1 AND e.node_tag IS NOT NULL AND (n.side IS NULL OR n.gone > 0)
             AND ?2 = ?2 AND ?3 = ?3",
        "names stand for nodes that do not live",
    ),
    (
        "SELECT count(*) FROM shared_name e LEFT JOIN shared_node p
             ON p.side = e.side AND p.tag = e.tag AND p.counter = e.counter
         WHERE e.side = ?1 AND e.node_tag IS NOT NULL AND NOT (e.tag = ?2 AND e.counter = ?3)
             AND (p.side IS NULL OR p.gone > 0 OR p.kind != 1)",
        "names are in nodes that are no living directories",
    ),
    (
        "SELECT count(*) FROM shared_node n WHERE n.side = ?1 AND n.gone = 0
             AND NOT (n.tag = ?2 AND n.counter = ?3) AND NOT EXISTS (SELECT 1 FROM shared_name e
             WHERE e.side = n.side AND e.node_tag = n.tag AND e.node_counter = n.counter)",
        "nodes live and have no name",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM shared_name e JOIN shared_node n
             ON n.side = e.side AND n.tag = e.node_tag AND n.counter = e.node_counter
         WHERE e.side = ?1 AND n.kind = 1 AND ?2 = ?2 AND ?3 = ?3
         GROUP BY e.node_tag, e.node_counter HAVING count(*) > 1)",
        "directories have several names",
    ),
    (
        "WITH RECURSIVE reach(tag, counter) AS (SELECT ?2, ?3 UNION
             SELECT n.tag, n.counter FROM reach r
             JOIN shared_name e ON e.side = ?1 AND e.tag = r.tag AND e.counter = r.counter
             JOIN shared_node n ON n.side = ?1 AND n.tag = e.node_tag AND n.counter = e.node_counter
             WHERE n.kind = 1)
         SELECT count(*) FROM shared_node WHERE side = ?1 AND kind = 1 AND gone = 0
             AND (tag, counter) NOT IN (SELECT tag, counter FROM reach)",
        "directories are not reachable from the root",
    ),
];

/// The sides that there is something of.
pub(crate) fn sides(db: &Connection) -> Result<Vec<u8>> {
    let mut find = db.prepare("SELECT DISTINCT side FROM shared_node ORDER BY side")?;
    let rows = find.query_map([], |r| r.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Shared<'_> {
    /// Everything that is wrong with the tree.
    pub(crate) fn verify(&self) -> Result<Vec<String>> {
        let (tag, counter) = key(NodeId::ROOT);
        let mut wrong = Vec::new();
        for (sql, why) in WRONG {
            let count: i64 = self
                .db
                .query_row(sql, params![self.side, tag, counter], |r| r.get(0))?;
            if count > 0 {
                wrong.push(format!("{count} {why}"));
            }
        }
        Ok(wrong)
    }

    /// Shows each content that the tree has, of dead nodes too.
    pub(crate) fn each_data(&self, each: &mut dyn FnMut(NodeId, Result<Data>)) -> Result<()> {
        let mut find = self.db.prepare_cached(
            "SELECT tag, counter, data FROM shared_node WHERE side = ? AND data IS NOT NULL",
        )?;
        let mut rows = find.query([self.side])?;
        while let Some(row) = rows.next()? {
            each(id_of(row, 0)?, data_of(row, 2));
        }
        Ok(())
    }

    /// How many nodes there are, dead ones too.
    pub(crate) fn records(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM shared_node WHERE side = ?";
        Ok(uint(self.db.query_row(sql, [self.side], |r| r.get(0))?))
    }
}
