//! `read`: a part of a text, or an image as it is.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use cairn_engine::File;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Files, Media, Result, ToolError, path};

/// Most lines of an answer.
const LINES_MAX: usize = 2_000;
/// Most bytes of an answer.
const BYTES_MAX: usize = 256 << 10;
/// Most bytes of an image or document.
const MEDIA_MAX: u64 = 3_584 << 10;
/// A file with a NUL in its first bytes is not text.
const PROBE: usize = 512;

/// What is given to a model as it is, by the end of its name.
const MEDIA: [(&str, &str); 6] = [
    (".png", "image/png"),
    (".jpg", "image/jpeg"),
    (".jpeg", "image/jpeg"),
    (".gif", "image/gif"),
    (".webp", "image/webp"),
    (".pdf", "application/pdf"),
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Input {
    path: String,
    offset: Option<u64>,
    byte_offset: Option<u64>,
    limit: Option<usize>,
    #[serde(default)]
    line_numbers: bool,
}

pub(super) fn read(files: &Files, input: &Input) -> Result<Answer> {
    let path = path(&input.path)?;
    let lower = path.to_ascii_lowercase();
    if let Some((_, mime)) = MEDIA.iter().find(|(end, _)| lower.ends_with(end)) {
        return media(files, &path, mime);
    }
    if input.byte_offset.is_some_and(|at| at > 0) && input.offset.is_none() {
        let why = "byteOffset needs offset, the number of the line that begins there";
        return Err(ToolError::Input(why.into()));
    }
    let mut file = files.replica.open_file(&path)?;
    let mut probe = Vec::new();
    Read::by_ref(&mut file)
        .take(PROBE as u64)
        .read_to_end(&mut probe)?;
    if probe.contains(&0) {
        return Err(ToolError::NotText {
            path,
            why: "is a binary file; use exec to look into it".into(),
        });
    }
    let begin = input.byte_offset.unwrap_or(0);
    file.seek(SeekFrom::Start(begin))?;
    let mut part = Part::new(file, begin);
    let first = input.offset.unwrap_or(1).max(1);
    if begin == 0 {
        part.skip(first - 1)?;
    }
    part.number = first;
    part.take(input.limit.unwrap_or(LINES_MAX).clamp(1, LINES_MAX))?;
    Ok(part.answer(&path, first, input.line_numbers))
}

fn media(files: &Files, path: &str, mime: &'static str) -> Result<Answer> {
    let size = files.replica.stat(path)?.size;
    if size > MEDIA_MAX {
        return Err(ToolError::TooLarge {
            what: path.into(),
            bytes: size,
            most: MEDIA_MAX,
        });
    }
    let data = files.replica.read_file(path)?;
    let text = format!("{path}: {mime}, {} bytes", data.len());
    let value = json!({"path": path, "mimeType": mime, "bytes": data.len()});
    Ok(Answer {
        text,
        value,
        media: Some(Media { mime, data }),
    })
}

/// The lines that are shown.
struct Part {
    reader: BufReader<File>,
    /// Where the next byte is in the file.
    at: u64,
    /// The number of the next line.
    number: u64,
    bytes: Vec<u8>,
    ended: bool,
}

impl Part {
    fn new(file: File, at: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(64 << 10, file),
            at,
            number: 1,
            bytes: Vec::new(),
            ended: false,
        }
    }

    /// Passes over lines, however long they are.
    fn skip(&mut self, lines: u64) -> Result<()> {
        for _ in 0..lines {
            let skipped = self.reader.skip_until(b'\n')?;
            self.at += skipped as u64;
            if skipped == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads lines. A line that is too long is cut off, and goes on in the next part.
    fn take(&mut self, lines: usize) -> Result<()> {
        for _ in 0..lines {
            let left = BYTES_MAX - self.bytes.len();
            if left == 0 {
                return Ok(());
            }
            let begin = self.bytes.len();
            let limited = &mut Read::by_ref(&mut self.reader).take(left as u64);
            let len = limited.read_until(b'\n', &mut self.bytes)?;
            self.at += len as u64;
            if self.bytes.last() != Some(&b'\n') || len == 0 {
                self.ended = self.reader.fill_buf()?.is_empty();
                if !self.ended {
                    self.cut(begin);
                }
                return Ok(());
            }
            self.number += 1;
        }
        self.ended = self.reader.fill_buf()?.is_empty();
        Ok(())
    }

    /// A line was cut: at its beginning if there are others, or between characters.
    fn cut(&mut self, begin: usize) {
        let keep = if begin > 0 {
            begin
        } else {
            let tail = self.bytes.len().saturating_sub(4);
            let whole = match std::str::from_utf8(&self.bytes[tail..]) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => self.bytes.len() - tail,
            };
            tail + whole
        };
        self.at -= (self.bytes.len() - keep) as u64;
        self.bytes.truncate(keep);
    }

    fn answer(self, path: &str, first: u64, numbered: bool) -> Answer {
        let content = String::from_utf8_lossy(&self.bytes);
        let mut text = String::with_capacity(content.len());
        for (line, number) in content.split_inclusive('\n').zip(first..) {
            if numbered {
                // Writing to a string cannot fail.
                let _ = write!(text, "{number:>6}\t");
            }
            text.push_str(line);
        }
        let unended = !content.is_empty() && !content.ends_with('\n');
        let total = self.ended.then(|| self.number - 1 + u64::from(unended));
        let next = |value: u64| {
            if self.ended {
                Value::Null
            } else {
                value.into()
            }
        };
        if !self.ended {
            let (line, byte) = (self.number, self.at);
            let _ = writeln!(
                text,
                "\n... there is more: offset {line}, byteOffset {byte}"
            );
        }
        let value = json!({
            "path": path,
            "content": content,
            "totalLines": total,
            "nextOffset": next(self.number),
            "nextByteOffset": next(self.at),
        });
        Answer::new(text, value)
    }
}
