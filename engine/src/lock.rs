//! One process owns a replica: an advisory lock on the file `lock`, which names
//! the owner, or on a replica of one file itself. The kernel lets go of it when
//! the process ends, however it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::OpenError;
use crate::home::Home;

#[derive(Debug)]
pub(crate) struct OwnerLock(File);

/// Unlocks by word: a process that another thread is just starting has the
/// file, too, until it runs its program.
impl Drop for OwnerLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl OwnerLock {
    pub(crate) fn take(home: &Home, path: &Path) -> Result<Option<Self>, OpenError> {
        let Some(lock) = home.lock() else {
            return Ok(None);
        };
        let fail = |context: &str, source| OpenError::Io {
            path: path.into(),
            context: context.into(),
            source,
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(lock)
            .map_err(|e| fail("opening its lock file", e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                if !home.has_chunk_rows() {
                    let _ = Read::by_ref(&mut file).take(64).read_to_string(&mut owner);
                }
                let owner = match owner.trim() {
                    "" => "another process".into(),
                    pid => format!("process {pid}"),
                };
                return Err(OpenError::InUse {
                    path: path.into(),
                    owner,
                });
            }
            Err(e) => return Err(fail("locking it", e.into())),
        }
        if !home.has_chunk_rows() {
            // Only a hint for people; the lock itself is the kernel's.
            let _ = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
        }
        Ok(Some(Self(file)))
    }
}
