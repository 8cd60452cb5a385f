//! Programs on the mount, while they are executed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Mounted;

/// More than is kept in memory, so that the kernel may read the file underneath itself.
const LARGE: &str = "3145728";

/// Runs a command to its end. What it has open for writing is never open in this process, where a
/// test beside this one could pass it on to a child, which makes a program busy.
fn run(command: &mut Command) {
    assert!(command.status().unwrap().success());
}

fn start(program: &Path) -> Child {
    Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a line through a running `cat`.
fn echo(cat: &mut Child) {
    writeln!(cat.stdin.as_ref().unwrap(), "still here").unwrap();
    let mut line = String::new();
    let mut from = BufReader::new(cat.stdout.as_mut().unwrap());
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n");
}

/// Opens to truncate and not to write, which `OpenOptions` does not offer but the kernel does.
fn truncate_by_reader(path: &Path) -> io::Result<File> {
    let truncate = rustix::fs::OFlags::TRUNC.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .custom_flags(truncate)
        .open(path)
}

/// pjdfstest's `open::etxtbsy` failed now and then on a busy machine: the program that it had just
/// started was dead. It had opened it with `O_RDONLY | O_TRUNC`. The kernel passes that on before
/// it looks whether the file is executed, and the mount truncated it: a process that was still
/// being started died (EFAULT in `execve`), and otherwise the open was refused, as it should be,
/// of a file that was empty.
fn is_not_truncated(m: &Mounted, size: Option<&str>) {
    let program = m.path("cat");
    run(Command::new("cp").arg("/bin/cat").arg(&program));
    if let Some(size) = size {
        run(Command::new("truncate").args(["-s", size]).arg(&program));
    }
    let before = fs::read(&program).unwrap();
    // The first is refused while the process is being started, as a rule; the last while it runs.
    let mut cat = start(&program);
    for _ in 0..2 {
        let busy = |opened: io::Result<File>| {
            assert_eq!(
                opened.unwrap_err().kind(),
                io::ErrorKind::ExecutableFileBusy
            );
        };
        busy(truncate_by_reader(&program));
        busy(File::create(&program));
        assert!(fs::read(&program).unwrap() == before, "the program changed");
        echo(&mut cat);
    }

    // When nobody executes it any more, it may be truncated. The mount hears of that in its turn.
    let second = start(&program);
    for mut process in [cat, second] {
        assert!(truncate_by_reader(&program).is_err());
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = truncate_by_reader(&program) {
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        assert!(Instant::now() < deadline, "it stays busy");
        std::thread::yield_now();
    }
    assert_eq!(fs::metadata(&program).unwrap().len(), 0);
}

#[test]
fn a_program_is_not_truncated_while_it_is_executed() {
    let Some(m) = Mounted::new() else { return };
    is_not_truncated(&m, None);
}

#[test]
fn a_program_that_the_kernel_reads_itself_is_not_truncated_either() {
    let Some(m) = Mounted::on_disk() else { return };
    is_not_truncated(&m, Some(LARGE));
}
