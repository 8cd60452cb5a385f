//! Whether a script that somebody types is finished.

use bashkit::Error;
use bashkit::parser::Parser;

/// What is still to come of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It can be run, or is wrong whatever follows.
    Complete,
    /// A quote, a group or a command is open at its end.
    Incomplete,
}

/// Stack for the parser, which calls itself for what is nested.
const STACK: usize = 64 << 20;

/// Looks whether more lines are to come. The parser runs in a thread with a
/// large stack; its depth is bounded.
pub fn completeness(script: &str) -> Completeness {
    if ends_in_continuation(script) || has_open_document(script) {
        return Completeness::Incomplete;
    }
    let script = script.to_owned();
    let parsed = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || Parser::new(&script).parse().err())
        .map(std::thread::JoinHandle::join);
    match parsed {
        Ok(Ok(Some(Error::Parse { message, .. }))) if is_about_the_end(&message) => {
            Completeness::Incomplete
        }
        _ => Completeness::Complete,
    }
}

/// Whether the parser wanted more, as it says it in several ways.
fn is_about_the_end(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let ways = [
        "unexpected end of file",
        "unexpected eof",
        "unterminated",
        "unclosed",
    ];
    ways.iter().any(|way| message.contains(way))
}

/// Whether a here-document has no end yet, which the parser takes for its end.
fn has_open_document(script: &str) -> bool {
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let Some((before, after)) = line.split_once("<<") else {
            continue;
        };
        let (strip, word) = match after.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, after),
        };
        let word = word.trim_start();
        let named = word.starts_with(|c: char| c.is_alphabetic() || "_'\"\\".contains(c));
        // `1 << 2` and `<<<` begin none.
        if before.contains("((") || !named {
            continue;
        }
        let end: String = word
            .chars()
            .take_while(|c| !(c.is_whitespace() || ";|&<>()".contains(*c)))
            .filter(|c| !"'\"\\".contains(*c))
            .collect();
        let stripped = |line: &str| line.trim_start_matches('\t') == end;
        let is_end = |line: &str| line == end || strip && stripped(line);
        if !lines.by_ref().any(is_end) {
            return true;
        }
    }
    false
}

/// A backslash at the end, which is not escaped itself.
fn ends_in_continuation(script: &str) -> bool {
    let backslashes = script.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_constructs_wait_for_more() {
        for open in [
            "echo 'a",
            "for x in 1 2",
            "if true; then",
            "{ echo",
            "echo \\",
            "echo $(ls",
            "cat <<A",
            "cat <<-'A' | wc\n\tx",
        ] {
            assert_eq!(completeness(open), Completeness::Incomplete, "{open}");
        }
        for done in [
            "echo a",
            "",
            "for x in 1; do :; done",
            "fi",
            "echo \\\\",
            "cat <<A\nx\nA",
            "echo $((1 << 2))",
            "cat <<< x",
        ] {
            assert_eq!(completeness(done), Completeness::Complete, "{done}");
        }
    }
}
