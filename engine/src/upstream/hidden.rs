//! What ignore rules hide of a large cut: it is neither looked at nor set, so that
//! what changes there costs nothing, however much it is.
//!
//! An ignored place is not shown, whatever the hub has there. A node is *hidden* if
//! the hub has it at such places alone, and it is not here: then nobody here can
//! have edited it. What was told while a rule held is found when the rule goes
//! ([`super::ignore`]), so nothing has to be kept of it.
//!
//! The rules are globs of paths, so this holds only while paths stay: a cut that
//! moves a directory is planned as a whole, if there are rules.

use cairn_protocol::merge::Place;
use cairn_protocol::{Entry, NodeId, NodeKind, Register};

use super::fresh::Fresh;
use super::ignore::{Paths, Whose};
use super::plan::Plan;
use super::spool::Spool;
use crate::Result;

impl<'a> Plan<'a> {
    /// The paths as they are now: those of [`Plan::is_ignored`] are what they will
    /// be, and remembered.
    pub(super) fn paths_before(&self) -> Paths<'a> {
        Paths::new(self.ignore, Whose::Hub)
    }

    /// Whether a directory that is known comes to another place.
    pub(super) fn moves_a_directory(&self, changes: &Spool) -> Result<bool> {
        for page in changes.pages() {
            for change in &*page? {
                if let Entry::Name { parent, name, node } = &change.entry
                    && let Some(node) = node
                    && self.moves(*node, &(*parent, name.clone()))?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether a node is a directory that is known, and was not at a place.
    fn moves(&self, node: NodeId, place: &Place) -> Result<bool> {
        let (kind, places) = if let Some(record) = self.shared.record(node)? {
            (record.kind, self.shared.places_of(node)?)
        } else if let Some(ino) = self.local.ino(node)?
            && let Some(here) = self.local.node(ino)?
        {
            (here.kind, self.local.places(ino)?)
        } else {
            return Ok(false);
        };
        Ok(kind == NodeKind::Dir && !places.contains(place))
    }

    /// Whether an entry is of what is hidden. `paths` are those of before the cut.
    pub(super) fn is_hidden(
        &self,
        paths: &Paths<'_>,
        fresh: &mut Fresh,
        entry: &Entry,
    ) -> Result<bool> {
        if !paths.may_ignore() || fresh.speaks_of(entry) {
            return Ok(false);
        }
        match entry {
            Entry::Node { .. } => Ok(false),
            Entry::Name { parent, name, node } => {
                let place = (*parent, name.clone());
                Ok(self.is_hidden_name(paths, &place)?
                    || match node {
                        Some(node) => self.comes_out(paths, fresh, &place, *node)?,
                        None => false,
                    })
            }
            Entry::Data { node, .. } | Entry::Gone { node } => {
                Ok(!self.flight.sets_data(*node) && self.is_hidden_node(paths, *node)?)
            }
            Entry::Meta { node, .. } => {
                Ok(!self.flight.sets_meta(*node) && self.is_hidden_node(paths, *node)?)
            }
            Entry::Xattr { node, name, .. } => {
                Ok(!self.flight.sets_xattr(*node, name) && self.is_hidden_node(paths, *node)?)
            }
        }
    }

    /// Whether a place is ignored, and nothing is to be kept of it.
    fn is_hidden_name(&self, paths: &Paths<'_>, place: &Place) -> Result<bool> {
        let register = Register::Name {
            parent: place.0,
            name: place.1.clone(),
        };
        if self.flight.names(place) || self.frozen.contains_key(&register) {
            return Ok(false);
        }
        // Nobody knows yet where one is that is new.
        let lives = self.shared.record(place.0)?;
        let lives = lives.is_some_and(|record| record.gone.is_none());
        let is_known = lives || self.local.is_live(place.0)?;
        Ok(is_known && paths.is_ignored(&self.local, self.shared, place)?)
    }

    /// Whether a file that is hidden comes to where nothing is. If that is shown, it
    /// is as one that is new.
    fn comes_out(
        &self,
        paths: &Paths<'_>,
        fresh: &mut Fresh,
        place: &Place,
        node: NodeId,
    ) -> Result<bool> {
        let (is_fresh, lives) = fresh.look(self, place.0)?;
        let is_free = is_fresh || (lives && Fresh::is_free(self, place)?);
        if !is_free || !self.is_hidden_node(paths, node)? {
            return Ok(false);
        }
        let record = self.shared.record(node)?;
        Ok(record.is_some_and(|record| record.kind != NodeKind::Dir))
    }

    fn is_hidden_node(&self, paths: &Paths<'_>, node: NodeId) -> Result<bool> {
        let is_frozen = self.frozen.contains_key(&Register::Data(node));
        if is_frozen || self.ended.contains(&node) || self.local.ino(node)?.is_some() {
            return Ok(false);
        }
        let places = self.shared.places_of(node)?;
        for place in &places {
            if !paths.is_ignored(&self.local, self.shared, place)? {
                return Ok(false);
            }
        }
        Ok(!places.is_empty())
    }
}
