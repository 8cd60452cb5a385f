//! Commands in a sandbox: a daemon in another process, with a mount of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn::backend::{Local, Sandbox};
use cairn::exec::{
    Command, Ended, EventKind, Exec, ExecError, ExecId, ExecOptions, Output, ReadFrom, Signal,
    Stdin, Synced, Terminal,
};
use cairn::{Workspace, WorkspaceError, block_on};

use crate::daemons::{Daemon, TOKEN};
use crate::program::until;
use crate::scratch::{Scratch, can_mount};

/// A workspace in memory with a sandbox.
pub(crate) fn with(sandbox: Sandbox) -> Workspace {
    block_on(Workspace::builder().backend("box", sandbox).in_memory()).unwrap()
}

pub(crate) fn on(backend: &str) -> ExecOptions {
    ExecOptions {
        backend: Some(backend.into()),
        ..ExecOptions::default()
    }
}

pub(crate) fn id(text: &str) -> ExecId {
    text.parse().unwrap()
}

fn start(workspace: &Workspace, command: impl Into<Command>, options: ExecOptions) -> Exec {
    block_on(workspace.exec(command, options)).unwrap()
}

fn run(workspace: &Workspace, command: impl Into<Command>, options: ExecOptions) -> Output {
    block_on(start(workspace, command, options).result()).unwrap()
}

#[test]
fn x1_a_command_sees_what_was_written_here_and_what_it_writes_is_here() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    for (scheme, more) in [("ws", &["--plain"][..]), ("quic", &[]), ("wss", &[])] {
        let daemon = Daemon::new(&scratch, scheme, more);
        let workspace = with(daemon.sandbox(scheme));
        let fs = workspace.fs().blocking();
        fs.mkdir("/src").unwrap();
        fs.write_file("/src/in", b"from the host").unwrap();
        let options = ExecOptions {
            cwd: Some("src".into()),
            ..ExecOptions::default()
        };
        let script = "cat in; printf 'from the sandbox' > out; pwd";
        let output = run(&workspace, script, options);
        let at = daemon.mount.join("src");
        assert_eq!(output.text(), format!("from the host{}\n", at.display()));
        assert_eq!(output.exit.ended, Ended::Exited);
        assert_eq!(output.synced, Synced::Complete);
        assert_eq!(fs.read_file("/src/out").unwrap(), b"from the sandbox");
        assert!(block_on(workspace.pending(None)).unwrap().is_empty());
        block_on(workspace.close()).unwrap();
        daemon.end();
    }
}

