//! Patterns of Perl, where their notation means something else to
//! `regex-automata` and `fancy-regex`.

use super::super::posix::{Wrong, literal};

/// A pattern of Perl in the notation of the others.
pub(super) fn translate(pattern: &str) -> Result<String, Wrong> {
    let mut to = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            to.extend(text.chars().map(literal));
            rest = after;
        } else if let Some(escaped) = rest.strip_prefix('\\') {
            let c = escaped.chars().next();
            let c = c.ok_or(Wrong("\\ at end of pattern"))?;
            match c {
                'E' => {}
                // They are words in the notation of the others.
                '<' | '>' => to.push(c),
                c => to.extend(['\\', c]),
            }
            rest = &escaped[c.len_utf8()..];
        } else if c == '[' {
            rest = class(rest, &mut to)?;
        } else {
            to.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(to)
}

/// Copies a class, in which brackets and operators of sets are characters.
/// Returns what comes after it.
fn class<'a>(text: &'a str, to: &mut String) -> Result<&'a str, Wrong> {
    const UNFINISHED: Wrong = Wrong("missing terminating ] for character class");
    let mut rest = &text[1..];
    to.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        to.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        let c = rest.chars().next().ok_or(UNFINISHED)?;
        rest = &rest[c.len_utf8()..];
        match c {
            ']' if !first => {
                to.push(']');
                return Ok(rest);
            }
            '[' if rest.starts_with(':') && rest.contains(":]") => {
                let end = rest.find(":]").map_or(rest.len(), |end| end + 2);
                to.push('[');
                to.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            '[' | ']' | '&' | '~' => to.extend(['\\', c]),
            '\\' => {
                let c = rest.chars().next().ok_or(UNFINISHED)?;
                rest = &rest[c.len_utf8()..];
                to.extend(['\\', c]);
            }
            c => to.push(c),
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_something_else_is_changed() {
        for (perl, ours) in [
            (r"a(?=b)\d+", r"a(?=b)\d+"),
            (r"\Qa.b\E.", r"a\x2Eb."),
            (r"\<a\>", "<a>"),
            ("[[a]&&b]", r"[\[a]&&b]"),
            ("[]x]", r"[\]x]"),
            ("[[:alpha:]_]", "[[:alpha:]_]"),
            (r"[\]a]", r"[\]a]"),
        ] {
            assert_eq!(translate(perl).unwrap(), ours);
        }
        assert!(translate("[a").is_err());
        assert!(translate("a\\").is_err());
    }
}
