//! `ls` and `find`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cairn_engine::{Attr, NodeKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Files, Result, page, path};

/// Entries of a directory read at a time.
const ENTRIES: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LsInput {
    #[serde(default)]
    path: String,
    limit: Option<usize>,
    offset: Option<usize>,
}

pub(super) fn ls(files: &Files, input: &LsInput) -> Result<Answer> {
    let path = path(&input.path)?;
    let (offset, limit) = page(input.offset, input.limit);
    let wanted = offset.saturating_add(limit).saturating_add(1);
    // Only the first names are kept, however many there are.
    let mut first: BTreeMap<Vec<u8>, Attr> = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let entries = files.replica.list(&path, cookie, ENTRIES)?;
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        for entry in entries {
            first.insert(entry.name, entry.attr);
            if first.len() > wanted {
                first.pop_last();
            }
        }
    }
    let shown = first.into_iter().skip(offset);
    let shown = shown.map(|(name, attr)| (String::from_utf8_lossy(&name).into_owned(), attr));
    Ok(listed(shown, "name", offset, limit))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FindInput {
    #[serde(default)]
    path: String,
    pattern: Option<String>,
    limit: Option<usize>,
    offset: Option<usize>,
}

pub(super) fn find(files: &Files, input: &FindInput) -> Result<Answer> {
    let path = path(&input.path)?;
    let (offset, limit) = page(input.offset, input.limit);
    let pattern = input.pattern.as_deref().unwrap_or("**");
    let walk = files.replica.find(&path, pattern)?;
    let found: Vec<_> = walk
        .skip(offset)
        .take(limit + 1)
        .map(|found| {
            found.map(|found| {
                (
                    String::from_utf8_lossy(&found.path).into_owned(),
                    found.attr,
                )
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(listed(found.into_iter(), "path", offset, limit))
}

/// The answer of a list of which there is one more than is shown, if there is more.
fn listed(
    found: impl Iterator<Item = (String, Attr)>,
    key: &str,
    offset: usize,
    limit: usize,
) -> Answer {
    let (mut text, mut entries, mut next) = (String::new(), Vec::new(), Value::Null);
    for (name, attr) in found {
        if entries.len() == limit {
            next = (offset + limit).into();
            break;
        }
        text.push_str(&name);
        text.push_str(match attr.kind {
            NodeKind::Dir => "/\n",
            NodeKind::Symlink => "@\n",
            _ => "\n",
        });
        entries.push(json!({key: name, "type": kind(attr.kind), "size": attr.size}));
    }
    if entries.is_empty() {
        text.push_str("nothing\n");
    }
    if !next.is_null() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "... there is more: offset {next}");
    }
    Answer::new(text, json!({"entries": entries, "nextOffset": next}))
}

fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "char-device",
        NodeKind::BlockDevice => "block-device",
    }
}
