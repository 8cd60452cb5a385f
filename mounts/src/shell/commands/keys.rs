//! Keys of `sort`, and the orders that they are compared in. Bytes are compared
//! as bytes: the shell's locale is C.

use std::cmp::Ordering;

/// How keys are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct How {
    pub(crate) kind: Kind,
    pub(crate) reverse: bool,
    /// Blanks at the beginning do not count.
    pub(crate) blanks: bool,
    /// Only blanks and letters and digits count.
    pub(crate) dictionary: bool,
    /// Small letters count as capital ones.
    pub(crate) fold: bool,
    /// Only what can be printed counts.
    pub(crate) printable: bool,
}

/// Orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Bytes,
    Number,
    General,
    Human,
    Month,
    Version,
    Random,
}

impl How {
    /// Takes up the option of a letter. Returns `false` if there is none.
    pub(crate) fn take(&mut self, letter: char) -> bool {
        match letter {
            'b' => self.blanks = true,
            'd' => self.dictionary = true,
            'f' => self.fold = true,
            'i' => self.printable = true,
            'r' => self.reverse = true,
            'n' => self.kind = Kind::Number,
            'g' => self.kind = Kind::General,
            'h' => self.kind = Kind::Human,
            'M' => self.kind = Kind::Month,
            'V' => self.kind = Kind::Version,
            'R' => self.kind = Kind::Random,
            _ => return false,
        }
        true
    }

    /// Whether nothing was said.
    fn is_default(self) -> bool {
        self == Self::default()
    }

    fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        let order = match self.kind {
            Kind::Bytes => self.compare_bytes(a, b),
            Kind::Number => number(a, b),
            Kind::General => general(a).total_cmp(&general(b)),
            Kind::Human => human(a, b),
            Kind::Month => month(a).cmp(&month(b)),
            Kind::Version => version(a, b),
            Kind::Random => hash(a).cmp(&hash(b)),
        };
        if self.reverse { order.reverse() } else { order }
    }

    fn compare_bytes(self, a: &[u8], b: &[u8]) -> Ordering {
        if !(self.dictionary || self.fold || self.printable) {
            return a.cmp(b);
        }
        let counts = |byte: &u8| {
            let word = byte.is_ascii_alphanumeric() || *byte == b' ' || *byte == b'\t';
            let shown = (0x20..0x7f).contains(byte);
            (!self.dictionary || word) && (!self.printable || shown)
        };
        let fold = |byte: &u8| {
            if self.fold {
                byte.to_ascii_uppercase()
            } else {
                *byte
            }
        };
        let a = a.iter().filter(|byte| counts(byte)).map(fold);
        let b = b.iter().filter(|byte| counts(byte)).map(fold);
        a.cmp(b)
    }
}

/// A part of a line, as `-k` names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Field and character that it begins with, from 0 on.
    from: (usize, usize),
    /// Field and character that it ends with; character 0 is the field's last.
    to: Option<(usize, usize)>,
    from_blanks: bool,
    to_blanks: bool,
    how: How,
}

impl Key {
    /// Reads `F[.C][OPTS][,F[.C][OPTS]]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (begin, end) = match text.split_once(',') {
            Some((begin, end)) => (begin, Some(end)),
            None => (text, None),
        };
        let mut how = How::default();
        let (from, from_blanks) = position(begin, &mut how, 1)?;
        let mut key = Self {
            from: (from.0.checked_sub(1)?, from.1.checked_sub(1)?),
            to: None,
            from_blanks,
            to_blanks: false,
            how,
        };
        if let Some(end) = end {
            let (to, to_blanks) = position(end, &mut how, 0)?;
            key.to = Some((to.0.checked_sub(1)?, to.1));
            key.to_blanks = to_blanks;
        }
        key.how = how;
        Some(key)
    }

    /// Compared as everything is, unless something was said for this key.
    pub(crate) fn with_default(mut self, default: How) -> Self {
        if self.how.is_default() && !self.from_blanks && !self.to_blanks {
            self.from_blanks = default.blanks;
            self.to_blanks = default.blanks;
            self.how = default;
        }
        self
    }

    fn of<'a>(&self, line: &'a [u8], separator: Option<u8>) -> &'a [u8] {
        let mut from = field(line, self.from.0, separator);
        if self.from_blanks {
            from += blanks(&line[from..]);
        }
        from = (from + self.from.1).min(line.len());
        let to = match self.to {
            None => line.len(),
            Some((at, 0)) => field_end(line, at, separator),
            Some((at, chars)) => {
                let mut to = field(line, at, separator);
                if self.to_blanks {
                    to += blanks(&line[to..]);
                }
                (to + chars).min(line.len())
            }
        };
        &line[from..to.max(from)]
    }

    /// The order of two lines by this key.
    pub(crate) fn compare(&self, a: &[u8], b: &[u8], separator: Option<u8>) -> Ordering {
        self.how
            .compare(self.of(a, separator), self.of(b, separator))
    }
}