#[test]
fn x1_each_command_sees_the_last_write_and_the_host_each_of_its_writes() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let fs = workspace.fs().blocking();
    for round in 0..50 {
        fs.write_file("/in", format!("{round}").as_bytes()).unwrap();
        let output =
            block_on(workspace.run("cat in; cp in out; rm -f gone; mkdir -p d; touch d/$(cat in)"))
                .unwrap();
        assert_eq!(output.text(), round.to_string());
        assert_eq!(fs.read_file("/out").unwrap(), round.to_string().as_bytes());
        assert!(fs.stat(format!("/d/{round}")).is_ok());
    }
    // What removes most of the tree is meant.
    let output =
        block_on(workspace.run("seq 500 | xargs touch && rm -rf d out && ls | wc -l")).unwrap();
    assert_eq!(output.text(), "501\n");
    block_on(workspace.run("rm -rf * && ls")).unwrap();
    assert_eq!(fs.walk_dir("/").unwrap().count(), 0);
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x8_a_command_waits_for_what_takes_its_time_to_arrive() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(daemon.sandbox("ws"));
    block_on(workspace.run("true")).unwrap();
    let fs = workspace.fs().blocking();
    for round in 0..3_u8 {
        // Nothing that can be told in a few words: it is longer under way than the command.
        let mut state = u64::from(round) + 1;
        let content: Vec<u8> = (0..32 << 20)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        fs.write_file("/big", &content).unwrap();
        let output = block_on(workspace.run("wc -c < big; cp big back")).unwrap();
        assert_eq!(output.text(), format!("{}\n", content.len()));
        assert!(fs.read_file("/back").unwrap() == content);
    }
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x8_an_end_waits_for_a_working_tree_that_is_busy() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(daemon.sandbox("ws"));
    let fs = workspace.fs().blocking();
    fs.mkdir("/d").unwrap();
    // The host goes on changing what the commands change, so that their changes cannot
    // be applied at once.
    let over = Arc::new(AtomicBool::new(false));
    let busy = std::thread::spawn({
        let (fs, over) = (fs.clone(), Arc::clone(&over));
        move || {
            while !over.load(Ordering::Relaxed) {
                fs.write_file("/d/busy", b"here").unwrap();
            }
        }
    });
    for round in 0..10 {
        let script = format!("echo there > d/busy; echo {round} > d/{round}");
        let exec = start(&workspace, script, ExecOptions::default());
        assert!(block_on(exec.wait()).unwrap().is_success());
        let came = fs.read_file(format!("/d/{round}"));
        assert_eq!(came.unwrap(), format!("{round}\n").as_bytes());
    }
    over.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn a_closed_workspace_lets_go_of_its_replica_and_leaves_the_sandbox_to_the_next() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let replica = scratch.join("w.cairn");
    let open = || {
        let builder = Workspace::builder().backend("box", daemon.sandbox("ws"));
        block_on(builder.create(&replica)).unwrap()
    };
    let workspace = open();
    let options = ExecOptions {
        id: Some(id("one")),
        ..ExecOptions::default()
    };
    let script = "echo on; until [ -e go ]; do sleep 0.01; done; echo out > out";
    let exec = start(&workspace, script, options);
    block_on(workspace.close()).unwrap();
    drop(workspace);
    let closed = block_on(exec.wait()).unwrap_err();
    assert!(matches!(closed, ExecError::Closed), "{closed:?}");
    // The exec is held, and the replica is not.
    let workspace = open();
    let again = block_on(workspace.get_exec(&id("one"), None)).unwrap();
    workspace.fs().blocking().write_file("/go", b"").unwrap();
    let output = block_on(again.result()).unwrap();
    assert_eq!(
        (output.text().as_str(), output.synced),
        ("on\n", Synced::Complete)
    );
    assert_eq!(
        workspace.fs().blocking().read_file("/out").unwrap(),
        b"out\n"
    );
    // Dropped without being closed, it lets go as well.
    drop(workspace);
    until("the replica is free", || {
        cairn::Replica::open(&replica, cairn::Options::default()).is_ok()
    });
    daemon.end();
    drop((exec, again));
}

#[test]
fn one_workspace_has_a_local_and_two_sandbox_backends_at_once() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let (one, two) = (
        Daemon::new(&scratch, "one", &[]),
        Daemon::new(&scratch, "two", &["--plain"]),
    );
    // The backend `shell` belongs here as well, once there is one.
    let builder = Workspace::builder()
        .backend("local", Local::new())
        .backend("one", one.sandbox("quic"))
        .backend("two", two.sandbox("ws"));
    let workspace = block_on(builder.create(scratch.join("w.cairn"))).unwrap();
    let default = block_on(workspace.run("echo local >> log; pwd")).unwrap();
    assert_eq!(default.synced, Synced::Shared);
    for backend in ["one", "two", "local", "two", "one"] {
        let output = run(
            &workspace,
            format!("echo {backend} >> log; cat log"),
            on(backend),
        );
        assert!(
            output.text().ends_with(&format!("{backend}\n")),
            "{output:?}"
        );
    }
    let log = workspace.fs().blocking().read_file("/log").unwrap();
    assert_eq!(log, b"local\none\ntwo\nlocal\ntwo\none\n");
    let unknown = block_on(workspace.exec("true", on("three"))).unwrap_err();
    assert!(unknown.to_string().contains("local, one, two"), "{unknown}");
    block_on(workspace.close()).unwrap();
    one.end();
    two.end();
}

