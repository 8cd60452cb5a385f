//! One call of a tool: its arguments, its output, and the files it names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bashkit::{CommandContext, Metadata, normalize_path, vfs_join};
use parking_lot::Mutex;

use super::place::Place;
use crate::shell::adapter::timestamp;
use crate::shell::wire::Node;

/// Symbolic links that are followed in one path.
const LINKS_MAX: u32 = 40;
/// Output that is gathered before it is passed on.
const GATHERED: usize = 32 << 10;

/// Why a tool ends before its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was said; this is the exit status.
    Usage(i32),
    /// The interpreter ends it: nobody reads its output, or a limit is passed.
    Shell(bashkit::Error),
}

impl From<bashkit::Error> for Failure {
    fn from(error: bashkit::Error) -> Self {
        Self::Shell(error)
    }
}

/// What a tool's function returns: its exit status.
pub(crate) type Outcome<T = i32> = Result<T, Failure>;

/// A call.
pub(crate) struct Call<'a> {
    pub(crate) context: &'a CommandContext<'a>,
    pub(crate) place: &'a Arc<Place>,
    gathered: Mutex<Vec<u8>>,
    failed: AtomicBool,
}

/// Where a file is.
#[derive(Debug)]
pub(crate) enum Spot {
    /// In the store, at this path.
    Store(Vec<u8>),
    /// Elsewhere in the interpreter's tree.
    Tree(PathBuf),
}

