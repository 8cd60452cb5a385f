//! `stat`: attributes, in the formats of GNU's.

use cairn_protocol::NodeKind;

use super::call::{Call, Outcome, Spot};
use super::dates::Date;
use super::long::{kind_letter, user};
use super::modes::letters;
use super::options::{self, Known};
use crate::shell::wire::Node;

const KNOWN: Known = Known {
    short: "c:fLt",
    long: &[
        ("format=", 'c'),
        ("printf=", 'p'),
        ("dereference", 'L'),
        ("file-system", 'f'),
        ("terse", 't'),
    ],
    error_code: 1,
};

const USUAL: &str = "  File: %N\n  Size: %-10s\tBlocks: %-10b IO Block: %-6o %F\n\
Device: %Hd,%Ld\tInode: %-11i Links: %h\n\
Access: (%04a/%10A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\n\
Access: %x\nModify: %y\nChange: %z\n Birth: %w\n";
const TERSE: &str = "%n %s %b %f %u %g %D %i %h %t %T %X %Y %Z %W %o\n";

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    if given.operands.is_empty() {
        return call.usage("missing operand", 1).await;
    }
    if given.has('f') {
        return call
            .fatal("-f is not supported in this shell; use df", 1)
            .await;
    }
    let format = match (given.value('p'), given.value('c')) {
        (Some(format), _) => escapes(format),
        (None, Some(format)) => format!("{format}\n"),
        (None, None) if given.has('t') => TERSE.into(),
        (None, None) => USUAL.into(),
    };
    for file in &given.operands {
        let found = match call.find(file, given.has('L') || file.ends_with('/')).await {
            Ok(spot) => call.look_at(&spot).await.map(|node| (spot, node)),
            Err(error) => Err(error),
        };
        match found {
            Ok((spot, node)) => {
                let target = target(call, &spot, &node).await;
                let line = expand(&format, file, &node, target.as_deref());
                call.out(line.as_bytes()).await?;
            }
            Err(error) => {
                let what = format!("cannot statx '{file}'");
                call.complain_of(&what, &error).await?;
            }
        }
    }
    Ok(call.status())
}

async fn target(call: &Call<'_>, spot: &Spot, node: &Node) -> Option<String> {
    if node.kind != NodeKind::Symlink {
        return None;
    }
    call.target(spot).await.ok()
}

/// The escapes of `--printf`.
fn escapes(format: &str) -> String {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('0') => text.push('\0'),
            Some('\\') | None => text.push('\\'),
            Some(c) => text.push(c),
        }
    }
    text
}

fn expand(format: &str, name: &str, node: &Node, target: Option<&str>) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| "-+ #0'.".contains(c) || c.is_ascii_digit())
                .len();
        let (how, after) = rest.split_at(digits);
        let mut letters = after.chars();
        let (part, letter) = match letters.next() {
            Some(c @ ('H' | 'L')) if letters.clone().next().is_some_and(|c| "drR".contains(c)) => {
                (Some(c), letters.next())
            }
            letter => (None, letter),
        };
        rest = letters.as_str();
        let Some(letter) = letter else {
            text.push('%');
            break;
        };
        let value = value(letter, part, name, node, target);
        text.push_str(&pad(&value, how));
    }
    text + rest
}

fn pad(value: &str, how: &str) -> String {
    let left = how.contains('-');
    let digits = how.trim_start_matches(|c: char| "-+ #'".contains(c));
    let zero = digits.starts_with('0');
    let width: usize = digits
        .split('.')
        .next()
        .and_then(|w| w.parse().ok())
        .unwrap_or(0);
    let width = width.min(1_000);
    match (left, zero) {
        (true, _) => format!("{value:<width$}"),
        (false, true) => format!("{value:0>width$}"),
        (false, false) => format!("{value:>width$}"),
    }
}

fn value(
    letter: char,
    part: Option<char>,
    name: &str,
    node: &Node,
    target: Option<&str>,
) -> String {
    let mode = type_bits(node.kind) | u32::from(node.perm);
    match letter {
        'a' => format!("{:o}", node.perm),
        'A' => format!("{}{}", kind_letter(node.kind), letters(node.perm)),
        'b' => node.blocks.to_string(),
        'B' => "512".into(),
        'd' if part == Some('H') => "0".into(),
        'd' => DEVICE.to_string(),
        'D' => format!("{DEVICE:x}"),
        'f' => format!("{mode:x}"),
        'F' => kind_name(node).into(),
        'g' => node.gid.to_string(),
        'G' => user(node.gid),
        'h' => node.nlink.to_string(),
        'i' => node.ino.to_string(),
        'm' => "/".into(),
        'n' => name.into(),
        'N' => match target {
            Some(target) => format!("{} -> {}", quoted(name), quoted(target)),
            None => quoted(name),
        },
        'o' => "4096".into(),
        's' => node.size.to_string(),
        't' | 'T' | 'r' | 'R' => "0".into(),
        'u' => node.uid.to_string(),
        'U' => user(node.uid),
        'w' => Date::full(node.btime),
        'W' => node.btime.seconds().to_string(),
        'x' => Date::full(node.atime),
        'X' => node.atime.seconds().to_string(),
        'y' => Date::full(node.mtime),
        'Y' => node.mtime.seconds().to_string(),
        'z' => Date::full(node.ctime),
        'Z' => node.ctime.seconds().to_string(),
        '%' => "%".into(),
        _ => "?".into(),
    }
}

/// The number of the device that the workspace is said to be on.
const DEVICE: u32 = 1;

/// A name as a shell reads it, always in quotes.
fn quoted(name: &str) -> String {
    if name.contains('\'') && !name.contains(['"', '$', '`', '\\']) {
        return format!("\"{name}\"");
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

fn type_bits(kind: NodeKind) -> u32 {
    match kind {
        NodeKind::File => 0o100_000,
        NodeKind::Dir => 0o040_000,
        NodeKind::Symlink => 0o120_000,
        NodeKind::Fifo => 0o010_000,
        NodeKind::Socket => 0o140_000,
        NodeKind::CharDevice => 0o020_000,
        NodeKind::BlockDevice => 0o060_000,
    }
}

fn kind_name(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::File if node.size == 0 => "regular empty file",
        NodeKind::File => "regular file",
        NodeKind::Dir => "directory",
        NodeKind::Symlink => "symbolic link",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "character special file",
        NodeKind::BlockDevice => "block special file",
    }
}
