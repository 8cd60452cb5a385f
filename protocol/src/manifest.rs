//! Manifests: the list of a file's extents in the form that is stored and sent.
//!
//! Up to [`MANIFEST_INLINE_MAX`] extents the manifest is the list. Above, the list
//! is cut into pages, each stored as a chunk, and the manifest lists the pages.
//! Pages are cut where the extents say so, like chunks where the content says so:
//! a small edit of a huge file makes one new page. Equal lists make equal
//! manifests; who keeps the pages is the caller's business.

use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::extent::{self, EXTENT_BYTES_MAX, Extent, LayoutError, add, take_hash};
use crate::hash::ChunkHash;
use crate::limits::{CHUNK_MAX, MANIFEST_INLINE_MAX, MANIFEST_PAGE_MIN};
use crate::varint;

/// First byte of a manifest that lists extents.
const FORM_EXTENTS: u8 = 0;
/// First byte of a manifest that lists pages.
const FORM_PAGES: u8 = 1;

/// A page ends after a chunk whose hash, its first four bytes read as a little-endian
/// number, is a multiple of this.
const PAGE_DIVISOR: u32 = 1024;

// A full page is a chunk like any other.
const _: () = assert!(MANIFEST_INLINE_MAX * EXTENT_BYTES_MAX <= CHUNK_MAX);

/// The extents of a file, encoded.
///
/// A value is well formed: its lengths are in bounds and add up to [`Manifest::total`].
/// Cloning is cheap; the encoding is shared. The default is the manifest of an empty file.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    encoded: Bytes,
    /// Bytes covered, derived from `encoded`.
    total: u64,
    /// Extents listed, derived from `encoded`.
    count: u64,
}

/// One page, as a manifest lists it.
struct PageRef {
    hash: ChunkHash,
    /// Extents of the page.
    count: u64,
    /// Bytes its extents cover.
    total: u64,
}

/// Why the extents of a manifest could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError<E> {
    /// A page could not be fetched.
    #[error("page {page} of the manifest could not be fetched")]
    Fetch {
        /// The page.
        page: ChunkHash,
        /// What the fetching said.
        source: E,
    },
    /// The bytes fetched are not those of the page.
    #[error("page {page} of the manifest has other bytes, with the hash {got}")]
    Hash {
        /// The page asked for.
        page: ChunkHash,
        /// The hash of what came.
        got: ChunkHash,
    },
    /// A page has its own bytes, and they are not what the manifest says.
    #[error("page {page} of the manifest is wrong")]
    Page {
        /// The page.
        page: ChunkHash,
        /// What is wrong.
        #[source]
        error: LayoutError,
    },
}

