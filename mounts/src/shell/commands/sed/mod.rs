//! `sed`: edits lines as a script says, whatever bytes they have, in files of
//! any size.
//!
//! | module | owns |
//! | --- | --- |
//! | `parse`, `substitute`, `script` | scripts |
//! | `regex` | regular expressions, and what replaces what they match |
//! | `machine`, `edit` | running a script |
//! | `files` | lines of files, output, editing in place |
//!
//! Lines are in memory one at a time, but for what a script keeps, and for the
//! output of a file that is edited in place. No command runs a program.

mod edit;
mod files;
mod machine;
mod parse;
mod regex;
mod script;
mod substitute;

use super::call::{Call, Failure, Outcome};
use super::options::{self, Given, Known};
use super::source::Source;
use files::{Input, Output};
use machine::Machine;

const KNOWN: Known = Known {
    short: "bEe:f:l:nrsuz",
    long: &[
        ("binary", 'b'),
        ("debug", 'u'),
        ("expression=", 'e'),
        ("file=", 'f'),
        ("follow-symlinks", 'u'),
        ("help", '?'),
        ("in-place?", 'i'),
        ("line-length=", 'l'),
        ("null-data", 'z'),
        ("posix", 'u'),
        ("quiet", 'n'),
        ("regexp-extended", 'E'),
        ("sandbox", 'u'),
        ("separate", 's'),
        ("silent", 'n'),
        ("unbuffered", 'u'),
        ("version", 'V'),
        ("zero-terminated", 'z'),
    ],
    error_code: 1,
};

const USAGE: &str = "Usage: sed [OPTION]... {script-only-if-no-other-script} [input-file]...\n";

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let mut given = match options::parse(&with_suffix(call.args()), &KNOWN) {
        Ok(given) => given,
        Err(what) => {
            call.complain(&what).await?;
            return usage(call).await;
        }
    };
    if given.has('?') || given.has('V') {
        let said = if given.has('V') {
            "sed (Cairn) 4.9\n"
        } else {
            USAGE
        };
        call.out(said.as_bytes()).await?;
        return Ok(0);
    }
    let Some(text) = text(call, &mut given).await? else {
        return usage(call).await;
    };
    let extended = given.last_of("Er").is_some();
    let script = match script::parse(&text, extended) {
        Ok(script) => script,
        Err(what) => {
            let code = if what.starts_with("-e") { 1 } else { 4 };
            return call.fatal(&what, code).await;
        }
    };
    let end = if given.has('z') { 0 } else { b'\n' };
    let in_place = given.has('i');
    let suffix = given.value('i').filter(|suffix| !suffix.is_empty());
    let mut output = Output::new(call, end, suffix.map(str::to_owned));
    for file in script::files(&script) {
        output.open(file).await?;
    }
    let separate = in_place || given.has('s');
    let input = Input::new(call, &given.files(), separate, in_place, end);
    let columns = given.value('l').and_then(|columns| columns.parse().ok());
    let quiet = given.has('n') || script.quiet;
    Machine::new(call, &script, quiet, end, columns, (input, output))
        .run()
        .await
}

async fn usage(call: &Call<'_>) -> Outcome {
    call.context.stderr.write_all(USAGE.as_bytes()).await?;
    Err(Failure::Usage(1))
}

/// The script, from options or the first operand.
async fn text(call: &Call<'_>, given: &mut Given) -> Outcome<Option<String>> {
    let mut pieces = Vec::new();
    for (letter, value) in &given.options {
        match letter {
            'e' => pieces.push(value.clone()),
            'f' => {
                let read = match Source::open(call, value).await {
                    Ok(mut source) => source.read_all().await,
                    Err(error) => Err(error),
                };
                match read {
                    Ok(bytes) => {
                        let text = String::from_utf8_lossy(&bytes);
                        pieces.push(text.strip_suffix('\n').unwrap_or(&text).to_owned());
                    }
                    Err(error) => {
                        let why = super::call::reason(&error);
                        let what = format!("couldn't open file {value}: {why}");
                        return call.fatal(&what, 1).await;
                    }
                }
            }
            _ => {}
        }
    }
    if pieces.is_empty() {
        if given.operands.is_empty() {
            return Ok(None);
        }
        pieces.push(given.operands.remove(0));
    }
    Ok(Some(pieces.join("\n")))
}

/// `-i` may have a suffix right after it, as `--in-place=SUFFIX` has.
fn with_suffix(args: &[String]) -> Vec<String> {
    let mut to = Vec::with_capacity(args.len() + 1);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let letters = arg.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        let letters = letters.unwrap_or_default();
        let at = letters.find(['i', 'e', 'f', 'l']);
        match at.map(|at| letters.split_at(at)) {
            Some((before, suffix)) if suffix.starts_with('i') => {
                if !before.is_empty() {
                    to.push(format!("-{before}"));
                }
                to.push(match &suffix[1..] {
                    "" => "--in-place".into(),
                    suffix => format!("--in-place={suffix}"),
                });
            }
            // Its value may begin with `-i`.
            Some((_, option)) if option.len() == 1 => {
                to.push(arg.clone());
                to.extend(args.next().cloned());
            }
            _ => to.push(arg.clone()),
        }
        if arg == "--" {
            to.extend(args.by_ref().cloned());
        }
    }
    to
}
