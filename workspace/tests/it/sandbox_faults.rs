//! What goes wrong between a host and its sandbox: it is told, nothing runs twice,
//! and nothing is lost that could be kept.

use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use cairn::backend::Sandbox;
use cairn::exec::{Ended, EventKind, ExecError, ExecOptions, Keep, ReadFrom, Synced};
use cairn::{Workspace, WorkspaceError, block_on};
use cairn_transports::testing::{TcpLink, UdpLink};
use rustix::process::Signal;

use crate::daemons::{Daemon, TOKEN};
use crate::program::{ended, until};
use crate::sandbox::{id, with};
use crate::scratch::{Scratch, can_mount};

/// Does not wait for long for what does not come.
fn impatient(sandbox: Sandbox) -> Sandbox {
    sandbox.patience(Duration::from_millis(500))
}

fn exec_error(error: WorkspaceError) -> ExecError {
    match error {
        WorkspaceError::Exec(error) => error,
        error => panic!("{error:?}"),
    }
}

fn named(name: &str) -> ExecOptions {
    ExecOptions {
        id: Some(id(name)),
        ..ExecOptions::default()
    }
}

#[test]
fn a_daemon_that_is_not_there_is_named_and_tried_again() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let address = daemon.address().to_owned();
    let workspace = with(impatient(daemon.sandbox("ws")));
    daemon.kill();
    let error = block_on(workspace.run("echo x >> ran")).unwrap_err();
    assert!(matches!(error, WorkspaceError::Connect { .. }), "{error:?}");
    let daemon = Daemon::at(&scratch, "w", &address, &["--plain"]);
    block_on(workspace.run("echo x >> ran")).unwrap();
    assert_eq!(workspace.fs().blocking().read_file("/ran").unwrap(), b"x\n");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x4_a_daemon_that_is_killed_loses_its_execs_and_no_edit_of_the_host() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let address = daemon.address().to_owned();
    let workspace = with(daemon.sandbox("ws"));
    let fs = workspace.fs().blocking();
    fs.write_file("/kept", b"by the host").unwrap();
    // After a command: what it did is here.
    let done = block_on(workspace.run("echo done > done")).unwrap();
    assert_eq!(done.synced, Synced::Complete);
    // During one.
    let exec = block_on(workspace.exec("echo on; sleep 300", named("first"))).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    block_on(events.next()).unwrap().unwrap();
    let before = block_on(workspace.ready(None)).unwrap();
    daemon.kill();
    let daemon = Daemon::at(&scratch, "w", &address, &["--plain"]);
    let lost = block_on(events.next()).unwrap_err();
    assert!(
        matches!(&lost, ExecError::Lost { runtime, .. } if *runtime == before),
        "{lost:?}"
    );
    let lost = exec_error(block_on(workspace.get_exec(&id("first"), None)).unwrap_err());
    assert!(
        matches!(&lost, ExecError::Lost { runtime, .. } if *runtime == before),
        "{lost:?}"
    );
    // The next one has all of the workspace, and another runtime.
    let output = block_on(workspace.run("cat kept done")).unwrap();
    assert_eq!(output.text(), "by the hostdone\n");
    assert_ne!(block_on(workspace.ready(None)).unwrap(), before);
    // What it changed and did not get here is gone, and nobody waits for it.
    until("nothing is pending", || {
        block_on(workspace.pending(None)).unwrap().is_empty()
    });
    assert_eq!(fs.read_file("/done").unwrap(), b"done\n");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x4_a_daemon_with_a_store_keeps_its_edits_and_its_logs() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let with_store = ["--store", "d.cairn", "--plain"];
    let daemon = Daemon::new(&scratch, "w", &with_store);
    let address = daemon.address().to_owned();
    let workspace = with(daemon.sandbox("ws"));
    let script = "echo one > one; sync one; echo said; sleep 300";
    let exec = block_on(workspace.exec(script, named("first"))).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    block_on(events.next()).unwrap().unwrap();
    daemon.kill();
    let daemon = Daemon::at(&scratch, "w", &address, &with_store);
    let lost = block_on(exec.wait()).unwrap_err();
    assert!(matches!(lost, ExecError::Lost { .. }), "{lost:?}");
    // Its log was kept, and says that nobody saw its end.
    let again = block_on(workspace.get_exec(&id("first"), None)).unwrap();
    let output = block_on(again.result()).unwrap();
    assert_eq!(
        (output.text().as_str(), &output.exit.ended),
        ("said\n", &Ended::Lost)
    );
    assert_eq!(output.synced, Synced::Complete);
    assert_eq!(
        workspace.fs().blocking().read_file("/one").unwrap(),
        b"one\n"
    );
    // It is never run again.
    let twice = exec_error(block_on(workspace.exec("true", named("first"))).unwrap_err());
    assert!(matches!(twice, ExecError::Duplicate(_)), "{twice:?}");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

