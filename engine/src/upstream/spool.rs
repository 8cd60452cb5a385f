//! The changes of a transfer while they come. The first are in memory; when
//! there are more they all go to a file without a name, so that a transfer has
//! a bound in memory whatever the tree is. It need not survive anything: what
//! an earlier connection brought is dropped (SES-8).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

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
    pub(super) fn pages(&self) -> impl Iterator<Item = Result<Cow<'_, [Change]>>> {
        let file = self.file.iter();
        let later = file.flat_map(|file| Pages::of(file.clone(), self.later.clone()));
        let later = later.map(|page| page.map(Cow::Owned));
        let first = self.first.iter().map(|page| Ok(Cow::Borrowed(&page[..])));
        later.chain(first)
    }

    /// The same pages, the last one first.
    pub(super) fn pages_back(&self) -> impl Iterator<Item = Result<Cow<'_, [Change]>>> {
        let later = self.later.iter().rev().filter_map(|place| {
            let file = self.file.as_ref()?;
            Some(page(file, *place).map(Cow::Owned))
        });
        let first = self
            .first
            .iter()
            .rev()
            .map(|page| Ok(Cow::Borrowed(&page[..])));
        first.chain(later)
    }
}

/// The pages of a file. Another thread reads and decodes each while the one before
/// is used: a cut goes through all of them three times and does much with each.
struct Pages {
    left: usize,
    next: Receiver<Result<Vec<Change>>>,
}

impl Pages {
    fn of(file: Arc<DataFile>, places: Vec<(u64, usize)>) -> Self {
        let left = places.len();
        // One is ready at a time, as each may take a megabyte.
        let (send, next) = sync_channel(0);
        let read = move || {
            let mut pages = places.into_iter().map(|place| page(&file, place));
            // It ends, too, when nobody wants more.
            while pages.next().is_some_and(|page| send.send(page).is_ok()) {}
        };
        let thread = std::thread::Builder::new().name("cairn-spool".into());
        if let Err(error) = thread.spawn(read) {
            tracing::error!(%error, "no thread can be started to read staged changes");
        }
        Self { left, next }
    }
}

impl Iterator for Pages {
    type Item = Result<Vec<Change>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // A thread that is not there any more has not sent all of them.
        let lost = |_| Err(corrupt("staged changes", "nobody reads them"));
        Some(self.next.recv().unwrap_or_else(lost))
    }
}

fn page(file: &DataFile, (at, len): (u64, usize)) -> Result<Vec<Change>> {
    let mut bytes = vec![0; len];
    file.read(&mut bytes, at)?;
    postcard::from_bytes(&bytes).map_err(|e| corrupt("staged changes", e))
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
            let pages = |pages: &mut dyn Iterator<Item = Result<Cow<'_, [Change]>>>| -> Vec<_> {
                pages.map(|page| page.unwrap().into_owned()).collect()
            };
            let mut back = pages(&mut spool.pages_back());
            back.reverse();
            assert_eq!(back, pages(&mut spool.pages()));
            // Who has seen enough leaves the rest.
            drop(spool.pages().next());
        }
    }
}
