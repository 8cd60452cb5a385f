//! Execs, with real processes, without a mount.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn::block_on;
use cairn::exec::{
    Command, Confine, Ended, Enforced, Event, EventKind, Exec, ExecError, ExecId, ExecOptions,
    Keep, Leftovers, Limits, Network, Output, ReadFrom, Runtime, RuntimeOptions, Signal, Stdin,
    Terminal, Want,
};
use tempfile::TempDir;

use crate::program::until;

/// A runtime in a directory, unconfined.
fn runtime(dir: &Path) -> Runtime {
    let mut options = RuntimeOptions::new(dir);
    options.confine.writes = Want::No;
    options.logs = Some(dir.join("logs"));
    Runtime::new(options).unwrap()
}

fn place() -> (TempDir, Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime(dir.path());
    (dir, runtime)
}

fn start_with(
    runtime: &Runtime,
    command: impl Into<Command>,
    options: ExecOptions,
) -> Result<Exec, ExecError> {
    let execution = block_on(runtime.exec(command.into(), options))?;
    Ok(Exec::new(execution, "test".into()))
}

fn start(runtime: &Runtime, command: impl Into<Command>) -> Exec {
    start_with(runtime, command, ExecOptions::default()).unwrap()
}

fn run_with(runtime: &Runtime, command: impl Into<Command>, options: ExecOptions) -> Output {
    block_on(start_with(runtime, command, options).unwrap().result()).unwrap()
}

fn run(runtime: &Runtime, command: impl Into<Command>) -> Output {
    run_with(runtime, command, ExecOptions::default())
}

fn get(runtime: &Runtime, id: &ExecId) -> Result<Exec, ExecError> {
    Ok(Exec::new(runtime.get(id)?, "test".into()))
}

fn all(exec: &Exec, from: ReadFrom) -> Vec<Event> {
    let mut events = exec.events(from);
    let mut all = Vec::new();
    while let Some(event) = block_on(events.next()).unwrap() {
        all.push(event);
    }
    all
}

/// Whether a process runs whose command line has these words.
fn runs(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.any(|line| line.contains(words))
}

/// Children of this process that ended and that nobody waited for.
fn zombies() -> usize {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let rest = stat.rsplit(") ").next().unwrap_or_default();
            let mut fields = rest.split(' ');
            fields.next() == Some("Z") && fields.next() == Some(&own)
        })
        .count()
}

#[test]
fn a_command_has_its_output_and_its_exit_code() {
    let (dir, runtime) = place();
    let output = run(&runtime, "echo out; echo err >&2; pwd; exit 3");
    let here = dir.path().display();
    assert_eq!(output.text(), format!("out\n{here}\n"));
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.exit.code, 3);
    assert_eq!(output.exit.ended, Ended::Exited);
    assert_eq!(output.exit.leftovers, Leftovers::None);

    let output = run(&runtime, Command::argv(["printf", "%s|", "a b", "", "$x"]));
    assert_eq!(output.text(), "a b||$x|");
    let output = run(&runtime, "kill -9 $$");
    assert_eq!(
        (output.exit.code, output.exit.ended),
        (137, Ended::Signalled(9))
    );
}

#[test]
fn events_are_numbered_and_read_from_anywhere() {
    let (_dir, runtime) = place();
    let exec = start(&runtime, "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done");
    let readers: Vec<_> = (0..3).map(|_| exec.clone()).collect();
    let readers = readers
        .into_iter()
        .map(|exec| std::thread::spawn(move || all(&exec, ReadFrom::Start)));
    let read: Vec<Vec<Event>> = readers
        .collect::<Vec<_>>()
        .into_iter()
        .map(|r| r.join().unwrap())
        .collect();
    for events in &read {
        assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
        assert_eq!(events, &read[0]);
        assert!(matches!(&events.last().unwrap().kind, EventKind::Exit(exit) if exit.is_success()));
    }
    // Later, from a number, and by its id.
    let again = get(&runtime, exec.id()).unwrap();
    assert_eq!(all(&again, ReadFrom::Seq(2)), read[0][1..]);
    assert!(all(&again, ReadFrom::Tail).is_empty());
    assert!(all(&again, ReadFrom::Seq(1_000)).is_empty());
}

