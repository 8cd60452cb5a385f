//! A workspace with backends, on real mounts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn::backend::{Backend, BackendError, Connection, Host, Local};
use cairn::exec::{
    Boxed, Command, Confine, Ended, Enforced, ExecError, ExecId, ExecOptions, Signal, Want,
};
use cairn::{Workspace, WorkspaceError, block_on};

use crate::program::{ended, until};
use crate::scratch::{Scratch, can_mount, detach};

fn with_local() -> Workspace {
    block_on(
        Workspace::builder()
            .backend("local", Local::new())
            .in_memory(),
    )
    .unwrap()
}

fn on(backend: &str) -> ExecOptions {
    ExecOptions {
        backend: Some(backend.into()),
        ..ExecOptions::default()
    }
}

#[test]
fn processes_and_the_library_see_each_other() {
    if !can_mount() {
        return;
    }
    let workspace = with_local();
    let fs = workspace.fs().blocking();
    fs.mkdir("/src").unwrap();
    fs.write_file("/src/in", b"from the library").unwrap();
    let options = ExecOptions {
        cwd: Some("src".into()),
        ..ExecOptions::default()
    };
    let exec =
        block_on(workspace.exec("cat in; printf 'from a process' > out; pwd", options)).unwrap();
    let output = block_on(exec.result()).unwrap();
    assert!(output.text().starts_with("from the library/"), "{output:?}");
    assert_eq!(fs.read_file("/src/out").unwrap(), b"from a process");

    // A directory of the machine, and one that only the mount has.
    for (cwd, says) in [("/", "/\n"), ("/proc/self", "/proc/")] {
        let options = ExecOptions {
            cwd: Some(cwd.into()),
            ..ExecOptions::default()
        };
        let exec = block_on(workspace.exec("pwd -P", options)).unwrap();
        assert!(block_on(exec.result()).unwrap().text().starts_with(says));
    }
    // A program of the workspace.
    fs.write_file("/tool", b"#!/bin/sh\necho tool $1\n")
        .unwrap();
    fs.chmod("/tool", 0o755).unwrap();
    let exec =
        block_on(workspace.exec(Command::argv(["./tool", "x"]), ExecOptions::default())).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "tool x\n");
    block_on(workspace.close()).unwrap();
}

#[test]
fn ten_thousand_files_are_there_when_the_command_has_ended() {
    if !can_mount() {
        return;
    }
    let workspace = with_local();
    let script = "mkdir d && cd d && seq 10000 | xargs -n 500 touch && git init -q . && git add -A . && git -c user.name=a -c user.email=a@b commit -qm all && git status --short | wc -l";
    let output = block_on(workspace.run(script)).unwrap();
    assert_eq!(output.text(), "0\n", "{output:?}");
    let found = workspace.fs().blocking().walk_dir("/d").unwrap();
    let files = found.filter(|found| {
        let path = &found.as_ref().unwrap().path;
        !path.starts_with(b"/d/.git")
    });
    assert_eq!(files.count(), 10_000);
    block_on(workspace.close()).unwrap();
}

#[test]
fn a_local_backend_is_confined_and_says_so() {
    if !can_mount() {
        return;
    }
    let workspace = with_local();
    let confinement = block_on(workspace.confinement(None)).unwrap().unwrap();
    if confinement.writes == Enforced::Yes {
        let script = "echo x > /var/tmp/cairn-must-not-be; echo x > $TMPDIR/a && echo x > ~/b && echo x > $CAIRN_WORKSPACE/c && cat c";
        let output = block_on(workspace.run(script)).unwrap();
        assert_eq!(output.text(), "x\n");
        assert!(!Path::new("/var/tmp/cairn-must-not-be").exists());
    }
    let scratch = confinement
        .writable
        .iter()
        .find(|path| path.ends_with("tmp"));
    let scratch = scratch
        .and_then(|path| path.parent())
        .map(Path::to_path_buf);
    block_on(workspace.close()).unwrap();
    // Nothing of it is left.
    assert!(!scratch.is_some_and(|path| path.exists()));
}

