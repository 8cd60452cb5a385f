//! Text in which what looks alike is alike, and the way back to the original.
//!
//! A model often gives a text back with other line ends, spaces, quotes or
//! dashes. Only the search uses the folded text: what is replaced is the
//! original, byte by byte.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// How much is alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// Line ends.
    Lines,
    /// Also compatible characters (NFKC), spaces, quotes and dashes.
    Looks,
}

/// A folded text.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) text: String,
    /// For each byte of `text`, and its end: where it comes from, if that is
    /// the beginning of something in the original.
    origin: Vec<Option<usize>>,
}

impl Folded {
    pub(super) fn new(original: &str, fold: Fold) -> Self {
        let mut this = Self {
            text: String::with_capacity(original.len()),
            origin: Vec::with_capacity(original.len() + 1),
        };
        let mut at = 0;
        while at < original.len() {
            let len = unit(&original[at..], fold);
            this.push(at, &original[at..at + len], fold);
            at += len;
        }
        this.origin.push(Some(at));
        this
    }

    fn push(&mut self, at: usize, unit: &str, fold: Fold) {
        let before = self.text.len();
        match fold {
            _ if unit == "\r\n" => self.text.push('\n'),
            Fold::Lines => self.text.push_str(unit),
            Fold::Looks => self.text.extend(unit.nfkc().map(plain)),
        }
        for byte in before..self.text.len() {
            self.origin.push((byte == before).then_some(at));
        }
    }

    /// Where a range of the folded text is in the original. `None` if it begins
    /// or ends inside of what was one thing there.
    pub(super) fn original(&self, range: &Range<usize>) -> Option<Range<usize>> {
        Some(self.origin[range.start]?..self.origin[range.end]?)
    }
}

/// The length of what is folded as one: a line end, or a character with its marks.
fn unit(text: &str, fold: Fold) -> usize {
    if text.starts_with("\r\n") {
        return 2;
    }
    let mut chars = text.char_indices().skip(1);
    let next = match fold {
        Fold::Lines => chars.next(),
        Fold::Looks => chars.find(|(_, char)| canonical_combining_class(*char) == 0),
    };
    next.map_or(text.len(), |(at, _)| at)
}

/// The plain form of a space, quote or dash.
fn plain(char: char) -> char {
    match char {
        '\u{2018}'..='\u{201b}' | '\u{2032}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            ' '
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike_is_found() {
        let original = "a\r\n“b”\u{a0}– ﬁx e\u{301}";
        let folded = Folded::new(original, Fold::Looks);
        assert_eq!(folded.text, "a\n\"b\" - fix \u{e9}");
        let find = |text: &str| {
            let at = folded.text.find(text).unwrap();
            folded
                .original(&(at..at + text.len()))
                .map(|range| &original[range])
        };
        assert_eq!(find("\"b\" -"), Some("“b”\u{a0}–"));
        assert_eq!(find("fix"), Some("ﬁx"));
        assert_eq!(find("\n"), Some("\r\n"));
        assert_eq!(find("\u{e9}"), Some("e\u{301}"));
        // Half of a ligature is no place to cut.
        assert_eq!(find("ix"), None);
    }

    #[test]
    fn line_ends_are_alike() {
        let folded = Folded::new("a\r\nb\rc\n", Fold::Lines);
        assert_eq!(folded.text, "a\nb\rc\n");
        assert_eq!(folded.original(&(2..4)), Some(3..5));
    }
}
