//! Making things durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Result;
use crate::attr::Ino;
use crate::db::{int, uint};
use crate::files::DataFile;
use crate::node::{Body, Node, Overlay};
use crate::replica::Replica;

impl Replica {
    /// Returns when the content and the attributes of a node, and the names
    /// made before, survive a power cut.
    ///
    /// # Errors
    ///
    /// [`crate::FsError::NoSpace`], or what the disk says: then nothing is promised.
    pub fn fsync(&self, ino: Ino) -> Result<()> {
        let look = || {
            let tree = self.inner.tree.lock();
            tree.nodes.get(&ino.0).and_then(staging_of)
        };
        let staged = look();
        if let Some(file) = &staged {
            file.sync()?;
        }
        self.inner.commit(true)?;
        let id = staged.map(|f| f.id);
        if id.is_some() && id == look().map(|f| f.id) {
            return Ok(());
        }
        self.sync_named(&[int(ino.0)], &id.into_iter().collect())
    }

    /// Returns when everything survives a power cut.
    ///
    /// # Errors
    ///
    /// As [`Self::fsync`].
    pub fn sync(&self) -> Result<()> {
        let staged: Vec<Arc<DataFile>> = {
            let tree = self.inner.tree.lock();
            tree.nodes.values().filter_map(staging_of).collect()
        };
        for file in &staged {
            file.sync()?;
        }
        self.inner.commit(true)?;
        self.sync_named(&[], &staged.iter().map(|f| f.id).collect())
    }

    /// Syncs the staging files that the commit named and that were not `synced`
    /// before: content that moved to one only after the look. Those of one
    /// node, or of all when `ino` is empty.
    fn sync_named(&self, ino: &[i64], synced: &BTreeSet<u64>) -> Result<()> {
        let named: Vec<u64> = {
            let db = self.inner.db.reader();
            let mut find = db.prepare_cached(if ino.is_empty() {
                "SELECT DISTINCT file FROM staging"
            } else {
                "SELECT file FROM staging WHERE ino = ?"
            })?;
            let rows = find.query_map(rusqlite::params_from_iter(ino), |r| Ok(uint(r.get(0)?)))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        for id in named.into_iter().filter(|id| !synced.contains(id)) {
            self.inner.chunks.files.sync_by_number(id)?;
        }
        Ok(())
    }

    /// Commits without the promise of durability: afterwards a crash of the
    /// process loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::fsync`].
    pub fn flush(&self) -> Result<()> {
        self.inner.commit(false)
    }
}

fn staging_of(node: &Node) -> Option<Arc<DataFile>> {
    match &node.body {
        Body::File(file) => match &file.over {
            Overlay::Staging(staging) => Some(staging.file.clone()),
            _ => None,
        },
        _ => None,
    }
}
