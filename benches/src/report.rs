//! The report: a table for the terminal, a section of Markdown, a JSON file.

#![allow(
    clippy::print_stdout,
    reason = "this module is the program's output; everything else goes to standard error"
)]

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::error::{Context as _, Result};
use crate::runner::{Outcome, Row};
use crate::stats::{Summary, milliseconds};

/// Pairs of targets whose ratio is a column, when both are there. Besides
/// these, every target is compared with tmpfs and ext4.
const BASES: [&str; 2] = ["tmpfs", "ext4"];
const PAIR: (&str, &str) = ("cairn", "ceiling");

/// Where and how a run was made.
#[derive(Debug)]
pub(crate) struct Circumstances {
    date: String,
    kernel: String,
    processor: String,
    cores: usize,
    /// Load average of the minute before the run.
    load: String,
    command: String,
}

impl Circumstances {
    /// Asks the system.
    pub(crate) fn gather() -> Self {
        let words: Vec<String> = std::env::args_os()
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        Self {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            kernel: output("uname", &["-r"]),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            load: load(),
            command: words.join(" "),
        }
    }
}

fn output(program: &str, words: &[&str]) -> String {
    Command::new(program)
        .args(words)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// A word as a shell would have to be given it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The results of a run and how to show them.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// Names of the targets, in the order of the outcomes.
    pub(crate) targets: &'a [String],
    /// The measured rows.
    pub(crate) rows: &'a [Row],
    /// Where and how.
    pub(crate) circumstances: &'a Circumstances,
}

impl Report<'_> {
    /// Pairs of places in `targets` whose ratio is shown, with the heading.
    fn ratios(&self) -> Vec<(usize, usize, String)> {
        let place = |name: &str| self.targets.iter().position(|target| target == name);
        let mut pairs = Vec::new();
        for (own, name) in self.targets.iter().enumerate() {
            for base in BASES {
                // One comparison of the two bases is enough.
                if name != base
                    && name != BASES[0]
                    && let Some(at) = place(base)
                {
                    pairs.push((own, at, format!("{name}/{base}")));
                }
            }
        }
        if let (Some(own), Some(at)) = (place(PAIR.0), place(PAIR.1)) {
            pairs.push((own, at, format!("{}/{}", PAIR.0, PAIR.1)));
        }
        pairs
    }

    /// The table as cells, headings first.
    fn cells(&self) -> Vec<Vec<String>> {
        let ratios = self.ratios();
        let mut heading = vec!["scenario (ms)".to_owned()];
        heading.extend(self.targets.iter().cloned());
        heading.extend(ratios.iter().map(|(_, _, name)| name.clone()));
        let mut table = vec![heading];
        for row in self.rows {
            let summaries: Vec<_> = row.outcomes.iter().map(summary).collect();
            let mut line = vec![row.name.to_owned()];
            line.extend(row.outcomes.iter().map(cell));
            line.extend(ratios.iter().map(|(own, base, _)| {
                match (summaries[*own], summaries[*base]) {
                    (Some(own), Some(base)) => number(own.ratio(&base)),
                    _ => "-".to_owned(),
                }
            }));
            table.push(line);
        }
        table
    }

    /// Prints the table and the failures.
    pub(crate) fn print(&self) {
        let table = self.cells();
        let width = widths(&table);
        for line in &table {
            println!("{}", aligned(line, &width, "  "));
        }
        for failure in self.failures() {
            println!("{failure}");
        }
    }

    /// One line for each failed outcome.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for row in self.rows {
            for (target, outcome) in self.targets.iter().zip(&row.outcomes) {
                if let Outcome::Failed(error) = outcome {
                    lines.push(format!("FAILED {} on {target}: {error}", row.name));
                }
            }
        }
        lines
    }

    /// Appends a section to a Markdown file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn append_markdown(&self, path: &Path) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .context(|| format!("open {}", path.display()))?;
        file.write_all(self.markdown().as_bytes())
            .context(|| format!("write {}", path.display()))
    }

    fn markdown(&self) -> String {
        let about = self.circumstances;
        let table = self.cells();
        let width = widths(&table);
        let mut text = format!(
            "\n## {}\n\nLinux {}, {}, {} cores, load {} before.\n\n```sh\n{}\n```\n\n\
             Median (shortest to longest) in milliseconds.\n\n",
            about.date, about.kernel, about.processor, about.cores, about.load, about.command
        );
        for (index, line) in table.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} |", aligned(line, &width, " | "));
            if index == 0 {
                let mut rule: Vec<String> = width.iter().map(|w| "-".repeat(w - 1) + ":").collect();
                rule[0] = "-".repeat(width[0]);
                let _ = writeln!(text, "| {} |", rule.join(" | "));
            }
        }
        for failure in self.failures() {
            let _ = write!(text, "\n- {failure}");
        }
        text.push('\n');
        text
    }

    /// Writes everything, with every single time, as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let about = self.circumstances;
        let document = json!({
            "date": about.date,
            "kernel": about.kernel,
            "processor": about.processor,
            "cores": about.cores,
            "load": about.load,
            "command": about.command,
            "targets": self.targets,
            "scenarios": self.rows.iter().map(|row| self.json_row(row)).collect::<Vec<_>>(),
        });
        fs::write(path, format!("{document:#}\n")).context(|| format!("write {}", path.display()))
    }

    fn json_row(&self, row: &Row) -> Value {
        let results: serde_json::Map<String, Value> = self
            .targets
            .iter()
            .cloned()
            .zip(row.outcomes.iter().map(json_outcome))
            .collect();
        json!({ "name": row.name, "results": results })
    }
}

