//! Manifests: round trip, pages, and what a reader refuses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use cairn_protocol::{
    CHUNK_MAX, ChunkHash, Extent, LayoutError, MANIFEST_INLINE_MAX, Manifest, ManifestError,
    check_total,
};
use proptest::prelude::*;

/// Where pages are kept.
type Pages = BTreeMap<ChunkHash, Vec<u8>>;

fn build(extents: &[Extent]) -> (Manifest, Pages) {
    let mut pages = Pages::new();
    let manifest = Manifest::build(extents, |hash, page| {
        assert_eq!(hash, ChunkHash::of(&page));
        assert!(page.len() <= CHUNK_MAX);
        pages.insert(hash, page);
        Ok::<_, Infallible>(())
    });
    (manifest.unwrap(), pages)
}

fn read(manifest: &Manifest, pages: &Pages) -> Result<Vec<Extent>, ManifestError<&'static str>> {
    manifest.extents(|hash| pages.get(hash).cloned().ok_or("no such page"))
}

fn chunk(number: usize) -> Extent {
    let hash = ChunkHash::of(&number.to_le_bytes());
    Extent::Chunk {
        hash,
        len: u32::try_from(number % CHUNK_MAX).unwrap() + 1,
    }
}

fn chunks(count: usize) -> Vec<Extent> {
    (0..count).map(chunk).collect()
}

fn extent() -> impl Strategy<Value = Extent> {
    prop_oneof![
        any::<usize>().prop_map(chunk),
        (1_u64..1 << 40).prop_map(|len| Extent::Hole { len }),
    ]
}

proptest! {
    #[test]
    fn a_manifest_gives_back_its_extents(
        some in proptest::collection::vec(extent(), 0..60),
        times in prop_oneof![Just(1_usize), 1_usize..300],
    ) {
        let extents = some.repeat(times);
        let (manifest, pages) = build(&extents);
        prop_assert_eq!(manifest.count(), extents.len() as u64);
        check_total(&extents, manifest.total()).unwrap();
        prop_assert_eq!(&read(&manifest, &pages).unwrap(), &extents);
        let again = Manifest::from_bytes(manifest.as_bytes().clone()).unwrap();
        prop_assert_eq!(&again, &manifest);
        prop_assert_eq!(again.digest(), ChunkHash::of(manifest.as_bytes()));
        let named: Vec<_> = manifest.pages().collect();
        prop_assert!(named.iter().all(|hash| pages.contains_key(hash)));
        prop_assert_eq!(named.is_empty(), extents.len() <= MANIFEST_INLINE_MAX);
    }

    #[test]
    fn i12_any_bytes_are_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(manifest) = Manifest::from_bytes(bytes.clone().into()) {
            prop_assert_eq!(&manifest.as_bytes()[..], &bytes[..]);
            let _ = read(&manifest, &Pages::new());
        }
    }

    #[test]
    fn i12_a_changed_manifest_is_another_one_or_an_error(at in any::<proptest::sample::Index>(), byte in 1_u8..) {
        for count in [3, 5000] {
            let (manifest, pages) = build(&chunks(count));
            let mut bytes = manifest.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            if let Ok(other) = Manifest::from_bytes(bytes.into()) {
                prop_assert_ne!(other.digest(), manifest.digest());
                if let Ok(extents) = read(&other, &pages) {
                    prop_assert_ne!(extents, chunks(count));
                }
            }
        }
    }
}

#[test]
fn a_list_is_paged_above_the_inline_limit_only() {
    let (short, pages) = build(&chunks(MANIFEST_INLINE_MAX));
    assert!(pages.is_empty());
    assert!(short.as_bytes().len() > MANIFEST_INLINE_MAX * 32);
    let (long, pages) = build(&chunks(MANIFEST_INLINE_MAX + 1));
    assert!(!pages.is_empty());
    assert!(long.as_bytes().len() < 1000);
}

#[test]
fn an_edit_of_a_long_list_makes_few_new_pages() {
    let mut extents = chunks(200_000);
    let (_, before) = build(&extents);
    extents[100_000] = Extent::Hole { len: 5 };
    extents.insert(150_000, chunk(77));
    let (_, after) = build(&extents);
    let new = after
        .keys()
        .filter(|hash| !before.contains_key(*hash))
        .count();
    assert!(after.len() > 100, "{} pages", after.len());
    assert!(new <= 4, "{new} new pages");
}

