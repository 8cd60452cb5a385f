//! Ignore rules: what of the working tree is not pushed, and what of the hub's
//! tree is not shown. They are this replica's own: the confirmed tree has
//! everything, so a rule that goes later leaves nothing out.
//!
//! A rule is a glob. With a `/` it is matched with paths from the root, without
//! one with names anywhere; `**` stands for any number of directories. What is
//! in an ignored directory is ignored.

use std::cell::RefCell;

use cairn_protocol::merge::Place;
use cairn_protocol::{NodeId, PATH_DEPTH_MAX, RULE_MAX, RULES_MAX};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustc_hash::FxHashMap;

use super::Upstream;
use super::local::Local;
use super::state::Rows;
use crate::shared::Shared;
use crate::{FsError, Result};

/// Directories whose paths are remembered: about 4 MiB.
const DIRS_MAX: usize = if cfg!(debug_assertions) { 4 } else { 32_768 };

/// Rules that are compiled.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    set: GlobSet,
}

impl Ignore {
    pub(super) fn new(rules: &[String]) -> Result<Self> {
        let bad = |_| FsError::Invalid("an ignore rule is no glob");
        if rules.len() > RULES_MAX || rules.iter().any(|rule| rule.len() > RULE_MAX) {
            return Err(FsError::TooLarge("ignore rules"));
        }
        let mut set = GlobSetBuilder::new();
        for rule in rules {
            let rule = rule.trim_end_matches('/');
            let anywhere = format!("**/{rule}");
            let rule = match rule.strip_prefix('/') {
                Some(rule) => rule,
                None if rule.contains('/') => rule,
                None => &anywhere,
            };
            let glob = GlobBuilder::new(rule).literal_separator(true).build();
            set.add(glob.map_err(bad)?);
        }
        Ok(Self {
            set: set.build().map_err(bad)?,
        })
    }
}

impl Ignore {
    /// Whether nothing is ignored.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

/// Whose places of directories count first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Here,
    Hub,
}

/// Which places are ignored.
#[derive(Debug)]
pub(super) struct Paths<'a> {
    ignore: &'a Ignore,
    whose: Whose,
    /// The path of each directory; none if it is ignored.
    dirs: RefCell<FxHashMap<NodeId, Option<Vec<u8>>>>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(ignore: &'a Ignore, whose: Whose) -> Self {
        Self {
            ignore,
            whose,
            dirs: RefCell::default(),
        }
    }

    /// Whether there are rules.
    pub(super) fn may_ignore(&self) -> bool {
        !self.ignore.is_empty()
    }

    pub(super) fn is_ignored(
        &self,
        local: &Local<'_>,
        shared: Shared<'_>,
        place: &Place,
    ) -> Result<bool> {
        if self.ignore.set.is_empty() {
            return Ok(false);
        }
        Ok(self.path(local, shared, place, 0)?.is_none())
    }

    /// The path of a place, if it is not ignored.
    fn path(
        &self,
        local: &Local<'_>,
        shared: Shared<'_>,
        place: &Place,
        depth: usize,
    ) -> Result<Option<Vec<u8>>> {
        let Some(mut path) = self.dir(local, shared, place.0, depth)? else {
            return Ok(None);
        };
        path.extend_from_slice(place.1.as_bytes());
        Ok((!self.matches(&path)).then_some(path))
    }

    fn matches(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        self.ignore.set.is_match(std::ffi::OsStr::from_bytes(path))
    }

    /// The path of a directory with a `/` behind it, empty for the root.
    fn dir(
        &self,
        local: &Local<'_>,
        shared: Shared<'_>,
        dir: NodeId,
        depth: usize,
    ) -> Result<Option<Vec<u8>>> {
        if dir == NodeId::ROOT || depth > PATH_DEPTH_MAX {
            return Ok(Some(Vec::new()));
        }
        if let Some(path) = self.dirs.borrow().get(&dir) {
            return Ok(path.clone());
        }
        let here = || -> Result<Option<Place>> {
            let places = match local.ino(dir)? {
                Some(ino) => local.places(ino)?,
                None => Vec::new(),
            };
            Ok(places.into_iter().next())
        };
        let there = || -> Result<Option<Place>> { Ok(shared.places_of(dir)?.into_iter().next()) };
        let place = match self.whose {
            Whose::Here => here()?.map_or_else(there, |place| Ok(Some(place)))?,
            Whose::Hub => there()?.map_or_else(here, |place| Ok(Some(place)))?,
        };
        let path = match place {
            Some(place) => self
                .path(local, shared, &place, depth + 1)?
                .map(|mut path| {
                    path.push(b'/');
                    path
                }),
            // One that has ended: its name was looked at when it had one.
            None => Some(Vec::new()),
        };
        let mut dirs = self.dirs.borrow_mut();
        if dirs.len() >= DIRS_MAX {
            dirs.clear();
        }
        dirs.insert(dir, path.clone());
        Ok(path)
    }
}

impl Upstream {
    /// The rules of what is neither pushed nor shown.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn ignore_rules(&self) -> Result<Vec<String>> {
        let db = self.inner().db.reader();
        let side = self.side;
        Ok(Rows { db: &db, side }.get("ignore")?.unwrap_or_default())
    }

    /// Sets the rules of what is neither pushed nor shown: globs, which name
    /// paths if they have a `/`, and else names anywhere. What is ignored by
    /// none any more is shown at once, and pushed with the next batch; what
    /// is newly ignored stays as it is here and at the hub.
    ///
    /// # Errors
    ///
    /// [`FsError::Invalid`] for a rule that is no glob, [`FsError::TooLarge`]
    /// for too many or too long ones; what the database says.
    pub fn set_ignore_rules(&self, rules: &[String]) -> Result<()> {
        let new = Ignore::new(rules)?;
        self.settle_down()?;
        let old = Ignore::new(&self.ignore_rules()?)?;
        let found = self.shown_by(&old, &new)?;
        {
            let db = self.inner().db.writer();
            let side = self.side;
            let rows = Rows { db: &db, side };
            let tx = db.unchecked_transaction()?;
            rows.set("ignore", &rules)?;
            // Everything is compared once more.
            let mut state = rows.state()?;
            state.scanned = 0;
            rows.set_state(&state)?;
            rows.set_told(None)?;
            tx.commit()?;
        }
        *self.ignore.lock() = std::sync::Arc::new(new);
        *self.uncovered.lock() = found;
        self.refresh()
    }

    /// The places of the hub's tree that the one ignores and the other does not.
    fn shown_by(&self, old: &Ignore, new: &Ignore) -> Result<Vec<Place>> {
        const PAGE: usize = 1_000;
        let inner = self.inner();
        let db = inner.db.writer();
        let (local, shared) = (Local::new(inner, &db), Shared::new(&db, self.side));
        let (old, new) = (Paths::new(old, Whose::Hub), Paths::new(new, Whose::Hub));
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = shared.names(after.as_ref(), PAGE)?;
            for (place, node, _) in &page {
                if node.is_some()
                    && old.is_ignored(&local, shared, place)?
                    && !new.is_ignored(&local, shared, place)?
                {
                    found.push(place.clone());
                }
            }
            match page.last() {
                Some((place, _, _)) if page.len() == PAGE => after = Some(place.clone()),
                _ => return Ok(found),
            }
        }
    }
}
