//! From a command and its options to a process.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};
use rustix::pty::OpenptFlags;

use super::environment::{DEFAULT_PATH, Environment};
use super::options::{Command, Limits, Stdin, Terminal};
use super::sys::{self, Plan};
use super::{ExecError, Result};

/// Everything that decides how a process begins.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) cwd: PathBuf,
    pub(crate) env: Environment,
    pub(crate) stdin: Stdin,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) limits: Limits,
    pub(crate) dies_with_parent: bool,
    pub(crate) no_network: bool,
    pub(crate) landlock: Option<OwnedFd>,
}

/// A process that was started, and our ends of what it has.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<OwnedFd>,
    /// Says why the program was not executed, or ends when it was.
    pub(crate) report: OwnedFd,
}

/// Starts a process.
pub(crate) fn launch(launch: Launch) -> Result<Launched> {
    let (report, report_there) = pipe().map_err(ExecError::start("a pipe"))?;
    do_not_block(&report).map_err(ExecError::start("a pipe"))?;
    let ends = Ends::open(&launch)?;
    let terminal = launch.terminal.is_some();
    let plan = plan(launch, report_there, terminal)?;
    let start = |what| move |source| ExecError::Start { what, source };
    let pid = sys::fork(plan, ends.there).map_err(start("fork"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
        .inspect_err(|_| abandon(pid))
        .map_err(ExecError::start("a descriptor of the process"))?;
    Ok(Launched {
        pid,
        pidfd,
        stdin: ends.stdin,
        stdout: ends.stdout,
        stderr: ends.stderr,
        terminal: ends.terminal,
        report,
    })
}

/// Ends a process that nobody can look after.
fn abandon(pid: Pid) {
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
}

fn plan(launch: Launch, report: OwnedFd, terminal: bool) -> Result<Plan> {
    let (program, argv) = match launch.command {
        Command::Shell(source) => {
            let argv = vec!["sh".into(), "-c".into(), source];
            (OsString::from("/bin/sh"), argv)
        }
        Command::Argv(argv) => {
            let program = argv.first().filter(|name| !name.is_empty()).cloned();
            let program = program.ok_or(ExecError::BadCommand("it has no program"))?;
            (program, argv)
        }
    };
    let env = launch.env.iter().map(|(name, value)| {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(ExecError::BadCommand(
                "a variable's name is empty or has a `=`",
            ));
        }
        string([name, OsStr::new("="), value].into_iter().collect())
    });
    Ok(Plan {
        programs: candidates(&program, launch.env.get(OsStr::new("PATH")))?,
        argv: argv.into_iter().map(string).collect::<Result<_>>()?,
        env: env.collect::<Result<_>>()?,
        cwd: string(launch.cwd.into_os_string())?,
        limits: limits(&launch.limits),
        terminal,
        dies_with_parent: launch.dies_with_parent,
        no_network: launch.no_network,
        landlock: launch.landlock,
        report,
    })
}

fn string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec())
        .map_err(|_| ExecError::BadCommand("an argument, variable or path has a NUL in it"))
}

/// Where a program may be.
fn candidates(program: &OsStr, path: Option<&OsString>) -> Result<Vec<CString>> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![string(program.to_os_string())?]);
    }
    let path = path.map_or(DEFAULT_PATH.as_bytes(), |path| path.as_bytes());
    path.split(|byte| *byte == b':')
        .map(|dir| {
            // An empty part is the working directory, as it always was.
            let dir = if dir.is_empty() { b"." } else { dir };
            string(OsString::from_vec([dir, b"/", program.as_bytes()].concat()))
        })
        .collect()
}

fn limits(limits: &Limits) -> Vec<(Resource, Rlimit)> {
    let wanted = [
        (Resource::Core, Some(0)),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::As, limits.address_space_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.processes),
    ];
    let set = |(resource, value): (Resource, Option<u64>)| {
        let value = Some(value?);
        // The time has a little room above it, in which the process gets SIGXCPU.
        let maximum = match resource {
            Resource::Cpu => value.map(|seconds| seconds.saturating_add(1)),
            _ => value,
        };
        Some((
            resource,
            Rlimit {
                current: value,
                maximum,
            },
        ))
    };
    wanted.into_iter().filter_map(set).collect()
}

/// The two ends of a process's input and output.
struct Ends {
    there: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn open(launch: &Launch) -> Result<Self> {
        match launch.terminal {
            Some(size) => Self::terminal(size).map_err(ExecError::start("a terminal")),
            None => Self::pipes(&launch.stdin).map_err(ExecError::start("pipes")),
        }
    }

    fn pipes(stdin: &Stdin) -> rustix::io::Result<Self> {
        let (stdin_there, stdin) = if *stdin == Stdin::Empty {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            (rustix::fs::open("/dev/null", flags, Mode::empty())?, None)
        } else {
            let (there, here) = pipe()?;
            (there, Some(here))
        };
        let (stdout, stdout_there) = pipe()?;
        let (stderr, stderr_there) = pipe()?;
        for here in [Some(&stdout), Some(&stderr), stdin.as_ref()]
            .into_iter()
            .flatten()
        {
            do_not_block(here)?;
        }
        Ok(Self {
            there: [stdin_there, stdout_there, stderr_there],
            stdin,
            stdout,
            stderr: Some(stderr),
            terminal: None,
        })
    }

    fn terminal(size: Terminal) -> rustix::io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let here = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&here)?;
        rustix::pty::unlockpt(&here)?;
        resize(&here, size)?;
        let there = rustix::pty::ioctl_tiocgptpeer(&here, flags)?;
        do_not_block(&here)?;
        Ok(Self {
            stdin: Some(here.try_clone().map_err(|error| errno(&error))?),
            stdout: here.try_clone().map_err(|error| errno(&error))?,
            there: [
                there.try_clone().map_err(|error| errno(&error))?,
                there.try_clone().map_err(|error| errno(&error))?,
                there,
            ],
            stderr: None,
            terminal: Some(here),
        })
    }
}

/// Sets the size of a terminal; whoever reads from it gets SIGWINCH.
pub(crate) fn resize(terminal: impl AsFd, size: Terminal) -> rustix::io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
}

fn errno(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}

fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC)
}

fn do_not_block(fd: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}
