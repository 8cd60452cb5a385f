//! A copy of a replica becomes a replica of its own.
//!
//! Two replicas with one tag cannot follow one hub: each numbers its batches, and
//! mints ids of nodes, as if it were the only one. With another tag the copy goes on
//! from its cursor. What the hub knows keeps its ids. What only the copy has may have
//! an id that the original has given to something else since, so it gets new ones,
//! and is pushed as its edits. So a file that was not pushed when the replica was
//! copied comes to the hub from both, the second time under a conflict name.

use std::collections::BTreeSet;

use cairn_protocol::ReplicaTag;
use rusqlite::Connection;

use super::state::Rows;
use crate::Result;

/// Whether a hub knows the node with the tag `?1` and this counter.
macro_rules! is_known {
    ($counter:literal) => {
        concat!(
            "EXISTS(SELECT 1 FROM shared_node s WHERE s.tag = ?1 AND s.counter = ",
            $counter,
            ")"
        )
    };
}

/// The ids of the nodes that a hub knows, where they were told by the inode.
const KEEP: &str = concat!(
    "UPDATE node SET tag = ?1, counter = ino WHERE tag IS NULL AND ino > 1 AND ",
    is_known!("node.ino")
);

/// Those that were minted here for other inodes, and that no hub knows.
const MINT: &str = concat!(
    "UPDATE node SET tag = ?2 WHERE tag = ?1 AND NOT ",
    is_known!("node.counter")
);

/// Gives the ids of nodes their place for when the tag is another. In a transaction,
/// before anything else has looked at the replica.
pub(crate) fn renew(db: &Connection, old: ReplicaTag, new: ReplicaTag) -> Result<()> {
    let (was, is) = (old.0.cast_signed(), new.0.cast_signed());
    db.execute(MINT, [was, is])?;
    db.execute(KEEP, [was])?;
    let mut sides = db.prepare("SELECT DISTINCT side FROM upstream")?;
    let sides: Vec<u8> = sides
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for side in sides {
        begin_anew(Rows { db, side })?;
    }
    Ok(())
}

/// The hub knows no batch of the new tag, so the first is the next. What is in the
/// one that was not answered is found again, where it is still so.
fn begin_anew(rows: Rows<'_>) -> Result<()> {
    let mut state = rows.state()?;
    (state.scanned, state.batch, state.digest) = (0, 0, None);
    rows.set_state(&state)?;
    rows.set_flight(None)?;
    // They are found again, too, with their new ids.
    rows.set_outsized(&BTreeSet::new())
}
