//! `cairn exec` and `cairn shell`, as their users run them.

use std::time::Duration;

use crate::program::{cairn, ended, ran};
use crate::scratch::{Scratch, can_mount};

/// A replica with a file.
fn filled() -> Scratch {
    let scratch = Scratch::new();
    scratch
        .sh("mkdir in && mkdir in/sub && echo hello > in/f")
        .done();
    scratch.cairn("import in w.cairn").done();
    scratch
}

fn exec(scratch: &Scratch, place: &str, words: &[&str]) -> crate::program::Ran {
    let mut command = cairn();
    command.args(["exec", place, "--"]).args(words);
    ran(command.current_dir(&**scratch), b"")
}

#[test]
fn a_script_is_run_where_it_is_said_and_its_status_is_the_programs() {
    let scratch = filled();
    let said = exec(&scratch, "w.cairn", &["cat f; pwd; echo err >&2; exit 7"]);
    let said = said.ended(7);
    assert_eq!(said.text(), "hello\n/workspace\n");
    assert_eq!(said.err, "err\n");
    let said = exec(
        &scratch,
        "w.cairn/sub",
        &["pwd; echo \"$1|$2\" > made", "a b", "c"],
    )
    .done();
    assert_eq!(said.text(), "/workspace/sub\n");
    assert_eq!(
        scratch.cairn("cat w.cairn/sub/made").done().text(),
        "a b|c\n"
    );
    exec(&scratch, "w.cairn/f", &["true"])
        .ended(5)
        .says(&["no directory"]);
    exec(&scratch, "nowhere.cairn", &["true"]).ended(3);
}

#[test]
fn input_variables_and_time_are_passed() {
    let scratch = filled();
    let mut command = cairn();
    command.args(["exec", "-e", "A=x y", "w.cairn", "--", "cat; echo \"$A\""]);
    let said = ran(command.current_dir(&*scratch), b"in\xff\n").done();
    assert_eq!(said.out, b"in\xff\nx y\n");
    let said = scratch.cairn("exec --timeout 0.1 w.cairn -- sleep\u{a0}9");
    assert_ne!(said.status.code(), Some(0));
    let mut command = cairn();
    command.args(["exec", "--timeout", "0.1", "w.cairn", "--", "sleep 9"]);
    let said = ran(command.current_dir(&*scratch), b"").ended(124);
    assert_eq!(said.err, "cairn: the time of the script is over\n");
    scratch
        .cairn("exec -e =x w.cairn -- true")
        .ended(2)
        .says(&["NAME=VALUE"]);
}

#[test]
fn a_mounted_replica_is_used_through_its_mount() {
    if !can_mount() {
        return;
    }
    let scratch = filled();
    let _mount = scratch.mount("w");
    let said = exec(&scratch, "w", &["cat f; echo made > sub/g; exit 3"]).ended(3);
    assert_eq!(said.text(), "hello\n");
    assert_eq!(std::fs::read(scratch.join("w/sub/g")).unwrap(), b"made\n");
    let said = exec(&scratch, "w/sub", &["pwd; cat g"]).done();
    assert_eq!(said.text(), "/workspace/sub\nmade\n");
    scratch
        .fed("shell w", b"ls\n")
        .ended(3)
        .says(&["mounted", "use it there"]);
}

#[test]
fn a_reader_that_stops_ends_the_script() {
    let scratch = filled();
    let mut child = cairn()
        .args(["exec", "w.cairn", "--", "while :; do echo y; done"])
        .current_dir(&*scratch)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    ended(&mut child);
}

#[test]
fn the_prompt_keeps_its_state_from_line_to_line() {
    let scratch = filled();
    let mut command = cairn();
    command.args(["shell", "w.cairn"]).current_dir(&*scratch);
    command.env("CAIRN_HISTORY", scratch.join("history"));
    let lines =
        b"cd sub\nx=5\necho $x; pwd\nfor i in 1 2\ndo echo $i\ndone\n(exit 4)\necho $?\nexit 6\n";
    let said = ran(&mut command, lines).ended(6);
    for line in ["5\n/workspace/sub\n", "1\n2\n", "4\n"] {
        assert!(said.text().contains(line), "{said:?}");
    }
    let history = std::fs::read_to_string(scratch.join("history")).unwrap();
    assert!(history.contains("echo $x; pwd"), "{history}");
}

#[test]
fn a_worker_that_is_started_by_hand_says_nothing_and_ends() {
    let scratch = Scratch::new();
    for line in ["shell-worker", "shell-worker x", "shell-worker 1000000000"] {
        let mut command = cairn();
        command.args(line.split(' ')).current_dir(&*scratch);
        let ended = ran(&mut command, b"");
        assert_ne!(ended.status.code(), Some(0), "{line}");
    }
    // So that its processes have gone before the directory does.
    std::thread::sleep(Duration::from_millis(1));
}
