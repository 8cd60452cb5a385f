//! What searches with a translated pattern: an automaton, whose time grows with
//! the text only; what finds the longest match, as POSIX wants it; and, for
//! what only that can do, a search that tries again and again, within a limit.

use fancy_regex::{BytesMode, RegexBuilder};
use parking_lot::Mutex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::look::LookMatcher;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, meta};

use super::Wrong;

/// Memory of a compiled pattern.
const COMPILED_MAX: usize = 64 << 20;
/// Memory of an automaton that is made while it is used.
const LAZY_MAX: usize = 8 << 20;
/// Steps of a search that tries again and again: some tenths of a second.
const STEPS_MAX: usize = 1_000_000;

/// How a pattern is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    /// Case does not matter.
    pub(crate) fold: bool,
    /// What lines end in, where `^` and `$` are about lines, and `.` is no such end.
    pub(crate) line_ends: Option<u8>,
    /// What its groups match is asked for.
    pub(crate) captures: bool,
}

impl Meaning {
    fn syntax(self) -> syntax::Config {
        let config = syntax::Config::new()
            .utf8(false)
            .case_insensitive(self.fold)
            .nest_limit(1_000);
        match self.line_ends {
            Some(end) => config.multi_line(true).line_terminator(end),
            None => config.dot_matches_new_line(true),
        }
    }

    /// What finds the first match.
    pub(crate) fn automaton(self, pattern: &str) -> Result<meta::Regex, String> {
        let captures = if self.captures {
            WhichCaptures::All
        } else {
            WhichCaptures::Implicit
        };
        let config = meta::Config::new()
            .utf8_empty(false)
            .line_terminator(self.line_ends.unwrap_or(b'\n'))
            .which_captures(captures)
            .nfa_size_limit(Some(COMPILED_MAX))
            .hybrid_cache_capacity(LAZY_MAX);
        let built = meta::Builder::new()
            .configure(config)
            .syntax(self.syntax())
            .build(pattern);
        built.map_err(|_| Wrong::BIG.0.to_owned())
    }

    /// What finds the longest match, where the first one may be that of another
    /// alternative.
    pub(crate) fn longest(self, pattern: &str) -> Option<Longest> {
        // Without alternatives and repetitions there is one match only.
        if !pattern.contains(['|', '*', '+', '?', '{']) {
            return None;
        }
        let mut look = LookMatcher::new();
        look.set_line_terminator(self.line_ends.unwrap_or(b'\n'));
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
            .syntax(self.syntax())
            .build(pattern)
            .ok()?;
        let cache = Mutex::new(dfa.create_cache());
        Some(Longest { dfa, cache })
    }

    /// What tries again and again.
    pub(crate) fn tries(self, pattern: &str) -> Result<fancy_regex::Regex, fancy_regex::Error> {
        RegexBuilder::new(pattern)
            .bytes_mode(BytesMode::UnicodeBytes)
            .multi_line(self.line_ends.is_some())
            .dot_matches_new_line(self.line_ends.is_none())
            .case_insensitive(self.fold)
            .backtrack_limit(STEPS_MAX)
            .delegate_size_limit(COMPILED_MAX)
            .build()
    }
}

/// Finds the longest match.
#[derive(Debug)]
pub(crate) struct Longest {
    dfa: DFA,
    cache: Mutex<Cache>,
}

impl Longest {
    /// Where the longest match ends that begins at a place. None if there is
    /// none, or it cannot tell.
    pub(crate) fn end(&self, text: &[u8], start: usize) -> Option<usize> {
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(&mut self.cache.lock(), &input);
        Some(found.ok()??.offset())
    }
}
