//! The data files of a replica: packs of sealed chunks and staging files of
//! unsealed data. They share one number space, so that a staging file can
//! become a pack by a rename and keep its identity.
//!
//! On disk a staging file is `dirty/N` and a pack is `chunks/N.pack`. A replica
//! in memory keeps both in anonymous memory files with the same calls. One in a
//! single file has no packs, see [`crate::home`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use crate::home::Home;
use crate::{FsError, Result};

/// Open packs kept at most; what is in use stays open beyond it.
const OPEN_MAX: usize = 256;

/// Empty staging files kept for the next file.
const SPARE_MAX: usize = 16;

/// A pack or a staging file.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) id: u64,
    pub(crate) file: File,
}

impl DataFile {
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                FsError::Corrupt(format!(
                    "data file {} ends before offset {}",
                    self.id,
                    offset + buf.len() as u64
                ))
            } else {
                FsError::io(format!("reading data file {}", self.id), source)
            }
        })
    }

    /// Reads what is there and fills the rest with zeros: a staging file may be
    /// shorter than the file it holds.
    pub(crate) fn read_sparse(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => {
                    buf.fill(0);
                    return Ok(());
                }
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(FsError::io(format!("reading data file {}", self.id), e));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(buf, offset)
            .map_err(|e| FsError::io(format!("writing data file {}", self.id), e))
    }

    /// Writes at the end, wherever that is by now. Returns where it went.
    pub(crate) fn append(&self, mut buf: &[u8]) -> Result<u64> {
        let failed = |e| FsError::io(format!("appending to data file {}", self.id), e);
        let mut end = 0;
        let len = buf.len() as u64;
        while !buf.is_empty() {
            let flags = rustix::io::ReadWriteFlags::APPEND;
            match rustix::io::pwritev2(&self.file, &[io::IoSlice::new(buf)], 0, flags) {
                Ok(n) => buf = &buf[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(e.into())),
            }
            end = self.file.metadata().map_err(failed)?.len();
        }
        Ok(end.saturating_sub(len))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| FsError::io(format!("syncing data file {}", self.id), e))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(|e| FsError::io(format!("resizing data file {}", self.id), e))
    }

    /// Makes sure that the file has at least `len` bytes, beside any writes to
    /// it. Returns `false` where the filesystem has no way to.
    pub(crate) fn ensure_len(&self, len: u64) -> Result<bool> {
        let fail = |e| FsError::io(format!("extending data file {}", self.id), e);
        if self.file.metadata().map_err(fail)?.len() >= len {
            return Ok(true);
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), len - 1, 1) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(fail(e.into())),
        }
    }

    /// Gives the range back to the disk; it reads as zeros afterwards.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, mode, offset, len) {
            // A filesystem without holes keeps the space until the pack goes.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(FsError::io(
                format!("freeing part of data file {}", self.id),
                e.into(),
            )),
        }
    }

    /// Reserves space without changing the length; best effort.
    pub(crate) fn reserve(&self, offset: u64, len: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(FsError::io(
                format!("reserving space in data file {}", self.id),
                e.into(),
            )),
        }
    }
}

/// Where the data files are, and which are open.
#[derive(Debug)]
pub(crate) struct Files {
    home: Home,
    next_id: AtomicU64,
    packs: Mutex<HashMap<u64, Arc<DataFile>>>,
    /// Empty staging files for direct use, see [`crate::direct`].
    spare: Mutex<Vec<DataFile>>,
    /// Files were made or renamed since the folders were last synced.
    names_changed: AtomicBool,
    /// Held while the folders are synced, so that nobody takes a sync that is
    /// under way for one that is done.
    names_sync: Mutex<()>,
}

impl Files {
    pub(crate) fn open(home: Home) -> io::Result<Self> {
        let mut newest = 0;
        for folder in home.folders() {
            std::fs::create_dir_all(&folder)?;
            for id in list(&folder)? {
                newest = newest.max(id);
            }
        }
        Ok(Self {
            home,
            next_id: AtomicU64::new(newest + 1),
            packs: Mutex::new(HashMap::new()),
            spare: Mutex::default(),
            names_changed: AtomicBool::new(true),
            names_sync: Mutex::new(()),
        })
    }

