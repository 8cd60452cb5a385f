//! Files that the kernel reads and writes directly (FUSE passthrough).
//!
//! While such a file is open for writing, its staging file is the truth for
//! size and time of change; the engine does not see the writes, and looks when
//! somebody asks, at each commit, and when the last writer closes.

use std::sync::Arc;

use cairn_protocol::Timestamp;

use crate::Result;
use crate::attr::Ino;
use crate::files::DataFile;
use crate::node::{Body, Direct, Node, Overlay};
use crate::ranges::RangeSet;
use crate::replica::Inner;

/// Size and time of change of a staging file.
pub(crate) fn look(file: &Arc<DataFile>) -> Result<Direct> {
    let meta = file
        .file
        .metadata()
        .map_err(|e| crate::FsError::io("examining a staging file", e))?;
    use std::os::unix::fs::MetadataExt;
    let nanos = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
    Ok(Direct {
        size: meta.len(),
        mtime: Timestamp::new(meta.mtime(), nanos).unwrap_or(Timestamp::EPOCH),
    })
}

impl Inner {
    /// Takes over what the kernel wrote, if it writes this file at all.
    pub(crate) fn refresh_if_direct(&self, ino: Ino) -> Result<()> {
        if self.tree.lock().direct.contains(&ino.0) {
            self.refresh_direct(ino)?;
        }
        Ok(())
    }

    /// Takes over what the kernel wrote. Returns whether something changed.
    pub(crate) fn refresh_direct(&self, ino: Ino) -> Result<bool> {
        let Some((file, seen)) = self.direct_file(ino) else {
            return Ok(false);
        };
        let found = look(&file)?;
        if found == seen {
            return Ok(false);
        }
        let mut tree = self.tree.lock();
        let Some(Node {
            body: Body::File(body),
            ..
        }) = tree.nodes.get_mut(&ino.0)
        else {
            return Ok(false);
        };
        let Overlay::Staging(staging) = &mut body.over else {
            return Ok(false);
        };
        if staging.file.id != file.id || staging.direct != Some(seen) {
            return Ok(false);
        }
        staging.direct = Some(found);
        staging.ranges = RangeSet::of(0..found.size);
        body.size = found.size;
        tree.touch_content(ino, found.mtime);
        Ok(true)
    }

    fn direct_file(&self, ino: Ino) -> Option<(Arc<DataFile>, Direct)> {
        let tree = self.tree.lock();
        match &tree.nodes.get(&ino.0)?.body {
            Body::File(file) => match &file.over {
                Overlay::Staging(s) => Some((s.file.clone(), s.direct?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// After the engine itself resized a staging file: its time is not news.
    pub(crate) fn sync_direct_after_cut(&self, ino: Ino) -> Result<()> {
        let Some((file, _)) = self.direct_file(ino) else {
            return Ok(());
        };
        let found = look(&file)?;
        let mut tree = self.tree.lock();
        if let Some(Node {
            body: Body::File(body),
            ..
        }) = tree.nodes.get_mut(&ino.0)
            && let Overlay::Staging(staging) = &mut body.over
            && staging.direct.is_some()
        {
            staging.direct = Some(found);
        }
        Ok(())
    }

    /// Looks at every file that the kernel writes.
    pub(crate) fn refresh_all_direct(&self) -> Result<()> {
        let all: Vec<u64> = self.tree.lock().direct.iter().copied().collect();
        for ino in all {
            self.refresh_direct(Ino(ino))?;
        }
        Ok(())
    }
}
