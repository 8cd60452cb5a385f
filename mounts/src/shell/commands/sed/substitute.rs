//! Reads the commands `s` and `y`.

use std::collections::HashMap;

use super::parse::{Parsed, Parser};
use super::regex::{Case, Flags, Part, escape};
use super::script::{Substitute, Translate};
use crate::shell::names::to_bytes;

impl Parser {
    pub(super) fn substitute(&mut self) -> Parsed<Substitute> {
        const UNFINISHED: &str = "unterminated `s' command";
        let Some(delimiter) = self.next().filter(|c| *c != '\n' && *c != '\\') else {
            return self.wrong(UNFINISHED);
        };
        let Some(text) = self.until(delimiter, true) else {
            return self.wrong(UNFINISHED);
        };
        let Some(parts) = self.replacement(delimiter) else {
            return self.wrong(UNFINISHED);
        };
        let mut done = Substitute {
            regex: None,
            parts,
            all: false,
            print: false,
            number: 1,
            file: None,
        };
        let mut flags = self.flags(&mut done)?;
        let used = done.parts.iter().filter_map(|part| match part {
            Part::Group(group) => Some(*group),
            _ => None,
        });
        let most = used.max().unwrap_or(0);
        flags.captures = most > 0;
        done.regex = self.regex(&text, flags)?;
        if done.regex.as_ref().is_some_and(|regex| regex.groups < most) {
            return self.wrong(&format!("invalid reference \\{most} on `s' command's RHS"));
        }
        Ok(done)
    }

    /// What comes after the replacement.
    fn flags(&mut self, done: &mut Substitute) -> Parsed<Flags> {
        let (mut flags, mut numbered) = (Flags::default(), false);
        loop {
            let c = self.peek();
            match c {
                Some('g') if done.all => {
                    self.at += 1;
                    return self.wrong("multiple `g' options to `s' command");
                }
                Some('p') if done.print => {
                    self.at += 1;
                    return self.wrong("multiple `p' options to `s' command");
                }
                Some('g') => done.all = true,
                Some('p') => done.print = true,
                Some('i' | 'I') => flags.fold = true,
                Some('m' | 'M') => flags.lines = true,
                Some('e') => return self.wrong("e/r/w commands disabled in sandbox mode"),
                Some('w') => {
                    self.at += 1;
                    done.file = Some(self.file()?);
                    return Ok(flags);
                }
                Some('0'..='9') => {
                    done.number = self.number().unwrap_or(1);
                    if done.number == 0 {
                        return self.wrong("number option to `s' command may not be zero");
                    }
                    if std::mem::replace(&mut numbered, true) {
                        return self.wrong("multiple number options to `s' command");
                    }
                    continue;
                }
                None | Some('}' | '#' | ';' | '\n' | ' ' | '\t' | '\r') => return Ok(flags),
                Some(_) => {
                    self.at += 1;
                    return self.wrong("unknown option to `s'");
                }
            }
            self.at += 1;
        }
    }

    fn replacement(&mut self, delimiter: char) -> Option<Vec<Part>> {
        let (mut parts, mut text) = (Vec::new(), String::new());
        loop {
            let c = self.next()?;
            let part = match c {
                c if c == delimiter => break,
                '&' => Part::Group(0),
                '\\' => match self.next()? {
                    c if c == delimiter && c != '&' => {
                        text.push(c);
                        continue;
                    }
                    c @ '0'..='9' => Part::Group(c as usize - '0' as usize),
                    'U' => Part::Case(Case::Upper),
                    'L' => Part::Case(Case::Lower),
                    'u' => Part::Case(Case::UpperOne),
                    'l' => Part::Case(Case::LowerOne),
                    'E' => Part::Case(Case::End),
                    'n' => {
                        text.push('\n');
                        continue;
                    }
                    c => {
                        let made = self.escape(c).unwrap_or(c);
                        text.push(made);
                        continue;
                    }
                },
                c => {
                    text.push(c);
                    continue;
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(to_bytes(&std::mem::take(&mut text))));
            }
            parts.push(part);
        }
        if !text.is_empty() {
            parts.push(Part::Text(to_bytes(&text)));
        }
        Some(parts)
    }

    pub(super) fn translate(&mut self) -> Parsed<Translate> {
        const UNFINISHED: &str = "unterminated `y' command";
        let Some(delimiter) = self.next() else {
            return self.wrong(UNFINISHED);
        };
        let mut sides = [Vec::new(), Vec::new()];
        for side in &mut sides {
            let Some(text) = self.until(delimiter, false) else {
                return self.wrong(UNFINISHED);
            };
            let mut chars = text.chars().peekable();
            while let Some(c) = chars.next() {
                side.push(match c {
                    '\\' => match chars.next() {
                        Some('n') => '\n',
                        Some(c) => escape(c, &mut chars).unwrap_or(c),
                        None => c,
                    },
                    c => c,
                });
            }
        }
        let [from, to] = sides;
        if from.len() != to.len() {
            return self.wrong("strings for `y' command are different lengths");
        }
        let mut bytes = std::array::from_fn(|byte| u8::try_from(byte).unwrap_or(0));
        let mut chars = HashMap::new();
        for (from, to) in from.iter().zip(&to) {
            if let (Ok(from), Ok(to)) = (u8::try_from(*from), u8::try_from(*to)) {
                bytes[usize::from(from)] = to;
            }
            chars.insert(*from, *to);
        }
        let is_bytes = from.iter().chain(&to).all(char::is_ascii);
        Ok(Translate {
            bytes,
            chars: (!is_bytes).then_some(chars),
        })
    }
}
