//! SPEC.md against the code: the tests it names exist, and its numbers are the constants.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_protocol as protocol;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn spec() -> String {
    fs::read_to_string(root().join("SPEC.md")).unwrap()
}

/// Appends the text of all Rust files under `folder`.
fn read_sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_rule_names_tests_that_exist() {
    let mut sources = String::new();
    for part in ["protocol", "engine", "transports", "workspace"] {
        read_sources(&root().join(part), &mut sources);
    }
    let spec = spec();
    let rules: Vec<_> = spec
        .lines()
        .filter(|line| line.starts_with("- **"))
        .collect();
    assert!(rules.len() > 30, "{} rules", rules.len());
    for rule in rules {
        let (_, tests) = rule.split_once("Held by ").expect(rule);
        for test in tests.split('`').skip(1).step_by(2) {
            let definition = format!("#[test]\nfn {test}(");
            let without_indent = sources.contains(&definition);
            let found = without_indent
                || sources.contains(&format!("    fn {test}("))
                || sources.contains(&format!("async fn {test}("));
            assert!(found, "no test {test}, named in: {rule}");
        }
    }
}

#[test]
fn no_rule_has_the_number_of_another() {
    let spec = spec();
    let numbers = spec
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split("**").next());
    let mut numbers: Vec<_> = numbers.collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

#[test]
fn the_limits_are_those_of_the_document() {
    let constants = [
        ("CHUNK_MAX", protocol::CHUNK_MAX as u64),
        ("WHOLE_MAX", protocol::WHOLE_MAX as u64),
        ("CDC_MIN", protocol::CDC_MIN as u64),
        ("CDC_AVG", protocol::CDC_AVG as u64),
        ("CDC_MAX", protocol::CDC_MAX as u64),
        ("FIXED_SMALL", protocol::FIXED_SMALL as u64),
        ("HOLE_BLOCK", protocol::HOLE_BLOCK as u64),
        ("INLINE_MAX", protocol::INLINE_MAX as u64),
        ("NAME_MAX", protocol::NAME_MAX as u64),
        ("SYMLINK_MAX", protocol::SYMLINK_MAX as u64),
        ("XATTR_NAME_MAX", protocol::XATTR_NAME_MAX as u64),
        ("XATTR_VALUE_MAX", protocol::XATTR_VALUE_MAX as u64),
        ("XATTR_NODE_MAX", protocol::XATTR_NODE_MAX as u64),
        ("FILE_SIZE_MAX", protocol::FILE_SIZE_MAX),
        ("MANIFEST_INLINE_MAX", protocol::MANIFEST_INLINE_MAX as u64),
        ("MANIFEST_PAGE_MIN", protocol::MANIFEST_PAGE_MIN as u64),
        ("PATH_DEPTH_MAX", protocol::PATH_DEPTH_MAX as u64),
        ("FRAME_MAX", protocol::FRAME_MAX as u64),
        ("FRAME_MIN", protocol::FRAME_MIN.into()),
        ("ENTRIES_MAX", protocol::ENTRIES_MAX as u64),
        ("EDITS_MAX", protocol::EDITS_MAX as u64),
        ("HASHES_MAX", protocol::HASHES_MAX as u64),
        ("TOKEN_MAX", protocol::TOKEN_MAX as u64),
        ("AGENT_MAX", protocol::AGENT_MAX as u64),
        ("DETAIL_MAX", protocol::DETAIL_MAX as u64),
        ("EXT_KEYS_MAX", protocol::EXT_KEYS_MAX as u64),
        ("EXT_VALUE_MAX", protocol::EXT_VALUE_MAX as u64),
        ("RULES_MAX", protocol::RULES_MAX as u64),
        ("RULE_MAX", protocol::RULE_MAX as u64),
        ("BATCH_EDITS_MAX", protocol::BATCH_EDITS_MAX as u64),
        ("BATCH_CHUNKS_MAX", protocol::BATCH_CHUNKS_MAX as u64),
        ("BATCH_BYTES_MAX", protocol::BATCH_BYTES_MAX as u64),
        ("WANTED_MAX", protocol::WANTED_MAX as u64),
        ("WINDOW_CONTROL", protocol::WINDOW_CONTROL),
        ("WINDOW_BULK", protocol::WINDOW_BULK),
        ("FRAME_STRANGER", protocol::FRAME_STRANGER as u64),
    ];
    let spec = spec();
    let rows: Vec<_> = spec
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(rows.len(), constants.len());
    for (row, (name, value)) in rows.iter().zip(constants) {
        assert!(row.starts_with(&format!("| `{name}` | {value} |")), "{row}");
    }
}
