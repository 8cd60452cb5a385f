//! One node in memory: what `stat` shows, and where its content is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_protocol::{
    ChunkerId, Data, Extent, Manifest, Name, NodeId, NodeKind, Timestamp, Ver, XattrName,
};

use crate::attr::{Attr, Ino};
use crate::direct::DirectUse;
use crate::files::DataFile;
use crate::ranges::RangeSet;

/// The hash of a name, and the name: directories are kept and listed in this
/// order, so that a listing can go on where it stopped.
pub(crate) type DirKey = (u64, Name);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) btime: Timestamp,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// Its id, if that is not what this replica would mint for its inode: the
    /// node was made elsewhere.
    pub(crate) id: Option<Box<NodeId>>,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) nlink: u32,
    pub(crate) times: Times,
    #[allow(
        clippy::box_collection,
        reason = "most nodes have none: 8 bytes, not 24"
    )]
    pub(crate) xattrs: Option<Box<BTreeMap<XattrName, Xattr>>>,
    pub(crate) body: Body,
    /// Version of its first register: when it was made.
    pub(crate) born: Ver,
    pub(crate) meta_ver: Ver,
    pub(crate) data_ver: Ver,
    pub(crate) state: Persist,
    /// Open handles, and those that may write.
    pub(crate) holds: u32,
    pub(crate) writers: u32,
    /// Tick of the last use, for eviction.
    pub(crate) used: u32,
}

/// How a cached thing relates to the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Persist {
    /// It must be written at the next commit.
    pub(crate) dirty: bool,
    /// A commit that is under way writes it.
    pub(crate) in_flight: bool,
    /// The database has it, or will when that commit ends.
    pub(crate) stored: bool,
}

impl Persist {
    pub(crate) fn pinned(self) -> bool {
        self.dirty || self.in_flight
    }
}

/// One extended attribute; `None` is one that was removed and whose removal
/// is not committed yet.
#[derive(Debug, Clone)]
pub(crate) struct Xattr {
    pub(crate) value: Option<Bytes>,
    pub(crate) ver: Ver,
    pub(crate) dirty: bool,
}

#[derive(Debug)]
pub(crate) enum Body {
    File(FileBody),
    Dir(DirBody),
    Symlink(Bytes),
    Special,
}

/// A directory: its parent, and what is known of its entries.
#[derive(Debug, Default)]
pub(crate) struct DirBody {
    pub(crate) parent: u64,
    /// Live entries.
    pub(crate) entries: u64,
    pub(crate) children: BTreeMap<DirKey, Dirent>,
    /// `children` holds every entry.
    pub(crate) complete: bool,
    /// `children` holds every entry whose hash lies in this range.
    pub(crate) window: Option<(u64, u64)>,
    /// Entries that are dirty or in flight: they keep `children` in memory.
    pub(crate) pinned: u32,
}

/// A directory entry; without a target it says that there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent {
    pub(crate) target: Option<Ino>,
    pub(crate) ver: Ver,
    pub(crate) state: Persist,
}

/// A regular file: sealed content below, an overlay of unsealed writes above.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is set and cleared on its own"
)]
#[derive(Debug, Default)]
pub(crate) struct FileBody {
    pub(crate) size: u64,
    pub(crate) base: Base,
    pub(crate) over: Overlay,
    /// `over` holds what neither the database nor a staging file of it does.
    pub(crate) data_dirty: bool,
    /// `base` is not what the database has.
    pub(crate) base_dirty: bool,
    /// Changes with every change of content: lets a seal notice that it is late.
    pub(crate) generation: u64,
    /// It is read and written past this replica, too.
    pub(crate) direct: Option<DirectUse>,
    /// A commit has named the staging file of a file that is, or was last, in
    /// direct use.
    pub(crate) recorded: bool,
    /// A seal of this file is queued or under way.
    pub(crate) sealing: bool,
}

/// Content as the database has it.
#[derive(Debug, Clone, Default)]
pub(crate) enum Base {
    #[default]
    Empty,
    Inline(Bytes),
    Sealed(Arc<Sealed>),
}

/// Content as chunks and holes.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) size: u64,
    pub(crate) chunker: ChunkerId,
    pub(crate) manifest: Manifest,
    /// Bytes in chunks, the rest are holes.
    pub(crate) allocated: u64,
    /// The pack that is this content byte for byte, if there is one; looked up
    /// on first use.
    pub(crate) pack: std::sync::OnceLock<Option<u64>>,
    /// The manifest unpacked, on first use.
    pub(crate) layout: std::sync::OnceLock<Layout>,
}