#[test]
fn stdin_is_bytes_or_a_stream() {
    let (_dir, runtime) = place();
    assert_eq!(run(&runtime, "cat; echo end").text(), "end\n");
    let many = vec![b'x'; 1 << 20];
    let options = ExecOptions {
        stdin: Stdin::Bytes(many.clone().into()),
        ..ExecOptions::default()
    };
    assert_eq!(run_with(&runtime, "cat", options).stdout, many);

    let options = || ExecOptions {
        stdin: Stdin::Stream,
        ..ExecOptions::default()
    };
    let exec = start_with(&runtime, "cat", options()).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    for line in ["one", "two"] {
        block_on(exec.write(line)).unwrap();
        let event = block_on(events.next()).unwrap().unwrap();
        assert_eq!(event.kind, EventKind::Stdout(line.into()));
    }
    block_on(exec.close_input()).unwrap();
    assert!(block_on(exec.wait()).unwrap().is_success());
    let error = block_on(exec.write("more")).unwrap_err();
    assert!(matches!(error, ExecError::InputClosed(_)));

    // Who does not read is no reason to wait for long.
    let exec = start_with(&runtime, "true", options()).unwrap();
    block_on(exec.wait()).unwrap();
    assert!(block_on(exec.write(many)).is_err());
}

#[test]
fn a_terminal_is_one() {
    let (_dir, runtime) = place();
    let options = ExecOptions {
        terminal: Some(Terminal {
            rows: 40,
            columns: 123,
        }),
        stdin: Stdin::Stream,
        ..ExecOptions::default()
    };
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size; read x; echo got $x; stty size; tty >/dev/tty; cat";
    let exec = start_with(&runtime, script, options).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    let mut seen = String::new();
    let mut await_text = |text: &str| {
        while !seen.contains(text) {
            match block_on(events.next()).unwrap().unwrap().kind {
                EventKind::Stdout(bytes) => seen.push_str(std::str::from_utf8(&bytes).unwrap()),
                other => panic!("{other:?} after {seen:?}"),
            }
        }
    };
    await_text("40 123");
    let size = Terminal {
        rows: 11,
        columns: 22,
    };
    block_on(exec.resize(size)).unwrap();
    block_on(exec.write("hello\n")).unwrap();
    await_text("got hello");
    await_text("11 22");
    await_text("/dev/pts/");
    block_on(exec.close_input()).unwrap();
    assert!(block_on(exec.wait()).unwrap().is_success());

    let none = start(&runtime, "true");
    let error = block_on(none.resize(size)).unwrap_err();
    assert!(matches!(
        error,
        ExecError::NoTerminal(_) | ExecError::Ended(_)
    ));
    // What it did before the shell ended, and what ends by it.
    let options = ExecOptions {
        terminal: Some(Terminal::default()),
        ..ExecOptions::default()
    };
    assert_eq!(run_with(&runtime, "cat; echo done", options).exit.code, 0);
}

/// A shell with job control puts each job into a group of its own.
#[test]
fn jobs_of_a_terminal_end_with_it() {
    let (_dir, runtime) = place();
    let options = ExecOptions {
        terminal: Some(Terminal::default()),
        ..ExecOptions::default()
    };
    let script = "set -m; sleep 77.10 </dev/null >/dev/null 2>&1 & jobs; echo up";
    let output = run_with(&runtime, script, options);
    assert!(output.text().ends_with("up\r\n"), "{output:?}");
    until("nobody is left", || !runs("sleep 77.10"));
}

#[test]
fn a_group_that_ignores_term_is_killed() {
    let (_dir, runtime) = place();
    let begun = Instant::now();
    let options = ExecOptions {
        timeout: Some(Duration::from_millis(300)),
        kill_after: Duration::from_millis(300),
        ..ExecOptions::default()
    };
    let script = "trap '' TERM; (trap '' TERM; sleep 77.01) & (trap '' TERM; sleep 77.01) & wait; wait; sleep 77.01";
    let output = run_with(&runtime, script, options);
    assert_eq!(output.exit.ended, Ended::TimedOut);
    assert_eq!(output.exit.code, 137);
    assert!(begun.elapsed() < Duration::from_secs(30));
    until("nobody is left", || !runs("sleep 77.01"));

    // One that listens may end in its own way.
    let options = ExecOptions {
        timeout: Some(Duration::from_millis(300)),
        ..ExecOptions::default()
    };
    let output = run_with(
        &runtime,
        "trap 'echo bye; exit 9' TERM; while :; do sleep 0.02; done",
        options,
    );
    assert_eq!((output.text(), output.exit.code), ("bye\n".into(), 9));
    assert_eq!(output.exit.ended, Ended::TimedOut);
}

