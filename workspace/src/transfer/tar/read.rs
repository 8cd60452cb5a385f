//! Reads an archive, from front to end.
//!
//! Nothing of it is believed: sizes of headers are bounded, names are refused
//! that could lead out of the top, and what follows from numbers is checked.

use std::io::{self, Read};
use std::ops::Range;

use ::tar::{GnuExtSparseHeader, GnuSparseHeader, Header};
use cairn::{NodeKind, Timestamp};

use crate::failure::{Failure, Result};
use crate::transfer::error::Shown;
use crate::transfer::talk::outside;
use crate::transfer::{Body, Data, Meta, NoData, Node, Sink, Talk, TransferError};

use super::name::clean;
use super::pax::Pax;
use super::{BLOCK, number, padding, sparse};

/// Most bytes in the extended headers of an entry: the longest path, another as
/// its link, and all the attributes a node can have take less.
const EXTENDED_MAX: u64 = 4 << 20;
/// What follows the archive is read to its end, up to so many bytes: a program
/// that writes into a pipe would fail otherwise.
const TAIL_MAX: u64 = 64 << 20;
const READING: &str = "cannot read the archive";

/// Sends all entries of an archive to a sink.
pub(crate) fn read(input: &mut dyn Read, sink: &mut dyn Sink, talk: &Talk<'_>) -> Result<()> {
    let mut reader = Reader { input, at: 0, talk };
    while reader.entry(sink)? {}
    sink.finish()
}

struct Reader<'a, 't> {
    input: &'a mut dyn Read,
    /// Bytes read.
    at: u64,
    talk: &'a Talk<'t>,
}

/// The header of an entry with all that belongs to it.
struct Described {
    header: Header,
    /// Where the header is.
    at: u64,
    pax: Pax,
    name: Vec<u8>,
}

impl Described {
    fn damaged(&self, why: &'static str) -> Failure {
        TransferError::Damaged { at: self.at, why }.into()
    }

    /// A number of the header, unless an extended header has another.
    fn id(&self, extended: Option<u64>, field: &[u8]) -> Result<u32> {
        let id = extended.or_else(|| number::unsigned(field));
        id.and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| self.damaged("an owner is no number below 2^32"))
    }

    fn meta(&self) -> Result<Meta> {
        let old = self.header.as_old();
        let mode =
            number::unsigned(&old.mode).ok_or_else(|| self.damaged("the mode is no number"))?;
        let mtime = match self.pax.mtime {
            Some(mtime) => Some(mtime),
            None => number::field(&old.mtime).and_then(|seconds| Timestamp::new(seconds, 0).ok()),
        };
        Ok(Meta {
            perm: u16::try_from(mode & 0o7777).unwrap_or(0),
            uid: self.id(self.pax.uid, &old.uid)?,
            gid: self.id(self.pax.gid, &old.gid)?,
            mtime: mtime.ok_or_else(|| self.damaged("the time is no number"))?,
        })
    }

    /// Bytes of data in the archive.
    fn stored(&self) -> Result<u64> {
        let size = self
            .pax
            .size
            .or_else(|| number::unsigned(&self.header.as_old().size));
        size.ok_or_else(|| self.damaged("the size is no number"))
    }

    fn rdev(&self) -> Result<u32> {
        let ends = self
            .header
            .as_ustar()
            .map(|header| (header.dev_major, header.dev_minor));
        let ends = ends.or_else(|| {
            self.header
                .as_gnu()
                .map(|header| (header.dev_major, header.dev_minor))
        });
        let device = ends.and_then(|(major, minor)| {
            let major = u32::try_from(number::unsigned(&major)?).ok()?;
            let minor = u32::try_from(number::unsigned(&minor)?).ok()?;
            u32::try_from(rustix::fs::makedev(major, minor)).ok()
        });
        device.ok_or_else(|| self.damaged("the number of a device makes no sense"))
    }

    fn link(&self) -> Vec<u8> {
        match &self.pax.link {
            Some(link) => link.clone(),
            None => text(&self.header.as_old().linkname).to_vec(),
        }
    }
}

impl Reader<'_, '_> {
    /// Reads one entry and sends it. Returns `false` at the end.
    fn entry(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        let mut pax = Pax::default();
        let mut long = None;
        let mut room = EXTENDED_MAX;
        loop {
            self.talk.go_on()?;
            let at = self.at;
            let Some(header) = self.header()? else {
                return Ok(false);
            };
            match header.as_old().linkflag[0] {
                b'L' => long = Some(text(&self.extended(at, &header, &mut room)?).to_vec()),
                b'K' => pax.link = Some(text(&self.extended(at, &header, &mut room)?).to_vec()),
                b'x' | b'X' => {
                    let records = self.extended(at, &header, &mut room)?;
                    pax.add(&records)
                        .map_err(|why| TransferError::Damaged { at, why })?;
                }
                // Defaults for all entries, and the name of a volume: nothing that is kept.
                b'g' | b'V' => {
                    self.extended(at, &header, &mut room)?;
                }
                _ => {
                    let name = pax.sparse.name.take().or(pax.path.take()).or(long);
                    let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let entry = Described {
                        header,
                        at,
                        pax,
                        name,
                    };
                    return self.send(&entry, sink).map(|()| true);
                }
            }
        }
    }

