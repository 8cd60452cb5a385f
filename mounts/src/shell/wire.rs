//! What a worker and its host say to each other, and the frames it travels in.
//!
//! A frame is two lengths (4 bytes each, little endian), a message in postcard
//! of at most [`MESSAGE_MAX`] bytes, and bytes that belong to it, of at most
//! [`BYTES_MAX`]. Contents of files and output travel as such bytes: nothing
//! looks at each of them.
//!
//! The worker asks and waits: after an [`Ask`] comes nothing else from it until
//! it has its [`Answer`]. Output and the end of a run are told without an answer.

use std::io::{self, Read, Write};

use cairn_engine::{Attr, Ino};
use cairn_protocol::{NodeKind, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Changes with every change of what is said here.
pub(crate) const VERSION: u32 = 2;
/// Most bytes of a message.
pub(crate) const MESSAGE_MAX: usize = 1 << 20;
/// Most bytes that go with a message.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// Bytes of a file that are read or written at a time.
pub(crate) const PIECE: usize = 1 << 20;
/// Bytes of a frame before the message.
pub(crate) const HEAD: usize = 8;

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Its [`VERSION`], before everything else.
    Hello(u32),
    /// It needs this.
    Ask(Ask),
    /// The bytes are for the standard output, or the standard error.
    Output {
        /// They are for the standard error.
        is_error: bool,
    },
    /// The script has ended.
    Done(Done),
}

/// What a host says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The bytes are a part of the next run's standard input.
    Input,
    /// Run the script that the bytes are.
    Run(Box<Run>),
    /// The answer to an [`Ask`], and the number of the last change of the
    /// replica that it may tell of.
    Answer(Answer, u64),
}

/// How a script is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Counts up; what is cancelled is named by it.
    pub(crate) number: u64,
    /// The root of the workspace in the shell's names.
    pub(crate) root: String,
    /// The working directory.
    pub(crate) cwd: Option<String>,
    /// Variables.
    pub(crate) env: Vec<(String, String)>,
    /// What `$0` is.
    pub(crate) name: String,
    /// What `$1` and so on are.
    pub(crate) arguments: Vec<String>,
    /// Variables, functions and the working directory are those that the last
    /// run of this worker left.
    pub(crate) session: bool,
    /// Commands that the host performs.
    pub(crate) commands: Vec<String>,
    /// Limits.
    pub(crate) limits: super::Limits,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The exit status.
    pub(crate) code: i32,
    /// What limit ended it, if one did.
    pub(crate) limit: Option<super::Limit>,
    /// It was cancelled.
    pub(crate) cancelled: bool,
    /// The working directory at the end.
    pub(crate) cwd: String,
}

/// A file that is written as a whole or read in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Its inode.
    pub(crate) ino: u64,
    /// Its size, in bytes.
    pub(crate) size: u64,
}

/// What a worker needs of the store. Paths are from the root of the replica
/// on; no symbolic link in them is followed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// The attributes of a node.
    Stat(Vec<u8>),
    /// The entries of a directory after a cookie.
    List(Vec<u8>, u64),
    /// The content of a file, if it has at most [`PIECE`] bytes; else it is opened.
    Load(Vec<u8>),
    /// The contents of small files, of which at most [`PIECE`] bytes in all.
    LoadSome(Vec<Vec<u8>>),
    /// Opens a file to read it.
    Open(Vec<u8>),
    /// Opens a file to write it; makes it, with these permissions, if it is not there.
    Create {
        /// The path.
        path: Vec<u8>,
        /// Permissions of a new file.
        perm: u16,
        /// Empty it.
        truncate: bool,
    },
    /// Makes a file without a name, for [`Self::Replace`].
    Stage,
    /// Closes a file that was opened.
    Close(u64),
    /// Part of an open file.
    Read {
        /// The file.
        ino: u64,
        /// Where it begins.
        offset: u64,
        /// Most bytes.
        len: u32,
    },
    /// Writes the bytes into an open file.
    Write {
        /// The file.
        ino: u64,
        /// Where.
        offset: u64,
    },
    /// Adds the bytes to the end of a file; makes it if it is not there.
    Append {
        /// The path.
        path: Vec<u8>,
        /// Permissions of a new file.
        perm: u16,
    },
    /// Gives a file the bytes as its content, at once; makes it if it is not there.
    Put {
        /// The path.
        path: Vec<u8>,
        /// Permissions of a new file.
        perm: u16,
    },
    /// Gives a file the content of one that was staged.
    Replace {
        /// The path.
        path: Vec<u8>,
        /// Permissions of a new file.
        perm: u16,
        /// The staged file.
        staged: u64,
    },
    /// Makes a directory, and with `true` those above it.
    MakeDir(Vec<u8>, u16, bool),
    /// Removes a node, and with `true` all below it.
    Remove(Vec<u8>, bool),
    /// Moves a node.
    Rename(Vec<u8>, Vec<u8>),
    /// Copies a file: the content is shared. A new one gets the permissions of
    /// the old one without these.
    Copy(Vec<u8>, Vec<u8>, u16),
    /// Gives a file another name.
    Link(Vec<u8>, Vec<u8>),
    /// Makes a symbolic link with this target, at this path.
    Symlink(Vec<u8>, Vec<u8>),
    /// What a symbolic link says.
    ReadLink(Vec<u8>),
    /// Makes a named pipe.
    MakeFifo(Vec<u8>, u16),
    /// Changes attributes.
    Set(Vec<u8>, Change),
    /// Space and counts.
    Space,
    /// Performs a command of the host with the bytes as its standard input.
    Command(Call),
}

