//! Any bytes are a chunk of the length that was said, or an error (I12); and
//! what is encoded comes back.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use cairn_protocol::{ChunkHash, Encoded, Encoding, decode_chunk, encode_chunk};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    len: u32,
    encoding: u8,
    bytes: Vec<u8>,
    base: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let Input {
        len,
        encoding,
        bytes,
        base,
    } = input;
    let key = ChunkHash::of(&base);
    let known = |_: &ChunkHash| Some(Bytes::from(base.clone()));
    let bytes = Bytes::from(bytes);

    let encoding = match encoding % 3 {
        0 => Encoding::Raw,
        1 => Encoding::Zstd,
        _ => Encoding::ZstdPrefix { base: key },
    };
    let encoded = Encoded {
        encoding,
        bytes: bytes.clone(),
    };
    let len = usize::try_from(len).unwrap();
    if let Ok(chunk) = decode_chunk(ChunkHash::of(&bytes), len, &encoded, known) {
        assert_eq!(chunk.len(), len);
    }

    if !bytes.is_empty() {
        for base in [None, Some((key, base.as_slice()))] {
            let encoded = encode_chunk(&bytes, base);
            let hash = ChunkHash::of(&bytes);
            assert_eq!(
                decode_chunk(hash, bytes.len(), &encoded, known),
                Ok(bytes.clone())
            );
        }
    }
});
