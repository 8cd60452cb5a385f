//! The registers of one node that differ from what the hub has.

use cairn_protocol::{Edit, MetaFields, Register, XattrName};

use super::edits::Edits;
use super::local::Here;
use super::state::Base;
use crate::Result;
use crate::shared::Record;

impl Edits<'_> {
    /// The registers that differ, or all.
    pub(super) fn registers(&mut self, here: &Here, record: &Record, all: bool) -> Result<()> {
        let node = here.id;
        if let Some(data) = &here.data
            && (!here.unsealed || self.replay.is_some())
            && (all || !self.replay.is_some_and(|replay| replay.data(node)))
        {
            let there = record.data.as_ref();
            // Of what is not sealed only the replay hears, and not what it is.
            if there.map(|(_, data)| data) == Some(data) && !here.unsealed && !all {
                self.settle(Register::Data(node));
            } else if self.replay.is_some() || !self.is_outsized(here)? {
                let base = match self.frozen.get(&Register::Data(node)) {
                    Some(Base::Data(ver)) => *ver,
                    _ => there.map_or(0, |(ver, _)| *ver),
                };
                let data = data.clone();
                self.push(Edit::Data { node, base, data });
            }
        }
        let meta = record.meta.as_ref();
        let fields = meta.map_or(MetaFields::ALL, |(_, m)| MetaFields::between(m, &here.meta));
        let fields = match self.replay {
            _ if all => MetaFields::ALL,
            Some(replay) => fields.without(MetaFields::ALL.without(replay.meta(node))),
            None => fields,
        };
        if fields != MetaFields::NONE {
            self.push(Edit::Meta {
                node,
                base: meta.map_or(0, |(ver, _)| *ver),
                fields,
                meta: here.meta,
            });
        }
        self.xattrs(here)
    }

    fn xattrs(&mut self, here: &Here) -> Result<()> {
        let there = if self.is_above(here.id)? {
            Vec::new()
        } else {
            self.shared.attributes(here.id)?
        };
        let replay = self.replay;
        let untouched = |name: &XattrName| replay.is_some_and(|r| r.xattr(here.id, name));
        for (name, value) in here.xattrs.iter().filter(|(name, _)| !untouched(name)) {
            let old = there.iter().find(|(other, _, _)| other == name);
            if old.and_then(|(_, old, _)| old.as_ref()) != Some(value) {
                self.push(Edit::Xattr {
                    node: here.id,
                    name: name.clone(),
                    base: old.map_or(0, |(_, _, ver)| *ver),
                    value: Some(value.clone()),
                });
            }
        }
        for (name, old, base) in there {
            if old.is_some() && !untouched(&name) && !here.xattrs.contains_key(&name) {
                self.push(Edit::Xattr {
                    node: here.id,
                    name,
                    base,
                    value: None,
                });
            }
        }
        Ok(())
    }
}
