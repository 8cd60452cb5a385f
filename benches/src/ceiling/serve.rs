//! The process that serves the ceiling: mount, say so, serve, unmount.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread;

use fuser::{Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};

use super::Ceiling;
use crate::error::{Context as _, Result};

/// How the ceiling is served.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServeArgs {
    /// Directory to mount on
    pub(crate) mountpoint: PathBuf,
    /// Threads that read requests, each with its own clone of the device
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Answer ENOSYS to attribute requests: the kernel then stops asking for
    /// `security.capability` before the first write to each new file
    #[arg(long)]
    pub(crate) no_xattr: bool,
}

/// Mounts the ceiling, says "ready" on standard output, and serves until it is
/// unmounted, by a signal or from outside.
///
/// # Errors
/// When the mount fails or the device breaks.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    // A benchmark that was killed leaves no mount behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context(|| "ask for a signal at the parent's death")?;

    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("fsbench-ceiling".into()),
        MountOption::DefaultPermissions,
    ];
    config.n_threads = Some(args.threads.max(1));
    config.clone_fd = args.threads > 1;
    let filesystem = Ceiling::new(args.no_xattr);
    let session = Session::new(filesystem, &args.mountpoint, &config)
        .context(|| format!("mount the ceiling on {}", args.mountpoint.display()))?;
    unmount_on_signal(args.mountpoint.clone())?;

    let mut stdout = io::stdout();
    writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .context(|| "report that the ceiling is ready")?;
    session.run().context(|| "serve the ceiling")
}

/// Detaches the mount when a signal comes, whether or not somebody is still
/// inside; the session ends when the last of them has left.
fn unmount_on_signal(mountpoint: PathBuf) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .context(|| "install a signal handler")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if let Err(error) = unmount(&mountpoint, UnmountFlags::DETACH) {
                eprintln!("fsbench: unmount {}: {error}", mountpoint.display());
            }
        }
    });
    Ok(())
}
