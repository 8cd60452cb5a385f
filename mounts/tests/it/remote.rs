//! A replica and its mounts in a process of their own.
//!
//! A process that uses a mount which it serves itself can hang when it ends: its request waits for
//! an answer, uninterruptibly, and those who would answer have ended already. So tests use the
//! mounts of another process. They change its replica through a socket, and when the socket
//! closes, however the process of the test ends, the other one unmounts and ends as well.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use cairn_engine::{Ino, NewNode, Options, Replica, SetTime, XattrMode};
use cairn_mounts::fuse::{Mount, MountOptions};
use cairn_protocol::{NodeKind, Timestamp};

use crate::child::command;

/// The job of the process that serves.
pub(crate) const JOB: &str = "replica";

/// Stands for the directory of a replica that has none.
const IN_MEMORY: &str = "/";

type Answer = Result<Vec<u8>, String>;

/// A replica in another process.
pub(crate) struct Remote {
    socket: Mutex<UnixStream>,
    process: Child,
}

impl Remote {
    /// A replica in memory.
    pub(crate) fn start() -> Self {
        Self::start_at(Path::new(IN_MEMORY))
    }

    /// A replica in a directory that it makes.
    pub(crate) fn start_at(dir: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let process = command(JOB, dir)
            .stdin(OwnedFd::from(theirs))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self {
            socket: Mutex::new(ours),
            process,
        }
    }

    fn ask(&self, op: &str, args: &[&[u8]]) -> Answer {
        // An answer that was not taken belongs to a thread that panicked: nothing follows it.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<&[u8]> = [op.as_bytes()].iter().chain(args).copied().collect();
        let answer = send(&mut *socket, &parts).and_then(|()| receive(&mut *socket));
        match answer
            .map_err(|error| format!("the server is gone: {error}"))?
            .as_slice()
        {
            [good] => Ok(good.clone()),
            [_, error] => Err(String::from_utf8_lossy(error).into_owned()),
            other => Err(format!("an answer of {} parts", other.len())),
        }
    }

    fn tell(&self, op: &str, args: &[&[u8]]) -> Result<(), String> {
        self.ask(op, args).map(drop)
    }

    fn number(&self, op: &str, args: &[&[u8]]) -> Result<u64, String> {
        self.ask(op, args).map(|text| parse(&text))
    }

    /// Mounts; more than one mount of the replica is possible.
    pub(crate) fn mount(&self, at: &Path, read_only: bool) -> Result<(), String> {
        let how: &[u8] = if read_only { b"ro" } else { b"rw" };
        self.tell("mount", &[at.as_os_str().as_encoded_bytes(), how])
    }

