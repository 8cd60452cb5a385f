//! What `sed` reads and writes: lines of one file after the other, its output,
//! and files that are edited in place.

use std::collections::{HashMap, VecDeque};
use std::io;

use super::super::call::{Call, Outcome, Spot, is_dir, plain, reason};
use super::super::source::{Lines, Sink, Source};
use crate::shell::names::{path_bytes, to_bytes};
use crate::shell::wire::Change;

/// Output that is gathered before it is passed on.
const FULL: usize = 64 << 10;

/// The lines of all files.
pub(super) struct Input<'a> {
    call: &'a Call<'a>,
    left: VecDeque<String>,
    lines: Option<Lines<'a>>,
    /// The file that the line comes from.
    pub(super) name: String,
    /// Each file has a last line.
    separate: bool,
    in_place: bool,
    end: u8,
    /// The number of the line.
    pub(super) number: u64,
    /// The exit status that what could not be read makes.
    pub(super) code: i32,
}

impl<'a> Input<'a> {
    pub(super) fn new(
        call: &'a Call<'a>,
        files: &[&str],
        separate: bool,
        in_place: bool,
        end: u8,
    ) -> Self {
        Self {
            call,
            left: files.iter().map(|file| (*file).to_owned()).collect(),
            lines: None,
            name: "-".into(),
            separate,
            in_place,
            end,
            number: 0,
            code: 0,
        }
    }

    /// Adds the next line to a text. Returns whether it had an end; none if
    /// there is no line. `switched` is told that a file began.
    pub(super) async fn add_line(
        &mut self,
        to: &mut Vec<u8>,
        output: &mut Output<'a>,
    ) -> Outcome<Option<bool>> {
        loop {
            if self.is_open_and_over().await? {
                self.lines = None;
                output.end_file().await?;
            }
            if self.lines.is_none() && !self.open_next(output).await? {
                return Ok(None);
            }
            let Some(lines) = &mut self.lines else {
                return Ok(None);
            };
            match lines.next().await {
                Ok(Some(line)) => {
                    let text = line.strip_suffix(&[self.end]).unwrap_or(line);
                    to.extend_from_slice(text);
                    self.number += 1;
                    return Ok(Some(text.len() < line.len()));
                }
                Ok(None) => {}
                Err(error) => self.failed(&error).await?,
            }
        }
    }

    async fn is_open_and_over(&mut self) -> Outcome<bool> {
        let Some(lines) = &mut self.lines else {
            return Ok(false);
        };
        match lines.is_over().await {
            Ok(over) => Ok(over),
            Err(error) => {
                self.failed(&error).await?;
                Ok(false)
            }
        }
    }

    async fn failed(&mut self, error: &io::Error) -> Outcome<()> {
        self.code = 2;
        self.lines = None;
        let what = format!("read error on {}: {}", self.name, reason(error));
        self.call.complain(&what).await
    }

    /// Opens the next file that can be read.
    async fn open_next(&mut self, output: &mut Output<'a>) -> Outcome<bool> {
        while let Some(file) = self.left.pop_front() {
            if self.in_place {
                let code = output.begin_file(&file).await?;
                if code != 0 {
                    self.code = code;
                    continue;
                }
            }
            match Source::open(self.call, &file).await {
                Ok(source) => {
                    self.lines = Some(Lines::new(source, self.end));
                    if self.separate {
                        self.number = 0;
                    }
                    self.name = file;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    output.end().await?;
                    let what = format!("read error on {file}: {}", reason(&error));
                    return self.call.fatal(&what, 4).await;
                }
                Err(error) => {
                    self.code = 2;
                    let what = format!("can't read {file}: {}", reason(&error));
                    self.call.complain(&what).await?;
                }
            }
        }
        Ok(false)
    }

    /// Whether no line comes after this one, or with separate files, none of
    /// the same file.
    pub(super) async fn is_last(&mut self, output: &mut Output<'a>) -> Outcome<bool> {
        loop {
            if self.lines.is_some() && !self.is_open_and_over().await? && self.lines.is_some() {
                return Ok(false);
            }
            if self.separate {
                return Ok(true);
            }
            self.lines = None;
            if !self.open_next(output).await? {
                return Ok(true);
            }
        }
    }

    /// Whether no line comes at all.
    pub(super) async fn is_over(&mut self, output: &mut Output<'a>) -> Outcome<bool> {
        Ok(self.is_last(output).await? && self.left.is_empty())
    }
}

/// What is written.
pub(super) struct Output<'a> {
    call: &'a Call<'a>,
    end: u8,
    out: Vec<u8>,
    /// The last line has no end, and gets one if another comes.
    unfinished: bool,
    /// The file that is edited, and what its backup is called.
    edited: Option<String>,
    suffix: Option<String>,
    sinks: HashMap<String, (Sink<'a>, Vec<u8>)>,
}

impl<'a> Output<'a> {
    pub(super) fn new(call: &'a Call<'a>, end: u8, suffix: Option<String>) -> Self {
        Self {
            call,
            end,
            out: Vec::new(),
            unfinished: false,
            edited: None,
            suffix,
            sinks: HashMap::new(),
        }
    }

    /// Opens a file that the script writes to.
    pub(super) async fn open(&mut self, file: String) -> Outcome<()> {
        if is_stream(&file) {
            return Ok(());
        }
        match Sink::create(self.call, &file, true).await {
            Ok(sink) => {
                self.sinks.insert(file, (sink, Vec::new()));
                Ok(())
            }
            Err(error) => {
                let what = format!("couldn't open file {file}: {}", reason(&error));
                self.call.fatal(&what, 4).await
            }
        }
    }

