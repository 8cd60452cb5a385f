//! What no script may do: end the host, hang it, or take more than it may.
//! Nothing here asserts how long something took but for what is unbounded.

use std::time::Duration;

use cairn::backend::shell::Limits;
use cairn::block_on;
use cairn::exec::{Ended, ExecOptions, Signal};

use super::{Place, errors, shell, within};

/// Runs what overflows the interpreter's stack, or is stopped by another limit
/// before: it ends, it says why, and the next script works.
fn host_survives(script: &str) {
    let place = Place::new();
    let output = place.run_with(script, within(Duration::from_mins(1)));
    let said = errors(&output);
    assert_ne!(output.exit.code, -1, "{said}");
    assert_eq!(place.text("echo alive"), "alive\n");
}

/// `eval` counts no depth: at 2, 8, 64 and 256 MiB of stack it overflows.
#[test]
fn regression_eval_of_itself_leaves_the_host_alive() {
    let place = Place::new();
    let output = place.run_with(
        "cmd='eval \"$cmd\"'; eval \"$cmd\"",
        within(Duration::from_mins(2)),
    );
    assert_eq!(output.exit.code, 134, "{}", errors(&output));
    assert!(errors(&output).contains("calls itself more deeply than it may"));
    assert_eq!(place.text("echo alive"), "alive\n");
}

/// jq's values are printed by recursion.
#[test]
fn regression_jq_with_a_deep_value_leaves_the_host_alive() {
    host_survives("jq -nc 'reduce range(9999) as $_ ([];[.]) | tojson' | wc -c");
    host_survives("jq -nc 'reduce range(999999) as $_ ([];[.]) | tojson' | wc -c");
}

/// jq's parser calls itself.
#[test]
fn regression_jq_with_a_deep_program_leaves_the_host_alive() {
    let parens = |n: usize| format!("jq -n '{}1{}' | wc -c", "(".repeat(n), ")".repeat(n));
    host_survives(&parens(5_000));
    host_survives(&parens(200_000));
}

/// bc's parser calls itself.
#[test]
fn regression_bc_with_a_deep_expression_leaves_the_host_alive() {
    let parens = |n: usize| format!("echo '{}1{}' | bc | wc -c", "(".repeat(n), ")".repeat(n));
    host_survives(&parens(5_000));
    host_survives(&parens(500_000));
}

/// Functions have a limit of their own, which ends the script in order.
#[test]
fn functions_that_call_themselves_are_ended() {
    let place = Place::new();
    let output = place.run("echo before; f() { f; }; f");
    assert_eq!(output.exit.code, 134, "{}", errors(&output));
    assert_eq!(output.text(), "before\n");
    assert!(
        errors(&output).contains("calls itself more deeply"),
        "{}",
        errors(&output)
    );
    assert_eq!(place.text("echo alive"), "alive\n");
}

#[test]
fn memory_is_limited_and_the_next_script_has_it_anew() {
    let place = Place::with(shell().limits(Limits {
        memory_bytes: 64 << 20,
        ..Limits::default()
    }));
    let output = place.run_with(
        "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done",
        within(Duration::from_mins(1)),
    );
    assert_eq!(output.exit.code, 137, "{}", errors(&output));
    assert!(
        errors(&output).contains("more memory than it may have"),
        "{}",
        errors(&output)
    );
    assert_eq!(place.text("echo alive"), "alive\n");
}

#[test]
fn output_is_limited() {
    let place = Place::with(shell().limits(Limits {
        output_bytes: 10_000,
        ..Limits::default()
    }));
    let output = place.run("while :; do echo 0123456789; done");
    assert_eq!(output.exit.code, 153, "{}", errors(&output));
    assert_eq!(output.stdout.len(), 10_000);
    assert!(errors(&output).contains("more output than it may"));
    let output = place.run("while :; do echo 0123456789 >&2; done");
    assert_eq!(output.exit.code, 153);
}

#[test]
fn commands_are_limited() {
    let place = Place::with(shell().limits(Limits {
        commands: 1_000,
        ..Limits::default()
    }));
    for script in ["while :; do :; done", "for ((;;)); do x=1; done"] {
        let output = place.run(script);
        assert_eq!(output.exit.code, 152, "{script}: {}", errors(&output));
        assert!(errors(&output).contains("more commands than it may"));
    }
    assert_eq!(place.text("echo alive"), "alive\n");
}

/// Nothing that a script waits for or is busy with keeps its time from being over.
#[test]
fn time_is_limited_whatever_runs() {
    let place = Place::new();
    for script in [
        "while :; do :; done",
        "sleep 100",
        "jq -n '[limit(1e12; repeat(1))] | length'",
        "awk 'BEGIN { while (1) x++ }'",
        "while :; do echo x; done | sort",
        "cat | while read x; do :; done; sleep 100",
        "(sleep 100 & wait)",
    ] {
        let output = place.run_with(script, within(Duration::from_millis(200)));
        assert_eq!(output.exit.code, 124, "{script}: {}", errors(&output));
        assert_eq!(output.exit.ended, Ended::TimedOut, "{script}");
        assert!(
            errors(&output).contains("time of the script is over"),
            "{script}"
        );
    }
    assert_eq!(place.text("echo alive"), "alive\n");
}

#[test]
fn what_runs_is_killed_through_its_handle() {
    let place = Place::new();
    for script in ["sleep 100", "jq -n 'def f: f; f'", "while :; do :; done"] {
        let exec = place.start(script, ExecOptions::default());
        block_on(exec.kill(Signal::TERM)).unwrap();
        let exit = block_on(exec.wait()).unwrap();
        assert_eq!((exit.code, exit.ended), (143, Ended::Killed), "{script}");
    }
    assert_eq!(place.text("echo alive"), "alive\n");
}

