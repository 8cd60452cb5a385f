//! The worker's end of the connection: asks the host, and waits for the answer.
//!
//! The interpreter runs on one thread, which has nothing to do while it waits.
//! A worker whose host is gone ends at once.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::ahead::Wire;
use super::behind::{Behind, CHUNK};
use super::listed::Listed;
use super::wire::{self, Answer, Ask, Change, Done, FromWorker, Node, Opened, PIECE, ToWorker};

/// Permissions of a new file, before the umask.
const NEW_FILE: u16 = 0o666;
/// Permissions of a new directory, before the umask.
const NEW_DIR: u16 = 0o777;
/// What a shell begins with.
pub(crate) const UMASK: u16 = 0o022;

/// The connection to the host.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Mutex<Wire>,
    behind: Mutex<Option<Behind>>,
    listed: Mutex<Listed>,
    umask: AtomicU16,
    whole_file_bytes: AtomicU64,
}

/// A file to read.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// Its content.
    Whole(Vec<u8>),
    /// It is open, as it is large.
    Opened(Opened),
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            wire: Mutex::new(Wire::new(stream)?),
            behind: Mutex::default(),
            listed: Mutex::default(),
            umask: AtomicU16::new(UMASK),
            whole_file_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn umask(&self) -> u16 {
        self.umask.load(Ordering::Relaxed)
    }

    pub(crate) fn set_umask(&self, umask: u16) {
        self.umask.store(umask & 0o777, Ordering::Relaxed);
    }

    /// A new script knows nothing of what an earlier one has listed.
    pub(crate) fn begin(&self) {
        self.listed.lock().forget();
    }

    pub(crate) fn set_whole_file_bytes(&self, bytes: u64) {
        self.whole_file_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Says something that has no answer.
    pub(crate) fn tell(&self, message: &FromWorker, bytes: &[u8]) {
        self.wire.lock().send(message, bytes);
    }

    /// Waits for what the host says without being asked.
    pub(crate) fn next(&self) -> (ToWorker, Vec<u8>) {
        self.wire.lock().receive()
    }

    /// Sends output to its reader.
    pub(crate) fn output(&self, is_error: bool, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.tell(&FromWorker::Output { is_error }, piece);
        }
    }

    /// Tells that the script has ended.
    pub(crate) fn done(&self, mut done: Done) {
        if let Err(error) = self.write_behind(false) {
            self.output(true, format!("cairn: write error: {error}\n").as_bytes());
            done.code = done.code.max(1);
        }
        self.tell(&FromWorker::Done(done), &[]);
    }

    /// Asks, and waits for the answer. What was held back is written before.
    pub(crate) fn ask(&self, ask: Ask, bytes: &[u8]) -> io::Result<(Answer, Vec<u8>)> {
        let looks = matches!(
            ask,
            Ask::Stat(_)
                | Ask::List(..)
                | Ask::Load(_)
                | Ask::LoadSome(_)
                | Ask::Open(_)
                | Ask::Read { .. }
                | Ask::Close(_)
        );
        self.write_behind(looks)?;
        self.ask_now(ask, bytes)
    }

    fn ask_now(&self, ask: Ask, bytes: &[u8]) -> io::Result<(Answer, Vec<u8>)> {
        // What was read ahead may be otherwise after everything else.
        let keeps = matches!(ask, Ask::Append { .. });
        let (answer, change) = {
            let mut wire = self.wire.lock();
            wire.send(&FromWorker::Ask(ask), bytes);
            if !keeps {
                wire.ahead = None;
            }
            wire.answer()
        };
        self.listed.lock().heard(change);
        answer
    }

    /// Writes what was held back. More may be added to the same file if it
    /// `goes_on`.
    pub(crate) fn write_behind(&self, goes_on: bool) -> io::Result<()> {
        let (path, bytes) = {
            let mut behind = self.behind.lock();
            let Some(held) = &mut *behind else {
                return Ok(());
            };
            let taken = (held.path.clone(), held.take());
            if !goes_on {
                *behind = None;
            }
            taken
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let perm = NEW_FILE & !self.umask();
        self.add(&path, perm, &bytes).map(drop)
    }

    fn does(&self, ask: Ask, bytes: &[u8]) -> io::Result<()> {
        self.ask(ask, bytes).map(drop)
    }

    fn opens(&self, ask: Ask) -> io::Result<Opened> {
        match self.ask(ask, &[])? {
            (Answer::Opened(opened), _) => Ok(opened),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn stat(&self, path: Vec<u8>) -> io::Result<Node> {
        let behind = self.behind.lock();
        if let Some(node) = behind.as_ref().and_then(|held| held.node(&path)) {
            return Ok(node);
        }
        drop(behind);
        if let Some(node) = self.listed.lock().get(&path) {
            return Ok(node);
        }
        match self.ask(Ask::Stat(path), &[])? {
            (Answer::Node(node), _) => Ok(node),
            _ => Err(unexpected()),
        }
    }

    /// All entries of a directory, in no order.
    pub(crate) fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Node)>> {
        let (mut all, mut cookie) = (Vec::new(), Some(0));
        while let Some(from) = cookie {
            let (answer, _) = self.ask(Ask::List(path.to_vec(), from), &[])?;
            let Answer::Entries(entries, next) = answer else {
                return Err(unexpected());
            };
            self.listed.lock().add(path, &entries);
            all.extend(entries);
            cookie = next;
        }
        Ok(all)
    }

    /// A whole file, if it is not larger than one may be that is read so.
    pub(crate) fn load(&self, path: Vec<u8>) -> io::Result<Vec<u8>> {
        match self.load_or_open(path)? {
            Loaded::Whole(bytes) => Ok(bytes),
            Loaded::Opened(opened) => {
                let loaded = self.load_opened(opened);
                self.close(opened.ino);
                loaded
            }
        }
    }

    /// A small file; a larger one is opened.
    pub(crate) fn load_or_open(&self, path: Vec<u8>) -> io::Result<Loaded> {
        match self.ask(Ask::Load(path), &[])? {
            (Answer::Bytes, bytes) => Ok(Loaded::Whole(bytes)),
            (Answer::Opened(opened), _) => Ok(Loaded::Opened(opened)),
            _ => Err(unexpected()),
        }
    }

    /// Small files, as far as they are there and not too large together.
    pub(crate) fn load_some(&self, paths: Vec<Vec<u8>>) -> io::Result<Vec<Option<Vec<u8>>>> {
        let (Answer::Some(lens), bytes) = self.ask(Ask::LoadSome(paths), &[])? else {
            return Err(unexpected());
        };
        let mut rest = bytes.as_slice();
        let take = |len: Option<u32>| {
            let (content, after) = rest.split_at_checked(len? as usize)?;
            rest = after;
            Some(content.to_vec())
        };
        Ok(lens.into_iter().map(take).collect())
    }

    fn load_opened(&self, opened: Opened) -> io::Result<Vec<u8>> {
        let most = self.whole_file_bytes.load(Ordering::Relaxed);
        if opened.size > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("File too large: this tool reads files of at most {most} bytes"),
            ));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(opened.size).unwrap_or(0));
        loop {
            let piece = self.read(opened.ino, bytes.len() as u64, PIECE)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece);
        }
    }

    pub(crate) fn open(&self, path: Vec<u8>) -> io::Result<Opened> {
        self.opens(Ask::Open(path))
    }

    pub(crate) fn create(&self, path: Vec<u8>, truncate: bool) -> io::Result<Opened> {
        self.opens(Ask::Create {
            path,
            perm: NEW_FILE & !self.umask(),
            truncate,
        })
    }

    /// Closes a file. That it cannot fail is why nobody needs to look.
    pub(crate) fn close(&self, ino: u64) {
        let _ = self.ask(Ask::Close(ino), &[]);
    }

    pub(crate) fn read(&self, ino: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = u32::try_from(len.min(PIECE)).unwrap_or(u32::MAX);
        Ok(self.ask(Ask::Read { ino, offset, len }, &[])?.1)
    }

    /// Reads a part of an open file, and has the one after it read meanwhile.
    pub(crate) fn read_on(&self, ino: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut wire = self.wire.lock();
        let Some(ahead) = wire.ahead.take_if(|ahead| ahead.is(ino, offset, len)) else {
            drop(wire);
            let bytes = self.read(ino, offset, len)?;
            self.wire.lock().ask_ahead(ino, offset, len, &bytes);
            return Ok(bytes);
        };
        let (answer, change) = if let Some(answer) = ahead.answer {
            (answer, None)
        } else {
            let (answer, change) = wire.answer();
            (answer, Some(change))
        };
        let bytes = answer?.1;
        wire.ask_ahead(ino, offset, len, &bytes);
        drop(wire);
        if let Some(change) = change {
            self.listed.lock().heard(change);
        }
        Ok(bytes)
    }

    pub(crate) fn write(&self, ino: u64, mut offset: u64, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.does(Ask::Write { ino, offset }, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn append(&self, path: &[u8], bytes: &[u8]) -> io::Result<()> {
        if let Some(held) = &mut *self.behind.lock()
            && held.takes(path, bytes)
        {
            held.add(bytes);
            return Ok(());
        }
        let perm = NEW_FILE & !self.umask();
        self.write_behind(false)?;
        let mut node = self.add(path, perm, &bytes[..bytes.len().min(PIECE)])?;
        for piece in bytes.chunks(PIECE).skip(1) {
            node = self.add(path, perm, piece)?;
        }
        if bytes.len() == CHUNK {
            *self.behind.lock() = Some(Behind::new(path, node));
        }
        Ok(())
    }

    /// Adds to the end of a file. Returns its attributes.
    fn add(&self, path: &[u8], perm: u16, bytes: &[u8]) -> io::Result<Node> {
        let to = path.to_vec();
        match self.ask_now(Ask::Append { path: to, perm }, bytes)? {
            (Answer::Appended(node, change), _) => {
                self.listed.lock().keep(path, node, change);
                Ok(node)
            }
            _ => Err(unexpected()),
        }
    }

    /// Gives a file another content at once, or makes it.
    pub(crate) fn put(&self, path: Vec<u8>, bytes: &[u8]) -> io::Result<()> {
        let perm = NEW_FILE & !self.umask();
        if bytes.len() <= PIECE {
            return self.does(Ask::Put { path, perm }, bytes);
        }
        let staged = self.opens(Ask::Stage)?.ino;
        let ask = Ask::Replace { path, perm, staged };
        let done = self
            .write(staged, 0, bytes)
            .and_then(|()| self.does(ask, &[]));
        self.close(staged);
        done
    }

    pub(crate) fn make_dir(&self, path: Vec<u8>, all: bool) -> io::Result<()> {
        self.does(Ask::MakeDir(path, NEW_DIR & !self.umask(), all), &[])
    }

    pub(crate) fn make_fifo(&self, path: Vec<u8>, perm: u16) -> io::Result<()> {
        self.does(Ask::MakeFifo(path, perm & !self.umask()), &[])
    }

    pub(crate) fn remove(&self, path: Vec<u8>, all: bool) -> io::Result<()> {
        self.does(Ask::Remove(path, all), &[])
    }

    pub(crate) fn rename(&self, from: Vec<u8>, to: Vec<u8>) -> io::Result<()> {
        self.does(Ask::Rename(from, to), &[])
    }

    pub(crate) fn copy(&self, from: Vec<u8>, to: Vec<u8>) -> io::Result<()> {
        self.does(Ask::Copy(from, to, self.umask()), &[])
    }

    pub(crate) fn link(&self, from: Vec<u8>, to: Vec<u8>) -> io::Result<()> {
        self.does(Ask::Link(from, to), &[])
    }

    pub(crate) fn symlink(&self, target: Vec<u8>, path: Vec<u8>) -> io::Result<()> {
        self.does(Ask::Symlink(target, path), &[])
    }

    pub(crate) fn read_link(&self, path: Vec<u8>) -> io::Result<Vec<u8>> {
        match self.ask(Ask::ReadLink(path), &[])? {
            (Answer::Target(target), _) => Ok(target),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn set(&self, path: Vec<u8>, change: Change) -> io::Result<()> {
        self.does(Ask::Set(path, change), &[])
    }

    /// Bytes in all, bytes free, nodes.
    pub(crate) fn space(&self) -> io::Result<(u64, u64, u64)> {
        match self.ask(Ask::Space, &[])? {
            (Answer::Space(total, free, nodes), _) => Ok((total, free, nodes)),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> io::Error {
    wire::malformed("the host answered something else")
}
