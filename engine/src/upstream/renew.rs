//! Files that are read directly while a cut brings them another content.
//!
//! Who reads the pack under a file reads it without asking anybody, so what such
//! handles see cannot be changed, and the kernel gives whoever opens the inode
//! beside them the same pack. So the node gets another inode, as if its content
//! had been replaced by a rename: who has it open goes on to read what was
//! opened, all of it, and who opens it from now on reads the new content.

use std::collections::BTreeMap;

use cairn_protocol::merge::Place;
use cairn_protocol::{NodeId, ReplicaTag, XattrName};

use super::plan::{Plan, reserve};
use crate::Result;
use crate::assign::set_attributes;
use crate::db::own_id;
use crate::node::{Node, Xattr};

impl Plan<'_> {
    /// Takes the inodes away from the nodes that need others. What the places
    /// of these stand for is added to `targets`.
    pub(super) fn renew(&mut self, targets: &mut BTreeMap<Place, Option<NodeId>>) -> Result<()> {
        let mut found = Vec::new();
        for (id, noted) in &self.nodes {
            if let Some(here) = &noted.here
                && self.is_direct(here.ino)
                && self.data_target(*id, noted)?.is_some()
            {
                found.push((*id, here.ino));
            }
        }
        for (id, ino) in found {
            for place in self.local.places(ino)? {
                targets.entry(place).or_insert(Some(id));
            }
            // Without a name, and unknown to everybody else.
            let nobody = own_id(ReplicaTag(self.inner.identity.tag), reserve(self.inner));
            self.local.bind(ino, nobody)?;
            let noted = self.nodes.remove(&id);
            self.renewed.extend(noted.map(|noted| (id, noted)));
        }
        Ok(())
    }

    /// Gives the nodes their inodes back, before everything is looked at anew.
    pub(super) fn take_back_renewals(&mut self) {
        for (id, noted) in std::mem::take(&mut self.renewed) {
            if let Some(here) = &noted.here {
                self.local.unbind(here.ino, id);
            }
            self.nodes.insert(id, noted);
        }
    }

    /// Gives a new inode the attributes of the one that the node had, edited or
    /// not, but for what the cut changes. Nothing for other nodes.
    pub(super) fn keep_attributes(&self, id: NodeId, node: &mut Node) -> Result<()> {
        let Some(noted) = self.renewed.get(&id) else {
            return Ok(());
        };
        let Some(here) = &noted.here else {
            return Ok(());
        };
        let meta = self.meta_target(id, noted)?.unwrap_or(here.meta);
        set_attributes(node, &meta);
        let mut values = here.xattrs.clone();
        for (name, value) in self.xattr_targets(id, noted)? {
            match value {
                Some(value) => drop(values.insert(name, value)),
                None => drop(values.remove(&name)),
            }
        }
        let xattrs = values.into_iter().map(|(name, value)| {
            let xattr = Xattr {
                value: Some(value),
                ver: 0,
                dirty: true,
            };
            (name, xattr)
        });
        let xattrs: BTreeMap<XattrName, Xattr> = xattrs.collect();
        node.xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        Ok(())
    }
}
