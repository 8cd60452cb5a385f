//! What lines are looked for: patterns, made ready to search many lines at once.
//!
//! No match spans lines, so that a search may run over as many as there are in
//! memory, and its time grows with their length whatever the pattern is. What
//! only a search that tries again and again can tell (what was matched before,
//! and what Perl has beyond regular expressions) is asked of one line at a time,
//! within a limit of steps.

use std::collections::HashSet;
use std::ops::Range;

use memchr::{memchr, memrchr};
use regex_automata::{Input, meta};

use super::super::posix::{self, Longest, Meaning, Translated, Wrong};
use super::perl;
use crate::shell::names::to_bytes;

/// How patterns are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Basic,
    Extended,
    Fixed,
    Perl,
}

/// What is looked for, and how.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct How {
    pub(super) syntax: Syntax,
    pub(super) fold: bool,
    pub(super) words: bool,
    pub(super) lines: bool,
    /// What matches in lines is looked for too.
    pub(super) parts: bool,
    /// The end of a line.
    pub(super) end: u8,
}

/// A search that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// Finds lines, and what matches in them.
pub(super) struct Matcher {
    how: How,
    /// Finds lines that may match. None: any line may.
    scan: Option<meta::Regex>,
    /// Whether what it finds matches.
    exact: Exact,
    /// Finds the end of the longest match.
    longest: Option<Longest>,
}

enum Exact {
    /// All that the scan finds.
    All,
    /// What this finds.
    Automaton(meta::Regex),
    /// What this finds.
    Tries(fancy_regex::Regex),
    /// Lines that are one of these.
    Whole(HashSet<Vec<u8>>),
}

impl Matcher {
    /// Makes patterns ready. Returns warnings too.
    pub(super) fn new(patterns: &[String], how: How) -> Result<(Self, Vec<&'static str>), String> {
        if how.syntax == Syntax::Perl {
            return Self::perl(patterns, how).map(|matcher| (matcher, Vec::new()));
        }
        if how.syntax == Syntax::Fixed && how.lines && !how.fold {
            let lines = patterns.iter().map(|line| to_bytes(line)).collect();
            let matcher = Self {
                how,
                scan: None,
                exact: Exact::Whole(lines),
                longest: None,
            };
            return Ok((matcher, Vec::new()));
        }
        let (mut exact, mut loose, mut back) = (Vec::new(), Vec::new(), false);
        let (mut groups, mut warnings) = (0, Vec::new());
        for pattern in patterns {
            let translated = match how.syntax {
                Syntax::Fixed => fixed(pattern),
                syntax => {
                    let extended = syntax == Syntax::Extended;
                    posix::translate(pattern, extended, Some(how.end), groups)
                        .map_err(|Wrong(what)| what.to_owned())?
                }
            };
            back |= translated.back;
            groups += translated.groups;
            warnings.extend(translated.warnings.iter());
            exact.push(translated.exact);
            loose.push(translated.loose);
        }
        let (exact, loose) = (how.around(&exact, how.words), how.around(&loose, false));
        let meaning = how.meaning();
        let scan = meaning.automaton(&loose)?;
        let longest = how.parts.then(|| meaning.longest(&exact)).flatten();
        let exact = if back {
            Exact::Tries(meaning.tries(&exact).map_err(|_| Wrong::BIG.0.to_owned())?)
        } else if exact == loose {
            Exact::All
        } else {
            Exact::Automaton(meaning.automaton(&exact)?)
        };
        let matcher = Self {
            how,
            scan: Some(scan),
            exact,
            longest,
        };
        Ok((matcher, warnings))
    }

    fn perl(patterns: &[String], how: How) -> Result<Self, String> {
        let [pattern] = patterns else {
            return Err("the -P option only supports a single pattern".into());
        };
        let pattern = perl::translate(pattern).map_err(|Wrong(what)| what.to_owned())?;
        let pattern = how.around(&[pattern], how.words);
        let is_plain = !is_about_the_whole(&pattern);
        let (scan, exact) = match how.meaning().automaton(&pattern) {
            Ok(regex) if is_plain => (Some(regex.clone()), Exact::Automaton(regex)),
            Ok(regex) => (None, Exact::Automaton(regex)),
            Err(_) => {
                let regex = how.meaning().tries(&pattern);
                let regex = regex.map_err(|error| said(&error))?;
                (None, Exact::Tries(regex))
            }
        };
        Ok(Self {
            how,
            scan,
            exact,
            longest: None,
        })
    }

