//! Signals by name and number.

use std::fmt;
use std::str::FromStr;

use rustix::process::Signal as Raw;

use super::{ExecError, Result};

/// The names that a caller may use.
const NAMES: [(&str, Raw); 27] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("ILL", Raw::ILL),
    ("TRAP", Raw::TRAP),
    ("ABRT", Raw::ABORT),
    ("BUS", Raw::BUS),
    ("FPE", Raw::FPE),
    ("KILL", Raw::KILL),
    ("USR1", Raw::USR1),
    ("SEGV", Raw::SEGV),
    ("USR2", Raw::USR2),
    ("PIPE", Raw::PIPE),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("CHLD", Raw::CHILD),
    ("CONT", Raw::CONT),
    ("STOP", Raw::STOP),
    ("TSTP", Raw::TSTP),
    ("TTIN", Raw::TTIN),
    ("TTOU", Raw::TTOU),
    ("URG", Raw::URG),
    ("XCPU", Raw::XCPU),
    ("XFSZ", Raw::XFSZ),
    ("PROF", Raw::PROF),
    ("WINCH", Raw::WINCH),
    ("SYS", Raw::SYS),
];

/// A signal for a process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(Raw);

impl Signal {
    /// Asks to end.
    pub const TERM: Self = Self(Raw::TERM);
    /// Ends, unasked.
    pub const KILL: Self = Self(Raw::KILL);
    /// What Ctrl-C sends.
    pub const INT: Self = Self(Raw::INT);
    /// The terminal is gone.
    pub const HUP: Self = Self(Raw::HUP);

    /// The signal's number.
    pub fn number(self) -> i32 {
        self.0.as_raw()
    }

    /// The signal of a number.
    ///
    /// # Errors
    ///
    /// [`ExecError::BadSignal`] for one that has no name.
    pub fn from_number(number: i32) -> Result<Self> {
        Raw::from_named_raw(number)
            .map(Self)
            .ok_or_else(|| ExecError::BadSignal(number.to_string()))
    }

    /// Whether it is sent so that the process ends.
    pub(crate) fn ends(self) -> bool {
        [Self::TERM, Self::KILL, Self::INT, Self::HUP].contains(&self) || self.0 == Raw::QUIT
    }
}

impl FromStr for Signal {
    type Err = ExecError;

    /// Reads `TERM`, `SIGTERM`, `term` or `15`.
    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, raw)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*raw));
        }
        name.parse()
            .ok()
            .and_then(|number| Self::from_number(number).ok())
            .ok_or_else(|| ExecError::BadSignal(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, raw)| *raw == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal::TERM);
        }
        for text in ["", "SIG", "0", "-9", "99", "FOO", "SIGSIGTERM", "9 "] {
            assert!(
                matches!(text.parse::<Signal>(), Err(ExecError::BadSignal(_))),
                "{text:?}"
            );
        }
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
    }
}
