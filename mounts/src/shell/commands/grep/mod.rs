//! `grep`, `egrep` and `fgrep`: lines that match patterns, of any bytes, in
//! files of any size.
//!
//! | module | owns |
//! | --- | --- |
//! | `given` | the options |
//! | `perl`, and `posix` beside it | patterns in the notation of our regular expressions |
//! | `matcher` | patterns made ready, and the search through many lines at once |
//! | `search`, `style` | one file: its lines, their context, how they are printed |
//! | `files`, `globs` | which files are searched |
//!
//! Characters are those of UTF-8, in patterns and in files; a byte that is none
//! is matched by nothing but itself. A file is binary if it has a NUL.

mod files;
mod given;
mod globs;
mod matcher;
mod perl;
mod search;
mod style;
#[cfg(test)]
mod tests;

use super::call::{Call, Outcome};
use files::Files;
use matcher::Matcher;

/// The exit status when something failed.
const TROUBLE: i32 = 2;

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let wanted = given::read(call).await?;
    let matcher = match Matcher::new(&wanted.patterns, wanted.how) {
        Ok((matcher, warnings)) => {
            for warning in warnings {
                call.complain(&format!("warning: {warning}")).await?;
            }
            matcher
        }
        Err(what) => return call.fatal(&what, TROUBLE).await,
    };
    if wanted.style.most == 0 {
        return Ok(1);
    }
    let mut files = Files::new(call, &wanted, &matcher);
    files.all().await?;
    Ok(files.status())
}