    /// The first line from a place on that matches, without its end, in a text
    /// of whole lines, of which the last one may have no end.
    pub(super) fn line(&self, text: &[u8], from: usize) -> Result<Option<Range<usize>>, GivenUp> {
        let mut at = from;
        while at < text.len() {
            let Some(near) = self.near(text, at) else {
                return Ok(None);
            };
            let line = self.around(text, at, near);
            if self.confirms(&text[line.clone()])? {
                return Ok(Some(line));
            }
            at = line.end + 1;
        }
        Ok(None)
    }

    /// A place in the first line that may match.
    fn near(&self, text: &[u8], at: usize) -> Option<usize> {
        let Some(scan) = &self.scan else {
            return Some(at);
        };
        let input = Input::new(text).range(at..);
        let near = if self.how.syntax == Syntax::Perl {
            // A match may span lines, and only the first of them is looked at next.
            scan.find(input)?.start()
        } else {
            scan.search_half(&input.earliest(true))?.offset()
        };
        // After the end of the last line is no line.
        let beyond = near == text.len() && text.last() == Some(&self.how.end);
        (!beyond).then(|| near.min(text.len() - 1))
    }

    /// The line that a place is in; none of what is before `from`.
    fn around(&self, text: &[u8], from: usize, near: usize) -> Range<usize> {
        let end = self.how.end;
        let start = memrchr(end, &text[from..near]).map_or(from, |at| from + at + 1);
        let len = memchr(end, &text[near..]);
        start..len.map_or(text.len(), |len| near + len)
    }

    fn confirms(&self, line: &[u8]) -> Result<bool, GivenUp> {
        match &self.exact {
            Exact::All => Ok(true),
            Exact::Automaton(regex) => Ok(regex.is_match(line)),
            Exact::Whole(lines) => Ok(lines.contains(line)),
            Exact::Tries(regex) => regex.is_match(line).map_err(|_| GivenUp),
        }
    }

    /// The first match in a line from a place on: the longest that begins there.
    pub(super) fn part(&self, line: &[u8], from: usize) -> Result<Option<Range<usize>>, GivenUp> {
        let found = match (&self.exact, &self.scan) {
            (Exact::Tries(regex), _) => {
                let found = regex.find_from_pos(line, from).map_err(|_| GivenUp)?;
                return Ok(found.map(|found| found.range()));
            }
            (Exact::Automaton(regex), _) | (Exact::All, Some(regex)) => {
                regex.find(Input::new(line).range(from..))
            }
            (Exact::Whole(lines), _) => {
                return Ok((from == 0 && lines.contains(line)).then_some(0..line.len()));
            }
            (Exact::All, None) => None,
        };
        let Some(found) = found else {
            return Ok(None);
        };
        let longest = self.longest.as_ref();
        let end = longest.and_then(|longest| longest.end(line, found.start()));
        let end = end.unwrap_or(found.end());
        Ok(Some(found.start()..end.max(found.end())))
    }
}

impl How {
    fn meaning(self) -> Meaning {
        Meaning {
            fold: self.fold,
            line_ends: Some(self.end),
            captures: false,
        }
    }

    /// One of the patterns, with what is around it.
    fn around(self, patterns: &[String], words: bool) -> String {
        let one = match patterns {
            // Nothing matches what has no patterns.
            [] => "[a&&b]".to_owned(),
            [one] => one.clone(),
            many => format!("(?:{})", many.join(")|(?:")),
        };
        match (self.lines, words) {
            (true, _) => format!("^(?:{one})$"),
            (false, true) => format!("\\b{{start-half}}(?:{one})\\b{{end-half}}"),
            (false, false) => one,
        }
    }
}

/// Whether a pattern of Perl is about the whole text, which would be many lines.
fn is_about_the_whole(pattern: &str) -> bool {
    let flags = pattern.split("(?").skip(1);
    let mut flags = flags.filter(|after| !after.starts_with([':', 'P', '<']));
    flags.any(|after| !after.starts_with("i)") && !after.starts_with("i:"))
        || ["\\A", "\\z", "\\Z", "\\G"]
            .iter()
            .any(|part| pattern.contains(part))
}

/// A text that stands for itself.
fn fixed(text: &str) -> Translated {
    let text: String = text.chars().map(posix::literal).collect();
    Translated {
        exact: text.clone(),
        loose: text,
        ..Translated::default()
    }
}

/// What is wrong with a pattern of Perl, in the words of PCRE where they are known.
fn said(error: &fancy_regex::Error) -> String {
    let text = error.to_string();
    for (ours, theirs) in [
        ("parenthes", "missing closing parenthesis"),
        (
            "character class",
            "missing terminating ] for character class",
        ),
        ("back reference", "reference to non-existent subpattern"),
    ] {
        if text.to_lowercase().contains(ours) {
            return theirs.into();
        }
    }
    text.lines().last().unwrap_or_default().to_owned()
}
