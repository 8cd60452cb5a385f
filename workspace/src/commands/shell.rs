//! `cairn shell`: a prompt on a replica, without a mount.

use std::path::PathBuf;

use cairn::backend::shell::{Completeness, completeness};
use cairn::{Options, Replica};
use cairn_mounts::shell::{Job, Stop};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::exec::{ROOT, directory, start};
use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::locate;
use crate::terminal::Terminal;

/// Lines of history that are kept.
const HISTORY: usize = 10_000;
/// Names that are offered to complete a word.
const OFFERED: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A replica, or a directory in one, in which the shell starts
    #[arg(value_name = "PLACE")]
    place: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result {
    let place = locate(None, Some(&args.place))?;
    let options = Options {
        create: false,
        ..Options::default()
    };
    let host = Host::own(host::own(&place.replica, &options)?);
    let cwd = directory(&host, &place.path)?;
    let mut worker = Some(start(&host)?);
    let mut editor = editor(&host.replica, &cwd)?;
    let (mut cwd, mut code, mut begun) = (cwd, 0, false);
    loop {
        if let Some(line) = editor.helper_mut() {
            line.cwd.clone_from(&cwd);
        }
        let script = match editor.readline(&prompt(&cwd, code)) {
            Ok(script) if script.trim().is_empty() => continue,
            Ok(script) => script,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::Refused(format!("cannot read a line: {error}"))),
        };
        // It is lost if it cannot be kept, which is no reason to refuse the line.
        let _ = editor.add_history_entry(&script);
        if let Some(status) = leaves(&script, code) {
            code = status;
            break;
        }
        let mut current = match worker.take() {
            Some(current) => current,
            None => start(&host)?,
        };
        let job = Job {
            script: script.into_bytes(),
            // It stays where it was; a new process has to be told.
            cwd: (!begun).then(|| cwd.clone()),
            session: true,
            ..Job::default()
        };
        let ended = interactive(&mut current, &job)?;
        code = ended.code;
        cwd = ended.cwd.unwrap_or(cwd);
        begun = current.is_usable();
        worker = begun.then_some(current);
        if worker.is_none() {
            crate::terminal::say(
                "cairn: the shell begins anew: its variables and functions are lost",
            );
        }
    }
    if let Some(path) = history() {
        let _ = editor.save_history(&path);
    }
    Ok(Outcome::Status(u8::try_from(code).unwrap_or(1)))
}

/// Runs a line; Ctrl-C ends it, and not the shell.
fn interactive(
    worker: &mut cairn_mounts::shell::Worker,
    job: &Job,
) -> Result<cairn_mounts::shell::Ended> {
    let stop = Stop::new().map_err(Failure::io("cannot run a script"))?;
    let theirs = stop.clone();
    let handler = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])
        .map_err(Failure::io("cannot watch for Ctrl-C"))?;
    let handle = handler.handle();
    let watching = std::thread::spawn(move || {
        let mut handler = handler;
        if handler.forever().next().is_some() {
            theirs.stop();
        }
    });
    let mut terminal = Terminal::new();
    let mut told = Ok(());
    let ended = worker.run(job, &stop, &mut |is_error, bytes| {
        let shown = if is_error {
            terminal.error(bytes)
        } else {
            terminal.out(bytes).and_then(|()| terminal.finish())
        };
        if let Err(failure) = shown {
            stop.stop();
            told = Err(failure);
        }
    });
    handle.close();
    let _ = watching.join();
    told.map(|()| ended)
}

/// `exit` and `logout` leave.
fn leaves(script: &str, code: i32) -> Option<i32> {
    let mut words = script.split_whitespace();
    if !matches!(words.next()?, "exit" | "logout") {
        return None;
    }
    match (words.next(), words.next()) {
        (None, _) => Some(code),
        (Some(status), None) => status.parse::<i32>().ok().map(|status| status & 0xff),
        _ => None,
    }
}

fn prompt(cwd: &str, code: i32) -> String {
    let place = match cwd.strip_prefix(ROOT) {
        Some("") => "/",
        Some(inside) if inside.starts_with('/') => inside,
        _ => cwd,
    };
    match code {
        0 => format!("cairn:{place}$ "),
        code => format!("cairn:{place} [{code}]$ "),
    }
}

fn editor(replica: &Replica, cwd: &str) -> Result<Editor<Line, FileHistory>> {
    let failed = |error: ReadlineError| Failure::Refused(format!("cannot read lines: {error}"));
    let config = Config::builder()
        .max_history_size(HISTORY)
        .map_err(failed)?
        .auto_add_history(false)
        .build();
    let mut editor = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Line {
        replica: replica.clone(),
        cwd: cwd.into(),
    }));
    if let Some(path) = history() {
        // There is none the first time.
        let _ = editor.load_history(&path);
    }
    Ok(editor)
}

