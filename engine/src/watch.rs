//! Waiting for changes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_protocol::{Change, Cursor, Entry, NodeId, Ver};

use crate::Result;
use crate::changes::CursorError;
use crate::replica::Replica;

/// Changes handed out at a time.
const PAGE: usize = 1_000;

/// Changes as they are committed, from a cursor on; see [`Replica::watch`].
#[derive(Debug)]
pub struct Watch {
    replica: Replica,
    since: Cursor,
    /// A cut of which some pages were handed out, and where the next begins.
    cut: Option<(Cursor, Ver)>,
}

impl Watch {
    /// The changes since the last call, some at a time, or `None` when none
    /// comes within `patience`. What changes often is reported once.
    ///
    /// Changes are seen when they are committed, and new content when it is
    /// sealed: both within a fraction of a second.
    ///
    /// # Errors
    ///
    /// [`CursorError`].
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Vec<Change>>, CursorError> {
        let deadline = Instant::now() + patience;
        loop {
            let (until, resume) = match self.cut {
                Some(cut) => cut,
                None => (self.replica.committed_cursor()?, 0),
            };
            if until.seq > self.since.seq {
                let page =
                    self.replica
                        .changes_page(Some(&self.since), Some(&until), resume, PAGE)?;
                if page.more {
                    self.cut = Some((until, page.resume));
                } else {
                    self.cut = None;
                    self.since = until;
                }
                if !page.changes.is_empty() {
                    return Ok(Some(page.changes));
                }
                continue;
            }
            if !self.replica.inner.news.wait(until.seq, deadline) {
                return Ok(None);
            }
        }
    }

    /// Where the watch is: changes before it were all handed out. Another
    /// watch can go on from here, also after the replica was closed.
    pub fn cursor(&self) -> Cursor {
        self.since
    }
}

impl Replica {
    /// Watches everything from `since` on, or from now on for `None`.
    ///
    /// # Errors
    ///
    /// [`CursorError`] when the cursor is none of this replica's.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cairn_engine::Replica;
    /// let replica = Replica::in_memory()?;
    /// let mut watch = replica.watch(None)?;
    /// replica.write_file("/new", b"content")?;
    /// let changes = watch.next_within(Duration::from_secs(60))?.expect("a change");
    /// assert!(replica.paths_of(&changes)?.contains(&b"/new".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&self, since: Option<Cursor>) -> Result<Watch, CursorError> {
        let since = match since {
            Some(since) => {
                // Says now whether the cursor is known.
                self.changes_page(Some(&since), Some(&since), since.seq, 0)?;
                since
            }
            None => self.cursor()?,
        };
        Ok(Watch {
            replica: self.clone(),
            since,
            cut: None,
        })
    }

    /// The paths that changes are about, as far as names lead to them now: of
    /// a file with several names, one of them.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn paths_of(&self, changes: &[Change]) -> Result<BTreeSet<Vec<u8>>> {
        let mut paths = BTreeSet::new();
        for change in changes {
            let path = match &change.entry {
                Entry::Name { parent, name, .. } => self.path_of_id(*parent)?.map(|mut path| {
                    if path.last() != Some(&b'/') {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name.as_bytes());
                    path
                }),
                Entry::Node { id: node, .. }
                | Entry::Data { node, .. }
                | Entry::Meta { node, .. }
                | Entry::Xattr { node, .. } => self.path_of_id(*node)?,
                Entry::Gone { .. } => None,
            };
            paths.extend(path);
        }
        Ok(paths)
    }

    /// The path of a node, as far as names lead to it: for people.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn path_of_id(&self, id: NodeId) -> Result<Option<Vec<u8>>> {
        match self.ino_of(id)? {
            Some(ino) => self.path_of(ino),
            None => Ok(None),
        }
    }
}
