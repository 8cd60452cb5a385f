//! Processes that an earlier runtime left when it was killed.
//!
//! The first process of an exec dies with its runtime, but those that it
//! started do not. The next runtime with the same directory finds them by a
//! variable in their environment and ends them: what is recorded as lost does
//! not go on working.

use std::collections::HashSet;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::id::{ExecId, RuntimeId};

/// The variable that tells a process which exec it is part of.
pub(crate) const VARIABLE: &str = "CAIRN_EXEC";

/// Its value.
pub(crate) fn mark(runtime: &str, id: &ExecId) -> String {
    format!("{runtime}/{id}")
}

/// Ends all processes of these execs of earlier runtimes.
pub(crate) fn end(marks: &HashSet<String>, own: &RuntimeId) {
    if marks.is_empty() {
        return;
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        // The descriptor first: what is read of the number then is about this process, or it is
        // gone and the signal reaches nobody.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        if is_marked(pid, marks, own) {
            tracing::info!(pid = pid.as_raw_pid(), "ending a process of a lost exec");
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

fn is_marked(pid: Pid, marks: &HashSet<String>, own: &RuntimeId) -> bool {
    // Nobody may read that of a process of somebody else.
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_pid()));
    let environ = environ.unwrap_or_default();
    let mut variables = environ.split(|byte| *byte == 0);
    variables.any(|variable| {
        let value = std::str::from_utf8(variable).ok();
        let value = value.and_then(|text| text.strip_prefix(VARIABLE)?.strip_prefix('='));
        value.is_some_and(|value| marks.contains(value) && !value.starts_with(own.as_str()))
    })
}