#[test]
fn a_kill_reaches_the_whole_group() {
    let (_dir, runtime) = place();
    let exec = start(&runtime, "sleep 77.02 & sleep 77.02 & echo up; wait");
    block_on(exec.events(ReadFrom::Start).next()).unwrap();
    block_on(exec.kill(Signal::TERM)).unwrap();
    let exit = block_on(exec.wait()).unwrap();
    assert_eq!((exit.code, exit.ended), (143, Ended::Killed));
    until("nobody is left", || !runs("sleep 77.02"));
    let error = block_on(exec.kill(Signal::KILL)).unwrap_err();
    assert!(matches!(error, ExecError::Ended(_)));
}

#[test]
fn what_outlives_the_shell_is_heard_and_ended() {
    let (dir, runtime) = place();
    // In time.
    let output = run(&runtime, "(sleep 0.3; echo late) & echo early");
    assert_eq!(output.text(), "early\nlate\n");
    assert_eq!(output.exit.leftovers, Leftovers::None);

    let short = |detach| ExecOptions {
        linger: Duration::from_millis(200),
        detach,
        ..ExecOptions::default()
    };
    // Too late, with and without the output.
    let output = run_with(
        &runtime,
        "(sleep 77.03; echo late) & echo early",
        short(false),
    );
    assert_eq!(output.text(), "early\n");
    assert_eq!(output.exit.leftovers, Leftovers::Killed);
    let output = run_with(&runtime, "sleep 77.03 >/dev/null 2>&1 & true", short(false));
    assert_eq!(output.exit.leftovers, Leftovers::Killed);
    until("nobody is left", || !runs("sleep 77.03"));

    // May stay, and is not killed by its output.
    let script = "(sleep 0.6; echo late; touch written) & echo early";
    let output = run_with(&runtime, script, short(true));
    assert_eq!(output.text(), "early\n");
    assert_eq!(output.exit.leftovers, Leftovers::Detached);
    until("it goes on", || dir.path().join("written").exists());
}