/// The file of the history: `CAIRN_HISTORY`, or `.cairn_history` at home.
fn history() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CAIRN_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".cairn_history"))
}

/// What helps to type a line: the paths of the workspace.
struct Line {
    replica: Replica,
    cwd: String,
}

impl Helper for Line {}

impl Highlighter for Line {}

impl Hinter for Line {
    type Hint = String;
}

impl Validator for Line {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match completeness(context.input()) {
            Completeness::Incomplete => ValidationResult::Incomplete,
            Completeness::Complete => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Line {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (begin, typed) = word(&line[..at]);
        Ok((begin, self.candidates(&typed)))
    }
}

/// The word that is being typed: where it begins, and what it says.
fn word(line: &str) -> (usize, String) {
    let (mut begin, mut typed, mut quote) = (0, String::new(), None);
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => typed.extend(chars.next().map(|(_, c)| c)),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() || "|&;<>()=".contains(c) => {
                begin = at + c.len_utf8();
                typed.clear();
            }
            (c, _) => typed.push(c),
        }
    }
    (begin, typed)
}

impl Line {
    /// What is in the directory that was typed, and begins as was typed.
    fn candidates(&self, typed: &str) -> Vec<Pair> {
        let (dir, start) = match typed.rfind('/') {
            Some(slash) => typed.split_at(slash + 1),
            None => ("", typed),
        };
        let full = if dir.starts_with('/') {
            dir.to_owned()
        } else {
            format!("{}/{dir}", self.cwd)
        };
        let Some(inside) = full.strip_prefix(ROOT) else {
            return Vec::new();
        };
        let path = format!("/{}", inside.trim_start_matches('/'));
        let entries = self.replica.list(path, 0, usize::MAX).unwrap_or_default();
        let mut pairs: Vec<Pair> = entries
            .into_iter()
            .filter_map(|entry| Some((String::from_utf8(entry.name).ok()?, entry.attr.kind)))
            .filter(|(name, _)| name.starts_with(start))
            .filter(|(name, _)| !name.starts_with('.') || start.starts_with('.'))
            .map(|(name, kind)| {
                let end = if kind == cairn::NodeKind::Dir {
                    "/"
                } else {
                    " "
                };
                Pair {
                    display: name.clone(),
                    replacement: format!("{}{end}", escaped(&format!("{dir}{name}"))),
                }
            })
            .collect();
        pairs.sort_by(|a, b| a.display.cmp(&b.display));
        pairs.truncate(OFFERED);
        pairs
    }
}

/// A word as it has to be typed.
fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for c in word.chars() {
        if !(c.is_alphanumeric() || "/._-+:@%,^~".contains(c)) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_the_end_is_completed() {
        assert_eq!(word("cat src/ma"), (4, "src/ma".into()));
        assert_eq!(word("cat 'a b"), (4, "a b".into()));
        assert_eq!(word("cat a\\ b"), (4, "a b".into()));
        assert_eq!(word("x=1; ls >ou"), (9, "ou".into()));
        assert_eq!(word(""), (0, String::new()));
    }

    #[test]
    fn completions_are_quoted_and_end_in_what_follows() {
        let replica = Replica::in_memory().unwrap();
        replica.mkdir("/my dir").unwrap();
        replica.write_file("/main.rs", b"").unwrap();
        replica.write_file("/.hidden", b"").unwrap();
        let line = Line {
            replica,
            cwd: ROOT.into(),
        };
        let found = |typed| -> Vec<String> {
            let pairs = line.candidates(typed);
            pairs.into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(found("m"), ["main.rs ", "my\\ dir/"]);
        assert_eq!(found("."), [".hidden "]);
        assert_eq!(found("/workspace/ma"), ["/workspace/main.rs "]);
        assert_eq!(found("nowhere/x"), [""; 0]);
    }

    #[test]
    fn exit_leaves_with_a_status() {
        assert_eq!(leaves("exit", 3), Some(3));
        assert_eq!(leaves(" exit 7 ", 0), Some(7));
        assert_eq!(leaves("exit now", 0), None);
        assert_eq!(leaves("echo exit", 0), None);
    }

    #[test]
    fn the_prompt_says_where_it_is_and_what_failed() {
        assert_eq!(prompt("/workspace/src", 0), "cairn:/src$ ");
        assert_eq!(prompt("/workspace", 2), "cairn:/ [2]$ ");
        assert_eq!(prompt("/tmp", 0), "cairn:/tmp$ ");
    }
}
