//! Searches through many lines at once, and in pieces, against searches of one
//! line after the other.

use super::matcher::{How, Matcher, Syntax};
use super::search::{Search, Step};
use super::style::{Binary, Style};

const PATTERNS: [&str; 22] = [
    "",
    "a",
    "^a",
    "a$",
    "^$",
    "b*",
    "ab\\|b",
    "a.b",
    "[^a]",
    "\\(a\\)\\1",
    "\\ba",
    "a\\>",
    "\\w",
    "\\W",
    "\\s",
    "^.$",
    ".*b",
    "a\\{2,\\}",
    "\\(a*\\)b\\1",
    "x",
    "a\\|^$",
    "\\S\\+$",
];

/// Numbers without a pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn text(&mut self) -> Vec<u8> {
        let len = self.below(40);
        let bytes = [b'a', b'b', b'\n', b'\n', b'_', b' ', b'\xff', b'a'];
        (0..len).map(|_| bytes[self.below(bytes.len())]).collect()
    }
}

fn how(numbers: &mut Numbers, syntax: Syntax) -> How {
    How {
        syntax,
        fold: numbers.below(3) == 0,
        words: numbers.below(3) == 0,
        lines: numbers.below(4) == 0,
        parts: true,
        end: b'\n',
    }
}

fn style(numbers: &mut Numbers) -> Style {
    Style {
        invert: numbers.below(3) == 0,
        count: numbers.below(5) == 0,
        quiet: false,
        list: None,
        only: numbers.below(4) == 0,
        color: numbers.below(4) == 0,
        names: numbers.below(2) == 0,
        numbers: numbers.below(2) == 0,
        offsets: numbers.below(2) == 0,
        tabs: numbers.below(4) == 0,
        nul: false,
        binary: Binary::Told,
        context: true,
        before: numbers.below(3) as u64,
        after: numbers.below(3) as u64,
        between: Some(b"--".to_vec()),
        most: if numbers.below(3) == 0 { 2 } else { u64::MAX },
        end: b'\n',
    }
}

#[test]
fn a_search_of_many_lines_finds_what_one_of_each_finds() {
    let mut numbers = Numbers(1);
    for round in 0..4_000 {
        let pattern = PATTERNS[round % PATTERNS.len()];
        let syntax = match round % 5 {
            0 => Syntax::Fixed,
            1 if !pattern.contains("\\{") && !pattern.contains("\\1") => Syntax::Perl,
            _ => Syntax::Basic,
        };
        let how = how(&mut numbers, syntax);
        let (matcher, _) = Matcher::new(&[pattern.to_owned()], how).unwrap();
        let text = numbers.text();
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let alone = |line: &&[u8]| {
            let line = [line, b"\n".as_slice()].concat();
            matcher.line(&line, 0).unwrap().is_some()
        };
        let expected: Vec<&[u8]> = lines.into_iter().filter(alone).collect();
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(line) = matcher.line(&text, at).unwrap() {
            at = line.end + 1;
            found.push(&text[line]);
        }
        assert_eq!(found, expected, "{pattern:?} in {text:?} with {how:?}");
    }
}

fn searched(style: &Style, matcher: &Matcher, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut search = Search::new(style, matcher, (b"f", Some(9)), false);
    let (mut out, mut pieces) = (Vec::new(), pieces.iter());
    loop {
        let step = search.step().unwrap();
        out.append(&mut search.out);
        match step {
            Step::Done => return (out, search.selected),
            Step::Full => {}
            Step::More => search.add(pieces.next().map(|piece| piece.to_vec())),
        }
    }
}

#[test]
fn it_does_not_matter_in_which_pieces_a_file_comes() {
    let mut numbers = Numbers(2);
    for round in 0..4_000 {
        let pattern = PATTERNS[round % PATTERNS.len()];
        let how = how(&mut numbers, Syntax::Basic);
        let (matcher, _) = Matcher::new(&[pattern.to_owned()], how).unwrap();
        let style = style(&mut numbers);
        let text = numbers.text();
        let whole = searched(&style, &matcher, &[&text]);
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + numbers.below(rest.len().min(9)));
            pieces.push(piece);
            rest = after;
        }
        let cut = searched(&style, &matcher, &pieces);
        assert_eq!(
            cut, whole,
            "{pattern:?} in {pieces:?} with {how:?}, {style:?}"
        );
    }
}