/// A call of a command that the host performs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
}

/// A change of attributes. What is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) perm: Option<u16>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) mtime: Option<Timestamp>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The attributes.
    Node(Node),
    /// Entries of a directory, and the cookie to go on with, if there are more.
    Entries(Vec<(Vec<u8>, Node)>, Option<u64>),
    /// They were added to the file; its attributes, which no later change than
    /// this one made.
    Appended(Node, u64),
    /// The bytes are the content.
    Bytes,
    /// How many of the bytes are the content of each; none where it does not
    /// fit, or there is no such file.
    Some(Vec<Option<u32>>),
    /// The file is open.
    Opened(Opened),
    /// What the link says.
    Target(Vec<u8>),
    /// Bytes in all, bytes free, nodes.
    Space(u64, u64, u64),
    /// A command ended with a status; so many of the bytes are its standard
    /// output, and the rest is its standard error.
    Performed(i32, u64),
    /// It failed, with an error number and, where the number does not say it
    /// all, a reason.
    Failed(i32, Option<String>),
}

/// Attributes, as they travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    pub(crate) kind: NodeKind,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) btime: Timestamp,
}

impl From<&Attr> for Node {
    fn from(attr: &Attr) -> Self {
        let Ino(ino) = attr.ino;
        Self {
            ino,
            kind: attr.kind,
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.btime,
        }
    }
}

/// The lengths at the beginning of a frame, of which it must be the whole.
pub(crate) fn lengths(head: [u8; HEAD]) -> io::Result<(usize, usize)> {
    let number = |at: usize| {
        let part = head[at..].first_chunk().copied();
        part.map_or(u32::MAX, u32::from_le_bytes) as usize
    };
    let (message, bytes) = (number(0), number(4));
    if message > MESSAGE_MAX || bytes > BYTES_MAX {
        return Err(malformed("a frame is longer than any may be"));
    }
    Ok((message, bytes))
}

/// Sends a frame.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize, bytes: &[u8]) -> io::Result<()> {
    let encoded = postcard::to_extend(message, vec![0; HEAD]).map_err(malformed)?;
    let len = |len: usize, most: usize| {
        let short = u32::try_from(len).ok().filter(|_| len <= most);
        short.ok_or_else(|| malformed("a frame is longer than any may be"))
    };
    let mut frame = encoded;
    let message = len(frame.len() - HEAD, MESSAGE_MAX)?;
    frame[..4].copy_from_slice(&message.to_le_bytes());
    frame[4..HEAD].copy_from_slice(&len(bytes.len(), BYTES_MAX)?.to_le_bytes());
    if bytes.len() <= 64 << 10 {
        frame.extend_from_slice(bytes);
        return to.write_all(&frame);
    }
    to.write_all(&frame)?;
    to.write_all(bytes)
}

/// Receives a frame; `None` when the other side has ended.
pub(crate) fn receive<M: DeserializeOwned>(
    from: &mut impl Read,
) -> io::Result<Option<(M, Vec<u8>)>> {
    let mut head = [0; HEAD];
    if from.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    let (message, bytes) = lengths(head)?;
    let mut encoded = vec![0; message];
    from.read_exact(&mut encoded)?;
    let mut content = vec![0; bytes];
    from.read_exact(&mut content)?;
    Ok(Some((decode(&encoded)?, content)))
}

/// Reads a message.
pub(crate) fn decode<M: DeserializeOwned>(message: &[u8]) -> io::Result<M> {
    postcard::from_bytes(message).map_err(malformed)
}

pub(crate) fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let mut wire = Vec::new();
        send(&mut wire, &FromWorker::Ask(Ask::Stat(b"/a".to_vec())), b"").unwrap();
        send(
            &mut wire,
            &FromWorker::Output { is_error: true },
            &vec![7; 100_000],
        )
        .unwrap();
        let mut wire = wire.as_slice();
        let (first, none) = receive::<FromWorker>(&mut wire).unwrap().unwrap();
        assert!(matches!(first, FromWorker::Ask(Ask::Stat(path)) if path == b"/a"));
        assert!(none.is_empty());
        let (second, bytes) = receive::<FromWorker>(&mut wire).unwrap().unwrap();
        assert!(matches!(second, FromWorker::Output { is_error: true }));
        assert_eq!(bytes, vec![7; 100_000]);
        assert!(receive::<FromWorker>(&mut wire).unwrap().is_none());
    }

    #[test]
    fn bounds_hold_in_both_directions() {
        let long = vec![0; BYTES_MAX + 1];
        assert!(send(&mut Vec::new(), &ToWorker::Input, &long).is_err());
        for head in [[0xff; HEAD], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(receive::<ToWorker>(&mut head.as_slice()).is_err());
        }
        let cut = [4, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(receive::<ToWorker>(&mut cut.as_slice()).is_err());
    }
}
