//! Content and attributes of a batch (R1, R10).

use std::collections::BTreeSet;

use super::batch::{Batch, DataEdit, MetaEdit};
use super::names::Names;
use super::place::Placed;
use super::{Resolution, ResolveError, TreeView, refused};
use crate::change::Entry;
use crate::edit::MetaFields;
use crate::id::NodeId;
use crate::outcome::{Outcome, Refusal};

type Result<R, T> = std::result::Result<R, ResolveError<<T as TreeView>::Error>>;

/// Where an edit of a value goes.
enum Target {
    Node(NodeId),
    Refused(Refusal),
    /// The node that stands for it has it already.
    Nowhere,
}

pub(super) fn resolve<'a, T: TreeView>(
    batch: &'a Batch,
    names: &mut Names<'a, T>,
    placed: &mut Placed,
    mint: &mut dyn FnMut() -> NodeId,
    to: &mut Resolution,
) -> Result<(), T> {
    let mut values = Values {
        batch,
        names,
        placed,
        copied: BTreeSet::new(),
        to,
    };
    for (node, edit) in &batch.data {
        values.data(*node, edit, mint)?;
    }
    for (node, edit) in &batch.more_data {
        match values.find(*node)? {
            Target::Node(node) => values.copy(node, edit, mint())?,
            Target::Refused(why) => values.to.outcomes.push((edit.edit, refused(why))),
            Target::Nowhere => {}
        }
    }
    for (node, edit) in &batch.metas {
        values.meta(*node, edit)?;
    }
    for ((node, name), (edit, value)) in &batch.xattrs {
        let Some(node) = values.target(*node, *edit)? else {
            continue;
        };
        let tree = values.names.tree;
        let now = tree.xattr(node, name).map_err(ResolveError::Tree)?;
        if now != *value {
            let (name, value) = (name.clone(), value.clone());
            let entry = Entry::Xattr { node, name, value };
            values.to.entries.push(entry);
        }
    }
    Ok(())
}

struct Values<'a, 'b, T> {
    batch: &'a Batch,
    names: &'b mut Names<'a, T>,
    placed: &'b mut Placed,
    /// The nodes whose content of this batch went to a copy.
    copied: BTreeSet<NodeId>,
    to: &'b mut Resolution,
}

impl<T: TreeView> Values<'_, '_, T> {
    /// The node that an edit of attributes is of, unless it has no effect.
    fn target(&mut self, node: NodeId, edit: usize) -> Result<Option<NodeId>, T> {
        Ok(match self.find(node)? {
            Target::Node(node) => Some(node),
            Target::Nowhere => self.placed.aliases.get(&node).copied(),
            Target::Refused(why) => {
                self.to.outcomes.push((edit, refused(why)));
                None
            }
        })
    }

    fn find(&mut self, node: NodeId) -> Result<Target, T> {
        if self.placed.aliases.contains_key(&node) {
            return Ok(Target::Nowhere);
        }
        if self.names.has_place(node)? {
            return Ok(Target::Node(node));
        }
        let known = self.batch.kind(self.names.tree, node)?.is_some();
        let dead = known && !self.placed.lost.contains(&node);
        Ok(Target::Refused(if dead {
            Refusal::Dead
        } else {
            Refusal::Unknown
        }))
    }

    /// R1: content that nobody else has changed is replaced; otherwise both stay.
    fn data(
        &mut self,
        node: NodeId,
        edit: &DataEdit,
        mint: &mut dyn FnMut() -> NodeId,
    ) -> Result<(), T> {
        let data = edit.data.clone();
        match self.find(node)? {
            Target::Nowhere => {}
            Target::Refused(why) => self.to.outcomes.push((edit.edit, refused(why))),
            Target::Node(node) => {
                let tree = self.names.tree;
                let info = tree.node(node).map_err(ResolveError::Tree)?;
                let was_dead = info.is_some_and(|info| info.last.is_some());
                match tree.data(node).map_err(ResolveError::Tree)? {
                    Some((_, now)) if now == data => {}
                    // Who ended it had seen what it held (R2).
                    Some((ver, _)) if ver != edit.base && !was_dead => {
                        self.copy(node, edit, mint())?;
                    }
                    _ => self.to.entries.push(Entry::Data { node, data }),
                }
            }
        }
        Ok(())
    }

    /// Gives the content of an edit to a new node beside the one that it was for.
    fn copy(&mut self, node: NodeId, edit: &DataEdit, copy: NodeId) -> Result<(), T> {
        let place = self.names.places(node)?.first().cloned();
        let kind = self.batch.kind(self.names.tree, node)?;
        let (Some(place), Some(kind)) = (place, kind) else {
            self.to.outcomes.push((edit.edit, refused(Refusal::Dead)));
            return Ok(());
        };
        let free = self.names.free(&place)?;
        self.names.set(&free, Some(copy))?;
        self.placed.born.insert(copy, kind);
        let data = edit.data.clone();
        self.to.entries.push(Entry::Data { node: copy, data });
        let now = self.names.tree.meta(node).map_err(ResolveError::Tree)?;
        let meta = match (now, self.batch.metas.get(&node)) {
            (Some((_, now)), Some(edit)) => Some(edit.fields.take(&now, &edit.meta)),
            (now, edit) => now.map(|(_, meta)| meta).or(edit.map(|edit| edit.meta)),
        };
        if let Some(meta) = meta {
            self.to.entries.push(Entry::Meta { node: copy, meta });
        }
        self.copied.insert(node);
        let (parent, name) = free;
        let outcome = Outcome::Copied { copy, parent, name };
        self.to.outcomes.push((edit.edit, outcome));
        Ok(())
    }

    /// R10: attributes are merged one by one; of one attribute the last edit wins.
    fn meta(&mut self, node: NodeId, edit: &MetaEdit) -> Result<(), T> {
        let Some(target) = self.target(node, edit.edit)? else {
            return Ok(());
        };
        let mut fields = edit.fields;
        if self.copied.contains(&node) {
            // The time is that of the content, which went to the copy.
            fields = fields.without(MetaFields::MTIME);
        }
        let now = self.names.tree.meta(target).map_err(ResolveError::Tree)?;
        let meta = match now {
            Some((_, now)) => fields.take(&now, &edit.meta),
            None => edit.meta,
        };
        if now.is_none_or(|(_, now)| now != meta) {
            self.to.entries.push(Entry::Meta { node: target, meta });
        }
        Ok(())
    }
}