/// A process that has left the group and holds the output is no reason to hang.
#[test]
fn an_escaped_process_does_not_hang_the_result() {
    let (_dir, runtime) = place();
    let begun = Instant::now();
    let options = ExecOptions {
        linger: Duration::from_millis(200),
        ..ExecOptions::default()
    };
    let output = run_with(&runtime, "setsid sleep 7.04 & echo early", options);
    assert_eq!(output.text(), "early\n");
    assert_eq!(output.exit.leftovers, Leftovers::Escaped);
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[test]
fn much_output_takes_little_memory_and_slow_readers_slow_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RuntimeOptions::new(dir.path());
    options.logs = Some(dir.path().join("logs"));
    options.log_bytes = 4 << 20;
    options.confine.writes = Want::No;
    let runtime = Runtime::new(options).unwrap();
    let before = resident();
    let exec = start(&runtime, "head -c 1G /dev/zero; echo end >&2");
    let mut slow = exec.events(ReadFrom::Start);
    assert_eq!(block_on(slow.next()).unwrap().unwrap().seq, 1);
    let exit = block_on(exec.wait()).unwrap();
    assert!(exit.is_success());
    assert!(resident().saturating_sub(before) < 256 << 20, "memory");
    let kept: u64 = std::fs::read_dir(dir.path().join("logs"))
        .unwrap()
        .flatten()
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(kept < 5 << 20, "{kept} bytes of logs");

    // The reader is told what is missing and goes on from there.
    let oldest = loop {
        match block_on(slow.next()) {
            Ok(Some(_)) => {}
            Err(ExecError::Evicted { oldest, wanted, .. }) => {
                assert!(oldest > wanted);
                break oldest;
            }
            other => panic!("{other:?}"),
        }
    };
    slow.seek(ReadFrom::Seq(oldest));
    let mut last = oldest - 1;
    while let Some(event) = block_on(slow.next()).unwrap() {
        assert_eq!(event.seq, last + 1);
        last = event.seq;
    }
    let output = block_on(exec.result()).unwrap();
    assert_eq!(
        (output.evicted, output.stderr.as_slice()),
        (oldest - 1, &b"end\n"[..])
    );
    assert!(output.stdout.len() > 2 << 20);
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[test]
fn what_nobody_has_read_is_kept_if_it_is_asked_for() {
    let (_dir, runtime) = place();
    let options = || ExecOptions {
        keep: Keep::Unread,
        linger: Duration::from_millis(50),
        ..ExecOptions::default()
    };
    let script = "head -c 67108864 /dev/zero; echo end >&2";
    let exec = start_with(&runtime, script, options()).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    let (mut bytes, mut seq) = (0, 0);
    while let Some(event) = block_on(events.next()).unwrap() {
        assert_eq!(event.seq, seq + 1);
        seq = event.seq;
        if let EventKind::Stdout(data) = &event.kind {
            bytes += data.len();
        }
        if seq == 10 {
            // The first process ends meanwhile; what it left in the pipe is not lost.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    assert_eq!(bytes, 64 << 20);
    // All of it is collected, too, though the log keeps less.
    let output = run_with(&runtime, script, options());
    assert_eq!(
        (output.stdout.len(), output.stderr.as_slice()),
        (64 << 20, &b"end\n"[..])
    );
    // With nobody who reads, it waits until its time is over.
    let timeout = Some(Duration::from_millis(300));
    let exec = start_with(
        &runtime,
        "yes",
        ExecOptions {
            timeout,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(block_on(exec.wait()).unwrap().ended, Ended::TimedOut);
}

#[test]
fn a_log_survives_and_says_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = runtime(dir.path());
    let options = |id: &str| ExecOptions {
        id: Some(id.parse().unwrap()),
        ..ExecOptions::default()
    };
    let done = start_with(&first, "echo done; exit 4", options("done")).unwrap();
    block_on(done.wait()).unwrap();
    // What a process killed in the middle leaves is a log without an end.
    let lost = start_with(&first, "echo begun; sleep 77.05", options("lost")).unwrap();
    block_on(lost.events(ReadFrom::Start).next()).unwrap();
    let logs = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path().join("logs"))
        .unwrap()
        .flatten()
    {
        std::fs::create_dir_all(logs.path().join("logs")).unwrap();
        std::fs::copy(file.path(), logs.path().join("logs").join(file.file_name())).unwrap();
    }
    drop(first);
    until("its processes are gone", || !runs("sleep 77.05"));

    let second = runtime(logs.path());
    let done = get(&second, &"done".parse().unwrap()).unwrap();
    let output = block_on(done.result()).unwrap();
    assert_eq!((output.text(), output.exit.code), ("done\n".into(), 4));
    let lost = get(&second, &"lost".parse().unwrap()).unwrap();
    let output = block_on(lost.result()).unwrap();
    assert_eq!(
        (output.text(), output.exit.ended),
        ("begun\n".into(), Ended::Lost)
    );
    assert!(matches!(
        block_on(lost.kill(Signal::TERM)),
        Err(ExecError::Ended(_))
    ));
    // It may have run, so it is not run again.
    let again = start_with(&second, "echo again", options("lost")).unwrap_err();
    assert!(matches!(again, ExecError::Duplicate(_)), "{again}");
    // But for when it is forgotten.
    second.dispose(&"lost".parse().unwrap()).unwrap();
    assert!(matches!(
        get(&second, &"lost".parse().unwrap()),
        Err(ExecError::Unknown { .. })
    ));
    assert_eq!(
        run_with(&second, "echo again", options("lost")).text(),
        "again\n"
    );
}

#[test]
fn bad_input_is_named() {
    let (dir, runtime) = place();
    let error = |command: Command, options: ExecOptions| {
        start_with(&runtime, command, options).unwrap_err()
    };
    let cwd = |cwd: &str| ExecOptions {
        cwd: Some(cwd.into()),
        id: Some("same".parse().unwrap()),
        ..ExecOptions::default()
    };
    let missing = error("true".into(), cwd("nowhere"));
    assert!(matches!(&missing, ExecError::Cwd { path, .. } if *path == dir.path().join("nowhere")));
    // What did not run may be run.
    let output = run_with(&runtime, "pwd", cwd("/"));
    assert_eq!(output.text(), "/\n");
    assert!(matches!(
        error("true".into(), cwd("/")),
        ExecError::Duplicate(_)
    ));

    let plain = ExecOptions::default;
    let unknown = error(Command::argv(["no-such-program"]), plain());
    assert!(matches!(&unknown, ExecError::Program { program, .. } if program == "no-such-program"));
    let not_program = error(Command::argv(["/etc/passwd"]), plain());
    assert!(matches!(not_program, ExecError::Program { .. }));
    for bad in [
        Command::argv::<&str>([]),
        Command::argv([""]),
        "a\0b".into(),
    ] {
        assert!(matches!(error(bad, plain()), ExecError::BadCommand(_)));
    }
    let options = ExecOptions {
        env: vec![("a=b".into(), "c".into())],
        ..plain()
    };
    assert!(matches!(
        error("true".into(), options),
        ExecError::BadCommand(_)
    ));
    assert!(matches!(
        get(&runtime, &ExecId::random()),
        Err(ExecError::Unknown { .. })
    ));
    assert!(matches!(
        runtime.dispose(&ExecId::random()),
        Err(ExecError::Unknown { .. })
    ));
    let exec = start(&runtime, "sleep 77.06");
    assert!(matches!(
        runtime.dispose(exec.id()),
        Err(ExecError::Running(_))
    ));
    block_on(runtime.close());
    assert!(matches!(error("true".into(), plain()), ExecError::Closed));
    assert!(!runs("sleep 77.06"));
}

#[test]
fn secrets_stay_and_limits_hold() {
    let (_dir, runtime) = place();
    let options = ExecOptions {
        env: vec![("GIVEN".into(), "yes".into())],
        limits: Limits {
            open_files: Some(20),
            file_bytes: Some(1_000),
            ..Limits::default()
        },
        ..ExecOptions::default()
    };
    let script = "env | cut -d= -f1 | sort | tr '\\n' ' '; ulimit -n; ulimit -c; head -c 2000 /dev/zero > big; ls -l big | cut -d' ' -f5; ls /proc/self/fd | wc -l";
    let output = run_with(&runtime, script, options);
    let text = output.text();
    assert!(text.contains("GIVEN ") && text.contains("PATH "), "{text}");
    assert!(!text.contains("CARGO"), "{text}");
    assert!(text.contains("20\n0\n1000\n"), "{text}");
    // Three standard ones, and the directory itself.
    assert!(text.ends_with("\n4\n"), "{text}");
}

#[test]
fn writes_are_restricted() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let mut options = RuntimeOptions::new(dir.path());
    options.confine.writes = Want::Required;
    let runtime = match Runtime::new(options) {
        Ok(runtime) => runtime,
        Err(error) => {
            assert!(matches!(error, ExecError::Confine { .. }));
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    assert_eq!(runtime.confinement().writes, Enforced::Yes);
    let outside = outside.path().display();
    let script = format!(
        "echo 1 > inside && mkdir sub && mv inside sub/ && echo x >/dev/null && echo wrote; echo 2 > {outside}/no; mkdir {outside}/dir; touch {outside}; cat /etc/hostname >/dev/null && echo read"
    );
    let output = run(&runtime, script);
    assert_eq!(output.text(), "wrote\nread\n", "{output:?}");
    assert_eq!(std::fs::read_dir(format!("{outside}")).unwrap().count(), 0);
    if runtime.confinement().signals == Enforced::Yes {
        let output = run(&runtime, format!("kill -0 {}", std::process::id()));
        assert_ne!(output.exit.code, 0);
    }
}

#[test]
fn the_network_can_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RuntimeOptions::new(dir.path());
    options.confine = Confine {
        network: Network::None,
        writes: Want::No,
        ..Confine::default()
    };
    let runtime = Runtime::new(options).unwrap();
    let started = start_with(
        &runtime,
        "tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/fib_trie | grep -c 127.0.0.1",
        ExecOptions::default(),
    );
    match started {
        Ok(exec) => {
            let text = block_on(exec.result()).unwrap().text();
            let mut lines = text.lines().map(str::trim);
            assert_eq!(lines.next(), Some("lo"));
            assert_ne!(lines.next(), Some("0"), "loopback has no address");
            assert_eq!(lines.next(), None);
        }
        // Refused by the machine, and not run without.
        Err(error) => assert!(matches!(error, ExecError::Confine { .. }), "{error}"),
    }
}

#[test]
fn nothing_is_left() {
    let (_dir, runtime) = place();
    let runtime = Arc::new(runtime);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let runtime = Arc::clone(&runtime);
            std::thread::spawn(move || {
                for _ in 0..25 {
                    assert_eq!(run(&runtime, "exit 7").exit.code, 7);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(descriptors < 200, "{descriptors} descriptors are open");
    drop(runtime);
    until("all are reaped", || zombies() == 0);
}