    fn send(&mut self, entry: &Described, sink: &mut dyn Sink) -> Result<()> {
        let path = clean(&entry.name)?;
        let kind = entry.header.as_old().linkflag[0];
        let body = match kind {
            // Before there were types, a slash made a directory.
            0 | b'0' | b'7' if entry.name.ends_with(b"/") => Body::Dir,
            0 | b'0' | b'7' | b'S' => return self.send_file(entry, path, sink),
            b'1' => Body::Link(clean(&entry.link())?),
            b'2' => Body::Symlink(entry.link()),
            b'3' => Body::Special {
                kind: NodeKind::CharDevice,
                rdev: entry.rdev()?,
            },
            b'4' => Body::Special {
                kind: NodeKind::BlockDevice,
                rdev: entry.rdev()?,
            },
            b'5' => Body::Dir,
            b'6' if entry.pax.socket => Body::Special {
                kind: NodeKind::Socket,
                rdev: 0,
            },
            b'6' => Body::Special {
                kind: NodeKind::Fifo,
                rdev: 0,
            },
            _ => {
                let size = entry.stored()?;
                self.skip(size + padding(size), &path)?;
                let why = format!(
                    "left out: the archive calls it a {:?}, which is unknown",
                    char::from(kind)
                );
                return self.talk.leave_out(&path, why);
            }
        };
        let node = Node {
            path,
            body,
            meta: entry.meta()?,
            xattrs: entry.pax.xattrs.clone(),
        };
        if node.path.is_empty() && node.body != Body::Dir {
            return Err(TransferError::NoName(Shown::new(&entry.name)).into());
        }
        sink.put(&node, &mut NoData)
    }

    fn send_file(&mut self, entry: &Described, path: Vec<u8>, sink: &mut dyn Sink) -> Result<()> {
        if path.is_empty() {
            return Err(TransferError::NoName(Shown::new(&entry.name)).into());
        }
        let archived = entry.stored()?;
        let (size, extents, left) = self.layout(entry, &path, archived)?;
        let xattrs = entry.pax.xattrs.clone();
        let node = Node {
            path,
            body: Body::File { size, extents },
            meta: entry.meta()?,
            xattrs,
        };
        let mut data = FileData {
            reader: self,
            left,
            path: &node.path,
        };
        sink.put(&node, &mut data)?;
        let left = data.left;
        self.skip(left + padding(archived), &node.path)
    }

    /// Size, extents, and the bytes of data that follow.
    fn layout(
        &mut self,
        entry: &Described,
        path: &[u8],
        archived: u64,
    ) -> Result<(u64, Vec<Range<u64>>, u64)> {
        let known = &entry.pax.sparse;
        let nonsense = || TransferError::SparseMap(Shown::new(path));
        let (size, map, data) = if entry.header.as_old().linkflag[0] == b'S' {
            let (size, map) = self.old_map(entry, path)?;
            (size, map, archived)
        } else if let (Some(1), Some(0), Some(size)) = (known.major, known.minor, known.size) {
            let (map, taken) = self.text_map(path, archived)?;
            (size, map, archived.checked_sub(taken).ok_or_else(nonsense)?)
        } else if let (Some(map), Some(size)) = (&known.map, known.size) {
            (size, sparse::pairs(map), archived)
        } else {
            let map = vec![(0, archived)];
            (archived, map, archived)
        };
        let extents = sparse::extents(&map, size, data).ok_or_else(nonsense)?;
        Ok((size, extents, data))
    }