#[test]
fn real_work_is_done_in_the_sandbox_and_its_results_are_here() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let fs = workspace.fs().blocking();
    fs.write_file("/add.c", b"int add(int a, int b) { return a + b; }\n")
        .unwrap();
    fs.write_file(
        "/test.c",
        b"#include <stdio.h>\nint add(int, int);\nint main(void) { puts(add(2, 2) == 4 ? \"ok\" : \"no\"); return add(2, 2) != 4; }\n",
    )
    .unwrap();
    let script = "set -e
        git init -q . && git add -A
        git -c user.name=a -c user.email=a@b commit -qm all
        cc add.c test.c -o test && ./test && git log --oneline | wc -l";
    let output = block_on(workspace.run(script)).unwrap();
    assert_eq!(output.text(), "ok\n1\n", "{output:?}");
    assert_eq!(fs.stat("/test").unwrap().perm & 0o111, 0o111);
    let head = fs.read_file("/.git/HEAD").unwrap();
    assert!(head.starts_with(b"ref: "), "{head:?}");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn a_package_is_installed_from_a_cache() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let fs = workspace.fs().blocking();
    // A package in a tarball is what a cache has: npm unpacks it, and asks nobody.
    fs.write_file(
        "/leaf/package.json",
        br#"{"name":"leaf","version":"1.0.0","main":"i.js"}"#,
    )
    .or_else(|_| {
        fs.mkdir("/leaf")?;
        fs.write_file(
            "/leaf/package.json",
            br#"{"name":"leaf","version":"1.0.0","main":"i.js"}"#,
        )
    })
    .unwrap();
    fs.write_file("/leaf/i.js", b"module.exports = 'leaf';\n")
        .unwrap();
    let script = "set -e
        tarball=$(npm pack --silent ./leaf)
        npm init -y >/dev/null
        npm install --silent --no-audit --no-fund --offline ./$tarball
        node -p \"require('leaf')\"";
    let output = block_on(workspace.run(script)).unwrap();
    assert_eq!(output.text(), "leaf\n", "{output:?}");
    // One of the registry, where there is one.
    let cache = scratch.join("cache");
    let fill = format!(
        "timeout 60 npm cache add is-number@7.0.0 --cache {}",
        cache.display()
    );
    if scratch.sh(&fill).status.success() {
        let script = format!(
            "npm install --silent --no-audit --no-fund --offline --cache {} is-number@7.0.0 &&
             node -p \"require('is-number')(7)\"",
            cache.display()
        );
        let output = block_on(workspace.run(script)).unwrap();
        assert_eq!(output.text(), "true\n", "{output:?}");
        let manifest = fs
            .read_file("/node_modules/is-number/package.json")
            .unwrap();
        assert!(String::from_utf8(manifest).unwrap().contains("7.0.0"));
    }
    assert_eq!(
        fs.read_file("/node_modules/leaf/i.js").unwrap(),
        b"module.exports = 'leaf';\n"
    );
    assert!(fs.stat("/package-lock.json").is_ok());
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn ten_thousand_files_are_here_when_the_command_has_ended() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let script = "mkdir d && cd d && seq 10000 | split -l 1 -a 4 - f && ls | wc -l; touch ../last";
    let exec = start(&workspace, script, ExecOptions::default());
    assert!(block_on(exec.wait()).unwrap().is_success());
    let fs = workspace.fs().blocking();
    assert!(fs.stat("/last").is_ok());
    let output = block_on(exec.result()).unwrap();
    assert_eq!(output.text(), "10000\n");
    assert_eq!(output.synced, Synced::Complete);
    let mut sum = 0_u64;
    for found in fs.walk_dir("/d").unwrap() {
        let content = fs.read_file(found.unwrap().path).unwrap();
        sum += String::from_utf8(content)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap();
    }
    assert_eq!(sum, 10_000 * 10_001 / 2);
    block_on(workspace.close()).unwrap();
    daemon.end();
}

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

#[test]
fn x3_a_daemon_has_one_workspace_and_takes_only_who_has_its_token() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let connect = |sandbox: Sandbox| {
        let workspace = with(sandbox);
        let error = block_on(workspace.ready(None)).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    let error = connect(daemon.sandbox("quic").token("wrong"));
    assert!(error.contains("give the sandbox the token"), "{error}");

    let first = with(daemon.sandbox("quic"));
    block_on(first.run("echo mine > file")).unwrap();
    // A second host, with another workspace: refused, and the first is not disturbed.
    let error = connect(daemon.sandbox("quic"));
    assert!(error.contains("start another daemon"), "{error}");
    assert_eq!(block_on(first.run("cat file")).unwrap().text(), "mine\n");
    block_on(first.close()).unwrap();
    daemon.end();
}

