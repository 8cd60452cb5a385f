//! Extended attributes: one register each.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_protocol::{XATTR_NODE_MAX, XATTR_VALUE_MAX, XattrName};

use crate::attr::{Ino, XattrMode};
use crate::node::{Node, Xattr};
use crate::observe::Invalidation;
use crate::replica::{Replica, now};
use crate::{FsError, Result};

fn valid(name: &[u8]) -> Result<XattrName> {
    if name.len() > cairn_protocol::XATTR_NAME_MAX {
        return Err(FsError::XattrTooLarge);
    }
    XattrName::new(name).map_err(|_| {
        FsError::Invalid("the name of an extended attribute is 1 to 255 bytes without NUL")
    })
}

fn value_of<'a>(node: &'a Node, name: &XattrName) -> Option<&'a Bytes> {
    node.xattrs.as_ref()?.get(name)?.value.as_ref()
}

impl Replica {
    /// The value of an extended attribute.
    ///
    /// # Errors
    ///
    /// [`FsError::NoXattr`].
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        let name = valid(name)?;
        self.with(|t| {
            Ok(value_of(t.node(ino)?, &name)
                .cloned()
                .ok_or(FsError::NoXattr)?)
        })
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`].
    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<XattrName>> {
        self.with(|t| {
            let all = t.node(ino)?.xattrs.as_ref();
            Ok(all.map_or_else(Vec::new, |all| {
                all.iter()
                    .filter(|(_, x)| x.value.is_some())
                    .map(|(name, _)| name.clone())
                    .collect()
            }))
        })
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    ///
    /// [`FsError::Exists`] or [`FsError::NoXattr`] as the mode says,
    /// [`FsError::XattrTooLarge`] above 64 KiB a value or 256 KiB a node.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let name = valid(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::XattrTooLarge);
        }
        let now = now();
        self.change(true, |t, notes| {
            let node = t.node(ino)?;
            let exists = value_of(node, &name).is_some();
            match mode {
                XattrMode::Create if exists => return Err(FsError::Exists(name.to_string()).into()),
                XattrMode::Replace if !exists => return Err(FsError::NoXattr.into()),
                _ => {}
            }
            let others: usize = node
                .xattrs
                .iter()
                .flat_map(|all| all.iter())
                .filter(|(other, _)| **other != name)
                .map(|(other, x)| other.as_bytes().len() + x.value.as_ref().map_or(0, Bytes::len))
                .sum();
            if others + name.as_bytes().len() + value.len() > XATTR_NODE_MAX {
                return Err(FsError::NoSpace.into());
            }
            node.times.ctime = now;
            let ver = t.next_ver();
            let cell = Xattr {
                value: Some(Bytes::copy_from_slice(value)),
                ver,
                dirty: true,
            };
            t.node(ino)?
                .xattrs
                .get_or_insert_with(|| Box::new(BTreeMap::new()))
                .insert(name.clone(), cell);
            t.touch_private(ino);
            notes.tell(|| Invalidation::Attr { ino });
            Ok(())
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    ///
    /// [`FsError::NoXattr`].
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let name = valid(name)?;
        let now = now();
        self.change(false, |t, notes| {
            let node = t.node(ino)?;
            if value_of(node, &name).is_none() {
                return Err(FsError::NoXattr.into());
            }
            node.times.ctime = now;
            let ver = t.next_ver();
            if let Some(all) = &mut t.node(ino)?.xattrs {
                all.insert(
                    name.clone(),
                    Xattr {
                        value: None,
                        ver,
                        dirty: true,
                    },
                );
            }
            t.touch_private(ino);
            notes.tell(|| Invalidation::Attr { ino });
            Ok(())
        })
    }
}

/// The same by path. Symbolic links are followed.
impl Replica {
    /// The value of an extended attribute of what the path points at.
    ///
    /// # Errors
    ///
    /// As [`Self::xattr`] and [`Self::stat`].
    pub fn xattr_path(&self, path: impl AsRef<[u8]>, name: &[u8]) -> Result<Bytes> {
        self.xattr(self.stat(path)?.ino, name)
    }

    /// The names of all its extended attributes.
    ///
    /// # Errors
    ///
    /// As [`Self::stat`].
    pub fn list_xattrs_path(&self, path: impl AsRef<[u8]>) -> Result<Vec<XattrName>> {
        self.list_xattrs(self.stat(path)?.ino)
    }

    /// Sets one, whether it is there or not.
    ///
    /// # Errors
    ///
    /// As [`Self::set_xattr`] and [`Self::stat`].
    pub fn set_xattr_path(&self, path: impl AsRef<[u8]>, name: &[u8], value: &[u8]) -> Result<()> {
        self.set_xattr(self.stat(path)?.ino, name, value, XattrMode::Set)
    }

    /// Removes one.
    ///
    /// # Errors
    ///
    /// As [`Self::remove_xattr`] and [`Self::stat`].
    pub fn remove_xattr_path(&self, path: impl AsRef<[u8]>, name: &[u8]) -> Result<()> {
        self.remove_xattr(self.stat(path)?.ino, name)
    }
}
