//! What a tool reads: a file of the store in pieces, a file of the
//! interpreter's tree, or the standard input.

use std::io;

use bashkit::CommandInput;
use cairn_protocol::NodeKind;
use memchr::memchr;

use super::call::{Call, Spot, plain};
use crate::shell::client::Loaded;
use crate::shell::wire::{Change, Opened};

/// Bytes that are read of a file at first: many files are read to their first lines only.
const FIRST: usize = 32 << 10;

/// Bytes that are read after those: as many as the connection holds while the
/// host already reads the next ones.
const IN_ORDER: usize = 128 << 10;

/// What has no content and keeps none.
const NOTHING: &str = "/dev/null";

/// Something to read.
pub(crate) enum Source<'a> {
    /// A file of the store.
    File {
        call: &'a Call<'a>,
        opened: Opened,
        at: u64,
        next: usize,
    },
    /// Bytes that are here.
    Memory(Vec<u8>, usize),
    /// The standard input.
    Input(CommandInput),
}

impl<'a> Source<'a> {
    /// Opens what an operand names; `-` is the standard input.
    pub(crate) async fn open(call: &'a Call<'a>, operand: &str) -> io::Result<Self> {
        if operand == "-" || is_input(&call.path(operand)) {
            return Ok(Self::Input(call.context.stdin.clone()));
        }
        match call.find(operand, true).await? {
            Spot::Store(path) => {
                let opened = call.place.client.open(path)?;
                Ok(Self::opened(call, opened, FIRST))
            }
            tree @ Spot::Tree(_) => Self::at(call, tree).await,
        }
    }

    fn opened(call: &'a Call<'a>, opened: Opened, next: usize) -> Self {
        Self::File {
            call,
            opened,
            at: 0,
            next,
        }
    }

    /// Opens what will be read to its end. A small file is read at once.
    pub(crate) async fn at(call: &'a Call<'a>, spot: Spot) -> io::Result<Self> {
        match spot {
            Spot::Store(path) => Ok(match call.place.client.load_or_open(path)? {
                Loaded::Whole(bytes) => Self::Memory(bytes, 0),
                Loaded::Opened(opened) => Self::opened(call, opened, IN_ORDER),
            }),
            Spot::Tree(path) if path.as_os_str() == NOTHING => Ok(Self::Memory(Vec::new(), 0)),
            Spot::Tree(path) => {
                let bytes = call.context.fs.read_file(&path).await.map_err(plain)?;
                Ok(Self::Memory(bytes, 0))
            }
        }
    }

    /// The next piece; none at the end.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::File {
                call,
                opened,
                at,
                next,
            } => {
                let client = &call.place.client;
                let piece = if *next == IN_ORDER {
                    client.read_on(opened.ino, *at, IN_ORDER)?
                } else {
                    client.read(opened.ino, *at, *next)?
                };
                *at += piece.len() as u64;
                *next = IN_ORDER;
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Memory(bytes, at) => {
                let rest = bytes.split_off((*at).min(bytes.len()));
                *bytes = Vec::new();
                *at = 0;
                Ok((!rest.is_empty()).then_some(rest))
            }
            Self::Input(input) => input.read_chunk().await.map_err(plain),
        }
    }

    /// All that is left.
    pub(crate) async fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(mut piece) = self.read().await? {
            if all.is_empty() {
                all = piece;
            } else {
                all.append(&mut piece);
            }
        }
        Ok(all)
    }

    /// The size, where it is known before reading.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::File { opened, .. } => Some(opened.size),
            Self::Memory(bytes, at) => Some((bytes.len() - at.min(&bytes.len())) as u64),
            Self::Input(_) => None,
        }
    }

    /// Goes on from here, where the size is known.
    pub(crate) fn seek(&mut self, to: u64) {
        match self {
            Self::File { at, .. } => *at = to,
            Self::Memory(_, at) => *at = usize::try_from(to).unwrap_or(usize::MAX),
            Self::Input(_) => {}
        }
    }

    /// A part, where the size is known.
    pub(crate) fn range(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File { call, opened, .. } => call.place.client.read(opened.ino, offset, len),
            Self::Memory(bytes, _) => {
                let from = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let to = from.saturating_add(len).min(bytes.len());
                Ok(bytes[from..to].to_vec())
            }
            Self::Input(_) => Ok(Vec::new()),
        }
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        if let Self::File { call, opened, .. } = self {
            call.place.client.close(opened.ino);
        }
    }
}

fn is_input(path: &std::path::Path) -> bool {
    matches!(path.to_str(), Some("/dev/stdin" | "/dev/fd/0"))
}

/// Something to write a file to.
pub(crate) enum Sink<'a> {
    /// A file of the store, and where it goes on.
    File {
        call: &'a Call<'a>,
        path: Vec<u8>,
        ino: u64,
        at: u64,
    },
    /// A file of the store that is added to.
    End { call: &'a Call<'a>, path: Vec<u8> },
    /// A file of the interpreter's tree.
    Tree {
        call: &'a Call<'a>,
        path: std::path::PathBuf,
    },
    /// `/dev/null`.
    Nothing,
}

