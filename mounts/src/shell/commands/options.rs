//! Options of a tool, as GNU's `getopt_long` reads them.

use super::call::{Call, Outcome};

/// The options that a tool knows.
#[derive(Debug)]
pub(crate) struct Known {
    /// Letters; one with a `:` after it has a value.
    pub(crate) short: &'static str,
    /// Long names, and the letter that each stands for. One with a `=` at its
    /// end has a value; one with `?` may have one after `=`.
    pub(crate) long: &'static [(&'static str, char)],
    /// The exit status when the options make no sense.
    pub(crate) error_code: i32,
}

/// What a tool was called with.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Options in order, with their values.
    pub(crate) options: Vec<(char, String)>,
    /// The rest.
    pub(crate) operands: Vec<String>,
}

impl Given {
    /// Whether an option was given.
    pub(crate) fn has(&self, option: char) -> bool {
        self.options.iter().any(|(given, _)| *given == option)
    }

    /// The last value of an option.
    pub(crate) fn value(&self, option: char) -> Option<&str> {
        let mut given = self.options.iter().rev();
        let found = given.find(|(letter, _)| *letter == option);
        found.map(|(_, value)| value.as_str())
    }

    /// Which of these options was given last.
    pub(crate) fn last_of(&self, options: &str) -> Option<char> {
        let mut given = self.options.iter().rev().map(|(letter, _)| *letter);
        given.find(|letter| options.contains(*letter))
    }

    /// The operands, or `-` if there are none.
    pub(crate) fn files(&self) -> Vec<&str> {
        if self.operands.is_empty() {
            return vec!["-"];
        }
        self.operands.iter().map(String::as_str).collect()
    }
}

/// Reads the arguments of a call.
pub(crate) async fn read(call: &Call<'_>, known: &Known) -> Outcome<Given> {
    match parse(call.args(), known) {
        Ok(given) => Ok(given),
        Err(what) => call.usage(&what, known.error_code).await,
    }
}

/// Reads arguments, or says what is wrong with them.
pub(crate) fn parse(args: &[String], known: &Known) -> Result<Given, String> {
    let mut given = Given::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            given.operands.extend(args.cloned());
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let option = long_option(long, known, &mut args)?;
            given.options.push(option);
        } else if arg.len() > 1 && arg.starts_with('-') {
            short_options(&arg[1..], known, &mut args, &mut given)?;
        } else {
            given.operands.push(arg.clone());
        }
    }
    Ok(given)
}

fn short_options<'a>(
    letters: &str,
    known: &Known,
    args: &mut impl Iterator<Item = &'a String>,
    given: &mut Given,
) -> Result<(), String> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let at = known.short.find(letter).filter(|_| letter != ':');
        let at = at.ok_or_else(|| format!("invalid option -- '{letter}'"))?;
        let has_value = known.short[at + letter.len_utf8()..].starts_with(':');
        if !has_value {
            given.options.push((letter, String::new()));
            continue;
        }
        let attached = rest.as_str();
        let value = if attached.is_empty() {
            let next = args.next().cloned();
            next.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?
        } else {
            attached.to_owned()
        };
        given.options.push((letter, value));
        return Ok(());
    }
    Ok(())
}

fn long_option<'a>(
    long: &str,
    known: &Known,
    args: &mut impl Iterator<Item = &'a String>,
) -> Result<(char, String), String> {
    let (name, attached) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let bare = |known: &'static str| known.trim_end_matches(['=', '?']);
    let exact = known.long.iter().find(|(known, _)| bare(known) == name);
    let mut starts = known
        .long
        .iter()
        .filter(|(known, _)| known.starts_with(name));
    let found = match (exact, starts.next(), starts.next()) {
        (Some(found), ..) | (None, Some(found), None) => found,
        (None, Some(_), Some(_)) => return Err(format!("option '--{name}' is ambiguous")),
        (None, None, _) => return Err(format!("unrecognized option '--{name}'")),
    };
    let (spelled, letter) = *found;
    match (spelled.ends_with('='), attached) {
        (true, Some(value)) => Ok((letter, value)),
        (true, None) => {
            let next = args.next().cloned();
            let missing = || format!("option '--{}' requires an argument", bare(spelled));
            Ok((letter, next.ok_or_else(missing)?))
        }
        (false, Some(_)) if !spelled.ends_with('?') => {
            Err(format!("option '--{spelled}' doesn't allow an argument"))
        }
        (false, value) => Ok((letter, value.unwrap_or_default())),
    }
}

/// A number with a suffix of size, such as `10`, `2K` and `1MB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let unit: u64 = match suffix {
        "" | "c" => 1,
        "w" => 2,
        "b" => 512,
        "k" | "K" | "KiB" => 1 << 10,
        "kB" | "KB" => 1_000,
        "M" | "MiB" => 1 << 20,
        "MB" => 1_000_000,
        "G" | "GiB" => 1 << 30,
        "GB" => 1_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    if number.is_empty() && suffix.is_empty() {
        return None;
    }
    let number: u64 = if number.is_empty() {
        1
    } else {
        number.parse().ok()?
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        short: "an:",
        long: &[("all", 'a'), ("lines=", 'n'), ("color?", 'c')],
        error_code: 1,
    };

    fn given(args: &[&str]) -> Result<Given, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        parse(&args, &KNOWN)
    }

    #[test]
    fn options_may_be_anywhere() {
        let given = given(&["x", "-an3", "--lines=5", "--co", "--", "-a"]).unwrap();
        assert_eq!(given.operands, ["x", "-a"]);
        assert_eq!(given.value('n'), Some("5"));
        assert!(given.has('a') && given.has('c'));
    }

    #[test]
    fn what_is_wrong_is_said_as_by_getopt() {
        assert_eq!(given(&["-z"]).unwrap_err(), "invalid option -- 'z'");
        assert_eq!(
            given(&["-n"]).unwrap_err(),
            "option requires an argument -- 'n'"
        );
        assert_eq!(given(&["--zz"]).unwrap_err(), "unrecognized option '--zz'");
        assert!(given(&["--all=1"]).unwrap_err().contains("doesn't allow"));
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("3"), Some(3));
        assert_eq!(size("2K"), Some(2048));
        assert_eq!(size("1MB"), Some(1_000_000));
        for bad in ["", "x", "-1", "1Q", "99999999999999999999"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
