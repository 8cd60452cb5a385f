//! Execs over the wire do what execs do.

use std::path::Path;

use cairn::exec::{
    Command, Ended, EventKind, Exec, ExecError, ExecOptions, ReadFrom, Signal, Stdin, Terminal,
};
use cairn::{WorkspaceError, block_on};

use crate::daemons::Daemon;
use crate::sandbox::{id, run, start, with};
use crate::scratch::{Scratch, can_mount};

#[test]
fn x7_input_is_bytes_or_a_stream_and_a_terminal_is_one() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let options = |stdin| ExecOptions {
        stdin,
        ..ExecOptions::default()
    };
    let long: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    for bytes in [b"a\nb\n".to_vec(), long] {
        let output = run(
            &workspace,
            "cat",
            options(Stdin::Bytes(bytes.clone().into())),
        );
        assert!(output.stdout == bytes);
    }
    let exec = start(&workspace, "cat; echo end", options(Stdin::Stream));
    block_on(exec.write("one ")).unwrap();
    let again = block_on(workspace.get_exec(exec.id(), None)).unwrap();
    block_on(again.write("two ")).unwrap();
    block_on(again.close_input()).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "one two end\n");
    let refused = block_on(exec.write("x")).unwrap_err();
    assert!(matches!(refused, ExecError::InputClosed(_)), "{refused:?}");

    let on_terminal = ExecOptions {
        terminal: Some(Terminal::default()),
        stdin: Stdin::Stream,
        ..ExecOptions::default()
    };
    let exec = start(&workspace, "read line; stty size", on_terminal);
    let rows = 7;
    block_on(exec.resize(Terminal { rows, columns: 30 })).unwrap();
    block_on(exec.write("\n")).unwrap();
    let output = block_on(exec.result()).unwrap();
    assert!(output.text().contains("7 30"), "{output:?}");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x6_events_are_read_from_anywhere_by_any_number() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let script = "for n in 1 2 3 4 5; do echo $n; echo e$n >&2; sleep 0.02; done; exit 3";
    let exec = start(&workspace, script, ExecOptions::default());
    let collect = |from: ReadFrom, exec: &Exec| {
        let mut events = exec.events(from);
        let mut all = Vec::new();
        while let Some(event) = block_on(events.next()).unwrap() {
            all.push(event);
        }
        all
    };
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let exec = exec.clone();
            std::thread::spawn(move || collect_all(&exec))
        })
        .collect();
    let all = collect(ReadFrom::Start, &exec);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), all);
    }
    let seqs: Vec<u64> = all.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(matches!(&all.last().unwrap().kind, EventKind::Exit(exit) if exit.code == 3));
    let middle = all.len() as u64 / 2;
    assert_eq!(
        collect(ReadFrom::Seq(middle), &exec),
        all[middle as usize - 1..]
    );
    assert!(collect(ReadFrom::Tail, &exec).is_empty());
    // One that came later, by the id alone.
    let again = block_on(workspace.get_exec(exec.id(), Some("box"))).unwrap();
    assert_eq!(collect(ReadFrom::Oldest, &again), all);
    block_on(workspace.dispose_exec(exec.id(), None)).unwrap();
    let gone = block_on(workspace.get_exec(exec.id(), None)).unwrap_err();
    assert!(
        matches!(gone, WorkspaceError::Exec(ExecError::Unknown { .. })),
        "{gone:?}"
    );
    block_on(workspace.close()).unwrap();
    daemon.end();
}

fn collect_all(exec: &Exec) -> Vec<cairn::exec::Event> {
    let mut events = exec.events(ReadFrom::Start);
    let mut all = Vec::new();
    while let Some(event) = block_on(events.next()).unwrap() {
        all.push(event);
    }
    all
}

#[test]
fn a_group_that_ignores_term_is_killed_over_the_wire() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let script = "trap '' TERM; (trap '' TERM; sleep 300 & echo $! > child; wait) & until [ -s child ]; do sleep 0.01; done; echo up; while :; do sleep 1; done";
    let exec = start(&workspace, script, ExecOptions::default());
    let mut events = exec.events(ReadFrom::Start);
    block_on(events.next()).unwrap().unwrap();
    block_on(exec.kill(Signal::TERM)).unwrap();
    block_on(workspace.kill_exec(exec.id(), None, Signal::KILL)).unwrap();
    assert_eq!(block_on(exec.wait()).unwrap().ended, Ended::Killed);
    let child = workspace.fs().blocking().read_file("/child").unwrap();
    let child = String::from_utf8(child).unwrap();
    // Who has to reap it may be slow to.
    let status = std::fs::read_to_string(Path::new("/proc").join(child.trim()).join("status"));
    assert!(status.is_err() || status.is_ok_and(|status| status.contains("State:\tZ")));
    // The same by its time.
    let options = ExecOptions {
        timeout: Some(std::time::Duration::from_millis(100)),
        kill_after: std::time::Duration::from_millis(100),
        ..ExecOptions::default()
    };
    let output = run(&workspace, script, options);
    assert_eq!(output.exit.ended, Ended::TimedOut);
    let ended = block_on(exec.kill(Signal::TERM)).unwrap_err();
    assert!(matches!(ended, ExecError::Ended(_)), "{ended:?}");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x9_bad_input_is_named() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let fails =
        |command: Command, options: ExecOptions| match block_on(workspace.exec(command, options))
            .unwrap_err()
        {
            WorkspaceError::Exec(error) => error,
            error => panic!("{error:?}"),
        };
    let cwd = ExecOptions {
        cwd: Some("missing".into()),
        ..ExecOptions::default()
    };
    let error = fails("true".into(), cwd);
    assert!(
        matches!(&error, ExecError::Cwd { path, source }
        if path.ends_with("missing") && source.kind() == std::io::ErrorKind::NotFound),
        "{error:?}"
    );
    let error = fails(Command::argv(["no-such-program"]), ExecOptions::default());
    assert!(matches!(&error, ExecError::Program { program, .. } if program == "no-such-program"));
    let error = fails(Command::argv([""; 0]), ExecOptions::default());
    assert!(
        matches!(&error, ExecError::Remote(fault) if fault.name == "X_BAD_COMMAND"),
        "{error:?}"
    );
    let error = fails("x".repeat(1 << 20).into(), ExecOptions::default());
    assert!(error.to_string().contains("too long"), "{error}");
    let named = || ExecOptions {
        id: Some(id("once")),
        ..ExecOptions::default()
    };
    run(&workspace, "echo x >> ran", named());
    let error = fails("echo x >> ran".into(), named());
    assert!(matches!(&error, ExecError::Duplicate(twice) if *twice == id("once")));
    assert_eq!(workspace.fs().blocking().read_file("/ran").unwrap(), b"x\n");
    assert!(block_on(workspace.pending(None)).unwrap().is_empty());
    let unknown = block_on(workspace.get_exec(&id("never"), None)).unwrap_err();
    assert!(matches!(
        unknown,
        WorkspaceError::Exec(ExecError::Unknown { .. })
    ));
    // Any directory of the machine will do.
    let cwd = ExecOptions {
        cwd: Some("/".into()),
        ..ExecOptions::default()
    };
    assert_eq!(run(&workspace, "pwd", cwd).text(), "/\n");
    block_on(workspace.close()).unwrap();
    daemon.end();
}
