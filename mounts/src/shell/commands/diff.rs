//! `diff`: files compared, in the normal and the unified form.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use super::call::{Call, Outcome, is_dir};
use super::dates::Date;
use super::edits::{Edit, edits};
use super::options::{self, Given, Known};
use super::source::Source;
use super::trees;

const KNOWN: Known = Known {
    short: "aBbdEiNqrstuU:wx:",
    long: &[
        ("text", 'a'),
        ("ignore-blank-lines", 'B'),
        ("ignore-space-change", 'b'),
        ("minimal", 'd'),
        ("ignore-case", 'i'),
        ("new-file", 'N'),
        ("brief", 'q'),
        ("recursive", 'r'),
        ("report-identical-files", 's'),
        ("unified?", 'u'),
        ("ignore-all-space", 'w'),
        ("exclude=", 'x'),
        ("label=", 'L'),
        ("normal", 'n'),
        ("strip-trailing-cr", 'R'),
        ("color?", '\0'),
        ("ignore-trailing-space", 'Z'),
    ],
    error_code: 2,
};

/// Exit status when something could not be compared.
pub(crate) const TROUBLE: i32 = 2;

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let [old, new] = &*given.operands else {
        let what = match &*given.operands {
            [] => format!(
                "missing operand after '{}'",
                call.args().last().map_or("diff", String::as_str)
            ),
            [one] => format!("missing operand after '{one}'"),
            [_, _, extra, ..] => format!("extra operand '{extra}'"),
            _ => "missing operand".into(),
        };
        return call.usage(&what, TROUBLE).await;
    };
    let (mut old, mut new) = (old.clone(), new.clone());
    let dirs = (directory(call, &old).await, directory(call, &new).await);
    match dirs {
        (true, true) => return trees::compare(call, &given, &old, &new).await,
        (true, false) if new != "-" => old = beside(&old, &new),
        (false, true) if old != "-" => new = beside(&new, &old),
        _ => {}
    }
    files(call, &given, &old, &new, None).await
}

async fn directory(call: &Call<'_>, path: &str) -> bool {
    path != "-"
        && call
            .attributes(path, true)
            .await
            .is_ok_and(|node| is_dir(&node))
}

/// The file of the same name in a directory.
fn beside(dir: &str, file: &str) -> String {
    let name = file
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(file);
    format!("{}/{name}", dir.trim_end_matches('/'))
}

/// One side of a comparison.
struct Side {
    name: String,
    bytes: Vec<u8>,
    /// What follows the name above a unified diff.
    time: String,
}

async fn side(call: &Call<'_>, given: &Given, name: &str, in_tree: bool) -> io::Result<Side> {
    let read = match Source::open(call, name).await {
        Ok(mut source) => source.read_all().await,
        Err(error) => Err(error),
    };
    let bytes = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound && given.has('N') && in_tree => {
            Vec::new()
        }
        read => read?,
    };
    let time = match call.attributes(name, true).await {
        Ok(node) if name != "-" => node.mtime,
        _ if name == "-" => crate::shell::adapter::timestamp(std::time::SystemTime::now()),
        _ => cairn_protocol::Timestamp::EPOCH,
    };
    Ok(Side {
        name: name.into(),
        bytes,
        time: Date::full(time),
    })
}

pub(crate) async fn files(
    call: &Call<'_>,
    given: &Given,
    old: &str,
    new: &str,
    above: Option<String>,
) -> Outcome {
    let mut sides = Vec::new();
    for name in [old, new] {
        match side(call, given, name, above.is_some() || given.has('N')).await {
            Ok(side) => sides.push(side),
            Err(error) => call.complain_of(name, &error).await?,
        }
    }
    let [old, new] = &*sides else {
        return Ok(TROUBLE);
    };
    if old.bytes == new.bytes {
        return same(call, given, old, new).await;
    }
    let binary = |side: &Side| side.bytes.iter().take(32 << 10).any(|byte| *byte == 0);
    if (binary(old) || binary(new)) && !given.has('a') {
        let what = if given.has('q') {
            "Files"
        } else {
            "Binary files"
        };
        let line = format!("{what} {} and {} differ\n", old.name, new.name);
        call.out(line.as_bytes()).await?;
        // GNU's says 2 for binary files, and 1 when it is only asked whether they differ.
        return Ok(if given.has('q') { 1 } else { TROUBLE });
    }
    let (lines, found) = compare(given, old, new);
    if found.is_empty() {
        return same(call, given, old, new).await;
    }
    if given.has('q') {
        let line = format!("Files {} and {} differ\n", old.name, new.name);
        call.out(line.as_bytes()).await?;
        return Ok(1);
    }
    if let Some(above) = above {
        call.out(above.as_bytes()).await?;
    }
    match context(given) {
        Some(context) => unified(call, given, [old, new], &lines, &found, context).await?,
        None => normal(call, &lines, &found).await?,
    }
    Ok(1)
}

