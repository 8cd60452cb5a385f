//! The crate's one unsafe corner: reading a file through a memory mapping.

#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; this module is the leaf that contains it"
)]

use std::fs::File;
use std::io;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Maps the first `len_bytes` of `file` and adds up its bytes, eight at a time.
///
/// Every page is touched, so that every page is faulted in. A rest of less
/// than eight bytes is left out.
///
/// # Errors
/// The system's answer to `mmap`.
pub(crate) fn sum(file: &File, len_bytes: usize) -> io::Result<u64> {
    // SAFETY: a null hint lets the kernel choose free addresses, so no memory
    // of this process is replaced.
    let base = unsafe {
        mmap(
            ptr::null_mut(),
            len_bytes,
            ProtFlags::READ,
            MapFlags::SHARED,
            file,
            0,
        )
    }?;
    let words = base.cast::<u64>().cast_const();
    let mut total = 0_u64;
    for index in 0..len_bytes / size_of::<u64>() {
        // SAFETY: `index` stays below the mapped length and a mapping is page
        // aligned. The read is volatile because the file may change under the
        // mapping; no reference to the memory is ever made.
        let word = unsafe { words.add(index).read_volatile() };
        total = total.wrapping_add(u64::from_le(word));
    }
    // SAFETY: the range is the one mapped above and no pointer into it is used
    // after this line.
    unsafe { munmap(base, len_bytes) }?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    #[test]
    fn sums_the_words_of_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        for word in 1..=1000_u64 {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        assert_eq!(super::sum(&file, 8000).unwrap(), 500_500);
    }
}
