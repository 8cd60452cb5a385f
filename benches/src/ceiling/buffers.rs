//! The bytes of files: buffers that outlive the files they were made for.

/// Buffers from here on are used again: fresh memory is paid for page by page
/// at its first use, which would count a third of a large write as FUSE's.
pub(super) const SPARE_MIN_BYTES: usize = 1 << 20;

/// Buffers kept for use again; at most as many large files as one scenario has.
const SPARES: usize = 4;

/// Buffers without a file.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    spares: Vec<Vec<u8>>,
}

impl Buffers {
    /// Keeps a large buffer for [`Buffers::grow`].
    pub(super) fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() >= SPARE_MIN_BYTES && self.spares.len() < SPARES {
            self.spares.push(bytes);
        }
    }

    /// Makes room for `len` bytes, in a spare buffer if there is one.
    pub(super) fn grow(&mut self, bytes: &mut Vec<u8>, len: usize) {
        if len <= bytes.capacity() || len < SPARE_MIN_BYTES {
            return;
        }
        let fits = |spare: &Vec<u8>| spare.capacity() >= len;
        if let Some(place) = self.spares.iter().position(fits) {
            let mut spare = self.spares.swap_remove(place);
            spare.clear();
            spare.extend_from_slice(bytes);
            self.recycle(std::mem::replace(bytes, spare));
        }
    }
}

/// Puts `data` at `offset`, with zeros in a gap before it.
pub(super) fn overlay(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() == offset {
        bytes.extend_from_slice(data);
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_behind_the_end_leaves_zeros() {
        let mut bytes = vec![1, 2];
        overlay(&mut bytes, 3, &[4]);
        overlay(&mut bytes, 0, &[9]);
        assert_eq!(bytes, [9, 2, 0, 4]);
    }
}
