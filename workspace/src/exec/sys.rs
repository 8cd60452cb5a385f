//! What happens between fork and exec, and the calls without a safe wrapper.
//! All `unsafe` of the crate is here.
//!
//! The child first lets go of every descriptor but its standard ones, and only
//! then looks at a path. So it never holds the device of a mount that this
//! process serves while it waits for that mount: if this process is killed, the
//! mount ends, and the child's wait with it.
#![allow(
    unsafe_code,
    reason = "fork, and system calls without a safe wrapper; each block carries its proof"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `PIDFD_SIGNAL_PROCESS_GROUP` in `linux/pidfd.h`, since Linux 6.9.
const PROCESS_GROUP: libc::c_uint = 4;

/// Sends a signal to the process group that a process began, or with 0 only
/// looks whether anybody is in it. Works when that process is gone.
///
/// # Errors
///
/// ESRCH when the group is empty.
pub(crate) fn signal_group(leader: BorrowedFd<'_>, pid: Pid, signal: i32) -> Result<(), Errno> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: `leader` is an open descriptor for the length of the call, and a null pointer is
    // allowed for the information about the signal; the kernel then makes it.
    let sent = unsafe {
        let fd = leader.as_raw_fd();
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            nothing,
            PROCESS_GROUP,
        )
    };
    if sent == 0 {
        return Ok(());
    }
    match last_error() {
        // An older kernel. By number there is the chance that the group is gone and its number
        // was given to another one since: all numbers would have to be used up in that time.
        Errno::INVAL => {
            // SAFETY: takes two numbers.
            match unsafe { libc::kill(-pid.as_raw_pid(), signal) } {
                0 => Ok(()),
                _ => Err(last_error()),
            }
        }
        errno => Err(errno),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Makes a descriptor one that tasks can wait for. It must not block.
pub(crate) fn wait_for(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor is open while its `OwnedFd` lives, which the returned value shares,
    // and it always has the same number.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}

/// What a child was doing when it failed; a number in its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Session,
    Limits,
    Network,
    Writes,
    Cwd,
    Program,
}

const STAGES: [Stage; 6] = [
    Stage::Session,
    Stage::Limits,
    Stage::Network,
    Stage::Writes,
    Stage::Cwd,
    Stage::Program,
];

/// A failure as it comes over the pipe.
pub(crate) const FAILURE: usize = 5;

/// Reads what a child says of its failure.
pub(crate) fn failure(bytes: [u8; FAILURE]) -> (Stage, io::Error) {
    let [stage, errno @ ..] = bytes;
    let stage = STAGES.get(usize::from(stage)).copied();
    let errno = i32::from_le_bytes(errno);
    (
        stage.unwrap_or(Stage::Session),
        io::Error::from_raw_os_error(errno),
    )
}

/// Strings for `execve`, and pointers to them.
struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers point to; a string's bytes do not move with it.
    _strings: Vec<CString>,
}

// SAFETY: the pointers lead to memory that the value itself owns and that nothing changes.
unsafe impl Send for Strings {}
// SAFETY: as above; all access is reading.
unsafe impl Sync for Strings {}

impl Strings {
    fn new(strings: Vec<CString>) -> Self {
        let ends = [std::ptr::null()];
        Self {
            pointers: strings.iter().map(|s| s.as_ptr()).chain(ends).collect(),
            _strings: strings,
        }
    }
}

/// All that a child needs. It allocates nothing.
pub(crate) struct Plan {
    /// Where the program may be, in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    /// The standard input is a terminal that becomes the session's.
    pub(crate) terminal: bool,
    /// It is killed when this thread ends.
    pub(crate) dies_with_parent: bool,
    pub(crate) no_network: bool,
    pub(crate) landlock: Option<OwnedFd>,
    /// Where it reports a failure; closed by exec when there is none.
    pub(crate) report: OwnedFd,
}

/// Starts a process with these three descriptors. It returns when the process
/// is there, before it has done anything that could wait.
pub(crate) fn fork(plan: Plan, stdio: [OwnedFd; 3]) -> io::Result<Pid> {
    let (argv, env) = (Strings::new(plan.argv), Strings::new(plan.env));
    let own = Ids::of_this_process();
    let child = Child {
        programs: plan.programs,
        argv,
        env,
        cwd: plan.cwd,
        limits: plan.limits,
        terminal: plan.terminal,
        dies_with_parent: plan.dies_with_parent,
        no_network: plan.no_network.then_some(own),
        landlock: plan.landlock,
        report: plan.report,
    };
    let [input, output, errors] = stdio;
    // The name does not matter: `Child::become_program` does not return.
    let mut command = Command::new("/");
    command.stdin(input).stdout(output).stderr(errors);
    // SAFETY: between fork and exec only functions may be called that are safe in a signal
    // handler, as another thread may have held any lock at the fork. `become_program` makes
    // system calls on memory that was prepared before, through wrappers that neither allocate
    // nor lock, and leaves by exec or `_exit`: nothing of this process is dropped in the child.
    unsafe { command.pre_exec(move || child.become_program()) };
    let started = command.spawn()?;
    let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process has no number"))
}

