//! Reads scripts of `sed`, and says what is wrong with them as GNU's does.

use std::collections::HashMap;

use super::regex::{Flags, Regex, escape};
use super::script::{Address, Command, End, What};
use crate::shell::names::to_bytes;

/// Reads a script.
pub(super) struct Parser {
    text: Vec<char>,
    pub(super) at: usize,
    extended: bool,
    pub(super) commands: Vec<Command>,
    /// Blocks that are open.
    open: Vec<usize>,
    labels: HashMap<String, usize>,
    /// Commands that go to a label.
    jumps: Vec<(usize, String)>,
}

/// What was read, or what is wrong with it.
pub(super) type Parsed<T = ()> = Result<T, String>;

impl Parser {
    pub(super) fn new(text: &str, extended: bool) -> Self {
        Self {
            text: text.chars().collect(),
            at: 0,
            extended,
            commands: Vec::new(),
            open: Vec::new(),
            labels: HashMap::new(),
            jumps: Vec::new(),
        }
    }

    /// Reads it all.
    pub(super) fn all(&mut self) -> Parsed {
        loop {
            self.skip(|c| c.is_ascii_whitespace() || c == ';');
            if self.peek().is_none() {
                break;
            }
            self.command()?;
        }
        if !self.open.is_empty() {
            return Err("-e expression #1, char 0: unmatched `{'".into());
        }
        for (command, label) in std::mem::take(&mut self.jumps) {
            let to = match self.labels.get(&label) {
                _ if label.is_empty() => self.commands.len(),
                Some(to) => *to,
                None => return Err(format!("can't find label for jump to `{label}'")),
            };
            match &mut self.commands[command].what {
                What::Branch(at) | What::BranchIf(at) | What::BranchUnless(at) => *at = to,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn wrong<T>(&self, what: &str) -> Parsed<T> {
        Err(format!("-e expression #1, char {}: {what}", self.at))
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&what) {
            self.at += 1;
        }
    }

    fn blanks(&mut self) {
        self.skip(|c| c == ' ' || c == '\t');
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let from = self.at;
        self.skip(|c| c.is_ascii_digit());
        let digits: String = self.text[from..self.at].iter().collect();
        (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
    }

    fn command(&mut self) -> Parsed {
        let from = self.address()?;
        let mut to = None;
        self.blanks();
        if from.is_some() && self.take(',') {
            self.blanks();
            to = self.end()?;
            if to.is_none() {
                self.at += 1;
                return self.wrong("unexpected `,'");
            }
        }
        self.blanks();
        let negated = self.take('!');
        self.blanks();
        if negated && self.take('!') {
            return self.wrong("multiple `!'s");
        }
        let Some(name) = self.next() else {
            return self.wrong("missing command");
        };
        if matches!(from, Some(Address::Line(0))) && !matches!(to, Some(End::At(Address::Match(_))))
        {
            return self.wrong("invalid usage of line address 0");
        }
        let addresses = u32::from(from.is_some()) + u32::from(to.is_some());
        let what = match name {
            '#' if addresses > 0 => return self.wrong("comments don't accept any addresses"),
            '#' => {
                self.skip(|c| c != '\n');
                return Ok(());
            }
            ':' if addresses > 0 => return self.wrong(": doesn't want any addresses"),
            ':' => return self.label(),
            '}' => return self.close(addresses),
            '{' => {
                self.open.push(self.commands.len());
                What::Block(0)
            }
            name => self.what(name, addresses)?,
        };
        self.commands.push(Command {
            from,
            to,
            negated,
            what,
        });
        Ok(())
    }

    fn label(&mut self) -> Parsed {
        self.blanks();
        let from = self.at;
        self.skip(|c| !c.is_ascii_whitespace() && c != ';');
        if from == self.at {
            return self.wrong("\":\" lacks a label");
        }
        let label = self.text[from..self.at].iter().collect();
        self.labels.insert(label, self.commands.len());
        Ok(())
    }

    fn close(&mut self, addresses: u32) -> Parsed {
        let Some(block) = self.open.pop().filter(|_| addresses == 0) else {
            return self.wrong("unexpected `}'");
        };
        self.commands[block].what = What::Block(self.commands.len());
        self.finish()
    }

    /// After a command comes its end.
    fn finish(&mut self) -> Parsed {
        self.blanks();
        match self.peek() {
            None | Some('}' | '#') => Ok(()),
            Some(';' | '\n') => {
                self.at += 1;
                Ok(())
            }
            Some('\r') if self.text.get(self.at + 1) == Some(&'\n') => Ok(()),
            Some(_) => {
                self.at += 1;
                self.wrong("extra characters after command")
            }
        }
    }

    fn what(&mut self, name: char, addresses: u32) -> Parsed<What> {
        if matches!(name, 'a' | 'i' | 'c') {
            let text = self.text_of()?;
            return Ok(match name {
                'a' => What::Append(text),
                'i' => What::Insert(text),
                _ => What::Change(text),
            });
        }
        let what = match name {
            'b' | 't' | 'T' => self.jump(name),
            'r' => return Ok(What::ReadFile(self.file()?)),
            'R' => return Ok(What::ReadLine(self.file()?)),
            'w' => return Ok(What::WriteFile(self.file()?)),
            'W' => return Ok(What::WriteFirst(self.file()?)),
            's' => What::Substitute(Box::new(self.substitute()?)),
            'y' => What::Translate(Box::new(self.translate()?)),
            'q' | 'Q' if addresses > 1 => {
                return self.wrong("command only uses one address");
            }
            'q' | 'Q' | 'l' | 'L' => {
                self.blanks();
                let number = self.number();
                let code = i32::try_from(number.unwrap_or(0)).unwrap_or(0);
                match name {
                    'q' => What::Quit(code & 0xff),
                    'Q' => What::QuitSilently(code & 0xff),
                    _ => What::List(number.and_then(|number| usize::try_from(number).ok())),
                }
            }
            'v' => {
                self.skip(|c| c != '\n' && c != ';');
                What::Nothing
            }
            'e' => return self.wrong("e/r/w commands disabled in sandbox mode"),
            _ => match simple(name) {
                Some(what) => what,
                None => return self.wrong(&format!("unknown command: `{name}'")),
            },
        };
        // The flag of `s` that names a file took the rest of the line.
        self.finish()?;
        Ok(what)
    }

    /// A jump to a label, which is found later.
    fn jump(&mut self, name: char) -> What {
        self.blanks();
        let from = self.at;
        self.skip(|c| !c.is_ascii_whitespace() && c != ';' && c != '}');
        let label = self.text[from..self.at].iter().collect();
        self.jumps.push((self.commands.len(), label));
        match name {
            'b' => What::Branch(0),
            't' => What::BranchIf(0),
            _ => What::BranchUnless(0),
        }
    }

    pub(super) fn file(&mut self) -> Parsed<String> {
        self.blanks();
        let from = self.at;
        self.skip(|c| c != '\n');
        if from == self.at {
            return self.wrong("missing filename in r/R/w/W commands");
        }
        Ok(self.text[from..self.at].iter().collect())
    }

    /// The text of `a`, `i` and `c`, with its end.
    fn text_of(&mut self) -> Parsed<Vec<u8>> {
        self.blanks();
        if self.peek().is_none_or(|c| c == '\n') {
            return self.wrong("expected \\ after `a', `c' or `i'");
        }
        if self.take('\\') {
            let from = self.at;
            self.blanks();
            if !self.take('\n') {
                self.at = from;
            }
            if self.peek().is_none() {
                return Ok(Vec::new());
            }
        }
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '\\' => match self.next() {
                    Some(c) => {
                        let escaped = if text.is_empty() {
                            None
                        } else {
                            self.escape(c)
                        };
                        text.push(escaped.unwrap_or(c));
                    }
                    None => break,
                },
                c => text.push(c),
            }
        }
        text.push('\n');
        Ok(to_bytes(&text))
    }

    /// The character that an escape means, of which the letter was read.
    pub(super) fn escape(&mut self, c: char) -> Option<char> {
        let rest: String = self.text[self.at..].iter().take(4).collect();
        let mut chars = rest.chars().peekable();
        let made = escape(c, &mut chars)?;
        self.at += rest.chars().count() - chars.count();
        Some(made)
    }

    fn address(&mut self) -> Parsed<Option<Address>> {
        if let Some(line) = self.number() {
            self.blanks();
            if self.take('~') {
                self.blanks();
                return Ok(Some(Address::Step(line, self.number().unwrap_or(0))));
            }
            return Ok(Some(Address::Line(line)));
        }
        if self.take('$') {
            return Ok(Some(Address::Last));
        }
        let delimiter = match self.peek() {
            Some('/') => '/',
            Some('\\') => match self.text.get(self.at + 1) {
                Some(c) => {
                    self.at += 1;
                    *c
                }
                None => return self.wrong("unexpected `,'"),
            },
            _ => return Ok(None),
        };
        self.at += 1;
        let Some(text) = self.until(delimiter, true) else {
            return self.wrong("unterminated address regex");
        };
        let mut flags = Flags::default();
        loop {
            match self.peek() {
                Some('I') => flags.fold = true,
                Some('M') => flags.lines = true,
                _ => break,
            }
            self.at += 1;
        }
        let regex = self.regex(&text, flags)?;
        Ok(Some(Address::Match(regex)))
    }

    fn end(&mut self) -> Parsed<Option<End>> {
        for (sign, end) in [('+', End::After as fn(u64) -> End), ('~', End::Multiple)] {
            if self.take(sign) {
                return Ok(self.number().map(end));
            }
        }
        Ok(self.address()?.map(End::At))
    }

    /// None: the one that was used last.
    pub(super) fn regex(&self, text: &str, flags: Flags) -> Parsed<Option<Box<Regex>>> {
        if text.is_empty() {
            return Ok(None);
        }
        match Regex::new(text, self.extended, flags) {
            Ok(regex) => Ok(Some(Box::new(regex))),
            Err(what) => self.wrong(&what),
        }
    }

    /// The text up to a delimiter. An escaped one is the character itself. In a
    /// regular expression, one in brackets does not count.
    pub(super) fn until(&mut self, delimiter: char, is_regex: bool) -> Option<String> {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if c == delimiter => return Some(text),
                '\\' => match self.next()? {
                    c if c == delimiter => text.push(c),
                    '\n' if is_regex => text.push('\n'),
                    c => text.extend(['\\', c]),
                },
                '\n' if is_regex => return None,
                '[' if is_regex => {
                    let Some(len) = self.brackets() else {
                        self.at = self.text.len();
                        return None;
                    };
                    text.push('[');
                    text.extend(&self.text[self.at..self.at + len]);
                    self.at += len;
                }
                c => text.push(c),
            }
        }
        None
    }

    /// Characters of what is in brackets, with the last one.
    fn brackets(&self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let mut at = usize::from(rest.first() == Some(&'^'));
        at += usize::from(rest.get(at) == Some(&']'));
        while let Some(c) = rest.get(at) {
            at += 1;
            match (c, rest.get(at)) {
                (']', _) => return Some(at),
                ('\n', _) => return None,
                ('[', Some(kind @ (':' | '.' | '='))) => {
                    let inside = &rest[at + 1..];
                    let end = inside.windows(2).position(|pair| pair == [*kind, ']']);
                    at += end.map_or(0, |end| end + 3);
                }
                _ => {}
            }
        }
        None
    }
}

fn simple(name: char) -> Option<What> {
    Some(match name {
        'd' => What::Delete,
        'D' => What::DeleteFirst,
        'g' => What::Get,
        'G' => What::GetMore,
        'h' => What::Hold,
        'H' => What::HoldMore,
        'n' => What::Next,
        'N' => What::NextMore,
        'p' => What::Print,
        'P' => What::PrintFirst,
        'x' => What::Exchange,
        '=' => What::Number,
        'z' => What::Zap,
        'F' => What::File,
        _ => return None,
    })
}
