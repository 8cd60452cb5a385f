//! One file searched: its lines in pieces, and what is printed of them.
//!
//! It does no reading and no writing by itself. Whoever drives it adds pieces
//! of the file until it has enough, and takes the output whenever there is much.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use super::matcher::{GivenUp, Matcher};
use super::style::{Binary, Head, Style};

/// Output that is gathered at most before it is taken, but for one line more.
const FULL: usize = 64 << 10;
/// A NUL makes a file binary from the piece of this size on that has it.
const WINDOW: u64 = 96 << 10;

/// What it needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its output taken.
    Full,
    /// The next piece of the file.
    More,
    /// Nothing: the rest does not matter.
    Done,
}

/// The next line that matches.
#[derive(Clone, Debug, Default)]
enum Next {
    /// It was not looked for.
    #[default]
    Unknown,
    /// There is none before the limit.
    None,
    At(Range<usize>),
}

/// A search through one file.
pub(super) struct Search<'a> {
    style: &'a Style,
    matcher: &'a Matcher,
    name: &'a [u8],
    width: usize,
    /// What was not searched yet, and lines before it that may be printed.
    buffer: Vec<u8>,
    /// Where the buffer is in the file.
    base: u64,
    /// The line that is looked at next.
    at: usize,
    /// Where the last whole line ends.
    limit: usize,
    /// The next line that matches.
    next: Next,
    /// Lines before this place.
    lines: u64,
    counted: usize,
    /// Where what was printed last ends.
    printed: Option<usize>,
    /// Lines that are still printed after one that was selected.
    pending: u64,
    left: u64,
    /// Where the part begins that makes the file binary.
    turns: Option<usize>,
    /// It is binary, and so many lines were selected before.
    binary: Option<u64>,
    over: bool,
    /// Something was printed, of this file or one before.
    pub(super) used: bool,
    /// Lines that were selected.
    pub(super) selected: u64,
    /// What is to be printed.
    pub(super) out: Vec<u8>,
}

