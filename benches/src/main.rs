//! `fsbench`: the same work on several filesystems, in one run.
//!
//! Prints the median time of each scenario on each target and the ratios
//! between them. `README.md` beside this crate says what the rows mean.

mod affinity;
mod cairn;
mod ceiling;
mod error;
mod inputs;
mod mapped;
mod report;
mod runner;
mod scenarios;
mod shell;
mod stats;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::affinity::Affinity;
use crate::cairn::Cairn;
use crate::ceiling::ServeArgs;
use crate::error::{BenchError, Result};
use crate::inputs::Inputs;
use crate::report::{Circumstances, Report};
use crate::runner::Runner;
use crate::scenarios::{Need, Scenario};
use crate::shell::Shell;
use crate::targets::{Kind, Makers, NamedDir, Target, plain};

/// Measures the same work on several filesystems.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Internal>,
    #[command(flatten)]
    bench: Bench,
}

/// What the program runs as a process of its own.
#[derive(Debug, Subcommand)]
enum Internal {
    /// Mount the in-memory FUSE filesystem and serve it until it is unmounted
    ServeCeiling(ServeArgs),
}

/// A run.
#[derive(Debug, Args)]
struct Bench {
    /// Targets, in the order of the columns [default: tmpfs,ext4,ceiling, and
    /// cairn when --cairn is given]
    #[arg(long, value_enum, value_delimiter = ',')]
    targets: Option<Vec<Kind>>,
    /// A directory on another filesystem to measure (repeatable)
    #[arg(long = "dir", value_name = "NAME=PATH")]
    dirs: Vec<NamedDir>,
    /// The program under test, for the target cairn
    #[arg(long, value_name = "BINARY")]
    cairn: Option<PathBuf>,
    /// A further word for its mount command (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cairn_arg: Vec<String>,
    /// Directory on the local disk for ext4 and for the replica of cairn
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    disk: PathBuf,
    /// Directory on tmpfs, also for the inputs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
    /// Timed rounds of each scenario, after one warm-up round
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Only scenarios whose name contains one of these (repeatable)
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// No scenarios whose name contains one of these (repeatable)
    #[arg(long, value_name = "PATTERN")]
    skip: Vec<String>,
    /// Leave the npm scenarios out
    #[arg(long)]
    skip_npm: bool,
    /// Keep the npm lock file and cache here and use them again
    #[arg(long, value_name = "DIR")]
    npm_dir: Option<PathBuf>,
    /// Seconds until a command is killed and its row has failed
    #[arg(long, default_value_t = 900)]
    timeout: u64,
    /// Pin the work to this processor
    #[arg(long, value_name = "CPU")]
    pin_work: Option<usize>,
    /// Pin the FUSE daemons to this processor
    #[arg(long, value_name = "CPU")]
    pin_daemon: Option<usize>,
    /// Threads of the ceiling filesystem
    #[arg(long, default_value_t = 1)]
    ceiling_threads: usize,
    /// Let the ceiling answer ENOSYS to attribute requests
    #[arg(long)]
    ceiling_no_xattr: bool,
    /// Write all times as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Append a section with the table
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Print the names of the selected scenarios and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Internal::ServeCeiling(args)) => ceiling::serve(args).map(|()| true),
        None => cli.bench.run(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fsbench: {error}");
            match error {
                BenchError::Interrupted => ExitCode::from(130),
                BenchError::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

impl Bench {
    /// Runs everything and says whether all of it succeeded.
    fn run(&self) -> Result<bool> {
        let scenarios = self.scenarios();
        if self.list {
            report::list(scenarios.iter().map(|scenario| scenario.name));
            return Ok(true);
        }
        if scenarios.is_empty() {
            return Err(BenchError::Usage("no scenario has such a name".into()));
        }
        let shell = Shell::new(Duration::from_secs(self.timeout))?;
        let affinity = Affinity::apply(self.pin_work, self.pin_daemon)?;
        let targets = self.make_targets(&shell, &affinity)?;
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        let mut inputs = Inputs::new(&self.memory)?;
        let circumstances = Circumstances::gather();

        let runner = Runner {
            shell: &shell,
            targets: &targets,
            reps: self.reps.max(1),
            npm_dir: self.npm_dir.clone(),
        };
        let rows = runner.run(&scenarios, &mut inputs, |row| {
            report::progress(&names, row);
        });
        let report = Report {
            targets: &names,
            rows: &rows,
            circumstances: &circumstances,
        };
        report.print();
        shell.check()?;
        if let Some(path) = &self.json {
            report.write_json(path)?;
        }
        if let Some(path) = &self.markdown {
            report.append_markdown(path)?;
        }
        Ok(report.failures().is_empty())
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let named = |scenario: &Scenario, patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| scenario.name.contains(pattern.as_str()))
        };
        let mut scenarios = scenarios::all();
        scenarios.retain(|scenario| {
            (self.only.is_empty() || named(scenario, &self.only))
                && !named(scenario, &self.skip)
                && !(self.skip_npm && scenario.need == Need::Npm)
        });
        scenarios
    }

    fn make_targets(&self, shell: &Shell, affinity: &Affinity) -> Result<Vec<Target>> {
        let kinds = self.targets.clone().unwrap_or_else(|| {
            let mut kinds = vec![Kind::Tmpfs, Kind::Ext4, Kind::Ceiling];
            kinds.extend(self.cairn.as_ref().map(|_| Kind::Cairn));
            kinds
        });
        let mut ceiling = vec![format!("--threads={}", self.ceiling_threads)];
        if self.ceiling_no_xattr {
            ceiling.push("--no-xattr".into());
        }
        let makers = Makers {
            shell,
            memory: &self.memory,
            disk: &self.disk,
            affinity,
            ceiling,
            cairn: self
                .cairn
                .as_deref()
                .map(absolute)
                .map(|binary| Cairn::new(binary, self.cairn_arg.clone())),
        };
        let mut targets = Vec::new();
        for kind in kinds {
            targets.push(makers.make(kind)?);
        }
        for dir in &self.dirs {
            targets.push(plain(dir.name.clone(), &dir.path)?);
        }
        Ok(targets)
    }
}

/// A program given by a path is found from any directory, one given by a name
/// on the search path.
fn absolute(program: &Path) -> PathBuf {
    program
        .canonicalize()
        .unwrap_or_else(|_| program.to_owned())
}
