//! Scripts of `sed`, read.

use super::parse::Parser;
use super::regex::{Part, Regex};

/// An address of lines.
#[derive(Debug)]
pub(super) enum Address {
    Line(u64),
    /// Every so many lines from one on.
    Step(u64, u64),
    Last,
    /// Lines that match; none: what the last one that was used matches.
    Match(Option<Box<Regex>>),
}

/// Where a range of lines ends.
#[derive(Debug)]
pub(super) enum End {
    At(Address),
    /// So many lines later.
    After(u64),
    /// At a line whose number so many divide.
    Multiple(u64),
}

/// A command, and the lines it is for.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) from: Option<Address>,
    pub(super) to: Option<End>,
    pub(super) negated: bool,
    pub(super) what: What,
}

/// What a command does.
#[derive(Debug)]
pub(super) enum What {
    /// Goes past its end if it is not for the line.
    Block(usize),
    Append(Vec<u8>),
    Insert(Vec<u8>),
    Change(Vec<u8>),
    /// Goes to a command; none: to the end.
    Branch(usize),
    BranchIf(usize),
    BranchUnless(usize),
    Delete,
    DeleteFirst,
    Get,
    GetMore,
    Hold,
    HoldMore,
    List(Option<usize>),
    Next,
    NextMore,
    Print,
    PrintFirst,
    Quit(i32),
    QuitSilently(i32),
    ReadFile(String),
    ReadLine(String),
    Substitute(Box<Substitute>),
    Translate(Box<Translate>),
    WriteFile(String),
    WriteFirst(String),
    Exchange,
    Number,
    Zap,
    File,
    Nothing,
}

/// What `s` does.
#[derive(Debug)]
pub(super) struct Substitute {
    /// None: the regular expression that was used last.
    pub(super) regex: Option<Box<Regex>>,
    pub(super) parts: Vec<Part>,
    pub(super) all: bool,
    pub(super) print: bool,
    /// Which match is replaced, the first of those that are.
    pub(super) number: u64,
    pub(super) file: Option<String>,
}

/// What `y` does: characters, and what they become.
#[derive(Debug)]
pub(super) struct Translate {
    pub(super) bytes: [u8; 256],
    /// Where not all are bytes.
    pub(super) chars: Option<std::collections::HashMap<char, char>>,
}

/// A script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) commands: Vec<Command>,
    /// It begins with `#n`.
    pub(super) quiet: bool,
}

/// Reads a script, which may have come in several pieces.
pub(super) fn parse(text: &str, extended: bool) -> Result<Script, String> {
    let quiet = text == "#n" || text.starts_with("#n\n");
    let mut parser = Parser::new(text, extended);
    parser.all()?;
    Ok(Script {
        commands: parser.commands,
        quiet,
    })
}

/// Files that it writes to.
pub(super) fn files(script: &Script) -> Vec<String> {
    let file = |command: &Command| match &command.what {
        What::WriteFile(file) | What::WriteFirst(file) => Some(file.clone()),
        What::Substitute(substitute) => substitute.file.clone(),
        _ => None,
    };
    let mut files: Vec<String> = script.commands.iter().filter_map(file).collect();
    files.sort();
    files.dedup();
    files
}
