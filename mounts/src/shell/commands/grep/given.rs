//! What `grep` was called with.

use std::io;

use super::super::call::{Call, Failure, Outcome};
use super::super::options::{self, Given, Known};
use super::super::source::Source;
use super::TROUBLE;
use super::globs::Globs;
use super::matcher::{How, Syntax};
use super::style::{Binary, List, Style};

const KNOWN: Known = Known {
    short: "0123456789A:B:C:D:EFGHILPRTUVZabcd:e:f:hilm:noqrsuvwxyz",
    long: &[
        ("after-context=", 'A'),
        ("basic-regexp", 'G'),
        ("before-context=", 'B'),
        ("binary", 'U'),
        ("binary-files=", '\x01'),
        ("byte-offset", 'b'),
        ("color?", '\x02'),
        ("colour?", '\x02'),
        ("context=", 'C'),
        ("count", 'c'),
        ("dereference-recursive", 'R'),
        ("devices=", 'D'),
        ("directories=", 'd'),
        ("exclude=", '\x03'),
        ("exclude-dir=", '\x04'),
        ("exclude-from=", '\x05'),
        ("extended-regexp", 'E'),
        ("file=", 'f'),
        ("files-with-matches", 'l'),
        ("files-without-match", 'L'),
        ("fixed-regexp", 'F'),
        ("fixed-strings", 'F'),
        ("group-separator=", '\x06'),
        ("help", '?'),
        ("ignore-case", 'i'),
        ("include=", '\x07'),
        ("initial-tab", 'T'),
        ("invert-match", 'v'),
        ("label=", '\x08'),
        ("line-buffered", '\x0b'),
        ("line-number", 'n'),
        ("line-regexp", 'x'),
        ("max-count=", 'm'),
        ("no-filename", 'h'),
        ("no-group-separator", '\x0c'),
        ("no-ignore-case", '\x0e'),
        ("no-messages", 's'),
        ("null", 'Z'),
        ("null-data", 'z'),
        ("only-matching", 'o'),
        ("perl-regexp", 'P'),
        ("quiet", 'q'),
        ("recursive", 'r'),
        ("regexp=", 'e'),
        ("silent", 'q'),
        ("text", 'a'),
        ("unix-byte-offsets", 'u'),
        ("version", 'V'),
        ("with-filename", 'H'),
        ("word-regexp", 'w'),
    ],
    error_code: TROUBLE,
};

/// What is done with directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dirs {
    Read,
    Skip,
    Recurse,
    /// Links are followed too.
    Follow,
}

/// All that it was called with.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) how: How,
    pub(super) style: Style,
    pub(super) patterns: Vec<String>,
    pub(super) operands: Vec<String>,
    pub(super) dirs: Dirs,
    pub(super) files: Globs,
    pub(super) inside: Globs,
    /// Whether names come before lines, where that was said.
    pub(super) names: Option<bool>,
    /// What the standard input is called.
    pub(super) label: String,
    /// Errors are not told.
    pub(super) silent: bool,
}

/// Reads the arguments. An error ends the call, and says how.
pub(super) async fn read(call: &Call<'_>) -> Outcome<Wanted> {
    let given = match options::parse(call.args(), &KNOWN) {
        Ok(given) => given,
        Err(what) => return usage(call, Some(&what)).await,
    };
    if given.has('?') {
        call.out(
            b"Usage: grep [OPTION]... PATTERNS [FILE]...\nSearch for PATTERNS in each FILE.\n",
        )
        .await?;
        return Err(Failure::Usage(0));
    }
    if given.has('V') {
        call.out(b"grep (Cairn), with the options of GNU grep 3.8\n")
            .await?;
        return Err(Failure::Usage(0));
    }
    let how = match syntax(call.context.name, &given) {
        Ok(syntax) => how(syntax, &given),
        Err(what) => return call.fatal(what, TROUBLE).await,
    };
    let style = match style(&given, how.end) {
        Ok(style) => style,
        Err(what) => return call.fatal(&what, TROUBLE).await,
    };
    let mut operands = given.operands.clone();
    let Some(patterns) = patterns(call, &given, &mut operands).await? else {
        return usage(call, None).await;
    };
    Ok(Wanted {
        how: How {
            parts: style.has_parts(),
            ..how
        },
        style,
        patterns,
        operands,
        dirs: dirs(call, &given).await?,
        files: files(call, &given).await?,
        inside: inside(&given),
        names: given.last_of("hH").map(|last| last == 'H'),
        label: given.value('\x08').unwrap_or("(standard input)").into(),
        silent: given.has('s'),
    })
}

