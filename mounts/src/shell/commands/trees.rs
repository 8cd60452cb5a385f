//! Directories compared: what `diff` does with them.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::call::{Call, Outcome, is_dir};
use super::diff::{TROUBLE, files};
use super::options::Given;
use crate::shell::names::to_text;

/// A name in one or both of two directories.
struct Pair {
    dirs: [String; 2],
    name: String,
    /// Whether it is a directory, where there is one.
    kinds: [Option<bool>; 2],
}

impl Pair {
    fn paths(&self) -> [String; 2] {
        let join = |dir: &String| format!("{}/{}", dir.trim_end_matches('/'), self.name);
        [join(&self.dirs[0]), join(&self.dirs[1])]
    }
}

/// Compares two directories; with `-r` those in them too.
pub(crate) async fn compare(call: &Call<'_>, given: &Given, old: &str, new: &str) -> Outcome {
    let mut code = 0;
    let dirs = [old.to_owned(), new.to_owned()];
    let mut stack = vec![pairs(call, given, dirs, &mut code).await?];
    while let Some(left) = stack.last_mut() {
        let Some(pair) = left.pop_front() else {
            stack.pop();
            continue;
        };
        let both = pair.kinds == [Some(true), Some(true)];
        let one = given.has('N') && matches!(pair.kinds, [Some(true), None] | [None, Some(true)]);
        if given.has('r') && (both || one) {
            stack.push(pairs(call, given, pair.paths(), &mut code).await?);
        } else {
            code = code.max(tell(call, given, &pair).await?);
        }
    }
    Ok(code)
}

/// Compares, or tells apart, what is no pair of directories to look into.
async fn tell(call: &Call<'_>, given: &Given, pair: &Pair) -> Outcome {
    let [a, b] = pair.paths();
    let line = match pair.kinds {
        [Some(true), Some(true)] => {
            let line = format!("Common subdirectories: {a} and {b}\n");
            call.out(line.as_bytes()).await?;
            return Ok(0);
        }
        [Some(false), Some(false)] => return file(call, given, &a, &b).await,
        [Some(false), None] | [None, Some(false)] if given.has('N') => {
            return file(call, given, &a, &b).await;
        }
        [Some(old), Some(new)] => {
            let kind = |dir| if dir { "directory" } else { "regular file" };
            let (old, new) = (kind(old), kind(new));
            format!("File {a} is a {old} while file {b} is a {new}\n")
        }
        kinds => {
            let dir = &pair.dirs[usize::from(kinds[0].is_none())];
            format!("Only in {}: {}\n", dir.trim_end_matches('/'), pair.name)
        }
    };
    call.out(line.as_bytes()).await?;
    Ok(1)
}

async fn file(call: &Call<'_>, given: &Given, a: &str, b: &str) -> Outcome {
    // The options it was called with are told above each file.
    let options = call
        .args()
        .iter()
        .filter(|arg| arg.len() > 1 && arg.starts_with('-'));
    let options = options.fold(String::new(), |told, option| told + " " + option);
    let above = format!("diff{options} {a} {b}\n");
    files(call, given, a, b, Some(above)).await
}

/// The names in two directories, in order.
async fn pairs(
    call: &Call<'_>,
    given: &Given,
    dirs: [String; 2],
    code: &mut i32,
) -> Outcome<VecDeque<Pair>> {
    let mut names: BTreeMap<String, [Option<bool>; 2]> = BTreeMap::new();
    for (side, dir) in dirs.iter().enumerate() {
        match entries(call, dir).await {
            Ok(entries) => {
                for (name, is_dir) in entries {
                    names.entry(name).or_default()[side] = Some(is_dir);
                }
            }
            Err(error) => {
                call.complain_of(dir, &error).await?;
                *code = TROUBLE;
            }
        }
    }
    let excluded = |name: &String| {
        let mut options = given.options.iter();
        options.any(|(letter, value)| *letter == 'x' && value == name)
    };
    let pair = |(name, kinds)| Pair {
        dirs: dirs.clone(),
        name,
        kinds,
    };
    let kept = names.into_iter().filter(|(name, _)| !excluded(name));
    Ok(kept.map(pair).collect())
}

/// The entries of a directory, and which are directories. None if it is not there.
async fn entries(call: &Call<'_>, dir: &str) -> io::Result<Vec<(String, bool)>> {
    let found = match call.find(dir, true).await {
        Ok(spot) => call.entries(&spot).await,
        Err(error) => Err(error),
    };
    let entries = match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found?,
    };
    let entry = |(name, node): (Vec<u8>, _)| (to_text(&name), is_dir(&node));
    Ok(entries.into_iter().map(entry).collect())
}
