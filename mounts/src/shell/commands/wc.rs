//! `wc`: lines, words, characters, bytes, and the length of the longest line.

use std::io;

use super::call::{Call, Outcome};
use super::options::{self, Given, Known};
use super::source::Source;

const KNOWN: Known = Known {
    short: "clLmw",
    long: &[
        ("bytes", 'c'),
        ("chars", 'm'),
        ("lines", 'l'),
        ("max-line-length", 'L'),
        ("words", 'w'),
    ],
    error_code: 1,
};

/// The least width of a number when a size is not known.
const WIDTH_UNKNOWN: usize = 7;
/// Columns between two stops of a tab.
const TAB: u64 = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    lines: u64,
    words: u64,
    chars: u64,
    bytes: u64,
    longest: u64,
    in_word: bool,
    column: u64,
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let shown = shown(&given);
    let files = given.files();
    let width = width(call, &files, shown.len()).await;
    let mut total = Counts::default();
    for file in &files {
        let counted = match Source::open(call, file).await {
            Ok(source) => count(source, &shown).await,
            Err(error) => Err(error),
        };
        match counted {
            Ok(counts) => {
                let name = if given.operands.is_empty() { "" } else { file };
                print(call, &counts, &shown, width, name).await?;
                total.add(&counts);
            }
            Err(error) => call.complain_of(file, &error).await?,
        }
    }
    if files.len() > 1 {
        print(call, &total, &shown, width, "total").await?;
    }
    Ok(call.status())
}

/// Letters of what is shown, in the order it is shown in.
fn shown(given: &Given) -> Vec<char> {
    let asked: Vec<char> = "lwmcL".chars().filter(|c| given.has(*c)).collect();
    if asked.is_empty() {
        return vec!['l', 'w', 'c'];
    }
    asked
}

/// The width of the numbers, which GNU takes from the sizes of the files.
async fn width(call: &Call<'_>, files: &[&str], columns: usize) -> usize {
    if files.len() == 1 && columns == 1 {
        return 1;
    }
    let (mut total, mut least) = (0_u64, 1);
    for file in files {
        if *file == "-" {
            least = WIDTH_UNKNOWN;
            continue;
        }
        match call.attributes(file, true).await {
            Ok(node) if super::source::is_file(node.kind) => total += node.size,
            Ok(_) => least = WIDTH_UNKNOWN,
            Err(_) => {}
        }
    }
    total.to_string().len().max(least)
}

async fn count(mut source: Source<'_>, shown: &[char]) -> io::Result<Counts> {
    if let (Some(size), ['c']) = (source.size(), shown) {
        return Ok(Counts {
            bytes: size,
            ..Counts::default()
        });
    }
    let only_lines = shown.iter().all(|c| "lc".contains(*c));
    let mut counts = Counts::default();
    while let Some(piece) = source.read().await? {
        counts.bytes += piece.len() as u64;
        if only_lines {
            counts.lines += (piece.split(|byte| *byte == b'\n').count() - 1) as u64;
        } else {
            for byte in piece {
                counts.take(byte);
            }
        }
    }
    counts.longest = counts.longest.max(counts.column);
    Ok(counts)
}

impl Counts {
    fn take(&mut self, byte: u8) {
        let starts = byte & 0xc0 != 0x80;
        self.chars += u64::from(starts);
        match byte {
            b'\n' | b'\r' | 0x0c => {
                self.lines += u64::from(byte == b'\n');
                self.longest = self.longest.max(self.column);
                self.column = 0;
                self.in_word = false;
            }
            b'\t' => {
                self.column += TAB - self.column % TAB;
                self.in_word = false;
            }
            b' ' => {
                self.column += 1;
                self.in_word = false;
            }
            0x0b => self.in_word = false,
            _ => {
                let printed = byte >= 0x20 && byte != 0x7f;
                if printed && !self.in_word {
                    self.words += 1;
                    self.in_word = true;
                }
                self.column += u64::from(starts && printed);
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.words += other.words;
        self.chars += other.chars;
        self.bytes += other.bytes;
        self.longest = self.longest.max(other.longest);
    }
}

async fn print(
    call: &Call<'_>,
    counts: &Counts,
    shown: &[char],
    width: usize,
    name: &str,
) -> Outcome<()> {
    let number = |letter: &char| {
        let count = match letter {
            'l' => counts.lines,
            'w' => counts.words,
            'm' => counts.chars,
            'L' => counts.longest,
            _ => counts.bytes,
        };
        format!("{count:width$}")
    };
    let mut line = shown.iter().map(number).collect::<Vec<_>>().join(" ");
    if !name.is_empty() {
        line.push(' ');
        line.push_str(name);
    }
    line.push('\n');
    call.out(line.as_bytes()).await
}
