//! `uniq`: lines that follow themselves, once.

use super::call::{Call, Outcome};
use super::options::{self, Given, Known};
use super::source::{Lines, Sink, Source};

const KNOWN: Known = Known {
    short: "cdDf:is:uw:z",
    long: &[
        ("count", 'c'),
        ("repeated", 'd'),
        ("all-repeated?", 'D'),
        ("skip-fields=", 'f'),
        ("ignore-case", 'i'),
        ("skip-chars=", 's'),
        ("unique", 'u'),
        ("check-chars=", 'w'),
        ("zero-terminated", 'z'),
    ],
    error_code: 1,
};

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
struct Style {
    count: bool,
    repeated: bool,
    unique: bool,
    all: bool,
    fold: bool,
    fields: usize,
    chars: usize,
    width: usize,
    end: u8,
}

impl Style {
    fn of(given: &Given) -> Result<Self, String> {
        let number = |option, default| match given.value(option) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| {
                let what = match option {
                    'f' => "fields to skip",
                    's' => "bytes to skip",
                    _ => "bytes to compare",
                };
                format!("{text}: invalid number of {what}")
            }),
        };
        Ok(Self {
            count: given.has('c'),
            repeated: given.has('d'),
            unique: given.has('u'),
            all: given.has('D'),
            fold: given.has('i'),
            fields: number('f', 0)?,
            chars: number('s', 0)?,
            width: number('w', usize::MAX)?,
            end: if given.has('z') { 0 } else { b'\n' },
        })
    }

    /// The part of a line that counts.
    fn key<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let mut at = 0;
        let blank = |byte: u8| byte == b' ' || byte == b'\t';
        for _ in 0..self.fields {
            at += line[at..].iter().take_while(|byte| blank(**byte)).count();
            at += line[at..].iter().take_while(|byte| !blank(**byte)).count();
        }
        let from = at.saturating_add(self.chars).min(line.len());
        let to = from.saturating_add(self.width).min(line.len());
        &line[from..to]
    }

    fn is_same(&self, a: &[u8], b: &[u8]) -> bool {
        let (a, b) = (self.key(a), self.key(b));
        if self.fold {
            a.eq_ignore_ascii_case(b)
        } else {
            a == b
        }
    }

    /// What is shown of so many equal lines, of which this is one.
    fn shown(&self, count: u64) -> bool {
        match count {
            1 => !self.repeated && !self.all,
            _ => !self.unique,
        }
    }
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let style = match Style::of(&given) {
        Ok(style) => style,
        Err(what) => return call.fatal(&what, 1).await,
    };
    if let Some(extra) = given.operands.get(2) {
        return call.usage(&format!("extra operand '{extra}'"), 1).await;
    }
    let file = given.operands.first().map_or("-", String::as_str);
    let source = match Source::open(call, file).await {
        Ok(source) => source,
        Err(error) => {
            call.complain_of(file, &error).await?;
            return Ok(1);
        }
    };
    let mut sink = match given.operands.get(1) {
        None => None,
        Some(to) if to == "-" => None,
        Some(to) => match Sink::create(call, to, true).await {
            Ok(sink) => Some(sink),
            Err(error) => {
                call.complain_of(to, &error).await?;
                return Ok(1);
            }
        },
    };
    if let Err(error) = groups(call, source, &mut sink, &style).await? {
        call.complain_of(file, &error).await?;
    }
    Ok(call.status())
}

async fn groups(
    call: &Call<'_>,
    source: Source<'_>,
    sink: &mut Option<Sink<'_>>,
    style: &Style,
) -> Outcome<std::io::Result<()>> {
    let mut lines = Lines::new(source, style.end);
    let mut group: Option<(Vec<u8>, u64)> = None;
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line.strip_suffix(&[style.end]).unwrap_or(line),
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        match &mut group {
            Some((first, count)) if style.is_same(first, line) => {
                *count += 1;
                if style.all {
                    if *count == 2 {
                        let first = first.clone();
                        put(call, sink, &first, 0, style).await?;
                    }
                    let line = line.to_vec();
                    put(call, sink, &line, 0, style).await?;
                }
            }
            _ => {
                let next = (line.to_vec(), 1);
                if let Some((first, count)) = group.replace(next)
                    && !style.all
                    && style.shown(count)
                {
                    put(call, sink, &first, count, style).await?;
                }
            }
        }
    }
    if let Some((first, count)) = group
        && !style.all
        && style.shown(count)
    {
        put(call, sink, &first, count, style).await?;
    }
    Ok(Ok(()))
}

async fn put(
    call: &Call<'_>,
    sink: &mut Option<Sink<'_>>,
    line: &[u8],
    count: u64,
    style: &Style,
) -> Outcome<()> {
    let mut text = Vec::with_capacity(line.len() + 9);
    if style.count {
        text.extend_from_slice(format!("{count:7} ").as_bytes());
    }
    text.extend_from_slice(line);
    text.push(style.end);
    match sink {
        None => call.out(&text).await,
        Some(sink) => match sink.write(&text).await {
            Ok(()) => Ok(()),
            Err(error) => call.complain_of("write error", &error).await,
        },
    }
}
