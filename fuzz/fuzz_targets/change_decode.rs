//! Any bytes are a change in its one encoding, or an error (I12).

#![no_main]

use cairn_protocol::{Change, Data, Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(change) = Change::decode(bytes) else {
        return;
    };
    assert_eq!(change.encode(), bytes);
    if let Entry::Data { data, .. } = &change.entry {
        data.check().expect("decoding checks data");
        if let Data::File { size, manifest, .. } = data {
            assert_eq!(manifest.total(), *size);
        }
    }
});
