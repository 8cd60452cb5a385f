//! Names of execs and of runtimes.

use std::fmt;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{ExecError, Result};

/// Longest id, in bytes: with a suffix it is the name of a file.
const ID_MAX: usize = 128;

/// The name of an exec, unique in its runtime: 1 to 128 letters, digits, `-`,
/// `_` and `.`, of which the first is a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(String);

impl ExecId {
    /// A new one that nobody has used.
    pub fn random() -> Self {
        Self(format!("x{}", token()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecId {
    type Err = ExecError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why| {
            let id = text.chars().take(ID_MAX).collect();
            Err(ExecError::BadId { id, why })
        };
        if text.is_empty() {
            return bad("it is empty");
        }
        if text.len() > ID_MAX {
            return bad("it is longer than 128 bytes");
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !text.bytes().all(allowed) || !text.as_bytes()[0].is_ascii_alphanumeric() {
            return bad(
                "it may have letters, digits, `-`, `_` and `.`, and begins with one of the first two",
            );
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of what runs execs: another one after each start, so that an
/// exec of an earlier one is known to be lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuntimeId(String);

impl RuntimeId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("r{}", token()))
    }

    /// One that another machine told.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuntimeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 80 random bits in hexadecimal.
fn token() -> String {
    let mut bytes = [0; 10];
    let mut filled = 0;
    while filled < bytes.len() {
        // It fails only when a signal interrupts it.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_files_that_cannot_lead_elsewhere() {
        for good in ["a", "build-1.log", "0_", &"x".repeat(128)] {
            assert_eq!(good.parse::<ExecId>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "-a",
            "a b",
            "é",
            "a\0",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<ExecId>().is_err(), "{bad:?}");
        }
        assert_ne!(ExecId::random(), ExecId::random());
        assert!(ExecId::random().as_str().parse::<ExecId>().is_ok());
    }
}
