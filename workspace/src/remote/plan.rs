//! A command and its options, as they are sent: no machine's own types.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::wire::{Blob, List};
use serde::{Deserialize, Serialize};

use super::fault::{Code, Fault};
use super::wire::PIECE_MAX;
use crate::exec::{Command, ExecId, ExecOptions, Keep, Limits, Stdin, Terminal};

/// Longest word of a command, and longest variable, in bytes: the kernel takes no
/// more than 128 KiB each.
const WORD_MAX: usize = 128 << 10;
/// Most words, and most variables.
const WORDS_MAX: usize = 16_384;
/// Longest path, in bytes.
const PATH_MAX: usize = 4_096;

type Word = Blob<WORD_MAX>;

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The one word is a script.
    script: bool,
    words: List<Word, WORDS_MAX>,
    cwd: Option<Blob<PATH_MAX>>,
    env: List<(Word, Word), WORDS_MAX>,
    input: Input,
    terminal: Option<(u16, u16)>,
    timeout_ms: Option<u64>,
    kill_after_ms: u64,
    linger_ms: u64,
    detach: bool,
    limits: [Option<u64>; 5],
    keep_unread: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Input {
    Empty,
    Bytes(Blob<PIECE_MAX>),
    Stream,
}

fn too_long() -> Fault {
    Fault::new(
        Code::BAD_COMMAND,
        "a word of the command, a variable or the working directory is too long, or there are too \
         many; write it to a file of the workspace instead",
    )
}

fn blob<const MAX: usize>(bytes: &[u8]) -> Result<Blob<MAX>, Fault> {
    Blob::try_from(Bytes::copy_from_slice(bytes)).map_err(|_| too_long())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Plan {
    /// What is sent, and what has to be written to the standard input afterwards.
    pub(crate) fn new(command: &Command, options: &ExecOptions) -> Result<(Self, Bytes), Fault> {
        let (script, words) = match command {
            Command::Shell(source) => (true, vec![blob(source.as_bytes())?]),
            Command::Argv(words) => {
                let words = words.iter().map(|word| blob(word.as_bytes()));
                (false, words.collect::<Result<Vec<_>, _>>()?)
            }
        };
        let env = options.env.iter();
        let env = env.map(|(name, value)| Ok((blob(name.as_bytes())?, blob(value.as_bytes())?)));
        let cwd = options.cwd.as_deref();
        let (input, rest) = input(&options.stdin)?;
        let limits = options.limits;
        let plan = Self {
            script,
            words: words.try_into().map_err(|_| too_long())?,
            cwd: cwd
                .map(|cwd| blob(cwd.as_os_str().as_bytes()))
                .transpose()?,
            env: env
                .collect::<Result<Vec<_>, Fault>>()?
                .try_into()
                .map_err(|_| too_long())?,
            input,
            terminal: options.terminal.map(|size| (size.rows, size.columns)),
            timeout_ms: options.timeout.map(ms),
            kill_after_ms: ms(options.kill_after),
            linger_ms: ms(options.linger),
            detach: options.detach,
            limits: [
                limits.cpu_seconds,
                limits.address_space_bytes,
                limits.file_bytes,
                limits.open_files,
                limits.processes,
            ],
            keep_unread: options.keep == Keep::Unread,
        };
        Ok((plan, rest))
    }

    /// Where it is to run.
    pub(crate) fn cwd(&self) -> Option<PathBuf> {
        let cwd = self.cwd.as_ref()?;
        Some(OsString::from_vec(cwd.to_vec()).into())
    }

    /// The command and its options, for this machine.
    pub(crate) fn into_command(self, id: ExecId) -> (Command, ExecOptions) {
        let cwd = self.cwd();
        let word = |word: &Word| OsString::from_vec(word.to_vec());
        let mut words = self.words.iter().map(word);
        let command = if self.script {
            Command::Shell(words.next().unwrap_or_default())
        } else {
            Command::Argv(words.collect())
        };
        let [
            cpu_seconds,
            address_space_bytes,
            file_bytes,
            open_files,
            processes,
        ] = self.limits;
        let env = self.env.iter();
        let options = ExecOptions {
            id: Some(id),
            backend: None,
            cwd,
            env: env.map(|(name, value)| (word(name), word(value))).collect(),
            stdin: match self.input {
                Input::Empty => Stdin::Empty,
                Input::Bytes(bytes) => Stdin::Bytes(bytes.into_bytes()),
                Input::Stream => Stdin::Stream,
            },
            terminal: self
                .terminal
                .map(|(rows, columns)| Terminal { rows, columns }),
            timeout: self.timeout_ms.map(Duration::from_millis),
            kill_after: Duration::from_millis(self.kill_after_ms),
            linger: Duration::from_millis(self.linger_ms),
            detach: self.detach,
            limits: Limits {
                cpu_seconds,
                address_space_bytes,
                file_bytes,
                open_files,
                processes,
            },
            keep: if self.keep_unread {
                Keep::Unread
            } else {
                Keep::Newest
            },
        };
        (command, options)
    }
}

/// A long input is written when the command has begun.
fn input(stdin: &Stdin) -> Result<(Input, Bytes), Fault> {
    Ok(match stdin {
        Stdin::Empty => (Input::Empty, Bytes::new()),
        Stdin::Bytes(bytes) if bytes.len() > PIECE_MAX => (Input::Stream, bytes.clone()),
        Stdin::Bytes(bytes) => (Input::Bytes(blob(bytes)?), Bytes::new()),
        Stdin::Stream => (Input::Stream, Bytes::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_arrives_as_it_was_sent() {
        let options = ExecOptions {
            cwd: Some("a b".into()),
            env: vec![("A".into(), OsString::from_vec(vec![0xff]))],
            stdin: Stdin::Bytes(Bytes::from_static(b"in")),
            terminal: Some(Terminal::default()),
            timeout: None,
            detach: true,
            keep: Keep::Unread,
            limits: Limits {
                open_files: Some(7),
                ..Limits::default()
            },
            ..ExecOptions::default()
        };
        for command in [Command::from("echo"), Command::argv(["a", "b"])] {
            let (plan, rest) = Plan::new(&command, &options).unwrap();
            assert!(rest.is_empty());
            let id = ExecId::random();
            let (came, with) = plan.into_command(id.clone());
            assert_eq!(came, command);
            let sent = ExecOptions {
                id: Some(id),
                ..options.clone()
            };
            assert_eq!(format!("{with:?}"), format!("{sent:?}"));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_a_long_input_is_not() {
        let long = Command::from("x".repeat(WORD_MAX + 1));
        let refused = Plan::new(&long, &ExecOptions::default()).unwrap_err();
        assert_eq!(refused.code, Code::BAD_COMMAND);
        let options = ExecOptions {
            stdin: Stdin::Bytes(vec![0; PIECE_MAX + 1].into()),
            ..ExecOptions::default()
        };
        let (plan, rest) = Plan::new(&"cat".into(), &options).unwrap();
        assert_eq!((plan.input, rest.len()), (Input::Stream, PIECE_MAX + 1));
    }
}