/// A link to a daemon that breaks when it is told to.
struct Breaking {
    link: TcpLink,
    _runtime: tokio::runtime::Runtime,
}

impl Breaking {
    fn new(daemon: &Daemon) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let target = daemon.address().parse().unwrap();
        let link = runtime
            .block_on(TcpLink::start(target, Duration::ZERO))
            .unwrap();
        Self {
            link,
            _runtime: runtime,
        }
    }

    fn sandbox(&self, daemon: &Daemon) -> Sandbox {
        daemon.sandbox_at(&format!("ws://{}", self.link.address()))
    }
}

/// The same for UDP: who is cut off hears nothing, and is not told.
struct Silencing {
    link: UdpLink,
    _runtime: tokio::runtime::Runtime,
}

impl Silencing {
    fn new(daemon: &Daemon) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let target = daemon.address().parse().unwrap();
        let link = runtime
            .block_on(UdpLink::start(target, Duration::ZERO))
            .unwrap();
        Self {
            link,
            _runtime: runtime,
        }
    }

    fn sandbox(&self, daemon: &Daemon) -> Sandbox {
        let sandbox = daemon.sandbox_at(&format!("quic://{}", self.link.address()));
        sandbox.silence(Duration::from_millis(300))
    }
}

/// Runs a command a round, each over connections that `cut` has broken or will break,
/// and looks that it was run once and that nothing is missing.
fn run_over_cuts(daemon: &Daemon, sandbox: Sandbox, rounds: u64, cut: impl Fn(u64)) {
    let workspace = with(sandbox);
    let fs = workspace.fs().blocking();
    block_on(workspace.run("true")).unwrap();
    for round in 0..rounds {
        cut(round);
        fs.write_file("/in", format!("in {round}").as_bytes())
            .unwrap();
        let script = format!("cat in; echo {round} >> ran; seq 300 > out-{round}");
        let exec = block_on(workspace.exec(script, named(&format!("round-{round}")))).unwrap();
        let output = block_on(exec.result()).unwrap();
        assert_eq!(output.text(), format!("in {round}"));
        assert!(output.exit.is_success());
        until("what it changed is here", || {
            block_on(workspace.pending(None)).unwrap().is_empty()
        });
        let out = fs.read_file(format!("/out-{round}")).unwrap();
        assert_eq!(out.split(|byte| *byte == b'\n').count(), 301);
    }
    let ran = String::from_utf8(fs.read_file("/ran").unwrap()).unwrap();
    let ran: Vec<u64> = ran.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ran, (0..rounds).collect::<Vec<_>>());
    assert!(daemon.mount.join("ran").exists());
    block_on(workspace.close()).unwrap();
}

#[test]
fn x4_a_connection_that_is_cut_anywhere_runs_nothing_twice_and_loses_nothing() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let breaking = Breaking::new(&daemon);
    run_over_cuts(&daemon, breaking.sandbox(&daemon), 120, |round| {
        // The two connections that come next break after so many bytes, in the handshake, in
        // the greeting, in the push, in the command's output, or in the pull.
        let bytes = 300 + round * 11;
        breaking.link.cut_after([bytes, bytes]);
        breaking.link.cut_now();
    });
    daemon.end();
}

#[test]
fn x4_a_quic_connection_that_falls_silent_anywhere_runs_nothing_twice_and_loses_nothing() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let silencing = Silencing::new(&daemon);
    run_over_cuts(&daemon, silencing.sandbox(&daemon), 20, |round| {
        // The same in packets. The first cuts are in the handshake.
        let packets = 2 + round * 2;
        silencing.link.cut_after([packets, packets]);
        silencing.link.cut_now();
    });
    daemon.end();
}

