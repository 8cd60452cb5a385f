//! The filesystems under test: setting each one up, and taking it down.
//!
//! Every target is a directory that belongs to this run alone. Dropping a
//! [`Target`] unmounts what it mounted and removes the directory, so an early
//! return leaves nothing behind.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::affinity::Affinity;
use crate::cairn::Cairn;
use crate::error::{BenchError, Context as _, Result};
use crate::shell::Shell;

/// Patience with a daemon that should end because its mount is gone.
const DAEMON_END: Duration = Duration::from_secs(10);

/// The targets that the program knows how to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A directory in memory.
    Tmpfs,
    /// A directory on the local disk.
    Ext4,
    /// The minimal FUSE filesystem of this program.
    Ceiling,
    /// A replica on the local disk, mounted by the program under test.
    Cairn,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Ceiling => "ceiling",
            Self::Cairn => "cairn",
        })
    }
}

/// A further directory to measure: `NAME=PATH`.
#[derive(Debug, Clone)]
pub(crate) struct NamedDir {
    /// The target's name in the report.
    pub(crate) name: String,
    /// A directory on the filesystem to measure.
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for NamedDir {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.into(),
            }),
            _ => Err("expected NAME=PATH".to_owned()),
        }
    }
}

/// Where the targets are made, and how.
#[derive(Debug)]
pub(crate) struct Makers<'a> {
    /// Runs the commands.
    pub(crate) shell: &'a Shell,
    /// A directory on tmpfs.
    pub(crate) memory: &'a Path,
    /// A directory on the local disk.
    pub(crate) disk: &'a Path,
    /// Where daemons run.
    pub(crate) affinity: &'a Affinity,
    /// Arguments of `serve-ceiling` beside the mount point.
    pub(crate) ceiling: Vec<String>,
    /// The program under test.
    pub(crate) cairn: Option<Cairn>,
}

/// One filesystem under test.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name in the report.
    pub(crate) name: String,
    /// The directory to work in.
    pub(crate) root: PathBuf,
    // Order matters: the mount goes before the directory that it is mounted in.
    _mount: Option<Mount>,
    _dir: TempDir,
}

/// A mount made by this run.
#[derive(Debug)]
struct Mount {
    mountpoint: PathBuf,
    daemon: Option<Child>,
    umount: Option<Command>,
}

impl Makers<'_> {
    /// Makes one of the known targets.
    ///
    /// # Errors
    /// When its directory or its mount cannot be made.
    pub(crate) fn make(&self, kind: Kind) -> Result<Target> {
        match kind {
            Kind::Tmpfs => plain(kind.to_string(), self.memory),
            Kind::Ext4 => plain(kind.to_string(), self.disk),
            Kind::Ceiling => self.ceiling(),
            Kind::Cairn => self.cairn(),
        }
    }

    fn ceiling(&self) -> Result<Target> {
        let name = Kind::Ceiling.to_string();
        let (dir, mountpoint) = mount_dir(&name, self.memory)?;
        let program = std::env::current_exe().context(|| "find this program")?;
        let mut command = Command::new(program);
        command
            .arg("serve-ceiling")
            .arg(&mountpoint)
            .args(&self.ceiling)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut daemon = self
            .affinity
            .for_daemon(|| command.spawn())?
            .context(|| "start the ceiling filesystem")?;
        let stdout = daemon.stdout.take();
        // From here on a drop ends the daemon.
        let mount = Mount {
            mountpoint: mountpoint.clone(),
            daemon: Some(daemon),
            umount: None,
        };
        if let Some(stdout) = stdout {
            let mut line = String::new();
            BufReader::new(stdout)
                .read_line(&mut line)
                .context(|| "wait for the ceiling filesystem")?;
        }
        mounted(name, dir, mount)
    }

    fn cairn(&self) -> Result<Target> {
        let Some(cairn) = &self.cairn else {
            let text = "the target cairn needs --cairn PATH";
            return Err(BenchError::Usage(text.to_owned()));
        };
        let name = Kind::Cairn.to_string();
        let (dir, mountpoint) = mount_dir(&name, self.disk)?;
        let mount = Mount {
            mountpoint: mountpoint.clone(),
            daemon: None,
            umount: Some(cairn.umount(&mountpoint)),
        };
        let mut command = cairn.mount(dir.path(), &mountpoint);
        self.affinity
            .for_daemon(|| self.shell.run(&mut command))??;
        mounted(name, dir, mount)
    }
}

/// A target that is a directory and nothing more.
///
/// # Errors
/// When the directory cannot be made.
pub(crate) fn plain(name: String, parent: &Path) -> Result<Target> {
    let dir = fresh_dir(&name, parent)?;
    spread(dir.path());
    Ok(Target {
        name,
        root: dir.path().to_owned(),
        _mount: None,
        _dir: dir,
    })
}

/// Asks ext4 to put each directory below `dir` into another block group, where
/// a filesystem has such a wish.
///
/// Without it all rounds share a group, and for half a minute after the removal
/// of a round each new inode is found by a search past the removed ones: a
/// creation would cost ten times more the more this program has cleaned up.
fn spread(dir: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    if let Ok(dir) = std::fs::File::open(dir)
        && let Ok(flags) = ioctl_getflags(&dir)
    {
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

fn fresh_dir(name: &str, parent: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("fsbench-{name}-"))
        .tempdir_in(parent)
        .context(|| format!("make a directory in {}", parent.display()))
}

/// A fresh directory with a mount point in it.
fn mount_dir(name: &str, parent: &Path) -> Result<(TempDir, PathBuf)> {
    let dir = fresh_dir(name, parent)?;
    let mountpoint = dir.path().join("mnt");
    std::fs::create_dir(&mountpoint).context(|| "make a mount point")?;
    Ok((dir, mountpoint))
}

/// A target whose mount must be in place by now.
fn mounted(name: String, dir: TempDir, mount: Mount) -> Result<Target> {
    let root = mount.mountpoint.clone();
    if !is_mounted(&root) {
        drop(mount);
        return Err(BenchError::NotMounted(root));
    }
    Ok(Target {
        name,
        root,
        _mount: Some(mount),
        _dir: dir,
    })
}

/// Whether `path` is on another device than the directory above it. A mount
/// whose daemon is dead cannot be asked and counts as mounted.
fn is_mounted(path: &Path) -> bool {
    let Some(parent) = path.parent().and_then(|parent| parent.metadata().ok()) else {
        return false;
    };
    path.metadata().map_or_else(
        |error| error.kind() != std::io::ErrorKind::NotFound,
        |own| own.dev() != parent.dev(),
    )
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(umount) = &mut self.umount {
            let ended = umount.stdin(Stdio::null()).stdout(Stdio::null()).status();
            if !ended.is_ok_and(|status| status.success()) {
                eprintln!("fsbench: the umount command failed");
            }
        }
        if is_mounted(&self.mountpoint)
            && let Err(error) = unmount(&self.mountpoint, UnmountFlags::DETACH)
        {
            eprintln!("fsbench: unmount {}: {error}", self.mountpoint.display());
        }
        if let Some(daemon) = &mut self.daemon {
            end(daemon);
        }
    }
}

/// Waits for a daemon whose mount is gone, and kills it when it stays.
fn end(daemon: &mut Child) {
    let deadline = Instant::now() + DAEMON_END;
    while Instant::now() < deadline {
        if !matches!(daemon.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}
