//! `ln`: hard links and symbolic links.

use std::io;

use super::call::{Call, Outcome, Spot, is_dir, plain};
use super::options::{self, Given, Known};
use crate::shell::names::to_bytes;

const KNOWN: Known = Known {
    short: "fiLnPrst:Tv",
    long: &[
        ("force", 'f'),
        ("interactive", 'i'),
        ("logical", 'L'),
        ("no-dereference", 'n'),
        ("physical", 'P'),
        ("relative", 'r'),
        ("symbolic", 's'),
        ("target-directory=", 't'),
        ("no-target-directory", 'T'),
        ("verbose", 'v'),
    ],
    error_code: 1,
};

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let mut given = options::read(call, &KNOWN).await?;
    let mut operands = std::mem::take(&mut given.operands);
    if operands.is_empty() {
        return call.usage("missing file operand", 1).await;
    }
    if let Some(dir) = given.value('t') {
        let dir = dir.to_owned();
        return into(call, &given, &operands, &dir).await;
    }
    if given.has('T') && operands.len() != 2 {
        let what = match operands.get(2) {
            Some(extra) => format!("extra operand '{extra}'"),
            None => format!("missing destination file operand after '{}'", operands[0]),
        };
        return call.usage(&what, 1).await;
    }
    let last = if operands.len() == 1 {
        ".".to_owned()
    } else {
        operands.pop().unwrap_or_default()
    };
    if !given.has('T') && is_directory(call, &given, &last).await {
        return into(call, &given, &operands, &last).await;
    }
    if operands.len() > 1 {
        return call
            .fatal(&format!("target '{last}' is not a directory"), 1)
            .await;
    }
    link(call, &given, &operands[0], &last).await?;
    Ok(call.status())
}

async fn is_directory(call: &Call<'_>, given: &Given, path: &str) -> bool {
    let follow = !given.has('n');
    call.attributes(path, follow)
        .await
        .is_ok_and(|node| is_dir(&node))
}

async fn into(call: &Call<'_>, given: &Given, targets: &[String], dir: &str) -> Outcome {
    if !is_directory(call, given, dir).await {
        let what = format!("target directory '{dir}'");
        call.complain_of(&what, &io::Error::from_raw_os_error(libc::ENOTDIR))
            .await?;
        return Ok(1);
    }
    for target in targets {
        let name = target.trim_end_matches('/').rsplit('/').next();
        let path = format!("{}/{}", dir.trim_end_matches('/'), name.unwrap_or_default());
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        link(call, given, target, &path).await?;
    }
    Ok(call.status())
}

async fn link(call: &Call<'_>, given: &Given, target: &str, name: &str) -> Outcome<()> {
    let symbolic = given.has('s');
    let source = if symbolic {
        None
    } else {
        match source(call, given, target).await {
            Ok(source) => Some(source),
            Err(what) => return call.complain(&what).await,
        }
    };
    let kind = if symbolic { "symbolic" } else { "hard" };
    let failed = |error: io::Error| {
        let what = if symbolic {
            format!("failed to create {kind} link '{name}'")
        } else {
            format!("failed to create {kind} link '{name}' => '{target}'")
        };
        (what, error)
    };
    if let Err((what, error)) = make(call, given, target, name, source)
        .await
        .map_err(failed)
    {
        let text = what;
        // An existing name is named alone.
        let text = match error.kind() {
            io::ErrorKind::AlreadyExists => format!("failed to create {kind} link '{name}'"),
            _ => text,
        };
        return call.complain_of(&text, &error).await;
    }
    if given.has('v') {
        let arrow = if symbolic { "->" } else { "=>" };
        return call
            .out(format!("'{name}' {arrow} '{target}'\n").as_bytes())
            .await;
    }
    Ok(())
}

/// What gets another name.
async fn source(call: &Call<'_>, given: &Given, target: &str) -> Result<Vec<u8>, String> {
    let failed = |error: &io::Error| {
        format!(
            "failed to access '{target}': {}",
            super::call::reason(error)
        )
    };
    let spot = call
        .find(target, given.last_of("LP") == Some('L'))
        .await
        .map_err(|error| failed(&error))?;
    let node = call.look_at(&spot).await.map_err(|error| failed(&error))?;
    if is_dir(&node) {
        return Err(format!("{target}: hard link not allowed for directory"));
    }
    match spot {
        Spot::Store(path) => Ok(path),
        Spot::Tree(_) => Err(format!(
            "failed to create hard link to '{target}': there are hard links in the workspace only"
        )),
    }
}

async fn make(
    call: &Call<'_>,
    given: &Given,
    target: &str,
    name: &str,
    source: Option<Vec<u8>>,
) -> io::Result<()> {
    let place = call.find(name, false).await?;
    if given.has('f')
        && let Ok(old) = call.look_at(&place).await
        && !is_dir(&old)
        && !is_same(source.as_ref(), &place)
    {
        remove(call, &place).await?;
    }
    let client = &call.place.client;
    match (source, place) {
        (Some(source), Spot::Store(path)) => client.link(source, path),
        (Some(_), Spot::Tree(_)) => Err(io::Error::from_raw_os_error(libc::EXDEV)),
        (None, Spot::Store(path)) => {
            let target = says(call, given, target, name).await?;
            client.symlink(to_bytes(&target), path)
        }
        (None, Spot::Tree(path)) => {
            let target = says(call, given, target, name).await?;
            let fs = &call.context.fs;
            fs.symlink(target.as_ref(), &path).await.map_err(plain)
        }
    }
}

fn is_same(source: Option<&Vec<u8>>, place: &Spot) -> bool {
    matches!((source, place), (Some(source), Spot::Store(path)) if source == path)
}

async fn remove(call: &Call<'_>, spot: &Spot) -> io::Result<()> {
    match spot {
        Spot::Store(path) => call.place.client.remove(path.clone(), false),
        Spot::Tree(path) => call.context.fs.remove(path, false).await.map_err(plain),
    }
}

/// What a symbolic link says: with `-r` the way from where it is.
async fn says(call: &Call<'_>, given: &Given, target: &str, name: &str) -> io::Result<String> {
    if !given.has('r') {
        return Ok(target.to_owned());
    }
    let to = call.follow(&call.path(target), true).await?;
    let from = call.follow(&call.path(name), false).await?;
    let to: Vec<_> = to.components().collect();
    let from: Vec<_> = from
        .parent()
        .map(|dir| dir.components().collect())
        .unwrap_or_default();
    let same = to.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), from.len() - same);
    let down = to[same..]
        .iter()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    let parts: Vec<String> = up.chain(down).collect();
    if parts.is_empty() {
        return Ok(".".into());
    }
    Ok(parts.join("/"))
}