#[test]
fn closing_ends_what_runs_and_what_is_mounted() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mount");
    let replica = dir.path().join("w.cairn");
    let builder = || Workspace::builder().backend("local", Local::new().at(&at));
    let workspace = block_on(builder().create(&replica)).unwrap();
    let options = ExecOptions {
        id: Some("server".parse().unwrap()),
        ..ExecOptions::default()
    };
    let script = "trap '' TERM; echo up; cd /; sleep 77.07";
    let exec = block_on(workspace.exec(script, options)).unwrap();
    block_on(exec.events(cairn::exec::ReadFrom::Start).next()).unwrap();
    assert!(at.join(".").exists());
    block_on(workspace.close()).unwrap();
    let refused = block_on(workspace.run("true")).unwrap_err();
    assert!(matches!(refused, WorkspaceError::Closed));
    let exit = block_on(exec.wait()).unwrap();
    assert_eq!(exit.code, 137);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(at.to_str().unwrap()));
    drop((workspace, exec));

    // Its log is there after a restart, and its id is taken.
    let workspace = block_on(builder().open(&replica)).unwrap();
    let id: ExecId = "server".parse().unwrap();
    let exec = block_on(workspace.get_exec(&id, None)).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "up\n");
    let error = block_on(workspace.kill_exec(&id, None, Signal::TERM)).unwrap_err();
    assert!(matches!(error, WorkspaceError::Exec(ExecError::Ended(_))));
    block_on(workspace.dispose_exec(&id, None)).unwrap();
    let error = block_on(workspace.get_exec(&id, None)).unwrap_err();
    assert!(matches!(
        error,
        WorkspaceError::Exec(ExecError::Unknown { .. })
    ));
    block_on(workspace.close()).unwrap();
}

#[test]
fn a_mount_that_exists_is_used() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mount");
    let replica = cairn::Replica::in_memory().unwrap();
    let options = cairn::fuse::MountOptions::default();
    let mount = cairn::fuse::Mount::new(replica.clone(), &at, options).unwrap();
    let builder = Workspace::builder().backend("here", Local::new().mounted_at(&at));
    let workspace = builder.of(replica).unwrap();
    block_on(workspace.run("echo x > y")).unwrap();
    assert_eq!(workspace.fs().blocking().read_file("/y").unwrap(), b"x\n");
    block_on(workspace.close()).unwrap();
    assert_eq!(std::fs::read(at.join("y")).unwrap(), b"x\n");
    mount.unmount().unwrap();
}

#[test]
fn backends_are_chosen_by_id() {
    if !can_mount() {
        return;
    }
    let open = Local::new().confine(Confine {
        writes: Want::No,
        ..Confine::default()
    });
    let builder = Workspace::builder()
        .backend("first", Local::new().env("WHO", "first"))
        .backend("second", open.env("WHO", "second"));
    let workspace = block_on(builder.in_memory()).unwrap();
    assert_eq!(
        workspace.backends().collect::<Vec<_>>(),
        ["first", "second"]
    );
    assert_eq!(
        block_on(workspace.run("echo $WHO; echo 1 > one"))
            .unwrap()
            .text(),
        "first\n"
    );
    let exec = block_on(workspace.exec("echo $WHO; cat one", on("second"))).unwrap();
    assert_eq!(exec.backend(), "second");
    assert_eq!(block_on(exec.result()).unwrap().text(), "second\n1\n");
    // An exec belongs to its backend.
    let error = block_on(workspace.get_exec(exec.id(), Some("first"))).unwrap_err();
    assert!(matches!(
        error,
        WorkspaceError::Exec(ExecError::Unknown { .. })
    ));
    let error = block_on(workspace.exec("true", on("third"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no backend \"third\"; there are first, second"
    );
    block_on(workspace.push(None)).unwrap();
    block_on(workspace.pull(Some("second"))).unwrap();
    block_on(workspace.close()).unwrap();
}

#[test]
fn a_workspace_without_backends_is_legal() {
    let workspace = block_on(Workspace::in_memory()).unwrap();
    let mut watch = workspace.watch(None).unwrap();
    workspace.fs().blocking().write_file("/a", b"1").unwrap();
    assert!(watch.next_within(Duration::from_mins(1)).unwrap().is_some());
    let error = block_on(workspace.run("true")).unwrap_err();
    assert!(matches!(error, WorkspaceError::NoBackend));
    block_on(workspace.close()).unwrap();
    let missing = block_on(Workspace::open("/nowhere/at/all")).unwrap_err();
    assert!(matches!(missing, WorkspaceError::Open(_)));
    let bad = Workspace::builder().backend("../x", Local::new());
    assert!(block_on(bad.in_memory()).is_err());
}

/// One that fails to connect, the first time.
#[derive(Debug, Default)]
struct Flaky {
    tries: Arc<AtomicUsize>,
}

impl Backend for Flaky {
    fn kind(&self) -> &'static str {
        "flaky"
    }

    fn connect(&self, host: Host) -> Boxed<'_, Result<Arc<dyn Connection>, BackendError>> {
        if self.tries.fetch_add(1, Ordering::SeqCst) == 0 {
            return Box::pin(async { Err("not yet".into()) });
        }
        Box::pin(async move { Local::new().connect(host).await })
    }
}

