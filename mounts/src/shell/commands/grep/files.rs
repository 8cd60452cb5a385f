//! The files that are searched, one after the other.

use std::collections::{HashMap, VecDeque};
use std::io;

use cairn_protocol::NodeKind;

use super::super::call::{Call, Outcome, Spot, is_dir, is_link, reason};
use super::super::source::Source;
use super::TROUBLE;
use super::given::{Dirs, Wanted};
use super::matcher::{Matcher, Syntax};
use super::search::{Search, Step};
use super::style::{List, Style};
use crate::shell::names::{to_bytes, to_text};
use crate::shell::wire::Node;

/// Directories below each other that are looked into.
const DEPTH_MAX: usize = 1_000;

/// Largest file that is read together with others.
const SMALL: u64 = 64 << 10;
/// Bytes that are read together at most.
const TOGETHER: u64 = 512 << 10;
/// Files that are read together at most.
const TOGETHER_FILES: usize = 128;
/// Bytes of their paths, which one message has to hold.
const PATHS: usize = 256 << 10;

/// All that is searched by one call.
pub(super) struct Files<'a> {
    call: &'a Call<'a>,
    wanted: &'a Wanted,
    matcher: &'a Matcher,
    style: Style,
    /// A line was selected.
    any: bool,
    failed: bool,
    /// Something was printed.
    used: bool,
}

/// A directory that is looked into, and what of it is left.
struct Level {
    spot: Spot,
    shown: String,
    ino: u64,
    left: VecDeque<(Vec<u8>, Node)>,
    /// Contents that were read ahead.
    loaded: HashMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Files<'a> {
    pub(super) fn new(call: &'a Call<'a>, wanted: &'a Wanted, matcher: &'a Matcher) -> Self {
        let mut style = wanted.style.clone();
        style.names = wanted.names.unwrap_or(wanted.operands.len() > 1);
        Self {
            call,
            wanted,
            matcher,
            style,
            any: false,
            failed: false,
            used: false,
        }
    }

    /// The exit status.
    pub(super) fn status(&self) -> i32 {
        if self.failed && !(self.style.quiet && self.any) {
            return TROUBLE;
        }
        i32::from(!self.any)
    }

    fn recurses(&self) -> bool {
        matches!(self.wanted.dirs, Dirs::Recurse | Dirs::Follow)
    }

    fn is_done(&self) -> bool {
        self.style.quiet && self.any
    }

    /// Searches all that was named.
    pub(super) async fn all(&mut self) -> Outcome<()> {
        if self.wanted.operands.is_empty() {
            if self.recurses() {
                let found = self.call.find(".", true).await;
                return match found {
                    Ok(spot) => self.tree(spot, String::new()).await,
                    Err(error) => self.wrong(".", &error).await,
                };
            }
            return self.operand("-").await;
        }
        let wanted = self.wanted;
        for operand in &wanted.operands {
            self.operand(operand).await?;
            if self.is_done() {
                break;
            }
        }
        Ok(())
    }

    async fn operand(&mut self, operand: &str) -> Outcome<()> {
        if operand == "-" {
            let source = Source::open(self.call, "-").await;
            let label = self.wanted.label.as_bytes();
            return self.source(source, label, "-").await;
        }
        let spot = match self.call.find(operand, true).await {
            Ok(spot) => spot,
            Err(error) => return self.wrong(operand, &error).await,
        };
        let is_dir = self
            .call
            .look_at(&spot)
            .await
            .is_ok_and(|node| is_dir(&node));
        let globs = if is_dir {
            &self.wanted.inside
        } else {
            &self.wanted.files
        };
        if globs.leaves_out(operand.trim_end_matches('/'), true) {
            return Ok(());
        }
        match (is_dir, self.wanted.dirs) {
            (true, Dirs::Skip) => Ok(()),
            (true, Dirs::Recurse | Dirs::Follow) => self.tree(spot, operand.to_owned()).await,
            _ => {
                let source = match spot {
                    Spot::Store(_) => Source::at(self.call, spot).await,
                    Spot::Tree(_) => Source::open(self.call, operand).await,
                };
                self.source(source, &to_bytes(operand), operand).await
            }
        }
    }

    /// Says what is wrong with a file.
    async fn wrong(&mut self, file: &str, error: &io::Error) -> Outcome<()> {
        self.failed = true;
        if self.wanted.silent {
            return Ok(());
        }
        self.call
            .complain(&format!("{file}: {}", reason(error)))
            .await
    }

