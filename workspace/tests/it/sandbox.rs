//! Commands in a sandbox: a daemon in another process, with a mount of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn::backend::{AtClose, NotEnded, Sandbox};
#[cfg(feature = "shell")]
use cairn::backend::{Local, Shell};
use cairn::exec::{Command, Ended, Exec, ExecError, ExecId, ExecOptions, Output, Synced};
use cairn::{Workspace, WorkspaceError, block_on};

use crate::daemons::Daemon;
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

pub(crate) fn start(
    workspace: &Workspace,
    command: impl Into<Command>,
    options: ExecOptions,
) -> Exec {
    block_on(workspace.exec(command, options)).unwrap()
}

pub(crate) fn run(
    workspace: &Workspace,
    command: impl Into<Command>,
    options: ExecOptions,
) -> Output {
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

/// A file that the kernel wrote by itself was sealed when the mount had heard that it
/// was closed. On a busy machine that was after its writer had ended, and the end was
/// told without the file.
#[test]
fn regression_a_file_is_here_though_its_mount_hears_late_that_it_was_closed() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(daemon.sandbox("ws"));
    block_on(workspace.run("true")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let workspace = &workspace;
            scope.spawn(move || {
                for round in 0..25 {
                    let name = format!("{thread}-{round}");
                    let script = format!("echo {name} > {name}");
                    let exec = start(workspace, script, ExecOptions::default());
                    assert!(block_on(exec.wait()).unwrap().is_success());
                    let came = workspace.fs().blocking().read_file(format!("/{name}"));
                    assert_eq!(came.unwrap(), format!("{name}\n").as_bytes());
                }
            });
        }
    });
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
    let left = block_on(workspace.close()).unwrap();
    let left: Vec<_> = left.iter().map(|on| (&*on.backend, &on.id)).collect();
    assert_eq!(left, [("box", &id("one"))], "who closes it is told");
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
fn a_workspace_that_is_closed_ends_what_runs_in_its_sandbox_where_it_is_to() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let replica = scratch.join("w.cairn");
    let grace = std::time::Duration::from_millis(500);
    let sandbox = daemon.sandbox("quic").at_close(AtClose::End { grace });
    let builder = Workspace::builder().backend("box", sandbox);
    let workspace = block_on(builder.create(&replica)).unwrap();
    let named = |name: &str| ExecOptions {
        id: Some(id(name)),
        ..ExecOptions::default()
    };
    // One tidies up, one does not care, and nobody has asked for the end of the third.
    let tidy = "trap 'echo saved > saved; exit 3' TERM; touch tidy; while :; do sleep 0.01; done";
    let deaf = "trap '' TERM; touch deaf; while :; do sleep 0.01; done";
    let execs = [("tidy", tidy), ("deaf", deaf), ("done", "echo done > done")]
        .map(|(name, script)| start(&workspace, script, named(name)));
    until("they run", || {
        ["tidy", "deaf", "done"].map(|name| daemon.mount.join(name).exists()) == [true; 3]
    });
    assert!(block_on(workspace.close()).unwrap().is_empty());
    let refused = block_on(workspace.run("true")).unwrap_err();
    assert!(matches!(refused, WorkspaceError::Closed), "{refused:?}");
    let fs = workspace.fs().blocking();
    assert_eq!(fs.read_file("/saved").unwrap(), b"saved\n");
    assert_eq!(fs.read_file("/done").unwrap(), b"done\n");
    drop((workspace, execs));
    // The daemon runs nothing, and knows how they ended.
    let builder = Workspace::builder().backend("box", daemon.sandbox("quic"));
    let workspace = block_on(builder.open(&replica)).unwrap();
    assert!(block_on(workspace.pending(None)).unwrap().is_empty());
    let ended = ["tidy", "deaf", "done"].map(|name| {
        let exec = block_on(workspace.get_exec(&id(name), None)).unwrap();
        let exit = block_on(exec.wait()).unwrap();
        (exit.code, exit.ended)
    });
    assert_eq!(
        ended,
        [(3, Ended::Killed), (137, Ended::Killed), (0, Ended::Exited)]
    );
    assert!(block_on(workspace.close()).unwrap().is_empty());
    daemon.end();
}

#[test]
fn a_workspace_says_which_execs_it_could_not_end() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let replica = scratch.join("w.cairn");
    let grace = std::time::Duration::from_millis(100);
    let open = || {
        let sandbox = daemon.sandbox("ws").at_close(AtClose::End { grace });
        let sandbox = sandbox.patience(std::time::Duration::from_millis(300));
        let builder = Workspace::builder().backend("box", sandbox);
        block_on(builder.create(&replica)).unwrap()
    };
    let workspace = open();
    let options = ExecOptions {
        id: Some(id("one")),
        ..ExecOptions::default()
    };
    let exec = start(&workspace, "touch up; sleep 300", options);
    until("it runs", || daemon.mount.join("up").exists());
    daemon.signal(rustix::process::Signal::STOP);
    let error = block_on(workspace.close()).unwrap_err();
    let WorkspaceError::Close {
        id: backend,
        source,
    } = &error
    else {
        panic!("{error:?}");
    };
    let not_ended = source.downcast_ref::<NotEnded>().unwrap();
    assert_eq!(
        (&**backend, &not_ended.running[..]),
        ("box", &[id("one")][..])
    );
    assert!(
        not_ended.to_string().contains("one may run on"),
        "{not_ended}"
    );
    daemon.signal(rustix::process::Signal::CONT);
    drop((workspace, exec));
    // The next one sees to it.
    let workspace = open();
    block_on(workspace.ready(None)).unwrap();
    assert!(block_on(workspace.close()).unwrap().is_empty());
    assert!(workspace.fs().blocking().stat("/up").is_ok());
    daemon.end();
}

#[cfg(feature = "shell")]
#[test]
fn one_workspace_has_a_local_a_shell_and_two_sandbox_backends_at_once() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let (one, two) = (
        Daemon::new(&scratch, "one", &[]),
        Daemon::new(&scratch, "two", &["--plain"]),
    );
    let builder = Workspace::builder()
        .backend("local", Local::new())
        .backend("shell", Shell::new().program(env!("CARGO_BIN_EXE_cairn")))
        .backend("one", one.sandbox("quic"))
        .backend("two", two.sandbox("ws"));
    let workspace = block_on(builder.create(scratch.join("w.cairn"))).unwrap();
    let default = block_on(workspace.run("echo local >> log; pwd")).unwrap();
    assert_eq!(default.synced, Synced::Shared);
    for backend in ["one", "shell", "two", "local", "shell", "two", "one"] {
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
    assert_eq!(log, b"local\none\nshell\ntwo\nlocal\nshell\ntwo\none\n");
    let unknown = block_on(workspace.exec("true", on("three"))).unwrap_err();
    assert!(
        unknown.to_string().contains("local, shell, one, two"),
        "{unknown}"
    );
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