#[test]
fn a_page_that_is_missing_or_wrong_is_an_error() {
    let (manifest, pages) = build(&chunks(10_000));
    let page = manifest.pages().nth(1).unwrap();
    let mut missing = pages.clone();
    missing.remove(&page);
    let fetch = ManifestError::Fetch {
        page,
        source: "no such page",
    };
    assert_eq!(read(&manifest, &missing), Err(fetch));
    let mut wrong = pages;
    wrong.insert(page, b"x".to_vec());
    let hash = ManifestError::Hash {
        page,
        got: ChunkHash::of(b"x"),
    };
    assert_eq!(read(&manifest, &wrong), Err(hash));
}

#[test]
fn pages_are_fetched_in_order_and_their_failure_ends_the_reading() {
    let (manifest, pages) = build(&chunks(10_000));
    let asked = RefCell::new(Vec::new());
    let fetch = |hash: &ChunkHash| {
        asked.borrow_mut().push(*hash);
        Ok::<_, Infallible>(Bytes::from(pages[hash].clone()))
    };
    manifest.extents(fetch).unwrap();
    assert_eq!(asked.into_inner(), manifest.pages().collect::<Vec<_>>());
    let stop = Manifest::build(&chunks(10_000), |_, _| Err("full"));
    assert_eq!(stop, Err("full"));
}

/// A manifest of pages that says `count` and `total` of a page with `bytes`.
fn liar(count: u64, total: u64, bytes: &[u8]) -> Result<Vec<Extent>, ManifestError<&'static str>> {
    let filler = Extent::Hole { len: 4096 };
    let (_, mut pages) = build(&vec![filler; 8192]);
    let (full, full_bytes) = pages.pop_first().unwrap();
    let mut encoded = vec![1];
    for (count, total, hash) in [
        (4096_u64, 4096_u64 * 4096, full),
        (count, total, ChunkHash::of(bytes)),
    ] {
        encoded.extend(postcard::to_stdvec(&(count, total, hash)).unwrap());
    }
    let manifest = Manifest::from_bytes(encoded.into()).unwrap();
    let pages = Pages::from([(full, full_bytes), (ChunkHash::of(bytes), bytes.to_vec())]);
    read(&manifest, &pages)
}

#[test]
fn i12_a_page_that_lies_about_itself_is_refused() {
    let page = [3, 5]; // holes of 1 and 2 bytes
    assert_eq!(liar(2, 3, &page).unwrap().len(), 4098);
    for (count, total, page) in [
        (1, 3, &[3, 5][..]),
        (3, 3, &[3, 5]),
        (2, 4, &[3, 5]),
        (2, 3, &[3, 5, 0x80]),
        (1, 1, &[]),
    ] {
        let error = liar(count, total, page).unwrap_err();
        assert!(matches!(error, ManifestError::Page { .. }), "{error:?}");
    }
}

#[test]
fn i12_malformed_manifests_are_refused() {
    let refused = |bytes: Vec<u8>| Manifest::from_bytes(bytes.into()).unwrap_err();
    assert_eq!(refused(vec![]), LayoutError::Malformed);
    assert_eq!(refused(vec![2]), LayoutError::Form { form: 2 });
    assert_eq!(refused(vec![1]), LayoutError::Count { count: 0 });
    assert_eq!(refused(vec![0, 2, 0]), LayoutError::Malformed);
    assert_eq!(refused(vec![0, 1]), LayoutError::Length { len: 0 });
    // A list that fits inline must be inline, and one that does not must not.
    let ten = [&[1, 10, 10][..], &[0; 32]].concat();
    assert_eq!(refused(ten), LayoutError::Count { count: 10 });
    let long = [&[0][..], &[3; MANIFEST_INLINE_MAX + 1]].concat();
    assert_eq!(refused(long), LayoutError::Count { count: 4097 });
    // Two holes of nearly 2^63 bytes.
    let huge = [&[0][..], &[0xff; 9], &[1], &[0xff; 9], &[1]].concat();
    assert_eq!(refused(huge), LayoutError::TooLong);
}