async fn same(call: &Call<'_>, given: &Given, old: &Side, new: &Side) -> Outcome {
    if given.has('s') {
        let line = format!("Files {} and {} are identical\n", old.name, new.name);
        call.out(line.as_bytes()).await?;
    }
    Ok(0)
}

/// Lines around a difference in the unified form, if that is wanted.
fn context(given: &Given) -> Option<usize> {
    match given.last_of("uU") {
        Some('U') => Some(given.value('U').and_then(|n| n.parse().ok()).unwrap_or(3)),
        Some(_) => Some(given.value('u').and_then(|n| n.parse().ok()).unwrap_or(3)),
        None => None,
    }
}

/// The lines of both sides, and what differs.
fn compare<'a>(given: &Given, old: &'a Side, new: &'a Side) -> ([Vec<&'a [u8]>; 2], Vec<Edit>) {
    let split = |side: &'a Side| -> Vec<&'a [u8]> {
        side.bytes.split_inclusive(|byte| *byte == b'\n').collect()
    };
    let lines = [split(old), split(new)];
    // Lines that count as the same get the same number.
    let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut number = |line: &&[u8]| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(key(given, line)).or_insert(next)
    };
    let [a, b] =
        [&lines[0], &lines[1]].map(|lines| lines.iter().map(&mut number).collect::<Vec<_>>());
    let mut found = edits(&a, &b);
    if given.has('B') {
        let blank = |lines: &[&[u8]]| {
            lines
                .iter()
                .all(|line| line.iter().all(u8::is_ascii_whitespace))
        };
        found.retain(|edit| {
            !(blank(&lines[0][edit.old.clone()]) && blank(&lines[1][edit.new.clone()]))
        });
    }
    slide(&a, &b, &mut found);
    (lines, found)
}

/// Moves what was only added or only removed as far down as it fits, as GNU's does.
fn slide(old: &[u32], new: &[u32], found: &mut [Edit]) {
    for at in 0..found.len() {
        let limits = match found.get(at + 1) {
            Some(next) => (next.old.start, next.new.start),
            None => (old.len(), new.len()),
        };
        let edit = &mut found[at];
        if edit.old.is_empty() {
            while edit.new.end < limits.1
                && edit.old.end < limits.0
                && new[edit.new.start] == new[edit.new.end]
            {
                *edit = shifted(edit);
            }
        } else if edit.new.is_empty() {
            while edit.old.end < limits.0
                && edit.new.end < limits.1
                && old[edit.old.start] == old[edit.old.end]
            {
                *edit = shifted(edit);
            }
        }
    }
}

fn shifted(edit: &Edit) -> Edit {
    Edit {
        old: edit.old.start + 1..edit.old.end + 1,
        new: edit.new.start + 1..edit.new.end + 1,
    }
}

/// What counts of a line.
fn key(given: &Given, line: &[u8]) -> Vec<u8> {
    let mut key = line.to_vec();
    if given.has('R') && key.ends_with(b"\r\n") {
        key.truncate(key.len() - 2);
        key.push(b'\n');
    }
    if given.has('w') {
        let end = key.ends_with(b"\n");
        key.retain(|byte| !byte.is_ascii_whitespace());
        if end {
            key.push(b'\n');
        }
    } else if given.has('b') || given.has('Z') {
        key = without_spaces(&key, given.has('b'));
    }
    if given.has('i') {
        key.make_ascii_lowercase();
    }
    key
}