#[test]
fn a_script_that_is_too_long_or_too_deep_is_refused() {
    let place = Place::new();
    let output = place.run(&format!("echo {}", "x".repeat(11_000_000)));
    assert_eq!(output.exit.code, 126, "{}", errors(&output));
    let output = place.run(&format!("{}:{}", "{ ".repeat(500), "; }".repeat(500)));
    assert!([2, 126].contains(&output.exit.code), "{}", errors(&output));
    assert_eq!(place.text("echo alive"), "alive\n");
}

#[test]
fn a_file_that_is_too_large_to_be_read_as_a_whole_is_refused_and_named() {
    let place = Place::with(shell().limits(Limits {
        whole_file_bytes: 1 << 20,
        ..Limits::default()
    }));
    place
        .replica()
        .write_file("/big", &vec![b'x'; 2 << 20])
        .unwrap();
    let output = place.run("tac big");
    assert_ne!(output.exit.code, 0);
    assert!(
        errors(&output).contains("File too large"),
        "{}",
        errors(&output)
    );
    // What reads in pieces takes it.
    assert_eq!(
        place.text("wc -c big; head -c 3 big; tail -c 2 big; cat big | wc -c"),
        "2097152 big\nxxxxx2097152\n"
    );
}

#[test]
fn the_worker_can_open_nothing_and_has_no_network() {
    let place = Place::new();
    let output = place.run("cat /etc/shadow; cat /proc/self/environ; curl http://127.0.0.1/");
    assert_ne!(output.exit.code, 0);
    assert_eq!(output.text(), "");
}

/// A search ends in time however long its lines are and whatever its pattern
/// is; one that tries again and again gives up, and says so.
#[test]
fn grep_ends_whatever_it_searches() {
    let place = Place::new();
    let line = vec![b'a'; 32 << 20];
    place.replica().write_file("/long", &line).unwrap();
    for (script, said) in [
        ("grep -c 'a*a*a*a*b' long", "0\n"),
        ("grep -cE '(a|aa)+$' long", "1\n"),
        ("grep -c b long", "0\n"),
        ("grep -o 'a*' long | wc -c", "33554433\n"),
        ("grep -cv b long; grep -c '^' long", "1\n1\n"),
    ] {
        let output = place.run_with(script, within(Duration::from_mins(1)));
        assert_eq!(output.text(), said, "{script}: {}", errors(&output));
    }
    for script in [
        "echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac | grep -P '^(?=a)(a|aa)+\\1$'",
        "echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac | grep -P '(?=a)(a|aa)+(?=b)'",
        "grep -E '((a{999}){999}){999}' long",
    ] {
        let output = place.run_with(script, within(Duration::from_mins(1)));
        assert_eq!(output.exit.code, 2, "{script}: {}", errors(&output));
        assert!(errors(&output).starts_with("grep: "), "{script}");
    }
    assert_eq!(place.text("echo alive"), "alive\n");
}

/// A search of what has no end, or of one line that has none, is over with
/// the time of its script, and takes no more memory than it may.
#[test]
fn grep_of_what_has_no_end_is_ended() {
    let place = Place::with(shell().limits(Limits {
        memory_bytes: 64 << 20,
        ..Limits::default()
    }));
    place.replica().write_file("/long", b"x").unwrap();
    let script = "dd if=/dev/null of=hole bs=1M seek=2048 count=0 2>/dev/null; grep -ac b hole";
    let output = place.run_with(script, within(Duration::from_mins(1)));
    assert_eq!(output.exit.code, 137, "{}", errors(&output));
    assert_eq!(place.text("rm hole; grep -c x long"), "1\n");
    for script in [
        "while :; do echo x; done | grep y",
        "while :; do grep -r y .; grep -q '' long; done",
    ] {
        let output = place.run_with(script, within(Duration::from_millis(200)));
        assert_ne!(output.exit.code, 0, "{script}");
        assert_ne!(output.exit.ended, Ended::Exited, "{script}");
    }
    assert_eq!(place.text("echo alive"), "alive\n");
}

/// The script's own clock stops tools, too.
#[test]
fn timeout_in_a_script_ends_a_tool_that_does_not_end() {
    let place = Place::with(shell());
    place.replica().write_file("/f", b"x\n").unwrap();
    let script = "timeout 0.2 sed ':a;ba' f; echo $?";
    let output = place.run_with(script, within(Duration::from_mins(1)));
    assert_eq!(output.text(), "124\n", "{}", errors(&output));
}

/// An endless loop of `sed` is ended with the time of its script, and what it
/// keeps is limited.
#[test]
fn sed_that_does_not_end_is_ended() {
    let place = Place::with(shell().limits(Limits {
        memory_bytes: 64 << 20,
        ..Limits::default()
    }));
    for script in [
        "echo x | sed ':a;ba'",
        "echo x | sed -n ':a;s/x/y/;s/y/x/;ta;ba'",
        "while :; do echo x; done | sed 's/x/y/'",
        "echo x | sed ':a;=;ba' > /dev/null",
    ] {
        let output = place.run_with(script, within(Duration::from_millis(200)));
        assert_eq!(output.exit.code, 124, "{script}: {}", errors(&output));
    }
    let script = "echo x | sed ':a;s/.*/&&/;ta'";
    let output = place.run_with(script, within(Duration::from_mins(1)));
    assert_eq!(output.exit.code, 137, "{}", errors(&output));
    let script = "echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac | sed -E 's/^(a|aa)+\\1$/x/'";
    let output = place.run_with(script, within(Duration::from_mins(1)));
    assert_ne!(output.exit.code, 0);
    assert_eq!(place.text("echo alive"), "alive\n");
}