impl<'a> Sink<'a> {
    /// Opens a file to write it from its beginning.
    pub(crate) async fn create(
        call: &'a Call<'a>,
        operand: &str,
        truncate: bool,
    ) -> io::Result<Self> {
        match call.find(operand, true).await? {
            Spot::Store(path) => {
                let opened = call.place.client.create(path.clone(), truncate)?;
                Ok(Self::File {
                    call,
                    path,
                    ino: opened.ino,
                    at: 0,
                })
            }
            Spot::Tree(path) if path.as_os_str() == NOTHING => Ok(Self::Nothing),
            Spot::Tree(path) => {
                let fs = &call.context.fs;
                // Where it is made, or emptied; what is kept is only added to.
                let made = if truncate {
                    fs.write_file(&path, &[]).await
                } else {
                    fs.append_file(&path, &[]).await
                };
                made.map_err(plain)?;
                Ok(Self::Tree { call, path })
            }
        }
    }

    /// Opens a file to add to its end.
    pub(crate) async fn append(call: &'a Call<'a>, operand: &str) -> io::Result<Self> {
        match call.find(operand, true).await? {
            Spot::Store(path) => {
                call.place.client.append(&path, &[])?;
                Ok(Self::End { call, path })
            }
            Spot::Tree(path) if path.as_os_str() == NOTHING => Ok(Self::Nothing),
            Spot::Tree(path) => {
                let fs = &call.context.fs;
                fs.append_file(&path, &[]).await.map_err(plain)?;
                Ok(Self::Tree { call, path })
            }
        }
    }

    /// Writes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File { call, ino, at, .. } => {
                call.place.client.write(*ino, *at, bytes)?;
                *at += bytes.len() as u64;
                Ok(())
            }
            Self::End { call, path } => call.place.client.append(path, bytes),
            Self::Tree { call, path } => {
                let fs = &call.context.fs;
                fs.append_file(path, bytes).await.map_err(plain)
            }
            Self::Nothing => Ok(()),
        }
    }

    /// Goes on from here.
    pub(crate) fn seek(&mut self, to: u64) {
        if let Self::File { at, .. } = self {
            *at = to;
        }
    }

    /// Gives the file this size.
    pub(crate) async fn cut(&mut self, size: u64) -> io::Result<()> {
        match self {
            Self::File { call, path, .. } => {
                let change = Change {
                    size: Some(size),
                    ..Change::default()
                };
                call.place.client.set(path.clone(), change)
            }
            Self::End { .. } | Self::Nothing => Ok(()),
            Self::Tree { call, path } => {
                let fs = &call.context.fs;
                let mut bytes = fs.read_file(path).await.map_err(plain)?;
                bytes.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
                fs.write_file(path, &bytes).await.map_err(plain)
            }
        }
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        if let Self::File { call, ino, .. } = self {
            call.place.client.close(*ino);
        }
    }
}

/// Lines of a source, each with its end.
pub(crate) struct Lines<'a> {
    source: Source<'a>,
    end: u8,
    buffer: Vec<u8>,
    at: usize,
    /// How far no end was found.
    searched: usize,
    over: bool,
}

impl<'a> Lines<'a> {
    /// Lines that end in `end`.
    pub(crate) fn new(source: Source<'a>, end: u8) -> Self {
        Self {
            source,
            end,
            buffer: Vec::new(),
            at: 0,
            searched: 0,
            over: false,
        }
    }

    /// The next line with its end; the last one may have none.
    pub(crate) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let end = self.end;
            let rest = &self.buffer[self.searched..];
            if let Some(found) = memchr(end, rest) {
                let from = self.at;
                self.at = self.searched + found + 1;
                self.searched = self.at;
                return Ok(Some(&self.buffer[from..self.at]));
            }
            self.searched = self.buffer.len();
            if self.over {
                let from = std::mem::replace(&mut self.at, self.buffer.len());
                return Ok((from < self.buffer.len()).then(|| &self.buffer[from..]));
            }
            self.buffer.drain(..self.at);
            self.searched -= self.at;
            self.at = 0;
            match self.source.read().await? {
                Some(mut piece) if self.buffer.is_empty() => {
                    std::mem::swap(&mut self.buffer, &mut piece);
                    self.searched = 0;
                }
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => self.over = true,
            }
        }
    }
}

impl Lines<'_> {
    /// Whether no line comes any more.
    pub(crate) async fn is_over(&mut self) -> io::Result<bool> {
        loop {
            if self.at < self.buffer.len() {
                return Ok(false);
            }
            if self.over {
                return Ok(true);
            }
            (self.at, self.searched) = (0, 0);
            self.buffer.clear();
            match self.source.read().await? {
                Some(piece) => self.buffer = piece,
                None => self.over = true,
            }
        }
    }
}

/// Whether a node can be read.
pub(crate) fn is_file(kind: NodeKind) -> bool {
    kind == NodeKind::File
}
