//! Which processes stand in the way, as far as `/proc` shows them.

use std::fs;
use std::path::{Path, PathBuf};

/// Most processes named in a message.
const NAMED: usize = 5;

/// The processes that have something open below a path, for a message.
pub(crate) fn of(path: &Path) -> String {
    let users: Vec<String> = processes()
        .filter(|process| uses(process, path))
        .map(|process| name(&process))
        .take(NAMED)
        .collect();
    if users.is_empty() {
        "a process that is not visible from here".into()
    } else {
        users.join(", ")
    }
}

/// Whether a process is being killed that still has a FUSE device open.
pub(crate) fn dying_server() -> bool {
    processes()
        .filter(|process| is_dying(process))
        .any(|process| {
            threads(&process)
                .any(|thread| links(&thread.join("fd")).any(|open| open == Path::new("/dev/fuse")))
        })
}

fn processes() -> impl Iterator<Item = PathBuf> {
    entries(Path::new("/proc")).filter(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn threads(process: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(&process.join("task"))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

fn links(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(dir).filter_map(|link| fs::read_link(link).ok())
}

/// Looks at links only: looking at the files themselves would ask the server.
fn uses(process: &Path, path: &Path) -> bool {
    let places = [
        process.join("cwd"),
        process.join("root"),
        process.join("exe"),
    ];
    places
        .into_iter()
        .filter_map(|link| fs::read_link(link).ok())
        .chain(links(&process.join("fd")))
        .any(|open| open.starts_with(path))
}

fn name(process: &Path) -> String {
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    match fs::read_to_string(process.join("comm")) {
        Ok(comm) => format!("{} (process {pid})", comm.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// A process of which a thread cannot end: its leader has, or SIGKILL waits for it.
fn is_dying(process: &Path) -> bool {
    const KILL: u64 = 1 << (9 - 1);
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| match line.split_once(":\t") {
        Some(("State", state)) => state.starts_with('Z'),
        Some(("SigPnd" | "ShdPnd", set)) => {
            u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & KILL != 0)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let _open = fs::File::create(path.join("open")).unwrap();
        let me = format!("process {}", std::process::id());
        assert!(of(&path).contains(&me), "{}", of(&path));
    }

    #[test]
    fn a_living_process_is_not_dying() {
        assert!(!is_dying(Path::new("/proc/self")));
    }
}
