//! What passes from a source to a sink: one node at a time.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use cairn::{NodeKind, Timestamp};

use crate::failure::Result;

use super::{PIECE, Talk};

/// A node of a tree, without the content of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Path below the top of the transfer, names with `/` between them. Empty
    /// for the top itself.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) body: Body,
    /// Its attributes. Another name of a node has those of the node.
    pub(crate) meta: Meta,
    /// Its extended attributes.
    pub(crate) xattrs: Xattrs,
}

impl Node {
    /// The same node at another path, if there is one.
    pub(crate) fn moved(&self, path: Option<&[u8]>) -> Cow<'_, Self> {
        match path {
            None => Cow::Borrowed(self),
            Some(path) => Cow::Owned(Self {
                path: path.to_vec(),
                ..self.clone()
            }),
        }
    }
}

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A directory.
    Dir,
    /// A file. Its data is what lies in `extents`, which ascend and do not
    /// overlap; everything else is a hole.
    File {
        /// Size in bytes.
        size: u64,
        /// Where it has data.
        extents: Vec<Range<u64>>,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// One more name of the node at this path, which was sent before.
    Link(Vec<u8>),
    /// A fifo, socket or device.
    Special {
        /// Which of them.
        kind: NodeKind,
        /// Device number.
        rdev: u32,
    },
}

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The low 12 bits of `st_mode`.
    pub(crate) perm: u16,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last change of content.
    pub(crate) mtime: Timestamp,
}

/// Where nodes go.
pub(crate) trait Sink {
    /// Puts a node. `data` gives the bytes of its extents, one after another.
    fn put(&mut self, node: &Node, data: &mut dyn Data) -> Result<()>;

    /// Does what has to wait until all nodes are there.
    fn finish(&mut self) -> Result<()>;
}

/// The data of a file.
pub(crate) trait Data {
    /// Fills the buffer with the next bytes. Never asked for more than there is.
    fn fill(&mut self, buf: &mut [u8]) -> Result<()>;
}

/// The extents of a file of `size` bytes, found with `seek`: the first offset
/// from another on where there is data (`true`) or a hole, if one follows.
pub(crate) fn extents<E>(
    size: u64,
    mut seek: impl FnMut(u64, bool) -> Result<Option<u64>, E>,
) -> Result<Vec<Range<u64>>, E> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(start) = seek(at, true)? else { break };
        let Some(end) = seek(start, false)? else {
            break;
        };
        at = end.min(size);
        if start < at {
            extents.push(start..at);
        }
    }
    Ok(extents)
}

/// What is still to be read of a file.
pub(crate) struct Unread {
    extents: VecDeque<Range<u64>>,
    /// There was less than the extents say.
    pub(crate) short: bool,
}

impl Unread {
    pub(crate) fn new(extents: &[Range<u64>]) -> Self {
        Self {
            extents: extents.iter().cloned().collect(),
            short: false,
        }
    }

    /// Fills the buffer with the next bytes, as `read` gives them for an
    /// offset: how many, none at the end of the file.
    pub(crate) fn fill(
        &mut self,
        buf: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let Some(extent) = self.extents.front_mut() else {
                break;
            };
            let len = usize::try_from(extent.end - extent.start)
                .unwrap_or(usize::MAX)
                .min(buf.len() - done);
            let part = &mut buf[done..done + len];
            let taken = match read(extent.start, part)? {
                0 => {
                    // It was cut meanwhile. What was announced has to come all the same.
                    part.fill(0);
                    self.short = true;
                    len
                }
                read => read,
            };
            extent.start += taken as u64;
            done += taken;
            if extent.is_empty() {
                self.extents.pop_front();
            }
        }
        Ok(())
    }
}

/// The data of what is no file.
pub(crate) struct NoData;

impl Data for NoData {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        debug_assert!(buf.is_empty(), "data of what has none");
        buf.fill(0);
        Ok(())
    }
}

/// Bytes that are stored for the extents of a file.
pub(crate) fn stored(extents: &[Range<u64>]) -> u64 {
    extents.iter().map(|extent| extent.end - extent.start).sum()
}

/// Gives the data of a file to `each`, in pieces with their offsets.
pub(crate) fn pieces(
    extents: &[Range<u64>],
    data: &mut dyn Data,
    buf: &mut Vec<u8>,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    for extent in extents {
        let mut at = extent.start;
        while at < extent.end {
            let len = usize::try_from(extent.end - at).unwrap_or(PIECE).min(PIECE);
            if buf.len() < len {
                buf.resize(len, 0);
            }
            data.fill(&mut buf[..len])?;
            each(at, &buf[..len])?;
            at += len as u64;
        }
    }
    Ok(())
}

/// A sink that counts what goes through, shows it, and stops when it has to.
pub(crate) struct Counted<'a, 't, S> {
    pub(crate) sink: S,
    pub(crate) talk: &'a Talk<'t>,
}

impl<S: Sink> Sink for Counted<'_, '_, S> {
    fn put(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        self.talk.go_on()?;
        self.sink.put(
            node,
            &mut CountedData {
                data,
                talk: self.talk,
            },
        )?;
        let holes = match &node.body {
            Body::File { size, extents } => size.saturating_sub(stored(extents)),
            _ => 0,
        };
        // The top was named, and is no news.
        self.talk.count(u64::from(!node.path.is_empty()), holes)
    }

    fn finish(&mut self) -> Result<()> {
        self.sink.finish()
    }
}

struct CountedData<'a, 't> {
    data: &'a mut dyn Data,
    talk: &'a Talk<'t>,
}

impl Data for CountedData<'_, '_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.talk.go_on()?;
        self.data.fill(buf)?;
        self.talk.count(0, buf.len() as u64)
    }
}
