//! `cairn exec`: one bash script on a replica, without a mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_mounts::shell::{HostCommands, Job, Limits, Program, Stop, Worker};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Result};
use crate::host::{self, Host};
use crate::locate::{locate, shown};

/// Where scripts see the workspace.
pub(crate) const ROOT: &str = "/workspace";
/// Input that is read at a time.
const PIECE: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A replica, or a directory in one, in which the script starts
    #[arg(value_name = "PLACE")]
    place: PathBuf,
    /// The script, and what $1 and so on are in it
    #[arg(value_name = "SCRIPT", required = true, last = true)]
    script: Vec<String>,
    /// A variable for the script
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// End it after so many seconds, with exit code 124
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    script: String,
    arguments: Vec<String>,
    cwd: Vec<u8>,
    env: Vec<(String, String)>,
    timeout: Option<Duration>,
    input: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    use std::io::IsTerminal;
    let place = locate(None, Some(&args.place))?;
    let mut words = args.script.iter().cloned();
    let variable = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(Failure::Usage(format!(
            "{text:?} is no variable; write NAME=VALUE"
        ))),
    };
    let timeout = args.timeout.map(Duration::try_from_secs_f64).transpose();
    let request = Request {
        script: words.next().unwrap_or_default(),
        arguments: words.collect(),
        cwd: place.path,
        env: args.env.iter().map(variable).collect::<Result<_>>()?,
        timeout: timeout.map_err(|_| Failure::Usage("--timeout is a number of seconds".into()))?,
        // A person who types at a terminal is not waited for.
        input: !std::io::stdin().is_terminal(),
    };
    host::perform(&place.replica, host::Request::Exec(Box::new(request)))
}

pub(crate) fn perform(request: Request, host: &Host, console: &mut dyn Console) -> Result {
    let mut stdin = Vec::new();
    if request.input {
        let (mut piece, most) = (vec![0; PIECE], Limits::default().whole_file_bytes);
        loop {
            match console.input(&mut piece)? {
                0 => break,
                read => stdin.extend_from_slice(&piece[..read]),
            }
            if stdin.len() as u64 > most {
                return Err(Failure::Refused(format!(
                    "the standard input is larger than {most} bytes; import it as a file"
                )));
            }
        }
    }
    let mut worker = start(host)?;
    let job = Job {
        cwd: Some(directory(host, &request.cwd)?),
        script: request.script.into_bytes(),
        arguments: request.arguments,
        env: request.env,
        timeout: request.timeout,
        stdin,
        ..Job::default()
    };
    let stop = Stop::new().map_err(Failure::io("cannot run a script"))?;
    let mut closed = None;
    let ended = worker.run(&job, &stop, &mut |is_error, bytes| {
        let told = if is_error {
            console.error(bytes)
        } else {
            console.out(bytes).and_then(|()| console.flush())
        };
        if let Err(failure) = told {
            // Nobody is left to run it for.
            stop.stop();
            closed.get_or_insert(failure);
        }
    });
    match closed {
        Some(failure) => Err(failure),
        None => Ok(Outcome::Status(u8::try_from(ended.code).unwrap_or(1))),
    }
}

/// A process for scripts on a replica.
pub(crate) fn start(host: &Host) -> Result<Worker> {
    let program = Program {
        path: "/proc/self/exe".into(),
        arguments: vec![cairn::backend::shell::WORKER.into()],
    };
    let commands = Arc::new(HostCommands::new());
    Worker::start(&program, &host.replica, ROOT, &Limits::default(), &commands)
        .map_err(Failure::io("cannot start the process for scripts"))
}

/// A directory of the replica in the shell's names.
pub(crate) fn directory(host: &Host, path: &[u8]) -> Result<String> {
    let attr = host.replica.stat(path).map_err(Failure::fs(shown(path)))?;
    if attr.kind != cairn::NodeKind::Dir {
        return Err(Failure::Refused(format!(
            "{} is no directory, so no script can start in it",
            shown(path)
        )));
    }
    let path = String::from_utf8(path.to_vec()).map_err(|_| {
        Failure::Refused(format!(
            "{} is not UTF-8, so no script can start in it",
            shown(path)
        ))
    })?;
    Ok(format!("{ROOT}{}", path.trim_end_matches('/')))
}
