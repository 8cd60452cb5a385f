//! The tools for agents.

use std::fmt::Write as _;

use cairn::backend::Local;
use cairn::tools::{ToolError, Tools};
use cairn::{Workspace, block_on};
use serde_json::{Value, json};

use crate::scratch::can_mount;

fn tools() -> Tools {
    Tools::new(block_on(Workspace::in_memory()).unwrap())
}

#[track_caller]
fn call(tools: &Tools, name: &str, input: Value) -> Value {
    block_on(tools.call(name, input)).unwrap().value
}

#[track_caller]
fn text(tools: &Tools, name: &str, input: Value) -> String {
    block_on(tools.call(name, input)).unwrap().text
}

#[track_caller]
fn error(tools: &Tools, name: &str, input: Value) -> ToolError {
    block_on(tools.call(name, input)).unwrap_err()
}

fn content(tools: &Tools, path: &str) -> String {
    let bytes = tools.workspace().fs().blocking().read_file(path).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_long_file_is_read_in_parts() {
    let tools = tools();
    let mut whole = String::new();
    for number in 1..=5_000 {
        let _ = writeln!(whole, "line {number} ü");
    }
    // A line that no answer has room for, in characters of three bytes.
    whole.push_str(&"€".repeat(200_000));
    whole.push_str("\nlast");
    call(&tools, "write", json!({"path": "long", "content": whole}));
    let (mut read, mut next, mut parts) = (String::new(), json!({"path": "/long"}), 0);
    loop {
        let part = call(&tools, "read", next);
        read.push_str(part["content"].as_str().unwrap());
        parts += 1;
        if part["nextOffset"].is_null() {
            assert_eq!(part["totalLines"], 5_002);
            break;
        }
        assert!(part["totalLines"].is_null());
        next = json!({"path": "/long", "offset": part["nextOffset"], "byteOffset": part["nextByteOffset"]});
    }
    assert!(read == whole);
    assert!((5..10).contains(&parts), "{parts}");

    let part = text(
        &tools,
        "read",
        json!({"path": "long", "offset": 4_999, "limit": 2, "lineNumbers": true}),
    );
    assert!(
        part.starts_with("  4999\tline 4999 ü\n  5000\tline 5000 ü\n"),
        "{part}"
    );
    let part = call(&tools, "read", json!({"path": "long", "offset": 9_000}));
    assert_eq!(part["content"], "");
    let bad = error(&tools, "read", json!({"path": "long", "byteOffset": 5}));
    assert!(matches!(bad, ToolError::Input(_)));
}

#[test]
fn what_is_no_text_is_refused_or_shown() {
    let tools = tools();
    let fs = tools.workspace().fs().blocking().clone();
    fs.write_file("/program", b"\x7fELF\0\0").unwrap();
    fs.write_file("/image.PNG", b"\x89PNG\0").unwrap();
    fs.write_file("/latin", b"gr\xfc\xdfe\n").unwrap();
    fs.write_file("/drawing.svg", b"<svg/>").unwrap();
    assert!(matches!(
        error(&tools, "read", json!({"path": "program"})),
        ToolError::NotText { .. }
    ));
    let media = block_on(tools.call("read", json!({"path": "image.PNG"})))
        .unwrap()
        .media
        .unwrap();
    assert_eq!(
        (media.mime, media.data.as_slice()),
        ("image/png", &b"\x89PNG\0"[..])
    );
    assert_eq!(
        call(&tools, "read", json!({"path": "drawing.svg"}))["content"],
        "<svg/>"
    );
    assert_eq!(
        call(&tools, "read", json!({"path": "latin"}))["content"],
        "gr\u{fffd}\u{fffd}e\n"
    );
    let edit = json!({"path": "latin", "edits": [{"oldText": "e", "newText": "x"}]});
    assert!(matches!(
        error(&tools, "edit", edit),
        ToolError::NotText { .. }
    ));
    fs.truncate_path("/image.PNG", 4 << 20).unwrap();
    assert!(matches!(
        error(&tools, "read", json!({"path": "image.PNG"})),
        ToolError::TooLarge { .. }
    ));
}

#[test]
fn lists_have_pages() {
    let tools = tools();
    for number in 0..250 {
        call(
            &tools,
            "write",
            json!({"path": format!("/d/sub/f{number:03}"), "content": "x"}),
        );
    }
    let page = call(&tools, "ls", json!({"path": "/d/sub"}));
    assert_eq!(page["entries"].as_array().unwrap().len(), 200);
    assert_eq!(page["nextOffset"], 200);
    let page = call(&tools, "ls", json!({"path": "/d/sub", "offset": 200}));
    assert_eq!(page["entries"].as_array().unwrap().len(), 50);
    assert_eq!(page["entries"][0]["name"], "f200");
    assert!(page["nextOffset"].is_null());
    assert_eq!(text(&tools, "ls", json!({})), "d/\n");
    let found = text(
        &tools,
        "find",
        json!({"pattern": "**/f00?", "limit": 2, "offset": 8}),
    );
    assert_eq!(found, "/d/sub/f008\n/d/sub/f009\n");
    let found = call(&tools, "find", json!({"path": "/d", "limit": 1}));
    assert_eq!(
        found["entries"][0],
        json!({"path": "/d/sub", "type": "dir", "size": found["entries"][0]["size"]})
    );
    assert_eq!(found["nextOffset"], 1);
}

#[test]
fn grep_shows_what_is_around() {
    let tools = tools();
    call(
        &tools,
        "write",
        json!({"path": "/src/a.rs", "content": "one\ntwo\nTwo.\nfour\nfive\nsix\ntwo\n"}),
    );
    call(
        &tools,
        "write",
        json!({"path": "/src/[b].txt", "content": "two\r\n"}),
    );
    let all = text(&tools, "grep", json!({"query": "two"}));
    assert_eq!(
        all,
        "/src/[b].txt:1:two\n/src/a.rs:2:two\n/src/a.rs:7:two\n"
    );
    let around = text(
        &tools,
        "grep",
        json!({"query": "two", "path": "/src/a.rs", "context": 1, "ignoreCase": true}),
    );
    let expected = ["-1-one", ":2:two", ":3:Two.", "-4-four", "-6-six", ":7:two"];
    let expected = expected.map(|line| format!("/src/a.rs{line}\n")).concat();
    assert_eq!(around, expected);
    // A dot is a dot, unless it is a pattern. A file's name is never one.
    assert_eq!(
        call(&tools, "grep", json!({"query": "o."}))["matches"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let file = call(
        &tools,
        "grep",
        json!({"query": "t.o", "regex": true, "path": "/src/[b].txt"}),
    );
    assert_eq!(
        file["matches"],
        json!([{"path": "/src/[b].txt", "line": 1, "text": "two"}])
    );
    let page = call(
        &tools,
        "grep",
        json!({"query": "two", "limit": 1, "offset": 1}),
    );
    assert_eq!(
        (&page["matches"][0]["line"], &page["nextOffset"]),
        (&json!(2), &json!(2))
    );
    assert!(matches!(
        error(&tools, "grep", json!({"query": "(", "regex": true})),
        ToolError::Fs(_)
    ));
}

#[test]
fn edits_are_all_or_nothing_and_keep_the_rest() {
    let tools = tools();
    let fs = tools.workspace().fs().blocking().clone();
    fs.write_file("/run.sh", b"#!/bin/sh\r\necho one\r\necho two\r\n")
        .unwrap();
    fs.chmod("/run.sh", 0o755).unwrap();
    let edits = json!([{"oldText": "echo two", "newText": "echo 2\necho 3"}, {"oldText": "one\n", "newText": "1\n"}]);
    let edited = call(&tools, "edit", json!({"path": "run.sh", "edits": edits}));
    assert_eq!(
        content(&tools, "/run.sh"),
        "#!/bin/sh\r\necho 1\r\necho 2\r\necho 3\r\n"
    );
    assert_eq!(fs.stat("/run.sh").unwrap().perm, 0o755);
    assert_eq!(edited["firstChangedLine"], 2);
    let before = content(&tools, "/run.sh");
    let edits =
        json!([{"oldText": "echo 2", "newText": "x"}, {"oldText": "nothing", "newText": "y"}]);
    let failed = error(&tools, "edit", json!({"path": "run.sh", "edits": edits}));
    assert!(matches!(failed, ToolError::NotFound { number: 2, .. }));
    let same = json!([{"oldText": "echo 2", "newText": "echo 2"}]);
    assert!(matches!(
        error(&tools, "edit", json!({"path": "run.sh", "edits": same})),
        ToolError::NoChange(_)
    ));
    assert_eq!(content(&tools, "/run.sh"), before);
    let absent = json!({"path": "no", "edits": [{"oldText": "a", "newText": "b"}]});
    assert!(
        error(&tools, "edit", absent)
            .report()
            .contains("no such file")
    );
}

/// Every patch that `edit` answers with turns the old file into the new one,
/// in the eyes of git.
#[test]
fn patches_apply() {
    let tools = tools();
    let dir = tempfile::tempdir().unwrap();
    let mut random = 12_345_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..40 {
        let count = 1 + next(30);
        let mut lines: Vec<String> = (0..count)
            .map(|n| format!("line<{n}> of {}\n", next(3)))
            .collect();
        if next(2) == 0 {
            lines.last_mut().unwrap().pop();
        }
        let old = lines.concat();
        let mut edits = Vec::new();
        for (n, line) in lines.iter().enumerate() {
            match next(6) {
                0 => edits.push(json!({"oldText": line, "newText": ""})),
                1 => edits.push(json!({"oldText": line, "newText": format!("{line}more\n")})),
                2 => edits
                    .push(json!({"oldText": format!("line<{n}>"), "newText": format!("a\nb{n}")})),
                _ => {}
            }
        }
        if edits.is_empty() {
            continue;
        }
        call(&tools, "write", json!({"path": "/f", "content": old}));
        let patch = text(&tools, "edit", json!({"path": "/f", "edits": edits}));
        std::fs::write(dir.path().join("f"), &old).unwrap();
        std::fs::write(dir.path().join("p"), &patch).unwrap();
        let applied = std::process::Command::new("git")
            .args(["apply", "p"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            applied.status.success(),
            "round {round}: {applied:?}\n{old}\n{patch}"
        );
        let new = std::fs::read_to_string(dir.path().join("f")).unwrap_or_default();
        assert_eq!(new, content(&tools, "/f"), "round {round}\n{patch}");
    }
}

#[test]
fn tools_do_not_tread_on_each_other() {
    let tools = tools();
    let all: String = (0..64).fold(String::new(), |all, n| all + &format!("<{n}>\n"));
    call(&tools, "write", json!({"path": "/f", "content": all}));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let tools = tools.clone();
            std::thread::spawn(move || {
                for n in (thread..64).step_by(8) {
                    let edit = json!([{"oldText": format!("<{n}>"), "newText": format!("({n})")}]);
                    call(&tools, "edit", json!({"path": "/f", "edits": edit}));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(
        content(&tools, "/f"),
        all.replace('<', "(").replace('>', ")")
    );
}

#[test]
fn delete_is_forced_but_careful() {
    let tools = tools();
    call(&tools, "write", json!({"path": "/d/f", "content": ""}));
    assert!(matches!(
        error(&tools, "delete", json!({"path": "/d"})),
        ToolError::Input(_)
    ));
    assert_eq!(
        call(&tools, "delete", json!({"path": "/d", "recursive": true}))["deleted"],
        true
    );
    assert_eq!(
        call(&tools, "delete", json!({"path": "/d"}))["deleted"],
        false
    );
    assert!(matches!(
        error(&tools, "delete", json!({"path": "/", "recursive": true})),
        ToolError::Fs(_)
    ));
    assert!(matches!(
        error(&tools, "delete", json!({"path": "/../x"})),
        ToolError::Input(_)
    ));
    let big = "x".repeat((2 << 20) + 1);
    assert!(matches!(
        error(&tools, "write", json!({"path": "/f", "content": big})),
        ToolError::TooLarge { .. }
    ));
}

#[test]
fn there_are_only_the_tools_that_work() {
    let names = |tools: &Tools| {
        tools
            .list()
            .iter()
            .map(|spec| spec.name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let without = tools();
    assert_eq!(names(&without), "read ls find grep write edit delete");
    assert!(matches!(
        error(&without, "exec", json!({"command": "true"})),
        ToolError::UnknownTool { .. }
    ));
    let read_only = Tools::read_only(without.workspace().clone());
    assert_eq!(names(&read_only), "read ls find grep");
    let write = json!({"path": "/f", "content": ""});
    assert!(matches!(
        error(&read_only, "write", write),
        ToolError::UnknownTool { .. }
    ));
    assert!(matches!(
        error(&without, "ls", json!({"paht": "/"})),
        ToolError::Input(_)
    ));
}

#[test]
fn commands_are_shown_in_part_and_ended_with_their_call() {
    if !can_mount() {
        return;
    }
    let builder = Workspace::builder().backend("local", Local::new());
    let tools = Tools::new(block_on(builder.in_memory()).unwrap());
    call(
        &tools,
        "write",
        json!({"path": "/in", "content": "hello\n"}),
    );
    let ran = text(
        &tools,
        "exec",
        json!({"command": "cat in; echo bad >&2; exit 3"}),
    );
    assert_eq!(ran, "hello\n[standard error]\nbad\n[exit code 3]");
    let ran = call(&tools, "exec", json!({"command": "seq 100000"}));
    let shown = ran["stdout"].as_str().unwrap();
    assert!(
        shown.starts_with("1\n2\n")
            && shown.ends_with("\n100000\n")
            && shown.contains("bytes left out")
    );
    assert!(shown.len() < 70_000);
    let slow = call(
        &tools,
        "exec",
        json!({"command": "sleep 77.08", "timeoutMs": 100}),
    );
    assert_eq!(slow["timedOut"], true);
    block_on(tools.workspace().close()).unwrap();
}
