//! The threads behind a mount, from the first request to the last.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use cairn_engine::Replica;
use fuser::SessionACL;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::awake::{Awake, Pulse};
use super::backing::Backings;
use super::invalidate::{self, Invalidator};
use super::mountpoint::{KIND, detach};
use super::ops::Ops;
use super::session::Session;
use super::workers::Workers;
use super::{MountError, MountOptions, fusermount, sys, table};

/// Threads that serve requests, unless told otherwise. One is as fast; with a second one, a read
/// that waits for the disk does not hold up everything else.
const THREADS: usize = 2;
/// The kernel reads ahead so much of a file that is read from start to end, in KiB.
const READ_AHEAD: &str = "1024";

/// Told once that the mount has ended.
#[derive(Debug, Default)]
struct Ended {
    ended: Mutex<bool>,
    told: Condvar,
}

/// A running mount.
#[derive(Debug)]
pub(crate) struct Server {
    pulse: Arc<Pulse>,
    ended: Arc<Ended>,
    thread: Option<JoinHandle<()>>,
    awake: Option<Awake>,
}

impl Server {
    /// Mounts at a directory that has been checked, and serves.
    pub(crate) fn start(
        replica: &Replica,
        at: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        let kernel = Arc::new(Invalidator::default());
        let view = replica.observed(Arc::<Invalidator>::clone(&kernel));
        let pulse = Arc::new(Pulse::default());
        let session = Session {
            ops: Arc::new(Ops::new(view, Arc::clone(&kernel))),
            pulse: Arc::clone(&pulse),
            workers: Workers::default(),
            backings: Backings::default(),
            passthrough: options.passthrough,
        };
        let device = mount(at, options).inspect_err(|_| session.ops.close())?;
        let ended = Arc::new(Ended::default());
        let thread =
            serve(session, device, kernel, Arc::clone(&ended), at, options).map_err(|source| {
                let _ = detach(at, true);
                MountError::io("serve the mount at", at, source)
            })?;
        read_ahead(at);
        Ok(Self {
            awake: options.keep_awake.then(|| Awake::start(Arc::clone(&pulse))),
            pulse,
            ended,
            thread: Some(thread),
        })
    }

    /// Requests served so far.
    pub(crate) fn requests(&self) -> u64 {
        self.pulse.requests()
    }

    /// Whether the connection with the kernel has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.ended.lock()
    }

    /// Waits for that.
    pub(crate) fn wait(&self) {
        let mut ended = self.ended.ended.lock();
        while !*ended {
            self.ended.told.wait(&mut ended);
        }
    }

    /// Waits for the threads of a mount that has been unmounted.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.awake = None;
    }

    /// Leaves the threads to serve the last users of a detached mount.
    pub(crate) fn leave(&mut self) {
        self.thread = None;
        self.awake = None;
    }
}

/// Mounts, by ourselves where that is permitted and else by `fusermount3`.
fn mount(at: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = match sys::open_device() {
        Ok(device) => device,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Err(MountError::NoDevice),
        Err(errno) => return Err(MountError::DeviceRefused(errno.into())),
    };
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut text = String::from("default_permissions");
    if options.allow_other {
        text.push_str(",allow_other");
    }
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    // The root is a directory: S_IFDIR, in octal.
    let ours = format!(
        "{text},fd={},rootmode=40000,user_id={uid},group_id={gid}",
        device.as_raw_fd(),
        uid = uid.as_raw(),
        gid = gid.as_raw(),
    );
    let refused = |errno: Errno| MountError::Refused {
        path: at.into(),
        reason: std::io::Error::from(errno).to_string(),
    };
    let ours = CString::new(ours).map_err(|_| refused(Errno::INVAL))?;
    match rustix::mount::mount(
        options.fs_name.as_str(),
        at,
        KIND,
        flags,
        Some(ours.as_c_str()),
    ) {
        Ok(()) => Ok(device),
        Err(Errno::NODEV) => Err(MountError::NoDevice),
        Err(Errno::PERM | Errno::ACCESS) => {
            // A comma would begin another option.
            let name = options.fs_name.replace(',', "\\,");
            let _ = write!(text, ",nosuid,nodev,subtype=cairn,fsname={name}");
            if options.read_only {
                text.push_str(",ro");
            }
            fusermount::mount(at, &text)
        }
        Err(errno) => Err(refused(errno)),
    }
}

/// Starts the threads. The last one to end says so.
fn serve(
    session: Session,
    device: OwnedFd,
    kernel: Arc<Invalidator>,
    ended: Arc<Ended>,
    at: &Path,
    options: &MountOptions,
) -> std::io::Result<JoinHandle<()>> {
    let mut config = fuser::Config::default();
    config.n_threads = Some(options.threads.unwrap_or(THREADS).max(1));
    config.clone_fd = true;
    // Who may use the mount is for the kernel to say, which it does.
    let session = fuser::Session::from_fd(session, device, SessionACL::All, config)?;
    // On a kernel that cannot clone the device the same one will do, see `sys::clone_device`.
    let second = match sys::clone_device(session.as_fd()) {
        Ok(second) => second,
        Err(_) => session.as_fd().try_clone_to_owned()?,
    };
    let second = Arc::new(second);
    let notifier = invalidate::start(Arc::clone(&kernel), Arc::clone(&second), at.into())?;
    std::thread::Builder::new()
        .name("cairn-mount".into())
        .spawn(move || {
            if let Err(error) = session.run() {
                tracing::error!(error = &error as &dyn std::error::Error, "the mount ended");
            }
            // When the last device closes, the kernel fails what still waits for an answer.
            kernel.close();
            let _ = notifier.join();
            drop(second);
            *ended.ended.lock() = true;
            ended.told.notify_all();
        })
}

/// Raises the kernel's readahead, which for FUSE is 128 KiB. Only root may; without, it stays.
fn read_ahead(at: &Path) {
    if let Ok(Some(mounted)) = table::mounted_at(at) {
        let limit = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
        let _ = std::fs::write(limit, READ_AHEAD);
    }
}
