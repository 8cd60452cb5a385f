//! Where a replica stands: how far it has followed its hub, and what it has not
//! pushed.

use std::sync::atomic::Ordering;

use cairn_protocol::{Change, Cursor, Entry, NodeId, Ver};

use super::Upstream;
use super::edits::{Bounds, Edits};
use super::ignore::{Paths, Whose};
use super::local::Local;
use super::state::Rows;
use crate::Result;
use crate::shared::Shared;

/// More edits than this are not counted.
const COUNTED: usize = 100_000;

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncStatus {
    /// The hub's commit that the working tree is of; `None` before the first cut.
    pub cursor: Option<Cursor>,
    /// Edits of the batch that was not answered.
    pub in_flight: u64,
    /// Edits that are in no batch yet.
    pub pending: u64,
    /// Bytes of the contents of these, in whole files.
    pub pending_bytes: u64,
    /// There are more than were counted.
    pub more: bool,
    /// Files whose content is being written, and waits for that to end.
    pub writing: u64,
    /// Files that are too large to be pushed: their contents have more new
    /// chunks than a batch may. Everything else goes on without them.
    pub outsized: Vec<NodeId>,
    /// Conflicts that nobody has resolved.
    pub conflicts: u64,
}

impl SyncStatus {
    /// Whether everything was pushed and answered.
    pub fn is_clean(&self) -> bool {
        self.in_flight == 0 && self.pending == 0 && self.writing == 0 && self.outsized.is_empty()
    }
}

impl Upstream {
    /// How many names and nodes a cut planned in memory at most since this was asked
    /// last, which takes about 3 KiB each: what cannot be set in rows, for it was
    /// edited here or has to do with what was.
    pub fn planned(&self) -> usize {
        self.planned.swap(0, Ordering::Relaxed)
    }

    /// Where the replica stands.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn status(&self) -> Result<SyncStatus> {
        self.settle_down()?;
        let flight = self.flight.lock().clone();
        let inner = self.inner();
        let db = inner.db.writer();
        let side = self.side;
        let rows = Rows { db: &db, side };
        let (state, frozen) = (rows.state()?, rows.frozen()?);
        let local = Local::new(inner, &db);
        let ignore = self.ignore.lock().clone();
        let paths = Paths::new(&ignore, Whose::Here);
        let mut edits = Edits::new(&local, Shared::new(&db, side), &frozen, &paths, None);
        let bounds = Bounds {
            edits: COUNTED,
            ..Bounds::NONE
        };
        let scanned = flight
            .as_ref()
            .map_or(state.scanned, |flight| flight.scanned);
        if flight.is_none() {
            edits.scan_frozen(&bounds)?;
        }
        edits.scan(scanned, rows.told()?, &bounds)?;
        let count = |sql: &str| -> Result<u64> {
            Ok(crate::db::uint(
                db.prepare_cached(sql)?.query_row([], |r| r.get(0))?,
            ))
        };
        Ok(SyncStatus {
            cursor: state.cursor,
            in_flight: flight.map_or(0, |flight| flight.edits.len() as u64),
            pending: edits.list.len() as u64,
            pending_bytes: edits.content(),
            more: edits.list.len() >= COUNTED,
            writing: count("SELECT count(*) FROM staging")?,
            outsized: rows.outsized()?.into_iter().collect(),
            conflicts: count("SELECT count(*) FROM conflict WHERE resolved = 0")?,
        })
    }

    /// Files whose content is being written, and is pushed when that has ended.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn writing(&self) -> Result<u64> {
        let db = self.inner().db.reader();
        let count = db.query_row("SELECT count(*) FROM staging", [], |row| row.get(0))?;
        Ok(crate::db::uint(count))
    }

    /// What this replica knows of the hub's tree, as the changes that make it,
    /// and as of when. Reads all of it: for checks.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn confirmed(&self) -> Result<(Option<Cursor>, Vec<Change>)> {
        const PAGE: usize = 1_000;
        self.settle_down()?;
        let db = self.inner().db.writer();
        let side = self.side;
        let shared = Shared::new(&db, side);
        let mut changes = Vec::new();
        let mut add = |ver: Ver, entry| changes.push(Change { ver, entry });
        let mut after: Option<NodeId> = None;
        loop {
            let page = shared.nodes(after, PAGE)?;
            after = page
                .last()
                .filter(|_| page.len() == PAGE)
                .map(|(node, _)| *node);
            for (node, record) in page {
                let kind = record.kind;
                add(record.born, Entry::Node { id: node, kind });
                if let Some((ver, data)) = record.data {
                    add(ver, Entry::Data { node, data });
                }
                if let Some((ver, meta)) = record.meta {
                    add(ver, Entry::Meta { node, meta });
                }
                for (name, value, ver) in shared.attributes(node)? {
                    add(ver, Entry::Xattr { node, name, value });
                }
            }
            if after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = shared.names(after.as_ref(), PAGE)?;
            after = page
                .last()
                .filter(|_| page.len() == PAGE)
                .map(|(place, _, _)| place.clone());
            for ((parent, name), node, ver) in page {
                add(ver, Entry::Name { parent, name, node });
            }
            if after.is_none() {
                break;
            }
        }
        let cursor = Rows { db: &db, side }.state()?.cursor;
        Ok((cursor, changes))
    }
}