fn summary(outcome: &Outcome) -> Option<Summary> {
    match outcome {
        Outcome::Measured(times) => Summary::of(times),
        _ => None,
    }
}

fn json_outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Failed(error) => json!({ "failed": error }),
        Outcome::Skipped(reason) => json!({ "skipped": reason }),
        Outcome::Measured(times) => {
            let all: Vec<f64> = times.iter().copied().map(milliseconds).collect();
            Summary::of(times).map_or(Value::Null, |summary| {
                json!({
                    "times_ms": all,
                    "median_ms": milliseconds(summary.median),
                    "min_ms": milliseconds(summary.min),
                    "max_ms": milliseconds(summary.max),
                })
            })
        }
    }
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(_) => "FAILED".to_owned(),
        Outcome::Skipped(reason) => (*reason).to_owned(),
        Outcome::Measured(times) => Summary::of(times).map_or_else(
            || "-".to_owned(),
            |summary| {
                let [median, min, max] = [summary.median, summary.min, summary.max]
                    .map(milliseconds)
                    .map(number);
                format!("{median} ({min}-{max})")
            },
        ),
    }
}

/// Three significant digits where there is a fraction.
fn number(value: f64) -> String {
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn widths(table: &[Vec<String>]) -> Vec<usize> {
    let columns = table.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| {
            table
                .iter()
                .map(|line| line[column].len())
                .max()
                .unwrap_or(0)
        })
        .collect()
}

/// The first column to the left, the others to the right.
fn aligned(line: &[String], width: &[usize], separator: &str) -> String {
    let cells: Vec<String> = line
        .iter()
        .zip(width)
        .enumerate()
        .map(|(column, (text, width))| {
            if column == 0 {
                format!("{text:width$}")
            } else {
                format!("{text:>width$}")
            }
        })
        .collect();
    cells.join(separator)
}

/// One line of progress, on standard error.
pub(crate) fn progress(targets: &[String], row: &Row) {
    let cells: Vec<String> = targets
        .iter()
        .zip(&row.outcomes)
        .map(|(target, outcome)| format!("{target} {}", cell(outcome)))
        .collect();
    eprintln!("{}: {}", row.name, cells.join(", "));
}

/// Prints the names of scenarios.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) {
    for name in names {
        println!("{name}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("--only"), "--only");
        assert_eq!(quoted("it's 64 MiB"), r"'it'\''s 64 MiB'");
    }

    #[test]
    fn a_table_has_ratios_and_failures() {
        let times = |ms| Outcome::Measured(vec![Duration::from_millis(ms)]);
        let rows = [
            Row {
                name: "work",
                outcomes: vec![times(10), times(20), times(50)],
            },
            Row {
                name: "more",
                outcomes: vec![times(10), Outcome::Failed("no".into()), times(5)],
            },
        ];
        let targets = ["tmpfs", "ext4", "ceiling"].map(str::to_owned);
        let circumstances = Circumstances {
            date: String::new(),
            kernel: String::new(),
            processor: String::new(),
            cores: 2,
            load: String::new(),
            command: String::new(),
        };
        let report = Report {
            targets: &targets,
            rows: &rows,
            circumstances: &circumstances,
        };
        let table = report.cells();
        let ratios = ["ext4/tmpfs", "ceiling/tmpfs", "ceiling/ext4"];
        assert_eq!(table[0][4..], ratios);
        assert_eq!(table[1][4..], ["2.00", "5.00", "2.50"]);
        assert_eq!(
            table[2][2..],
            ["FAILED", "5.00 (5.00-5.00)", "-", "0.50", "-"]
        );
        assert_eq!(report.failures(), ["FAILED more on ext4: no"]);
    }
}