#[test]
fn connecting_is_lazy_and_tried_again() {
    if !can_mount() {
        return;
    }
    let flaky = Flaky::default();
    let tries = Arc::clone(&flaky.tries);
    let workspace = block_on(Workspace::builder().backend("flaky", flaky).in_memory()).unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 0);
    let error = block_on(workspace.run("true")).unwrap_err();
    assert!(matches!(error, WorkspaceError::Connect { .. }));
    for _ in 0..2 {
        let output = block_on(workspace.run("true")).unwrap();
        assert_eq!(output.exit.ended, Ended::Exited);
    }
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    block_on(workspace.close()).unwrap();
}

#[test]
fn a_mount_point_that_is_in_use_is_named() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("something"), b"").unwrap();
    let builder = Workspace::builder().backend("local", Local::new().at(dir.path()));
    let workspace = block_on(builder.in_memory()).unwrap();
    let error = block_on(workspace.ready(None)).unwrap_err();
    let WorkspaceError::Connect { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("not empty"), "{source}");
    block_on(workspace.close()).unwrap();
}

/// The variable that makes a child of this test one that mounts and waits to be killed.
const MOUNTS: &str = "CAIRN_TEST_MOUNTS";

/// A workspace in memory in a process of its own.
#[test]
fn a_workspace_in_a_process_of_its_own() {
    if std::env::var_os(MOUNTS).is_none() {
        return;
    }
    let workspace = with_local();
    block_on(workspace.run("touch up")).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_with_a_workspace_in_memory_leaves_a_mount_that_the_next_removes() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let temporary = scratch.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    // Somebody else's, which only looks like one.
    std::fs::create_dir(temporary.join("cairn-other")).unwrap();
    let start = || {
        Process::new(std::env::current_exe().unwrap())
            .args([
                "workspace::a_workspace_in_a_process_of_its_own",
                "--exact",
                "--nocapture",
            ])
            .env(MOUNTS, "1")
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mounts = || -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(&temporary).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| !path.ends_with("cairn-other"))
            .collect()
    };
    let up = |path: &Path| path.join("workspace/up").exists();
    let mut first = start();
    until("the first is mounted", || {
        mounts().iter().any(|path| up(path))
    });
    let left = mounts();
    first.kill().unwrap();
    ended(&mut first);
    assert_eq!(mounts(), left, "it had no time to tidy up");
    let mut second = start();
    until("the second is mounted, and alone", || {
        let now = mounts();
        now.len() == 1 && now.is_disjoint(&left) && now.iter().all(|path| up(path))
    });
    assert!(temporary.join("cairn-other").exists());
    second.kill().unwrap();
    ended(&mut second);
    for path in mounts() {
        detach(&path.join("workspace"));
    }
}
