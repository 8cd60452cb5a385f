//! Operations by inode; each is the one of [`Replica`] with the same name,
//! `read_at` and `write_at` apart.

use bytes::Bytes;

use super::{AsyncReplica, owned};
use crate::Result;
use crate::attr::{Attr, Ino, NewNode, RenameMode, SetAttr};
use crate::replica::Replica;

/// Operations by inode.
impl AsyncReplica {
    /// The node a name points at.
    ///
    /// # Errors
    ///
    /// As [`Replica::lookup`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn lookup(&self, parent: Ino, name: impl AsRef<[u8]>) -> Result<Attr> {
        let name = owned(name);
        self.run(move |r| r.lookup(parent, &name)).await
    }

    /// The attributes of a node.
    ///
    /// # Errors
    ///
    /// As [`Replica::attr`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn attr(&self, ino: Ino) -> Result<Attr> {
        self.run(move |r| r.attr(ino)).await
    }

    /// Changes attributes.
    ///
    /// # Errors
    ///
    /// As [`Replica::set_attr`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.run(move |r| r.set_attr(ino, &set)).await
    }

    /// Makes a file, directory, fifo, socket or device.
    ///
    /// # Errors
    ///
    /// As [`Replica::make`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn make(&self, parent: Ino, name: impl AsRef<[u8]>, new: NewNode) -> Result<Attr> {
        let name = owned(name);
        self.run(move |r| r.make(parent, &name, &new)).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// As [`Replica::symlink`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn symlink(
        &self,
        parent: Ino,
        name: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
        uid: u32,
        gid: u32,
    ) -> Result<Attr> {
        let (name, target) = (owned(name), owned(target));
        self.run(move |r| r.symlink(parent, &name, &target, uid, gid))
            .await
    }

    /// Gives a node another name.
    ///
    /// # Errors
    ///
    /// As [`Replica::link`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn link(&self, ino: Ino, parent: Ino, name: impl AsRef<[u8]>) -> Result<Attr> {
        let name = owned(name);
        self.run(move |r| r.link(ino, parent, &name)).await
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    ///
    /// As [`Replica::unlink`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn unlink(&self, parent: Ino, name: impl AsRef<[u8]>) -> Result<()> {
        let name = owned(name);
        self.run(move |r| r.unlink(parent, &name)).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// As [`Replica::rmdir`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn rmdir(&self, parent: Ino, name: impl AsRef<[u8]>) -> Result<()> {
        let name = owned(name);
        self.run(move |r| r.rmdir(parent, &name)).await
    }

    /// Moves a name.
    ///
    /// # Errors
    ///
    /// As [`Replica::rename`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn rename(
        &self,
        parent: Ino,
        name: impl AsRef<[u8]>,
        new_parent: Ino,
        new_name: impl AsRef<[u8]>,
        mode: RenameMode,
    ) -> Result<()> {
        let (name, new_name) = (owned(name), owned(new_name));
        self.run(move |r| r.rename(parent, &name, new_parent, &new_name, mode))
            .await
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// As [`Replica::read_link`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn read_link(&self, ino: Ino) -> Result<Bytes> {
        self.run(move |r| r.read_link(ino)).await
    }

    /// At most `len` bytes of a file from `offset` on, fewer only at its end. Memory
    /// for `len` bytes is taken at once.
    ///
    /// # Errors
    ///
    /// As [`Replica::read`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn read_at(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.run(move |r| read(r, ino, offset, len)).await
    }

    /// Writes `data` at `offset`; a gap before it becomes a hole.
    ///
    /// # Errors
    ///
    /// As [`Replica::write`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn write_at(&self, ino: Ino, offset: u64, data: impl Into<Vec<u8>>) -> Result<()> {
        let data = data.into();
        self.run(move |r| r.write(ino, offset, &data)).await
    }

    /// Writes `data` at the end. Returns where it went.
    ///
    /// # Errors
    ///
    /// As [`Replica::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn append(&self, ino: Ino, data: impl Into<Vec<u8>>) -> Result<u64> {
        let data = data.into();
        self.run(move |r| r.append(ino, &data)).await
    }

    /// Copies a range from one file to another. Returns the number of bytes copied.
    ///
    /// # Errors
    ///
    /// As [`Replica::copy_range`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn copy_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.run(move |r| r.copy_range(from, from_offset, to, to_offset, len))
            .await
    }

    /// Returns when a node, and the names made before, survive a power cut.
    ///
    /// # Errors
    ///
    /// As [`Replica::fsync`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn fsync(&self, ino: Ino) -> Result<()> {
        self.run(move |r| r.fsync(ino)).await
    }
}

fn read(replica: &Replica, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let got = replica.read(ino, offset, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}
