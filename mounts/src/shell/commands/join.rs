//! `join`: lines of two files that have the same field. Both are in order of it.

use std::cmp::Ordering;

use super::call::{Call, Failure, Outcome};
use super::options::{self, Given, Known};
use super::source::Source;

const KNOWN: Known = Known {
    short: "1:2:a:e:ij:o:t:v:z",
    long: &[
        ("ignore-case", 'i'),
        ("zero-terminated", 'z'),
        ("check-order", '\0'),
        ("nocheck-order", '\0'),
    ],
    error_code: 1,
};

/// One part of an output line: a side and a field of it, or the common field.
#[derive(Clone, Copy, Debug)]
enum Part {
    Common,
    Field(usize, usize),
}

struct Style {
    fields: [usize; 2],
    separator: Option<u8>,
    unpaired: [bool; 2],
    paired: bool,
    fold: bool,
    empty: Vec<u8>,
    parts: Option<Vec<Part>>,
    end: u8,
}

/// A line, and where its fields are.
type Line<'a> = Vec<&'a [u8]>;

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let style = match style(&given) {
        Ok(style) => style,
        Err(what) => return call.usage(&what, 1).await,
    };
    let [first, second] = &*given.operands else {
        return call.usage("two files are joined", 1).await;
    };
    let texts = [read(call, first).await?, read(call, second).await?];
    let [old, new] = [&texts[0], &texts[1]].map(|text| lines(text, &style));
    let (mut old, mut new) = (&*old, &*new);
    while !(old.is_empty() && new.is_empty()) {
        let order = match (old.first(), new.first()) {
            (Some(one), Some(other)) => compare(&style, one, other),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        match order {
            Ordering::Less => {
                alone(call, &style, 0, &old[0]).await?;
                old = &old[1..];
            }
            Ordering::Greater => {
                alone(call, &style, 1, &new[0]).await?;
                new = &new[1..];
            }
            Ordering::Equal => {
                let same = |one: &Line<'_>, other: &Line<'_>| {
                    compare(&style, one, other) == Ordering::Equal
                };
                let ones = old.iter().take_while(|line| same(line, &new[0])).count();
                let others = new.iter().take_while(|line| same(&old[0], line)).count();
                for one in &old[..ones] {
                    for other in &new[..others] {
                        pair(call, &style, one, other).await?;
                    }
                }
                (old, new) = (&old[ones..], &new[others..]);
            }
        }
    }
    Ok(0)
}

fn style(given: &Given) -> Result<Style, String> {
    let field = |option: char| {
        let value = given.value(option).or(given.value('j')).unwrap_or("1");
        let number = value.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        number.ok_or_else(|| format!("invalid field number: '{value}'"))
    };
    let side = |value: &str| match value {
        "1" => Ok(0),
        "2" => Ok(1),
        _ => Err(format!("invalid file number: '{value}'")),
    };
    let mut unpaired = [false; 2];
    for (_, value) in given.options.iter().filter(|(c, _)| "av".contains(*c)) {
        unpaired[side(value)?] = true;
    }
    let parts = match given.value('o') {
        None | Some("auto") => None,
        Some(list) => Some(parts(list)?),
    };
    let separator = match given.value('t').map(str::as_bytes) {
        None => None,
        Some([byte]) => Some(*byte),
        Some(_) => return Err("the separator is one character".into()),
    };
    Ok(Style {
        fields: [field('1')?, field('2')?],
        separator,
        unpaired,
        paired: !given.has('v'),
        fold: given.has('i'),
        empty: given.value('e').unwrap_or_default().as_bytes().to_vec(),
        parts,
        end: if given.has('z') { 0 } else { b'\n' },
    })
}

fn parts(list: &str) -> Result<Vec<Part>, String> {
    let part = |text: &str| match text.split_once('.') {
        None if text == "0" => Some(Part::Common),
        Some((side @ ("1" | "2"), field)) => {
            let field = field.parse::<usize>().ok()?.checked_sub(1)?;
            Some(Part::Field(usize::from(side == "2"), field))
        }
        _ => None,
    };
    let words = list.split([',', ' ']).filter(|word| !word.is_empty());
    words
        .map(|word| part(word).ok_or_else(|| format!("invalid field specifier: '{word}'")))
        .collect()
}

async fn read(call: &Call<'_>, file: &str) -> Outcome<Vec<u8>> {
    let read = match Source::open(call, file).await {
        Ok(mut source) => source.read_all().await,
        Err(error) => Err(error),
    };
    match read {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            call.complain_of(file, &error).await?;
            Err(Failure::Usage(1))
        }
    }
}

fn lines<'a>(text: &'a [u8], style: &Style) -> Vec<Line<'a>> {
    let text = text.strip_suffix(&[style.end]).unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    let fields = |line: &'a [u8]| -> Line<'a> {
        match style.separator {
            Some(byte) => line.split(|b| *b == byte).collect(),
            None => line
                .split(|b| *b == b' ' || *b == b'\t')
                .filter(|field| !field.is_empty())
                .collect(),
        }
    };
    text.split(|byte| *byte == style.end).map(fields).collect()
}

fn compare(style: &Style, a: &Line<'_>, b: &Line<'_>) -> Ordering {
    let key = |line: &Line<'_>, side: usize| {
        let key = line.get(style.fields[side]).copied().unwrap_or_default();
        if style.fold {
            key.to_ascii_lowercase()
        } else {
            key.to_vec()
        }
    };
    key(a, 0).cmp(&key(b, 1))
}

async fn pair(call: &Call<'_>, style: &Style, a: &Line<'_>, b: &Line<'_>) -> Outcome<()> {
    if !style.paired {
        return Ok(());
    }
    put(call, style, [Some(a), Some(b)]).await
}

async fn alone(call: &Call<'_>, style: &Style, side: usize, line: &Line<'_>) -> Outcome<()> {
    if !style.unpaired[side] {
        return Ok(());
    }
    let mut sides = [None; 2];
    sides[side] = Some(line);
    put(call, style, sides).await
}

async fn put(call: &Call<'_>, style: &Style, sides: [Option<&Line<'_>>; 2]) -> Outcome<()> {
    let field = |side: usize, at: usize| {
        let field = sides[side].and_then(|line| line.get(at).copied());
        field
            .filter(|field| !field.is_empty())
            .unwrap_or(&style.empty)
    };
    let common = usize::from(sides[0].is_none());
    let common = field(common, style.fields[common]);
    let shown: Vec<&[u8]> = if let Some(parts) = &style.parts {
        let part = |part: &Part| match part {
            Part::Common => common,
            Part::Field(side, at) => field(*side, *at),
        };
        parts.iter().map(part).collect()
    } else {
        let rest = sides.iter().enumerate().flat_map(|(side, line)| {
            let fields = line.map(|line| line.iter().copied());
            let own = style.fields[side];
            let others = fields.into_iter().flatten().enumerate();
            others
                .filter(move |(at, _)| *at != own)
                .map(|(_, field)| field)
        });
        std::iter::once(common).chain(rest).collect()
    };
    let between = [style.separator.unwrap_or(b' ')];
    let mut text = shown.join(&between[..]);
    text.push(style.end);
    call.out(&text).await
}
