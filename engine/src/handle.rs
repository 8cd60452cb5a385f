//! An open file: the streams of the standard library over a replica.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::attr::{Attr, Ino, SetAttr};
use crate::replica::Replica;
use crate::{FsError, Result};

/// How to open a file, as [`std::fs::OpenOptions`] says it for a disk.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use cairn_engine::{FileOptions, Replica};
///
/// let replica = Replica::in_memory()?;
/// let mut log = FileOptions::new().append(true).create(true).open(&replica, "/log")?;
/// writeln!(log, "first")?;
/// writeln!(log, "second")?;
///
/// let lines = BufReader::new(replica.open_file("/log")?).lines();
/// assert_eq!(lines.last().transpose()?.as_deref(), Some("second"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a choice of its own, as in std"
)]
pub struct FileOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
}

impl FileOptions {
    /// Nothing is allowed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows reading.
    #[must_use]
    pub fn read(self, read: bool) -> Self {
        Self { read, ..self }
    }

    /// Allows writing.
    #[must_use]
    pub fn write(self, write: bool) -> Self {
        Self { write, ..self }
    }

    /// Allows writing, and each write goes to the end, whoever else writes.
    #[must_use]
    pub fn append(self, append: bool) -> Self {
        Self { append, ..self }
    }

    /// Empties the file first. Needs `write`.
    #[must_use]
    pub fn truncate(self, truncate: bool) -> Self {
        Self { truncate, ..self }
    }

    /// Makes the file, with mode 0644, if it is not there. Needs `write` or `append`.
    #[must_use]
    pub fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Makes the file, and fails when the name is taken. Needs `write` or `append`.
    #[must_use]
    pub fn create_new(self, create_new: bool) -> Self {
        Self { create_new, ..self }
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::Exists`], [`FsError::IsDir`], and
    /// [`FsError::Invalid`] for options that contradict each other.
    pub fn open(self, replica: &Replica, path: impl AsRef<[u8]>) -> Result<File> {
        let path = path.as_ref();
        let writable = self.write || self.append;
        if !(self.read || writable) {
            return Err(FsError::Invalid("a file is opened to read or to write"));
        }
        if (self.create || self.create_new) && !writable || self.truncate && !self.write {
            return Err(FsError::Invalid("making and emptying a file need `write`"));
        }
        let found = || {
            if self.create_new || self.create {
                replica.make_file(path, self.create_new)
            } else {
                Ok(replica.stat(path)?.ino)
            }
        };
        let (ino, kind) =
            crate::path::on_found(found, |ino| Ok((ino, replica.retain(ino, writable)?.kind)))?;
        let file = File {
            replica: replica.clone(),
            ino,
            position: 0,
            options: self,
        };
        match kind {
            crate::NodeKind::File => {}
            crate::NodeKind::Dir => return Err(FsError::IsDir(crate::path::show(path))),
            _ => return Err(FsError::Invalid("not a regular file")),
        }
        if self.truncate {
            file.set_len(0)?;
        }
        Ok(file)
    }
}

/// A file of a replica, open: it can be read and written after its last name
/// is gone, and is sealed when the last handle that writes is dropped.
///
/// It is not buffered: wrap it in a [`std::io::BufReader`] for small reads.
#[derive(Debug)]
pub struct File {
    replica: Replica,
    ino: Ino,
    position: u64,
    options: FileOptions,
}

impl File {
    /// Opens a regular file by its inode number, to read it.
    pub(crate) fn open_ino(replica: &Replica, ino: Ino) -> Result<Self> {
        replica.retain(ino, false)?;
        Ok(Self {
            replica: replica.clone(),
            ino,
            position: 0,
            options: FileOptions::new().read(true),
        })
    }

    /// The file's inode number.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The file's attributes.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn attr(&self) -> Result<Attr> {
        self.replica.attr(self.ino)
    }

    /// Sets the size; what is added are zeros that take no space.
    ///
    /// # Errors
    ///
    /// [`FsError::NotPermitted`] when it is open to read only; [`FsError::TooLarge`].
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.check_writable()?;
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.replica.set_attr(self.ino, &set).map(drop)
    }

    /// Returns when content, attributes and name survive a power cut.
    ///
    /// # Errors
    ///
    /// As [`Replica::fsync`].
    pub fn sync(&self) -> Result<()> {
        self.replica.fsync(self.ino)
    }

    fn check_writable(&self) -> Result<()> {
        if self.options.write || self.options.append {
            return Ok(());
        }
        Err(FsError::NotPermitted("the file is open to read only"))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.replica
            .release(self.ino, self.options.write || self.options.append);
    }
}

fn moved(position: u64, by: i64) -> io::Result<u64> {
    position
        .checked_add_signed(by)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start"))
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.options.read {
            return Err(FsError::NotPermitted("the file is open to write only").into());
        }
        let got = self.replica.read(self.ino, self.position, buf)?;
        self.position += got as u64;
        Ok(got)
    }
}

impl Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check_writable()?;
        let at = if self.options.append {
            self.replica.append(self.ino, data)?
        } else {
            self.replica.write(self.ino, self.position, data)?;
            self.position
        };
        self.position = at + data.len() as u64;
        Ok(data.len())
    }

    /// Does nothing: what is written is visible at once. [`File::sync`] makes
    /// it durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => moved(self.position, by)?,
            SeekFrom::End(by) => moved(self.attr()?.size, by)?,
        };
        Ok(self.position)
    }
}

impl Replica {
    /// Opens a file to read it.
    ///
    /// # Errors
    ///
    /// As [`FileOptions::open`].
    pub fn open_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        FileOptions::new().read(true).open(self, path)
    }

    /// Opens a file to write it, empty; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`FileOptions::open`].
    pub fn create_file(&self, path: impl AsRef<[u8]>) -> Result<File> {
        FileOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(self, path)
    }
}