impl<'a> Search<'a> {
    /// A search through a file of this name, and of this size where it is known.
    pub(super) fn new(
        style: &'a Style,
        matcher: &'a Matcher,
        file: (&'a [u8], Option<u64>),
        used: bool,
    ) -> Self {
        Self {
            style,
            matcher,
            name: file.0,
            width: file.1.map_or(0, |size| size.to_string().len()),
            buffer: Vec::new(),
            base: 0,
            at: 0,
            limit: 0,
            next: Next::Unknown,
            lines: 1,
            counted: 0,
            printed: None,
            pending: 0,
            left: style.most,
            turns: None,
            binary: None,
            over: false,
            used,
            selected: 0,
            out: Vec::new(),
        }
    }

    /// Whether all that would be printed is that a binary file matches.
    pub(super) fn is_hidden(&self) -> bool {
        let shown = self.binary.is_some_and(|before| before < self.selected);
        shown && !self.style.count && !self.style.stops_at_first()
    }

    fn is_quiet(&self) -> bool {
        self.binary.is_some() || self.style.count || self.style.stops_at_first()
    }

    /// Adds the next piece of the file; none at its end.
    pub(super) fn add(&mut self, piece: Option<Vec<u8>>) {
        self.next = Next::Unknown;
        self.shift();
        let Some(mut piece) = piece else {
            self.over = true;
            self.limit = self.buffer.len();
            return;
        };
        let before = self.buffer.len();
        if self.binary.is_some() {
            zap(&mut piece, self.style.end);
        }
        if self.buffer.is_empty() {
            self.buffer = piece;
        } else {
            self.buffer.extend_from_slice(&piece);
        }
        if let Some(end) = memrchr(self.style.end, &self.buffer[before..]) {
            self.limit = before + end + 1;
        }
        self.look_for_nul(before);
    }

    /// What was read before the window that has a NUL counts as text, as with GNU's.
    fn look_for_nul(&mut self, from: usize) {
        let text = self.style.binary == Binary::Text || self.style.end == 0;
        if text || self.binary.is_some() || self.turns.is_some() {
            return;
        }
        let Some(nul) = memchr(0, &self.buffer[from..]) else {
            return;
        };
        let nul = self.base + (from + nul) as u64;
        let window = (nul / WINDOW * WINDOW).saturating_sub(self.base);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let before = &self.buffer[..window.min(self.buffer.len())];
        let end = memrchr(self.style.end, before).map_or(0, |end| end + 1);
        self.turns = Some(end.max(self.at));
    }

    /// From here on it is binary.
    fn turn_binary(&mut self) {
        self.binary = Some(self.selected);
        self.turns = None;
        self.next = Next::Unknown;
        self.pending = 0;
        let rest = &mut self.buffer[self.at..];
        zap(rest, self.style.end);
        self.limit = match memrchr(self.style.end, rest) {
            _ if self.over => self.buffer.len(),
            Some(end) => self.at + end + 1,
            None => self.at,
        };
    }

    /// Drops what is not needed any more.
    fn shift(&mut self) {
        let mut keep = self.at;
        if self.style.before > 0 && !self.is_quiet() {
            let first = self.printed.unwrap_or(0);
            for _ in 0..self.style.before {
                keep = self.line_before(keep, first);
            }
        }
        if self.style.numbers {
            self.count_to(keep);
        }
        if keep == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..keep);
        }
        self.base += keep as u64;
        self.at -= keep;
        self.limit = self.limit.saturating_sub(keep);
        self.counted = self.counted.saturating_sub(keep);
        self.printed = self.printed.and_then(|at| at.checked_sub(keep));
    }

    /// Where the line before this one begins.
    fn line_before(&self, at: usize, first: usize) -> usize {
        if at <= first {
            return at;
        }
        let before = &self.buffer[first..at - 1];
        memrchr(self.style.end, before).map_or(first, |end| first + end + 1)
    }

    /// Goes on with what there is.
    pub(super) fn step(&mut self) -> Result<Step, GivenUp> {
        loop {
            let limit = self.turns.map_or(self.limit, |at| at.min(self.limit));
            if let Some(step) = self.go(limit)? {
                return Ok(step);
            }
            if self.turns.is_none() {
                return Ok(if self.over { Step::Done } else { Step::More });
            }
            if self.style.binary == Binary::Without {
                self.selected = 0;
                return Ok(Step::Done);
            }
            self.turn_binary();
        }
    }

    /// Goes on to a limit.
    fn go(&mut self, limit: usize) -> Result<Option<Step>, GivenUp> {
        while self.at < limit && self.left > 0 {
            if self.out.len() >= FULL {
                return Ok(Some(Step::Full));
            }
            match self.next_selected(limit)? {
                Some(line) => self.select(&line, limit)?,
                None => self.at = limit,
            }
            if self.selected > 0 && self.style.stops_at_first() || self.is_hidden() {
                return Ok(Some(Step::Done));
            }
        }
        self.trail(limit)?;
        if self.left > 0 {
            return Ok(None);
        }
        self.at = limit;
        Ok((self.pending == 0).then_some(Step::Done))
    }

    /// The next line that is selected, without its end.
    fn next_selected(&mut self, limit: usize) -> Result<Option<Range<usize>>, GivenUp> {
        while self.at < limit {
            let next = match std::mem::take(&mut self.next) {
                Next::Unknown => self.matcher.line(&self.buffer[..limit], self.at)?,
                Next::None => None,
                Next::At(line) => Some(line),
            };
            match next {
                next if !self.style.invert => return Ok(next),
                Some(line) if line.start == self.at => self.at = line.end + 1,
                next => {
                    self.next = next.map_or(Next::None, Next::At);
                    return Ok(Some(self.line_at(self.at, limit)));
                }
            }
        }
        Ok(None)
    }

    /// The line that begins at a place, without its end.
    fn line_at(&self, at: usize, limit: usize) -> Range<usize> {
        let len = memchr(self.style.end, &self.buffer[at..limit]);
        at..len.map_or(limit, |len| at + len)
    }

    /// Prints a line that was selected, and those before it.
    fn select(&mut self, line: &Range<usize>, limit: usize) -> Result<(), GivenUp> {
        self.selected += 1;
        self.left -= 1;
        self.at = (line.end + 1).min(limit);
        if self.is_quiet() {
            return Ok(());
        }
        self.trail(line.start)?;
        let mut first = line.start;
        for _ in 0..self.style.before {
            first = self.line_before(first, self.printed.unwrap_or(0));
        }
        if self.style.context && self.used && self.printed != Some(first) {
            self.style.separator(&mut self.out);
        }
        while first < line.start {
            let before = self.line_at(first, line.start);
            first = before.end + 1;
            self.print(&before, false)?;
        }
        self.print(line, true)?;
        self.pending = self.style.after;
        self.used = true;
        Ok(())
    }

    /// Prints lines that come after one that was selected.
    fn trail(&mut self, until: usize) -> Result<(), GivenUp> {
        while self.pending > 0 && self.printed.is_some_and(|at| at < until) {
            let line = self.line_at(self.printed.unwrap_or(until), until);
            self.print(&line, false)?;
            self.pending -= 1;
        }
        Ok(())
    }

    /// Counts lines up to a place.
    fn count_to(&mut self, at: usize) {
        if at > self.counted {
            let passed = &self.buffer[self.counted..at];
            self.lines += memchr_iter(self.style.end, passed).count() as u64;
            self.counted = at;
        }
    }

    fn print(&mut self, line: &Range<usize>, selected: bool) -> Result<(), GivenUp> {
        if self.style.numbers {
            self.count_to(line.start);
        }
        self.printed = Some((line.end + 1).min(self.buffer.len()));
        let (style, text) = (self.style, &self.buffer[line.clone()]);
        let offset = self.base + line.start as u64;
        let head = Head {
            name: self.name,
            number: self.lines,
            width: self.width,
            selected,
        };
        // What does not match has no parts that do.
        let parts = selected != style.invert;
        if style.only && !parts {
            return Ok(());
        }
        if !style.only {
            head.print(style, offset, !text.is_empty(), &mut self.out);
        }
        let (mut at, mut shown) = (0, 0);
        while parts && style.has_parts() && at <= text.len() {
            let Some(part) = self.matcher.part(text, at)? else {
                break;
            };
            if part.is_empty() {
                at = part.end + 1;
                continue;
            }
            if style.only {
                head.print(style, offset + part.start as u64, true, &mut self.out);
            } else {
                self.out.extend_from_slice(&text[shown..part.start]);
            }
            style.part(&text[part.clone()], &mut self.out);
            if style.only {
                self.out.push(style.end);
            }
            (at, shown) = (part.end, part.end);
        }
        if !style.only {
            self.out.extend_from_slice(&text[shown..]);
            self.out.push(style.end);
        }
        Ok(())
    }
}

/// In a binary file, a NUL ends a line.
fn zap(bytes: &mut [u8], end: u8) {
    for byte in bytes {
        if *byte == 0 {
            *byte = end;
        }
    }
}
