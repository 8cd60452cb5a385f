//! `grep`: lines that match, with some around them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};

use cairn_engine::{GrepOptions, Line, NodeKind, Replica};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Files, Result, page, path};

/// Most lines shown before and after one.
const CONTEXT_MAX: u64 = 10;
/// Most bytes of a line that are shown.
const LINE_MAX: usize = 2_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Input {
    query: String,
    #[serde(default)]
    path: String,
    include: Option<String>,
    #[serde(default)]
    regex: bool,
    #[serde(default)]
    ignore_case: bool,
    #[serde(default)]
    context: u64,
    limit: Option<usize>,
    offset: Option<usize>,
}

pub(super) fn grep(files: &Files, input: &Input) -> Result<Answer> {
    let mut dir = path(&input.path)?;
    let (offset, limit) = page(input.offset, input.limit);
    let mut include = input.include.clone();
    if files.replica.stat(&dir)?.kind != NodeKind::Dir
        && let Some((above, name)) = dir.clone().rsplit_once('/')
    {
        include = Some(literally(name));
        dir = format!("{above}/");
    }
    let options = GrepOptions {
        regex: input.regex,
        ignore_case: input.ignore_case,
        include,
        limit: offset.saturating_add(limit).saturating_add(1),
    };
    let mut seen = 0;
    let mut lines: Vec<Line> = Vec::new();
    files.replica.grep(&dir, &input.query, &options, |line| {
        seen += 1;
        if seen > offset {
            lines.push(line);
        }
        lines.len() <= limit
    })?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    let context = input.context.min(CONTEXT_MAX);
    let next = more.then(|| offset + limit);
    answer(&files.replica, &lines, context, next)
}

/// A name as a glob that matches only it.
fn literally(name: &str) -> String {
    let special = |char: char| "*?[]{}!\\,".contains(char);
    name.chars().fold(String::new(), |mut glob, char| {
        if special(char) {
            glob.push('\\');
        }
        glob.push(char);
        glob
    })
}

fn answer(replica: &Replica, lines: &[Line], context: u64, next: Option<usize>) -> Result<Answer> {
    let (mut text, mut matches) = (String::new(), Vec::new());
    for of_file in lines.chunk_by(|one, other| one.path == other.path) {
        let path = String::from_utf8_lossy(&of_file[0].path).into_owned();
        let around = if context > 0 {
            around(replica, of_file, context)?
        } else {
            BTreeMap::new()
        };
        let mut shown: BTreeMap<u64, (char, String)> = around
            .into_iter()
            .map(|(number, line)| (number, ('-', line)))
            .collect();
        for line in of_file {
            let line_text = cut(&line.text);
            matches.push(json!({"path": path, "line": line.number, "text": line_text}));
            shown.insert(line.number, (':', line_text));
        }
        for (number, (sign, line)) in shown {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{path}{sign}{number}{sign}{line}");
        }
    }
    if matches.is_empty() {
        text.push_str("no line matches\n");
    }
    if let Some(next) = next {
        let _ = writeln!(text, "... there is more: offset {next}");
    }
    let next = next.map_or(Value::Null, Value::from);
    let value = json!({"matches": matches, "nextOffset": next});
    Ok(Answer::new(text, value))
}

/// The lines near those that matched, of a file that may have changed since.
fn around(replica: &Replica, matched: &[Line], context: u64) -> Result<BTreeMap<u64, String>> {
    let last = matched.last().map_or(0, |line| line.number);
    let Ok(file) = replica.open_file(&matched[0].path) else {
        return Ok(BTreeMap::new());
    };
    let mut reader = BufReader::new(file);
    let (mut found, mut next) = (BTreeMap::new(), 0);
    for number in 1..=last + context {
        while matched
            .get(next)
            .is_some_and(|line| line.number + context < number)
        {
            next += 1;
        }
        let near = matched
            .get(next)
            .is_some_and(|line| line.number.abs_diff(number) <= context);
        let mut line = Vec::new();
        let mut read = 0;
        if near {
            read = Read::by_ref(&mut reader)
                .take(LINE_MAX as u64 + 1)
                .read_until(b'\n', &mut line)?;
        }
        if line.last() != Some(&b'\n') {
            read += reader.skip_until(b'\n')?;
        }
        if read == 0 {
            break;
        }
        if near {
            found.insert(number, cut(line.strip_suffix(b"\n").unwrap_or(&line)));
        }
    }
    Ok(found)
}

/// A line as text, the beginning of a long one.
fn cut(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= LINE_MAX {
        return String::from_utf8_lossy(line).into_owned();
    }
    format!("{} ...", String::from_utf8_lossy(&line[..LINE_MAX]))
}
