//! Lazy contents: a replica may know a file and not have its bytes. The rows of
//! its chunks say that they are elsewhere, and count references as others do.
//! Who reads them waits until they were fetched.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_protocol::session::Wanted;
use cairn_protocol::{ChunkHash, Extent};

use super::Upstream;
use super::state::Rows;
use crate::node::Layout;
use crate::replica::Inner;
use crate::{FsError, Result};

/// Bytes that are fetched beyond those that are read: a reader is likely to go on.
const AHEAD: u64 = 4 << 20;

/// Gets chunks that are not here. Set by who drives the session with the hub.
pub trait Fetcher: Send + Sync + std::fmt::Debug {
    /// Returns when the chunks are stored, by
    /// [`ClientAction::Store`](cairn_protocol::session::ClientAction::Store); the
    /// first are the most urgent. Blocks.
    ///
    /// # Errors
    ///
    /// A text that says why they cannot be had.
    fn fetch(&self, wanted: &[Wanted]) -> Result<(), String>;
}

impl Upstream {
    pub(super) fn load_lazy(&self) -> Result<()> {
        let db = self.inner().db.reader();
        let side = self.side;
        let lazy = Rows { db: &db, side }.get("lazy")?.unwrap_or(false);
        self.lazy.store(lazy, Ordering::SeqCst);
        Ok(())
    }

    /// Whether contents are fetched only when they are read.
    pub fn is_lazy(&self) -> bool {
        self.lazy.load(Ordering::SeqCst)
    }

    /// Sets whether contents that come from now on are fetched only when they
    /// are read. Default: they are fetched with the changes that name them.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn set_lazy(&self, lazy: bool) -> Result<()> {
        {
            let db = self.inner().db.writer();
            let side = self.side;
            Rows { db: &db, side }.set("lazy", &lazy)?;
        }
        self.lazy.store(lazy, Ordering::SeqCst);
        Ok(())
    }

    /// Sets who gets chunks that are not here, or that nobody does.
    pub fn set_fetcher(&self, fetcher: Option<Arc<dyn Fetcher>>) {
        *self.inner().fetcher.write() = fetcher;
    }
}

impl Inner {
    /// Fetches what is not here of some bytes of a file, and what follows them.
    /// The caller holds the chunks' gate.
    pub(crate) fn fetch(&self, layout: &Layout, at: u64, len: u64) -> Result<()> {
        if !self.elsewhere.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (mut urgent, mut wanted) = (0, Vec::new());
        for (extent, start) in layout
            .extents
            .iter()
            .zip(&layout.starts)
            .skip(layout.find(at))
        {
            let is_urgent = *start < at + len;
            if !is_urgent && (urgent == 0 || *start >= at + len + AHEAD) {
                break;
            }
            if let Extent::Chunk { hash, .. } = extent
                && self.chunks.place(&self.db, hash)?.is_none()
            {
                urgent += usize::from(is_urgent);
                wanted.push((*hash, None));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let lost = wanted[..urgent]
            .iter()
            .find(|(hash, _)| self.lost.has(hash));
        let nobody = || match lost {
            Some((hash, _)) => FsError::Corrupt(format!(
                "chunk {hash} is damaged, and nobody is connected who could have it"
            )),
            None => FsError::Elsewhere("no hub is connected".into()),
        };
        let fetcher = self.fetcher.read().clone().ok_or_else(nobody)?;
        fetcher.fetch(&wanted).map_err(FsError::Elsewhere)?;
        let missing = |(hash, _): &(ChunkHash, _)| -> Result<bool> {
            Ok(self.chunks.place(&self.db, hash)?.is_none())
        };
        for chunk in &wanted[..urgent] {
            if missing(chunk)? {
                return Err(FsError::Elsewhere(format!(
                    "chunk {} did not come",
                    chunk.0
                )));
            }
        }
        Ok(())
    }
}
