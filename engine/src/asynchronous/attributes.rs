//! Attributes by path; each operation is the one of [`Replica`] with the same
//! name. Symbolic links are followed, but by `lstat`.

use bytes::Bytes;
use cairn_protocol::XattrName;

use super::{AsyncReplica, owned};
use crate::Result;
use crate::attr::{Attr, SetAttr, SetTime};
use crate::replica::Replica;

/// Attributes by path.
impl AsyncReplica {
    /// Attributes of what the path points at.
    ///
    /// # Errors
    ///
    /// As [`Replica::stat`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn stat(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.stat(path)).await
    }

    /// Attributes of the path itself, even if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// As [`Replica::lstat`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn lstat(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.lstat(path)).await
    }

    /// Whether the path leads to something.
    ///
    /// # Errors
    ///
    /// As [`Replica::exists`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        let path = owned(path);
        self.run(move |r| r.exists(path)).await
    }

    /// Changes the attributes of what the path points at.
    ///
    /// # Errors
    ///
    /// As [`Replica::stat`] and [`Replica::set_attr`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn set_attr_path(&self, path: impl AsRef<[u8]>, set: SetAttr) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r: &Replica| r.set_attr(r.stat(path)?.ino, &set))
            .await
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    ///
    /// As [`Replica::chmod`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn chmod(&self, path: impl AsRef<[u8]>, perm: u16) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.chmod(path, perm)).await
    }

    /// Sets owner and group.
    ///
    /// # Errors
    ///
    /// As [`Replica::chown`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn chown(
        &self,
        path: impl AsRef<[u8]>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.chown(path, uid, gid)).await
    }

    /// Sets the times of last read and last change.
    ///
    /// # Errors
    ///
    /// As [`Replica::set_times`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
    ) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.set_times(path, atime, mtime)).await
    }

    /// Sets the size of a file.
    ///
    /// # Errors
    ///
    /// As [`Replica::truncate_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn truncate_path(&self, path: impl AsRef<[u8]>, size: u64) -> Result<()> {
        let path = owned(path);
        self.run(move |r| r.truncate_path(path, size)).await
    }

    /// The value of an extended attribute of what the path points at.
    ///
    /// # Errors
    ///
    /// As [`Replica::xattr_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn xattr_path(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
    ) -> Result<Bytes> {
        let (path, name) = (owned(path), owned(name));
        self.run(move |r| r.xattr_path(path, &name)).await
    }

    /// The names of all its extended attributes.
    ///
    /// # Errors
    ///
    /// As [`Replica::list_xattrs_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn list_xattrs_path(&self, path: impl AsRef<[u8]>) -> Result<Vec<XattrName>> {
        let path = owned(path);
        self.run(move |r| r.list_xattrs_path(path)).await
    }

    /// Sets one, whether it is there or not.
    ///
    /// # Errors
    ///
    /// As [`Replica::set_xattr_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn set_xattr_path(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl Into<Vec<u8>>,
    ) -> Result<()> {
        let (path, name, value) = (owned(path), owned(name), value.into());
        self.run(move |r| r.set_xattr_path(path, &name, &value))
            .await
    }

    /// Removes one.
    ///
    /// # Errors
    ///
    /// As [`Replica::remove_xattr_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn remove_xattr_path(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (path, name) = (owned(path), owned(name));
        self.run(move |r| r.remove_xattr_path(path, &name)).await
    }
}