    /// Unmounts the mount that was made last.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        self.tell("unmount", &[])
    }

    /// Requests that the first mount has served.
    pub(crate) fn requests(&self) -> u64 {
        self.number("requests", &[]).unwrap()
    }

    /// Nodes of the replica.
    pub(crate) fn nodes(&self) -> u64 {
        self.number("nodes", &[]).unwrap()
    }

    pub(crate) fn read_file(&self, path: &str) -> Answer {
        self.ask("read", &[path.as_bytes()])
    }

    pub(crate) fn write_file(&self, path: &str, data: &[u8]) -> Result<(), String> {
        self.tell("write", &[path.as_bytes(), data])
    }

    pub(crate) fn write_range(&self, path: &str, offset: u64, data: &[u8]) -> Result<(), String> {
        self.tell(
            "write-range",
            &[path.as_bytes(), offset.to_string().as_bytes(), data],
        )
    }

    pub(crate) fn append_file(&self, path: &str, data: &[u8]) -> Result<(), String> {
        self.tell("append", &[path.as_bytes(), data])
    }

    pub(crate) fn replace_file(&self, path: &str, data: &[u8]) -> Result<(), String> {
        self.tell("replace", &[path.as_bytes(), data])
    }

    pub(crate) fn truncate(&self, path: &str, size: u64) -> Result<(), String> {
        self.tell("truncate", &[path.as_bytes(), size.to_string().as_bytes()])
    }

    /// Turns what was written into chunks, which otherwise happens by and by.
    pub(crate) fn seal(&self, path: &str) -> Result<(), String> {
        self.tell("seal", &[path.as_bytes()])
    }

    pub(crate) fn remove(&self, path: &str) -> Result<(), String> {
        self.tell("remove", &[path.as_bytes()])
    }

    pub(crate) fn remove_all(&self, path: &str) -> Result<(), String> {
        self.tell("remove-all", &[path.as_bytes()])
    }

    pub(crate) fn mkdir(&self, path: &str) -> Result<(), String> {
        self.tell("mkdir", &[path.as_bytes()])
    }

    /// Makes empty files with a number at the end of their name.
    pub(crate) fn fill(&self, prefix: &str, count: usize) {
        let count = count.to_string();
        self.tell("fill", &[prefix.as_bytes(), count.as_bytes()])
            .unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), String> {
        self.tell("rename", &[from.as_bytes(), to.as_bytes()])
    }

    pub(crate) fn hard_link(&self, existing: &str, new: &str) -> Result<(), String> {
        self.tell("link", &[existing.as_bytes(), new.as_bytes()])
    }

    pub(crate) fn symlink(&self, target: &str, path: &str) -> Result<(), String> {
        self.tell("symlink", &[target.as_bytes(), path.as_bytes()])
    }

    pub(crate) fn chmod(&self, path: &str, perm: u16) -> Result<(), String> {
        self.tell("chmod", &[path.as_bytes(), perm.to_string().as_bytes()])
    }

    pub(crate) fn chown(&self, path: &str, uid: u32, gid: u32) -> Result<(), String> {
        let (uid, gid) = (uid.to_string(), gid.to_string());
        self.tell("chown", &[path.as_bytes(), uid.as_bytes(), gid.as_bytes()])
    }

    /// Sets the time of the last modification, to the second.
    pub(crate) fn set_mtime(&self, path: &str, seconds: u64) -> Result<(), String> {
        self.tell("mtime", &[path.as_bytes(), seconds.to_string().as_bytes()])
    }

    /// Seconds and nanoseconds of the last modification.
    pub(crate) fn mtime(&self, path: &str) -> (i64, i64) {
        let text = String::from_utf8(self.ask("get-mtime", &[path.as_bytes()]).unwrap()).unwrap();
        let (seconds, nanos) = text.split_once(' ').unwrap();
        (seconds.parse().unwrap(), nanos.parse().unwrap())
    }

    pub(crate) fn set_xattr(&self, path: &str, name: &str, value: &[u8]) -> Result<(), String> {
        self.tell("xattr", &[path.as_bytes(), name.as_bytes(), value])
    }

    /// Kills the server as it is.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let socket = self
            .socket
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let _ = socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

fn send(mut to: impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let mut message = u32::try_from(parts.len()).unwrap().to_le_bytes().to_vec();
    for part in parts {
        message.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        message.extend_from_slice(part);
    }
    to.write_all(&message)
}

fn receive(mut from: impl Read) -> io::Result<Vec<Vec<u8>>> {
    let count = receive_number(&mut from)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let mut part = vec![0; receive_number(&mut from)?];
        from.read_exact(&mut part)?;
        parts.push(part);
    }
    Ok(parts)
}

