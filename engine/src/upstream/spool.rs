//! The changes of a transfer while they come. The first are in memory; when
//! there are more they all go to a file without a name, so that a transfer has
//! a bound in memory whatever the tree is. It need not survive anything: what
//! an earlier connection brought is dropped (SES-8).

use std::borrow::Cow;
use std::sync::Arc;

use cairn_protocol::{Change, Entry};

use crate::db::corrupt;
use crate::files::{DataFile, Files};
use crate::{FsError, Result};

/// So many changes stay in memory: most live cuts, and about 1 MiB. Few where
/// things are tested, so that simulations use the file, too.
const IN_MEMORY: u64 = if cfg!(debug_assertions) { 12 } else { 4_096 };

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// In memory, a page each.
    first: Vec<Vec<Change>>,
    /// In the file: where each page is, and its length.
    later: Vec<(u64, usize)>,
    file: Option<Arc<DataFile>>,
    end: u64,
    len: u64,
    /// Some node ends.
    ends: bool,
}

impl Spool {
    /// Adds a page: the changes of one message.
    pub(super) fn push(&mut self, files: &Files, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.len += changes.len() as u64;
        self.ends |= changes
            .iter()
            .any(|change| matches!(change.entry, Entry::Gone { .. }));
        self.first.push(changes);
        if self.file.is_some() || self.len > IN_MEMORY {
            for page in std::mem::take(&mut self.first) {
                self.write(files, &page)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, files: &Files, page: &[Change]) -> Result<()> {
        let bytes = postcard::to_stdvec(page)
            .map_err(|e| FsError::Corrupt(format!("changes cannot be encoded: {e}")))?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(files.create_spill()?),
        };
        file.write(&bytes, self.end)?;
        self.later.push((self.end, bytes.len()));
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether some node ends.
    pub(super) fn ends(&self) -> bool {
        self.ends
    }

    /// All changes in the order in which they came, page by page.
    pub(super) fn pages(&self) -> impl DoubleEndedIterator<Item = Result<Cow<'_, [Change]>>> {
        let later = self.later.iter().map(|(at, len)| {
            let Some(file) = &self.file else {
                return Ok(Cow::Owned(Vec::new()));
            };
            let mut bytes = vec![0; *len];
            file.read(&mut bytes, *at)?;
            let page = postcard::from_bytes(&bytes).map_err(|e| corrupt("staged changes", e))?;
            Ok(Cow::Owned(page))
        });
        let first = self.first.iter().map(|page| Ok(Cow::Borrowed(&page[..])));
        later.chain(first)
    }
}

#[cfg(test)]
mod tests {
    use cairn_protocol::{NodeId, NodeKind};

    use super::*;
    use crate::home::Home;

    #[test]
    fn changes_come_back_in_their_order_whether_few_or_many() {
        let files = Files::open(Home::Memory).unwrap();
        let change = |ver| Change {
            ver,
            entry: Entry::Node {
                id: NodeId::ROOT,
                kind: NodeKind::Dir,
            },
        };
        for count in [0, 1, IN_MEMORY, 3 * IN_MEMORY + 1] {
            let mut spool = Spool::default();
            for from in (0..count).step_by(5) {
                let page = from..count.min(from + 5);
                spool.push(&files, page.map(change).collect()).unwrap();
            }
            assert_eq!((spool.len(), spool.ends()), (count, false));
            assert_eq!(spool.file.is_some(), count > IN_MEMORY);
            let mut seen = 0;
            for page in spool.pages() {
                for found in &*page.unwrap() {
                    assert_eq!(*found, change(seen));
                    seen += 1;
                }
            }
            assert_eq!(seen, count);
        }
    }
}
