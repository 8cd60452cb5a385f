//! `tail`: the end of files, which is looked for from the end where there is one.

use std::collections::VecDeque;
use std::io;

use super::call::{Call, Outcome};
use super::head::{Headers, with_number};
use super::options::{self, Given, Known, size};
use super::source::{Lines, Source};

const KNOWN: Known = Known {
    short: "c:fFn:qs:vz",
    long: &[
        ("bytes=", 'c'),
        ("follow?", 'f'),
        ("lines=", 'n'),
        ("quiet", 'q'),
        ("silent", 'q'),
        ("verbose", 'v'),
        ("zero-terminated", 'z'),
    ],
    error_code: 1,
};

/// Bytes that are looked at at a time, from the end.
const BLOCK: u64 = 64 << 10;

/// What is shown.
#[derive(Clone, Copy, Debug)]
enum Part {
    Lines(u64),
    /// From this line on, of which the first is 1.
    LinesFrom(u64),
    Bytes(u64),
    BytesFrom(u64),
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let mut args = with_number(call.args());
    if let Some(first) = args.first_mut()
        && let Some(number) = first.strip_prefix('+')
        && size(number).is_some()
    {
        *first = format!("-n+{number}");
    }
    let given = match options::parse(&args, &KNOWN) {
        Ok(given) => given,
        Err(what) => return call.usage(&what, 1).await,
    };
    if given.last_of("fF").is_some() {
        return call
            .fatal("following a file is not supported in this shell", 1)
            .await;
    }
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

async fn part(call: &Call<'_>, given: &Given) -> Outcome<Part> {
    let Some(unit) = given.last_of("cn") else {
        return Ok(Part::Lines(10));
    };
    let value = given.value(unit).unwrap_or_default();
    let (from, digits) = match value.strip_prefix('+') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('-').unwrap_or(value)),
    };
    let Some(count) = size(digits).filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))
    else {
        let unit = if unit == 'c' { "bytes" } else { "lines" };
        return call
            .fatal(&format!("invalid number of {unit}: '{value}'"), 1)
            .await;
    };
    Ok(match (unit, from) {
        ('c', false) => Part::Bytes(count),
        ('c', true) => Part::BytesFrom(count.max(1)),
        (_, false) => Part::Lines(count),
        (_, true) => Part::LinesFrom(count.max(1)),
    })
}

async fn show(
    call: &Call<'_>,
    mut source: Source<'_>,
    part: Part,
    end: u8,
) -> Outcome<io::Result<()>> {
    if let Some(size) = source.size() {
        let from = match part {
            Part::Bytes(count) => Ok(Some(size.saturating_sub(count))),
            Part::BytesFrom(count) => Ok(Some((count - 1).min(size))),
            Part::Lines(count) => last_lines(&source, size, count, end).map(Some),
            Part::LinesFrom(_) => Ok(None),
        };
        match from {
            Ok(Some(from)) => {
                source.seek(from);
                return rest(call, source).await;
            }
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    match part {
        Part::Lines(count) => held_lines(call, source, count, end).await,
        Part::LinesFrom(count) => lines_from(call, source, count, end).await,
        Part::Bytes(count) => held_bytes(call, source, count).await,
        Part::BytesFrom(count) => bytes_from(call, source, count).await,
    }
}

/// Where the last lines begin.
fn last_lines(source: &Source<'_>, size: u64, count: u64, end: u8) -> io::Result<u64> {
    if count == 0 {
        return Ok(size);
    }
    let (mut to, mut left) = (size, count);
    while to > 0 {
        let from = to.saturating_sub(BLOCK);
        let block = source.range(from, usize::try_from(to - from).unwrap_or(0))?;
        for (at, byte) in block.iter().enumerate().rev() {
            // The end of the last line is not the end of one before.
            let place = from + at as u64;
            if *byte == end && place + 1 != size {
                left -= 1;
                if left == 0 {
                    return Ok(place + 1);
                }
            }
        }
        to = from;
    }
    Ok(0)
}

async fn rest(call: &Call<'_>, mut source: Source<'_>) -> Outcome<io::Result<()>> {
    loop {
        match source.read().await {
            Ok(Some(piece)) => call.out(&piece).await?,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

async fn held_lines(
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
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        }
        if held.len() as u64 > count {
            held.pop_front();
        }
    }
    for line in held {
        call.out(&line).await?;
    }
    Ok(Ok(()))
}

async fn lines_from(
    call: &Call<'_>,
    source: Source<'_>,
    count: u64,
    end: u8,
) -> Outcome<io::Result<()>> {
    let mut lines = Lines::new(source, end);
    let mut number = 0;
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                number += 1;
                if number >= count {
                    call.out(line).await?;
                }
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

async fn held_bytes(
    call: &Call<'_>,
    mut source: Source<'_>,
    count: u64,
) -> Outcome<io::Result<()>> {
    let keep = usize::try_from(count).unwrap_or(usize::MAX);
    let mut held: Vec<u8> = Vec::new();
    loop {
        match source.read().await {
            Ok(Some(piece)) => held.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        }
        if held.len() / 2 > keep {
            held.drain(..held.len() - keep);
        }
    }
    let from = held.len().saturating_sub(keep);
    call.out(&held[from..]).await?;
    Ok(Ok(()))
}

async fn bytes_from(
    call: &Call<'_>,
    mut source: Source<'_>,
    count: u64,
) -> Outcome<io::Result<()>> {
    let mut skip = count - 1;
    loop {
        match source.read().await {
            Ok(Some(piece)) => {
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                skip -= skipped as u64;
                call.out(&piece[skipped..]).await?;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}
