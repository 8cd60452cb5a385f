//! What lines are looked for: patterns, made ready to search many lines at once.
//!
//! No match spans lines, so that a search may run over as many as there are in
//! memory, and its time grows with their length whatever the pattern is. What
//! only a search that tries again and again can tell (what was matched before,
//! and what Perl has beyond regular expressions) is asked of one line at a time,
//! within a limit of steps.

use std::collections::HashSet;
use std::ops::Range;

use fancy_regex::{BytesMode, RegexBuilder};
use memchr::{memchr, memrchr};
use parking_lot::Mutex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::look::LookMatcher;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, meta};

use super::pattern::{self, Wrong};
use super::perl;
use crate::shell::names::to_bytes;

/// Memory of a compiled pattern.
const COMPILED_MAX: usize = 64 << 20;
/// Memory of an automaton that is made while it is used.
const LAZY_MAX: usize = 8 << 20;
/// Steps of a search that tries again and again: some tenths of a second.
const STEPS_MAX: usize = 1_000_000;

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
    longest: Option<(DFA, Mutex<Cache>)>,
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
                    pattern::translate(pattern, extended, how.end, groups)
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
        let scan = automaton(&loose, how)?;
        let longest = how.parts.then(|| longest(&exact, how)).flatten();
        let exact = if back {
            Exact::Tries(tries(&exact, how).map_err(|_| Wrong::BIG.0.to_owned())?)
        } else if exact == loose {
            Exact::All
        } else {
            Exact::Automaton(automaton(&exact, how)?)
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
        let (scan, exact) = match automaton(&pattern, how) {
            Ok(regex) if is_plain => (Some(regex.clone()), Exact::Automaton(regex)),
            Ok(regex) => (None, Exact::Automaton(regex)),
            Err(_) => {
                let regex = tries(&pattern, how).map_err(|error| said(&error))?;
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
        let end = self
            .longest_from(line, found.start())
            .unwrap_or(found.end());
        Ok(Some(found.start()..end.max(found.end())))
    }

    fn longest_from(&self, line: &[u8], start: usize) -> Option<usize> {
        let (dfa, cache) = self.longest.as_ref()?;
        let input = Input::new(line).range(start..).anchored(Anchored::Yes);
        let found = dfa.try_search_fwd(&mut cache.lock(), &input).ok()?;
        found.map(|found| found.offset())
    }
}

impl How {
    /// One of the patterns, with what is around it.
    fn around(&self, patterns: &[String], words: bool) -> String {
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
fn fixed(text: &str) -> pattern::Translated {
    let text: String = text.chars().map(pattern::literal).collect();
    pattern::Translated {
        exact: text.clone(),
        loose: text,
        ..pattern::Translated::default()
    }
}

fn syntax(how: How) -> syntax::Config {
    syntax::Config::new()
        .utf8(false)
        .multi_line(true)
        .line_terminator(how.end)
        .case_insensitive(how.fold)
        .nest_limit(1_000)
}

fn automaton(pattern: &str, how: How) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .utf8_empty(false)
        .line_terminator(how.end)
        .which_captures(WhichCaptures::Implicit)
        .nfa_size_limit(Some(COMPILED_MAX))
        .hybrid_cache_capacity(LAZY_MAX);
    let built = meta::Builder::new()
        .configure(config)
        .syntax(syntax(how))
        .build(pattern);
    built.map_err(|_| Wrong::BIG.0.to_owned())
}

/// What finds the longest match where the first one is that of another alternative.
fn longest(pattern: &str, how: How) -> Option<(DFA, Mutex<Cache>)> {
    // Without alternatives and repetitions there is one match only.
    if !pattern.contains(['|', '*', '+', '?', '{']) {
        return None;
    }
    let mut look = LookMatcher::new();
    look.set_line_terminator(how.end);
    let nfa = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .look_matcher(look)
        .nfa_size_limit(Some(COMPILED_MAX));
    let config = DFA::config()
        .match_kind(MatchKind::All)
        .unicode_word_boundary(true)
        .cache_capacity(LAZY_MAX)
        .skip_cache_capacity_check(true);
    let dfa = DFA::builder()
        .configure(config)
        .thompson(nfa)
        .syntax(syntax(how))
        .build(pattern)
        .ok()?;
    let cache = Mutex::new(dfa.create_cache());
    Some((dfa, cache))
}

fn tries(pattern: &str, how: How) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    RegexBuilder::new(pattern)
        .bytes_mode(BytesMode::UnicodeBytes)
        .multi_line(true)
        .case_insensitive(how.fold)
        .backtrack_limit(STEPS_MAX)
        .delegate_size_limit(COMPILED_MAX)
        .build()
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