#[test]
fn a_daemon_that_dials_is_as_good() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let nobody = Sandbox::listen(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let workspace = with(nobody.patience(std::time::Duration::from_millis(50)));
    let error = block_on(workspace.ready(None)).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.contains("no daemon has come"), "{error}");
    for scheme in ["ws", "quic"] {
        let port = free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut sandbox = Sandbox::listen(address).token(TOKEN);
        if scheme == "quic" {
            let identity = cairn::sync::Identity::open_or_create(&scratch.join("host")).unwrap();
            sandbox = sandbox.identity(identity);
        }
        let workspace = with(sandbox);
        workspace.fs().blocking().write_file("/in", b"in").unwrap();
        let url = format!("{scheme}://{address}");
        let daemon = Daemon::start(&scratch, scheme, &["--dial", &url]);
        let output = block_on(workspace.run("cat in; echo out > out")).unwrap();
        assert_eq!(
            (output.text().as_str(), output.synced),
            ("in", Synced::Complete)
        );
        assert_eq!(
            workspace.fs().blocking().read_file("/out").unwrap(),
            b"out\n"
        );
        daemon.kill();
        // The next one comes to the same host, and gets the workspace.
        let daemon = Daemon::start(&scratch, scheme, &["--dial", &url]);
        until("the next daemon has come", || {
            block_on(workspace.run("cat out")).is_ok_and(|output| output.text() == "out\n")
        });
        block_on(workspace.close()).unwrap();
        daemon.end();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_daemon_tells_how_it_is() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(daemon.sandbox("ws"));
    let runtime = block_on(workspace.ready(None)).unwrap();
    block_on(workspace.run("echo x > file")).unwrap();
    let json = |(code, body): (u16, String)| {
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        (code, value)
    };
    let (code, health) = json(daemon.http("GET", "/health", ""));
    assert_eq!((code, &health["status"]), (200, &"ok".into()));
    let (code, info) = json(daemon.http("GET", "/info", TOKEN));
    assert_eq!((code, &info["runtime"]), (200, &runtime.as_str().into()));
    assert_eq!(info["mount"], daemon.mount.to_str().unwrap());
    let (code, stats) = json(daemon.http("GET", "/stats", TOKEN));
    assert_eq!((code, &stats["edits_pending"]), (200, &0.into()));
    std::fs::write(daemon.mount.join("edited"), "there").unwrap();
    let (code, checkpoint) = json(daemon.http("POST", "/checkpoint", TOKEN));
    assert_eq!((code, &checkpoint["connected"]), (200, &true.into()));
    assert!(checkpoint["cursor"].as_str().unwrap().contains(':'));
    until("the checkpoint is here", || {
        workspace
            .fs()
            .blocking()
            .read_file("/edited")
            .is_ok_and(|text| text == b"there")
    });
    let (code, metrics) = daemon.http("GET", "/metrics", TOKEN);
    assert!(
        code == 200 && metrics.contains("cairn_daemon_connected 1"),
        "{metrics}"
    );
    for path in ["/info", "/stats", "/metrics", "/checkpoint"] {
        assert_eq!(daemon.http("GET", path, "wrong").0, 401, "{path}");
    }
    assert_eq!(daemon.http("GET", "/checkpoint", TOKEN).0, 405);
    assert_eq!(daemon.http("GET", "/other", TOKEN).0, 404);
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn what_a_daemon_cannot_do_is_said_before_it_begins() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    scratch.sh("mkdir full && touch full/file");
    let line = "daemon --mount full --listen 127.0.0.1:0";
    scratch.cairn(line).ended(4).says(&["full"]);
    let line = "daemon --mount none --plain --listen 0.0.0.0:0";
    scratch.cairn(line).ended(5).says(&["certificate"]);
    let line = "daemon --mount none --listen 0.0.0.0:0";
    scratch.cairn(line).ended(5).says(&["token"]);
    let line = "daemon --mount none --dial http://x";
    scratch.cairn(line).ended(2).says(&["quic://"]);
}