/// Without blanks at the end and, if `runs`, with one blank for many.
fn without_spaces(line: &[u8], runs: bool) -> Vec<u8> {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t' || *byte == b'\r';
    let (text, end) = match line.strip_suffix(b"\n") {
        Some(text) => (text, true),
        None => (line, false),
    };
    let len = text
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(0, |at| at + 1);
    let mut key = Vec::with_capacity(len + 1);
    for byte in &text[..len] {
        if !(runs && blank(byte)) {
            key.push(*byte);
        } else if key.last() != Some(&b' ') {
            key.push(b' ');
        }
    }
    if end {
        key.push(b'\n');
    }
    key
}

async fn normal(call: &Call<'_>, lines: &[Vec<&[u8]>; 2], found: &[Edit]) -> Outcome<()> {
    for edit in found {
        let letter = match (edit.old.is_empty(), edit.new.is_empty()) {
            (true, _) => 'a',
            (_, true) => 'd',
            _ => 'c',
        };
        let head = format!("{}{letter}{}\n", span(&edit.old), span(&edit.new));
        call.out(head.as_bytes()).await?;
        for line in &lines[0][edit.old.clone()] {
            put(call, b"< ", line).await?;
        }
        if letter == 'c' {
            call.out(b"---\n").await?;
        }
        for line in &lines[1][edit.new.clone()] {
            put(call, b"> ", line).await?;
        }
    }
    Ok(())
}

/// Lines of a range, from 1 on; of an empty one the line before it.
fn span(range: &Range<usize>) -> String {
    match range.len() {
        0 | 1 => range.end.to_string(),
        _ => format!("{},{}", range.start + 1, range.end),
    }
}

async fn put(call: &Call<'_>, mark: &[u8], line: &[u8]) -> Outcome<()> {
    call.out(mark).await?;
    call.out(line).await?;
    if !line.ends_with(b"\n") {
        call.out(b"\n\\ No newline at end of file\n").await?;
    }
    Ok(())
}

async fn unified(
    call: &Call<'_>,
    given: &Given,
    sides: [&Side; 2],
    lines: &[Vec<&[u8]>; 2],
    found: &[Edit],
    context: usize,
) -> Outcome<()> {
    let labels: Vec<&String> = given
        .options
        .iter()
        .filter(|(letter, _)| *letter == 'L')
        .map(|(_, value)| value)
        .collect();
    for (at, (mark, side)) in ["---", "+++"].iter().zip(sides).enumerate() {
        let head = match labels.get(at) {
            Some(label) => format!("{mark} {label}\n"),
            None => format!("{mark} {}\t{}\n", side.name, side.time),
        };
        call.out(head.as_bytes()).await?;
    }
    for hunk in hunks(found, context) {
        show_hunk(call, lines, hunk, context).await?;
    }
    Ok(())
}

/// Some edits, with the lines around them.
async fn show_hunk(
    call: &Call<'_>,
    lines: &[Vec<&[u8]>; 2],
    hunk: &[Edit],
    context: usize,
) -> Outcome<()> {
    let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
        return Ok(());
    };
    let from = first.old.start.saturating_sub(context);
    let to = (last.old.end + context).min(lines[0].len());
    let new_from = first.new.start - (first.old.start - from);
    let new_to = last.new.end + (to - last.old.end);
    let (old, new) = (counted(from..to), counted(new_from..new_to));
    call.out(format!("@@ -{old} +{new} @@\n").as_bytes())
        .await?;
    let mut at = from;
    for edit in hunk {
        for line in &lines[0][at..edit.old.start] {
            put(call, b" ", line).await?;
        }
        for line in &lines[0][edit.old.clone()] {
            put(call, b"-", line).await?;
        }
        for line in &lines[1][edit.new.clone()] {
            put(call, b"+", line).await?;
        }
        at = edit.old.end;
    }
    for line in &lines[0][at..to] {
        put(call, b" ", line).await?;
    }
    Ok(())
}

/// Edits whose surroundings touch are shown together.
fn hunks(found: &[Edit], context: usize) -> Vec<&[Edit]> {
    let apart = |a: &Edit, b: &Edit| b.old.start - a.old.end <= 2 * context;
    found.chunk_by(apart).collect()
}

fn counted(range: Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => (range.start + 1).to_string(),
        len => format!("{},{len}", range.start + 1),
    }
}