/// Says how it is called.
async fn usage<T>(call: &Call<'_>, what: Option<&str>) -> Outcome<T> {
    usage_with(call, what, TROUBLE).await
}

async fn usage_with<T>(call: &Call<'_>, what: Option<&str>, code: i32) -> Outcome<T> {
    if let Some(what) = what {
        call.complain(what).await?;
    }
    let hint = "Usage: grep [OPTION]... PATTERNS [FILE]...\n\
                Try 'grep --help' for more information.\n";
    call.context.stderr.write_all(hint.as_bytes()).await?;
    Err(Failure::Usage(code))
}

fn syntax(name: &str, given: &Given) -> Result<Syntax, &'static str> {
    let syntax = |letter| match letter {
        'E' => Some(Syntax::Extended),
        'F' => Some(Syntax::Fixed),
        'G' => Some(Syntax::Basic),
        'P' => Some(Syntax::Perl),
        _ => None,
    };
    let mut found = match name {
        "egrep" => Some(Syntax::Extended),
        "fgrep" => Some(Syntax::Fixed),
        _ => None,
    };
    for syntax in given
        .options
        .iter()
        .filter_map(|(letter, _)| syntax(*letter))
    {
        if found.is_some_and(|found| found != syntax) {
            return Err("conflicting matchers specified");
        }
        found = Some(syntax);
    }
    Ok(found.unwrap_or(Syntax::Basic))
}

fn how(syntax: Syntax, given: &Given) -> How {
    How {
        syntax,
        fold: given.last_of("iy\x0e").is_some_and(|last| last != '\x0e'),
        words: given.has('w'),
        lines: given.has('x'),
        parts: false,
        end: if given.has('z') { 0 } else { b'\n' },
    }
}

fn style(given: &Given, end: u8) -> Result<Style, String> {
    let list = given.last_of("lL").map(|last| match last {
        'l' => List::With,
        _ => List::Without,
    });
    let quiet = given.has('q');
    let (before, after) = context(given)?;
    let binary = match given.last_of("aI\x01") {
        Some('a') => Binary::Text,
        Some('I') => Binary::Without,
        Some(_) => match given.value('\x01') {
            Some("text") => Binary::Text,
            Some("without-match") => Binary::Without,
            Some("binary") => Binary::Told,
            _ => return Err("unknown binary-files type".into()),
        },
        None => Binary::Told,
    };
    let most = match given.value('m').map(str::trim) {
        None => u64::MAX,
        // Less than none is without a limit.
        Some(text) if text.strip_prefix('-').is_some_and(is_number) => u64::MAX,
        Some(text) => number(text).ok_or("invalid max count")?,
    };
    let between = match given.last_of("\x06\x0c") {
        None => Some(b"--".to_vec()),
        Some('\x06') => given.value('\x06').map(crate::shell::names::to_bytes),
        Some(_) => None,
    };
    Ok(Style {
        invert: given.has('v'),
        count: given.has('c') && list.is_none() && !quiet,
        quiet,
        list: list.filter(|_| !quiet),
        only: given.has('o'),
        color: matches!(given.value('\x02'), Some("always" | "yes" | "force")),
        names: false,
        numbers: given.has('n'),
        offsets: given.has('b'),
        tabs: given.has('T'),
        nul: given.has('Z'),
        binary,
        context: before.is_some() || after.is_some(),
        before: before.unwrap_or(0),
        after: after.unwrap_or(0),
        between,
        most,
        end,
    })
}

