//! The address of content.

use crate::text::opaque_bytes;

opaque_bytes! {
    /// BLAKE3 of a chunk's bytes: what the chunk is called everywhere.
    ///
    /// Text form: 64 hexadecimal digits.
    ChunkHash, 32, "64 hexadecimal digits"
}

impl ChunkHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_plain_blake3() {
        // The empty input's digest, from the BLAKE3 test vectors.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ChunkHash::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(ChunkHash::of(b"")));
    }

    #[test]
    fn debug_is_short() {
        assert_eq!(format!("{:?}", ChunkHash::of(b"")), "ChunkHash(af1349b9..)");
    }
}
