//! System calls without a safe wrapper.
#![allow(
    unsafe_code,
    reason = "mapping memory has no safe interface; tests only"
)]

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// How long the value of an extended attribute is, asked for without room for the value.
pub(crate) fn xattr_len(path: &Path, name: &str) -> Option<usize> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: both names end with a NUL, and with a room of 0 bytes nothing is written.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    usize::try_from(len).ok()
}

/// Memory shared with a file. The accesses are volatile: other processes change it.
pub(crate) struct Map {
    start: *mut u8,
    len: usize,
}

impl Map {
    /// Maps the first `len` bytes of a file, which must be open for reading and writing.
    pub(crate) fn shared(file: &File, len: usize) -> Self {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, file, 0).unwrap() };
        Self {
            start: start.cast(),
            len,
        }
    }

    /// One byte. Beyond the end of the file this kills the process (SIGBUS).
    pub(crate) fn get(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: `at` is inside the mapping, which lives as long as `self`.
        unsafe { self.start.add(at).read_volatile() }
    }

    /// Bytes from `at` on.
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        (at..at + len).map(|at| self.get(at)).collect()
    }

    pub(crate) fn write(&self, at: usize, data: &[u8]) {
        for (place, byte) in (at..).zip(data) {
            self.set(place, *byte);
        }
    }

    /// Writes changed pages to the file.
    pub(crate) fn sync(&self) {
        // SAFETY: this is the whole mapping; it is not changed by writing it to its file.
        unsafe { msync(self.start.cast(), self.len, MsyncFlags::SYNC).unwrap() };
    }

    pub(crate) fn set(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: as in `get`; the mapping is writable.
        unsafe { self.start.add(at).write_volatile(byte) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
