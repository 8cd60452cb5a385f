//! Operations on files and directories by path; each is the one of [`Replica`]
//! with the same name.

use cairn_protocol::NodeKind;

use super::{AsyncReplica, ReadDir, owned};
use crate::attr::Attr;
use crate::path::DirEntry;
use crate::replica::Replica;
use crate::search::{Found, GrepOptions, Line};
use crate::{FsError, Result};

/// Files and directories by path.
impl AsyncReplica {
    /// The whole content of a file.
    ///
    /// # Errors
    ///
    /// As [`Replica::read_file`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn read_file(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = owned(path);
        self.run(move |r| r.read_file(path)).await
    }

    /// Part of a file, at most `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Replica::read_range`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn read_range(
        &self,
        path: impl AsRef<[u8]>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>> {
        let path = owned(path);
        self.run(move |r| r.read_range(path, offset, len)).await
    }

    /// Replaces the content of a file, or makes it with mode 0644. Bytes that are
    /// owned are not copied.
    ///
    /// # Errors
    ///
    /// As [`Replica::write_file`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn write_file(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Vec<u8>>,
    ) -> Result<Attr> {
        let (path, data) = (owned(path), data.into());
        self.run(move |r| r.write_file(path, &data)).await
    }

    /// Writes into a file from `offset` on, or makes it.
    ///
    /// # Errors
    ///
    /// As [`Replica::write_range`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn write_range(
        &self,
        path: impl AsRef<[u8]>,
        offset: u64,
        data: impl Into<Vec<u8>>,
    ) -> Result<()> {
        let (path, data) = (owned(path), data.into());
        self.run(move |r| r.write_range(path, offset, &data)).await
    }

    /// Adds to the end of a file, or makes it. Returns where the data went.
    ///
    /// # Errors
    ///
    /// As [`Replica::append_file`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn append_file(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Vec<u8>>,
    ) -> Result<u64> {
        let (path, data) = (owned(path), data.into());
        self.run(move |r| r.append_file(path, &data)).await
    }

    /// Writes a new file beside the old one and puts it in its place at once.
    ///
    /// # Errors
    ///
    /// As [`Replica::replace_file`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn replace_file(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Vec<u8>>,
    ) -> Result<Attr> {
        let (path, data) = (owned(path), data.into());
        self.run(move |r| r.replace_file(path, &data)).await
    }

    /// The version of a file's content: pass it to [`Self::write_if`].
    ///
    /// # Errors
    ///
    /// As [`Replica::version`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn version(&self, path: impl AsRef<[u8]>) -> Result<u64> {
        let path = owned(path);
        self.run(move |r| r.version(path)).await
    }

    /// Replaces a file's content only if its version is still `expected`. Returns
    /// the new version.
    ///
    /// # Errors
    ///
    /// As [`Replica::write_if`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`]: after a timeout, [`Self::version`] tells less than
    /// [`Self::read_file`] whether it took effect.
    pub async fn write_if(
        &self,
        path: impl AsRef<[u8]>,
        expected: u64,
        data: impl Into<Vec<u8>>,
    ) -> Result<u64> {
        let (path, data) = (owned(path), data.into());
        self.run(move |r| r.write_if(path, expected, &data)).await
    }

    /// Makes a directory with mode 0755.
    ///
    /// # Errors
    ///
    /// As [`Replica::mkdir`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn mkdir(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.mkdir(path)).await
    }

    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    ///
    /// As [`Replica::mkdir_all`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        let path = owned(path);
        self.run(move |r| r.mkdir_all(path)).await
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    ///
    /// As [`Replica::remove`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = owned(path);
        self.run(move |r| r.remove(path)).await
    }

    /// Removes a path and everything below it.
    ///
    /// # Errors
    ///
    /// As [`Replica::remove_all`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`]: the removal goes on to its end.
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = owned(path);
        self.run(move |r| r.remove_all(path)).await
    }

    /// Moves a path, replacing what is there.
    ///
    /// # Errors
    ///
    /// As [`Replica::rename_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn rename_path(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (owned(from), owned(to));
        self.run(move |r| r.rename_path(from, to)).await
    }

    /// Copies a file with its mode. No bytes move: the content is shared.
    ///
    /// # Errors
    ///
    /// As [`Replica::copy_file`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn copy_file(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<u64> {
        let (from, to) = (owned(from), owned(to));
        self.run(move |r| r.copy_file(from, to)).await
    }

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// As [`Replica::hard_link`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn hard_link(
        &self,
        existing: impl AsRef<[u8]>,
        new: impl AsRef<[u8]>,
    ) -> Result<Attr> {
        let (existing, new) = (owned(existing), owned(new));
        self.run(move |r| r.hard_link(existing, new)).await
    }

    /// Makes a symbolic link that says `target`.
    ///
    /// # Errors
    ///
    /// As [`Replica::symlink_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn symlink_path(
        &self,
        target: impl AsRef<[u8]>,
        path: impl AsRef<[u8]>,
    ) -> Result<Attr> {
        let (target, path) = (owned(target), owned(path));
        self.run(move |r| r.symlink_path(target, path)).await
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    ///
    /// As [`Replica::read_link_path`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn read_link_path(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = owned(path);
        self.run(move |r| r.read_link_path(path)).await
    }

    /// Up to `limit` entries of a directory after `cookie` (0 for the start).
    ///
    /// # Errors
    ///
    /// As [`Replica::list`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn list(
        &self,
        path: impl AsRef<[u8]>,
        cookie: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>> {
        let path = owned(path);
        self.run(move |r| r.list(path, cookie, limit)).await
    }

    /// The entries of a directory, one by one, in bounded memory.
    ///
    /// # Errors
    ///
    /// As [`Replica::stat`]; [`FsError::NotDir`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::AsyncReplica;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replica = AsyncReplica::in_memory().await?;
    /// replica.write_file("/one", "1").await?;
    /// let mut entries = replica.read_dir("/").await?;
    /// while let Some(entry) = entries.next_entry().await? {
    ///     println!("{} {}", String::from_utf8_lossy(&entry.name), entry.attr.size);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        let dir = self.stat(path).await?;
        if dir.kind != NodeKind::Dir {
            return Err(FsError::NotDir(dir.ino.to_string()));
        }
        Ok(ReadDir::new(self.clone(), dir.ino))
    }

    /// Everything below `dir` whose path from there matches `glob`, all in memory.
    ///
    /// # Errors
    ///
    /// As [`Replica::find`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn find(&self, dir: impl AsRef<[u8]>, glob: impl Into<String>) -> Result<Vec<Found>> {
        let (dir, glob) = (owned(dir), glob.into());
        self.run(move |r| r.find(dir, &glob)?.collect()).await
    }

    /// Every line below `dir` that matches, up to the limit of `options`, all in
    /// memory.
    ///
    /// # Errors
    ///
    /// As [`Replica::grep`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::run`].
    pub async fn grep(
        &self,
        dir: impl AsRef<[u8]>,
        pattern: impl Into<String>,
        options: GrepOptions,
    ) -> Result<Vec<Line>> {
        let (dir, pattern) = (owned(dir), pattern.into());
        self.run(move |r| grep(r, &dir, &pattern, &options)).await
    }
}

fn grep(replica: &Replica, dir: &[u8], pattern: &str, options: &GrepOptions) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    replica.grep(dir, pattern, options, |line| {
        lines.push(line);
        true
    })?;
    Ok(lines)
}
