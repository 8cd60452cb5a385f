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

/// Longest payload of a frame, in bytes.
pub const FRAME_MAX: usize = 1024 * 1024;

/// Payload that everybody takes once a peer is known, in bytes: a chunk and what
/// is around it, or any one edit or change.
pub const FRAME_MIN: u32 = 576 * 1024;

/// Most changes of one message.
pub const ENTRIES_MAX: usize = 4096;

/// Most edits, and most outcomes, of one message.
pub const EDITS_MAX: usize = 16384;

/// Most chunks that one message names.
pub const HASHES_MAX: usize = 16384;

/// Longest token, in bytes.
pub const TOKEN_MAX: usize = 256;

/// Longest name of a program in a greeting, in bytes.
pub const AGENT_MAX: usize = 128;

/// Longest text that explains an error to people, in bytes.
pub const DETAIL_MAX: usize = 1024;

/// Most values that a later version adds to one message.
pub const EXT_KEYS_MAX: usize = 16;

/// Longest such value, in bytes.
pub const EXT_VALUE_MAX: usize = 4096;

/// Most rules of a scope.
pub const RULES_MAX: usize = 1024;

/// Longest rule of a scope, in bytes.
pub const RULE_MAX: usize = 4096;

/// Most edits of one batch.
pub const BATCH_EDITS_MAX: usize = 65536;

/// Most chunks that a batch names as new: about 128 GiB of one file, and 16 MiB of
/// memory at the hub.
pub const BATCH_CHUNKS_MAX: usize = 524_288;

/// Largest sum of the encodings of a batch's edits, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most chunks that are asked for in one session and not answered yet.
pub const WANTED_MAX: usize = 65536;

/// Bytes of `Changes`, `Report` and `Push` that may be sent before the first `Credit`.
pub const WINDOW_CONTROL: u64 = 4 * 1024 * 1024;

/// Bytes of `Chunks` that may be sent before the first `Credit`.
pub const WINDOW_BULK: u64 = 8 * 1024 * 1024;

/// Payload that is taken from a peer that is not known yet, in bytes.
pub const FRAME_STRANGER: usize = 4096;