    /// No file made from now on has a number up to `id`.
    pub(crate) fn reserve_ids(&self, id: u64) {
        self.next_id.fetch_max(id + 1, Ordering::Relaxed);
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn pack_path(&self, id: u64) -> Option<PathBuf> {
        Some(self.home.packs()?.join(format!("{id}.pack")))
    }

    pub(crate) fn staging_path(&self, id: u64) -> Option<PathBuf> {
        Some(self.home.staging()?.join(id.to_string()))
    }

    /// A number that no data file has had.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn create(&self, path: impl Fn(u64) -> Option<PathBuf>) -> Result<Arc<DataFile>> {
        let id = self.new_id();
        let file = match path(id) {
            Some(path) => File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|e| FsError::io(format!("creating {}", path.display()), e))?,
            None => memory_file(id)?,
        };
        self.names_changed.store(true, Ordering::SeqCst);
        Ok(Arc::new(DataFile { id, file }))
    }

    pub(crate) fn create_staging(&self) -> Result<Arc<DataFile>> {
        self.create(|id| self.staging_path(id))
    }

    /// A file for what the next commits will copy to the database. It has no
    /// name, so that a crash leaves nothing of it.
    pub(crate) fn create_spill(&self) -> Result<Arc<DataFile>> {
        let file = self.create_staging()?;
        self.remove_staging(file.id);
        Ok(file)
    }

    /// An empty staging file that was used before, or a new one.
    pub(crate) fn spare_staging(&self) -> Result<Arc<DataFile>> {
        let spare = self.spare.lock().pop();
        match spare {
            Some(file) => Ok(Arc::new(file)),
            None => self.create_staging(),
        }
    }

    /// Empties a staging file and keeps it for [`Self::spare_staging`]. Returns
    /// whether it did.
    pub(crate) fn put_by(&self, file: DataFile) -> bool {
        if self.spare.lock().len() >= SPARE_MAX || file.set_len(0).is_err() {
            return false;
        }
        self.spare.lock().push(file);
        true
    }

    pub(crate) fn create_pack(&self) -> Result<Arc<DataFile>> {
        let file = self.create(|id| self.pack_path(id))?;
        self.packs.lock().insert(file.id, file.clone());
        Ok(file)
    }

    pub(crate) fn open_staging(&self, id: u64) -> Result<Arc<DataFile>> {
        let path = self
            .staging_path(id)
            .ok_or_else(|| FsError::Corrupt(format!("staging file {id} of a memory replica")))?;
        // A crash between the rename of an adoption and its commit leaves the
        // file among the packs: the commit did not happen, so take it back.
        if let Some(pack) = self.pack_path(id)
            && !path.exists()
            && pack.exists()
        {
            std::fs::rename(&pack, &path)
                .map_err(|e| FsError::io(format!("taking back {}", pack.display()), e))?;
        }
        let file = open_rw(&path)?;
        Ok(Arc::new(DataFile { id, file }))
    }

    pub(crate) fn pack(&self, id: u64) -> Result<Arc<DataFile>> {
        if let Some(pack) = self.packs.lock().get(&id) {
            return Ok(pack.clone());
        }
        let path = self
            .pack_path(id)
            .ok_or_else(|| FsError::Corrupt(format!("pack {id} of a memory replica is gone")))?;
        let file = open_rw(&path)?;
        let pack = Arc::new(DataFile { id, file });
        let mut packs = self.packs.lock();
        if packs.len() >= OPEN_MAX {
            packs.retain(|_, p| Arc::strong_count(p) > 1);
        }
        Ok(packs.entry(id).or_insert(pack).clone())
    }

    /// Turns a staging file into a pack.
    pub(crate) fn adopt(&self, staging: &Arc<DataFile>) -> Result<()> {
        let id = staging.id;
        if let (Some(from), Some(to)) = (self.staging_path(id), self.pack_path(id))
            && !to.exists()
        {
            std::fs::rename(&from, &to)
                .map_err(|e| FsError::io(format!("adopting {}", from.display()), e))?;
        }
        self.names_changed.store(true, Ordering::SeqCst);
        self.packs.lock().insert(id, staging.clone());
        Ok(())
    }

    /// Syncs a staging file, which may be a pack by now, or gone: then what it
    /// held is durable elsewhere.
    pub(crate) fn sync_by_number(&self, id: u64) -> Result<()> {
        for path in [self.staging_path(id), self.pack_path(id)]
            .into_iter()
            .flatten()
        {
            match File::open(&path) {
                Ok(file) => return DataFile { id, file }.sync(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(FsError::io(format!("opening {}", path.display()), e)),
            }
        }
        Ok(())
    }

    /// Turns a staging file that a pack's row names into that pack.
    pub(crate) fn finish_adoption(&self, id: u64) -> Result<()> {
        if let (Some(from), Some(to)) = (self.staging_path(id), self.pack_path(id)) {
            std::fs::rename(&from, &to)
                .map_err(|e| FsError::io(format!("adopting {}", from.display()), e))?;
            self.names_changed.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Makes the names of packs as durable as their bytes.
    pub(crate) fn sync_names(&self) -> Result<()> {
        let _one = self.names_sync.lock();
        if !self.names_changed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        for folder in self.home.folders() {
            File::open(&folder)
                .and_then(|d| d.sync_all())
                .map_err(|e| {
                    self.names_changed.store(true, Ordering::SeqCst);
                    FsError::io(format!("syncing the folder {}", folder.display()), e)
                })?;
        }
        Ok(())
    }

    pub(crate) fn remove_pack(&self, id: u64) {
        self.packs.lock().remove(&id);
        if let Some(path) = self.pack_path(id)
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a pack; the next start tries again");
        }
    }

    /// Makes a pack without chunks a staging file again.
    pub(crate) fn take_back(&self, id: u64) -> Result<()> {
        self.packs.lock().remove(&id);
        if let (Some(pack), Some(staging)) = (self.pack_path(id), self.staging_path(id)) {
            std::fs::rename(&pack, &staging)
                .map_err(|e| FsError::io(format!("taking back {}", pack.display()), e))?;
            self.names_changed.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Frees what lies after the last chunk of a pack: space that was reserved,
    /// or bytes that no row names. A pack that is whole stays as it is.
    pub(crate) fn cut_pack(&self, id: u64, len: u64) {
        /// Blocks of the filesystem's own are counted, too.
        const SLACK: u64 = 256 << 10;
        let Some(Ok(found)) = self.pack_path(id).map(std::fs::metadata) else {
            return;
        };
        let spare = found.blocks() * 512 > len + SLACK;
        if found.len() < len || (found.len() == len && !spare) {
            return;
        }
        if let Err(error) = self.pack(id).and_then(|pack| pack.set_len(len)) {
            tracing::warn!(id, %error, "cannot free the end of a pack; the next start tries again");
        }
    }

    pub(crate) fn remove_staging(&self, id: u64) {
        if let Some(path) = self.staging_path(id)
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a staging file; the next start tries again");
        }
    }

    /// Numbers of the packs and of the staging files on disk.
    pub(crate) fn on_disk(&self) -> io::Result<(Vec<u64>, Vec<u64>)> {
        let ids = |folder: Option<PathBuf>| folder.map_or(Ok(Vec::new()), |f| list(&f));
        match &self.home {
            Home::Memory => Ok((self.packs.lock().keys().copied().collect(), Vec::new())),
            home => Ok((ids(home.packs())?, ids(home.staging())?)),
        }
    }

    /// Removes what is of use only while a replica of one file is open.
    pub(crate) fn tidy_up(&self) {
        let Home::File(_) = &self.home else { return };
        for spare in self.spare.lock().drain(..) {
            self.remove_staging(spare.id);
        }
        let Some(folder) = self.home.staging() else {
            return;
        };
        // Data is left in it when it could not be sealed, and stays.
        if list(&folder).is_ok_and(|left| left.is_empty()) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if let Ok(id) = name.strip_suffix(".pack").unwrap_or(&name).parse() {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn open_rw(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                FsError::Corrupt(format!("{} is missing", path.display()))
            } else {
                FsError::io(format!("opening {}", path.display()), e)
            }
        })
}

fn memory_file(id: u64) -> Result<File> {
    rustix::fs::memfd_create(format!("cairn-{id}"), rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| FsError::io("creating a memory file", e.into()))
}
