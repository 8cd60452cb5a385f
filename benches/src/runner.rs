//! Runs scenarios on targets, in turn.
//!
//! A machine is not the same from one minute to the next. So targets alternate
//! within a scenario, each round begins with another one, and what the last
//! measurement left to be written is flushed before the next begins. One
//! warm-up round is run and thrown away.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context as _, Result};
use crate::inputs::Inputs;
use crate::scenarios::{Caches, Need, Scenario, Step};
use crate::shell::Shell;
use crate::targets::Target;

/// Writing 3 here drops clean pages, dentries and inodes.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// What one target did with one scenario.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The time of each round.
    Measured(Vec<Duration>),
    /// Why it was given up.
    Failed(String),
    /// Why it was not tried.
    Skipped(&'static str),
}

/// One row of the report: an outcome per target, in the targets' order.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The scenario's name.
    pub(crate) name: &'static str,
    /// What each target did.
    pub(crate) outcomes: Vec<Outcome>,
}

/// How often, and on what.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    /// Runs scripts and knows of signals.
    pub(crate) shell: &'a Shell,
    /// The filesystems under test.
    pub(crate) targets: &'a [Target],
    /// Timed rounds.
    pub(crate) reps: usize,
    /// Directory of an earlier run's npm fixture, or for the next one.
    pub(crate) npm_dir: Option<PathBuf>,
}

impl Runner<'_> {
    /// Runs all `scenarios` and calls `report` after each. A signal ends the
    /// run early and keeps the rows so far.
    pub(crate) fn run(
        &self,
        scenarios: &[Scenario],
        inputs: &mut Inputs,
        mut report: impl FnMut(&Row),
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut fixtures = HashMap::new();
        for (index, scenario) in scenarios.iter().enumerate() {
            let fixture = fixtures
                .entry(scenario.need as u8)
                .or_insert_with(|| self.fixture(scenario.need, inputs))
                .clone();
            if self.shell.check().is_err() {
                break;
            }
            let all = |outcome: Outcome| vec![outcome; self.targets.len()];
            let outcomes = match fixture {
                Err(error) => all(Outcome::Failed(error)),
                Ok(()) if scenario.caches == Caches::Dropped && !can_drop_caches() => {
                    all(Outcome::Skipped("needs root"))
                }
                Ok(()) => match self.measure(index, scenario, inputs) {
                    Ok(outcomes) => outcomes,
                    Err(_) => break,
                },
            };
            let row = Row {
                name: scenario.name,
                outcomes,
            };
            report(&row);
            rows.push(row);
        }
        rows
    }

    /// Makes what scenarios of this need share.
    fn fixture(&self, need: Need, inputs: &mut Inputs) -> std::result::Result<(), String> {
        match need {
            Need::Nothing | Need::Random => Ok(()),
            Need::Repository => inputs.make_repository(self.shell),
            Need::Npm => inputs.make_npm(self.shell, self.npm_dir.as_deref()),
        }
        .map_err(|error| format!("preparation: {error}"))
    }

    /// Runs all rounds of one scenario on all targets.
    ///
    /// # Errors
    /// `Interrupted` only; every other failure is an outcome.
    fn measure(
        &self,
        index: usize,
        scenario: &Scenario,
        inputs: &mut Inputs,
    ) -> Result<Vec<Outcome>> {
        let count = self.targets.len();
        let mut outcomes = vec![Outcome::Measured(Vec::new()); count];
        // Round 0 is the warm-up.
        for round in 0..=self.reps.min(scenario.max_reps) {
            let refreshed = match scenario.need {
                Need::Random => inputs.refresh(),
                _ => Ok(()),
            };
            for turn in 0..count {
                let place = (turn + round) % count;
                let Outcome::Measured(times) = &mut outcomes[place] else {
                    continue;
                };
                let dir = self.targets[place]
                    .root
                    .join(format!("s{index:02}-r{round}"));
                let once = refreshed
                    .as_ref()
                    .map_err(ToString::to_string)
                    .and_then(|()| {
                        self.once(scenario, inputs, &dir)
                            .map_err(|error| error.to_string())
                    });
                self.shell.check()?;
                match once {
                    Ok(time) if round > 0 => times.push(time),
                    Ok(_) => {}
                    Err(error) => outcomes[place] = Outcome::Failed(error),
                }
            }
        }
        Ok(outcomes)
    }

    /// One measurement in a fresh directory, which is removed afterwards.
    fn once(&self, scenario: &Scenario, inputs: &Inputs, dir: &Path) -> Result<Duration> {
        self.settle();
        fs::create_dir(dir).context(|| "make the scenario's directory")?;
        let timed = self
            .step(scenario.prepare, inputs, dir)
            .and_then(|_| match scenario.caches {
                Caches::Warm => Ok(()),
                Caches::Dropped => self.drop_caches(),
            })
            .and_then(|()| self.step(scenario.run, inputs, dir));
        let removed = fs::remove_dir_all(dir).context(|| "remove the scenario's directory");
        let time = timed?;
        removed?;
        Ok(time)
    }

    fn step(&self, step: Step, inputs: &Inputs, dir: &Path) -> Result<Duration> {
        match step {
            Step::Nothing => Ok(Duration::ZERO),
            Step::Shell(script) => self.shell.time(script, dir, &inputs.environment()),
            Step::Loop(work) => {
                let start = Instant::now();
                work(dir, inputs).context(|| "loop")?;
                Ok(start.elapsed())
            }
        }
    }

    /// Flushes what earlier measurements left, in every target's own way.
    fn settle(&self) {
        for target in self.targets {
            if let Ok(root) = fs::File::open(&target.root) {
                // A filesystem that cannot sync a directory has its own way.
                let _ = root.sync_all();
            }
        }
        rustix::fs::sync();
    }

    fn drop_caches(&self) -> Result<()> {
        self.settle();
        fs::write(DROP_CACHES, "3").context(|| "drop caches")
    }
}

fn can_drop_caches() -> bool {
    rustix::process::geteuid().is_root() && Path::new(DROP_CACHES).exists()
}