/// User and group of this process, and the maps that keep them in a user namespace.
struct Ids {
    user_namespace: bool,
    users: CString,
    groups: CString,
}

impl Ids {
    fn of_this_process() -> Self {
        let user = rustix::process::geteuid();
        let group = rustix::process::getegid().as_raw();
        let map = |id: u32| CString::new(format!("{id} {id} 1")).unwrap_or_default();
        Self {
            user_namespace: !user.is_root(),
            users: map(user.as_raw()),
            groups: map(group),
        }
    }
}

struct Child {
    programs: Vec<CString>,
    argv: Strings,
    env: Strings,
    cwd: CString,
    limits: Vec<(Resource, Rlimit)>,
    terminal: bool,
    dies_with_parent: bool,
    no_network: Option<Ids>,
    landlock: Option<OwnedFd>,
    report: OwnedFd,
}

/// Something that a child does, or why it could not.
type Step = fn(&Child) -> Result<(), Errno>;

impl Child {
    /// Runs in the child, and nothing else does.
    fn become_program(&self) -> io::Result<()> {
        let (stage, errno) = self.prepare();
        let mut message = [0; FAILURE];
        message[0] = stage as u8;
        message[1..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
        let _ = rustix::io::write(&self.report, &message);
        // SAFETY: ends the process at once and runs nothing of it.
        unsafe { libc::_exit(127) }
    }

    /// Returns only with what went wrong.
    fn prepare(&self) -> (Stage, Errno) {
        let steps: [(Stage, Step); 6] = [
            (Stage::Session, Self::begin_session),
            (Stage::Limits, Self::limit),
            (Stage::Network, Self::leave_network),
            (Stage::Writes, Self::restrict),
            (Stage::Session, |child| {
                close_all_but(child.report.as_raw_fd())
            }),
            (Stage::Cwd, |child| rustix::process::chdir(&*child.cwd)),
        ];
        for (stage, step) in steps {
            if let Err(errno) = step(self) {
                return (stage, errno);
            }
        }
        (Stage::Program, self.execute())
    }

    fn begin_session(&self) -> Result<(), Errno> {
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if self.dies_with_parent {
            let kill = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill)?;
        }
        for signal in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGCHLD,
        ] {
            // SAFETY: the default action involves no code of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    }

    fn limit(&self) -> Result<(), Errno> {
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        Ok(())
    }

    fn leave_network(&self) -> Result<(), Errno> {
        let Some(ids) = &self.no_network else {
            return Ok(());
        };
        let mut flags = libc::CLONE_NEWNET;
        if ids.user_namespace {
            flags |= libc::CLONE_NEWUSER;
        }
        // SAFETY: changes namespaces of this process only, which has one thread and shares
        // no memory with another.
        if unsafe { libc::unshare(flags) } != 0 {
            return Err(last_error());
        }
        if ids.user_namespace {
            write_to(c"/proc/self/setgroups", c"deny")?;
            write_to(c"/proc/self/uid_map", &ids.users)?;
            write_to(c"/proc/self/gid_map", &ids.groups)?;
        }
        loopback()
    }

    fn restrict(&self) -> Result<(), Errno> {
        let Some(ruleset) = &self.landlock else {
            return Ok(());
        };
        rustix::thread::set_no_new_privs(true)?;
        let fd = ruleset.as_raw_fd();
        // SAFETY: `fd` is an open descriptor; the call takes no pointer.
        match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }

    /// As `execvp` has it: what is not there is passed over, what must not be
    /// executed is remembered.
    fn execute(&self) -> Errno {
        let mut failure = Errno::NOENT;
        for program in &self.programs {
            let (argv, env) = (self.argv.pointers.as_ptr(), self.env.pointers.as_ptr());
            // SAFETY: all three are strings, and arrays of strings that end with a null
            // pointer, owned by `self`.
            unsafe { libc::execve(program.as_ptr(), argv, env) };
            match last_error() {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => failure = Errno::ACCESS,
                errno => return errno,
            }
        }
        failure
    }
}

/// Closes all descriptors but the standard ones and this.
fn close_all_but(keep: RawFd) -> Result<(), Errno> {
    let keep = keep.unsigned_abs();
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: runs in a child that shares its table of descriptors with nobody; what is
        // closed is never used again, as the child runs nothing else of this program.
        match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    };
    close(3, keep - 1)?;
    close(keep + 1, u32::MAX)
}

fn write_to(path: &CStr, text: &CStr) -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, text.to_bytes()).map(drop)
}

/// `IFF_UP` in `linux/if.h`, in the type that the request has.
const IFF_UP: libc::c_short = 1;

/// Switches on the loopback device of a new namespace.
fn loopback() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: all of its fields may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed() as c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: the kernel reads the name and the flags of `request`, which lives for the call.
    let done: c_int =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}
