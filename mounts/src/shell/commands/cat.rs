//! `cat`: files one after the other, with any bytes.

use std::fmt::Write as _;

use super::call::{Call, Outcome};
use super::options::{self, Given, Known};
use super::source::{Lines, Source};

const KNOWN: Known = Known {
    short: "AbeEnstTuv",
    long: &[
        ("show-all", 'A'),
        ("number-nonblank", 'b'),
        ("show-ends", 'E'),
        ("number", 'n'),
        ("squeeze-blank", 's'),
        ("show-tabs", 'T'),
        ("show-nonprinting", 'v'),
    ],
    error_code: 1,
};

/// How lines are shown.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
struct Style {
    ends: bool,
    tabs: bool,
    visible: bool,
    squeeze: bool,
    number: bool,
    number_filled: bool,
}

impl Style {
    fn of(given: &Given) -> Self {
        let any = |letters: &str| given.last_of(letters).is_some();
        Self {
            ends: any("AeE"),
            tabs: any("AtT"),
            visible: any("Aetv"),
            squeeze: given.has('s'),
            number: given.has('n') && !given.has('b'),
            number_filled: given.has('b'),
        }
    }

    fn is_plain(&self) -> bool {
        let shown = self.ends || self.tabs || self.visible;
        !(shown || self.squeeze || self.number || self.number_filled)
    }
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let style = Style::of(&given);
    let mut state = State::default();
    for file in given.files() {
        let shown = match Source::open(call, file).await {
            Ok(source) if style.is_plain() => copy(call, source).await?,
            Ok(source) => show(call, source, &style, &mut state).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = shown {
            call.complain_of(file, &error).await?;
        }
    }
    Ok(call.status())
}

async fn copy(call: &Call<'_>, mut source: Source<'_>) -> Outcome<std::io::Result<()>> {
    loop {
        match source.read().await {
            Ok(Some(piece)) => call.out(&piece).await?,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Where it is: lines are counted through all files.
#[derive(Debug, Default)]
struct State {
    lines: u64,
    blank: bool,
    /// The last file did not end its last line.
    unfinished: bool,
}

async fn show(
    call: &Call<'_>,
    source: Source<'_>,
    style: &Style,
    state: &mut State,
) -> Outcome<std::io::Result<()>> {
    let mut lines = Lines::new(source, b'\n');
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let blank = line == b"\n" && !state.unfinished;
        if blank && state.blank && style.squeeze {
            continue;
        }
        state.blank = blank;
        let mut shown = Vec::with_capacity(line.len() + 8);
        let numbered = style.number || style.number_filled && !blank;
        if numbered && !state.unfinished {
            state.lines += 1;
            shown.extend_from_slice(format!("{:6}\t", state.lines).as_bytes());
        }
        state.unfinished = line.last() != Some(&b'\n');
        render(line, style, &mut shown);
        call.out(&shown).await?;
    }
}

fn render(line: &[u8], style: &Style, to: &mut Vec<u8>) {
    for &byte in line {
        match byte {
            b'\n' if style.ends => to.extend_from_slice(b"$\n"),
            b'\t' if style.tabs => to.extend_from_slice(b"^I"),
            _ if style.visible && byte != b'\n' && byte != b'\t' => visible(byte, to),
            _ => to.push(byte),
        }
    }
}

/// A byte in the notation with `^` and `M-`.
fn visible(byte: u8, to: &mut Vec<u8>) {
    let mut text = String::new();
    let low = byte & 0x7f;
    if byte >= 0x80 {
        text.push_str("M-");
    }
    // Writing to text does not fail.
    let _ = match low {
        0..=0x1f => write!(text, "^{}", char::from(low + 0x40)),
        0x7f => write!(text, "^?"),
        _ => write!(text, "{}", char::from(low)),
    };
    to.extend_from_slice(text.as_bytes());
}
