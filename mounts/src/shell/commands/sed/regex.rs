//! Regular expressions of `sed`, and what replaces what they match.

use std::ops::Range;

use regex_automata::{Input, meta};

use super::super::posix::{self, Longest, Meaning, Wrong};

/// Groups that a replacement may name, and the whole match.
const GROUPS: usize = 10;

/// What a match and its groups are.
pub(super) type Found = [Option<Range<usize>>; GROUPS];

/// How a regular expression is meant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// Case does not matter.
    pub(super) fold: bool,
    /// `^` and `$` are about lines.
    pub(super) lines: bool,
    /// Its groups are asked for.
    pub(super) captures: bool,
}

/// A regular expression.
#[derive(Debug)]
pub(super) struct Regex {
    engine: Engine,
    longest: Option<Longest>,
    /// Its groups are asked for.
    captures: bool,
    pub(super) groups: usize,
}

#[derive(Debug)]
enum Engine {
    Automaton(meta::Regex),
    Tries(fancy_regex::Regex),
}

impl Regex {
    /// Makes one ready.
    pub(super) fn new(text: &str, extended: bool, flags: Flags) -> Result<Self, String> {
        let Flags {
            fold,
            lines,
            captures,
        } = flags;
        let text = unescaped(text);
        let done =
            posix::translate(&text, extended, None, 0).map_err(|Wrong(what)| what.to_owned())?;
        let meaning = Meaning {
            fold,
            line_ends: None,
            captures,
        };
        let pattern = if lines {
            format!("(?m:{})", done.exact)
        } else {
            done.exact
        };
        let engine = if done.back {
            let tries = meaning.tries(&pattern);
            Engine::Tries(tries.map_err(|_| Wrong::BIG.0.to_owned())?)
        } else {
            Engine::Automaton(meaning.automaton(&pattern)?)
        };
        Ok(Self {
            engine,
            // Without alternatives it is the first one but for what nobody writes.
            longest: pattern
                .contains('|')
                .then(|| meaning.longest(&pattern))
                .flatten(),
            captures,
            groups: done.groups,
        })
    }

    /// Whether it matches. An error says that it was given up.
    pub(super) fn is_match(&self, text: &[u8]) -> Result<bool, GivenUp> {
        match &self.engine {
            Engine::Automaton(regex) => Ok(regex.is_match(text)),
            Engine::Tries(regex) => regex.is_match(text).map_err(|_| GivenUp),
        }
    }

    /// The first match from a place on.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Result<Option<Found>, GivenUp> {
        let mut found = Found::default();
        match &self.engine {
            Engine::Automaton(regex) if self.captures => {
                let mut groups = regex.create_captures();
                regex.captures(Input::new(text).range(from..), &mut groups);
                for (to, group) in found.iter_mut().zip(groups.iter()) {
                    *to = group.map(|span| span.range());
                }
            }
            Engine::Automaton(regex) => {
                found[0] = regex
                    .find(Input::new(text).range(from..))
                    .map(|at| at.range());
            }
            Engine::Tries(regex) => {
                let groups = regex.captures_from_pos(text, from).map_err(|_| GivenUp)?;
                for (to, group) in found
                    .iter_mut()
                    .zip(groups.iter().flat_map(|all| all.iter()))
                {
                    *to = group.map(|at| at.range());
                }
            }
        }
        if let (Some(longest), Some(whole)) = (&self.longest, &mut found[0])
            && let Some(end) = longest.end(text, whole.start)
        {
            whole.end = whole.end.max(end);
        }
        Ok(found[0].is_some().then_some(found))
    }
}

/// A search was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// A regular expression without the escapes of GNU's `sed` for characters.
fn unescaped(text: &str) -> String {
    let mut to = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            to.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => to.push('\n'),
            Some(c) => match escape(c, &mut chars) {
                // One that would mean something else stays itself.
                Some(made) if ".*[]^$\\/+?(){}|".contains(made) => to.extend(['\\', made]),
                Some(made) => to.push(made),
                None => to.extend(['\\', c]),
            },
            None => to.push('\\'),
        }
    }
    to
}

/// The character that an escape means. Those of words are no such escapes.
pub(super) fn escape(c: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let mut number = |radix: u32, most: usize| {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = rest.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            rest.next();
            value = Some(value.unwrap_or(0) * radix + digit);
        }
        let byte = u8::try_from(value?).ok()?;
        Some(match byte {
            0..0x80 => char::from(byte),
            byte => crate::shell::names::stand_in(byte),
        })
    };
    match c {
        'a' => Some('\x07'),
        'f' => Some('\x0c'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        'r' => Some('\r'),
        'd' => number(10, 3),
        'o' => number(8, 3),
        'x' => number(16, 2),
        _ => None,
    }
}

/// A part of what replaces a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Vec<u8>),
    /// What a group matched; 0 is the whole match.
    Group(usize),
    /// The case of what comes after it.
    Case(Case),
}

/// How the case of letters is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
    /// Of the next letter only.
    UpperOne,
    LowerOne,
    /// No more.
    End,
}

/// Adds what replaces a match.
pub(super) fn replace(parts: &[Part], text: &[u8], found: &Found, to: &mut Vec<u8>) {
    let (mut all, mut one) = (None, None);
    for part in parts {
        let bytes: &[u8] = match part {
            Part::Text(bytes) => bytes,
            Part::Group(group) => match found.get(*group).cloned().flatten() {
                Some(at) => &text[at],
                None => b"",
            },
            Part::Case(case) => {
                match case {
                    Case::UpperOne | Case::LowerOne => one = Some(*case),
                    Case::End => (all, one) = (None, None),
                    case => (all, one) = (Some(*case), None),
                }
                continue;
            }
        };
        if all.is_none() && one.is_none() {
            to.extend_from_slice(bytes);
        } else {
            cased(bytes, all, &mut one, to);
        }
    }
}

fn cased(bytes: &[u8], all: Option<Case>, one: &mut Option<Case>, to: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut text = String::new();
            match one.take().or(all) {
                Some(Case::Upper | Case::UpperOne) => text.extend(c.to_uppercase()),
                Some(Case::Lower | Case::LowerOne) => text.extend(c.to_lowercase()),
                _ => text.push(c),
            }
            to.extend_from_slice(text.as_bytes());
        }
        to.extend_from_slice(chunk.invalid());
    }
}