/// The order of two whole lines.
pub(crate) fn compare_lines(how: How, a: &[u8], b: &[u8]) -> Ordering {
    if how.blanks {
        return how.compare(&a[blanks(a)..], &b[blanks(b)..]);
    }
    how.compare(a, b)
}

fn position(text: &str, how: &mut How, default: usize) -> Option<((usize, usize), bool)> {
    let letters = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let numbers = &text[..text.len() - letters.len()];
    let mut blanks = false;
    for letter in letters.chars() {
        if letter == 'b' {
            blanks = true;
        } else if !how.take(letter) {
            return None;
        }
    }
    let (field, char) = match numbers.split_once('.') {
        Some((field, char)) => (field.parse().ok()?, char.parse().ok()?),
        None => (numbers.parse().ok()?, default),
    };
    Some(((field, char), blanks))
}

/// Where a field begins. Without a separator, the blanks before it are part of it.
fn field(line: &[u8], number: usize, separator: Option<u8>) -> usize {
    let mut at = 0;
    for _ in 0..number {
        at = match separator {
            Some(byte) => match line[at..].iter().position(|b| *b == byte) {
                Some(found) => at + found + 1,
                None => return line.len(),
            },
            None => after_field(line, at),
        };
    }
    at
}

fn field_end(line: &[u8], number: usize, separator: Option<u8>) -> usize {
    let from = field(line, number, separator);
    match separator {
        Some(byte) => {
            let found = line[from..].iter().position(|b| *b == byte);
            found.map_or(line.len(), |found| from + found)
        }
        None => after_field(line, from),
    }
}

fn after_field(line: &[u8], at: usize) -> usize {
    let at = at + blanks(&line[at..]);
    let found = line[at..].iter().position(|byte| is_blank(*byte));
    found.map_or(line.len(), |found| at + found)
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_blank(**byte)).count()
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t' || byte == b'\n'
}

/// Digits of a number, without zeros that do not count.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl<'a> Number<'a> {
    /// The number at the beginning of a text, and what follows it.
    fn of(text: &'a [u8]) -> (Self, &'a [u8]) {
        let text = &text[blanks(text)..];
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (whole, mut rest) = text.split_at(digits(text));
        let mut fraction: &[u8] = &[];
        if let Some((b'.', after)) = rest.split_first() {
            (fraction, rest) = after.split_at(digits(after));
        }
        let zeros = whole.iter().take_while(|byte| **byte == b'0').count();
        let end = fraction
            .iter()
            .rposition(|byte| *byte != b'0')
            .map_or(0, |at| at + 1);
        let number = Self {
            negative,
            whole: &whole[zeros..],
            fraction: &fraction[..end],
        };
        (number, rest)
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.is_zero(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = |a: &Self, b: &Self| {
            let whole = a.whole.len().cmp(&b.whole.len());
            whole
                .then_with(|| a.whole.cmp(b.whole))
                .then_with(|| a.fraction.cmp(b.fraction))
        };
        match (sign(self), sign(other)) {
            (-1, -1) => size(other, self),
            (1, 1) => size(self, other),
            (a, b) => a.cmp(&b),
        }
    }
}

fn number(a: &[u8], b: &[u8]) -> Ordering {
    Number::of(a).0.compare(&Number::of(b).0)
}

fn human(a: &[u8], b: &[u8]) -> Ordering {
    let of = |text| {
        let (number, rest) = Number::of(text);
        let unit = rest.first().and_then(|letter| {
            let letter = if *letter == b'k' { b'K' } else { *letter };
            b"KMGTPEZYRQ".iter().position(|unit| *unit == letter)
        });
        let unit = match unit {
            Some(at) if !number.is_zero() => at.cast_signed() + 1,
            _ => 0,
        };
        (if number.negative { -unit } else { unit }, number)
    };
    let (a, b) = (of(a), of(b));
    let sign =
        |number: &Number<'_>| i8::from(!number.is_zero()) * if number.negative { -1 } else { 1 };
    sign(&a.1)
        .cmp(&sign(&b.1))
        .then_with(|| a.0.cmp(&b.0))
        .then_with(|| a.1.compare(&b.1))
}

