//! Scripts, and what bash 5.2 and GNU's tools make of them: the files in
//! `cases/`, whose results `record.py` recorded.
//!
//! A case that this shell does otherwise is named below with the reason. One
//! that is named there and does the same fails too, so the list stays true.

use std::collections::BTreeMap;
use std::fmt::Write;

use cairn::exec::ExecOptions;

use super::{Place, errors};

/// Cases that are known to differ from bash, and in what.
const DIFFERENT: [(&str, &str); 5] = [
    ("set -u in a command", "the status is 1, not 127"),
    (
        "expr with precedence",
        "operators are taken from left to right",
    ),
    (
        "readlink of what is missing",
        "it is printed, where GNU's fails",
    ),
    (
        "a script in the path with the name of a tool",
        "a tool goes before what is in PATH",
    ),
    (
        "patch of a named file",
        "patches are read from the standard input",
    ),
];

struct Case<'a> {
    name: &'a str,
    script: String,
    status: i32,
    stdout: String,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let parts = text.split("### ").skip(1);
    parts.map(case).collect()
}

fn case(part: &str) -> Case<'_> {
    let (name, rest) = part.split_once('\n').unwrap();
    let (script, recorded) = rest.split_once("\n=> ").unwrap();
    let mut lines = recorded.lines();
    let status = lines.next().unwrap().parse().unwrap();
    let mut stdout = String::new();
    for line in lines {
        if let Some(line) = line.strip_prefix('|') {
            stdout.push_str(line);
            stdout.push('\n');
        } else if let Some(line) = line.strip_prefix('\\') {
            stdout.push_str(line);
        }
    }
    Case {
        name,
        script: script.into(),
        status,
        stdout,
    }
}

/// Runs all cases of a file, and tells all that differ.
fn check(text: &str) {
    let place = Place::new();
    let known: BTreeMap<_, _> = DIFFERENT.into_iter().collect();
    let mut wrong = String::new();
    for (number, case) in cases(text).iter().enumerate() {
        let dir = format!("/case{number}");
        place.replica().mkdir(&dir).unwrap();
        let options = ExecOptions {
            cwd: Some(dir.trim_start_matches('/').into()),
            ..ExecOptions::default()
        };
        let output = place.run_with(&case.script, options);
        let same = output.text() == case.stdout && output.exit.code == case.status;
        match (same, known.get(case.name)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => writeln!(wrong, "{}: does not differ any more", case.name).unwrap(),
            (false, None) => writeln!(
                wrong,
                "### {}\n{}\n-- bash says {}:\n{}-- this says {}:\n{}-- errors:\n{}",
                case.name,
                case.script,
                case.status,
                case.stdout,
                output.exit.code,
                output.text(),
                errors(&output),
            )
            .unwrap(),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_language_is_that_of_bash() {
    check(include_str!("cases/language.txt"));
}

#[test]
fn the_tools_are_those_of_gnu() {
    check(include_str!("cases/tools.txt"));
}

#[test]
fn grep_is_that_of_gnu() {
    check(include_str!("cases/grep.txt"));
}

#[test]
fn sed_is_that_of_gnu() {
    check(include_str!("cases/sed.txt"));
}

#[test]
fn jq_and_pipelines_are_as_elsewhere() {
    check(include_str!("cases/jq.txt"));
}
