//! The hub.
pub(crate) const TABLES: &str = "
CREATE TABLE hub(
    id INTEGER PRIMARY KEY CHECK(id = 0), epoch BLOB NOT NULL, tag INTEGER NOT NULL,
    minted INTEGER NOT NULL, head INTEGER NOT NULL, chain BLOB NOT NULL, horizon INTEGER NOT NULL);
CREATE TABLE hub_commit(
    seq INTEGER PRIMARY KEY, author INTEGER NOT NULL, chain BLOB, outcomes BLOB, keys BLOB);
CREATE TABLE hub_replica(
    tag INTEGER PRIMARY KEY, batch INTEGER NOT NULL, digest BLOB NOT NULL, ack BLOB NOT NULL,
    applied INTEGER NOT NULL, seen INTEGER NOT NULL);
";
