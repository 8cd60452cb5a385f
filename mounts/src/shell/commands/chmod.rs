//! `chmod`, with `-R`.

use super::call::{Call, Outcome, Spot, is_dir, is_link, plain};
use super::modes::{Mode, letters};
use super::options::{Given, Known, parse};
use crate::shell::names::to_text;
use crate::shell::wire::{Change, Node};

const KNOWN: Known = Known {
    short: "RcfvrwxXstugoa",
    long: &[
        ("recursive", 'R'),
        ("changes", 'c'),
        ("silent", 'f'),
        ("quiet", 'f'),
        ("verbose", 'v'),
        ("reference=", '='),
    ],
    error_code: 1,
};

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let (args, minus) = without_mode(call.args());
    let mut given = match parse(&args, &KNOWN) {
        Ok(given) => given,
        Err(what) => return call.usage(&what, 1).await,
    };
    let mode = mode(call, &mut given, minus).await?;
    if given.operands.is_empty() {
        return call.usage("missing operand", 1).await;
    }
    for file in given.operands.clone() {
        change(call, &given, &mode, &file).await?;
    }
    Ok(call.status())
}

/// A mode such as `-x` looks like an option.
fn without_mode(args: &[String]) -> (Vec<String>, Option<String>) {
    let looks = |arg: &String| {
        arg.len() > 1
            && arg.starts_with('-')
            && arg[1..].chars().all(|c| "rwxXstugo,+-=".contains(c))
    };
    match args.iter().position(looks) {
        Some(at) => {
            let mut rest = args.to_vec();
            let mode = rest.remove(at);
            (rest, Some(mode))
        }
        None => (args.to_vec(), None),
    }
}

async fn mode(call: &Call<'_>, given: &mut Given, minus: Option<String>) -> Outcome<Mode> {
    if let Some(file) = given.value('=') {
        match call.attributes(file, true).await {
            Ok(node) => return Ok(Mode::Bits(node.perm, true)),
            Err(error) => {
                let what = format!("failed to get attributes of '{file}'");
                call.complain_of(&what, &error).await?;
                return Err(super::call::Failure::Usage(1));
            }
        }
    }
    let text = match minus {
        Some(text) => text,
        None if given.operands.is_empty() => return call.usage("missing operand", 1).await,
        None => given.operands.remove(0),
    };
    match Mode::parse(&text) {
        Some(mode) if given.operands.is_empty() => {
            drop(mode);
            call.usage(&format!("missing operand after '{text}'"), 1)
                .await
        }
        Some(mode) => Ok(mode),
        None => call.usage(&format!("invalid mode: '{text}'"), 1).await,
    }
}

async fn change(call: &Call<'_>, given: &Given, mode: &Mode, file: &str) -> Outcome<()> {
    let quiet = given.has('f');
    let found = match call.find(file, true).await {
        Ok(spot) => call.look_at(&spot).await.map(|node| (spot, node)),
        Err(error) => Err(error),
    };
    let (spot, node) = match found {
        Ok(found) => found,
        Err(_) if quiet => return Ok(()),
        Err(error) => {
            return call
                .complain_of(&format!("cannot access '{file}'"), &error)
                .await;
        }
    };
    let mut stack = vec![(file.to_owned(), spot, node)];
    while let Some((name, spot, node)) = stack.pop() {
        // A link below a directory has no permissions of its own, and is not followed.
        if is_link(&node) {
            continue;
        }
        set(call, given, mode, &name, &spot, &node).await?;
        if !(given.has('R') && is_dir(&node)) {
            continue;
        }
        match call.entries(&spot).await {
            Ok(entries) => {
                for (entry, below) in entries {
                    let path = format!("{}/{}", name.trim_end_matches('/'), to_text(&entry));
                    stack.push((path, spot.join(&entry), below));
                }
            }
            Err(error) => {
                call.complain_of(&format!("cannot read directory '{name}'"), &error)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn set(
    call: &Call<'_>,
    given: &Given,
    mode: &Mode,
    name: &str,
    spot: &Spot,
    node: &Node,
) -> Outcome<()> {
    let perm = mode.apply(node.perm, call.place.client.umask(), is_dir(node));
    let done = match spot {
        Spot::Store(path) => {
            let change = Change {
                perm: Some(perm),
                ..Change::default()
            };
            call.place.client.set(path.clone(), change)
        }
        Spot::Tree(path) => {
            let fs = &call.context.fs;
            fs.chmod(path, u32::from(perm)).await.map_err(plain)
        }
    };
    if let Err(error) = done {
        return call
            .complain_of(&format!("changing permissions of '{name}'"), &error)
            .await;
    }
    let before = node.perm;
    let line = if before != perm && given.last_of("cv").is_some() {
        format!(
            "mode of '{name}' changed from {before:04o} ({}) to {perm:04o} ({})\n",
            letters(before),
            letters(perm),
        )
    } else if given.has('v') {
        format!(
            "mode of '{name}' retained as {perm:04o} ({})\n",
            letters(perm)
        )
    } else {
        return Ok(());
    };
    call.out(line.as_bytes()).await
}
