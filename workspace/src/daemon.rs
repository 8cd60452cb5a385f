//! A process that stays when the command that started it is over.
//!
//! The program starts itself again with a hidden flag. Until the child is
//! ready, its errors go where the parent's go; then it says so over its
//! standard output, and lets go of the terminal. No process is ever forked
//! that has threads.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Outcome, Result};
use crate::logging;
use crate::terminal::say;

/// The flag by which the child knows what it is.
pub(crate) const FLAG: &str = "--detached";

/// Starts the program again with these arguments, and returns when it is ready.
pub(crate) fn start(arguments: &[OsString]) -> Result {
    let program = std::env::current_exe().map_err(Failure::io("cannot find this program"))?;
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::io(format!("cannot start {}", program.display())))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        // An error is like silence: the exit code tells.
        let _ = BufReader::new(out).read_line(&mut line);
    }
    if let Some(ready) = line.strip_suffix('\n') {
        say(&format!("{ready} by process {}", child.id()));
        return Ok(Outcome::Done);
    }
    let status = child
        .wait()
        .map_err(Failure::io("cannot wait for the process that was started"))?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code > 0 => Err(Failure::Said(code)),
        _ => Err(Failure::Refused(format!(
            "the process that was started ended: {status}"
        ))),
    }
}

/// In the child: leaves the session of the terminal, and the directory it was started in.
pub(crate) fn detach() -> Result<()> {
    rustix::process::setsid().map_err(Failure::io("cannot start a session"))?;
    std::env::set_current_dir("/").map_err(Failure::io("cannot change to /"))
}

/// In the child: tells the parent that all is well, and from now on speaks to the log only.
pub(crate) fn ready(replica: &Path, message: &str) -> Result<()> {
    let log = logging::file(replica).map_err(Failure::io(format!(
        "cannot open the log in {}",
        replica.display()
    )))?;
    let nowhere = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(Failure::io("cannot open /dev/null"))?;
    rustix::stdio::dup2_stderr(&log).map_err(Failure::io("cannot redirect the standard error"))?;
    let mut out = std::io::stdout().lock();
    // A parent that is gone already does not matter.
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
    rustix::stdio::dup2_stdout(&nowhere).map_err(Failure::io("cannot redirect the standard output"))
}
