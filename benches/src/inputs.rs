//! What the scenarios work on, made once per run in memory: random contents, a
//! repository to clone, npm packages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Context as _, Result};
use crate::shell::Shell;

/// Size of the large file of the data scenarios.
pub(crate) const LARGE_BYTES: usize = 64 << 20;

/// Files in the repository that is cloned.
const REPOSITORY_FILES: usize = 500;

/// Popular tools and libraries whose trees come to some 900 packages together.
const PACKAGES: &str = r#"{
  "name": "fsbench-tree",
  "version": "1.0.0",
  "private": true,
  "dependencies": {
    "express": "4.21.2",
    "lodash": "4.17.21",
    "react": "18.3.1",
    "react-dom": "18.3.1"
  },
  "devDependencies": {
    "@babel/core": "7.26.0",
    "@babel/preset-env": "7.26.0",
    "@babel/preset-react": "7.26.3",
    "eslint": "8.57.1",
    "eslint-plugin-react": "7.37.3",
    "jest": "29.7.0",
    "mocha": "10.8.2",
    "prettier": "3.4.2",
    "typescript": "5.7.2",
    "webpack": "5.97.1",
    "webpack-cli": "5.1.4",
    "webpack-dev-server": "5.2.0"
  }
}
"#;

/// The package of the tiny installation.
const TINY_PACKAGE: &str = "is-number@7.0.0";

/// A project with a lock file, and a cache that holds all of its packages.
#[derive(Debug)]
pub(crate) struct NpmFixture {
    /// Directory of `package.json` and `package-lock.json`.
    project: PathBuf,
    /// Directory of the warm cache.
    cache: PathBuf,
}

/// The inputs of a run.
#[derive(Debug)]
pub(crate) struct Inputs {
    dir: TempDir,
    /// Random bytes, new in each round.
    pub(crate) first: Vec<u8>,
    /// Other random bytes, new in each round.
    pub(crate) second: Vec<u8>,
    npm: Option<NpmFixture>,
    state: u64,
}

impl Inputs {
    /// Starts with an empty directory inside `scratch`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn new(scratch: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fsbench-inputs-")
            .tempdir_in(scratch)
            .context(|| format!("make a directory in {}", scratch.display()))?;
        // Contents differ between runs too: a store that keeps equal chunks
        // once must not find them from the last run.
        let clock = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| since.as_secs());
        Ok(Self {
            dir,
            first: Vec::new(),
            second: Vec::new(),
            npm: None,
            state: clock,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Variables for the shell scenarios.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("FIRST", self.path("first").into()),
            ("SECOND", self.path("second").into()),
            ("REPOSITORY", self.path("repository").into()),
            ("TINY_PACKAGE", TINY_PACKAGE.into()),
        ];
        variables.extend(GIT_ENVIRONMENT.map(|(key, value)| (key, value.into())));
        if let Some(npm) = &self.npm {
            variables.push(("NPM_PROJECT", npm.project.clone().into()));
            variables.push(("NPM_CACHE", npm.cache.clone().into()));
        }
        variables
    }

    /// New random contents, in memory and in the files `$FIRST` and `$SECOND`.
    ///
    /// Each round has its own, or a store that deduplicates would be measured
    /// on the first round only.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.first.resize(LARGE_BYTES, 0);
        self.second.resize(LARGE_BYTES, 0);
        fill(&mut self.state, &mut self.first);
        fill(&mut self.state, &mut self.second);
        for (name, bytes) in [("first", &self.first), ("second", &self.second)] {
            fs::write(self.path(name), bytes).context(|| "write random input")?;
        }
        Ok(())
    }

    /// Makes the repository that is cloned.
    ///
    /// # Errors
    /// When git fails.
    pub(crate) fn make_repository(&mut self, shell: &Shell) -> Result<()> {
        let repository = self.path("repository");
        let mut content = vec![0; 4096];
        for index in 0..REPOSITORY_FILES {
            let folder = repository.join(format!("d{:02}", index % 25));
            fs::create_dir_all(&folder).context(|| "make a folder")?;
            fill(&mut self.state, &mut content);
            // Hex digits: text, as sources are, of 200 to 8192 bytes.
            let used = 100 + (index * 97) % (content.len() - 100);
            let text = hex(&content[..used]);
            let file = folder.join(format!("f{index}.txt"));
            fs::write(file, text).context(|| "write a file of the repository")?;
        }
        let script = "git init -q && git add . && git commit -q -m first";
        shell.time(script, &repository, &self.environment())?;
        Ok(())
    }

    /// Makes the npm project, its lock file and a cache that holds all of it.
    /// With `keep`, a directory of an earlier run is used again.
    ///
    /// # Errors
    /// When npm fails, for example without a registry.
    pub(crate) fn make_npm(&mut self, shell: &Shell, keep: Option<&Path>) -> Result<()> {
        let base = keep.map_or_else(|| self.path("npm"), Path::to_owned);
        let (project, cache) = (base.join("project"), base.join("cache"));
        let complete = base.join("complete");
        if !complete.exists() {
            fs::create_dir_all(&project).context(|| "make the npm project")?;
            fs::write(project.join("package.json"), PACKAGES).context(|| "write package.json")?;
            npm(shell, &project, &cache, &["install", "--package-lock-only"])?;
            let (warm, tiny) = (base.join("warm"), base.join("tiny"));
            fs::create_dir_all(&warm).context(|| "make a directory")?;
            fs::create_dir_all(&tiny).context(|| "make a directory")?;
            for file in ["package.json", "package-lock.json"] {
                fs::copy(project.join(file), warm.join(file)).context(|| "copy a file")?;
            }
            npm(shell, &warm, &cache, &["ci"])?;
            npm(shell, &tiny, &cache, &["install", TINY_PACKAGE])?;
            for dir in [warm, tiny] {
                fs::remove_dir_all(dir).context(|| "remove a directory")?;
            }
            fs::write(complete, "").context(|| "mark the npm fixture complete")?;
        }
        self.npm = Some(NpmFixture { project, cache });
        Ok(())
    }
}

/// Makes git independent of the user's configuration.
const GIT_ENVIRONMENT: [(&str, &str); 6] = [
    ("GIT_AUTHOR_NAME", "bench"),
    ("GIT_AUTHOR_EMAIL", "bench@example.org"),
    ("GIT_COMMITTER_NAME", "bench"),
    ("GIT_COMMITTER_EMAIL", "bench@example.org"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
];

fn npm(shell: &Shell, dir: &Path, cache: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new("npm");
    command
        .args(words)
        .args(["--ignore-scripts", "--no-audit", "--no-fund", "--cache"])
        .arg(cache)
        .current_dir(dir);
    shell.run(&mut command)?;
    Ok(())
}

/// Bytes as text, two digits each.
fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Fills `bytes` with random words (splitmix64, by Sebastiano Vigna).
fn fill(state: &mut u64, bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(size_of::<u64>()) {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        piece.copy_from_slice(&word.to_le_bytes()[..piece.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn random_bytes_differ_and_reach_the_end() {
        let (mut first, mut second) = (vec![0; 1021], vec![0; 1021]);
        let mut state = 7;
        fill(&mut state, &mut first);
        fill(&mut state, &mut second);
        assert_ne!(first, second);
        assert!(first[1000..].iter().any(|byte| *byte != 0));
    }
}
