//! The only place that prints: the terminal of the person or the pipe of the
//! program that started this one.
#![allow(
    clippy::print_stderr,
    reason = "this module is where the program speaks"
)]

use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::{Console, Progress};
use crate::failure::{Failure, Result};
use crate::text;

/// Output gathered before it is written.
const BUFFER_BYTES: usize = 64 << 10;
/// How often a bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Standard input, output and error of this process.
pub(crate) struct Terminal {
    out: BufWriter<io::StdoutLock<'static>>,
    bar: Option<ProgressBar>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()),
            bar: None,
        }
    }

    /// Ends the output: everything is written, the bar goes.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.out.flush().map_err(output)
    }

    /// Whether a person sees the progress.
    pub(crate) fn is_attended() -> bool {
        io::stderr().is_terminal()
    }
}

impl Console for Terminal {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(output)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(output)
    }

    fn error(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.flush().map_err(output)?;
        // Nobody to tell it to is no reason to fail.
        let _ = io::stderr().lock().write_all(bytes);
        Ok(())
    }

    fn note(&mut self, line: &str) -> Result<()> {
        self.out.flush().map_err(output)?;
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
        Ok(())
    }

    fn progress(&mut self, at: &Progress) -> Result<()> {
        if !Self::is_attended() {
            return Ok(());
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(at.total_bytes));
        if let Some(total) = at.total_bytes {
            bar.set_length(total);
        }
        bar.set_position(at.bytes);
        if at.files > 0 {
            bar.set_message(text::count(at.files, "entry", "entries"));
        }
        Ok(())
    }

    fn input(&mut self, buf: &mut [u8]) -> Result<usize> {
        io::stdin()
            .lock()
            .read(buf)
            .map_err(Failure::io("cannot read the standard input"))
    }
}

fn output(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::io("cannot write to the standard output")(error),
    }
}

fn new_bar(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        None => "{spinner} {bytes} {bytes_per_sec} {msg}",
    };
    let bar = ProgressBar::new(total.unwrap_or(0));
    bar.set_style(style(template));
    bar.enable_steady_tick(REDRAW);
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Says something to the person, on the standard error.
pub(crate) fn say(line: &str) {
    // Nobody to tell it to is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says why the program failed.
pub(crate) fn say_failure(failure: &Failure) {
    if !failure.is_known() {
        say(&format!("cairn: {}", failure.report()));
    }
}

/// A line at the bottom of the terminal that changes in place.
#[derive(Debug)]
pub(crate) struct StatusLine(Option<ProgressBar>);

impl StatusLine {
    /// A line, if the standard error is a terminal and so a person may see it.
    pub(crate) fn new(wanted: bool) -> Self {
        let shown = wanted && io::stderr().is_terminal();
        Self(shown.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(style("{msg}"));
            bar
        }))
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Shows another text.
    pub(crate) fn set(&self, text: String) {
        if let Some(bar) = &self.0 {
            bar.set_message(text);
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
