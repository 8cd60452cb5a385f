//! `mkdir`, with the mode of `-m`.

use std::io;

use super::call::{Call, Outcome, Spot, is_dir, plain};
use super::modes::Mode;
use super::options::{self, Given, Known};
use crate::shell::wire::Change;

const KNOWN: Known = Known {
    short: "m:pv",
    long: &[("mode=", 'm'), ("parents", 'p'), ("verbose", 'v')],
    error_code: 1,
};

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    if given.operands.is_empty() {
        return call.usage("missing operand", 1).await;
    }
    let mode = match given.value('m') {
        None => None,
        Some(text) => match Mode::parse(text) {
            Some(mode) => Some(mode),
            None => return call.fatal(&format!("invalid mode '{text}'"), 1).await,
        },
    };
    for dir in &given.operands {
        let mut parts = vec![dir.trim_end_matches('/')];
        while given.has('p')
            && let Some((above, _)) = parts[parts.len() - 1].rsplit_once('/')
            && !above.is_empty()
        {
            parts.push(above);
        }
        for part in parts.into_iter().rev() {
            let last = part.len() == dir.trim_end_matches('/').len();
            let mode = mode.as_ref().filter(|_| last);
            if let Err(error) = make(call, &given, part, mode).await? {
                let what = format!("cannot create directory '{part}'");
                call.complain_of(&what, &error).await?;
                break;
            }
        }
    }
    Ok(call.status())
}

async fn make(
    call: &Call<'_>,
    given: &Given,
    dir: &str,
    mode: Option<&Mode>,
) -> Outcome<io::Result<()>> {
    let dir = if dir.is_empty() { "/" } else { dir };
    let done = match call.find(dir, given.has('p')).await {
        Ok(spot) => match at(call, &spot).await {
            Ok(()) => Ok(spot),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match done {
        Ok(spot) => {
            if given.has('v') {
                let line = format!("mkdir: created directory '{dir}'\n");
                call.out(line.as_bytes()).await?;
            }
            Ok(match mode {
                Some(mode) => {
                    permit(
                        call,
                        &spot,
                        mode.apply(0o777, call.place.client.umask(), true),
                    )
                    .await
                }
                None => Ok(()),
            })
        }
        Err(_) if given.has('p') && is_there(call, dir).await => Ok(Ok(())),
        Err(error) => Ok(Err(error)),
    }
}

async fn is_there(call: &Call<'_>, dir: &str) -> bool {
    call.attributes(dir, true)
        .await
        .is_ok_and(|node| is_dir(&node))
}

async fn at(call: &Call<'_>, spot: &Spot) -> io::Result<()> {
    match spot {
        Spot::Store(path) if path == b"/" => Err(io::ErrorKind::AlreadyExists.into()),
        Spot::Store(path) => call.place.client.make_dir(path.clone(), false),
        Spot::Tree(path) => call.context.fs.mkdir(path, false).await.map_err(plain),
    }
}

async fn permit(call: &Call<'_>, spot: &Spot, perm: u16) -> io::Result<()> {
    match spot {
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
    }
}
