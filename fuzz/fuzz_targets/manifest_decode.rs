//! Any bytes are a manifest in its one encoding, or an error; so are its pages (I12).
//!
//! The input is read twice: as a manifest, and as a page of one that says of the page
//! what the input's first bytes say.

#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use cairn_protocol::{ChunkHash, Extent, MANIFEST_INLINE_MAX, Manifest, check_total};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    as_manifest(input);
    if let Some((&[count, total], page)) = input.split_first_chunk() {
        as_page(count, total, page);
    }
});

fn as_manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    assert_eq!(&manifest.as_bytes()[..], bytes);
    let Ok(extents) = manifest.extents(|_| Err::<Bytes, _>(())) else {
        assert!(manifest.pages().next().is_some());
        return;
    };
    check(&manifest, &extents);
    let again = Manifest::build(&extents, |_, _| Ok::<_, Infallible>(()));
    assert_eq!(again, Ok(manifest));
}

/// Reads `page` after a full page, which makes the whole long enough to have pages.
fn as_page(count: u8, total: u8, page: &[u8]) {
    let full = [3; MANIFEST_INLINE_MAX];
    let mut encoded = vec![1, 0x80, 0x20, 0x80, 0x20];
    encoded.extend(ChunkHash::of(&full).as_bytes());
    encoded.extend([count & 0x7f, total & 0x7f]);
    encoded.extend(ChunkHash::of(page).as_bytes());
    let Ok(manifest) = Manifest::from_bytes(encoded.into()) else {
        return;
    };
    let fetch = |hash: &ChunkHash| {
        let bytes = if *hash == ChunkHash::of(&full) {
            &full[..]
        } else {
            page
        };
        Ok::<_, Infallible>(bytes.to_vec())
    };
    if let Ok(extents) = manifest.extents(fetch) {
        check(&manifest, &extents);
    }
}

fn check(manifest: &Manifest, extents: &[Extent]) {
    assert_eq!(extents.len() as u64, manifest.count());
    assert_eq!(check_total(extents, manifest.total()), Ok(()));
}