impl Manifest {
    /// The manifest of `extents`. Gives each page, if pages are needed, to `put_page`.
    ///
    /// The extents are taken as they are; [`cut`](crate::cut) and
    /// [`recut`](crate::recut) give valid ones.
    ///
    /// # Errors
    ///
    /// What `put_page` returned.
    pub fn build<E>(
        extents: &[Extent],
        mut put_page: impl FnMut(ChunkHash, Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut encoded = Vec::new();
        let total = total_of(extents);
        if extents.len() <= MANIFEST_INLINE_MAX {
            encoded.reserve_exact(1 + extents.len() * EXTENT_BYTES_MAX);
            encoded.push(FORM_EXTENTS);
            encode_all(&mut encoded, extents);
        } else {
            encoded.push(FORM_PAGES);
            for page in pages_of(extents) {
                let mut bytes = Vec::with_capacity(page.len() * EXTENT_BYTES_MAX);
                encode_all(&mut bytes, page);
                let hash = ChunkHash::of(&bytes);
                varint::put(&mut encoded, page.len() as u64);
                varint::put(&mut encoded, total_of(page));
                encoded.extend_from_slice(hash.as_bytes());
                put_page(hash, bytes)?;
            }
        }
        Ok(Self {
            encoded: encoded.into(),
            total,
            count: extents.len() as u64,
        })
    }

    /// The manifest with this encoding.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when the bytes are not the encoding of a manifest.
    pub fn from_bytes(encoded: Bytes) -> Result<Self, LayoutError> {
        let (&form, list) = encoded.split_first().ok_or(LayoutError::Malformed)?;
        let (mut count, mut total) = (0_u64, 0_u64);
        match form {
            FORM_EXTENTS => {
                for extent in extent::decode_all(list) {
                    count += 1;
                    total = add(total, extent?.len())?;
                }
            }
            FORM_PAGES => {
                for page in page_refs(list) {
                    let page = page?;
                    count += page.count;
                    total = add(total, page.total)?;
                }
            }
            _ => return Err(LayoutError::Form { form }),
        }
        // One list has one form.
        if (count > MANIFEST_INLINE_MAX as u64) != (form == FORM_PAGES) {
            return Err(LayoutError::Count { count });
        }
        Ok(Self {
            encoded,
            total,
            count,
        })
    }

    /// The encoding, to store or send.
    pub fn as_bytes(&self) -> &Bytes {
        &self.encoded
    }

    /// Length of the file, in bytes: of all extents together.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many extents the file has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// BLAKE3 of the encoding. Equal for equal lists of extents, and so, under one
    /// chunker, for equal content (I10).
    pub fn digest(&self) -> ChunkHash {
        ChunkHash::of(&self.encoded)
    }

    /// The pages the manifest needs to be readable, in order. A page may come twice.
    pub fn pages(&self) -> impl Iterator<Item = ChunkHash> {
        let list = self.list(FORM_PAGES).unwrap_or_default();
        page_refs(list).filter_map(|page| Some(page.ok()?.hash))
    }

    /// The extents, in order. Pages are asked for one at a time, in order, and verified.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] when a page cannot be fetched or is not what it should be.
    pub fn extents<E, B: AsRef<[u8]>>(
        &self,
        mut get_page: impl FnMut(&ChunkHash) -> Result<B, E>,
    ) -> Result<Vec<Extent>, ManifestError<E>> {
        if let Some(list) = self.list(FORM_EXTENTS) {
            return Ok(extent::decode_all(list).flatten().collect());
        }
        let mut extents = Vec::new();
        for page in page_refs(self.list(FORM_PAGES).unwrap_or_default()).flatten() {
            let bytes = get_page(&page.hash).map_err(|source| ManifestError::Fetch {
                page: page.hash,
                source,
            })?;
            let got = ChunkHash::of(bytes.as_ref());
            if got != page.hash {
                return Err(ManifestError::Hash {
                    page: page.hash,
                    got,
                });
            }
            page.read(bytes.as_ref(), &mut extents)
                .map_err(|error| ManifestError::Page {
                    page: page.hash,
                    error,
                })?;
        }
        Ok(extents)
    }

    /// What follows the form, if it is this form.
    fn list(&self, form: u8) -> Option<&[u8]> {
        self.encoded.strip_prefix(&[form])
    }
}

impl PageRef {
    fn decode(input: &mut &[u8]) -> Result<Self, LayoutError> {
        let count = varint::take(input).ok_or(LayoutError::Malformed)?;
        let total = varint::take(input).ok_or(LayoutError::Malformed)?;
        let hash = take_hash(input).ok_or(LayoutError::Malformed)?;
        if count == 0 || count > MANIFEST_INLINE_MAX as u64 {
            return Err(LayoutError::Count { count });
        }
        if total < count {
            return Err(LayoutError::Length { len: total });
        }
        Ok(Self { hash, count, total })
    }

