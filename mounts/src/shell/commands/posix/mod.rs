//! Patterns of POSIX, basic and extended with GNU's additions, as regular
//! expressions of `regex-automata`.
//!
//! Each is translated twice: as it is, and *loose*, without what a search
//! through many lines at once cannot do: words and what was matched before.
//! Wherever the former matches, the latter does.

mod bracket;
mod engines;

use crate::shell::names::to_bytes;

pub(crate) use bracket::class;
pub(crate) use engines::{Longest, Meaning};

/// What a repetition may count to, as with GNU's.
const REPEAT_MAX: u32 = 32_767;

/// What is wrong with a pattern, as GNU's says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) &'static str);

impl Wrong {
    pub(crate) const UNFINISHED: Self = Self("Unmatched [, [^, [:, [., or [=");
    pub(crate) const UNFINISHED_AT_ONCE: Self = Self("Invalid regular expression");
    pub(crate) const RANGE: Self = Self("Invalid range end");
    pub(crate) const CLASS: Self = Self("Invalid character class name");
    pub(crate) const COLLATION: Self = Self("Invalid collation character");
    pub(crate) const BARE_CLASS: Self =
        Self("character class syntax is [[:space:]], not [:space:]");
    pub(crate) const BIG: Self = Self("Regular expression too big");
    const OPEN: Self = Self("Unmatched ( or \\(");
    const CLOSE: Self = Self("Unmatched ) or \\)");
    const BRACE: Self = Self("Unmatched \\{");
    const COUNT: Self = Self("Invalid content of \\{\\}");
    const BACK: Self = Self("Invalid back reference");
    const BACKSLASH: Self = Self("Trailing backslash");
}

/// A translated pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    /// As it is.
    pub(crate) exact: String,
    /// What also matches wherever that does, and can be searched for fast.
    pub(crate) loose: String,
    /// It refers to what was matched before.
    pub(crate) back: bool,
    /// Groups.
    pub(crate) groups: usize,
    /// What GNU's warns of.
    pub(crate) warnings: Vec<&'static str>,
}

/// A character that stands for itself, or for a byte where an argument is no text.
pub(crate) fn literal(c: char) -> String {
    match to_bytes(c.encode_utf8(&mut [0; 4]))[..] {
        [byte] if byte.is_ascii_alphanumeric() => char::from(byte).into(),
        [byte] if byte.is_ascii() => format!("\\x{byte:02X}"),
        [byte] => format!("(?-u:\\x{byte:02X})"),
        _ => c.into(),
    }
}

/// Translates one. Nothing in it matches `never`, and `before` groups come
/// before its own.
pub(crate) fn translate(
    pattern: &str,
    extended: bool,
    never: Option<u8>,
    before: usize,
) -> Result<Translated, Wrong> {
    let mut translator = Translator {
        pattern: pattern.chars().collect(),
        at: 0,
        extended,
        never: never.map(char::from),
        before,
        open: Vec::new(),
        closed: Vec::new(),
        fresh: true,
        atom: None,
        done: Translated::default(),
    };
    while let Some(token) = translator.next()? {
        translator.take(token)?;
    }
    if !translator.open.is_empty() {
        return Err(Wrong::OPEN);
    }
    Ok(translator.done)
}

enum Token {
    Char(char),
    Any,
    Class(String),
    Begin,
    End,
    Open,
    Close,
    Or,
    Repeat(u32, Option<u32>),
    /// An assertion about words, which the loose pattern leaves out.
    Word(&'static str),
    Back(usize),
}

/// Where something begins in both patterns.
type Place = (usize, usize);

struct Translator {
    pattern: Vec<char>,
    at: usize,
    extended: bool,
    /// The end of lines, where no match may span it.
    never: Option<char>,
    before: usize,
    /// Groups that are open: the number, and where it begins.
    open: Vec<(usize, Place)>,
    closed: Vec<usize>,
    /// Nothing of the pattern, the group or the alternative was read.
    fresh: bool,
    /// Where what can be repeated begins.
    atom: Option<Place>,
    done: Translated,
}

impl Translator {
    fn next(&mut self) -> Result<Option<Token>, Wrong> {
        let Some(c) = self.pattern.get(self.at).copied() else {
            return Ok(None);
        };
        self.at += 1;
        Ok(Some(match c {
            '\\' => return self.escaped().map(Some),
            '[' => {
                let (class, read) = bracket::class(&self.pattern[self.at..], self.never)?;
                self.at += read;
                Token::Class(class)
            }
            '.' => Token::Any,
            '*' if self.extended || self.atom.is_some() => Token::Repeat(0, None),
            '^' if self.extended || self.fresh => Token::Begin,
            '$' if self.extended || self.is_at_end() => Token::End,
            '(' if self.extended => Token::Open,
            ')' if self.extended && !self.open.is_empty() => Token::Close,
            '|' if self.extended => Token::Or,
            '+' if self.extended => Token::Repeat(1, None),
            '?' if self.extended => Token::Repeat(0, Some(1)),
            '{' if self.extended => self.counts()?.unwrap_or(Token::Char('{')),
            c => Token::Char(c),
        }))
    }

    fn is_at_end(&self) -> bool {
        let after = &self.pattern[self.at..];
        after.is_empty() || after.starts_with(&['\\', ')']) || after.starts_with(&['\\', '|'])
    }

