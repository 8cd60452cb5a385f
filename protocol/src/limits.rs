//! The bounds every replica keeps, in one place (SPEC.md, "Limits").
//!
//! A decoder checks a bound before it allocates for what the bound is about. None
//! of these may be raised by a peer; a session may only agree on less.

/// Largest chunk, in bytes. Bounds frames, buffers and every allocation for content.
pub const CHUNK_MAX: usize = 512 * 1024;

/// Largest file, in bytes, that the [`Whole`](crate::ChunkerId::Whole) layout holds.
pub const WHOLE_MAX: usize = 64 * 1024;

/// Smallest chunk FastCDC cuts, in bytes; only the end of a data segment is shorter.
pub const CDC_MIN: usize = 64 * 1024;

/// Chunk size FastCDC aims at, in bytes.
pub const CDC_AVG: usize = 256 * 1024;

/// Largest chunk FastCDC cuts, in bytes.
pub const CDC_MAX: usize = CHUNK_MAX;

/// Chunk size of the [`FixedSmall`](crate::ChunkerId::FixedSmall) layout, in bytes.
pub const FIXED_SMALL: usize = 64 * 1024;

/// Unit, in bytes, in which a file is searched for holes. Holes start at its multiples.
pub const HOLE_BLOCK: usize = 64 * 1024;

/// Largest content, in bytes, kept in the data register itself.
pub const INLINE_MAX: usize = 4096;

/// Longest name of a directory entry, in bytes (`NAME_MAX` of Linux).
pub const NAME_MAX: usize = 255;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` of Linux less its NUL).
pub const SYMLINK_MAX: usize = 4095;

/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_MAX: usize = 255;

/// Largest value of one extended attribute, in bytes (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_MAX: usize = 65536;

/// Largest sum of names and values of one node's extended attributes, in bytes.
pub const XATTR_NODE_MAX: usize = 256 * 1024;

/// Largest file, in bytes (`off_t` is signed).
pub const FILE_SIZE_MAX: u64 = i64::MAX.cast_unsigned();

/// Most extents a [`Manifest`](crate::Manifest) lists itself, and most extents of one page.
pub const MANIFEST_INLINE_MAX: usize = 4096;

/// Extents a manifest page has at least, the last page excepted.
pub const MANIFEST_PAGE_MIN: usize = 256;

/// Most names in one path.
pub const PATH_DEPTH_MAX: usize = 4096;