    /// The map in an old GNU header, and in the blocks after it.
    fn old_map(&mut self, entry: &Described, path: &[u8]) -> Result<(u64, Vec<(u64, u64)>)> {
        let nonsense = || TransferError::SparseMap(Shown::new(path));
        let header = entry.header.as_gnu().ok_or_else(nonsense)?;
        let size = number::unsigned(&header.realsize).ok_or_else(nonsense)?;
        let mut map = Vec::new();
        add_old(&mut map, &header.sparse).ok_or_else(nonsense)?;
        let mut more = header.isextended[0] != 0;
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes(), path)?;
            add_old(&mut map, block.sparse()).ok_or_else(nonsense)?;
            more = block.is_extended();
            if map.len() > sparse::EXTENTS_MAX {
                return Err(nonsense().into());
            }
        }
        Ok((size, map))
    }

    /// The map before the data, and how many bytes it takes.
    fn text_map(&mut self, path: &[u8], archived: u64) -> Result<(Vec<(u64, u64)>, u64)> {
        let mut text = sparse::TextMap::default();
        let mut taken = 0;
        loop {
            let mut block = [0; BLOCK];
            taken += BLOCK as u64;
            if taken > archived {
                return Err(TransferError::SparseMap(Shown::new(path)).into());
            }
            self.fill(&mut block, path)?;
            match text.add(&block) {
                Some(true) => {}
                Some(false) => return Ok((text.map(), taken)),
                None => return Err(TransferError::SparseMap(Shown::new(path)).into()),
            }
        }
    }

    /// The next header. `None` at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let read = self.fill_some(header.as_mut_bytes())?;
        if read == 0 && self.at > 0 {
            // GNU tar takes it, too. But an archive that was cut short may look like this.
            self.talk
                .leave_out(b"", "the archive has no end mark; it may be cut short")?;
            return Ok(None);
        }
        let block = header.as_bytes();
        if read == BLOCK && block.iter().all(|byte| *byte == 0) {
            self.at += read as u64;
            return self.tail().map(|()| None);
        }
        if read < BLOCK || !has_checksum(block) {
            return Err(self.no_header(&block[..read]).into());
        }
        self.at += read as u64;
        Ok(Some(header))
    }

    /// Reads what follows the end mark.
    fn tail(&mut self) -> Result<()> {
        let mut tail = Read::take(&mut *self.input, TAIL_MAX);
        io::copy(&mut tail, &mut io::sink())
            .map(drop)
            .map_err(|error| outside(error, READING))
    }

    fn no_header(&self, block: &[u8]) -> TransferError {
        match (self.at, block) {
            (0, []) => TransferError::NotTar("it is empty"),
            (0, block) => TransferError::NotTar(remedy(block)),
            (_, block) if block.len() < BLOCK => TransferError::CutShort(Shown::new(b"a header")),
            (at, _) => TransferError::Damaged {
                at,
                why: "the checksum of the header is wrong",
            },
        }
    }

    /// The data of an extended header, if there is room for it.
    fn extended(&mut self, at: u64, header: &Header, room: &mut u64) -> Result<Vec<u8>> {
        let size = number::unsigned(&header.as_old().size);
        let size = size.ok_or(TransferError::Damaged {
            at,
            why: "the size is no number",
        })?;
        if size > *room {
            return Err(TransferError::LargeHeader {
                at,
                size,
                max: *room,
            }
            .into());
        }
        *room -= size;
        let padded = size + padding(size);
        let mut data = vec![0; usize::try_from(padded).unwrap_or(0)];
        self.fill(&mut data, b"an extended header")?;
        data.truncate(usize::try_from(size).unwrap_or(0));
        Ok(data)
    }

    /// Reads as much as there is, up to a whole buffer.
    fn fill_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        while len < buf.len() {
            match self.input.read(&mut buf[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.talk.go_on()?,
                Err(error) => return Err(outside(error, READING)),
            }
        }
        Ok(len)
    }

    /// Reads a whole buffer, which belongs to the entry at `path`.
    fn fill(&mut self, buf: &mut [u8], path: &[u8]) -> Result<()> {
        let read = self.fill_some(buf)?;
        self.at += read as u64;
        if read < buf.len() {
            return Err(TransferError::CutShort(Shown::new(path)).into());
        }
        Ok(())
    }

    fn skip(&mut self, len: u64, path: &[u8]) -> Result<()> {
        let mut piece = [0; 16 * BLOCK];
        let mut left = len;
        while left > 0 {
            self.talk.go_on()?;
            let part = usize::try_from(left)
                .unwrap_or(piece.len())
                .min(piece.len());
            self.fill(&mut piece[..part], path)?;
            left -= part as u64;
        }
        Ok(())
    }
}

/// The data of a file in the archive.
struct FileData<'a, 'b, 't> {
    reader: &'a mut Reader<'b, 't>,
    left: u64,
    path: &'a [u8],
}

impl Data for FileData<'_, '_, '_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.left = self.left.saturating_sub(buf.len() as u64);
        self.reader.fill(buf, self.path)
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn add_old(map: &mut Vec<(u64, u64)>, extents: &[GnuSparseHeader]) -> Option<()> {
    for extent in extents {
        // An unused one, not one of length zero.
        if extent.offset[0] == 0 && extent.numbytes[0] == 0 {
            break;
        }
        map.push((
            number::unsigned(&extent.offset)?,
            number::unsigned(&extent.numbytes)?,
        ));
    }
    Some(())
}

/// Whether the checksum of a header is right: the sum of its bytes with blanks
/// in place of the checksum. Some old programs took the bytes as signed.
fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let blanked = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let unsigned: i64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| i64::from(blanked(at, *byte)))
        .sum();
    let signed: i64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| i64::from(blanked(at, *byte).cast_signed()))
        .sum();
    number::field(&block[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// What to do with a file that begins like this.
fn remedy(block: &[u8]) -> &'static str {
    match block {
        [0x1f, 0x8b, ..] => {
            "it is compressed with gzip: pipe it through `gzip -dc` into `cairn import -`"
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            "it is compressed with xz: pipe it through `xz -dc` into `cairn import -`"
        }
        [b'B', b'Z', b'h', ..] => {
            "it is compressed with bzip2: pipe it through `bzip2 -dc` into `cairn import -`"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "it is compressed with zstd: pipe it through `zstd -dc` into `cairn import -`"
        }
        [b'P', b'K', 3, 4, ..] => "it is a zip archive: unpack it, and import the directory",
        _ => "its first block is no header",
    }
}