/// Sync noticed a silent host after 45 s, and calls after 15.
#[test]
fn regression_a_silent_connection_is_noticed_by_sync_as_soon_as_by_calls() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let silencing = Silencing::new(&daemon);
    let workspace = with(silencing.sandbox(&daemon));
    block_on(workspace.run("true")).unwrap();
    for round in 0..3 {
        silencing.link.cut_now();
        let name = format!("round-{round}");
        // No call is made, so only sync can notice.
        let fs = workspace.fs().blocking();
        fs.write_file(format!("/{name}"), b"").unwrap();
        until("it is there", || daemon.mount.join(&name).exists());
    }
    assert_eq!(block_on(workspace.run("ls | wc -l")).unwrap().text(), "3\n");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x8_a_push_that_fails_stops_the_command_before_it_starts() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let breaking = Breaking::new(&daemon);
    let workspace = with(impatient(breaking.sandbox(&daemon)));
    block_on(workspace.run("true")).unwrap();
    workspace.fs().blocking().write_file("/in", b"in").unwrap();
    daemon.signal(Signal::STOP);
    breaking.link.cut_now();
    let error = exec_error(block_on(workspace.exec("echo x >> ran", named("one"))).unwrap_err());
    let unsent = matches!(error, ExecError::Unreachable(_) | ExecError::MayRun { .. });
    assert!(unsent, "{error:?}");
    daemon.signal(Signal::CONT);
    // It was not started, so its id is free.
    until("the daemon answers", || {
        block_on(workspace.run("true")).is_ok()
    });
    let unknown = exec_error(block_on(workspace.get_exec(&id("one"), None)).unwrap_err());
    assert!(matches!(unknown, ExecError::Unknown { .. }), "{unknown:?}");
    block_on(async {
        let exec = workspace
            .exec("cat in; echo x >> ran", named("one"))
            .await
            .unwrap();
        assert_eq!(exec.result().await.unwrap().text(), "in");
    });
    assert_eq!(workspace.fs().blocking().read_file("/ran").unwrap(), b"x\n");
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x8_a_pull_that_fails_leaves_the_result_and_is_made_up_for() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let breaking = Breaking::new(&daemon);
    let workspace = with(impatient(breaking.sandbox(&daemon)));
    block_on(workspace.run("true")).unwrap();
    let (mut pending, mut round) = (0, 0_u64);
    // The connection breaks a little later each time, and does not come back for a
    // while: at some time, after the end was told and before what was changed is here.
    while pending < 2 {
        assert!(round < 100, "{pending} were pending");
        let name = format!("round-{round}");
        let script =
            format!("until [ -e ../go-{round} ]; do sleep 0.01; done; seq 9 > out-{round}");
        let exec = block_on(workspace.exec(script, named(&name))).unwrap();
        let lasts = [700 + round * 13, 700 + round * 13];
        breaking.link.cut_after(lasts.into_iter().chain([0; 12]));
        breaking.link.cut_now();
        std::fs::write(scratch.join(format!("go-{round}")), "").unwrap();
        // Who cannot even learn the end within its patience asks again.
        let mut exit = block_on(exec.wait());
        until("the end is told", || {
            if exit.is_err() {
                exit = block_on(exec.wait());
            }
            exit.is_ok()
        });
        assert!(exit.unwrap().is_success());
        pending += usize::from(exec.synced() == Synced::Pending);
        until("what it changed is here", || {
            block_on(workspace.pending(None)).is_ok_and(|pending| pending.is_empty())
        });
        assert_eq!(exec.synced(), Synced::Complete);
        let out = workspace
            .fs()
            .blocking()
            .read_file(format!("/out-{round}"))
            .unwrap();
        assert_eq!(out.len(), 18);
        round += 1;
    }
    block_on(workspace.close()).unwrap();
    daemon.end();
}

/// The variable that makes a child of this test a host.
const HOST: &str = "CAIRN_TEST_HOST";

/// A host in a process of its own, which starts a command and waits to be killed.
#[test]
fn a_host_in_a_process_of_its_own() {
    let Ok(place) = std::env::var(HOST) else {
        return;
    };
    let (replica, url) = place.split_once(' ').unwrap();
    let sandbox = Sandbox::at(url).unwrap().token(TOKEN);
    let builder = Workspace::builder().backend("box", sandbox);
    let workspace = block_on(builder.create(replica)).unwrap();
    workspace.fs().blocking().write_file("/in", b"in").unwrap();
    let script =
        "cp in started; until [ -e ../go ]; do sleep 0.01; done; cat in > out; echo said; exit 7";
    block_on(workspace.exec(script, named("one"))).unwrap();
    loop {
        std::thread::park();
    }
}