    /// Writes a line.
    pub(super) async fn line(&mut self, text: &[u8], ended: bool) -> Outcome<()> {
        self.finish_line();
        self.out.extend_from_slice(text);
        if ended {
            self.out.push(self.end);
        } else {
            self.unfinished = true;
        }
        self.pass_on().await
    }

    /// Writes bytes.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.finish_line();
        self.out.extend_from_slice(bytes);
        self.pass_on().await
    }

    fn finish_line(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            self.out.push(self.end);
        }
    }

    async fn pass_on(&mut self) -> Outcome<()> {
        if self.edited.is_none() && self.out.len() >= FULL {
            self.call.out(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Writes a line to a file of the script.
    pub(super) async fn file_line(&mut self, file: &str, text: &[u8]) -> Outcome<()> {
        if file == "/dev/stdout" {
            return self.line(text, true).await;
        }
        if file == "/dev/stderr" {
            let line = [text, b"\n"].concat();
            return Ok(self.call.context.stderr.write_all(&line).await?);
        }
        if let Some((_, gathered)) = self.sinks.get_mut(file) {
            gathered.extend_from_slice(text);
            gathered.push(self.end);
            if gathered.len() < FULL {
                return Ok(());
            }
        }
        self.flush_files().await
    }

    /// Writes what was gathered for the files of the script.
    pub(super) async fn flush_files(&mut self) -> Outcome<()> {
        for (file, (sink, gathered)) in &mut self.sinks {
            if gathered.is_empty() {
                continue;
            }
            if let Err(error) = sink.write(gathered).await {
                let what = format!("couldn't write to {file}: {}", reason(&error));
                return self.call.fatal(&what, 4).await;
            }
            gathered.clear();
        }
        Ok(())
    }

    /// From here on, a file is edited in place. Returns the exit status, if it
    /// cannot be.
    async fn begin_file(&mut self, file: &str) -> Outcome {
        let wrong = match self.call.attributes(file, true).await {
            Err(error) => {
                let what = format!("can't read {file}: {}", reason(&error));
                self.call.complain(&what).await?;
                return Ok(2);
            }
            Ok(node) => is_dir(&node) || node.kind != cairn_protocol::NodeKind::File,
        };
        if wrong {
            let what = format!("couldn't edit {file}: not a regular file");
            self.call.complain(&what).await?;
            return Ok(4);
        }
        self.edited = Some(file.to_owned());
        Ok(0)
    }

    /// The file that is edited gets its new content.
    pub(super) async fn end_file(&mut self) -> Outcome<()> {
        let Some(file) = self.edited.take() else {
            return Ok(());
        };
        self.unfinished = false;
        let content = std::mem::take(&mut self.out);
        if let Err(error) = self.put(&file, &content).await {
            let what = format!("couldn't edit {file}: {}", reason(&error));
            return self.call.fatal(&what, 4).await;
        }
        Ok(())
    }

    async fn put(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let client = &self.call.place.client;
        let perm = self.call.attributes(file, true).await?.perm;
        match self.call.find(file, false).await? {
            // As GNU's does it: the name gets a new file, other names keep the old one.
            Spot::Store(path) => {
                if let Some(suffix) = &self.suffix {
                    let backup = backup(&path, &to_bytes(suffix));
                    client.copy(path.clone(), backup)?;
                }
                // A name that is in no other's way, as each script has a process.
                let aside = format!(".sed-{}", std::process::id());
                let aside = [dir_of(&path), aside.as_bytes()].concat();
                client.put(aside.clone(), content)?;
                let change = Change {
                    perm: Some(perm),
                    ..Change::default()
                };
                let done = client.set(aside.clone(), change);
                let done = done.and_then(|()| client.rename(aside.clone(), path));
                if done.is_err() {
                    // It was made here, and nobody wants it.
                    let _ = client.remove(aside, false);
                }
                done
            }
            Spot::Tree(path) => {
                let fs = &self.call.context.fs;
                if let Some(suffix) = &self.suffix {
                    let to = backup(&path_bytes(&path), &to_bytes(suffix));
                    let to = crate::shell::names::to_text(&to);
                    let old = fs.read_file(&path).await.map_err(plain)?;
                    fs.write_file(to.as_ref(), &old).await.map_err(plain)?;
                }
                fs.write_file(&path, content).await.map_err(plain)
            }
        }
    }

    /// Passes everything on, at the end.
    pub(super) async fn end(&mut self) -> Outcome<()> {
        self.flush_files().await?;
        self.end_file().await?;
        self.call.out(&std::mem::take(&mut self.out)).await
    }
}

fn is_stream(file: &str) -> bool {
    matches!(file, "/dev/stdout" | "/dev/stderr")
}

/// What a backup is called: the name with the suffix, or the suffix with the
/// name for each `*` in it.
fn backup(path: &[u8], suffix: &[u8]) -> Vec<u8> {
    let dir = dir_of(path);
    let name = &path[dir.len()..];
    if !suffix.contains(&b'*') {
        return [path, suffix].concat();
    }
    let parts: Vec<&[u8]> = suffix.split(|byte| *byte == b'*').collect();
    [dir, &parts.join(name)].concat()
}

/// The part of a path up to its last slash.
fn dir_of(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.map_or(0, |at| at + 1)]
}