impl Spot {
    /// An entry of this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        match self {
            Self::Store(path) => {
                let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
                Self::Store([path, slash, name].concat())
            }
            Self::Tree(path) => Self::Tree(path.join(crate::shell::names::to_text(name))),
        }
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(context: &'a CommandContext<'a>, place: &'a Arc<Place>) -> Self {
        Self {
            context,
            place,
            gathered: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// What it calls itself.
    pub(crate) fn name(&self) -> &str {
        match self.context.name {
            "egrep" | "fgrep" => "grep",
            name => name,
        }
    }

    pub(crate) fn args(&self) -> &[String] {
        self.context.args
    }

    /// Writes to the standard output.
    pub(crate) async fn out(&self, bytes: &[u8]) -> Outcome<()> {
        let full = {
            let mut gathered = self.gathered.lock();
            gathered.extend_from_slice(bytes);
            (gathered.len() >= GATHERED).then(|| std::mem::take(&mut *gathered))
        };
        if let Some(full) = full {
            self.context.stdout.write_all(&full).await?;
        }
        Ok(())
    }

    /// Passes on what was gathered.
    pub(crate) async fn flush(&self) -> bashkit::Result<()> {
        let rest = std::mem::take(&mut *self.gathered.lock());
        if rest.is_empty() {
            return Ok(());
        }
        self.context.stdout.write_all(&rest).await
    }

    /// Writes what was held back of its output. Returns its exit status.
    pub(crate) async fn written(&self, code: i32) -> bashkit::Result<i32> {
        let Err(error) = self.place.client.write_behind(false) else {
            return Ok(code);
        };
        let line = format!("{}: write error: {}\n", self.name(), reason(&error));
        self.context.stderr.write_all(line.as_bytes()).await?;
        Ok(code.max(1))
    }

    /// Ends the tool if the script was ended, and lets the script's own `timeout`
    /// see what time it is.
    pub(crate) async fn breathe(&self) -> Outcome<()> {
        tokio::task::yield_now().await;
        Ok(self.context.stdout.write_all(&[]).await?)
    }

    /// Says something on the standard error, after the tool's name.
    pub(crate) async fn complain(&self, what: &str) -> Outcome<()> {
        self.failed.store(true, Ordering::Relaxed);
        self.flush().await?;
        let line = format!("{}: {what}\n", self.name());
        self.context.stderr.write_all(line.as_bytes()).await?;
        Ok(())
    }

    /// Says that something failed.
    pub(crate) async fn complain_of(&self, what: &str, error: &io::Error) -> Outcome<()> {
        self.complain(&format!("{what}: {}", reason(error))).await
    }

    /// 1 if something failed.
    pub(crate) fn status(&self) -> i32 {
        i32::from(self.failed.load(Ordering::Relaxed))
    }

    /// Says that the arguments make no sense, and ends the tool.
    pub(crate) async fn usage<T>(&self, what: &str, code: i32) -> Outcome<T> {
        self.complain(what).await?;
        let hint = format!("Try '{} --help' for more information.\n", self.name());
        self.context.stderr.write_all(hint.as_bytes()).await?;
        Err(Failure::Usage(code))
    }

    /// Says that it cannot go on.
    pub(crate) async fn fatal<T>(&self, what: &str, code: i32) -> Outcome<T> {
        self.complain(what).await?;
        Err(Failure::Usage(code))
    }

    /// The path that an argument means.
    pub(crate) fn path(&self, argument: &str) -> PathBuf {
        normalize_path(&vfs_join(self.context.cwd, argument))
    }

    fn spot(&self, path: &Path) -> Spot {
        match self.place.inside(path) {
            Some(inside) => Spot::Store(inside),
            None => Spot::Tree(path.to_path_buf()),
        }
    }

    /// Where an argument leads, links on the way followed, and with `last` one
    /// at its end.
    pub(crate) async fn find(&self, argument: &str, last: bool) -> io::Result<Spot> {
        if argument.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let path = self.path(argument);
        let spot = self.spot(&path);
        // A process substitution is a link to a pipe, and cannot be followed.
        if path.starts_with("/dev") {
            return Ok(spot);
        }
        // Mostly there is no link, which one question tells.
        match self.look_at(&spot).await {
            Ok(node) if !(last && is_link(&node)) => {
                if argument.ends_with('/') && !is_dir(&node) {
                    return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
                }
                Ok(spot)
            }
            _ => Ok(self.spot(&self.follow(&path, last).await?)),
        }
    }

    /// Follows the links of a path.
    pub(crate) async fn follow(&self, path: &Path, last: bool) -> io::Result<PathBuf> {
        let mut todo: Vec<String> = parts(&path.to_string_lossy());
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = todo.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            if todo.is_empty() && !last {
                return Ok(next);
            }
            let spot = self.spot(&next);
            match self.look_at(&spot).await {
                Ok(node) if is_link(&node) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    let target = self.target(&spot).await?;
                    if target.starts_with('/') {
                        at = PathBuf::from("/");
                    }
                    todo.extend(parts(&target));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// What a link says.
    pub(crate) async fn target(&self, spot: &Spot) -> io::Result<String> {
        match spot {
            Spot::Store(path) => {
                let target = self.place.client.read_link(path.clone())?;
                Ok(crate::shell::names::to_text(&target))
            }
            Spot::Tree(path) => {
                let target = self.context.fs.read_link(path).await.map_err(plain)?;
                Ok(target.to_string_lossy().into_owned())
            }
        }
    }

    /// The attributes of what is there, a link itself if it is one.
    pub(crate) async fn look_at(&self, spot: &Spot) -> io::Result<Node> {
        match spot {
            Spot::Store(path) => self.place.client.stat(path.clone()),
            Spot::Tree(path) => {
                let metadata = self.context.fs.lstat(path).await.map_err(plain)?;
                Ok(node(&metadata))
            }
        }
    }

    /// The attributes of what an argument leads to.
    pub(crate) async fn attributes(&self, argument: &str, follow: bool) -> io::Result<Node> {
        let spot = self
            .find(argument, follow || argument.ends_with('/'))
            .await?;
        self.look_at(&spot).await
    }

    /// The entries of a directory, in no order.
    pub(crate) async fn entries(&self, spot: &Spot) -> io::Result<Vec<(Vec<u8>, Node)>> {
        match spot {
            Spot::Store(path) => self.place.client.list(path),
            Spot::Tree(path) => {
                let entries = self.context.fs.read_dir(path).await.map_err(plain)?;
                let entry = |entry: bashkit::DirEntry| {
                    let name = crate::shell::names::to_bytes(&entry.name);
                    (name, node(&entry.metadata))
                };
                Ok(entries.into_iter().map(entry).collect())
            }
        }
    }
}

/// The parts of a path, the last one first.
fn parts(path: &str) -> Vec<String> {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let mut parts: Vec<String> = parts.map(str::to_owned).collect();
    parts.reverse();
    parts
}

pub(crate) fn is_link(node: &Node) -> bool {
    node.kind == cairn_protocol::NodeKind::Symlink
}

pub(crate) fn is_dir(node: &Node) -> bool {
    node.kind == cairn_protocol::NodeKind::Dir
}

/// The attributes that the interpreter keeps, as the store's.
fn node(metadata: &Metadata) -> Node {
    use cairn_protocol::NodeKind;
    let kind = match metadata.file_type {
        bashkit::FileType::File => NodeKind::File,
        bashkit::FileType::Directory => NodeKind::Dir,
        bashkit::FileType::Symlink => NodeKind::Symlink,
        bashkit::FileType::Fifo => NodeKind::Fifo,
    };
    let modified = timestamp(metadata.modified);
    let owner = rustix::process::geteuid().as_raw();
    Node {
        ino: 0,
        kind,
        perm: u16::try_from(metadata.mode & 0o7777).unwrap_or(0),
        uid: owner,
        gid: rustix::process::getegid().as_raw(),
        nlink: if kind == NodeKind::Dir { 2 } else { 1 },
        // A directory has one, even if it is in memory.
        size: match kind {
            NodeKind::Dir => metadata.size.max(4096),
            _ => metadata.size,
        },
        blocks: metadata.size.div_ceil(4096) * 8,
        atime: modified,
        mtime: modified,
        ctime: modified,
        btime: timestamp(metadata.created),
    }
}

/// The interpreter's error as one of the system.
pub(crate) fn plain(error: bashkit::Error) -> io::Error {
    match error {
        bashkit::Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    }
}

/// Why something failed, as the system says it.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    if let Some((text, _)) = text.split_once(" (os error ") {
        return text.to_owned();
    }
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".into(),
        io::ErrorKind::IsADirectory => "Is a directory".into(),
        io::ErrorKind::NotADirectory => "Not a directory".into(),
        io::ErrorKind::PermissionDenied => "Permission denied".into(),
        io::ErrorKind::AlreadyExists => "File exists".into(),
        _ if text == "is a directory" => "Is a directory".into(),
        _ => text,
    }
}
