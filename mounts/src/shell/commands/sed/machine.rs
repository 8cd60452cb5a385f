//! Runs a script of `sed`: one cycle for each line.

use std::collections::HashMap;

use super::super::call::{Call, Failure, Outcome};
use super::super::source::{Lines, Source};
use super::edit::{listed, replace_all, translate};
use super::files::{Input, Output};
use super::regex::{GivenUp, Regex};
use super::script::{Address, Command, End, Script, Substitute, What};

/// Commands after which it is looked whether the script was ended.
const BREATH: u32 = 4_096;
/// Columns of what `l` prints, unless it is told.
const COLUMNS: usize = 70;

/// Whether a range of lines is being passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Outside,
    /// Until an address matches.
    Inside,
    /// Until this line.
    Until(u64),
}

/// What is printed at the end of a cycle.
enum Later<'s> {
    Text(&'s [u8]),
    File(&'s str),
    Line(&'s str),
}

/// How a cycle ends.
enum Ended {
    /// The next one begins.
    Done,
    /// Without printing.
    Deleted,
    /// Without printing, and what is left is gone through again.
    Again,
    Quit(i32),
    QuitSilently(i32),
}

/// What happens after a command.
enum After {
    Next,
    Go(usize),
    End(Ended),
}

/// A script that runs.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Machine<'a, 's> {
    call: &'a Call<'a>,
    script: &'s Script,
    quiet: bool,
    end: u8,
    columns: Option<usize>,
    input: Input<'a>,
    output: Output<'a>,
    space: Vec<u8>,
    hold: Vec<u8>,
    /// The line had an end, and that which is held.
    ended: bool,
    hold_ended: bool,
    scratch: Vec<u8>,
    ranges: Vec<Range>,
    /// The regular expression that was used last.
    last: Option<&'s Regex>,
    replaced: bool,
    later: Vec<Later<'s>>,
    readers: HashMap<&'s str, Option<Lines<'a>>>,
    steps: u32,
}

impl<'a, 's> Machine<'a, 's> {
    pub(super) fn new(
        call: &'a Call<'a>,
        script: &'s Script,
        quiet: bool,
        end: u8,
        columns: Option<usize>,
        (input, output): (Input<'a>, Output<'a>),
    ) -> Self {
        let range = |command: &Command| match command.from {
            // It may end at the first line.
            Some(Address::Line(0)) => Range::Inside,
            _ => Range::Outside,
        };
        Self {
            call,
            script,
            quiet,
            end,
            columns,
            input,
            output,
            space: Vec::new(),
            hold: Vec::new(),
            ended: true,
            hold_ended: true,
            scratch: Vec::new(),
            ranges: script.commands.iter().map(range).collect(),
            last: None,
            replaced: false,
            later: Vec::new(),
            readers: HashMap::new(),
            steps: 0,
        }
    }

    /// Runs it to its end. Returns the exit status.
    pub(super) async fn run(&mut self) -> Outcome {
        let mut again = false;
        let mut code = 0;
        while again || self.read().await? {
            let ended = self.cycle().await?;
            again = matches!(ended, Ended::Again);
            if !self.quiet && matches!(ended, Ended::Done | Ended::Quit(_)) {
                self.output.line(&self.space, self.ended).await?;
            }
            if let Ended::QuitSilently(status) = ended {
                code = status;
                break;
            }
            self.print_later().await?;
            if let Ended::Quit(status) = ended {
                code = status;
                break;
            }
        }
        self.output.end().await?;
        Ok(if code == 0 { self.input.code } else { code })
    }

    /// Takes the next line.
    async fn read(&mut self) -> Outcome<bool> {
        self.space.clear();
        self.read_more().await
    }

    /// Adds the next line.
    async fn read_more(&mut self) -> Outcome<bool> {
        self.replaced = false;
        let read = self
            .input
            .add_line(&mut self.space, &mut self.output)
            .await?;
        self.ended = read.unwrap_or(self.ended);
        Ok(read.is_some())
    }

    async fn cycle(&mut self) -> Outcome<Ended> {
        let script = self.script;
        let mut at = 0;
        while let Some(command) = script.commands.get(at) {
            self.steps += 1;
            if self.steps >= BREATH {
                self.steps = 0;
                self.call.breathe().await?;
            }
            let selected = self.selects(at, command).await? != command.negated;
            let after = match &command.what {
                What::Block(end) if !selected => After::Go(*end),
                _ if !selected => After::Next,
                what => self.perform(at, command, what).await?,
            };
            match after {
                After::Next => at += 1,
                After::Go(to) => at = to,
                After::End(ended) => return Ok(ended),
            }
        }
        Ok(Ended::Done)
    }

    async fn selects(&mut self, at: usize, command: &'s Command) -> Outcome<bool> {
        let Some(from) = &command.from else {
            return Ok(true);
        };
        let Some(to) = &command.to else {
            return self.is_at(from).await;
        };
        let line = self.input.number;
        match self.ranges[at] {
            Range::Outside => {}
            Range::Inside => {
                if let End::At(to) = to
                    && self.is_at(to).await?
                {
                    self.ranges[at] = Range::Outside;
                }
                return Ok(true);
            }
            Range::Until(last) => {
                if line >= last {
                    self.ranges[at] = Range::Outside;
                }
                if line <= last {
                    return Ok(true);
                }
            }
        }
        if !self.is_at(from).await? {
            return Ok(false);
        }
        self.ranges[at] = match to {
            End::At(Address::Line(last)) if *last > line => Range::Until(*last),
            End::After(lines) if *lines > 0 => Range::Until(line.saturating_add(*lines)),
            End::Multiple(of) if *of > 0 && !line.is_multiple_of(*of) => {
                Range::Until(line.next_multiple_of(*of))
            }
            End::At(Address::Line(_)) | End::After(_) | End::Multiple(_) => Range::Outside,
            End::At(Address::Last) if self.input.is_last(&mut self.output).await? => Range::Outside,
            End::At(_) => Range::Inside,
        };
        Ok(true)
    }

    async fn is_at(&mut self, address: &'s Address) -> Outcome<bool> {
        let line = self.input.number;
        Ok(match address {
            Address::Line(number) => line == *number,
            Address::Step(first, 0) => line == *first,
            Address::Step(first, step) => line >= *first && (line - *first).is_multiple_of(*step),
            Address::Last => self.input.is_last(&mut self.output).await?,
            Address::Match(regex) => {
                let regex = self.regex(regex.as_deref()).await?;
                match regex.is_match(&self.space) {
                    Ok(is_match) => is_match,
                    Err(GivenUp) => return self.give_up().await,
                }
            }
        })
    }

    /// A regular expression, or the one that was used last.
    async fn regex(&mut self, regex: Option<&'s Regex>) -> Outcome<&'s Regex> {
        match regex.or(self.last) {
            Some(regex) => {
                self.last = Some(regex);
                Ok(regex)
            }
            None => self.call.fatal("no previous regular expression", 1).await,
        }
    }

    async fn give_up<T>(&mut self) -> Outcome<T> {
        self.output.end().await?;
        let what = "a regular expression takes too many steps";
        self.call.complain(what).await?;
        Err(Failure::Usage(4))
    }

    async fn perform(&mut self, at: usize, command: &'s Command, what: &'s What) -> Outcome<After> {
        match what {
            What::Block(_) | What::Nothing => {}
            What::Branch(to) => return Ok(After::Go(*to)),
            What::BranchIf(to) | What::BranchUnless(to) => {
                let wanted = matches!(what, What::BranchIf(_));
                if std::mem::take(&mut self.replaced) == wanted {
                    return Ok(After::Go(*to));
                }
            }
            What::Delete => return Ok(After::End(Ended::Deleted)),
            What::DeleteFirst => {
                let Some(first) = self.first_line() else {
                    return Ok(After::End(Ended::Deleted));
                };
                self.space.drain(..=first);
                return Ok(After::End(Ended::Again));
            }
            What::Next | What::NextMore => {
                if self.input.is_over(&mut self.output).await? {
                    return Ok(After::End(Ended::Done));
                }
                let more = matches!(what, What::NextMore);
                if more {
                    self.space.push(self.end);
                } else {
                    if !self.quiet {
                        self.output.line(&self.space, self.ended).await?;
                    }
                    self.space.clear();
                }
                self.print_later().await?;
                if !self.read_more().await? {
                    return Ok(After::End(Ended::Deleted));
                }
            }
            What::Quit(code) => return Ok(After::End(Ended::Quit(*code))),
            What::QuitSilently(code) => return Ok(After::End(Ended::QuitSilently(*code))),
            What::Substitute(substitute) => self.substitute(substitute).await?,
            What::Change(text) => {
                let inside = command.to.is_some() && self.ranges[at] != Range::Outside;
                if !inside || command.negated {
                    self.output.bytes(text).await?;
                }
                return Ok(After::End(Ended::Deleted));
            }
            what => self.keep(what).await?,
        }
        Ok(After::Next)
    }

    /// Commands that keep something, or change the line.
    async fn keep(&mut self, what: &'s What) -> Outcome<()> {
        match what {
            What::Append(text) => self.later.push(Later::Text(text)),
            What::Insert(text) => self.output.bytes(text).await?,
            What::ReadFile(file) => self.later.push(Later::File(file)),
            What::ReadLine(file) => self.later.push(Later::Line(file)),
            What::Get => {
                self.space.clone_from(&self.hold);
                self.ended = self.hold_ended;
            }
            What::GetMore => {
                self.ended = self.hold_ended;
                self.space.push(self.end);
                self.space.extend_from_slice(&self.hold);
            }
            What::Hold => {
                self.hold.clone_from(&self.space);
                self.hold_ended = self.ended;
            }
            What::HoldMore => {
                self.hold_ended = self.ended;
                self.hold.push(self.end);
                self.hold.extend_from_slice(&self.space);
            }
            What::Exchange => {
                std::mem::swap(&mut self.space, &mut self.hold);
                std::mem::swap(&mut self.ended, &mut self.hold_ended);
            }
            What::Zap => self.space.clear(),
            What::Translate(table) => translate(&mut self.space, table),
            what => self.print(what).await?,
        }
        Ok(())
    }

    /// Commands that print, or write.
    async fn print(&mut self, what: &'s What) -> Outcome<()> {
        match what {
            What::Print => self.output.line(&self.space, self.ended).await?,
            What::PrintFirst => {
                let first = self.first_line();
                let ended = first.is_some() || self.ended;
                let first = first.unwrap_or(self.space.len());
                self.output.line(&self.space[..first], ended).await?;
            }
            What::List(columns) => {
                let columns = columns.or(self.columns).unwrap_or(COLUMNS);
                let text = listed(&self.space, columns);
                self.output.bytes(&text).await?;
            }
            What::Number => {
                let number = format!("{}\n", self.input.number);
                self.output.bytes(number.as_bytes()).await?;
            }
            What::File => {
                let name = format!("{}\n", self.input.name);
                self.output.bytes(name.as_bytes()).await?;
            }
            What::WriteFile(file) => self.output.file_line(file, &self.space).await?,
            What::WriteFirst(file) => {
                let first = self.first_line().unwrap_or(self.space.len());
                self.output.file_line(file, &self.space[..first]).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the first line ends, if there are several.
    fn first_line(&self) -> Option<usize> {
        memchr::memchr(self.end, &self.space)
    }

    async fn substitute(&mut self, what: &'s Substitute) -> Outcome<()> {
        let regex = self.regex(what.regex.as_deref()).await?;
        let replaced = replace_all(regex, what, &self.space, &mut self.scratch);
        match replaced {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(GivenUp) => return self.give_up().await,
        }
        std::mem::swap(&mut self.space, &mut self.scratch);
        self.replaced = true;
        if what.print {
            self.output.line(&self.space, self.ended).await?;
        }
        if let Some(file) = &what.file {
            self.output.file_line(file, &self.space).await?;
        }
        Ok(())
    }

    /// Prints what was kept for the end of the cycle.
    async fn print_later(&mut self) -> Outcome<()> {
        if self.later.is_empty() {
            return Ok(());
        }
        for later in std::mem::take(&mut self.later) {
            match later {
                Later::Text(text) => self.output.bytes(text).await?,
                Later::File(file) => {
                    self.output.flush_files().await?;
                    if let Ok(mut source) = Source::open(self.call, file).await {
                        while let Ok(Some(piece)) = source.read().await {
                            self.output.bytes(&piece).await?;
                        }
                    }
                }
                Later::Line(file) => self.print_line_of(file).await?,
            }
        }
        Ok(())
    }

    async fn print_line_of(&mut self, file: &'s str) -> Outcome<()> {
        if !self.readers.contains_key(file) {
            let source = Source::open(self.call, file).await.ok();
            let lines = source.map(|source| Lines::new(source, self.end));
            self.readers.insert(file, lines);
        }
        if let Some(Some(lines)) = self.readers.get_mut(file)
            && let Ok(Some(line)) = lines.next().await
        {
            let text = line.strip_suffix(&[self.end]).unwrap_or(line);
            self.output.line(text, true).await?;
        }
        Ok(())
    }
}
