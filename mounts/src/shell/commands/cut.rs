//! `cut`: parts of lines, by bytes, characters or fields.

use super::call::{Call, Outcome};
use super::options::{self, Given, Known};
use super::source::{Lines, Source};

const KNOWN: Known = Known {
    short: "b:c:d:f:nsz",
    long: &[
        ("bytes=", 'b'),
        ("characters=", 'c'),
        ("delimiter=", 'd'),
        ("fields=", 'f'),
        ("only-delimited", 's'),
        ("zero-terminated", 'z'),
        ("complement", '!'),
        ("output-delimiter=", 'o'),
    ],
    error_code: 1,
};

#[derive(Debug)]
struct Style {
    unit: char,
    ranges: Vec<(usize, usize)>,
    complement: bool,
    delimiter: u8,
    between: Option<Vec<u8>>,
    only_delimited: bool,
    end: u8,
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let style = match style(&given) {
        Ok(style) => style,
        Err(what) => return call.usage(&what, 1).await,
    };
    for file in given.files() {
        let done = match Source::open(call, file).await {
            Ok(source) => cut(call, source, &style).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            call.complain_of(file, &error).await?;
        }
    }
    Ok(call.status())
}

fn style(given: &Given) -> Result<Style, String> {
    let mut units = given
        .options
        .iter()
        .filter(|(letter, _)| "bcf".contains(*letter));
    let Some((unit, list)) = units.next() else {
        return Err("you must specify a list of bytes, characters, or fields".into());
    };
    if units.next().is_some() {
        return Err("only one list may be specified".into());
    }
    if *unit != 'f' && given.has('d') {
        return Err("an input delimiter may be specified only when operating on fields".into());
    }
    if *unit != 'f' && given.has('s') {
        return Err(
            "suppressing non-delimited lines makes sense\n\tonly when operating on fields".into(),
        );
    }
    let delimiter = match given.value('d').map(str::as_bytes) {
        None => b'\t',
        Some([]) => 0,
        Some([byte]) => *byte,
        Some(_) => return Err("the delimiter must be a single character".into()),
    };
    Ok(Style {
        unit: *unit,
        ranges: ranges(list, *unit)?,
        complement: given.has('!'),
        delimiter,
        between: given.value('o').map(|text| text.as_bytes().to_vec()),
        only_delimited: given.has('s'),
        end: if given.has('z') { 0 } else { b'\n' },
    })
}

/// Reads `N,N-M,N-,-M`, each from 1 on, to ranges from 0 on in order.
fn ranges(list: &str, unit: char) -> Result<Vec<(usize, usize)>, String> {
    let what = if unit == 'f' {
        "field"
    } else {
        "byte/character"
    };
    let zero = || match unit {
        'f' => "fields are numbered from 1".to_owned(),
        _ => "byte/character positions are numbered from 1".to_owned(),
    };
    let mut ranges = Vec::new();
    for part in list.split([',', ' ']).filter(|part| !part.is_empty()) {
        let number = |text: &str| match text.parse::<usize>() {
            Ok(0) => Err(zero()),
            Ok(number) => Ok(number),
            Err(_) => Err(format!("invalid {what} value '{part}'")),
        };
        let range = match part.split_once('-') {
            None => (number(part)?, number(part)?),
            Some(("", "")) => return Err("invalid range with no endpoint: -".into()),
            Some(("", to)) => (1, number(to)?),
            Some((from, "")) => (number(from)?, usize::MAX),
            Some((from, to)) => (number(from)?, number(to)?),
        };
        if range.0 > range.1 {
            return Err("invalid decreasing range".into());
        }
        ranges.push((range.0 - 1, range.1));
    }
    if ranges.is_empty() {
        return Err(zero());
    }
    ranges.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some((_, end)) if range.0 < *end => *end = range.1.max(*end),
            _ => merged.push(range),
        }
    }
    Ok(merged)
}

impl Style {
    fn has(&self, at: usize) -> bool {
        let inside = self
            .ranges
            .iter()
            .any(|(from, to)| (*from..*to).contains(&at));
        inside != self.complement
    }

    fn of(&self, line: &[u8], to: &mut Vec<u8>) {
        match self.unit {
            'f' => self.fields(line, to),
            'c' => match std::str::from_utf8(line) {
                Ok(text) => self.pieces(
                    text.char_indices()
                        .map(|(at, c)| &line[at..at + c.len_utf8()]),
                    to,
                ),
                Err(_) => self.pieces(line.chunks(1), to),
            },
            _ => self.pieces(line.chunks(1), to),
        }
    }

    fn pieces<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>, to: &mut Vec<u8>) {
        let (mut last, mut any) = (None, false);
        for (at, piece) in pieces.enumerate().filter(|(at, _)| self.has(*at)) {
            let range = self
                .ranges
                .iter()
                .position(|(from, to)| (*from..*to).contains(&at));
            let gap = last != Some((range, at.wrapping_sub(1)));
            if let (Some(between), true, true) = (&self.between, any, gap) {
                to.extend_from_slice(between);
            }
            to.extend_from_slice(piece);
            (last, any) = (Some((range, at)), true);
        }
    }

    fn fields(&self, line: &[u8], to: &mut Vec<u8>) {
        let fields = line.split(|byte| *byte == self.delimiter).enumerate();
        let between = self
            .between
            .as_deref()
            .unwrap_or(std::slice::from_ref(&self.delimiter));
        for (first, (_, field)) in fields.filter(|(at, _)| self.has(*at)).enumerate() {
            if first > 0 {
                to.extend_from_slice(between);
            }
            to.extend_from_slice(field);
        }
    }
}

async fn cut(call: &Call<'_>, source: Source<'_>, style: &Style) -> Outcome<std::io::Result<()>> {
    let mut lines = Lines::new(source, style.end);
    let mut text = Vec::new();
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line.strip_suffix(&[style.end]).unwrap_or(line),
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        text.clear();
        if style.unit == 'f' && !line.contains(&style.delimiter) {
            if style.only_delimited {
                continue;
            }
            text.extend_from_slice(line);
        } else {
            style.of(line, &mut text);
        }
        text.push(style.end);
        call.out(&text).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_checked() {
        assert_eq!(ranges("3-,1,2-4", 'f').unwrap(), [(0, 1), (1, usize::MAX)]);
        assert_eq!(ranges("-2", 'b').unwrap(), [(0, 2)]);
        for bad in ["", "0", "2-1", "-", "x", "1-x"] {
            assert!(ranges(bad, 'b').is_err(), "{bad}");
        }
    }
}