    /// Appends the page's extents to `out`, if they are as many and as long as they should be.
    fn read(&self, bytes: &[u8], out: &mut Vec<Extent>) -> Result<(), LayoutError> {
        let (mut count, mut covered) = (0, 0);
        for extent in extent::decode_all(bytes) {
            let extent = extent?;
            count += 1;
            // Checked for each extent: a page that lists too many is not read to its end.
            if count > self.count {
                return Err(LayoutError::Count { count });
            }
            covered = add(covered, extent.len())?;
            out.push(extent);
        }
        if count != self.count {
            return Err(LayoutError::Count { count });
        }
        if covered != self.total {
            return Err(LayoutError::Total {
                expected: self.total,
                covered,
            });
        }
        Ok(())
    }
}

fn page_refs(mut list: &[u8]) -> impl Iterator<Item = Result<PageRef, LayoutError>> {
    std::iter::from_fn(move || {
        if list.is_empty() {
            return None;
        }
        let page = PageRef::decode(&mut list);
        if page.is_err() {
            list = &[];
        }
        Some(page)
    })
}

/// Cuts a list into pages of [`MANIFEST_PAGE_MIN`] to [`MANIFEST_INLINE_MAX`] extents.
///
/// The lower bound keeps a file that repeats one chunk from having a page for each extent.
fn pages_of(extents: &[Extent]) -> impl Iterator<Item = &[Extent]> {
    let mut rest = extents;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let most = rest.len().min(MANIFEST_INLINE_MAX);
        let first = MANIFEST_PAGE_MIN.min(most) - 1;
        let len = (first..most)
            .find(|at| ends_page(&rest[*at]))
            .map_or(most, |at| at + 1);
        let (page, after) = rest.split_at(len);
        rest = after;
        Some(page)
    })
}

fn ends_page(extent: &Extent) -> bool {
    match extent {
        Extent::Chunk { hash, .. } => {
            let [a, b, c, d, ..] = *hash.as_bytes();
            u32::from_le_bytes([a, b, c, d]).is_multiple_of(PAGE_DIVISOR)
        }
        Extent::Hole { .. } => false,
    }
}

fn encode_all(out: &mut Vec<u8>, extents: &[Extent]) {
    for extent in extents {
        extent::encode(out, extent);
    }
}

fn total_of(extents: &[Extent]) -> u64 {
    extents
        .iter()
        .fold(0, |total, extent| total.saturating_add(extent.len()))
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            encoded: Bytes::from_static(&[FORM_EXTENTS]),
            total: 0,
            count: 0,
        }
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("total", &self.total)
            .field("count", &self.count)
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encoded)
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_bytes(Bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(end: u8) -> Extent {
        let mut hash = [9; 32];
        hash[..4].copy_from_slice(&[end, 0, 0, 0]);
        Extent::Chunk {
            hash: ChunkHash::from_bytes(hash),
            len: 1,
        }
    }

    fn lengths(extents: &[Extent]) -> Vec<usize> {
        pages_of(extents).map(<[Extent]>::len).collect()
    }

    #[test]
    fn pages_end_where_the_hash_says_so() {
        let mut extents = vec![chunk(1); 10_000];
        assert_eq!(lengths(&extents), [4096, 4096, 1808]);
        extents[999] = chunk(0);
        assert_eq!(lengths(&extents), [1000, 4096, 4096, 808]);
        extents[999] = Extent::Hole { len: 1024 };
        assert_eq!(lengths(&extents), [4096, 4096, 1808]);
        extents[4095 + 255] = chunk(0);
        assert_eq!(lengths(&extents)[..2], [4096, 4096]);
        extents[4096 + 255] = chunk(0);
        assert_eq!(lengths(&extents)[..2], [4096, 256]);
    }

    #[test]
    fn a_repeated_chunk_does_not_make_tiny_pages() {
        assert_eq!(lengths(&vec![chunk(0); 600]), [256, 256, 88]);
    }

    #[test]
    fn the_encoding_is_pinned() {
        let extents = [chunk(1), Extent::Hole { len: 65536 }];
        let manifest = Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap();
        let chunk = [&[0, 2, 1, 0, 0, 0][..], &[9; 28]].concat();
        let hole = [0x81, 0x80, 0x08];
        assert_eq!(manifest.as_bytes()[..], [&chunk[..], &hole].concat());
        assert_eq!((manifest.total(), manifest.count()), (65537, 2));
        assert_eq!(Manifest::default().as_bytes()[..], [0]);
    }
}