/// Extents and where each starts.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) extents: Vec<Extent>,
    pub(crate) starts: Vec<u64>,
}

impl Layout {
    pub(crate) fn new(extents: Vec<Extent>) -> Self {
        let mut at = 0;
        let starts = extents
            .iter()
            .map(|e| {
                let start = at;
                at += e.len();
                start
            })
            .collect();
        Self { extents, starts }
    }

    pub(crate) fn allocated(extents: &[Extent]) -> u64 {
        extents
            .iter()
            .map(|e| match e {
                Extent::Chunk { len, .. } => u64::from(*len),
                Extent::Hole { .. } => 0,
            })
            .sum()
    }

    /// Index of the extent that holds `offset`.
    pub(crate) fn find(&self, offset: u64) -> usize {
        self.starts
            .partition_point(|s| *s <= offset)
            .saturating_sub(1)
    }
}

/// Writes that are not sealed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Overlay {
    #[default]
    None,
    /// The whole content, in memory.
    Memory(Arc<Vec<u8>>),
    /// Parts of the content, in a staging file at the same offsets.
    Staging(Staging),
}

#[derive(Debug, Clone)]
pub(crate) struct Staging {
    pub(crate) file: Arc<DataFile>,
    /// Bytes that are in the staging file.
    pub(crate) ranges: RangeSet,
    /// The base shows through below this offset, where `ranges` does not cover it.
    pub(crate) base_len: u64,
    /// Held shared by writes to the file, alone by what must not run beside
    /// one. True from when the file may not change any more: several files
    /// share it, or it was sealed and is a pack now.
    pub(crate) frozen: Arc<parking_lot::RwLock<bool>>,
    /// Somebody may still write to it who will not say when that ends: it does
    /// not become a pack, nor is it used for another file.
    pub(crate) loose: Arc<AtomicBool>,
}

impl Staging {
    pub(crate) fn new(file: Arc<DataFile>, ranges: RangeSet, base_len: u64) -> Self {
        Self {
            file,
            ranges,
            base_len,
            frozen: Arc::default(),
            loose: Arc::default(),
        }
    }

    pub(crate) fn is_loose(&self) -> bool {
        self.loose.load(Ordering::Relaxed)
    }

    /// Whether the two are the same staging file.
    pub(crate) fn is(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|other| self.file.id == other.file.id)
    }
}

impl Base {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Sealed(sealed) => sealed.size,
        }
    }

    pub(crate) fn to_data(&self) -> Data {
        match self {
            Self::Empty => Data::Inline {
                bytes: Bytes::new(),
            },
            Self::Inline(bytes) => Data::Inline {
                bytes: bytes.clone(),
            },
            Self::Sealed(sealed) => Data::File {
                size: sealed.size,
                chunker: sealed.chunker,
                manifest: sealed.manifest.clone(),
            },
        }
    }
}

impl FileBody {
    pub(crate) fn allocated(&self) -> u64 {
        if let Some(allocated) = self.direct.as_ref().and_then(DirectUse::allocated) {
            return allocated;
        }
        let base = match &self.base {
            Base::Empty => 0,
            Base::Inline(b) => b.len() as u64,
            Base::Sealed(s) => s.allocated,
        };
        match &self.over {
            Overlay::None => base,
            Overlay::Memory(bytes) => bytes.len() as u64,
            Overlay::Staging(s) if s.base_len == 0 => s.ranges.bytes().min(self.size),
            Overlay::Staging(s) => (base + s.ranges.bytes()).min(self.size),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match &self.over {
            Overlay::Memory(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl Node {
    pub(crate) fn attr(&self, ino: Ino) -> Attr {
        let (size, allocated) = match &self.body {
            Body::File(file) => (file.size, file.allocated()),
            Body::Dir(dir) => (dir.entries.saturating_mul(32).max(4_096), 4_096),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Special => (0, 0),
        };
        Attr {
            ino,
            kind: self.kind,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            nlink: self.nlink,
            size,
            blocks: allocated.div_ceil(4_096) * 8,
            atime: self.times.atime,
            mtime: self.times.mtime,
            ctime: self.times.ctime,
            btime: self.times.btime,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == NodeKind::Dir
    }

    /// The newest version of any of its registers.
    pub(crate) fn ver(&self) -> Ver {
        let xattrs = self
            .xattrs
            .iter()
            .flat_map(|x| x.values().map(|x| x.ver))
            .max();
        self.meta_ver.max(self.data_ver).max(xattrs.unwrap_or(0))
    }
}
