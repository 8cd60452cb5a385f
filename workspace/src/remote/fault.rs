//! Why a greeting or a call fails: a number that both sides know, and words for
//! people.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cairn_protocol::wire::Text;
use serde::{Deserialize, Serialize};

use crate::exec::{ExecError, ExecId, RemoteFault, RuntimeId};

/// Longest explanation, in bytes.
const DETAIL_MAX: usize = 1024;

/// What is wrong (X9). Numbers that are not known are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Code(pub(crate) u16);

macro_rules! codes {
    ($($name:ident = $number:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "SPEC.md has the table")]
        impl Code {
            $(pub(crate) const $name: Self = Self($number);)*
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(concat!("X_", stringify!($name))),)*
                    Self(other) => write!(f, "code {other}"),
                }
            }
        }
    };
}

codes! {
    VERSION = 1, AUTH = 2, ROLE = 3, WORKSPACE = 4, MALFORMED = 5, SILENT = 6, BUSY = 7,
    UNSUPPORTED = 8, CLOSED = 9, NOT_IN_STEP = 10,
    BAD_ID = 20, DUPLICATE = 21, UNKNOWN = 22, CWD = 23, PROGRAM = 24, BAD_COMMAND = 25,
    BAD_SIGNAL = 26, EVICTED = 27, ENDED = 28, RUNNING = 29, INPUT_CLOSED = 30, NO_TERMINAL = 31,
    CONFINE = 32, START = 33, LOG = 34,
}

/// A failure, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} ({code})", &**detail)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    /// For people.
    pub(crate) detail: Text<DETAIL_MAX>,
    /// The oldest event that is kept, for `EVICTED`; the error of the system, for others.
    pub(crate) number: u64,
    /// The directory or the program, where it is about one.
    pub(crate) about: Text<DETAIL_MAX>,
}

impl Fault {
    pub(crate) fn new(code: Code, detail: &str) -> Self {
        Self {
            code,
            detail: Text::cut(detail),
            number: 0,
            about: Text::default(),
        }
    }

    fn source(&self) -> io::Error {
        match i32::try_from(self.number) {
            Ok(number) if number > 0 => io::Error::from_raw_os_error(number),
            _ => io::Error::other(self.detail.to_string()),
        }
    }

    /// What a caller at the host is told about an exec.
    pub(crate) fn about(self, id: &ExecId, runtime: &RuntimeId) -> ExecError {
        let id = id.clone();
        match self.code {
            Code::DUPLICATE => ExecError::Duplicate(id),
            Code::UNKNOWN => ExecError::Unknown {
                id,
                runtime: runtime.clone(),
            },
            Code::CWD => ExecError::Cwd {
                path: PathBuf::from(self.about.to_string()),
                source: self.source(),
            },
            Code::PROGRAM => ExecError::Program {
                program: self.about.to_string(),
                source: self.source(),
            },
            Code::EVICTED => ExecError::Evicted {
                id,
                // Who asked knows it.
                wanted: 0,
                oldest: self.number,
            },
            Code::ENDED => ExecError::Ended(id),
            Code::RUNNING => ExecError::Running(id),
            Code::INPUT_CLOSED => ExecError::InputClosed(id),
            Code::NO_TERMINAL => ExecError::NoTerminal(id),
            Code::CLOSED => ExecError::Closed,
            _ => ExecError::Remote(Box::new(self.into())),
        }
    }
}

impl From<Fault> for RemoteFault {
    fn from(fault: Fault) -> Self {
        Self {
            code: fault.code.0,
            name: fault.code.to_string(),
            detail: fault.detail.to_string(),
        }
    }
}

impl From<ExecError> for Fault {
    fn from(error: ExecError) -> Self {
        let mut text = error.to_string();
        let mut fault = Self::new(code(&error), "");
        match &error {
            ExecError::Evicted { oldest, .. } => fault.number = *oldest,
            ExecError::Cwd { path, source } => {
                fault.about = Text::cut(&path.to_string_lossy());
                fault.number = number(source);
            }
            ExecError::Program { program, source } => {
                fault.about = Text::cut(program);
                fault.number = number(source);
            }
            _ => {}
        }
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        fault.detail = Text::cut(&text);
        fault
    }
}

fn number(error: &io::Error) -> u64 {
    error
        .raw_os_error()
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or(0)
}

fn code(error: &ExecError) -> Code {
    match error {
        ExecError::BadId { .. } => Code::BAD_ID,
        ExecError::Duplicate(_) => Code::DUPLICATE,
        ExecError::Unknown { .. } => Code::UNKNOWN,
        ExecError::Cwd { .. } => Code::CWD,
        ExecError::Program { .. } => Code::PROGRAM,
        ExecError::BadCommand(_) => Code::BAD_COMMAND,
        ExecError::BadSignal(_) => Code::BAD_SIGNAL,
        ExecError::Evicted { .. } => Code::EVICTED,
        ExecError::Ended(_) => Code::ENDED,
        ExecError::Running(_) => Code::RUNNING,
        ExecError::InputClosed(_) => Code::INPUT_CLOSED,
        ExecError::NoTerminal(_) => Code::NO_TERMINAL,
        ExecError::Confine { .. } => Code::CONFINE,
        ExecError::Log { .. } | ExecError::Directory { .. } => Code::LOG,
        ExecError::Closed => Code::CLOSED,
        ExecError::NotSupported(_) => Code::UNSUPPORTED,
        ExecError::Remote(fault) => Code(fault.code),
        _ => Code::START,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_faults_are_numbered_and_unknown_ones_survive() {
        let named = [
            (1, "X_VERSION"),
            (10, "X_NOT_IN_STEP"),
            (20, "X_BAD_ID"),
            (27, "X_EVICTED"),
            (34, "X_LOG"),
        ];
        for (number, name) in named {
            assert_eq!(Code(number).to_string(), name);
        }
        let later = Fault::new(Code(999), "something new");
        let (id, runtime) = (ExecId::random(), RuntimeId::random());
        let error = later.about(&id, &runtime);
        assert_eq!(
            error.to_string(),
            "the sandbox reports: something new (code 999)"
        );
        assert_eq!(code(&error), Code(999));
    }
}
