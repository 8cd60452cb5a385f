//! Where a replica lives: a directory, one file, or memory; and what is where.
//!
//! | | directory `NAME` | file `NAME` | memory |
//! | --- | --- | --- | --- |
//! | database | `NAME/cairn.db` | `NAME` | SQLite's memory |
//! | chunks | `NAME/chunks/N.pack` | rows of the database | memory files |
//! | unsealed data | `NAME/dirty/N` | `NAME-dirty/N` | memory files |
//! | lock | `NAME/lock` | `NAME` | none |
//!
//! The folder `NAME-dirty` is to a replica of one file what SQLite's log is to
//! a database: there while it is open, empty and gone when it was closed, and
//! part of the replica after a crash.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{OpenError, Options, Replica};

/// `Crn1`: what the header of the database says in a replica of one file.
pub(crate) const APPLICATION_ID: u32 = 0x4372_6e31;
/// Where the header of a SQLite database has that number, in big-endian
/// (<https://www.sqlite.org/fileformat.html#the_database_header>).
const APPLICATION_ID_AT: usize = 68;
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Memory,
    Dir(PathBuf),
    File(PathBuf),
}

impl Home {
    /// Looks what is at a path, and makes the directory of a new replica.
    /// Returns whether it is new, too.
    pub(crate) fn find(path: &Path, options: &Options) -> Result<(Self, bool), OpenError> {
        let io = |context: &str, source| OpenError::Io {
            path: path.into(),
            context: context.into(),
            source,
        };
        let found = match std::fs::metadata(path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if !options.create {
                    return Err(OpenError::Missing(path.into()));
                }
                let (home, dir) = if options.single_file {
                    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                    (Self::File(path.into()), parent)
                } else {
                    (Self::Dir(path.into()), Some(path))
                };
                if let Some(dir) = dir {
                    std::fs::create_dir_all(dir).map_err(|e| io("creating the directory", e))?;
                }
                return Ok((home, true));
            }
            Err(e) => return Err(io("looking at it", e)),
        };
        if found.is_file() {
            let new = found.len() == 0 && options.create;
            if !new && !is_single_file(path).map_err(|e| io("reading its header", e))? {
                return Err(OpenError::NotReplica(path.into()));
            }
            return Ok((Self::File(path.into()), new));
        }
        let new = !path.join("cairn.db").exists();
        if new {
            let empty = std::fs::read_dir(path)
                .map_err(|e| io("reading the directory", e))?
                .all(|e| e.is_ok_and(|e| e.file_name() == "lock"));
            if !empty || !options.create {
                return Err(OpenError::NotReplica(path.into()));
            }
        }
        Ok((Self::Dir(path.into()), new))
    }

    /// The directory or the file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Dir(path) | Self::File(path) => Some(path),
        }
    }

    pub(crate) fn database(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Dir(dir) => Some(dir.join("cairn.db")),
            Self::File(file) => Some(file.clone()),
        }
    }

    /// The folder of the packs.
    pub(crate) fn packs(&self) -> Option<PathBuf> {
        match self {
            Self::Dir(dir) => Some(dir.join("chunks")),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// The folder of the staging files.
    pub(crate) fn staging(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Dir(dir) => Some(dir.join("dirty")),
            Self::File(file) => Some(beside(file, "-dirty")),
        }
    }

    /// The folders of the data files.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.packs().into_iter().chain(self.staging())
    }

    pub(crate) fn lock(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Dir(dir) => Some(dir.join("lock")),
            Self::File(file) => Some(file.clone()),
        }
    }

    /// Chunks are rows of the database, not parts of packs.
    pub(crate) fn has_chunk_rows(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// A path that begins with another, as SQLite names the files beside a database.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn is_single_file(path: &Path) -> io::Result<bool> {
    let mut header = [0; 100];
    match File::open(path)?.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(e) => return Err(e),
    }
    let id = APPLICATION_ID_AT..APPLICATION_ID_AT + 4;
    Ok(header.starts_with(SQLITE_MAGIC) && header[id] == APPLICATION_ID.to_be_bytes())
}

impl Replica {
    /// Whether there is a replica of one file at this path.
    pub fn is_single_file(path: impl AsRef<Path>) -> bool {
        is_single_file(path.as_ref()).unwrap_or(false)
    }

    /// The folder for what belongs to the process that has the replica open,
    /// as a socket: the replica's directory, or the folder `NAME-dirty` beside
    /// a replica of one file.
    pub fn working_dir(path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.is_file() {
            beside(path, "-dirty")
        } else {
            path.into()
        }
    }
}
