//! Memory shared with a file. The accesses are volatile: other processes change it.
#![allow(
    unsafe_code,
    reason = "mapping memory has no safe interface; tests only"
)]

use std::fs::File;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

pub(crate) struct Map {
    start: *mut u8,
    len: usize,
}

impl Map {
    /// Maps the first `len` bytes of a file, which must be open for reading and writing.
    pub(crate) fn shared(file: &File, len: usize) -> Self {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, file, 0).unwrap()
        };
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
