//! The workspace as the interpreter's filesystem.
//!
//! Every operation is one question to the host, but for large contents. `stat`
//! is about the node itself, as the interpreter follows links above this.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bashkit::{
    DirEntry, FileSystem, FileSystemExt, FileType, FsLimits, FsUsage, Metadata, Result, async_trait,
};
use cairn_protocol::{NodeKind, Timestamp};

use super::client::Client;
use super::names::{path_bytes, to_bytes, to_text};
use super::wire::{Change, Node};

/// The store behind a directory of the interpreter's tree.
pub(crate) struct StoreFs(pub(crate) Arc<Client>);

#[async_trait]
impl FileSystemExt for StoreFs {
    /// Nothing, as some tools compare it with the limit of what is in memory.
    fn usage(&self) -> FsUsage {
        FsUsage::default()
    }

    async fn mkfifo(&self, path: &Path, mode: u32) -> Result<()> {
        Ok(self.0.make_fifo(path_bytes(path), permissions(mode))?)
    }

    fn limits(&self) -> FsLimits {
        FsLimits::unlimited()
    }

    fn backend_kind(&self) -> &'static str {
        "cairn"
    }
}

#[async_trait]
impl FileSystem for StoreFs {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(self.0.load(path_bytes(path))?)
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        Ok(self.0.put(path_bytes(path), content)?)
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        Ok(self.0.append(&path_bytes(path), content)?)
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        Ok(self.0.make_dir(path_bytes(path), recursive)?)
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        Ok(self.0.remove(path_bytes(path), recursive)?)
    }

    async fn stat(&self, path: &Path) -> Result<Metadata> {
        Ok(metadata(&self.0.stat(path_bytes(path))?))
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let entries = self.0.list(&path_bytes(path))?;
        let entry = |(name, node): (Vec<u8>, Node)| DirEntry {
            name: to_text(&name),
            metadata: metadata(&node),
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        match self.0.stat(path_bytes(path)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(self.0.rename(path_bytes(from), path_bytes(to))?)
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(self.0.copy(path_bytes(from), path_bytes(to))?)
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        let target = to_bytes(&target.to_string_lossy());
        Ok(self.0.symlink(target, path_bytes(link))?)
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let target = self.0.read_link(path_bytes(path))?;
        Ok(PathBuf::from(to_text(&target)))
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        let change = Change {
            perm: Some(permissions(mode)),
            ..Change::default()
        };
        Ok(self.0.set(path_bytes(path), change)?)
    }

    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        let time = timestamp(time);
        let change = Change {
            mtime: Some(time),
            atime: Some(time),
            ..Change::default()
        };
        Ok(self.0.set(path_bytes(path), change)?)
    }
}

/// Attributes as the interpreter knows them.
pub(crate) fn metadata(node: &Node) -> Metadata {
    Metadata {
        file_type: match node.kind {
            NodeKind::Dir => FileType::Directory,
            NodeKind::Symlink => FileType::Symlink,
            NodeKind::Fifo => FileType::Fifo,
            _ => FileType::File,
        },
        size: node.size,
        mode: u32::from(node.perm),
        modified: system_time(node.mtime),
        created: system_time(node.btime),
    }
}

/// The bits of a mode that are permissions.
fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// A time of the store. One that the system cannot express is its epoch.
pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos()));
    let seconds = Duration::from_secs(time.seconds().unsigned_abs());
    let whole = if time.seconds() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(nanos))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time for the store.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let at = |seconds: u64, nanos| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        (seconds, nanos)
    };
    let (seconds, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => at(after.as_secs(), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let (seconds, nanos) = at(before.as_secs(), before.subsec_nanos());
            match nanos {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    };
    Timestamp::new(seconds, nanos).unwrap_or(Timestamp::EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for (seconds, nanos) in [(0, 0), (5, 7), (-1, 999_999_999), (-3, 0)] {
            let time = Timestamp::new(seconds, nanos).unwrap();
            assert_eq!(timestamp(system_time(time)), time);
        }
    }
}
