//! Randomness from the system.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills bytes at random.
pub(crate) fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        // It fails for a signal alone, or on a system that has no such call; the
        // latter ends with the same bytes, where they are no secret anyway.
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// A random number below 2^64.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Words of four random bytes, with few calls of the system.
#[derive(Debug, Default)]
pub(crate) struct Words(Vec<[u8; 4]>);

impl Words {
    /// The next.
    pub(crate) fn next(&mut self) -> [u8; 4] {
        if self.0.is_empty() {
            let mut bytes = [0; 256];
            fill(&mut bytes);
            self.0.extend_from_slice(bytes.as_chunks::<4>().0);
        }
        self.0.pop().unwrap_or_default()
    }
}
