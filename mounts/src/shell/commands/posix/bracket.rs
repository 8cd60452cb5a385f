//! Bracket expressions of POSIX, such as `[^]a-z[:digit:]]`, as classes of the
//! regular expressions of `regex-automata`.

use std::fmt::Write as _;

use super::{Wrong, literal};

/// Reads one whose `[` was read. Returns the class and the characters that
/// were read. `never` is not matched by one that begins with `^`.
pub(crate) fn class(rest: &[char], never: Option<char>) -> Result<(String, usize), Wrong> {
    let mut reader = Reader { rest, at: 0 };
    let negated = reader.take('^');
    let mut class = String::from(if negated { "[^" } else { "[" });
    let begun = reader.at;
    if rest.len() == begun {
        return Err(Wrong::UNFINISHED_AT_ONCE);
    }
    loop {
        if reader.at > begun && reader.take(']') {
            break;
        }
        match reader.item()? {
            Item::Class(name) => class.push_str(name),
            Item::One(from) => match reader.range_end()? {
                Some(to) if to < from => return Err(Wrong::RANGE),
                Some(to) => {
                    let _ = write!(class, "{}-{}", literal(from), literal(to));
                }
                None => class.push_str(&literal(from)),
            },
        }
    }
    if let Some(never) = never.filter(|_| negated) {
        class.push_str(&literal(never));
    }
    class.push(']');
    let text: String = rest[..reader.at].iter().collect();
    if text.starts_with(':') && text.ends_with(":]") && text.len() > 2 {
        return Err(Wrong::BARE_CLASS);
    }
    Ok((class, reader.at))
}

enum Item {
    One(char),
    Class(&'static str),
}

struct Reader<'a> {
    rest: &'a [char],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, c: char) -> bool {
        let found = self.rest.get(self.at) == Some(&c);
        self.at += usize::from(found);
        found
    }

    fn item(&mut self) -> Result<Item, Wrong> {
        let first = *self.rest.get(self.at).ok_or(Wrong::UNFINISHED)?;
        self.at += 1;
        let kind = match self.rest.get(self.at) {
            Some(kind @ (':' | '.' | '=')) if first == '[' => *kind,
            _ => return Ok(Item::One(first)),
        };
        let inside = &self.rest[self.at + 1..];
        let end = inside.windows(2).position(|pair| pair == [kind, ']']);
        let name: String = inside[..end.ok_or(Wrong::UNFINISHED)?].iter().collect();
        self.at += name.chars().count() + 3;
        if kind == ':' {
            return named(&name).map(Item::Class).ok_or(Wrong::CLASS);
        }
        let mut chars = name.chars();
        match (chars.next(), chars.next()) {
            (Some(one), None) => Ok(Item::One(one)),
            _ => Err(Wrong::COLLATION),
        }
    }

    /// What comes after a `-`, if there is one that is not the last character.
    fn range_end(&mut self) -> Result<Option<char>, Wrong> {
        let is_range = self.rest.get(self.at) == Some(&'-')
            && self.rest.get(self.at + 1).is_some_and(|next| *next != ']');
        if !is_range {
            return Ok(None);
        }
        self.at += 1;
        match self.item()? {
            Item::One(to) => Ok(Some(to)),
            Item::Class(_) => Err(Wrong::RANGE),
        }
    }
}

fn named(name: &str) -> Option<&'static str> {
    Some(match name {
        "alpha" => r"\p{Alphabetic}",
        "digit" => "0-9",
        "alnum" => r"\p{Alphabetic}0-9",
        "upper" => r"\p{Uppercase}",
        "lower" => r"\p{Lowercase}",
        "space" => r"\t\n\x0B\f\r ",
        "blank" => r"\t ",
        "punct" => r"\p{P}\p{S}",
        "print" => r"[^\p{Cc}\p{Cn}]",
        "graph" => r"[^\p{Cc}\p{Cn}\p{Z}]",
        "cntrl" => r"\x00-\x1F\x7F",
        "xdigit" => "0-9A-Fa-f",
        _ => return None,
    })
}