/// Lines before and after; those of their own go before those of both.
fn context(given: &Given) -> Result<(Option<u64>, Option<u64>), String> {
    let wrong = |text: &str| format!("{text}: invalid context length argument");
    let of = |letter| {
        let value = given.value(letter);
        value
            .map(|text| number(text).ok_or_else(|| wrong(text)))
            .transpose()
    };
    let digits: String = given.options.iter().map(|(letter, _)| letter).collect();
    let digits = digits.split(|c: char| !c.is_ascii_digit());
    let mut digits = digits.filter(|digits| !digits.is_empty()).rev();
    let digits = digits.next().map(str::to_owned);
    let both = match (given.last_of("C0123456789"), digits) {
        (Some('C') | None, _) | (_, None) => of('C')?,
        (_, Some(digits)) => number(&digits),
    };
    Ok((of('B')?.or(both), of('A')?.or(both)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number; one that is too large is the largest.
fn number(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().unwrap_or(u64::MAX))
}

/// The patterns, which a line each has. None if there are none at all.
async fn patterns(
    call: &Call<'_>,
    given: &Given,
    operands: &mut Vec<String>,
) -> Outcome<Option<Vec<String>>> {
    let sources = given.options.iter();
    let sources: Vec<_> = sources
        .filter(|(letter, _)| "ef".contains(*letter))
        .collect();
    if sources.is_empty() {
        if operands.is_empty() {
            return Ok(None);
        }
        let pattern = operands.remove(0);
        return Ok(Some(pattern.split('\n').map(str::to_owned).collect()));
    }
    let mut patterns = Vec::new();
    for (letter, value) in sources {
        if *letter == 'e' {
            patterns.extend(value.split('\n').map(str::to_owned));
            continue;
        }
        let text = match lines_of(call, value).await {
            Ok(text) => text,
            Err(error) => {
                call.complain_of(value, &error).await?;
                return Err(Failure::Usage(TROUBLE));
            }
        };
        patterns.extend(text.lines().map(str::to_owned));
    }
    Ok(Some(patterns))
}

/// A file of patterns. A byte that is no text is as in an argument.
async fn lines_of(call: &Call<'_>, file: &str) -> io::Result<String> {
    let bytes = Source::open(call, file).await?.read_all().await?;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(
            chunk
                .invalid()
                .iter()
                .map(|byte| crate::shell::names::stand_in(*byte)),
        );
    }
    Ok(text)
}

async fn dirs(call: &Call<'_>, given: &Given) -> Outcome<Dirs> {
    Ok(match (given.last_of("drR"), given.value('d')) {
        (None, _) | (Some('d'), Some("read")) => Dirs::Read,
        (Some('r'), _) | (Some('d'), Some("recurse")) => Dirs::Recurse,
        (Some('R'), _) => Dirs::Follow,
        (_, Some("skip")) => Dirs::Skip,
        (_, value) => {
            let value = value.unwrap_or_default();
            let what = format!(
                "invalid argument '{value}' for '--directories'\nValid arguments are:\n  \
                 - 'read'\n  - 'recurse'\n  - 'skip'"
            );
            call.complain(&what).await?;
            usage_with::<()>(call, None, 1).await?;
            Dirs::Read
        }
    })
}

async fn files(call: &Call<'_>, given: &Given) -> Outcome<Globs> {
    let mut globs = Globs::default();
    for (letter, value) in &given.options {
        match letter {
            '\x03' => globs.add(value, false),
            '\x07' => globs.add(value, true),
            '\x05' => match lines_of(call, value).await {
                Ok(text) => text.lines().for_each(|glob| globs.add(glob, false)),
                Err(error) => {
                    call.complain_of(value, &error).await?;
                    return Err(Failure::Usage(TROUBLE));
                }
            },
            _ => {}
        }
    }
    Ok(globs)
}

fn inside(given: &Given) -> Globs {
    let mut globs = Globs::default();
    for (_, value) in given.options.iter().filter(|(letter, _)| *letter == '\x04') {
        globs.add(value.trim_end_matches('/'), false);
    }
    globs
}
