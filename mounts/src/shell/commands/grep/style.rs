//! What `grep` does with the lines that it finds, and how it prints them.

use std::io::Write as _;

/// What is printed instead of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Names of files that have some.
    With,
    /// Names of files that have none.
    Without,
}

/// What becomes of files that are no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Binary {
    /// They are told to match.
    #[default]
    Told,
    /// They count as text.
    Text,
    /// They do not match.
    Without,
}

/// What is done with lines.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct Style {
    pub(super) invert: bool,
    pub(super) count: bool,
    pub(super) quiet: bool,
    pub(super) list: Option<List>,
    pub(super) only: bool,
    pub(super) color: bool,
    pub(super) names: bool,
    pub(super) numbers: bool,
    pub(super) offsets: bool,
    pub(super) tabs: bool,
    /// A NUL comes after the names of files.
    pub(super) nul: bool,
    pub(super) binary: Binary,
    /// Context was asked for, even if it is no lines.
    pub(super) context: bool,
    pub(super) before: u64,
    pub(super) after: u64,
    /// What is between lines that do not follow each other.
    pub(super) between: Option<Vec<u8>>,
    /// Lines that are selected at most.
    pub(super) most: u64,
    /// The end of a line.
    pub(super) end: u8,
}

impl Style {
    /// Whether one line tells all.
    pub(super) fn stops_at_first(&self) -> bool {
        self.quiet || self.list.is_some()
    }

    /// Whether it matters what in a line matches.
    pub(super) fn has_parts(&self) -> bool {
        self.only || self.color
    }

    fn colored(&self, color: &str, text: &[u8], to: &mut Vec<u8>) {
        if !self.color {
            to.extend_from_slice(text);
            return;
        }
        to.extend_from_slice(format!("\x1b[{color}m\x1b[K").as_bytes());
        to.extend_from_slice(text);
        to.extend_from_slice(b"\x1b[m\x1b[K");
    }

    /// The part of a line that matches.
    pub(super) fn part(&self, text: &[u8], to: &mut Vec<u8>) {
        self.colored("01;31", text, to);
    }

    /// What is between lines that do not follow each other.
    pub(super) fn separator(&self, to: &mut Vec<u8>) {
        if let Some(between) = &self.between {
            self.colored("36", between, to);
            to.push(b'\n');
        }
    }

    /// The name of a file, and what comes after it.
    pub(super) fn name(&self, name: &[u8], after: u8, to: &mut Vec<u8>) {
        self.colored("35", name, to);
        match (self.nul, after) {
            (true, _) => to.push(0),
            (false, b'\n') => to.push(after),
            (false, after) => self.colored("36", &[after], to),
        }
    }
}

/// What comes before a line.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u64,
    /// Digits of the size of the file, for numbers above each other.
    pub(super) width: usize,
    /// The line was selected, and is no context.
    pub(super) selected: bool,
}

impl Head<'_> {
    pub(super) fn print(&self, style: &Style, offset: u64, filled: bool, to: &mut Vec<u8>) {
        let after = if self.selected { b':' } else { b'-' };
        if style.names {
            style.name(self.name, after, to);
        }
        let width = if style.tabs { self.width } else { 0 };
        let mut number = |number: u64| {
            let mut text = Vec::new();
            // Writing to memory does not fail.
            let _ = write!(text, "{number:width$}");
            style.colored("32", &text, to);
            style.colored("36", &[after], to);
        };
        if style.numbers {
            number(self.number);
        }
        if style.offsets {
            number(offset);
        }
        let any = style.names || style.numbers || style.offsets;
        if style.tabs && any && filled {
            to.push(b'\t');
        }
    }
}
