//! Making things durable.

use crate::Result;
use crate::attr::Ino;
use crate::node::{Body, Overlay};
use crate::replica::Replica;

impl Replica {
    /// Returns when the content and the attributes of a node, and the names
    /// made before, survive a power cut.
    ///
    /// # Errors
    ///
    /// [`crate::FsError::NoSpace`], or what the disk says: then nothing is promised.
    pub fn fsync(&self, ino: Ino) -> Result<()> {
        let staging = {
            let tree = self.inner.tree.lock();
            tree.nodes.get(&ino.0).and_then(|n| match &n.body {
                Body::File(f) => match &f.over {
                    Overlay::Staging(s) => Some(s.file.clone()),
                    _ => None,
                },
                _ => None,
            })
        };
        if let Some(file) = staging {
            file.sync()?;
        }
        self.inner.commit(true)
    }

    /// Returns when everything survives a power cut.
    ///
    /// # Errors
    ///
    /// As [`Self::fsync`].
    pub fn sync(&self) -> Result<()> {
        let staged: Vec<_> = {
            let tree = self.inner.tree.lock();
            tree.nodes
                .values()
                .filter_map(|n| match &n.body {
                    Body::File(f) => match &f.over {
                        Overlay::Staging(s) => Some(s.file.clone()),
                        _ => None,
                    },
                    _ => None,
                })
                .collect()
        };
        for file in staged {
            file.sync()?;
        }
        self.inner.commit(true)
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
