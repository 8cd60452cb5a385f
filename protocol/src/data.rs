//! The content of a node, as its data register holds it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::extent::ChunkerId;
use crate::limits::{INLINE_MAX, SYMLINK_MAX, WHOLE_MAX};
use crate::manifest::Manifest;
use crate::register::NodeKind;

/// The value of a data register.
///
/// Decoding checks what [`Data::check`] checks; a value built in memory is checked
/// by whoever takes it from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawData")]
pub enum Data {
    /// A file whose content is in chunks.
    File {
        /// Length of the content, in bytes.
        size: u64,
        /// How the content was cut.
        chunker: ChunkerId,
        /// Which extents it was cut into.
        manifest: Manifest,
    },
    /// A file whose content is here.
    Inline {
        /// The content, at most [`INLINE_MAX`] bytes.
        bytes: Bytes,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: 1 to [`SYMLINK_MAX`] bytes, none of them NUL.
        target: Bytes,
    },
    /// A directory. Its entries are name registers.
    Dir,
    /// A fifo, a socket or a device.
    Special {
        /// The device number of a device, else 0.
        rdev: u64,
    },
}

/// Why a value cannot be in a data register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The extents cover another length than the file has.
    #[error("the extents cover {covered} bytes of a file of {size}")]
    Size {
        /// Length of the file, in bytes.
        size: u64,
        /// Length of all extents, in bytes.
        covered: u64,
    },
    /// The file is too large to be one chunk.
    #[error("a file of {size} bytes is too large for one chunk")]
    Whole {
        /// Length of the file, in bytes.
        size: u64,
    },
    /// The content is too large to be inline.
    #[error("{len} bytes are too many for inline content")]
    Inline {
        /// Length of the content, in bytes.
        len: usize,
    },
    /// The target is empty or too long.
    #[error("a link target of {len} bytes is empty or too long")]
    TargetLength {
        /// Length of the target, in bytes.
        len: usize,
    },
    /// The target has a NUL byte.
    #[error("a link target has a NUL byte")]
    TargetByte,
}

impl Data {
    /// The length `stat` shows, in bytes: of the content of a file, of the target of a link, else 0.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Inline { bytes } | Self::Symlink { target: bytes } => bytes.len() as u64,
            Self::Dir | Self::Special { .. } => 0,
        }
    }

    /// Whether a node of this kind may hold this value.
    pub fn fits(&self, kind: NodeKind) -> bool {
        match self {
            Self::File { .. } | Self::Inline { .. } => kind == NodeKind::File,
            Self::Symlink { .. } => kind == NodeKind::Symlink,
            Self::Dir => kind == NodeKind::Dir,
            Self::Special { .. } => {
                !matches!(kind, NodeKind::File | NodeKind::Symlink | NodeKind::Dir)
            }
        }
    }

    /// Checks the value against the limits and its parts against each other.
    ///
    /// # Errors
    ///
    /// [`DataError`], the first rule the value breaks.
    pub fn check(&self) -> Result<(), DataError> {
        match self {
            Self::File {
                size,
                chunker,
                manifest,
            } => check_file(*size, *chunker, manifest),
            Self::Inline { bytes } if bytes.len() > INLINE_MAX => {
                Err(DataError::Inline { len: bytes.len() })
            }
            Self::Symlink { target } => check_target(target),
            Self::Inline { .. } | Self::Dir | Self::Special { .. } => Ok(()),
        }
    }
}

fn check_file(size: u64, chunker: ChunkerId, manifest: &Manifest) -> Result<(), DataError> {
    // A manifest never covers more than the largest file, so this bounds `size` too.
    let covered = manifest.total();
    if covered != size {
        return Err(DataError::Size { size, covered });
    }
    if chunker == ChunkerId::Whole && size > WHOLE_MAX as u64 {
        return Err(DataError::Whole { size });
    }
    Ok(())
}

fn check_target(target: &[u8]) -> Result<(), DataError> {
    if target.is_empty() || target.len() > SYMLINK_MAX {
        return Err(DataError::TargetLength { len: target.len() });
    }
    if target.contains(&0) {
        Err(DataError::TargetByte)
    } else {
        Ok(())
    }
}

/// [`Data`] as decoded, before it is checked. Variants and fields in the same order.
#[derive(Deserialize)]
enum RawData {
    File {
        size: u64,
        chunker: ChunkerId,
        manifest: Manifest,
    },
    Inline {
        bytes: Bytes,
    },
    Symlink {
        target: Bytes,
    },
    Dir,
    Special {
        rdev: u64,
    },
}

impl TryFrom<RawData> for Data {
    type Error = DataError;

    fn try_from(raw: RawData) -> Result<Self, DataError> {
        let data = match raw {
            RawData::File {
                size,
                chunker,
                manifest,
            } => Self::File {
                size,
                chunker,
                manifest,
            },
            RawData::Inline { bytes } => Self::Inline { bytes },
            RawData::Symlink { target } => Self::Symlink { target },
            RawData::Dir => Self::Dir,
            RawData::Special { rdev } => Self::Special { rdev },
        };
        data.check()?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extent;

    fn file(size: u64, chunker: ChunkerId, hole: u64) -> Data {
        let manifest = Manifest::build(&[Extent::Hole { len: hole }], |_, _| Ok::<_, ()>(()));
        Data::File {
            size,
            chunker,
            manifest: manifest.unwrap(),
        }
    }

    #[test]
    fn i12_decoding_refuses_what_check_refuses() {
        let bad = [
            file(5, ChunkerId::Whole, 4),
            file(65537, ChunkerId::Whole, 65537),
            Data::Inline {
                bytes: vec![0; INLINE_MAX + 1].into(),
            },
            Data::Symlink {
                target: Bytes::new(),
            },
            Data::Symlink {
                target: vec![b'a'; SYMLINK_MAX + 1].into(),
            },
            Data::Symlink {
                target: Bytes::from_static(b"a\0b"),
            },
        ];
        for data in bad {
            assert!(data.check().is_err());
            let encoded = postcard::to_stdvec(&data).unwrap();
            assert!(postcard::from_bytes::<Data>(&encoded).is_err(), "{data:?}");
        }
    }

    #[test]
    fn decoding_takes_values_at_the_limits() {
        let good = [
            file(65536, ChunkerId::Whole, 65536),
            file(65537, ChunkerId::FastCdc, 65537),
            Data::Inline {
                bytes: vec![0; INLINE_MAX].into(),
            },
            Data::Symlink {
                target: vec![b'a'; SYMLINK_MAX].into(),
            },
            Data::Dir,
            Data::Special { rdev: u64::MAX },
        ];
        for data in good {
            let encoded = postcard::to_stdvec(&data).unwrap();
            assert_eq!(postcard::from_bytes(&encoded), Ok(data));
        }
    }

    #[test]
    fn data_fits_its_kind() {
        assert!(Data::Dir.fits(NodeKind::Dir));
        assert!(!Data::Dir.fits(NodeKind::File));
        assert!(Data::Special { rdev: 0 }.fits(NodeKind::Fifo));
        assert!(!Data::Special { rdev: 0 }.fits(NodeKind::Symlink));
    }
}
