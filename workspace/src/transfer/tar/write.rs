//! Writes an archive, from front to end.

use std::io::{BufWriter, Write};
use std::ops::Range;

use ::tar::Header;
use cairn::NodeKind;

use crate::failure::{Failure, Result};
use crate::transfer::talk::outside;
use crate::transfer::{Body, Data, Node, Sink, Talk, pieces, split, stored};

use super::{BLOCK, SOCKET_RECORD, number, padding, pax, sparse};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// What is too large for the eleven octal digits of a size or a time.
const OCTAL_11: u64 = 1 << 33;
/// What is too large for the seven of an owner.
const OCTAL_7: u32 = 1 << 21;
/// Blocks in a record: what `tar` writes at a time, and expects the end of.
const RECORD_BLOCKS: u64 = 20;

/// A sink that makes an archive.
pub(crate) struct Writer<'a, 't, W: Write> {
    out: BufWriter<W>,
    talk: &'a Talk<'t>,
    /// It goes to another process of ours, and keeps what others would not know.
    between: bool,
    /// Bytes written.
    at: u64,
    buf: Vec<u8>,
}

impl<'a, 't, W: Write> Writer<'a, 't, W> {
    /// An archive for everyone, or one between two of our processes.
    pub(crate) fn new(out: W, talk: &'a Talk<'t>, between: bool) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            talk,
            between,
            at: 0,
            buf: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(failed)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        let len = usize::try_from(padding(size)).unwrap_or(0);
        self.write(&zeros[..len])
    }

    /// Writes the header of an entry, with an extended one before it if there are records.
    fn headers(&mut self, mut header: Header, records: &[u8]) -> Result<()> {
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            let name = [b"PaxHeaders/", text(&header.as_old().name)].concat();
            set_name(&mut extended.as_old_mut().name, &name);
            extended.as_old_mut().linkflag = *b"x";
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_size(records.len() as u64);
            extended.set_cksum();
            self.write(extended.as_bytes())?;
            self.write(records)?;
            self.pad(records.len() as u64)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn file(
        &mut self,
        node: &Node,
        size: u64,
        extents: &[Range<u64>],
        data: &mut dyn Data,
    ) -> Result<()> {
        let (mut header, mut records) = describe(node, &node.path);
        header.as_old_mut().linkflag = *b"0";
        let (map, bytes) = if stored(extents) == size {
            (Vec::new(), size)
        } else {
            let map = sparse::map_text(extents, size);
            pax::put(&mut records, b"GNU.sparse.major", b"1");
            pax::put(&mut records, b"GNU.sparse.minor", b"0");
            pax::put(&mut records, b"GNU.sparse.name", &node.path);
            pax::put(
                &mut records,
                b"GNU.sparse.realsize",
                size.to_string().as_bytes(),
            );
            set_name(
                &mut header.as_old_mut().name,
                &[b"GNUSparseFile.0/", split(&node.path).1].concat(),
            );
            let bytes = map.len() as u64 + stored(extents);
            (map, bytes)
        };
        header.set_size(bytes);
        if bytes >= OCTAL_11 {
            pax::put(&mut records, b"size", bytes.to_string().as_bytes());
        }
        self.headers(header, &records)?;
        self.write(&map)?;
        let mut buf = std::mem::take(&mut self.buf);
        let copied = pieces(extents, data, &mut buf, &mut |_, piece| self.write(piece));
        self.buf = buf;
        copied?;
        self.pad(bytes)
    }
}

impl<W: Write> Sink for Writer<'_, '_, W> {
    fn put(&mut self, node: &Node, data: &mut dyn Data) -> Result<()> {
        let name = match (&node.body, node.path.as_slice()) {
            (Body::Dir, b"") => b"./".to_vec(),
            (Body::Dir, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        let (mut header, mut records) = describe(node, &name);
        match &node.body {
            Body::File { size, extents } => return self.file(node, *size, extents, data),
            Body::Dir => header.as_old_mut().linkflag = *b"5",
            Body::Symlink(target) => {
                header.as_old_mut().linkflag = *b"2";
                set_link(&mut header, &mut records, target);
            }
            Body::Link(target) => {
                header.as_old_mut().linkflag = *b"1";
                set_link(&mut header, &mut records, target);
            }
            Body::Special { kind, rdev } => {
                let flag = match kind {
                    NodeKind::CharDevice => b"3",
                    NodeKind::BlockDevice => b"4",
                    NodeKind::Socket if !self.between => {
                        return self
                            .talk
                            .leave_out(&node.path, "left out: an archive cannot hold a socket");
                    }
                    _ => b"6",
                };
                if *kind == NodeKind::Socket {
                    pax::put(&mut records, SOCKET_RECORD.as_bytes(), b"1");
                }
                header.as_old_mut().linkflag = *flag;
                set_device(&mut header, u64::from(*rdev));
            }
        }
        self.headers(header, &records)
    }

    fn finish(&mut self) -> Result<()> {
        let blocks = self.at / BLOCK as u64 + 2;
        let record = blocks.next_multiple_of(RECORD_BLOCKS) - blocks + 2;
        for _ in 0..record {
            self.write(&[0; BLOCK])?;
        }
        self.out.flush().map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Failure {
    outside(error, "cannot write the archive")
}

/// A header with what all entries have, and the records for what it has no room for.
fn describe(node: &Node, name: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    let mut records = Vec::new();
    let meta = &node.meta;
    let sparse = matches!(&node.body, Body::File { size, extents } if stored(extents) < *size);
    set_name(&mut header.as_old_mut().name, name);
    if name.len() > header.as_old().name.len() && !sparse {
        pax::put(&mut records, b"path", name);
    }
    header.set_mode(u32::from(meta.perm));
    for (key, id) in [(&b"uid"[..], meta.uid), (b"gid", meta.gid)] {
        if id >= OCTAL_7 {
            pax::put(&mut records, key, id.to_string().as_bytes());
        }
    }
    header.set_uid(u64::from(meta.uid));
    header.set_gid(u64::from(meta.gid));
    header.set_size(0);
    let seconds = u64::try_from(meta.mtime.seconds())
        .ok()
        .filter(|seconds| *seconds < OCTAL_11);
    header.set_mtime(seconds.unwrap_or(0));
    if seconds.is_none() || meta.mtime.nanos() > 0 {
        pax::put(
            &mut records,
            b"mtime",
            number::time_text(meta.mtime).as_bytes(),
        );
    }
    set_device(&mut header, 0);
    if !matches!(node.body, Body::Link(_)) {
        for (name, value) in &node.xattrs {
            pax::put_xattr(&mut records, name, value);
        }
    }
    (header, records)
}

/// As much of a name as there is room for.
fn set_name(field: &mut [u8; 100], name: &[u8]) {
    let len = name.len().min(field.len());
    field.fill(0);
    field[..len].copy_from_slice(&name[..len]);
}

fn set_link(header: &mut Header, records: &mut Vec<u8>, target: &[u8]) {
    set_name(&mut header.as_old_mut().linkname, target);
    if target.len() > header.as_old().linkname.len() {
        pax::put(records, b"linkpath", target);
    }
}

fn set_device(header: &mut Header, rdev: u64) {
    if let Some(header) = header.as_ustar_mut() {
        header.set_device_major(rustix::fs::major(rdev));
        header.set_device_minor(rustix::fs::minor(rdev));
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