    fn escaped(&mut self) -> Result<Token, Wrong> {
        let c = *self.pattern.get(self.at).ok_or(Wrong::BACKSLASH)?;
        self.at += 1;
        Ok(match c {
            '(' if !self.extended => Token::Open,
            ')' if !self.extended && self.open.is_empty() => return Err(Wrong::CLOSE),
            ')' if !self.extended => Token::Close,
            '|' if !self.extended => Token::Or,
            '{' if !self.extended && self.atom.is_some() => {
                self.counts()?.unwrap_or(Token::Char('{'))
            }
            '+' if !self.extended && self.atom.is_some() => Token::Repeat(1, None),
            '?' if !self.extended && self.atom.is_some() => Token::Repeat(0, Some(1)),
            '<' => Token::Word(r"\b{start}"),
            '>' => Token::Word(r"\b{end}"),
            'b' => Token::Word(r"\b"),
            'B' => Token::Word(r"\B"),
            'w' => Token::Class(r"\w".into()),
            'W' => Token::Class(format!(r"[^\w{}]", self.never())),
            's' => Token::Class(format!(r"[\s--[{}]]", self.never_or("\\x00"))),
            'S' => Token::Class(r"\S".into()),
            '`' => Token::Begin,
            '\'' => Token::End,
            '1'..='9' => Token::Back(c as usize - '0' as usize),
            c => Token::Char(c),
        })
    }

    /// What is in the braces of a repetition. None if an extended pattern means
    /// a brace.
    fn counts(&mut self) -> Result<Option<Token>, Wrong> {
        let close: &[char] = if self.extended { &['}'] } else { &['\\', '}'] };
        let rest = &self.pattern[self.at..];
        let end = rest.windows(close.len()).position(|part| part == close);
        let Some(end) = end else {
            return if self.extended {
                Ok(None)
            } else {
                Err(Wrong::BRACE)
            };
        };
        let text: String = rest[..end].iter().collect();
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(number),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(u32::MAX)
            }
            _ => None,
        };
        let (from, to) = match text.split_once(',') {
            None => (number(&text), number(&text).map(Some)),
            Some((from, "")) => (number(from), Some(None)),
            Some(("", to)) => (Some(0), number(to).map(Some)),
            Some((from, to)) => (number(from), number(to).map(Some)),
        };
        let (Some(from), Some(to)) = (from, to) else {
            return if self.extended {
                Ok(None)
            } else {
                Err(Wrong::COUNT)
            };
        };
        if to.is_some_and(|to| to < from) {
            return Err(Wrong::COUNT);
        }
        if from.max(to.unwrap_or(0)) > REPEAT_MAX {
            return Err(Wrong::BIG);
        }
        self.at += end + close.len();
        Ok(Some(Token::Repeat(from, to)))
    }

    fn never_or(&self, other: &str) -> String {
        self.never.map_or_else(|| other.into(), literal)
    }

    fn never(&self) -> String {
        self.never_or("")
    }

    fn place(&self) -> Place {
        (self.done.exact.len(), self.done.loose.len())
    }

    fn push(&mut self, text: &str) {
        self.done.exact.push_str(text);
        self.done.loose.push_str(text);
    }

    fn atom(&mut self, text: &str) {
        self.atom = Some(self.place());
        self.push(text);
    }

    fn take(&mut self, token: Token) -> Result<(), Wrong> {
        self.fresh = matches!(token, Token::Or | Token::Open);
        match token {
            Token::Char(c) => self.atom(&literal(c)),
            Token::Any => self.atom("."),
            Token::Class(class) => self.atom(&class),
            Token::Begin => {
                // A repetition may make it count for nothing.
                self.atom = self.extended.then(|| self.place());
                self.push("^");
            }
            Token::End => {
                self.atom = None;
                self.push("$");
            }
            Token::Word(assertion) => {
                self.atom = Some(self.place());
                self.done.exact.push_str(assertion);
            }
            Token::Or => {
                self.push("|");
                self.atom = None;
            }
            Token::Open => {
                self.done.groups += 1;
                self.open.push((self.done.groups, self.place()));
                self.push("(");
                self.atom = None;
            }
            Token::Close => {
                let (number, place) = self.open.pop().ok_or(Wrong::CLOSE)?;
                self.push(")");
                self.closed.push(number);
                self.atom = Some(place);
            }
            Token::Back(number) => self.back(number)?,
            Token::Repeat(from, to) => self.repeat(from, to),
        }
        Ok(())
    }

    fn back(&mut self, number: usize) -> Result<(), Wrong> {
        if !self.closed.contains(&number) {
            return Err(Wrong::BACK);
        }
        self.atom = Some(self.place());
        self.done.back = true;
        let number = number + self.before;
        let reference = format!("(?:\\{number})");
        self.done.exact.push_str(&reference);
        // What was matched before may be anything within a line.
        let any = match self.never {
            Some(never) => format!("(?-u:[^{}])*", literal(never)),
            None => "(?s-u:.)*".into(),
        };
        self.done.loose.push_str(&any);
        Ok(())
    }

    fn repeat(&mut self, from: u32, to: Option<u32>) {
        let is_anchor = |at| self.done.exact.get(at..) == Some("^");
        if self.atom.is_none_or(|(exact, _)| is_anchor(exact)) {
            // Only extended patterns come here.
            self.done.warnings.push(match (from, to) {
                (0, None) => "* at start of expression",
                (1, None) => "+ at start of expression",
                (0, Some(1)) => "? at start of expression",
                _ => "{...} at start of expression",
            });
        }
        let Some((exact, loose)) = self.atom else {
            return;
        };
        let count = match (from, to) {
            (0, None) => "*".to_owned(),
            (1, None) => "+".to_owned(),
            (0, Some(1)) => "?".to_owned(),
            (from, None) => format!("{{{from},}}"),
            (from, Some(to)) => format!("{{{from},{to}}}"),
        };
        for (text, at) in [(&mut self.done.exact, exact), (&mut self.done.loose, loose)] {
            text.insert_str(at, "(?:");
            text.push(')');
            text.push_str(&count);
        }
    }
}
