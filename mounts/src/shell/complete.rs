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
    if ends_in_continuation(script) {
        return Completeness::Incomplete;
    }
    let script = script.to_owned();
    let parsed = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || Parser::new(&script).parse().err())
        .map(std::thread::JoinHandle::join);
    match parsed {
        Ok(Ok(Some(Error::Parse { message, .. })))
            if message.contains("unexpected end of file") =>
        {
            Completeness::Incomplete
        }
        Ok(Ok(Some(Error::Parse { message, .. }))) if message.contains("unexpected EOF") => {
            Completeness::Incomplete
        }
        _ => Completeness::Complete,
    }
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
        ] {
            assert_eq!(completeness(open), Completeness::Incomplete, "{open}");
        }
        for done in ["echo a", "", "for x in 1; do :; done", "fi", "echo \\\\"] {
            assert_eq!(completeness(done), Completeness::Complete, "{done}");
        }
    }
}
