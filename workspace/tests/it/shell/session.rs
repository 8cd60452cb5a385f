//! Sessions, input, handles, and commands of the host.

use std::time::Duration;

use bytes::Bytes;
use cairn::backend::shell::{HostCall, HostCommand, HostResult};
use cairn::exec::{EventKind, ExecError, ExecOptions, ReadFrom, Signal, Stdin};
use cairn::{Workspace, WorkspaceError, block_on};

use super::{Place, errors, shell, within};

#[test]
fn without_a_session_nothing_is_kept_but_the_store() {
    let place = Place::new();
    place.text("x=1; f() { :; }; cd /tmp; echo a > /tmp/t; echo b > /workspace/kept");
    assert_eq!(
        place.text("echo \"[$x]\"; pwd; cat kept"),
        "[]\n/workspace\nb\n"
    );
    assert_eq!(place.run("f").exit.code, 127);
    assert_eq!(place.run("cat /tmp/t").exit.code, 1);
}

#[test]
fn a_session_keeps_variables_functions_and_the_directory() {
    let place = Place::with(shell().session());
    place.text("mkdir d; cd d; x=1; declare -A map=([k]=v); f() { echo \"f $1\"; }; alias ll=ls");
    assert_eq!(
        place.text("pwd; echo $x ${map[k]}; f 2"),
        "/workspace/d\n1 v\nf 2\n"
    );
    assert_eq!(place.run("(exit 3)").exit.code, 3);
    assert_eq!(place.text("echo $?"), "3\n");
    place.text("echo t > /tmp/t");
    assert_eq!(place.text("cat /tmp/t"), "t\n");
}

#[test]
fn a_session_whose_process_died_says_so_and_stays_where_it_was() {
    let place = Place::with(shell().session());
    place.text("mkdir d; cd d; x=1");
    let output = place.run_with("jq -n 'def f: f; f'", within(Duration::from_millis(100)));
    assert_eq!(output.exit.code, 124);
    let output = place.run("pwd; echo \"[$x]\"");
    assert_eq!(output.text(), "/workspace/d\n[]\n");
    assert!(errors(&output).contains("are lost"), "{}", errors(&output));
    assert_eq!(place.text("pwd"), "/workspace/d\n");
}

#[test]
fn scripts_of_a_session_run_one_after_the_other() {
    let place = Place::with(shell().session());
    let execs: Vec<_> = (0..8)
        .map(|_| place.start("n=$((n + 1)); sleep 0.01", ExecOptions::default()))
        .collect();
    for exec in execs {
        assert!(block_on(exec.wait()).unwrap().is_success());
    }
    assert_eq!(place.text("echo $n"), "8\n");
}

#[test]
fn scripts_without_a_session_run_beside_each_other() {
    let place = Place::new();
    let waits = place.start(
        "until [ -e go ]; do sleep 0.01; done; echo went",
        ExecOptions::default(),
    );
    place.text("touch go");
    assert_eq!(block_on(waits.result()).unwrap().text(), "went\n");
}

#[test]
fn variables_and_the_directory_are_given_per_call() {
    let place = Place::new();
    place.replica().mkdir("/sub").unwrap();
    let options = ExecOptions {
        cwd: Some("sub".into()),
        env: vec![("NAME".into(), "a b".into())],
        ..ExecOptions::default()
    };
    let output = place.run_with("pwd; echo \"$NAME\"; env | grep ^NAME", options.clone());
    assert_eq!(output.text(), "/workspace/sub\na b\nNAME=a b\n");
    let missing = ExecOptions {
        cwd: Some("missing".into()),
        ..ExecOptions::default()
    };
    let error = block_on(place.workspace.exec("pwd", missing)).unwrap_err();
    assert!(
        matches!(error, WorkspaceError::Exec(ExecError::Cwd { .. })),
        "{error:?}"
    );
    let bad = ExecOptions {
        env: vec![("A B".into(), "".into())],
        ..ExecOptions::default()
    };
    let error = block_on(place.workspace.exec("pwd", bad)).unwrap_err();
    assert!(
        matches!(error, WorkspaceError::Exec(ExecError::BadCommand(_))),
        "{error:?}"
    );
}

#[test]
fn the_input_is_bytes_or_what_is_written_until_it_is_closed() {
    let place = Place::new();
    let with = |stdin| ExecOptions {
        stdin,
        ..ExecOptions::default()
    };
    let bytes: Vec<u8> = (0..=255).collect();
    let output = place.run_with("cat", with(Stdin::Bytes(bytes.clone().into())));
    assert_eq!(output.stdout, bytes);
    let exec = place.start("read a; read b; echo \"$b $a\"", with(Stdin::Stream));
    block_on(exec.write(Bytes::from("one\n"))).unwrap();
    block_on(exec.write(Bytes::from("two\n"))).unwrap();
    block_on(exec.close_input()).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "two one\n");
    let exec = place.start("cat", with(Stdin::Stream));
    block_on(exec.kill(Signal::KILL)).unwrap();
    assert_eq!(block_on(exec.wait()).unwrap().code, 137);
}

