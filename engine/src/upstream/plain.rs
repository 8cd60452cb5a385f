//! Which registers of a large cut are *plain*: the node lives here, and nobody
//! here has edited the register since the hub told it. Such a register becomes
//! what the hub has, whatever else happens, and is noted nowhere; see
//! [`super::turn`].
//!
//! What is edited, or moves a directory, is planned. A plan looks at whole nodes:
//! so what touches a node or a place that is planned is planned with it, and the
//! two have nothing in common but directories that both take names from.

use cairn_protocol::merge::Place;
use cairn_protocol::{Entry, NodeId, NodeKind, Register};
use rustc_hash::FxHashSet;

use super::fresh::Fresh;
use super::local::Here;
use super::plan::Plan;
use super::spool::Spool;
use super::turn::Turning;
use crate::Result;
use crate::attr::Ino;
use crate::db::{int, uint};
use crate::node::{Body, Node};

impl Plan<'_> {
    /// Whether an entry is of what nobody edited. Looks at both trees as they
    /// were before the cut.
    pub(super) fn is_plain(&self, fresh: &mut Fresh, entry: &Entry) -> Result<bool> {
        match entry {
            Entry::Node { .. } => Ok(true),
            Entry::Name { parent, name, node } => {
                self.is_plain_name(fresh, &(*parent, name.clone()), *node)
            }
            Entry::Data { node, .. } | Entry::Gone { node } => {
                let Some(here) = self.local.live(*node)? else {
                    return Ok(false);
                };
                let sets = matches!(entry, Entry::Data { .. });
                Ok((!sets || self.takes_content(&here)?) && self.has_what_was_told(&here)?)
            }
            Entry::Meta { node, .. } => {
                let Some(here) = self.local.live(*node)? else {
                    return Ok(false);
                };
                let meta = self.shared.record(*node)?.and_then(|record| record.meta);
                let told = meta.is_some_and(|(_, meta)| meta == here.meta);
                Ok(told && !self.flight.sets_meta(*node) && self.was_looked_at(here.ino)?)
            }
            Entry::Xattr { node, name, .. } => {
                let Some(here) = self.local.live(*node)? else {
                    return Ok(false);
                };
                let value = self.shared.attribute(*node, name)?;
                let value = value.and_then(|(value, _)| value);
                let told = here.xattrs.get(name) == value.as_ref();
                Ok(told && !self.flight.sets_xattr(*node, name) && self.was_looked_at(here.ino)?)
            }
        }
    }

    fn is_plain_name(
        &self,
        fresh: &mut Fresh,
        place: &Place,
        node: Option<NodeId>,
    ) -> Result<bool> {
        let (is_fresh, lives) = fresh.look(self, place.0)?;
        let target = node.map(|node| fresh.look(self, node)).transpose()?;
        if (!is_fresh && !lives) || target == Some((false, false)) {
            return Ok(false);
        }
        let here = self.local.at(place)?;
        if let (Some(node), Some((false, true))) = (node, target)
            && here != Some(node)
            && self.is_dir(node)?
        {
            return Ok(false);
        }
        let register = Register::Name {
            parent: place.0,
            name: place.1.clone(),
        };
        let there = self.shared.name(place)?.and_then(|(node, _)| node);
        Ok(here == there
            && !self.flight.names(place)
            && !self.frozen.contains_key(&register)
            && !self.names.contains_key(place))
    }

    fn is_dir(&self, node: NodeId) -> Result<bool> {
        let here = self.local.live(node)?;
        Ok(here.is_some_and(|here| here.kind == NodeKind::Dir))
    }

    /// Whether a content is what the hub told, and is not edited, nor under way.
    fn has_what_was_told(&self, here: &Here) -> Result<bool> {
        let frozen = self.frozen.contains_key(&Register::Data(here.id));
        if here.unsealed || frozen || self.flight.sets_data(here.id) {
            return Ok(false);
        }
        let there = self.shared.record(here.id)?.and_then(|record| record.data);
        Ok(here.data == there.map(|(_, data)| data))
    }

    /// Whether a node can get another content in its row.
    fn takes_content(&self, here: &Here) -> Result<bool> {
        let takes = matches!(here.kind, NodeKind::File | NodeKind::Symlink);
        Ok(takes && !self.is_direct(here.ino) && self.was_looked_at(here.ino)?)
    }

    /// Whether no register of a node has to be looked at for edits. The log has
    /// one row of a node, and would not lead to them any more.
    fn was_looked_at(&self, ino: Ino) -> Result<bool> {
        let sql = "SELECT ver FROM node WHERE ino = ?";
        let mut find = self.db.prepare_cached(sql)?;
        let ver = uint(find.query_row([int(ino.0)], |r| r.get(0))?);
        let (scanned, told) = self.looked_at;
        Ok(ver <= scanned || told.is_some_and(|told| told.after < ver && ver <= told.upto))
    }

    /// Whether somebody reads a file past this replica.
    pub(super) fn is_direct(&self, ino: Ino) -> bool {
        let tree = self.inner.tree.lock();
        match tree.nodes.get(&ino.0) {
            Some(Node {
                body: Body::File(file),
                ..
            }) => file.direct.is_some(),
            _ => false,
        }
    }

    /// What is planned, for who sets the rest in rows.
    pub(super) fn turning(&self) -> Option<Turning> {
        let places = || self.names.keys().cloned().collect();
        let nodes = || self.nodes.keys().copied().collect();
        self.turns.then(|| Turning::new(places(), nodes()))
    }

    /// Notes what is plain by itself, and touches what is planned.
    pub(super) fn draw_in(&mut self, changes: &Spool, fresh: &mut Fresh) -> Result<()> {
        let mut drawn: FxHashSet<NodeId> = self.nodes.keys().copied().collect();
        drawn.extend(fresh.spoken());
        for place in self.names.keys() {
            drawn.extend(self.local.at(place)?);
            drawn.extend(self.shared.name(place)?.and_then(|(node, _)| node));
        }
        if drawn.is_empty() && self.names.is_empty() {
            return Ok(());
        }
        loop {
            let before = (self.names.len(), self.nodes.len(), drawn.len());
            for page in changes.pages() {
                for change in &*page? {
                    self.draw(&change.entry, fresh, &mut drawn)?;
                }
            }
            if before == (self.names.len(), self.nodes.len(), drawn.len()) {
                return Ok(());
            }
        }
    }

    fn draw(
        &mut self,
        entry: &Entry,
        fresh: &mut Fresh,
        drawn: &mut FxHashSet<NodeId>,
    ) -> Result<()> {
        match entry {
            Entry::Name { parent, name, node } => {
                let place = (*parent, name.clone());
                let nodes = [self.local.at(&place)?, *node];
                let nodes = nodes.into_iter().flatten();
                let is_noted = self.names.contains_key(&place);
                let is_drawn =
                    nodes.clone().any(|node| drawn.contains(&node)) || fresh.is_spoken(*parent);
                if is_noted || (is_drawn && !fresh.is(self, entry)?) {
                    self.note_name(place)?;
                    drawn.extend(nodes);
                }
            }
            Entry::Data { node, .. }
            | Entry::Meta { node, .. }
            | Entry::Xattr { node, .. }
            | Entry::Gone { node } => {
                if drawn.contains(node) && !fresh.is(self, entry)? {
                    match entry.register() {
                        Some(register) => self.note(&register)?,
                        None => self.note_data(*node)?,
                    }
                }
            }
            Entry::Node { .. } => {}
        }
        Ok(())
    }
}
