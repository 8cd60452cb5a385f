//! Searching a tree: by name, and by content.

use std::io::{BufRead, BufReader};

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};

use crate::attr::Attr;
use crate::handle::File;
use crate::replica::Replica;
use crate::{FsError, NodeKind, Result};

/// What a search by name found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Its attributes; those of the link itself for a symbolic link.
    pub attr: Attr,
}

/// Walks the tree below a directory, depth first, each directory's entries in
/// the order of their bytes. Symbolic links are not followed.
///
/// A directory's entries are read when the walk gets there: memory holds those
/// of the directories on the way down, and what changes meanwhile may be seen
/// or not.
#[derive(Debug)]
pub struct Walk {
    replica: Replica,
    /// What is still to come, the next last.
    todo: Vec<Found>,
    /// A directory whose entries come next.
    open: Option<Found>,
    /// Part of each path that patterns do not see.
    prefix: usize,
    pattern: Option<GlobMatcher>,
}

impl Walk {
    fn fill(&mut self, dir: &Found) -> Result<()> {
        let start = self.todo.len();
        let root = dir.path == b"/";
        self.replica.read_dir(dir.attr.ino, 0, &mut |entry| {
            let mut path = Vec::with_capacity(dir.path.len() + 1 + entry.name.len());
            if !root {
                path.extend_from_slice(&dir.path);
            }
            path.push(b'/');
            path.extend_from_slice(entry.name);
            self.todo.push(Found {
                path,
                attr: *entry.attr,
            });
            true
        })?;
        self.todo[start..].sort_unstable_by(|a, b| b.path.cmp(&a.path));
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(dir) = self.open.take() {
                match self.fill(&dir) {
                    // It went away meanwhile, or became something else.
                    Ok(()) | Err(FsError::NotFound(_) | FsError::NotDir(_)) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
            let found = self.todo.pop()?;
            if found.attr.kind == NodeKind::Dir {
                self.open = Some(found.clone());
            }
            let relative = &found.path[self.prefix..];
            if self
                .pattern
                .as_ref()
                .is_none_or(|p| p.is_match(as_path(relative)))
            {
                return Some(Ok(found));
            }
        }
    }
}

fn as_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// What [`Replica::grep`] looks for, and where.
#[derive(Clone, Debug)]
pub struct GrepOptions {
    /// The pattern is a regular expression of the crate `regex`; otherwise it
    /// is the text itself. Default `false`.
    pub regex: bool,
    /// Letters match in either case. Default `false`.
    pub ignore_case: bool,
    /// Only files whose path below the directory matches this pattern, as in
    /// [`Replica::find`]. Default: all.
    pub include: Option<String>,
    /// The search ends after this many lines. Default: none.
    pub limit: usize,
}

impl Default for GrepOptions {
    fn default() -> Self {
        Self {
            regex: false,
            ignore_case: false,
            include: None,
            limit: usize::MAX,
        }
    }
}

/// A line that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file's absolute path.
    pub path: Vec<u8>,
    /// Number of the line, from 1.
    pub number: u64,
    /// The line without its end; at most 64 KiB of it.
    pub text: Vec<u8>,
}

/// Longer lines are searched, and shown, in pieces of this size.
const LINE_MAX: u64 = 64 << 10;
/// A file with a NUL in its first bytes is not text, as git and grep have it.
const PROBE: usize = 8_000;

