//! Which files are looked into: `--include`, `--exclude` and their kin.

use regex_automata::meta;

use super::super::posix::{class, literal};

/// Patterns for names, in the order they were given.
#[derive(Debug, Default)]
pub(super) struct Globs(Vec<Glob>);

#[derive(Debug)]
struct Glob {
    regex: meta::Regex,
    includes: bool,
}

impl Globs {
    /// Adds one. One that is no pattern matches nothing.
    pub(super) fn add(&mut self, glob: &str, includes: bool) {
        let pattern = format!("\\A(?s:{})\\z", translate(glob));
        if let Ok(regex) = meta::Regex::new(&pattern) {
            self.0.push(Glob { regex, includes });
        }
    }

    /// Whether a name is left out: the last pattern that matches tells, and
    /// without one, whether the first of them includes. An operand is left out
    /// too if what is after one of its slashes is.
    pub(super) fn leaves_out(&self, name: &str, operand: bool) -> bool {
        let parts = name.char_indices().filter(|(_, c)| operand && *c == '/');
        let mut names: Vec<&str> = parts.map(|(at, _)| &name[at + 1..]).collect();
        names.push(name);
        let mut globs = self.0.iter().rev();
        let found = globs.find(|glob| names.iter().any(|name| glob.regex.is_match(*name)));
        match found {
            Some(glob) => !glob.includes,
            None => self.0.first().is_some_and(|first| first.includes),
        }
    }
}

fn translate(glob: &str) -> String {
    let chars: Vec<char> = glob.chars().collect();
    let (mut to, mut at) = (String::new(), 0);
    while let Some(c) = chars.get(at).copied() {
        at += 1;
        match c {
            '*' => to.push_str(".*"),
            '?' => to.push('.'),
            '[' => {
                let mut rest = chars[at..].to_vec();
                if let Some(first @ '!') = rest.first_mut() {
                    *first = '^';
                }
                match class(&rest, None) {
                    Ok((class, read)) => {
                        to.push_str(&class);
                        at += read;
                    }
                    Err(_) => to.push_str(&literal(c)),
                }
            }
            '\\' if at < chars.len() => {
                to.push_str(&literal(chars[at]));
                at += 1;
            }
            c => to.push_str(&literal(c)),
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_matches_tells() {
        let mut globs = Globs::default();
        assert!(!globs.leaves_out("a.c", false));
        globs.add("*.c", true);
        globs.add("a[!b]?", false);
        globs.add("a\\*", true);
        for (name, out) in [("a.c", true), ("b.c", false), ("x", true), ("a*", false)] {
            assert_eq!(globs.leaves_out(name, false), out, "{name}");
        }
        assert!(!globs.leaves_out("d/b.c", true));
        assert!(globs.leaves_out("b.c/d", true));
    }
}
