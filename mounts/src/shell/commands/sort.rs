//! `sort`: lines in order, whatever bytes they have. The lines are in memory.

use std::cmp::Ordering;

use super::call::{Call, Outcome};
use super::keys::{How, Key, compare_lines};
use super::options::{self, Given, Known};
use super::source::{Sink, Source};

const KNOWN: Known = Known {
    short: "bcCdfghik:mMno:rRsS:t:T:uVz",
    long: &[
        ("ignore-leading-blanks", 'b'),
        ("check?", 'c'),
        ("dictionary-order", 'd'),
        ("ignore-case", 'f'),
        ("general-numeric-sort", 'g'),
        ("human-numeric-sort", 'h'),
        ("ignore-nonprinting", 'i'),
        ("key=", 'k'),
        ("merge", 'm'),
        ("month-sort", 'M'),
        ("numeric-sort", 'n'),
        ("output=", 'o'),
        ("reverse", 'r'),
        ("random-sort", 'R'),
        ("stable", 's'),
        ("buffer-size=", 'S'),
        ("field-separator=", 't'),
        ("temporary-directory=", 'T'),
        ("unique", 'u'),
        ("version-sort", 'V'),
        ("zero-terminated", 'z'),
        ("parallel=", '\0'),
    ],
    error_code: 2,
};

/// Bytes that are written together.
const TOGETHER: usize = 32 << 10;

struct Order {
    how: How,
    keys: Vec<Key>,
    separator: Option<u8>,
    /// Lines whose keys are equal are not compared as a whole.
    stable: bool,
}

impl Order {
    fn keys(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.keys.is_empty() {
            return compare_lines(self.how, a, b);
        }
        let mut orders = self
            .keys
            .iter()
            .map(|key| key.compare(a, b, self.separator));
        orders
            .find(|order| *order != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    }

    /// Puts lines in order.
    fn sort(&self, lines: &mut [&[u8]]) {
        if self.how != How::default() || !self.keys.is_empty() || self.stable {
            lines.sort_by(|a, b| self.lines(a, b));
            return;
        }
        // Mostly the first bytes tell, and comparing a number is faster.
        let first = |line: &[u8]| {
            let mut first = [0; 8];
            let len = line.len().min(first.len());
            first[..len].copy_from_slice(&line[..len]);
            u64::from_be_bytes(first)
        };
        let mut keyed: Vec<(u64, &[u8])> = lines.iter().map(|line| (first(line), *line)).collect();
        keyed.sort_unstable();
        for (to, (_, line)) in lines.iter_mut().zip(keyed) {
            *to = line;
        }
    }

    fn lines(&self, a: &[u8], b: &[u8]) -> Ordering {
        let order = self.keys(a, b);
        if order != Ordering::Equal || self.stable {
            return order;
        }
        if self.how.reverse { b.cmp(a) } else { a.cmp(b) }
    }
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let order = order(call, &given).await?;
    let end = if given.has('z') { 0 } else { b'\n' };
    let mut text = Vec::new();
    for file in given.files() {
        let read = match Source::open(call, file).await {
            Ok(mut source) => source.read_all().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(mut bytes) => {
                if bytes.last().is_some_and(|last| *last != end) {
                    bytes.push(end);
                }
                text.append(&mut bytes);
            }
            Err(error) => {
                let what = match error.kind() {
                    std::io::ErrorKind::IsADirectory => "read failed",
                    _ => "cannot read",
                };
                call.complain_of(&format!("{what}: {file}"), &error).await?;
                return Ok(2);
            }
        }
    }
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == end).collect();
    for line in &mut lines {
        *line = &line[..line.len() - 1];
    }
    if let Some(check) = given.last_of("cC") {
        return verify(call, &given, &order, &lines, check).await;
    }
    if given.has('u') {
        lines.sort_by(|a, b| order.keys(a, b));
        lines.dedup_by(|a, b| order.keys(a, b) == Ordering::Equal);
    } else {
        order.sort(&mut lines);
    }
    write(call, &given, &lines, end).await
}

async fn order(call: &Call<'_>, given: &Given) -> Outcome<Order> {
    let mut how = How::default();
    for (letter, _) in &given.options {
        how.take(*letter);
    }
    let mut keys = Vec::new();
    for (_, value) in given.options.iter().filter(|(letter, _)| *letter == 'k') {
        match Key::parse(value) {
            Some(key) => keys.push(key.with_default(how)),
            None => return call.fatal(&format!("invalid key: '{value}'"), 2).await,
        }
    }
    let separator = match given.value('t') {
        None => None,
        Some("\\0") => Some(0),
        Some(text) if text.len() == 1 => text.bytes().next(),
        Some("") => return call.fatal("empty tab", 2).await,
        Some(text) => {
            return call
                .fatal(&format!("multi-character tab '{text}'"), 2)
                .await;
        }
    };
    Ok(Order {
        how,
        keys,
        separator,
        stable: given.has('s') || given.has('u'),
    })
}

async fn verify(
    call: &Call<'_>,
    given: &Given,
    order: &Order,
    lines: &[&[u8]],
    check: char,
) -> Outcome {
    let quiet = check == 'C'
        || given
            .value('c')
            .is_some_and(|how| how == "quiet" || how == "silent");
    let wrong = lines.windows(2).position(|pair| {
        let compared = order.lines(pair[0], pair[1]);
        compared == Ordering::Greater || given.has('u') && compared == Ordering::Equal
    });
    let Some(at) = wrong else {
        return Ok(0);
    };
    if !quiet {
        let file = given.files()[0];
        let line = String::from_utf8_lossy(lines[at + 1]);
        call.complain(&format!("{file}:{}: disorder: {line}", at + 2))
            .await?;
    }
    Ok(1)
}

async fn write(call: &Call<'_>, given: &Given, lines: &[&[u8]], end: u8) -> Outcome {
    let Some(file) = given.value('o') else {
        let mut text = Vec::with_capacity(TOGETHER);
        for line in lines {
            text.extend_from_slice(line);
            text.push(end);
            if text.len() >= TOGETHER {
                call.out(&text).await?;
                text.clear();
            }
        }
        call.out(&text).await?;
        return Ok(0);
    };
    // All input was read, so the file may be one of those that were sorted.
    let written = match Sink::create(call, file, true).await {
        Ok(mut sink) => {
            let mut text = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
            for line in lines {
                text.extend_from_slice(line);
                text.push(end);
            }
            sink.write(&text).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        call.complain_of(&format!("open failed: {file}"), &error)
            .await?;
        return Ok(2);
    }
    Ok(0)
}