impl Replica {
    /// Everything below a directory; see [`Walk`].
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotDir`].
    pub fn walk_dir(&self, dir: impl AsRef<[u8]>) -> Result<Walk> {
        self.walk_matching(dir.as_ref(), None)
    }

    /// What lies below `dir` and whose path from there matches `glob`: `*` and
    /// `?` stay within a component, `**` crosses them, and there are `[a-z]`
    /// and `{one,other}`.
    ///
    /// # Errors
    ///
    /// [`FsError::NotFound`], [`FsError::NotDir`], and [`FsError::Invalid`]
    /// for a pattern that is none.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::Replica;
    /// let replica = Replica::in_memory()?;
    /// replica.mkdir_all("/project/src/bin")?;
    /// replica.write_file("/project/src/bin/main.rs", b"fn main() {}")?;
    /// let found = replica.find("/project", "**/*.rs")?.next().unwrap()?;
    /// assert_eq!(found.path, b"/project/src/bin/main.rs");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(&self, dir: impl AsRef<[u8]>, glob: &str) -> Result<Walk> {
        let pattern = GlobBuilder::new(glob)
            .literal_separator(true)
            .build()
            .map_err(|_| FsError::Invalid("the pattern of a search by name is malformed"))?;
        self.walk_matching(dir.as_ref(), Some(pattern.compile_matcher()))
    }

    fn walk_matching(&self, dir: &[u8], pattern: Option<GlobMatcher>) -> Result<Walk> {
        let attr = self.stat(dir)?;
        if attr.kind != NodeKind::Dir {
            return Err(FsError::NotDir(crate::path::show(dir)));
        }
        let mut path = b"/".to_vec();
        let parts = dir.split(|b| *b == b'/').filter(|p| !p.is_empty());
        path.extend_from_slice(&parts.collect::<Vec<_>>().join(&b'/'));
        let prefix = if path.len() == 1 { 1 } else { path.len() + 1 };
        Ok(Walk {
            replica: self.clone(),
            todo: Vec::new(),
            open: Some(Found { path, attr }),
            prefix,
            pattern,
        })
    }

    /// Calls `each` with every line below `dir` that matches, file by file in
    /// the order of [`Walk`], until it returns `false`. Binary files are left
    /// out. Files are read as streams.
    ///
    /// # Errors
    ///
    /// As [`Self::find`]; [`FsError::Invalid`] for a malformed expression.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::{GrepOptions, Replica};
    /// let replica = Replica::in_memory()?;
    /// replica.write_file("/notes", b"one\ntwo TODO\n")?;
    /// let mut lines = Vec::new();
    /// replica.grep("/", "todo", &GrepOptions { ignore_case: true, ..GrepOptions::default() }, |line| {
    ///     lines.push(line.number);
    ///     true
    /// })?;
    /// assert_eq!(lines, [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grep(
        &self,
        dir: impl AsRef<[u8]>,
        pattern: &str,
        options: &GrepOptions,
        mut each: impl FnMut(Line) -> bool,
    ) -> Result<()> {
        let pattern = if options.regex {
            pattern.to_owned()
        } else {
            regex::escape(pattern)
        };
        let regex = RegexBuilder::new(&pattern)
            .case_insensitive(options.ignore_case)
            .build()
            .map_err(|_| FsError::Invalid("the regular expression is malformed or too large"))?;
        let mut left = options.limit;
        let walk = self.find(dir, options.include.as_deref().unwrap_or("**"))?;
        for found in walk {
            let found = found?;
            if found.attr.kind == NodeKind::File
                && !self.grep_file(&found, &regex, &mut left, &mut each)?
            {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether to go on.
    fn grep_file(
        &self,
        found: &Found,
        regex: &Regex,
        left: &mut usize,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<bool> {
        let file = match File::open_ino(self, found.attr.ino) {
            Err(FsError::NotFound(_)) => return Ok(true),
            other => other?,
        };
        let mut reader = BufReader::with_capacity(crate::ranges::index(LINE_MAX), file);
        let failed = |error: std::io::Error| {
            let or = |source| FsError::io("reading a file to search it", source);
            error.downcast::<FsError>().unwrap_or_else(or)
        };
        let first = reader.fill_buf().map_err(failed)?;
        if first[..first.len().min(PROBE)].contains(&0) {
            return Ok(true);
        }
        let (mut number, mut text, mut whole) = (0, Vec::new(), true);
        loop {
            if *left == 0 {
                return Ok(false);
            }
            text.clear();
            let piece = std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut text);
            if piece.map_err(failed)? == 0 {
                return Ok(true);
            }
            number += u64::from(whole);
            whole = text.last() == Some(&b'\n');
            if whole {
                text.pop();
            }
            if regex.is_match(&text) {
                *left -= 1;
                let line = Line {
                    path: found.path.clone(),
                    number,
                    text: text.clone(),
                };
                if !each(line) {
                    return Ok(false);
                }
            }
        }
    }
}
