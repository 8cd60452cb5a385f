//! Where the workspace is in the interpreter's tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::shell::client::Client;
use crate::shell::names::path_bytes;

/// The store, and the directory it is at.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) client: Arc<Client>,
    root: PathBuf,
}

impl Place {
    pub(crate) fn new(client: &Arc<Client>, root: &str) -> Arc<Self> {
        Arc::new(Self {
            client: Arc::clone(client),
            root: root.into(),
        })
    }

    /// The directory it is at.
    pub(crate) fn root(&self) -> std::path::Display<'_> {
        self.root.display()
    }

    /// The path in the store of a path without dots, if it is in the workspace.
    pub(crate) fn inside(&self, path: &Path) -> Option<Vec<u8>> {
        let rest = path.strip_prefix(&self.root).ok()?;
        Some(path_bytes(&Path::new("/").join(rest)))
    }
}