#[test]
fn output_comes_while_the_script_runs() {
    let place = Place::new();
    let exec = place.start(
        "echo first; until [ -e go ]; do sleep 0.01; done; echo last >&2",
        ExecOptions::default(),
    );
    let mut events = exec.events(ReadFrom::Start);
    let first = block_on(events.next()).unwrap().unwrap();
    assert_eq!(first.kind, EventKind::Stdout("first\n".into()));
    place.text("touch go");
    let second = block_on(events.next()).unwrap().unwrap();
    assert_eq!(second.kind, EventKind::Stderr("last\n".into()));
    assert!(
        matches!(block_on(events.next()).unwrap().unwrap().kind, EventKind::Exit(exit) if exit.is_success())
    );
}

#[test]
fn an_argument_list_is_one_command() {
    let place = Place::new();
    let command = cairn::exec::Command::argv(["printf", "%s|", "a b", "it's", "$x", ""]);
    let exec = block_on(place.workspace.exec(command, ExecOptions::default())).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "a b|it's|$x||");
}

#[test]
fn ids_are_used_once_and_logs_are_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.cairn");
    let open = || block_on(Workspace::builder().backend("shell", shell()).create(&path)).unwrap();
    let options = ExecOptions {
        id: Some("mine".parse().unwrap()),
        ..ExecOptions::default()
    };
    let workspace = open();
    let exec = block_on(workspace.exec("echo kept", options.clone())).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "kept\n");
    let again = block_on(workspace.exec("echo again", options.clone())).unwrap_err();
    assert!(
        matches!(again, WorkspaceError::Exec(ExecError::Duplicate(_))),
        "{again:?}"
    );
    block_on(workspace.close()).unwrap();
    drop(workspace);

    let workspace = open();
    let id = "mine".parse().unwrap();
    let exec = block_on(workspace.get_exec(&id, None)).unwrap();
    assert_eq!(block_on(exec.result()).unwrap().text(), "kept\n");
    block_on(workspace.dispose_exec(&id, None)).unwrap();
    let gone = block_on(workspace.get_exec(&id, None)).unwrap_err();
    assert!(
        matches!(gone, WorkspaceError::Exec(ExecError::Unknown { .. })),
        "{gone:?}"
    );
    block_on(workspace.close()).unwrap();
}

/// Reverses its input, and writes its arguments to a file.
#[derive(Debug)]
struct Reverse;

impl HostCommand for Reverse {
    fn perform(&self, call: &HostCall<'_>) -> HostResult {
        let mut stdout = call.stdin.to_vec();
        stdout.reverse();
        let said = format!("{} in {}", call.arguments.join(","), call.cwd);
        call.replica.write_file("/said", said.as_bytes()).unwrap();
        HostResult {
            stdout,
            stderr: b"done\n".to_vec(),
            code: 5,
        }
    }
}

#[test]
fn commands_of_the_host_are_called_from_scripts() {
    let place = Place::with(shell().command("reverse", Reverse));
    let output = place.run("printf 'a\\xffb' | reverse x 'y z'; echo $?; cat said");
    assert_eq!(output.stdout, b"b\xffa5\nx,y z in /workspace");
    assert_eq!(errors(&output), "done\n");
}

#[test]
fn a_closed_workspace_leaves_no_worker() {
    let place = Place::new();
    let exec = place.start("sleep 100", ExecOptions::default());
    block_on(place.workspace.close()).unwrap();
    assert!(block_on(exec.wait()).is_ok());
}

#[test]
fn what_a_script_cannot_have_is_refused_before_it_runs() {
    let place = Place::new();
    let asked: [fn(&mut ExecOptions); 3] = [
        |options| options.terminal = Some(cairn::exec::Terminal::default()),
        |options| options.detach = true,
        |options| options.limits.cpu_seconds = Some(1),
    ];
    for ask in asked {
        let mut options = ExecOptions::default();
        ask(&mut options);
        let error = block_on(place.workspace.exec("touch ran", options)).unwrap_err();
        assert!(
            matches!(error, WorkspaceError::Exec(ExecError::NotSupported(_))),
            "{error:?}"
        );
    }
    assert!(!place.replica().exists("/ran").unwrap());
}

#[test]
fn an_agents_tools_run_commands_in_it() {
    let place = Place::new();
    let tools = cairn::tools::Tools::new(place.workspace.clone());
    let write = serde_json::json!({"path": "/a/b.txt", "content": "one\ntwo\n"});
    block_on(tools.call("write", write)).unwrap();
    let exec = serde_json::json!({"command": "cd a && wc -l b.txt; exit 3"});
    let ran = block_on(tools.call("exec", exec)).unwrap();
    assert_eq!(ran.text, "2 b.txt\n[exit code 3]", "{ran:?}");
}
