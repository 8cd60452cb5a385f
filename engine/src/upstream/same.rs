//! What the whole tree of a hub says that is so here already: of a hub that is
//! another, or that was away for long, most of it. It is neither noted nor set.
//!
//! Whoever made it so saw what the hub has, whatever was confirmed before, so
//! nothing is kept of that either.

use cairn_protocol::{Entry, NodeId, Register};

use super::fresh::Fresh;
use super::local::Here;
use super::plan::Plan;
use crate::Result;

impl Plan<'_> {
    /// Whether an entry says what is here. Not where something says what the editor
    /// of its register saw: that has to be looked at.
    pub(super) fn is_same(&self, fresh: &Fresh, entry: &Entry) -> Result<bool> {
        if fresh.speaks_of(entry) {
            return Ok(false);
        }
        match entry {
            Entry::Node { .. } => Ok(false),
            Entry::Name { parent, name, node } => {
                let place = (*parent, name.clone());
                let (parent, name) = place.clone();
                let is_said = self.flight.names(&place)
                    || self.frozen.contains_key(&Register::Name { parent, name });
                Ok(!is_said && self.local.at(&place)? == *node)
            }
            Entry::Data { node, data } => {
                let is_said = self.flight.sets_data(*node)
                    || self.frozen.contains_key(&Register::Data(*node));
                let is = |here: &Here| !here.unsealed && here.data.as_ref() == Some(data);
                Ok(!is_said && self.local.live(*node)?.as_ref().is_some_and(is))
            }
            Entry::Meta { node, meta } => {
                let is = |here: &Here| here.meta == *meta;
                let lives = self.local.live(*node)?;
                Ok(!self.flight.sets_meta(*node) && lives.as_ref().is_some_and(is))
            }
            Entry::Xattr { node, name, value } => {
                let is = |here: &Here| here.xattrs.get(name) == value.as_ref();
                let lives = self.local.live(*node)?;
                Ok(!self.flight.sets_xattr(*node, name) && lives.as_ref().is_some_and(is))
            }
            Entry::Gone { node } => self.has_ended(*node),
        }
    }

    /// Whether a node has ended for the hub as for everybody here.
    fn has_ended(&self, node: NodeId) -> Result<bool> {
        let is_said = self.flight.sets_data(node)
            || self.ended.contains(&node)
            || self.frozen.contains_key(&Register::Data(node));
        if is_said || self.local.ino(node)?.is_some() {
            return Ok(false);
        }
        let record = self.shared.record(node)?;
        Ok(record.is_none_or(|record| record.gone.is_some()))
    }
}
