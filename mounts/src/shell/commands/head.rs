//! `head`: the beginning of files, of which no more is read than is shown.

use std::collections::VecDeque;
use std::io;

use super::call::{Call, Outcome};
use super::options::{self, Given, Known, size};
use super::source::{Lines, Source};

const KNOWN: Known = Known {
    short: "c:n:qvz",
    long: &[
        ("bytes=", 'c'),
        ("lines=", 'n'),
        ("quiet", 'q'),
        ("silent", 'q'),
        ("verbose", 'v'),
        ("zero-terminated", 'z'),
    ],
    error_code: 1,
};

/// What is shown.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The first lines.
    Lines(u64),
    /// All but the last lines.
    LinesBut(u64),
    /// The first bytes.
    Bytes(u64),
    /// All but the last bytes.
    BytesBut(u64),
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let args = with_number(call.args());
    let given = match options::parse(&args, &KNOWN) {
        Ok(given) => given,
        Err(what) => return call.usage(&what, 1).await,
    };
    let part = part(call, &given).await?;
    let end = if given.has('z') { 0 } else { b'\n' };
    let files = given.files();
    let mut headers = Headers::of(&given);
    for file in files {
        let Some(source) = headers.open(call, file).await? else {
            continue;
        };
        if let Err(error) = show(call, source, part, end).await? {
            let what = format!("error reading '{file}'");
            call.complain_of(&what, &error).await?;
        }
    }
    Ok(call.status())
}

/// The line above each of several files.
pub(crate) struct Headers {
    shown: bool,
    first: bool,
}

impl Headers {
    pub(crate) fn of(given: &Given) -> Self {
        let shown = match given.last_of("qv") {
            Some(last) => last == 'v',
            None => given.files().len() > 1,
        };
        Self { shown, first: true }
    }

    /// Opens a file and prints the line above it, or what is wrong with it.
    pub(crate) async fn open<'c>(
        &mut self,
        call: &'c Call<'_>,
        file: &str,
    ) -> Outcome<Option<Source<'c>>> {
        let source = match Source::open(call, file).await {
            Ok(source) => source,
            Err(error) => {
                let what = format!("cannot open '{file}' for reading");
                call.complain_of(&what, &error).await?;
                return Ok(None);
            }
        };
        if self.shown {
            let name = if file == "-" { "standard input" } else { file };
            let gap = if std::mem::take(&mut self.first) {
                ""
            } else {
                "\n"
            };
            call.out(format!("{gap}==> {name} <==\n").as_bytes())
                .await?;
        }
        Ok(Some(source))
    }
}

/// `-5` is `-n 5`.
pub(crate) fn with_number(args: &[String]) -> Vec<String> {
    let mut args = args.to_vec();
    if let Some(first) = args.first_mut()
        && let Some(number) = first.strip_prefix('-')
        && number
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit())
        && size(number).is_some()
    {
        *first = format!("-n{number}");
    }
    args
}

async fn part(call: &Call<'_>, given: &Given) -> Outcome<Part> {
    let Some(unit) = given.last_of("cn") else {
        return Ok(Part::Lines(10));
    };
    let value = given.value(unit).unwrap_or_default();
    let (but, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let Some(count) = size(digits).filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))
    else {
        let unit = if unit == 'c' { "bytes" } else { "lines" };
        return call
            .fatal(&format!("invalid number of {unit}: '{value}'"), 1)
            .await;
    };
    Ok(match (unit, but) {
        ('c', false) => Part::Bytes(count),
        ('c', true) => Part::BytesBut(count),
        (_, false) => Part::Lines(count),
        (_, true) => Part::LinesBut(count),
    })
}

async fn show(call: &Call<'_>, source: Source<'_>, part: Part, end: u8) -> Outcome<io::Result<()>> {
    match part {
        Part::Lines(0) | Part::Bytes(0) => Ok(Ok(())),
        Part::Lines(count) => lines(call, source, count, end).await,
        Part::Bytes(count) => bytes(call, source, count).await,
        Part::LinesBut(count) => lines_but(call, source, count, end).await,
        Part::BytesBut(count) => bytes_but(call, source, count).await,
    }
}

async fn lines(
    call: &Call<'_>,
    source: Source<'_>,
    count: u64,
    end: u8,
) -> Outcome<io::Result<()>> {
    let mut lines = Lines::new(source, end);
    for _ in 0..count {
        match lines.next().await {
            Ok(Some(line)) => call.out(line).await?,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

async fn bytes(call: &Call<'_>, mut source: Source<'_>, count: u64) -> Outcome<io::Result<()>> {
    let mut left = count;
    while left > 0 {
        match source.read().await {
            Ok(Some(piece)) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                call.out(&piece[..taken]).await?;
                left -= taken as u64;
            }
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

async fn lines_but(
    call: &Call<'_>,
    source: Source<'_>,
    count: u64,
    end: u8,
) -> Outcome<io::Result<()>> {
    let mut lines = Lines::new(source, end);
    let mut held: VecDeque<Vec<u8>> = VecDeque::new();
    loop {
        match lines.next().await {
            Ok(Some(line)) => held.push_back(line.to_vec()),
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
        if held.len() as u64 > count
            && let Some(line) = held.pop_front()
        {
            call.out(&line).await?;
        }
    }
}

async fn bytes_but(call: &Call<'_>, mut source: Source<'_>, count: u64) -> Outcome<io::Result<()>> {
    let keep = usize::try_from(count).unwrap_or(usize::MAX);
    let mut held = Vec::new();
    loop {
        match source.read().await {
            Ok(Some(piece)) => held.extend_from_slice(&piece),
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
        if held.len() > keep {
            let rest = held.split_off(held.len() - keep);
            call.out(&held).await?;
            held = rest;
        }
    }
}