    /// Searches all files below a directory, in the order of their names.
    async fn tree(&mut self, spot: Spot, shown: String) -> Outcome<()> {
        if self.wanted.names.is_none() {
            self.style.names = true;
        }
        let mut levels = Vec::new();
        self.enter(&mut levels, spot, shown, 0).await?;
        while let Some(level) = levels.last_mut() {
            let Some((name, node)) = level.left.pop_front() else {
                levels.pop();
                continue;
            };
            let text = to_text(&name);
            let shown = match level.shown.as_str() {
                "" => text.clone(),
                above => format!("{}/{text}", above.trim_end_matches('/')),
            };
            let spot = level.spot.join(&name);
            let loaded = self.load(level, &name, &node);
            let Some((spot, node)) = self.reached(spot, node, &shown).await? else {
                continue;
            };
            if is_dir(&node) {
                if !self.wanted.inside.leaves_out(&text, false) {
                    self.enter(&mut levels, spot, shown, node.ino).await?;
                }
            } else if node.kind == NodeKind::File && !self.wanted.files.leaves_out(&text, false) {
                let source = match loaded {
                    Some(bytes) => Ok(Source::Memory(bytes, 0)),
                    None => Source::at(self.call, spot).await,
                };
                self.source(source, &to_bytes(&shown), &shown).await?;
                if self.is_done() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The content of a small file, which is read with those that come next.
    fn load(&self, level: &mut Level, name: &[u8], node: &Node) -> Option<Vec<u8>> {
        if let Some(bytes) = level.loaded.remove(name) {
            return Some(bytes);
        }
        let wanted = |name: &[u8], node: &Node| {
            let is_small = node.kind == NodeKind::File && node.size <= SMALL;
            is_small && !self.wanted.files.leaves_out(&to_text(name), false)
        };
        let path = |name: &[u8]| match level.spot.join(name) {
            Spot::Store(path) => Some(path),
            Spot::Tree(_) => None,
        };
        if !wanted(name, node) {
            return None;
        }
        let (mut names, mut paths) = (vec![name.to_vec()], vec![path(name)?]);
        let (mut size, mut room) = (node.size, PATHS.saturating_sub(paths[0].len()));
        for (name, node) in level.left.iter().filter(|(name, node)| wanted(name, node)) {
            let path = path(name)?;
            size += node.size;
            if size > TOGETHER || names.len() == TOGETHER_FILES || path.len() > room {
                break;
            }
            room -= path.len();
            names.push(name.clone());
            paths.push(path);
        }
        let loaded = self.call.place.client.load_some(paths).ok()?;
        let found = names.into_iter().zip(loaded);
        level.loaded = found
            .filter_map(|(name, bytes)| Some((name, bytes?)))
            .collect();
        level.loaded.remove(name)
    }

    /// What an entry leads to; nothing if it is a link that is not followed.
    async fn reached(
        &mut self,
        spot: Spot,
        node: Node,
        shown: &str,
    ) -> Outcome<Option<(Spot, Node)>> {
        if !is_link(&node) {
            return Ok(Some((spot, node)));
        }
        if self.wanted.dirs != Dirs::Follow {
            return Ok(None);
        }
        let found = match self.call.find(shown, true).await {
            Ok(spot) => self.call.look_at(&spot).await.map(|node| (spot, node)),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) => {
                self.wrong(shown, &error).await?;
                Ok(None)
            }
        }
    }

    async fn enter(
        &mut self,
        levels: &mut Vec<Level>,
        spot: Spot,
        shown: String,
        ino: u64,
    ) -> Outcome<()> {
        if levels.len() >= DEPTH_MAX || ino != 0 && levels.iter().any(|level| level.ino == ino) {
            if !self.wanted.silent {
                let what = format!("{shown}: warning: recursive directory loop");
                self.call.complain(&what).await?;
            }
            return Ok(());
        }
        match self.call.entries(&spot).await {
            Ok(mut left) => {
                left.sort_by(|(a, _), (b, _)| a.cmp(b));
                levels.push(Level {
                    spot,
                    shown,
                    ino,
                    left: left.into(),
                    loaded: HashMap::new(),
                });
                Ok(())
            }
            Err(error) => self.wrong(&shown, &error).await,
        }
    }

    /// Searches what was opened, and prints what is found.
    async fn source(
        &mut self,
        source: io::Result<Source<'_>>,
        name: &[u8],
        shown: &str,
    ) -> Outcome<()> {
        let source = match source {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                self.wrong(shown, &error).await?;
                Source::Memory(Vec::new(), 0)
            }
            Err(error) => return self.wrong(shown, &error).await,
        };
        let selected = self.search(source, name, shown).await?;
        self.any |= selected > 0;
        let mut out = Vec::new();
        if self.style.count {
            if self.style.names {
                self.style.name(name, b':', &mut out);
            }
            out.extend_from_slice(format!("{selected}\n").as_bytes());
        }
        if self
            .style
            .list
            .is_some_and(|list| (list == List::With) == (selected > 0))
        {
            self.style.name(name, b'\n', &mut out);
        }
        self.call.out(&out).await
    }

    /// Searches a file. Returns how many lines were selected.
    async fn search(&mut self, mut source: Source<'_>, name: &[u8], shown: &str) -> Outcome<u64> {
        let style = self.style.clone();
        let file = (name, source.size());
        let mut search = Search::new(&style, self.matcher, file, self.used);
        loop {
            match search.step() {
                Ok(Step::Done) => break,
                Ok(Step::Full) => self.call.out(&std::mem::take(&mut search.out)).await?,
                Ok(Step::More) => {
                    self.call.breathe().await?;
                    match source.read().await {
                        Ok(piece) => search.add(piece),
                        Err(error) => {
                            self.wrong(shown, &error).await?;
                            search.add(None);
                        }
                    }
                }
                Err(_) => {
                    self.failed = true;
                    let what = match self.wanted.how.syntax {
                        Syntax::Perl => "exceeded PCRE's backtracking limit",
                        _ => "stack overflow",
                    };
                    self.call.out(&std::mem::take(&mut search.out)).await?;
                    self.call.complain(&format!("{shown}: {what}")).await?;
                    break;
                }
            }
        }
        self.used = search.used;
        self.call.out(&search.out).await?;
        if search.is_hidden() {
            let name = to_text(name);
            self.call
                .complain(&format!("{name}: binary file matches"))
                .await?;
        }
        Ok(search.selected)
    }
}
