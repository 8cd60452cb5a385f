//! What is done to the text of a line.

use super::regex::{GivenUp, Regex, replace};
use super::script::{Substitute, Translate};

/// Replaces what matches. Returns whether anything was.
pub(super) fn replace_all(
    regex: &Regex,
    what: &Substitute,
    text: &[u8],
    to: &mut Vec<u8>,
) -> Result<bool, GivenUp> {
    to.clear();
    let (mut from, mut copied, mut count, mut any) = (0, 0, 0, false);
    let mut before = None;
    while from <= text.len() {
        let Some(found) = regex.find(text, from)? else {
            break;
        };
        let Some(at) = found[0].clone() else {
            break;
        };
        // Nothing, right after a match, is no match.
        let counts = !(at.is_empty() && before == Some(at.start));
        count += u64::from(counts);
        if counts && count >= what.number {
            to.extend_from_slice(&text[copied..at.start]);
            replace(&what.parts, text, &found, to);
            (copied, any) = (at.end, true);
            if !what.all {
                break;
            }
        }
        before = Some(at.end);
        from = if at.is_empty() {
            at.end + char_len(&text[at.end..])
        } else {
            at.end
        };
    }
    if any {
        to.extend_from_slice(&text[copied..]);
    }
    Ok(any)
}

/// Bytes of the first character; one for a byte that is none, and at the end.
fn char_len(text: &[u8]) -> usize {
    let first = text[..text.len().min(4)].utf8_chunks().next();
    let first = first.and_then(|chunk| chunk.valid().chars().next());
    first.map_or(1, char::len_utf8)
}

/// Puts characters in place of others.
pub(super) fn translate(space: &mut Vec<u8>, table: &Translate) {
    let Some(chars) = &table.chars else {
        for byte in space {
            *byte = table.bytes[usize::from(*byte)];
        }
        return;
    };
    let mut to = Vec::with_capacity(space.len());
    for chunk in space.utf8_chunks() {
        let made = chunk.valid().chars();
        let made: String = made.map(|c| chars.get(&c).copied().unwrap_or(c)).collect();
        to.extend_from_slice(made.as_bytes());
        to.extend_from_slice(chunk.invalid());
    }
    *space = to;
}

/// A text in which all bytes are seen, in lines of so many columns.
pub(super) fn listed(text: &[u8], columns: usize) -> Vec<u8> {
    let (mut to, mut column) = (Vec::new(), 0);
    for byte in text {
        let shown = match byte {
            b'\\' => "\\\\".into(),
            b'\x07' => "\\a".into(),
            b'\x08' => "\\b".into(),
            b'\x0c' => "\\f".into(),
            b'\n' => "\\n".into(),
            b'\r' => "\\r".into(),
            b'\t' => "\\t".into(),
            b'\x0b' => "\\v".into(),
            b' '..=b'~' => char::from(*byte).to_string(),
            byte => format!("\\{byte:03o}"),
        };
        if columns > 1 && column + shown.len() > columns - 1 {
            to.extend_from_slice(b"\\\n");
            column = 0;
        }
        column += shown.len();
        to.extend_from_slice(shown.as_bytes());
    }
    to.extend_from_slice(b"$\n");
    to
}
