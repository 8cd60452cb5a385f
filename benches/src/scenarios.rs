//! The work that is measured.
//!
//! A scenario has an untimed preparation and a timed run, each either a shell
//! script, timed as a whole process, or a loop of system calls inside this
//! process (its name ends in "(loop)"). Both start in a directory that is
//! empty at first and theirs alone.

mod data;
mod metadata;
mod tools;

use std::io;
use std::path::Path;

use crate::inputs::Inputs;

/// A loop of system calls below a directory.
pub(crate) type Loop = fn(&Path, &Inputs) -> io::Result<()>;

/// One half of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Nothing to do.
    Nothing,
    /// A script for `sh -c`.
    Shell(&'static str),
    /// A loop inside this process.
    Loop(Loop),
}

/// What a scenario needs beside an empty directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// Random contents, new in each round.
    Random,
    /// The repository that is cloned.
    Repository,
    /// The npm project and its warm cache.
    Npm,
}

/// What the kernel's caches hold when the timed run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caches {
    /// What the preparation left in them.
    Warm,
    /// Nothing: they were dropped, which takes root.
    Dropped,
}

/// One row of the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its inputs.
    pub(crate) need: Need,
    /// State of the caches at its start.
    pub(crate) caches: Caches,
    /// Most timed rounds, for work of half a minute and more.
    pub(crate) max_reps: usize,
    /// Before the clock starts.
    pub(crate) prepare: Step,
    /// While it runs.
    pub(crate) run: Step,
}

impl Scenario {
    const fn new(name: &'static str, prepare: Step, run: Step) -> Self {
        Self {
            name,
            need: Need::Nothing,
            caches: Caches::Warm,
            max_reps: usize::MAX,
            prepare,
            run,
        }
    }

    const fn with(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    const fn cold(mut self) -> Self {
        self.caches = Caches::Dropped;
        self
    }

    const fn at_most(mut self, reps: usize) -> Self {
        self.max_reps = reps;
        self
    }
}

/// All scenarios, in the order of the report.
pub(crate) fn all() -> Vec<Scenario> {
    [metadata::all(), data::all(), tools::all()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_tell_loops_from_scripts() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
        for scenario in all() {
            let is_loop = matches!(scenario.run, Step::Loop(_));
            assert_eq!(scenario.name.ends_with("(loop)"), is_loop, "{scenario:?}");
        }
    }

    #[test]
    fn every_loop_works_on_a_plain_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let mut inputs = Inputs::new(scratch.path()).unwrap();
        inputs.refresh().unwrap();
        for (index, scenario) in all().into_iter().enumerate() {
            let dir = scratch.path().join(index.to_string());
            std::fs::create_dir(&dir).unwrap();
            let (Step::Nothing | Step::Loop(_), Step::Loop(run)) = (scenario.prepare, scenario.run)
            else {
                continue;
            };
            if let Step::Loop(prepare) = scenario.prepare {
                prepare(&dir, &inputs).unwrap();
            }
            run(&dir, &inputs).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}