/// A number of any notation. What is none comes first.
fn general(text: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(&text[blanks(text)..]).into_owned();
    let ends = (1..=text.len())
        .rev()
        .filter(|end| text.is_char_boundary(*end));
    let parsed = ends
        .filter(|end| *end <= 64)
        .find_map(|end| text[..end].parse::<f64>().ok());
    parsed.unwrap_or(f64::NEG_INFINITY)
}

fn month(text: &[u8]) -> usize {
    let names = [
        b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV",
        b"DEC",
    ];
    let text = &text[blanks(text)..];
    let start = text.get(..3).map(<[u8]>::to_ascii_uppercase);
    let found = names
        .iter()
        .position(|name| start.as_deref() == Some(*name));
    found.map_or(0, |at| at + 1)
}

/// Runs of digits compare as numbers: `file9` is before `file10`.
pub(crate) fn version(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let text = |text: &[u8]| {
            text.iter()
                .take_while(|byte| !byte.is_ascii_digit())
                .count()
        };
        let ((a_text, a_rest), (b_text, b_rest)) = (a.split_at(text(a)), b.split_at(text(b)));
        let rank = |byte: &u8| match byte {
            b'~' => -1,
            byte if byte.is_ascii_alphabetic() => i32::from(*byte),
            byte => i32::from(*byte) + 256,
        };
        let ranks = |text: &[u8]| text.iter().map(rank).chain([0]).collect::<Vec<_>>();
        let order = ranks(a_text).cmp(&ranks(b_text));
        if order != Ordering::Equal {
            return order;
        }
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (a_number, b_number);
        (a_number, a) = a_rest.split_at(digits(a_rest));
        (b_number, b) = b_rest.split_at(digits(b_rest));
        let order = number(a_number, b_number);
        if order != Ordering::Equal || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

fn hash(text: &[u8]) -> u64 {
    use std::hash::BuildHasher;
    static SEED: std::sync::LazyLock<std::hash::RandomState> =
        std::sync::LazyLock::new(std::hash::RandomState::new);
    SEED.hash_one(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_compare() {
        let order = |a: &str, b: &str| number(a.as_bytes(), b.as_bytes());
        assert_eq!(order("10", "9"), Ordering::Greater);
        assert_eq!(order("-10", "-9"), Ordering::Less);
        assert_eq!(order("1.50", "1.5"), Ordering::Equal);
        assert_eq!(order("0", "-0.0"), Ordering::Equal);
        assert_eq!(order("x", "-1"), Ordering::Greater);
        let long = "9".repeat(400);
        assert_eq!(order(&long, "1"), Ordering::Greater);
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        let order = |a: &str, b: &str| version(a.as_bytes(), b.as_bytes());
        assert_eq!(order("file9", "file10"), Ordering::Less);
        assert_eq!(order("1.0~rc1", "1.0"), Ordering::Less);
        assert_eq!(order("a", "a"), Ordering::Equal);
        assert_eq!(order("1.02", "1.2"), Ordering::Equal);
    }

    #[test]
    fn sizes_compare_by_their_units() {
        let order = |a: &str, b: &str| human(a.as_bytes(), b.as_bytes());
        assert_eq!(order("2K", "1M"), Ordering::Less);
        assert_eq!(order("900", "1K"), Ordering::Less);
        assert_eq!(order("-1M", "1"), Ordering::Less);
    }

    #[test]
    fn keys_are_parts_of_lines() {
        let key = |text: &str| Key::parse(text).unwrap();
        assert_eq!(key("2,2").of(b"a:b:c", Some(b':')), b"b");
        assert_eq!(key("2").of(b"a:b:c", Some(b':')), b"b:c");
        assert_eq!(key("2.2,2.3").of(b"a:bcde:c", Some(b':')), b"cd");
        assert_eq!(key("2,2").of(b"a  b c", None), b"  b");
        assert_eq!(key("2b,2").of(b"a  b c", None), b"b");
        assert_eq!(key("9").of(b"a", None), b"");
        for bad in ["", "0", "1.0", "1x", "a", "1,0"] {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
    }
}