fn receive_number(mut from: impl Read) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &[u8]) -> T {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

/// Serves until the socket, which is the standard input, closes.
pub(crate) fn serve(dir: &Path) {
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut socket = UnixStream::from(socket);
    let replica = if dir == Path::new(IN_MEMORY) {
        Replica::in_memory().unwrap()
    } else {
        Replica::open(dir, Options::default()).unwrap()
    };
    let mut mounts = Vec::new();
    while let Ok(ask) = receive(&mut socket) {
        let answer = administer(&replica, &mut mounts, &ask)
            .unwrap_or_else(|| change(&replica, &ask).map_err(|error| error.to_string()));
        let sent = match &answer {
            Ok(good) => send(&mut socket, &[good]),
            Err(error) => send(&mut socket, &[b"error", error.as_bytes()]),
        };
        if sent.is_err() {
            break;
        }
    }
}

/// What concerns the mounts; `None` when it is something else.
fn administer(replica: &Replica, mounts: &mut Vec<Mount>, ask: &[Vec<u8>]) -> Option<Answer> {
    let (op, args) = ask.split_first()?;
    Some(match (op.as_slice(), args) {
        (b"mount", [at, how]) => {
            let options = MountOptions {
                read_only: how == b"ro",
                ..MountOptions::default()
            };
            let at = std::str::from_utf8(at).unwrap();
            Mount::new(replica.clone(), Path::new(at), options)
                .map(|mount| mounts.push(mount))
                .map_err(|error| error.to_string())
                .map(|()| Vec::new())
        }
        (b"unmount", []) => mounts
            .pop()
            .map_or(Ok(()), Mount::unmount)
            .map_err(|error| error.to_string())
            .map(|()| Vec::new()),
        (b"requests", []) => Ok(mounts[0].requests().to_string().into_bytes()),
        _ => return None,
    })
}

/// Changes the replica, or reads it, behind the back of its mounts.
fn change(replica: &Replica, ask: &[Vec<u8>]) -> cairn_engine::Result<Vec<u8>> {
    let (op, args) = ask.split_first().unwrap();
    match (op.as_slice(), args) {
        (b"read", [path]) => return replica.read_file(path),
        (b"nodes", []) => return Ok(replica.stat_fs()?.nodes.to_string().into_bytes()),
        (b"get-mtime", [path]) => {
            let time = replica.lstat(path)?.mtime;
            return Ok(format!("{} {}", time.seconds(), time.nanos()).into_bytes());
        }
        (b"write", [path, data]) => drop(replica.write_file(path, data)?),
        (b"write-range", [path, offset, data]) => replica.write_range(path, parse(offset), data)?,
        (b"append", [path, data]) => drop(replica.append_file(path, data)?),
        (b"replace", [path, data]) => drop(replica.replace_file(path, data)?),
        (b"truncate", [path, size]) => replica.truncate_path(path, parse(size))?,
        // To tell a version, it has to be sealed.
        (b"seal", [path]) => drop(replica.version(path)?),
        (b"remove", [path]) => replica.remove(path)?,
        (b"remove-all", [path]) => replica.remove_all(path)?,
        (b"mkdir", [path]) => drop(replica.mkdir(path)?),
        (b"fill", [prefix, count]) => fill(replica, prefix, parse(count))?,
        (b"rename", [from, to]) => replica.rename_path(from, to)?,
        (b"link", [existing, new]) => drop(replica.hard_link(existing, new)?),
        (b"symlink", [target, path]) => drop(replica.symlink_path(target, path)?),
        (b"chmod", [path, perm]) => drop(replica.chmod(path, parse(perm))?),
        (b"chown", [path, uid, gid]) => {
            replica.chown(path, Some(parse(uid)), Some(parse(gid)))?;
        }
        (b"mtime", [path, seconds]) => {
            let time = SetTime::At(Timestamp::new(parse(seconds), 0).unwrap());
            replica.set_times(path, None, Some(time))?;
        }
        (b"xattr", [path, name, value]) => {
            let ino = replica.lstat(path)?.ino;
            replica.set_xattr(ino, name, value, XattrMode::Set)?;
        }
        _ => panic!("no such request: {}", String::from_utf8_lossy(op)),
    }
    Ok(Vec::new())
}

fn fill(replica: &Replica, prefix: &[u8], count: usize) -> cairn_engine::Result<()> {
    let prefix = std::str::from_utf8(prefix).unwrap();
    let (dir, name) = prefix.rsplit_once('/').unwrap();
    let dir: Ino = replica.stat(if dir.is_empty() { "/" } else { dir })?.ino;
    let new = NewNode {
        kind: NodeKind::File,
        perm: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
    };
    for number in 0..count {
        replica.make(dir, format!("{name}{number}").as_bytes(), &new)?;
    }
    Ok(())
}