fn host(replica: &Path, daemon: &Daemon) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .args([
            "sandbox_faults::a_host_in_a_process_of_its_own",
            "--exact",
            "--nocapture",
        ])
        .env(
            HOST,
            format!("{} ws://{}", replica.display(), daemon.address()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn x8_a_host_that_is_killed_between_exit_and_pull_makes_up_for_it() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let replica = scratch.join("host.cairn");
    let mut child = host(&replica, &daemon);
    until("the command runs", || daemon.mount.join("started").exists());
    child.kill().unwrap();
    ended(&mut child);
    // It ends while there is no host.
    std::fs::write(scratch.join("go"), "").unwrap();
    until("the command has ended", || {
        std::fs::read(daemon.mount.join("out")).is_ok_and(|out| out == b"in")
    });
    let builder = Workspace::builder().backend("box", daemon.sandbox("ws"));
    let workspace = block_on(builder.open(&replica)).unwrap();
    // Its first use takes up what is pending; nobody has to ask for it.
    block_on(workspace.ready(None)).unwrap();
    until("what it changed is here", || {
        block_on(workspace.pending(None)).unwrap().is_empty()
    });
    assert_eq!(workspace.fs().blocking().read_file("/out").unwrap(), b"in");
    let output = block_on(
        block_on(workspace.get_exec(&id("one"), None))
            .unwrap()
            .result(),
    );
    let output = output.unwrap();
    assert_eq!((output.text().as_str(), output.exit.code), ("said\n", 7));
    assert_eq!(output.synced, Synced::Complete);
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn a_daemon_that_is_told_to_end_asks_its_commands_to_and_brings_what_they_wrote() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(impatient(daemon.sandbox("ws")));
    let script = "trap 'echo saved > saved; exit' TERM; echo up; while :; do sleep 0.01; done";
    let exec = block_on(workspace.exec(script, ExecOptions::default())).unwrap();
    block_on(exec.events(ReadFrom::Start).next())
        .unwrap()
        .unwrap();
    daemon.end();
    until("what it wrote last is here", || {
        workspace
            .fs()
            .blocking()
            .read_file("/saved")
            .is_ok_and(|text| text == b"saved\n")
    });
    block_on(workspace.close()).unwrap();
}

/// Memory of this process, in bytes.
fn resident(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn much_output_takes_little_memory_on_either_side_and_a_slow_reader_slows_nobody() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    block_on(workspace.run("true")).unwrap();
    let pids = ["self".to_owned(), daemon.pid().to_string()];
    let before = pids.clone().map(|pid| resident(&pid));
    let script = "head -c 1073741824 /dev/zero";
    let exec = block_on(workspace.exec(script, ExecOptions::default())).unwrap();
    // It reads one page, and sleeps on it.
    let mut slow = exec.events(ReadFrom::Start);
    block_on(slow.next()).unwrap().unwrap();
    assert!(block_on(exec.wait()).unwrap().is_success());
    let missed = loop {
        match block_on(slow.next()) {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    let ExecError::Evicted { oldest, .. } = missed else {
        panic!("{missed:?}");
    };
    slow.seek(ReadFrom::Seq(oldest));
    assert!(block_on(slow.next()).unwrap().is_some());
    for (pid, before) in pids.iter().zip(before) {
        let more = resident(pid).saturating_sub(before);
        assert!(more < 96 << 20, "{pid} has {more} bytes more");
    }
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn x6_a_slow_reader_gets_all_of_much_output_where_it_is_asked_for() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let workspace = with(daemon.sandbox("quic"));
    let before = resident(&daemon.pid().to_string());
    let options = ExecOptions {
        keep: Keep::Unread,
        timeout: None,
        ..ExecOptions::default()
    };
    // More than the log keeps, many times over.
    let script = "head -c 1073741824 /dev/zero; echo end >&2";
    let exec = block_on(workspace.exec(script, options)).unwrap();
    let mut events = exec.events(ReadFrom::Start);
    let (mut bytes, mut count) = (0, 0_u64);
    let mut said = Vec::new();
    while let Some(event) = block_on(events.next()).unwrap() {
        match event.kind {
            EventKind::Stdout(data) => bytes += data.len(),
            EventKind::Stderr(data) => said.extend_from_slice(&data),
            EventKind::Exit(exit) => assert!(exit.is_success(), "{exit:?}"),
            _ => {}
        }
        count += 1;
        if count == 100 {
            // For longer than what is left behind by a command is waited for.
            std::thread::sleep(Duration::from_secs(3));
        }
    }
    assert_eq!((bytes, said.as_slice()), (1 << 30, &b"end\n"[..]));
    let more = resident(&daemon.pid().to_string()).saturating_sub(before);
    assert!(more < 96 << 20, "{more} bytes more");
    // Who is killed is not waited for.
    let options = ExecOptions {
        keep: Keep::Unread,
        ..ExecOptions::default()
    };
    let exec = block_on(workspace.exec("yes", options)).unwrap();
    block_on(exec.kill(cairn::exec::Signal::KILL)).unwrap();
    assert_eq!(block_on(exec.wait()).unwrap().ended, Ended::Killed);
    block_on(workspace.close()).unwrap();
    daemon.end();
}
